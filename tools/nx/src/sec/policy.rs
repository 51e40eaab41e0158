//! `nx sec policy show`

use super::about::{doubted, load, load_failure, subject};
use super::args::PolicyShowArgs;
use super::output::{Paint, Said, VERSION, places};
use super::ps::{CLOSED, none_runs, session, sessions, still, trouble};
use crate::policy::{self, Refusal};
use crate::registry::{AskError, Live, Trouble, ask_all};
use crate::run::{Exit, Failure, plain};
use nexus_policy::Policy;
use nexus_wire::session::Question;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

/// How many sessions are asked: each costs a descriptor, of which a process has 1024 as a rule.
const ASKED_MAX: usize = 512;

/// Where a policy comes from.
enum From {
    /// Sessions that run; an answer, or why there is none.
    Sessions(Vec<Live>),
    /// A tree or a snapshot.
    Files(String),
}

struct Shown {
    from: From,
    answer: Result<Value, String>,
}

pub(super) fn show(args: &PolicyShowArgs) -> Result<Said, Failure> {
    let files = |policy: &Policy, origin: String| of_policy(policy, args.subject.as_deref(), &origin);
    let (all, left_out, troubles) = if let Some(directory) = &args.snapshot {
        let policy = policy::snapshot::verified(directory).map_err(refusal)?;
        let origin = format!(
            "snapshot {}, verified against its tree",
            directory.join("policy.bin").display()
        );
        (files(&policy, origin)?, beyond(&policy, args), Vec::new())
    } else if args.policy.is_some() {
        let loaded = load(args.policy.as_ref())?;
        let shown = files(&loaded.policy, format!("tree {}", loaded.origin))?;
        (shown, beyond(&loaded.policy, args), Vec::new())
    } else {
        let (live, left_out, troubles) = of_sessions(args.subject.as_deref())?;
        if live.is_empty() {
            let in_doubt = |failure| doubted(failure, &troubles);
            let loaded = load(None).map_err(in_doubt)?;
            let origin = format!("{}: {}", loaded.origin, none_runs(args.subject.as_deref(), &troubles));
            let beyond = beyond(&loaded.policy, args);
            let shown = files(&loaded.policy, origin).map_err(in_doubt)?;
            (shown, left_out.saturating_add(beyond), troubles)
        } else {
            (live, left_out, troubles)
        }
    };
    Ok(say(&all, left_out, &troubles, args.json))
}

/// How many subjects of a tree are shown at once: each takes a millisecond and some sixty kilobytes, and nobody reads more.
const SHOWN_MAX: usize = 500;

/// How many of the tree's are not shown.
fn beyond(policy: &Policy, args: &PolicyShowArgs) -> usize {
    match args.subject {
        Some(_) => 0,
        None => policy.subjects().count().saturating_sub(SHOWN_MAX),
    }
}

fn refusal(refusal: Refusal) -> Failure {
    match refusal {
        Refusal::Load(error) => load_failure(&error),
        Refusal::Other(failure) => failure,
    }
}

fn of_policy(policy: &Policy, name: Option<&str>, origin: &str) -> Result<Vec<Shown>, Failure> {
    let names: Vec<&str> = match name {
        Some(name) => vec![name],
        None => policy.subjects().take(SHOWN_MAX).collect(),
    };
    names
        .into_iter()
        .map(|name| {
            Ok(Shown {
                from: From::Files(origin.to_owned()),
                answer: Ok(policy::show::value(&subject(policy, name)?, policy)),
            })
        })
        .collect()
}

