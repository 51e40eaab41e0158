//! What the chain finds, and what it cannot.

use crate::record::{any_record, key, record};
use nexus_abi::{Operation, Reason};
use nexus_audit::{Chain, Flaw, Judgement, Key, Mac, Record, Verifier, verify};
use proptest::prelude::*;
use std::sync::Arc;

fn lines(count: usize) -> Vec<Vec<u8>> {
    let mut chain = Chain::new(key());
    (0..count).map(|n| seal(&mut chain, &record(&n.to_string()))).collect()
}

fn seal(chain: &mut Chain, record: &Record) -> Vec<u8> {
    chain.seal(record).trim_end_matches('\n').as_bytes().to_vec()
}

fn check(lines: &[Vec<u8>]) -> Result<nexus_audit::Verified, nexus_audit::Broken> {
    verify(&key(), lines.iter().map(Vec::as_slice))
}

#[test]
fn an_untouched_chain_holds() {
    let lines = lines(20);
    let verified = check(&lines).unwrap();
    assert_eq!((verified.records, verified.first_seq, verified.last_seq), (20, 1, 20));
    assert_eq!(check(&[]).unwrap().records, 0);
}

#[test]
fn a_changed_line_is_named_also_when_it_is_the_last() {
    for index in [0, 9, 19] {
        let mut lines = lines(20);
        let text = String::from_utf8(lines[index].clone()).unwrap();
        lines[index] = text.replace("demo-7", "demo-8").into_bytes();
        let broken = check(&lines).unwrap_err();
        assert_eq!((broken.line, broken.flaw), (index as u64 + 1, Flaw::Chain));
    }
}

#[test]
fn a_missing_a_doubled_and_a_swapped_line_are_named() {
    let whole = lines(20);
    let mut missing = whole.clone();
    missing.remove(9);
    assert_eq!(check(&missing).unwrap_err().line, 10);
    let mut doubled = whole.clone();
    doubled.insert(9, whole[9].clone());
    assert_eq!(check(&doubled).unwrap_err().line, 11);
    let mut swapped = whole.clone();
    swapped.swap(4, 5);
    assert_eq!(check(&swapped).unwrap_err().line, 5);
    assert_eq!(check(&whole[1..]).unwrap_err().line, 1);
}

#[test]
fn a_cut_tail_holds_and_only_its_head_tells() {
    let whole = lines(20);
    let head = check(&whole).unwrap().head;
    let shorter = check(&whole[..19]).unwrap();
    assert_ne!(shorter.head, head, "what an anchor is for");
}

#[test]
fn another_key_does_not_hold() {
    let lines = lines(2);
    let other = Key::new([8; 32]);
    assert_eq!(verify(&other, lines.iter().map(Vec::as_slice)).unwrap_err().line, 1);
    assert_eq!(format!("{other:?}"), "Key(…)");
}

#[test]
fn a_chain_goes_on_where_it_was_left_and_from_a_stated_start() {
    let mut first = Chain::new(key());
    let mut all = vec![seal(&mut first, &record("a")), seal(&mut first, &record("b"))];
    let mut second = Chain::resume(key(), first.last_seq(), first.head());
    let start = Record {
        op: Operation::Journal,
        verdict: Judgement::Note,
        reason: Reason::JournalStart,
        object: Arc::from(format!("after {} {}", first.last_seq(), first.head())),
        ..record("")
    };
    let tail = [seal(&mut second, &start), seal(&mut second, &record("c"))];
    all.extend_from_slice(&tail);
    assert_eq!(check(&all).unwrap().records, 4);
    let mut verifier = Verifier::from_stated_start(key());
    for line in &tail {
        verifier.line(line).unwrap();
    }
    assert_eq!(verifier.verified().first_seq, 3);
    let mut unstated = Verifier::from_stated_start(key());
    assert_eq!(unstated.line(&all[1]).unwrap_err().flaw, Flaw::Chain);
}

#[test]
fn a_mac_is_read_only_as_it_is_written() {
    let mac = Mac::from_hex(&"0123456789abcdef".repeat(4)).unwrap();
    assert_eq!(mac.to_string(), "0123456789abcdef".repeat(4));
    assert_eq!(Mac::from_hex(&"0123456789ABCDEF".repeat(4)), None);
    assert_eq!(Mac::from_hex(&"0".repeat(63)), None);
    assert_eq!(Mac::from_hex(&"ä".repeat(32)), None);
}

proptest! {
    #[test]
    fn any_changed_bit_is_found(records in prop::collection::vec(any_record(), 1..6), at: usize, bit in 0_u8..8) {
        let mut chain = Chain::new(key());
        let mut lines: Vec<Vec<u8>> = records.iter().map(|record| seal(&mut chain, record)).collect();
        prop_assert!(check(&lines).is_ok());
        let total: usize = lines.iter().map(Vec::len).sum();
        let mut at = at % total;
        for (index, line) in lines.iter_mut().enumerate() {
            if at < line.len() {
                line[at] ^= 1 << bit;
                let broken = check(&lines).unwrap_err();
                prop_assert_eq!(broken.line, index as u64 + 1);
                return Ok(());
            }
            at -= line.len();
        }
    }
}
