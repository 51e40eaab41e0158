//! The subject's directories on the host, their content's cost, and the lock that says who serves them.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use nexus_quota::{Amount, charged_bytes};
use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Gid, Mode, OFlags, RawDir, Stat, Uid};
use rustix::io::Errno;

use crate::walk::{Visitor, remove_below, walk_unless};
use crate::{VfsdConfig, VfsdError};

/// What a leftover of a session's `tmp` begins with.
const TMP_PREFIX: &str = "tmp-";

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

fn disk(path: &Path, what: &'static str, source: impl Into<io::Error>) -> VfsdError {
    VfsdError::Disk {
        path: path.display().to_string(),
        what,
        source: source.into(),
    }
}

/// Makes the directory of the socket.
pub(crate) fn make_runtime_dir(path: &Path) -> Result<(), VfsdError> {
    make(path).map_err(|error| disk(path, "made", error))
}

fn make(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Opens the subject's directory, making it if it is missing.
pub(crate) fn open_subject_dir(config: &VfsdConfig) -> Result<OwnedFd, VfsdError> {
    let path = config.subject_dir();
    make(&path).map_err(|error| disk(&path, "made", error))?;
    let dir = rustix::fs::openat(CWD, &path, DIRECTORY, Mode::empty()).map_err(|error| disk(&path, "opened", error))?;
    let stat = rustix::fs::fstat(&dir).map_err(|error| disk(&path, "looked at", error))?;
    let owner = config.owner();
    if stat.st_uid != owner.uid || stat.st_gid != owner.gid {
        if config.identity.is_none() || stat.st_uid != 0 {
            return Err(disk(&path, "used: it belongs to another user or group", Errno::PERM));
        }
        rustix::fs::fchown(&dir, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
            .map_err(|error| disk(&path, "given to the file server's user", error))?;
    }
    rustix::fs::fchmod(&dir, Mode::RWXU).map_err(|error| disk(&path, "closed to others", error))?;
    Ok(dir)
}

/// Takes the lock that only one file server of a subject can hold; `None` while another has it.
///
/// It lies with what it guards, not with the socket: two runtime directories must not lead to two servers. The lock
/// belongs to the open file, so a forked child goes on holding it, and the kernel gives it up with its last holder.
pub(crate) fn lock(config: &VfsdConfig, dir: BorrowedFd<'_>) -> Result<Option<OwnedFd>, VfsdError> {
    let path = config.subject_dir().join("lock");
    // Not for writing: a file system with a file that is open so could not be made read-only under us.
    let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, c"lock", flags, Mode::RUSR | Mode::WUSR)
        .map_err(|error| disk(&path, "opened", error))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(disk(&path, "locked", error)),
    }
}

/// The three directories that are served, and the name of the one that dies with the last session.
#[derive(Debug)]
pub(crate) struct Backing {
    pub(crate) tmp: OwnedFd,
    pub(crate) shm: OwnedFd,
    pub(crate) state: OwnedFd,
    tmp_name: String,
}

impl Backing {
    /// Makes `tmp` and `shm` anew, and `state` if it is missing. The caller has the owner's identity and the lock.
    pub(crate) fn open(subject: BorrowedFd<'_>) -> Result<Self, Errno> {
        let state = make_and_open(subject, c"state", Mode::RWXU)?;
        let mut random = [0_u8; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let tmp_name = format!("{TMP_PREFIX}{:016x}", u64::from_le_bytes(random));
        rustix::fs::mkdirat(subject, tmp_name.as_str(), Mode::RWXU)?;
        let scratch = rustix::fs::openat(subject, tmp_name.as_str(), DIRECTORY, Mode::empty())?;
        // As /tmp is everywhere; nobody else gets past the subject's directory.
        let open_to_all = Mode::RWXU | Mode::RWXG | Mode::RWXO | Mode::SVTX;
        let tmp = make_and_open(scratch.as_fd(), c"tmp", open_to_all)?;
        let shm = make_and_open(scratch.as_fd(), c"shm", open_to_all)?;
        Ok(Self {
            tmp,
            shm,
            state,
            tmp_name,
        })
    }

    /// Removes what killed servers left, except our own. Safe beside another remover.
    pub(crate) fn remove_leftovers(&self, subject: BorrowedFd<'_>) -> Result<(), Errno> {
        remove_scratch(subject, |name| name != self.tmp_name.as_bytes())
    }

    /// Removes our own `tmp` and `shm`.
    pub(crate) fn remove_scratch(&self, subject: BorrowedFd<'_>) -> Result<(), Errno> {
        remove_scratch(subject, |name| name == self.tmp_name.as_bytes())
    }
}

fn make_and_open(dir: BorrowedFd<'_>, name: &CStr, mode: Mode) -> Result<OwnedFd, Errno> {
    let made = match rustix::fs::mkdirat(dir, name, mode) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(errno) => return Err(errno),
    };
    let fd = rustix::fs::openat(dir, name, DIRECTORY, Mode::empty())?;
    if made {
        // The umask has no say here.
        rustix::fs::fchmod(&fd, mode)?;
    }
    Ok(fd)
}

