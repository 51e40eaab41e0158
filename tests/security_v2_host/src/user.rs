//! Who runs `nx`.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The environment variable that makes a test fail that can't run here.
pub const REQUIRE_LIVE: &str = "NEXUS_REQUIRE_LIVE";

/// A user and group that nobody is and no distribution assigns, for tests that root starts.
pub const ORDINARY_ID: u32 = 64_321;

/// Who runs `nx`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum User {
    /// Root, whose programs get a number of their own.
    Root,
    /// Somebody without privilege, by number.
    Ordinary(u32),
}

impl User {
    /// The number.
    #[must_use]
    pub const fn id(self) -> u32 {
        match self {
            Self::Root => 0,
            Self::Ordinary(id) => id,
        }
    }

    /// Makes a command start as this user. Where the test is that user already, nothing is to be done; where it is root,
    /// the standard library also gives up root's groups.
    pub fn starts(self, command: &mut Command) {
        if rustix::process::geteuid().is_root()
            && let Self::Ordinary(id) = self
        {
            command.gid(id).uid(id);
        }
    }

    /// Why nothing live can run as this user here.
    fn obstacle(self) -> Option<String> {
        let device = match std::fs::metadata("/dev/fuse") {
            Ok(device) => device,
            Err(error) => return Some(format!("no `/dev/fuse`: {error}")),
        };
        if self != Self::Root && device.permissions().mode() & 0o006 != 0o006 {
            return Some("`/dev/fuse` is not open to everybody: `chmod 666 /dev/fuse`".to_owned());
        }
        let mut namespaces = Command::new("unshare");
        namespaces
            .args(["--user", "--net", "true"])
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        self.starts(&mut namespaces);
        match crate::gate::spawn(&mut namespaces).and_then(|mut child| child.wait()) {
            Ok(status) if !status.success() => Some("this machine gives no user namespaces".to_owned()),
            // Without the tool to ask with, the test itself finds out.
            Ok(_) | Err(_) => None,
        }
    }
}

/// Everybody whom a live test runs as here: root and an ordinary user for a test that is root, itself otherwise; without
/// those for whom this machine lacks something, which is said on stderr.
///
/// # Panics
/// With `NEXUS_REQUIRE_LIVE=1`, where something is lacking.
#[must_use]
pub fn users() -> Vec<User> {
    static LACKING: OnceLock<Vec<(User, Option<String>)>> = OnceLock::new();
    let known = LACKING.get_or_init(|| {
        let own = rustix::process::geteuid().as_raw();
        let all = if own == 0 {
            vec![User::Root, User::Ordinary(ORDINARY_ID)]
        } else {
            vec![User::Ordinary(own)]
        };
        all.into_iter().map(|user| (user, user.obstacle())).collect()
    });
    let required = std::env::var_os(REQUIRE_LIVE).is_some_and(|value| value == "1");
    let mut able = Vec::new();
    for (user, obstacle) in known {
        match obstacle {
            None => able.push(*user),
            Some(why) => {
                assert!(!required, "live tests as {user:?} cannot run: {why}");
                say_skipped(&format!("live tests as {user:?} did NOT run: {why}"));
            }
        }
    }
    able
}

/// Says on stderr that something was not tried, also where the test passes: the harness keeps back what a passing test
/// prints by `eprintln!`.
pub fn say_skipped(why: &str) {
    // One write, so that no other test tears it. Who closed stderr does not want to know.
    let _ = std::io::stderr().write_all(format!("\nSKIPPED: {why}\n").as_bytes());
}
