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
    /// Connect or bind a Unix socket by path, as the program would: in its mount namespace, from its directory. Comes
    /// with three descriptors: the socket, the
    /// directory, and a socket on which the outcome is sent; `Done` as the reply only means that it will be.
    UnixPath {
        /// Bind rather than connect.
        bind: bool,
        /// The program's umask, which a bound socket's mode follows.
        umask: u32,
        /// The address as it was judged.
        address: Vec<u8>,
    },
    /// Send a signal to every process of a group inside, as `kill(0, signal)` of this process would.
    SignalGroup {
        /// The calling process, in init's pid namespace.
        pid: i32,
        /// Which signal; 0 only asks.
        signal: i32,
    },
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
            Self::UnixPath { bind, umask, address } => {
                bytes.push(if *bind { 3 } else { 2 });
                bytes.extend(umask.to_le_bytes());
                bytes.extend(address);
            }
            Self::SignalGroup { pid, signal } => {
                bytes.push(4);
                for part in [pid, signal] {
                    bytes.extend(part.to_le_bytes());
                }
            }
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
            2 | 3 => {
                let (umask, address) = int(rest)?;
                (address.len() <= ADDRESS_BYTES_MAX).then(|| Self::UnixPath {
                    bind: *tag == 3,
                    umask: umask.cast_unsigned(),
                    address: address.to_vec(),
                })
            }
            4 => {
                let (pid, rest) = int(rest)?;
                let (signal, rest) = int(rest)?;
                rest.is_empty().then_some(Self::SignalGroup { pid, signal })
            }
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
            Request::UnixPath {
                bind: false,
                umask: 0o22,
                address: vec![1, 0, b'/'],
            },
            Request::UnixPath {
                bind: true,
                umask: 0,
                address: vec![0; ADDRESS_BYTES_MAX],
            },
            Request::SignalGroup { pid: 2, signal: 15 },
        ] {
            assert_eq!(Request::decode(&request.encode()), Some(request));
        }
        for reply in [Reply::Listener, Reply::Done, Reply::Failed(111)] {
            assert_eq!(Reply::decode(&reply.encode()), Some(reply));
        }
    }

    #[test]
    fn an_address_longer_than_any_is_refused() {
        let request = Request::UnixPath {
            bind: true,
            umask: 0,
            address: vec![0; ADDRESS_BYTES_MAX + 1],
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
