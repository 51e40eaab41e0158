//! Where a session's cgroup can be made.

use crate::mountinfo::{self, Mount};
use rustix::fs::Access;
use rustix::io::Errno;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use thiserror::Error;

/// What a session's limits need.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];

/// How deep a cgroup may lie. The kernel has no limit of its own; systemd's deepest are under ten.
const LEVELS_MAX: usize = 64;

/// More than any file that is read here holds on a sane machine: `mountinfo` of the kernel's own limit of 100,000
/// mounts at 160 bytes each.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Where a session's cgroup can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    path: PathBuf,
    within: bool,
}

impl Place {
    /// A cgroup that gives memory and pids to its sub-groups.
    #[must_use]
    pub fn below(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            within: false,
        }
    }

    /// The caller's own cgroup, in which it is alone. A cgroup has processes or controllers for its sub-groups, not both:
    /// the caller has to move into a leaf of it first.
    #[must_use]
    pub fn within(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            within: true,
        }
    }

    /// The cgroup's directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is the caller's own, see [`Self::within`].
    #[must_use]
    pub const fn is_within(&self) -> bool {
        self.within
    }
}

/// Why a session has no cgroup of its own.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Lack {
    /// Only version 1, or none.
    #[error("no cgroup of version 2 is mounted")]
    NotMounted,
    /// The caller's cgroup lies outside of the part that is mounted.
    #[error("this process's cgroup `{}` is not in what is mounted", .0.escape_debug())]
    Unseen(String),
    /// The mount is read-only, as in most containers.
    #[error("cgroups are mounted read-only at {}", quoted(.0))]
    ReadOnly(PathBuf),
    /// Version 1 holds at least one of the controllers, and version 2 cannot have it then.
    #[error("version 1 of cgroups holds memory or pids")]
    HeldByVersion1,
    /// Neither the caller's cgroup nor any above has what is needed.
    #[error("the cgroup {} has no controllers for memory and pids", quoted(.0))]
    NoControllers(PathBuf),
    /// The caller may not write where it would have to.
    #[error("the cgroup {} is not delegated to this user, or is shared with other processes", quoted(.0))]
    NotDelegated(PathBuf),
    /// A session further up would not be held to what the caller is held to.
    #[error("the cgroup {} has limits of its own, which a session beside it would not be held to", quoted(.0))]
    Bounded(PathBuf),
    /// It was tried, and the kernel refused.
    #[error("cannot {step} in the cgroup {}: {errno}", quoted(.at))]
    Refused {
        /// What was tried.
        step: &'static str,
        /// Where.
        at: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
}

/// A path in backticks, fit for a terminal whatever is in it.
fn quoted(path: &Path) -> String {
    format!("`{}`", path.to_string_lossy().escape_debug())
}

/// A cgroup on the way from the caller's own to the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Level {
    path: PathBuf,
    /// The caller is the only process in it, and it is not the root.
    alone: bool,
    /// Sub-groups can be made, and processes moved into them; not looked at where nothing is offered.
    writable: bool,
    /// Has what [`CONTROLLERS`] names.
    offers: bool,
    /// Gives it to its sub-groups.
    passes_on: bool,
    /// Can be made to give it to its sub-groups.
    can_pass_on: bool,
}

/// The nearest place. Levels come with the own one first; `bounded` says whether a cgroup holds its processes to something
/// that a session beside it would not be held to.
fn choose(levels: impl IntoIterator<Item = Level>, bounded: impl Fn(&Path) -> bool) -> Result<Place, Lack> {
    let mut passed: Vec<PathBuf> = Vec::new();
    let mut offered = false;
    for level in levels {
        offered |= level.offers;
        let within = passed.is_empty() && level.alone && level.can_pass_on;
        if level.writable && level.offers && (level.passes_on || within) {
            return match passed.into_iter().find(|path| bounded(path)) {
                Some(path) => Err(Lack::Bounded(path)),
                None => Ok(Place {
                    path: level.path,
                    within: !level.passes_on,
                }),
            };
        }
        passed.push(level.path);
    }
    let own = passed.into_iter().next().unwrap_or_default();
    Err(if offered {
        Lack::NotDelegated(own)
    } else {
        Lack::NoControllers(own)
    })
}

