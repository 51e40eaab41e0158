//! The session's end of the subject's file server.

use super::failure::{Exit, Failure};
use super::places::Places;
use super::records::Records;
use super::session::Session;
use execd::Identity;
use nexus_wire::vfs::{AreaUsage, Budgets};
use std::os::fd::{AsFd, BorrowedFd};
use vfsd::{Joining, VfsdConfig, VfsdError, VfsdSession};

/// What is used of the two areas that every subject has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) tmp: AreaUsage,
    pub(crate) state: AreaUsage,
}

/// Asks the subject's file server for the areas, and starts it if it does not run; it answers while the session is made.
pub(crate) fn begin(session: &Session, places: &Places, identity: Identity) -> Result<Joining, Failure> {
    let budgets = &session.rules.budgets;
    let config = VfsdConfig {
        base_dir: places.state.clone(),
        runtime_dir: places.runtime.clone(),
        subject: session.subject.to_string(),
        budgets: Budgets {
            tmp: budgets.tmp.budget,
            state: budgets.state.budget,
        },
        policy: session.version.to_string(),
        identity: identity.assumed.then_some(vfsd::Identity {
            uid: identity.uid,
            gid: identity.gid,
        }),
    };
    vfsd::begin(&config).map_err(|error| failure(&error))
}

pub(crate) fn failure(error: &VfsdError) -> Failure {
    Failure::new(
        Exit::Missing,
        format!("the subject's file server cannot be reached: {error}"),
    )
    .of_machine()
}

/// Writes down what the file server says; false once it is gone.
pub(crate) fn tell(files: &mut VfsdSession, records: &Records) -> bool {
    loop {
        match files.next_message() {
            Ok(Some(message)) => records.quota(&message),
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// What is used at the end, and the last words of the file server before it. `None` if it does not say.
pub(crate) fn usage(files: &mut VfsdSession, records: &Records) -> Option<Usage> {
    let usage = files.usage().ok();
    // What it said before its answer is here by now.
    let _ = tell(files, records);
    usage.map(|(tmp, state)| Usage { tmp, state })
}

/// What to wait on.
pub(crate) fn descriptor(files: &VfsdSession) -> BorrowedFd<'_> {
    files.as_fd()
}
