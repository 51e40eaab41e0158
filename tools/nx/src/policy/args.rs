//! The words of `nx policy`.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// `nx policy`
#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    pub(crate) command: Option<PolicyCommand>,
    /// Say it as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl PolicyArgs {
    pub(crate) fn says_json(&self) -> bool {
        match &self.command {
            None => self.json,
            Some(PolicyCommand::Init(args)) => args.json || self.json,
            Some(PolicyCommand::Validate(args)) => args.json,
            Some(PolicyCommand::Show(args)) => args.json,
            Some(PolicyCommand::Explain(args)) => args.json,
            Some(PolicyCommand::Diff(args)) => args.json,
            Some(PolicyCommand::Snapshot(SnapshotCommand::Build(args) | SnapshotCommand::Verify(args))) => args.json,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Write a first tree that works at once, commented for its reader
    Init(InitArgs),
    /// Check a tree: everything that is wrong with it, and whether a run could start under it
    Validate(ValidateArgs),
    /// Show what subjects may do after domains, overrides and ceilings, each line with the file and line that made it so
    Show(ShowArgs),
    /// Say what would become of a request, by which rule, and what was considered
    ///
    /// Judged by the evaluators that enforce. QUESTION is one of: `connect tcp ADDRESS:PORT`, `connect tcp NAME:PORT`,
    /// `bind tcp ADDRESS:PORT`, `sendto udp ADDRESS:PORT`, `syscall NAME [ARGUMENT…]`, `write AREA SIZE`, `open PATH`.
    Explain(ExplainArgs),
    /// Compare what two trees mean: what became possible, and what no longer is
    ///
    /// Ends with 0 if they mean the same and with 3 if not; with `--fail-on wider` with 3 only if something became possible.
    Diff(DiffArgs),
    /// Make or check `policy.json` and `policy.bin`, which are made from a tree and never stand for it
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
}

/// `nx policy init`
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// For what kind of program
    #[arg(long, value_enum)]
    pub(crate) preset: Preset,
    /// What the subject is called [default: the preset's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) subject: Option<String>,
    /// Where the tree is written: a directory that is not there, or empty [default: ~/.config/nexus/policy]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Say what was made as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a first tree is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preset {
    /// A coding agent: writes the work directory, reaches what you name
    Agent,
    /// A build or test job: reads the work directory, writes scratch space, no network
    Ci,
    /// A service: keeps state, no work directory, no terminal
    Service,
}

/// `nx policy validate`
#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    /// The tree [default: the one that `nx run` would take]
    pub(crate) dir: Option<PathBuf>,
    /// Say it as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// `nx policy show`
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Whose [default: everybody's]
    pub(crate) subject: Option<String>,
    /// The tree [default: the one that `nx run` would take]
    #[arg(long, value_name = "DIR")]
    pub(crate) policy: Option<PathBuf>,
    /// Say it as JSON, one object for each subject and line
    #[arg(long)]
    pub(crate) json: bool,
}

/// `nx policy explain`
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The tree [default: the one that `nx run` would take]
    #[arg(long, value_name = "DIR")]
    pub(crate) policy: Option<PathBuf>,
    /// Say it as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// For `write`: what is used of the area already [default: nothing]
    #[arg(long, value_name = "SIZE")]
    pub(crate) used: Option<String>,
    /// For `open`: the work directory of the run
    #[arg(long, value_name = "DIR")]
    pub(crate) work: Option<PathBuf>,
    /// Who asks
    pub(crate) subject: String,
    /// What is asked
    #[arg(required = true, num_args = 1.., allow_hyphen_values = true, value_name = "QUESTION")]
    pub(crate) question: Vec<String>,
}

/// `nx policy diff`
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The tree before
    pub(crate) before: PathBuf,
    /// The tree after
    pub(crate) after: PathBuf,
    /// What ends with 3: any difference, or only what became possible
    #[arg(long, value_enum, default_value = "any")]
    pub(crate) fail_on: FailOn,
    /// Say it as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `nx policy diff` fails on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailOn {
    /// Any difference
    Any,
    /// Something became possible
    Wider,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Write `policy.json` and `policy.bin`
    Build(SnapshotArgs),
    /// Check that both are exactly what the tree gives
    Verify(SnapshotArgs),
}

/// `nx policy snapshot build`, `nx policy snapshot verify`
#[derive(Debug, Args)]
pub(crate) struct SnapshotArgs {
    /// The tree [default: the one that `nx run` would take]
    pub(crate) dir: Option<PathBuf>,
    /// Where the two files are [default: the tree's directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Say it as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
