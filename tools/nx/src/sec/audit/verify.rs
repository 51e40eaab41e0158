//! `nx sec audit --verify`: whether the chain holds, and what that says.

use super::args::AuditArgs;
use super::{Ended, journal};
use crate::run::{Exit, Failure, json_line, plain};
use crate::sec::output::VERSION;
use logd::{AnchorState, VerifyError, VerifyReport};
use nexus_audit::Flaw;
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;

/// What no chain finds by itself.
pub(crate) const UNSEEN: &str = "a tail that was cut off, and a journal rewritten by who can read its key, as its own user can: only an anchor \
                      kept out of that user's reach finds them";

pub(super) fn verify(args: &AuditArgs, directory: &Path) -> Result<u8, Ended> {
    let (value, text, code) = match logd::verify(directory, args.anchor.as_ref()) {
        // A key without a journal: what it held is gone.
        Ok(report) if report.files == 0 => {
            let gone = "the journal's files are gone, though its key is there".to_owned();
            let failure = Failure::new(Exit::Missing, gone);
            return Err(failure
                .with_help("somebody removed them: there is no chain to check")
                .into());
        }
        Ok(report) => (holds_json(&report), holds_text(&report), 0),
        Err(VerifyError::Journal(error)) => return Err(journal::unreadable(&error).into()),
        Err(VerifyError::NoKey) if has_no_records(directory) => {
            if journal::never_was().is_err() {
                let gone = "the journal's files are gone, and its key, though something ran here".to_owned();
                let failure = Failure::new(Exit::Missing, gone);
                return Err(failure
                    .with_help("somebody removed them: there is no chain to check")
                    .into());
            }
            let failure = Failure::new(
                Exit::Missing,
                "there is no journal yet, so there is no chain to check".to_owned(),
            );
            return Err(failure.with_help("the first `nx run` makes it").into());
        }
        Err(error) => (broken_json(&error), broken_text(&error), Exit::Rejected.code()),
    };
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", json_line(&value))?;
    } else {
        out.write_all(text.as_bytes())?;
    }
    Ok(code)
}

fn has_no_records(directory: &Path) -> bool {
    logd::read(directory, logd::Filter::default()).is_ok_and(|mut records| records.next().is_none())
}

pub(crate) fn holds_json(report: &VerifyReport) -> Value {
    let verified = &report.verified;
    json!({
        "version": VERSION, "ok": true, "records": verified.records, "first_seq": verified.first_seq,
        "last_seq": verified.last_seq, "files": report.files, "half_line_at_the_end": report.torn,
        "anchor": anchor_word(report.anchor),
        "head": format!("{}:{}", verified.last_seq, verified.head),
        "not_found_by_this": if report.anchor == AnchorState::Holds { Value::Null } else { UNSEEN.into() },
    })
}

const fn anchor_word(anchor: AnchorState) -> &'static str {
    match anchor {
        AnchorState::None => "none",
        AnchorState::Holds => "holds",
        AnchorState::TooOld => "too_old",
    }
}

fn holds_text(report: &VerifyReport) -> String {
    let verified = &report.verified;
    if verified.records == 0 {
        let half = if report.torn { "; it ends in half a line" } else { "" };
        return format!(
            "the journal has no records{half}\nnot seen  whether somebody removed them: only an anchor that was kept elsewhere tells\n"
        );
    }
    let files = if report.files == 1 { "file" } else { "files" };
    let mut text = format!(
        "chain     holds, from record {} to {}, in {} {files}\n",
        verified.first_seq, verified.last_seq, report.files
    );
    if verified.first_seq > 1 {
        text.push_str("older     records were rotated away or removed; nothing tells which\n");
    }
    if report.torn {
        text.push_str(
            "end       half a line: it is being written, or its writer was killed and the next one mends it\n",
        );
    }
    match report.anchor {
        AnchorState::None => {
            text.push_str("not seen  ");
            text.push_str(UNSEEN);
            text.push('\n');
        }
        AnchorState::Holds => {
            text.push_str("anchor    holds: up to its record nothing was cut off or rewritten; after it, nothing is known of a cut tail\n");
        }
        AnchorState::TooOld => {
            text.push_str("anchor    too old: its record was rotated away, so it says nothing any more. not seen: ");
            text.push_str(UNSEEN);
            text.push('\n');
        }
    }
    text.push_str(&format!("anchor    {}:{}\n", verified.last_seq, verified.head));
    text.push_str("          keep it where this user cannot write, and give it to `--anchor` at the next check\n");
    text
}

/// What does not hold: in which file and line, which record it should be, and why.
struct Flawed {
    file: Option<String>,
    line: Option<u64>,
    seq: Option<u64>,
    why: String,
}

fn flawed(error: &VerifyError) -> Flawed {
    match error {
        VerifyError::Unreadable { after, unreadable } => Flawed {
            file: Some(unreadable.file.to_string()),
            line: Some(unreadable.line),
            seq: after.checked_add(1),
            why: unreadable.problem.to_string(),
        },
        VerifyError::Broken { file, line, broken } => Flawed {
            file: Some(file.to_string()),
            line: Some(*line),
            seq: broken.expected_seq,
            why: match broken.flaw {
                Flaw::Chain if broken.expected_seq.is_none() => {
                    "it does not say what it continues, as a file's first line does, or its own chain value does not fit it"
                        .to_owned()
                }
                flaw => flaw.to_string(),
            },
        },
        VerifyError::Cut { anchor, .. } | VerifyError::Rewritten { seq: anchor } => Flawed {
            file: None,
            line: None,
            seq: Some(*anchor),
            why: error.to_string(),
        },
        other => Flawed {
            file: None,
            line: None,
            seq: None,
            why: journal::whole(other),
        },
    }
}

pub(crate) fn broken_json(error: &VerifyError) -> Value {
    let Flawed { file, line, seq, why } = flawed(error);
    json!({"version": VERSION, "ok": false, "file": file, "line": line, "seq": seq, "why": why})
}

fn broken_text(error: &VerifyError) -> String {
    let Flawed { file, line, seq, why } = flawed(error);
    let mut text = "chain     does NOT hold\n".to_owned();
    if let (Some(file), Some(line)) = (&file, line) {
        text.push_str(&format!("first     `{file}` line {line}"));
        match seq {
            Some(seq) => text.push_str(&format!(", where record {seq} should be\n")),
            None => text.push_str(", the oldest that is kept\n"),
        }
    } else if let Some(seq) = seq {
        text.push_str(&format!("first     record {seq}\n"));
    }
    text.push_str(&format!("why       {}\n", plain(&why)));
    // Where no place is named, nothing was walked.
    text.push_str(if file.is_some() || seq.is_some() {
        "          what stands before it holds; of what follows nothing is known\n"
    } else {
        "          of no record is known whether it holds\n"
    });
    text
}
