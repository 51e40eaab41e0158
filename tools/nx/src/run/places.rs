//! Where nexus keeps what, and who runs.

use execd::Identity;
use std::path::PathBuf;

/// Directories of nexus itself.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// Journal, counters and the subjects' areas.
    pub(crate) state: PathBuf,
    /// Sockets.
    pub(crate) runtime: PathBuf,
    /// The caller's home.
    pub(crate) home: Option<PathBuf>,
}

impl Places {
    /// Root's stand where a system keeps such things; a user's follow the XDG base directory specification.
    ///
    /// # Errors
    /// What to set, where nothing tells a user's place.
    pub(crate) fn of_caller(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = absolute("HOME");
        let root = rustix::process::geteuid().is_root();
        let state = if let Some(base) = absolute("XDG_STATE_HOME") {
            base.join("nexus")
        } else if root {
            PathBuf::from("/var/lib/nexus")
        } else if let Some(home) = &home {
            home.join(".local/state/nexus")
        } else {
            return Err("neither `$XDG_STATE_HOME` nor `$HOME` names an absolute directory".into());
        };
        let runtime = state.join("run");
        Ok(Self { state, runtime, home })
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.state.join("journal")
    }

    /// Where the file servers keep each subject's files.
    pub(crate) fn subjects(&self) -> PathBuf {
        self.state.join("subjects")
    }
}

/// The first of the numbers that root's programs run under. A range that no distribution assigns: past containers' and
/// systemd's, below 2^31 (systemd's UIDS-GIDS document).
const ASSUMED_FIRST: u32 = 1_879_048_192;

/// How many there are; a subject's number follows from its name.
const ASSUMED_COUNT: u32 = 65_536;

/// Who the program runs as: an ordinary user as itself, root as a number of the subject's own.
pub(crate) fn identity(subject: &str) -> Identity {
    if !rustix::process::geteuid().is_root() {
        return Identity {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            assumed: false,
        };
    }
    // FNV-1a, 32 bits: the same on every machine and in every version.
    let hash = subject.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let number = ASSUMED_FIRST + hash % ASSUMED_COUNT;
    Identity {
        uid: number,
        gid: number,
        assumed: true,
    }
}

/// The name that the program sees itself under: the caller's login name, or the subject's for an assumed identity.
pub(crate) fn user_name(identity: Identity, subject: &str, passwd: &str) -> String {
    let uid = identity.uid.to_string();
    let fits = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    let known = || {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == uid && fits(name)).then(|| name.to_owned())
        })
    };
    let name = if identity.assumed { None } else { known() };
    name.unwrap_or_else(|| {
        if fits(subject) {
            subject.to_owned()
        } else {
            "user".to_owned()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_name_comes_from_passwd_and_an_assumed_one_from_the_subject() {
        let passwd = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n";
        let plain = Identity {
            uid: 1000,
            gid: 1000,
            assumed: false,
        };
        assert_eq!(user_name(plain, "demo", passwd), "ann");
        assert_eq!(user_name(Identity { uid: 1001, ..plain }, "demo", passwd), "demo");
        assert_eq!(user_name(Identity { assumed: true, ..plain }, "demo", passwd), "demo");
    }

    #[test]
    fn a_name_that_would_break_passwd_is_not_used() {
        let plain = Identity {
            uid: 7,
            gid: 7,
            assumed: false,
        };
        assert_eq!(user_name(plain, "a:b", "x y:x:7:7::/:/bin/sh"), "user");
    }
}
