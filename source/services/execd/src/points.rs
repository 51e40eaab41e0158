//! Where parts of the view are mounted.

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// Something inside a mount of the view: by the mount's own descriptor. The path to it from the root may lead through an
/// area, which other sessions of the subject change meanwhile.
pub(crate) struct Inside<'p> {
    top: &'p OwnedFd,
    below: &'p Path,
}

impl Inside<'_> {
    pub(crate) fn open(&self) -> Result<OwnedFd, Errno> {
        open_beneath(self.top, self.below, OFlags::PATH | OFlags::NOFOLLOW)
    }
}

pub(crate) fn open_beneath(root: impl AsFd, at: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let relative = at.strip_prefix("/").unwrap_or(at);
    if relative.as_os_str().is_empty() {
        return rustix::fs::openat(root, ".", flags | OFlags::CLOEXEC, Mode::empty());
    }
    // Nothing that is already mounted may redirect what comes next: a work directory's links are its owner's.
    rustix::fs::openat2(
        root,
        relative,
        flags | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
}

/// Makes `at` and what leads to it; what is there already stays.
pub(crate) fn make_directory(root: &OwnedFd, at: &Path) -> Result<OwnedFd, Errno> {
    match open_beneath(root, at, OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let mut directory = rustix::fs::openat(root, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    for part in at.components() {
        let name = match part {
            Component::RootDir | Component::CurDir => continue,
            Component::Normal(name) => name,
            Component::ParentDir | Component::Prefix(_) => return Err(Errno::INVAL),
        };
        directory = make_in(&directory, name)?;
    }
    Ok(directory)
}

fn make_in(parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        // A directory of the host's that is shown read-only cannot get a new one; it may have it already.
        Err(Errno::ROFS | Errno::ACCESS | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    open_beneath(
        parent,
        Path::new(name),
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY,
    )
}

/// Where things are mounted. What lies in one directory comes in a row: it is looked up and made once.
pub(crate) struct Points<'r> {
    pub(crate) root: &'r OwnedFd,
    last: Option<(PathBuf, OwnedFd)>,
    /// The directories of the host's that were mounted, and the metered work directory.
    tops: Vec<(PathBuf, OwnedFd)>,
}

impl<'r> Points<'r> {
    pub(crate) const fn of(root: &'r OwnedFd) -> Self {
        Self {
            root,
            last: None,
            tops: Vec::new(),
        }
    }

    /// Something is about to be put at this place: what lies there or below is found anew afterwards, through it.
    pub(crate) fn leave(&mut self, at: &Path) {
        if self.last.as_ref().is_some_and(|(path, _)| path.starts_with(at)) {
            self.last = None;
        }
    }

    /// A directory was mounted here, by this descriptor.
    pub(crate) fn mounted(&mut self, at: PathBuf, top: OwnedFd) {
        self.tops.push((at, top));
    }

    /// What lies in something that was mounted.
    pub(crate) fn inside<'p>(&'p self, at: &'p Path) -> Inside<'p> {
        let found = self.tops.iter().rev();
        found
            .filter_map(|(top, mount)| Some((mount, at.strip_prefix(top).ok()?)))
            .min_by_key(|(_, below)| below.as_os_str().len())
            .map_or(
                Inside {
                    top: self.root,
                    below: at,
                },
                |(top, below)| Inside { top, below },
            )
    }

    pub(crate) fn parent<'p>(&mut self, at: &'p Path) -> Result<(&OwnedFd, &'p OsStr), Errno> {
        let name = at.file_name().ok_or(Errno::INVAL)?;
        let path = at.parent().unwrap_or(Path::new("/"));
        let made = match self.last.take() {
            Some(last) if last.0 == path => last,
            _ => (path.to_owned(), make_directory(self.root, path)?),
        };
        Ok((&self.last.insert(made).1, name))
    }

    /// Makes a directory and what leads to it.
    pub(crate) fn directory(&mut self, at: &Path) -> Result<OwnedFd, Errno> {
        if at.file_name().is_none() {
            return make_directory(self.root, at);
        }
        let (parent, name) = self.parent(at)?;
        make_in(parent, name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot set up has failed")]

    use super::*;

    #[test]
    fn what_lies_in_a_mount_is_found_by_its_descriptor_wherever_its_path_leads_meanwhile() {
        let holder = tempfile::tempdir().unwrap();
        let at = |name: &str| holder.path().join(name);
        for name in ["root/w/.git", "root/w/inner", "decoy/.git"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        let open = |name: &str| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(at(name), flags, Mode::empty()).unwrap()
        };
        let number = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
        let (root, git) = (open("root"), number(&open("root/w/.git")));
        let mut points = Points::of(&root);
        points.mounted("/w".into(), open("root/w"));
        points.mounted("/w/inner".into(), open("decoy"));
        std::fs::rename(at("root/w"), at("moved")).unwrap();
        std::fs::rename(at("decoy"), at("root/w")).unwrap();
        let found = |path: &str| points.inside(Path::new(path)).open().map(|fd| number(&fd));
        assert_eq!(found("/w/.git"), Ok(git));
        // By the innermost of them; what is in none, by its path.
        assert_eq!(found("/w/inner/.git"), Ok(number(&open("root/w/.git"))));
        assert_ne!(found("/w/inner/.git"), Ok(git));
        assert_eq!(found("/wide"), Err(Errno::NOENT));
        assert_eq!(found("/w"), Ok(number(&open("moved"))));
        // Without the mounts, what lies at the path now is found.
        let points = Points::of(&root);
        assert_ne!(
            points.inside(Path::new("/w/.git")).open().map(|fd| number(&fd)),
            Ok(git)
        );
    }
}
