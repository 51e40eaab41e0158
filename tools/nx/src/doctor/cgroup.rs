//! Where a session's limits can be set: cgroups(7), version 2, wherever it is mounted.

use super::child::{Refused, Running, run};
use super::facts::{Facts, quoted, read};
use super::mountinfo::{self, Mount};
use super::report::{Mend, State};
use nexus_sys::process::{CloneFlags, Fork, clone, exit_now};
use rustix::fs::Access;
use rustix::process::Signal;
use std::path::{Path, PathBuf};

/// What a session's limits need.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];

/// How deep a cgroup may lie. The kernel has no limit of its own; systemd's deepest are under ten.
const LEVELS_MAX: usize = 64;

const WITHOUT: &str = concat!(
    "without it memory is limited for each process alone (RLIMIT_DATA), not for a session as a whole, and processes ",
    "by RLIMIT_NPROC, which counts those of the session's user namespace"
);

/// A cgroup on the way from this process's own to the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Level {
    path: PathBuf,
    /// This process's own, and this process is the only one in it, or it is the root, for which that does not count.
    free: bool,
    /// Sub-groups can be made, and processes moved into them.
    writable: bool,
    /// Has what [`CONTROLLERS`] names.
    offers: bool,
    /// Gives it to its sub-groups.
    passes_on: bool,
    /// Can be made to give it to its sub-groups.
    can_pass_on: bool,
}

/// Where a session's cgroup can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place<'a> {
    /// Beside this process's own, or above.
    Below(&'a Path),
    /// In this process's own cgroup, once this process has moved into a leaf of it: a cgroup has processes or
    /// controllers for its sub-groups, not both.
    Within(&'a Path),
}

/// The nearest place. Levels come with the own one first.
fn place(levels: &[Level]) -> Option<Place<'_>> {
    levels.iter().find_map(|level| {
        let path = level.path.as_path();
        if !level.writable || !level.offers {
            None
        } else if level.passes_on {
            Some(Place::Below(path))
        } else if level.free && level.can_pass_on {
            Some(Place::Within(path))
        } else {
            None
        }
    })
}

