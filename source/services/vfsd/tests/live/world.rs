//! What a case runs in.

use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nexus_quota::Budget;
use nexus_sys::process::{CloneFlags, Fork, clone, exit_now};
use nexus_wire::vfs::{Budgets, Event};
use rustix::fs::CWD;
use rustix::mount::MoveMountFlags;
use vfsd::{Identity, VfsdConfig, VfsdConnection, VfsdError, VfsdMessage, WorkConfig, join};

/// An unprivileged user that nobody is.
pub(crate) const USER: u32 = 64123;

pub(crate) const KIB: u64 = 1024;
pub(crate) const MIB: u64 = 1024 * KIB;

/// Who starts the file server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// An ordinary user.
    User,
    /// Root, who has it become somebody else.
    Root,
}

impl Mode {
    pub(crate) const ALL: [Self; 2] = [Self::User, Self::Root];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Root => "root",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// Whether cases can run like this here, and if not, why.
    pub(crate) fn possible(self) -> Result<(), String> {
        let root = rustix::process::geteuid().is_root();
        let device = std::fs::metadata("/dev/fuse").map_err(|error| format!("no `/dev/fuse`: {error}"))?;
        match self {
            Self::Root if !root => Err("not run by root".to_owned()),
            Self::User if device.permissions().mode() & 0o006 != 0o006 => {
                Err("`/dev/fuse` is not open to everybody: `chmod 666 /dev/fuse`".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Whom a case's process has to become.
    pub(crate) fn start_as(self) -> Option<u32> {
        (self == Self::User && rustix::process::geteuid().is_root()).then_some(USER)
    }

    fn identity(self) -> Option<Identity> {
        (self == Self::Root).then_some(Identity { uid: USER, gid: USER })
    }
}

/// A directory for one case.
pub(crate) fn make_root(mode: Mode) -> PathBuf {
    let mut random = [0_u8; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).unwrap();
    let root = std::env::temp_dir().join(format!("vfsd-test-{:016x}", u64::from_le_bytes(random)));
    for dir in [
        "",
        "base",
        "run",
        "mnt",
        "mnt/tmp",
        "mnt/state",
        "mnt/shm",
        "mnt/work",
        "work",
    ] {
        let dir = root.join(dir);
        std::fs::create_dir(&dir).unwrap();
        if let Some(user) = mode.start_as() {
            std::os::unix::fs::chown(&dir, Some(user), Some(user)).unwrap();
        }
    }
    root
}

/// Opens a file for reading and writing, and makes it where it is missing.
pub(crate) fn open_or_make(path: &Path) -> std::fs::File {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.open(path).unwrap()
}

/// Waits until no file server has the case's files any more, and removes them.
pub(crate) fn remove_root(root: &Path) -> Result<(), String> {
    let until = Instant::now() + Duration::from_secs(60);
    while !unlocked(&root.join("base/subjects")) {
        if Instant::now() > until {
            return Err(format!("a file server still holds `{}`", root.display()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    // A server may still be removing its scratch.
    while let Err(error) = std::fs::remove_dir_all(root) {
        if Instant::now() > until {
            return Err(format!("`{}` could not be removed: {error}", root.display()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn unlocked(subjects: &Path) -> bool {
    let Ok(subjects) = std::fs::read_dir(subjects) else {
        return true;
    };
    subjects.flatten().all(|subject| {
        let Ok(lock) = std::fs::File::open(subject.path().join("lock")) else {
            return true;
        };
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
    })
}

/// Everything that a case needs.
#[derive(Debug)]
pub(crate) struct World {
    mode: Mode,
    root: PathBuf,
}

/// Where the areas are mounted, in a session's process.
#[derive(Clone, Debug)]
pub(crate) struct Dirs {
    pub(crate) tmp: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) shm: PathBuf,
    pub(crate) work: PathBuf,
}

pub(crate) fn budget(hard_bytes: u64, hard_inodes: u64) -> Budget {
    Budget {
        soft_bytes: None,
        hard_bytes,
        hard_inodes,
    }
}

impl World {
    pub(crate) fn new(mode: Mode, root: PathBuf) -> Self {
        Self { mode, root }
    }

    pub(crate) fn config(&self, tmp: Budget, state: Budget) -> VfsdConfig {
        VfsdConfig {
            base_dir: self.root.join("base"),
            runtime_dir: self.root.join("run"),
            subject: "demo".to_owned(),
            budgets: Budgets {
                tmp,
                state,
                work: Budget::NOTHING,
            },
            policy: "0123456789abcdef".to_owned(),
            identity: self.mode.identity(),
            markers: None,
            work: None,
            places: Vec::new(),
        }
    }

    /// A directory of the user's, outside of what nexus keeps.
    pub(crate) fn work_dir(&self) -> PathBuf {
        self.root.join("work")
    }

    /// Asks for a directory to be metered, by this much; root lends it to the file server's user.
    pub(crate) fn work_config(&self, directory: &Path, work: Budget) -> VfsdConfig {
        let mut config = self.config(budget(MIB, 100), budget(MIB, 100));
        config.budgets.work = work;
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        let mut fd = rustix::fs::open(directory, flags, rustix::fs::Mode::empty()).unwrap();
        if self.mode == Mode::Root {
            fd = nexus_sys::mount::lend(&fd, (0, 0), (USER, USER)).unwrap();
        }
        config.work = Some(WorkConfig {
            directory: std::sync::Arc::new(fd),
            held: Vec::new(),
        });
        config
    }

    /// Joins with a metered work directory.
    pub(crate) fn join_work(&self, directory: &Path, work: Budget) -> VfsdConnection {
        join(&self.work_config(directory, work)).unwrap()
    }

    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// Joins with room for everything.
    pub(crate) fn join_roomy(&self) -> VfsdConnection {
        self.join(budget(256 * MIB, 100_000), budget(256 * MIB, 100_000))
    }

    pub(crate) fn join(&self, tmp: Budget, state: Budget) -> VfsdConnection {
        self.try_join(tmp, state).unwrap()
    }

    pub(crate) fn try_join(&self, tmp: Budget, state: Budget) -> Result<VfsdConnection, VfsdError> {
        join(&self.config(tmp, state))
    }

    /// Puts the subject's files on a host's file system of only so many bytes, seen by this process and its children.
    pub(crate) fn enter_small_host(&self, bytes: u64) {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        nexus_sys::userns::unshare_user_and_mounts().unwrap();
        nexus_sys::userns::map_self(uid, gid).unwrap();
        let options = std::ffi::CString::new(format!("size={bytes},mode=700")).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", self.root.join("base"), "tmpfs", flags, options.as_c_str()).unwrap();
    }

    /// A directory beside the subject's files, on the same file system, that the program inside may use.
    pub(crate) fn bare_dir(&self) -> PathBuf {
        let dir = self.root.join("bare");
        std::fs::create_dir(&dir).unwrap();
        if self.mode == Mode::Root {
            std::os::unix::fs::chown(&dir, Some(USER), Some(USER)).unwrap();
        }
        dir
    }

    /// Where the subject's files lie on the host.
    pub(crate) fn subject_dir(&self) -> PathBuf {
        self.root.join("base/subjects/demo")
    }

    pub(crate) fn dirs(&self) -> Dirs {
        let mnt = self.root.join("mnt");
        Dirs {
            tmp: mnt.join("tmp"),
            state: mnt.join("state"),
            shm: mnt.join("shm"),
            work: mnt.join("work"),
        }
    }

    /// Runs `act` as a session's program: in a user and mount namespace of its own, beside the file server's, with the
    /// areas mounted. Once for each connection: what it gets can be mounted once.
    pub(crate) fn inside(&self, connection: &VfsdConnection, act: impl FnOnce(&Dirs)) {
        self.begin(connection, act).end();
    }

    /// As [`World::inside`], without waiting for it.
    pub(crate) fn begin(&self, connection: &VfsdConnection, act: impl FnOnce(&Dirs)) -> Inside {
        match clone(CloneFlags::NONE).unwrap() {
            Fork::Parent(child) => Inside { pid: child.pid },
            Fork::Child => {
                let result = catch_unwind(AssertUnwindSafe(|| {
                    let dirs = self.enter(connection);
                    act(&dirs);
                }));
                exit_now(i32::from(result.is_err()))
            }
        }
    }

    fn enter(&self, connection: &VfsdConnection) -> Dirs {
        if self.mode == Mode::Root {
            let id = rustix::fs::Uid::from_raw(USER);
            let group = rustix::fs::Gid::from_raw(USER);
            rustix::thread::set_thread_groups(&[]).unwrap();
            rustix::thread::set_thread_res_gid(group, group, group).unwrap();
            rustix::thread::set_thread_res_uid(id, id, id).unwrap();
            // Changing the user made this process's own files in /proc root's.
            rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable).unwrap();
        }
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        nexus_sys::userns::unshare_user_and_mounts().unwrap();
        nexus_sys::userns::map_self(uid, gid).unwrap();
        let dirs = self.dirs();
        let areas = [
            (&connection.tmp, &dirs.tmp),
            (&connection.state, &dirs.state),
            (&connection.shm, &dirs.shm),
        ];
        let work = connection.work.as_ref().map(|work| (work, &dirs.work));
        for (mount, at) in areas.into_iter().chain(work) {
            rustix::mount::move_mount(mount, "", CWD, at.as_path(), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).unwrap();
        }
        // A program has no capabilities: access modes mean something to it.
        let none = rustix::thread::CapabilitySet::empty();
        let sets = rustix::thread::CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        };
        rustix::thread::set_capabilities(None, sets).unwrap();
        dirs
    }

    /// The next event, waited for.
    pub(crate) fn event(&self, connection: &mut VfsdConnection) -> Event {
        match self.message(connection) {
            VfsdMessage::Event(event) => event,
            lost @ VfsdMessage::Lost { .. } => panic!("an event, not {lost:?}"),
        }
    }

    pub(crate) fn message(&self, connection: &mut VfsdConnection) -> VfsdMessage {
        loop {
            if let Some(message) = connection.next_message().unwrap() {
                return message;
            }
            let timeout = rustix::event::Timespec { tv_sec: 60, tv_nsec: 0 };
            let ready = rustix::event::poll(
                &mut [rustix::event::PollFd::new(
                    &connection.session,
                    rustix::event::PollFlags::IN,
                )],
                Some(&timeout),
            );
            assert!(ready.unwrap() > 0, "an event comes");
        }
    }

    /// What the ledger would be if it were measured now: bytes and inodes of a directory on the host.
    pub(crate) fn measure(dir: &Path) -> (u64, u64) {
        let mut sum = (0, 0);
        let mut met = std::collections::HashSet::new();
        let mut todo = vec![dir.to_path_buf()];
        while let Some(dir) = todo.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                let metadata = entry.path().symlink_metadata().unwrap();
                if !met.insert(std::os::unix::fs::MetadataExt::ino(&metadata)) {
                    continue;
                }
                sum.1 += 1;
                if metadata.is_file() || metadata.is_symlink() {
                    sum.0 += metadata.len().div_ceil(4096) * 4096;
                } else if metadata.is_dir() {
                    todo.push(entry.path());
                }
            }
        }
        sum
    }
}

/// A session's program that runs.
#[derive(Debug)]
pub(crate) struct Inside {
    pub(crate) pid: i32,
}

impl Inside {
    /// Waits until the program is inside system call `number` with `fd` as its first argument and gets no further for now.
    pub(crate) fn wait_asleep_in(&self, number: i64, fd: i32) {
        wait_asleep_in(&format!("/proc/{}", self.pid), number, fd);
    }

    pub(crate) fn end(self) {
        let pid = rustix::process::Pid::from_raw(self.pid);
        let status = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty())
            .unwrap()
            .unwrap()
            .1;
        assert_eq!(status.exit_status(), Some(0), "the program inside failed");
    }
}

/// As [`Inside::wait_asleep_in`], of a thread by its directory in `/proc` (proc_pid_syscall(5)).
pub(crate) fn wait_asleep_in(thread: &str, number: i64, fd: i32) {
    let wanted = format!("{number} {fd:#x} ");
    eventually(&format!("it sleeps in {wanted}"), || {
        std::fs::read_to_string(format!("{thread}/syscall")).is_ok_and(|said| said.starts_with(&wanted))
    });
}

/// The version of the kernel that runs.
pub(crate) fn kernel() -> (u32, u32) {
    let name = rustix::system::uname();
    let release = name.release().to_str().unwrap();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or_default());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
}

/// The errno of a failed operation.
pub(crate) fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.expect_err("it is refused").raw_os_error().unwrap()
}

/// Waits until it holds, much longer than it takes.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
