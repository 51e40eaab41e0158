use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nexus_policy::{ReadError, TreeSource};
use rustix::fs::{CWD, Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use crate::load::LoadError;
use crate::trust::{Owners, is_file};

/// A tree in a directory, opened once: whoever moves it afterwards moves nothing of what is read.
#[derive(Debug)]
pub struct DirectoryTree {
    directory: OwnedFd,
    path: PathBuf,
    /// `None`: whoever may write it, it is only looked at.
    owners: Option<Owners>,
}

/// A directory, opened for nothing but walking on; a symbolic link is refused (open(2), `O_PATH`, `O_NOFOLLOW`).
const WALK: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A file, opened without waiting should it be a pipe, and without a link at its end.
const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

impl DirectoryTree {
    /// Opens the directory of a tree, over links if there are some, and checks every directory that really leads there.
    /// `None`: there is nothing of that name.
    ///
    /// # Errors
    /// [`LoadError::Distrusted`], or what the system says.
    pub fn open(path: &Path, owners: Owners) -> Result<Option<Self>, LoadError> {
        Self::walk(path, Some(owners))
    }

    /// The same for a tree that is read and compared, and under which nothing runs: it may be anybody's.
    ///
    /// # Errors
    /// What the system says.
    pub fn open_untrusted(path: &Path) -> Result<Option<Self>, LoadError> {
        Self::walk(path, None)
    }

    fn walk(path: &Path, owners: Option<Owners>) -> Result<Option<Self>, LoadError> {
        let failed = |error: std::io::Error| LoadError::Unreadable {
            path: path.to_owned(),
            why: error.to_string(),
        };
        let real = match path.canonicalize() {
            Ok(real) => real,
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                // A link that leads nowhere is somebody's mistake, and no reason to go on to the next place.
                return match path.symlink_metadata() {
                    Ok(_) => Err(failed(error)),
                    Err(_) => Ok(None),
                };
            }
            Err(error) => return Err(failed(error)),
        };
        // Once more, part by part and without links, so that what is checked is what is used.
        let mut directory = openat(CWD, "/", WALK, Mode::empty()).map_err(|error| failed(error.into()))?;
        let mut walked = PathBuf::from("/");
        let parts: Vec<_> = real
            .components()
            .filter(|part| matches!(part, Component::Normal(_)))
            .collect();
        for part in parts {
            check(&directory, &walked, |stat| {
                owners.map_or(Ok(()), |owners| owners.ancestor(stat))
            })?;
            directory =
                openat(&directory, part.as_os_str(), WALK, Mode::empty()).map_err(|error| failed(error.into()))?;
            walked.push(part);
        }
        check(&directory, &walked, |stat| {
            owners.map_or(Ok(()), |owners| owners.member(stat))
        })?;
        Ok(Some(Self {
            directory,
            path: walked,
            owners,
        }))
    }

    /// Where the tree really is, without links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn check(
    fd: &OwnedFd,
    path: &Path,
    trusted: impl Fn(&rustix::fs::Stat) -> Result<(), crate::Distrust>,
) -> Result<(), LoadError> {
    let stat = fstat(fd).map_err(|error| LoadError::Unreadable {
        path: path.to_owned(),
        why: std::io::Error::from(error).to_string(),
    })?;
    trusted(&stat).map_err(|why| LoadError::Distrusted {
        path: path.to_owned(),
        why,
    })
}

fn read_error(error: Errno) -> ReadError {
    match error {
        Errno::NOENT | Errno::NOTDIR => ReadError::NotFound,
        Errno::LOOP => ReadError::Leaves,
        // What open(2) says of sockets and of devices that nobody serves.
        Errno::NXIO | Errno::NODEV => ReadError::NotAFile,
        other => ReadError::Io(std::io::Error::from(other).to_string()),
    }
}

impl TreeSource for DirectoryTree {
    fn read(&self, path: &str, bytes_max: usize) -> Result<Vec<u8>, ReadError> {
        let trusted = |stat: &rustix::fs::Stat| {
            self.owners
                .map_or(Ok(()), |owners| owners.member(stat))
                .map_err(|why| ReadError::NotTrusted(format!("{why}; {}", why.help(path))))
        };
        let mut parts: Vec<&str> = path.split('/').collect();
        let Some(name) = parts.pop() else {
            return Err(ReadError::NotFound);
        };
        if parts.iter().chain([&name]).any(|part| matches!(*part, "" | "." | "..")) {
            return Err(ReadError::Leaves);
        }
        let mut walked: Option<OwnedFd> = None;
        for part in parts {
            let here: BorrowedFd<'_> = walked.as_ref().map_or(self.directory.as_fd(), OwnedFd::as_fd);
            let next = openat(here, part, WALK, Mode::empty()).map_err(|error| {
                // `O_PATH | O_DIRECTORY | O_NOFOLLOW` says ENOTDIR of a link as of a file: look which it is.
                let is_link = rustix::fs::statat(here, part, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
                    .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_symlink());
                if is_link { ReadError::Leaves } else { read_error(error) }
            })?;
            trusted(&fstat(&next).map_err(read_error)?)?;
            walked = Some(next);
        }
        let here: BorrowedFd<'_> = walked.as_ref().map_or(self.directory.as_fd(), OwnedFd::as_fd);
        let file = openat(here, name, READ, Mode::empty()).map_err(read_error)?;
        let stat = fstat(&file).map_err(read_error)?;
        if !is_file(&stat) {
            return Err(ReadError::NotAFile);
        }
        trusted(&stat)?;
        // One byte more than may be: the size that the file claims is not what it will give.
        let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
        let mut bytes = Vec::new();
        File::from(file)
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(|error| ReadError::Io(error.to_string()))?;
        if bytes.len() > bytes_max {
            Err(ReadError::TooLarge)
        } else {
            Ok(bytes)
        }
    }
}
