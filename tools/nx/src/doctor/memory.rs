//! Reading a confined program's memory and taking its descriptors: how a supervisor learns what a call is about.

use super::child::{Failure, Refused, Running, map_user, readable, run};
use super::facts::Facts;
use super::report::{Mend, State};
use super::syscalls;
use nexus_sys::process::{CloneFlags, Fork, clone, exit_now};
use rustix::io::Errno;
use rustix::process::{PidfdGetfdFlags, Signal};
use std::hint::black_box;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

const BEFORE: [u8; 8] = *b"outside.";
const AFTER: [u8; 8] = *b"confined";

/// Below [`super::child::PROBE_TIME_MAX`], so that the probe itself still can say so.
const CHILD_TIME_MAX: Duration = Duration::from_secs(1);

/// In the relation that nx has to its program: an ancestor outside of the user namespace that the program lives in.
fn tried() -> Result<String, Refused> {
    let mut cell = Box::new(BEFORE);
    let address = u64::try_from(cell.as_ptr().addr()).map_err(|_| Refused::at("name an address")(Errno::OVERFLOW))?;
    let (ready, ready_end) = rustix::pipe::pipe().map_err(Refused::at("make a pipe"))?;
    let (stay, stay_end) = rustix::pipe::pipe().map_err(Refused::at("make a pipe"))?;
    let made = clone(CloneFlags::USER_NAMESPACE).map_err(Refused::io("make a user namespace"))?;
    let running = match made {
        Fork::Child => {
            drop(stay_end);
            let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
            *black_box(&mut *cell) = AFTER;
            let _ = rustix::io::write(&ready_end, &[1]);
            // Until the other end is closed.
            let _ = rustix::io::read(&stay, &mut [0; 1]);
            exit_now(0)
        }
        Fork::Parent(child) => Running(child),
    };
    let child = &running.0;
    map_user(child.pid).map_err(Refused::io("map the user into the namespace"))?;
    drop(stay);
    if !readable(ready.as_fd(), CHILD_TIME_MAX) {
        return Err(Refused::at("hear of the process to be read")(Errno::TIMEDOUT));
    }
    let mut copy = [0; AFTER.len()];
    let number = u32::try_from(child.pid).unwrap_or(0);
    let count = nexus_sys::memory::read(number, address, &mut copy)
        .map_err(Refused::io("read the memory of a confined process (process_vm_readv)"))?;
    if count != AFTER.len() || copy != AFTER {
        return Err(Refused::at("see what a confined process wrote")(Errno::IO));
    }
    let taken = rustix::process::pidfd_getfd(&child.pidfd, ready_end.as_raw_fd(), PidfdGetfdFlags::empty()).map_err(
        Refused::at("take a descriptor of a confined process (pidfd_getfd, Linux 5.6)"),
    )?;
    let failed = Refused::at("look at a descriptor");
    let (one, other) = (
        rustix::fs::fstat(&taken).map_err(&failed)?,
        rustix::fs::fstat(&ready_end).map_err(&failed)?,
    );
    if (one.st_dev, one.st_ino) != (other.st_dev, other.st_ino) {
        return Err(Refused::at("take the very descriptor")(Errno::IO));
    }
    Ok("read a confined process's memory and took its descriptor".to_owned())
}

pub(crate) fn access(facts: &Facts) -> State {
    match run(CloneFlags::NONE, tried) {
        Ok(seen) => State::available(seen),
        Err(failure) => explain(&failure, facts),
    }
}

fn explain(failure: &Failure, facts: &Facts) -> State {
    // yama_ptrace_access_check: 1 lets ancestors, 2 lets whoever owns the program's user namespace, 3 nobody; and 3
    // cannot be taken back before the next boot.
    const NOBODY: &str = "3";
    if failure.errno() == Some(Errno::PERM) && facts.ptrace_scope.as_deref() == Some(NOBODY) {
        return State::missing(
            format!("`kernel.yama.ptrace_scope` is 3, which lets nobody look into another process: {failure}"),
            vec![
                Mend::command("grep -rn ptrace_scope /etc/sysctl.conf /etc/sysctl.d /usr/lib/sysctl.d"),
                Mend::words(
                    "set it to 2 or less there and boot again: the kernel never lowers it from 3 while it runs",
                ),
            ],
        );
    }
    State::missing(failure.to_string(), syscalls::mend(facts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yama_is_blamed_at_3_only() {
        let failure = Failure::Refused(Refused::at("read memory")(Errno::PERM));
        let text = |scope: &str| {
            let facts = Facts {
                ptrace_scope: Some(scope.into()),
                ..Facts::default()
            };
            format!("{:?}", explain(&failure, &facts))
        };
        assert!(text("3").contains("boot again"));
        assert!(!text("2").contains("ptrace_scope"));
    }
}
