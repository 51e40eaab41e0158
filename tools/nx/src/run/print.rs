//! The plan in words, for `--print-plan`.

use super::session::Session;
use crate::plain::{json_line, plain};
use execd::{Access, AreaMount, Enforcement, Entry, Plan, SysV};
use nexus_policy::IpcLimit;
use serde_json::{Value, json};
use std::fmt::Write;

/// One line more. A `String` takes everything.
macro_rules! line {
    ($out:ident, $($text:tt)*) => {
        let _ = writeln!($out, $($text)*);
    };
}

/// What would be done: as text for reading, or as one JSON object.
pub(crate) fn plan(plan: &Plan, session: &Session, as_json: bool) -> String {
    let value = to_json(plan, session);
    if as_json {
        return format!("{}\n", json_line(&value));
    }
    let mut out = String::new();
    let text = |key: &str| value.get(key).map_or_else(String::new, told);
    line!(out, "subject      {}", session.subject);
    line!(out, "policy       {}", session.version);
    line!(out, "program      {}", text("program"));
    line!(out, "directory    {}", text("directory"));
    line!(
        out,
        "runs as      uid {} gid {}{}",
        plan.identity.uid,
        plan.identity.gid,
        if plan.identity.assumed {
            " (assumed: nx is root)"
        } else {
            ""
        }
    );
    line!(out, "namespaces   user mount pid ipc uts net cgroup");
    line!(
        out,
        "filter       {} instructions, no_new_privs, no capabilities",
        plan.filter.len()
    );
    line!(out, "landlock     {}", plan.fence.as_str());
    line!(out, "limits");
    for (name, limit) in plan.limits.each() {
        line!(out, "  {name:<12} {:<17} {}", limit.value, limit.enforcement);
    }
    if let Some(Err(lack)) = &plan.limits.cgroup {
        line!(out, "  no cgroup of its own: {lack}");
    }
    line!(out, "ipc");
    for (name, value, how) in ipc(plan, session) {
        line!(out, "  {name:<12} {value:<17} {how}");
    }
    line!(out, "view");
    for entry in &plan.view {
        line!(
            out,
            "  {:<32} {}",
            plain(&entry.at().to_string_lossy()),
            describe(entry)
        );
    }
    line!(out, "environment");
    for (name, value) in &plan.environment {
        line!(
            out,
            "  {}={}",
            plain(&name.to_string_lossy()),
            plain(&value.to_string_lossy())
        );
    }
    out
}

fn told(value: &Value) -> String {
    match value {
        Value::String(text) => plain(text),
        Value::Array(items) => items.iter().map(told).collect::<Vec<_>>().join(" "),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| format!("{name} {}", told(value)))
            .collect::<Vec<_>>()
            .join(", "),
        Value::Null => "none".into(),
        other => other.to_string(),
    }
}

/// The `ipc` budget: each limit, what it is, and who holds it, with the place of the rule that gives it.
fn ipc(plan: &Plan, session: &Session) -> Vec<(&'static str, u64, String)> {
    let budget = &session.rules.budgets.ipc;
    let said = IpcLimit::ALL.into_iter().map(|which| {
        let limit = budget.get(which);
        let holder = match which {
            IpcLimit::Mqueue => "rlimit (session's user namespace)",
            IpcLimit::Memfd => "tmpfs of that size",
            _ if plan.ipc.sysv == SysV::Denied => "denied: this kernel lets nobody bound it (Linux 6.9 does)",
            _ => "sysctl (session's ipc namespace)",
        };
        let rule = limit.and_then(|limit| session.rule(Some(limit.rule)));
        let how = match rule {
            Some(rule) => format!("{holder}, {}", rule.at),
            None => holder.to_owned(),
        };
        (which.as_str(), limit.map_or(0, |limit| limit.value), how)
    });
    said.collect()
}

fn access(access: Access) -> &'static str {
    match access {
        Access::ReadOnly => "read-only",
        Access::ReadWrite => "read-write",
    }
}

pub(crate) fn describe(entry: &Entry) -> String {
    match entry {
        Entry::Directory { .. } => "directory".into(),
        Entry::Bind { access: mode, .. } => format!("the host's, {}", access(*mode)),
        Entry::Copy { .. } => "a copy of the host's, read-only".into(),
        Entry::Pin { access: mode, .. } => format!("the host's, {}, cannot be moved", access(*mode)),
        Entry::Hide { .. } => "hidden".into(),
        Entry::Link { to, .. } => format!("link to {}", plain(&to.to_string_lossy())),
        Entry::File { .. } => "the session's own file, read-only".into(),
        Entry::Area {
            area: AreaMount::Tmp, ..
        } => "tmp, metered".into(),
        Entry::Area {
            area: AreaMount::State, ..
        } => "state, metered".into(),
        Entry::Area {
            area: AreaMount::Shm, ..
        } => "shared memory, charged to tmp".into(),
        Entry::Area {
            area: AreaMount::Work, ..
        } => "the host's, its growth metered".into(),
        Entry::PinArea { access: mode, .. } => format!("the work directory's, {}, cannot be moved", access(*mode)),
        Entry::Device { .. } => "device".into(),
        Entry::Terminals => "pseudo-terminals of the session's own".into(),
        Entry::Processes => "processes of the session's own".into(),
    }
}

fn to_json(plan: &Plan, session: &Session) -> Value {
    let view: Vec<Value> = plan
        .view
        .iter()
        .map(|entry| json!({"at": entry.at().to_string_lossy(), "what": describe(entry)}))
        .collect();
    let environment: serde_json::Map<String, Value> = plan
        .environment
        .iter()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into()))
        .collect();
    let arguments: Vec<Value> = plan
        .program
        .arguments
        .iter()
        .map(|one| one.to_string_lossy().into())
        .collect();
    let limits: serde_json::Map<String, Value> = plan
        .limits
        .each()
        .map(|(name, limit)| (name.to_owned(), limit.value.into()))
        .collect();
    let enforced: serde_json::Map<String, Value> = plan
        .limits
        .each()
        .map(|(name, limit)| {
            let how = match &limit.enforcement {
                Enforcement::Enforced { backend } => json!({"backend": backend.to_string()}),
                Enforcement::Unsupported { why } => json!({"unsupported": why}),
            };
            (name.to_owned(), how)
        })
        .collect();
    json!({
        "version": 1,
        "subject": &*session.subject,
        "policy": &*session.version,
        "program": arguments,
        "directory": plan.directory.to_string_lossy(),
        "uid": plan.identity.uid,
        "gid": plan.identity.gid,
        "assumed": plan.identity.assumed,
        "filter_instructions": plan.filter.len(),
        "landlock": plan.fence.as_str(),
        "limits": limits,
        "enforced": enforced,
        "cgroup": match &plan.limits.cgroup {
            None => Value::Null,
            Some(Ok(place)) => json!({"below": place.path().to_string_lossy()}),
            Some(Err(lack)) => json!({"why_not": lack.to_string()}),
        },
        "ipc": ipc(plan, session)
            .into_iter()
            .map(|(name, value, how)| (name.to_owned(), json!({"limit": value, "held_by": how})))
            .collect::<serde_json::Map<String, Value>>(),
        "view": view,
        "environment": environment,
    })
}
