//! Making files, directories, links, fifos and sockets: the inode is charged first, and given back if it was not made.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nexus_quota::{Amount, charged_bytes};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::handle::Seat;
use super::node::{LOOK, Node, open_again, proc_path};
use super::open::{backing_flags, truncates};
use super::protocol::{Attr, Durable, opened};
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
        name: &CStr,
        pid: u32,
        (kind, cost): (FileType, Amount),
        make: impl FnOnce(&OwnedFd, &CStr) -> Result<(), Errno>,
    ) -> Result<Attr, Errno> {
        let (parent, name) = (self.parent(parent)?, one_part(name)?);
        let dir = self.fd(&parent)?;
        let _entries = parent.entries_mut();
        self.places.may_make(&parent, name, kind)?;
        self.charge_new(parent.zone, cost, name, pid)?;
        if let Err(errno) = make(&dir, name) {
            self.books.release(parent.zone.area(), cost);
            return Err(errno);
        }
        let (node, stat, _) = self.find(&parent, &dir, name)?;
        self.places.made(&parent, name, node.key);
        Ok(self.attr(&node, &stat))
    }

    pub(crate) fn op_mkdir(&self, parent: u64, name: &CStr, mode: u32, pid: u32) -> Result<Attr, Errno> {
        self.make(parent, name, pid, (FileType::Directory, Amount::INODE), |dir, name| {
            rustix::fs::mkdirat(dir, name, permissions(mode))
        })
    }

    /// Regular files, fifos and sockets; never devices.
    pub(crate) fn op_mknod(&self, parent: u64, name: &CStr, mode: u32, pid: u32) -> Result<Attr, Errno> {
        let kind = FileType::from_raw_mode(mode);
        if !matches!(kind, FileType::RegularFile | FileType::Fifo | FileType::Socket) {
            return Err(Errno::PERM);
        }
        self.make(parent, name, pid, (kind, Amount::INODE), |dir, name| {
            rustix::fs::mknodat(dir, name, kind, permissions(mode), 0)
        })
    }

    pub(crate) fn op_symlink(&self, parent: u64, name: &CStr, target: &CStr, pid: u32) -> Result<Attr, Errno> {
        // What it says is the program's to choose, so it is paid for as a file's content is.
        let len = u64::try_from(target.count_bytes()).map_err(|_| Errno::NAMETOOLONG)?;
        let bytes = charged_bytes(len).ok_or(Errno::NAMETOOLONG)?;
        let cost = Amount { bytes, ..Amount::INODE };
        self.make(parent, name, pid, (FileType::Symlink, cost), |dir, name| {
            rustix::fs::symlinkat(target, dir, name)
        })
    }

    /// Makes and opens a file. Returns its handle, and what the kernel is told of it.
    pub(crate) fn op_create(
        &self,
        parent: u64,
        name: &CStr,
        mode: u32,
        flags: u32,
        pid: u32,
    ) -> Result<(Attr, u64, u32), Errno> {
        let (parent, name) = (self.parent(parent)?, one_part(name)?);
        // Before the file is made: nobody expects one that could not be opened.
        let seat = self.seat(parent.zone, name.to_bytes(), pid)?;
        let dir = self.fd(&parent)?;
        let _entries = parent.entries_mut();
        self.places.may_make(&parent, name, FileType::RegularFile)?;
        self.charge_new(parent.zone, Amount::INODE, name, pid)?;
        let open = backing_flags(flags) | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&dir, name, open, permissions(mode)) {
            Ok(file) => {
                let stat = rustix::fs::fstat(&file)?;
                // Without a handle of its own until it needs one: it can be opened by its name.
                let node = self.table.intern(parent.zone, &stat, None, Some((&parent, name)))?;
                self.places.made(&parent, name, node.key);
                node.state().attributes = Some(0);
                let attr = self.attr(&node, &stat);
                let (number, told) = self.hold(seat, node, file, flags)?;
                Ok((attr, number, told))
            }
            Err(errno) => {
                self.books.release(parent.zone.area(), Amount::INODE);
                let wanted_new = OFlags::from_bits_retain(flags).contains(OFlags::EXCL);
                if errno != Errno::EXIST || wanted_new {
                    return Err(errno);
                }
                // It is there although the kernel did not know: somebody made it beside us.
                let (node, stat, fd) = self.find(&parent, &dir, name)?;
                if node.kind != FileType::RegularFile {
                    self.forget_node(node.id, 1);
                    return Err(Errno::EXIST);
                }
                let mut stat = stat;
                let opened = open_again(&fd, backing_flags(flags)).and_then(|file| {
                    if truncates(flags) {
                        self.truncate(&node, &fd, None, 0, pid)?;
                        stat = rustix::fs::fstat(&file)?;
                    }
                    Ok(file)
                });
                let file = opened.inspect_err(|_| self.forget_node(node.id, 1))?;
                let attr = self.attr(&node, &stat);
                let (number, told) = self.hold(seat, node, file, flags)?;
                Ok((attr, number, told))
            }
        }
    }

    /// Makes and opens a file that has no name: `O_TMPFILE`. It may get one later, by `link`.
    pub(crate) fn op_tmpfile(&self, parent: u64, mode: u32, flags: u32, pid: u32) -> Result<(Attr, u64, u32), Errno> {
        let parent = self.parent(parent)?;
        let seat = self.seat(parent.zone, b"", pid)?;
        let dir = self.fd(&parent)?;
        self.charge_new(parent.zone, Amount::INODE, c"", pid)?;
        let made = (|| {
            // Not `O_EXCL`, which would rule a name out: whether it may get one the kernel knows by itself.
            let open = backing_flags(flags) | OFlags::TMPFILE | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&dir, c".", open, permissions(mode))?;
            let handle = rustix::fs::open(
                proc_path(&file).as_c_str(),
                LOOK.difference(OFlags::NOFOLLOW),
                Mode::empty(),
            )?;
            Ok((rustix::fs::fstat(&file)?, file, Arc::new(handle)))
        })();
        let (stat, file, handle) =
            made.inspect_err(|_: &Errno| self.books.release(parent.zone.area(), Amount::INODE))?;
        let node = self
            .table
            .intern(parent.zone, &stat, Some(&handle), None)
            .inspect_err(|_| self.books.release(parent.zone.area(), Amount::INODE))?;
        node.state().attributes = Some(0);
        // If it cannot be held, closing and forgetting it gives back what it cost.
        let attr = self.attr(&node, &stat);
        let (number, told) = self.hold(seat, node, file, flags)?;
        Ok((attr, number, told))
    }

    /// Gives an opened file a number, and what the kernel is told of it; the kernel was told of the node just now and forgets it if this fails.
    fn hold(&self, seat: Seat<'_>, node: Arc<Node>, file: OwnedFd, flags: u32) -> Result<(u64, u32), Errno> {
        let id = node.id;
        self.opened(&node).inspect_err(|_| self.forget_node(id, 1))?;
        let way = self.way(&node, flags);
        let told = opened::KEEP_CACHE | way.told();
        Ok((self.handles.insert(seat, node, file, way, Durable::of(flags)), told))
    }
}
