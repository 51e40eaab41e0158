//! Names in `tmp` that a session mounts something on.
//!
//! All sessions of a subject share `tmp`. The kernel refuses to remove or move a mount point only where it is mounted; in
//! another session's mount namespace it does it, and lets go of every mount on it. So who asks for a name that a session has
//! said it mounts on is told `EBUSY` here, as is who asks for what leads to it. A name that is not there yet is kept for what
//! is to be there.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::node::{Key, Node, look};
use super::table::Table;
use super::zone::Zone;

/// How many sessions' places are held at once: as many as there are sessions, and as many again whose connection is closed
/// and whose processes are still about to end.
const HOLDS_MAX: usize = 512;

/// One part of a path to a mount point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// In what it stands: 0 for `tmp` itself, else an earlier part counted from 1.
    pub(crate) parent: u32,
    pub(crate) name: CString,
    /// What has to be there: a directory or a regular file.
    pub(crate) kind: FileType,
}

/// A part, as far as it is there.
#[derive(Debug)]
struct Standing {
    part: Part,
    /// The directory that it stands in, if that is there.
    inside: Option<Key>,
    /// What it is, if it is there.
    is: Option<Key>,
}

#[derive(Debug, Default)]
struct Hold {
    parts: Vec<Standing>,
    /// Whose mounts these are, by its first process: while that runs, they are there.
    init: Option<OwnedFd>,
    /// The session's connection is closed.
    over: bool,
}

#[derive(Debug)]
struct Name {
    holders: u32,
    kind: FileType,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    holds: BTreeMap<u64, Hold>,
    /// By the directory that a name stands in.
    names: HashMap<(Key, CString), Name>,
}

/// The names that sessions mount something on.
#[derive(Debug)]
pub(crate) struct Places {
    table: Arc<Table>,
    tmp: Arc<Node>,
    inner: Mutex<Inner>,
    any: AtomicBool,
}

/// What one session holds. Dropping it says that its connection is closed: it is let go of as soon as its processes have ended.
#[derive(Debug)]
pub(crate) struct Held {
    places: Arc<Places>,
    id: u64,
}

