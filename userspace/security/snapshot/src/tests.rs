use core::marker::PhantomData;
use std::string::String;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use crate::*;

fn sample<'a>(name: &'a str, canonical: &'a str, numbers: &[u64]) -> Sealed<'a> {
    let texts = PhantomData;
    let ruled = |value: u64| Ruled { value, rule: 0, texts };
    let scope = Scope {
        name,
        domain: Some("d"),
        no_egress: 1,
        no_abi: 2,
        quotas: Some(Quotas {
            areas: numbers
                .iter()
                .map(|n| Quota {
                    soft: None,
                    hard: Some(ruled(*n)),
                    inodes: Some(ruled(7)),
                    texts,
                })
                .collect(),
            ipc: Some(Ipc {
                limits: vec![IpcLimit {
                    which: 3,
                    limit: Some(ruled(9)),
                    texts,
                }],
                texts,
            }),
            texts,
        }),
        egress: Some(Egress {
            rules: vec![EgressRule {
                effect: 0,
                protocol: 1,
                six: true,
                address: 0,
                prefix: 0,
                ports: vec![(1, 2)],
                rule: 3,
                texts,
            }],
            names: vec![],
            binds: vec![BindRule {
                protocol: 1,
                ports: vec![(53, 53), (5353, 5360)],
                rule: 4,
                texts,
            }],
            texts,
        }),
        abi: Some(Abi {
            rules: vec![SyscallRule {
                calls: vec!["@basic-io"],
                effect: 1,
                errno: 1,
                when: vec![Condition {
                    kind: 3,
                    index: 1,
                    values: numbers.to_vec(),
                    texts,
                }],
                rule: 0,
                texts,
            }],
            probed: vec![Probe {
                name: "clone3",
                rule: 9,
                texts,
            }],
            texts,
        }),
        sandbox: None,
        texts,
    };
    Sealed {
        tree: TreeHash::of([("a", file_hash(b"b"))]),
        policy: [7; 32],
        snapshot: Snapshot {
            files: vec![File {
                path: "nexus.policy.toml",
                hash: [1; 32],
                texts,
            }],
            rules: vec![Rule {
                kind: 0,
                hash: 1,
                file: 0,
                line: 3,
                text: "x = 1",
                texts,
            }],
            domains: vec![scope.clone()],
            subjects: vec![scope],
            canonical,
            texts,
        },
    }
}

#[test]
fn what_was_encoded_is_decoded_and_nothing_else_is() {
    let sealed = sample("demo", "{}", &[1, 2, u64::MAX]);
    let bytes = sealed.encode().unwrap();
    assert_eq!(Snapshot::decode(&bytes).unwrap(), sealed);
    for end in 0..bytes.len() {
        assert!(Snapshot::decode(&bytes[..end]).is_err(), "cut at {end}");
    }
    let mut longer = bytes;
    longer.push(0);
    assert_eq!(Snapshot::decode(&longer), Err(DecodeError::Length));
}

#[test]
fn any_flipped_bit_is_refused() {
    let bytes = sample("demo", "{\"a\":1}", &[3]).encode().unwrap();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            assert!(Snapshot::decode(&changed).is_err(), "byte {at}, bit {bit}");
        }
    }
}

/// The bytes with a checksum that holds: what somebody makes who knows the format.
fn sealed_again(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.len() - 32;
    bytes.truncate(end);
    let length = (end + 32) as u64;
    bytes[16..24].copy_from_slice(&length.to_le_bytes());
    let checksum = blake3::hash(&bytes);
    bytes.extend_from_slice(checksum.as_bytes());
    bytes
}

#[test]
fn a_list_that_claims_more_than_there_is_costs_nothing() {
    let mut bytes = sample("demo", "{}", &[]).encode().unwrap();
    // The first list's length.
    bytes[88..92].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(Snapshot::decode(&sealed_again(bytes)), Err(DecodeError::Malformed));
}

#[test]
fn what_stands_behind_the_last_value_or_in_the_unused_field_is_refused_though_the_checksum_holds() {
    let whole = sample("demo", "{}", &[]).encode().unwrap();
    assert!(Snapshot::decode(&sealed_again(whole.clone())).is_ok());
    let mut longer = whole.clone();
    longer.insert(whole.len() - 32, 0);
    assert_eq!(Snapshot::decode(&sealed_again(longer)), Err(DecodeError::Malformed));
    let mut used = whole;
    used[12] = 1;
    assert_eq!(Snapshot::decode(&sealed_again(used)), Err(DecodeError::Malformed));
}

#[test]
fn another_format_is_named() {
    let mut bytes = sample("demo", "{}", &[]).encode().unwrap();
    bytes[8] = 2;
    assert_eq!(
        Snapshot::decode(&sealed_again(bytes)),
        Err(DecodeError::Format { format: 2 })
    );
}

proptest! {
    #[test]
    fn any_bytes_are_refused_without_panic(bytes: Vec<u8>) {
        prop_assert!(Snapshot::decode(&bytes).is_err());
        let mut begun = MAGIC.to_vec();
        begun.extend_from_slice(&bytes);
        prop_assert!(Snapshot::decode(&begun).is_err());
    }

    #[test]
    fn what_is_read_of_forged_bytes_is_written_the_same(at: prop::sample::Index, byte: u8, name in "[a-z]{0,9}", numbers: Vec<u64>) {
        let mut bytes = sample(&name, "{}", &numbers).encode().unwrap();
        let at = 24 + at.index(bytes.len() - 24 - 32);
        bytes[at] = byte;
        let bytes = sealed_again(bytes);
        if let Ok(sealed) = Snapshot::decode(&bytes) {
            prop_assert_eq!(sealed.encode().unwrap(), bytes);
        }
    }

    #[test]
    fn trees_that_differ_have_other_hashes(one: Vec<(String, Vec<u8>)>, other: Vec<(String, Vec<u8>)>) {
        let hash = |files: &Vec<(String, Vec<u8>)>| {
            TreeHash::of(files.iter().map(|(path, content)| (path.as_str(), file_hash(content))))
        };
        prop_assert_eq!(hash(&one) == hash(&other), one == other);
    }
}
