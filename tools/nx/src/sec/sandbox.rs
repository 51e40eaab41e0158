//! `nx sec sandbox`

use super::about::{About, Shown, show};
use super::output::{Paint, Said};
use super::view::{InForce, Of, field, items};
use crate::run::{Failure, describe_entry};
use execd::{Access, AreaMount, Entry, Fence};
use nexus_wire::session::Question;
use serde_json::{Value, json};
use std::fmt::Write;

pub(super) fn sandbox(about: &About, as_json: bool) -> Result<Said, Failure> {
    show(about, Question::Sandbox, as_json, |shown| {
        text(shown, Paint::of_stdout())
    })
}

/// What the program sees and what holds it there; where nothing runs, what policy says of it.
pub(super) fn value(of: &Of<'_>) -> Value {
    let rules = of.rules;
    let configured: Vec<Value> = rules
        .view(Some("/~"))
        .into_iter()
        .map(|path| {
            let shown = path.path.strip_prefix("/~/").map(|rest| format!("~/{rest}"));
            json!({"path": shown.unwrap_or(path.path), "optional": path.optional, "rule": of.rule(path.rule)})
        })
        .collect();
    let devices: Vec<&str> = rules.dev.iter().map(|device| device.as_str()).collect();
    json!({
        "subject": rules.name,
        "policy": of.policy.version().to_string(),
        "profile": rules.profile_name,
        "domain": rules.domain,
        "configured": {"read_only": configured, "work": rules.work.to_string(), "devices": devices},
        "view": of.live.map(|live| live.plan.view.iter().map(entry).collect::<Vec<_>>()),
        "sockets": of.live.map(sockets),
        "fences": of.live.map(fences),
        "open": of.live.map(|live| open(of, live)),
    })
}

/// A part of the view, and by what it is what it is.
fn entry(entry: &Entry) -> Value {
    let by = match entry {
        Entry::Area { .. } | Entry::PinArea { .. } => "file server",
        Entry::Copy { .. } | Entry::File { .. } | Entry::Link { .. } | Entry::Directory { .. } => "read-only root",
        Entry::Bind { .. } | Entry::Pin { .. } | Entry::Hide { .. } | Entry::Device { .. } => "mount",
        Entry::Terminals | Entry::Processes => "own namespace",
    };
    json!({"path": entry.at().to_string_lossy(), "what": describe_entry(entry), "by": by})
}

/// Which sockets of other programs on this machine it can reach.
fn sockets(live: InForce<'_>) -> Value {
    let areas: Vec<String> = live
        .plan
        .view
        .iter()
        .filter(|entry| matches!(entry, Entry::Area { .. }))
        .map(|entry| entry.at().to_string_lossy().into_owned())
        .collect();
    json!([
        {
            "what": "Unix sockets by path", "reach": areas,
            "how": "only those that lie in the subject's own areas; every connect and bind is judged, and carried out from inside",
        },
        {
            "what": "Unix sockets by abstract name", "reach": ["the session's own"],
            "how": "they end at its network namespace",
        },
        {
            "what": "System V IPC and POSIX queues", "reach": ["the session's own"],
            "how": "an IPC namespace of its own",
        },
        {
            "what": "signals and ptrace", "reach": ["the session's own processes"],
            "how": "a pid namespace of its own; ptrace is denied by the filter where policy does not allow it",
        },
    ])
}

fn fences(live: InForce<'_>) -> Value {
    let landlock = match live.plan.fence {
        Fence::Missing => json!({"what": "Landlock", "by": Value::Null, "why_not": "this kernel does not have it"}),
        fence => json!({"what": "Landlock", "by": fence.as_str(), "why_not": Value::Null}),
    };
    json!([
        {"what": "view", "by": "a mount namespace that holds these paths and nothing else; set-id programs give nothing", "why_not": Value::Null},
        landlock,
        {"what": "areas", "by": "the subject's file server (FUSE): the ledger is charged before a file grows", "why_not": Value::Null},
        {"what": "privileges", "by": "no capabilities, no_new_privs, a user namespace of its own", "why_not": Value::Null},
    ])
}

