//! What the kernel itself says of the probe, looked at from outside while it runs: proc_pid_status(5), proc_pid_limits(5),
//! proc_pid_mountinfo(5), namespaces(7). The probe has no part in it.

use super::live::Live;
use crate::registry;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What is read of a file in `/proc`: a mount table of some thousand lines; the others are a page.
const PROC_BYTES_MAX: u64 = 1 << 20;

/// The kinds of namespaces that a session has of its own, as `/proc/PID/ns` names them.
pub(super) const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

/// The running probe, as the kernel has it.
pub(super) struct Kernel {
    pid: i32,
    /// The process that its session was started by, which is where the host's side of the proof is.
    front: i32,
    status: BTreeMap<String, String>,
    limits: BTreeMap<String, (Option<u64>, Option<u64>)>,
    /// The cgroup of the session's own, if the probe is in one.
    pub(super) cgroup: Option<PathBuf>,
    /// Filters around the whole proof: on the process that it was started by.
    filters_around: Option<u64>,
}

impl Kernel {
    /// Finds the probe as `nx sec ps` finds a program, by its session's entry and the kernel's word for it, and looks at it.
    ///
    /// # Errors
    /// Why it cannot be looked at.
    pub(super) fn of(live: &Live) -> Result<Self, String> {
        let listing =
            registry::list(&live.runtime()).map_err(|error| format!("the proof's session cannot be seen: {error}"))?;
        let found = listing.live.into_iter().find(|one| one.facts.session == live.session);
        let pid = match found.as_ref().and_then(|one| one.program.as_ref()) {
            Some(program) => program.pid,
            None => {
                let why = listing.troubles.first().map(|trouble| format!(": {}", trouble.why));
                return Err(format!(
                    "the kernel shows no program in the proof's session{}",
                    why.unwrap_or_default()
                ));
            }
        };
        let read = |file: &str| {
            read(Path::new(&format!("/proc/{pid}/{file}")))
                .map_err(|error| format!("`/proc/PID/{file}` of the probe cannot be read: {error}"))
        };
        let status = self::status(&read("status")?);
        let around = self::read(Path::new("/proc/self/status")).unwrap_or_default();
        let filters_around = self::status(&around)
            .get("Seccomp_filters")
            .and_then(|count| count.parse().ok());
        Ok(Self {
            pid,
            front: live.front(),
            limits: limits(&read("limits")?),
            cgroup: execd::cgroup::usage(pid, &live.session).ok().map(|usage| usage.path),
            status,
            filters_around,
        })
    }

    /// Whether this kernel shows anybody's program: without `CONFIG_PROC_CHILDREN` it does not say which process it is.
    pub(super) fn shows_programs() -> bool {
        Path::new("/proc/thread-self/children").exists()
    }

    /// A line of `/proc/PID/status`; `None` where this kernel has none of that name.
    pub(super) fn status(&self, name: &str) -> Option<&str> {
        self.status.get(name).map(String::as_str)
    }

    /// Soft and hard limit by the name of `/proc/PID/limits`: `Some(None)` is «unlimited».
    pub(super) fn limit(&self, name: &str) -> Option<(Option<u64>, Option<u64>)> {
        self.limits.get(name).copied()
    }

    /// How many filters the kernel should say are on: those around the proof, and the session's; where it counts them
    /// (Linux 5.9).
    pub(super) fn filters_expected(&self) -> Option<u64> {
        self.filters_around.map(|count| count.saturating_add(1))
    }

    /// A file of the session's own cgroup.
    pub(super) fn of_cgroup(&self, name: &str) -> Option<std::io::Result<String>> {
        let cgroup = self.cgroup.as_ref()?;
        Some(read(&cgroup.join(name)).map(|text| text.trim_ascii().to_owned()))
    }

    /// Whether its namespace of this kind is neither this process's nor that of the proof's host side; and its name.
    pub(super) fn own_namespace(&self, kind: &str) -> std::io::Result<(bool, String)> {
        let of = |pid: &dyn std::fmt::Display| std::fs::read_link(format!("/proc/{pid}/ns/{kind}"));
        let its = of(&self.pid)?;
        let own = its != of(&"self")? && its != of(&self.front)?;
        Ok((own, its.to_string_lossy().into_owned()))
    }

