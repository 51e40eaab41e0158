//! The shapes of `--json`: docs/security/policy-as-code.md says what they promise.

use super::{Refusal, at};
use crate::run::Failure;
use nexus_abi::{RuleRef, Verdict};
use nexus_policy::{Diagnostic, Diagnostics, Place, Policy};
use policyd::LoadError;
use serde_json::{Value, json};

/// The version of every shape here.
pub(crate) const VERSION: u32 = 1;

pub(crate) fn refusal(refusal: &Refusal, code: u8) -> Value {
    let (message, help, errors, left_out) = match refusal {
        Refusal::Load(LoadError::Invalid { origin, diagnostics }) => (
            format!("policy of {origin} is invalid"),
            None,
            diagnostics
                .items()
                .iter()
                .map(|item| diagnostic(item, diagnostics))
                .collect(),
            diagnostics.left_out(),
        ),
        Refusal::Load(error) => (error.to_string(), Some(error.help()), Vec::new(), 0),
        Refusal::Other(Failure { message, help, .. }) => (message.clone(), help.clone(), Vec::new(), 0),
    };
    json!({
        "version": VERSION,
        "ok": false,
        "exit": code,
        "message": message,
        "help": help,
        "errors": errors,
        "left_out": left_out,
    })
}

fn diagnostic(item: &Diagnostic, all: &Diagnostics) -> Value {
    let related = item.related.as_ref().map(|related| {
        let mut value = place(&related.place, all);
        if let Value::Object(entries) = &mut value {
            entries.insert("label".to_owned(), related.label.clone().into());
        }
        value
    });
    json!({
        "code": item.code.as_str(),
        "message": item.message,
        "label": item.label,
        "help": item.help,
        "place": place(&item.place, all),
        "related": related,
    })
}

fn place(place: &Place, all: &Diagnostics) -> Value {
    let Some(file) = all.sources().get(place.file) else {
        return Value::Null;
    };
    let (line, column) = file.position(place.span.start);
    let (end_line, end_column) = file.position(place.span.end);
    json!({
        "file": file.path(),
        "line": line,
        "column": column,
        "end_line": end_line,
        "end_column": end_column,
    })
}

/// A rule as others name it.
pub(crate) fn rule(policy: &Policy, rule: RuleRef) -> Value {
    match policy.rule(rule) {
        Some(info) => json!({"id": info.id.to_string(), "at": info.at, "text": info.text}),
        None => json!({"id": nexus_abi_policy::floor_rule_name(rule), "at": at(policy, rule), "text": Value::Null}),
    }
}

pub(crate) fn verdict(policy: &Policy, verdict: Verdict) -> Value {
    match verdict {
        Verdict::Allow { rule: by } => {
            json!({"verdict": "allow", "reason": Value::Null, "errno": Value::Null, "rule": by.map(|by| rule(policy, by))})
        }
        Verdict::Deny {
            reason,
            errno,
            rule: by,
        } => json!({
            "verdict": "deny",
            "reason": reason.as_str(),
            "errno": errno.to_string(),
            "rule": by.map(|by| rule(policy, by)),
        }),
    }
}
