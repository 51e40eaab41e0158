//! A session's cgroup: made before its first process, which is born in it, and removed after its last.

use super::place::{Lack, Place, read};
use crate::limits::{Limit, Limits};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a session's cgroup is called, before the session's id.
const PREFIX: &str = "nx-";

/// What the cgroup of this session is called.
pub(super) fn name_of(id: &str) -> String {
    format!("{PREFIX}{id}")
}

/// What the leaf is called into which a caller moves that was alone in its cgroup, before the session's id.
const LEAF_PREFIX: &str = "nx-front-";

/// A session's id in a cgroup's name: so many hexadecimal digits. Any other name is not ours to remove.
const ID_BYTES: usize = 12;

/// How many entries of a cgroup are looked at for leftovers: more sessions at once than a machine has room for.
const ENTRIES_MAX: usize = 4096;

/// How often a cgroup whose last process has just ended is tried again, with [`PAUSE`] between.
const TRIES_MAX: usize = 100;
const PAUSE: Duration = Duration::from_millis(2);

/// A session's cgroup. Its directory is locked as long as the process lives that made it, so that a session that begins
/// can tell a leftover from one that is in use.
///
/// Dropping it closes it and leaves it where it is; see [`Group::remove`].
#[derive(Debug)]
pub struct Group {
    directory: OwnedFd,
    path: PathBuf,
    leaf: Option<Leaf>,
}

impl Group {
    /// Makes the cgroup of session `id` and sets its limits; removes what sessions left that could not.
    ///
    /// For a place that is the caller's own cgroup ([`Place::within`]) the caller moves into a leaf of it.
    ///
    /// # Errors
    /// [`Lack::Refused`]; nothing is changed then.
    pub fn make(place: &Place, id: &str, limits: &Limits) -> Result<Self, Lack> {
        let leaf = place.is_within().then(|| Leaf::enter(place.path(), id)).transpose()?;
        sweep(place.path());
        let path = place.path().join(name_of(id));
        let made = make_locked(&path).map_err(refused("make a cgroup", place.path()));
        let directory = match made {
            Ok(directory) => directory,
            Err(lack) => {
                leaf.into_iter().for_each(Leaf::leave);
                return Err(lack);
            }
        };
        let group = Self { directory, path, leaf };
        if let Err(errno) = group.limit(limits) {
            let lack = refused("set a limit", &group.path)(errno);
            group.remove();
            return Err(lack);
        }
        Ok(group)
    }

