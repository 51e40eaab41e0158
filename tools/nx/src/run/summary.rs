//! What is said to the user: each deny as it happens, and the whole at the end.

use super::session::Session;
use crate::plain::{json_line, plain};
use logd::{Summary, TopDeny};
use nexus_abi::Reason;
use nexus_audit::{Judgement, Record};
use nexus_wire::vfs::{AreaUsage, WorkUsage};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write as _;
use vfsd::VfsdUsage;

/// How many kinds of deny are listed; the counts below them are of all.
const LISTED_MAX: usize = 10;

/// One deny as it happens, for `--watch`.
pub(crate) fn tell(record: &Record, as_json: bool) {
    let verdict = match record.verdict {
        Judgement::Deny(errno) => format!("denied with {errno}"),
        Judgement::Warn => "warning".to_owned(),
        Judgement::Note => return,
    };
    let at = record.at.as_deref().unwrap_or("no rule");
    let line = if as_json {
        json_line(&json!({
            "version": 1, "event": "record", "subject": &*record.subject, "session": &*record.session,
            "op": record.op.as_str(), "object": &*record.object, "verdict": record.verdict.as_str(),
            "reason": record.reason.as_str(), "rule": record.rule.as_deref(), "at": record.at.as_deref(),
        }))
    } else {
        format!(
            "nx: {verdict}: {} {}: {} ({at})",
            record.op,
            plain(&record.object),
            record.reason
        )
    };
    say(&line);
}

/// Says it on stderr: one write for each piece, so that it is not torn by what the program prints.
pub(crate) fn say(text: &str) {
    let mut whole = text.to_owned();
    whole.push('\n');
    // Who closed stderr does not want to know.
    let _ = std::io::stderr().write_all(whole.as_bytes());
}

/// The end of a session.
pub(crate) fn print(session: &Session, usage: Option<&VfsdUsage>, done: &Summary, as_json: bool) {
    if as_json {
        return say(&json_line(&to_json(session, usage, done)));
    }
    let mut out = format!(
        "nx: {} · session {} · policy {}\n",
        session.subject,
        session.id,
        short(&session.version)
    );
    match usage {
        Some(usage) => {
            let _ = writeln!(out, "  tmp     {}", area(&usage.tmp));
            let _ = writeln!(out, "  state   {}", area(&usage.state));
            if let Some(work) = &usage.work {
                let _ = writeln!(out, "  work    {}", growth(work));
            }
        }
        None => out.push_str("  usage   unsupported: the file server does not answer\n"),
    }
    // What libraries try first and do without is no attempt at anything: counted, and told last.
    let (probes, denied): (Vec<&TopDeny>, Vec<&TopDeny>) =
        done.top.iter().partition(|deny| deny.reason == Reason::AbiUnknown);
    let total: u64 = done.denies.iter().map(|(_, count)| count).sum();
    let probed: u64 = done
        .denies
        .iter()
        .filter(|(reason, _)| *reason == Reason::AbiUnknown)
        .map(|(_, n)| n)
        .sum();
    let _ = writeln!(out, "  denied  {}", total.saturating_sub(probed));
    for deny in denied.iter().take(LISTED_MAX) {
        let at = deny.at.as_deref().unwrap_or("no rule");
        let _ = writeln!(
            out,
            "    {:>5} × {:<44} {:<22} {at}",
            deny.count,
            plain(&deny.object),
            deny.reason.as_str()
        );
    }
    if denied.len() > LISTED_MAX {
        let _ = writeln!(out, "    and {} more kinds", denied.len().saturating_sub(LISTED_MAX));
    }
    if probed > 0 {
        let mut names: Vec<&str> = probes.iter().filter_map(|deny| deny.object.split('(').next()).collect();
        names.sort_unstable();
        names.dedup();
        let _ = writeln!(
            out,
            "  probes  {probed} calls that libraries do without: {}",
            names.join(" ")
        );
    }
    for (reason, count) in &done.warnings {
        let _ = writeln!(out, "  warned  {count} × {reason}");
    }
    if done.suppressed > 0 {
        let _ = writeln!(
            out,
            "  journal {} records held back by the rate limit; the counters are exact",
            done.suppressed
        );
    }
    if let Some(error) = &done.first_journal_error {
        let _ = writeln!(out, "  journal failed {} times, first: {error}", done.journal_errors);
    }
    say(out.trim_end());
}

