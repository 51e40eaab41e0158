//! Calls and their arguments, as sets.

use std::collections::{BTreeMap, BTreeSet};

use nexus_abi::syscall::{self, Kind, Width};
use nexus_abi::{Area, Errno};
use nexus_abi_policy::{
    ArgumentSet, Asked, AskedSet, CallAlgebra, CallSet, Pattern, Patterns, Profile, SyscallRule, TooComplex,
};

use super::{Change, DiffError, SubjectDiff};
use crate::effective::SubjectPolicy;

/// Subjects that share their rules share what is said of these.
#[derive(Default)]
pub(super) struct Shared {
    /// By hashes, which only find candidates: two rule sets are the same when they are compared to be.
    done: BTreeMap<(u64, u64), Vec<Known>>,
}

struct Known {
    before: SubjectPolicy,
    after: SubjectPolicy,
    diff: SubjectDiff,
}

/// Whether two subjects have the very same syscall rules, at whatever places.
fn same_rules(one: &SubjectPolicy, other: &SubjectPolicy) -> bool {
    let same_rule = |(a, b): (&SyscallRule, &SyscallRule)| {
        (a.number, a.effect, a.errno) == (b.number, b.effect, b.errno) && a.conditions == b.conditions
    };
    let same_profile = |a: &Profile, b: &Profile| {
        a.probed == b.probed && a.rules.len() == b.rules.len() && a.rules.iter().zip(&b.rules).all(same_rule)
    };
    one.syscalls.count() == other.syscalls.count()
        && one
            .syscalls
            .iter()
            .zip(other.syscalls.iter())
            .all(|(a, b)| same_profile(&a.profile, &b.profile))
}

pub(super) fn compare(
    before: &SubjectPolicy,
    after: &SubjectPolicy,
    subject: &str,
    shared: &mut Shared,
    out: &mut SubjectDiff,
) -> Result<(), DiffError> {
    if same_rules(before, after) {
        return Ok(());
    }
    let bucket = shared
        .done
        .entry((before.meaning_key(), after.meaning_key()))
        .or_default();
    let known = bucket
        .iter()
        .find(|known| same_rules(&known.before, before) && same_rules(&known.after, after));
    let diff = match known {
        Some(known) => known.diff.clone(),
        None => {
            let diff = compared(before, after, subject)?;
            bucket.push(Known {
                before: before.clone(),
                after: after.clone(),
                diff: diff.clone(),
            });
            diff
        }
    };
    out.wider.extend(diff.wider);
    out.narrower.extend(diff.narrower);
    out.other.extend(diff.other);
    Ok(())
}

/// A profile's rules by number.
type Numbered<'p> = BTreeMap<u32, Vec<&'p SyscallRule>>;

fn numbered(profile: &Profile) -> Numbered<'_> {
    let mut out = Numbered::new();
    for rule in &profile.rules {
        out.entry(rule.number).or_default().push(rule);
    }
    out
}

fn one_call(profile: &Profile, rules: &Numbered<'_>, number: u32) -> Profile {
    let rules = rules.get(&number);
    Profile {
        rules: rules
            .map(|rules| rules.iter().copied().cloned().collect())
            .unwrap_or_default(),
        probed: if profile.probed.binary_search(&number).is_ok() {
            vec![number]
        } else {
            Vec::new()
        },
    }
}

fn compared(before: &SubjectPolicy, after: &SubjectPolicy, subject: &str) -> Result<SubjectDiff, DiffError> {
    let (one, other) = (before.profiles(), after.profiles());
    let (one_rules, other_rules): (Vec<Numbered<'_>>, Vec<Numbered<'_>>) = (
        one.iter().map(|profile| numbered(profile)).collect(),
        other.iter().map(|profile| numbered(profile)).collect(),
    );
    let mut numbers: BTreeSet<u32> = BTreeSet::new();
    for (profiles, rules) in [(&one, &one_rules), (&other, &other_rules)] {
        // The floor speaks of every call; what only it speaks of is denied anyway.
        for (profile, rules) in profiles.iter().zip(rules.iter()).rev().skip(1) {
            numbers.extend(rules.keys());
            numbers.extend(&profile.probed);
        }
    }
    let mut out = Gathered::default();
    for number in numbers {
        let small = |profiles: &[&Profile], rules: &[Numbered<'_>]| -> Vec<Profile> {
            let pairs = profiles.iter().zip(rules);
            pairs.map(|(profile, rules)| one_call(profile, rules, number)).collect()
        };
        let (a, b) = (small(&one, &one_rules), small(&other, &other_rules));
        if same(&a, &b) {
            continue;
        }
        call(number, &a, &b, &mut out).map_err(|why| DiffError::Call {
            subject: subject.to_owned(),
            call: name(number),
            why,
        })?;
    }
    Ok(out.into_diff())
}

/// Whether the very same is said, at whatever places.
fn same(one: &[Profile], other: &[Profile]) -> bool {
    let says = |profile: &Profile| -> Vec<_> {
        let rules = profile.rules.iter();
        rules
            .map(|rule| (rule.effect, rule.errno, rule.conditions.clone()))
            .collect()
    };
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .all(|(a, b)| a.probed == b.probed && a.rules.len() == b.rules.len() && says(a) == says(b))
}

fn name(number: u32) -> String {
    syscall::name(number).map_or_else(|| number.to_string(), str::to_owned)
}

/// What is said of calls, each with all of which it is said.
#[derive(Default)]
struct Gathered {
    wider: BTreeMap<Option<(Vec<String>, bool)>, Vec<String>>,
    narrower: BTreeMap<Option<(Vec<String>, bool)>, Vec<String>>,
    errnos: BTreeMap<(String, String), Vec<String>>,
}

