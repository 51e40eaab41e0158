//! A record's one form.

use nexus_abi::{Errno, Operation, Reason};
use nexus_audit::{
    AT_BYTES_MAX, Chain, Judgement, Key, LINE_BYTES_MAX, NAME_BYTES_MAX, OBJECT_BYTES_MAX, POLICY_BYTES_MAX,
    RULE_BYTES_MAX, ReadError, Record, UnixMillis, read_line,
};
use proptest::prelude::*;
use std::sync::Arc;

pub(crate) fn record(object: &str) -> Record {
    Record {
        mono_ns: 123_456_789,
        time: UnixMillis::new(1_795_294_791_123),
        subject: Arc::from("demo"),
        session: Arc::from("demo-7"),
        op: Operation::Connect,
        object: Arc::from(object),
        verdict: Judgement::Deny(Errno::EPERM),
        reason: Reason::EgressNoRule,
        rule: None,
        at: None,
        policy: Arc::from("ab12"),
        suppressed: 0,
    }
}

pub(crate) fn key() -> Key {
    Key::new([7; 32])
}

pub(crate) fn line(record: &Record) -> String {
    Chain::new(key()).seal(record).trim_end_matches('\n').to_owned()
}

#[test]
fn a_record_is_one_line_of_json_with_every_field_in_order() {
    let written = line(&Record {
        rule: Some(Arc::from("egress/demo/3")),
        at: Some(Arc::from("egress.toml:14")),
        reason: Reason::EgressDenyRule,
        suppressed: 9,
        ..record("tcp 203.0.113.7:443")
    });
    let (body, prev) = written.split_once(",\"prev\":").unwrap();
    assert_eq!(
        body,
        "{\"v\":1,\"seq\":1,\"mono_ns\":123456789,\"time\":\"2026-11-21T20:59:51.123Z\",\"subject\":\"demo\",\
         \"session\":\"demo-7\",\"op\":\"connect\",\"object\":\"tcp 203.0.113.7:443\",\"verdict\":\"deny\",\
         \"reason\":\"egress.deny_rule\",\"errno\":\"EPERM\",\"rule\":\"egress/demo/3\",\"at\":\"egress.toml:14\",\
         \"policy\":\"ab12\",\"suppressed\":9"
    );
    assert_eq!(prev.len(), 67);
    let json: serde_json::Value = serde_json::from_str(&written).unwrap();
    assert_eq!(json.as_object().unwrap().len(), 16);
}

#[test]
fn text_that_a_program_chose_cannot_leave_its_line_or_its_string() {
    let hostile = "a\"}\n{\"v\":1,\u{0}\u{1b}[2J\u{7f}\u{85}\u{202e}txt\u{2028}\u{feff}\\\u{e0041}";
    let written = line(&record(hostile));
    assert!(written.chars().all(|one| !one.is_control()), "{written:?}");
    for hidden in ['\u{202e}', '\u{2028}', '\u{feff}', '\u{e0041}'] {
        assert!(!written.contains(hidden), "{hidden:?}");
    }
    let (_, read, _) = read_line(written.as_bytes()).unwrap();
    assert_eq!(&*read.object, hostile);
}

#[test]
fn texts_at_their_bounds_are_whole_and_longer_ones_are_cut() {
    let long = |bytes: usize| Arc::<str>::from("\u{1}".repeat(bytes));
    let longest = |more: usize| Record {
        mono_ns: u64::MAX,
        subject: long(NAME_BYTES_MAX + more),
        session: long(NAME_BYTES_MAX + more),
        rule: Some(long(RULE_BYTES_MAX + more)),
        at: Some(long(AT_BYTES_MAX + more)),
        policy: long(POLICY_BYTES_MAX + more),
        object: long(OBJECT_BYTES_MAX + more),
        suppressed: u64::MAX,
        ..record("")
    };
    let written = Chain::resume(key(), u64::MAX - 1, nexus_audit::Mac::genesis()).seal(&longest(0));
    assert!(written.len() <= LINE_BYTES_MAX, "{}", written.len());
    assert_eq!(read_line(written.trim_end().as_bytes()).unwrap().1, longest(0));
    let (_, cut, _) = read_line(line(&longest(1)).as_bytes()).unwrap();
    assert!(cut.object.ends_with('…') && cut.subject.ends_with('…'));
    assert_eq!(cut, longest(1).bounded());
}

