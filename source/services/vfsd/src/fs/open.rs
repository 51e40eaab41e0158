use std::sync::Arc;

use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::Vfs;
use super::handle::Way;
use super::node::{Node, open_again};
use super::protocol::{Durable, opened};

/// The flags with which the host's file is opened: the access mode and what makes writes durable.
///
/// Not `O_APPEND`: the kernel gives offsets. Not `O_TRUNC`: shortening goes through the books. Not `O_DIRECT`: our buffers
/// are not aligned.
pub(crate) fn backing_flags(flags: u32) -> OFlags {
    // Both bits of it (`Durable`).
    let kept = OFlags::ACCMODE | OFlags::SYNC;
    OFlags::from_bits_retain(flags) & kept
}

/// Whether opening empties the file. The kernel says so only where it makes one, and somebody else has.
pub(crate) fn truncates(flags: u32) -> bool {
    OFlags::from_bits_retain(flags).contains(OFlags::TRUNC)
}

/// Whether what is opened may be mapped to be written, which takes reading as well (mmap(2)).
fn maps(flags: u32) -> bool {
    OFlags::from_bits_retain(flags) & OFlags::ACCMODE == OFlags::RDWR
}

fn only_writes(flags: u32) -> bool {
    OFlags::from_bits_retain(flags) & OFlags::ACCMODE == OFlags::WRONLY
}

impl Way {
    /// What the kernel is told of it.
    pub(crate) const fn told(self) -> u32 {
        match self {
            Self::Kept | Self::Maps => 0,
            Self::Passes => opened::DIRECT_IO,
        }
    }
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
        let way = self.way(&node, flags);
        let number = self.handles.insert(seat, node, file, way, Durable::of(flags));
        // Where only we change files, what the kernel has read of one stays true.
        let kept = if unchanged { opened::KEEP_CACHE } else { 0 };
        Ok((number, way.told() | kept))
    }

    /// What is written through a file that is opened to be written and not read is taken from the program's own pages, and the kernel
    /// forgets what it held of that place. It spares the copy that nobody reads through this descriptor.
    ///
    /// Not where the file may be mapped to be written; of who maps it later, [`Passed`](super::passed::Passed) says what becomes.
    pub(crate) fn way(&self, node: &Node, flags: u32) -> Way {
        let mut state = node.state();
        if maps(flags) {
            state.mappers = state.mappers.saturating_add(1);
            Way::Maps
        } else if self.writes_pass && only_writes(flags) && state.mappers == 0 {
            state.passers = state.passers.saturating_add(1);
            Way::Passes
        } else {
            Way::Kept
        }
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
        Ok((self.handles.insert(seat, node, file, Way::Kept, Durable::No), flags))
    }

    pub(crate) fn op_release(&self, number: u64) {
        if let Some(handle) = self.handles.remove(number) {
            self.closing(&handle.node);
            self.trim(&handle.node);
            let mut state = handle.node.state();
            match handle.way {
                Way::Kept => {}
                Way::Maps => state.mappers = state.mappers.saturating_sub(1),
                Way::Passes => {
                    state.passers = state.passers.saturating_sub(1);
                    if state.passers == 0 {
                        state.passed.over();
                    }
                }
            }
            drop(state);
            self.left(&handle.node);
        }
    }
}
