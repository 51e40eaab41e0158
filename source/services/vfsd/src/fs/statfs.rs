use nexus_abi::Area;
use nexus_quota::BLOCK_BYTES;

use super::protocol::Answer;
use super::table::ROOT_ID;
use super::{NAME_BYTES_MAX, Vfs};

impl Vfs {
    /// What `statfs` says (`struct fuse_kstatfs`): the budget and what is left of it, in blocks of [`BLOCK_BYTES`]. Never
    /// the host's own room: that it may have less is not the program's to see.
    pub(crate) fn op_statfs(&self, id: u64, answer: &mut Answer) {
        let area = match self.table.get(id) {
            Ok(node) if id != ROOT_ID => node.zone.area(),
            _ => Area::State,
        };
        let (free, budget) = self.books.free(area);
        let blocks = |bytes: u64| bytes.checked_div(BLOCK_BYTES).unwrap_or_default();
        answer.u64(blocks(budget.hard_bytes));
        answer.u64(blocks(free.bytes));
        answer.u64(blocks(free.bytes));
        answer.u64(budget.hard_inodes);
        answer.u64(free.inodes);
        let block = u32::try_from(BLOCK_BYTES).unwrap_or(u32::MAX);
        answer.u32(block);
        answer.u32(u32::try_from(NAME_BYTES_MAX).unwrap_or(u32::MAX));
        answer.u32(block);
        answer.bytes(&[0; 28]);
    }
}
