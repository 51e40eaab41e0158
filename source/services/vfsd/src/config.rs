use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nexus_wire::vfs::{Budgets, HELD_NAMES_MAX, PLACE_PARTS_MAX};

use crate::VfsdError;
use crate::fs::NAME_BYTES_MAX;

/// The longest subject name, in bytes; the wire carries no longer one.
pub const SUBJECT_BYTES_MAX: usize = 64;

/// The user and group that a file server started by root gives everything up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Not 0.
    pub uid: u32,
    /// Not 0.
    pub gid: u32,
}

/// A directory of the user's that the file server meters.
#[derive(Clone, Debug)]
pub struct WorkConfig {
    /// The directory, through a mount on which it belongs to the file server's user. Nothing that is mounted inside it is
    /// served.
    pub directory: Arc<OwnedFd>,
    /// Names in it that the session mounts something on: parents first, each with the number of what it stands in, counted
    /// from 1; 0 is the directory itself.
    pub held: Vec<(u32, Vec<u8>)>,
}

/// A name in `tmp` that a session mounts something on, or on the way to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacePart {
    /// The number of what it stands in, counted from 1; 0 is `tmp` itself.
    pub parent: u32,
    /// The name: one part of a path.
    pub name: Vec<u8>,
    /// A regular file has to be there, else a directory.
    pub is_file: bool,
}

/// What a session needs of a file server.
#[derive(Clone, Debug)]
pub struct VfsdConfig {
    /// Where the subjects' files live: `<base_dir>/subjects/<subject>/state` and `…/tmp-…`. Made if missing. On a
    /// local file system: locks and rename have to mean something.
    pub base_dir: PathBuf,
    /// Where the socket lives: a directory that only the caller can write. Made if missing.
    pub runtime_dir: PathBuf,
    /// The subject; its name is a directory's name.
    pub subject: String,
    /// The budgets that this session's policy gives. They replace those in force: the latest session wins.
    pub budgets: Budgets,
    /// The PolicyVersion in hex, at most 64 digits; stamped on each event.
    pub policy: String,
    /// Whom to become. `None` (an ordinary user): who the caller is. Root must name somebody else.
    pub identity: Option<Identity>,
    /// Where the file server says its markers, if this session starts it: a subject's first quota set and first deny.
    pub markers: Option<Arc<OwnedFd>>,
    /// The directory that this session's program works in, where that is metered.
    pub work: Option<WorkConfig>,
    /// Every name in `tmp` on the way to what the session mounts there, parents first. No other session of the subject can
    /// move, remove or replace one of them.
    pub places: Vec<PlacePart>,
}

impl VfsdConfig {
    /// Refuses what would be misunderstood later.
    pub(crate) fn validate(&self) -> Result<(), VfsdError> {
        let name = self.subject.as_bytes();
        let fits = !name.is_empty()
            && name.len() <= SUBJECT_BYTES_MAX
            && name
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-@+".contains(byte))
            && !name.starts_with(b".");
        if !fits {
            return Err(VfsdError::Subject(self.subject.clone()));
        }
        if self.policy.len() > 64 || !self.policy.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(VfsdError::Policy(self.policy.clone()));
        }
        if let Some(work) = &self.work {
            let fits = work.held.len() <= HELD_NAMES_MAX;
            if !fits || work.held.iter().any(|(_, name)| name.len() > NAME_BYTES_MAX) {
                return Err(VfsdError::Held);
            }
        }
        let fits = self.places.len() <= PLACE_PARTS_MAX;
        if !fits || self.places.iter().any(|part| part.name.len() > NAME_BYTES_MAX) {
            return Err(VfsdError::Places);
        }
        for budget in [self.budgets.tmp, self.budgets.state, self.budgets.work] {
            budget.validate().map_err(VfsdError::Budget)?;
        }
        let root = rustix::process::geteuid().is_root();
        match self.identity {
            Some(identity) if root && identity.uid != 0 && identity.gid != 0 => Ok(()),
            None if !root => Ok(()),
            _ => Err(VfsdError::Identity),
        }
    }

    /// The path below `tmp` of a part, counted from 1.
    pub(crate) fn place(&self, number: u32) -> PathBuf {
        let mut names = Vec::new();
        let mut at = number;
        while let Some(part) = at
            .checked_sub(1)
            .and_then(|index| usize::try_from(index).ok())
            .and_then(|index| self.places.get(index))
        {
            names.push(OsStr::from_bytes(&part.name));
            // Each stands in an earlier one, so this ends; what does not is refused by the file server.
            at = part.parent.min(at.saturating_sub(1));
        }
        names.iter().rev().collect()
    }

    /// Who owns the files.
    pub(crate) fn owner(&self) -> Identity {
        self.identity.unwrap_or_else(|| Identity {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        })
    }

    /// Where the file server of this subject listens.
    ///
    /// A socket's path has room for about 100 bytes, a base directory and a subject's name may have more: hence a
    /// hash, of the base directory too, so that two of them never share a server.
    pub(crate) fn socket_path(&self) -> PathBuf {
        socket_path(&self.base_dir, &self.runtime_dir, &self.subject)
    }

    /// Where the subject's files live.
    pub(crate) fn subject_dir(&self) -> PathBuf {
        Path::new(&self.base_dir).join("subjects").join(&self.subject)
    }
}

/// [`VfsdConfig::socket_path`] of a subject.
pub(crate) fn socket_path(base_dir: &Path, runtime_dir: &Path, subject: &str) -> PathBuf {
    let base = std::fs::canonicalize(base_dir).unwrap_or_else(|_| base_dir.to_path_buf());
    let mut hasher = blake3::Hasher::new();
    hasher.update(base.as_os_str().as_encoded_bytes());
    hasher.update(&[0]);
    hasher.update(subject.as_bytes());
    let hex = hasher.finalize().to_hex();
    runtime_dir.join(format!("vfsd-{}.sock", hex.get(..32).unwrap_or_default()))
}
