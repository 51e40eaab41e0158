//! What stays as it is inside a work directory that the program may write.

use crate::plan::{Access, Entry};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Files that send git elsewhere for its settings and hooks. Git makes neither in a plain repository; where they are, they
/// are as dangerous as what they replace (gitrepository-layout(5)).
pub const GIT_POINTERS: [&str; 2] = [".git/commondir", ".git/config.worktree"];

/// Whether a policy's `work_protect` speaks of git's own files. Where it does not, git's are like all others.
#[must_use]
pub fn protects_git(work_protect: &BTreeSet<String>) -> bool {
    work_protect.iter().any(|path| Path::new(path).starts_with(".git"))
}

/// Why nothing keeps the program from changing a protected path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unprotected {
    /// It is not there, although what it stands in is: the program could make it.
    Missing(PathBuf),
    /// It is a link to something that is not there: the program could make that.
    Nowhere(PathBuf),
    /// It cannot be looked at. A session before this one may have seen to that: whoever owns a directory can close it now
    /// and open it again later.
    Unseen(PathBuf),
}

/// Mounts over parts of a work directory, each of a part over itself.
///
/// A directory that only contains a mount point can be renamed, and another put in its place; one that is a mount point
/// cannot. So everything on the way to what is protected becomes one.
#[derive(Debug)]
pub(crate) struct Pins {
    top: PathBuf,
    // Sorted, so that parents come before what is in them.
    pins: BTreeMap<PathBuf, Access>,
    hides: Vec<PathBuf>,
}

impl Pins {
    /// None yet, inside this directory.
    pub(crate) fn new(top: &Path) -> Self {
        Self {
            top: top.to_owned(),
            pins: BTreeMap::new(),
            hides: Vec::new(),
        }
    }

    /// Makes a path read-only. One that lies elsewhere needs nothing, nor does one in a directory that is not there.
    pub(crate) fn protect(&mut self, path: &Path) -> Result<(), Unprotected> {
        let Ok(below) = path.strip_prefix(&self.top) else {
            return Ok(());
        };
        let mut parts = below.components();
        let mut at = self.top.clone();
        while let Some(part) = parts.next() {
            at.push(part);
            let rest = parts.as_path();
            let last = rest.as_os_str().is_empty();
            let found = match std::fs::symlink_metadata(&at) {
                Err(error) if error.kind() == ErrorKind::NotFound && last => return Err(Unprotected::Missing(at)),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                Err(_) => return Err(Unprotected::Unseen(at)),
                Ok(found) => found,
            };
            if found.is_symlink() {
                self.pins.insert(at.clone(), Access::ReadOnly);
                return match std::fs::canonicalize(&at) {
                    // Where it leads has no link in it, so this ends.
                    Ok(target) => self.protect(&target.join(rest)),
                    Err(error) if error.kind() == ErrorKind::NotFound => Err(Unprotected::Nowhere(at)),
                    Err(_) => Err(Unprotected::Unseen(at)),
                };
            }
            if last || !found.is_dir() {
                // A file where a directory is expected stands for it: git's `.git` of a linked worktree.
                self.pins.insert(at, Access::ReadOnly);
                return Ok(());
            }
            self.pins.entry(at.clone()).or_insert(Access::ReadWrite);
        }
        Ok(())
    }

    /// The same for a path that need not be there.
    pub(crate) fn protect_if_there(&mut self, path: &Path) -> Result<(), Unprotected> {
        match self.protect(path) {
            Err(Unprotected::Missing(_)) => Ok(()),
            other => other,
        }
    }

    /// Covers a directory of nexus's own. Its path has no links.
    pub(crate) fn hide(&mut self, path: &Path) {
        let Ok(below) = path.strip_prefix(&self.top) else {
            return;
        };
        let mut at = self.top.clone();
        for part in below.parent().into_iter().flat_map(Path::components) {
            at.push(part);
            self.pins.entry(at.clone()).or_insert(Access::ReadWrite);
        }
        self.hides.push(path.to_owned());
    }

