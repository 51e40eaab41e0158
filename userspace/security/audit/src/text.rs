use alloc::string::String;

/// The longest subject and session name, in bytes; policy allows none longer.
pub const NAME_BYTES_MAX: usize = 64;
/// The longest object, in bytes: a destination or a path's last part (255) with room for a syscall's arguments.
pub const OBJECT_BYTES_MAX: usize = 512;
/// The longest rule id, in bytes.
pub const RULE_BYTES_MAX: usize = 128;
/// The longest `file:line` of a rule, in bytes.
pub const AT_BYTES_MAX: usize = 256;
/// The longest policy version, in bytes: a SHA-256 in hex.
pub const POLICY_BYTES_MAX: usize = 64;

/// What stands at the end of a text that was cut.
const CUT: &str = "…";

/// The text, cut between two characters and marked with `…` where it is longer than `bytes_max` bytes.
#[must_use]
pub fn clip(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return String::from(text);
    }
    let room = bytes_max.saturating_sub(CUT.len());
    let end = text
        .char_indices()
        .map(|(start, one)| start.saturating_add(one.len_utf8()))
        .take_while(|end| *end <= room);
    let mut out = String::from(text.get(..end.last().unwrap_or(0)).unwrap_or(""));
    if bytes_max >= CUT.len() {
        out.push_str(CUT);
    }
    out
}

/// Bytes that a program chose, as text for a record's object: bytes that are no UTF-8 become `\xNN` and a backslash
/// `\\`, so that two different names never look the same; at most [`OBJECT_BYTES_MAX`] bytes.
#[must_use]
pub fn object_text(bytes: &[u8]) -> String {
    let mut out = String::new();
    // No more than fits is looked at: every byte gives one byte of text at least.
    let bytes = bytes.get(..OBJECT_BYTES_MAX.saturating_add(1)).unwrap_or(bytes);
    for chunk in bytes.utf8_chunks() {
        for one in chunk.valid().chars() {
            if one == '\\' {
                out.push('\\');
            }
            out.push(one);
        }
        for byte in chunk.invalid() {
            for one in ['\\', 'x', hex(byte >> 4), hex(byte & 0xf)] {
                out.push(one);
            }
        }
    }
    clip(&out, OBJECT_BYTES_MAX)
}

/// One hexadecimal digit, lower case.
pub(crate) fn hex(nibble: u8) -> char {
    char::from_digit(u32::from(nibble & 0xf), 16).unwrap_or('0')
}

/// Whether a character is written as an escape: controls, and what makes a terminal or an editor show something else
/// than what is there (bidi marks and overrides, line separators, the byte order mark, tags).
pub(crate) const fn needs_escape(one: char) -> bool {
    matches!(
        one,
        '"' | '\\'
            | '\u{0}'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{ad}'
            | '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    #[test]
    fn a_text_of_the_bound_is_whole_and_one_more_is_cut() {
        assert_eq!(clip("abcdef", 6), "abcdef");
        assert_eq!(clip("abcdefg", 6), "abc…");
        assert_eq!(clip("äöü", 5), "ä…");
        assert_eq!(clip("abc", 2), "");
    }

    #[test]
    fn names_that_differ_in_bytes_differ_in_text() {
        assert_eq!(object_text(b"a\xffb"), "a\\xffb");
        assert_eq!(object_text(b"a\\xffb"), "a\\\\xffb");
        assert_eq!(object_text("ä\n".as_bytes()), "ä\n");
        assert!(object_text(&vec![0xff; 100_000]).len() <= OBJECT_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn a_cut_text_is_within_its_bound_and_a_beginning(text in ".{0,60}", max in 0_usize..60) {
            let cut = clip(&text, max);
            prop_assert!(cut.len() <= max);
            prop_assert!(text.starts_with(cut.trim_end_matches('…')));
        }

        #[test]
        fn short_objects_are_told_apart(a in prop::collection::vec(any::<u8>(), 0..40), b in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(a == b, object_text(&a) == object_text(&b));
        }
    }
}
