//! `nx sec ps`

use super::output::{Paint, Said, VERSION, places, table};
use crate::registry::{self, Facts, Listing, Live, Trouble};
use crate::run::{Exit, Failure, Places, plain};
use nexus_wire::session::Question;
use serde_json::{Value, json};
use std::fmt::Write;

pub(super) fn ps(as_json: bool) -> Result<Said, Failure> {
    let listing = sessions(&places()?)?;
    Ok(say(&listing, Paint::of_stdout(), as_json))
}

/// Who runs. Only a session that began just now is asked anything: its entry does not say yet what its profile's id is.
pub(crate) fn sessions(places: &Places) -> Result<Listing, Failure> {
    let mut listing = listing(places)?;
    let new = |live: &&mut Live| live.facts.profile_id.is_none() && !live.stopped;
    let mut new: Vec<&mut Facts> = listing
        .live
        .iter_mut()
        .filter(new)
        .take(ASKED_MAX)
        .map(|live| &mut live.facts)
        .collect();
    if !new.is_empty() {
        let answers = registry::ask_all(&places.runtime, new.iter().map(|facts| &**facts), Question::Syscalls);
        for (facts, answer) in new.iter_mut().zip(answers) {
            // One that ended meanwhile, or hangs, is shown without.
            let id = answer
                .ok()
                .and_then(|answer| Some(answer.get("profile_id")?.as_str()?.to_owned()));
            facts.profile_id = id;
        }
    }
    Ok(listing)
}

/// How many sessions are asked at once, each for a descriptor: so many do not begin within the same few milliseconds.
const ASKED_MAX: usize = 128;

fn listing(places: &Places) -> Result<Listing, Failure> {
    registry::list(&places.runtime).map_err(|error| {
        Failure::new(
            Exit::Missing,
            format!("cannot see who runs in `{}`: {error}", places.runtime.display()),
        )
        .with_help("run as the user whose sessions they are; `nx run` makes the directory anew if you remove it")
    })
}

/// The same listing gives the same text.
fn say(listing: &Listing, paint: Paint, as_json: bool) -> Said {
    let code = if listing.troubles.is_empty() {
        0
    } else {
        Exit::Missing.code()
    };
    if as_json {
        let value = json!({
            "version": VERSION,
            "ok": listing.troubles.is_empty(),
            "sessions": listing.live.iter().map(session).collect::<Vec<_>>(),
            "troubles": listing.troubles.iter().map(trouble).collect::<Vec<_>>(),
        });
        return Said::json(&value, code);
    }
    let mut text = if listing.live.is_empty() {
        format!("{}\n", none_runs(None, &listing.troubles))
    } else {
        let head = [
            "SUBJECT", "SESSION", "PID", "UID", "PROGRAM", "STATE", "MODE", "POLICY", "PROFILE", "SYSCALLS", "SANDBOX",
            "WORK", "BACKENDS",
        ];
        let rows: Vec<Vec<String>> = listing.live.iter().map(row).collect();
        table(paint, &head, &rows)
    };
    for Trouble { session, why } in &listing.troubles {
        let line = format!("session {}: {}", plain(session), plain(why));
        let _ = writeln!(text, "{}", paint.bad(&line));
    }
    Said {
        code,
        ..Said::fine(text)
    }
}

/// That no session is shown, of this subject or of any; not that none runs, where an entry is in doubt, whose subject nobody
/// vouches for either.
pub(super) fn none_runs(subject: Option<&str>, troubles: &[Trouble]) -> String {
    let of = subject.map_or_else(String::new, |name| format!(" of `{name}`"));
    let doubt = if troubles.is_empty() {
        ""
    } else {
        " that can be vouched for"
    };
    format!("no session{of} runs{doubt}")
}

/// Looks again who runs, where somebody who was asked closed without a word: it has ended, most likely. Gives who runs on all the
/// same, and adds of whom nothing certain can be said any more.
pub(super) fn still(places: &Places, troubles: &mut Vec<Trouble>) -> Result<Vec<String>, Failure> {
    let listing = listing(places)?;
    troubles.extend(listing.troubles);
    troubles.sort();
    troubles.dedup();
    Ok(listing.live.into_iter().map(|live| live.facts.session).collect())
}

