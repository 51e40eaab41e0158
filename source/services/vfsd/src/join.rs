//! How a session gets to its file server, and starts it where none runs.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nexus_sys::process::{Child, CloneFlags, Fork, clone, exit_now};
use nexus_wire::Bounded;
use nexus_wire::packet::PacketSocket;
use nexus_wire::vfs::{FromVfsd, Refusal, ToVfsd};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType};

use crate::fs::xattr::is_of_an_area;
use crate::server::{Start, run};
use crate::{Identity, PlacePart, VfsdConfig, VfsdConnection, VfsdError, WorkConfig, layout};

/// How long reaching or starting a file server may take; longer than one that ends may take to end.
const JOIN_WAIT: Duration = Duration::from_secs(8);

/// How long a server that measures something before it answers may take, the state or a work directory: it takes some
/// microseconds a file.
const START_WAIT: Duration = Duration::from_secs(60);

/// Between two tries while another server of the subject ends, which takes less than a millisecond: short, then longer.
const RETRY_FIRST: Duration = Duration::from_micros(100);
const RETRY_LAST: Duration = Duration::from_millis(50);

/// How long after it was reached a file server is asked at the latest; one that is not waits a little longer before it gives up.
const ASK_WITHIN: Duration = Duration::from_secs(1);

/// How many sessions may be waiting to be taken.
const BACKLOG: i32 = 64;

/// A session on its way to its file server, which starts, and answers, while the caller does something else.
#[derive(Debug)]
pub struct Joining {
    config: VfsdConfig,
    link: PacketSocket,
    reached: Instant,
    asked: bool,
    until: Instant,
    /// A server that was started and waits for its identity maps.
    unmapped: Option<Unmapped>,
    /// Whether it was started for us: one that then goes without a word will not fare better a second time.
    started: bool,
}

/// A server of another user than ours, which may not write its own identity maps: it says that it has a namespace, and is told
/// when they are written. user_namespaces(7).
#[derive(Debug)]
struct Unmapped {
    server: Child,
    link: PacketSocket,
    owner: Identity,
}

impl Unmapped {
    /// Writes them, once it has asked. Where it is gone, or they cannot be written, it says so itself.
    fn map(self) {
        let Self { server, link, owner } = self;
        let asked = link.receive().is_ok_and(|packet| packet.bytes() == b"map");
        // Root stays mapped until the server has opened the device, which may be root's alone.
        if asked && nexus_sys::userns::map_child(server.pid, &[0, owner.uid], &[0, owner.gid]).is_ok() {
            let _ = link.send(b"mapped", &[]);
        }
    }
}

/// Connects to the file server of the subject, or starts it if it does not run. It is asked for the areas by [`Joining::ask`] or
/// [`Joining::finish`], which must come soon.
///
/// The caller must have one thread: a server is made by forking. Only one server of a subject can run, because it holds
/// a lock that lies with the subject's files; a session that meets one on its way out waits for it to be gone, and only
/// then starts another, so that what one wrote the other sees.
///
/// # Errors
/// [`VfsdError`] says which step failed; [`VfsdError::Timeout`] after eight seconds.
pub fn begin(config: &VfsdConfig) -> Result<Joining, VfsdError> {
    config.validate()?;
    let until = Instant::now() + JOIN_WAIT;
    layout::make_runtime_dir(&config.runtime_dir)?;
    let dir = layout::open_subject_dir(config)?;
    let path = config.socket_path();
    let mut pause = RETRY_FIRST;
    loop {
        let reached = Instant::now();
        let joining = |link, until, unmapped, started| Joining {
            config: config.clone(),
            link,
            reached,
            asked: false,
            until,
            unmapped,
            started,
        };
        if let Some(link) = connect(&path)? {
            return Ok(joining(link, until, None, false));
        }
        if let Some(lock) = layout::lock(config, dir.as_fd())? {
            let (link, unmapped) = start(config, &path, &dir, lock)?;
            return Ok(joining(link, Instant::now() + START_WAIT, unmapped, true));
        }
        if Instant::now() >= until {
            return Err(VfsdError::Timeout(JOIN_WAIT.as_millis()));
        }
        std::thread::sleep(pause);
        pause = pause.saturating_mul(2).min(RETRY_LAST);
    }
}

