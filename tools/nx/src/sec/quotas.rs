//! `nx sec quotas`

use super::about::{About, Shown, show_with};
use super::output::{Paint, Said, places};
use super::view::{Of, field, items};
use crate::registry::Live;
use crate::run::{Failure, plain};
use execd::{Enforcement, SysV, cgroup};
use nexus_abi::Area;
use nexus_policy::{IpcLimit, Limit};
use nexus_wire::session::Question;
use nexus_wire::vfs::{AreaUsage, WorkUsage};
use serde_json::{Value, json};
use std::fmt::Write;
use vfsd::VfsdUsage;

pub(super) fn quotas(about: &About, as_json: bool) -> Result<Said, Failure> {
    let (usage, silent) = look(&about.subject)?;
    show_with(about, Question::Quotas, as_json, &[("usage", usage.clone())], |shown| {
        // Somebody was asked and did not say: what is known is shown, and is not all.
        shown.silent = silent || (!shown.lives.is_empty() && nobody_keeps(&usage));
        let counted = counted(shown);
        let text = text(shown, &usage, &counted, Paint::of_stdout());
        shown.source_json = (!counted.is_empty()).then(|| json!({"sessions": counted}));
        text
    })
}

/// What of a session's own limits is used, by the kernel's counters of the session's cgroup: nothing else counts it whole.
fn counted(shown: &Shown) -> Vec<Value> {
    let one = |live: &Live| {
        let session = &live.facts.session;
        match cgroup::usage(live.facts.init.pid, session) {
            Ok(usage) => json!({
                "session": session, "source": "cgroup", "cgroup": usage.path.to_string_lossy(),
                "why": usage.memory_bytes.as_ref().err().or(usage.processes.as_ref().err()),
                "memory_bytes": usage.memory_bytes.ok(), "processes": usage.processes.ok(),
            }),
            Err(why) => json!({
                "session": session, "source": "unsupported", "cgroup": Value::Null, "why": why,
                "memory_bytes": Value::Null, "processes": Value::Null,
            }),
        }
    };
    shown.lives.iter().map(one).collect()
}

/// The same in words.
fn counted_text(counted: &[Value]) -> String {
    let mut out = String::new();
    for one in counted {
        let session = plain(&field(one, "session"));
        if field(one, "source") != "cgroup" {
            let _ = writeln!(
                out,
                "  used by {session}: unsupported: memory and processes are counted together by a cgroup of the session's own alone: {}",
                plain(&field(one, "why"))
            );
            continue;
        }
        for (name, what) in [
            ("memory_bytes", "bytes of memory"),
            ("processes", "processes and threads"),
        ] {
            if let Some(value) = one.get(name).and_then(Value::as_u64) {
                let _ = writeln!(out, "  used by {session}: {value} {what}");
            }
        }
        if let Some(why) = one.get("why").and_then(Value::as_str) {
            let _ = writeln!(out, "  used by {session}: unsupported: {}", plain(why));
        }
        let _ = writeln!(
            out,
            "    by the kernel's counters of its cgroup {}, now",
            plain(&field(one, "cgroup"))
        );
    }
    let of = if counted.is_empty() { "" } else { " of the rest" };
    let _ = writeln!(
        out,
        "  used{of}: unsupported: what a session's own namespaces hold, only its own kernel objects count"
    );
    out
}

/// Whether no file server was found; where a session runs there is one, and its socket is gone, or it ended meanwhile.
fn nobody_keeps(usage: &Value) -> bool {
    usage.get("areas").is_none_or(Value::is_null)
}

const NO_SERVER: &str =
    "no file server of the subject runs: nobody keeps its ledger now, and the next session measures what is there";

/// What is used, by the ledger that judges: the file server's, which all sessions of the subject share; and whether one runs
/// that does not say.
fn look(subject: &str) -> Result<(Value, bool), Failure> {
    let places = places()?;
    Ok(match vfsd::look(&places.state, &places.runtime, subject) {
        Ok(Some(usage)) => (
            json!({"source": "ledger", "why": Value::Null, "areas": areas(&usage)}),
            false,
        ),
        Ok(None) => (
            json!({
                "source": "unsupported",
                "why": NO_SERVER,
                "areas": Value::Null,
            }),
            false,
        ),
        Err(error) => (
            json!({
                "source": "unsupported",
                "why": format!("the subject's file server does not say within {} s: {error}", vfsd::LOOK_WAIT.as_secs()),
                "areas": Value::Null,
            }),
            true,
        ),
    })
}

