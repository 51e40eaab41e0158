//! Journals.

use nexus_audit::{Chain, Key, LINE_BYTES_MAX, OBJECT_BYTES_MAX, object_text, read_line, verify};

/// A line: what is accepted is within its bounds, and another chain writes the same record again.
pub fn audit_line(data: &[u8]) -> bool {
    let parsed = read_line(data);
    let accepted = parsed.is_ok();
    if let Ok((seq, record, _)) = parsed {
        assert!(data.len() < LINE_BYTES_MAX);
        assert_eq!(record.clone().bounded(), record);
        let mut chain = Chain::resume(Key::new([1; 32]), seq.wrapping_sub(1), nexus_audit::Mac::genesis());
        let written = chain.seal(&record);
        assert!(written.len() <= LINE_BYTES_MAX);
        if seq > 0 {
            let (again_seq, again, _) = read_line(written.trim_end().as_bytes()).expect("what is written is read");
            assert_eq!((again_seq, again), (seq, record));
        }
    }
    let text = object_text(data);
    assert!(text.len() <= OBJECT_BYTES_MAX);
    accepted
}

/// Lines of a journal: only what the key sealed holds.
pub fn audit_journal(data: &[u8]) -> bool {
    let lines = || data.split(|byte| *byte == b'\n');
    // The corpus knows this key, so that whole journals get through.
    let sealed = verify(&Key::new([7; 32]), lines());
    if sealed.is_ok() {
        assert!(
            lines()
                .filter(|line| !line.is_empty())
                .all(|line| read_line(line).is_ok())
        );
        let other = verify(&Key::new([8; 32]), lines());
        assert!(
            other.is_err() || lines().all(<[u8]>::is_empty),
            "another key finds the same chain"
        );
    }
    sealed.is_ok()
}
