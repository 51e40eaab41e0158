//! Whom a command speaks of: the running sessions of a subject, or, where none runs, what policy would give it.

use super::output::{Said, VERSION, places};
use super::ps::{CLOSED, none_runs, sessions, still};
use super::view::Of;
use crate::diagnostics::draw;
use crate::registry::{AskError, Live, Trouble, ask_all};
use crate::run::{Exit, Failure, Places, plain};
use clap::Args;
use nexus_policy::{Policy, SubjectPolicy};
use nexus_wire::session::Question;
use policyd::{LoadError, Loaded};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::PathBuf;

/// How many sessions of one subject are asked: each costs a descriptor, of which a process has 1024 as a rule.
const ASKED_MAX: usize = 256;

/// Whom a command speaks of.
#[derive(Clone, Debug, Args)]
pub(crate) struct About {
    /// Whose: the name after `nx run`, as `nx sec ps` shows it
    #[arg(long, value_name = "NAME")]
    pub(crate) subject: String,
    /// Only this session of the subject, as `nx sec ps` names it
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,
    /// Where no session runs: the policy's directory [default: the one that `nx run` would take]
    #[arg(long, value_name = "DIR")]
    pub(crate) policy: Option<PathBuf>,
    /// Say it as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// One answer, and whose it is.
pub(super) struct Shown {
    /// The sessions that gave it; none where nothing runs.
    pub(super) lives: Vec<Live>,
    /// The answer, or why there is none.
    pub(super) answer: Result<Value, String>,
    /// Where it comes from, where a command has more to say of that.
    pub(super) source: Option<String>,
    /// The same as JSON.
    pub(super) source_json: Option<Value>,
    /// Something about it does not hold.
    pub(super) differs: bool,
    /// Somebody else who was asked for a part of it did not answer.
    pub(super) silent: bool,
    /// Asked of it was what nobody gives here.
    pub(super) unsupported: bool,
    /// Where the policy comes from that is not in force.
    pub(super) origin: Option<String>,
    /// Of some entry nothing certain can be said: where no session is shown, one may run all the same.
    pub(super) doubt: bool,
}

impl Shown {
    pub(super) fn value(&self) -> Option<&Value> {
        self.answer.as_ref().ok()
    }
}

/// [`show_with`] without more fields.
pub(super) fn show(
    about: &About,
    question: Question,
    as_json: bool,
    text: impl Fn(&mut Shown) -> String,
) -> Result<Said, Failure> {
    show_with(about, question, as_json, &[], text)
}

/// Asks, and says what was answered. Ends with 4 where somebody who runs did not answer, and with 6 where nothing is in
/// force that the question is about.
pub(super) fn show_with(
    about: &About,
    question: Question,
    as_json: bool,
    more: &[(&str, Value)],
    text: impl Fn(&mut Shown) -> String,
) -> Result<Said, Failure> {
    let (mut all, troubles, left_out) = find(about, question)?;
    for shown in &mut all {
        shown.doubt = !troubles.is_empty();
    }
    let texts: Vec<String> = all.iter_mut().map(&text).collect();
    let silent = all.iter().any(|shown| shown.answer.is_err() || shown.silent) || left_out > 0;
    let code = if all.iter().any(|shown| shown.differs) {
        Exit::Rejected.code()
    } else if silent || !troubles.is_empty() {
        Exit::Missing.code()
    } else if (all.iter().all(|shown| shown.lives.is_empty()) && needs_force(question))
        || all.iter().any(|shown| shown.unsupported)
    {
        Exit::Unsupported.code()
    } else {
        0
    };
    if as_json {
        let views: Vec<Value> = all.iter().map(view).collect();
        let mut value = json!({
            "version": VERSION,
            "ok": code == 0,
            "subject": about.subject,
            "views": views,
            "left_out": left_out,
            "troubles": troubles.iter().map(|one| json!({"session": one.session, "why": one.why})).collect::<Vec<_>>(),
        });
        if let Value::Object(fields) = &mut value {
            for (name, value) in more {
                fields.insert((*name).to_owned(), value.clone());
            }
        }
        return Ok(Said::json(&value, code));
    }
    let mut out = String::new();
    for (number, (shown, text)) in all.iter().zip(texts).enumerate() {
        if number > 0 {
            out.push('\n');
        }
        out.push_str(&heading(about, shown, question, &troubles));
        match &shown.answer {
            Ok(_) => out.push_str(&text),
            Err(why) => {
                let _ = writeln!(out, "unsupported: {}", plain(why));
            }
        }
    }
    if left_out > 0 {
        let _ = writeln!(
            out,
            "and {left_out} more sessions, which were not asked: name one with `--session ID`"
        );
    }
    for one in &troubles {
        let _ = writeln!(out, "session {}: {}", plain(&one.session), plain(&one.why));
    }
    Ok(Said { text: out, code })
}

/// What speaks of what is in force, and of nothing where nothing is.
const fn needs_force(question: Question) -> bool {
    matches!(question, Question::Syscalls | Question::Sandbox | Question::Filter)
}

fn why_not(subject: &str, question: Question, troubles: &[Trouble]) -> String {
    let (nothing, unknown) = match question {
        Question::Syscalls | Question::Filter => ("no filter is loaded", "whether a filter is loaded is not known"),
        Question::Sandbox => ("no view stands", "whether a view stands is not known"),
        _ => ("nothing is in force", "what is in force is not known"),
    };
    let what = if troubles.is_empty() { nothing } else { unknown };
    let none = none_runs(Some(subject), troubles);
    format!("{none}, so {what}; what follows is what policy says")
}

fn heading(about: &About, shown: &Shown, question: Question, troubles: &[Trouble]) -> String {
    let mut out = format!("subject      {}\n", plain(&about.subject));
    let Some(first) = shown.lives.first() else {
        let _ = writeln!(
            out,
            "in force     unsupported: {}",
            plain(&why_not(&about.subject, question, troubles))
        );
        let _ = writeln!(
            out,
            "configured   {}",
            plain(shown.origin.as_deref().unwrap_or_default())
        );
        if let Some(value) = shown.value() {
            let _ = writeln!(out, "policy       {}", super::view::field(value, "policy"));
        }
        return out;
    };
    for live in &shown.lives {
        let program = live.program.as_ref().map_or_else(
            || "its program has ended".to_owned(),
            |program| format!("pid {}, {}", program.pid, plain(&program.name)),
        );
        let _ = writeln!(out, "session      {} ({program})", plain(&live.facts.session));
    }
    let _ = writeln!(
        out,
        "in force     {} of {}",
        plain(&first.facts.policy),
        plain(&first.facts.origin)
    );
    out
}

fn view(shown: &Shown) -> Value {
    let sessions: Vec<Value> = shown.lives.iter().map(super::ps::session).collect();
    json!({
        // Where an entry is in doubt, something of it may be.
        "in_force": (!shown.doubt || !shown.lives.is_empty()).then_some(!shown.lives.is_empty()),
        "sessions": sessions,
        "origin": shown.origin,
        "source": shown.source_json,
        "why_not": shown.answer.as_ref().err(),
        "answer": shown.value(),
    })
}

type Found = (Vec<Shown>, Vec<Trouble>, usize);

fn find(about: &About, question: Question) -> Result<Found, Failure> {
    let places = places()?;
    let listing = sessions(&places)?;
    let mut lives: Vec<Live> = listing
        .live
        .into_iter()
        .filter(|live| live.facts.subject == about.subject)
        .collect();
    if let Some(wanted) = &about.session {
        lives.retain(|live| live.facts.session == *wanted);
        if lives.is_empty() {
            let why = listing.troubles.iter().find(|one| one.session == *wanted);
            return Err(Failure::new(
                Exit::Missing,
                match why {
                    Some(one) => format!("nothing certain can be said of session `{wanted}`: {}", one.why),
                    None if listing.troubles.is_empty() => {
                        format!("no session `{wanted}` of `{}` runs", about.subject)
                    }
                    None => format!(
                        "no session `{wanted}` of `{}` runs that can be vouched for",
                        about.subject
                    ),
                },
            )
            .with_help("`nx sec ps` shows who runs; a session that has ended is in the journal alone"));
        }
    }
    if lives.is_empty() {
        let shown = configured(about, question).map_err(|failure| doubted(failure, &listing.troubles))?;
        return Ok((vec![shown], listing.troubles, 0));
    }
    let left_out = lives.len().saturating_sub(ASKED_MAX);
    lives.truncate(ASKED_MAX);
    let mut troubles = listing.troubles;
    let all = asked(&places, lives, question, &mut troubles)?;
    if all.is_empty() {
        // They ended while they were asked.
        let shown = configured(about, question).map_err(|failure| doubted(failure, &troubles))?;
        return Ok((vec![shown], troubles, left_out));
    }
    Ok((all, troubles, left_out))
}

/// What policy lacks is not all that there is to say where an entry is in doubt: the session may be one of another policy, which
/// has it.
pub(super) fn doubted(failure: Failure, troubles: &[Trouble]) -> Failure {
    let Some((first, rest)) = troubles.split_first() else {
        return failure;
    };
    let more = match rest.len() {
        0 => String::new(),
        more => format!(", and {more} more entries"),
    };
    let doubt = format!(
        "whether a session runs under another policy is not known: session {}: {}{more}",
        first.session, first.why
    );
    Failure {
        exit: Exit::Missing,
        message: format!("{}; {doubt}", failure.message),
        ..failure
    }
}

/// Asks them all at once; sessions that give the same answer stand together.
fn asked(
    places: &Places,
    lives: Vec<Live>,
    question: Question,
    troubles: &mut Vec<Trouble>,
) -> Result<Vec<Shown>, Failure> {
    let answers = ask_all(&places.runtime, lives.iter().map(|live| &live.facts), question);
    // Who closed without an answer has ended, or is passed over otherwise: who still runs is known by a second look.
    let gone = answers.iter().any(|answer| matches!(answer, Err(AskError::Gone)));
    let still = if gone { still(places, troubles)? } else { Vec::new() };
    let mut out: Vec<Shown> = Vec::new();
    for (live, answer) in lives.into_iter().zip(answers) {
        let answer = match answer {
            Err(AskError::Gone) if still.contains(&live.facts.session) => Err(CLOSED.to_owned()),
            Err(AskError::Gone) => continue,
            other => other.map_err(|error| error.to_string()),
        };
        let same = |shown: &&mut Shown| {
            let first = shown.lives.first().map(|live| &live.facts);
            shown.answer == answer && first.is_some_and(|facts| facts.origin == live.facts.origin)
        };
        match out.iter_mut().find(same) {
            Some(shown) => shown.lives.push(live),
            None => out.push(Shown {
                lives: vec![live],
                answer,
                source: None,
                source_json: None,
                differs: false,
                silent: false,
                unsupported: false,
                origin: None,
                doubt: false,
            }),
        }
    }
    Ok(out)
}

fn configured(about: &About, question: Question) -> Result<Shown, Failure> {
    let loaded = load(about.policy.as_ref())?;
    let rules = subject(&loaded.policy, &about.subject)?;
    let of = Of {
        policy: &loaded.policy,
        rules: &rules,
        live: None,
    };
    Ok(Shown {
        lives: Vec::new(),
        answer: of.answer(question),
        source: None,
        source_json: None,
        differs: false,
        silent: false,
        unsupported: false,
        origin: Some(loaded.origin.to_string()),
        doubt: false,
    })
}

/// The policy that a run would be under.
pub(super) fn load(named: Option<&PathBuf>) -> Result<Loaded, Failure> {
    policyd::load(&policyd::Places::of_process(named.cloned())).map_err(|error| load_failure(&error))
}

pub(super) fn load_failure(error: &LoadError) -> Failure {
    match error {
        LoadError::Invalid { origin, diagnostics } => Failure::rejected(
            format!("policy of {origin} is invalid\n{}", draw(diagnostics)),
            "`nx policy validate` shows all of it",
        ),
        LoadError::Missing { .. } => Failure::new(Exit::Missing, error.to_string()).with_help(error.help()),
        other => Failure::rejected(other.to_string(), &other.help()),
    }
}

pub(super) fn subject(policy: &Policy, name: &str) -> Result<SubjectPolicy, Failure> {
    policy.subject(name).map_err(|error| {
        let known: Vec<&str> = policy.subjects().take(20).collect();
        let help = format!("{}; subjects that can run: {}", error.help(), known.join(", "));
        Failure::rejected(error.to_string(), &help)
    })
}
