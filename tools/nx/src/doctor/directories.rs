//! Where nx keeps what must stay.

use super::child::{Refused, run};
use super::facts::{Facts, quoted};
use super::report::{Mend, State};
use nexus_sys::process::CloneFlags;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The directory's name in whatever holds it.
const NAME: &str = "nexus";
const STATE_OF_ROOT: &str = "/var/lib/nexus";

/// The XDG Base Directory Specification: a path that is not absolute is to be ignored.
fn absolute(value: Option<&OsStr>) -> Option<&Path> {
    value.map(Path::new).filter(|path| path.is_absolute())
}

/// Where state is kept: `$XDG_STATE_HOME/nexus`, else `/var/lib/nexus` for root and `~/.local/state/nexus` for others;
/// `None` if there is no home. `uid` is the effective one.
#[must_use]
pub fn state_directory(uid: u32, state_home: Option<&OsStr>, home: Option<&OsStr>) -> Option<PathBuf> {
    match (absolute(state_home), uid) {
        (Some(path), _) => Some(path.join(NAME)),
        (None, 0) => Some(STATE_OF_ROOT.into()),
        (None, _) => absolute(home).map(|home| home.join(".local/state").join(NAME)),
    }
}

/// The part of a path that exists.
fn existing(path: &Path) -> Option<&Path> {
    path.ancestors().find(|path| path.symlink_metadata().is_ok())
}

/// Writes a file without a name, so that nothing is left behind.
fn write(directory: &Path) -> Result<(), Errno> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => rustix::io::write(&file, b"nx").map(drop),
        // A file system without nameless files: the right to write has to do.
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => {
            rustix::fs::access(directory, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
        }
        Err(errno) => Err(errno),
    }
}

/// `Ok` with words on what was seen. Every look happens in the child: a dead file server would hold it for ever.
fn usable(path: &Path) -> Result<String, String> {
    let look = || {
        let found = existing(path).ok_or_else(|| Refused::at("find it or what it would be in")(Errno::NOENT))?;
        let step = |what: &str| format!("{what} {}", quoted(found));
        let stat = rustix::fs::stat(found).map_err(Refused::at(&step("look at")))?;
        if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
            return Err(Refused::at(&step("write in"))(Errno::NOTDIR));
        }
        write(found).map_err(Refused::at(&step("write in")))?;
        Ok(if found == path { "can be written" } else { "can be made" }.to_owned())
    };
    match run(CloneFlags::NONE, look) {
        Ok(seen) => Ok(format!("{} {seen}", quoted(path))),
        Err(failure) => Err(format!("{} is of no use: {failure}", quoted(path))),
    }
}

pub(crate) fn state(facts: &Facts) -> State {
    let Some(path) = state_directory(facts.uid, facts.state_home.as_deref(), facts.home.as_deref()) else {
        return State::missing(
            "neither `XDG_STATE_HOME` nor `HOME` is set to an absolute path",
            vec![Mend::command(
                "export HOME=\"$(getent passwd \"$(id -u)\" | cut -d: -f6)\"",
            )],
        );
    };
    match usable(&path) {
        Ok(seen) => State::available(seen),
        Err(why) => State::missing(
            why,
            vec![Mend::words(
                "make that directory this user's own, or set `XDG_STATE_HOME` to one that is, by its absolute path",
            )],
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_follow_the_environment_and_ignore_relative_paths() {
        let state = |uid, state_home: Option<&str>, home: Option<&str>| {
            state_directory(uid, state_home.map(OsStr::new), home.map(OsStr::new))
        };
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(state(1000, Some("/s"), Some("/h")), path("/s/nexus"));
        assert_eq!(state(1000, Some("s"), Some("/h")), path("/h/.local/state/nexus"));
        assert_eq!(state(1000, Some(""), None), None);
        assert_eq!(state(1000, None, Some("h")), None);
        assert_eq!(state(0, None, Some("/h")), path("/var/lib/nexus"));
        assert_eq!(state(0, Some("/s"), None), path("/s/nexus"));
    }
}
