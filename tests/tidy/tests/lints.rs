//! Every crate has the workspace's lints, with exactly the differences that are stated here.
#![forbid(unsafe_code)]
#![expect(
    clippy::panic,
    reason = "helpers of tests; the lints know only functions that are tests themselves"
)]

use std::collections::BTreeMap;
use std::path::Path;
use tidy::{Lints, code_only, crates, has_word, lints, root};

/// No I/O, no clock, no standard library.
const PURE: [&str; 6] = [
    "nexus-abi",
    "nexus-quota",
    "nexus-net-egress",
    "nexus-abi-policy",
    "nexus-audit",
    "nexus-snapshot",
];

/// Where unsafe code lives.
const UNSAFE: &str = "nexus-sys";

/// Harnesses of tests: what goes wrong in one must end the test. Their tables forbid unsafe code for all of their roots.
const HARNESSES: [&str; 3] = ["security_v2_host", "nx_sec_host", "fuzz_bodies"];

/// What a harness may do and the product may not.
const ENDS_THE_TEST: [&str; 3] = ["clippy.unwrap_used", "clippy.expect_used", "clippy.panic"];

/// The test program that attacks sessions: raw calls, wrong pointers and races are what it is for. No part of the product.
const HOSTILE: &str = "attacker";

/// Where it lives.
const HOSTILE_PATH: &str = "tests/attacker";

/// Tests that cannot do what they test without: each block says so beside it.
const UNSAFE_TESTS: [&str; 1] = [
    // Writes through a shared mapping of a file that vfsd serves.
    "source/services/vfsd/tests/live/mapping.rs",
];

/// What the pure crates have on top.
const PURE_LINTS: [&str; 5] = [
    "clippy.indexing_slicing",
    "clippy.arithmetic_side_effects",
    "clippy.cast_possible_truncation",
    "clippy.cast_sign_loss",
    "clippy.cast_possible_wrap",
];

fn table(lints: Option<Lints>) -> BTreeMap<String, String> {
    match lints {
        Some(Lints::Own(table)) => table,
        other => panic!("no table of its own: {other:?}"),
    }
}

#[test]
fn lint_tables_are_the_workspaces_but_for_the_stated_differences() {
    let workspace = table(lints(&std::fs::read_to_string(root().join("Cargo.toml")).unwrap()).unwrap());
    assert_eq!(workspace["rust.unsafe_code"], "deny");
    for member in crates().unwrap() {
        let found = lints(&std::fs::read_to_string(&member.manifest).unwrap()).unwrap();
        let mut expected = workspace.clone();
        if PURE.contains(&&*member.name) {
            expected.insert("rust.unsafe_code".into(), "forbid".into());
            expected.extend(PURE_LINTS.map(|lint| (lint.into(), "deny".into())));
            assert_eq!(table(found), expected, "{}", member.name);
        } else if member.name == UNSAFE {
            expected.remove("rust.unsafe_code");
            assert_eq!(table(found), expected, "{}", member.name);
        } else if HARNESSES.contains(&&*member.name) {
            expected.insert("rust.unsafe_code".into(), "forbid".into());
            expected.retain(|lint, _| !ENDS_THE_TEST.contains(&lint.as_str()));
            assert_eq!(table(found), expected, "{}", member.name);
        } else if member.name == HOSTILE {
            let own = [("rust.unsafe_code", "allow"), ("rust.unreachable_pub", "warn")];
            let own = own.map(|(lint, level)| (lint.to_owned(), level.to_owned()));
            assert_eq!(table(found), own.into(), "{}", member.name);
        } else {
            assert_eq!(found, Some(Lints::Inherited), "{}", member.name);
        }
    }
}

#[test]
fn every_root_but_one_forbids_unsafe_code_and_pure_roots_have_no_standard_library() {
    for member in crates().unwrap() {
        for root in &member.roots {
            let code = code_only(&std::fs::read_to_string(root).unwrap());
            let has = |attribute: &str| code.lines().any(|line| line.trim() == attribute);
            let where_ = root.display();
            let may = [UNSAFE, HOSTILE].contains(&&*member.name);
            let by_table = HARNESSES.contains(&&*member.name);
            assert!(by_table || has("#![forbid(unsafe_code)]") != may, "{where_}");
            if PURE.contains(&&*member.name) {
                // Not `cfg_attr`, which would hide in tests what leaks.
                assert!(has("#![no_std]"), "{where_}");
            }
        }
    }
}

#[test]
fn unsafe_is_written_in_one_crate_only() {
    let mut seen_at_home = false;
    for file in tidy::files().unwrap() {
        if file.path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let is_home = file.path.starts_with("source/libs/nexus-sys");
        let found = has_word(&code_only(&file.text), "unsafe");
        seen_at_home |= found && is_home;
        let excepted = UNSAFE_TESTS.iter().any(|path| file.path == Path::new(path));
        let excepted = excepted || file.path.starts_with(HOSTILE_PATH) && found;
        assert!(!found || is_home || excepted, "{}", file.path.display());
        assert!(found || !excepted, "{} needs no exception", file.path.display());
    }
    assert!(seen_at_home, "the search finds nothing where it must");
}
