//! Starting a plan: the one place where a process with namespaces of its own is made.

use crate::cgroup::Group;
use crate::init;
use crate::plan::{Identity, Plan};
use nexus_sys::process::{Child, CloneFlags, Fork, clone, clone_into_cgroup};
use nexus_sys::signal::SignalSet;
use nexus_wire::control::Command;
use nexus_wire::packet::PacketSocket;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io::Write;
use std::os::fd::BorrowedFd;
use thiserror::Error;

/// What connects a session's processes; each end is given away to the process that uses it.
#[derive(Debug)]
pub struct Links {
    /// Init's end of the pair that it shares with `nx run`: [`nexus_wire::control`].
    pub control: PacketSocket,
    /// Init's end of the pair that it shares with the supervisor: [`nexus_wire::broker`].
    pub broker: PacketSocket,
    /// The signal mask that the program gets: what `nx` itself was started with.
    pub mask: SignalSet,
    /// The soft limit of open files that the program gets where policy sets none: what `nx` itself was started with, if it
    /// raised its own.
    pub open_files: Option<u64>,
}

/// A program's init, running.
#[derive(Debug)]
pub struct Spawned {
    /// Init: the first process of the program's pid namespace. When it ends, everything in there ends.
    pub init: Child,
}

/// Why nothing was started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The kernel refused the namespaces.
    #[error("the kernel refused to make namespaces: {0}")]
    Namespaces(#[source] std::io::Error),
    /// The kernel refused to let init begin in the session's cgroup.
    #[error("the kernel refused to start the sandbox in its cgroup: {0}")]
    Cgroup(#[source] std::io::Error),
    /// The identity maps could not be written.
    #[error("cannot map the user into the sandbox: {0}")]
    IdentityMap(#[source] std::io::Error),
    /// Init was gone before it began.
    #[error("the sandbox's init ended before it began: {0}")]
    Init(#[source] rustix::io::Errno),
}

/// Makes init with its namespaces and gives it its identity; it builds most of the view and waits for
/// [`Spawned::provide`]. `control` is the caller's end of the control pair. Where the plan's limits name a place for a
/// cgroup, `group` is the one that was made there: init begins in it, so that nothing of the session is ever outside.
///
/// The calling process must have one thread.
///
/// # Errors
/// [`SpawnError`]; nothing is left running then.
pub fn spawn(plan: &Plan, links: Links, control: &PacketSocket, group: Option<&Group>) -> Result<Spawned, SpawnError> {
    let fork = match group {
        Some(group) => clone_into_cgroup(CloneFlags::SESSION, group).map_err(refusal),
        None => clone(CloneFlags::SESSION).map_err(SpawnError::Namespaces),
    };
    match fork? {
        Fork::Child => init::run(plan, links, group.is_some()),
        Fork::Parent(init) => {
            drop(links);
            let spawned = Spawned { init };
            write_identity_maps(spawned.init.pid, plan.identity).map_err(|error| {
                let why = without_maps(&spawned.init, error);
                spawned.kill();
                why
            })?;
            control.send(&Command::Go.encode(), &[]).map_err(|error| {
                spawned.kill();
                SpawnError::Init(error)
            })?;
            Ok(spawned)
        }
    }
}

/// Why there are no maps: somebody killed init meanwhile, which is not the machine's doing, or the kernel takes none.
fn without_maps(init: &Child, error: std::io::Error) -> SpawnError {
    let mut fds = [PollFd::new(&init.pidfd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut fds, Some(&now)) {
        Ok(1..) => SpawnError::Init(Errno::SRCH),
        _ => SpawnError::IdentityMap(error),
    }
}

/// Whose refusal it is: clone(2) has one errno for both.
fn refusal(error: std::io::Error) -> SpawnError {
    let of_cgroup = [Errno::ACCESS, Errno::BUSY, Errno::NODEV, Errno::NOENT, Errno::OPNOTSUPP];
    match Errno::from_io_error(&error) {
        Some(errno) if of_cgroup.contains(&errno) => SpawnError::Cgroup(error),
        _ => SpawnError::Namespaces(error),
    }
}

impl Spawned {
    /// Lets init finish the view, with vfsd's detached mounts `tmp`, `state` and shared memory, and the work directory where
    /// that is metered, and start the program.
    /// The start, or a failure, comes as an event over the control pair, of which `control` is the caller's end.
    ///
    /// # Errors
    /// [`SpawnError::Init`] if it is gone.
    pub fn provide(&self, control: &PacketSocket, areas: &[BorrowedFd<'_>]) -> Result<(), SpawnError> {
        control.send(&Command::Areas.encode(), areas).map_err(SpawnError::Init)
    }

    /// Ends init, and with it everything in its pid namespace, and waits for it.
    pub fn kill(&self) {
        // Both can only fail because it is gone already.
        let _ = rustix::process::pidfd_send_signal(&self.init.pidfd, rustix::process::Signal::KILL);
        let _ = rustix::process::waitid(
            rustix::process::WaitId::PidFd(std::os::fd::AsFd::as_fd(&self.init.pidfd)),
            rustix::process::WaitIdOptions::EXITED,
        );
    }
}

/// user_namespaces(7), "Defining user and group ID mappings": one user and one group, each as itself.
fn write_identity_maps(pid: i32, identity: Identity) -> std::io::Result<()> {
    let write = |file: &str, text: String| {
        std::fs::OpenOptions::new()
            .write(true)
            .open(format!("/proc/{pid}/{file}"))?
            .write_all(text.as_bytes())
    };
    // Supplementary groups cannot be given up without privilege; without this line they could be used to lose a
    // group that a file denies access to.
    write("setgroups", "deny".into())?;
    write("uid_map", format!("{0} {0} 1", identity.uid))?;
    write("gid_map", format!("{0} {0} 1", identity.gid))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot set up has failed")]

    use super::*;

    #[test]
    fn maps_that_a_killed_init_does_not_get_are_not_the_machines_fault_and_those_of_a_running_one_are() {
        let mut process = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&process);
        let init = Child {
            pid: pid.as_raw_nonzero().get(),
            pidfd: rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap(),
        };
        let refused = || std::io::Error::from(Errno::PERM);
        assert!(matches!(without_maps(&init, refused()), SpawnError::IdentityMap(_)));
        process.kill().unwrap();
        poll(&mut [PollFd::new(&init.pidfd, PollFlags::IN)], None).unwrap();
        assert!(matches!(without_maps(&init, refused()), SpawnError::Init(_)));
        process.wait().unwrap();
    }
}
