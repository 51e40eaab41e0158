use std::borrow::Cow;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nexus_abi::Operation;
use nexus_quota::{Amount, LEN_BYTES_MAX, charged_bytes};
use rustix::io::Errno;

use super::Vfs;
use super::books::Asker;
use super::handle::Way;
use super::node::{Node, State};
use super::protocol::{Durable, Write, WriteHead};
use super::serve::{Pipe, aside};

/// What the host's file system takes at most of a length that only we know to be charged.
fn end_of(offset: u64, count: usize) -> Result<u64, Errno> {
    u64::try_from(count)
        .ok()
        .and_then(|count| offset.checked_add(count))
        .filter(|end| *end <= LEN_BYTES_MAX)
        .ok_or(Errno::FBIG)
}

/// Where a write's data is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Data<'a> {
    /// Here.
    Here(&'a [u8]),
    /// In a pipe.
    Piped(&'a Pipe),
}

impl Data<'_> {
    fn write_to(self, file: &OwnedFd, offset: u64, count: usize) -> Result<u64, Errno> {
        match self {
            Self::Here(data) => write_all(file, offset, data.get(..count).ok_or(Errno::INVAL)?),
            Self::Piped(pipe) => pipe.write_to(file, offset, count),
        }
    }
}

impl<'a> Data<'a> {
    /// The first `count` bytes of it, where they can be looked at.
    fn take(self, count: usize) -> Result<Cow<'a, [u8]>, Errno> {
        match self {
            Self::Here(data) => data.get(..count).map(Cow::Borrowed).ok_or(Errno::INVAL),
            Self::Piped(pipe) => {
                let mut bytes = vec![0; count];
                let read = pipe.read(&mut bytes)?;
                if read < count {
                    Err(Errno::IO)
                } else {
                    Ok(Cow::Owned(bytes))
                }
            }
        }
    }
}

impl<'a> From<Write<'a>> for Data<'a> {
    fn from(write: Write<'a>) -> Self {
        Self::Here(write.data)
    }
}

impl Vfs {
    /// Writes `data` whole, or nothing of it where the ledger says no; less where the host's disk is full.
    pub(crate) fn op_write(&self, head: WriteHead, data: Data<'_>, pid: u32) -> Result<u32, Errno> {
        if head.back {
            return self.write_back(head, data);
        }
        let WriteHead { offset, size, .. } = head;
        let handle = self.handle(head.handle)?;
        let end = end_of(offset, size)?;
        let mut state = handle.node.state();
        let result = self.grow(&handle.node, &handle.file, &mut state, end, pid, || {
            let written = data.write_to(&handle.file, offset, size)?;
            Ok((written, offset.saturating_add(written)))
        });
        match (handle.way, &result) {
            (Way::Passes, Ok(written)) => state.passed.wrote(head.handle, offset..offset.saturating_add(*written)),
            // Nothing of it was written; what came before may be the same call's.
            (Way::Passes, Err(_)) => {}
            (Way::Kept | Way::Maps, _) => state.passed.over(),
        }
        drop(state);
        let written = result?;
        if handle.way == Way::Passes && head.durable > handle.durable {
            // Through its own copy the kernel would ask for it once it is written there.
            aside();
            match head.durable {
                Durable::No => {}
                Durable::Data => rustix::fs::fdatasync(&handle.file)?,
                Durable::Whole => rustix::fs::fsync(&handle.file)?,
            }
        }
        Ok(u32::try_from(written).unwrap_or(u32::MAX))
    }

    /// Writes back what was written through a mapping: only what is inside the length, which is `INVARIANT(paid-for)`.
    ///
    /// The kernel sends this when it likes, on nobody's behalf: it is never charged and never refused by the ledger.
    fn write_back(&self, head: WriteHead, data: Data<'_>) -> Result<u32, Errno> {
        let WriteHead { offset, size, .. } = head;
        let handle = self.handle(head.handle)?;
        let state = handle.node.state();
        let inside = usize::try_from(state.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let kept = size.min(inside);
        let wanted = u64::try_from(kept).map_err(|_| Errno::FBIG)?;
        let end = offset.saturating_add(wanted);
        let counts = state.passed.counts(offset..end);
        let whole = matches!(&*counts, [one] if *one == (offset..end));
        if kept > 0 && whole && data.write_to(&handle.file, offset, kept)? < wanted {
            return Err(Errno::NOSPC);
        }
        if !whole {
            let taken = data.take(kept)?;
            for piece in counts {
                let at = |place: u64| usize::try_from(place.saturating_sub(offset)).map_err(|_| Errno::FBIG);
                let bytes = taken.get(at(piece.start)?..at(piece.end)?).ok_or(Errno::IO)?;
                let wanted = piece.end.saturating_sub(piece.start);
                if write_all(&handle.file, piece.start, bytes)? < wanted {
                    return Err(Errno::NOSPC);
                }
            }
        }
        drop(state);
        u32::try_from(size).map_err(|_| Errno::FBIG)
    }

    /// Lets a file grow to `end`, or further not at all: charges what is missing, does `act`, and gives back what `act`
    /// did not use. `act` returns its result and where it came to.
    ///
    /// `INVARIANT(paid-for)`: the charge comes first, and the length never passes it.
    pub(crate) fn grow<T>(
        &self,
        node: &Arc<Node>,
        file: &OwnedFd,
        state: &mut State,
        end: u64,
        pid: u32,
        act: impl FnOnce() -> Result<(T, u64), Errno>,
    ) -> Result<T, Errno> {
        if end <= state.len {
            return act().map(|(result, _)| result);
        }
        if state.reclaimed {
            return Err(Errno::STALE);
        }
        let area = node.zone.area();
        let before = state.paid;
        let wanted = charged_bytes(end).ok_or(Errno::FBIG)?.max(before);
        let more = Amount::of_bytes(wanted.saturating_sub(before));
        // Inside the last block, and inside what was preallocated, nothing is missing, and nothing is asked.
        if more != Amount::ZERO {
            let name = node.name();
            self.books.charge(
                area,
                more,
                Asker {
                    operation: Operation::Write,
                    name: &name,
                    pid,
                },
            )?;
        }
        let result = act();
        let reached = match &result {
            Ok((_, reached)) => *reached,
            // It may have come some way before it failed: the host's file says how far.
            Err(_) => rustix::fs::fstat(file)
                .ok()
                .and_then(|stat| u64::try_from(stat.st_size).ok())
                .unwrap_or(end),
        };
        state.len = state.len.max(reached.min(end));
        state.paid = charged_bytes(state.len).unwrap_or(wanted).max(before);
        let unused = wanted.saturating_sub(state.paid);
        if unused > 0 {
            self.books.release(area, Amount::of_bytes(unused));
        }
        if state.unlinked && state.handles == 0 {
            // Grown without a handle, by truncate(2) on an `O_PATH` descriptor: what it costs has changed.
            self.books.orphaned(node, node.cost(state));
        }
        result.map(|(result, _)| result)
    }
}

/// Writes until everything is written or the host takes no more. An error only if nothing was written.
fn write_all(file: &OwnedFd, offset: u64, data: &[u8]) -> Result<u64, Errno> {
    let mut done = 0_usize;
    let mut result = Ok(());
    while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
        let at = u64::try_from(done)
            .ok()
            .and_then(|done| offset.checked_add(done))
            .ok_or(Errno::FBIG)?;
        match rustix::io::pwrite(file, rest, at) {
            Ok(0) => break,
            Ok(written) => done = done.saturating_add(written),
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
