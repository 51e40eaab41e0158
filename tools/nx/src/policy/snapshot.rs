//! `nx policy snapshot`

use super::args::{SnapshotArgs, SnapshotCommand};
use super::json::VERSION;
use super::{Result, Said, in_force, tree};
use crate::run::{Exit, Failure};
use nexus_policy::{Policy, SnapshotError};
use serde_json::json;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

const JSON: &str = "policy.json";
const BIN: &str = "policy.bin";

pub(crate) fn snapshot(command: &SnapshotCommand) -> Result<Said> {
    let (SnapshotCommand::Build(args) | SnapshotCommand::Verify(args)) = command;
    let (policy, out) = subject_of(args)?;
    let version = policy.own_version();
    let word = if matches!(command, SnapshotCommand::Build(_)) {
        build(&policy, &out)?;
        "made"
    } else {
        verify(&policy, &out)?;
        "verified"
    };
    if args.json {
        let value = json!({
            "version": VERSION,
            "ok": true,
            "done": word,
            "policy": version.to_string(),
            "tree": policy.tree_hash().to_string(),
            "files": [out.join(JSON), out.join(BIN)],
        });
        return Ok(Said::fine(format!("{value}\n")));
    }
    Ok(Said::fine(format!(
        "{word} {} and {}\npolicy {version}\ntree   {}\n",
        out.join(JSON).display(),
        out.join(BIN).display(),
        policy.tree_hash()
    )))
}

/// The tree, and where its snapshot lies.
fn subject_of(args: &SnapshotArgs) -> Result<(Policy, PathBuf)> {
    if let Some(directory) = &args.dir {
        let out = args.out.clone().unwrap_or_else(|| directory.clone());
        return Ok((tree(directory)?, out));
    }
    let loaded = in_force(None)?;
    let out = args
        .out
        .clone()
        .or_else(|| loaded.origin.directory().map(Path::to_owned));
    let Some(out) = out else {
        let help = "name the tree, or a directory for the two files: `--out DIR`";
        let message = "the built-in policy has no directory to put a snapshot into".to_owned();
        return Err(Failure::usage(message).with_help(help).into());
    };
    // What is in force may have come from a snapshot, or stand under a ceiling: the files themselves are read again.
    match loaded.origin.directory() {
        Some(directory) => Ok((tree(directory)?, out)),
        None => Ok((loaded.policy, out)),
    }
}

/// What `policy.bin` in a tree's directory holds, once it is seen to be what the tree there gives.
pub(crate) fn verified(directory: &Path) -> Result<Policy> {
    let bytes = read(&directory.join(BIN))?;
    // Before the tree: bytes that are none are told of as such, also where there is no tree.
    let policy = Policy::from_snapshot(&bytes).map_err(|error| refused(&error))?;
    tree(directory)?
        .verify_snapshot(&bytes)
        .map_err(|error| refused(&error))?;
    Ok(policy)
}

fn refused(error: &SnapshotError) -> Failure {
    Failure::rejected(error.to_string(), error.help())
}

fn build(policy: &Policy, out: &Path) -> Result<()> {
    let bytes = policy.snapshot().map_err(|error| refused(&error))?;
    write(&out.join(JSON), policy.own_canonical_json().as_bytes())?;
    write(&out.join(BIN), &bytes)
}

/// Whole or not at all: a reader never sees half of it.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |error: std::io::Error| {
        Failure::rejected(
            format!("cannot write `{}`: {error}", path.display()),
            "name a directory that you may write: `--out DIR`",
        )
    };
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(name);
    let put = || {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&beside)?;
        file.write_all(bytes)?;
        std::fs::rename(&beside, path)
    };
    put().map_err(|error| {
        let _ = std::fs::remove_file(&beside);
        failed(error)
    })?;
    Ok(())
}

fn verify(policy: &Policy, out: &Path) -> Result<()> {
    let bytes = read(&out.join(BIN))?;
    policy.verify_snapshot(&bytes).map_err(|error| refused(&error))?;
    if read(&out.join(JSON))? != policy.own_canonical_json().as_bytes() {
        return Err(refused(&SnapshotError::Canonical).into());
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let missing = |error: std::io::Error| {
        Failure::new(Exit::Missing, format!("cannot read `{}`: {error}", path.display()))
            .with_help("make it: `nx policy snapshot build`")
    };
    // A pipe would be waited for.
    let kind = std::fs::metadata(path).map_err(missing)?;
    if !kind.is_file() {
        return Err(missing(std::io::Error::other("it is not a regular file")).into());
    }
    let file = std::fs::File::open(path).map_err(missing)?;
    let mut bytes = Vec::new();
    // One more than may be: the decoder says that it is too long.
    let limit = u64::try_from(nexus_policy::SNAPSHOT_BYTES_MAX)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).map_err(missing)?;
    Ok(bytes)
}
