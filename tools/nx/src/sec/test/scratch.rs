//! Where a proof keeps its journal, its counters, its areas and its probe: a directory of its own beside those of real
//! sessions, on the same file system, gone when the proof is over.

use crate::run::{Exit, Failure, plain};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};
use std::fs::DirBuilder;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The directory of all proofs, in the state directory.
const PROOFS: &str = "proof";

/// The file that tells a running proof from one that was killed: locked by all its processes.
const LOCK: &str = "lock";

/// More leftovers than this are not looked at in one go: a proof leaves one if it is killed.
const SWEPT_MAX: usize = 1024;

/// One proof's directory.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
    /// Until this is dropped.
    lock: Option<OwnedFd>,
    /// Whether its session was killed, whose processes may be about to make something yet.
    is_killed: bool,
}

impl Scratch {
    /// Removes what killed proofs left, and makes a directory for this one.
    pub(super) fn new(state: &Path) -> Result<Self, Failure> {
        let proofs = state.join(PROOFS);
        let failed = |what: &str, path: &Path, error: std::io::Error| {
            let message = format!("a proof's directory `{}` cannot be {what}: {error}", path.display());
            Failure::new(Exit::Missing, message).with_help(help(&error, path))
        };
        // One at a time: a directory that is being made looks like one that was left.
        let _alone = enter(&proofs).map_err(|(what, error)| failed(what, &proofs, error))?;
        sweep(&proofs);
        let mut random = [0_u8; 4];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| failed("named", &proofs, error.into()))?;
        // Short: a socket's path has room for about a hundred bytes.
        let path = proofs.join(format!("{:08x}", u32::from_ne_bytes(random)));
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| failed("made", &path, error))?;
        let lock = lock(&path).map_err(|error| failed("locked", &path, error.into()))?;
        let Some(lock) = lock else {
            return Err(failed("locked", &path, std::io::ErrorKind::WouldBlock.into()));
        };
        let scratch = Self {
            path,
            lock: Some(lock),
            is_killed: false,
        };
        let probe = scratch.probe();
        write_probe(&probe).map_err(|error| failed("given a probe", &probe, error))?;
        Ok(scratch)
    }

    /// Its session was killed.
    pub(super) fn killed(&mut self) {
        self.is_killed = true;
    }

    /// The state directory of the proof's session.
    pub(super) fn state(&self) -> &Path {
        &self.path
    }

    /// The program that the session runs.
    pub(super) fn probe(&self) -> PathBuf {
        self.path.join("probe")
    }

    /// What the session is handed as its stderr: a pipe with a name, for reading. Everybody may write it, and it lies outside of
    /// what the session sees: what keeps the probe from opening it once more for writing is the second fence alone.
    pub(super) fn handed_in(&self) -> Result<OwnedFd, rustix::io::Errno> {
        let path = self.path.join("handed-in");
        // Fails where there is one already: a proof has one session.
        rustix::fs::mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR)?;
        // Not waiting for a writer.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let pipe = openat(CWD, &path, flags, Mode::empty())?;
        // The umask has no say: the probe runs as somebody else where nx is root.
        rustix::fs::fchmod(&pipe, Mode::from_raw_mode(0o666))?;
        Ok(pipe)
    }

    /// The journal of the proof's session, with its counters.
    pub(super) fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }
}

/// What to do about it.
fn help(error: &std::io::Error, path: &Path) -> String {
    use rustix::io::Errno;
    let place = plain(&path.to_string_lossy());
    match Errno::from_io_error(error) {
        Some(Errno::NOTDIR | Errno::LOOP | Errno::EXIST) => {
            format!("what stands there is no directory, and nx made none of it: look at `{place}`, and move it away")
        }
        Some(Errno::MFILE) => crate::run::open_files::help(),
        Some(Errno::NFILE) => "this machine has no more open files to give: see `/proc/sys/fs/file-nr`".into(),
        Some(Errno::NOSPC | Errno::DQUOT) => {
            format!("the file system of `{place}` is full: make room, or name another with `XDG_STATE_HOME`")
        }
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => {
            format!("this user cannot write to `{place}`: see whose it is, or name another place with `XDG_STATE_HOME`")
        }
        Some(Errno::WOULDBLOCK) => {
            format!("another proof holds `{place}`: let it go on if somebody stopped it, as `fuser -v` on it tells")
        }
        _ => format!("a proof needs room beside the subjects' own areas: see that `{place}` can be written"),
    }
}

fn write_probe(path: &Path) -> std::io::Result<()> {
    let program = nexus_sys::probe::program()?;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.create_new(true).write(true).mode(0o755).open(path)?;
    // The umask has no say: the program runs as somebody else where nx is root.
    rustix::fs::fchmod(&file, Mode::from_raw_mode(0o755))?;
    file.write_all(&program)
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(self.lock.take());
        let until = Instant::now() + ALONE_WAIT;
        while self.is_killed && is_held(&self.path) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        remove(&self.path);
        // The last one puts the light out. Who makes another one now holds the lock, and removes it in the end.
        if let Some(proofs) = self.path.parent()
            && let Ok(directory) = open_directory(proofs)
            && flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            let _ = std::fs::remove_dir(proofs);
        }
    }
}

