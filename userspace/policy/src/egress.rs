//! `egress.toml`: `[domain.NAME]` and `[subject.NAME]` with `allow` and `deny`.

use std::collections::BTreeMap;
use std::ops::Range;

use nexus_abi::{Effect, Protocol, RuleRef};
use nexus_net_egress::{
    Cidr, CompileError, EgressRule, EgressTable, ParseErrorKind, PortRange, parse_cidr, parse_ports, parse_target,
};
use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Code, Diagnostic, Place};
use crate::fields::{Reader, Value, integer_value, quote};
use crate::json::Json;
use crate::limits::{EGRESS_RULES_PER_SUBJECT_MAX, PORT_RANGES_PER_RULE_MAX};
use crate::names::{NamePattern, NameRule};
use crate::rules::{RuleKind, RuleTable};
use crate::scope::ScopeName;

/// The rules of one scope.
#[derive(Clone, Debug, Default)]
pub(crate) struct Egress {
    pub(crate) rules: Vec<EgressRule>,
    pub(crate) names: Vec<NameRule>,
    pub(crate) binds: Vec<BindRule>,
}

/// Ports that a program may take on the host to send from. Ephemeral ones need no rule; nothing ever listens there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindRule {
    /// Over which protocol.
    pub protocol: Protocol,
    /// Which ports; sorted, not overlapping, not adjacent, not empty.
    pub ports: Vec<PortRange>,
    /// The rule's place in the policy's table.
    pub rule: RuleRef,
}

const BIND_EXAMPLE: &str = "\"udp 5353\", \"tcp 20000-20010\"";

const EXAMPLE: &str =
    "\"203.0.113.0/24:443\", \"udp 203.0.113.7:53\" or { to = \"203.0.113.7\", protocol = \"udp\", ports = [53] }";

/// To what a rule speaks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Prefix(Cidr),
    Name(NamePattern),
}

type Key = (Protocol, Target, Vec<PortRange>);

impl Egress {
    pub(crate) fn canonical(&self) -> Json {
        let mut says: Vec<Json> = self
            .rules
            .iter()
            .map(|rule| canonical(rule.effect, rule.protocol, &rule.cidr.to_string(), &rule.ports))
            .chain(
                self.names
                    .iter()
                    .map(|rule| canonical(rule.effect, rule.protocol, &rule.pattern.to_string(), &rule.ports)),
            )
            .chain(self.binds.iter().map(|rule| canonical_bind(rule.protocol, &rule.ports)))
            .collect();
        says.sort();
        Json::Array(says)
    }
}

fn canonical(effect: Effect, protocol: Protocol, to: &str, ports: &[PortRange]) -> Json {
    Json::object([
        ("effect", Json::text(effect_word(effect))),
        ("protocol", Json::text(protocol.as_str())),
        ("to", Json::text(to)),
        ("ports", Json::texts(ports.iter().map(ToString::to_string))),
    ])
}

fn canonical_bind(protocol: Protocol, ports: &[PortRange]) -> Json {
    Json::object([
        ("bind", Json::text(protocol.as_str())),
        ("ports", Json::texts(ports.iter().map(ToString::to_string))),
    ])
}

pub(crate) fn effect_word(effect: Effect) -> &'static str {
    match effect {
        Effect::Allow => "allow",
        Effect::Deny => "deny",
    }
}

pub(crate) fn parse(table: &DeTable<'_>, scope: &ScopeName, rules: &mut RuleTable, reader: &mut Reader<'_>) -> Egress {
    reader.known_keys(table, &["allow", "deny", "bind"]);
    let mut egress = Egress::default();
    let mut seen: BTreeMap<Key, (Effect, Place)> = BTreeMap::new();
    for effect in [Effect::Allow, Effect::Deny] {
        let Some(value) = table.get(effect_word(effect)) else {
            continue;
        };
        let what = format!("`{}`", effect_word(effect));
        let Some(list) = reader.list(value, &what, "[\"203.0.113.0/24:443\"]", EGRESS_RULES_PER_SUBJECT_MAX) else {
            continue;
        };
        for entry in list {
            let Some(key) = entry_key(entry, reader) else { continue };
            let place = reader.place(entry.span());
            if let Some((earlier, first)) = seen.get(&key) {
                reader.report.push(again(*earlier, effect, place, first.clone()));
                continue;
            }
            seen.insert(key.clone(), (effect, place.clone()));
            add(key, effect, place, scope, &mut egress, rules, reader);
            if rules.is_full() {
                return egress;
            }
        }
    }
    binds(table, scope, &mut egress, rules, reader);
    egress
}