    fn limit(&self, limits: &Limits) -> Result<(), Errno> {
        let set = |name: &str, value: &str| write(&self.directory, name, value);
        let value = |limit: &Option<Limit>| limit.as_ref().map(|limit| limit.value.to_string());
        if let Some(bytes) = value(&limits.memory) {
            set("memory.max", &bytes)?;
            // What is swapped out is used all the same. A kernel that does not swap has no such file.
            match set("memory.swap.max", "0") {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
            // A program without some of its processes is in a state that nobody has tested.
            set("memory.oom.group", "1")?;
        }
        match value(&limits.processes) {
            Some(count) => set("pids.max", &count),
            None => Ok(()),
        }
    }

    /// Whether the kernel ended processes here because the memory limit was reached. memory.events, `oom_kill`.
    #[must_use]
    pub fn ran_out_of_memory(&self) -> bool {
        read(&self.path.join("memory.events")).is_some_and(|text| count(&text, "oom_kill") > 0)
    }

    /// Ends whatever is left in it, and removes it. A cgroup that the kernel still holds after that is removed when the
    /// next session begins.
    pub fn remove(self) {
        let Self { directory, path, leaf } = self;
        // Linux 5.14.
        let _ = write(&directory, "cgroup.kill", "1");
        for _ in 0..TRIES_MAX {
            if rustix::fs::rmdir(&path) != Err(Errno::BUSY) {
                break;
            }
            // The kernel ends what is left in its own time.
            std::thread::sleep(PAUSE);
        }
        leaf.into_iter().for_each(Leaf::leave);
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// Where the caller stays while its own cgroup has sub-groups with controllers.
#[derive(Debug)]
struct Leaf {
    own: PathBuf,
    leaf: PathBuf,
    _directory: OwnedFd,
}

impl Leaf {
    fn enter(own: &Path, id: &str) -> Result<Self, Lack> {
        let leaf = own.join(format!("{LEAF_PREFIX}{id}"));
        let directory = make_locked(&leaf).map_err(refused("make a cgroup", own))?;
        let moved = write(&directory, "cgroup.procs", "0");
        let entered = Self {
            own: own.to_owned(),
            leaf,
            _directory: directory,
        };
        if let Err(errno) = moved {
            entered.leave();
            return Err(refused("move a process", own)(errno));
        }
        if let Err(errno) = write_at(&own.join("cgroup.subtree_control"), "+memory +pids") {
            entered.leave();
            return Err(refused("pass controllers on", own)(errno));
        }
        Ok(entered)
    }

    /// Puts everything back. A file server that was started from here stays in the leaf, which then is a leftover.
    fn leave(self) {
        let _ = write_at(&self.own.join("cgroup.subtree_control"), "-memory -pids");
        let _ = write_at(&self.own.join("cgroup.procs"), "0");
        let _ = rustix::fs::rmdir(&self.leaf);
    }
}

fn refused<'p>(step: &'static str, at: &'p Path) -> impl Fn(Errno) -> Lack + 'p {
    move |errno| Lack::Refused {
        step,
        at: at.to_owned(),
        errno,
    }
}

fn make_locked(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::mkdir(path, Mode::from_raw_mode(0o755))?;
    // Somebody who sweeps between these calls removes it, and what is done with it fails.
    open_locked(path).inspect_err(|_| {
        let _ = rustix::fs::rmdir(path);
    })
}

fn open_locked(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
    rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive)?;
    Ok(directory)
}

fn write(directory: &OwnedFd, name: &str, text: &str) -> Result<(), Errno> {
    let file = rustix::fs::openat(directory, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    // The kernel takes it whole or not at all.
    rustix::io::write(&file, text.as_bytes()).map(drop)
}

fn write_at(path: &Path, text: &str) -> Result<(), Errno> {
    let file = rustix::fs::openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, text.as_bytes()).map(drop)
}

/// What sessions leave behind whose `nx` was killed. Each one is locked for as long as its `nx` lives.
fn sweep(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.take(ENTRIES_MAX).flatten() {
        let Some(kind) = leftover(&entry.file_name()) else {
            continue;
        };
        let path = entry.path();
        let Ok(directory) = open_locked(&path) else { continue };
        if kind == Leftover::Session {
            // Whoever made it is gone, and nobody else puts anything there.
            let _ = write(&directory, "cgroup.kill", "1");
        }
        // A leaf may still hold a file server that other sessions use: then it is busy and stays.
        let _ = rustix::fs::unlinkat(CWD, &path, AtFlags::REMOVEDIR);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leftover {
    Session,
    Leaf,
}

/// What a directory is by its name.
fn leftover(name: &OsStr) -> Option<Leftover> {
    let name = name.as_bytes();
    let (id, kind) = match name.strip_prefix(LEAF_PREFIX.as_bytes()) {
        Some(id) => (id, Leftover::Leaf),
        None => (name.strip_prefix(PREFIX.as_bytes())?, Leftover::Session),
    };
    let is_id = id.len() == ID_BYTES
        && id
            .iter()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte));
    is_id.then_some(kind)
}

/// A count in a file of lines `name count`; 0 where it is not there.
fn count(text: &str, name: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(found, _)| *found == name)
        .and_then(|(_, count)| count.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn leftovers_are_known_by_their_whole_name() {
        let check = |name: &str, expect| assert_eq!(leftover(OsStr::new(name)), expect, "{name}");
        check("nx-0123456789ab", Some(Leftover::Session));
        check("nx-front-0123456789ab", Some(Leftover::Leaf));
        for other in [
            "nx-",
            "nx-beef",
            "nx-build",
            "nx-0123456789AB",
            "nx-0123456789ab.scope",
            "nx-doctor-12",
            "nx-front-",
            "nx-front-build",
            "0123456789ab",
            "cgroup.procs",
        ] {
            check(other, None);
        }
    }

    #[test]
    fn a_count_is_found_by_its_whole_name() {
        let text = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(count(text, "oom_kill"), 2);
        assert_eq!(count(text, "oom"), 3);
        assert_eq!(count("oom_kill_more 7\n", "oom_kill"), 0);
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_read_without_panic(text in any::<String>(), name in any::<String>()) {
            let _ = count(&text, &name);
            let _ = leftover(OsStr::new(&name));
        }
    }
}
