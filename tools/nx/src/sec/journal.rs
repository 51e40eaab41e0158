//! Where the journal and the counters are, and what is said where they cannot be read.

use super::output::places;
use crate::registry::SESSIONS;
use crate::run::{Exit, Failure};
use logd::JournalError;
use std::error::Error;
use std::path::PathBuf;

/// The journal's directory of this user, whether it is there or not.
pub(super) fn directory() -> Result<PathBuf, Failure> {
    Ok(places()?.journal())
}

/// The journal cannot be read.
pub(super) fn unreadable(error: &JournalError) -> Failure {
    let help = match error {
        JournalError::Io { what, errno, .. } if *errno == rustix::io::Errno::NOENT && what.contains("directory") => {
            return no_journal(error);
        }
        JournalError::Busy { .. } => {
            "a process that was stopped in the middle of writing may hold it: find it with `fuser -v` on that file, and let it \
             go on"
        }
        JournalError::NotOurs { .. } => "look at it before you move it: nx made neither its owner nor its mode so",
        _ => "`nx sec doctor` tries whether the state directory can be used",
    };
    Failure::new(Exit::Missing, whole(error)).with_help(help)
}

fn no_journal(error: &JournalError) -> Failure {
    if let Err(removed) = never_was() {
        return removed;
    }
    Failure::new(Exit::Missing, format!("there is no journal yet: {}", whole(error))).with_help(
        "the first `nx run` makes it; another user's, or one under another `XDG_STATE_HOME`, is not looked for",
    )
}

/// Whether it is only that nothing was ever written.
pub(super) fn is_absent(error: &JournalError) -> bool {
    matches!(error, JournalError::Io { what: "open the directory", errno, .. } if *errno == rustix::io::Errno::NOENT)
}

/// Nothing was ever written where there is no journal, unless something shows that a session was there: its subject's areas, or an
/// entry of who runs.
pub(super) fn never_was() -> Result<(), Failure> {
    let places = places()?;
    let holds = |directory: PathBuf| std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some());
    if !holds(places.subjects()) && !holds(places.runtime.join(SESSIONS)) {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Missing,
        "there is no journal, and no counters, though a subject was here: somebody removed them, or its first start was refused".to_owned(),
    )
    .with_help(
        "where somebody did, what was denied before is gone; a session that runs writes where nobody finds it: end it and begin it anew",
    ))
}

/// An error and what it comes from, in one line.
pub(super) fn whole(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}
