//! The words of `nx sec`.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum SecCommand {
    /// Try what this machine can give, and say how to mend what it lacks
    ///
    /// Ends with 0 if `nx run` works here, with 4 if something is missing.
    Doctor {
        /// Say it as one JSON object
        #[arg(long)]
        json: bool,
    },
}
