//! The command line's words.

use crate::plain::plain_lines;
use crate::{completions, man, policy, run, sec};
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::io::Write;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;

/// Run a program that you do not trust under one policy, with proof.
#[derive(Debug, Parser)]
#[command(name = "nx", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a program as a subject of the policy
    ///
    /// The program sees, writes, reaches and calls what the policy gives the subject, and nothing else. It ends as the
    /// program ends, with 128+n for a signal; its own failures are 2 (usage), 3 (policy says no), 4 (something is
    /// missing), 6 (this machine cannot enforce the policy), 7 (internal), 126 and 127 (no such program).
    Run(RunArgs),
    /// Write, check, show, explain and compare policy
    ///
    /// Without a command: which policy is in force here, and how to make one. Nothing here runs a program, and nothing
    /// needs a daemon. Ends with 0, or 2 (usage), 3 (the policy is invalid or says no; `diff`: the two differ), 4 (something
    /// is missing), 7 (internal).
    Policy(policy::PolicyArgs),
    /// See what is in force, and prove it
    ///
    /// What running programs may do, from the sources that hold them to it, what they were denied, and the proof of both.
    #[command(subcommand, after_long_help = sec::HELP)]
    Sec(sec::SecCommand),
    /// Print a manual page, or write all of them into a directory
    ///
    /// `nx man sec audit | man -l -` shows one.
    Man(man::ManArgs),
    /// Print what a shell needs to complete nx's command lines
    ///
    /// For bash: `nx completions bash > ~/.local/share/bash-completion/completions/nx`.
    Completions(completions::CompletionsArgs),
}

/// `nx run`.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// The policy's directory; without it $NEXUS_POLICY, ~/.config/nexus/policy, /etc/nexus/policy or the built-in one
    #[arg(long, value_name = "DIR")]
    pub(crate) policy: Option<PathBuf>,
    /// The directory that the program works in [default: the current one]; `:ro`, `:metered` or `:unmetered` within what
    /// policy gives
    #[arg(long, value_name = "DIR[:ro|:metered|:unmetered]")]
    pub(crate) work: Option<String>,
    /// Say nothing at the end
    #[arg(long, short, conflicts_with = "watch")]
    pub(crate) quiet: bool,
    /// Say each deny as it happens, on stderr
    #[arg(long)]
    pub(crate) watch: bool,
    /// Say it in JSON, one object a line
    #[arg(long)]
    pub(crate) json: bool,
    /// Tell this descriptor, one JSON object a line, what became of the start and the end
    #[arg(long, value_name = "N")]
    pub(crate) status_fd: Option<RawFd>,
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub(crate) print_plan: bool,
    /// Who the program runs as
    pub(crate) subject: String,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// Does what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    nexus_sys::heap::stay_small();
    let command = match Cli::try_parse() {
        Ok(Cli { command }) => command,
        Err(error) => return refuse(&error),
    };
    match command {
        Command::Run(args) => ExitCode::from(run::run(&args)),
        Command::Policy(args) => ExitCode::from(policy::main(&args)),
        Command::Sec(command) => ExitCode::from(sec::main(&command)),
        Command::Man(args) => ExitCode::from(man::man(&args)),
        Command::Completions(args) => ExitCode::from(completions::completions(&args)),
    }
}

/// Says what is wrong with the words, or what was asked for. Words that would speak to the terminal are told plainly, and
/// then without paint.
fn refuse(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    let plainly = plain_lines(&text);
    if !error.use_stderr() {
        // What was asked for.
        if let Err(failure) = sec::output::has_stdout() {
            let _ = writeln!(std::io::stderr(), "{failure}");
            return ExitCode::from(failure.exit.code());
        }
    }
    let said = if plainly == text {
        error.print()
    } else {
        std::io::stderr().write_all(plainly.as_bytes())
    };
    // Who closed the stream does not want to know; on a full disk what was asked for is not there.
    if said.is_err_and(|error| error.kind() != std::io::ErrorKind::BrokenPipe) && !error.use_stderr() {
        return ExitCode::from(run::Exit::Missing.code());
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(run::Exit::Usage.code()))
}

/// `nx` with these arguments after its name, as long as it is `nx sec test`, with something broken by a test.
pub(crate) fn prove_with(arguments: impl IntoIterator<Item = OsString>, tamper: &dyn sec::test::Tamper) -> u8 {
    let arguments = std::iter::once(OsString::from("nx")).chain(arguments);
    match Cli::try_parse_from(arguments) {
        Ok(Cli {
            command: Command::Sec(sec::SecCommand::Test(command)),
        }) => sec::test::main(&command, tamper),
        _ => run::Exit::Usage.code(),
    }
}
