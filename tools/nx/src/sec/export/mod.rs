//! `nx sec export`: one document for whoever looks into a trouble elsewhere.
//!
//! What is in it is chosen one by one, never a whole file or a whole answer: no environment, no arguments, no program's
//! name, no file's contents, no policy text, no path of this machine. docs/security/nx-sec.md lists it.

mod journal;
mod scrub;

use super::lost::{self, Recorded};
use super::output::{Said, VERSION, places};
use super::ps::{sessions, state};
use super::{counters, journal as journal_of};
use crate::doctor::State;
use crate::registry::Live;
use crate::run::{Exit, Failure, json_line, plain};
use nexus_sys::counters::CounterRow;
use policyd::{LoadError, Origin};
use scrub::Scrub;
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// How many sessions are told of: what is wrong shows in the first ones; each takes a kilobyte or two.
const SESSIONS_MAX: usize = 500;

/// How many subjects' counters are told of; each takes a hundred bytes and a bit.
const SUBJECTS_MAX: usize = 4000;

/// The longest document, in bytes: sessions, counters and records at their bounds, and room. A mail takes it.
const DOCUMENT_BYTES_MAX: usize = 8 << 20;

/// `nx sec export`.
#[derive(Debug, clap::Args)]
pub(crate) struct ExportArgs {
    /// The file to write, which must not be there yet; `-` is stdout
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Take the journal's records in as they stand: names of files, sockets and hosts that programs asked for are in them
    #[arg(long)]
    objects: bool,
    /// Say as one JSON object too that a file was written, or why not; the document is one in any case
    #[arg(long)]
    json: bool,
}

impl ExportArgs {
    pub(super) const fn says_json(&self) -> bool {
        self.json
    }
}

pub(super) fn export(args: &ExportArgs) -> Result<Said, Failure> {
    // First, and on its own: its probes need a process with one thread.
    let posture = crate::doctor::examine();
    let places = places()?;
    let listing = sessions(&places);
    let scrub = Scrub::new(&places, listing.as_ref().map_or(&[], |listing| &listing.live));
    let findings: Vec<Value> = posture
        .findings
        .iter()
        .map(|finding| {
            let (word, text) = match &finding.state {
                State::Available { detail } => ("available", detail),
                State::Degraded { why, .. } => ("degraded", why),
                State::Missing { why, .. } => ("missing", why),
            };
            json!({"what": finding.what, "required": finding.required, "state": word, "seen": scrub.text(text)})
        })
        .collect();
    let document = json!({
        "version": VERSION,
        "ok": true,
        "kind": "nx sec export",
        "nx": env!("CARGO_PKG_VERSION"),
        "posture": {"ready": posture.ready(), "findings": findings},
        "policy": policy(),
        "sessions": match &listing {
            Ok(listing) => json!({
                "sessions": listing.live.iter().take(SESSIONS_MAX).map(|live| session(live, &scrub)).collect::<Vec<_>>(),
                "left_out": listing.live.len().saturating_sub(SESSIONS_MAX),
                "entries_in_doubt": listing.troubles.len(),
            }),
            Err(failure) => json!({"unknown": scrub.text(&failure.message)}),
        },
        "counters": counted(&scrub),
        "journal": journal::journal(&places, &scrub, args.objects),
        "left_out_on_purpose": "environments, arguments, programs' names, files' contents, policy text, paths of this machine",
    });
    let text = format!("{}\n", json_line(&document));
    if text.len() > DOCUMENT_BYTES_MAX {
        return Err(Failure::internal(format!(
            "the document has {} bytes, more than its bound of {DOCUMENT_BYTES_MAX}",
            text.len()
        )));
    }
    if args.output.as_os_str() == "-" {
        return Ok(Said::fine(text));
    }
    write(&args.output, text.as_bytes())?;
    if args.json {
        let output = args.output.to_string_lossy();
        return Ok(Said::json(
            &json!({"version": VERSION, "ok": true, "bytes": text.len(), "output": output}),
            0,
        ));
    }
    Ok(Said::fine(format!(
        "wrote {} bytes to {}\n",
        text.len(),
        plain(&args.output.to_string_lossy())
    )))
}

fn write(path: &PathBuf, bytes: &[u8]) -> Result<(), Failure> {
    // For this user's eyes, and over nothing that is there: not through a link either.
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let failed = |error: std::io::Error| {
        let message = format!("cannot write `{}`: {error}", path.display());
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            Failure::usage(message).with_help("nothing is written over: name a file that is not there")
        } else {
            Failure::new(Exit::Missing, message).with_help("name a file in a directory that this user can write")
        }
    };
    let mut file = file.map_err(failed)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(|error| {
        // Half a document would be taken for a whole one.
        let _ = std::fs::remove_file(path);
        failed(error)
    })
}

