//! When to look at a directory again.

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{AtFlags, CWD, statat};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// How much the kernel may say of the directory at once; what does not fit is said at the next read.
const NOTICES_BYTES: usize = 4096;

/// How often is looked where the kernel does not tell: soon enough for a person, seldom enough to cost nothing.
const EVERY_NS: i64 = 250_000_000;

/// What becomes readable when there is something to look at.
#[derive(Debug)]
pub(crate) enum Notices {
    /// The kernel tells of each change: inotify(7).
    Told(OwnedFd),
    /// This user has as many of those as it may (`fs.inotify.max_user_instances`, 128 as a rule): it is looked every so often,
    /// whether there is something or not. timerfd_create(2).
    Timed {
        timer: OwnedFd,
        path: PathBuf,
        directory: (u64, u64),
    },
}

impl Notices {
    /// Of what happens in this directory, which has this device and inode.
    pub(crate) fn of(path: &Path, directory: (u64, u64)) -> Result<Self, Errno> {
        match told(path) {
            Ok(fd) => Ok(Self::Told(fd)),
            // Too many instances, or too many watches.
            Err(Errno::MFILE | Errno::NOSPC) => Ok(Self::Timed {
                timer: timer()?,
                path: path.to_owned(),
                directory,
            }),
            Err(errno) => Err(errno),
        }
    }

    /// Whether nobody tells, and it is looked again and again.
    pub(crate) const fn is_timed(&self) -> bool {
        matches!(self, Self::Timed { .. })
    }

    /// Takes what was told.
    ///
    /// # Errors
    /// `ENOENT` once the directory is gone or has another name.
    pub(crate) fn take(&self) -> Result<(), Errno> {
        match self {
            Self::Told(fd) => drain(fd),
            Self::Timed { timer, path, directory } => {
                match rustix::io::read(timer, &mut [0; size_of::<u64>()]) {
                    Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(errno) => return Err(errno),
                }
                let stat = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
                if (stat.st_dev, stat.st_ino) == *directory {
                    Ok(())
                } else {
                    Err(Errno::NOENT)
                }
            }
        }
    }
}

impl AsFd for Notices {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Told(fd) | Self::Timed { timer: fd, .. } => fd.as_fd(),
        }
    }
}

fn told(path: &Path) -> Result<OwnedFd, Errno> {
    let notices = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let wanted = WatchFlags::MODIFY
        | WatchFlags::CREATE
        | WatchFlags::MOVED_TO
        | WatchFlags::DELETE
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF
        | WatchFlags::ONLYDIR
        | WatchFlags::DONT_FOLLOW;
    inotify::add_watch(&notices, path, wanted)?;
    Ok(notices)
}

fn drain(notices: &OwnedFd) -> Result<(), Errno> {
    let mut space = [MaybeUninit::<u8>::uninit(); NOTICES_BYTES];
    let mut reader = inotify::Reader::new(notices, &mut space);
    let ended = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::IGNORED | ReadFlags::UNMOUNT;
    loop {
        match reader.next() {
            Ok(notice) if notice.events().intersects(ended) => return Err(Errno::NOENT),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
}

fn timer() -> Result<OwnedFd, Errno> {
    let timer = timerfd_create(
        TimerfdClockId::Monotonic,
        TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
    )?;
    let every = Timespec {
        tv_sec: 0,
        tv_nsec: EVERY_NS,
    };
    let setting = Itimerspec {
        it_interval: every,
        it_value: every,
    };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &setting)?;
    Ok(timer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};

    fn identity(path: &Path) -> (u64, u64) {
        let stat = statat(CWD, path, AtFlags::empty()).unwrap();
        (stat.st_dev, stat.st_ino)
    }

    fn waits(notices: &Notices) {
        poll(&mut [PollFd::new(notices, PollFlags::IN)], None).unwrap();
    }

    #[test]
    fn by_a_timer_it_is_looked_again_and_again_until_the_directory_is_gone() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("journal");
        std::fs::create_dir(&path).unwrap();
        let notices = Notices::Timed {
            timer: timer().unwrap(),
            path: path.clone(),
            directory: identity(&path),
        };
        for _ in 0..2 {
            waits(&notices);
            assert_eq!(notices.take(), Ok(()));
        }
        std::fs::rename(&path, place.path().join("away")).unwrap();
        assert_eq!(notices.take(), Err(Errno::NOENT));
        std::fs::create_dir(&path).unwrap();
        assert_eq!(notices.take(), Err(Errno::NOENT), "another one of its name");
    }

    #[test]
    fn where_the_kernel_tells_nobody_looks_in_vain() {
        let place = tempfile::tempdir().unwrap();
        let notices = Notices::of(place.path(), identity(place.path())).unwrap();
        if notices.is_timed() {
            return;
        }
        assert_eq!(notices.take(), Ok(()));
        std::fs::write(place.path().join("file"), "").unwrap();
        waits(&notices);
        assert_eq!(notices.take(), Ok(()));
        std::fs::remove_dir_all(place.path()).unwrap();
        waits(&notices);
        assert_eq!(notices.take(), Err(Errno::NOENT));
    }
}
