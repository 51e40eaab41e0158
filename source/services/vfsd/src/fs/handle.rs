//! Open files and directories, and how many of them each session has.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rustix::io::Errno;

use super::node::Node;
use super::protocol::Durable;
use super::who::Holder;

/// How what is read and written through a handle is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Through the kernel's copy.
    Kept,
    /// So as well, and it may be mapped to be written.
    Maps,
    /// Written past the kernel's copy.
    Passes,
}

/// One open file description of the program.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) node: Arc<Node>,
    /// Never `O_APPEND`: the kernel says at which offset to write.
    pub(crate) file: OwnedFd,
    /// Where a directory's listing stands, as the host counts; `None` where it has to be sought.
    pub(crate) listing: Mutex<Option<u64>>,
    /// What the kernel keeps of it.
    pub(crate) way: Way,
    /// What of a write to `file` is on the disk when the call returns.
    pub(crate) durable: Durable,
    /// Whose program opened it.
    holder: Holder,
}

#[derive(Debug, Default)]
struct Inner {
    open: HashMap<u64, Arc<Handle>>,
    /// Seats that are taken, those of open files among them.
    taken: usize,
    /// The same for each that has one; bounded by `taken`.
    held: HashMap<Holder, usize>,
}

/// All of them, by a number that is never used twice.
///
/// Each is a descriptor, of which there are not many, and all sessions of the subject share them. So nobody is given one who
/// has as many as are left: a session has at most half of them, a second half of the rest, and whoever comes
/// after many that take what they get finds some all the same. One that is alone may have [`ALONE_TIMES`] as many as are left.
#[derive(Debug)]
pub(crate) struct Handles {
    inner: RwLock<Inner>,
    next: AtomicU64,
    max: usize,
}

/// How many times what is left a session may have while the subject has no other: three quarters of all. What it leaves is enough
/// for one that comes later to begin, and grows as it closes files, since it then counts as any.
const ALONE_TIMES: usize = 3;

/// Room for one more, kept for whoever asked for it until it is used or dropped.
#[derive(Debug)]
pub(crate) struct Seat<'h> {
    handles: &'h Handles,
    holder: Holder,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.handles.write().leave(self.holder);
    }
}

impl Inner {
    fn leave(&mut self, holder: Holder) {
        self.taken = self.taken.saturating_sub(1);
        if let Some(held) = self.held.get_mut(&holder) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                self.held.remove(&holder);
            }
        }
    }
}

impl Handles {
    /// At most `max`: each is a descriptor.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            inner: RwLock::default(),
            next: AtomicU64::new(1),
            max,
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, number: u64) -> Result<Arc<Handle>, Errno> {
        self.read().open.get(&number).cloned().ok_or(Errno::BADF)
    }

    /// Room for one more of `holder`'s, who may be alone, taken before anything is opened or made; `None` if it has its share.
    pub(crate) fn seat(&self, holder: Holder, is_alone: bool) -> Option<Seat<'_>> {
        let mut inner = self.write();
        let free = self.max.saturating_sub(inner.taken);
        let most = if is_alone {
            free.saturating_mul(ALONE_TIMES)
        } else {
            free
        };
        let held = inner.held.get(&holder).copied().unwrap_or_default();
        if held >= most {
            return None;
        }
        inner.taken = inner.taken.saturating_add(1);
        inner.held.insert(holder, held.saturating_add(1));
        drop(inner);
        Some(Seat { handles: self, holder })
    }

    pub(crate) fn insert(&self, seat: Seat<'_>, node: Arc<Node>, file: OwnedFd, way: Way, durable: Durable) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let handle = Handle {
            node,
            file,
            listing: Mutex::new(Some(0)),
            way,
            durable,
            holder: seat.holder,
        };
        self.write().open.insert(number, Arc::new(handle));
        // It is given back with the handle.
        std::mem::forget(seat);
        number
    }

    pub(crate) fn remove(&self, number: u64) -> Option<Arc<Handle>> {
        let mut inner = self.write();
        let handle = inner.open.remove(&number)?;
        inner.leave(handle.holder);
        Some(handle)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Takes as many as there are for `holder`.
    fn take_all(handles: &Handles, holder: u64) -> Vec<Seat<'_>> {
        std::iter::from_fn(|| handles.seat(Holder::Session(holder), false)).collect()
    }

    #[test]
    fn one_gets_half_and_whoever_comes_after_it_gets_some_as_well() {
        let handles = Handles::new(1000);
        let first = take_all(&handles, 1);
        let second = take_all(&handles, 2);
        let third = take_all(&handles, 3);
        assert_eq!((first.len(), second.len(), third.len()), (500, 250, 125));
        drop(first);
        assert!(
            take_all(&handles, 3).len() > 150,
            "what is given back is others' to take"
        );
        drop((second, third));
        let inner = handles.read();
        assert_eq!((inner.taken, inner.held.len()), (0, 0));
    }

    #[test]
    fn one_that_is_alone_gets_three_quarters_and_whoever_comes_after_it_gets_some_as_well() {
        let handles = Handles::new(1000);
        let alone: Vec<_> = std::iter::from_fn(|| handles.seat(Holder::Session(1), true)).collect();
        assert_eq!(alone.len(), 750);
        assert!(handles.seat(Holder::Session(1), false).is_none(), "it is alone no more");
        assert_eq!(take_all(&handles, 2).len(), 125);
        drop(alone);
    }

    proptest! {
        #[test]
        fn nobody_passes_the_sum_and_everybody_gets_one_while_half_is_left(
            max in 1_usize..200,
            moves in proptest::collection::vec((0_u64..6, any::<bool>(), any::<bool>()), 0..400),
        ) {
            let handles = Handles::new(max);
            let mut seats: Vec<Seat<'_>> = Vec::new();
            for (who, takes, alone) in moves {
                let own = seats.iter().filter(|seat| seat.holder == Holder::Session(who)).count();
                if takes {
                    let got = handles.seat(Holder::Session(who), alone);
                    let left = max - seats.len();
                    prop_assert_eq!(got.is_some(), own < if alone { 3 * left } else { left });
                    seats.extend(got);
                } else if let Some(at) = seats.iter().position(|seat| seat.holder == Holder::Session(who)) {
                    seats.remove(at);
                }
                prop_assert!(seats.len() <= max);
                prop_assert_eq!(handles.read().taken, seats.len());
            }
        }
    }
}
