//! The words of `nx sec`.

use super::about::About;
use super::audit::AuditArgs;
use super::counters::CountersArgs;
use super::export::ExportArgs;
use super::test::TestCommand;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum SecCommand {
    /// Show who runs: each session, its program, and what holds it
    ///
    /// Only sessions that the kernel vouches for are shown. Ends with 0, or with 4 if something certain cannot be said of an
    /// entry, which is told then.
    Ps {
        /// Say it as one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Read the journal of what was denied
    ///
    /// One record a line, oldest first. Ends with 0, or 3 where lines of the journal are no records or its chain does not
    /// hold, 4 where it cannot be read.
    Audit(AuditArgs),
    /// Count what was denied and let through, exactly, by subject
    ///
    /// Summed over all sessions and kept across restarts. Unlike the journal's records, counters are held back by no rate
    /// limit. Ends with 0, or 3 for a subject that nobody knows, 4 where they cannot be read.
    Counters(CountersArgs),
    /// Write one bounded document for whoever looks into a trouble elsewhere
    ///
    /// Versions, posture, the policy's hashes, sessions, counters, and the journal's tail with the proof of its chain, as JSON.
    /// No environment, arguments, file contents or policy text; the same system gives the same bytes but for the journal.
    Export(ExportArgs),
    /// Watch it live: who runs, what of each budget is used, and each deny as it comes
    ///
    /// Needs a terminal, of any size. `q` ends it; Ctrl-Z stops it as any job. Changes nothing.
    Top,
    /// Try what this machine can give, and say how to mend what it lacks
    ///
    /// Ends with 0 if `nx run` works here, with 4 if something is missing.
    Doctor {
        /// Say it as one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show the policy that is in force, line by line, each with the rule that made it so
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Show which syscalls the subject may make
    ///
    /// Read from the running sessions: groups folded, argument rules in words. Ends with 6 where no session runs, because
    /// then no filter is loaded; what policy says is shown all the same, and named so.
    Syscalls {
        #[command(flatten)]
        about: About,
        /// Every call by its name, without groups
        #[arg(long)]
        all: bool,
        /// Read the filter back from the kernel and hold it to what was loaded: needs root; stops the program for a moment, at
        /// which a waiting call of it may return EINTR
        #[arg(long)]
        read_back: bool,
    },
    /// Show which paths and sockets the subject sees, what holds it there, and what is neither metered nor confined
    ///
    /// Ends with 6 where no session runs; what policy would show is shown all the same, and named so.
    Sandbox {
        #[command(flatten)]
        about: About,
    },
    /// Show the subject's budgets, and what of them is used
    ///
    /// What is used comes from the live ledger alone. Where no file server of the subject runs there is none, and that is said.
    Quotas {
        #[command(flatten)]
        about: About,
    },
    /// Show where the subject may connect and send, and which names are open now
    Egress {
        #[command(flatten)]
        about: About,
    },
    /// Prove it: a probe in the subject's real sandbox tries what policy speaks of
    ///
    /// Nothing is proven that was not seen from three sides: the errno, the journal's record, the counter's step. Running
    /// sessions are not disturbed, nothing is left behind, and nothing leaves the machine. Ends with 0 (proven), 2 (usage),
    /// 3 (not proven, or policy allows what was to be seen denied), 4 (something is missing), 6 (unsupported here),
    /// 7 (internal).
    #[command(subcommand)]
    Test(TestCommand),
}

/// `nx sec policy`
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Show it: of the running sessions, or of the tree or a verified snapshot
    Show(PolicyShowArgs),
}

/// `nx sec policy show`
#[derive(Debug, Args)]
pub(crate) struct PolicyShowArgs {
    /// Whose [default: of everybody who runs; where nobody does, of all that the tree names]
    #[arg(long, value_name = "NAME")]
    pub(crate) subject: Option<String>,
    /// The tree in place of running sessions
    #[arg(long, value_name = "DIR", conflicts_with = "snapshot")]
    pub(crate) policy: Option<PathBuf>,
    /// `policy.bin` of this directory in place of running sessions, once it is seen to be what the tree there gives
    #[arg(long, value_name = "DIR")]
    pub(crate) snapshot: Option<PathBuf>,
    /// Say it as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
