//! The few keys of the view.

use rustix::io::Errno;
use std::io;

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Stop,
    Redraw,
    Up,
    Down,
    PageUp,
    PageDown,
}

/// The most bytes that are taken at once: somebody who pastes a book is not listened to for long.
const TAKEN_BYTES: usize = 256;

/// What was typed; `None` once nobody can type any more. Only called when there is something to read.
pub(super) fn read() -> io::Result<Option<Vec<Key>>> {
    let mut bytes = [0; TAKEN_BYTES];
    match rustix::io::read(rustix::stdio::stdin(), &mut bytes) {
        Ok(0) | Err(Errno::IO) => Ok(None),
        Ok(count) => Ok(Some(keys(bytes.get(..count).unwrap_or(&[])))),
        Err(Errno::INTR | Errno::AGAIN) => Ok(Some(Vec::new())),
        Err(errno) => Err(errno.into()),
    }
}

/// Control keys by their bytes, arrows and pages by their sequences (xterm's control sequences, "PC-Style Function Keys");
/// everything else is nothing.
fn keys(mut bytes: &[u8]) -> Vec<Key> {
    const KNOWN: [(&[u8], Key); 14] = [
        (b"\x1b[A", Key::Up),
        (b"\x1bOA", Key::Up),
        (b"\x1b[B", Key::Down),
        (b"\x1bOB", Key::Down),
        (b"\x1b[5~", Key::PageUp),
        (b"\x1b[6~", Key::PageDown),
        (b"k", Key::Up),
        (b"j", Key::Down),
        (b" ", Key::PageDown),
        (b"q", Key::Quit),
        (b"Q", Key::Quit),
        (b"\x03", Key::Quit),
        (b"\x1a", Key::Stop),
        (b"\x0c", Key::Redraw),
    ];
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let known = KNOWN.iter().find(|(sequence, _)| bytes.starts_with(sequence));
        let length = known.map_or_else(|| unknown(bytes), |(sequence, _)| sequence.len());
        found.extend(known.map(|(_, key)| *key));
        bytes = bytes.get(length..).unwrap_or(&[]);
    }
    found
}

/// How long a key is that is none of ours: a sequence is passed over whole, so that its letters are no keys.
fn unknown(bytes: &[u8]) -> usize {
    match bytes {
        [0x1b, b'[', rest @ ..] => {
            let end = rest.iter().position(|byte| (0x40..=0x7e).contains(byte));
            end.map_or(bytes.len(), |end| end.saturating_add(3))
        }
        [0x1b, b'O', _, ..] => 3,
        [0x1b, _, ..] => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_sequence_is_one_key_and_its_letters_are_none() {
        assert_eq!(keys(b"\x1b[A\x1b[Bjk"), [Key::Up, Key::Down, Key::Down, Key::Up]);
        assert_eq!(keys(b"\x1b[1;5qx\x1bOq\x1bq"), []);
        assert_eq!(keys(b"\x1b[6~q"), [Key::PageDown, Key::Quit]);
        assert_eq!(keys(b"\x03\x1a"), [Key::Quit, Key::Stop]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_keys_or_none(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(keys(&bytes).len() <= bytes.len());
        }
    }
}
