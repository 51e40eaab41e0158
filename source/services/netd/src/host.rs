//! The host's own addresses, kept current.

use nexus_net_egress::{HostAddresses, TooManyHostAddresses};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};
use std::os::fd::OwnedFd;
use thiserror::Error;

/// Why the host's addresses are unknown.
#[derive(Debug, Error)]
pub(crate) enum HostError {
    /// They could not be listed.
    #[error("cannot list the host's addresses: {0}")]
    List(#[source] std::io::Error),
    /// Changes could not be subscribed to.
    #[error("cannot watch the host's addresses: {0}")]
    Watch(#[source] rustix::io::Errno),
    /// There are too many.
    #[error(transparent)]
    TooMany(#[from] TooManyHostAddresses),
}

// `RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR` (linux/rtnetlink.h).
const ADDRESS_CHANGES: u32 = 0x10 | 0x100;

/// The host's own addresses. A rule opens one only by naming it, so a verdict needs those of now, not of the start.
#[derive(Debug)]
pub(crate) struct Host {
    changes: OwnedFd,
    addresses: HostAddresses,
    stale: bool,
}

impl Host {
    /// Lists the addresses and subscribes to their changes. rtnetlink(7).
    ///
    /// # Errors
    /// [`HostError`].
    pub(crate) fn watch() -> Result<Self, HostError> {
        let changes = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .map_err(HostError::Watch)?;
        rustix::net::bind(&changes, &SocketAddrNetlink::new(0, ADDRESS_CHANGES)).map_err(HostError::Watch)?;
        Ok(Self {
            changes,
            addresses: list()?,
            stale: false,
        })
    }

    /// The addresses as they are now.
    ///
    /// # Errors
    /// [`HostError`]; then nothing may be judged by older ones.
    pub(crate) fn now(&mut self) -> Result<&HostAddresses, HostError> {
        self.drain();
        if self.stale {
            self.addresses = list()?;
            self.stale = false;
        }
        Ok(&self.addresses)
    }

    /// What a message says does not matter: that there is one does. So does one that did not fit (`ENOBUFS`).
    fn drain(&mut self) {
        // More than this many messages at once are left for the next look; the list is new by then anyway.
        const MESSAGES_PER_LOOK: usize = 64;
        let mut message = [0_u8; 4096];
        for _ in 0..MESSAGES_PER_LOOK {
            match rustix::net::recv(&self.changes, &mut message, RecvFlags::DONTWAIT) {
                Err(rustix::io::Errno::AGAIN) => return,
                Ok(_) | Err(_) => self.stale = true,
            }
        }
    }
}

fn list() -> Result<HostAddresses, HostError> {
    Ok(HostAddresses::new(
        nexus_sys::interface::addresses().map_err(HostError::List)?,
    )?)
}
