//! A session's end of the connection.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nexus_wire::packet::PacketSocket;
use nexus_wire::vfs::{AreaUsage, Event, FromVfsd, ToVfsd, WorkUsage};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::VfsdError;

/// How many messages wait at most while an answer is waited for; past it they are counted by kind.
const WAITING_MAX: usize = 4096;

/// How long an answer may take: the file server answers from memory.
const ANSWER_WAIT_S: i64 = 2;

/// What a file server tells a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VfsdMessage {
    /// Something was denied, or soft was crossed.
    Event(Event),
    /// Events of one kind that were not told one by one, because too many came at once. The count is exact.
    Lost {
        /// Where.
        area: nexus_abi::Area,
        /// What.
        operation: nexus_abi::Operation,
        /// Why.
        reason: nexus_abi::Reason,
        /// How many.
        count: u64,
    },
}

/// What a subject uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VfsdUsage {
    /// Of `tmp` and `shm` together.
    pub tmp: AreaUsage,
    /// Of `state`.
    pub state: AreaUsage,
    /// Of its metered work directories, where there is one.
    pub work: Option<WorkUsage>,
}

/// What a file server answers to a greeting: the session, and what is to be mounted.
#[derive(Debug)]
pub struct VfsdConnection {
    /// The session itself. Dropping it, and every copy of its descriptor, ends it.
    pub session: VfsdSession,
    /// To be mounted at `/tmp` and `/var/tmp`.
    pub tmp: OwnedFd,
    /// To be mounted at `/state`.
    pub state: OwnedFd,
    /// To be mounted at `/dev/shm`.
    pub shm: OwnedFd,
    /// To be mounted where the work directory is, if the session asked for it.
    pub work: Option<OwnedFd>,
    /// The file server's process.
    pub vfsd_pid: u32,
    /// Whether it started for this session: the first setting of the subject's budgets.
    pub fresh: bool,
}

impl VfsdConnection {
    /// The connection after Welcome.
    pub(crate) fn new(
        socket: PacketSocket,
        mounts: [OwnedFd; 3],
        work: Option<OwnedFd>,
        vfsd_pid: u32,
        fresh: bool,
    ) -> Self {
        let [tmp, state, shm] = mounts;
        let session = VfsdSession::new(socket);
        Self {
            session,
            tmp,
            state,
            shm,
            work,
            vfsd_pid,
            fresh,
        }
    }
}

impl std::ops::Deref for VfsdConnection {
    type Target = VfsdSession;

    fn deref(&self) -> &VfsdSession {
        &self.session
    }
}

impl std::ops::DerefMut for VfsdConnection {
    fn deref_mut(&mut self) -> &mut VfsdSession {
        &mut self.session
    }
}

/// A session at the file server of its subject. When the last copy of its descriptor is closed, the session ends; with a
/// subject's last one, `tmp` goes.
#[derive(Debug)]
pub struct VfsdSession {
    socket: PacketSocket,
    waiting: VecDeque<VfsdMessage>,
    /// More than [`WAITING_MAX`] came while an answer was waited for.
    lost: Vec<VfsdMessage>,
}

impl From<OwnedFd> for VfsdSession {
    /// The session whose descriptor another process handed over.
    fn from(fd: OwnedFd) -> Self {
        Self::new(PacketSocket::from(fd))
    }
}

impl VfsdSession {
    fn new(socket: PacketSocket) -> Self {
        Self {
            socket,
            waiting: VecDeque::new(),
            lost: Vec::new(),
        }
    }

    /// Says which process is the first of the session's pid namespace, as the host numbers it, so that events of its
    /// descendants come here. Without it they go to the subject's oldest session. With `process`, its descriptor
    /// (pidfd_open(2)), the session's places in `tmp` are held until it has ended, also if the connection closes before.
    ///
    /// # Errors
    /// [`VfsdError::Gone`] if the file server is.
    pub fn attach(&self, init_pid: u32, process: Option<BorrowedFd<'_>>) -> Result<(), VfsdError> {
        self.send_with(&ToVfsd::Attach { init_pid }, process.as_slice())
    }

    /// What is used of `tmp` (with `shm`) and of `state`, by all sessions of the subject.
    ///
    /// # Errors
    /// As [`VfsdSession::everything_used`].
    pub fn usage(&mut self) -> Result<(AreaUsage, AreaUsage), VfsdError> {
        self.everything_used().map(|usage| (usage.tmp, usage.state))
    }