/// What is neither metered nor confined. What holds for every session stands last.
fn open(of: &Of<'_>, live: InForce<'_>) -> Vec<String> {
    let plan = live.plan;
    let mut out = Vec::new();
    for entry in &plan.view {
        if let Entry::Bind {
            at,
            access: Access::ReadWrite,
            ..
        } = entry
        {
            out.push(format!(
                "`{}` may be written, and nobody counts how much (unmetered)",
                at.display()
            ));
        }
    }
    if plan.view.iter().any(|entry| {
        matches!(
            entry,
            Entry::Area {
                area: AreaMount::Work,
                ..
            }
        )
    }) {
        out.push("of the work directory only growth is metered: what is there may be changed or removed".to_owned());
    }
    let fds = of.rules.fds;
    for (what, given) in [
        ("sockets", fds.allow_sockets),
        ("directories", fds.allow_directories),
        ("devices", fds.allow_devices),
    ] {
        if given {
            out.push(format!(
                "{what} that are handed in on descriptors 0 to 2 lead outside the view"
            ));
        }
    }
    if plan.fence == Fence::Missing {
        out.push("there is no second fence behind the view: this kernel has no Landlock".to_owned());
    }
    if !plan.limits.each().any(|(name, _)| name == "memory") {
        out.push("memory has no limit".to_owned());
    } else if plan.limits.place().is_none() {
        out.push("the memory limit is each process's own and not that of all together: no cgroup holds it".to_owned());
    }
    out.extend(
        [
            "what standard input, output and error lead to: your terminal, files and pipes, as you handed them over",
            "what an allowed connection carries, and how much",
            "processor time, and time itself",
            "what the view shows may be read, and sent wherever an egress rule leads",
            "what the kernel tells of the host in /proc: its processors, memory and load",
        ]
        .map(str::to_owned),
    );
    out
}

fn text(shown: &Shown, paint: Paint) -> String {
    let Some(value) = shown.value() else {
        return String::new();
    };
    let mut out = format!("profile      {}\n", field(value, "profile"));
    if value.get("view").is_none_or(Value::is_null) {
        let configured = value.get("configured").unwrap_or(&Value::Null);
        let _ = writeln!(out, "{}", paint.head("policy would show"));
        for path in items(configured, "read_only") {
            let optional = if path.get("optional") == Some(&Value::Bool(true)) {
                ", where it is there"
            } else {
                ""
            };
            let at = path.get("rule").map(|rule| field(rule, "at")).unwrap_or_default();
            let words = format!("{} read-only{optional}", field(path, "path"));
            let _ = writeln!(out, "  {words:<58} {at}");
        }
        let _ = writeln!(out, "  work {}", field(configured, "work"));
        return out;
    }
    let _ = writeln!(out, "{}", paint.head("paths"));
    for entry in items(value, "view") {
        let _ = writeln!(
            out,
            "  {:<40} {:<40} {}",
            field(entry, "path"),
            field(entry, "what"),
            field(entry, "by")
        );
    }
    let _ = writeln!(out, "{}", paint.head("sockets and other programs"));
    for one in items(value, "sockets") {
        let reach: Vec<String> = items(one, "reach")
            .iter()
            .filter_map(Value::as_str)
            .map(crate::run::plain)
            .collect();
        let _ = writeln!(out, "  {}: {}", field(one, "what"), reach.join(" "));
        let _ = writeln!(out, "    {}", field(one, "how"));
    }
    let _ = writeln!(out, "{}", paint.head("held by"));
    for one in items(value, "fences") {
        let by = match field(one, "by") {
            by if by.is_empty() => paint.bad(&format!("unsupported: {}", field(one, "why_not"))),
            by => by,
        };
        let _ = writeln!(out, "  {:<11} {by}", field(one, "what"));
    }
    let _ = writeln!(out, "{}", paint.head("not metered or confined"));
    for one in items(value, "open").iter().filter_map(Value::as_str) {
        let _ = writeln!(out, "  {}", crate::run::plain(one));
    }
    out
}
