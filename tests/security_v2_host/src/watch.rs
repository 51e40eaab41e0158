//! An eye on everything that a home's sessions started, inside the sandbox too.

use std::path::Path;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::{DEADLINE, Home, processes};

/// The variable that marks what a home's commands start. Policy passes `LC_*` on, so the programs have it too.
pub(crate) const MARK: &str = "LC_NEXUS_TEST";

/// A process that a home's commands started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: Pid,
    /// Its name.
    pub name: String,
    /// Its state, a letter. proc_pid_stat(5).
    pub state: char,
}

impl Home {
    /// Every process that this home's commands started and that has not been reaped, as far as the caller may look.
    ///
    /// # Panics
    /// Without /proc.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        let mark = format!("{MARK}={}", self.mark());
        let state = processes::variable_of(&self.state());
        let entries = std::fs::read_dir("/proc").expect("/proc");
        entries
            .flatten()
            .filter_map(|entry| look(&entry.path(), &[&mark, &state], self.root()))
            .collect()
    }

    /// The states of the processes of this name.
    #[must_use]
    pub fn states(&self, name: &str) -> String {
        self.processes()
            .iter()
            .filter(|process| process.name == name)
            .map(|process| process.state)
            .collect()
    }

    /// Sends a signal to every process of this name, of which there must be one.
    ///
    /// # Panics
    /// Where there is none, or it is gone.
    pub fn signal(&self, name: &str, signal: Signal) {
        let processes = self.processes();
        let mut named = processes.iter().filter(|process| process.name == name).peekable();
        assert!(named.peek().is_some(), "no `{name}` among {processes:?}");
        for process in named {
            kill_process(process.pid, signal).expect("a process that was there a moment ago");
        }
    }

    /// Waits until every `nx` waits for something to happen, as it does while the program runs.
    pub fn nx_waits(&self) {
        eventually("nx waits", || {
            let states = self.states("nx");
            !states.is_empty() && states.chars().all(|state| state == 'S')
        });
    }

    /// Waits until some `nx` is a stopped job, or until none is.
    pub fn nx_stops(&self, stops: bool) {
        eventually("nx stops or goes on", || self.states("nx").contains('T') == stops);
    }

    /// Waits until every process is gone.
    ///
    /// # Panics
    /// Where that takes too long.
    pub fn becomes_empty(&self) {
        let mut left = Vec::new();
        let start = Instant::now();
        loop {
            left.clone_from(&self.processes());
            if left.is_empty() {
                return;
            }
            assert!(start.elapsed() < DEADLINE, "still there: {left:?}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

fn look(path: &Path, marks: &[&str], root: &Path) -> Option<Process> {
    let number: i32 = path.file_name()?.to_str()?.parse().ok()?;
    if !processes::belongs(path, marks, root) {
        return None;
    }
    let stat = std::fs::read_to_string(path.join("stat")).ok()?;
    let (name, rest) = stat.split_once(" (")?.1.rsplit_once(") ")?;
    Some(Process {
        pid: Pid::from_raw(number)?,
        name: name.to_owned(),
        state: rest.chars().next()?,
    })
}

/// Waits for a condition that nothing tells of.
///
/// # Panics
/// Where it does not come true.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < DEADLINE, "not in time: {what}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
