//! What the program inherits as descriptors 0 to 2.

use nexus_policy::InheritedFds;
use rustix::fs::FileType;
use rustix::process::{Gid, Uid};
use std::os::fd::{AsFd, BorrowedFd};

/// Why a descriptor is not handed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Which of the three.
    pub(crate) name: &'static str,
    /// What it is.
    pub(crate) what: &'static str,
    /// What to do instead.
    pub(crate) help: String,
}

/// Checks the three, and says whether one of them is a file: a socket or a directory reaches past every rule, and a device is not what policy speaks of.
pub(crate) fn check(allowed: InheritedFds) -> Result<bool, Refused> {
    let mut file = false;
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for (name, fd) in [
        ("stdin", stdin.as_fd()),
        ("stdout", stdout.as_fd()),
        ("stderr", stderr.as_fd()),
    ] {
        check_one(name, fd, allowed)?;
        file |= is_file(fd);
    }
    Ok(file)
}

/// Whether a descriptor leads to something that could be opened again for more; a pipe, `/dev/null` and a terminal do
/// not.
fn is_file(fd: BorrowedFd<'_>) -> bool {
    let Ok(stat) = rustix::fs::fstat(fd) else { return false };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo | FileType::Socket => false,
        FileType::CharacterDevice => !(is_null(&stat) || rustix::termios::isatty(fd)),
        _ => true,
    }
}

fn check_one(name: &'static str, fd: BorrowedFd<'_>, allowed: InheritedFds) -> Result<(), Refused> {
    let by_key = |what, key: &str, instead: &str| Refused {
        name,
        what,
        help: format!("{instead}, or set `fds.{key} = true` for the subject in sandbox.toml"),
    };
    let Ok(stat) = rustix::fs::fstat(fd) else { return Ok(()) };
    match FileType::from_raw_mode(stat.st_mode) {
        // A file that was opened for reading is closed against writing when the session is made.
        FileType::Fifo | FileType::RegularFile => Ok(()),
        FileType::Socket if allowed.allow_sockets => Ok(()),
        FileType::Socket => Err(by_key("a socket", "allow_sockets", "use a pipe: `… | cat | nx run …`")),
        FileType::Directory if allowed.allow_directories => Ok(()),
        FileType::Directory => Err(by_key("a directory", "allow_directories", "use `--work DIR`")),
        FileType::CharacterDevice if rustix::termios::isatty(fd) || is_null(&stat) || allowed.allow_devices => Ok(()),
        FileType::BlockDevice if allowed.allow_devices => Ok(()),
        FileType::CharacterDevice | FileType::BlockDevice => {
            Err(by_key("a device", "allow_devices", "use a pipe or `/dev/null`"))
        }
        FileType::Symlink | FileType::Unknown => Err(Refused {
            name,
            what: "neither file, pipe nor terminal",
            help: "use a file, a pipe or `/dev/null`".into(),
        }),
    }
}

/// Gives the pipes among the three to the program's user, where that is not the caller: opening `/dev/stderr` again asks
/// the pipe's mode, which lets nobody in but whoever made it. What has a name in the file system stays as it is.
pub(crate) fn hand_over(uid: u32, gid: u32) {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    for fd in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
        if rustix::fs::fstatfs(fd).is_ok_and(|found| found.f_type == PIPEFS_MAGIC) {
            // A pipe that stays the caller's is open all the same; only opening it again fails.
            let _ = rustix::fs::fchown(fd, Some(uid), Some(gid));
        }
    }
}

/// statfs(2), `f_type` of a pipe without a name.
const PIPEFS_MAGIC: rustix::fs::FsWord = 0x5049_5045;

/// `/dev/null` by its number, not its name: null(4).
fn is_null(stat: &rustix::fs::Stat) -> bool {
    (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)) == (1, 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    const NOTHING: InheritedFds = InheritedFds {
        allow_sockets: false,
        allow_directories: false,
        allow_devices: false,
    };

    fn verdict(fd: impl AsFd, allowed: InheritedFds) -> Option<&'static str> {
        check_one("stdin", fd.as_fd(), allowed)
            .err()
            .map(|refused| refused.what)
    }

    #[test]
    fn pipes_and_files_and_the_null_device_are_handed_on() {
        let (reader, writer) = std::io::pipe().unwrap();
        assert_eq!(verdict(reader, NOTHING), None);
        assert_eq!(verdict(writer, NOTHING), None);
        assert_eq!(verdict(File::open("/proc/self/exe").unwrap(), NOTHING), None);
        assert_eq!(verdict(File::open("/dev/null").unwrap(), NOTHING), None);
    }

    #[test]
    fn sockets_directories_and_devices_are_refused_unless_policy_allows_each() {
        let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let directory = File::open("/").unwrap();
        let device = File::open("/dev/zero").unwrap();
        assert_eq!(verdict(&socket, NOTHING), Some("a socket"));
        assert_eq!(verdict(&directory, NOTHING), Some("a directory"));
        assert_eq!(verdict(&device, NOTHING), Some("a device"));
        assert_eq!(
            verdict(
                &socket,
                InheritedFds {
                    allow_sockets: true,
                    ..NOTHING
                }
            ),
            None
        );
        assert_eq!(
            verdict(
                &directory,
                InheritedFds {
                    allow_directories: true,
                    ..NOTHING
                }
            ),
            None
        );
        assert_eq!(
            verdict(
                &device,
                InheritedFds {
                    allow_devices: true,
                    ..NOTHING
                }
            ),
            None
        );
        assert_eq!(
            verdict(
                &device,
                InheritedFds {
                    allow_sockets: true,
                    ..NOTHING
                }
            ),
            Some("a device")
        );
    }
}
