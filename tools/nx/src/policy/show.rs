//! `nx policy show`

use super::args::ShowArgs;
use super::json::{self, VERSION};
use super::{Result, Said, in_force, plain, subject};
use nexus_abi::{Area, Effect, RuleRef, syscall};
use nexus_abi_policy::{ArgTest, Condition, SyscallRule};
use nexus_net_egress::PortRange;
use nexus_policy::{IpcLimit, Limit, Policy, SubjectPolicy, render_size};
use serde_json::{Value, json};
use std::fmt::Write;

/// One line of what a subject may do.
struct Line {
    section: &'static str,
    text: String,
    /// Who made it so.
    rules: Vec<RuleRef>,
}

pub(crate) fn show(args: &ShowArgs) -> Result<Said> {
    let loaded = in_force(args.policy.as_ref())?;
    let policy = &loaded.policy;
    let mut out = String::new();
    if let Some(name) = &args.subject {
        one(&subject(policy, name)?, policy, args.json, &mut out);
        return Ok(Said::fine(out));
    }
    for (number, name) in policy.subjects().enumerate() {
        if number > 0 && !args.json {
            out.push('\n');
        }
        one(&subject(policy, name)?, policy, args.json, &mut out);
    }
    Ok(Said::fine(out))
}

fn one(subject: &SubjectPolicy, policy: &Policy, as_json: bool, out: &mut String) {
    let value = value(subject, policy);
    if as_json {
        let _ = writeln!(out, "{value}");
    } else {
        out.push_str(&text(&value));
    }
}

/// What a subject may do, line by line, as JSON.
pub(crate) fn value(subject: &SubjectPolicy, policy: &Policy) -> Value {
    let lines: Vec<_> = lines(subject)
        .iter()
        .map(|line| {
            let rules: Vec<_> = line.rules.iter().map(|rule| json::rule(policy, *rule)).collect();
            json!({"section": line.section, "text": line.text, "rules": rules})
        })
        .collect();
    json!({
        "version": VERSION,
        "ok": true,
        "policy": policy.version().to_string(),
        "subject": subject.name,
        "domain": subject.domain,
        "profile": subject.profile_name,
        "profile_id": subject.profile_id().to_string(),
        "lines": lines,
    })
}

/// [`value`] for reading; one that came from elsewhere too: what is not there is left out.
pub(crate) fn text(value: &Value) -> String {
    let field = |of: &Value, name: &str| plain(of.get(name).and_then(Value::as_str).unwrap_or_default());
    let items = |of: &Value, name: &str| of.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut out = String::new();
    let domain = value
        .get("domain")
        .and_then(Value::as_str)
        .map(|domain| format!(" (domain {})", plain(domain)));
    let _ = writeln!(
        out,
        "subject      {}{}",
        field(value, "subject"),
        domain.unwrap_or_default()
    );
    let _ = writeln!(out, "policy       {}", field(value, "policy"));
    let _ = writeln!(
        out,
        "profile      {} {}",
        field(value, "profile"),
        field(value, "profile_id")
    );
    let mut section = String::new();
    for line in items(value, "lines") {
        let of = field(&line, "section");
        if of != section {
            let _ = writeln!(out, "{of}");
            section = of;
        }
        let places: Vec<String> = items(&line, "rules").iter().map(|rule| field(rule, "at")).collect();
        let _ = writeln!(out, "  {:<58} {}", field(&line, "text"), places.join(", "));
    }
    out
}

fn lines(subject: &SubjectPolicy) -> Vec<Line> {
    let mut out = Vec::new();
    budgets(subject, &mut out);
    egress(subject, &mut out);
    syscalls(subject, &mut out);
    sandbox(subject, &mut out);
    out
}

fn push(out: &mut Vec<Line>, section: &'static str, text: String, rules: impl IntoIterator<Item = RuleRef>) {
    let rules = rules.into_iter().collect();
    out.push(Line { section, text, rules });
}

