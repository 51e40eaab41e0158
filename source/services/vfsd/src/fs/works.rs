//! Metered work directories: which there are, and the names in them that something is mounted on.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use nexus_quota::Amount;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::books::Books;
use super::node::{Key, Node, look};
use super::table::Table;
use super::zone::{WORKS_MAX, Zone};

/// A name of a work directory, and in what it stands: 0 for the directory itself, else an earlier name counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeldName {
    pub(crate) parent: u32,
    pub(crate) name: CString,
}

/// The work directories of a subject's sessions. One is served from the first session that names it until the subject's
/// last session ends, so that several sessions share what it started with.
#[derive(Debug)]
pub(crate) struct Works {
    table: Arc<Table>,
    books: Arc<Books>,
    roots: RwLock<Vec<Arc<Node>>>,
    /// By the directory's number and the name in it.
    held: RwLock<HashMap<(u64, CString), Arc<Node>>>,
    any_held: AtomicBool,
}

impl Works {
    pub(crate) fn new(table: Arc<Table>, books: Arc<Books>) -> Self {
        Self {
            table,
            books,
            roots: RwLock::default(),
            held: RwLock::default(),
            any_held: AtomicBool::new(false),
        }
    }

    /// What is served as this zone.
    pub(crate) fn root(&self, index: u8) -> Option<Arc<Node>> {
        let roots = self.roots.read().unwrap_or_else(PoisonError::into_inner);
        roots.get(usize::from(index)).cloned()
    }

    /// As what a directory is served, if it is.
    pub(crate) fn zone_of(&self, dir: BorrowedFd<'_>) -> Result<Option<Zone>, Errno> {
        let key = Key::of(&rustix::fs::fstat(dir)?);
        let roots = self.roots.read().unwrap_or_else(PoisonError::into_inner);
        let known = (0..WORKS_MAX).zip(roots.iter()).find(|(_, node)| node.key == key);
        Ok(known.map(|(index, _)| Zone::Work(index)))
    }

    /// Whether one more can be served.
    pub(crate) fn has_room(&self) -> bool {
        self.roots.read().unwrap_or_else(PoisonError::into_inner).len() < usize::from(WORKS_MAX)
    }

    /// Serves one more directory, which costs `start` as it is: that is nobody's growth.
    pub(crate) fn add(&self, dir: BorrowedFd<'_>, start: Amount) -> Result<Zone, Errno> {
        if let Some(zone) = self.zone_of(dir)? {
            // Another session was faster.
            return Ok(zone);
        }
        let mut roots = self.roots.write().unwrap_or_else(PoisonError::into_inner);
        let index = u8::try_from(roots.len()).map_err(|_| Errno::NFILE)?;
        if index >= WORKS_MAX {
            return Err(Errno::NFILE);
        }
        let zone = Zone::Work(index);
        let fd = Arc::new(rustix::fs::openat(
            dir,
            c".",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?);
        let node = self.table.intern(zone, &rustix::fs::fstat(&fd)?, Some(&fd), None)?;
        node.keep(&fd);
        self.books.begin_work(start)?;
        roots.push(node);
        Ok(zone)
    }

    /// Has these names mean what they mean now, from here on. One that is not there is not held, nor what is in it.
    pub(crate) fn hold(&self, zone: Zone, names: &[HeldName]) -> Result<(), Errno> {
        let Zone::Work(index) = zone else {
            return Err(Errno::INVAL);
        };
        let root = self.root(index).ok_or(Errno::STALE)?;
        let mut nodes: Vec<Option<Arc<Node>>> = vec![Some(root)];
        for held in names {
            let parent = usize::try_from(held.parent).ok().and_then(|parent| nodes.get(parent));
            let node = match parent.ok_or(Errno::INVAL)? {
                Some(parent) => self.hold_one(parent, &held.name)?,
                None => None,
            };
            nodes.push(node);
        }
        Ok(())
    }

    fn hold_one(&self, parent: &Arc<Node>, name: &CString) -> Result<Option<Arc<Node>>, Errno> {
        if let Some(known) = self.held(parent, name) {
            return Ok(Some(known));
        }
        let (dir, _) = parent.fd()?;
        // Who changes a name in there waits, and then finds it held.
        let _entries = parent.entries_shared();
        let fd = match look(&dir, name) {
            Ok(fd) => Arc::new(fd),
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let stat = rustix::fs::fstat(&fd)?;
        // Told to the kernel once more than it knows of, so never forgotten.
        let node = self.table.intern(parent.zone, &stat, Some(&fd), None)?;
        node.keep(&fd);
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        held.insert((parent.id, name.clone()), Arc::clone(&node));
        self.any_held.store(true, Ordering::Release);
        Ok(Some(node))
    }

    /// What a name is held to mean.
    pub(crate) fn held(&self, parent: &Node, name: &CStr) -> Option<Arc<Node>> {
        if !self.any_held.load(Ordering::Acquire) || !matches!(parent.zone, Zone::Work(_)) {
            return None;
        }
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.get(&(parent.id, name.to_owned())).cloned()
    }

    /// `EBUSY` for a name that is held: the kernel says so to a session that has something mounted on it, and would let go of
    /// that mount for one of the same subject that has not.
    pub(crate) fn let_go(&self, parent: &Node, name: &CStr) -> Result<(), Errno> {
        match self.held(parent, name) {
            Some(_) => Err(Errno::BUSY),
            None => Ok(()),
        }
    }
}

/// Whether a descriptor is a directory that can be served.
pub(crate) fn is_directory(dir: &OwnedFd) -> Result<(), Errno> {
    let stat = rustix::fs::statat(dir.as_fd(), c"", AtFlags::EMPTY_PATH)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        Ok(())
    } else {
        Err(Errno::NOTDIR)
    }
}