fn binds(table: &DeTable<'_>, scope: &ScopeName, egress: &mut Egress, rules: &mut RuleTable, reader: &mut Reader<'_>) {
    let Some(value) = table.get("bind") else { return };
    let Some(list) = reader.list(value, "`bind`", "[\"udp 5353\"]", EGRESS_RULES_PER_SUBJECT_MAX) else {
        return;
    };
    let mut seen: Vec<((Protocol, Vec<PortRange>), Place)> = Vec::new();
    for entry in list {
        let DeValue::String(text) = entry.get_ref() else {
            reader.wrong_type(entry, "ports to bind", &format!("write {BIND_EXAMPLE}"));
            continue;
        };
        let (protocol, ports, skipped) = match text.split_once(' ') {
            Some(("udp", rest)) => (Protocol::Udp, rest, 4),
            Some(("tcp", rest)) => (Protocol::Tcp, rest, 4),
            _ => (Protocol::Tcp, &**text, 0_usize),
        };
        let ports = match parse_ports(ports) {
            Ok(ports) => ports,
            Err(error) => {
                let start = error.offset.saturating_add(skipped);
                let span = reader.inside(entry, text, start..start.saturating_add(error.length));
                parse_error(error, ports, span, reader);
                continue;
            }
        };
        let place = reader.place(entry.span());
        if let Some((_, first)) = seen.iter().find(|(key, _)| *key == (protocol, ports.clone())) {
            reader
                .report
                .push(again(Effect::Allow, Effect::Allow, place, first.clone()));
            continue;
        }
        seen.push(((protocol, ports.clone()), place.clone()));
        let says = canonical_bind(protocol, &ports);
        let rule = rules.add(RuleKind::Bind, &scope.canonical(), &says, place, reader.report);
        egress.binds.push(BindRule { protocol, ports, rule });
        if rules.is_full() {
            return;
        }
    }
}

/// What to say of a second rule with the very same match.
pub(crate) fn again(earlier: Effect, now: Effect, place: Place, first: Place) -> Diagnostic {
    if earlier == now {
        Diagnostic::new(Code::Duplicate, place, format!("this is {} twice", past(now)))
            .label("the second time")
            .related(first, "the first time")
            .help("keep one of the two")
    } else {
        Diagnostic::new(Code::Contradiction, place, "the very same is allowed and denied")
            .label(format!("{} here", past(now)))
            .related(first, format!("{} here", past(earlier)))
            .help("keep the one that is meant; a denied part of something wider that is allowed is no contradiction")
    }
}

fn past(effect: Effect) -> &'static str {
    match effect {
        Effect::Allow => "allowed",
        Effect::Deny => "denied",
    }
}

fn add(
    (protocol, target, ports): Key,
    effect: Effect,
    place: Place,
    scope: &ScopeName,
    egress: &mut Egress,
    rules: &mut RuleTable,
    reader: &mut Reader<'_>,
) {
    match target {
        Target::Prefix(cidr) => {
            let says = canonical(effect, protocol, &cidr.to_string(), &ports);
            let rule = rules.add(
                RuleKind::Egress,
                &scope.canonical(),
                &says,
                place.clone(),
                reader.report,
            );
            let rule = EgressRule {
                effect,
                protocol,
                cidr,
                ports,
                rule,
            };
            if let Some(diagnostic) = useless(&rule, place) {
                reader.report.push(diagnostic);
            } else {
                egress.rules.push(rule);
            }
        }
        Target::Name(pattern) => {
            let says = canonical(effect, protocol, &pattern.to_string(), &ports);
            let rule = rules.add(RuleKind::Name, &scope.canonical(), &says, place, reader.report);
            egress.names.push(NameRule {
                effect,
                protocol,
                pattern,
                ports,
                rule,
            });
        }
    }
}

