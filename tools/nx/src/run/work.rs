//! Which directory is `work`, and what may be done with it.

use super::failure::Failure;
use execd::{Access, Identity, Work};
use nexus_policy::WorkMode;
use nexus_quota::Budget;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// `--work DIR[:ro|:metered|:unmetered]`, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) directory: PathBuf,
    pub(crate) mode: Option<WorkMode>,
}

impl Asked {
    pub(crate) fn parse(text: &str) -> Self {
        let (directory, mode) = match text.rsplit_once(':') {
            Some((directory, "ro")) => (directory, Some(WorkMode::ReadOnly)),
            Some((directory, "metered")) => (directory, Some(WorkMode::Metered)),
            Some((directory, "unmetered")) => (directory, Some(WorkMode::Unmetered)),
            _ => (text, None),
        };
        Self {
            directory: directory.into(),
            mode,
        }
    }
}

/// The work directory of this run; `None` if there is none, with a word for the user where that may surprise.
pub(crate) fn choose(
    asked: Option<&Asked>,
    policy: WorkMode,
    home: Option<&Path>,
) -> Result<(Option<Work>, Option<String>), Failure> {
    let mode = match (asked.and_then(|asked| asked.mode), policy) {
        (Some(asked), policy) if asked > policy => {
            return Err(Failure::rejected(
                format!("policy gives `work = \"{policy}\"`, which is less than `:{asked}`"),
                "set `work` for the subject in sandbox.toml, or ask for no more than that",
            ));
        }
        (Some(asked), _) => asked,
        (None, policy) => policy,
    };
    let (access, metered) = match mode {
        WorkMode::None if asked.is_some() => {
            return Err(Failure::rejected(
                "policy gives `work = \"none\"`: the program sees no directory of yours".into(),
                "leave `--work` out, or set `work` for the subject in sandbox.toml",
            ));
        }
        WorkMode::None => return Ok((None, None)),
        WorkMode::ReadOnly => (Access::ReadOnly, false),
        WorkMode::Metered => (Access::ReadWrite, true),
        WorkMode::Unmetered => (Access::ReadWrite, false),
    };
    let resolve = |path: &Path| {
        std::fs::canonicalize(path).map_err(|error| {
            Failure::usage(format!(
                "cannot use `{}` as the work directory: {error}",
                path.display()
            ))
        })
    };
    let Some(asked) = asked else {
        let current = std::env::current_dir().and_then(std::fs::canonicalize);
        let Ok(path) = current else {
            return Ok((
                None,
                Some("the working directory cannot be resolved and is not shown to the program".into()),
            ));
        };
        return Ok(implied(path, access, metered, home));
    };
    let path = resolve(&asked.directory)?;
    if !path.is_dir() {
        return Err(Failure::usage(format!("`{}` is not a directory", path.display())));
    }
    if path == Path::new("/") {
        return Err(Failure::usage(
            "`/` cannot be the work directory: that is the whole machine".into(),
        ));
    }
    let work = Work { path, access, metered };
    Ok((Some(work), None))
}

/// Why less can be written in a work directory than its mode makes one expect, and what to do about it.
pub(crate) fn surprise(work: &Work, identity: Identity, budget: &Budget) -> Option<String> {
    let path = work.path.display();
    if work.metered {
        let nothing = budget.hard_bytes == 0 || budget.hard_inodes == 0;
        return nothing.then(|| {
            format!(
                "nothing may grow in `{path}`: quotas.toml gives the subject no budget for `work`; give it `hard` and `inodes`"
            )
        });
    }
    if work.access == Access::ReadOnly || !identity.assumed {
        return None;
    }
    let found = std::fs::metadata(&work.path).ok()?;
    let writers = [
        (found.uid() == identity.uid, 0o200),
        (found.gid() == identity.gid, 0o020),
        (true, 0o002),
    ];
    let (_, bit) = writers.into_iter().find(|(is_theirs, _)| *is_theirs)?;
    (found.mode() & bit == 0).then(|| {
        format!(
            "the program runs as number {} and can only read `{path}`, which is {}'s; `--work DIR:metered` lends it to the program",
            identity.uid,
            if found.uid() == 0 { "root".to_owned() } else { found.uid().to_string() },
        )
    })
}

