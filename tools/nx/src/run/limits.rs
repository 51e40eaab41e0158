//! A session's limits: whether they can be in force here, and the cgroup that they may need.

use super::failure::Failure;
use super::session::Session;
use super::summary;
use crate::doctor::WITHOUT_CGROUP;
use execd::cgroup::{Group, find};
use execd::{Asked, Enforcement, Limits, Plan};
use nexus_abi::RuleRef;
use nexus_policy::{Limit, Policy, SubjectPolicy};
use serde_json::json;

/// What the subject is limited to, and what holds it here.
pub(crate) fn of(rules: &SubjectPolicy) -> Limits {
    let value = |limit: Option<Limit>| limit.map(|limit| limit.value);
    let asked = Asked {
        processes: value(rules.limits.processes),
        open_files: value(rules.limits.open_files),
        memory_bytes: value(rules.limits.memory_bytes),
    };
    Limits::new(&asked, || find(asked.processes))
}

/// Whether the session's cgroup will be made in nx's own, which nx itself then leaves for a leaf.
pub(crate) fn moves_nx(limits: &Limits) -> bool {
    limits.place().is_some_and(execd::cgroup::Place::is_within)
}

fn rule(rules: &SubjectPolicy, name: &str) -> Option<RuleRef> {
    let limit = match name {
        "memory" => rules.limits.memory_bytes,
        "processes" => rules.limits.processes,
        _ => rules.limits.open_files,
    };
    limit.map(|limit| limit.rule)
}

/// Refuses a limit that nothing here would hold the session to.
pub(crate) fn enforceable(limits: &Limits, rules: &SubjectPolicy, policy: &Policy) -> Result<(), Failure> {
    for (name, limit) in limits.each() {
        let Enforcement::Unsupported { why } = limit.enforcement else {
            continue;
        };
        let at = rule(rules, name)
            .and_then(|rule| policy.rule(rule))
            .map_or_else(String::new, |info| format!(" ({} at {})", info.id, info.at));
        return Err(Failure::unsupported(
            format!("the limit `{name}`{at} cannot be enforced: {why}"),
            "delegate a cgroup: `nx sec doctor` says how; or leave the limit out in sandbox.toml",
        ));
    }
    Ok(())
}

/// Makes the session's cgroup where the plan has one. Where the kernel refuses what it seemed to allow, the plan falls
/// back to what holds without one, and the user is told.
pub(crate) fn join(plan: &mut Plan, session: &Session, quiet: bool) -> Result<Option<Group>, Failure> {
    let Some(place) = plan.limits.place() else {
        return Ok(None);
    };
    match Group::make(place, &session.id, &plan.limits) {
        Ok(group) => Ok(Some(group)),
        Err(lack) => {
            if !quiet {
                summary::say(&format!("nx: {lack}; {WITHOUT_CGROUP}"));
            }
            plan.limits = plan.limits.without_cgroup(lack);
            enforceable(&plan.limits, &session.rules, &session.policy)?;
            Ok(None)
        }
    }
}

/// Says that the kernel ended the session because it used all the memory that it may.
pub(crate) fn tell_out_of_memory(plan: &Plan, session: &Session, as_json: bool) {
    let bytes = plan.limits.memory.as_ref().map_or(0, |limit| limit.value);
    let info = session.rule(rule(&session.rules, "memory"));
    if as_json {
        let (id, at) = info.as_ref().map(|info| (&info.id, &info.at)).unzip();
        let line = json!({
            "version": 1, "event": "out_of_memory", "subject": &*session.subject, "session": &*session.id,
            "limit_bytes": bytes, "rule": id.map(ToString::to_string), "at": at.map(ToString::to_string),
        });
        return summary::say(&line.to_string());
    }
    let at = info.map_or_else(String::new, |info| format!(" ({})", info.at));
    summary::say(&format!(
        "nx: the session used all of its {bytes} bytes of memory{at} and was ended"
    ));
}
