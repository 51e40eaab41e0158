//! `nx policy`: a tree is written, checked, shown, explained, compared and kept.

mod args;
mod diff;
mod explain;
mod init;
pub(crate) mod json;
mod overview;
pub(crate) mod show;
pub(crate) mod snapshot;
mod validate;

pub(crate) use args::PolicyArgs;

use crate::diagnostics::draw;
use crate::plain::{plain_json, plain_lines as plain};
use crate::run::{Exit, Failure};
use crate::sec::output;
use args::PolicyCommand;
use nexus_policy::{NoSubject, Policy, RuleInfo, SubjectPolicy};
use policyd::{LoadError, Loaded, Places};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

/// What a command has to say, and with what status `nx` ends.
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) code: u8,
}

impl Said {
    pub(crate) fn fine(text: String) -> Self {
        Self { text, code: 0 }
    }
}

/// Why a command did not do what it was asked.
pub(crate) enum Refusal {
    /// A tree has errors, or cannot be read.
    Load(LoadError),
    /// Anything else.
    Other(Failure),
}

impl From<LoadError> for Refusal {
    fn from(error: LoadError) -> Self {
        Self::Load(error)
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Other(failure)
    }
}

pub(crate) type Result<T> = std::result::Result<T, Refusal>;

/// Does what the command line says, and gives the status that `nx` ends with.
pub(crate) fn main(args: &PolicyArgs) -> u8 {
    let said = match &args.command {
        None => overview::overview(args.json),
        Some(PolicyCommand::Init(args)) => init::init(args),
        Some(PolicyCommand::Validate(args)) => validate::validate(args),
        Some(PolicyCommand::Show(args)) => show::show(args),
        Some(PolicyCommand::Explain(args)) => explain::explain(args),
        Some(PolicyCommand::Diff(args)) => diff::diff(args),
        Some(PolicyCommand::Snapshot(args)) => snapshot::snapshot(args),
    };
    match said {
        Ok(Said { text, code }) => {
            let text = match &args.command {
                _ if args.says_json() => plain_json(&text),
                // It paints its lines, each of which it wrote plainly.
                Some(PolicyCommand::Diff(_)) => text,
                _ => plain(&text),
            };
            output::print(text.as_bytes(), code)
        }
        Err(refusal) => refuse(&refusal, args.says_json()),
    }
}

fn refuse(refusal: &Refusal, as_json: bool) -> u8 {
    let code = match refusal {
        Refusal::Load(LoadError::Missing { .. }) => Exit::Missing.code(),
        Refusal::Load(_) => Exit::Rejected.code(),
        Refusal::Other(failure) => failure.exit.code(),
    };
    if as_json {
        let text = plain_json(&format!("{}\n", json::refusal(refusal, code)));
        return output::print(text.as_bytes(), code);
    }
    let text = match refusal {
        Refusal::Load(LoadError::Invalid { origin, diagnostics }) => {
            let errors = diagnostics.items().len() + diagnostics.left_out();
            let plural = if errors == 1 { "error" } else { "errors" };
            format!(
                "nx: policy of {} is invalid: {errors} {plural}\n{}",
                plain(&origin.to_string()),
                draw(diagnostics)
            )
        }
        Refusal::Load(error) => plain(&format!("nx: {error}\n  help: {}\n", error.help())),
        Refusal::Other(failure) => format!("{failure}\n"),
    };
    let _ = std::io::stderr().write_all(text.as_bytes());
    code
}

/// The policy that a run would be under.
fn in_force(named: Option<&PathBuf>) -> Result<Loaded> {
    Ok(policyd::load(&Places::of_process(named.cloned()))?)
}

/// A tree to look at.
fn tree(directory: &Path) -> Result<Policy> {
    Ok(policyd::load_untrusted(directory)?)
}

fn subject(policy: &Policy, name: &str) -> Result<SubjectPolicy> {
    policy.subject(name).map_err(|error: NoSubject| {
        let known: Vec<&str> = policy.subjects().take(20).collect();
        let help = format!("{}; subjects that can run: {}", error.help(), known.join(", "));
        Failure::rejected(error.to_string(), &help).into()
    })
}

/// Where a rule stands; what is built into nx has no file.
fn at(policy: &Policy, rule: nexus_abi::RuleRef) -> String {
    match (policy.rule(rule), nexus_abi_policy::floor_rule_name(rule)) {
        (Some(RuleInfo { at, .. }), _) => at,
        (None, Some(name)) => format!("built in ({name})"),
        (None, None) => String::new(),
    }
}

/// Colour only on a terminal, and not where somebody asked for none.
fn has_colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}
