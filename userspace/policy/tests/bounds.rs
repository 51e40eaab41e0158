//! Bounds that are too large for a text file, and how long hostile trees take.
#![cfg(test)]

use std::fmt::Write as _;

use nexus_policy::limits::{FILE_BYTES_MAX, FILES_MAX, RULES_MAX, TREE_BYTES_MAX};
use nexus_policy::{Code, Diagnostics, MemoryTree, Policy};

fn codes(tree: &MemoryTree) -> Vec<Code> {
    errors(tree).items().iter().map(|item| item.code).collect()
}

fn errors(tree: &MemoryTree) -> Diagnostics {
    Policy::load(tree).map(|_| ()).unwrap_err()
}

fn root(files: usize) -> String {
    let names: Vec<String> = (0..files).map(|number| format!("\"f{number}.egress.toml\"")).collect();
    format!(
        "version = 1\ninclude = [{}]\n[subject.demo]\n[subject.other]\n",
        names.join(",")
    )
}

/// A tree of a root and so many files of this content.
fn tree(files: usize, content: impl Fn(usize) -> String) -> MemoryTree {
    let parts = (0..files).map(|number| (format!("f{number}.egress.toml"), content(number)));
    MemoryTree::new(parts.chain([("nexus.policy.toml".to_owned(), root(files))]))
}

#[test]
fn as_many_files_as_may_be_are_read_and_one_more_is_not() {
    assert!(Policy::load(&tree(FILES_MAX - 1, |_| String::new())).is_ok());
    // The list itself is bounded too, so the last one comes in by another file.
    let names: Vec<String> = (1..FILES_MAX)
        .map(|number| format!("\"f{number}.egress.toml\""))
        .collect();
    let files = (0..FILES_MAX).map(|number| (format!("f{number}.egress.toml"), String::new()));
    let tree = MemoryTree::new(files.chain([
        (
            "nexus.policy.toml".to_owned(),
            format!("version = 1\ninclude = [{}, \"a.policy.toml\"]\n", names.join(",")),
        ),
        ("a.policy.toml".to_owned(), "include = [\"f0.egress.toml\"]".to_owned()),
    ]));
    assert_eq!(codes(&tree), [Code::TooManyFiles]);
}

#[test]
fn a_file_of_as_many_bytes_as_may_be_is_read_and_one_more_is_not() {
    let fill = |bytes: usize| tree(1, |_| format!("#{}", "x".repeat(bytes - 1)));
    assert!(Policy::load(&fill(FILE_BYTES_MAX)).is_ok());
    assert_eq!(codes(&fill(FILE_BYTES_MAX + 1)), [Code::FileTooLarge]);
}

#[test]
fn files_that_are_too_large_only_together_are_refused() {
    let files = TREE_BYTES_MAX / FILE_BYTES_MAX;
    let full = tree(files, |_| format!("#{}", "x".repeat(FILE_BYTES_MAX - 1)));
    assert_eq!(codes(&full), [Code::TreeTooLarge]);
}

#[test]
fn more_rules_than_a_tree_may_have_are_refused_and_told_once() {
    let rules = |subject: &str, count: usize| {
        let mut out = format!("[subject.{subject}]\nallow = [\n");
        for number in 0..count {
            let [_, b, c, d] = u32::try_from(number).unwrap().to_be_bytes();
            writeln!(out, "\"20.{b}.{c}.{d}:1\",").unwrap();
        }
        out.push_str("]\n");
        out
    };
    let half = RULES_MAX / 2;
    let names = ["demo", "other"];
    // Two rules stand for the lack of one, for each subject.
    assert!(Policy::load(&tree(2, |number| rules(names[number], half - 2))).is_ok());
    assert_eq!(
        codes(&tree(2, |number| rules(names[number], half))),
        [Code::TooManyRules]
    );
}

#[test]
fn a_million_errors_are_told_in_a_few() {
    let keys = tree(1, |_| {
        let mut out = String::new();
        for number in 0..300_000 {
            writeln!(out, "allwo{number} = 1").unwrap();
        }
        out
    });
    let errors = errors(&keys);
    assert_eq!(errors.items().len(), nexus_policy::limits::DIAGNOSTICS_MAX);
    assert!(errors.left_out() > 0);
    let entries = tree(1, |_| {
        format!("[subject.demo]\nallow = [{}]", "\"x:0\",".repeat(100_000))
    });
    assert!(codes(&entries).len() <= nexus_policy::limits::DIAGNOSTICS_MAX);
}

#[test]
fn the_deepest_text_that_is_read_needs_little_stack() {
    let keys = |dots: usize| format!("a{}", ".a".repeat(dots));
    let dots = nexus_policy::limits::LINE_DOTS_MAX;
    let levels = nexus_policy::limits::NESTING_MAX;
    let nested = (0..levels).fold(String::from("1"), |inner, _| {
        format!("{{\n{} = {inner}\n}}", keys(dots))
    });
    let text = format!("[{}]\n{} = {nested}\n", keys(dots), keys(dots));
    let tree = MemoryTree::new([("nexus.policy.toml", text)]);
    let small = std::thread::Builder::new().stack_size(256 * 1024);
    let thread = small.spawn(move || codes(&tree)).unwrap();
    let codes = thread.join().unwrap();
    assert!(codes.contains(&Code::UnknownKey), "it was read: {codes:?}");
}