/// Removes a proof's directory. The file server ends a moment after its last session and removes what was in `tmp` itself:
/// what it is quicker at is gone, and what it makes meanwhile is found at the next try.
fn remove(path: &Path) {
    const WAIT: Duration = Duration::from_secs(2);
    let until = Instant::now() + WAIT;
    while std::fs::remove_dir_all(path).is_err_and(|error| error.kind() != std::io::ErrorKind::NotFound) {
        // What still cannot be removed is swept by the next proof.
        if Instant::now() > until {
            return;
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// How long the making of another proof's directory, and the removal of leftovers, is waited for.
const ALONE_WAIT: Duration = Duration::from_secs(2);

/// Makes the directory of all proofs where it is not there, and holds it for as long as what is returned lives.
fn enter(proofs: &Path) -> Result<OwnedFd, (&'static str, std::io::Error)> {
    let until = Instant::now() + ALONE_WAIT;
    loop {
        match DirBuilder::new().recursive(true).mode(0o700).create(proofs) {
            // It was there when it was to be made, and may be gone again: the next step sees.
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(("made", error)),
            _ => {}
        }
        match alone(proofs, until) {
            // The last proof before this one removed it before it was locked.
            Err(rustix::io::Errno::NOENT) if Instant::now() < until => {}
            Ok(directory) if is_removed(&directory) && Instant::now() < until => {}
            other => return other.map_err(|error| ("locked", error.into())),
        }
    }
}

fn is_removed(directory: &OwnedFd) -> bool {
    rustix::fs::fstat(directory).is_ok_and(|stat| stat.st_nlink == 0)
}

fn open_directory(path: &Path) -> Result<OwnedFd, rustix::io::Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty())
}

/// Holds the directory of all proofs, for as long as what is returned lives.
fn alone(proofs: &Path, until: Instant) -> Result<OwnedFd, rustix::io::Errno> {
    let directory = open_directory(proofs)?;
    loop {
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(1));
            }
            other => return other.map(|()| directory),
        }
    }
}

/// Removes what nobody holds. The caller is [`alone`] in there.
fn sweep(proofs: &Path) {
    let Ok(entries) = std::fs::read_dir(proofs) else { return };
    for entry in entries.flatten().take(SWEPT_MAX) {
        let path = entry.path();
        // One without a lock was left by a proof that was killed before it had one.
        let held = is_held(&path);
        if !held {
            remove(&path);
        }
    }
}

/// Whether a process of this proof lives.
fn is_held(path: &Path) -> bool {
    // Not waiting for whoever writes what somebody put in its place.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(CWD, path.join(LOCK), flags, Mode::empty())
        .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_err())
}

fn lock(path: &Path) -> Result<Option<OwnedFd>, rustix::io::Errno> {
    let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(CWD, path.join(LOCK), flags, Mode::RUSR | Mode::WUSR)?;
    Ok(flock(&file, FlockOperation::NonBlockingLockExclusive)
        .is_ok()
        .then_some(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proofs_at_once_leave_one_another_alone_and_take_what_was_left() {
        let state = tempfile::tempdir().unwrap();
        let left = state.path().join(PROOFS).join("0badf00d");
        std::fs::create_dir_all(left.join("journal")).unwrap();
        std::fs::write(left.join(LOCK), "").unwrap();
        std::fs::create_dir(state.path().join(PROOFS).join("00000000")).unwrap();
        let held = Scratch::new(state.path()).unwrap();
        assert!(!left.exists() && !state.path().join(PROOFS).join("00000000").exists());
        let several: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| Scratch::new(state.path()).unwrap()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(held.probe().exists() && several.iter().all(|one| one.probe().exists()));
        drop(several);
        assert!(held.probe().exists(), "the others' end removes nothing of its");
        drop(held);
        assert!(
            !state.path().join(PROOFS).exists(),
            "nothing is left, not even the directory of all proofs"
        );
    }

    #[test]
    fn one_that_begins_while_the_last_one_ends_has_a_directory_all_the_same() {
        let state = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        assert!(Scratch::new(state.path()).unwrap().probe().exists());
                    }
                });
            }
        });
        assert!(!state.path().join(PROOFS).exists());
    }

    #[test]
    fn what_lies_behind_a_link_is_not_swept() {
        let (state, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(elsewhere.path().join("kept"), "").unwrap();
        std::fs::create_dir(state.path().join(PROOFS)).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), state.path().join(PROOFS).join("link")).unwrap();
        drop(Scratch::new(state.path()).unwrap());
        assert!(elsewhere.path().join("kept").exists());
    }

    #[test]
    fn what_stands_in_the_way_is_named_with_what_to_do_and_nothing_waits_for_it() {
        use rustix::fs::mkfifoat;
        type Put = fn(&Path);
        let file: Put = |path| std::fs::write(path, "").unwrap();
        let pipe: Put = |path| mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).unwrap();
        let link: Put = |path| std::os::unix::fs::symlink("/nowhere", path).unwrap();
        for put in [file, pipe, link] {
            let state = tempfile::tempdir().unwrap();
            put(&state.path().join(PROOFS));
            let failure = Scratch::new(state.path()).unwrap_err();
            assert_eq!(failure.exit, Exit::Missing);
            let help = failure.help.unwrap_or_default();
            assert!(
                help.contains("is no directory") && help.contains("move it away"),
                "{help}"
            );
        }
        // A lock that is a pipe has no writer, and is waited for by nobody.
        let state = tempfile::tempdir().unwrap();
        let left = state.path().join(PROOFS).join("0badf00d");
        std::fs::create_dir_all(&left).unwrap();
        pipe(&left.join(LOCK));
        drop(Scratch::new(state.path()).unwrap());
        assert!(!left.exists());
        for (errno, word) in [
            (rustix::io::Errno::MFILE, "ulimit -n"),
            (rustix::io::Errno::NOSPC, "make room"),
            (rustix::io::Errno::ACCESS, "XDG_STATE_HOME"),
            (rustix::io::Errno::WOULDBLOCK, "fuser -v"),
        ] {
            let said = help(&errno.into(), Path::new("/a\nb"));
            assert!(said.contains(word) && !said.contains('\n'), "{said}");
        }
    }
}
