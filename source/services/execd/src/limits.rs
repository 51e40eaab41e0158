//! What a session is limited to, and what holds it to that.

use crate::cgroup::{Lack, Place};
use std::fmt;
use std::path::PathBuf;

/// What policy asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// How many processes and threads the session may have at once, its init among them.
    pub processes: Option<u64>,
    /// How many descriptors each process may have open.
    pub open_files: Option<u64>,
    /// How many bytes of memory.
    pub memory_bytes: Option<u64>,
}

/// A limit and what holds the session to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The limit.
    pub value: u64,
    /// What holds.
    pub enforcement: Enforcement,
}

/// Whether something is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enforcement {
    /// It is.
    Enforced {
        /// By what.
        backend: Backend,
    },
    /// It cannot be on this machine.
    Unsupported {
        /// Why not.
        why: &'static str,
    },
}

/// What holds a session to a limit. `Display` gives the words that are shown everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// A cgroup of the session's own below this one: all its processes together. cgroups(7), version 2.
    Cgroup(PathBuf),
    /// A resource limit of each process alone. getrlimit(2).
    EachProcess,
    /// A resource limit that counts in the session's user namespace: all its processes together.
    UserNamespace,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cgroup(path) => write!(f, "cgroup v2 {}", path.to_string_lossy().escape_debug()),
            Self::EachProcess => f.write_str("rlimit (each process)"),
            Self::UserNamespace => f.write_str("rlimit (session's user namespace)"),
        }
    }
}

impl fmt::Display for Enforcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enforced { backend } => backend.fmt(f),
            Self::Unsupported { why } => write!(f, "unsupported: {why}"),
        }
    }
}

/// The limits of a session; `None`: policy sets none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Processes and threads: `pids.max`, and `RLIMIT_NPROC` in any case.
    pub processes: Option<Limit>,
    /// Open descriptors: `RLIMIT_NOFILE`.
    pub open_files: Option<Limit>,
    /// Bytes of memory: `memory.max`, or `RLIMIT_DATA`, which counts what each process may change and shares with nobody.
    pub memory: Option<Limit>,
    /// Where the session's cgroup is made, or why none is; `None` where no limit asks for one.
    pub cgroup: Option<Result<Place, Lack>>,
}

/// The kernel's setting under which `RLIMIT_DATA` holds nobody to anything.
const DATA_IGNORED: &str = "/sys/module/kernel/parameters/ignore_rlimit_data";

const WITHOUT_DATA: &str = "the kernel was started with `ignore_rlimit_data`, and no cgroup is delegated";

impl Limits {
    /// The limits and what holds here. `find` looks for a cgroup, and is only called where a limit asks for one.
    pub fn new(asked: &Asked, find: impl FnOnce() -> Result<Place, Lack>) -> Self {
        let wanted = asked.processes.is_some() || asked.memory_bytes.is_some();
        let cgroup = wanted.then(find);
        let data_ignored = asked.memory_bytes.is_some()
            && !matches!(cgroup, Some(Ok(_)))
            && std::fs::read(DATA_IGNORED).is_ok_and(|text| text.starts_with(b"Y"));
        Self::of(asked, cgroup, data_ignored)
    }

    /// The same limits where the cgroup could not be used after all.
    #[must_use]
    pub fn without_cgroup(&self, lack: Lack) -> Self {
        let value = |limit: &Option<Limit>| limit.as_ref().map(|limit| limit.value);
        let asked = Asked {
            processes: value(&self.processes),
            open_files: value(&self.open_files),
            memory_bytes: value(&self.memory),
        };
        Self::new(&asked, || Err(lack))
    }

