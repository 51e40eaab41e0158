//! Mutated inputs, the same ones for the same seed on any machine.

/// Where a mutator starts.
pub type Seed = u64;

/// The longest input that is made: past every bound of the parsers but the policy tree's, which has a test of its own.
const INPUT_BYTES_MAX: usize = 64 << 10;

/// Makes inputs out of a corpus: each is one of its entries with some small damage.
#[derive(Clone, Debug)]
pub struct Mutator<'c> {
    corpus: &'c [Vec<u8>],
    state: u64,
}

impl<'c> Mutator<'c> {
    /// A mutator over these inputs, of which there must be one.
    ///
    /// # Panics
    /// Without any.
    #[must_use]
    pub fn new(corpus: &'c [Vec<u8>], seed: Seed) -> Self {
        assert!(!corpus.is_empty(), "nothing to mutate");
        Self { corpus, state: seed }
    }

    /// `SplitMix64`: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`, which must not be 0. The slight unevenness does not matter here.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).unwrap_or(1)).unwrap_or(0)
    }

    fn pick(&mut self) -> &'c [u8] {
        let at = self.below(self.corpus.len());
        &self.corpus[at]
    }

    /// The next input.
    #[must_use]
    pub fn input(&mut self) -> Vec<u8> {
        let mut input = self.pick().to_vec();
        // Mostly one: what is damaged in several places is refused at the first.
        let damages = [1, 1, 1, 2, 5][self.below(5)];
        for _ in 0..damages {
            self.damage(&mut input);
        }
        input.truncate(INPUT_BYTES_MAX);
        input
    }

    fn damage(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        let byte = self.byte();
        match self.below(9) {
            0 => input.insert(at, byte),
            1 if at < input.len() => input[at] = byte,
            2 if at < input.len() => input[at] ^= 1 << self.below(8),
            3 if at < input.len() => drop(input.remove(at)),
            4 => input.truncate(at),
            // A piece of itself again, or of another.
            5 | 6 => {
                let other = self.pick();
                let from = self.below(other.len() + 1);
                let length = self.below(32).min(other.len() - from);
                input.splice(at..at, other[from..from + length].iter().copied());
            }
            7 => {
                let length = self.below(16).min(input.len() - at);
                drop(input.drain(at..at + length));
            }
            // A number at or next to an edge.
            8 => {
                let edges: [u64; 8] = [0, 1, 0x7f, 0xff, 0x7fff_ffff, 0xffff_ffff, 1 << 63, u64::MAX];
                let edge = edges[self.below(edges.len())]
                    .wrapping_add(u64::from(byte % 3))
                    .wrapping_sub(1);
                if self.below(2) == 0 {
                    input.splice(at..at, edge.to_string().into_bytes());
                } else {
                    let length = 8.min(input.len() - at);
                    input.splice(at..at + length, edge.to_le_bytes());
                }
            }
            _ => {}
        }
    }

    /// Any byte, but more often one that means something to a parser of text.
    fn byte(&mut self) -> u8 {
        const MEANT: &[u8] = b"\0\n\r\t \"'[]{}=,.:/\\#-+*|0129azAZ_\x7f\x80\xc3\xff";
        if self.below(2) == 0 {
            MEANT[self.below(MEANT.len())]
        } else {
            u8::try_from(self.below(256)).unwrap_or(0)
        }
    }
}