/// [`begin`] and [`Joining::finish`].
///
/// # Errors
/// As both.
pub fn join(config: &VfsdConfig) -> Result<VfsdConnection, VfsdError> {
    begin(config)?.finish()
}

impl Joining {
    /// Asks for the areas, in place of what the configuration said with this work directory and these places; and does what a
    /// server that was started needs of its starter, if it has said so by now. The caller must have one thread.
    ///
    /// # Errors
    /// As [`begin`].
    pub fn ask(&mut self, work: Option<WorkConfig>, places: Vec<PlacePart>) -> Result<(), VfsdError> {
        self.config.work = work;
        self.config.places = places;
        self.config.validate()?;
        self.greet()?;
        let wants = |unmapped: &mut Unmapped| is_ready(&mut [PollFd::new(&unmapped.link, PollFlags::IN)]);
        if let Some(unmapped) = self.unmapped.take_if(wants) {
            unmapped.map();
        }
        Ok(())
    }

    /// Says Hello. Whoever took long is no longer waited for.
    fn greet(&mut self) -> Result<(), VfsdError> {
        if self.reached.elapsed() > ASK_WITHIN {
            // One that was started for us ends with our connection; another begins after it.
            let _ = rustix::net::shutdown(&self.link, Shutdown::Both);
            self.unmapped = None;
            *self = begin(&self.config)?;
        }
        self.asked = true;
        hello(&self.config, &self.link)?;
        if self.config.work.is_some() {
            // What is in a work directory is measured before the answer comes.
            self.until = self.until.max(Instant::now() + START_WAIT);
        }
        Ok(())
    }

    /// Waits for the file server's answer. The caller must still have one thread: a server that was on its way out
    /// when it was asked is replaced by another.
    ///
    /// # Errors
    /// [`VfsdError`]; [`VfsdError::Timeout`] after eight seconds, or after a minute if a server was started and does not
    /// answer.
    pub fn finish(mut self) -> Result<VfsdConnection, VfsdError> {
        let until = self.until;
        loop {
            if !self.asked {
                self.greet()?;
            }
            if let Some(unmapped) = self.unmapped.take() {
                // It asks, refuses or ends: each can be read.
                wait(
                    &mut [
                        PollFd::new(&unmapped.link, PollFlags::IN),
                        PollFd::new(&self.link, PollFlags::IN),
                    ],
                    self.until,
                )?;
                if is_ready(&mut [PollFd::new(&unmapped.link, PollFlags::IN)]) {
                    unmapped.map();
                }
            }
            if let Some(connection) = answer(&self.config, self.link, self.until)? {
                return Ok(connection);
            }
            if self.started || Instant::now() >= until {
                return Err(VfsdError::Gone);
            }
            // It was on its way out.
            self = begin(&self.config)?;
        }
    }
}

