//! What the machine says of itself: used to explain what was tried, never instead of trying.

use super::container::{self, Container};
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

/// More than any file under `/proc` that is read here holds on a sane machine: `mountinfo` of the kernel's own limit
/// of 100,000 mounts at 160 bytes each.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Whatever explains a refusal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) release: String,
    pub(crate) machine: String,
    pub(crate) node: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) container: Option<Container>,
    /// `kernel.apparmor_restrict_unprivileged_userns`, where it exists.
    pub(crate) apparmor_restricts: Option<String>,
    /// `kernel.unprivileged_userns_clone`, where it exists.
    pub(crate) userns_clone: Option<String>,
    /// `user.max_*_namespaces` of this user namespace that are 0.
    pub(crate) forbidden_namespaces: Vec<&'static str>,
    /// `kernel.yama.ptrace_scope`, where it exists.
    pub(crate) ptrace_scope: Option<String>,
    /// A syscall filter is on this very process.
    pub(crate) filtered: bool,
    pub(crate) no_new_privs: bool,
    /// This program's file.
    pub(crate) program: Option<PathBuf>,
    pub(crate) home: Option<OsString>,
    pub(crate) state_home: Option<OsString>,
    /// Whether the namespaces that nx needs were seen to work; set while the report is made.
    pub(crate) namespaces_work: bool,
}

const LIMITED: [&str; 7] = ["user", "mnt", "pid", "ipc", "uts", "net", "cgroup"];

impl Facts {
    pub(crate) fn gather() -> Self {
        Self::below(Path::new("/"))
    }

    /// With the settings of the kernel that lie below `root`.
    fn below(root: &Path) -> Self {
        let setting = |path: &str| read(root.join("proc/sys").join(path)).map(|text| text.trim().to_owned());
        let name = rustix::system::uname();
        let status = read("/proc/self/status").unwrap_or_default();
        Self {
            release: name.release().to_string_lossy().into_owned(),
            machine: name.machine().to_string_lossy().into_owned(),
            node: name.nodename().to_string_lossy().into_owned(),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            container: container::detect(&container::Signs::gather()),
            apparmor_restricts: setting("kernel/apparmor_restrict_unprivileged_userns"),
            userns_clone: setting("kernel/unprivileged_userns_clone"),
            forbidden_namespaces: LIMITED
                .into_iter()
                .filter(|kind| setting(&format!("user/max_{kind}_namespaces")).as_deref() == Some("0"))
                .collect(),
            ptrace_scope: setting("kernel/yama/ptrace_scope"),
            filtered: status_field(&status, "Seccomp") == Some("2"),
            no_new_privs: status_field(&status, "NoNewPrivs") == Some("1"),
            program: std::env::current_exe().ok(),
            home: std::env::var_os("HOME"),
            state_home: std::env::var_os("XDG_STATE_HOME"),
            namespaces_work: false,
        }
    }

    /// Whether this process runs as a program under nx: a filter, no new privileges, and the host name that nx gives.
    pub(crate) fn inside_nx(&self) -> bool {
        self.filtered && self.no_new_privs && self.node == "nexus"
    }
}

/// A whole file of `/proc` or `/sys` as text, `None` if it cannot be read or is longer than any should be.
pub(crate) fn read(path: impl AsRef<Path>) -> Option<String> {
    let file = std::fs::File::open(path).ok()?;
    let mut text = Vec::new();
    let count = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).ok()?;
    if u64::try_from(count).ok()? > FILE_BYTES_MAX {
        return None;
    }
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// The value of a line `Name:\tvalue` of proc_pid_status(5).
fn status_field<'t>(status: &'t str, name: &str) -> Option<&'t str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

/// A path in backticks, fit for a terminal whatever is in it.
pub(crate) fn quoted(path: &Path) -> String {
    format!("`{}`", path.to_string_lossy().escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_field_is_found_by_its_whole_name() {
        let status = "Name:\tx\nSeccomp_filters:\t7\nSeccomp:\t2\n";
        assert_eq!(status_field(status, "Seccomp"), Some("2"));
        assert_eq!(status_field(status, "Sec"), None);
    }

    #[test]
    fn each_lock_is_read_from_its_own_setting_and_one_that_is_not_there_is_none() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join("proc/sys").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let none = Facts::below(root.path());
        assert_eq!(
            (none.apparmor_restricts, none.userns_clone, none.ptrace_scope),
            (None, None, None)
        );
        assert_eq!(none.forbidden_namespaces, [""; 0]);
        // As Ubuntu 24.04 has it.
        put("kernel/apparmor_restrict_unprivileged_userns", "1\n");
        let ubuntu = Facts::below(root.path());
        assert_eq!(
            (ubuntu.apparmor_restricts.as_deref(), ubuntu.userns_clone),
            (Some("1"), None)
        );
        put("kernel/unprivileged_userns_clone", "0\n");
        put("kernel/yama/ptrace_scope", "3\n");
        put("user/max_net_namespaces", "0\n");
        put("user/max_user_namespaces", "15000\n");
        let hardened = Facts::below(root.path());
        assert_eq!(hardened.userns_clone.as_deref(), Some("0"));
        assert_eq!(hardened.ptrace_scope.as_deref(), Some("3"));
        assert_eq!(hardened.forbidden_namespaces, ["net"]);
    }

    #[test]
    fn a_program_under_nx_is_told_by_all_three_signs_together() {
        let inside = Facts {
            filtered: true,
            no_new_privs: true,
            node: "nexus".into(),
            ..Facts::default()
        };
        assert!(inside.inside_nx());
        let named_so = Facts {
            node: "nexus".into(),
            ..Facts::default()
        };
        assert!(!named_so.inside_nx());
        let other_sandbox = Facts {
            node: "builder".into(),
            ..inside
        };
        assert!(!other_sandbox.inside_nx());
    }

    #[test]
    fn a_path_cannot_write_to_the_terminal() {
        assert_eq!(quoted(Path::new("/a\u{1b}[31m\n")), "`/a\\u{1b}[31m\\n`");
    }
}