    /// As entries of a view, to be mounted in this order; of the host's own files, or of the area that serves them.
    pub(crate) fn into_entries(self, metered: bool) -> Vec<Entry> {
        let read_only: Vec<PathBuf> = self
            .pins
            .iter()
            .filter(|(_, access)| **access == Access::ReadOnly)
            .map(|(at, _)| at.clone())
            .collect();
        let inside = |at: &Path| read_only.iter().any(|outer| at.starts_with(outer));
        let pins = self.pins.into_iter().map(|(at, access)| {
            // What only leads to something is no more writable than what it lies in.
            let access = if inside(&at) { Access::ReadOnly } else { access };
            if metered {
                return Entry::PinArea { at, access };
            }
            Entry::Pin {
                source: at.clone(),
                at,
                access,
            }
        });
        pins.chain(self.hides.into_iter().map(|at| Entry::Hide { at }))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot set up has failed")]

    use super::*;

    fn tree() -> (tempfile::TempDir, PathBuf) {
        let holder = tempfile::tempdir().unwrap();
        let top = std::fs::canonicalize(holder.path()).unwrap();
        std::fs::create_dir_all(top.join(".git/hooks")).unwrap();
        std::fs::write(top.join(".git/config"), "").unwrap();
        (holder, top)
    }

    fn access(pins: Pins, top: &Path) -> Vec<(String, Access)> {
        let name = |at: &Path| at.strip_prefix(top).unwrap().display().to_string();
        let entries = pins.into_entries(false).into_iter();
        entries
            .filter_map(|entry| match entry {
                Entry::Pin { at, access, .. } => Some((name(&at), access)),
                Entry::Hide { at } => Some((format!("hide {}", name(&at)), Access::ReadOnly)),
                _ => None,
            })
            .collect()
    }

    fn of(top: &Path, paths: &[&str]) -> Vec<(String, Access)> {
        let mut pins = Pins::new(top);
        for path in paths {
            pins.protect(&top.join(path)).unwrap();
        }
        access(pins, top)
    }

    use Access::{ReadOnly as RO, ReadWrite as RW};

    #[test]
    fn what_leads_to_a_protected_path_cannot_be_moved_and_stays_writable() {
        let (_holder, top) = tree();
        let expected = [
            (".git".to_owned(), RW),
            (".git/config".into(), RO),
            (".git/hooks".into(), RO),
        ];
        assert_eq!(of(&top, &[".git/hooks", ".git/config"]), expected);
    }

    #[test]
    fn nothing_below_a_protected_path_is_writable_whichever_was_named_first() {
        let (_holder, top) = tree();
        std::fs::create_dir_all(top.join("a/b/c")).unwrap();
        let expected = [("a".to_owned(), RO), ("a/b".into(), RO), ("a/b/c".into(), RO)];
        assert_eq!(of(&top, &["a", "a/b/c"]), expected);
        assert_eq!(of(&top, &["a/b/c", "a"]), expected);
    }

    #[test]
    fn a_file_in_the_place_of_a_directory_is_protected_itself() {
        let (_holder, top) = tree();
        std::fs::remove_dir_all(top.join(".git")).unwrap();
        std::fs::write(top.join(".git"), "gitdir: elsewhere\n").unwrap();
        assert_eq!(of(&top, &[".git/hooks"]), [(".git".to_owned(), RO)]);
    }

    #[test]
    fn a_link_is_protected_and_so_is_where_it_leads() {
        let (_holder, top) = tree();
        std::fs::rename(top.join(".git"), top.join("repository")).unwrap();
        std::os::unix::fs::symlink("repository", top.join(".git")).unwrap();
        let expected = [
            (".git".to_owned(), RO),
            ("repository".into(), RW),
            ("repository/hooks".into(), RO),
        ];
        assert_eq!(of(&top, &[".git/hooks"]), expected);
    }

    #[test]
    fn a_path_that_the_program_could_make_is_told_and_one_without_its_directory_is_not() {
        let (_holder, top) = tree();
        std::fs::remove_dir(top.join(".git/hooks")).unwrap();
        let mut pins = Pins::new(&top);
        assert_eq!(
            pins.protect(&top.join(".git/hooks")),
            Err(Unprotected::Missing(top.join(".git/hooks")))
        );
        assert_eq!(pins.protect(&top.join("absent/hooks")), Ok(()));
        assert_eq!(pins.protect(Path::new("/elsewhere/hooks")), Ok(()));
    }

    #[test]
    fn a_link_that_leads_nowhere_is_told_also_where_nothing_need_be() {
        let (_holder, top) = tree();
        std::fs::remove_dir(top.join(".git/hooks")).unwrap();
        std::os::unix::fs::symlink("../later", top.join(".git/hooks")).unwrap();
        let mut pins = Pins::new(&top);
        let told = Err(Unprotected::Nowhere(top.join(".git/hooks")));
        assert_eq!(pins.protect(&top.join(".git/hooks")), told);
        assert_eq!(pins.protect_if_there(&top.join(".git/hooks")), told);
        assert_eq!(pins.protect_if_there(&top.join(".git/absent")), Ok(()));
    }

    #[test]
    fn what_cannot_be_looked_at_is_told_also_where_nothing_need_be() {
        let (_holder, top) = tree();
        // Whoever runs the tests: nobody can look through a link that leads to itself, or below a name that is too long.
        std::fs::remove_dir_all(top.join(".git")).unwrap();
        std::os::unix::fs::symlink(".git", top.join(".git")).unwrap();
        let mut pins = Pins::new(&top);
        let told = Err(Unprotected::Unseen(top.join(".git")));
        assert_eq!(pins.protect(&top.join(".git/hooks")), told);
        assert_eq!(pins.protect_if_there(&top.join(".git/hooks")), told);
        let long = top.join("n".repeat(300));
        assert_eq!(pins.protect(&long.join("hooks")), Err(Unprotected::Unseen(long)));
    }

    #[test]
    fn what_leads_to_a_hidden_directory_cannot_be_moved() {
        let (_holder, top) = tree();
        let mut pins = Pins::new(&top);
        pins.hide(&top.join(".local/state/nexus"));
        let expected = [
            (".local".to_owned(), RW),
            (".local/state".into(), RW),
            ("hide .local/state/nexus".into(), RO),
        ];
        assert_eq!(access(pins, &top), expected);
    }
}
