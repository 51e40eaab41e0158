//! Sockets for a confined program.
//!
//! The program lives in a network namespace of its own that leads nowhere. A socket for the outside is made by this
//! code on the host's side when the program asks for one, and every call that gives such a socket an address is carried
//! out here, on the bytes that were copied once and judged. The data path afterwards is the kernel's own.
//!
//! A call that arrives here never continues in the kernel: its descriptor may mean another socket by then, and its
//! address may be another one.
#![forbid(unsafe_code)]

mod away;
mod bind;
mod broker;
mod caller;
mod connect;
mod connecting;
mod control;
mod epoll;
mod gather;
mod group;
mod host;
mod interfaces;
mod listen;
mod local;
mod memfd_create;
mod options;
mod pins;
mod resolver;
mod route;
mod send;
mod share;
mod side;
mod socket;
mod stream;
mod taken;
mod turns;
mod unix;
mod unusable;
mod waiting;
mod worker;

pub use broker::Broker;
pub use connecting::Connecting;
pub use local::is_ephemeral;
pub use pins::{OpenName, OpenNames};
#[doc(hidden)]
pub use resolver::read_any_message;
pub use resolver::{listed_addresses, name_servers};
pub use turns::Turns;
pub use worker::LateDenial;

use host::Host;
use nexus_abi::{Errno, Operation, Reason, RuleRef};
use nexus_abi_policy::Guard;
use nexus_policy::EgressGate;
use nexus_sys::seccomp::{Listener, Notification};
use rustix::net::{AddressFamily, SocketType};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use thiserror::Error;
use worker::Workers;

/// What becomes of a call.
#[derive(Debug)]
pub enum Answer {
    /// It returns this.
    Value(i64),
    /// It fails as Linux would have let it fail.
    Errno(Errno),
    /// Policy refuses it: the program gets the denial's errno, the journal the rest.
    Denied(Denial),
    /// It returns a descriptor.
    Descriptor {
        /// The socket.
        fd: OwnedFd,
        /// Whether it is closed on exec.
        cloexec: bool,
    },
    /// Whoever asked answers it, by making this connection.
    Here(Connecting),
    /// Somebody else answers it: it may take as long as the other side likes.
    Later,
}

/// What a call did that the counters should know of.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Effects {
    /// How many times an outside destination was allowed: a call that sends many messages asks for each.
    pub egress_allowed: u64,
    /// A message was refused after others of the same call were sent.
    pub denied: Option<Denial>,
}

/// A call that policy refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// What was asked for.
    pub operation: Operation,
    /// Of what.
    pub object: String,
    /// Why not.
    pub reason: Reason,
    /// What the program is told.
    pub errno: Errno,
    /// The rule that decided, if one did.
    pub rule: Option<RuleRef>,
}

