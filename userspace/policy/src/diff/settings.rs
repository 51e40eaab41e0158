//! Budgets, paths, variables and the other settings.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use nexus_abi::Area;

use super::{Change, SubjectDiff};
use crate::effective::{EnvDecision, Limit, SubjectPolicy};
use crate::ipc::IpcLimit;
use crate::paths::is_within;
use crate::settings::{OnJournalFailure, WorkMode};

/// A path that stands for the caller's home: one that neither names, so that `~/x` and a path that is written like it are
/// not taken for the same.
fn home_of_neither(before: &SubjectPolicy, after: &SubjectPolicy) -> String {
    let named = [before.view(None), after.view(None)].concat();
    let free = |home: &String| !named.iter().any(|shown| is_within(&shown.path, home));
    // Each is taken by other paths: after as many as there are, one is free.
    (0..=named.len())
        .map(|number| format!("/~{number}"))
        .find(free)
        .unwrap_or_default()
}

pub(super) fn compare(before: &SubjectPolicy, after: &SubjectPolicy, out: &mut SubjectDiff) {
    budgets(before, after, out);
    ipc(before, after, out);
    paths(before, after, out);
    variables(before, after, out);
    let set = |key: &str, before: String, after: String| Change::Setting {
        key: key.to_owned(),
        before,
        after,
    };
    let order = before.work.cmp(&after.work);
    out.put(order, set("work", before.work.to_string(), after.work.to_string()));
    // Where nothing of it may be written, nothing is protected; what then may be, the mode tells.
    let writable = |subject: &SubjectPolicy| matches!(subject.work, WorkMode::Metered | WorkMode::Unmetered);
    if writable(before) && writable(after) {
        protected(before, after, out);
    }
    for (device, side) in before
        .dev
        .difference(&after.dev)
        .map(|device| (device, Ordering::Greater))
        .chain(after.dev.difference(&before.dev).map(|device| (device, Ordering::Less)))
    {
        let has = |has: bool| if has { "there" } else { "not there" }.to_owned();
        let gone = side == Ordering::Greater;
        out.put(side, set(&format!("dev.{device}"), has(gone), has(!gone)));
    }
    for (key, one, other) in [
        ("fds.allow_sockets", before.fds.allow_sockets, after.fds.allow_sockets),
        (
            "fds.allow_directories",
            before.fds.allow_directories,
            after.fds.allow_directories,
        ),
        ("fds.allow_devices", before.fds.allow_devices, after.fds.allow_devices),
    ] {
        out.put(one.cmp(&other), set(key, one.to_string(), other.to_string()));
    }
    for (key, one, other) in [
        ("limits.memory", before.limits.memory_bytes, after.limits.memory_bytes),
        ("limits.processes", before.limits.processes, after.limits.processes),
        ("limits.open_files", before.limits.open_files, after.limits.open_files),
    ] {
        let most = |limit: Option<Limit>| limit.map_or(u64::MAX, |limit| limit.value);
        let word = |limit: Option<Limit>| limit.map_or_else(|| "none".to_owned(), |limit| limit.value.to_string());
        out.put(most(one).cmp(&most(other)), set(key, word(one), word(other)));
    }
    let (one, other) = (&before.audit, &after.audit);
    // Going on unrecorded is more than being stopped.
    let rank = |failure: OnJournalFailure| u8::from(failure == OnJournalFailure::Continue);
    let failure = |failure: OnJournalFailure| failure.to_string();
    out.put(
        rank(one.on_journal_failure).cmp(&rank(other.on_journal_failure)),
        set(
            "on_journal_failure",
            failure(one.on_journal_failure),
            failure(other.on_journal_failure),
        ),
    );
    for (key, one, other) in [
        ("audit.rate", one.rate, other.rate),
        ("audit.burst", one.burst, other.burst),
    ] {
        if one != other {
            out.other.push(set(key, one.to_string(), other.to_string()));
        }
    }
}

fn budgets(before: &SubjectPolicy, after: &SubjectPolicy, out: &mut SubjectDiff) {
    for area in Area::ALL {
        let (Some(one), Some(other)) = (before.budgets.get(area), after.budgets.get(area)) else {
            continue;
        };
        let (one, other) = (one.budget, other.budget);
        for (key, one, other) in [
            ("hard", one.hard_bytes, other.hard_bytes),
            ("inodes", one.hard_inodes, other.hard_inodes),
        ] {
            let change = Change::Budget {
                area,
                key,
                before: Some(one),
                after: Some(other),
            };
            out.put(one.cmp(&other), change);
        }
        // A warning denies nothing.
        if one.soft_bytes != other.soft_bytes {
            out.other.push(Change::Budget {
                area,
                key: "soft",
                before: one.soft_bytes,
                after: other.soft_bytes,
            });
        }
    }
}

fn ipc(before: &SubjectPolicy, after: &SubjectPolicy, out: &mut SubjectDiff) {
    for which in IpcLimit::ALL {
        let (one, other) = (before.budgets.ipc.value(which), after.budgets.ipc.value(which));
        let change = Change::Setting {
            key: format!("ipc.{}", which.as_str()),
            before: one.to_string(),
            after: other.to_string(),
        };
        out.put(one.cmp(&other), change);
    }
}

/// The shown paths of which none lies in another: path, and whether it may be missing.
fn shown(subject: &SubjectPolicy, home: &str) -> BTreeMap<String, bool> {
    let all = subject.view(Some(home));
    let covered = |path: &str| {
        all.iter()
            .any(|other| other.path != path && is_within(path, &other.path))
    };
    all.iter()
        .filter(|path| !covered(&path.path))
        .map(|path| (path.path.clone(), path.optional))
        .collect()
}