pub(super) fn areas(usage: &VfsdUsage) -> Value {
    let area = |name: &str, usage: &AreaUsage| {
        json!({
            "area": name, "used_bytes": usage.used_bytes, "used_inodes": usage.used_inodes,
            "hard_bytes": usage.budget.hard_bytes, "hard_inodes": usage.budget.hard_inodes,
            "soft_bytes": usage.budget.soft_bytes,
        })
    };
    let work = |usage: &WorkUsage| {
        json!({
            "area": "work",
            "used_bytes": usage.used_bytes.saturating_sub(usage.start_bytes),
            "used_inodes": usage.used_inodes.saturating_sub(usage.start_inodes),
            "hard_bytes": usage.budget.hard_bytes, "hard_inodes": usage.budget.hard_inodes,
            "soft_bytes": usage.budget.soft_bytes,
        })
    };
    let mut out = vec![area("tmp", &usage.tmp), area("state", &usage.state)];
    out.extend(usage.work.as_ref().map(work));
    Value::Array(out)
}

/// The budgets as policy gives them, and what holds each.
pub(super) fn value(of: &Of<'_>) -> Value {
    let budgets = &of.rules.budgets;
    let areas: Vec<Value> = Area::ALL
        .into_iter()
        .filter_map(|area| Some((area, budgets.get(area)?)))
        .map(|(area, given)| {
            let rule = |rule: Option<_>| rule.map(|rule| of.rule(rule));
            json!({
                "area": area.as_str(),
                "soft_bytes": given.budget.soft_bytes, "hard_bytes": given.budget.hard_bytes,
                "hard_inodes": given.budget.hard_inodes,
                "soft_rule": rule(given.soft_rule), "hard_rule": rule(given.hard_rule), "inodes_rule": rule(given.inodes_rule),
                "by": "the subject's file server, of all its sessions together",
            })
        })
        .collect();
    let no_sysv = of.live.is_some_and(|live| live.plan.ipc.sysv == SysV::Denied);
    let ipc: Vec<Value> = IpcLimit::ALL
        .into_iter()
        .map(|which| {
            let given = budgets.ipc.get(which);
            let sysv = !matches!(which, IpcLimit::Mqueue | IpcLimit::Memfd);
            let by = match which {
                IpcLimit::Mqueue => "RLIMIT_MSGQUEUE in the session's user namespace",
                IpcLimit::Memfd => "a tmpfs of that size of the session's own",
                _ if no_sysv => "denied whatever policy gives: this kernel lets nobody bound it",
                _ => "the limits of the session's IPC namespace",
            };
            json!({
                "what": which.as_str(),
                "limit": if sysv && no_sysv { 0 } else { given.map_or(0, |limit| limit.value) },
                "rule": given.map(|limit| of.rule(limit.rule)),
                "by": by,
            })
        })
        .collect();
    let limits = &of.rules.limits;
    let limit = |name: &str, limit: Option<Limit>| {
        let limit = limit?;
        let held = of.live.and_then(|live| {
            let held = live.plan.limits.each().find(|(known, _)| *known == name)?.1;
            Some(match &held.enforcement {
                Enforcement::Enforced { backend } => json!({"by": backend.to_string(), "why_not": Value::Null}),
                Enforcement::Unsupported { why } => json!({"by": Value::Null, "why_not": why}),
            })
        });
        Some(json!({"what": name, "limit": limit.value, "rule": of.rule(limit.rule), "held": held}))
    };
    let limits: Vec<Value> = [
        limit("memory", limits.memory_bytes),
        limit("open_files", limits.open_files),
        limit("processes", limits.processes),
    ]
    .into_iter()
    .flatten()
    .collect();
    json!({
        "subject": of.rules.name,
        "policy": of.policy.version().to_string(),
        "areas": areas,
        "ipc": ipc,
        "limits": limits,
    })
}