    /// What is used of `tmp` (with `shm`), of `state` and of the work directories, by all sessions of the subject.
    ///
    /// # Errors
    /// [`VfsdError::Gone`]; [`VfsdError::Connection`] with `ETIMEDOUT` if it does not answer in two seconds.
    pub fn everything_used(&mut self) -> Result<VfsdUsage, VfsdError> {
        self.send(&ToVfsd::QueryUsage)?;
        loop {
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
            let timeout = Timespec {
                tv_sec: ANSWER_WAIT_S,
                tv_nsec: 0,
            };
            match rustix::event::poll(&mut fds, Some(&timeout)) {
                Ok(0) => return Err(VfsdError::Connection(Errno::TIMEDOUT)),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(VfsdError::Connection(errno)),
            }
            match self.receive()? {
                None => {}
                Some(FromVfsd::Usage { tmp, state, work }) => return Ok(VfsdUsage { tmp, state, work }),
                Some(other) => self.keep(other),
            }
        }
    }

    /// The next message, if one is there. To wait for one, poll the connection's descriptor for reading, after this
    /// returned `None`.
    ///
    /// # Errors
    /// [`VfsdError::Gone`] once the file server is gone and everything it said was returned.
    pub fn next_message(&mut self) -> Result<Option<VfsdMessage>, VfsdError> {
        if let Some(message) = self.waiting.pop_front().or_else(|| self.lost.pop()) {
            return Ok(Some(message));
        }
        loop {
            match self.receive()? {
                None => return Ok(None),
                Some(FromVfsd::Event(event)) => return Ok(Some(VfsdMessage::Event(event))),
                Some(FromVfsd::Lost {
                    area,
                    operation,
                    reason,
                    count,
                }) => {
                    return Ok(Some(VfsdMessage::Lost {
                        area,
                        operation,
                        reason,
                        count,
                    }));
                }
                // A late answer to a question that was given up.
                Some(
                    FromVfsd::Usage { .. }
                    | FromVfsd::Welcome { .. }
                    | FromVfsd::Refused { .. }
                    | FromVfsd::NoPlace { .. },
                ) => {}
            }
        }
    }

    fn send(&self, message: &ToVfsd) -> Result<(), VfsdError> {
        self.send_with(message, &[])
    }

    fn send_with(&self, message: &ToVfsd, descriptors: &[BorrowedFd<'_>]) -> Result<(), VfsdError> {
        match self.socket.try_send(&message.encode(), descriptors) {
            Ok(()) => Ok(()),
            Err(Errno::PIPE | Errno::CONNRESET) => Err(VfsdError::Gone),
            Err(errno) => Err(VfsdError::Connection(errno)),
        }
    }

    fn receive(&self) -> Result<Option<FromVfsd>, VfsdError> {
        let packet = match self.socket.try_receive() {
            Ok(packet) => packet,
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::CONNRESET) => return Err(VfsdError::Gone),
            Err(errno) => return Err(VfsdError::Connection(errno)),
        };
        if packet.bytes().is_empty() {
            return Err(VfsdError::Gone);
        }
        FromVfsd::decode(packet.bytes()).map(Some).map_err(VfsdError::Decode)
    }

    /// Keeps a message that came while an answer was waited for, or counts it where too many did.
    fn keep(&mut self, message: FromVfsd) {
        let (message, kind, more) = match message {
            FromVfsd::Event(event) => {
                let kind = (event.area, event.operation, event.reason);
                (VfsdMessage::Event(event), kind, 1)
            }
            FromVfsd::Lost {
                area,
                operation,
                reason,
                count,
            } => (
                VfsdMessage::Lost {
                    area,
                    operation,
                    reason,
                    count,
                },
                (area, operation, reason),
                count,
            ),
            FromVfsd::Usage { .. } | FromVfsd::Welcome { .. } | FromVfsd::Refused { .. } | FromVfsd::NoPlace { .. } => {
                return;
            }
        };
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(message);
            return;
        }
        for lost in &mut self.lost {
            if let VfsdMessage::Lost {
                area,
                operation,
                reason,
                count,
            } = lost
                && (*area, *operation, *reason) == kind
            {
                *count = count.saturating_add(more);
                return;
            }
        }
        let (area, operation, reason) = kind;
        self.lost.push(VfsdMessage::Lost {
            area,
            operation,
            reason,
            count: more,
        });
    }
}

impl AsFd for VfsdSession {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
