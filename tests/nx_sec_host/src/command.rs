//! One call of `nx sec`.

use security_v2_host::{Home, spawn};
use serde_json::Value;
use std::fmt;
use std::process::{Command, Stdio};

/// What a command said.
#[derive(Debug)]
pub struct Said {
    /// How it ended.
    pub code: Option<i32>,
    /// On stdout.
    pub out: String,
    /// On stderr.
    pub err: String,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ended with {:?}\n{}\n{}", self.code, self.out, self.err)
    }
}

/// Runs a command of the home's user to its end, with nothing to read.
///
/// # Panics
/// Where it cannot be started.
#[must_use]
pub fn said(command: &mut Command) -> Said {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let done = spawn(command)
        .expect("it can be started")
        .wait_with_output()
        .expect("its output");
    Said {
        code: done.status.code(),
        out: String::from_utf8_lossy(&done.stdout).into_owned(),
        err: String::from_utf8_lossy(&done.stderr).into_owned(),
    }
}

/// `nx sec WORDS`, as the home's user.
///
/// # Panics
/// Where it cannot be started.
#[must_use]
pub fn sec(home: &Home, words: &[&str]) -> Said {
    said(home.command(home.nx()).arg("sec").args(words))
}

/// `nx sec WORDS --json`, which is one line with one object.
///
/// # Panics
/// Where it is not.
#[must_use]
pub fn sec_json(home: &Home, words: &[&str]) -> (Value, Said) {
    let said = sec(home, &[words, &["--json"]].concat());
    assert_eq!(said.out.lines().count(), 1, "{said}");
    let value: Value = serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert_eq!(value["version"], 1, "{said}");
    (value, said)
}
