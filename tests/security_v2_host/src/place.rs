//! A place of its own for each test: home, journal, work directory; and an eye on what is left running.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take before a test gives up; nothing is expected to come near it.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The ordinary user that root's tests run as: a number that no distribution assigns.
const ORDINARY: u32 = 54_321;

/// Who starts `nx`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Whoever runs the tests.
    Caller,
    /// An ordinary user, made up by root.
    Ordinary,
}

/// Everybody that this machine's tests can start `nx` as.
#[must_use]
pub fn everybody() -> Vec<Who> {
    if rustix::process::geteuid().is_root() {
        return vec![Who::Caller, Who::Ordinary];
    }
    assert!(
        std::env::var_os("NEXUS_REQUIRE_LIVE").is_none_or(|value| value != "1"),
        "NEXUS_REQUIRE_LIVE=1: only root can try both root and an ordinary user"
    );
    eprintln!("NOT TRIED AS ROOT: these tests run as an ordinary user");
    vec![Who::Caller]
}

/// A test's own directories.
pub struct Place {
    directory: TempDir,
    who: Who,
    mark: String,
}

impl Place {
    /// A place for this user.
    #[must_use]
    pub fn new(who: Who) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mark = format!("{}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = tempfile::Builder::new().prefix("nx-live.").tempdir().unwrap();
        let place = Self { directory, who, mark };
        fs::set_permissions(place.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["home", "state", "work", "bin"] {
            let path = place.directory.path().join(name);
            fs::create_dir(&path).unwrap();
            if who == Who::Ordinary {
                std::os::unix::fs::chown(&path, Some(ORDINARY), Some(ORDINARY)).unwrap();
            }
        }
        // Where the repository stands may be closed to the ordinary user.
        let copy = place.bin().join("nx");
        fs::copy(built(), &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
        place
    }

    /// The directory that the program sees, read-only.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.directory.path().join("work")
    }

    /// Where `nx` stands.
    #[must_use]
    pub fn bin(&self) -> PathBuf {
        self.directory.path().join("bin")
    }

    /// Where journal and areas are.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Writes a file that the program can read and execute.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.work().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// A command of this user, in the work directory, with a clean environment and `nx` in its path.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", self.bin().display()))
            .env("HOME", self.directory.path().join("home"))
            .env("XDG_STATE_HOME", self.state())
            .env("TERM", "dumb")
            // Passed on to the program too, so that everything that it leaves behind can be found.
            .env("LC_NX_TEST", &self.mark)
            .current_dir(self.work());
        if self.who == Who::Ordinary {
            command.uid(ORDINARY).gid(ORDINARY);
        }
        command
    }

    /// `nx run ARGUMENTS…`, with nothing on stdin.
    #[must_use]
    pub fn nx(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(self.bin().join("nx"));
        command.arg("run").args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a shell script of this user, outside of `nx`.
    #[must_use]
    pub fn shell(&self, script: &str) -> Output {
        self.command("/bin/bash").arg("-c").arg(script).stdin(Stdio::null()).output().unwrap()
    }

    /// Processes that were started here and still run, as `PID NAME`.
    #[must_use]
    pub fn running(&self) -> Vec<String> {
        let wanted = format!("LC_NX_TEST={}", self.mark);
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let path = entry.path();
            let Ok(environment) = fs::read(path.join("environ")) else { continue };
            if environment.split(|byte| *byte == 0).any(|pair| pair == wanted.as_bytes()) {
                let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
                found.push(format!("{} {}", entry.file_name().to_string_lossy(), name.trim()));
            }
        }
        found
    }

    /// Sends a signal to every process of this name that was started here.
    pub fn kill(&self, name: &str, signal: &str) {
        let pids: Vec<String> = self
            .running()
            .iter()
            .filter_map(|process| process.split_once(' '))
            .filter(|(_, found)| *found == name)
            .map(|(pid, _)| pid.to_owned())
            .collect();
        assert!(!pids.is_empty(), "no `{name}` runs; what does: {:?}", self.running());
        let status = Command::new("/bin/kill").arg(format!("-{signal}")).args(pids).status().unwrap();
        assert!(status.success());
    }

    /// The states (proc_pid_stat(5)) of the processes of this name that were started here.
    #[must_use]
    pub fn states(&self, name: &str) -> String {
        let processes = self.running();
        let pids = processes.iter().filter_map(|process| process.split_once(' ')).filter(|(_, found)| *found == name);
        pids.filter_map(|(pid, _)| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            stat.rsplit_once(") ")?.1.chars().next()
        })
        .collect()
    }

    /// Waits until every `nx` waits for something to happen, as it does when the program runs.
    pub fn nx_waits(&self) {
        eventually("nx waits", || {
            let states = self.states("nx");
            !states.is_empty() && states.chars().all(|state| state == 'S')
        });
    }

    /// Waits until some `nx` is a stopped job, or until none is.
    pub fn nx_stops(&self, stops: bool) {
        eventually("nx stops or goes on", || self.states("nx").contains('T') == stops);
    }

    /// Waits until nothing that was started here runs any more.
    pub fn becomes_empty(&self) {
        let mut left = Vec::new();
        eventually("everything ends", || {
            left = self.running();
            left.is_empty()
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for process in self.running() {
            let pid = process.split(' ').next().and_then(|pid| pid.parse().ok()).and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// Waits for a condition that nothing tells of.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < DEADLINE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn built() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let nx = test.parent().and_then(Path::parent).unwrap().join("nx");
    assert!(nx.exists(), "build `nx` first: cargo build -p nx");
    nx
}
