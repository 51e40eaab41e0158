//! What this machine can give, tried and not guessed: `nx sec doctor`, and the words of an `nx run` that must refuse.
//!
//! Every probe that changes anything does it in a process of its own, is ended after two seconds, and leaves nothing
//! behind. Versions, settings and files explain a refusal; they never stand in for the try.

mod cgroup;
mod child;
mod container;
mod directories;
mod facts;
mod fuse;
mod json;
mod kept;
mod landlock_fence;
mod memory;
mod mounts;
mod namespaces;
mod platform;
mod report;
mod seccomp;
mod syscalls;

pub use directories::state_directory;
pub use json::JSON_VERSION;
pub use report::{Finding, Mend, Report, State};

pub(crate) use cgroup::WITHOUT as WITHOUT_CGROUP;

use facts::Facts;

struct Probe {
    what: &'static str,
    needed_for: &'static str,
    required: bool,
    /// Whether there is nothing to try where [`NAMESPACES`] are missing.
    inside: bool,
    run: fn(&Facts) -> State,
}

const NAMESPACES: &str = "namespaces";

const fn required(what: &'static str, needed_for: &'static str, run: fn(&Facts) -> State) -> Probe {
    Probe {
        what,
        needed_for,
        required: true,
        inside: false,
        run,
    }
}

const fn optional(what: &'static str, needed_for: &'static str, run: fn(&Facts) -> State) -> Probe {
    Probe {
        required: false,
        ..required(what, needed_for, run)
    }
}

const fn inside(probe: Probe) -> Probe {
    Probe { inside: true, ..probe }
}

/// In the order of the report: what others rest on first.
const PROBES: [Probe; 23] = [
    required("architecture", "the syscall filter", platform::architecture),
    optional("kernel", "information", platform::kernel),
    optional("container", "information", platform::container),
    optional("identity", "information", platform::identity),
    required("nesting", "a sandbox of its own", platform::nesting),
    required("user-namespaces", "every sandbox without root", namespaces::user),
    required(
        NAMESPACES,
        "processes, mounts and a network of a program's own",
        namespaces::all,
    ),
    inside(required(
        "mounts",
        "the view: what a program sees of the machine",
        mounts::view,
    )),
    inside(required("proc", "`/proc` in the view", mounts::processes)),
    inside(required("terminals", "`/dev/pts` in the view", mounts::terminals)),
    required(
        "fuse-device",
        "the areas `tmp` and `state` and their budgets",
        fuse::device,
    ),
    inside(required(
        "fuse-mount",
        "the areas `tmp` and `state` and their budgets",
        fuse::mount,
    )),
    required(
        "system-calls",
        "opening paths and holding processes without races",
        syscalls::calls,
    ),
    required(
        "seccomp-notify",
        "syscall rules, egress and the record of what is denied",
        seccomp::notification,
    ),
    optional(
        "seccomp-sync-wake-up",
        "the speed of judged calls",
        seccomp::sync_wake_up,
    ),
    inside(required(
        "memory-access",
        "judging what a call points at",
        memory::access,
    )),
    required(
        "netns-cookie",
        "telling a program's own sockets from the host's",
        syscalls::namespace_cookie,
    ),
    required("keyring", "keeping this user's keys from a program", syscalls::keyring),
    optional("landlock", "the second fence around the view", landlock_fence::fence),
    optional("cgroup", "limits for a session as a whole", cgroup::delegation),
    required(
        "state-directory",
        "areas, ledgers, the journal and the sockets of running sessions",
        directories::state,
    ),
    optional(
        "sessions",
        "knowing who runs: `nx sec ps` and what rests on it",
        kept::sessions,
    ),
    required("journal", "the record of what was denied, and its chain", kept::journal),
];

/// Every name that a report has, in its order.
pub fn names() -> impl Iterator<Item = &'static str> {
    PROBES.iter().map(|probe| probe.what)
}

/// Tries everything.
///
/// The calling process must have one thread: probes run in processes that it makes by clone3(2). With more, what is to
/// be tried in a process is reported as missing, with `EBUSY`.
#[must_use]
pub fn examine() -> Report {
    let mut facts = Facts::gather();
    Report {
        findings: PROBES.iter().map(|probe| find(probe, &mut facts)).collect(),
    }
}

/// Tries one thing, and what it rests on; `None` for a name that no report has. As [`examine()`] otherwise.
#[must_use]
pub fn examine_one(what: &str) -> Option<Finding> {
    let probe = PROBES.iter().find(|probe| probe.what == what)?;
    let mut facts = Facts::gather();
    if probe.inside {
        PROBES
            .iter()
            .filter(|probe| probe.what == NAMESPACES)
            .for_each(|probe| drop(find(probe, &mut facts)));
    }
    Some(find(probe, &mut facts))
}

fn find(probe: &Probe, facts: &mut Facts) -> Finding {
    let state = if probe.inside && !facts.namespaces_work {
        State::missing(
            format!("it cannot be tried without `{NAMESPACES}`, which are missing"),
            vec![],
        )
    } else {
        (probe.run)(facts)
    };
    let state = match state {
        State::Missing { why, .. } if why.contains(child::TOO_MANY_OPEN) => {
            State::missing(why, vec![Mend::command("ulimit -n 1024")])
        }
        other => other,
    };
    if probe.what == NAMESPACES {
        facts.namespaces_work = state.is_available();
    }
    Finding {
        what: probe.what,
        state,
        needed_for: probe.needed_for,
        required: probe.required,
    }
}