/// What the running sessions are under: one of each subject and policy is asked, for they say the same. And of which entries
/// nothing certain can be said, whoever's they are.
fn of_sessions(name: Option<&str>) -> Result<(Vec<Shown>, usize, Vec<Trouble>), Failure> {
    let places = places()?;
    let listing = sessions(&places)?;
    let mut groups: BTreeMap<(String, String, String), Vec<Live>> = BTreeMap::new();
    for live in listing.live {
        if name.is_none_or(|name| live.facts.subject == name) {
            let facts = &live.facts;
            let key = (facts.subject.clone(), facts.policy.clone(), facts.origin.clone());
            groups.entry(key).or_default().push(live);
        }
    }
    let left_out = groups.len().saturating_sub(ASKED_MAX);
    let groups: Vec<Vec<Live>> = groups.into_values().take(ASKED_MAX).collect();
    // One that is stopped is asked last.
    let speakers = groups
        .iter()
        .filter_map(|lives| lives.iter().find(|live| !live.stopped).or_else(|| lives.first()));
    let answers = ask_all(&places.runtime, speakers.map(|live| &live.facts), Question::Policy);
    let mut troubles = listing.troubles;
    let gone = answers.iter().any(|answer| matches!(answer, Err(AskError::Gone)));
    let still = if gone {
        still(&places, &mut troubles)?
    } else {
        Vec::new()
    };
    let shown = groups.into_iter().zip(answers).filter_map(|(lives, answer)| {
        let answer = match answer {
            Err(AskError::Gone) if lives.iter().any(|live| still.contains(&live.facts.session)) => {
                Err(CLOSED.to_owned())
            }
            Err(AskError::Gone) => return None,
            other => other.map_err(|error| error.to_string()),
        };
        Some(Shown {
            from: From::Sessions(lives),
            answer,
        })
    });
    Ok((shown.collect(), left_out, troubles))
}

fn say(all: &[Shown], left_out: usize, troubles: &[Trouble], as_json: bool) -> Said {
    let silent = left_out > 0 || !troubles.is_empty() || all.iter().any(|shown| shown.answer.is_err());
    let code = if silent { Exit::Missing.code() } else { 0 };
    if as_json {
        let doubt = !troubles.is_empty();
        let views: Vec<Value> = all.iter().map(|shown| to_json(shown, doubt)).collect();
        return Said::json(
            &json!({
                "version": VERSION,
                "ok": code == 0,
                "views": views,
                "left_out": left_out,
                "troubles": troubles.iter().map(trouble).collect::<Vec<_>>(),
            }),
            code,
        );
    }
    let mut out = String::new();
    for (number, shown) in all.iter().enumerate() {
        if number > 0 {
            out.push('\n');
        }
        let _ = match &shown.from {
            From::Sessions(lives) => {
                let names: Vec<String> = lives.iter().map(|live| plain(&live.facts.session)).collect();
                let origin = lives.first().map(|live| plain(&live.facts.origin)).unwrap_or_default();
                writeln!(out, "in force     session {} ({origin})", names.join(" "))
            }
            From::Files(origin) => writeln!(out, "not in force {}", plain(origin)),
        };
        match &shown.answer {
            Ok(value) => out.push_str(&policy::show::text(value)),
            Err(why) => {
                let text = Paint::of_stdout().bad(&format!("unsupported: {}", plain(why)));
                let _ = writeln!(out, "{text}");
            }
        }
    }
    if left_out > 0 {
        let _ = writeln!(out, "and {left_out} more subjects: name one with `--subject NAME`");
    }
    for Trouble { session, why } in troubles {
        let _ = writeln!(out, "session {}: {}", plain(session), plain(why));
    }
    Said { text: out, code }
}

fn to_json(shown: &Shown, doubt: bool) -> Value {
    let (source, sessions, origin): (_, Vec<Value>, _) = match &shown.from {
        From::Sessions(lives) => (
            "session",
            lives.iter().map(session).collect(),
            lives.first().map(|live| live.facts.origin.clone()),
        ),
        From::Files(origin) => ("files", Vec::new(), Some(origin.clone())),
    };
    json!({
        "source": source,
        // Where an entry is in doubt, it may be.
        "in_force": (source == "session" || !doubt).then_some(source == "session"),
        "sessions": sessions,
        "origin": origin,
        "why_not": shown.answer.as_ref().err(),
        "answer": shown.answer.as_ref().ok(),
    })
}
