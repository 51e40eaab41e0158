//! What sessions left and keep: the registry's entries and the journal.

use super::child::{Refused, run};
use super::directories::state_directory;
use super::facts::{Facts, quoted};
use super::report::{Mend, State};
use crate::registry;
use logd::{JournalError, VerifyError};
use nexus_sys::counters::CounterReader;
use nexus_sys::process::CloneFlags;
use rustix::io::Errno;
use std::path::{Path, PathBuf};

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

/// Whether a run could write the journal, and whether its newest file holds; all of it takes longer than a doctor may.
pub(crate) fn journal(facts: &Facts) -> State {
    let Some(directory) = place(facts, "journal") else {
        return nowhere();
    };
    const NO_RECORDS: &str = "it has no records: none was written yet, or somebody removed them";
    let seen = look(|| {
        if let Some((path, why)) = in_the_way(&directory) {
            // No path holds a NUL.
            return Err(format!("{IN_THE_WAY}{}\0{why}", path.display()));
        }
        match logd::verify_newest(&directory) {
            Ok(report) if report.verified.records == 0 => Ok(NO_RECORDS.to_owned()),
            Ok(_) => Ok("the chain of its newest file holds; `nx sec audit --verify` checks all of it".to_owned()),
            Err(VerifyError::Journal(JournalError::Io { what, errno, .. }))
                if errno == Errno::NOENT && what == "open the directory" =>
            {
                Ok(NO_RECORDS.to_owned())
            }
            Err(VerifyError::NoKey)
                if logd::read(&directory, logd::Filter::default()).is_ok_and(|mut all| all.next().is_none()) =>
            {
                Ok(NO_RECORDS.to_owned())
            }
            Err(error) => Err(error.to_string().escape_debug().to_string()),
        }
    });
    let why = match seen {
        Ok(detail) => return State::available(detail),
        Err(why) => why,
    };
    if let Some((path, why)) = why.strip_prefix(IN_THE_WAY).and_then(|rest| rest.split_once('\0')) {
        let mend = format!("mv -- {} {}", shell_quoted(path), shell_quoted(&format!("{path}.away")));
        return State::missing(why, vec![Mend::command(mend)]);
    }
    State::degraded(
        why,
        vec![
            Mend::command("nx sec audit --verify"),
            Mend::words(
                "a journal whose chain is broken stays so: move it away with its key once you have looked at it",
            ),
        ],
    )
}

/// What begins a reason that starts with the path to move away.
const IN_THE_WAY: &str = "\u{1}";

/// Something that stands where the journal or its counters would be written, so that no run can begin; and why it is none.
/// Nothing is opened that could wait.
fn in_the_way(directory: &Path) -> Option<(PathBuf, String)> {
    let told = |path: &Path, what: &str| Some((path.to_owned(), format!("{} is {what}", quoted(path))));
    let kind = |path: &Path| path.symlink_metadata().ok().map(|found| found.file_type());
    if kind(directory)?.is_dir() {
        let files = ["journal.jsonl", "journal.lock", logd::KEY_FILE, COUNTERS];
        for path in files.map(|name| directory.join(name)) {
            if kind(&path).is_some_and(|kind| !kind.is_file()) {
                return told(&path, "no regular file: the journal cannot be written");
            }
        }
        let counters = directory.join(COUNTERS);
        return match CounterReader::open(&counters)
            .and_then(|reader| reader.map_or(Ok(()), |reader| reader.read_all().map(drop)))
        {
            Ok(()) => None,
            Err(error) => told(&counters, &format!("of no use: {error}")),
        };
    }
    told(directory, "no directory: the journal cannot be written")
}

/// The file of the counters beside the journal.
const COUNTERS: &str = "counters";

/// A word that a POSIX shell takes as it stands.
fn shell_quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_to_a_shell_whatever_is_in_it() {
        assert_eq!(shell_quoted("/a b/$c"), "'/a b/$c'");
        assert_eq!(shell_quoted("it's"), "'it'\\''s'");
    }
}
