//! The words of `nx sec`.

use super::test::TestCommand;
use clap::Subcommand;

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
    /// Try what this machine can give, and say how to mend what it lacks
    ///
    /// Ends with 0 if `nx run` works here, with 4 if something is missing.
    Doctor {
        /// Say it as one JSON object
        #[arg(long)]
        json: bool,
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
