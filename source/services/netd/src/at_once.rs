//! Streams that connect at once.
//!
//! A near server answers before the call would wait: then no thread is needed to wait, and waking one costs several times what
//! the connect does.

use crate::Stop;
use nexus_sys::ring::Ring;
use nexus_sys::socket as sys;
use std::os::fd::OwnedFd;

/// How many connects go without a ring: it costs about as much to make as two threads to wake, and most programs connect to
/// one place.
const WITHOUT: u8 = 2;

/// A ring, once there is use for one.
#[derive(Debug)]
pub(crate) enum AtOnce {
    /// So many connects there were.
    NotYet(u8),
    Ring(Box<Ring>),
    /// Nobody gets rings here.
    Never,
}

impl Default for AtOnce {
    fn default() -> Self {
        Self::NotYet(0)
    }
}

impl AtOnce {
    /// Connects if that can be told at once: `false` where somebody has to wait for it, as if this had not been tried.
    pub(crate) fn connect(&mut self, socket: &OwnedFd, address: &[u8]) -> Result<bool, Stop> {
        let ring = match self {
            Self::Ring(ring) => ring,
            Self::Never => return Ok(false),
            Self::NotYet(before) if *before < WITHOUT => {
                *before = before.saturating_add(1);
                return Ok(false);
            }
            Self::NotYet(_) => {
                *self = Ring::new().map_or(Self::Never, |ring| Self::Ring(Box::new(ring)));
                return self.connect(socket, address);
            }
        };
        let told = ring.connect(socket, address);
        if told.is_err() && sys::is_tcp_closed(socket)? {
            // A call that waits leaves a socket that may connect anew. The family that is none, connect(2).
            sys::connect(socket, &[0; 16])?;
        }
        Ok(told?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn the_first_connects_make_no_ring_and_those_after_it_are_told_at_once_or_not_at_all() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = crate::local::encode(listener.local_addr().unwrap());
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let stream = || sys::socket(2, 1, 0).unwrap();
        let mut at_once = AtOnce::default();
        for _ in 0..WITHOUT {
            assert!(!at_once.connect(&stream(), &there).unwrap());
        }
        assert!(matches!(at_once, AtOnce::NotYet(WITHOUT)));
        let first = at_once.connect(&stream(), &there).unwrap();
        if matches!(at_once, AtOnce::Never) {
            // Nobody gets rings here, and threads wait as before.
            return assert!(!first);
        }
        assert!(first);
        // One that was refused can be used again, by a call that waits too.
        let refused = stream();
        assert!(at_once.connect(&refused, &crate::local::encode(closed)).is_err());
        assert!(sys::is_tcp_closed(&refused).unwrap());
        sys::connect(&refused, &there).unwrap();
        // One that has its peer keeps it.
        assert!(at_once.connect(&refused, &there).is_err());
        assert!(rustix::net::getpeername(&refused).is_ok());
    }
}
