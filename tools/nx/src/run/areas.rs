//! The session's end of the subject's file server.

use super::failure::{Exit, Failure};
use super::places::Places;
use super::records::Records;
use super::session::Session;
use execd::Identity;
use nexus_wire::vfs::{AreaUsage, Budgets};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use vfsd::{VfsdConfig, VfsdConnection};

/// What is used of the two areas that every subject has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) tmp: AreaUsage,
    pub(crate) state: AreaUsage,
}

/// Joins the subject's file server, and starts it if it does not run.
pub(crate) fn join(session: &Session, places: &Places, identity: Identity) -> Result<VfsdConnection, Failure> {
    let budgets = &session.rules.budgets;
    let config = VfsdConfig {
        base_dir: places.state.clone(),
        runtime_dir: places.runtime.clone(),
        subject: session.subject.to_string(),
        budgets: Budgets { tmp: budgets.tmp.budget, state: budgets.state.budget },
        policy: session.version.to_string(),
        identity: identity.assumed.then_some(vfsd::Identity { uid: identity.uid, gid: identity.gid }),
    };
    vfsd::join(&config).map_err(|error| {
        Failure::new(Exit::Missing, format!("the file server of `{}` cannot be reached: {error}", session.subject))
            .with_help("`nx sec doctor` says what this machine lacks and how to mend it")
    })
}

/// Copies of the three mounts, for init to mount.
pub(crate) fn mounts(files: &VfsdConnection) -> std::io::Result<[OwnedFd; 3]> {
    let copy = |fd: &OwnedFd| fd.try_clone();
    Ok([copy(&files.tmp)?, copy(&files.state)?, copy(&files.shm)?])
}

/// Writes down what the file server says; false once it is gone.
pub(crate) fn tell(files: &mut VfsdConnection, records: &Records) -> bool {
    loop {
        match files.next_message() {
            Ok(Some(message)) => records.quota(&message),
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// What is used at the end, and the last words of the file server before it. `None` if it does not say.
pub(crate) fn usage(files: &mut VfsdConnection, records: &Records) -> Option<Usage> {
    let usage = files.usage().ok();
    // What it said before its answer is here by now.
    let _ = tell(files, records);
    usage.map(|(tmp, state)| Usage { tmp, state })
}

/// What to wait on.
pub(crate) fn descriptor(files: &VfsdConnection) -> BorrowedFd<'_> {
    files.as_fd()
}
