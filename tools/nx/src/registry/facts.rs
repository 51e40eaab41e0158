//! What of a session does not change while it runs.

use serde::{Deserialize, Serialize};

/// The version of the facts' shape. An entry of another version is told of and not read.
pub const FACTS_VERSION: u32 = 2;

/// The longest facts that are read, in bytes: paths and names of 4096 bytes each, and a line for each backend.
pub const FACTS_BYTES_MAX: u64 = 64 << 10;

/// What a session is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// [`FACTS_VERSION`].
    pub version: u32,
    /// The version of nx that made it.
    pub nx: String,
    /// The subject's name.
    pub subject: String,
    /// The domain that the subject inherits from.
    pub domain: Option<String>,
    /// The session's own name.
    pub session: String,
    /// The process that judges, whose entry this is.
    pub supervisor: ProcessFact,
    /// The process that the shell started; both others are its children.
    pub front: ProcessFact,
    /// The first process of the program's pid namespace.
    pub init: ProcessFact,
    /// Who the program runs as.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Whether nx is root and took this identity on for the program.
    pub assumed: bool,
    /// What becomes of what policy does not allow.
    pub mode: String,
    /// The PolicyVersion.
    pub policy: String,
    /// Where the policy came from.
    pub origin: String,
    /// The sandbox profile's name.
    pub profile_name: String,
    /// The syscall profile's id; `None` for a moment at the start, because to hash a whole policy takes a while.
    pub profile_id: Option<String>,
    /// The filter that was loaded.
    pub filter: Filter,
    /// What the syscall rules come to.
    pub syscalls: Mask,
    /// The work directory.
    pub work: Option<WorkFact>,
    /// What holds the session to what.
    pub backends: Vec<Backend>,
    /// When it began: milliseconds since 1970.
    pub started_ms: u64,
}

impl Facts {
    /// What the kernel keeps of these facts: their hash is part of the name that the supervisor binds its socket to, which
    /// nobody changes afterwards, and which whoever connects is told. Without the profile's id, which comes later.
    pub(super) fn seal(&self) -> std::io::Result<String> {
        let settled = Self {
            profile_id: None,
            ..self.clone()
        };
        let text = serde_json::to_vec(&settled).map_err(std::io::Error::other)?;
        let hash = blake3::hash(&text).to_hex();
        // Half of it: a socket's name has room for about a hundred bytes, unix(7).
        Ok(hash.get(..SEAL_LETTERS).unwrap_or(&hash).to_owned())
    }
}

/// What of the facts says whether a session lives; other versions' have it too.
#[derive(Debug, Deserialize)]
pub(super) struct Named {
    #[serde(default)]
    pub(super) subject: String,
    pub(super) supervisor: ProcessFact,
    pub(super) front: ProcessFact,
    pub(super) init: ProcessFact,
    /// Who the program runs as.
    pub(super) uid: u32,
}

/// How long a seal is: 128 bits, which nobody makes other facts for.
const SEAL_LETTERS: usize = 32;

/// A process: its number, and when it started, so that another of the same number is not taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessFact {
    /// In the pid namespace that nx was started in.
    pub pid: i32,
    /// `starttime` of proc_pid_stat(5): clock ticks since boot.
    pub started: u64,
}

/// A loaded filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// BLAKE3 over its instructions as the kernel takes them (`struct sock_filter`, little-endian).
    pub hash: String,
    /// How many instructions it has.
    pub instructions: u32,
}

/// How many of the known syscalls the rules let through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mask {
    /// Allowed whatever the arguments.
    pub allowed: u32,
    /// Decided by arguments, or by where they lead.
    pub conditional: u32,
    /// Denied.
    pub denied: u32,
}

/// A work directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkFact {
    /// Where it is.
    pub path: String,
    /// `read-only`, `metered` or `unmetered`.
    pub kind: String,
}

/// What enforces something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Backend {
    /// What is enforced.
    pub what: String,
    /// By what, in a word; `None` if by nothing.
    pub by: Option<String>,
    /// In more words.
    pub how: Option<String>,
    /// Why not by what would be better, or by nothing at all.
    pub why_not: Option<String>,
}
