//! Making files, directories, links, fifos and sockets: the inode is charged first, and given back if it was not made.

use std::ffi::{CStr, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use fuser::FileAttr;
use nexus_quota::Amount;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::node::{Node, open_again};
use super::open::backing_flags;
use super::{Vfs, one_part};

/// The permissions that a file can have here: without set-id bits, which mean nothing on this mount and must mean
/// nothing to whoever meets the file on the host.
pub(crate) fn permissions(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o1777)
}

impl Vfs {
    /// Makes what `make` makes, charged, and tells the kernel of it.
    fn make(
        &self,
        parent: u64,
        name: &OsStr,
        pid: u32,
        make: impl FnOnce(&OwnedFd, &CStr) -> Result<(), Errno>,
    ) -> Result<FileAttr, Errno> {
        let (parent, name) = (self.parent(parent)?, one_part(name)?);
        let dir = self.fd(&parent)?;
        let _entries = parent.entries_mut();
        self.charge_inode(parent.zone, &name, pid)?;
        if let Err(errno) = make(&dir, &name) {
            self.books.release(parent.zone.area(), Amount::INODE);
            return Err(errno);
        }
        let (node, stat, _) = self.find(&parent, &dir, &name)?;
        Ok(self.attr(&node, &stat))
    }

    pub(crate) fn op_mkdir(&self, parent: u64, name: &OsStr, mode: u32, pid: u32) -> Result<FileAttr, Errno> {
        self.make(parent, name, pid, |dir, name| {
            rustix::fs::mkdirat(dir, name, permissions(mode))
        })
    }

    /// Regular files, fifos and sockets; never devices.
    pub(crate) fn op_mknod(&self, parent: u64, name: &OsStr, mode: u32, pid: u32) -> Result<FileAttr, Errno> {
        let kind = FileType::from_raw_mode(mode);
        if !matches!(kind, FileType::RegularFile | FileType::Fifo | FileType::Socket) {
            return Err(Errno::PERM);
        }
        self.make(parent, name, pid, |dir, name| {
            rustix::fs::mknodat(dir, name, kind, permissions(mode), 0)
        })
    }

    pub(crate) fn op_symlink(&self, parent: u64, name: &OsStr, target: &OsStr, pid: u32) -> Result<FileAttr, Errno> {
        self.make(parent, name, pid, |dir, name| {
            rustix::fs::symlinkat(target.as_bytes(), dir, name)
        })
    }

    /// Makes and opens a file. Returns its handle.
    pub(crate) fn op_create(
        &self,
        parent: u64,
        name: &OsStr,
        mode: u32,
        flags: i32,
        pid: u32,
    ) -> Result<(FileAttr, u64), Errno> {
        let (parent, name) = (self.parent(parent)?, one_part(name)?);
        let dir = self.fd(&parent)?;
        let _entries = parent.entries_mut();
        self.charge_inode(parent.zone, &name, pid)?;
        let open = backing_flags(flags) | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&dir, &name, open, permissions(mode)) {
            Ok(file) => {
                let (node, stat, _) = self.find(&parent, &dir, &name)?;
                Ok((self.attr(&node, &stat), self.hold(node, file)?))
            }
            Err(errno) => {
                self.books.release(parent.zone.area(), Amount::INODE);
                let wanted_new = OFlags::from_bits_retain(flags.cast_unsigned()).contains(OFlags::EXCL);
                if errno != Errno::EXIST || wanted_new {
                    return Err(errno);
                }
                // It is there although the kernel did not know: somebody made it beside us.
                let (node, stat, fd) = self.find(&parent, &dir, &name)?;
                if node.kind != FileType::RegularFile {
                    self.forget_node(node.id, 1);
                    return Err(Errno::EXIST);
                }
                let mut stat = stat;
                let file = open_again(&fd, backing_flags(flags)).and_then(|file| {
                    // The kernel takes it for new, and so for empty.
                    if OFlags::from_bits_retain(flags.cast_unsigned()).contains(OFlags::TRUNC) {
                        self.truncate(&node, &fd, None, 0, pid)?;
                        stat = rustix::fs::fstat(&file)?;
                    }
                    Ok(file)
                });
                let file = file.inspect_err(|_| self.forget_node(node.id, 1))?;
                Ok((self.attr(&node, &stat), self.hold(node, file)?))
            }
        }
    }

    /// Gives an opened file a number; the kernel was told of the node just now and forgets it if this fails.
    fn hold(&self, node: Arc<Node>, file: OwnedFd) -> Result<u64, Errno> {
        let id = node.id;
        let held = self.opened(&node).and_then(|()| {
            self.handles
                .insert(Arc::clone(&node), file)
                .inspect_err(|_| self.closed(&node))
        });
        held.inspect_err(|_| self.forget_node(id, 1))
    }
}