impl Gathered {
    fn into_diff(self) -> SubjectDiff {
        let side = |gathered: BTreeMap<Option<(Vec<String>, bool)>, Vec<String>>| {
            let changes = gathered.into_iter().map(|(what, mut names)| {
                names.sort();
                match what {
                    None => Change::Calls { names },
                    Some((patterns, is_cut)) => Change::Arguments {
                        names,
                        patterns,
                        is_cut,
                    },
                }
            });
            let mut changes: Vec<Change> = changes.collect();
            changes.sort();
            changes
        };
        let errnos = self.errnos.into_iter().map(|((before, after), mut names)| {
            names.sort();
            Change::Errno { names, before, after }
        });
        SubjectDiff {
            wider: side(self.wider),
            narrower: side(self.narrower),
            other: errnos.collect(),
        }
    }
}

fn call(number: u32, before: &[Profile], after: &[Profile], out: &mut Gathered) -> Result<(), TooComplex> {
    let mut algebra = CallAlgebra::new();
    let (one, other): (Vec<&Profile>, Vec<&Profile>) = (before.iter().collect(), after.iter().collect());
    let one = algebra.answers(&one, number)?;
    let other = algebra.answers(&other, number)?;
    for (side, now, then) in [
        (&mut out.wider, other.allowed, one.allowed),
        (&mut out.narrower, one.allowed, other.allowed),
    ] {
        let set = algebra.difference(now, then)?;
        if set.is_empty() {
            continue;
        }
        let what = (!set.is_all()).then(|| words(number, &algebra.patterns(set, |index| width(number, index))));
        side.entry(what).or_default().push(name(number));
    }
    // How what is denied on both sides is answered.
    let mut differs = false;
    let both_allow = algebra.union(one.allowed, other.allowed)?;
    let errnos: BTreeSet<u16> = one.answered.keys().chain(other.answered.keys()).copied().collect();
    for errno in &errnos {
        let of = |answers: &BTreeMap<u16, CallSet>| answers.get(errno).copied().unwrap_or(CallSet::EMPTY);
        let (a, b) = (of(&one.answered), of(&other.answered));
        for (now, then) in [(a, b), (b, a)] {
            let changed = algebra.difference(now, then)?;
            // A deny by rule with EPERM is answered as the lack of a rule is.
            differs |= *errno != Errno::EPERM.raw() && !algebra.difference(changed, both_allow)?.is_empty();
        }
    }
    if differs {
        let word = |answers: &BTreeMap<u16, CallSet>| {
            let errnos: Vec<String> = answers
                .keys()
                .filter_map(|errno| Errno::from_raw(*errno))
                .map(|errno| errno.to_string())
                .collect();
            match errnos.as_slice() {
                [] => Errno::EPERM.to_string(),
                [one] => one.clone(),
                several => several.join(" or "),
            }
        };
        let key = (word(&one.answered), word(&other.answered));
        out.errnos.entry(key).or_default().push(name(number));
    }
    Ok(())
}

fn width(number: u32, index: u8) -> Width {
    let kind = syscall::by_number(number).and_then(|call| call.argument(usize::from(index)));
    kind.map_or(Width::W64, Kind::width)
}

fn words(number: u32, patterns: &Patterns) -> (Vec<String>, bool) {
    let full = |index: u8| width(number, index).mask();
    let words = patterns.patterns.iter().map(|pattern| one_pattern(pattern, &full));
    (words.collect(), patterns.is_cut)
}

fn one_pattern(pattern: &Pattern, full: &impl Fn(u8) -> u64) -> String {
    let arguments = pattern
        .arguments
        .iter()
        .map(|argument| argument_words(argument, full(argument.index)));
    let asked = pattern.asked.iter().filter_map(asked_words);
    arguments.chain(asked).collect::<Vec<_>>().join(" and ")
}

fn argument_words(argument: &ArgumentSet, full: u64) -> String {
    let index = argument.index;
    let mut values = Vec::new();
    let mut others = Vec::new();
    for (first, last) in &argument.ranges {
        if first == last {
            values.push(format!("{first:#x}"));
        } else if *last >= full {
            others.push(format!("argument {index} >= {first:#x}"));
        } else {
            others.push(format!("argument {index} in {first:#x}..{last:#x}"));
        }
    }
    for (mask, value) in &argument.masks {
        others.push(format!("argument {index} & {mask:#x} = {value:#x}"));
    }
    if !values.is_empty() {
        others.insert(0, format!("argument {index} = {}", values.join(", ")));
    }
    match others.as_slice() {
        [one] => one.clone(),
        several => format!("({})", several.join(" or ")),
    }
}

fn asked_words(asked: &AskedSet) -> Option<String> {
    let what = match asked.asked {
        Asked::Egress => "egress allows the destination".to_owned(),
        Asked::Budget(Area::Tmp) => "it fits `tmp`".to_owned(),
        Asked::Budget(Area::State) => "it fits `state`".to_owned(),
        Asked::Budget(area) => format!("it fits `{area}`"),
    };
    match (asked.holds, asked.may_hold) {
        (Some(true), _) => Some(what),
        (_, Some(false)) => Some(format!("not: {what}")),
        (Some(false), Some(true)) => Some(format!("not known: {what}")),
        (Some(false), None) => Some(format!("not surely: {what}")),
        (None, Some(true)) => Some(format!("possibly: {what}")),
        (None, None) => None,
    }
}
