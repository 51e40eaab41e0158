use std::sync::Arc;

use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::Vfs;
use super::node::open_again;
use super::protocol::opened;

/// The flags with which the host's file is opened: the access mode and what makes writes durable.
///
/// Not `O_APPEND`: the kernel gives offsets. Not `O_TRUNC`: shortening goes through the books. Not `O_DIRECT`: our buffers
/// are not aligned.
pub(crate) fn backing_flags(flags: u32) -> OFlags {
    let kept = OFlags::ACCMODE | OFlags::SYNC | OFlags::DSYNC;
    OFlags::from_bits_retain(flags) & kept
}

/// Whether opening empties the file.
pub(crate) fn truncates(flags: u32) -> bool {
    OFlags::from_bits_retain(flags).contains(OFlags::TRUNC)
}

impl Vfs {
    /// Opens a file; also what the kernel is told of it.
    pub(crate) fn op_open(&self, id: u64, flags: u32, pid: u32) -> Result<(u64, u32), Errno> {
        let node = self.table.get(id)?;
        if node.kind != FileType::RegularFile {
            // The kernel opens fifos and sockets itself, and nothing else is here.
            return Err(Errno::NXIO);
        }
        let seat = self.seat(node.zone, &node.name(), pid)?;
        let fd = self.fd(&node)?;
        let file = open_again(&fd, backing_flags(flags))?;
        let unchanged = self.is_unchanged(&node, &file)?;
        self.opened(&node)?;
        if truncates(flags) {
            // Not through `file`, which may be open for reading alone.
            self.truncate(&node, &fd, None, 0, pid)
                .inspect_err(|_| self.closed(&node))?;
        }
        let number = self.handles.insert(seat, node, file);
        // Where only we change files, what the kernel has read of one stays true.
        Ok((number, if unchanged { opened::KEEP_CACHE } else { 0 }))
    }

    pub(crate) fn op_opendir(&self, id: u64, pid: u32) -> Result<(u64, u32), Errno> {
        if id == super::ROOT_ID {
            return Ok((0, 0));
        }
        let node = self.table.get(id)?;
        let seat = self.seat(node.zone, &node.name(), pid)?;
        let file = open_again(Arc::as_ref(&self.fd(&node)?), OFlags::RDONLY | OFlags::DIRECTORY)?;
        // Who else changes a directory does not tell the kernel.
        let flags = if node.zone.is_shared() {
            0
        } else {
            opened::KEEP_CACHE | opened::CACHE_DIR
        };
        self.opened(&node)?;
        Ok((self.handles.insert(seat, node, file), flags))
    }

    pub(crate) fn op_release(&self, number: u64) {
        if let Some(handle) = self.handles.remove(number) {
            self.closing(&handle.node);
            self.trim(&handle.node);
            self.left(&handle.node);
        }
    }
}
