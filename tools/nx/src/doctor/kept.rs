//! What sessions left and keep: the registry's entries and the journal.

use super::child::{Refused, run};
use super::directories::state_directory;
use super::facts::Facts;
use super::report::{Mend, State};
use crate::registry;
use logd::{JournalError, VerifyError};
use nexus_sys::process::CloneFlags;
use rustix::io::Errno;
use std::path::PathBuf;

/// What begins an answer that is no good news; the rest of it is why.
const BAD: char = '!';

/// Looks in a process of its own, which a file system that does not answer may hold for two seconds and no longer.
fn look(look: impl FnOnce() -> Result<String, String>) -> Result<String, String> {
    let answer = run(CloneFlags::NONE, || {
        Ok::<_, Refused>(look().unwrap_or_else(|why| format!("{BAD}{why}")))
    });
    match answer {
        Ok(text) => match text.strip_prefix(BAD) {
            Some(why) => Err(why.to_owned()),
            None => Ok(text),
        },
        Err(failure) => Err(failure.to_string()),
    }
}

fn place(facts: &Facts, name: &str) -> Option<PathBuf> {
    let state = state_directory(facts.uid, facts.state_home.as_deref(), facts.home.as_deref())?;
    Some(state.join(name))
}

fn nowhere() -> State {
    State::degraded("there is no state directory: see `state-directory`", vec![])
}

/// Whether the entries of sessions say what the kernel says.
pub(crate) fn sessions(facts: &Facts) -> State {
    let Some(runtime) = place(facts, "run") else {
        return nowhere();
    };
    let seen = look(|| match registry::list(&runtime) {
        // How many run is no fact about the machine, and would make two reports differ.
        Ok(listing) if listing.troubles.is_empty() => Ok("the kernel vouches for every entry that there is".to_owned()),
        Ok(listing) => Err(format!(
            "{} entries of sessions cannot be vouched for, the first: {}",
            listing.troubles.len(),
            listing
                .troubles
                .first()
                .map_or("", |trouble| &*trouble.why)
                .escape_debug()
        )),
        Err(error) => Err(error.to_string().escape_debug().to_string()),
    });
    match seen {
        Ok(detail) => State::available(detail),
        Err(why) => State::degraded(why, vec![Mend::command("nx sec ps")]),
    }
}

/// Whether the journal's newest file holds; all of it takes longer than a doctor may.
pub(crate) fn journal(facts: &Facts) -> State {
    let Some(directory) = place(facts, "journal") else {
        return nowhere();
    };
    let seen = look(|| match logd::verify_newest(&directory) {
        Ok(report) if report.verified.records == 0 => {
            Ok("it has no records: none was written yet, or somebody removed them".to_owned())
        }
        Ok(_) => Ok("the chain of its newest file holds; `nx sec audit --verify` checks all of it".to_owned()),
        Err(VerifyError::Journal(JournalError::Io { what, errno, .. }))
            if errno == Errno::NOENT && what == "open the directory" =>
        {
            Ok("it has no records: none was written yet, or somebody removed them".to_owned())
        }
        Err(VerifyError::NoKey)
            if logd::read(&directory, logd::Filter::default()).is_ok_and(|mut all| all.next().is_none()) =>
        {
            Ok("it has no records: none was written yet, or somebody removed them".to_owned())
        }
        Err(error) => Err(error.to_string().escape_debug().to_string()),
    });
    match seen {
        Ok(detail) => State::available(detail),
        Err(why) => State::degraded(
            why,
            vec![
                Mend::command("nx sec audit --verify"),
                Mend::words(
                    "a journal whose chain is broken stays so: move it away with its key once you have looked at it",
                ),
            ],
        ),
    }
}
