//! What the kernel says of a process: proc_pid_stat(5), proc_pid_status(5).

use super::facts::ProcessFact;
use std::io;

/// What is read of a file in `/proc` at most; such files are far smaller.
const PROC_BYTES_MAX: usize = 8192;

/// A process as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// What it does.
    pub state: ProcessState,
    /// Clock ticks since boot.
    pub started: u64,
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessState {
    /// It runs or waits.
    Alive,
    /// It was stopped by a signal or a debugger.
    Stopped,
    /// It ended and nobody has waited for it.
    Zombie,
}

/// What the kernel says of who a process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) name: String,
    pub(crate) parent: i32,
    pub(crate) uid: u32,
    /// `Seccomp`: 2 is a filter.
    pub(crate) seccomp: Option<u32>,
    /// `Seccomp_filters`, Linux 5.9.
    pub(crate) filters: Option<u32>,
    pub(crate) state: ProcessState,
    /// Whether it lives in a pid namespace below the reader's.
    pub(crate) nested: bool,
    pub(crate) no_new_privs: Option<bool>,
}

fn read(path: &str) -> io::Result<String> {
    use std::io::Read;
    let mut file = std::fs::File::open(path)?;
    let mut bytes = [0; PROC_BYTES_MAX];
    // Such a file comes whole with one read that has room for it; a second one would only say that this is its end.
    let read = file.read(&mut bytes)?;
    Ok(String::from_utf8_lossy(bytes.get(..read).unwrap_or_default()).into_owned())
}

impl ProcessState {
    fn of(letter: &str) -> Self {
        match letter.as_bytes().first() {
            Some(b'T' | b't') => Self::Stopped,
            Some(b'Z' | b'X') => Self::Zombie,
            _ => Self::Alive,
        }
    }
}

impl Process {
    /// Asks the kernel.
    ///
    /// # Errors
    /// `ENOENT` or `ESRCH` if there is none; `EACCES` where `/proc` hides it.
    pub fn of(pid: i32) -> io::Result<Self> {
        let text = read(&format!("/proc/{pid}/stat"))?;
        Self::parse(pid, &text).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    fn parse(pid: i32, text: &str) -> Option<Self> {
        // The name may hold anything, `)` too.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().take(20).collect();
        Some(Self {
            pid,
            state: ProcessState::of(fields.first()?),
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }

    /// Whether it is the very process that a fact names, and has not ended.
    #[must_use]
    pub fn is(&self, fact: ProcessFact) -> bool {
        self.pid == fact.pid && self.started == fact.started && self.state != ProcessState::Zombie
    }

    /// What names it.
    #[must_use]
    pub fn fact(&self) -> ProcessFact {
        ProcessFact {
            pid: self.pid,
            started: self.started,
        }
    }
}

impl Status {
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        let text = read(&format!("/proc/{pid}/status"))?;
        Self::parse(&text).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
        };
        let number = |name: &str| field(name).and_then(|value| value.parse::<u32>().ok());
        Some(Self {
            name: field("Name")?.to_owned(),
            parent: field("PPid")?.parse().ok()?,
            uid: field("Uid")?.split_ascii_whitespace().nth(1)?.parse().ok()?,
            seccomp: number("Seccomp"),
            filters: number("Seccomp_filters"),
            state: ProcessState::of(field("State")?),
            nested: field("NSpid").is_some_and(|pids| pids.split_ascii_whitespace().count() > 1),
            no_new_privs: number("NoNewPrivs").map(|value| value == 1),
        })
    }
}

/// The first child of a process's first thread, the oldest: `/proc/PID/task/PID/children`, which needs
/// `CONFIG_PROC_CHILDREN`; `Err` where the kernel lacks it.
pub(crate) fn first_child(pid: i32) -> io::Result<Option<i32>> {
    let text = read(&format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(text
        .split_ascii_whitespace()
        .next()
        .and_then(|number| number.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_forges_no_field() {
        let text = "7 (a) S 1 1 (b) R 42 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 99 0 0";
        let process = Process::parse(7, text).unwrap();
        assert_eq!((process.parent, process.started), (42, 99));
    }

    #[test]
    fn this_process_is_itself_and_no_later_one_of_its_number() {
        let me = Process::of(std::process::id().cast_signed()).unwrap();
        let fact = me.fact();
        assert!(me.is(fact));
        assert!(!me.is(ProcessFact {
            started: fact.started + 1,
            ..fact
        }));
        let status = Status::of(me.pid).unwrap();
        assert_eq!(status.parent, me.parent);
        assert_eq!(status.uid, rustix::process::geteuid().as_raw());
    }

    #[test]
    fn a_name_with_a_line_break_forges_no_field() {
        // The kernel writes it as `\n`, so a field begins a line only if the kernel wrote it; the first of a name counts.
        let text = "Name:\ta\\nUid:\\t0\nState:\tT (stopped)\nPPid:\t5\nUid:\t1000\t1000\t1000\t1000\nNSpid:\t9\t2\nSeccomp:\t2\n";
        let status = Status::parse(text).unwrap();
        assert_eq!((status.uid, status.seccomp), (1000, Some(2)));
        assert_eq!(status.state, ProcessState::Stopped);
        assert!(status.nested);
    }
}
