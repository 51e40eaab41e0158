//! One file, directory or link of the backing store, as long as the kernel knows it.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use nexus_quota::{Amount, charged_bytes};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use rustix::path::DecInt;

use super::zone::Zone;
use crate::layout::has_paid_length;

/// Opens a name without following it: the only way in which a name of the backing store is opened as a handle.
pub(crate) const LOOK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A name is one part of a path and stays on its file system.
const ONE_PART: ResolveFlags = ResolveFlags::NO_XDEV.union(ResolveFlags::NO_MAGICLINKS);

/// How often a lost handle is looked for again while its name is being changed.
const REOPEN_TRIES_MAX: u32 = 64;

/// An inode of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
}

impl Key {
    pub(crate) fn of(stat: &Stat) -> Self {
        Self {
            dev: stat.st_dev,
            ino: stat.st_ino,
        }
    }
}

/// What became of a handle that was to be let go of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// It is closed.
    Rests,
    /// It was used lately, or is never let go of.
    Used,
    /// There is no name by which it could be opened again.
    Nameless,
}

/// A name that an inode has.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) parent: Arc<Node>,
    pub(crate) name: CString,
}

/// What changes about an inode.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The length of a regular file, or of a link's target. Nobody else changes the file.
    pub(crate) len: u64,
    /// What is charged for the length and for what was preallocated past it, in whole blocks: `INVARIANT(paid-for)` is
    /// that it is never less than the length.
    pub(crate) paid: u64,
    /// How many bytes the names and values of its extended attributes have, where that is known.
    pub(crate) attributes: Option<u64>,
    /// Open handles.
    pub(crate) handles: u32,
    /// How many of these may be mapped to be written.
    pub(crate) mappers: u32,
    /// How many are being closed.
    pub(crate) closing: u32,
    /// It has no name any more.
    pub(crate) unlinked: bool,
    /// It was emptied and given back to the ledger: nobody may open it again.
    pub(crate) reclaimed: bool,
    /// The kernel has forgotten it.
    pub(crate) forgotten: bool,
    /// When it was last changed, as of when it was last opened; kept only of what others change too.
    pub(crate) changed: Option<(i64, u64)>,
}

