//! `nx completions`: what a shell needs to complete a command line, made of the very definitions that read it.

use crate::cli::Cli;
use crate::sec::output;
use clap::CommandFactory;
use clap_complete::{Shell, generate};

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
    output::print(&script, 0)
}
