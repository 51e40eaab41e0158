//! Where a session's limits can be set: what `nx run` would find, tried.

use super::child::{Refused, Running, run};
use super::facts::{Facts, quoted};
use super::report::{Mend, State};
use execd::cgroup::{Group, Lack, Place, find};
use execd::{Asked, Limits};
use nexus_sys::process::{CloneFlags, Fork, clone_into_cgroup, exit_now};
use rustix::io::Errno;
use rustix::process::Signal;
use std::path::Path;

/// What is lost without a cgroup.
pub(crate) const WITHOUT: &str = concat!(
    "without it memory is limited for each process alone (RLIMIT_DATA), not for a session as a whole, and processes ",
    "by RLIMIT_NPROC, which counts those of the session's user namespace"
);

/// Limits like those of a policy.
const ASKED: Asked = Asked {
    processes: Some(16),
    open_files: None,
    memory_bytes: Some(16 << 20),
};

pub(crate) fn delegation(facts: &Facts) -> State {
    match find(ASKED.processes) {
        Ok(place) if place.is_within() => State::available(format!(
            "limits for a session can be set in {}, its own, which is delegated",
            quoted(place.path())
        )),
        Ok(place) => match run(CloneFlags::NONE, || try_place(&place)) {
            Ok(_) => State::available(format!(
                "limits for a session can be set below {}",
                quoted(place.path())
            )),
            Err(failure) => State::degraded(format!("{failure}; {WITHOUT}"), delegate(facts)),
        },
        Err(lack) => State::degraded(format!("{lack}; {WITHOUT}"), mend(&lack, facts)),
    }
}

/// Makes a session's cgroup, starts a process in it, and takes both away again.
fn try_place(place: &Place) -> Result<String, Refused> {
    // As a session's name, so that one that is killed here is cleared away by the next session.
    let id = format!("d0c7{:08x}", rustix::process::getpid().as_raw_nonzero());
    let limits = Limits::new(&ASKED, || Ok(place.clone()));
    let group = Group::make(place, &id, &limits).map_err(|lack| match lack {
        Lack::Refused { step, errno, .. } => Refused::at(step)(errno),
        _ => Refused::at("make a cgroup")(Errno::IO),
    })?;
    let started = match clone_into_cgroup(CloneFlags::NONE, &group) {
        Ok(Fork::Child) => {
            let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
            std::thread::sleep(super::child::PROBE_TIME_MAX);
            exit_now(0)
        }
        Ok(Fork::Parent(child)) => {
            drop(Running(child));
            Ok(String::new())
        }
        Err(error) => Err(Refused::io("start a process in a cgroup")(error)),
    };
    group.remove();
    started
}

fn mend(lack: &Lack, facts: &Facts) -> Vec<Mend> {
    match lack {
        Lack::NotMounted | Lack::HeldByVersion1 => vec![Mend::words(
            "boot with `systemd.unified_cgroup_hierarchy=1` on the kernel's command line",
        )],
        Lack::NoControllers(_) if facts.container.is_none() => vec![Mend::words(
            "where the kernel's command line has `cgroup_disable=memory`, boot without it",
        )],
        Lack::Unseen(_) | Lack::ReadOnly(_) | Lack::NoControllers(_) => vec![],
        Lack::NotDelegated(_) | Lack::Bounded(_) | Lack::Refused { .. } => delegate(facts),
    }
}

fn delegate(facts: &Facts) -> Vec<Mend> {
    if facts.container.is_some() {
        return vec![Mend::words(
            "delegate a cgroup to the container's user, or accept the limits of each process",
        )];
    }
    if !Path::new("/run/systemd/system").exists() {
        return vec![Mend::words(
            "start nx in a cgroup of this user's, below one that passes memory and pids on (`cgroup.subtree_control`)",
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
    use std::path::PathBuf;

    #[test]
    fn a_lack_of_delegation_is_mended_by_a_command_and_a_read_only_mount_by_nothing() {
        let facts = Facts::default();
        let path = || PathBuf::from("/c");
        assert!(!mend(&Lack::NotDelegated(path()), &facts).is_empty());
        assert!(!mend(&Lack::HeldByVersion1, &facts).is_empty());
        assert!(mend(&Lack::ReadOnly(path()), &facts).is_empty());
    }
}