/// The policy that a run would be under: its names and hashes, none of its text.
fn policy() -> Value {
    let loaded = match policyd::load(&policyd::Places::of_process(None)) {
        Ok(loaded) => loaded,
        Err(error) => return json!({"unknown": why_no_policy(&error)}),
    };
    let policy = &loaded.policy;
    let snapshot = match policy.snapshot() {
        Ok(bytes) => json!({"bytes": bytes.len(), "blake3": blake3::hash(&bytes).to_hex().as_str()}),
        Err(error) => json!({"unknown": error.to_string()}),
    };
    json!({
        "version": policy.version().to_string(),
        "tree": policy.tree_hash().to_string(),
        "snapshot": snapshot,
        "origin": match &loaded.origin {
            Origin::Named(_) => "named",
            Origin::Variable(_) => "$NEXUS_POLICY",
            Origin::Home(_) => "home",
            Origin::System(_) => "system",
            Origin::Shipped => "built in",
        },
        "has_ceiling": loaded.ceiling.is_some(),
        "subjects": policy.subjects().count(),
    })
}

/// Without the source around it, which may hold a comment: where, and the stable code.
fn why_no_policy(error: &LoadError) -> Value {
    match error {
        LoadError::Invalid { diagnostics, .. } => {
            let items: Vec<Value> = diagnostics
                .items()
                .iter()
                .map(|item| json!({"code": item.code.as_str()}))
                .collect();
            json!({"why": "invalid", "errors": items, "left_out": diagnostics.left_out()})
        }
        LoadError::Missing { .. } => json!({"why": "missing"}),
        LoadError::Unreadable { .. } => json!({"why": "unreadable"}),
        LoadError::Distrusted { .. } => json!({"why": "distrusted"}),
    }
}

fn session(live: &Live, scrub: &Scrub) -> Value {
    let facts = &live.facts;
    let backends: Vec<Value> = facts
        .backends
        .iter()
        .map(|one| {
            let text = |text: &Option<String>| text.as_deref().map(|text| scrub.text(text));
            json!({"what": one.what, "by": one.by, "how": text(&one.how), "why_not": text(&one.why_not)})
        })
        .collect();
    json!({
        "subject": facts.subject, "domain": facts.domain, "session": facts.session, "state": state(live), "nx": facts.nx,
        "mode": facts.mode, "policy": facts.policy, "profile_id": facts.profile_id, "sandbox": facts.profile_name,
        "filter": {"hash": facts.filter.hash, "instructions": facts.filter.instructions},
        "syscalls": {
            "allowed": facts.syscalls.allowed, "conditional": facts.syscalls.conditional, "denied": facts.syscalls.denied,
        },
        "assumed_identity": facts.assumed, "work": facts.work.as_ref().map(|work| &work.kind), "backends": backends,
        "filtered": live.program.as_ref().map(|program| program.filtered),
        "started_ms": facts.started_ms,
    })
}

/// What the journal has of each counter, and the counters.
fn held() -> Result<(Recorded, Vec<CounterRow>), Failure> {
    // In this order: what is written down meanwhile is counted by then.
    let recorded = lost::recorded(&journal_of::directory()?);
    let rows = counters::all()?;
    match recorded {
        Ok(recorded) => Ok((recorded, rows)),
        Err(error) if journal_of::is_absent(&error) => journal_of::never_was().map(|()| (Recorded::new(), rows)),
        // Nothing says whether there were some.
        Err(error) if rows.is_empty() => Err(journal_of::unreadable(&error)),
        // They are what they are; that the journal cannot be read stands beside them.
        Err(_) => Ok((Recorded::new(), rows)),
    }
}

fn counted(scrub: &Scrub) -> Value {
    match held() {
        Ok((recorded, mut rows)) => {
            let mut lost = lost::lost(&rows, &recorded);
            lost.truncate(SUBJECTS_MAX);
            let left_out = rows.len().saturating_sub(SUBJECTS_MAX);
            rows.truncate(SUBJECTS_MAX);
            let mut value = counters::json(&rows, &lost);
            if let Some(object) = value.as_object_mut() {
                object.remove("version");
                object.remove("ok");
                object.insert("left_out".to_owned(), left_out.into());
            }
            value
        }
        Err(failure) => json!({"unknown": scrub.text(&failure.message)}),
    }
}
