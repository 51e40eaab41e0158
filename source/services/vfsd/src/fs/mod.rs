//! The file system: each request of the kernel as one operation on the backing store, charged before it is done.
//!
//! Every inode that the kernel knows is a [`node::Node`] with an `O_PATH` handle, so that no operation walks a path
//! that the program can change underneath it; names are one part, opened without following.

mod attr;
pub(crate) mod books;
mod copy;
mod create;
mod dispatch;
pub(crate) mod events;
mod fallocate;
mod handle;
mod link;
mod lookup;
mod node;
mod open;
pub(crate) mod places;
mod protocol;
mod read;
mod readdir;
mod remove;
mod rename;
pub(crate) mod serve;
mod setattr;
mod shared;
mod statfs;
mod table;
pub(crate) mod who;
pub(crate) mod works;
pub(crate) mod write;
pub(crate) mod xattr;
mod zone;

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::Stat;
use rustix::io::Errno;

use self::books::{Asker, Books};
use self::handle::{Handle, Handles, Seat};
use self::node::{Node, look};
use self::places::Places;
use self::table::ROOT_ID;
pub(crate) use self::table::Table;
use self::who::Who;
use self::works::Works;
pub(crate) use self::zone::Zone;
use crate::Identity;
use nexus_abi::{Operation, Reason};
use nexus_quota::Amount;

/// The longest name, in bytes (`NAME_MAX`, linux/limits.h).
pub(crate) const NAME_BYTES_MAX: usize = 255;

/// How many descriptors the file system may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// For inodes; past it the least used are opened again when needed. Of those without a name that are open there may be
    /// more, as many as `handles`.
    pub(crate) nodes: usize,
    /// For open files; of whoever has as many as are left, `open` says `ENFILE`.
    pub(crate) handles: usize,
}

/// The file system of a subject.
#[derive(Debug)]
pub(crate) struct Vfs {
    books: Arc<Books>,
    table: Arc<Table>,
    works: Arc<Works>,
    places: Arc<Places>,
    handles: Handles,
    who: Arc<Who>,
    owner: Identity,
    zones: [Arc<Node>; Zone::ALL.len()],
    trims: fallocate::Trims,
    /// Whether this kernel keeps its copy of a file right when a write passes it by.
    writes_pass: bool,
}

impl Vfs {
    /// The file system over these directories.
    pub(crate) fn new(
        books: Arc<Books>,
        owner: Identity,
        limits: Limits,
        who: Arc<Who>,
        open: impl Fn(Zone) -> Result<OwnedFd, Errno>,
    ) -> Result<Self, Errno> {
        let table = Arc::new(Table::new(limits.nodes, Arc::clone(&books)));
        let works = Arc::new(Works::new(Arc::clone(&table), Arc::clone(&books)));
        let zone = |zone| -> Result<Arc<Node>, Errno> {
            let fd = Arc::new(open(zone)?);
            // Told once to nobody, so never forgotten; without a place, so its handle is kept.
            table.intern(zone, &rustix::fs::fstat(&fd)?, Some(&fd), None)
        };
        let zones = [zone(Zone::Tmp)?, zone(Zone::State)?, zone(Zone::Shm)?];
        let [tmp, ..] = &zones;
        let places = Arc::new(Places::new(Arc::clone(&table), Arc::clone(tmp)));
        Ok(Self {
            books,
            table,
            works,
            places,
            handles: Handles::new(limits.handles),
            who,
            owner,
            zones,
            trims: fallocate::Trims::default(),
            writes_pass: false,
        })
    }

    /// The work directories, for whoever takes sessions.
    pub(crate) fn works(&self) -> Arc<Works> {
        Arc::clone(&self.works)
    }

    /// The names that sessions mount something on, for whoever takes sessions.
    pub(crate) fn places(&self) -> Arc<Places> {
        Arc::clone(&self.places)
    }

    /// `EBUSY` for a name that a session of the subject has something mounted on, or what leads to that. The caller holds
    /// the entries of `parent`.
    fn let_go(&self, parent: &Node, name: &CStr) -> Result<(), Errno> {
        self.works.let_go(parent, name)?;
        self.places.let_go(parent, name)
    }

    /// A handle to the inode of `node`.
    fn fd(&self, node: &Arc<Node>) -> Result<Arc<OwnedFd>, Errno> {
        let (fd, opened) = node.fd()?;
        if opened {
            self.table.watch(node);
        }
        Ok(fd)
    }

