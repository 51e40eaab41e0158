//! Why `nx` itself failed, as opposed to the program.

use crate::plain::plain_lines;
use rustix::io::Errno;
use std::fmt;

/// The exit codes of `nx`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The call's words are off.
    Usage = 2,
    /// Policy is invalid, or says no.
    Rejected = 3,
    /// Something that is needed is missing.
    Missing = 4,
    /// This machine cannot enforce what policy says.
    Unsupported = 6,
    /// A fault of nx's own.
    Internal = 7,
    /// The program is there but cannot be executed: what a shell says.
    NotExecutable = 126,
    /// There is no such program: what a shell says.
    NotFound = 127,
}

impl Exit {
    /// The status.
    #[must_use]
    pub(crate) const fn code(self) -> u8 {
        self as u8
    }
}

/// A failure with what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The status that `nx` ends with.
    pub(crate) exit: Exit,
    /// What went wrong, and where.
    pub(crate) message: String,
    /// What to do next.
    pub(crate) help: Option<String>,
}

impl Failure {
    /// Names in the message may come from anywhere, and are made plain; a line that one of them begins is indented.
    pub(crate) fn new(exit: Exit, message: String) -> Self {
        Self::drawn(exit, plain_lines(&message).replace('\n', "\n  "))
    }

    /// With a message that is plain already but for what nx itself paints.
    pub(crate) fn drawn(exit: Exit, message: String) -> Self {
        Self {
            exit,
            message,
            help: None,
        }
    }

    pub(crate) fn usage(message: String) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(crate) fn rejected(message: String, help: &str) -> Self {
        Self::new(Exit::Rejected, message).with_help(help)
    }

    pub(crate) fn unsupported(message: String, help: &str) -> Self {
        Self::new(Exit::Unsupported, message).with_help(help)
    }

    pub(crate) fn internal(message: String) -> Self {
        Self::new(Exit::Internal, message)
    }

    /// A failure that this machine may be the cause of: says the very words of `nx sec doctor`, where it finds a lack.
    ///
    /// The calling process must have one thread.
    pub(crate) fn of_machine(self) -> Self {
        let report = crate::doctor::examine();
        match report.first_refusal() {
            // Nothing can be installed that would make nx work inside nx.
            Some(words) if report.words_for("nesting").is_some() => Self {
                exit: Exit::Unsupported,
                ..self
            }
            .with_help(words),
            Some(words) => self.with_help(words),
            None => self.with_help("`nx sec doctor` finds nothing missing: this may be a fault of nx's own"),
        }
    }

    /// The same where the kernel said why: a process that may not open one more file, or send one, says nothing of the machine.
    pub(crate) fn of_machine_or_limit(self, errno: Option<i32>) -> Self {
        match errno.and_then(limit) {
            Some(help) => self.with_help(help),
            None => self.of_machine(),
        }
    }

    /// With what to do where it is nothing but a limit of the user's.
    pub(crate) fn of_limit(self, errno: Errno) -> Self {
        match limit(errno.raw_os_error()) {
            Some(help) => self.with_help(help),
            None => self,
        }
    }

    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(plain_lines(&help.into()));
        self
    }
}

/// What to do about a limit that the kernel named.
fn limit(errno: i32) -> Option<String> {
    match Errno::from_raw_os_error(errno) {
        Errno::MFILE => Some(super::open_files::help()),
        Errno::TOOMANYREFS => Some(super::open_files::help_on_their_way()),
        _ => None,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nx: {}", self.message)?;
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}
