//! Looking at a subject's ledger from outside: no session, no mounts, no server started.

use std::path::Path;
use std::time::{Duration, Instant};

use nexus_wire::vfs::{FromVfsd, ToVfsd};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::join::reach;
use crate::{VfsdError, VfsdUsage, config};

/// How long the file server may take to answer.
pub const LOOK_WAIT: Duration = Duration::from_secs(2);

/// What the subject uses now, by the ledger of its file server; `None` if none runs.
///
/// # Errors
/// [`VfsdError::Timeout`] after [`LOOK_WAIT`] from a server that is stopped or hangs; [`VfsdError::Peer`] if somebody else
/// listens there.
pub fn look(base_dir: &Path, runtime_dir: &Path, subject: &str) -> Result<Option<VfsdUsage>, VfsdError> {
    let until = Instant::now() + LOOK_WAIT;
    let path = config::socket_path(base_dir, runtime_dir, subject);
    let socket = match reach(&path)? {
        Ok(socket) => socket,
        // It has taken nobody for a while.
        Err(Errno::AGAIN) => return Err(VfsdError::Timeout(0)),
        Err(_) => return Ok(None),
    };
    let over = |errno| match errno {
        Errno::PIPE | Errno::CONNRESET => Ok(None),
        errno => Err(VfsdError::Connection(errno)),
    };
    if let Err(errno) = socket.try_send(&ToVfsd::QueryUsage.encode(), &[]) {
        return over(errno);
    }
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let wait = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(0),
            tv_nsec: left.subsec_nanos().into(),
        };
        match rustix::event::poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&wait)) {
            Ok(0) => return Err(VfsdError::Timeout(LOOK_WAIT.as_millis())),
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(VfsdError::Connection(errno)),
        }
    }
    let packet = match socket.try_receive() {
        Ok(packet) => packet,
        Err(errno) => return over(errno),
    };
    if packet.bytes().is_empty() {
        return Ok(None);
    }
    match FromVfsd::decode(packet.bytes()).map_err(VfsdError::Decode)? {
        FromVfsd::Usage { tmp, state, work } => Ok(Some(VfsdUsage { tmp, state, work })),
        FromVfsd::Refused { refusal, .. } => Err(VfsdError::Refused(refusal)),
        _ => Err(VfsdError::Refused(nexus_wire::vfs::Refusal::Protocol)),
    }
}