/// The nearest cgroup, from the caller's own upwards, in which it may make one with memory and pids and put a process
/// into it. A cgroup that is limited itself is not left; `processes_max` is what the session will be held to, so that a
/// wider limit of processes does not count.
///
/// Reads a handful of small files; changes nothing.
///
/// # Errors
/// Why there is none.
pub fn find(processes_max: Option<u64>) -> Result<Place, Lack> {
    let cgroups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    if held_by_version_1(&cgroups) {
        return Err(Lack::HeldByVersion1);
    }
    let own = own_path(&cgroups).ok_or(Lack::NotMounted)?;
    let table = read(Path::new("/proc/self/mountinfo")).unwrap_or_default();
    let (mount, own) = mounted(&table, own)?;
    if mount.read_only {
        return Err(Lack::ReadOnly(mount.point));
    }
    let levels = own
        .ancestors()
        .take(LEVELS_MAX)
        .take_while(|path| path.starts_with(&mount.point));
    choose(levels.enumerate().map(|(up, path)| look(path, up == 0)), |path| {
        is_bounded(path, processes_max)
    })
}

/// The mount that shows a cgroup, and the cgroup's directory in it.
fn mounted(table: &str, own: &str) -> Result<(Mount, PathBuf), Lack> {
    let mut any = false;
    // The last of several mounts at one place is the one that is seen.
    let found = mountinfo::of_kind(table, "cgroup2")
        .rev()
        .inspect(|_| any = true)
        .find_map(|mount| directory(&mount, own).map(|path| (mount, path)));
    found.ok_or_else(|| {
        if any {
            Lack::Unseen(own.to_owned())
        } else {
            Lack::NotMounted
        }
    })
}

/// The directory of the cgroup that a process is in, from the text of its `/proc/PID/cgroup`.
pub(super) fn directory_of(cgroups: &str) -> Result<PathBuf, Lack> {
    let path = own_path(cgroups).ok_or(Lack::NotMounted)?;
    let table = read(Path::new("/proc/self/mountinfo")).unwrap_or_default();
    mounted(&table, path).map(|(_, directory)| directory)
}

