//! `nx policy init`

use super::args::{InitArgs, Preset};
use super::json::VERSION;
use super::{Result, Said};
use crate::run::{Exit, Failure};
use nexus_policy::{MemoryTree, Policy, ROOT_FILE};
use serde_json::json;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// What stands in a preset's text for the subject's name.
const SUBJECT: &str = "@SUBJECT@";

/// What a preset says of a work directory that may be written, and what it says for root: root's programs run under a number
/// of their own, which may write root's files only where nx lends them to it, and that is where they are metered.
const OPEN_WORK: &str = "\
# The directory that a run works in may be written, and nobody counts the bytes. `work = \"ro\"` lets it only look.
work = \"unmetered\"
";
const ROOTS_WORK: &str = "\
# The directory that a run works in may be written, within its budget (quotas.toml). `work = \"ro\"` lets it only look.
# Unmetered would not do for root: the program runs under a number of its own, to which a metered directory is lent.
work = \"metered\"
";

struct Template {
    root: &'static str,
    quotas: &'static str,
    egress: &'static str,
    sandbox: &'static str,
}

const AGENT: Template = Template {
    root: include_str!("presets/agent/nexus.policy.toml"),
    quotas: include_str!("presets/agent/quotas.toml"),
    egress: include_str!("presets/agent/egress.toml"),
    sandbox: include_str!("presets/agent/sandbox.toml"),
};
const CI: Template = Template {
    root: include_str!("presets/ci/nexus.policy.toml"),
    quotas: include_str!("presets/ci/quotas.toml"),
    egress: include_str!("presets/ci/egress.toml"),
    sandbox: include_str!("presets/ci/sandbox.toml"),
};
const SERVICE: Template = Template {
    root: include_str!("presets/service/nexus.policy.toml"),
    quotas: include_str!("presets/service/quotas.toml"),
    egress: include_str!("presets/service/egress.toml"),
    sandbox: include_str!("presets/service/sandbox.toml"),
};

impl Preset {
    fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Ci => "ci",
            Self::Service => "service",
        }
    }

    /// The files of the tree: path and content. What every program of a command line needs is the shipped domain `tools`.
    pub(super) fn files(self, subject: &str, for_root: bool) -> Vec<(&'static str, String)> {
        let template = match self {
            Self::Agent => AGENT,
            Self::Ci => CI,
            Self::Service => SERVICE,
        };
        let shipped = |name: &str| {
            let tree = MemoryTree::shipped();
            let text = tree
                .files()
                .find(|(path, _)| *path == name)
                .map(|(_, text)| text.to_vec());
            String::from_utf8_lossy(&text.unwrap_or_default()).into_owned()
        };
        // A name with a dot stands in quotes, as TOML wants it.
        let quoted = format!("\"{SUBJECT}\"");
        let key = if subject.contains('.') {
            format!("\"{subject}\"")
        } else {
            subject.to_owned()
        };
        let own = |text: &str| text.replace(&quoted, &key);
        // The shipped text up to the subject that is only for README's first example.
        let before_demo = |text: String| match text.split_once("[subject.demo]") {
            Some((before, _)) => before.to_owned(),
            None => text,
        };
        vec![
            (ROOT_FILE, own(template.root)),
            ("quotas.toml", own(template.quotas)),
            (
                "egress.toml",
                format!("{}{}", before_demo(shipped("egress.toml")), own(template.egress)),
            ),
            ("abi.toml", shipped("abi.toml")),
            (
                "sandbox.toml",
                format!(
                    "{}\n{}",
                    shipped("sandbox.toml").trim_end(),
                    own(template.sandbox).replace(OPEN_WORK, if for_root { ROOTS_WORK } else { OPEN_WORK })
                ),
            ),
        ]
    }
}

pub(crate) fn init(args: &InitArgs) -> Result<Said> {
    let subject = args.subject.as_deref().unwrap_or(args.preset.name());
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    if !subject.bytes().all(is_plain) {
        let help = "use lower-case letters, digits, `-`, `_` and `.`, at most 64, a letter or digit first";
        let message = format!("`{}` is no name for a subject", super::plain(subject));
        return Err(Failure::usage(message).with_help(help).into());
    }
    let files = args.preset.files(subject, rustix::process::geteuid().is_root());
    // A name that is none is told in the words of the tree's own errors.
    let tree = MemoryTree::new(files.iter().map(|(path, text)| (*path, text.as_str())));
    let policy = Policy::load(&tree).map_err(|errors| {
        let first = errors.items().first();
        let message = first.map_or_else(String::new, |item| item.message.clone());
        let help = first.and_then(|item| item.help.clone()).unwrap_or_default();
        Failure::usage(message).with_help(help)
    })?;
    let directory = match &args.dir {
        Some(directory) => directory.clone(),
        None => home()?,
    };
    write(&directory, &files)?;
    // What was written is what was checked.
    let written = super::tree(&directory)?;
    if written.version() != policy.version() {
        return Err(Failure::internal(format!("`{}` changed while it was written", directory.display())).into());
    }
    if args.json {
        let value = json!({
            "version": VERSION,
            "ok": true,
            "done": "made",
            "subject": subject,
            "preset": args.preset.name(),
            "policy": policy.version().to_string(),
            "directory": directory,
            "files": files.iter().map(|(path, _)| *path).collect::<Vec<_>>(),
        });
        return Ok(Said::fine(format!("{value}\n")));
    }
    let option = match &args.dir {
        Some(directory) => format!(" --policy {}", directory.display()),
        None => String::new(),
    };
    Ok(Said::fine(format!(
        "made {} for subject `{subject}` (preset {})\n  nx run{option} {subject} -- CMD ARGS…\n  nx policy show{option} {subject}\n",
        directory.display(),
        args.preset.name()
    )))
}

fn home() -> std::result::Result<PathBuf, Failure> {
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .filter(|home| home.is_absolute());
    let home = home.ok_or_else(|| {
        Failure::new(Exit::Missing, "`$HOME` names no directory".to_owned()).with_help("say where: `--dir DIR`")
    })?;
    Ok(home.join(".config/nexus/policy"))
}

/// Writes the files into a directory that is not there or empty: nothing that somebody wrote is ever touched.
fn write(directory: &Path, files: &[(&str, String)]) -> std::result::Result<(), Failure> {
    let failed = |what: &Path, error: &std::io::Error| {
        Failure::rejected(
            format!("cannot write `{}`: {error}", what.display()),
            "name a directory that is not there yet, in one that you may write: `--dir DIR`",
        )
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory)
        .map_err(|error| failed(directory, &error))?;
    let mut entries = std::fs::read_dir(directory).map_err(|error| failed(directory, &error))?;
    if entries.next().is_some() {
        return Err(Failure::rejected(
            format!("`{}` is not empty", directory.display()),
            "a tree is never written over: name another directory with `--dir DIR`, or move this one away",
        ));
    }
    for (path, text) in files {
        let path = directory.join(path);
        let put = || {
            let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
            std::io::Write::write_all(&mut file, text.as_bytes())
        };
        put().map_err(|error| failed(&path, &error))?;
    }
    Ok(())
}
