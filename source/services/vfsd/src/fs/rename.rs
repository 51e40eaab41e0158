use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::RenameFlags;
use rustix::io::Errno;

use super::node::{Key, look};
use super::{Vfs, one_part};

impl Vfs {
    /// Renames within one of the three directories; replaces, exchanges, or refuses to replace.
    pub(crate) fn op_rename(
        &self,
        parent: u64,
        name: &CStr,
        new_parent: u64,
        new_name: &CStr,
        flags: u32,
    ) -> Result<(), Errno> {
        let flags = RenameFlags::from_bits_retain(flags);
        if !(RenameFlags::NOREPLACE | RenameFlags::EXCHANGE).contains(flags) {
            // A whiteout is a device.
            return Err(Errno::INVAL);
        }
        let (parent, name) = (self.parent(parent)?, one_part(name)?);
        let (new_parent, new_name) = (self.parent(new_parent)?, one_part(new_name)?);
        if parent.zone != new_parent.zone {
            return Err(Errno::XDEV);
        }
        let (dir, new_dir) = (self.fd(&parent)?, self.fd(&new_parent)?);
        // The lower number first, so that two renames never wait for each other.
        let _entries = if parent.id == new_parent.id {
            (parent.entries_mut(), None)
        } else if parent.id < new_parent.id {
            let first = parent.entries_mut();
            (first, Some(new_parent.entries_mut()))
        } else {
            let first = new_parent.entries_mut();
            (first, Some(parent.entries_mut()))
        };
        self.let_go(&parent, name)?;
        self.let_go(&new_parent, new_name)?;
        let (moved, moved_stat, _) = self.find(&parent, &dir, name)?;
        let forget_moved = |result| {
            self.forget_node(moved.id, 1);
            result
        };
        let act = || rustix::fs::renameat_with(&dir, name, &new_dir, new_name, flags);
        let there = match self.stat_there(&new_dir, new_name) {
            Ok(there) => there,
            Err(errno) => return forget_moved(Err(errno)),
        };
        let result = match there {
            // Two names of one inode: the host does nothing, and neither do we.
            Some(key) if key == Key::of(&moved_stat) => act(),
            Some(_) => self.find(&new_parent, &new_dir, new_name).and_then(|(victim, _, fd)| {
                let result = if flags.contains(RenameFlags::EXCHANGE) {
                    act().inspect(|()| {
                        victim.set_place(&parent, name);
                        moved.set_place(&new_parent, new_name);
                    })
                } else {
                    self.lose_name(&victim, &fd, &new_parent, new_name, act)
                        .inspect(|()| moved.set_place(&new_parent, new_name))
                };
                self.forget_node(victim.id, 1);
                result
            }),
            None => act().inspect(|()| moved.set_place(&new_parent, new_name)),
        };
        forget_moved(result)
    }

    fn stat_there(&self, dir: &Arc<OwnedFd>, name: &CStr) -> Result<Option<Key>, Errno> {
        match look(dir, name) {
            Ok(fd) => Ok(Some(Key::of(&rustix::fs::fstat(&fd)?))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}
