use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nexus_abi::Operation;
use nexus_quota::Amount;
use rustix::fs::{AtFlags, CWD, FileType};
use rustix::io::Errno;

use super::books::Asker;
use super::node::{Node, State, proc_path};
use super::protocol::Attr;
use super::{Vfs, one_part};

impl Vfs {
    /// One more name of an inode, which costs no byte and no inode, but is bounded.
    pub(crate) fn op_link(&self, id: u64, parent: u64, name: &CStr, pid: u32) -> Result<Attr, Errno> {
        let (node, parent, name) = (self.table.get(id)?, self.parent(parent)?, one_part(name)?);
        if node.zone != parent.zone {
            return Err(Errno::XDEV);
        }
        if node.kind == FileType::Directory {
            return Err(Errno::PERM);
        }
        let (fd, dir) = (self.fd(&node)?, self.fd(&parent)?);
        let _entries = parent.entries_mut();
        self.places.let_go(&parent, name)?;
        let mut state = node.state();
        if state.reclaimed {
            return Err(Errno::STALE);
        }
        if state.unlinked {
            self.first_name(&node, &mut state, &fd, &dir, name)?;
            drop(state);
            let (node, stat, _) = self.find(&parent, &dir, name)?;
            return Ok(self.attr(&node, &stat));
        }
        let asker = Asker {
            operation: Operation::Create,
            name: name.to_bytes(),
            pid,
        };
        self.books.charge(parent.zone.area(), Amount::LINK, asker)?;
        // The magic link is the inode itself, also where that is a symbolic link.
        let made = rustix::fs::linkat(CWD, proc_path(&fd).as_c_str(), &dir, name, AtFlags::SYMLINK_FOLLOW);
        if let Err(errno) = made {
            self.books.release(parent.zone.area(), Amount::LINK);
            return Err(errno);
        }
        drop(state);
        let (node, stat, _) = self.find(&parent, &dir, name)?;
        Ok(self.attr(&node, &stat))
    }
    /// The first name of a file that was made without: it is charged as an inode already. Whether it may have one, the
    /// host knows.
    fn first_name(
        &self,
        node: &Arc<Node>,
        state: &mut State,
        fd: &OwnedFd,
        dir: &OwnedFd,
        name: &CStr,
    ) -> Result<(), Errno> {
        rustix::fs::linkat(CWD, proc_path(fd).as_c_str(), dir, name, AtFlags::SYMLINK_FOLLOW)?;
        state.unlinked = false;
        if state.handles > 0 {
            self.books.unlinked_closed();
        } else {
            self.books.adopted(node.id);
        }
        Ok(())
    }
}
