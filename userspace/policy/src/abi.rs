//! `abi.toml`: `[domain.NAME]` and `[subject.NAME]` with `allow`, `deny`, `probe` and `[[….rule]]`.

use std::collections::BTreeMap;

use nexus_abi::syscall::{self, Syscall};
use nexus_abi::{Effect, Errno, RuleRef};
use nexus_abi_policy::{Condition, SyscallRule};
use toml::de::{DeTable, DeValue};

use crate::conditions;
use crate::diagnostic::{Code, Diagnostic, Place};
use crate::egress::{again, effect_word};
use crate::fields::{Reader, Value, integer_value, nearest, quote};
use crate::json::Json;
use crate::limits::SYSCALL_RULES_PER_SCOPE_MAX;
use crate::rules::{RuleKind, RuleTable};
use crate::scope::ScopeName;

/// The rules of one scope.
#[derive(Clone, Debug, Default)]
pub(crate) struct Abi {
    pub(crate) rules: Vec<SyscallRule>,
    /// Numbers that libraries probe.
    pub(crate) probed: Vec<u32>,
    /// The rules as they are written: groups by name, conditions without widths.
    pub(crate) written: Vec<WrittenRule>,
    /// What libraries probe, as it is written, and the rules that say so.
    pub(crate) probes: Vec<(String, RuleRef)>,
}

/// A rule as it is written.
#[derive(Clone, Debug)]
pub(crate) struct WrittenRule {
    pub(crate) calls: Vec<String>,
    pub(crate) effect: Effect,
    pub(crate) errno: Errno,
    pub(crate) when: Vec<conditions::Written>,
    pub(crate) rule: RuleRef,
}

impl WrittenRule {
    fn canonical(&self) -> Json {
        let mut names = self.calls.clone();
        names.sort();
        names.dedup();
        let mut when: Vec<Json> = self.when.iter().map(conditions::Written::canonical).collect();
        when.sort();
        when.dedup();
        let mut says = Json::object([("effect", Json::text(effect_word(self.effect)))]);
        says.put("calls", Json::texts(names));
        says.put("when", Json::Array(when));
        if self.effect == Effect::Deny {
            says.put("errno", Json::Number(u64::from(self.errno.raw())));
        }
        says
    }

    /// The calls' numbers on this architecture, sorted. `None`: a name is not known.
    fn numbers(&self) -> Option<Vec<u32>> {
        let calls = self.calls.iter().map(|name| Some(Calls::of(name)?.numbers()));
        let mut numbers: Vec<u32> = calls.collect::<Option<Vec<_>>>()?.concat();
        numbers.sort_unstable();
        numbers.dedup();
        Some(numbers)
    }

    /// One rule for each call.
    fn spread(&self, numbers: &[u32], out: &mut Vec<SyscallRule>) {
        out.extend(numbers.iter().map(|number| SyscallRule {
            number: *number,
            effect: self.effect,
            errno: self.errno,
            conditions: of(&self.when, *number),
            rule: self.rule,
        }));
    }
}

impl Abi {
    pub(crate) fn canonical(&self) -> Json {
        let mut rules: Vec<Json> = self.written.iter().map(WrittenRule::canonical).collect();
        rules.sort();
        let mut probe: Vec<&str> = self.probes.iter().map(|(name, _)| name.as_str()).collect();
        probe.sort_unstable();
        let mut out = Json::object([]);
        out.put("rules", Json::Array(rules));
        out.put("probe", Json::texts(probe));
        out
    }

    /// What a snapshot says. `None`: a name is not known here, or there are more rules than a scope may have.
    pub(crate) fn of_written(written: Vec<WrittenRule>, probes: Vec<(String, RuleRef)>) -> Option<Self> {
        let mut rules = Vec::new();
        for rule in &written {
            rule.spread(&rule.numbers()?, &mut rules);
            if rules.len() > SYSCALL_RULES_PER_SCOPE_MAX {
                return None;
            }
        }
        let calls = probes.iter().map(|(name, _)| Some(Calls::of(name)?.numbers()));
        let mut probed = calls.collect::<Option<Vec<_>>>()?.concat();
        probed.sort_unstable();
        probed.dedup();
        Some(Self {
            rules,
            probed,
            written,
            probes,
        })
    }
}

