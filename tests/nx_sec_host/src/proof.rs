//! What `nx sec test` says, taken apart.

use crate::{Said, sec};
use security_v2_host::{Home, Tree};
use serde_json::Value;
use std::path::PathBuf;

/// `nx sec test WORDS`, as the home's user.
///
/// # Panics
/// Where it cannot be started.
#[must_use]
pub fn test(home: &Home, words: &[&str]) -> Said {
    sec(home, &[&["test"], words].concat())
}

/// Writes a tree as the home's own policy, and gives the words that name it.
///
/// # Panics
/// Where it cannot be written.
#[must_use]
pub fn policy(home: &Home, tree: &Tree) -> String {
    let directory = home.policy();
    tree.write(&directory).expect("a tree can be written");
    directory.to_string_lossy().into_owned()
}

/// The shipped tree with a budget of `tmp` that is used up at once.
#[must_use]
pub fn few() -> Tree {
    Tree::shipped().append(
        "quotas.toml",
        "[subject.demo.tmp]\nsoft = \"32KiB\"\nhard = \"64KiB\"\ninodes = 8\n",
    )
}

/// What a finding is: how it fared, what policy says, and of what.
#[must_use]
pub fn findings(value: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    all(value)
        .into_iter()
        .map(|one| (text(&one["status"]), text(&one["says"]), text(&one["name"])))
        .collect()
}

/// Every finding as it stands.
#[must_use]
pub fn all(value: &Value) -> Vec<&Value> {
    let subjects = value["subjects"].as_array().into_iter().flatten();
    subjects
        .flat_map(|one| one["findings"].as_array().into_iter().flatten())
        .collect()
}

/// The findings that are not proven.
#[must_use]
pub fn unproven(value: &Value) -> Vec<&Value> {
    all(value).into_iter().filter(|one| one["status"] != "ok").collect()
}

/// What was left out, in words.
#[must_use]
pub fn left_out(value: &Value) -> Vec<String> {
    let subjects = value["subjects"].as_array().into_iter().flatten();
    let all = subjects.flat_map(|one| one["left_out"].as_array().into_iter().flatten());
    all.map(|one| one.as_str().unwrap_or_default().to_owned()).collect()
}

/// What proofs leave in the state directory.
#[must_use]
pub fn left(home: &Home) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(home.state().join("nexus/proof")) else {
        return Vec::new();
    };
    entries.flatten().map(|entry| entry.path()).collect()
}