/// What the matcher would refuse: rules that could match nothing.
fn useless(rule: &EgressRule, place: Place) -> Option<Diagnostic> {
    let error = EgressTable::compile(std::slice::from_ref(rule)).err()?;
    let (message, help) = match error {
        CompileError::Unspecified { cidr, write, .. } => (
            format!("`{cidr}` is judged as loopback, and this would match nothing"),
            format!("write {}", written(&write)),
        ),
        CompileError::Translated { cidr, write, .. } => (
            format!("`{cidr}` is judged as the IPv4 addresses inside, and this would match nothing"),
            format!("write {}", written(&write)),
        ),
        other => (other.to_string(), format!("write {EXAMPLE}")),
    };
    Some(Diagnostic::new(Code::BadAddress, place, message).help(help))
}

/// A prefix as one would write it: a single address without its length.
fn written(cidr: &Cidr) -> String {
    if *cidr == Cidr::host(cidr.address()) {
        match cidr.address() {
            std::net::IpAddr::V4(v4) => format!("`{v4}`"),
            std::net::IpAddr::V6(v6) => format!("`[{v6}]`"),
        }
    } else {
        format!("`{cidr}`")
    }
}

fn entry_key(entry: &Value<'_>, reader: &mut Reader<'_>) -> Option<Key> {
    match entry.get_ref() {
        DeValue::String(text) => text_key(entry, text, reader),
        DeValue::Table(table) => table_key(entry, table, reader),
        _ => {
            reader.wrong_type(entry, "an egress rule", &format!("write {EXAMPLE}"));
            None
        }
    }
}

/// `[tcp |udp ]TARGET:PORTS`
fn text_key(entry: &Value<'_>, text: &str, reader: &mut Reader<'_>) -> Option<Key> {
    let (protocol, target, skipped) = match text.split_once(' ') {
        Some(("tcp", rest)) => (Protocol::Tcp, rest, 4),
        Some(("udp", rest)) => (Protocol::Udp, rest, 4),
        Some((word, _)) if word.bytes().all(|byte| byte.is_ascii_alphabetic()) && !word.is_empty() => {
            let span = reader.inside(entry, text, 0..word.len());
            let message = format!("protocol {} is not known", quote(word));
            reader.error_help(
                Code::BadValue,
                span,
                message,
                "write `tcp` or `udp`, or nothing for tcp",
            );
            return None;
        }
        _ => (Protocol::Tcp, text, 0),
    };
    let place = |part: Range<usize>| part.start.saturating_add(skipped)..part.end.saturating_add(skipped);
    if looks_like_a_name(target) {
        let Some((name, ports)) = target.rsplit_once(':') else {
            let span = reader.inside(entry, text, text.len()..text.len());
            reader.error_help(
                Code::BadPorts,
                span,
                "no ports are given",
                "add the ports, as in \"git.example.org:443\"",
            );
            return None;
        };
        let pattern = match NamePattern::parse(name) {
            Ok(pattern) => pattern,
            Err(help) => {
                let span = reader.inside(entry, text, place(0..name.len()));
                let message = format!("{} is neither an address nor a DNS name", quote(name));
                reader.error_help(Code::BadAddress, span, message, help);
                return None;
            }
        };
        let offset = name.len().saturating_add(1);
        return match parse_ports(ports) {
            Ok(ports) => Some((protocol, Target::Name(pattern), ports)),
            Err(error) => {
                let start = error.offset.saturating_add(offset);
                let span = reader.inside(entry, text, place(start..start.saturating_add(error.length)));
                parse_error(error, ports, span, reader);
                None
            }
        };
    }
    match parse_target(target) {
        Ok((cidr, ports)) => Some((protocol, Target::Prefix(cidr), ports)),
        Err(error) => {
            let part = error.offset..error.offset.saturating_add(error.length);
            let wrong = target.get(part.clone()).unwrap_or(target);
            let span = reader.inside(entry, text, place(part));
            parse_error(error, wrong, span, reader);
            None
        }
    }
}

