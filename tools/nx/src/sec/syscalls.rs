//! `nx sec syscalls`

use super::about::{About, Shown, show};
use super::output::{Paint, Said};
use super::view::{Of, field, items, wrap};
use super::{readback, words};
use crate::run::{Class, Failure, filter_hash, mask, plain};
use nexus_abi::{Effect, RuleRef, syscall};
use nexus_abi_policy::{Condition, SyscallRule};
use nexus_wire::session::Question;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write;

pub(super) fn syscalls(about: &About, all: bool, read_back: bool, as_json: bool) -> Result<Said, Failure> {
    show(about, Question::Syscalls, as_json, |shown| {
        readback::source(shown, read_back);
        text(shown, all, Paint::of_stdout())
    })
}

/// Which calls the rules let through, and on what condition.
pub(super) fn value(of: &Of<'_>) -> Value {
    // As it is judged: what a rule asks of a budget, the file server finds when something grows.
    let in_force = of.rules.profiles_in_force();
    let in_force: Vec<_> = in_force.iter().map(AsRef::as_ref).collect();
    let mask = mask(&in_force);
    let profiles = of.rules.profiles();
    let allowed: BTreeSet<u32> = mask.numbers(Class::Allowed).collect();
    let conditional: BTreeSet<u32> = mask.numbers(Class::Conditional).collect();
    // The calls of one rule with the same words stand together, in policy order.
    let mut rules: Vec<(RuleRef, Effect, String, Value, Vec<&'static str>)> = Vec::new();
    for rule in profiles.iter().flat_map(|profile| &profile.rules) {
        let budget = rule.conditions.iter().any(|one| matches!(one, Condition::Budget(_)));
        if rule.conditions.is_empty() || !(budget || conditional.contains(&rule.number)) {
            continue;
        }
        let (Some(name), when) = (
            syscall::name(rule.number),
            words::conditions(rule.number, &rule.conditions),
        ) else {
            continue;
        };
        let errno = errno(rule);
        match rules
            .iter_mut()
            .find(|one| (one.0, one.1) == (rule.rule, rule.effect) && one.2 == when)
        {
            Some(known) => known.4.push(name),
            None => rules.push((rule.rule, rule.effect, when, errno, vec![name])),
        }
    }
    let rules: Vec<Value> = rules
        .into_iter()
        .map(|(rule, effect, when, errno, mut calls)| {
            calls.sort_unstable();
            let effect = if effect == Effect::Allow { "allow" } else { "deny" };
            json!({"calls": calls, "effect": effect, "when": when, "errno": errno, "rule": of.rule(rule)})
        })
        .collect();
    let probes: BTreeSet<&str> = of
        .rules
        .syscalls
        .iter()
        .flat_map(|layer| layer.probes.iter().flat_map(|(numbers, _)| numbers))
        .filter_map(|number| syscall::name(*number))
        .collect();
    let counts = mask.counts();
    json!({
        "subject": of.rules.name,
        "policy": of.policy.version().to_string(),
        "profile_id": of.rules.profile_id().to_string(),
        "filter": of.live.map(|live| json!({
            "hash": filter_hash(&live.plan.filter),
            "instructions": live.plan.filter.len(),
        })),
        "counts": {"allowed": counts.allowed, "conditional": counts.conditional, "denied": counts.denied},
        "folded": fold(&allowed, &conditional),
        "allowed": names(allowed.iter().copied()),
        "conditional": names(conditional.iter().copied()),
        "rules": rules,
        "probes": probes,
        "otherwise": "EPERM",
        "unknown": "ENOSYS",
    })
}

fn errno(rule: &SyscallRule) -> Value {
    match rule.effect {
        Effect::Allow => Value::Null,
        Effect::Deny => rule.errno.to_string().into(),
    }
}

fn names(numbers: impl Iterator<Item = u32>) -> Vec<&'static str> {
    let mut names: Vec<&str> = numbers.filter_map(syscall::name).collect();
    names.sort_unstable();
    names
}

