//! What the program made in a work directory that was not there to be protected.
//!
//! Nothing keeps a name from being made in a directory that may be written. So what would make git run the program's
//! choice of commands outside the sandbox is looked for as soon as the program has ended.

use execd::{Access, GIT_POINTERS, Work, protects_git};
use rustix::fs::{CWD, RenameFlags};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What was not there when the session began.
#[derive(Debug, Default)]
pub(crate) struct Absent {
    repository: Option<PathBuf>,
    pointers: Vec<PathBuf>,
}

impl Absent {
    /// Looks, before anything is started, if policy protects git's files at all.
    pub(crate) fn before(work: Option<&Work>, protected: &BTreeSet<String>) -> Self {
        let Some(work) = work.filter(|work| work.access == Access::ReadWrite && protects_git(protected)) else {
            return Self::default();
        };
        let is_absent = |path: &PathBuf| path.symlink_metadata().is_err();
        let git = work.path.join(".git");
        if is_absent(&git) {
            return Self {
                repository: Some(git),
                pointers: Vec::new(),
            };
        }
        let pointers = GIT_POINTERS
            .iter()
            .map(|name| work.path.join(name))
            .filter(is_absent)
            .collect();
        Self {
            repository: None,
            pointers,
        }
    }

    /// Looks again: puts aside what git would follow, and says what there is to say, a line each.
    pub(crate) fn after(&self, session: &str) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(git) = self.repository.as_deref().filter(|git| git.symlink_metadata().is_ok()) {
            lines.push(format!(
                "the program made `{}`: its hooks and settings are the program's; look at them before you use git there",
                git.display()
            ));
        }
        for pointer in self
            .pointers
            .iter()
            .filter(|pointer| pointer.symlink_metadata().is_ok())
        {
            let aside = aside(pointer, session);
            lines.push(match rustix::fs::renameat_with(CWD, pointer, CWD, &aside, RenameFlags::NOREPLACE) {
                Ok(()) => format!(
                    "the program made `{}`, which sends git elsewhere for hooks and settings: it is `{}` now",
                    pointer.display(),
                    aside.display()
                ),
                Err(error) => format!(
                    "the program made `{}`, which sends git elsewhere for hooks and settings, and it cannot be put aside \
                     ({error}): remove it before you use git there",
                    pointer.display()
                ),
            });
        }
        lines
    }
}

fn aside(pointer: &Path, session: &str) -> PathBuf {
    let mut name = pointer.as_os_str().to_owned();
    name.push(".made-by-");
    name.push(session);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before(work: &Work) -> Absent {
        Absent::before(Some(work), &[".git/hooks".to_owned()].into())
    }

    fn place() -> (tempfile::TempDir, Work) {
        let holder = tempfile::tempdir().unwrap();
        let path = std::fs::canonicalize(holder.path()).unwrap();
        (
            holder,
            Work {
                path,
                access: Access::ReadWrite,
                metered: false,
            },
        )
    }

    #[test]
    fn what_sends_git_elsewhere_is_put_aside_if_the_program_made_it_and_stays_if_it_was_there() {
        let (_holder, work) = place();
        std::fs::create_dir(work.path.join(".git")).unwrap();
        std::fs::write(work.path.join(".git/config.worktree"), "").unwrap();
        let absent = before(&work);
        std::fs::write(work.path.join(".git/commondir"), "../evil").unwrap();
        let lines = absent.after("0123");
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(!work.path.join(".git/commondir").exists());
        assert!(work.path.join(".git/commondir.made-by-0123").exists());
        assert!(work.path.join(".git/config.worktree").exists());
    }

    #[test]
    fn a_new_repository_is_told_of_and_an_old_one_is_not() {
        let (_holder, work) = place();
        let absent = before(&work);
        assert_eq!(absent.after("0123"), Vec::<String>::new());
        std::fs::create_dir(work.path.join(".git")).unwrap();
        assert_eq!(absent.after("0123").len(), 1);
        assert_eq!(before(&work).after("0123"), Vec::<String>::new());
    }
}
