//! What a write that passes the kernel's copy of a file by leaves for that copy's writing back.
//!
//! The kernel lets go of the pages that such a write touches before it asks us to write, and once more after. Whoever stores into one of them
//! through a mapping in between brings the page back as it was, and the kernel writes all of it back when it lets go the second time: over what
//! the write wrote. So its bytes are not taken from such a page. What is stored into them there is stored while the write is under
//! way, so that either may be the later; what is stored beside them counts. A page that was read *after* the write has its bytes, and is taken whole.
//!
//! The kernel's lock of the inode lets one write be under way at a time (`inode_lock`, fs/fuse/file.c), so the last one is all that has to be known.

use std::collections::BTreeMap;
use std::ops::Range;

/// The kernel's pages. Those of other sizes hold whole ones of this, on every machine that nx runs on.
const PAGE: u64 = 4096;

/// One call writes no more (`MAX_RW_COUNT`, write(2)).
const CALL_BYTES_MAX: u64 = 1 << 31;

/// What the write that is under way, or was the last, has written and nobody has read since.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    /// Through which handle it came, and to where.
    last: Option<(u64, u64)>,
    /// Where each piece starts, and where it ends. A reading of a page splits one, so there are at most half as many as the file has pages, and all of
    /// these are paid for.
    pieces: BTreeMap<u64, u64>,
}

impl Passed {
    /// A write through `handle`, from one place to another. Where it goes on where that handle's last one ended, it may be the same call's: a long
    /// write is several requests, and the kernel lets go once, after all of them.
    pub(crate) fn wrote(&mut self, handle: u64, range: Range<u64>) {
        let Range { start, end } = range;
        if self.last != Some((handle, start)) {
            self.pieces.clear();
        }
        self.last = Some((handle, end));
        let far = end.saturating_sub(CALL_BYTES_MAX);
        while self.pieces.first_key_value().is_some_and(|(_, end)| *end <= far) {
            self.pieces.pop_first();
        }
        match self.pieces.last_entry() {
            Some(mut piece) if *piece.get() == start => {
                piece.insert(end);
            }
            _ => {
                self.pieces.insert(start, end);
            }
        }
    }

    /// Another write, through the kernel's copy: the one before it is over.
    pub(crate) fn over(&mut self) {
        self.last = None;
        self.pieces.clear();
    }

    /// The kernel reads these pages into its copy.
    pub(crate) fn read(&mut self, offset: u64, size: usize) {
        let size = u64::try_from(size).unwrap_or(u64::MAX);
        let end = offset.saturating_add(size);
        // To the end of the last page, which is filled with zeros past the file's end.
        let end = end.checked_next_multiple_of(PAGE).unwrap_or(end);
        // From the last piece that begins before the end backwards, as long as they reach into it.
        while let Some((&start, &stop)) = self.pieces.range(..end).next_back() {
            if stop <= offset {
                break;
            }
            self.pieces.remove(&start);
            if stop > end {
                self.pieces.insert(end, stop);
            }
            if start < offset {
                self.pieces.insert(start, offset);
                break;
            }
        }
    }

    /// What of a page that is written back counts, in order.
    pub(crate) fn counts(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut counts = Vec::new();
        let mut at = range.start;
        let before = self.pieces.range(..range.start).next_back();
        let inside = self.pieces.range(range.start..range.end);
        for (&start, &end) in before.into_iter().chain(inside) {
            let (start, end) = (start.max(at), end.min(range.end));
            if start < end {
                if at < start {
                    counts.push(at..start);
                }
                at = end;
            }
        }
        if at < range.end {
            counts.push(at..range.end);
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counts(passed: &Passed, from: u64, to: u64) -> Vec<(u64, u64)> {
        let counts = passed.counts(from..to).into_iter();
        counts.map(|piece| (piece.start, piece.end)).collect()
    }

    #[test]
    fn of_a_page_only_what_the_last_write_did_not_write_counts_until_it_is_read_again() {
        let mut passed = Passed::default();
        assert_eq!(counts(&passed, 0, 4096), [(0, 4096)]);
        passed.wrote(1, 8..12);
        assert_eq!(counts(&passed, 0, 4096), [(0, 8), (12, 4096)]);
        assert_eq!(counts(&passed, 4096, 8192), [(4096, 8192)]);
        // The write goes on, into the next page.
        passed.wrote(1, 12..5000);
        assert_eq!(counts(&passed, 0, 8192), [(0, 8), (5000, 8192)]);
        passed.read(0, 4096);
        assert_eq!(counts(&passed, 0, 8192), [(0, 4096), (5000, 8192)]);
        // Another write: the kernel has let go of the first one's pages by then.
        passed.wrote(2, 100..200);
        assert_eq!(counts(&passed, 0, 8192), [(0, 100), (200, 8192)]);
        passed.over();
        assert_eq!(counts(&passed, 0, 8192), [(0, 8192)]);
    }

    proptest! {
        /// Against a byte for each byte.
        #[test]
        fn it_is_what_a_list_of_all_bytes_is(steps in prop::collection::vec((0..4_u8, 0..3_u64, 0..40_000_u64, 1..20_000_u64), 0..12)) {
            let mut passed = Passed::default();
            let mut bytes = vec![false; 80_000];
            let mut last = None;
            for (what, handle, from, size) in steps {
                match what {
                    0 => {
                        // Some go on where the last one ended.
                        let from = last.filter(|(of, _)| *of == handle).map_or(from, |(_, end)| end).min(50_000);
                        let to = from + size;
                        if last != Some((handle, from)) {
                            bytes.fill(false);
                        }
                        bytes[from as usize..to as usize].fill(true);
                        last = Some((handle, to));
                        passed.wrote(handle, from..to);
                    }
                    1 => {
                        bytes.fill(false);
                        last = None;
                        passed.over();
                    }
                    _ => {
                        let (from, size) = (from / PAGE * PAGE, size / PAGE * PAGE + if what == 2 { 0 } else { 7 });
                        let end = (from + size).next_multiple_of(PAGE).min(80_000);
                        bytes[from as usize..end.max(from) as usize].fill(false);
                        passed.read(from, size as usize);
                    }
                }
                let counts = passed.counts(1000..79_000);
                for at in 1000..79_000_u64 {
                    prop_assert_eq!(counts.iter().any(|piece| piece.contains(&at)), !bytes[at as usize], "{}", at);
                }
            }
        }
    }

    #[test]
    fn a_write_of_many_pages_of_which_every_other_is_read_is_known_page_for_page() {
        let mut passed = Passed::default();
        passed.wrote(1, 0..10_000 * PAGE);
        for page in (1..10_000).step_by(2) {
            passed.read(page * PAGE, 4096);
        }
        for page in 0..10_000 {
            let read = page % 2 == 1;
            let whole = (page * PAGE, (page + 1) * PAGE);
            assert_eq!(
                counts(&passed, whole.0, whole.1),
                if read { vec![whole] } else { Vec::new() }
            );
        }
    }

    #[test]
    fn what_no_call_can_have_written_any_more_is_forgotten() {
        let mut passed = Passed::default();
        let step = 64 << 20;
        for at in (0..5 * CALL_BYTES_MAX).step_by(step as usize) {
            passed.wrote(1, at..at + step);
            passed.read(at, 4096);
        }
        assert!(passed.pieces.len() <= usize::try_from(CALL_BYTES_MAX / step).unwrap() + 1);
    }
}
