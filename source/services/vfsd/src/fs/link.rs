use std::ffi::OsStr;

use fuser::FileAttr;
use nexus_abi::Operation;
use nexus_quota::Amount;
use rustix::fs::{AtFlags, CWD, FileType};
use rustix::io::Errno;

use super::books::Asker;
use super::node::proc_path;
use super::{Vfs, one_part};

impl Vfs {
    /// One more name of an inode, which costs no byte and no inode, but is bounded.
    pub(crate) fn op_link(&self, id: u64, parent: u64, name: &OsStr, pid: u32) -> Result<FileAttr, Errno> {
        let (node, parent, name) = (self.table.get(id)?, self.parent(parent)?, one_part(name)?);
        if node.zone != parent.zone {
            return Err(Errno::XDEV);
        }
        if node.kind == FileType::Directory {
            return Err(Errno::PERM);
        }
        let (fd, dir) = (self.fd(&node)?, self.fd(&parent)?);
        let _entries = parent.entries_mut();
        let state = node.state();
        if state.unlinked {
            return Err(Errno::NOENT);
        }
        let asker = Asker {
            operation: Operation::Create,
            name: name.to_bytes(),
            pid,
        };
        self.books.charge(parent.zone.area(), Amount::LINK, asker)?;
        // The magic link is the inode itself, also where that is a symbolic link.
        let made = rustix::fs::linkat(CWD, proc_path(&fd).as_c_str(), &dir, &name, AtFlags::SYMLINK_FOLLOW);
        if let Err(errno) = made {
            self.books.release(parent.zone.area(), Amount::LINK);
            return Err(errno);
        }
        drop(state);
        let (node, stat, _) = self.find(&parent, &dir, &name)?;
        Ok(self.attr(&node, &stat))
    }
}
