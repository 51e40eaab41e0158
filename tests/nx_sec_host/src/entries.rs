//! Entries of sessions that nobody runs.

use nx::registry::{FACTS_VERSION, Facts, Filter, Listener, Mask, Process, ProcessFact, SESSIONS, list};
use security_v2_host::{no_child_is_starting, spawn};
use std::path::Path;
use std::process::{Child, Command};

/// A process that lives until it is ended, and how a fact names it.
///
/// # Panics
/// Where it cannot be started.
#[must_use]
pub fn lives() -> (Child, ProcessFact) {
    let child = spawn(Command::new("/bin/sleep").arg("1000")).expect("it can be started");
    let fact = Process::of(child.id().cast_signed()).expect("a child").fact();
    (child, fact)
}

/// A process that has ended.
///
/// # Panics
/// Where it cannot be started or ended.
#[must_use]
pub fn ended() -> ProcessFact {
    let (mut child, fact) = lives();
    child.kill().expect("a child can be ended");
    child.wait().expect("a child");
    fact
}

/// Facts in which this process is supervisor, and a process of the same parent is init.
///
/// # Panics
/// Where the kernel does not say who this process is.
#[must_use]
pub fn facts(session: &str, subject: &str) -> Facts {
    let me = Process::of(std::process::id().cast_signed()).expect("this process");
    let front = Process::of(me.parent).expect("this process");
    Facts {
        version: FACTS_VERSION,
        nx: "0".to_owned(),
        subject: subject.to_owned(),
        domain: None,
        session: session.to_owned(),
        supervisor: me.fact(),
        front: front.fact(),
        init: me.fact(),
        uid: rustix::process::geteuid().as_raw(),
        gid: 0,
        assumed: false,
        mode: "enforce".to_owned(),
        policy: "0".repeat(64),
        origin: "a test".to_owned(),
        profile_name: "default".to_owned(),
        profile_id: Some("0".repeat(16)),
        filter: Filter {
            hash: "0".repeat(64),
            instructions: 1,
        },
        syscalls: Mask::default(),
        work: None,
        backends: Vec::new(),
        started_ms: 0,
    }
}

/// Where entries of a test's own lie.
///
/// # Panics
/// Where no directory can be made.
#[must_use]
pub fn place() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Closes a socket, so that nobody has it any more: a child of another test's that is about to be executed has all that
/// this process had when it was made.
pub fn close(socket: Listener) {
    drop(socket);
    no_child_is_starting();
}

/// The sessions that are shown, where nothing is uncertain.
///
/// # Panics
/// Where something is.
#[must_use]
pub fn names(runtime: &Path) -> Vec<String> {
    let listing = list(runtime).unwrap();
    assert_eq!(listing.troubles, [], "nothing is uncertain");
    listing.live.into_iter().map(|live| live.facts.session).collect()
}

/// Why nothing certain is said of the only entry.
///
/// # Panics
/// Where that is not how it is.
#[must_use]
pub fn trouble(runtime: &Path) -> String {
    let listing = list(runtime).unwrap();
    assert_eq!(listing.live.len(), 0);
    let [trouble] = listing.troubles.as_slice() else {
        panic!("{:?}", listing.troubles);
    };
    trouble.why.clone()
}

/// Puts other facts in the place of a session's.
///
/// # Panics
/// Where they cannot be written.
pub fn rewrite(runtime: &Path, session: &str, text: &str) {
    std::fs::write(runtime.join(SESSIONS).join(format!("{session}.json")), text).unwrap();
}