fn budgets(subject: &SubjectPolicy, out: &mut Vec<Line>) {
    const SECTION: &str = "budgets";
    for area in Area::ALL {
        let Some(given) = subject.budgets.get(area) else {
            continue;
        };
        if given.hard_rule.is_none() {
            push(out, SECTION, format!("{area} nothing may be written: no budget"), []);
            continue;
        }
        let budget = &given.budget;
        if let Some(soft) = budget.soft_bytes {
            push(
                out,
                SECTION,
                format!("{area} soft {}", render_size(soft)),
                given.soft_rule,
            );
        }
        let hard = render_size(budget.hard_bytes);
        push(out, SECTION, format!("{area} hard {hard}"), given.hard_rule);
        push(
            out,
            SECTION,
            format!("{area} inodes {}", budget.hard_inodes),
            given.inodes_rule,
        );
    }
    for which in IpcLimit::ALL {
        // What no rule speaks of is nothing, and there is no line that made it so.
        if let Some(limit) = subject.budgets.ipc.get(which) {
            let text = format!("ipc {} {}", which.as_str(), ipc(which, limit.value));
            push(out, SECTION, text, [limit.rule]);
        }
    }
}

/// Bytes as a size, counts as they are.
fn ipc(which: IpcLimit, value: u64) -> String {
    match which {
        IpcLimit::Segments | IpcLimit::Queues | IpcLimit::Semaphores => value.to_string(),
        IpcLimit::Shm | IpcLimit::Queue | IpcLimit::Mqueue | IpcLimit::Memfd => render_size(value),
    }
}

pub(crate) fn ports(ports: &[PortRange]) -> String {
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::Allow => "allow",
        Effect::Deny => "deny",
    }
}

fn egress(subject: &SubjectPolicy, out: &mut Vec<Line>) {
    const SECTION: &str = "egress";
    for layer in subject.egress.iter() {
        for rule in &layer.rules {
            let to = format!(
                "{} {} {}:{}",
                effect(rule.effect),
                rule.protocol,
                rule.cidr,
                ports(&rule.ports)
            );
            push(out, SECTION, to, [rule.rule]);
        }
        for rule in &layer.names {
            let to = format!(
                "{} {} {}:{}",
                effect(rule.effect),
                rule.protocol,
                rule.pattern,
                ports(&rule.ports)
            );
            push(out, SECTION, to, [rule.rule]);
        }
        for rule in &layer.binds {
            let what = format!(
                "bind {} port {} of the host's, to send from",
                rule.protocol,
                ports(&rule.ports)
            );
            push(out, SECTION, what, [rule.rule]);
        }
        push(out, SECTION, "deny everything else (EPERM)".to_owned(), [layer.no_rule]);
    }
}

fn syscalls(subject: &SubjectPolicy, out: &mut Vec<Line>) {
    const SECTION: &str = "syscalls";
    for layer in subject.syscalls.iter() {
        // The calls of one rule stand together.
        for rules in layer.profile.rules.chunk_by(|a, b| a.rule == b.rule) {
            let Some(first) = rules.first() else { continue };
            push(out, SECTION, syscall_rule(first, rules), [first.rule]);
        }
        for (numbers, rule) in &layer.probes {
            push(out, SECTION, format!("probe {} (ENOSYS)", calls(numbers)), [*rule]);
        }
        push(out, SECTION, "deny everything else (EPERM)".to_owned(), [layer.no_rule]);
    }
}

/// The name of a group that is exactly these calls, else their names.
pub(super) fn calls(numbers: &[u32]) -> String {
    if numbers.len() > 1
        && let Some(group) = syscall::groups().find(|group| group.numbers == numbers)
    {
        return group.name.to_owned();
    }
    let name = |number: &u32| syscall::name(*number).map_or_else(|| number.to_string(), str::to_owned);
    numbers.iter().map(name).collect::<Vec<_>>().join(" ")
}

