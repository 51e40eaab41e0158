//! A message as its sender described it: copied once, before anybody looks at it. sendmsg(2).

use crate::caller::Caller;
use crate::{Stop, int};
use nexus_abi::Errno;
use nexus_sys::memory;
use nexus_sys::socket::ADDRESS_BYTES_MAX;

/// The most pieces of one message (`UIO_MAXIOV`, linux/uio.h).
const PIECES_MAX: u64 = 1024;

/// The most bytes of control messages: the kernel's own limit for a socket is 20 KiB or 128 KiB (`optmem_max`); 253
/// descriptors and everything else that is let through fit in here.
const CONTROL_BYTES_MAX: usize = 4096;

/// `struct msghdr` and `struct mmsghdr` (linux/socket.h), of a 64-bit program.
const HEADER_BYTES: usize = 56;
pub(crate) const NUMBERED_HEADER_BYTES: u64 = 64;
/// Where the kernel writes how much of a message it sent.
pub(crate) const LENGTH_AT: u64 = 56;

/// What is to be sent, where to, and how.
pub(crate) struct Outgoing {
    /// The address that was given, as bytes.
    pub(crate) name: Option<Vec<u8>>,
    /// Where in the caller's memory the data lies.
    pub(crate) pieces: Vec<(u64, usize)>,
    pub(crate) control: Vec<u8>,
    pub(crate) flags: i32,
}

impl Outgoing {
    /// As sendto(2) has it.
    pub(crate) fn of_arguments(caller: &Caller<'_>, args: [u64; 6]) -> Result<Self, Stop> {
        let [_, data, length, flags, pointer, name_length] = args;
        let name = match pointer {
            0 => None,
            _ => Some(caller.address(pointer, name_length)?),
        };
        Ok(Self {
            name,
            pieces: vec![(data, size(length)?)],
            control: Vec::new(),
            flags: int(flags),
        })
    }

    /// As a `struct msghdr` at this address has it.
    pub(crate) fn of_header(caller: &Caller<'_>, at: u64, flags: i32) -> Result<Self, Stop> {
        let header: [u8; HEADER_BYTES] = caller.bytes(at, HEADER_BYTES)?.try_into().map_err(|_| Errno::EFAULT)?;
        let word = |index: usize| -> u64 {
            let bytes = header.get(index..).and_then(|rest| rest.first_chunk::<8>());
            bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
        };
        let (name, name_length, vector, count, control, control_length) =
            (word(0), int(word(8)), word(16), word(24), word(32), word(40));
        // A longer one is cut, one of no length is none (`copy_msghdr_from_user`, net/socket.c).
        let name_length = usize::try_from(name_length).map_err(|_| Errno::EINVAL)?;
        let name = match (name, name_length.min(ADDRESS_BYTES_MAX)) {
            (0, _) | (_, 0) => None,
            (pointer, length) => Some(caller.bytes(pointer, length)?),
        };
        if count > PIECES_MAX {
            return Err(Errno::EMSGSIZE.into());
        }
        let vector = caller.bytes(
            vector,
            usize::try_from(count.saturating_mul(16)).map_err(|_| Errno::EMSGSIZE)?,
        )?;
        let mut pieces = Vec::with_capacity(vector.len() / 16);
        for entry in vector.chunks_exact(16) {
            let half = |at: usize| -> u64 {
                let bytes = entry.get(at..).and_then(|rest| rest.first_chunk::<8>());
                bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
            };
            let piece = (half(0), size(half(8))?);
            if piece.1 > 0 {
                pieces.push(piece);
            }
        }
        let control_length = usize::try_from(control_length).unwrap_or(usize::MAX);
        if control_length > CONTROL_BYTES_MAX {
            return Err(Errno::ENOBUFS.into());
        }
        Ok(Self {
            name,
            pieces,
            control: caller.bytes(control, control_length)?,
            flags,
        })
    }

    /// How much data there is.
    pub(crate) fn total(&self) -> usize {
        self.pieces
            .iter()
            .fold(0, |total, (_, length)| total.saturating_add(*length))
    }

    /// All of it, copied.
    pub(crate) fn data(&self, caller: &Caller<'_>) -> Result<Vec<u8>, Stop> {
        copy(caller.tid(), &self.pieces, 0, self.total()).and_then(|data| {
            caller.still()?;
            if data.len() == self.total() {
                Ok(data)
            } else {
                Err(Errno::EFAULT.into())
            }
        })
    }
}

fn size(register: u64) -> Result<usize, Stop> {
    // A length with its sign bit is none (`import_iovec`); one past what a call moves is cut by whoever sends.
    i64::try_from(register).map_err(|_| Errno::EINVAL)?;
    usize::try_from(register).map_err(|_| Errno::EINVAL.into())
}

/// Copies at most `length` bytes from `skip` on; fewer where memory ends.
pub(crate) fn copy(tid: u32, pieces: &[(u64, usize)], skip: usize, length: usize) -> Result<Vec<u8>, Stop> {
    let mut parts = Vec::new();
    let (mut skip, mut rest) = (skip, length);
    for (address, have) in pieces {
        if rest == 0 {
            break;
        }
        let step = skip.min(*have);
        skip -= step;
        let take = (have - step).min(rest);
        if take > 0 {
            parts.push((address.saturating_add(step as u64), take));
            rest -= take;
        }
    }
    let mut data = vec![0; length - rest];
    if data.is_empty() {
        return Ok(data);
    }
    let read = memory::gather(tid, &parts, &mut data)?;
    data.truncate(read);
    Ok(data)
}
