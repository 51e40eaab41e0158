//! `policy.bin`: what comes out of it is the tree that went in, and nothing else passes for it.
#![cfg(test)]

mod model;

use nexus_abi::RuleRef;
use nexus_policy::{MemoryTree, Policy, SnapshotError, is_fresh};
use proptest::prelude::*;

fn load(tree: &MemoryTree) -> Policy {
    Policy::load(tree).unwrap_or_else(|errors| panic!("{errors}"))
}

/// Everything that can be had of both is the same.
fn assert_same(tree: &Policy, snapshot: &Policy) {
    assert_eq!(tree.version(), snapshot.version());
    assert_eq!(tree.tree_hash(), snapshot.tree_hash());
    assert_eq!(tree.canonical_json(), snapshot.canonical_json());
    let rules = |policy: &Policy| {
        (0..)
            .map_while(|number| policy.rule(RuleRef(number)))
            .collect::<Vec<_>>()
    };
    assert_eq!(rules(tree), rules(snapshot));
    assert_eq!(
        tree.subjects().collect::<Vec<_>>(),
        snapshot.subjects().collect::<Vec<_>>()
    );
    for name in tree.subjects() {
        assert_eq!(tree.subject(name), snapshot.subject(name), "{name}");
    }
}

#[test]
fn the_shipped_tree_comes_out_of_its_snapshot_with_the_file_and_line_of_every_rule() {
    let tree = load(&MemoryTree::shipped());
    let bytes = tree.snapshot().unwrap();
    let snapshot = Policy::from_snapshot(&bytes).unwrap();
    assert_same(&tree, &snapshot);
    assert_eq!(snapshot.snapshot().unwrap(), bytes, "a snapshot's snapshot is the same");
    let demo = snapshot.subject("demo").unwrap();
    let rule = demo.egress.iter().next().unwrap().rules.first().unwrap().rule;
    assert!(snapshot.rule(rule).unwrap().at.starts_with("egress.toml:"));
    // As a ceiling, and under one.
    assert_eq!(
        tree.under_ceiling(&tree).version(),
        snapshot.under_ceiling(&snapshot).version()
    );
    assert_eq!(
        tree.under_ceiling(&tree).subject("demo"),
        snapshot.under_ceiling(&tree).subject("demo")
    );
}

#[test]
fn any_flipped_bit_of_the_shipped_snapshot_is_refused() {
    let bytes = load(&MemoryTree::shipped()).snapshot().unwrap();
    for at in (0..bytes.len())
        .step_by(97)
        .chain(0..96)
        .chain(bytes.len() - 40..bytes.len())
    {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(
            matches!(Policy::from_snapshot(&changed), Err(SnapshotError::Decode(_))),
            "byte {at}"
        );
    }
}

/// The shipped tree with something in the place of something else in one file.
fn changed(file: &str, from: &str, to: &str) -> MemoryTree {
    let shipped = MemoryTree::shipped();
    MemoryTree::new(shipped.files().map(|(path, content)| {
        let text = String::from_utf8(content.to_vec()).unwrap();
        let text = if path == file { text.replacen(from, to, 1) } else { text };
        (path.to_owned(), text)
    }))
}

#[test]
fn a_stale_snapshot_is_refused_against_its_tree_also_when_only_a_comment_changed() {
    let shipped = MemoryTree::shipped();
    let bytes = load(&shipped).snapshot().unwrap();
    assert_eq!(load(&shipped).verify_snapshot(&bytes), Ok(()));
    assert_eq!(is_fresh(&bytes, &shipped), Ok(()));
    for (from, to) in [("8443", "8444"), ("# Where", "# where")] {
        let other = changed("egress.toml", from, to);
        let stale = Err(SnapshotError::Stale {
            path: "egress.toml".into(),
        });
        assert_eq!(load(&other).verify_snapshot(&bytes), stale);
        assert_eq!(is_fresh(&bytes, &other), stale);
    }
    // A file more, which the root includes.
    let more = changed(
        "nexus.policy.toml",
        "\"sandbox.toml\"]",
        "\"sandbox.toml\", \"x.egress.toml\"]",
    );
    let more = MemoryTree::new(
        more.files()
            .map(|(path, content)| (path.to_owned(), content.to_vec()))
            .chain([("x.egress.toml".to_owned(), Vec::new())]),
    );
    assert!(matches!(
        load(&more).verify_snapshot(&bytes),
        Err(SnapshotError::Stale { .. })
    ));
    assert!(is_fresh(&bytes, &more).is_err());
}

#[test]
fn the_version_in_a_snapshot_is_that_of_its_canonical_form() {
    use sha2::Digest as _;
    let policy = Policy::from_snapshot(&load(&MemoryTree::shipped()).snapshot().unwrap()).unwrap();
    let digest: [u8; 32] = sha2::Sha256::digest(policy.canonical_json().as_bytes()).into();
    assert_eq!(policy.version().as_bytes(), &digest);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_tree_goes_in_comes_out(tree in model::tree(), seed: u64) {
        let files = tree.write(seed);
        let policy = load(&files);
        let bytes = policy.snapshot().unwrap();
        prop_assert_eq!(load(&files).snapshot().unwrap(), bytes.clone());
        assert_same(&policy, &Policy::from_snapshot(&bytes).unwrap());
    }

    #[test]
    fn a_snapshot_with_any_byte_forged_and_sealed_again_is_refused_or_read_without_panic(at: prop::sample::Index, byte: u8) {
        let mut bytes = load(&MemoryTree::shipped()).snapshot().unwrap();
        let end = bytes.len() - 32;
        let at = 88 + at.index(end - 88);
        bytes[at] = byte;
        bytes.truncate(end);
        let seal = nexus_snapshot::file_hash(&bytes);
        bytes.extend_from_slice(&seal);
        if let Ok(policy) = Policy::from_snapshot(&bytes) {
            for name in policy.subjects() {
                let subject = policy.subject(name).unwrap();
                let _ = (subject.egress_gate(), nexus_abi_policy::Guard::new(&subject.profiles()));
            }
        }
    }
}

#[test]
fn forged_bytes_that_say_what_no_tree_says_are_refused_by_name() {
    let root = "version = 1\ninclude = [\"egress.toml\"]\n[subject.a]\n[subject.b]\n";
    let egress = "[subject.a]\nallow = [\"203.0.113.7:443\"]\n";
    let bytes = load(&MemoryTree::new([("nexus.policy.toml", root), ("egress.toml", egress)]))
        .snapshot()
        .unwrap();
    let forged = |forge: fn(&mut nexus_snapshot::Snapshot<'_>)| {
        let mut sealed = nexus_snapshot::Snapshot::decode(&bytes).unwrap();
        forge(&mut sealed.snapshot);
        Policy::from_snapshot(&sealed.encode().unwrap()).err()
    };
    assert_eq!(forged(|_| ()), None);
    let refused = |what| Some(SnapshotError::Impossible(what));
    assert_eq!(forged(|says| says.rules[0].file = 2), refused("a rule's file"));
    assert_eq!(forged(|says| says.rules.clear()), refused("a rule's place"));
    assert_eq!(forged(|says| says.subjects.reverse()), refused("the order of names"));
    assert_eq!(
        forged(|says| says.subjects[1].name = "a"),
        refused("the order of names")
    );
    assert_eq!(forged(|says| says.subjects[1].name = "c\u{1b}"), refused("a name"));
    assert_eq!(forged(|says| says.subjects[1].domain = Some("gone")), refused("a name"));
}
