//! `nx policy diff`

use super::args::{DiffArgs, FailOn};
use super::json::VERSION;
use super::{Result, Said, has_colour, plain, tree};
use crate::run::{Exit, Failure};
use nexus_net_egress::{PortRange, prefixes};
use nexus_policy::{Change, Diff, SubjectDiff};
use serde_json::{Value, json};
use std::fmt::Write;

pub(crate) fn diff(args: &DiffArgs) -> Result<Said> {
    let (before, after) = (tree(&args.before)?, tree(&args.after)?);
    let diff = before.diff(&after).map_err(|error| {
        let help = "say it in fewer rules; nothing is compared by halves";
        Failure::unsupported(error.to_string(), help)
    })?;
    let fails = match args.fail_on {
        FailOn::Any => !diff.is_empty(),
        FailOn::Wider => diff.is_wider(),
    };
    let versions = (before.version().to_string(), after.version().to_string());
    let text = if args.json {
        format!("{}\n", to_json(&diff, &versions))
    } else {
        to_text(&diff, has_colour())
    };
    let code = if fails { Exit::Rejected.code() } else { 0 };
    Ok(Said { text, code })
}

fn to_text(diff: &Diff, colour: bool) -> String {
    let mut out = String::new();
    if diff.is_empty() {
        return "the two mean the same\n".to_owned();
    }
    for (name, subject) in &diff.subjects {
        let _ = writeln!(out, "subject {name}");
        let SubjectDiff { wider, narrower, other } = subject;
        for (sign, paint, changes) in [("+", "31", wider), ("-", "32", narrower), ("~", "33", other)] {
            for change in changes {
                let text = plain(&change.to_string());
                if colour {
                    let _ = writeln!(out, "  \u{1b}[{paint}m{sign} {text}\u{1b}[0m");
                } else {
                    let _ = writeln!(out, "  {sign} {text}");
                }
            }
        }
    }
    let count = |which: fn(&SubjectDiff) -> usize| diff.subjects.values().map(which).sum::<usize>();
    let (wider, narrower) = (
        count(|subject| subject.wider.len()),
        count(|subject| subject.narrower.len()),
    );
    let other = count(|subject| subject.other.len());
    let _ = writeln!(
        out,
        "{wider} became possible (+), {narrower} no longer are (-), {other} are neither (~)"
    );
    out
}

fn to_json(diff: &Diff, (before, after): &(String, String)) -> Value {
    let subjects: serde_json::Map<String, Value> = diff
        .subjects
        .iter()
        .map(|(name, subject)| {
            let side = |changes: &[Change]| changes.iter().map(change).collect::<Vec<_>>();
            let value = json!({
                "wider": side(&subject.wider),
                "narrower": side(&subject.narrower),
                "other": side(&subject.other),
            });
            (name.clone(), value)
        })
        .collect();
    json!({
        "version": VERSION,
        "ok": true,
        "before": before,
        "after": after,
        "same": diff.is_empty(),
        "wider": diff.is_wider(),
        "subjects": subjects,
    })
}

fn ports(ports: &[PortRange]) -> Vec<[u16; 2]> {
    ports.iter().map(|range| [range.first(), range.last()]).collect()
}

fn change(change: &Change) -> Value {
    let mut value = match change {
        Change::Subject => json!({"kind": "subject"}),
        Change::Egress {
            place,
            protocol,
            first,
            last,
            ports: list,
        } => json!({
            "kind": "egress",
            "where": place.as_str(),
            "protocol": protocol.as_str(),
            "first": first.to_string(),
            "last": last.to_string(),
            "prefixes": prefixes(*first, *last).iter().map(ToString::to_string).collect::<Vec<_>>(),
            "ports": ports(list),
        }),
        Change::Name {
            protocol,
            name,
            except,
            ports: list,
        } => json!({
            "kind": "name",
            "protocol": protocol.as_str(),
            "name": name,
            "except": except,
            "ports": ports(list),
        }),
        Change::Calls { names } => json!({"kind": "calls", "names": names}),
        Change::Arguments {
            names,
            patterns,
            is_cut,
        } => json!({"kind": "arguments", "names": names, "patterns": patterns, "cut": is_cut}),
        Change::Errno { names, before, after } => {
            json!({"kind": "errno", "names": names, "before": before, "after": after})
        }
        Change::Budget {
            area,
            key,
            before,
            after,
        } => json!({"kind": "budget", "area": area.as_str(), "key": key, "before": before, "after": after}),
        Change::Path { path, except } => json!({"kind": "path", "path": path, "except": except}),
        Change::Variable { name } => json!({"kind": "variable", "name": name}),
        Change::Setting { key, before, after } => {
            json!({"kind": "setting", "key": key, "before": before, "after": after})
        }
    };
    if let Value::Object(entries) = &mut value {
        entries.insert("text".to_owned(), change.to_string().into());
    }
    value
}
