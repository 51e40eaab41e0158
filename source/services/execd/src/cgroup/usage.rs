//! What a session's own cgroup counts.

use super::group::name_of;
use super::place::directory_of;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A counter's file holds one number of 64 bits and a newline.
const COUNTER_BYTES_MAX: u64 = 32;

/// A line for each hierarchy, proc_pid_cgroup: a dozen of them, with paths of a few hundred bytes.
const TABLE_BYTES_MAX: u64 = 64 * 1024;

/// What the kernel counts of a session now. cgroups(7), the kernel's cgroup-v2.rst.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The cgroup's directory.
    pub path: PathBuf,
    /// `memory.current`: bytes of all its processes together, page cache and tmpfs too; or why that is not known.
    pub memory_bytes: Result<u64, String>,
    /// `pids.current`: processes and threads; or why that is not known.
    pub processes: Result<u64, String>,
}

/// What the kernel counts of the session of this name, one of whose processes is `process`: the cgroup is the one in which
/// the kernel says that the process is, and has to be the session's own.
///
/// # Errors
/// Why nothing is known.
pub fn usage(process: i32, session: &str) -> Result<Usage, String> {
    let text = read(Path::new(&format!("/proc/{process}/cgroup")), TABLE_BYTES_MAX)
        .map_err(|error| format!("the kernel does not say in which cgroup it is: {error}"))?;
    let path = directory_of(&text).map_err(|lack| lack.to_string())?;
    if path.file_name() != Some(name_of(session).as_ref()) {
        return Err("the session has no cgroup of its own here".to_owned());
    }
    Ok(counted(path))
}

fn counted(path: PathBuf) -> Usage {
    let counter = |name: &str| -> Result<u64, String> {
        let text =
            read(&path.join(name), COUNTER_BYTES_MAX).map_err(|error| format!("`{name}` cannot be read: {error}"))?;
        text.trim_ascii()
            .parse()
            .map_err(|_| format!("`{name}` holds no number"))
    };
    Usage {
        memory_bytes: counter("memory.current"),
        processes: counter("pids.current"),
        path,
    }
}

fn read(path: &Path, bytes_max: u64) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(bytes_max).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_counters_files_hold_is_said_and_what_they_do_not_hold_is_not_made_up() {
        let place = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(place.path().join(name), text).unwrap();
        write("memory.current", "8192\n");
        write("pids.current", "3\n");
        let usage = counted(place.path().to_owned());
        assert_eq!((usage.memory_bytes, usage.processes), (Ok(8192), Ok(3)));
        write("memory.current", "max\n");
        std::fs::remove_file(place.path().join("pids.current")).unwrap();
        let usage = counted(place.path().to_owned());
        assert_eq!(usage.memory_bytes, Err("`memory.current` holds no number".to_owned()));
        assert!(
            usage
                .processes
                .unwrap_err()
                .starts_with("`pids.current` cannot be read")
        );
        write("memory.current", &"9".repeat(1 << 20));
        assert!(
            counted(place.path().to_owned()).memory_bytes.is_err(),
            "a number too long for any counter"
        );
    }

    #[test]
    fn a_process_in_another_cgroup_than_the_sessions_own_says_nothing_of_it() {
        let own = std::process::id().cast_signed();
        let why = usage(own, "0123456789ab").unwrap_err();
        assert!(!why.is_empty());
        let gone = usage(i32::MAX, "0123456789ab").unwrap_err();
        assert!(gone.starts_with("the kernel does not say"), "{gone}");
    }
}