    /// The directory of a request that changes or looks up names. The root's are fixed.
    fn parent(&self, id: u64) -> Result<Arc<Node>, Errno> {
        if id == ROOT_ID {
            return Err(Errno::PERM);
        }
        self.table.get(id)
    }

    /// Finds `name` in `parent` and tells the kernel of it. The caller holds the parent's entries.
    fn find(&self, parent: &Arc<Node>, dir: &OwnedFd, name: &CStr) -> Result<(Arc<Node>, Stat, Arc<OwnedFd>), Errno> {
        let fd = Arc::new(look(dir, name)?);
        let stat = rustix::fs::fstat(&fd)?;
        let node = self.table.intern(parent.zone, &stat, Some(&fd), Some((parent, name)))?;
        Ok((node, stat, fd))
    }

    /// The kernel, or we, forget a telling of `node`; with the last one, what an unlinked inode costs is given back.
    fn forget_node(&self, id: u64, count: u64) {
        let Some(node) = self.table.forget(id, count) else {
            return;
        };
        let mut state = node.state();
        state.forgotten = true;
        if state.unlinked && state.handles == 0 {
            drop(state);
            self.books.buried(node.id);
        }
    }

    /// An inode lost its last name, and its state says so. What it costs is given back when it is closed or forgotten.
    fn orphaned(&self, node: &Arc<Node>, state: &node::State) {
        if state.handles > 0 {
            self.books.unlinked_open();
        } else if !state.reclaimed {
            self.books.orphaned(node, node.cost(state));
        }
    }

    /// Counts one more open handle, unless the inode's content is gone.
    fn opened(&self, node: &Arc<Node>) -> Result<(), Errno> {
        let mut state = node.state();
        if state.reclaimed {
            return Err(Errno::STALE);
        }
        state.handles = state.handles.saturating_add(1);
        if state.unlinked && state.handles == 1 {
            self.books.adopted(node.id);
            self.books.unlinked_open();
        }
        Ok(())
    }

    /// A handle is about to be closed: of several that are closed at once, one has to know that it is the last.
    fn closing(&self, node: &Arc<Node>) {
        let mut state = node.state();
        state.closing = state.closing.saturating_add(1);
    }

    /// Counts one handle less, that was never used.
    fn closed(&self, node: &Arc<Node>) {
        self.closing(node);
        self.left(node);
    }

    /// Counts one handle less, of which [`Vfs::closing`] was told.
    fn left(&self, node: &Arc<Node>) {
        let mut state = node.state();
        state.handles = state.handles.saturating_sub(1);
        state.closing = state.closing.saturating_sub(1);
        if state.unlinked && state.handles == 0 && !state.reclaimed {
            self.books.orphaned(node, node.cost(&state));
            if state.forgotten {
                self.books.buried(node.id);
            }
            drop(state);
            self.books.unlinked_closed();
        }
    }

    fn handle(&self, number: u64) -> Result<Arc<Handle>, Errno> {
        self.handles.get(number)
    }

    /// Room for one more open file of whoever asks, to be had before anything is done; `ENFILE`, and told, if it has its share.
    fn seat(&self, zone: Zone, name: &[u8], pid: u32) -> Result<Seat<'_>, Errno> {
        let seat = self.handles.seat(self.who.holder(pid), self.who.is_one_alone());
        if seat.is_none() {
            self.books
                .refused(zone.area(), Operation::Open, Reason::VfsOpenFiles, name, pid);
        }
        seat.ok_or(Errno::NFILE)
    }

    /// Charges the making of an inode called `name`, which costs `cost`.
    fn charge_new(&self, zone: Zone, cost: Amount, name: &CStr, pid: u32) -> Result<(), Errno> {
        let asker = Asker {
            operation: Operation::Create,
            name: name.to_bytes(),
            pid,
        };
        self.books.charge(zone.area(), cost, asker)
    }
}

/// A name as the kernel gives it: one part of a path.
fn one_part(name: &CStr) -> Result<&CStr, Errno> {
    let bytes = name.to_bytes();
    if bytes.len() > NAME_BYTES_MAX {
        return Err(Errno::NAMETOOLONG);
    }
    if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') {
        return Err(Errno::INVAL);
    }
    Ok(name)
}