/// The directory that the run was started in, unless nobody can have meant to hand it over.
fn implied(path: PathBuf, access: Access, metered: bool, home: Option<&Path>) -> (Option<Work>, Option<String>) {
    let home = home.and_then(|home| std::fs::canonicalize(home).ok());
    let holds_home = home.is_some_and(|home| home.starts_with(&path));
    let system = [
        "/", "/usr", "/etc", "/proc", "/sys", "/dev", "/tmp", "/var/tmp", "/var", "/run", "/boot", "/state",
    ];
    let is_system = system.iter().any(|system| path == Path::new(system))
        || ["/proc", "/sys", "/dev", "/usr", "/state"]
            .iter()
            .any(|system| path.starts_with(system));
    if holds_home || is_system {
        let why = if holds_home {
            "holds your home directory"
        } else {
            "is the system's"
        };
        let note = format!(
            "`{}` {why} and is not shown to the program; name a directory with `--work DIR`",
            path.display()
        );
        return (None, Some(note));
    }
    (Some(Work { path, access, metered }), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suffix_is_a_mode_only_if_it_is_one() {
        let parse = |text| Asked::parse(text);
        assert_eq!(
            parse("a:ro"),
            Asked {
                directory: "a".into(),
                mode: Some(WorkMode::ReadOnly)
            }
        );
        assert_eq!(
            parse("a:unmetered"),
            Asked {
                directory: "a".into(),
                mode: Some(WorkMode::Unmetered)
            }
        );
        assert_eq!(
            parse("a:b"),
            Asked {
                directory: "a:b".into(),
                mode: None
            }
        );
        assert_eq!(
            parse("a"),
            Asked {
                directory: "a".into(),
                mode: None
            }
        );
    }

    #[test]
    fn asking_for_more_than_policy_gives_is_refused_and_for_less_is_not() {
        let there = tempfile::tempdir().unwrap();
        let ask = |mode| Asked {
            directory: there.path().into(),
            mode: Some(mode),
        };
        assert!(choose(Some(&ask(WorkMode::Unmetered)), WorkMode::ReadOnly, None).is_err());
        let (work, _) = choose(Some(&ask(WorkMode::ReadOnly)), WorkMode::Unmetered, None).unwrap();
        assert_eq!(work.unwrap().access, Access::ReadOnly);
        let (work, _) = choose(Some(&ask(WorkMode::Unmetered)), WorkMode::Unmetered, None).unwrap();
        assert_eq!(work.unwrap().access, Access::ReadWrite);
    }

    #[test]
    fn a_directory_of_the_systems_is_not_implied_and_one_beside_it_is() {
        let shown = |path: &str| implied(path.into(), Access::ReadOnly, false, None).0.is_some();
        for system in [
            "/",
            "/usr",
            "/usr/share/doc",
            "/etc",
            "/proc/1",
            "/sys",
            "/dev/shm",
            "/tmp",
            "/var/tmp",
            "/run",
            "/state/x",
        ] {
            assert!(!shown(system), "{system}");
        }
        for own in ["/usr2", "/srv/project", "/tmp/project", "/var/tmp/project", "/home/ann"] {
            assert!(shown(own), "{own}");
        }
    }

    #[test]
    fn a_directory_that_holds_the_home_is_not_implied_and_one_inside_it_is() {
        let home = tempfile::tempdir().unwrap();
        let home = std::fs::canonicalize(home.path()).unwrap();
        let inside = home.join("project");
        std::fs::create_dir(&inside).unwrap();
        let shown = |path: &Path| {
            implied(path.to_owned(), Access::ReadOnly, false, Some(&home))
                .0
                .is_some()
        };
        assert!(!shown(&home));
        assert!(!shown(home.parent().unwrap()));
        assert!(shown(&inside));
    }

    #[test]
    fn what_cannot_be_written_is_told_with_the_way_out_and_what_can_is_not() {
        let base = tempfile::tempdir().unwrap();
        let owner = std::fs::metadata(base.path()).unwrap();
        let work = |access, metered| Work {
            path: base.path().to_owned(),
            access,
            metered,
        };
        let other = Identity {
            uid: owner.uid() + 1,
            gid: owner.gid() + 1,
            assumed: true,
        };
        let owners = Identity {
            uid: owner.uid(),
            gid: owner.gid(),
            assumed: true,
        };
        let some = Budget {
            soft_bytes: None,
            hard_bytes: 4096,
            hard_inodes: 1,
        };
        let none = Budget { hard_inodes: 0, ..some };
        let open = work(Access::ReadWrite, false);
        let said = surprise(&open, other, &some).unwrap();
        assert!(said.contains("--work DIR:metered"), "{said}");
        assert_eq!(surprise(&open, owners, &some), None);
        let itself = Identity {
            assumed: false,
            ..other
        };
        assert_eq!(
            surprise(&open, itself, &some),
            None,
            "a user's own program is that user"
        );
        assert_eq!(surprise(&work(Access::ReadOnly, false), other, &some), None);
        let metered = work(Access::ReadWrite, true);
        assert_eq!(surprise(&metered, other, &some), None);
        let said = surprise(&metered, other, &none).unwrap();
        assert!(said.contains("no budget for `work`"), "{said}");
    }
}
