//! A run that a test signals and listens to while it goes on.

use std::io::{BufRead, BufReader, Lines};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdout, ExitStatus, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::{Home, gate, users};

/// Runs a test in a home of everybody's own, and sees that nothing is left.
///
/// # Panics
/// Where something is left.
pub fn as_everybody(test: impl Fn(&Arc<Home>)) {
    for user in users() {
        eprintln!("as {user:?}");
        let home = Home::new(user);
        test(&home);
        home.becomes_empty();
        home.assert_nothing_left();
    }
}

/// A running `nx`, leader of a process group of its own.
#[derive(Debug)]
pub struct Running {
    /// The process that the test started.
    pub child: Child,
    out: Lines<BufReader<ChildStdout>>,
    err: Lines<BufReader<ChildStderr>>,
}

impl Running {
    /// Starts `nx run OPTIONS demo -- PROGRAM`, without input.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn start(home: &Home, options: &[&str], program: &[&str]) -> Self {
        let mut command = home.command(home.nx());
        command
            .arg("run")
            .args(options)
            .args(["demo", "--"])
            .args(program)
            .process_group(0);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = gate::spawn(&mut command).unwrap();
        let out = BufReader::new(child.stdout.take().unwrap()).lines();
        let err = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, out, err }
    }

    /// The next line that the program prints.
    ///
    /// # Panics
    /// Where there is none.
    pub fn line(&mut self) -> String {
        self.out.next().expect("another line").unwrap()
    }

    /// Waits for a line on stderr that holds this.
    ///
    /// # Panics
    /// Where it does not come.
    pub fn hears(&mut self, text: &str) {
        let heard = self.err.by_ref().map(Result::unwrap).find(|line| line.contains(text));
        assert!(heard.is_some(), "`{text}` does not come");
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a signal to `nx` alone.
    ///
    /// # Panics
    /// Where it is gone.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Sends a signal to the process group of `nx`.
    ///
    /// # Panics
    /// Where it is gone.
    pub fn signal_group(&self, signal: Signal) {
        kill_process_group(self.pid(), signal).unwrap();
    }

    /// What is left to print, and how it ended.
    ///
    /// # Panics
    /// Where it is no text.
    pub fn end(mut self) -> (Vec<String>, Vec<String>, ExitStatus) {
        let err = std::thread::spawn(move || self.err.map(Result::unwrap).collect());
        let out = self.out.map(Result::unwrap).collect();
        (out, err.join().unwrap(), self.child.wait().unwrap())
    }
}