/// Whether there is something to read at once.
fn is_ready(fds: &mut [PollFd<'_>]) -> bool {
    rustix::event::poll(fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// Waits for one of them.
fn wait(fds: &mut [PollFd<'_>], until: Instant) -> Result<(), VfsdError> {
    let began = Instant::now();
    let left = until.saturating_duration_since(began);
    let timeout = Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    };
    let ready = rustix::io::retry_on_intr(|| rustix::event::poll(fds, Some(&timeout)));
    if ready.map_err(VfsdError::Connection)? == 0 {
        return Err(VfsdError::Timeout(began.elapsed().as_millis()));
    }
    Ok(())
}

fn socket_error(path: &Path, source: Errno) -> VfsdError {
    VfsdError::Socket {
        path: path.display().to_string(),
        source,
    }
}

fn packet_socket() -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Connects if somebody listens.
fn connect(path: &Path) -> Result<Option<PacketSocket>, VfsdError> {
    // Nobody is there, or there are too many at the door.
    reach(path).map(Result::ok)
}

/// Connects without waiting; `ENOENT` and `ECONNREFUSED` where nobody listens, `EAGAIN` where too many are at the door.
pub(crate) fn reach(path: &Path) -> Result<Result<PacketSocket, Errno>, VfsdError> {
    let failed = |errno| socket_error(path, errno);
    let address = SocketAddrUnix::new(path).map_err(failed)?;
    let socket = packet_socket().map_err(failed)?;
    rustix::io::ioctl_fionbio(&socket, true).map_err(failed)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => {}
        Err(errno @ (Errno::NOENT | Errno::CONNREFUSED | Errno::AGAIN)) => return Ok(Err(errno)),
        Err(errno) => return Err(failed(errno)),
    }
    rustix::io::ioctl_fionbio(&socket, false).map_err(failed)?;
    let peer = rustix::net::sockopt::socket_peercred(&socket)
        .map_err(failed)?
        .uid
        .as_raw();
    // Whoever listened: the starter, who bound the socket before it became anybody else.
    let me = rustix::process::geteuid().as_raw();
    if peer != me {
        Err(VfsdError::Peer { uid: peer })
    } else {
        Ok(Ok(PacketSocket::from(socket)))
    }
}

fn hello(config: &VfsdConfig, socket: &PacketSocket) -> Result<(), VfsdError> {
    if let Some(work) = &config.work {
        // Its server would wait for another that may wait for it: killed at once, neither could end. We serve nothing and may ask.
        if is_of_an_area(&work.directory) {
            return Err(VfsdError::Work {
                stage: "it lies in an area of a subject".to_owned(),
                source: Errno::XDEV,
            });
        }
        say(socket, &ToVfsd::Work, &[work.directory.as_fd()])?;
        for (parent, name) in &work.held {
            let name = Bounded::cut(name);
            say(socket, &ToVfsd::Hold { parent: *parent, name }, &[])?;
        }
    }
    for part in &config.places {
        let place = ToVfsd::Place {
            parent: part.parent,
            name: Bounded::cut(&part.name),
            is_file: part.is_file,
        };
        say(socket, &place, &[])?;
    }
    let hello = ToVfsd::Hello {
        subject: Bounded::cut(config.subject.as_bytes()),
        budgets: config.budgets,
        policy: Bounded::cut(config.policy.as_bytes()),
    };
    say(socket, &hello, &[])
}

fn say(socket: &PacketSocket, message: &ToVfsd, descriptors: &[BorrowedFd<'_>]) -> Result<(), VfsdError> {
    match socket.send(&message.encode(), descriptors) {
        // What it said before it closed may say why.
        Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
        Err(errno) => Err(VfsdError::Connection(errno)),
    }
}

/// Takes the mounts; `None` if the server went away instead of answering.
fn answer(config: &VfsdConfig, socket: PacketSocket, until: Instant) -> Result<Option<VfsdConnection>, VfsdError> {
    wait(&mut [PollFd::new(&socket, PollFlags::IN)], until)?;
    let mut packet = match socket.receive() {
        Ok(packet) => packet,
        Err(Errno::CONNRESET) => return Ok(None),
        Err(errno) => return Err(VfsdError::Connection(errno)),
    };
    if packet.bytes().is_empty() {
        return Ok(None);
    }
    let message = FromVfsd::decode(packet.bytes()).map_err(VfsdError::Decode)?;
    let mut fds = std::mem::take(&mut packet.descriptors);
    let work = if fds.len() > 3 { fds.pop() } else { None };
    match (message, <[OwnedFd; 3]>::try_from(fds)) {
        (FromVfsd::Welcome { vfsd_pid, fresh }, Ok(mounts)) => {
            Ok(Some(VfsdConnection::new(socket, mounts, work, vfsd_pid, fresh)))
        }
        (
            FromVfsd::Refused {
                refusal: Refusal::Start,
                stage,
                errno,
            },
            _,
        ) => Err(VfsdError::Start {
            stage: String::from_utf8_lossy(stage.as_bytes()).into_owned(),
            source: errno_of(errno),
        }),
        (
            FromVfsd::Refused {
                refusal: Refusal::Work,
                stage,
                errno,
            },
            _,
        ) => Err(VfsdError::Work {
            stage: String::from_utf8_lossy(stage.as_bytes()).into_owned(),
            source: errno_of(errno),
        }),
        (
            FromVfsd::Refused {
                refusal: Refusal::Mount,
                errno,
                ..
            },
            _,
        ) => Err(VfsdError::Mounts(errno_of(errno))),
        (FromVfsd::Refused { refusal, .. }, _) => Err(VfsdError::Refused(refusal)),
        (FromVfsd::NoPlace { part, errno }, _) => {
            let source = errno_of(errno);
            Err(VfsdError::Place {
                path: config.place(part),
                what: in_the_place(source),
                source,
            })
        }
        _ => Err(VfsdError::Refused(Refusal::Protocol)),
    }
}

/// What is where something has to be mounted, as the file server says it.
const fn in_the_place(errno: Errno) -> &'static str {
    match errno {
        Errno::LOOP => "a link is there",
        Errno::NOTDIR => "a file is there",
        Errno::ISDIR => "a directory is there",
        Errno::BUSY => "another session mounts something else there",
        Errno::NFILE => "too many sessions hold a place",
        _ => "the file server cannot look at it",
    }
}

fn errno_of(raw: u32) -> Errno {
    i32::try_from(raw)
        .ok()
        .filter(|errno| (1..4096).contains(errno))
        .map_or(Errno::IO, Errno::from_raw_os_error)
}

/// Starts a server that holds `lock`, and returns our connection to it; it is a child of ours, which ends after us.
///
/// Where it gives up root, it needs us once more.
fn start(
    config: &VfsdConfig,
    path: &Path,
    dir: &OwnedFd,
    lock: OwnedFd,
) -> Result<(PacketSocket, Option<Unmapped>), VfsdError> {
    let failed = |errno| socket_error(path, errno);
    let listener = listen(path).map_err(failed)?;
    let (ours, first) = PacketSocket::pair().map_err(VfsdError::Connection)?;
    let dir = dir.try_clone().map_err(VfsdError::Fork)?;
    let markers = config.markers.as_ref().map(|sink| sink.try_clone()).transpose();
    let markers = markers.map_err(VfsdError::Fork)?;
    // An ordinary user's server maps itself.
    let owner = config.owner();
    let maps = config.identity.map(|_| PacketSocket::pair()).transpose();
    let (link, mapper) = maps.map_err(VfsdError::Connection)?.unzip();
    let start = Start {
        subject: Bounded::cut(config.subject.as_bytes()),
        budgets: config.budgets,
        policy: Bounded::cut(config.policy.as_bytes()),
        owner,
        from_root: config.identity.is_some(),
        peer_uid: rustix::process::geteuid().as_raw(),
        dir,
        lock,
        listener,
        socket_path: path.to_path_buf(),
        first,
        markers,
        mapper,
    };
    match clone(CloneFlags::NONE).map_err(VfsdError::Fork)? {
        Fork::Child => {
            run(start);
            exit_now(0)
        }
        Fork::Parent(server) => {
            let unmapped = link.map(|link| Unmapped { server, link, owner });
            Ok((ours, unmapped))
        }
    }
}

/// Listens at `path`. The caller holds the subject's lock, so whatever is there was left by a server that is gone.
fn listen(path: &Path) -> Result<OwnedFd, Errno> {
    match rustix::fs::unlink(path) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    let socket = packet_socket()?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket)
}
