//! What will be done, as a value.

use crate::limits::Limits;
use nexus_sys::seccomp::Instruction;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// Everything that decides what a confined process is and sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Who it runs as.
    pub identity: Identity,
    /// The view, in the order in which it is mounted: parents before what is in them.
    pub view: Vec<Entry>,
    /// Where the program starts, inside the view.
    pub directory: PathBuf,
    /// What runs.
    pub program: Program,
    /// The environment, whole.
    pub environment: BTreeMap<OsString, OsString>,
    /// The file mode creation mask: what `nx` itself was started with.
    pub umask: u32,
    /// What it is limited to, and by what.
    pub limits: Limits,
    /// How much IPC it may have.
    pub ipc: Ipc,
    /// The syscall filter.
    pub filter: Vec<Instruction>,
    /// The second fence around the view.
    pub fence: Fence,
}

/// How much shared memory, queues and memory files a session may have. 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipc {
    /// Bytes of System V shared memory: `kernel.shmall` and `kernel.shmmax`.
    pub shm_bytes: u64,
    /// Segments of it: `kernel.shmmni`.
    pub segments: u64,
    /// Bytes of each System V message queue: `kernel.msgmnb` and `kernel.msgmax`.
    pub queue_bytes: u64,
    /// How many of those: `kernel.msgmni`.
    pub queues: u64,
    /// System V semaphores: `kernel.sem`.
    pub semaphores: u64,
    /// Bytes of POSIX message queues: `RLIMIT_MSGQUEUE`, which counts in the session's user namespace.
    pub mqueue_bytes: u64,
    /// Bytes of memory files: they lie in a tmpfs of this size.
    pub memfd_bytes: u64,
    /// Whether this kernel holds a session to the System V limits.
    pub sysv: SysV,
}

/// What becomes of System V IPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SysV {
    /// The kernel bounds it.
    Bounded,
    /// This kernel lets nobody set a namespace's limits: there is none, whatever policy gives.
    Denied,
}

/// What Landlock fences, behind the view itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// Nothing: this kernel does not have Landlock.
    Missing,
    /// Writing, making, removing, starting programs, devices, and signals and abstract sockets to the outside.
    Changes,
    /// Reading and truncating too, which makes opening a file dearer (about 9 % of a tar of small files): where a file
    /// was handed in, so that it cannot be opened again for more than it was given.
    Everything,
}

impl Fence {
    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "unsupported: this kernel does not have it",
            Self::Changes => "changes, programs, devices, signals and abstract sockets",
            Self::Everything => "everything: a file is handed in",
        }
    }
}

/// Who the program runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user on the host, the same number inside. Never 0.
    pub uid: u32,
    /// The group on the host, the same number inside. Never 0.
    pub gid: u32,
    /// Whether `nx` itself is root and takes this identity on for the program.
    pub assumed: bool,
}

/// What runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// As the user wrote it: a path, or a name to look for in the environment's `PATH`.
    pub name: OsString,
    /// All arguments, the name first.
    pub arguments: Vec<OsString>,
}

/// One of the directories that vfsd serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AreaMount {
    /// The subject's `tmp`.
    Tmp,
    /// The subject's `state`.
    State,
    /// Shared memory, charged to `tmp`.
    Shm,
    /// The work directory, metered.
    Work,
}

/// What a program may do in a part of its view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Look, and start programs.
    ReadOnly,
    /// Also change.
    ReadWrite,
}

/// A part of the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// An empty directory.
    Directory {
        /// Where.
        at: PathBuf,
    },
    /// Something of the host's.
    Bind {
        /// On the host.
        source: PathBuf,
        /// Inside.
        at: PathBuf,
        /// What may be done with it.
        access: Access,
    },
    /// A small file of the host's, as it is when the program starts: cheaper than a mount, and as good for what does not
    /// change while a program runs.
    Copy {
        /// On the host and inside.
        at: PathBuf,
    },
    /// A part of a bind that was mounted before, over itself: so that it cannot be renamed, and with its own access.
    Pin {
        /// On the host.
        source: PathBuf,
        /// Inside, within an earlier [`Entry::Bind`].
        at: PathBuf,
        /// What may be done with it.
        access: Access,
    },
    /// A part of the metered work directory, mounted over itself: so that it cannot be renamed, and with its own access.
    PinArea {
        /// Inside, within an earlier [`Entry::Area`].
        at: PathBuf,
        /// What may be done with it.
        access: Access,
    },
    /// Something of the host's that an earlier bind or area shows and that must not be seen.
    Hide {
        /// Inside, within an earlier [`Entry::Bind`] or [`Entry::Area`].
        at: PathBuf,
    },
    /// A symbolic link.
    Link {
        /// Where.
        at: PathBuf,
        /// To what.
        to: PathBuf,
    },
    /// A small file with this content.
    File {
        /// Where.
        at: PathBuf,
        /// What is in it.
        content: Vec<u8>,
    },
    /// One of vfsd's directories.
    Area {
        /// Which.
        area: AreaMount,
        /// Where.
        at: PathBuf,
    },
    /// A device node of the host's `/dev`.
    Device {
        /// Its name there and here.
        name: &'static str,
    },
    /// A terminal file system of its own at `/dev/pts`.
    Terminals,
    /// The process file system of the program's pid namespace at `/proc`.
    Processes,
}

impl Entry {
    /// Where in the view this part is.
    #[must_use]
    pub fn at(&self) -> PathBuf {
        match self {
            Self::Directory { at }
            | Self::Bind { at, .. }
            | Self::Copy { at }
            | Self::Pin { at, .. }
            | Self::PinArea { at, .. }
            | Self::Hide { at }
            | Self::Link { at, .. }
            | Self::File { at, .. }
            | Self::Area { at, .. } => at.clone(),
            Self::Device { name } => PathBuf::from("/dev").join(name),
            Self::Terminals => PathBuf::from("/dev/pts"),
            Self::Processes => PathBuf::from("/proc"),
        }
    }
}
