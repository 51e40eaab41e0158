//! Requests as the kernel writes them, and as nobody should.

use proptest::prelude::*;

use super::*;

/// A request as the kernel would write it.
fn bytes(opcode: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let len = u32::try_from(body.len() + 40).unwrap();
    for number in [len, opcode] {
        bytes.extend(number.to_ne_bytes());
    }
    for number in [7_u64, 9] {
        bytes.extend(number.to_ne_bytes());
    }
    for number in [1000_u32, 1001, 42, 0] {
        bytes.extend(number.to_ne_bytes());
    }
    bytes.extend(body);
    bytes
}

#[test]
fn a_write_is_read_to_its_last_byte_and_a_shorter_one_is_refused() {
    let mut body = Vec::new();
    body.extend(3_u64.to_ne_bytes());
    body.extend(u64::MAX.to_ne_bytes());
    body.extend(5_u32.to_ne_bytes());
    body.extend([0; 20]);
    body.extend(b"hello");
    let whole = bytes(16, &body);
    let (header, opcode, rest) = Header::of(&whole).unwrap();
    assert_eq!((header.unique, header.node, header.pid), (7, 9, 42));
    let Request::Write(write) = Request::parse(opcode, rest).unwrap() else {
        panic!("a write")
    };
    let head = write.head;
    assert_eq!((head.handle, head.offset, write.data), (3, u64::MAX, &b"hello"[..]));
    let first = whole.first_chunk().unwrap();
    assert_eq!(WriteHead::of(first, whole.len()), Some((header, head)));
    assert_eq!(WriteHead::of(first, whole.len() + 1), None);
    body.pop();
    let short = bytes(16, &body);
    let (_, opcode, rest) = Header::of(&short).unwrap();
    assert_eq!(Request::parse(opcode, rest), Err(Malformed));
    assert_eq!(Header::of(whole.get(..39).unwrap()), Err(Malformed));
}

#[test]
fn a_name_that_does_not_end_is_refused() {
    assert_eq!(Request::parse(1, b"name\0"), Ok(Request::Lookup(c"name")));
    assert_eq!(Request::parse(1, b"name"), Err(Malformed));
    assert_eq!(Request::parse(6, b"name\0target"), Err(Malformed));
}

#[test]
fn a_count_that_does_not_fit_is_refused() {
    let mut body = u32::MAX.to_ne_bytes().to_vec();
    body.extend([0; 20]);
    assert_eq!(Request::parse(42, &body), Err(Malformed));
}

proptest! {
    #[test]
    fn any_bytes_are_a_request_or_not(opcode in 0_u32..60, body in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(Request::BatchForget(pairs)) = Request::parse(opcode, &body) {
            prop_assert!(Request::forgets(pairs).count() <= body.len() / FORGET_BYTES);
        }
        let _ = Header::of(&body);
    }
}
