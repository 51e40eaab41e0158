//! Single syscalls that no library falls back for.

use super::child::{Refused, run};
use super::container::Lack;
use super::facts::Facts;
use super::report::{Mend, State};
use nexus_sys::process::{CloneFlags, close_all_but};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::os::fd::AsFd;

pub(crate) fn calls(facts: &Facts) -> State {
    // clone3 made the very process in which this runs.
    let calls = || {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let root = rustix::fs::openat2(
            CWD,
            "/",
            flags | OFlags::DIRECTORY,
            Mode::empty(),
            ResolveFlags::empty(),
        )
        .map_err(Refused::at("openat2 (Linux 5.6)"))?;
        match rustix::fs::openat2(&root, "..", flags, Mode::empty(), ResolveFlags::BENEATH) {
            Err(Errno::XDEV) => {}
            Err(errno) => return Err(Refused::at("see openat2 keep a path beneath its root")(errno)),
            Ok(_) => return Err(Refused::at("see openat2 keep a path beneath its root")(Errno::PERM)),
        }
        let myself = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())
            .map_err(Refused::at("pidfd_open (Linux 5.3)"))?;
        rustix::process::pidfd_send_signal(&myself, rustix::process::Signal::CONT)
            .map_err(Refused::at("pidfd_send_signal (Linux 5.1)"))?;
        // What the answer goes through must stay open: only what nobody can have opened is closed.
        close_all_but(1 << 20, &[root.as_fd()]).map_err(Refused::io("close_range (Linux 5.9)"))?;
        Ok("clone3, openat2, pidfd_open, pidfd_send_signal and close_range work".to_owned())
    };
    match run(CloneFlags::NONE, calls) {
        Ok(seen) => State::available(seen),
        Err(failure) => State::missing(failure.to_string(), mend(facts)),
    }
}

/// What mends a refused syscall: the container's filter, another filter, or the kernel.
pub(crate) fn mend(facts: &Facts) -> Vec<Mend> {
    match facts.container {
        Some(container) => vec![container.mend(Lack::Filter)],
        None if facts.filtered => vec![Mend::words("start nx outside of whatever filters its syscalls")],
        None => vec![Mend::words("boot Linux 5.19 or later")],
    }
}

pub(crate) fn namespace_cookie(facts: &Facts) -> State {
    let cookie = || {
        let made = nexus_sys::socket::socket(
            i32::from(rustix::net::AddressFamily::UNIX.as_raw()),
            rustix::net::SocketType::STREAM.as_raw().cast_signed(),
            0,
        );
        let socket = made.map_err(Refused::io("make a socket"))?;
        nexus_sys::socket::netns_cookie(&socket)
            .map(|cookie| cookie.to_string())
            .map_err(Refused::io("ask for SO_NETNS_COOKIE (Linux 5.14)"))
    };
    let outside = run(CloneFlags::NONE, cookie);
    let inside = if facts.namespaces_work {
        run(CloneFlags::ALL_NAMESPACES, cookie)
    } else {
        Ok("-".to_owned())
    };
    match (outside, inside) {
        (Ok(outside), Ok(inside)) if outside != inside => {
            State::available("a socket tells which network namespace it lives in")
        }
        (Ok(_), Ok(_)) => State::missing("two network namespaces have the same cookie", vec![]),
        (Err(failure), _) | (_, Err(failure)) => State::missing(failure.to_string(), mend(facts)),
    }
}

pub(crate) fn keyring(facts: &Facts) -> State {
    let join = || {
        nexus_sys::process::new_session_keyring()
            .map(|()| String::new())
            .map_err(Refused::io("make an empty session keyring"))
    };
    match run(CloneFlags::NONE, join) {
        Ok(_) => State::available("a program gets an empty session keyring"),
        // A container's filter may answer so too; either way there is nothing to reach.
        Err(failure) if failure.errno() == Some(Errno::NOSYS) => {
            State::available("this kernel has no keyrings, so none can be inherited")
        }
        Err(failure) if failure.errno() == Some(Errno::DQUOT) => State::missing(
            format!("{failure}; this user's keys are used up"),
            vec![
                Mend::command("cat /proc/key-users"),
                Mend::command("sudo sysctl -w kernel.keys.maxkeys=2000"),
            ],
        ),
        Err(failure) => State::missing(failure.to_string(), mend(facts)),
    }
}
