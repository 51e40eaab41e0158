//! The work directory as the file server gets it, where it is metered.

use super::failure::Failure;
use execd::{AreaMount, Entry, Identity, Plan};
use nexus_sys::mount::lend;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vfsd::WorkConfig;

/// What to ask of the file server; `None` where no work directory is metered.
pub(crate) fn config(plan: &Plan) -> Result<Option<WorkConfig>, Failure> {
    let path = plan.view.iter().find_map(|entry| match entry {
        Entry::Area {
            area: AreaMount::Work,
            at,
        } => Some(at),
        _ => None,
    });
    let Some(path) = path else {
        return Ok(None);
    };
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        Failure::unsupported(
            format!(
                "`work = \"metered\"` cannot be enforced for `{}`: {what}: {error}",
                path.display()
            ),
            "name another directory with `--work DIR`, or ask for less: `--work DIR:ro`",
        )
    };
    let opened = open(path).map_err(|error| failed("it cannot be opened", &error))?;
    let directory = for_file_server(opened, plan.identity)
        .map_err(|error| failed("its files cannot be lent to the subject's own user", &error))?;
    Ok(Some(WorkConfig {
        directory: Arc::new(directory),
        held: held(path, &plan.view),
    }))
}

/// The very directory that was resolved when the plan was made: a link on the way to it now is somebody's trick.
fn open(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::openat2(
        CWD,
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
}

/// An ordinary user's file server is that user. Root's is a number of the subject's own, to which the directory is lent:
/// on a mount for nobody else, what belongs to the directory's owner belongs to that number, and what that number makes is
/// the owner's on disk. No other file of the owner's is in its reach, and no file changes hands.
fn for_file_server(directory: OwnedFd, identity: Identity) -> std::io::Result<OwnedFd> {
    if !identity.assumed {
        return Ok(directory);
    }
    let stat = rustix::fs::fstat(&directory)?;
    if stat.st_uid == identity.uid && stat.st_gid == identity.gid {
        return Ok(directory);
    }
    lend(&directory, (stat.st_uid, stat.st_gid), (identity.uid, identity.gid))
}

/// Every name on the way to what is mounted inside the work directory, parents first.
fn held(top: &Path, view: &[Entry]) -> Vec<(u32, Vec<u8>)> {
    let mut numbers: BTreeMap<PathBuf, u32> = BTreeMap::new();
    let mut held = Vec::new();
    for entry in view {
        let at = match entry {
            Entry::PinArea { at, .. } | Entry::Hide { at } => at,
            _ => continue,
        };
        let Ok(below) = at.strip_prefix(top) else { continue };
        let (mut parent, mut so_far) = (0, PathBuf::new());
        for part in below.components() {
            so_far.push(part);
            parent = *numbers.entry(so_far.clone()).or_insert_with(|| {
                held.push((parent, part.as_os_str().as_encoded_bytes().to_vec()));
                // A list that does not fit 32 bits is refused for its length.
                u32::try_from(held.len()).unwrap_or(u32::MAX)
            });
        }
    }
    held
}

#[cfg(test)]
mod tests {
    use super::*;
    use execd::Access;

    #[test]
    fn every_name_on_the_way_is_held_once_and_after_what_it_stands_in() {
        let pin = |at: &str| Entry::PinArea {
            at: at.into(),
            access: Access::ReadOnly,
        };
        let view = [
            pin("/w/.git"),
            pin("/w/.git/config"),
            pin("/w/.git/hooks"),
            pin("/elsewhere"),
            Entry::Hide { at: "/w/a/b".into() },
        ];
        let names: Vec<(u32, &[u8])> = vec![(0, b".git"), (1, b"config"), (1, b"hooks"), (0, b"a"), (4, b"b")];
        let held = held(Path::new("/w"), &view);
        let held: Vec<(u32, &[u8])> = held.iter().map(|(parent, name)| (*parent, name.as_slice())).collect();
        assert_eq!(held, names);
    }
}
