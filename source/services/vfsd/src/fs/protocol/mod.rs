//! The FUSE protocol as the kernel speaks it (linux/fuse.h): requests to values, answers to bytes.
//!
//! Only what these files need. Numbers are in the machine's own byte order. Nothing here trusts a length: what does not
//! parse is [`Malformed`], and the caller answers it with an error.

mod answer;
mod durable;
mod init;
mod request;

pub(crate) use answer::{Answer, Attr, Time};
pub(crate) use durable::Durable;
pub(crate) use init::{Agreed, agree};
pub(crate) use request::{Changes, Header, ReadHead, Request, TimeChange, WRITE, Write, WriteHead};

/// The largest write that comes as one request, and so is judged as one; also the largest answer to a read. Half of what
/// the kernel allows (`fs.fuse.max_pages_limit`, 256 pages), so that a request fits the pipe that it may go through.
pub(crate) const DATA_BYTES_MAX: usize = 512 * 1024;

/// What a request needs beside its data: headers, and names of which there are at most two.
const REQUEST_EXTRA_BYTES: usize = 8192;

/// The buffer that a request is read into; the kernel refuses to fill a smaller one than it may need.
pub(crate) const REQUEST_BYTES_MAX: usize = DATA_BYTES_MAX + REQUEST_EXTRA_BYTES;

/// What is said of an opened file or directory (`FOPEN_*`).
pub(crate) mod opened {
    /// What is written through this descriptor comes from the program's own pages and passes the kernel's copy of the file by, which
    /// loses what it held of that place.
    pub(crate) const DIRECT_IO: u32 = 1;
    /// What the kernel has read of the file stays true.
    pub(crate) const KEEP_CACHE: u32 = 1 << 1;
    /// The kernel may remember the directory's listing until it changes the directory itself.
    pub(crate) const CACHE_DIR: u32 = 1 << 3;
}