/// An inode that the kernel knows.
///
/// Locks, in the order in which they are taken: `entries` of directories (of two, the lower id first), `state`, then
/// the books. `handle` and `place` are taken last, alone and briefly; [`Node::fd`] is never called with `entries` or
/// `state` held.
#[derive(Debug)]
pub(crate) struct Node {
    /// What the kernel and the program know it by.
    pub(crate) id: u64,
    pub(crate) key: Key,
    pub(crate) zone: Zone,
    pub(crate) kind: FileType,
    handle: Mutex<Option<Arc<OwnedFd>>>,
    used: AtomicBool,
    /// The handle is never let go of: the name may come to mean something else.
    kept: AtomicBool,
    /// It is gone from the host: its number may mean another inode.
    given_up: AtomicBool,
    place: Mutex<Option<Place>>,
    state: Mutex<State>,
    entries: RwLock<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the inode that `name` means in `dir`, whatever it is.
pub(crate) fn look(dir: &OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
    rustix::io::retry_on_intr(|| rustix::fs::openat2(dir, name, LOOK, Mode::empty(), ONE_PART))
}

impl Node {
    pub(crate) fn new(id: u64, zone: Zone, stat: &Stat, handle: Option<Arc<OwnedFd>>, place: Option<Place>) -> Self {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let len = u64::try_from(stat.st_size).unwrap_or_default();
        let paid = if has_paid_length(kind) {
            charged_bytes(len).unwrap_or(u64::MAX)
        } else {
            0
        };
        let unlinked = stat.st_nlink == 0;
        Self {
            id,
            key: Key::of(stat),
            zone,
            kind,
            handle: Mutex::new(handle),
            used: AtomicBool::new(true),
            kept: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            place: Mutex::new(place),
            state: Mutex::new(State {
                len,
                paid,
                unlinked,
                ..State::default()
            }),
            entries: RwLock::new(()),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The state, unless somebody is changing it now.
    pub(crate) fn try_state(&self) -> Option<MutexGuard<'_, State>> {
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Whether it was emptied and let go of.
    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    /// To look at a directory's names.
    pub(crate) fn entries_shared(&self) -> RwLockReadGuard<'_, ()> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// To change a directory's names.
    pub(crate) fn entries_mut(&self) -> RwLockWriteGuard<'_, ()> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A name for events.
    pub(crate) fn name(&self) -> Vec<u8> {
        lock(&self.place)
            .as_ref()
            .map(|place| place.name.as_bytes().to_vec())
            .unwrap_or_default()
    }

    /// Remembers a name, so that the handle can be let go of.
    pub(crate) fn set_place(&self, parent: &Arc<Self>, name: &CStr) {
        *lock(&self.place) = Some(Place {
            parent: Arc::clone(parent),
            name: name.to_owned(),
        });
    }

    /// Remembers a name if none is known.
    pub(crate) fn offer_place(&self, parent: &Arc<Self>, name: &CStr) {
        let mut place = lock(&self.place);
        if place.is_none() {
            *place = Some(Place {
                parent: Arc::clone(parent),
                name: name.to_owned(),
            });
        }
    }

    /// Forgets the name if it is this one, and keeps the handle: without a name it could not be opened again.
    pub(crate) fn clear_place(&self, parent: &Arc<Self>, name: &CStr, fd: &Arc<OwnedFd>) {
        let mut place = lock(&self.place);
        if place
            .as_ref()
            .is_some_and(|known| known.parent.id == parent.id && known.name.as_c_str() == name)
        {
            // Dropped after the lock: it may be the last to know a parent.
            let old = place.take();
            drop(place);
            drop(old);
            self.offer_handle(fd);
        }
    }

    /// Keeps a handle if there is none.
    pub(crate) fn offer_handle(&self, fd: &Arc<OwnedFd>) -> bool {
        self.used.store(true, Ordering::Relaxed);
        let mut handle = lock(&self.handle);
        if handle.is_some() {
            return false;
        }
        *handle = Some(Arc::clone(fd));
        true
    }

    /// Keeps a handle for good.
    pub(crate) fn keep(&self, fd: &Arc<OwnedFd>) {
        self.kept.store(true, Ordering::Relaxed);
        self.offer_handle(fd);
    }

    /// Lets go of the handle if it was not used since the last time this was asked and can be opened again.
    pub(crate) fn rest(&self) -> Rest {
        if self.used.swap(false, Ordering::Relaxed) || self.kept.load(Ordering::Relaxed) {
            return Rest::Used;
        }
        let place = lock(&self.place);
        if place.is_none() {
            return Rest::Nameless;
        }
        lock(&self.handle).take();
        Rest::Rests
    }

    /// A handle to the inode itself, whatever name it has by now: `O_PATH`. Also whether it was opened just now.
    pub(crate) fn fd(&self) -> Result<(Arc<OwnedFd>, bool), Errno> {
        self.used.store(true, Ordering::Relaxed);
        if let Some(fd) = &*lock(&self.handle) {
            return Ok((Arc::clone(fd), false));
        }
        for _ in 0..REOPEN_TRIES_MAX {
            let Some(place) = lock(&self.place).clone() else {
                return Err(Errno::STALE);
            };
            if let Ok(fd) = self.reopen(&place) {
                let fd = Arc::new(fd);
                *lock(&self.handle) = Some(Arc::clone(&fd));
                return Ok((fd, true));
            }
            // The name is being changed by somebody who holds this lock and tells us the new one before letting go.
            drop(place.parent.entries_shared());
        }
        Err(Errno::STALE)
    }

    /// Opens the inode again by its name, and the directories above it as far as needed. Not recursive: a program may
    /// nest directories deeper than a stack.
    fn reopen(&self, place: &Place) -> Result<OwnedFd, Errno> {
        let mut path = vec![(self.key, place.name.clone())];
        let mut dir = Arc::clone(&place.parent);
        let mut at = loop {
            if let Some(fd) = &*lock(&dir.handle) {
                break Arc::clone(fd);
            }
            let above = lock(&dir.place).clone().ok_or(Errno::STALE)?;
            path.push((dir.key, above.name));
            dir = above.parent;
        };
        loop {
            let Some((key, name)) = path.pop() else {
                return Err(Errno::STALE);
            };
            let fd = look(&at, &name)?;
            if Key::of(&rustix::fs::fstat(&fd)?) != key {
                return Err(Errno::STALE);
            }
            if path.is_empty() {
                return Ok(fd);
            }
            at = Arc::new(fd);
        }
    }

    /// What the inode costs with this state.
    pub(crate) fn cost(&self, state: &State) -> Amount {
        let attributes = charged_bytes(state.attributes.unwrap_or_default()).unwrap_or(u64::MAX);
        Amount {
            bytes: state.paid.saturating_add(attributes),
            ..Amount::INODE
        }
    }

    /// Empties and lets go of an inode that has neither a name nor an open handle, so that its room on the host is free;
    /// `false` if it is in use, or busy.
    pub(crate) fn empty(&self) -> bool {
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            // The caller may hold another node's state: waiting here could wait for ever.
            Err(TryLockError::WouldBlock) => return false,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
        };
        if !state.unlinked || state.handles > 0 || state.reclaimed {
            return false;
        }
        if self.kind == FileType::RegularFile && state.paid > 0 {
            let Some(fd) = lock(&self.handle).clone() else {
                return false;
            };
            let emptied = open_again(&fd, OFlags::WRONLY).and_then(|file| rustix::fs::ftruncate(&file, 0));
            if emptied.is_err() {
                return false;
            }
        }
        state.len = 0;
        state.paid = 0;
        state.reclaimed = true;
        // With the handle goes the inode: its room, what a link of it said, and a descriptor. Its number may be another's then.
        self.given_up.store(true, Ordering::Release);
        lock(&self.handle).take();
        true
    }
}

impl Drop for Node {
    /// Not recursive: dropping the last one who knows a deep directory must not use a stack as deep.
    fn drop(&mut self) {
        let mut place = lock(&self.place).take();
        while let Some(Place { parent, .. }) = place {
            place = match Arc::into_inner(parent) {
                Some(parent) => lock(&parent.place).take(),
                None => None,
            };
        }
    }
}

/// Opens what an `O_PATH` handle means, for reading or writing. No name is looked up: `/proc/self/fd/N` is the inode.
///
/// `/proc/self/fd` is looked up each time: a handle kept on it would be one more thing that a fork could get wrong.
pub(crate) fn open_again(handle: &OwnedFd, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = proc_path(handle);
    rustix::io::retry_on_intr(|| rustix::fs::open(path.as_c_str(), flags | OFlags::CLOEXEC, Mode::empty()))
}

/// `/proc/self/fd/N`.
pub(crate) fn proc_path(handle: &OwnedFd) -> CString {
    let mut path = b"/proc/self/fd/".to_vec();
    path.extend_from_slice(DecInt::new(handle.as_raw_fd()).as_bytes());
    // Digits hold no NUL.
    CString::new(path).unwrap_or_default()
}