fn remove_scratch(subject: BorrowedFd<'_>, of: impl Fn(&[u8]) -> bool) -> Result<(), Errno> {
    let mut names = Vec::new();
    let listing = rustix::fs::openat(subject, c".", DIRECTORY, Mode::empty())?;
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(&listing, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_bytes().starts_with(TMP_PREFIX.as_bytes()) && of(name.to_bytes()) {
            names.push(name.to_owned());
        }
    }
    for name in names {
        match rustix::fs::openat(subject, &name, DIRECTORY, Mode::empty()) {
            Ok(dir) => remove_below(dir)?,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(errno),
        }
        match rustix::fs::unlinkat(subject, &name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// What everything below `root` costs. The root itself is given, not charged.
pub(crate) fn measure(root: BorrowedFd<'_>) -> Result<Amount, Errno> {
    measure_how(root, false)
}

/// How often a tree that somebody changes meanwhile is measured before that is given up.
const MEASURE_TRIES_MAX: u32 = 5;

/// As [`measure`], for a tree that others may change meanwhile. What its owner may not look into is not counted: nobody
/// reaches it by us.
pub(crate) fn measure_shared(root: BorrowedFd<'_>) -> Result<Amount, Errno> {
    let mut tries = 0;
    loop {
        tries += 1;
        match measure_how(root, true) {
            Err(Errno::STALE) if tries < MEASURE_TRIES_MAX => {}
            other => return other,
        }
    }
}

fn measure_how(root: BorrowedFd<'_>, shared: bool) -> Result<Amount, Errno> {
    #[derive(Default)]
    struct Count {
        used: Amount,
        /// Inodes with several names that were met; bounded by the walk.
        met: HashSet<u64>,
        /// What others preallocated is theirs.
        shared: bool,
    }
    impl Visitor for Count {
        fn entry(&mut self, dir: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<(), Errno> {
            let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let cost = if !directory && stat.st_nlink > 1 && !self.met.insert(stat.st_ino) {
                Amount::LINK
            } else {
                let attributes = attributes_of(dir, name, stat)?;
                let cost = cost_of(stat).ok_or(Errno::OVERFLOW)?;
                if !self.shared {
                    trim(dir, name, stat);
                }
                let attributes = charged_bytes(attributes).ok_or(Errno::OVERFLOW)?;
                cost.checked_add(Amount::of_bytes(attributes)).ok_or(Errno::OVERFLOW)?
            };
            self.used = self.used.checked_add(cost).ok_or(Errno::OVERFLOW)?;
            Ok(())
        }

        fn left(&mut self, _: BorrowedFd<'_>, _: &CStr) -> Result<(), Errno> {
            Ok(())
        }
    }
    let mut count = Count {
        shared,
        ..Count::default()
    };
    let root = rustix::fs::openat(root, c".", DIRECTORY, Mode::empty())?;
    walk_unless(root, &mut count, shared)?;
    Ok(count.used)
}

/// How many bytes the extended attributes of `name` in `dir` have.
fn attributes_of(dir: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<u64, Errno> {
    if !matches!(
        FileType::from_raw_mode(stat.st_mode),
        FileType::RegularFile | FileType::Directory
    ) {
        return Ok(0);
    }
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    let path = CString::new(path).map_err(|_| Errno::INVAL)?;
    match crate::fs::xattr::measure_entry(&path) {
        // Gone meanwhile.
        Err(Errno::NOENT) => Ok(0),
        measured => measured,
    }
}

/// Lets go of what was preallocated past a file's end when its server was killed: lengths are what is charged.
fn trim(dir: BorrowedFd<'_>, name: &CStr, stat: &Stat) {
    let taken = u64::try_from(stat.st_blocks)
        .ok()
        .and_then(|blocks| blocks.checked_mul(512));
    let charged = cost_of(stat).map(|cost| cost.bytes);
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || taken <= charged {
        return;
    }
    // What a host needs beside the data looks the same; such a file stays as it is.
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::openat(dir, name, flags, Mode::empty()) {
        let _ = rustix::fs::ftruncate(&file, u64::try_from(stat.st_size).unwrap_or_default());
    }
}

/// Whether a kind of inode has a length that is what a program wrote: a file's content, a link's target.
///
/// A directory's length is the host's way to keep names.
pub(crate) const fn has_paid_length(kind: FileType) -> bool {
    matches!(kind, FileType::RegularFile | FileType::Symlink)
}

/// What one inode costs: one inode, and the length of a regular file or of a link's target. `None` for a length that no file
/// can have.
pub(crate) fn cost_of(stat: &Stat) -> Option<Amount> {
    let bytes = if has_paid_length(FileType::from_raw_mode(stat.st_mode)) {
        charged_bytes(u64::try_from(stat.st_size).ok()?)?
    } else {
        0
    };
    Some(Amount { bytes, ..Amount::INODE })
}
