//! Every inode that the kernel knows, by its number and by what it is on the host.

use std::collections::{HashMap, VecDeque};
use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::books::Books;
use super::node::{Key, Node, Rest};
use super::zone::Zone;

/// The root of the file system, which is on no disk (`FUSE_ROOT_ID`, linux/fuse.h).
pub(crate) const ROOT_ID: u64 = 1;

/// How many inodes the kernel may know at once: some 400 bytes here for each, and a kilobyte in the kernel, which
/// forgets them when memory is short. Past it a lookup says `ENFILE`.
const NODES_MAX: usize = 1 << 21;

/// Where numbers begin for inodes whose own number is taken: no file system counts this far.
const SPARE_IDS: u64 = 1 << 63;

/// How many handles are looked at for one to let go of, each time one is opened.
const REST_TRIES_MAX: usize = 64;

#[derive(Debug)]
struct Known {
    node: Arc<Node>,
    /// How often the kernel was told of it: it forgets that many.
    lookups: u64,
}

#[derive(Debug, Default)]
struct Inner {
    by_id: HashMap<u64, Known>,
    by_key: HashMap<Key, u64>,
    spare: u64,
}

#[derive(Debug)]
pub(crate) struct Table {
    inner: Mutex<Inner>,
    books: Arc<Books>,
    /// Who holds a handle, the longest first.
    handles: Mutex<VecDeque<Weak<Node>>>,
    handles_max: usize,
}

impl Table {
    /// A table that keeps `handles_max` handles; inodes past that are opened again when they are used, and those that have no
    /// name are given up. It keeps more only of those that are open and have no name, which are bounded by what is open.
    pub(crate) fn new(handles_max: usize, books: Arc<Books>) -> Self {
        Self {
            books,
            inner: Mutex::default(),
            handles: Mutex::default(),
            handles_max,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node of a number that the kernel was told.
    pub(crate) fn get(&self, id: u64) -> Result<Arc<Node>, Errno> {
        self.lock()
            .by_id
            .get(&id)
            .map(|known| Arc::clone(&known.node))
            .ok_or(Errno::STALE)
    }

    /// The node of what was found in `place`, told to the kernel once more. One without a handle is opened when it is
    /// needed, so it has to have a place.
    pub(crate) fn intern(
        &self,
        zone: Zone,
        stat: &Stat,
        handle: Option<&Arc<OwnedFd>>,
        place: Option<(&Arc<Node>, &CStr)>,
    ) -> Result<Arc<Node>, Errno> {
        let key = Key::of(stat);
        let mut inner = self.lock();
        let known_id = inner.by_key.get(&key).copied();
        let kind = FileType::from_raw_mode(stat.st_mode);
        // A number that others freed and that means another kind of thing by now is another inode; so is one that we freed.
        let known = known_id.and_then(|id| inner.by_id.get_mut(&id));
        if let Some(known) = known.filter(|known| known.node.kind == kind && !known.node.is_given_up()) {
            known.lookups = known.lookups.saturating_add(1);
            let node = Arc::clone(&known.node);
            drop(inner);
            if let Some((parent, name)) = place {
                node.offer_place(parent, name);
            }
            if handle.is_some_and(|handle| node.offer_handle(handle)) {
                self.watch(&node);
            }
            return Ok(node);
        }
        if inner.by_id.len() >= NODES_MAX {
            return Err(Errno::NFILE);
        }
        let taken = key.ino == ROOT_ID || key.ino == 0 || inner.by_id.contains_key(&key.ino);
        let id = if taken {
            inner.spare = inner.spare.saturating_add(1);
            SPARE_IDS.saturating_add(inner.spare)
        } else {
            key.ino
        };
        let place = place.map(|(parent, name)| super::node::Place {
            parent: Arc::clone(parent),
            name: name.to_owned(),
        });
        let node = Arc::new(Node::new(id, zone, stat, handle.map(Arc::clone), place));
        inner.by_id.insert(
            id,
            Known {
                node: Arc::clone(&node),
                lookups: 1,
            },
        );
        inner.by_key.insert(key, id);
        drop(inner);
        if handle.is_some() {
            self.watch(&node);
        }
        Ok(node)
    }

    /// The kernel forgets `count` tellings of `id`. Returns the node if that was the last.
    pub(crate) fn forget(&self, id: u64, count: u64) -> Option<Arc<Node>> {
        let mut inner = self.lock();
        let known = inner.by_id.get_mut(&id)?;
        known.lookups = known.lookups.saturating_sub(count);
        if known.lookups > 0 {
            return None;
        }
        let known = inner.by_id.remove(&id)?;
        if inner.by_key.get(&known.node.key) == Some(&id) {
            inner.by_key.remove(&known.node.key);
        }
        Some(known.node)
    }

    /// The number of what a directory lists, where it is known.
    pub(crate) fn id_of(&self, key: Key) -> u64 {
        self.lock().by_key.get(&key).copied().unwrap_or(key.ino)
    }

    /// Remembers that `node` holds a handle, and lets go of others where there are too many.
    pub(crate) fn watch(&self, node: &Arc<Node>) {
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        handles.push_back(Arc::downgrade(node));
        let mut tries = 0;
        while handles.len() > self.handles_max && tries < REST_TRIES_MAX {
            tries = tries.saturating_add(1);
            let Some(oldest) = handles.pop_front() else { break };
            let Some(node) = oldest.upgrade() else { continue };
            let gone = match node.rest() {
                Rest::Rests => true,
                Rest::Used => false,
                Rest::Nameless => self.books.let_go(&node),
            };
            if !gone {
                handles.push_back(oldest);
            }
        }
    }
}