#[test]
fn only_the_canonical_form_is_read() {
    let good = line(&record("x"));
    assert!(read_line(good.as_bytes()).is_ok());
    for (from, to) in [
        ("{\"v\":1", "{ \"v\":1"),
        ("\"v\":1,\"seq\":1", "\"seq\":1,\"v\":1"),
        ("\"object\":\"x\"", "\"object\":\"\\u0078\""),
        ("\"seq\":1", "\"seq\":1.0"),
        ("\"seq\":1", "\"seq\":-1"),
        ("\"seq\":1", "\"seq\":01"),
        ("\"seq\":1", "\"seq\":18446744073709551616"),
        ("\"v\":1", "\"v\":2"),
        ("\"v\":1", "\"v\":1,\"w\":1"),
        ("\"v\":1", "\"v\":1,\"v\":1"),
        ("\"rule\":null,", ""),
        ("\"rule\":null", "\"rule\":7"),
        ("\"op\":\"connect\"", "\"op\":\"Connect\""),
        ("\"errno\":\"EPERM\"", "\"errno\":null"),
        ("\"errno\":\"EPERM\"", "\"errno\":\"1\""),
        ("\"errno\":\"EPERM\"", "\"errno\":\"0\""),
        ("\"verdict\":\"deny\"", "\"verdict\":\"warn\""),
        ("\"verdict\":\"deny\"", "\"verdict\":\"allow\""),
        ("egress.no_rule", "egress.none"),
        ("20:59:51", "20:59:61"),
        ("\"}", "\"} "),
        ("\"}", "\"}}"),
        ("\"}", "\""),
    ] {
        let wrong = good.replacen(from, to, 1);
        assert_ne!(wrong, good, "{from}");
        assert!(read_line(wrong.as_bytes()).is_err(), "{wrong}");
    }
    assert_eq!(read_line(&vec![b' '; LINE_BYTES_MAX]), Err(ReadError::TooLong));
    assert_eq!(
        read_line(good.replace("\"v\":1", "\"v\":2").as_bytes()),
        Err(ReadError::Version(2))
    );
}

#[test]
fn warnings_notes_and_errnos_without_a_name_are_read_back() {
    for (verdict, reason) in [
        (Judgement::Warn, Reason::QuotaSoftBytes),
        (Judgement::Note, Reason::JournalTorn),
        (Judgement::Deny(Errno::from_raw(4000).unwrap()), Reason::AbiDenyRule),
        (Judgement::Deny(Errno::EDQUOT), Reason::QuotaHardBytes),
    ] {
        let one = Record {
            verdict,
            reason,
            ..record("x")
        };
        assert_eq!(read_line(line(&one).as_bytes()).unwrap().1, one);
    }
}

pub(crate) fn any_record() -> impl Strategy<Value = Record> {
    let names = (
        any::<u64>(),
        any::<u64>(),
        ".{0,70}",
        ".{0,20}",
        "\\PC{0,200}|.{0,200}",
        any::<u64>(),
    );
    let words = (
        0..Operation::ALL.len(),
        0..Reason::ALL.len(),
        0_u16..=4095,
        proptest::option::of(".{0,140}"),
    );
    (names, words, proptest::option::of(".{0,260}"), "[0-9a-f]{0,64}").prop_map(|(names, words, at, policy)| Record {
        mono_ns: names.0,
        time: UnixMillis::new(names.1 % 400_000_000_000_000),
        subject: Arc::from(names.2),
        session: Arc::from(names.3),
        op: Operation::ALL[words.0],
        object: Arc::from(names.4),
        verdict: Errno::from_raw(words.2).map_or(Judgement::Note, Judgement::Deny),
        reason: Reason::ALL[words.1],
        rule: words.3.map(Arc::from),
        at: at.map(Arc::from),
        policy: Arc::from(policy),
        suppressed: names.5,
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back_and_is_json(record in any_record()) {
        let written = line(&record);
        prop_assert!(written.len() < LINE_BYTES_MAX && !written.contains('\n'));
        let (seq, read, _) = read_line(written.as_bytes()).unwrap();
        prop_assert_eq!(seq, 1);
        prop_assert_eq!(&read, &record.bounded());
        let json: serde_json::Value = serde_json::from_str(&written).unwrap();
        prop_assert_eq!(json["object"].as_str().unwrap(), &*read.object);
    }

    #[test]
    fn arbitrary_bytes_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(read_line(&bytes).is_err());
    }

    #[test]
    fn a_line_with_any_byte_changed_is_unreadable_or_another_record(record in any_record(), at: usize, bit in 0_u8..8) {
        let written = line(&record).into_bytes();
        let mut changed = written.clone();
        let at = at % changed.len();
        changed[at] ^= 1 << bit;
        if let Ok(read) = read_line(&changed) {
            prop_assert_ne!(read, read_line(&written).unwrap());
        }
    }
}