/// What a rule matches: the calls as written, sorted, and the conditions in canonical form.
type Key = (Vec<String>, Vec<Json>);

/// A name that policy gives to one or several calls.
pub(crate) enum Calls {
    Group(&'static [u32]),
    One(&'static Syscall),
}

impl Calls {
    fn of(name: &str) -> Option<Self> {
        if name.starts_with('@') {
            syscall::group(name).map(Self::Group)
        } else {
            syscall::by_name(name).map(Self::One)
        }
    }

    /// The numbers on this architecture: none where it lacks the call, which is then denied as unknown.
    pub(crate) fn numbers(&self) -> Vec<u32> {
        match self {
            Self::Group(numbers) => numbers.to_vec(),
            Self::One(call) => call.number().into_iter().collect(),
        }
    }
}

/// The numbers of a call's or group's name on this architecture.
pub(crate) fn numbers_of(name: &str) -> Vec<u32> {
    Calls::of(name).map(|calls| calls.numbers()).unwrap_or_default()
}

struct Builder<'b> {
    abi: Abi,
    scope: &'b ScopeName,
    rules: &'b mut RuleTable,
    seen: BTreeMap<Key, (Effect, Place)>,
    probed: BTreeMap<String, Place>,
    is_full: bool,
}

pub(crate) fn parse(table: &DeTable<'_>, scope: &ScopeName, rules: &mut RuleTable, reader: &mut Reader<'_>) -> Abi {
    reader.known_keys(table, &["allow", "deny", "probe", "rule"]);
    let mut builder = Builder {
        abi: Abi::default(),
        scope,
        rules,
        seen: BTreeMap::new(),
        probed: BTreeMap::new(),
        is_full: false,
    };
    if let Some(value) = table.get("probe") {
        builder.probe(value, reader);
    }
    for effect in [Effect::Allow, Effect::Deny] {
        let Some(value) = table.get(effect_word(effect)) else {
            continue;
        };
        let what = format!("`{}`", effect_word(effect));
        let example = "[\"@basic-io\", \"getrandom\"]";
        for (name, calls, entry) in call_list(value, &what, example, reader) {
            let place = reader.place(entry.span());
            builder.add(vec![(name, calls)], effect, Errno::EPERM, Vec::new(), place, reader);
        }
    }
    if let Some(value) = table.get("rule") {
        let example = "[[domain.NAME.rule]]";
        for entry in reader
            .list(value, "`rule`", example, SYSCALL_RULES_PER_SCOPE_MAX)
            .unwrap_or_default()
        {
            builder.conditional(entry, reader);
        }
    }
    let mut abi = builder.abi;
    abi.probed.sort_unstable();
    abi.probed.dedup();
    abi
}

impl Builder<'_> {
    fn probe(&mut self, value: &Value<'_>, reader: &mut Reader<'_>) {
        for (name, calls, entry) in call_list(value, "`probe`", "[\"clone3\"]", reader) {
            let place = reader.place(entry.span());
            if let Some(first) = self.probed.get(&name) {
                let diagnostic = Diagnostic::new(Code::Duplicate, place, format!("{} is listed twice", quote(&name)))
                    .label("the second time")
                    .related(first.clone(), "the first time")
                    .help("keep one of the two");
                reader.report.push(diagnostic);
                continue;
            }
            self.probed.insert(name.clone(), place.clone());
            self.abi.probed.extend(calls.numbers());
            let says = Json::object([("probe", Json::text(name.as_str()))]);
            let rule = self
                .rules
                .add(RuleKind::Abi, &self.scope.canonical(), &says, place, reader.report);
            self.abi.probes.push((name, rule));
        }
    }

