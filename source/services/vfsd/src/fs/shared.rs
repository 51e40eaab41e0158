//! What others change beside us, in the state and in work directories: how soon it is seen, and what the ledger does.
//!
//! Attributes and names are believed for a second; what is in a file is looked at anew by whoever opens it after it was
//! changed. The ledger follows a file's length when it meets one that it did not make: it is booked and not judged, because
//! nothing asked for it. What others make or remove is met by the next start, which measures.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use nexus_quota::charged_bytes;
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::Vfs;
use super::attr::TTL;
use super::node::Node;

/// How long the kernel may believe what it was told of what others may change.
pub(crate) const SHARED_TTL: Duration = Duration::from_secs(1);

impl Vfs {
    /// How long it may be believed that a name is not there.
    pub(crate) fn absence_ttl(&self, parent: u64) -> Duration {
        match self.table.get(parent) {
            Ok(node) if node.zone.is_shared() => SHARED_TTL,
            _ => TTL,
        }
    }

    /// Takes note of a length that others gave to a file.
    pub(crate) fn catch_up(&self, node: &Arc<Node>, file: &OwnedFd, stat: Stat) -> Result<Stat, Errno> {
        if !node.zone.is_shared() || node.kind != FileType::RegularFile {
            return Ok(stat);
        }
        // One that is being written by us says nothing of others now.
        let Some(mut state) = node.try_state() else {
            return Ok(stat);
        };
        if u64::try_from(stat.st_size).ok() == Some(state.len) || state.reclaimed {
            return Ok(stat);
        }
        // Once more, now that nobody of ours can be changing it.
        let stat = rustix::fs::fstat(file)?;
        let len = u64::try_from(stat.st_size).map_err(|_| Errno::OVERFLOW)?;
        if len != state.len && !(state.unlinked && state.handles == 0) {
            let was = node.cost(&state);
            let paid = charged_bytes(len).ok_or(Errno::OVERFLOW)?;
            // What was preallocated past the old end stays paid for.
            let reserved = charged_bytes(state.len).is_some_and(|old| state.paid > old);
            state.paid = if reserved { state.paid.max(paid) } else { paid };
            state.len = len;
            self.books.booked(node.zone.area(), was, node.cost(&state));
        }
        Ok(stat)
    }

    /// Whether what the kernel has read of a file that is opened is still what is in it.
    pub(crate) fn is_unchanged(&self, node: &Arc<Node>, file: &OwnedFd) -> Result<bool, Errno> {
        if !node.zone.is_shared() {
            return Ok(true);
        }
        let stat = self.catch_up(node, file, rustix::fs::fstat(file)?)?;
        let changed = (stat.st_ctime, stat.st_ctime_nsec);
        let mut state = node.state();
        let known = state.changed == Some(changed);
        state.changed = Some(changed);
        Ok(known)
    }
}
