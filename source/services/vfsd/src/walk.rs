//! Walking a tree that somebody else shaped: any depth, any names, links anywhere.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;

/// How many inodes a walk looks at before it gives up: more than any budget that a scan at each start can serve.
pub(crate) const WALK_INODES_MAX: u64 = 1 << 26;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// What a walk meets.
pub(crate) trait Visitor {
    /// An entry of `dir` that is not `.` or `..`; a directory is entered after this.
    fn entry(&mut self, dir: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<(), Errno>;

    /// The directory `name` of `dir` was left.
    fn left(&mut self, dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno>;
}

struct Level {
    name: CString,
    inode: (u64, u64),
    below: Vec<CString>,
}

/// Walks everything below `root` with two descriptors at a time, however deep it is; never follows a link, never
/// leaves the file system of `root`.
///
/// Nobody else may change the tree meanwhile: the caller holds the subject's lock.
pub(crate) fn walk(root: OwnedFd, visitor: &mut impl Visitor) -> Result<(), Errno> {
    walk_unless(root, visitor, false)
}

/// As [`walk`]; with `closed_too`, what is in a directory that may not be entered is left out instead of failing.
pub(crate) fn walk_unless(root: OwnedFd, visitor: &mut impl Visitor, closed_too: bool) -> Result<(), Errno> {
    let mut seen = 0_u64;
    let mut at = rustix::fs::openat(&root, c".", DIRECTORY, Mode::empty())?;
    let inode = identity(&rustix::fs::fstat(&at)?);
    let mut levels = vec![Level {
        name: CString::default(),
        inode,
        below: read(&at, inode.0, visitor, &mut seen)?,
    }];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.below.pop() {
            let child = match rustix::fs::openat(&at, &name, DIRECTORY, Mode::empty()) {
                Ok(child) => child,
                Err(Errno::NOENT) => continue,
                Err(Errno::ACCESS) if closed_too => continue,
                // In a tree that others change it may be something else by now.
                Err(Errno::NOTDIR | Errno::LOOP) if closed_too => continue,
                Err(errno) => return Err(errno),
            };
            let inode = identity(&rustix::fs::fstat(&child)?);
            let below = read(&child, inode.0, visitor, &mut seen)?;
            levels.push(Level { name, inode, below });
            at = child;
            continue;
        }
        let Some(done) = levels.pop() else { break };
        let Some(parent) = levels.last() else { break };
        at = rustix::fs::openat(&at, c"..", DIRECTORY, Mode::empty())?;
        if identity(&rustix::fs::fstat(&at)?) != parent.inode {
            // Somebody moved the directory while we were in it.
            return Err(Errno::STALE);
        }
        visitor.left(at.as_fd(), &done.name)?;
    }
    Ok(())
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// Shows every entry of `dir` and returns the names of its directories.
fn read(dir: &OwnedFd, dev: u64, visitor: &mut impl Visitor, seen: &mut u64) -> Result<Vec<CString>, Errno> {
    let mut below = Vec::new();
    let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        *seen = seen.saturating_add(1);
        if *seen > WALK_INODES_MAX {
            return Err(Errno::OVERFLOW);
        }
        let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(errno),
        };
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if directory && stat.st_dev != dev {
            // Something is mounted inside: neither ours to count nor ours to remove.
            return Err(Errno::XDEV);
        }
        visitor.entry(dir.as_fd(), name, &stat)?;
        if directory {
            below.push(name.to_owned());
        }
    }
    Ok(below)
}

/// Removes everything below `root`.
pub(crate) fn remove_below(root: OwnedFd) -> Result<(), Errno> {
    struct Remove;
    impl Visitor for Remove {
        fn entry(&mut self, dir: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<(), Errno> {
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                return Ok(());
            }
            missing_is_fine(rustix::fs::unlinkat(dir, name, AtFlags::empty()))
        }

        fn left(&mut self, dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
            missing_is_fine(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR))
        }
    }
    walk(root, &mut Remove)
}

fn missing_is_fine(result: Result<(), Errno>) -> Result<(), Errno> {
    if result == Err(Errno::NOENT) { Ok(()) } else { result }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts what it meets, and goes no way back up.
    struct Meet(u64);

    impl Visitor for Meet {
        fn entry(&mut self, _: BorrowedFd<'_>, _: &CStr, _: &Stat) -> Result<(), Errno> {
            self.0 += 1;
            Ok(())
        }

        fn left(&mut self, _: BorrowedFd<'_>, _: &CStr) -> Result<(), Errno> {
            Err(Errno::CANCELED)
        }
    }

    fn open(path: &str) -> OwnedFd {
        rustix::fs::open(path, DIRECTORY, Mode::empty()).unwrap()
    }

    #[test]
    fn a_walk_ends_where_something_else_is_mounted() {
        // `/proc` is always something else.
        assert_eq!(walk(open("/"), &mut Meet(0)), Err(Errno::XDEV));
        let mut met = Meet(0);
        assert_eq!(walk(open("/proc/self/fdinfo"), &mut met), Ok(()));
        assert!(met.0 > 0);
    }
}