/// Addresses have `[`, a digit and only digits, dots and a slash before their ports, or several colons.
fn looks_like_a_name(target: &str) -> bool {
    if target.starts_with('[') || target.matches(':').count() > 1 {
        return false;
    }
    let head = target.split(':').next().unwrap_or_default();
    let host = head.split('/').next().unwrap_or_default();
    !host.is_empty() && !host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

fn parse_error(error: nexus_net_egress::ParseError, wrong: &str, span: Range<usize>, reader: &mut Reader<'_>) {
    let (code, help) = match &error.kind {
        ParseErrorKind::Cidr(nexus_net_egress::CidrError::HostBits { network }) => (
            Code::HostBits,
            format!(
                "write {} for the network, or the one address without a prefix",
                written(network)
            ),
        ),
        ParseErrorKind::Port
        | ParseErrorKind::Ports(_)
        | ParseErrorKind::Overlap(_)
        | ParseErrorKind::TooManyRanges
        | ParseErrorKind::Empty { expected: "a port" }
        | ParseErrorKind::NoPorts => (Code::BadPorts, error.help().to_owned()),
        _ => (Code::BadAddress, error.help().to_owned()),
    };
    let message = match &error.kind {
        ParseErrorKind::Address | ParseErrorKind::Port | ParseErrorKind::Prefix => {
            format!("{} is {}", quote(wrong), error.kind)
        }
        kind => kind.to_string(),
    };
    reader.error_help(code, span, message, help);
}

/// `{ to = "203.0.113.7", protocol = "udp", ports = [53, "8000-8100"] }`
fn table_key(entry: &Value<'_>, table: &DeTable<'_>, reader: &mut Reader<'_>) -> Option<Key> {
    reader.known_keys(table, &["to", "protocol", "ports"]);
    let (Some(to), Some(ports)) = (table.get("to"), table.get("ports")) else {
        let missing = if table.get("to").is_none() { "to" } else { "ports" };
        let message = format!("an egress rule lacks `{missing}`");
        reader.error_help(Code::MissingKey, entry.span(), message, format!("write {EXAMPLE}"));
        return None;
    };
    let protocol = match table.get("protocol") {
        Some(value) => reader.word(value, "`protocol`", &[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)]),
        None => Some(Protocol::Tcp),
    };
    let target = reader.string(to, "`to`", "\"203.0.113.0/24\"").and_then(|text| {
        if looks_like_a_name(text) {
            return match NamePattern::parse(text) {
                Ok(pattern) => Some(Target::Name(pattern)),
                Err(help) => {
                    let message = format!("{} is neither an address nor a DNS name", quote(text));
                    reader.error_help(Code::BadAddress, to.span(), message, help);
                    None
                }
            };
        }
        match parse_cidr(text) {
            Ok(cidr) => Some(Target::Prefix(cidr)),
            Err(error) => {
                let part = error.offset..error.offset.saturating_add(error.length);
                let span = reader.inside(to, text, part);
                parse_error(error, text, span, reader);
                None
            }
        }
    });
    let ports = port_list(ports, reader);
    Some((protocol?, target?, ports?))
}

/// `443`, `"8000-8100,443"`, or a list of both.
fn port_list(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Vec<PortRange>> {
    let one = std::slice::from_ref(value);
    let entries = match value.get_ref() {
        DeValue::Array(_) => reader.list(value, "`ports`", "[443, \"8000-8100\"]", PORT_RANGES_PER_RULE_MAX)?,
        _ => one,
    };
    // Joined as text, so that one parser sorts them, joins them and finds overlaps.
    let mut parts: Vec<(String, Range<usize>)> = Vec::new();
    for entry in entries {
        let text = match entry.get_ref() {
            DeValue::Integer(integer) => integer_value(integer).map(|port| port.to_string()).unwrap_or_default(),
            DeValue::String(text) => text.to_string(),
            _ => {
                reader.wrong_type(entry, "a port", "write 443 or \"8000-8100\"");
                return None;
            }
        };
        if let Err(error) = parse_ports(&text) {
            let wrong = text
                .get(error.offset..error.offset.saturating_add(error.length))
                .filter(|wrong| !wrong.is_empty())
                .unwrap_or(&text)
                .to_owned();
            parse_error(error, &wrong, entry.span(), reader);
            return None;
        }
        parts.push((text, entry.span()));
    }
    let joined = parts
        .iter()
        .map(|(text, _)| text.as_str())
        .collect::<Vec<_>>()
        .join(",");
    match parse_ports(&joined) {
        Ok(ports) => Some(ports),
        Err(error) => {
            parse_error(error, &joined, value.span(), reader);
            None
        }
    }
}
