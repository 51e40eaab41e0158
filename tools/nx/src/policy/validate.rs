//! `nx policy validate`

use super::args::ValidateArgs;
use super::json::VERSION;
use super::{Result, Said, in_force, tree};
use crate::run::{Failure, enforceable};
use nexus_abi_policy::{Guard, compile};
use nexus_policy::{Policy, SubjectPolicy};
use policyd::{DirectoryTree, Owners};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Notes that are told of one tree; whoever heeds these sees the next.
const NOTES_MAX: usize = 50;

/// Checks a tree as `nx run` would, for every subject.
pub(crate) fn validate(args: &ValidateArgs) -> Result<Said> {
    let (policy, from, mut notes) = match &args.dir {
        Some(directory) => {
            let policy = tree(directory)?;
            let owners = Owners {
                uid: rustix::process::geteuid().as_raw(),
            };
            // Looking is harmless; running under it is not.
            let distrust = DirectoryTree::open(directory, owners)
                .err()
                .map(|error| error.to_string());
            (policy, directory.display().to_string(), Vec::from_iter(distrust))
        }
        None => {
            let loaded = in_force(None)?;
            (loaded.policy, loaded.origin.to_string(), Vec::new())
        }
    };
    let subjects = policy.subjects().count();
    let mut left_out = 0_usize;
    let mut seen = Seen::default();
    for name in policy.subjects() {
        let subject = super::subject(&policy, name)?;
        for note in seen.notes(&subject, &policy)? {
            if notes.len() < NOTES_MAX {
                notes.push(format!("{name}: {note}"));
            } else {
                left_out += 1;
            }
        }
    }
    let files = policy.sources().iter().count();
    let rules = policy.rules_count();
    if args.json {
        let value = json!({
            "version": VERSION,
            "ok": true,
            "policy": policy.version().to_string(),
            "tree": policy.tree_hash().to_string(),
            "subjects": subjects,
            "rules": rules,
            "files": files,
            "notes": notes,
            "left_out": left_out,
        });
        return Ok(Said::fine(format!("{value}\n")));
    }
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{from} is valid: {subjects} subjects, {rules} rules, {files} files"
    );
    let _ = writeln!(out, "policy {}", policy.version());
    for note in notes {
        let _ = writeln!(out, "note: {note}");
    }
    if left_out > 0 {
        let _ = writeln!(out, "and {left_out} more notes");
    }
    Ok(Said::fine(out))
}

/// Subjects that share their syscall rules share what is said of them: a filter is made once for all of these.
#[derive(Default)]
struct Seen {
    profiles: BTreeMap<u64, Option<String>>,
}

impl Seen {
    /// What `nx run` would refuse, although the tree is valid.
    fn notes(&mut self, subject: &SubjectPolicy, policy: &Policy) -> std::result::Result<Vec<String>, Failure> {
        subject
            .egress_gate()
            .map_err(|error| Failure::rejected(error.to_string(), "use fewer egress rules"))?;
        let mut notes = Vec::new();
        if let Err(failure) = enforceable::check(subject, policy) {
            notes.push(format!("`nx run` refuses it here: {}", failure.message));
        }
        let profile = self.profiles.entry(subject.profile_key()).or_insert_with(|| {
            let guard = Guard::new(&subject.profiles()).err();
            let filter = compile(&subject.profiles(), &[]).err();
            guard.or(filter).map(|error| format!("`nx run` refuses it: {error}"))
        });
        notes.extend(profile.clone());
        Ok(notes)
    }
}
