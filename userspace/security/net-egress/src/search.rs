use crate::layer::Bits;
use alloc::vec::Vec;

/// Keys of a block: half a cache line of `u32`, two of `u128`; measured best of 4, 8 and 16 at 100,000 rules.
const FANOUT: usize = 8;

/// Sorted keys, to be searched with few cache misses: every eighth key again in a level above, and so on, so that a
/// search reads one block a level. A binary search of 200,000 keys takes some seventeen misses one after another.
#[derive(Clone, Debug)]
pub(crate) struct Search<A> {
    /// From the top level, one block, to the keys themselves.
    levels: Vec<Level<A>>,
}

#[derive(Clone, Debug)]
struct Level<A> {
    /// Filled up at the end with the highest key there can be.
    blocks: Vec<[A; FANOUT]>,
    /// How many keys are real.
    count: usize,
}

impl<A: Bits> Search<A> {
    pub(crate) const EMPTY: Self = Self { levels: Vec::new() };

    /// `keys` must be sorted.
    pub(crate) fn new(keys: &[A]) -> Self {
        let mut levels = Vec::new();
        let mut level: Vec<A> = keys.to_vec();
        while !level.is_empty() {
            let mut blocks = Vec::with_capacity(level.len().div_ceil(FANOUT));
            for chunk in level.chunks(FANOUT) {
                let mut block = [A::HIGHEST; FANOUT];
                for (slot, key) in block.iter_mut().zip(chunk) {
                    *slot = *key;
                }
                blocks.push(block);
            }
            let above: Vec<A> = level
                .chunks(FANOUT)
                .filter_map(|chunk| chunk.first().copied())
                .collect();
            levels.push(Level {
                blocks,
                count: level.len(),
            });
            level = if above.len() > 1 { above } else { Vec::new() };
        }
        levels.reverse();
        Self { levels }
    }

    /// The index of the last key that is not above `key`; `None` where every key is.
    pub(crate) fn last_not_above(&self, key: A) -> Option<usize> {
        let mut block_index = 0_usize;
        for level in &self.levels {
            let block = level.blocks.get(block_index)?;
            // Counted, not searched: no branch to be guessed wrong.
            let not_above = block
                .iter()
                .map(|own| u32::from(*own <= key))
                .fold(0, u32::wrapping_add);
            let not_above = usize::try_from(not_above).unwrap_or(FANOUT);
            // The fill counts as not above for the highest key of all.
            let real = block_index
                .saturating_mul(FANOUT)
                .saturating_add(not_above)
                .min(level.count);
            block_index = real.checked_sub(1)?;
        }
        if self.levels.is_empty() {
            None
        } else {
            Some(block_index)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(keys: &[u32], key: u32) {
        let expected = keys.partition_point(|own| *own <= key).checked_sub(1);
        assert_eq!(Search::new(keys).last_not_above(key), expected, "{key} in {keys:?}");
    }

    #[test]
    fn every_size_around_a_block_and_around_a_level_finds_every_key_and_its_neighbours() {
        for size in [0_u32, 1, 2, 15, 16, 17, 255, 256, 257, 4095, 4096, 4097] {
            let keys: Vec<u32> = (0..size).map(|n| n * 3 + 1).collect();
            let search = Search::new(&keys);
            for key in 0..size * 3 + 3 {
                let expected = keys.partition_point(|own| *own <= key).checked_sub(1);
                assert_eq!(search.last_not_above(key), expected, "{key} of {size}");
            }
            check(&keys, u32::MAX);
        }
    }

    #[test]
    fn the_highest_key_is_not_mistaken_for_the_fill() {
        check(&[0, 5], u32::MAX);
        check(&[0, u32::MAX], u32::MAX);
        check(&[0, u32::MAX], u32::MAX - 1);
    }

    proptest! {
        #[test]
        fn the_search_agrees_with_a_binary_search(mut keys in prop::collection::vec(any::<u32>(), 0..700), key: u32) {
            keys.sort_unstable();
            keys.dedup();
            check(&keys, key);
            for own in &keys {
                check(&keys, *own);
            }
        }
    }
}
