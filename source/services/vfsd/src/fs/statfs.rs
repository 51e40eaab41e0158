use nexus_abi::Area;
use nexus_quota::BLOCK_BYTES;

use super::table::ROOT_ID;
use super::{NAME_BYTES_MAX, Vfs};

/// What `statfs` says: the budget, in blocks of [`BLOCK_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) blocks: u64,
    pub(crate) free_blocks: u64,
    pub(crate) inodes: u64,
    pub(crate) free_inodes: u64,
    pub(crate) block_bytes: u32,
    pub(crate) name_bytes_max: u32,
}

impl Vfs {
    /// The budget and what is left of it, never the host's own room: that it may have less is not the program's to see.
    pub(crate) fn op_statfs(&self, id: u64) -> Room {
        let area = match self.table.get(id) {
            Ok(node) if id != ROOT_ID => node.zone.area(),
            _ => Area::State,
        };
        let (free, budget) = self.books.free(area);
        Room {
            blocks: budget.hard_bytes.checked_div(BLOCK_BYTES).unwrap_or_default(),
            free_blocks: free.bytes.checked_div(BLOCK_BYTES).unwrap_or_default(),
            inodes: budget.hard_inodes,
            free_inodes: free.inodes,
            block_bytes: u32::try_from(BLOCK_BYTES).unwrap_or(u32::MAX),
            name_bytes_max: u32::try_from(NAME_BYTES_MAX).unwrap_or(u32::MAX),
        }
    }
}
