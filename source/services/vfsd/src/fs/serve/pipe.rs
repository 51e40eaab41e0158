//! Large writes, from one of the kernel's page caches to the other without a copy here in between.

use std::cell::Cell;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags};

use super::super::protocol::{DATA_BYTES_MAX, REQUEST_BYTES_MAX};

/// How much a pipe holds: the most that one may have without privilege (`fs.pipe-max-size`).
///
/// It holds whole pages, and the kernel would fail a request that needs more of them: one for each page of data, one
/// more where data is not aligned, and one for the header.
const PIPE_BYTES: usize = 1 << 20;

const _: () = assert!(
    PIPE_BYTES >= 2 * DATA_BYTES_MAX,
    "the largest request fits with room to spare"
);

/// From how much data on the detour pays.
pub(super) const PIPED_BYTES_MIN: usize = 32 * 1024;

/// A pipe with nothing in it, or the rest of one request.
#[derive(Debug)]
pub(crate) struct Pipe {
    from: OwnedFd,
    into: OwnedFd,
    /// How many bytes are in it.
    left: Cell<usize>,
}

impl Pipe {
    /// `None` where a user may have no more large pipes: then requests are read as any other.
    pub(super) fn new() -> Option<Self> {
        let (from, into) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).ok()?;
        let size = rustix::pipe::fcntl_setpipe_size(&into, PIPE_BYTES).ok()?;
        (size >= PIPE_BYTES).then_some(Self {
            from,
            into,
            left: Cell::new(0),
        })
    }

    /// Waits for one request and takes it in; an error means that there will be no more, but for `EINTR`.
    pub(super) fn receive(&self, device: &OwnedFd) -> Result<usize, Errno> {
        loop {
            match rustix::pipe::splice(device, None, &self.into, None, REQUEST_BYTES_MAX, SpliceFlags::empty()) {
                Ok(count) => {
                    self.left.set(count);
                    return Ok(count);
                }
                Err(Errno::NOENT | Errno::AGAIN) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.left.get() == 0
    }

    /// Takes out what fits `buffer`, or everything.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let mut done = 0_usize;
        while self.left.get() > 0 {
            let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) else {
                break;
            };
            match rustix::io::read(&self.from, rest) {
                Ok(0) => return Err(Errno::IO),
                Ok(count) => {
                    done = done.saturating_add(count);
                    self.left.set(self.left.get().saturating_sub(count));
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(done)
    }

    /// Writes the next `count` bytes to `file` at `offset`; fewer where the host takes no more. An error only if nothing
    /// was written.
    pub(crate) fn write_to(&self, file: &OwnedFd, offset: u64, count: usize) -> Result<u64, Errno> {
        let count = count.min(self.left.get());
        let mut done = 0_usize;
        let mut at = offset;
        let mut result = Ok(());
        while done < count {
            let rest = count.saturating_sub(done);
            match rustix::pipe::splice(&self.from, None, file, Some(&mut at), rest, SpliceFlags::empty()) {
                Ok(0) => break,
                Ok(written) => {
                    done = done.saturating_add(written);
                    self.left.set(self.left.get().saturating_sub(written));
                }
                Err(Errno::INTR) => {}
                Err(errno) => {
                    result = Err(errno);
                    break;
                }
            }
        }
        if done == 0 {
            result?;
        }
        u64::try_from(done).map_err(|_| Errno::FBIG)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_went_in_comes_out_in_a_file_where_it_belongs() {
        let pipe = Pipe::new().unwrap();
        let mut path = std::env::temp_dir();
        path.push(format!("vfsd-pipe-{}", std::process::id()));
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        std::fs::remove_file(&path).unwrap();
        let data: Vec<u8> = (0..100_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        std::fs::File::from(pipe.into.try_clone().unwrap())
            .write_all(&data)
            .unwrap();
        pipe.left.set(data.len());
        let mut head = [0; 80];
        assert_eq!(pipe.read(&mut head).unwrap(), 80);
        let file = OwnedFd::from(file);
        assert_eq!(pipe.write_to(&file, 5000, usize::MAX).unwrap(), 99_920);
        assert!(pipe.is_empty());
        let mut back = vec![0; 99_920];
        std::os::unix::fs::FileExt::read_exact_at(&std::fs::File::from(file), &mut back, 5000).unwrap();
        assert!(back == data[80..]);
    }

    #[test]
    fn what_the_host_refuses_stays_in_the_pipe() {
        let pipe = Pipe::new().unwrap();
        std::fs::File::from(pipe.into.try_clone().unwrap())
            .write_all(&[1; 100])
            .unwrap();
        pipe.left.set(100);
        let read_only = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        assert!(pipe.write_to(&read_only, 0, 100).is_err());
        assert!(!pipe.is_empty());
    }
}
