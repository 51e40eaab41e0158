//! What is said of a wrong tree: each case is a tree and the exact text that a reader gets.
//!
//! A case stands in `tests/errors/NAME.txt`: files after lines `--- PATH`, the text after `--- says`. With
//! `NEXUS_BLESS=1` the texts are written anew, to be read in the diff.
#![cfg(test)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use nexus_policy::{Code, MemoryTree, Policy};

fn cases() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/errors");
    let mut cases: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.sort();
    cases
}

/// Bytes that a text file cannot show: `\u{…}` and `\xNN`; files that are too large: `\fill{LINE}{TIMES}`.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let after = &rest[at + 1..];
        if let Some(hex) = after.strip_prefix("u{") {
            let end = hex.find('}').unwrap();
            let character = char::from_u32(u32::from_str_radix(&hex[..end], 16).unwrap()).unwrap();
            out.extend_from_slice(character.to_string().as_bytes());
            rest = &hex[end + 1..];
        } else if let Some(hex) = after.strip_prefix('x') {
            out.push(u8::from_str_radix(&hex[..2], 16).unwrap());
            rest = &hex[2..];
        } else if let Some(fill) = after.strip_prefix("fill{") {
            let (what, times) = fill.split_once("}{").unwrap();
            let (times, tail) = times.split_once('}').unwrap();
            for number in 0..times.parse::<usize>().unwrap() {
                out.extend_from_slice(what.replace("#", &number.to_string()).as_bytes());
            }
            rest = tail;
        } else {
            out.push(b'\\');
            rest = after;
        }
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

/// The tree of a case; files that every tree needs are added where the case has none.
fn tree(input: &str) -> MemoryTree {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for part in input.split("--- ").skip(1) {
        let (path, content) = part.split_once('\n').unwrap();
        files.push((path.to_owned(), unescape(content)));
    }
    let has_root = files.iter().any(|(path, _)| path == "nexus.policy.toml");
    if !has_root && !files.iter().any(|(path, _)| path == "no root") {
        let included: Vec<String> = files.iter().map(|(path, _)| format!("\"{path}\"")).collect();
        let root = format!(
            "version = 1\ninclude = [{}]\n[domain.tools]\n[subject.demo]\ndomain = \"tools\"\n",
            included.join(", ")
        );
        files.push(("nexus.policy.toml".into(), root.into()));
    }
    MemoryTree::new(files)
}

#[test]
fn each_wrong_tree_is_refused_in_the_expected_words() {
    let mut wrong = Vec::new();
    for path in cases() {
        let text = fs::read_to_string(&path).unwrap();
        let (input, expected) = text.split_once("--- says\n").unwrap_or((&text, ""));
        let said = match Policy::load(&tree(input)) {
            Ok(_) => "nothing\n".to_owned(),
            Err(errors) => format!("{errors}\n"),
        };
        if said == expected {
            continue;
        }
        if std::env::var_os("NEXUS_BLESS").is_some() {
            fs::write(&path, format!("{input}--- says\n{said}")).unwrap();
        } else {
            wrong.push(format!("{}\nexpected:\n{expected}\nsaid:\n{said}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_kind_of_error_has_a_case() {
    let said: String = cases().iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    // These come from file systems, or from trees that are too large for a text file.
    let elsewhere: BTreeSet<&str> = [
        Code::IncludeLeaves,
        Code::TreeTooLarge,
        Code::FileTooLarge,
        Code::TooManyFiles,
        Code::TooManyRules,
    ]
    .into_iter()
    .map(Code::as_str)
    .collect();
    for code in Code::ALL {
        let shown = format!("[{}]", code.as_str());
        assert!(said.contains(&shown) || elsewhere.contains(code.as_str()), "{shown}");
    }
}

#[test]
fn every_case_expects_an_error_with_help() {
    for path in cases() {
        let text = fs::read_to_string(&path).unwrap();
        let says = text.split_once("--- says\n").map_or("", |(_, says)| says);
        assert!(says.contains("[policy."), "{}", path.display());
        let errors = says.matches("[policy.").count();
        let helps = says.matches("\n  help: ").count();
        assert_eq!(errors, helps, "{}", path.display());
    }
}
