//! A proof that somebody ends in the middle leaves nothing behind, and says nothing that was not proven.

use nx_sec_host::proof::left;
use rustix::process::{Pid, Signal, kill_process};
use security_v2_host::{Home, Key, Terminal, as_everybody, copy_program, eventually, spawn};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than any of them takes to end on a busy machine, and shorter than the twenty seconds that a proof would wait for.
const ENDED_WITHIN: Duration = Duration::from_secs(15);

/// Whether a proof's session is being held to what policy says: its journal has this many lines.
fn lines(home: &Home) -> usize {
    let journal = |proof: &PathBuf| std::fs::read_to_string(proof.join("journal/journal.jsonl")).unwrap_or_default();
    left(home).iter().map(|proof| journal(proof).lines().count()).sum()
}

/// Nothing of a proof: no directory, no process, no mount.
fn nothing_is_left(home: &Home) {
    assert_eq!(left(home), Vec::<PathBuf>::new());
    assert!(!home.state().join("nexus/proof").exists());
    home.assert_nothing_left();
}

/// Starts this, ends it by a signal once it is so far, and sees that it ends by that, quickly, without a word.
fn ends(home: &Home, command: &mut Command, signal: Signal, is_so_far: impl Fn() -> bool) {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    let mut child = spawn(command).unwrap();
    eventually("the proof is so far", || {
        is_so_far() || child.try_wait().unwrap().is_some()
    });
    let began = Instant::now();
    kill_process(Pid::from_child(&child), signal).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(began.elapsed() < ENDED_WITHIN, "{:?}", began.elapsed());
    assert_eq!(done.status.signal(), Some(signal.as_raw()), "{done:?}");
    assert_eq!(String::from_utf8_lossy(&done.stdout), "");
    nothing_is_left(home);
}

fn all(home: &Home) -> Command {
    let mut command = home.command(home.nx());
    command.args(["sec", "test", "all", "--subject", "demo"]);
    command
}

#[test]
fn a_signal_at_its_beginning_or_in_its_middle_ends_it_and_nothing_is_left() {
    as_everybody(|home| {
        ends(home, &mut all(home), Signal::QUIT, || !left(home).is_empty());
        ends(home, &mut all(home), Signal::TERM, || lines(home) > 0);
        ends(home, &mut all(home), Signal::HUP, || lines(home) > 50);
    });
}

#[test]
fn the_key_of_the_terminal_ends_it_and_nothing_is_left() {
    as_everybody(|home| {
        let mut terminal = Terminal::open(home);
        terminal.line("nx sec test all --subject demo");
        eventually("the proof is in its middle", || lines(home) > 20);
        terminal.press(Key::CtrlC);
        assert_eq!(terminal.status(), 130);
        assert_eq!(left(home), Vec::<PathBuf>::new());
        drop(terminal);
        nothing_is_left(home);
    });
}

#[test]
fn one_that_waits_for_its_session_does_not_wait_on() {
    as_everybody(|home| {
        let program = home.work().join("broken");
        copy_program(Path::new(env!("CARGO_BIN_EXE_broken")), &program).unwrap();
        for words in [
            &["deny", "--subject", "demo", "--syscall", "unshare"][..],
            &["egress", "--subject", "demo", "--to", "192.0.2.1:443"],
            &["quota", "--subject", "demo", "--area", "tmp"],
        ] {
            let mut command = home.command(&program);
            command.args(["never", "sec", "test"]).args(words);
            ends(home, &mut command, Signal::INT, || !left(home).is_empty());
        }
    });
}

#[test]
fn one_that_was_told_to_ignore_a_hang_up_goes_on() {
    as_everybody(|home| {
        let mut command = home.command("/usr/bin/nohup");
        command
            .arg(home.nx())
            .args(["sec", "test", "deny", "--subject", "demo", "--syscall", "unshare"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let child = spawn(&mut command).unwrap();
        eventually("it has begun", || !left(home).is_empty());
        kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
        let done = child.wait_with_output().unwrap();
        assert_eq!(done.status.code(), Some(0), "{done:?}");
        nothing_is_left(home);
    });
}