/// A group is named although some of its calls are denied, if those are at most this many of at least so many times more.
const WITHOUT_MAX: usize = 4;

/// The allowed calls with groups in place of their calls: groups that are allowed whole, with a `*` where some of it is decided
/// by argument, and large ones of which few calls are denied, which are named. The larger groups first, and none that adds
/// less than two calls.
fn fold(allowed: &BTreeSet<u32>, conditional: &BTreeSet<u32>) -> Vec<String> {
    let mut left = allowed.clone();
    let mut out: Vec<String> = Vec::new();
    let mut groups: Vec<_> = syscall::groups().collect();
    groups.sort_by_key(|group| (std::cmp::Reverse(group.numbers.len()), group.name));
    for denied_max in [0, WITHOUT_MAX] {
        for group in &groups {
            let some = group.numbers.iter().any(|number| conditional.contains(number));
            let open = |number: &&u32| allowed.contains(number) || conditional.contains(number);
            let without = names(group.numbers.iter().filter(|number| !open(number)).copied());
            let few = without.len() <= denied_max && group.numbers.len() >= without.len().saturating_mul(WITHOUT_MAX);
            let adds = group.numbers.iter().filter(|number| left.contains(number)).count() > 1;
            if !few || !adds {
                continue;
            }
            left.retain(|number| !group.numbers.contains(number));
            let mark = if some { "*" } else { "" };
            out.push(match without.as_slice() {
                [] => format!("{}{mark}", group.name),
                without => format!("{}{mark} (without {})", group.name, without.join(" ")),
            });
        }
    }
    out.sort_unstable();
    out.extend(names(left.into_iter()).into_iter().map(str::to_owned));
    out
}

fn text(shown: &Shown, all: bool, paint: Paint) -> String {
    let Some(value) = shown.value() else {
        return String::new();
    };
    let mut out = String::new();
    if let Some(source) = &shown.source {
        let _ = writeln!(out, "source       {}", plain(source));
    }
    let _ = writeln!(out, "profile      {}", field(value, "profile_id"));
    if let Some(filter) = value.get("filter").filter(|filter| filter.is_object()) {
        let _ = writeln!(
            out,
            "filter       {}, {} instructions",
            field(filter, "hash"),
            field(filter, "instructions")
        );
    }
    let counts = value.get("counts").unwrap_or(&Value::Null);
    let head = |text: &str| paint.head(text);
    let count = |name: &str| field(counts, name);
    let _ = writeln!(out, "{}", head(&format!("allowed ({})", count("allowed"))));
    let list = if all { "allowed" } else { "folded" };
    out.push_str(&wrap(strings(value, list)));
    if !all && strings(value, list).any(|name| name.contains('*')) {
        out.push_str("  * but for what of it is decided by argument\n");
    }
    if items(value, "rules").is_empty() {
        let _ = writeln!(out, "{}", head("by argument (0)"));
    } else {
        let _ = writeln!(out, "{}", head(&format!("by argument ({})", count("conditional"))));
    }
    for rule in items(value, "rules") {
        let calls: Vec<String> = strings(rule, "calls").collect();
        let effect = match field(rule, "effect").as_str() {
            "allow" => "allowed".to_owned(),
            _ => format!("denied with {}", field(rule, "errno")),
        };
        let at = rule.get("rule").map(|rule| field(rule, "at")).unwrap_or_default();
        let _ = writeln!(
            out,
            "  {} {effect} when {} ({at})",
            calls.join(" "),
            field(rule, "when")
        );
    }
    let _ = writeln!(
        out,
        "{}",
        head(&format!("denied ({}): {}", count("denied"), field(value, "otherwise")))
    );
    let probes: Vec<String> = strings(value, "probes").collect();
    if !probes.is_empty() {
        out.push_str(&wrap(
            std::iter::once("with ENOSYS, as if the kernel had none:".to_owned()).chain(probes),
        ));
    }
    out
}

fn strings<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = String> + 'a {
    items(value, name).iter().filter_map(Value::as_str).map(plain)
}