/// This process's cgroup of version 2, from the text of `/proc/self/cgroup`.
fn own_path(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

/// Whether a hierarchy of version 1 has one of the controllers, from the text of `/proc/self/cgroup`.
fn held_by_version_1(text: &str) -> bool {
    text.lines()
        .filter_map(|line| line.split(':').nth(1))
        .flat_map(|controllers| controllers.split(','))
        .any(|name| CONTROLLERS.contains(&name))
}

/// The directory of a cgroup below a mount of the hierarchy, `None` if this mount does not show it.
fn directory(mount: &Mount, own: &str) -> Option<PathBuf> {
    let own = Path::new(own);
    if own.components().any(|part| part == Component::ParentDir) {
        return None;
    }
    // An absolute rest would replace what it is joined to.
    let below = own.strip_prefix(&mount.root).ok().filter(|below| below.is_relative())?;
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

/// Whether a list of processes holds this one alone.
fn is_alone(processes: &str, own: i32) -> bool {
    processes.trim() == own.to_string()
}

/// Whether what a limit's file says limits anything: `max`, `max 100000` and nothing at all do not.
fn is_limit(text: &str) -> bool {
    !matches!(text.split_ascii_whitespace().next(), None | Some("max"))
}

/// Whether `pids.max` is narrower than what a session will have.
fn is_narrower(pids_max: &str, processes_max: Option<u64>) -> bool {
    let narrower = |max: u64| processes_max.is_none_or(|asked| max < asked);
    is_limit(pids_max) && pids_max.trim().parse().map_or(true, narrower)
}

/// What else a cgroup can hold its processes to.
const BOUNDS: [&str; 6] = [
    "memory.max",
    "memory.high",
    "memory.swap.max",
    "cpu.max",
    "io.max",
    "cpuset.cpus",
];

fn is_bounded(path: &Path, processes_max: Option<u64>) -> bool {
    let text = |name: &str| read(&path.join(name)).unwrap_or_default();
    is_narrower(&text("pids.max"), processes_max) || BOUNDS.iter().any(|name| is_limit(&text(name)))
}

fn look(path: &Path, own: bool) -> Level {
    let can = |name: &str, access| rustix::fs::access(path.join(name), access).is_ok();
    let text = |name: &str| read(&path.join(name)).unwrap_or_default();
    let offers = has_all(&text("cgroup.controllers"));
    let writable = offers && can("", Access::WRITE_OK | Access::EXEC_OK) && can("cgroup.procs", Access::WRITE_OK);
    let passes_on = writable && has_all(&text("cgroup.subtree_control"));
    // The root is the one cgroup without a type. What it passes on is for the machine to say.
    let own = own && writable && !passes_on && can("cgroup.type", Access::EXISTS);
    let this = rustix::process::getpid().as_raw_nonzero().get();
    Level {
        path: path.to_owned(),
        alone: own && is_alone(&text("cgroup.procs"), this),
        writable,
        offers,
        passes_on,
        can_pass_on: own && can("cgroup.subtree_control", Access::WRITE_OK),
    }
}

/// A whole file as text; `None` if it cannot be read or is longer than any should be.
pub(super) fn read(path: &Path) -> Option<String> {
    let file = std::fs::File::open(path).ok()?;
    let mut text = Vec::with_capacity(4096);
    let count = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).ok()?;
    if u64::try_from(count).ok()? > FILE_BYTES_MAX {
        return None;
    }
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A level with these marks: `a`lone, `w`ritable, `o`ffers, `p`asses on, can be `m`ade to.
    fn level(path: &str, marks: &str) -> Level {
        Level {
            path: path.into(),
            alone: marks.contains('a'),
            writable: marks.contains('w'),
            offers: marks.contains('o'),
            passes_on: marks.contains('p'),
            can_pass_on: marks.contains('m'),
        }
    }

    #[test]
    fn the_nearest_usable_level_is_taken_and_its_nearest_neighbour_is_not() {
        let check = |levels: &[(&str, &str)], expect: Result<Place, Lack>| {
            let bounded = |at: &Path| {
                levels
                    .iter()
                    .any(|(path, marks)| at == Path::new(path) && marks.contains('b'))
            };
            let found = choose(levels.iter().map(|(path, marks)| level(path, marks)), bounded);
            assert_eq!(found, expect, "{levels:?}");
        };
        let scope = "/c/s/scope";
        let not_delegated = || Err(Lack::NotDelegated(scope.into()));
        // A delegated scope of one's own, the same with a shell in it, and the same not delegated.
        check(
            &[(scope, "awom"), ("/c/s", "op"), ("/c", "op")],
            Ok(Place::within(scope)),
        );
        check(&[(scope, "wom"), ("/c/s", "op"), ("/c", "op")], not_delegated());
        check(&[(scope, "ao"), ("/c/s", "op"), ("/c", "op")], not_delegated());
        // Alone, but what is passed on is somebody else's to say.
        check(&[(scope, "awo"), ("/c/s", "op")], not_delegated());
        // A terminal in the user manager's slice.
        check(
            &[(scope, "o"), ("/c/s", "wopm"), ("/c", "op")],
            Ok(Place::below("/c/s")),
        );
        // The nearer one, where two would do.
        check(
            &[(scope, "wo"), ("/c/s", "wopm"), ("/c", "wopm")],
            Ok(Place::below("/c/s")),
        );
        check(&[(scope, "awom"), ("/c/s", "wopm")], Ok(Place::within(scope)));
        // Root on a machine with systemd.
        check(
            &[(scope, "wom"), ("/c/s", "wom"), ("/c", "wopm")],
            Ok(Place::below("/c")),
        );
        // The slice passes no controllers on, and has sub-groups that are not nx's to change, even were it alone there.
        check(&[(scope, "o"), ("/c/s", "awom")], not_delegated());
        // Some other's limits are not left behind; those of the place itself stay in force.
        check(&[(scope, "wob"), ("/c/s", "wop")], Err(Lack::Bounded(scope.into())));
        check(
            &[(scope, "wo"), ("/c/s", "wob"), ("/c", "wop")],
            Err(Lack::Bounded("/c/s".into())),
        );
        check(&[(scope, "wo"), ("/c/s", "wopb")], Ok(Place::below("/c/s")));
        check(&[(scope, "awomb"), ("/c/s", "wop")], Ok(Place::within(scope)));
        // Controllers are elsewhere.
        check(&[("/c", "awm")], Err(Lack::NoControllers("/c".into())));
        check(&[], Err(Lack::NoControllers(PathBuf::new())));
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
    fn the_last_mount_that_shows_the_cgroup_is_taken() {
        let line = |root: &str, point: &str, kind: &str| format!("1 2 0:1 {root} {point} rw - {kind} x rw\n");
        let at = |table: &str, own: &str| mounted(table, own).map(|(_, path)| path);
        let hybrid = line("/", "/sys/fs/cgroup/memory", "cgroup") + &line("/", "/sys/fs/cgroup/unified", "cgroup2");
        assert_eq!(at(&hybrid, "/a"), Ok("/sys/fs/cgroup/unified/a".into()));
        let twice = line("/", "/first", "cgroup2") + &line("/", "/second", "cgroup2");
        assert_eq!(at(&twice, "/a"), Ok("/second/a".into()));
        let part = line("/", "/whole", "cgroup2") + &line("/box", "/part", "cgroup2");
        assert_eq!(at(&part, "/a"), Ok("/whole/a".into()));
        assert_eq!(
            at(&line("/box", "/part", "cgroup2"), "/a"),
            Err(Lack::Unseen("/a".into()))
        );
        assert_eq!(at(&line("/", "/c", "cgroup"), "/a"), Err(Lack::NotMounted));
    }

    #[test]
    fn own_paths_are_those_of_version_2_alone() {
        assert_eq!(own_path("9:name=systemd:/a\n4:memory:/b\n0::/c:d\n"), Some("/c:d"));
        assert_eq!(own_path("9:name=systemd:/a\n"), None);
        assert_eq!(own_path(""), None);
    }

    #[test]
    fn a_controller_of_version_1_is_told_from_a_cgroup_of_its_name() {
        assert!(held_by_version_1("8:pids:/\n0::/\n"));
        assert!(held_by_version_1("4:cpu,memory:/\n0::/\n"));
        assert!(!held_by_version_1("9:name=memory:/pids\n0::/memory:pids:memory\n"));
        assert!(!held_by_version_1(""));
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

    #[test]
    fn a_limit_is_what_is_not_max() {
        for text in ["max\n", "max 100000\n", "", "\n"] {
            assert!(!is_limit(text), "{text:?}");
        }
        for text in ["0\n", "50000 100000\n", "8:16 rbps=2097152\n", "0-3\n"] {
            assert!(is_limit(text), "{text:?}");
        }
        assert!(is_narrower("511\n", Some(512)));
        assert!(!is_narrower("512\n", Some(512)));
        assert!(!is_narrower("max\n", Some(512)));
        assert!(is_narrower("99999\n", None));
        assert!(!is_narrower("max\n", None));
    }

    #[test]
    fn a_lack_cannot_write_to_the_terminal() {
        let lack = Lack::NotDelegated("/a\u{1b}[31m\n".into());
        assert!(!lack.to_string().contains(['\u{1b}', '\n']), "{lack}");
        assert!(!Lack::Unseen("/a\u{1b}[31m\n".into()).to_string().contains('\u{1b}'));
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_read_without_panic(text in any::<String>(), root in any::<String>()) {
            let _ = own_path(&text);
            let _ = has_all(&text);
            let _ = held_by_version_1(&text);
            let _ = is_narrower(&text, Some(1));
            let _ = mounted(&text, &root);
            let mount = Mount { root: root.into(), point: "/c".into(), kind: "cgroup2".into(), read_only: false };
            if let Some(path) = directory(&mount, &text) {
                prop_assert!(path.starts_with("/c"));
            }
        }

        /// Whatever the tree looks like: the caller may write there, it has the controllers, and nothing that was
        /// passed over was limited.
        #[test]
        fn a_chosen_level_is_usable_and_no_limit_is_left(marks in proptest::collection::vec("[awopmb]{0,6}", 0..6)) {
            let levels: Vec<Level> =
                marks.iter().enumerate().map(|(up, marks)| level(&up.to_string(), marks)).collect();
            let bounded = |at: &Path| {
                let up: usize = at.to_string_lossy().parse().unwrap();
                marks[up].contains('b')
            };
            let Ok(place) = choose(levels.clone(), bounded) else {
                return Ok(());
            };
            let at = levels.iter().position(|level| level.path == place.path()).unwrap_or(usize::MAX);
            prop_assert!(levels[at].writable && levels[at].offers);
            prop_assert!(levels[at].passes_on != place.is_within());
            prop_assert!(!place.is_within() || (at == 0 && levels[at].alone));
            prop_assert!(levels[..at].iter().all(|level| !bounded(&level.path)));
        }
    }
}