    fn of(asked: &Asked, cgroup: Option<Result<Place, Lack>>, data_ignored: bool) -> Self {
        let path = cgroup
            .as_ref()
            .and_then(|found| found.as_ref().ok())
            .map(|place| place.path().to_owned());
        let or = |fallback: Backend| path.clone().map_or(fallback, Backend::Cgroup);
        let limit = |value: Option<u64>, backend| {
            value.map(|value| Limit {
                value,
                enforcement: Enforcement::Enforced { backend },
            })
        };
        let mut memory = limit(asked.memory_bytes, or(Backend::EachProcess));
        if let Some(memory) = memory.as_mut().filter(|_| data_ignored && path.is_none()) {
            memory.enforcement = Enforcement::Unsupported { why: WITHOUT_DATA };
        }
        Self {
            processes: limit(asked.processes, or(Backend::UserNamespace)),
            open_files: limit(asked.open_files, Backend::EachProcess),
            memory,
            cgroup,
        }
    }

    /// Every limit by its name in policy.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, &Limit)> {
        [
            ("memory", &self.memory),
            ("processes", &self.processes),
            ("open_files", &self.open_files),
        ]
        .into_iter()
        .filter_map(|(name, limit)| Some((name, limit.as_ref()?)))
    }

    /// Where the session's cgroup is to be made.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        self.cgroup.as_ref()?.as_ref().ok()
    }

    /// What setrlimit(2) sets of the memory limit: nothing where a cgroup holds it, for programs that reserve much and
    /// use little would suffer for nothing.
    pub(crate) fn data_bytes(&self) -> Option<u64> {
        let memory = self.memory.as_ref()?;
        let each = Enforcement::Enforced {
            backend: Backend::EachProcess,
        };
        (memory.enforcement == each).then_some(memory.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Asked = Asked {
        processes: Some(9),
        open_files: Some(7),
        memory_bytes: Some(1 << 20),
    };

    fn words(limits: &Limits) -> Vec<String> {
        limits
            .each()
            .map(|(name, limit)| format!("{name} {} {}", limit.value, limit.enforcement))
            .collect()
    }

    #[test]
    fn a_cgroup_holds_memory_and_processes_and_leaves_descriptors_to_each_process() {
        let place = Place::below("/c/slice");
        let limits = Limits::of(&ASKED, Some(Ok(place)), false);
        assert_eq!(
            words(&limits),
            [
                "memory 1048576 cgroup v2 /c/slice",
                "processes 9 cgroup v2 /c/slice",
                "open_files 7 rlimit (each process)"
            ]
        );
        assert_eq!(limits.data_bytes(), None);
    }

    #[test]
    fn without_a_cgroup_each_limit_says_whom_it_counts() {
        let limits = Limits::of(&ASKED, Some(Err(Lack::NotMounted)), false);
        let expect = [
            "memory 1048576 rlimit (each process)",
            "processes 9 rlimit (session's user namespace)",
            "open_files 7 rlimit (each process)",
        ];
        assert_eq!(words(&limits), expect);
        assert_eq!(limits.data_bytes(), Some(1 << 20));
        let fallen = Limits::of(&ASKED, Some(Ok(Place::below("/c"))), false).without_cgroup(Lack::NotMounted);
        assert_eq!(fallen.cgroup, Some(Err(Lack::NotMounted)));
    }

    #[test]
    fn a_memory_limit_that_the_kernel_ignores_is_unsupported_and_with_a_cgroup_it_is_not() {
        let ignored = Limits::of(&ASKED, Some(Err(Lack::NotMounted)), true);
        assert!(words(&ignored)[0].contains("unsupported: the kernel was started with"));
        assert_eq!(ignored.data_bytes(), None);
        let held = Limits::of(&ASKED, Some(Ok(Place::below("/c"))), true);
        assert!(words(&held)[0].ends_with("cgroup v2 /c"));
    }

    #[test]
    fn nobody_looks_for_a_cgroup_that_no_limit_asks_for() {
        let asked = Asked {
            open_files: Some(7),
            ..Asked::default()
        };
        let limits = Limits::new(&asked, || panic!("looked"));
        assert_eq!((limits.cgroup.is_none(), limits.each().count()), (true, 1));
        let asked = Asked {
            processes: Some(7),
            ..Asked::default()
        };
        assert!(Limits::new(&asked, || Err(Lack::NotMounted)).cgroup.is_some());
    }
}
