use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use nexus_abi::Operation;
use nexus_quota::{Amount, LEN_BYTES_MAX, charged_bytes};
use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use super::books::Asker;
use super::handle::Handle;
use super::node::State;
use super::{Vfs, Zone};

/// What is preallocated to see whether the host lets go of it again.
const TRIAL_BYTES: u64 = 64 * 1024;

/// Whether the host lets go of what lies past a file's end when it is told the length that the file has: of the three
/// directories, each where it was asked for.
#[derive(Debug, Default)]
pub(crate) struct Trims([OnceLock<bool>; Zone::ALL.len()]);

impl Vfs {
    /// Preallocates, punches or zeroes. Collapsing and inserting never come here: Linux refuses them to FUSE.
    ///
    /// What is preallocated is charged as if it were length, and past the end as long as the file is open: then it is
    /// let go of, because what a restart measures is lengths. A host that does not let go (it is tried) gets no such
    /// request: `EOPNOTSUPP`.
    pub(crate) fn op_fallocate(&self, number: u64, offset: u64, length: u64, mode: u32, pid: u32) -> Result<(), Errno> {
        let handle = self.handle(number)?;
        let mode = FallocateFlags::from_bits_retain(mode);
        let known = FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE;
        if !known.contains(mode) {
            return Err(Errno::OPNOTSUPP);
        }
        let end = offset
            .checked_add(length)
            .filter(|end| *end <= LEN_BYTES_MAX)
            .ok_or(Errno::FBIG)?;
        if mode.contains(FallocateFlags::PUNCH_HOLE) {
            // Inside the length a hole is paid for still; past the end it would be one in what was preallocated.
            let _state = handle.node.state();
            return rustix::fs::fallocate(&handle.file, mode, offset, length);
        }
        if mode.contains(FallocateFlags::KEEP_SIZE) {
            let trims = self.trims(&handle)?;
            let mut state = handle.node.state();
            if end <= state.len {
                return rustix::fs::fallocate(&handle.file, mode, offset, length);
            }
            if !trims {
                return Err(Errno::OPNOTSUPP);
            }
            return self.reserve(&handle, &mut state, end, pid, || {
                rustix::fs::fallocate(&handle.file, mode, offset, length)
            });
        }
        let mut state = handle.node.state();
        self.grow(&handle.node, &handle.file, &mut state, end, pid, || {
            rustix::fs::fallocate(&handle.file, mode, offset, length).map(|()| ((), end))
        })
    }

    /// Charges up to `end` and does `act`, which takes room past the end of the file but no length.
    ///
    /// `INVARIANT(paid-for)`: the charge comes first.
    fn reserve(
        &self,
        handle: &Handle,
        state: &mut State,
        end: u64,
        pid: u32,
        act: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let node = &handle.node;
        let wanted = charged_bytes(end).ok_or(Errno::FBIG)?.max(state.paid);
        let more = Amount::of_bytes(wanted.saturating_sub(state.paid));
        if more != Amount::ZERO {
            let (operation, name) = (Operation::Write, node.name());
            let name = &name;
            self.books
                .charge(node.zone.area(), more, Asker { operation, name, pid })?;
        }
        state.paid = wanted;
        act().inspect_err(|_| {
            // Some of it may have been taken: everything past the end goes, what was there before included.
            let len = state.len;
            let _ = self.shorten(node, state, &handle.file, len);
        })
    }

    /// [`Trims`] of the directory that the file is in.
    fn trims(&self, handle: &Handle) -> Result<bool, Errno> {
        let zone = handle.node.zone;
        let Some((known, node)) = Zone::ALL
            .iter()
            .position(|one| *one == zone)
            .and_then(|index| Some((self.trims.0.get(index)?, self.zones.get(index)?)))
        else {
            return Ok(false);
        };
        if let Some(known) = known.get() {
            return Ok(*known);
        }
        let tried = try_trim(self.fd(node)?.as_ref()).unwrap_or(false);
        Ok(*known.get_or_init(|| tried))
    }
}

/// Preallocates past the end of a file without a name and asks for it back.
fn try_trim(dir: &OwnedFd) -> Result<bool, Errno> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, c".", flags, Mode::RUSR | Mode::WUSR)?;
    rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, TRIAL_BYTES)?;
    let taken = rustix::fs::fstat(&file)?.st_blocks;
    rustix::fs::ftruncate(&file, 0)?;
    Ok(taken > 0 && rustix::fs::fstat(&file)?.st_blocks == 0)
}
