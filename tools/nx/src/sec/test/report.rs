//! Findings as text, JSON, TAP and JUnit.

use super::Found;
use super::args::Format;
use super::claim::{Finding, Status};
use crate::run::{json_line, plain};
use crate::sec::output::{Paint, VERSION};
use std::fmt::Write as _;

pub(super) fn write(found: &[Found], format: Format) -> String {
    match format {
        Format::Text => text(found, Paint::of_stdout()),
        Format::Json => json(found),
        Format::Tap => tap(found),
        Format::Junit => junit(found),
    }
}

fn word(status: &Status) -> &'static str {
    match status {
        Status::Proven => "ok",
        Status::Failed => "FAILED",
        Status::Skipped => "skipped",
    }
}

fn count(found: &Found, status: &Status) -> usize {
    found
        .findings
        .iter()
        .filter(|finding| finding.status == *status)
        .count()
}

/// A line for each claim; where there is one only, or it failed, what was seen below it.
fn text(found: &[Found], paint: Paint) -> String {
    let mut out = String::new();
    for one in found {
        let single = one.findings.len() == 1;
        for finding in &one.findings {
            let word = word(&finding.status);
            let word = format!("{word:<7}");
            let painted = match finding.status {
                Status::Proven => paint.good(&word),
                Status::Failed => paint.bad(&word),
                Status::Skipped => word,
            };
            let Finding { part, says, name, .. } = finding;
            // A String takes everything.
            let _ = writeln!(out, "{painted} {part:<8} {says:<5} {}", plain(name));
            for lack in &finding.lacks {
                let _ = writeln!(out, "        lacks    {}", plain(lack));
            }
            if single || finding.status == Status::Failed {
                for (what, seen) in &finding.seen {
                    let _ = writeln!(out, "        {what:<8} {}", plain(seen));
                }
                let _ = writeln!(out, "        rule     {}", finding.rule.text());
            }
        }
        for left_out in &one.left_out {
            let _ = writeln!(out, "left out {}", plain(left_out));
        }
        for other in one.others.lines() {
            let _ = writeln!(out, "{} {other}", paint.bad("running "));
        }
        let Found {
            subject,
            version,
            sessions,
            ..
        } = one;
        let _ = writeln!(
            out,
            "{subject}: {} proven, {} failed, {} skipped; policy {version}, session {}",
            count(one, &Status::Proven),
            count(one, &Status::Failed),
            count(one, &Status::Skipped),
            sessions.join(" "),
        );
    }
    out
}

fn json(found: &[Found]) -> String {
    let finding = |finding: &Finding| {
        let seen: Vec<_> = finding
            .seen
            .iter()
            .map(|(what, text)| serde_json::json!({"what": what, "text": text}))
            .collect();
        serde_json::json!({
            "status": word(&finding.status).to_lowercase(), "part": finding.part, "says": finding.says,
            "name": finding.name, "rule": finding.rule.id.as_deref(), "at": finding.rule.at.as_deref(),
            "seen": seen, "lacks": finding.lacks,
        })
    };
    let subjects: Vec<_> = found
        .iter()
        .map(|one| {
            serde_json::json!({
                "subject": one.subject, "policy": one.version, "sessions": one.sessions,
                "findings": one.findings.iter().map(finding).collect::<Vec<_>>(),
                "left_out": one.left_out, "other_policy": one.others.json(),
            })
        })
        .collect();
    let failed = found.iter().any(|one| count(one, &Status::Failed) > 0);
    let report = serde_json::json!({"version": VERSION, "ok": !failed, "subjects": subjects});
    format!("{}\n", json_line(&report))
}

/// Test Anything Protocol 14, testanything.org.
fn tap(found: &[Found]) -> String {
    let mut out = String::from("TAP version 14\n");
    let all: usize = found.iter().map(|one| one.findings.len()).sum();
    let _ = writeln!(out, "1..{all}");
    let mut number = 0_usize;
    for one in found {
        for finding in &one.findings {
            number = number.saturating_add(1);
            let not = if finding.status == Status::Failed { "not " } else { "" };
            let name = escaped_tap(&format!("{} {} {}", one.subject, finding.part, finding.name));
            let skip = match (&finding.status, finding.lacks.first()) {
                (Status::Skipped, Some(why)) => format!(" # SKIP {}", escaped_tap(why)),
                _ => String::new(),
            };
            let _ = writeln!(out, "{not}ok {number} - {name}{skip}");
            if finding.status == Status::Failed {
                out.push_str("  ---\n");
                for lack in &finding.lacks {
                    let _ = writeln!(out, "  - {}", serde_json::Value::from(lack.as_str()));
                }
                out.push_str("  ...\n");
            }
        }
        for left_out in &one.left_out {
            let _ = writeln!(out, "# left out: {}", plain(left_out));
        }
        for other in one.others.lines() {
            let _ = writeln!(out, "# running: {other}");
        }
    }
    out
}

fn escaped_tap(text: &str) -> String {
    plain(text).replace('\\', "\\\\").replace('#', "\\#")
}

fn junit(found: &[Found]) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"nx sec test\">\n");
    for one in found {
        let _ = writeln!(
            out,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" skipped=\"{}\">",
            escaped_xml(&one.subject),
            one.findings.len(),
            count(one, &Status::Failed),
            count(one, &Status::Skipped),
        );
        for finding in &one.findings {
            let class = format!("nx.sec.{}.{}", one.subject, finding.part);
            let _ = write!(
                out,
                "    <testcase classname=\"{}\" name=\"{}\"",
                escaped_xml(&class),
                escaped_xml(&finding.name)
            );
            let why = escaped_xml(&finding.lacks.join("; "));
            let _ = match finding.status {
                Status::Proven => writeln!(out, "/>"),
                Status::Failed => writeln!(out, "><failure message=\"{why}\"/></testcase>"),
                Status::Skipped => writeln!(out, "><skipped message=\"{why}\"/></testcase>"),
            };
        }
        let said = [&one.left_out[..], &one.others.lines()].concat();
        if !said.is_empty() {
            let _ = writeln!(out, "    <system-out>{}</system-out>", escaped_xml(&said.join("\n")));
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

/// XML 1.0, "Character Data and Markup"; what no XML may hold is shown as a question mark.
fn escaped_xml(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push('\n'),
            letter if letter.is_control() => out.push('?'),
            letter => out.push(letter),
        }
    }
    out
}