/// What is said of one that runs on and closed without a word.
pub(super) const CLOSED: &str = "the session's supervisor closed without an answer, and runs on";

pub(super) fn trouble(trouble: &Trouble) -> Value {
    json!({"session": trouble.session, "why": trouble.why})
}

/// What a session does: a word for the table, `running` where nothing is to be said.
pub(crate) fn state(live: &Live) -> &'static str {
    match &live.program {
        _ if live.stopped => "supervisor-stopped",
        None => "ending",
        // What the kernel says: a program without its filter is not confined.
        Some(program) if program.filtered == Some(false) => "unfiltered",
        Some(program) if program.stopped => "stopped",
        Some(_) => "running",
    }
}

/// A session as JSON: every fact, and what the kernel says of the program now.
pub(crate) fn session(live: &Live) -> Value {
    let facts = &live.facts;
    let program = live.program.as_ref().map(|program| {
        json!({
            "pid": program.pid,
            "name": program.name,
            "uid": program.uid,
            "filtered": program.filtered,
            "filters": program.filters,
            "no_new_privs": program.no_new_privs,
            "own_pid_namespace": program.nested,
            "stopped": program.stopped,
        })
    });
    let backends: Vec<Value> = facts
        .backends
        .iter()
        .map(|one| json!({"what": one.what, "by": one.by, "how": one.how, "why_not": one.why_not}))
        .collect();
    json!({
        "subject": facts.subject,
        "domain": facts.domain,
        "session": facts.session,
        "state": state(live),
        "program": program,
        "uid": facts.uid,
        "gid": facts.gid,
        "assumed": facts.assumed,
        "supervisor": facts.supervisor.pid,
        "front": facts.front.pid,
        "init": facts.init.pid,
        "mode": facts.mode,
        "policy": facts.policy,
        "origin": facts.origin,
        "profile_id": facts.profile_id,
        "sandbox": facts.profile_name,
        "filter": {"hash": facts.filter.hash, "instructions": facts.filter.instructions},
        "syscalls": {
            "allowed": facts.syscalls.allowed,
            "conditional": facts.syscalls.conditional,
            "denied": facts.syscalls.denied,
        },
        "work": facts.work.as_ref().map(|work| json!({"path": work.path, "kind": work.kind})),
        "backends": backends,
        "started_ms": facts.started_ms,
        "nx": facts.nx,
    })
}

fn row(live: &Live) -> Vec<String> {
    let facts = &live.facts;
    let unknown = || "-".to_owned();
    let program = live.program.as_ref();
    let mask = &facts.syscalls;
    vec![
        facts.subject.clone(),
        facts.session.clone(),
        program.map_or_else(unknown, |program| program.pid.to_string()),
        // The kernel's word where it has one.
        program.map_or(facts.uid, |program| program.uid).to_string(),
        program.map_or_else(unknown, |program| program.name.clone()),
        state(live).to_owned(),
        facts.mode.clone(),
        facts.policy.get(..12).unwrap_or(&facts.policy).to_owned(),
        facts.profile_id.clone().unwrap_or_else(unknown),
        format!("{}+{}/{}", mask.allowed, mask.conditional, total(facts)),
        facts.profile_name.clone(),
        facts.work.as_ref().map_or_else(unknown, |work| work.kind.clone()),
        backends(facts),
    ]
}

fn total(facts: &Facts) -> u32 {
    let mask = &facts.syscalls;
    mask.allowed
        .saturating_add(mask.conditional)
        .saturating_add(mask.denied)
}

/// What is in force, a word each; what is not, with a `!`.
fn backends(facts: &Facts) -> String {
    let mut words: Vec<String> = facts
        .backends
        .iter()
        .map(|one| one.by.clone().unwrap_or_else(|| format!("!{}", one.what)))
        .collect();
    words.sort();
    words.dedup();
    words.join(",")
}
