//! The words of `nx sec`.

use super::about::About;
use super::audit::AuditArgs;
use super::counters::CountersArgs;
use super::export::ExportArgs;
use super::help;
use super::test::TestCommand;
use super::top::TopArgs;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum SecCommand {
    /// Show who runs: each session, its program, and what holds it
    ///
    /// Only sessions that the kernel vouches for are shown.
    #[command(after_long_help = help::PS)]
    Ps {
        /// Say it as one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Read the journal of what was denied
    ///
    /// One record a line, oldest first: its number, when, who, what became of it, why, and what was asked for.
    #[command(after_long_help = help::AUDIT)]
    Audit(AuditArgs),
    /// Count what was denied and let through, exactly, by subject
    ///
    /// Summed over all sessions and kept across restarts. Unlike the journal's records, counters are held back by no rate
    /// limit.
    #[command(after_long_help = help::COUNTERS)]
    Counters(CountersArgs),
    /// Write one bounded document for whoever looks into a trouble elsewhere
    ///
    /// Versions, posture, the policy's hashes, sessions, counters, and the journal's tail with the proof of its chain, as JSON.
    /// No environment, arguments, file contents or policy text; the same system gives the same bytes but for the journal.
    #[command(after_long_help = help::EXPORT)]
    Export(ExportArgs),
    /// Watch it live: who runs, what of each budget is used, and each deny as it comes
    ///
    /// Needs a terminal, of any size, but with `--json`. `q` ends it; Ctrl-Z stops it as any job. Changes nothing.
    #[command(after_long_help = help::TOP)]
    Top(TopArgs),
    /// Try what this machine can give, and say how to mend what it lacks
    ///
    /// A line for each thing that a sandbox needs: available, degraded or missing, and what to do about it.
    #[command(after_long_help = help::DOCTOR)]
    Doctor {
        /// Say it as one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show the policy that is in force, line by line, each with the rule that made it so
    #[command(subcommand, after_long_help = help::POLICY)]
    Policy(PolicyCommand),
    /// Show which syscalls the subject may make
    ///
    /// Read from the running sessions: groups folded, argument rules in words, and where it is known from. Where no session runs
    /// no filter is loaded; what policy says is shown all the same, and named so.
    #[command(after_long_help = help::SYSCALLS)]
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
    /// Read from the running sessions. Where none runs, what policy would show is shown all the same, and named so.
    #[command(after_long_help = help::SANDBOX)]
    Sandbox {
        #[command(flatten)]
        about: About,
    },
    /// Show the subject's budgets, and what of them is used
    ///
    /// What is used comes from the live ledger and from the kernel's counters of a session's own cgroup, and is named as that.
    /// Where there is neither, that is said, and why.
    #[command(after_long_help = help::QUOTAS)]
    Quotas {
        #[command(flatten)]
        about: About,
    },
    /// Show where the subject may connect and send, and which names are open now
    ///
    /// Rules by address and by name, ports to send from, and the addresses that a name was answered with and how long these
    /// stay open.
    #[command(after_long_help = help::EGRESS)]
    Egress {
        #[command(flatten)]
        about: About,
    },
    /// Prove it: a probe in the subject's real sandbox tries what policy speaks of
    ///
    /// Nothing is proven that was not seen from three sides: the errno, the journal's record, the counter's step. Running
    /// sessions are not disturbed, nothing is left behind, and nothing leaves the machine.
    #[command(subcommand, after_long_help = help::TEST)]
    Test(TestCommand),
}

/// `nx sec policy`
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Show it: of the running sessions, or of the tree or a verified snapshot
    ///
    /// Budgets, destinations, calls and paths, each with the file and line that set it. The first line says which it is.
    #[command(after_long_help = help::POLICY_SHOW)]
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

#[cfg(test)]
mod tests {
    use crate::cli::Cli;
    use clap::{Command, CommandFactory, Parser};

    /// Every command below this one that has none below itself, or all.
    fn walk(command: &Command, path: &str, out: &mut Vec<(String, Command)>) {
        for one in command.get_subcommands().filter(|one| one.get_name() != "help") {
            let path = format!("{path} {}", one.get_name());
            out.push((path.clone(), one.clone()));
            walk(one, &path, out);
        }
    }

    #[test]
    fn every_help_says_what_the_command_tells_gives_an_example_that_parses_and_its_exit_codes() {
        let nx = Cli::command();
        let sec = nx.find_subcommand("sec").unwrap();
        let mut all = vec![("nx sec".to_owned(), sec.clone())];
        walk(sec, "nx sec", &mut all);
        assert!(all.len() > 15, "{}", all.len());
        let mut problems = Vec::new();
        for (path, mut command) in all {
            let text = command.render_long_help().to_string();
            let has_below = command.get_subcommands().next().is_some();
            let leaf = !has_below;
            let examples: Vec<&str> = text
                .lines()
                .filter_map(|line| line.strip_prefix("  "))
                .filter(|line| line.starts_with("nx sec "))
                .collect();
            let mut lacks = |what: &str| problems.push(format!("{path}: {what}"));
            if examples.is_empty() {
                lacks("no example");
            }
            if !text.contains("Exit codes:\n") {
                lacks("no exit codes");
            }
            for example in examples {
                if leaf && !example.starts_with(&path) {
                    lacks(&format!("`{example}` is another command's"));
                }
                // What stands in a second column says what it is for.
                let words = example.split("  ").next().unwrap_or_default();
                if let Err(error) = Cli::try_parse_from(words.split_whitespace()) {
                    lacks(&format!("`{words}` does not parse: {error}"));
                }
            }
            for argument in command.get_arguments().filter(|argument| argument.get_id() != "help") {
                if argument.get_help().is_none() {
                    lacks(&format!("`{}` is not explained", argument.get_id()));
                }
            }
        }
        assert!(problems.is_empty(), "{problems:#?}");
    }
}
