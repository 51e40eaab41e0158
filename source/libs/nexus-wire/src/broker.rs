//! What the supervisor asks the program's init to do, because only init stands inside the program's namespaces.
//!
//! Init is trusted; the program cannot reach this socket. Requests carry addresses that were already judged.

/// The longest socket address (`sizeof(struct sockaddr_storage)`).
pub const ADDRESS_BYTES_MAX: usize = 128;

/// From the supervisor to init.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Make a socket in the program's network namespace; answered with a descriptor.
    Socket {
        /// `AF_*`.
        domain: i32,
        /// `SOCK_*` with its flags.
        kind: i32,
        /// `IPPROTO_*`.
        protocol: i32,
    },
    /// Connect, bind or listen on a Unix socket as the program would: in its mount namespace, from its directory. Comes
    /// with three descriptors: the socket, the directory, and a socket on which the outcome is sent; `Done` as the reply
    /// only means that it will be.
    Unix {
        /// What to do.
        action: UnixAction,
        /// The program's umask, which a bound socket's mode follows.
        umask: u32,
        /// The address as it was judged; empty for `Listen`.
        address: Vec<u8>,
    },
    /// Send a signal to every process of a group inside, as `kill(0, signal)` of this process would.
    SignalGroup {
        /// The calling process, in init's pid namespace.
        pid: i32,
        /// Which signal; 0 only asks.
        signal: i32,
    },
    /// Make a file in the session's bounded memory; answered with a descriptor, and then once more, when init holds it no
    /// longer.
    MemoryFile,
}

/// What to do with a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnixAction {
    /// connect(2). A path must lead to a socket in one of the subject's areas: one anywhere else is the host's.
    Connect,
    /// bind(2).
    Bind,
    /// listen(2) with this backlog.
    Listen(i32),
}

/// From init to the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The program's filter is on: its listener comes along, and a socket of the program's network namespace.
    Listener,
    /// A request was done; a socket comes along where one was asked for.
    Done,
    /// A request failed with this errno.
    Failed(i32),
    /// The path leads to a socket that is not in one of the subject's areas.
    Outside,
}

impl Request {
    /// The message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16);
        match self {
            Self::Socket { domain, kind, protocol } => {
                bytes.push(1);
                for part in [domain, kind, protocol] {
                    bytes.extend(part.to_le_bytes());
                }
            }
            Self::Unix { action, umask, address } => {
                let (code, backlog) = match action {
                    UnixAction::Connect => (0, 0),
                    UnixAction::Bind => (1, 0),
                    UnixAction::Listen(backlog) => (2, *backlog),
                };
                bytes.push(2);
                for part in [code, backlog, umask.cast_signed()] {
                    bytes.extend(part.to_le_bytes());
                }
                bytes.extend(address);
            }
            Self::SignalGroup { pid, signal } => {
                bytes.push(4);
                for part in [pid, signal] {
                    bytes.extend(part.to_le_bytes());
                }
            }
            Self::MemoryFile => bytes.push(5),
        }
        bytes
    }

    /// The request of a message, `None` for anything else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (tag, rest) = bytes.split_first()?;
        match tag {
            1 => {
                let (domain, rest) = int(rest)?;
                let (kind, rest) = int(rest)?;
                let (protocol, rest) = int(rest)?;
                rest.is_empty().then_some(Self::Socket { domain, kind, protocol })
            }
            2 => {
                let (code, rest) = int(rest)?;
                let (backlog, rest) = int(rest)?;
                let (umask, address) = int(rest)?;
                let action = match (code, backlog) {
                    (0, 0) => UnixAction::Connect,
                    (1, 0) => UnixAction::Bind,
                    (2, backlog) => UnixAction::Listen(backlog),
                    _ => return None,
                };
                (address.len() <= ADDRESS_BYTES_MAX).then(|| Self::Unix {
                    action,
                    umask: umask.cast_unsigned(),
                    address: address.to_vec(),
                })
            }
            4 => {
                let (pid, rest) = int(rest)?;
                let (signal, rest) = int(rest)?;
                rest.is_empty().then_some(Self::SignalGroup { pid, signal })
            }
            5 => rest.is_empty().then_some(Self::MemoryFile),
            _ => None,
        }
    }
}

impl Reply {
    /// The message.
    #[must_use]
    pub fn encode(self) -> [u8; 5] {
        let (tag, value) = match self {
            Self::Listener => (1, 0),
            Self::Done => (2, 0),
            Self::Failed(errno) => (3, errno),
            Self::Outside => (4, 0),
        };
        let [a, b, c, d] = i32::to_le_bytes(value);
        [tag, a, b, c, d]
    }

    /// The reply of a message, `None` for anything else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (tag, rest) = bytes.split_first()?;
        let (value, rest) = int(rest)?;
        if !rest.is_empty() {
            return None;
        }
        match (tag, value) {
            (1, 0) => Some(Self::Listener),
            (2, 0) => Some(Self::Done),
            (3, errno) => Some(Self::Failed(errno)),
            (4, 0) => Some(Self::Outside),
            _ => None,
        }
    }
}

fn int(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    Some((i32::from_le_bytes(*head), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_survives_the_wire() {
        for request in [
            Request::Socket {
                domain: 2,
                kind: 1,
                protocol: -1,
            },
            Request::Unix {
                action: UnixAction::Connect,
                umask: 0o22,
                address: vec![1, 0, b'/'],
            },
            Request::Unix {
                action: UnixAction::Bind,
                umask: 0,
                address: vec![0; ADDRESS_BYTES_MAX],
            },
            Request::Unix {
                action: UnixAction::Listen(-1),
                umask: 0,
                address: vec![],
            },
            Request::SignalGroup { pid: 2, signal: 15 },
            Request::MemoryFile,
        ] {
            assert_eq!(Request::decode(&request.encode()), Some(request));
        }
        for reply in [Reply::Listener, Reply::Done, Reply::Failed(111), Reply::Outside] {
            assert_eq!(Reply::decode(&reply.encode()), Some(reply));
        }
    }

    #[test]
    fn an_address_longer_than_any_is_refused() {
        let address = vec![0; ADDRESS_BYTES_MAX + 1];
        let request = Request::Unix {
            action: UnixAction::Bind,
            umask: 0,
            address,
        };
        assert_eq!(Request::decode(&request.encode()), None);
    }

    #[test]
    fn cut_and_padded_messages_are_refused() {
        let whole = Request::Socket {
            domain: 2,
            kind: 1,
            protocol: 0,
        }
        .encode();
        for length in 0..whole.len() {
            assert_eq!(Request::decode(&whole[..length]), None);
        }
        let mut padded = whole;
        padded.push(0);
        assert_eq!(Request::decode(&padded), None);
    }
}
