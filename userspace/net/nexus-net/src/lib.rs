//! Guarded sockets for Rust programs that cooperate: `connect`, `bind` and `send_to` that ask a subject's egress rules
//! first, with the same evaluator, reasons and rule that `nx run` judges by.
//!
//! **A guardrail, not a boundary.** Nothing keeps a program from making a socket without it; what has to hold against the
//! program itself is `nx run`. It is for services of one's own that speak for others, for tests of a policy, and for systems
//! where no kernel enforces anything yet.
//!
//! ```no_run
//! use nexus_net::Guarded;
//! use nexus_policy::{MemoryTree, Policy};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let policy = Policy::load(&MemoryTree::shipped())?;
//! let net = Guarded::of_subject(&policy, "demo", [])?;
//! let stream = net.connect("127.0.0.1:8443".parse()?)?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use nexus_abi::{Protocol, Reason, RuleRef, Verdict};
use nexus_net_egress::{HostAddresses, TooManyHostAddresses, acted_on};
use nexus_policy::{EgressGate, Policy};
use thiserror::Error;

/// A subject's sockets.
#[derive(Clone, Debug)]
pub struct Guarded {
    gate: EgressGate,
    host: HostAddresses,
    /// Where each rule stands that a refusal may name.
    places: Places,
}

/// Rules by their number in the policy.
type Places = std::collections::BTreeMap<RuleRef, String>;

/// Why there are none.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SubjectError {
    /// The policy has no such subject.
    #[error("no subject of this name: {0}")]
    NoSubject(String),
    /// Its egress rules make no table.
    #[error("the egress rules cannot be used: {0}")]
    Rules(#[source] nexus_net_egress::CompileError),
    /// A host with more addresses than any.
    #[error(transparent)]
    Host(#[from] TooManyHostAddresses),
}

/// A request that the rules refuse. Turned into an [`io::Error`] it is `EPERM`, as under `nx run`, with this inside.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{protocol} {address}` is refused: {reason}{}", .at.as_deref().map(|at| format!(" ({at})")).unwrap_or_default())]
pub struct Refused {
    /// Over which protocol.
    pub protocol: Protocol,
    /// To or at which address.
    pub address: SocketAddr,
    /// Why.
    pub reason: Reason,
    /// Where the rule stands, or would stand.
    pub at: Option<String>,
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        Self::new(io::ErrorKind::PermissionDenied, refused)
    }
}

impl Guarded {
    /// Those of a subject. `host` are this machine's own addresses, which only a rule that names them opens; with none
    /// given, an allowed network that holds one of them opens it as well.
    ///
    /// # Errors
    /// [`SubjectError`].
    pub fn of_subject(
        policy: &Policy,
        subject: &str,
        host: impl IntoIterator<Item = IpAddr>,
    ) -> Result<Self, SubjectError> {
        let rules = policy
            .subject(subject)
            .map_err(|error| SubjectError::NoSubject(error.to_string()))?;
        let layers = rules.egress.iter();
        let named = layers.flat_map(|layer| {
            let rules = layer.rules.iter().map(|rule| rule.rule);
            rules.chain(std::iter::once(layer.no_rule))
        });
        Ok(Self {
            gate: rules.egress_gate().map_err(SubjectError::Rules)?,
            host: HostAddresses::new(host)?,
            places: named.filter_map(|rule| Some((rule, policy.rule(rule)?.at))).collect(),
        })
    }

    /// Whether a destination is open. The subject's own loopback is nothing apart here: without a rule it is open, and it is
    /// this machine's.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn judge(&self, protocol: Protocol, to: SocketAddr) -> Result<(), Refused> {
        match self.gate.judge(protocol, to.ip(), to.port(), &self.host).verdict {
            Verdict::Allow { .. } => Ok(()),
            Verdict::Deny { reason, rule, .. } => Err(Refused {
                protocol,
                address: to,
                reason,
                at: rule.and_then(|rule| self.places.get(&rule).cloned()),
            }),
        }
    }

    /// Whether a local port may be taken: any on the loopback, one that the kernel chooses, or one by rule.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn judge_bind(&self, protocol: Protocol, at: SocketAddr) -> Result<(), Refused> {
        let free = at.port() == 0 || at.ip().is_loopback() || self.gate.allows_bind(protocol, at.port());
        if free {
            return Ok(());
        }
        Err(Refused {
            protocol,
            address: at,
            reason: Reason::EgressNoRule,
            at: self
                .gate
                .bind_rule_missing()
                .and_then(|rule| self.places.get(&rule).cloned()),
        })
    }

    /// `TcpStream::connect`, judged. One address: names are resolved before, and each address judged.
    ///
    /// # Errors
    /// [`Refused`] as `PermissionDenied`; as [`TcpStream::connect`].
    pub fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        self.judge(Protocol::Tcp, to)?;
        TcpStream::connect(SocketAddr::new(acted_on(to.ip()), to.port()))
    }

    /// `TcpListener::bind`, judged.
    ///
    /// # Errors
    /// [`Refused`] as `PermissionDenied`; as [`TcpListener::bind`].
    pub fn listen(&self, at: SocketAddr) -> io::Result<TcpListener> {
        self.judge_bind(Protocol::Tcp, at)?;
        TcpListener::bind(at)
    }

    /// `UdpSocket::bind`, judged; what it sends is judged as well.
    ///
    /// # Errors
    /// [`Refused`] as `PermissionDenied`; as [`UdpSocket::bind`].
    pub fn datagrams(&self, at: SocketAddr) -> io::Result<Datagrams<'_>> {
        self.judge_bind(Protocol::Udp, at)?;
        Ok(Datagrams {
            net: self,
            socket: UdpSocket::bind(at)?,
        })
    }
}

/// A UDP socket whose receivers are judged.
#[derive(Debug)]
pub struct Datagrams<'n> {
    net: &'n Guarded,
    socket: UdpSocket,
}

impl Datagrams<'_> {
    /// `UdpSocket::send_to`, judged.
    ///
    /// # Errors
    /// [`Refused`] as `PermissionDenied`; as [`UdpSocket::send_to`].
    pub fn send_to(&self, data: &[u8], to: SocketAddr) -> io::Result<usize> {
        self.net.judge(Protocol::Udp, to)?;
        self.socket.send_to(data, SocketAddr::new(acted_on(to.ip()), to.port()))
    }

    /// `UdpSocket::connect`, judged: then [`UdpSocket::send`] needs no more.
    ///
    /// # Errors
    /// [`Refused`] as `PermissionDenied`; as [`UdpSocket::connect`].
    pub fn connect(self, to: SocketAddr) -> io::Result<UdpSocket> {
        self.net.judge(Protocol::Udp, to)?;
        self.socket.connect(SocketAddr::new(acted_on(to.ip()), to.port()))?;
        Ok(self.socket)
    }

    /// `UdpSocket::recv_from`.
    ///
    /// # Errors
    /// As [`UdpSocket::recv_from`].
    pub fn recv_from(&self, bytes: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.socket.recv_from(bytes)
    }

    /// Where it is bound.
    ///
    /// # Errors
    /// As [`UdpSocket::local_addr`].
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}