fn at(value: &Value, name: &str) -> String {
    value.get(name).map(|rule| field(rule, "at")).unwrap_or_default()
}

fn text(shown: &Shown, usage: &Value, counted: &[Value], paint: Paint) -> String {
    let Some(value) = shown.value() else {
        return String::new();
    };
    let mut out = format!("{}\n", paint.head("budgets"));
    for area in items(value, "areas") {
        let name = field(area, "area");
        if area.get("hard_rule").is_none_or(Value::is_null) {
            let _ = writeln!(out, "  {name:<10} nothing may be written: no budget");
            continue;
        }
        let soft = area
            .get("soft_bytes")
            .and_then(Value::as_u64)
            .map(|soft| format!(", a word at {soft}"));
        let words = format!(
            "{} bytes{}, {} inodes",
            field(area, "hard_bytes"),
            soft.unwrap_or_default(),
            field(area, "hard_inodes")
        );
        let _ = writeln!(out, "  {name:<10} {words:<52} {}", at(area, "hard_rule"));
    }
    let _ = writeln!(out, "{}", paint.head("used"));
    match items(usage, "areas") {
        [] if !shown.lives.is_empty() && field(usage, "why") == NO_SERVER => {
            out.push_str(
                "  unknown: a session runs, so somebody keeps its ledger, and no file server of the subject is found: it ended just \
                 now, or somebody removed its socket\n",
            );
        }
        [] => {
            let _ = writeln!(out, "  unsupported: {}", field(usage, "why"));
        }
        areas => {
            for area in areas {
                let _ = writeln!(
                    out,
                    "  {:<10} {} of {} bytes, {} of {} inodes",
                    field(area, "area"),
                    field(area, "used_bytes"),
                    field(area, "hard_bytes"),
                    field(area, "used_inodes"),
                    field(area, "hard_inodes")
                );
            }
            out.push_str("  by the ledger of the subject's file server, now\n");
        }
    }
    let _ = writeln!(out, "{}", paint.head("each session's own"));
    for one in items(value, "ipc") {
        let words = format!(
            "{:<10} {:<12} {}",
            field(one, "what"),
            field(one, "limit"),
            field(one, "by")
        );
        let _ = writeln!(out, "  {words:<63} {}", at(one, "rule"));
    }
    for one in items(value, "limits") {
        let held = match one.get("held") {
            Some(held) if held.is_object() => match field(held, "by") {
                by if by.is_empty() => format!("unsupported: {}", field(held, "why_not")),
                by => by,
            },
            _ => "what would hold is known once a session runs".to_owned(),
        };
        let words = format!(
            "{:<10} {:<12} {}",
            field(one, "what"),
            field(one, "limit"),
            plain(&held)
        );
        let _ = writeln!(out, "  {words:<63} {}", at(one, "rule"));
    }
    out.push_str(&counted_text(counted));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_cgroup_counts_is_named_as_the_kernels_and_what_it_does_not_count_says_why() {
        let counted = [
            json!({"session": "aa", "source": "cgroup", "cgroup": "/sys/fs/cgroup/nx-aa", "why": null, "memory_bytes": 8192, "processes": 3}),
            json!({"session": "bb", "source": "unsupported", "cgroup": null, "why": "the session has no cgroup of its own here", "memory_bytes": null, "processes": null}),
            json!({"session": "cc", "source": "cgroup", "cgroup": "/sys/fs/cgroup/nx-cc", "why": "`pids.current` holds no number", "memory_bytes": 1, "processes": null}),
        ];
        let text = counted_text(&counted);
        for line in [
            "used by aa: 8192 bytes of memory\n",
            "used by aa: 3 processes and threads\n",
            "by the kernel's counters of its cgroup /sys/fs/cgroup/nx-aa, now\n",
            "used by bb: unsupported: memory and processes are counted together by a cgroup of the session's own alone: the session has no cgroup of its own here\n",
            "used by cc: 1 bytes of memory\n",
            "used by cc: unsupported: `pids.current` holds no number\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
