//! Open files and directories.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustix::io::Errno;

use super::node::Node;

/// One open file description of the program.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) node: Arc<Node>,
    /// Never `O_APPEND`: the kernel says at which offset to write.
    pub(crate) file: OwnedFd,
    /// Where a directory's listing stands, as the host counts; `None` where it has to be sought.
    pub(crate) listing: Mutex<Option<u64>>,
}

/// All of them, by a number that is never used twice.
#[derive(Debug)]
pub(crate) struct Handles {
    open: RwLock<HashMap<u64, Arc<Handle>>>,
    next: AtomicU64,
    max: usize,
}

impl Handles {
    /// At most `max`: each is a descriptor.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            open: RwLock::default(),
            next: AtomicU64::new(1),
            max,
        }
    }

    pub(crate) fn get(&self, number: u64) -> Result<Arc<Handle>, Errno> {
        self.open
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&number)
            .cloned()
            .ok_or(Errno::BADF)
    }

    pub(crate) fn insert(&self, node: Arc<Node>, file: OwnedFd) -> Result<u64, Errno> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= self.max {
            return Err(Errno::NFILE);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        open.insert(
            number,
            Arc::new(Handle {
                node,
                file,
                listing: Mutex::new(Some(0)),
            }),
        );
        Ok(number)
    }

    pub(crate) fn remove(&self, number: u64) -> Option<Arc<Handle>> {
        self.open
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&number)
    }
}