    /// `[[domain.NAME.rule]]`
    fn conditional(&mut self, entry: &Value<'_>, reader: &mut Reader<'_>) {
        let example = "{ syscall = \"ioctl\", effect = \"deny\", when = [{ arg = 1, equal = \"TIOCSTI\" }] }";
        let Some(table) = reader.table(entry, "a rule", example) else {
            return;
        };
        reader.known_keys(table, &["syscall", "effect", "errno", "when"]);
        let (Some(names), Some(effect_value)) = (table.get("syscall"), table.get("effect")) else {
            let missing = if table.get("syscall").is_none() {
                "syscall"
            } else {
                "effect"
            };
            reader.error_help(
                Code::MissingKey,
                entry.span(),
                format!("a rule lacks `{missing}`"),
                format!("write it like {example}"),
            );
            return;
        };
        let effect = reader.word(
            effect_value,
            "`effect`",
            &[("allow", Effect::Allow), ("deny", Effect::Deny)],
        );
        let calls = match names.get_ref() {
            DeValue::Array(_) => call_list(names, "`syscall`", "[\"send\", \"sendto\"]", reader),
            _ => call_name(names, "`syscall`", reader).into_iter().collect(),
        };
        if let DeValue::Array(list) = names.get_ref()
            && list.is_empty()
        {
            reader.error_help(
                Code::BadValue,
                names.span(),
                "`syscall` names no call",
                "name one, or take the rule out",
            );
        }
        let errno = match table.get("errno") {
            Some(value) if effect == Some(Effect::Allow) => {
                let help = "take it out, or make the rule a deny";
                reader.error_help(Code::BadValue, value.span(), "an allow rule answers no errno", help);
                None
            }
            Some(value) => errno(value, reader),
            None => Some(Errno::EPERM),
        };
        let known: Vec<&'static Syscall> = calls
            .iter()
            .flat_map(|(_, calls, _)| calls.numbers())
            .filter_map(syscall::by_number)
            .collect();
        let conditions = match table.get("when") {
            Some(value) => conditions::parse(value, &known, reader),
            None => Some(Vec::new()),
        };
        let (Some(effect), Some(errno), Some(conditions)) = (effect, errno, conditions) else {
            return;
        };
        // From the first key to the last value: the header of an array of tables says nothing of the rule.
        let end = table
            .values()
            .map(|value| value.span().end)
            .max()
            .unwrap_or(entry.span().end);
        let place = reader.place(entry.span().start..end.max(entry.span().end));
        let calls = calls.into_iter().map(|(name, calls, _)| (name, calls)).collect();
        self.add(calls, effect, errno, conditions, place, reader);
    }

