use crate::JournalError;
use crate::limits::FILES_MOST;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, mkdir, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The file that is written.
pub(crate) const CURRENT: &str = "journal.jsonl";
/// The file that writers lock.
pub(crate) const LOCK: &str = "journal.lock";
/// What was cut off last, for whoever wants to look.
pub(crate) const TORN: &str = "journal.torn";

/// The name of the `index`th file: 0 is the one that is written, higher ones are older.
pub(crate) fn file_name(index: u32) -> String {
    if index == 0 {
        CURRENT.to_owned()
    } else {
        format!("journal.{index}.jsonl")
    }
}

/// The index of a file's name, if [`file_name`] gives that name.
fn index_of(name: &str) -> Option<u32> {
    if name == CURRENT {
        return Some(0);
    }
    let index = name.strip_prefix("journal.")?.strip_suffix(".jsonl")?.parse().ok()?;
    if index != 0 && file_name(index) == name {
        Some(index)
    } else {
        None
    }
}

/// The directory that a journal lives in. Every file is reached from here and never through a link.
#[derive(Debug)]
pub(crate) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

impl Directory {
    /// Opens the directory, making its last part where it is missing.
    pub(crate) fn open_or_make(path: &Path) -> Result<Self, JournalError> {
        match mkdir(path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => Self::open(path),
            Err(errno) => Err(JournalError::Io {
                what: "make the directory",
                path: path.to_owned(),
                errno,
            }),
        }
    }

    /// Opens the directory, which must be this user's and writable by nobody else.
    pub(crate) fn open(path: &Path) -> Result<Self, JournalError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let io = |what| {
            move |errno| JournalError::Io {
                what,
                path: path.to_owned(),
                errno,
            }
        };
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(io("open the directory"))?;
        let stat = fstat(&fd).map_err(io("look at the directory"))?;
        check(&stat, FileType::Directory, 0o022, path)?;
        Ok(Self {
            fd,
            path: path.to_owned(),
        })
    }

    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The error of an operation on a file in here.
    pub(crate) fn failed(&self, what: &'static str, name: &str) -> impl FnOnce(Errno) -> JournalError {
        let path = self.path_of(name);
        move |errno| JournalError::Io { what, path, errno }
    }

    /// Opens a file of this user's in here; `None` where there is none and none is to be made.
    pub(crate) fn file(&self, name: &str, flags: OFlags) -> Result<Option<(OwnedFd, Stat)>, JournalError> {
        // NONBLOCK: something that is no file, such as a fifo, must not hold us up before it is refused.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = match openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(self.failed("open", name)(errno)),
        };
        let stat = fstat(&fd).map_err(self.failed("look at", name))?;
        check(&stat, FileType::RegularFile, 0o077, &self.path_of(name))?;
        Ok(Some((fd, stat)))
    }

    /// What stands under a name now; `None` for nothing.
    pub(crate) fn stat(&self, name: &str) -> Result<Option<Stat>, JournalError> {
        match statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed("look at", name)(errno)),
        }
    }

    /// Renames a file over another; nothing where there is none.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), JournalError> {
        match renameat(&self.fd, from, &self.fd, to) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.failed("rename", from)(errno)),
        }
    }

    /// Removes a file; nothing where there is none.
    pub(crate) fn remove(&self, name: &str) -> Result<(), JournalError> {
        match unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.failed("remove", name)(errno)),
        }
    }

    /// The indices of the journal's files that are there, newest first. Names that are not the journal's own are passed
    /// over.
    pub(crate) fn indices(&self) -> Result<Vec<u32>, JournalError> {
        let mut indices = Vec::new();
        for entry in Dir::read_from(&self.fd).map_err(self.failed("list", "."))? {
            let entry = entry.map_err(self.failed("list", "."))?;
            let index = entry.file_name().to_str().ok().and_then(index_of);
            indices.extend(index.filter(|index| *index < FILES_MOST));
        }
        indices.sort_unstable();
        Ok(indices)
    }

    /// Makes names that were changed in here last through a power cut.
    pub(crate) fn sync(&self) -> Result<(), JournalError> {
        rustix::fs::fsync(&self.fd).map_err(self.failed("sync", "."))
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn check(stat: &Stat, kind: FileType, refused_bits: u32, path: &Path) -> Result<(), JournalError> {
    let wrong = if FileType::from_raw_mode(stat.st_mode) != kind {
        if kind == FileType::Directory {
            "no directory"
        } else {
            "no regular file"
        }
    } else if stat.st_uid != rustix::process::geteuid().as_raw() {
        "another user's"
    } else if stat.st_mode & refused_bits != 0 {
        "open to other users"
    } else {
        return Ok(());
    };
    Err(JournalError::NotOurs {
        path: path.to_owned(),
        wrong,
    })
}

/// Writes all of it, at the file's position or its end.
pub(crate) fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(0) => return Err(Errno::NOSPC),
            Ok(written) => bytes = bytes.get(written..).unwrap_or(&[]),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_are_given_lead_back_to_an_index() {
        for index in [0, 1, 7, 10, 999] {
            assert_eq!(index_of(&file_name(index)), Some(index));
        }
        for name in [
            "journal.0.jsonl",
            "journal.01.jsonl",
            "journal.+1.jsonl",
            "journal..jsonl",
            "journal.key",
            "x",
        ] {
            assert_eq!(index_of(name), None, "{name}");
        }
    }
}
