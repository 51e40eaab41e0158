use std::io;
use std::path::PathBuf;

use nexus_quota::BudgetError;
use nexus_wire::DecodeError;
use nexus_wire::vfs::Refusal;
use rustix::io::Errno;

/// Why a session has no files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VfsdError {
    /// The name cannot be a directory's.
    #[error("the subject `{0}` is no name of 1 to 64 letters, digits, `.`, `_`, `-`, `@` and `+`")]
    Subject(String),
    /// The policy version is not hex.
    #[error("the policy version `{0}` is not at most 64 hex digits")]
    Policy(String),
    /// A budget makes no sense.
    #[error("a budget makes no sense")]
    Budget(#[source] BudgetError),
    /// Root without another identity, or another identity without root.
    #[error("root must name an unprivileged user for the file server, and only root can")]
    Identity,
    /// Something on disk could not be prepared.
    #[error("`{path}` could not be {what}")]
    Disk {
        /// Where.
        path: String,
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A process could not be made.
    #[error("no process for the file server could be made")]
    Fork(#[source] io::Error),
    /// The socket could not be reached.
    #[error("the file server's socket `{path}` could not be reached")]
    Socket {
        /// Where.
        path: String,
        /// Why not.
        #[source]
        source: Errno,
    },
    /// The other end of the socket is not the file server of this user.
    #[error("the file server's socket is held by user {uid}, not by this user")]
    Peer {
        /// Whose.
        uid: u32,
    },
    /// The file server could not start.
    #[error("the file server could not start: {stage}")]
    Start {
        /// What it was doing.
        stage: String,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
    /// More names of the work directory would have to be held than a file server holds.
    #[error(
        "policy protects more than {} names of the work directory, or one that no file can have",
        nexus_wire::vfs::HELD_NAMES_MAX
    )]
    Held,
    /// More names would have to be held in `tmp` than a file server holds for one session.
    #[error(
        "what the session mounts in `tmp` has more than {} names on the way to it, or one that no file can have",
        nexus_wire::vfs::PLACE_PARTS_MAX
    )]
    Places,
    /// A name in `tmp` that the session mounts on means something else.
    #[error("`/tmp/{}` cannot be mounted on: {what}", .path.display())]
    Place {
        /// Where, below `tmp`.
        path: PathBuf,
        /// What is there instead.
        what: &'static str,
        /// The same as a number.
        source: Errno,
    },
    /// The work directory cannot be metered.
    #[error("the work directory cannot be metered: {stage}")]
    Work {
        /// What could not be done.
        stage: String,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
    /// The file server could not give the session its areas.
    #[error("the file server could not hand over the session's areas")]
    Mounts(#[source] Errno),
    /// The file server did not take the session.
    #[error("the file server refused the session ({0:?})")]
    Refused(Refusal),
    /// The file server said something that is no message.
    #[error("the file server sent no message")]
    Decode(#[source] DecodeError),
    /// The connection broke.
    #[error("the connection to the file server broke")]
    Connection(#[source] Errno),
    /// The file server is gone: the session's areas answer with errors from now on.
    #[error("the file server is gone")]
    Gone,
    /// Neither could a file server be reached nor started in time.
    #[error("another file server of this subject is still ending, or hangs, after {0} ms; try again")]
    Timeout(u128),
}
