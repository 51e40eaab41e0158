use std::sync::Arc;

use fuser::FopenFlags;
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::Vfs;
use super::node::open_again;

/// The flags with which the host's file is opened: the access mode and what makes writes durable.
///
/// Not `O_APPEND` and not `O_TRUNC`: the kernel gives offsets and asks for truncation by itself. Not `O_DIRECT`: our
/// buffers are not aligned.
pub(crate) fn backing_flags(flags: i32) -> OFlags {
    let kept = OFlags::ACCMODE | OFlags::SYNC | OFlags::DSYNC;
    OFlags::from_bits_retain(flags.cast_unsigned()) & kept
}

impl Vfs {
    pub(crate) fn op_open(&self, id: u64, flags: i32) -> Result<(u64, FopenFlags), Errno> {
        let node = self.table.get(id)?;
        if node.kind != FileType::RegularFile {
            // The kernel opens fifos and sockets itself, and nothing else is here.
            return Err(Errno::NXIO);
        }
        let file = open_again(Arc::as_ref(&self.fd(&node)?), backing_flags(flags))?;
        let unchanged = self.is_unchanged(&node, &file)?;
        self.opened(&node)?;
        let number = self
            .handles
            .insert(Arc::clone(&node), file)
            .inspect_err(|_| self.closed(&node))?;
        // Where only we change files, what the kernel has read of one stays true.
        let flags = if unchanged {
            FopenFlags::FOPEN_KEEP_CACHE
        } else {
            FopenFlags::empty()
        };
        Ok((number, flags))
    }

    pub(crate) fn op_opendir(&self, id: u64) -> Result<(u64, FopenFlags), Errno> {
        if id == super::ROOT_ID {
            return Ok((0, FopenFlags::empty()));
        }
        let node = self.table.get(id)?;
        let file = open_again(Arc::as_ref(&self.fd(&node)?), OFlags::RDONLY | OFlags::DIRECTORY)?;
        self.opened(&node)?;
        let number = self
            .handles
            .insert(Arc::clone(&node), file)
            .inspect_err(|_| self.closed(&node))?;
        Ok((number, FopenFlags::empty()))
    }

    pub(crate) fn op_release(&self, number: u64) {
        if let Some(handle) = self.handles.remove(number) {
            self.closed(&handle.node);
        }
    }
}
