//! A place of a test's own, for one user.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::gate::copy_program;
use crate::{User, binary, processes, watch};

/// How long a file server may take to end after its last session: it removes its scratch and syncs its ledger. Only a
/// failing test waits that long.
const QUIET_WITHIN: Duration = Duration::from_secs(20);

/// A home, a state directory, a work directory and a copy of `nx` for one user; gone at its end, with every process and
/// file that came of it, also after a panic.
#[derive(Debug)]
pub struct Home {
    user: User,
    root: TempDir,
}

impl Home {
    /// A fresh one.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn new(user: User) -> Arc<Self> {
        let root = tempfile::Builder::new()
            .prefix("nexus-test-")
            .tempdir()
            .expect("a temporary directory");
        let home = Self { user, root };
        set_mode(home.root.path(), 0o755);
        for (name, mode) in [
            ("bin", 0o755),
            ("home", 0o700),
            ("state", 0o700),
            ("policy", 0o755),
            ("work", 0o755),
        ] {
            let path = home.path(name);
            std::fs::create_dir(&path).expect("a directory of the test's own");
            set_mode(&path, mode);
            home.give(&path);
        }
        copy_program(binary::nx(), &home.nx()).expect("a copy of nx");
        copy_program(binary::program(), &home.work().join("probe")).expect("a copy of the probe");
        Arc::new(home)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Whose it is.
    #[must_use]
    pub const fn user(&self) -> User {
        self.user
    }

    /// The copy of `nx`.
    #[must_use]
    pub fn nx(&self) -> PathBuf {
        self.path("bin").join("nx")
    }

    /// `$HOME`.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// `$XDG_STATE_HOME`.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Where the policy of a run is written.
    #[must_use]
    pub fn policy(&self) -> PathBuf {
        self.path("policy")
    }

    /// The work directory; `probe` is in it.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.path("work")
    }

    /// The journal of its sessions.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.state().join("nexus/journal")
    }

    /// Makes a file or directory the user's.
    ///
    /// # Panics
    /// Where that fails.
    pub fn give(&self, path: &Path) {
        if rustix::process::geteuid().is_root() {
            chown(path, Some(self.user.id()), Some(self.user.id())).expect("root gives away");
        }
    }

    /// Writes a file into the work directory, the user's.
    ///
    /// # Panics
    /// Where that fails.
    pub fn write_work(&self, name: &str, content: &str) -> PathBuf {
        let path = self.work().join(name);
        crate::gate::write(&path, content).expect("a file in the work directory");
        self.give(&path);
        path
    }

    /// Where all of it is.
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// What its commands' processes are told by.
    pub(crate) fn mark(&self) -> String {
        self.root
            .path()
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    /// A command of its user in the work directory, with `nx` and the system in `$PATH` and little else in the environment.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> std::process::Command {
        let mut command = std::process::Command::new(program);
        command
            .env_clear()
            .env(
                "PATH",
                format!("{}:/usr/local/bin:/usr/bin:/bin", self.path("bin").display()),
            )
            .env("HOME", self.home())
            .env("XDG_STATE_HOME", self.state())
            .env("TERM", "dumb")
            .env(watch::MARK, self.mark())
            .current_dir(self.work());
        self.run_as_user(&mut command);
        command
    }

    /// Runs a shell script outside of `nx`, with [`Home::command`]'s surroundings and nothing on stdin.
    ///
    /// # Panics
    /// Where there is no shell.
    pub fn shell(&self, script: &str) -> std::process::Output {
        let mut command = self.command("/bin/bash");
        crate::gate::output(command.arg("-c").arg(script)).expect("bash is there")
    }

    /// Makes a command start as its user.
    pub fn run_as_user(&self, command: &mut std::process::Command) {
        self.user.starts(command);
    }

    /// What is still there of its sessions: processes, and mounts in the caller's own namespace.
    #[must_use]
    pub fn left(&self) -> Vec<String> {
        let processes = processes::of_state(&self.state());
        let mut left: Vec<String> = processes
            .into_iter()
            .map(|(pid, line)| format!("process {pid:?}: {line}"))
            .collect();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = self.root.path().to_string_lossy();
        left.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&*own))
                .map(|line| format!("mount {line}")),
        );
        left
    }

    /// Waits until nothing is left.
    ///
    /// # Panics
    /// Where something is, after a time that no end of a session takes.
    pub fn assert_nothing_left(&self) {
        let until = Instant::now() + QUIET_WITHIN;
        loop {
            let left = self.left();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < until, "left behind: {left:#?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode of one's own file");
}

impl Drop for Home {
    fn drop(&mut self) {
        // After a test that went well only a file server may still be about to end; it is given the time.
        let until = Instant::now()
            + if std::thread::panicking() {
                Duration::ZERO
            } else {
                QUIET_WITHIN
            };
        while Instant::now() < until && !processes::of_state(&self.state()).is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        processes::kill_of_state(&self.state());
        for process in self.processes() {
            // One that is gone by itself needs no signal.
            let _ = rustix::process::kill_process(process.pid, rustix::process::Signal::KILL);
        }
    }
}