    /// Where it sees mounts on which set-id programs would count.
    pub(super) fn set_id_mounts(&self) -> std::io::Result<(usize, Vec<String>)> {
        Ok(set_id_mounts(&read(Path::new(&format!(
            "/proc/{}/mountinfo",
            self.pid
        )))?))
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(PROC_BYTES_MAX)
        .read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `Name:\tvalue`. What a program chose, its name, is escaped by the kernel and comes first: no line of it is another's.
fn status(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let mut fields = BTreeMap::new();
    for (name, value) in lines {
        fields.entry(name.to_owned()).or_insert_with(|| value.trim().to_owned());
    }
    fields
}

/// `Max open files            4096                 4096                 files`: a name of several words, then two numbers.
fn limits(text: &str) -> BTreeMap<String, (Option<u64>, Option<u64>)> {
    let number = |word: &str| {
        if word == "unlimited" {
            Some(None)
        } else {
            word.parse().ok().map(Some)
        }
    };
    let one = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let at = words
            .windows(2)
            .position(|pair| pair.iter().all(|word| number(word).is_some()))?;
        let (soft, hard) = (words.get(at)?, words.get(at.checked_add(1)?)?);
        Some((words.get(..at)?.join(" "), (number(soft)?, number(hard)?)))
    };
    text.lines().skip(1).filter_map(one).collect()
}

/// How many mounts there are, and where those without `nosuid` are.
fn set_id_mounts(text: &str) -> (usize, Vec<String>) {
    let mut count = 0_usize;
    let mut without = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ').skip(4);
        let (Some(at), Some(options)) = (words.next(), words.next()) else {
            continue;
        };
        count = count.saturating_add(1);
        if !options.split(',').any(|option| option == "nosuid") {
            without.push(at.to_owned());
        }
    }
    (count, without)
}

#[cfg(test)]
impl Kernel {
    /// Of these processes, of which nothing else was looked at.
    pub(super) fn of_processes(pid: i32, front: i32) -> Self {
        Self {
            pid,
            front,
            status: BTreeMap::new(),
            limits: BTreeMap::new(),
            cgroup: None,
            filters_around: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_by_their_names_with_and_without_a_unit() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max data size             2147483648           unlimited            bytes     \n\
                    Max open files            4096                 8192                 files     \n\
                    Max realtime priority     0                    0                    \n";
        let limits = limits(text);
        assert_eq!(limits["Max data size"], (Some(2_147_483_648), None));
        assert_eq!(limits["Max open files"], (Some(4096), Some(8192)));
        assert_eq!(limits["Max realtime priority"], (Some(0), Some(0)));
        assert_eq!(limits.len(), 3);
    }

    #[test]
    fn the_kernels_own_table_of_this_process_is_read_whole() {
        let limits = limits(&read(Path::new("/proc/self/limits")).unwrap());
        for name in [
            "Max data size",
            "Max core file size",
            "Max processes",
            "Max open files",
            "Max msgqueue size",
        ] {
            assert!(limits.contains_key(name), "{name}");
        }
        let status = status(&read(Path::new("/proc/self/status")).unwrap());
        for name in [
            "CapInh",
            "CapPrm",
            "CapEff",
            "CapBnd",
            "CapAmb",
            "NoNewPrivs",
            "Seccomp",
            "Uid",
            "Gid",
            "Groups",
            "VmData",
        ] {
            assert!(status.contains_key(name), "{name}");
        }
    }

    #[test]
    fn a_mount_on_which_set_id_counts_is_named_and_one_on_which_it_does_not_is_not() {
        let text = "112 42 0:41 / / ro,nosuid,nodev,noexec - tmpfs none rw\n\
                    113 112 0:42 / /usr ro,nodev - ext4 /dev/sda rw,nosuid\n\
                    114 112 0:43 / /proc rw,nosuid - proc none rw\n";
        assert_eq!(set_id_mounts(text), (3, vec!["/usr".to_owned()]));
    }

    #[test]
    fn a_name_that_looks_like_a_field_is_none() {
        let text = "Name:\tx\\nCapBnd:\\t0\nCapBnd:\t000001ffffffffff\nCapBnd:\t0\n";
        assert_eq!(status(text)["CapBnd"], "000001ffffffffff");
    }
}
