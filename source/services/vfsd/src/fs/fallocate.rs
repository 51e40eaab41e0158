use nexus_quota::LEN_BYTES_MAX;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::Vfs;

impl Vfs {
    /// Preallocates, punches or zeroes.
    ///
    /// Room past the end with the length kept is `EOPNOTSUPP`: it would take the host's blocks without being charged,
    /// and what a restart measures is lengths. Everything else is charged as the length it makes.
    pub(crate) fn op_fallocate(&self, number: u64, offset: u64, length: u64, mode: i32, pid: u32) -> Result<(), Errno> {
        let handle = self.handle(number)?;
        let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        let known = FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE;
        if !known.contains(mode) {
            return Err(Errno::OPNOTSUPP);
        }
        let end = offset
            .checked_add(length)
            .filter(|end| *end <= LEN_BYTES_MAX)
            .ok_or(Errno::FBIG)?;
        let mut state = handle.node.state();
        let punches = mode.contains(FallocateFlags::PUNCH_HOLE);
        if mode.contains(FallocateFlags::KEEP_SIZE) {
            if !punches && end > state.len {
                return Err(Errno::OPNOTSUPP);
            }
            return rustix::fs::fallocate(&handle.file, mode, offset, length);
        }
        self.grow(&handle.node, &handle.file, &mut state, end, pid, || {
            rustix::fs::fallocate(&handle.file, mode, offset, length).map(|()| ((), end))
        })
    }
}
