//! The words of `nx sec`.

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
}
