//! What init does for the supervisor inside the program's namespaces.

use crate::ipc::Held;
use nexus_sys::process::{CloneFlags, Fork, clone, exit_now, group_of};
use nexus_sys::signal::SignalSet;
use nexus_sys::{signal, socket};
use nexus_wire::broker::{Reply, Request, UnixAction};
use nexus_wire::packet::PacketSocket;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};

/// Answers one request; false once the supervisor is gone.
pub(crate) fn answer(link: &PacketSocket, held: &Held) -> bool {
    let packet = match link.receive() {
        Ok(packet) => packet,
        // Without room for what came with it: that is this request's matter, and no later one's.
        Err(Errno::MSGSIZE) => {
            return link
                .send(&Reply::Failed(Errno::MFILE.raw_os_error()).encode(), &[])
                .is_ok();
        }
        Err(_) => return false,
    };
    if packet.bytes().is_empty() {
        return false;
    }
    let reply = match Request::decode(packet.bytes()) {
        Some(Request::Socket { domain, kind, protocol }) => match socket::socket(domain, kind, protocol) {
            Ok(made) => match link.send(&Reply::Done.encode(), &[made.as_fd()]) {
                Ok(()) => return true,
                Err(errno) => not_sent(errno),
            },
            Err(error) => failed(&error),
        },
        Some(Request::Unix { action, umask, address }) => {
            unix_socket(action, umask, &address, packet.descriptors).unwrap_or_else(|error| failed(&error))
        }
        Some(Request::MemoryFile) => match held.memory_file() {
            Ok(made) => match link.send(&Reply::Done.encode(), &[made.as_fd()]) {
                // Told when it is the program's alone.
                Ok(()) => {
                    drop(made);
                    Reply::Done
                }
                Err(errno) => not_sent(errno),
            },
            Err(errno) => Reply::Failed(errno.raw_os_error()),
        },
        Some(Request::SignalGroup { pid, signal }) => signal_group(pid, signal),
        None => Reply::Failed(Errno::INVAL.raw_os_error()),
    };
    link.send(&reply.encode(), &[]).is_ok()
}

/// Nothing was sent, and that is what is answered: the user may have as many descriptors on their way as a process may have open
/// (`ETOOMANYREFS`, unix(7)), and any program of the user's uses them up. If the supervisor is gone the answer fails as well.
fn not_sent(errno: Errno) -> Reply {
    Reply::Failed(errno.raw_os_error())
}

fn failed(error: &std::io::Error) -> Reply {
    Reply::Failed(error.raw_os_error().unwrap_or(Errno::IO.raw_os_error()))
}

/// Acts from a process of its own: a connect may wait for the listener, and the directory and the umask are the
/// caller's. The child answers what becomes of it.
///
/// The socket is let go of here before the supervisor hears anything, who has it until then. Whoever closes it last closes what is
/// on its way in it, and that may wait for a peer for hours (`SO_LINGER`); a process that ends, as the child does, waits for none.
fn unix_socket(action: UnixAction, umask: u32, address: &[u8], descriptors: Vec<OwnedFd>) -> std::io::Result<Reply> {
    let mut descriptors = descriptors.into_iter();
    let (Some(target), Some(directory), Some(answer)) = (descriptors.next(), descriptors.next(), descriptors.next())
    else {
        return Err(Errno::INVAL.into());
    };
    match clone(CloneFlags::NONE)? {
        // The child is reaped with all the others.
        Fork::Parent(_) => Ok(Reply::Done),
        Fork::Child => {
            let act = || -> std::io::Result<Reply> {
                rustix::process::fchdir(&directory)?;
                rustix::process::umask(Mode::from_raw_mode(umask & 0o777));
                match action {
                    UnixAction::Connect => return connect(&target, address, &answer),
                    UnixAction::Bind => socket::bind(&target, address)?,
                    UnixAction::Listen(backlog) => socket::listen(&target, backlog)?,
                }
                Ok(Reply::Done)
            };
            let reply = act().unwrap_or_else(|error| failed(&error));
            // If the supervisor is gone, so is the program.
            let _ = rustix::net::send(&answer, &reply.encode(), rustix::net::SendFlags::NOSIGNAL);
            exit_now(0)
        }
    }
}

/// Connects to the very socket that was looked at: the path is walked once.
fn connect(target: &OwnedFd, address: &[u8], answer: &OwnedFd) -> std::io::Result<Reply> {
    let Some(path) = path_of(address) else {
        // An abstract name: it lives in the program's own network namespace.
        return connect_until_told(target, address, answer).map(|()| Reply::Done);
    };
    let found = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let socket = rustix::fs::fstat(&found)?;
    if FileType::from_raw_mode(socket.st_mode) != FileType::Socket {
        return Err(Errno::CONNREFUSED.into());
    }
    // All areas are one file system, and nothing else in the view is on it.
    if socket.st_dev != rustix::fs::stat("/tmp")?.st_dev {
        return Ok(Reply::Outside);
    }
    let through = format!("/proc/self/fd/{}\0", std::os::fd::AsRawFd::as_raw_fd(&found));
    let mut exact = address.get(..FAMILY_BYTES).unwrap_or_default().to_vec();
    exact.extend(through.as_bytes());
    connect_until_told(target, &exact, answer).map(|()| Reply::Done)
}

/// Waits for a listener's backlog to have room, until something arrives over `answer`: then the caller is called away.
/// Whether that or the connection came first is for the kernel to say; `EINTR` means that there is none.
fn connect_until_told(target: &OwnedFd, address: &[u8], answer: &OwnedFd) -> std::io::Result<()> {
    let told = rustix::process::Signal::IO.as_raw();
    signal::set_interrupting(told)?;
    socket::signal_on_input(answer)?;
    signal::set_mask(&SignalSet::full_without(told))?;
    loop {
        // What is told just before connect waits is told again.
        let now = Timespec::default();
        if poll(&mut [PollFd::new(answer, PollFlags::IN)], Some(&now))? > 0 {
            return Err(Errno::INTR.into());
        }
        match socket::connect(target, address) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

const FAMILY_BYTES: usize = 2;

/// The path of a Unix address, `None` for an abstract one. unix(7).
fn path_of(address: &[u8]) -> Option<&[u8]> {
    let path = address.get(FAMILY_BYTES..)?;
    let path = path.split(|byte| *byte == 0).next()?;
    (!path.is_empty()).then_some(path)
}

/// kill(2) with pid 0: every process of the caller's group that is inside.
fn signal_group(pid: i32, number: i32) -> Reply {
    let Ok(group) = group_of(pid) else {
        return Reply::Failed(Errno::SRCH.raw_os_error());
    };
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Reply::Failed(Errno::SRCH.raw_os_error());
    };
    for entry in entries.flatten() {
        let Some(member) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if member > 1 && group_of(member).is_ok_and(|other| other == group) {
            // A member that is gone by now needs no signal.
            let _ = signal::kill(member, number);
        }
    }
    Reply::Done
}