fn written(path: &str, home: &str) -> String {
    match path.strip_prefix(home) {
        Some(rest) if is_within(path, home) => format!("~{rest}"),
        _ => path.to_owned(),
    }
}

fn paths(before: &SubjectPolicy, after: &SubjectPolicy, out: &mut SubjectDiff) {
    let home = &home_of_neither(before, after);
    let (one, other) = (shown(before, home), shown(after, home));
    for (side, now, then) in [(&mut out.wider, &other, &one), (&mut out.narrower, &one, &other)] {
        for path in now.keys() {
            if then.keys().any(|known| is_within(path, known)) {
                continue;
            }
            let except = then
                .keys()
                .filter(|known| is_within(known, path))
                .map(|known| written(known, home));
            side.push(Change::Path {
                path: written(path, home),
                except: except.collect(),
            });
        }
    }
    // Whether a start fails for want of a path, also of one that lies in another.
    let needed = |subject: &SubjectPolicy| -> BTreeSet<String> {
        let view = subject.view(Some(home));
        view.into_iter()
            .filter(|path| !path.optional)
            .map(|path| path.path)
            .collect()
    };
    let (one, other) = (needed(before), needed(after));
    for path in one.symmetric_difference(&other) {
        let word = |needed: &BTreeSet<String>| {
            if needed.contains(path) {
                "must be there"
            } else {
                "may be missing"
            }
        };
        // What is gained or lost altogether is told already.
        let visible = |subject: &SubjectPolicy| {
            let view = subject.view(Some(home));
            view.iter().any(|shown| is_within(path, &shown.path))
        };
        if visible(before) && visible(after) {
            out.other.push(Change::Setting {
                key: format!("read {}", written(path, home)),
                before: word(&one).to_owned(),
                after: word(&other).to_owned(),
            });
        }
    }
}

/// What of `work` stays read-only, as far as the directory may be written at all.
fn protected(before: &SubjectPolicy, after: &SubjectPolicy, out: &mut SubjectDiff) {
    let least = |subject: &SubjectPolicy| -> BTreeSet<String> {
        let all = &subject.work_protect;
        let covered = |path: &&String| all.iter().any(|other| other != *path && is_within(path, other));
        all.iter().filter(|path| !covered(path)).cloned().collect()
    };
    let (one, other) = (least(before), least(after));
    let within = |path: &str, set: &BTreeSet<String>| set.iter().any(|known| is_within(path, known));
    let change = |path: &str, now: bool| {
        let word = |is: bool| if is { "read-only" } else { "as `work`" }.to_owned();
        Change::Setting {
            key: format!("work_protect {path}"),
            before: word(!now),
            after: word(now),
        }
    };
    for path in one.iter().filter(|path| !within(path, &other)) {
        out.wider.push(change(path, false));
    }
    for path in other.iter().filter(|path| !within(path, &one)) {
        out.narrower.push(change(path, true));
    }
}

/// Names that stand for all that rules can tell apart: each that is mentioned, and one for what begins so and is not mentioned.
fn variables(before: &SubjectPolicy, after: &SubjectPolicy, out: &mut SubjectDiff) {
    let mut exact: BTreeSet<String> = BTreeSet::new();
    let mut open: BTreeSet<String> = BTreeSet::new();
    for layer in before.env.iter().chain(after.env.iter()) {
        exact.extend(layer.set.keys().cloned());
        for pattern in &layer.pass {
            if pattern.is_open() {
                open.insert(pattern.begins().to_owned());
            } else {
                exact.insert(pattern.begins().to_owned());
            }
        }
    }
    for name in &exact {
        decided(name, name, before, after, out);
    }
    for begins in &open {
        if let Some(name) = stands_for(begins, &open) {
            decided(&format!("{begins}*"), &name, before, after, out);
        }
    }
}

/// A name that begins so, with no longer known beginning, and longer than any that is mentioned.
fn stands_for(begins: &str, open: &BTreeSet<String>) -> Option<String> {
    let letters = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').chain([b'_']);
    letters.map(char::from).find_map(|letter| {
        let mut name = format!("{begins}{letter}");
        // No mentioned name is longer than 255 bytes.
        while name.len() < 300 {
            name.push(letter);
        }
        let is_other = open
            .iter()
            .any(|other| other.len() > begins.len() && name.starts_with(other.as_str()));
        (!is_other).then_some(name)
    })
}

fn decided(shown: &str, name: &str, before: &SubjectPolicy, after: &SubjectPolicy, out: &mut SubjectDiff) {
    let (one, other) = (before.env_decision(name), after.env_decision(name));
    if one == other {
        return;
    }
    let passes = |decision: &EnvDecision| *decision == EnvDecision::Pass;
    if passes(&other) {
        out.wider.push(Change::Variable { name: shown.to_owned() });
    } else if passes(&one) {
        out.narrower.push(Change::Variable { name: shown.to_owned() });
    }
    // A fixed value opens nothing of the caller's; it is told all the same.
    let word = |decision: &EnvDecision| match decision {
        EnvDecision::Set(value) => format!("set to {value}"),
        EnvDecision::Pass => "passed on".to_owned(),
        EnvDecision::Drop => "not there".to_owned(),
    };
    let is_set = |decision: &EnvDecision| matches!(decision, EnvDecision::Set(_));
    if is_set(&one) || is_set(&other) {
        out.other.push(Change::Setting {
            key: format!("env_set {shown}"),
            before: word(&one),
            after: word(&other),
        });
    }
}
