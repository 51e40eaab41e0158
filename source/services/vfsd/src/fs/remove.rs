//! Removing names. The room of what has none left is free when it is closed and forgotten, or as soon as it is needed.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nexus_quota::Amount;
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::node::{Node, State, proc_path};
use super::{Vfs, one_part, xattr};

impl Vfs {
    pub(crate) fn op_unlink(&self, parent: u64, name: &CStr) -> Result<(), Errno> {
        self.remove(parent, name, AtFlags::empty())
    }

    pub(crate) fn op_rmdir(&self, parent: u64, name: &CStr) -> Result<(), Errno> {
        self.remove(parent, name, AtFlags::REMOVEDIR)
    }

    fn remove(&self, parent: u64, name: &CStr, flags: AtFlags) -> Result<(), Errno> {
        let (parent, name) = (self.parent(parent)?, one_part(name)?);
        let dir = self.fd(&parent)?;
        let _entries = parent.entries_mut();
        self.let_go(&parent, name)?;
        // We tell ourselves of it for a moment, so that it has a state to lock even if the kernel did not know it.
        let (victim, _, fd) = self.find(&parent, &dir, name)?;
        let result = self.lose_name(&victim, &fd, &parent, name, || rustix::fs::unlinkat(&dir, name, flags));
        self.forget_node(victim.id, 1);
        result
    }

    /// Does `act`, which takes the name `name` in `parent` from `victim`, and settles what that frees.
    pub(crate) fn lose_name(
        &self,
        victim: &Arc<Node>,
        fd: &Arc<OwnedFd>,
        parent: &Arc<Node>,
        name: &CStr,
        act: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        // Held over the act: of two names that go at once, only one can be the last.
        let mut state = victim.state();
        act()?;
        victim.clear_place(parent, name, fd);
        self.settle(victim, &mut state, fd);
        Ok(())
    }

    /// A name of `victim` is gone: was it the last?
    fn settle(&self, victim: &Arc<Node>, state: &mut State, fd: &OwnedFd) {
        let names_left = match rustix::fs::fstat(fd) {
            // A directory has one name, however its links are counted.
            Ok(stat) if victim.kind != FileType::Directory => stat.st_nlink,
            _ => 0,
        };
        if names_left > 0 {
            self.books.release(victim.zone.area(), Amount::LINK);
        } else if !state.unlinked {
            state.unlinked = true;
            if state.attributes.is_none() && matches!(victim.kind, FileType::RegularFile | FileType::Directory) {
                // What it costs is given back as a sum, so it has to be known by now.
                state.attributes = xattr::measure(&proc_path(fd)).ok();
            }
            self.orphaned(victim, state);
        }
    }
}
