//! The words of `nx sec test`.

use crate::sec::help;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum TestCommand {
    /// See a call denied: the errno, the record and the counter's step
    #[command(after_long_help = help::TEST_DENY)]
    Deny(DenyArgs),
    /// See what becomes of a connection: refused, with errno, record and counter, or arrived at a listener of the proof's own
    #[command(after_long_help = help::TEST_EGRESS)]
    Egress(EgressArgs),
    /// See an area stop at its budget's last byte and last inode
    #[command(after_long_help = help::TEST_QUOTA)]
    Quota(QuotaArgs),
    /// See all of it: every claim at the edges of what policy says
    #[command(after_long_help = help::TEST_ALL)]
    All(AllArgs),
}

/// What every proof takes.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Whose policy is seen in force
    #[arg(long, value_name = "SUBJECT")]
    pub(crate) subject: String,
    #[command(flatten)]
    pub(crate) how: How,
}

#[derive(Debug, Args)]
pub(crate) struct How {
    /// The tree [default: the one that `nx run` would take]
    #[arg(long, value_name = "DIR")]
    pub(crate) policy: Option<PathBuf>,
    /// How to say it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
    /// The same as `--format json`
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
}

impl How {
    pub(crate) fn format(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }
}

/// How findings are said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A line for each claim, fit for reading and for grep
    Text,
    /// One object, with a version
    Json,
    /// Test Anything Protocol, version 14
    Tap,
    /// JUnit's XML, as CI servers read it
    Junit,
}

/// `nx sec test deny`
#[derive(Debug, Args)]
pub(crate) struct DenyArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// The call, by the name of its manual page
    #[arg(long, value_name = "NAME")]
    pub(crate) syscall: String,
    /// Its arguments, numbers or known constants [default: some that policy denies and that do no harm if nobody does]
    #[arg(value_name = "ARGUMENT", allow_hyphen_values = true)]
    pub(crate) arguments: Vec<String>,
}

/// `nx sec test egress`
#[derive(Debug, Args)]
pub(crate) struct EgressArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Where to: `203.0.113.7:443` or `[2001:db8::1]:443`
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) to: String,
    /// Over UDP [default: TCP]
    #[arg(long)]
    pub(crate) udp: bool,
    /// What must become of it [default: what policy says]
    #[arg(long, value_enum)]
    pub(crate) expect: Option<Expected>,
}

/// What the caller wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Expected {
    /// It arrives
    Allow,
    /// It is refused
    Deny,
}

/// `nx sec test quota`
#[derive(Debug, Args)]
pub(crate) struct QuotaArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Which of the subject's areas
    #[arg(long, value_enum)]
    pub(crate) area: TestedArea,
}

/// An area whose budget can be used up without anybody noticing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TestedArea {
    /// What dies with the subject's last session
    Tmp,
    /// What is kept
    State,
}

/// `nx sec test all`
#[derive(Debug, Args)]
pub(crate) struct AllArgs {
    /// Whose policy is seen in force [default: every subject's]
    #[arg(long, value_name = "SUBJECT")]
    pub(crate) subject: Option<String>,
    /// Only these parts of it [default: every part]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART")]
    pub(crate) part: Vec<Part>,
    #[command(flatten)]
    pub(crate) how: How,
}

/// A part of what policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Each call, and the edges of its arguments
    Syscall,
    /// The edges of addresses and ports, names, and ports to send from
    Egress,
    /// The edges of budgets
    Quota,
    /// Paths, devices and Unix sockets that are shown, and that are not
    View,
    /// Shared memory, semaphores, queues and memory files
    Ipc,
    /// Memory, processes, open files and core files
    Limits,
    /// Privileges, namespaces, keys, and the second fence
    Fences,
}