fn short(version: &str) -> &str {
    version.get(..12).unwrap_or(version)
}

fn area(usage: &AreaUsage) -> String {
    format!(
        "{} of {}, {} of {} inodes",
        bytes(usage.used_bytes),
        bytes(usage.budget.hard_bytes),
        usage.used_inodes,
        usage.budget.hard_inodes
    )
}

fn growth(work: &WorkUsage) -> String {
    format!(
        "grew by {} of {}, {} of {} inodes; {} in all",
        bytes(work.used_bytes.saturating_sub(work.start_bytes)),
        bytes(work.budget.hard_bytes),
        work.used_inodes.saturating_sub(work.start_inodes),
        work.budget.hard_inodes,
        bytes(work.used_bytes)
    )
}

/// `1.5 MiB`: one digit behind the point, never rounded up to a limit that was not reached.
fn bytes(count: u64) -> String {
    let (unit, name) = match count {
        0..0x10_0000 => (0x400_u64, "KiB"),
        0x10_0000..0x4000_0000 => (0x10_0000, "MiB"),
        _ => (0x4000_0000, "GiB"),
    };
    let whole = count / unit;
    let tenth = (count % unit) * 10 / unit;
    format!("{whole}.{tenth} {name}")
}

fn to_json(session: &Session, usage: Option<&VfsdUsage>, done: &Summary) -> Value {
    let area = |usage: &AreaUsage| {
        json!({
            "used_bytes": usage.used_bytes, "hard_bytes": usage.budget.hard_bytes, "soft_bytes": usage.budget.soft_bytes,
            "used_inodes": usage.used_inodes, "hard_inodes": usage.budget.hard_inodes,
        })
    };
    let counts = |counts: &[(Reason, u64)]| -> Value {
        counts
            .iter()
            .map(|(reason, count)| (reason.to_string(), Value::from(*count)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let top: Vec<Value> = done
        .top
        .iter()
        .take(LISTED_MAX)
        .map(|deny| {
            json!({
                "reason": deny.reason.as_str(), "rule": deny.rule.as_deref(), "at": deny.at.as_deref(),
                "object": &*deny.object, "count": deny.count,
            })
        })
        .collect();
    json!({
        "version": 1, "event": "summary", "subject": &*session.subject, "session": &*session.id,
        "policy": &*session.version,
        "usage": usage.map(|usage| {
            let mut all = json!({"tmp": area(&usage.tmp), "state": area(&usage.state)});
            if let (Some(work), Some(all)) = (&usage.work, all.as_object_mut()) {
                all.insert("work".into(), json!({
                    "used_bytes": work.used_bytes, "start_bytes": work.start_bytes,
                    "hard_bytes": work.budget.hard_bytes, "soft_bytes": work.budget.soft_bytes,
                    "used_inodes": work.used_inodes, "start_inodes": work.start_inodes,
                    "hard_inodes": work.budget.hard_inodes,
                }));
            }
            all
        }),
        "denies": counts(&done.denies), "warnings": counts(&done.warnings), "egress_allows": done.allows,
        "top": top, "records_written": done.written, "records_suppressed": done.suppressed,
        "journal_errors": done.journal_errors,
    })
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_are_cut_and_never_rounded_up() {
        assert_eq!(bytes(0), "0.0 KiB");
        assert_eq!(bytes(4096), "4.0 KiB");
        assert_eq!(bytes(64 << 20), "64.0 MiB");
        assert_eq!(bytes((64 << 20) - 1), "63.9 MiB");
        assert_eq!(bytes(3 << 30), "3.0 GiB");
    }
}
