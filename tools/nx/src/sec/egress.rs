//! `nx sec egress`

use super::about::{About, Shown, show};
use super::output::{Paint, Said};
use super::view::{Of, field, items};
use crate::policy::show::ports;
use crate::run::Failure;
use nexus_abi::Effect;
use nexus_net_egress::{SPECIAL_BLOCKS, SpecialBlock, SpecialKind};
use nexus_wire::session::Question;
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::Instant;

pub(super) fn egress(about: &About, as_json: bool) -> Result<Said, Failure> {
    show(about, Question::Egress, as_json, |shown| {
        text(shown, Paint::of_stdout())
    })
}

/// The rules, what only a rule that names it opens, and the names that are open now.
pub(super) fn value(of: &Of<'_>) -> Value {
    let effect = |effect: Effect| if effect == Effect::Allow { "allow" } else { "deny" };
    let mut rules = Vec::new();
    let mut special = Vec::new();
    for (layer, place) in of.rules.egress.iter().zip(0_u32..) {
        for rule in &layer.rules {
            let to = rule.cidr.to_string();
            rules.push(json!({
                "layer": place, "kind": "address", "effect": effect(rule.effect), "protocol": rule.protocol.as_str(),
                "to": to, "ports": ports(&rule.ports), "rule": of.rule(rule.rule),
            }));
            if let Some(block) = names_special(rule.cidr.address(), rule.cidr.prefix()) {
                special.push(json!({"kind": kind(block.kind), "effect": effect(rule.effect), "to": to, "rule": of.rule(rule.rule)}));
            }
        }
        for rule in &layer.names {
            rules.push(json!({
                "layer": place, "kind": "name", "effect": effect(rule.effect), "protocol": rule.protocol.as_str(),
                "to": rule.pattern.to_string(), "ports": ports(&rule.ports), "rule": of.rule(rule.rule),
            }));
        }
        for rule in &layer.binds {
            rules.push(json!({
                "layer": place, "kind": "bind", "effect": "allow", "protocol": rule.protocol.as_str(),
                "to": "the host's port", "ports": ports(&rule.ports), "rule": of.rule(rule.rule),
            }));
        }
        rules.push(json!({
            "layer": place, "kind": "lack", "effect": "deny", "protocol": Value::Null, "to": "everything else",
            "ports": Value::Null, "rule": of.rule(layer.no_rule),
        }));
    }
    let blocks: Vec<Value> = SPECIAL_BLOCKS
        .iter()
        .map(|block| json!({"block": format!("{}/{}", block.address, block.prefix), "kind": kind(block.kind)}))
        .collect();
    let names = of.live.and_then(|live| live.names).map(|names| {
        let open = names.list(Instant::now());
        open.iter()
            .map(|one| json!({"name": one.name, "address": one.address.to_string(), "left_s": one.left_s}))
            .collect::<Vec<_>>()
    });
    json!({
        "subject": of.rules.name,
        "policy": of.policy.version().to_string(),
        "rules": rules,
        "errno": "EPERM",
        "special": special,
        "special_blocks": blocks,
        "open_names": names,
    })
}

/// The special block that a rule names: only one whose prefix lies inside does.
fn names_special(address: std::net::IpAddr, prefix: u8) -> Option<&'static SpecialBlock> {
    nexus_net_egress::special_block(address).filter(|block| prefix >= block.prefix)
}

const fn kind(kind: SpecialKind) -> &'static str {
    match kind {
        SpecialKind::Loopback => "the host's loopback",
        SpecialKind::ThisNetwork => "this network",
        SpecialKind::LinkLocal => "link-local, most clouds' metadata among it",
        SpecialKind::CloudMetadata => "cloud metadata",
        SpecialKind::Multicast => "multicast",
        SpecialKind::Broadcast => "broadcast",
        SpecialKind::Reserved => "reserved",
        SpecialKind::Translation => "translated to IPv4",
        SpecialKind::Host => "the host's own addresses",
        _ => "special",
    }
}

fn text(shown: &Shown, paint: Paint) -> String {
    let Some(value) = shown.value() else {
        return String::new();
    };
    let mut out = format!("{}\n", paint.head("rules"));
    let mut line = |text: &str, rule: &Value| {
        let at = rule.get("rule").map(|rule| field(rule, "at")).unwrap_or_default();
        let _ = writeln!(out, "  {text:<58} {at}");
    };
    for rule in items(value, "rules") {
        let words = match field(rule, "kind").as_str() {
            "lack" => format!("deny everything else ({})", field(value, "errno")),
            "bind" => format!(
                "bind {} port {} of the host's, to send from",
                field(rule, "protocol"),
                field(rule, "ports")
            ),
            _ => format!(
                "{} {} {}:{}",
                field(rule, "effect"),
                field(rule, "protocol"),
                field(rule, "to"),
                field(rule, "ports")
            ),
        };
        line(&words, rule);
    }
    let _ = writeln!(
        out,
        "{}",
        paint.head("special addresses, closed but for a rule that names them")
    );
    let opened = items(value, "special");
    for one in opened {
        let at = one.get("rule").map(|rule| field(rule, "at")).unwrap_or_default();
        let words = format!("{} {}: {}", field(one, "effect"), field(one, "to"), field(one, "kind"));
        let _ = writeln!(out, "  {words:<58} {at}");
    }
    if opened.is_empty() {
        out.push_str("  no rule names any\n");
    }
    let _ = writeln!(out, "{}", paint.head("names that are open"));
    match value.get("open_names").and_then(Value::as_array) {
        None => out.push_str("  unsupported: no session answers, and only a session's resolver knows\n"),
        Some(names) if names.is_empty() => out.push_str("  none\n"),
        Some(names) => {
            for one in names {
                let _ = writeln!(
                    out,
                    "  {} is {} for {} s more",
                    field(one, "name"),
                    field(one, "address"),
                    field(one, "left_s")
                );
            }
        }
    }
    out
}