fn syscall_rule(first: &SyscallRule, rules: &[SyscallRule]) -> String {
    let numbers: Vec<u32> = rules.iter().map(|rule| rule.number).collect();
    let mut text = format!("{} {}", effect(first.effect), calls(&numbers));
    let when: Vec<String> = first.conditions.iter().map(condition).collect();
    if !when.is_empty() {
        let _ = write!(text, " when {}", when.join(" and "));
    }
    if first.effect == Effect::Deny {
        let _ = write!(text, " ({})", first.errno);
    }
    text
}

fn condition(condition: &Condition) -> String {
    match condition {
        Condition::Arg { index, test, .. } => match test {
            ArgTest::Equal(value) => format!("argument {index} = {value:#x}"),
            ArgTest::Masked { mask, value } => format!("argument {index} & {mask:#x} = {value:#x}"),
            ArgTest::Range { first, last } => format!("argument {index} from {first:#x} to {last:#x}"),
            ArgTest::OneOf(values) => {
                let values: Vec<String> = values.iter().map(|value| format!("{value:#x}")).collect();
                format!("argument {index} one of {}", values.join(" "))
            }
            ArgTest::AnyBit(mask) => format!("argument {index} & {mask:#x} != 0"),
        },
        Condition::Egress => "egress allows the destination".to_owned(),
        Condition::Budget(area) => format!("it fits what is left of {area}"),
    }
}

fn sandbox(subject: &SubjectPolicy, out: &mut Vec<Line>) {
    // The rules of every layer that says something of the key: each narrows the others.
    let of = |key: &str| -> Vec<RuleRef> {
        let mut rules: Vec<RuleRef> = subject
            .settings
            .iter()
            .filter_map(|layer| layer.get(key))
            .copied()
            .collect();
        rules.reverse();
        rules
    };
    // The home is each caller's own: its paths are shown as they are written.
    for path in subject.view(Some("/~")) {
        let shown = path.path.strip_prefix("/~/").map(|rest| format!("~/{rest}"));
        let optional = if path.optional { ", where it is there" } else { "" };
        let text = format!("{} read-only{optional}", shown.unwrap_or(path.path));
        push(out, "view", text, [path.rule]);
    }
    push(out, "view", format!("work {}", subject.work), of("work"));
    for path in &subject.work_protect {
        push(out, "view", format!("work/{path} read-only"), of("work_protect"));
    }
    let devices: Vec<&str> = subject.dev.iter().map(|device| device.as_str()).collect();
    push(out, "view", format!("devices {}", devices.join(" ")), of("dev"));
    for layer in subject.env_patterns().iter() {
        let names: Vec<String> = layer.iter().map(ToString::to_string).collect();
        push(out, "environment", format!("pass {}", names.join(" ")), of("env"));
    }
    for (name, value) in subject.environment([]) {
        push(out, "environment", format!("set {name}={value}"), of("env_set"));
    }
    let flags = [
        ("sockets", subject.fds.allow_sockets),
        ("directories", subject.fds.allow_directories),
        ("devices", subject.fds.allow_devices),
    ];
    for (what, allowed) in flags {
        let word = if allowed { "taken" } else { "refused" };
        push(out, "descriptors", format!("{what} {word}"), of("fds"));
    }
    let limit = |value: Option<Limit>, size: bool| match value {
        Some(limit) if size => render_size(limit.value),
        Some(limit) => limit.value.to_string(),
        None => "no limit".to_owned(),
    };
    let limits = &subject.limits;
    for (what, value, size) in [
        ("memory", limits.memory_bytes, true),
        ("processes", limits.processes, false),
        ("open files", limits.open_files, false),
    ] {
        let text = format!("{what} {}", limit(value, size));
        push(out, "limits", text, value.map(|limit| limit.rule));
    }
    let audit = &subject.audit;
    let rate = format!(
        "{} records a second, {} at once, of each reason",
        audit.rate, audit.burst
    );
    push(out, "records", rate, of("audit"));
    let failure = format!("when none can be written: {}", audit.on_journal_failure);
    push(out, "records", failure, of("on_journal_failure"));
}