    /// One rule: one place in the rule table, and as many syscall rules as it has calls.
    fn add(
        &mut self,
        calls: Vec<(String, Calls)>,
        effect: Effect,
        errno: Errno,
        conditions: Vec<conditions::Written>,
        place: Place,
        reader: &mut Reader<'_>,
    ) {
        if calls.is_empty() || self.is_full || self.rules.is_full() {
            return;
        }
        let mut when: Vec<Json> = conditions.iter().map(conditions::Written::canonical).collect();
        when.sort();
        when.dedup();
        for (name, _) in &calls {
            let key = (vec![name.clone()], when.clone());
            if let Some((earlier, first)) = self.seen.get(&key) {
                reader.report.push(again(*earlier, effect, place, first.clone()));
                return;
            }
            if let (Effect::Allow, Some(first)) = (effect, self.probed.get(name)) {
                let message = format!(
                    "{} is allowed, and answered as if the kernel did not have it",
                    quote(name)
                );
                let diagnostic = Diagnostic::new(Code::Contradiction, place, message)
                    .label("allowed here")
                    .related(first.clone(), "probed here")
                    .help("keep one of the two");
                reader.report.push(diagnostic);
                return;
            }
        }
        for (name, _) in &calls {
            self.seen
                .insert((vec![name.clone()], when.clone()), (effect, place.clone()));
        }
        let mut numbers: Vec<u32> = calls.iter().flat_map(|(_, calls)| calls.numbers()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let mut written = WrittenRule {
            calls: calls.into_iter().map(|(name, _)| name).collect(),
            effect,
            errno,
            when: conditions,
            rule: RuleRef(u32::MAX),
        };
        written.rule = self.rules.add(
            RuleKind::Abi,
            &self.scope.canonical(),
            &written.canonical(),
            place.clone(),
            reader.report,
        );
        if self.abi.rules.len().saturating_add(numbers.len()) > SYSCALL_RULES_PER_SCOPE_MAX {
            self.is_full = true;
            reader.error_help(
                Code::TooManyEntries,
                place.span.start..place.span.end,
                format!("more than {SYSCALL_RULES_PER_SCOPE_MAX} syscall rules, each call of a group counted"),
                "name each call in as few rules as possible",
            );
            return;
        }
        written.spread(&numbers, &mut self.abi.rules);
        self.abi.written.push(written);
    }
}

fn of(written: &[conditions::Written], number: u32) -> Vec<Condition> {
    let mut out: Vec<Condition> = written.iter().map(|condition| condition.of_call(number)).collect();
    out.sort();
    out.dedup();
    out
}

/// The rule references of a scope's rules, moved to where its tree's rules begin.
pub(crate) fn shifted(rules: &[SyscallRule], shift: impl Fn(RuleRef) -> RuleRef) -> impl Iterator<Item = SyscallRule> {
    rules.iter().map(move |rule| SyscallRule {
        rule: shift(rule.rule),
        ..rule.clone()
    })
}

fn call_list<'v, 't>(
    value: &'v Value<'t>,
    what: &str,
    example: &str,
    reader: &mut Reader<'_>,
) -> Vec<(String, Calls, &'v Value<'t>)> {
    let entries = reader
        .list(value, what, example, SYSCALL_RULES_PER_SCOPE_MAX)
        .unwrap_or_default();
    entries
        .iter()
        .filter_map(|entry| call_name(entry, &format!("an entry of {what}"), reader))
        .collect()
}

fn call_name<'v, 't>(
    value: &'v Value<'t>,
    what: &str,
    reader: &mut Reader<'_>,
) -> Option<(String, Calls, &'v Value<'t>)> {
    let name = reader.string(value, what, "\"read\" or \"@basic-io\"")?;
    if name.starts_with('@') {
        if let Some(numbers) = syscall::group(name) {
            return Some((name.to_owned(), Calls::Group(numbers), value));
        }
        if !reader.report.has_room() {
            return None;
        }
        let near = nearest(name, syscall::groups().map(|group| group.name));
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                let known = syscall::groups().map(|group| group.name).collect::<Vec<_>>().join(", ");
                format!("known groups: {known}")
            }
        };
        let message = format!("{} is no group of syscalls", quote(name));
        reader.error_help(Code::UnknownGroup, value.span(), message, help);
        return None;
    }
    if let Some(call) = syscall::by_name(name) {
        return Some((name.to_owned(), Calls::One(call), value));
    }
    if !reader.report.has_room() {
        return None;
    }
    let help = match nearest(name, syscall::all().map(Syscall::name)) {
        Some(near) => format!("did you mean `{near}`?"),
        None if syscall::group(&format!("@{name}")).is_some() => format!("groups begin with `@`: write `@{name}`"),
        None => "write the name as its manual page has it; `man 2 syscalls` lists them".to_owned(),
    };
    let message = format!("{} is no syscall", quote(name));
    reader.error_help(Code::UnknownSyscall, value.span(), message, help);
    None
}

fn errno(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Errno> {
    let found = match value.get_ref() {
        DeValue::String(name) => Errno::from_name(name),
        DeValue::Integer(integer) => integer_value(integer)
            .and_then(|raw| u16::try_from(raw).ok())
            .and_then(Errno::from_raw),
        _ => None,
    };
    if found.is_none() {
        let shown = quote(reader.text.get(value.span()).unwrap_or_default());
        reader.error_help(
            Code::BadValue,
            value.span(),
            format!("{shown} is no errno"),
            "write a name such as \"EPERM\", or a number from 1 to 4095",
        );
    }
    found
}
