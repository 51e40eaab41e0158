//! An outside of a test's own: a network namespace with a name server, a web server and an echo.

use std::path::Path;
use std::sync::Arc;

use crate::{Home, Run, User, lacking};

const SERVER: &str = include_str!("../../fixtures/name-room/server.py");

/// Brings the namespace up, then runs what it is given, without the rights that took. Every address of the documentation's
/// networks leads to the servers; they are none of the host's own, which is 198.51.100.1.
const SETUP: &str = r#"
set -e
here=$1; shift
ip link set lo up
ip address add 198.51.100.1/32 dev lo
ip route add local 203.0.113.0/24 dev lo
ip -6 route add local 2001:db8::/32 dev lo
mount --bind "$here/resolv.conf" /etc/resolv.conf
mount --bind "$here/hosts" /etc/hosts
mkfifo "$here/ready"
/usr/bin/python3 "$here/server.py" "$here/asked" > "$here/ready" &
read word < "$here/ready"
eval "${TOWN_MORE:-}"
if [ -n "$TOWN_USER" ]; then exec setpriv $TOWN_USER "$@"; fi
exec "$@"
"#;

/// Where a test's outside is described.
#[derive(Debug)]
pub struct Town {
    home: Arc<Home>,
}

impl Town {
    /// One for this home; `None` where a program that makes it is missing, which was said.
    ///
    /// # Panics
    /// Where files cannot be written, or something is missing that must be there.
    #[must_use]
    pub fn new(home: &Arc<Home>) -> Option<Self> {
        let needed = ["/usr/bin/unshare", "/usr/bin/setpriv", "/usr/bin/python3"];
        let ip = ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip"]
            .iter()
            .any(|ip| Path::new(ip).exists());
        let why = if !rustix::process::geteuid().is_root() {
            // In a user namespace of one's own nobody but oneself has a number, and `nx` trusts no policy below such a root.
            "a network of the test's own, with its own resolv.conf, needs root"
        } else if !ip || !needed.iter().all(|path| Path::new(path).exists()) {
            "no ip, unshare, setpriv or python3 on this machine: see tests/packages.txt"
        } else {
            ""
        };
        if !why.is_empty() {
            lacking(why);
            return None;
        }
        home.write_work("server.py", SERVER);
        home.write_work("resolv.conf", "nameserver 127.0.0.1\nsearch example.net\n");
        home.write_work(
            "hosts",
            "127.0.0.1 localhost\n203.0.113.20 listed.example.org\n127.0.0.1 trap.example.org\n",
        );
        Some(Self { home: Arc::clone(home) })
    }

    /// A run inside.
    #[must_use]
    pub fn run(&self) -> Run {
        // The file is made by the setup of each run.
        let _ = std::fs::remove_file(self.home.work().join("ready"));
        let _ = std::fs::remove_file(self.home.work().join("asked"));
        let here = self.home.work().to_string_lossy().into_owned();
        let id = self.home.user().id();
        let become_user = match self.home.user() {
            User::Root => String::new(),
            User::Ordinary(_) => format!("--reuid={id} --regid={id} --clear-groups --inh-caps=-all"),
        };
        let words = ["unshare", "-n", "-m", "sh", "-c", SETUP, "sh"].map(str::to_owned);
        Run::at(&self.home)
            .around(words.into_iter().chain([here]))
            .env("TOWN_USER", become_user)
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
    }

    /// What the name server was asked in the last run, as `NAME TYPE PROTOCOL`.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.home.work().join("asked")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}
