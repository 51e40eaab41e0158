//! Whether nexus's own directories are the caller's alone: root that is given somebody else's place (`sudo -E` hands
//! `$XDG_STATE_HOME` on) would follow what that somebody planted there.

use super::failure::Failure;
use super::places::Places;
use policyd::{Distrust, Owners};
use rustix::fs::{FileType, Stat, lstat};
use std::path::Path;

/// What files of users show whom this user namespace has no number for; whose they really are cannot be told, and root
/// here has no power over them. user_namespaces(7)
const OVERFLOW_UID: u32 = 65_534;

/// Refuses a state directory, or one of nexus's directories in it, that somebody else could make lead elsewhere. What is
/// not there yet will be made by the caller, in what is checked here.
pub(crate) fn check(places: &Places) -> Result<(), Failure> {
    let owners = Owners {
        uid: rustix::process::geteuid().as_raw(),
    };
    let there = places.state.ancestors().find_map(|part| part.canonicalize().ok());
    for ancestor in there.iter().flat_map(|there| there.ancestors()) {
        judge(ancestor, |stat| owners.ancestor(stat))?;
    }
    // The whole may lie elsewhere by its owner's own link; its parts are made here and are never links.
    if let Ok(state) = places.state.canonicalize() {
        judge(&state, |stat| owners.member(stat))?;
    }
    for own in [&places.runtime, &places.journal(), &places.subjects()] {
        judge(own, |stat| owners.member(stat))?;
    }
    Ok(())
}

fn judge(path: &Path, trusted: impl Fn(&Stat) -> Result<(), Distrust>) -> Result<(), Failure> {
    // Not there, or not to be looked at: making or opening it says why.
    let Ok(stat) = lstat(path) else { return Ok(()) };
    let refuse = |why: String| {
        Err(Failure::rejected(
            format!(
                "nx keeps its journal and the subjects' files in `{}`, and {why}",
                path.display()
            ),
            "unset `XDG_STATE_HOME` (`sudo -E` hands the other user's on), or let it name a directory of your own",
        ))
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return refuse("it is no directory".to_owned());
    }
    match trusted(&stat) {
        Ok(()) | Err(Distrust::Owner { uid: OVERFLOW_UID, .. }) => Ok(()),
        Err(distrust) => refuse(distrust.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn places(state: &Path) -> Places {
        Places {
            state: state.to_owned(),
            runtime: state.join("run"),
            home: None,
        }
    }

    #[test]
    fn a_directory_of_ones_own_is_trusted_and_one_that_everybody_may_write_is_not() {
        let base = tempfile::tempdir().unwrap();
        let state = base.path().join("state/nexus");
        assert!(check(&places(&state)).is_ok(), "not there yet");
        std::fs::create_dir_all(&state).unwrap();
        assert!(check(&places(&state)).is_ok());
        for mode in [0o777, 0o702] {
            std::fs::set_permissions(&state, std::fs::Permissions::from_mode(mode)).unwrap();
            let said = check(&places(&state)).unwrap_err().message;
            assert!(said.contains("everybody may write it"), "{said}");
        }
        std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::set_permissions(base.path().join("state"), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(check(&places(&state)).is_err(), "what leads there counts too");
        std::fs::set_permissions(base.path().join("state"), std::fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(check(&places(&state)).is_ok(), "sticky, as /tmp");
    }

    #[test]
    fn a_planted_link_in_the_place_of_a_directory_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let state = base.path().join("nexus");
        let elsewhere = base.path().join("elsewhere");
        std::fs::create_dir_all(&state).unwrap();
        std::fs::create_dir(&elsewhere).unwrap();
        for name in ["run", "journal", "subjects"] {
            let planted = state.join(name);
            symlink(&elsewhere, &planted).unwrap();
            let said = check(&places(&state)).unwrap_err().message;
            assert!(said.contains("no directory") && said.contains(name), "{said}");
            std::fs::remove_file(&planted).unwrap();
            std::fs::create_dir(&planted).unwrap();
            assert!(check(&places(&state)).is_ok());
        }
    }
}
