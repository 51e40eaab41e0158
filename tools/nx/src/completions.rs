//! `nx completions`: what a shell needs to complete a command line, made of the very definitions that read it.

use crate::cli::Cli;
use clap::CommandFactory;
use clap_complete::{Shell, generate};
use std::io::Write;

/// `nx completions`.
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Does what the command line says, and gives the status that `nx` ends with.
pub(crate) fn completions(args: &CompletionsArgs) -> u8 {
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "nx", &mut script);
    // A reader that has seen enough is no failure.
    let _ = std::io::stdout().write_all(&script);
    0
}
