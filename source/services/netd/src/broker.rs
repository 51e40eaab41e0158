//! Asking init, which stands inside the program's namespaces.

use crate::{Stop, errno_of};
use nexus_abi::Errno;
use nexus_wire::broker::{Reply, Request};
use nexus_wire::packet::{Packet, PacketSocket};
use rustix::io::Errno as HostErrno;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

/// The supervisor's end of the pair that it shares with init.
#[derive(Debug)]
pub struct Broker {
    link: Mutex<PacketSocket>,
}

impl Broker {
    /// Asks over this socket.
    #[must_use]
    pub fn new(link: PacketSocket) -> Self {
        Self { link: Mutex::new(link) }
    }

    /// One question, one answer: init answers at once, whatever it was asked.
    pub(crate) fn ask(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<(Reply, Vec<OwnedFd>), Stop> {
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        link.send(&request.encode(), descriptors)?;
        Self::hear(&link)
    }

    /// Asks for something that init holds no more once this returns: the answer, and then the word that it let go.
    pub(crate) fn ask_for_all(&self, request: &Request) -> Result<Vec<OwnedFd>, Stop> {
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        link.send(&request.encode(), &[])?;
        let packet = match link.receive() {
            // There is no room for what it gave; the second word comes all the same, and is nobody else's answer.
            Err(HostErrno::MSGSIZE) => {
                Self::hear(&link)?;
                return Err(Errno::EMFILE.into());
            }
            other => other?,
        };
        let (_, given) = Self::read(packet)?;
        Self::hear(&link)?;
        Ok(given)
    }

    fn hear(link: &PacketSocket) -> Result<(Reply, Vec<OwnedFd>), Stop> {
        Self::read(link.receive()?)
    }

    fn read(packet: Packet) -> Result<(Reply, Vec<OwnedFd>), Stop> {
        match Reply::decode(packet.bytes()) {
            Some(Reply::Failed(errno)) => Err(errno_of(Some(errno)).into()),
            Some(reply) => Ok((reply, packet.descriptors)),
            None => Err(Errno::EIO.into()),
        }
    }
}