/// This process's cgroup of version 2, from the text of `/proc/self/cgroup`.
fn own_path(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

/// The directory of a cgroup below a mount of the hierarchy, `None` if this mount does not show it.
fn directory(mount: &Mount, own: &str) -> Option<PathBuf> {
    let own = Path::new(own);
    if own.components().any(|part| part == std::path::Component::ParentDir) {
        return None;
    }
    let below = own.strip_prefix(&mount.root).ok()?;
    Some(if below.as_os_str().is_empty() {
        mount.point.clone()
    } else {
        mount.point.join(below)
    })
}

fn has_all(text: &str) -> bool {
    CONTROLLERS
        .iter()
        .all(|wanted| text.split_ascii_whitespace().any(|name| name == *wanted))
}

fn look(path: &Path, own: bool) -> Level {
    let can = |path: &Path, access| rustix::fs::access(path, access).is_ok();
    let list = |name: &str| read(path.join(name)).unwrap_or_default();
    // The one cgroup without a type.
    let root = !path.join("cgroup.type").exists();
    Level {
        free: own && (root || is_alone(&list("cgroup.procs"), rustix::process::getpid().as_raw_nonzero().get())),
        writable: can(path, Access::WRITE_OK | Access::EXEC_OK) && can(&path.join("cgroup.procs"), Access::WRITE_OK),
        offers: has_all(&list("cgroup.controllers")),
        passes_on: has_all(&list("cgroup.subtree_control")),
        can_pass_on: can(&path.join("cgroup.subtree_control"), Access::WRITE_OK),
        path: path.to_owned(),
    }
}

/// Whether a list of processes holds this one alone.
fn is_alone(processes: &str, own: i32) -> bool {
    processes.trim() == own.to_string()
}

fn levels(mount: &Mount, own: &Path) -> Vec<Level> {
    own.ancestors()
        .take(LEVELS_MAX)
        .take_while(|path| path.starts_with(&mount.point))
        .enumerate()
        .map(|(depth, path)| look(path, depth == 0))
        .collect()
}

/// Makes a cgroup, moves a process into it where that disturbs nothing, and takes both away again.
fn try_place(place: &Place<'_>) -> Result<String, Refused> {
    struct Made(PathBuf);
    impl Drop for Made {
        fn drop(&mut self) {
            // Empty by now; a kernel that still counts the dead process gets a moment.
            for _ in 0..100 {
                if rustix::fs::rmdir(&self.0) != Err(rustix::io::Errno::BUSY) {
                    return;
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    }
    let (Place::Below(parent) | Place::Within(parent)) = place;
    let name = format!("nx-doctor-{}", rustix::process::getpid().as_raw_nonzero());
    let path = parent.join(name);
    rustix::fs::mkdir(&path, rustix::fs::Mode::from_raw_mode(0o755)).map_err(Refused::at("make a cgroup"))?;
    let made = Made(path);
    if matches!(place, Place::Within(_)) {
        return Ok(String::new());
    }
    for file in ["memory.max", "pids.max"] {
        rustix::fs::access(made.0.join(file), Access::WRITE_OK).map_err(Refused::at("set a limit in a cgroup"))?;
    }
    match clone(CloneFlags::NONE).map_err(Refused::io("make a process"))? {
        Fork::Child => {
            let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
            std::thread::sleep(super::child::PROBE_TIME_MAX);
            exit_now(0)
        }
        Fork::Parent(child) => {
            let running = Running(child);
            let moved = std::fs::write(made.0.join("cgroup.procs"), running.0.pid.to_string());
            moved.map_err(Refused::io("move a process into a cgroup"))?;
        }
    }
    Ok(String::new())
}

pub(crate) fn delegation(facts: &Facts) -> State {
    let table = read("/proc/self/mountinfo").unwrap_or_default();
    let own = read("/proc/self/cgroup").unwrap_or_default();
    // The last of several mounts at one place is the one that is seen.
    let mounts: Vec<_> = mountinfo::parse(&table)
        .rev()
        .filter(|mount| mount.kind == "cgroup2")
        .collect();
    let Some(own) = own_path(&own).filter(|_| !mounts.is_empty()) else {
        return State::degraded(
            format!("no cgroup of version 2 is mounted; {WITHOUT}"),
            vec![Mend::words(
                "boot with `systemd.unified_cgroup_hierarchy=1` on the kernel's command line",
            )],
        );
    };
    let Some((mount, own)) = mounts.iter().find_map(|mount| Some((mount, directory(mount, own)?))) else {
        return State::degraded(
            format!(
                "this process's cgroup `{}` is not in what is mounted; {WITHOUT}",
                own.escape_debug()
            ),
            vec![],
        );
    };
    let levels = levels(mount, &own);
    match place(&levels) {
        Some(place) => match run(CloneFlags::NONE, || try_place(&place)) {
            Ok(_) => State::available(match place {
                Place::Below(path) => format!("limits for a session can be set below {}", quoted(path)),
                Place::Within(path) => format!(
                    "limits for a session can be set in {}, its own, which is delegated",
                    quoted(path)
                ),
            }),
            Err(failure) => State::degraded(format!("{failure}; {WITHOUT}"), mend(facts)),
        },
        None => explain(mount, &own, &levels, facts),
    }
}

fn explain(mount: &Mount, own: &Path, levels: &[Level], facts: &Facts) -> State {
    let at = quoted(own);
    if mount.read_only {
        return State::degraded(
            format!("cgroups are mounted read-only at {}; {WITHOUT}", quoted(&mount.point)),
            vec![],
        );
    }
    if !levels.iter().any(|level| level.offers) {
        return State::degraded(
            format!("the cgroup {at} has no controllers for memory and pids; {WITHOUT}"),
            vec![Mend::words(
                "where version 1 holds them, boot with `systemd.unified_cgroup_hierarchy=1` on the kernel's command line",
            )],
        );
    }
    State::degraded(
        format!("the cgroup {at} is not delegated to this user, or is shared with other processes; {WITHOUT}"),
        mend(facts),
    )
}

fn mend(facts: &Facts) -> Vec<Mend> {
    if facts.container.is_some() {
        return vec![Mend::words(
            "delegate a cgroup to the container's user, or accept the limits of each process",
        )];
    }
    if facts.uid == 0 {
        return vec![Mend::command("systemd-run --scope -p Delegate=yes nx run …")];
    }
    vec![
        Mend::command("systemd-run --user --scope -p Delegate=yes nx run …"),
        Mend::command("loginctl enable-linger $USER"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn level(path: &str, marks: &str) -> Level {
        Level {
            path: path.into(),
            free: marks.contains('f'),
            writable: marks.contains('w'),
            offers: marks.contains('c'),
            passes_on: marks.contains('p'),
            can_pass_on: marks.contains('m'),
        }
    }

    #[test]
    fn the_nearest_usable_level_is_taken_and_its_nearest_neighbour_is_not() {
        let check = |levels: &[(&str, &str)], expect: Option<Place<'_>>| {
            let levels: Vec<_> = levels.iter().map(|(path, marks)| level(path, marks)).collect();
            assert_eq!(place(&levels), expect, "{levels:?}");
        };
        let scope = Path::new("/c/scope");
        let slice = Path::new("/c/slice");
        // A delegated scope of one's own.
        check(&[("/c/scope", "fwcm"), ("/c", "cp")], Some(Place::Within(scope)));
        // The same with a shell in it.
        check(&[("/c/scope", "wcm"), ("/c", "cp")], None);
        // The same, not delegated.
        check(&[("/c/scope", "fc"), ("/c", "cp")], None);
        // A terminal in the user manager's slice.
        check(
            &[("/c/slice/t", "f"), ("/c/slice", "wcpm"), ("/c", "cp")],
            Some(Place::Below(slice)),
        );
        // The slice passes no controllers on, and has processes that are not nx's to move.
        check(&[("/c/slice/t", "f"), ("/c/slice", "wcm")], None);
        // Controllers are elsewhere.
        check(&[("/c", "fwm")], None);
        check(&[], None);
    }

    #[test]
    fn the_own_cgroup_is_found_where_it_is_mounted() {
        let mount = |root: &str, point: &str| Mount {
            root: root.into(),
            point: point.into(),
            kind: "cgroup2".into(),
            read_only: false,
        };
        let check = |mount: &Mount, own: &str, expect: Option<&str>| {
            assert_eq!(directory(mount, own), expect.map(PathBuf::from), "{own}");
        };
        check(
            &mount("/", "/sys/fs/cgroup"),
            "/user.slice/a",
            Some("/sys/fs/cgroup/user.slice/a"),
        );
        check(
            &mount("/", "/sys/fs/cgroup/unified"),
            "/",
            Some("/sys/fs/cgroup/unified"),
        );
        check(&mount("/box", "/sys/fs/cgroup"), "/box/a", Some("/sys/fs/cgroup/a"));
        check(&mount("/box", "/sys/fs/cgroup"), "/boxes/a", None);
        // Outside of this cgroup namespace.
        check(&mount("/", "/sys/fs/cgroup"), "/../other", None);
    }

    #[test]
    fn own_paths_are_those_of_version_2_alone() {
        assert_eq!(own_path("9:name=systemd:/a\n4:memory:/b\n0::/c:d\n"), Some("/c:d"));
        assert_eq!(own_path("9:name=systemd:/a\n"), None);
        assert_eq!(own_path(""), None);
    }

    #[test]
    fn a_process_is_alone_only_by_itself() {
        assert!(is_alone("7\n", 7));
        assert!(!is_alone("7\n77\n", 7));
        assert!(!is_alone("77\n", 7));
        assert!(!is_alone("", 7));
    }

    #[test]
    fn controllers_are_whole_words() {
        assert!(has_all("cpuset cpu io memory hugetlb pids\n"));
        assert!(!has_all("memory\n"));
        assert!(!has_all("memoryx pids\n"));
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_read_without_panic(text in any::<String>(), root in any::<String>()) {
            let _ = own_path(&text);
            let _ = has_all(&text);
            let mount = Mount { root: root.into(), point: "/c".into(), kind: "cgroup2".into(), read_only: false };
            if let Some(path) = directory(&mount, &text) {
                prop_assert!(path.starts_with("/c"));
            }
        }
    }
}