impl Places {
    pub(crate) fn new(table: Arc<Table>, tmp: Arc<Node>) -> Self {
        Self {
            table,
            tmp,
            inner: Mutex::default(),
            any: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds these names from here on. `Err` says which part cannot be a mount point, and why: `ELOOP` for a link in its
    /// place, `ENOTDIR` and `EISDIR` for something of another kind, `EBUSY` if another session waits for something of
    /// another kind.
    pub(crate) fn hold(self: &Arc<Self>, parts: Vec<Part>) -> Result<Held, (usize, Errno)> {
        let id = {
            let mut inner = self.lock();
            inner.sweep();
            if inner.holds.len() >= HOLDS_MAX {
                return Err((0, Errno::NFILE));
            }
            inner.next = inner.next.saturating_add(1);
            let id = inner.next;
            inner.holds.insert(id, Hold::default());
            id
        };
        self.any.store(true, Ordering::Release);
        let held = Held {
            places: Arc::clone(self),
            id,
        };
        // Known to the kernel's table meanwhile, so that each directory has one lock for all.
        let mut nodes: Vec<Option<Arc<Node>>> = vec![Some(Arc::clone(&self.tmp))];
        let mut failed = None;
        for (index, part) in parts.into_iter().enumerate() {
            match self.hold_one(id, &nodes, part) {
                Ok(node) => nodes.push(node),
                Err(errno) => {
                    failed = Some((index, errno));
                    break;
                }
            }
        }
        // Before anything is let go of: what is held is not removed, so nobody forgets the last of something that is.
        for node in nodes.iter().skip(1).flatten() {
            if let Some(node) = self.table.forget(node.id, 1) {
                node.state().forgotten = true;
            }
        }
        failed.map_or(Ok(held), Err)
    }

    fn hold_one(&self, id: u64, nodes: &[Option<Arc<Node>>], part: Part) -> Result<Option<Arc<Node>>, Errno> {
        let parent = usize::try_from(part.parent).ok().and_then(|parent| nodes.get(parent));
        let Some(parent) = parent.ok_or(Errno::INVAL)? else {
            // In something that is not there: noted when that is made.
            self.lock().add(id, part, None, None)?;
            return Ok(None);
        };
        let (dir, _) = parent.fd()?;
        // Who changes a name in there waits, and then finds it held.
        let _entries = parent.entries_shared();
        let fd = match look(&dir, &part.name) {
            Err(Errno::NOENT) => {
                self.lock().add(id, part, Some(parent.key), None)?;
                return Ok(None);
            }
            found => Arc::new(found?),
        };
        let stat = rustix::fs::fstat(&fd)?;
        match FileType::from_raw_mode(stat.st_mode) {
            kind if kind == part.kind => {}
            FileType::Symlink => return Err(Errno::LOOP),
            FileType::Directory => return Err(Errno::ISDIR),
            _ => return Err(Errno::NOTDIR),
        }
        let node = self
            .table
            .intern(Zone::Tmp, &stat, Some(&fd), Some((parent, &part.name)))?;
        let added = self.lock().add(id, part, Some(parent.key), Some(node.key));
        if added.is_err()
            && let Some(node) = self.table.forget(node.id, 1)
        {
            node.state().forgotten = true;
        }
        added.map(|()| Some(node))
    }

    /// `EBUSY` for a name that is held, to whoever wants to remove, move or replace it. The caller holds the entries of
    /// `parent`.
    pub(crate) fn let_go(&self, parent: &Node, name: &CStr) -> Result<(), Errno> {
        match self.kind_held(parent, name) {
            Some(_) => Err(Errno::BUSY),
            None => Ok(()),
        }
    }

    /// `EBUSY` for a name that is kept for something of another kind than what is to be made. The caller holds the entries
    /// of `parent`.
    pub(crate) fn may_make(&self, parent: &Node, name: &CStr, kind: FileType) -> Result<(), Errno> {
        match self.kind_held(parent, name) {
            Some(held) if held != kind => Err(Errno::BUSY),
            _ => Ok(()),
        }
    }

    fn kind_held(&self, parent: &Node, name: &CStr) -> Option<FileType> {
        if parent.zone != Zone::Tmp || !self.any.load(Ordering::Acquire) {
            return None;
        }
        let key = (parent.key, name.to_owned());
        let mut inner = self.lock();
        inner.names.get(&key)?;
        // Before anybody is refused: is it still true?
        inner.sweep();
        inner.names.get(&key).map(|name| name.kind)
    }

    /// Something was made with a name that may be waited for. The caller holds the entries of `parent`.
    pub(crate) fn made(&self, parent: &Node, name: &CStr, made: Key) {
        if parent.zone == Zone::Tmp && self.any.load(Ordering::Acquire) {
            self.lock().made(parent.key, name, made);
        }
    }
}

impl Held {
    /// Keeps what is held until this process has ended, the first of the session's pid namespace: with it, all are gone.
    pub(crate) fn belongs_to(&self, init: OwnedFd) {
        if let Some(hold) = self.places.lock().holds.get_mut(&self.id) {
            hold.init = Some(init);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut inner = self.places.lock();
        if let Some(hold) = inner.holds.get_mut(&self.id) {
            hold.over = true;
        }
        inner.sweep();
    }
}

impl Inner {
    fn add(&mut self, id: u64, part: Part, inside: Option<Key>, is: Option<Key>) -> Result<(), Errno> {
        if let Some(inside) = inside {
            note(&mut self.names, inside, &part)?;
        }
        if let Some(hold) = self.holds.get_mut(&id) {
            hold.parts.push(Standing { part, inside, is });
        }
        Ok(())
    }

    fn made(&mut self, inside: Key, name: &CStr, made: Key) {
        for hold in self.holds.values_mut() {
            let mut numbers = Vec::new();
            for (number, standing) in (1_u32..).zip(&mut hold.parts) {
                if standing.inside == Some(inside) && standing.is.is_none() && standing.part.name.as_c_str() == name {
                    standing.is = Some(made);
                    numbers.push(number);
                }
            }
            for standing in &mut hold.parts {
                // A new directory is empty. Of two sessions that wait for different kinds in it the second cannot have
                // its own: it is told when it makes it.
                if standing.inside.is_none()
                    && numbers.contains(&standing.part.parent)
                    && note(&mut self.names, made, &standing.part).is_ok()
                {
                    standing.inside = Some(made);
                }
            }
        }
    }

    /// Lets go of what no session has any more.
    fn sweep(&mut self) {
        let gone: Vec<u64> = self
            .holds
            .iter()
            .filter(|(_, hold)| hold.over && hold.init.as_ref().is_none_or(has_ended))
            .map(|(id, _)| *id)
            .collect();
        for hold in gone.iter().filter_map(|id| self.holds.remove(id)).collect::<Vec<_>>() {
            for Standing { part, inside, .. } in hold.parts {
                let Some(inside) = inside else { continue };
                let key = (inside, part.name);
                if let Some(name) = self.names.get_mut(&key) {
                    name.holders = name.holders.saturating_sub(1);
                    if name.holders == 0 {
                        self.names.remove(&key);
                    }
                }
            }
        }
    }
}

/// Counts one more who holds a name.
fn note(names: &mut HashMap<(Key, CString), Name>, inside: Key, part: &Part) -> Result<(), Errno> {
    let known = names.entry((inside, part.name.clone())).or_insert(Name {
        holders: 0,
        kind: part.kind,
    });
    if known.kind != part.kind {
        return Err(Errno::BUSY);
    }
    known.holders = known.holders.saturating_add(1);
    Ok(())
}

/// Whether a process has ended, by its descriptor; pidfd_open(2).
fn has_ended(process: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    // What cannot be asked is not known to have ended.
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&now))).is_ok_and(|ready| ready > 0)
}
