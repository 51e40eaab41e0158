//! One message, one packet: Unix `SOCK_SEQPACKET` pairs, unix(7), with descriptors alongside.

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The longest packet: a broker's request with a full socket address is the largest message there is.
pub const PACKET_BYTES_MAX: usize = 512;

/// The most descriptors one packet carries: a socket and a directory.
pub const PACKET_DESCRIPTORS_MAX: usize = 4;

/// One end of a pair of packet sockets; closed on exec.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
}

/// A packet as it was read.
#[derive(Debug)]
pub struct Packet {
    bytes: [u8; PACKET_BYTES_MAX],
    length: usize,
    /// The descriptors that came with it.
    pub descriptors: Vec<OwnedFd>,
}

impl Packet {
    /// What was sent; empty at end of file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl PacketSocket {
    /// `socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)` socketpair(2).
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn pair() -> Result<(Self, Self), Errno> {
        let (a, b) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self { fd: a }, Self { fd: b }))
    }

    /// Sends one packet, waiting while the other end's queue is full.
    ///
    /// # Errors
    /// `EPIPE` if the other end is closed, `EMSGSIZE` past [`PACKET_BYTES_MAX`].
    pub fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        self.send_with(bytes, descriptors, SendFlags::NOSIGNAL)
    }

    /// Sends one packet if the other end's queue has room, `EAGAIN` otherwise.
    ///
    /// # Errors
    /// As [`PacketSocket::send`].
    pub fn try_send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        self.send_with(bytes, descriptors, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
    }

    fn send_with(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>], flags: SendFlags) -> Result<(), Errno> {
        if bytes.len() > PACKET_BYTES_MAX || descriptors.len() > PACKET_DESCRIPTORS_MAX {
            return Err(Errno::MSGSIZE);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PACKET_DESCRIPTORS_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(Errno::MSGSIZE);
        }
        rustix::io::retry_on_intr(|| rustix::net::sendmsg(&self.fd, &[IoSlice::new(bytes)], &mut ancillary, flags))
            .map(drop)
    }

    /// Reads one packet, waiting for it. An empty one means that the other end is closed.
    ///
    /// # Errors
    /// `EMSGSIZE` if the packet or its descriptors were cut; as recvmsg(2).
    pub fn receive(&self) -> Result<Packet, Errno> {
        self.receive_with(RecvFlags::CMSG_CLOEXEC)
    }

    /// Reads one packet if one is there, `EAGAIN` otherwise.
    ///
    /// # Errors
    /// As [`PacketSocket::receive`].
    pub fn try_receive(&self) -> Result<Packet, Errno> {
        self.receive_with(RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT)
    }

    fn receive_with(&self, flags: RecvFlags) -> Result<Packet, Errno> {
        let mut bytes = [0; PACKET_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PACKET_DESCRIPTORS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut receive = || {
            rustix::io::retry_on_intr(|| {
                rustix::net::recvmsg(&self.fd, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags)
            })
        };
        let message = match receive() {
            // The other end is gone and had not read everything, which is told once; what it said before is still there.
            // unix(7)
            Err(Errno::CONNRESET) => receive()?,
            other => other?,
        };
        let mut descriptors = Vec::new();
        for item in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = item {
                descriptors.extend(fds);
            }
        }
        if message
            .flags
            .intersects(rustix::net::ReturnFlags::TRUNC | rustix::net::ReturnFlags::CTRUNC)
        {
            return Err(Errno::MSGSIZE);
        }
        Ok(Packet {
            bytes,
            length: message.bytes,
            descriptors,
        })
    }
}

impl From<OwnedFd> for PacketSocket {
    /// A packet socket that was connected or accepted elsewhere.
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

impl From<PacketSocket> for OwnedFd {
    fn from(socket: PacketSocket) -> Self {
        socket.fd
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_arrives_whole_with_its_descriptors() {
        let (a, b) = PacketSocket::pair().unwrap();
        a.send(b"hello", &[a.as_fd(), b.as_fd()]).unwrap();
        a.send(b"again", &[]).unwrap();
        let first = b.receive().unwrap();
        assert_eq!((first.bytes(), first.descriptors.len()), (&b"hello"[..], 2));
        let second = b.receive().unwrap();
        assert_eq!((second.bytes(), second.descriptors.len()), (&b"again"[..], 0));
    }

    #[test]
    fn a_closed_end_reads_as_an_empty_packet_and_refuses_to_send() {
        let (a, b) = PacketSocket::pair().unwrap();
        drop(a);
        assert!(b.receive().unwrap().bytes().is_empty());
        assert_eq!(b.send(b"x", &[]), Err(Errno::PIPE));
    }

    #[test]
    fn what_was_said_last_is_heard_from_an_end_that_closed_without_listening() {
        let (a, b) = PacketSocket::pair().unwrap();
        b.send(b"not read", &[]).unwrap();
        a.send(b"no room", &[]).unwrap();
        drop(a);
        assert_eq!(b.receive().unwrap().bytes(), b"no room");
        assert!(b.receive().unwrap().bytes().is_empty());
    }

    #[test]
    fn a_packet_of_the_longest_length_passes_and_one_more_byte_does_not() {
        let (a, b) = PacketSocket::pair().unwrap();
        a.send(&[7; PACKET_BYTES_MAX], &[]).unwrap();
        assert_eq!(b.receive().unwrap().bytes().len(), PACKET_BYTES_MAX);
        assert_eq!(a.send(&[7; PACKET_BYTES_MAX + 1], &[]), Err(Errno::MSGSIZE));
    }

    #[test]
    fn an_empty_queue_is_not_an_end() {
        let (_a, b) = PacketSocket::pair().unwrap();
        assert_eq!(b.try_receive().unwrap_err(), Errno::AGAIN);
    }
}
