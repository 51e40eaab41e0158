use crate::layer::Bits;
use alloc::vec::Vec;

/// Keys of a block: half a cache line of `u32`, two of `u128`; measured best of 4, 8 and 16 at 100,000 rules.
const FANOUT: usize = 8;

/// Sorted keys with a value each, to be searched with few cache misses: every eighth key again in a level above, and so on, so that a
/// search reads one block a level. A binary search of 200,000 keys takes some seventeen misses one after another.
#[derive(Clone, Debug)]
pub(crate) struct Search<A, V> {
    /// From the top level, one block, to the one above the leaves.
    levels: Vec<Level<A>>,
    /// All keys.
    leaves: Vec<Leaf<A, V>>,
}

#[derive(Clone, Debug)]
struct Level<A> {
    /// Filled up at the end with the highest key there can be.
    blocks: Vec<[A; FANOUT]>,
    /// How many keys are real.
    count: usize,
}

/// Values beside their keys: a table of values would be one more cache miss, and after the last of the keys.
#[derive(Clone, Debug)]
struct Leaf<A, V> {
    /// Filled up at the end with the last key.
    keys: [A; FANOUT],
    values: [V; FANOUT],
}

impl<A: Bits, V: Copy> Search<A, V> {
    pub(crate) const EMPTY: Self = Self {
        levels: Vec::new(),
        leaves: Vec::new(),
    };

    /// The keys must be sorted, each once.
    pub(crate) fn new(pairs: &[(A, V)]) -> Self {
        let mut leaves = Vec::with_capacity(pairs.len().div_ceil(FANOUT));
        let mut level = Vec::with_capacity(leaves.capacity());
        for chunk in pairs.chunks(FANOUT) {
            let (Some(first), Some((key, value))) = (chunk.first(), chunk.last()) else {
                continue;
            };
            let mut leaf = Leaf {
                keys: [*key; FANOUT],
                values: [*value; FANOUT],
            };
            for (slot, (key, _)) in leaf.keys.iter_mut().zip(chunk) {
                *slot = *key;
            }
            for (slot, (_, value)) in leaf.values.iter_mut().zip(chunk) {
                *slot = *value;
            }
            leaves.push(leaf);
            level.push(first.0);
        }
        let mut levels = Vec::new();
        while level.len() > 1 {
            let mut blocks = Vec::with_capacity(level.len().div_ceil(FANOUT));
            for chunk in level.chunks(FANOUT) {
                let mut block = [A::HIGHEST; FANOUT];
                for (slot, key) in block.iter_mut().zip(chunk) {
                    *slot = *key;
                }
                blocks.push(block);
            }
            let above = level
                .chunks(FANOUT)
                .filter_map(|chunk| chunk.first().copied())
                .collect();
            levels.push(Level {
                blocks,
                count: level.len(),
            });
            level = above;
        }
        levels.reverse();
        Self { levels, leaves }
    }

    /// The value of the last key that is not above `key`; `None` where every key is.
    pub(crate) fn last_not_above(&self, key: A) -> Option<V> {
        let mut at = 0_usize;
        for level in &self.levels {
            let block = level.blocks.get(at)?;
            // Counted, not searched: no branch to be guessed wrong.
            let not_above = block
                .iter()
                .map(|own| u32::from(*own <= key))
                .fold(0, u32::wrapping_add);
            let not_above = usize::try_from(not_above).unwrap_or(FANOUT);
            // The fill counts as not above for the highest key of all.
            let real = at.saturating_mul(FANOUT).saturating_add(not_above).min(level.count);
            at = real.checked_sub(1)?;
        }
        let leaf = self.leaves.get(at)?;
        // All are read, and one is kept: reading only that would begin when all keys have come.
        let mut found = None;
        for (own, value) in leaf.keys.iter().zip(&leaf.values) {
            found = if *own <= key { Some(*value) } else { found };
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Each key's value is its place.
    fn search(keys: &[u32]) -> Search<u32, usize> {
        let pairs: Vec<_> = keys.iter().enumerate().map(|(place, key)| (*key, place)).collect();
        Search::new(&pairs)
    }

    fn check(keys: &[u32], key: u32) {
        let expected = keys.partition_point(|own| *own <= key).checked_sub(1);
        assert_eq!(search(keys).last_not_above(key), expected, "{key} in {keys:?}");
    }

    #[test]
    fn every_size_around_a_block_and_around_a_level_finds_every_key_and_its_neighbours() {
        for size in [
            0_u32, 1, 2, 7, 8, 9, 15, 16, 17, 63, 64, 65, 255, 256, 257, 4095, 4096, 4097,
        ] {
            let keys: Vec<u32> = (0..size).map(|n| n * 3 + 1).collect();
            let search = search(&keys);
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
