//! A server that keeps its clients waiting.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::{Tree, eventually};

/// How many connections wait for who listens at this port of the loopback. proc_net_tcp(5): the queue of what is to be read.
#[must_use]
pub fn queued(port: u16) -> Option<u32> {
    let listens = format!("0100007F:{port:04X} 00000000:0000 0A ");
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let (_, rest) = table.lines().find_map(|line| line.split_once(&*listens))?;
    let (_, waiting) = rest.split_once(' ')?.0.split_once(':')?;
    u32::from_str_radix(waiting, 16).ok()
}

/// A listener on this machine's loopback that has no room for another connection until somebody accepts.
#[derive(Debug)]
pub struct FullServer {
    listener: OwnedFd,
    /// Where it listens.
    pub address: SocketAddr,
    fillers: std::cell::RefCell<Vec<OwnedFd>>,
}

impl FullServer {
    /// Starts listening, and fills the queue.
    ///
    /// # Panics
    /// Without a loopback interface.
    #[must_use]
    pub fn start() -> Self {
        let socket = || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap()
        };
        let listener = socket();
        rustix::net::bind(&listener, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let address = SocketAddr::try_from(rustix::net::getsockname(&listener).unwrap()).unwrap();
        // A queue of length 0 has room for one (`sk_acceptq_is_full` of the kernel), which is there some time after the
        // filler's side is connected: the packets of a busy machine wait too.
        let filler = socket();
        let _ = rustix::net::connect(&filler, &address);
        eventually("the filler is queued", || queued(address.port()) == Some(1));
        Self {
            listener,
            address,
            fillers: vec![filler].into(),
        }
    }

    /// The shipped tree with this one open door.
    #[must_use]
    pub fn tree(&self) -> Tree {
        let door = format!("[subject.demo]\nallow = [\"{}\"]\n", self.address);
        Tree::shipped().replace("egress.toml", &door)
    }

    /// Makes room, accepts what comes until `enough`, and then what else is there; how many came besides the fillers. They
    /// are closed then.
    ///
    /// # Panics
    /// Where they do not come.
    pub fn accept(&self, mut enough: impl FnMut(usize) -> bool) -> usize {
        rustix::net::listen(&self.listener, 4096).unwrap();
        let mut accepted = Vec::new();
        let fillers = self.fillers.take();
        let besides = |accepted: &Vec<OwnedFd>| accepted.len().saturating_sub(fillers.len());
        eventually("connections come", || {
            accepted.extend(std::iter::from_fn(|| rustix::net::accept(&self.listener).ok()));
            enough(besides(&accepted))
        });
        accepted.extend(std::iter::from_fn(|| rustix::net::accept(&self.listener).ok()));
        besides(&accepted)
    }
}
