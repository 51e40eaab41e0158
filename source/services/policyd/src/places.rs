use std::ffi::OsString;
use std::path::PathBuf;

/// Where an administrator's tree lies.
pub const SYSTEM_DIRECTORY: &str = "/etc/nexus/policy";

/// Where to look, and who is asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// What the caller names (`--policy`).
    pub named: Option<PathBuf>,
    /// The value of `$NEXUS_POLICY`; an empty one counts as none.
    pub variable: Option<OsString>,
    /// The caller's home.
    pub home: Option<PathBuf>,
    /// The administrator's tree: [`SYSTEM_DIRECTORY`].
    pub system: PathBuf,
    /// The user id of the caller.
    pub caller: u32,
    /// The user id that owns the administrator's tree: 0.
    pub administrator: u32,
}

impl Places {
    /// The places of this process: its effective user, its environment.
    #[must_use]
    pub fn of_process(named: Option<PathBuf>) -> Self {
        Self {
            named,
            variable: std::env::var_os("NEXUS_POLICY"),
            home: std::env::var_os("HOME").map(PathBuf::from),
            system: PathBuf::from(SYSTEM_DIRECTORY),
            caller: rustix::process::geteuid().as_raw(),
            administrator: 0,
        }
    }
}