/// Why there is no netd.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The kernel refused something that every kernel from Linux 5.14 gives.
    #[error("cannot tell the program's sockets from the host's: {0}")]
    Cookie(#[source] std::io::Error),
    /// No descriptor is left for a socket of the program's network.
    #[error("cannot keep a socket of the program's network: {0}")]
    Inside(#[source] std::io::Error),
    /// No thread for the waiting calls.
    #[error("cannot start a thread: {0}")]
    Workers(#[source] std::io::Error),
    /// Nobody would answer names.
    #[error("cannot start the resolver: {0}")]
    Resolver(#[source] std::io::Error),
}

/// What a session's sockets are judged by.
#[derive(Clone, Debug)]
pub struct Judges {
    /// The syscall rules: the one evaluator, which asks the egress rules where a rule says so.
    pub guard: Arc<Guard>,
    /// The egress rules, the ceiling's among them.
    pub egress: EgressGate,
    /// Where it is said that egress rules are enforced, once, when the first verdict was carried out; off by default.
    pub markers: Option<Arc<OwnedFd>>,
}

/// What is said on the marker sink.
pub const MARKER: &str = "net-egress: enforced\n";

/// The judge and maker of one session's sockets.
#[derive(Debug)]
pub struct Netd {
    judges: Judges,
    /// Known from the first call that is judged by it.
    host: Option<Host>,
    sides: side::Sides,
    seen: side::Seen,
    /// What names were resolved to.
    pins: pins::Pins,
    /// Whether it was said that the rules are enforced.
    marked: bool,
    broker: Arc<Broker>,
    /// A socket of the program's network namespace.
    inside: OwnedFd,
    listener: Arc<Listener>,
    workers: Workers,
}

impl Netd {
    /// Starts serving a session.
    ///
    /// `inside` is any socket of the program's network namespace; `late` is told of denials that are found only after an
    /// [`Answer::Later`].
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(
        judges: Judges,
        inside: &OwnedFd,
        broker: Broker,
        listener: Arc<Listener>,
        late: LateDenial,
    ) -> Result<Self, StartError> {
        let pins = pins::Pins::default();
        if judges.egress.opens_names() {
            let made = |kind: SocketType| {
                let domain = i32::from(AddressFamily::INET.as_raw());
                broker.socket(domain, kind.as_raw().cast_signed(), 0)
            };
            let (datagrams, streams) = (made(SocketType::DGRAM), made(SocketType::STREAM));
            let sockets = datagrams.and_then(|datagrams| Ok((datagrams, streams?)));
            sockets
                .map_err(std::io::Error::from)
                .and_then(|(datagrams, streams)| {
                    let gate = judges.egress.clone();
                    resolver::start(gate, pins.clone(), Arc::clone(&late), datagrams, streams)
                })
                .map_err(StartError::Resolver)?;
        }
        Ok(Self {
            host: None,
            sides: side::Sides::between(inside).map_err(StartError::Cookie)?,
            inside: inside.try_clone().map_err(StartError::Inside)?,
            seen: side::Seen::default(),
            pins,
            marked: judges.markers.is_none(),
            judges,
            broker: Arc::new(broker),
            workers: Workers::new(Arc::clone(&listener), late).map_err(StartError::Workers)?,
            listener,
        })
    }

    /// The names that are open, now and later.
    #[must_use]
    pub fn names(&self) -> OpenNames {
        OpenNames::of(self.pins.clone())
    }

    /// `memfd_create(name, flags)`: a memory file is made where it is bounded.
    pub fn memory_file(&mut self, call: &Notification) -> Answer {
        answer(memfd_create::run(self, call))
    }

    /// `socket(domain, type, protocol)`: a socket for the internet is made on the host's side.
    pub fn socket(&mut self, call: &Notification) -> Answer {
        answer(socket::run(self, call))
    }

    /// `connect(fd, address, length)`. Judged here, by the guard and the egress rules: only here the destination is known.
    /// So it is for [`Netd::bind`] and for what sends; the other calls come here after the guard let them through.
    pub fn connect(&mut self, call: &Notification, effects: &mut Effects) -> Answer {
        let outcome = connect::run(self, call, effects);
        self.enforced(outcome, effects)
    }

    /// `sendto(fd, data, length, flags, address, length)`.
    pub fn send_to(&mut self, call: &Notification, effects: &mut Effects) -> Answer {
        let outcome = send::to(self, call, effects);
        self.enforced(outcome, effects)
    }

    /// `sendmsg(fd, message, flags)`.
    pub fn send_message(&mut self, call: &Notification, effects: &mut Effects) -> Answer {
        let outcome = send::message(self, call, effects);
        self.enforced(outcome, effects)
    }

    /// `sendmmsg(fd, messages, count, flags)`.
    pub fn send_messages(&mut self, call: &Notification, effects: &mut Effects) -> Answer {
        let outcome = send::messages(self, call, effects);
        self.enforced(outcome, effects)
    }

    /// `bind(fd, address, length)`.
    pub fn bind(&mut self, call: &Notification) -> Answer {
        answer(bind::run(self, call))
    }

    /// The answer; the first that the egress rules gave is marked.
    fn enforced(&mut self, outcome: Outcome, effects: &Effects) -> Answer {
        let denied = matches!(&outcome, Err(Stop::Denied(denial)) if denial.reason.as_str().starts_with("egress."));
        if !self.marked && (denied || effects.egress_allowed > 0) {
            self.marked = true;
            if let Some(sink) = &self.judges.markers {
                // One write, so that no other's line tears it. Who does not listen misses it.
                let _ = rustix::io::write(sink, MARKER.as_bytes());
            }
        }
        answer(outcome)
    }

    /// `listen(fd, backlog)`.
    pub fn listen(&mut self, call: &Notification) -> Answer {
        answer(listen::run(self, call))
    }

    /// `setsockopt(fd, SOL_SOCKET, SO_REUSEADDR or SO_REUSEPORT, value, length)`: who may have the port as well.
    pub fn share(&mut self, call: &Notification) -> Answer {
        answer(share::run(self, call))
    }

    /// `ioctl(fd, question, answer)`: what interfaces there are.
    pub fn interfaces(&mut self, call: &Notification) -> Answer {
        answer(interfaces::run(self, call))
    }

    /// `kill(0, signal)`: the caller's process group, but only what of it is inside.
    pub fn signal_group(&mut self, call: &Notification) -> Answer {
        answer(group::run(self, call))
    }
}

/// What an operation ends with: a value, or one of the ways not to have one.
type Outcome = Result<Answer, Stop>;

/// Why an operation goes no further.
#[derive(Debug)]
enum Stop {
    Errno(Errno),
    Denied(Denial),
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Errno(errno_of(error.raw_os_error()))
    }
}

impl From<rustix::io::Errno> for Stop {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Errno(errno_of(Some(error.raw_os_error())))
    }
}

impl From<Errno> for Stop {
    fn from(error: Errno) -> Self {
        Self::Errno(error)
    }
}

fn errno_of(raw: Option<i32>) -> Errno {
    raw.and_then(|raw| u16::try_from(raw).ok())
        .and_then(Errno::from_raw)
        .unwrap_or(Errno::EIO)
}

fn answer(outcome: Outcome) -> Answer {
    match outcome {
        Ok(answer) => answer,
        Err(Stop::Errno(errno)) => Answer::Errno(errno),
        Err(Stop::Denied(denial)) => Answer::Denied(denial),
    }
}

/// An argument that the kernel reads as an `int`: the upper half of the register means nothing.
fn int(register: u64) -> i32 {
    (register & u64::from(u32::MAX)).try_into().map_or(0, u32::cast_signed)
}
