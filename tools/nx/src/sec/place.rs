//! Where the journal and the counters are, and what is said where they cannot be read.

use crate::run::{Exit, Failure, Places, json_line, plain};
use logd::JournalError;
use serde_json::json;
use std::error::Error;
use std::io::Write;
use std::path::PathBuf;

/// The version of the shapes of `--json` that have a `version`.
pub(super) const JSON_VERSION: u32 = 1;

/// The journal's directory of this user, whether it is there or not.
pub(super) fn journal() -> Result<PathBuf, Failure> {
    Places::of_caller(|name| std::env::var(name).ok())
        .map(|places| places.journal())
        .map_err(|message| Failure::new(Exit::Missing, message).with_help("set `HOME` to your home's absolute path"))
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
        JournalError::Io { errno, .. } if matches!(*errno, rustix::io::Errno::MFILE | rustix::io::Errno::NOSPC) => {
            "this user follows too many files already: `sysctl fs.inotify` shows the limits"
        }
        _ => "`nx sec doctor` tries whether the state directory can be used",
    };
    Failure::new(Exit::Missing, whole(error)).with_help(help)
}

fn no_journal(error: &JournalError) -> Failure {
    Failure::new(Exit::Missing, format!("there is no journal yet: {}", whole(error))).with_help(
        "the first `nx run` makes it; another user's, or one under another `XDG_STATE_HOME`, is not looked for",
    )
}

/// Whether it is only that nothing was ever written.
pub(super) fn is_absent(error: &JournalError) -> bool {
    matches!(error, JournalError::Io { what: "open the directory", errno, .. } if *errno == rustix::io::Errno::NOENT)
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

/// Says why a command did not do what it was asked, and gives the status to end with.
pub(super) fn refuse(failure: &Failure, as_json: bool) -> u8 {
    let code = failure.exit.code();
    if as_json {
        let value = json!({
            "version": JSON_VERSION, "ok": false, "exit": code, "message": failure.message, "help": failure.help,
        });
        let _ = writeln!(std::io::stdout(), "{}", json_line(&value));
    } else {
        let text: Vec<String> = failure.to_string().lines().map(plain).collect();
        let _ = writeln!(std::io::stderr(), "{}", text.join("\n"));
    }
    code
}
