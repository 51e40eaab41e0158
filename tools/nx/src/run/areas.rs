//! The session's end of the subject's file server.

use super::failure::{Exit, Failure};
use super::places::Places;
use super::records::Records;
use execd::Identity;
use nexus_policy::SubjectPolicy;
use nexus_wire::vfs::Budgets;
use std::os::fd::{AsFd, BorrowedFd};
use vfsd::{Joining, VfsdConfig, VfsdError, VfsdSession, VfsdUsage, WorkConfig};

/// Asks the subject's file server for the areas, under the policy of this version, and starts it if it does not run; it answers
/// while the session is made.
pub(crate) fn begin(
    rules: &SubjectPolicy,
    version: String,
    places: &Places,
    identity: Identity,
    work: Option<WorkConfig>,
) -> Result<Joining, Failure> {
    let budgets = &rules.budgets;
    let config = VfsdConfig {
        base_dir: places.state.clone(),
        runtime_dir: places.runtime.clone(),
        subject: rules.name.clone(),
        budgets: Budgets {
            tmp: budgets.tmp.budget,
            state: budgets.state.budget,
            work: budgets.work.budget,
        },
        policy: version,
        identity: identity.assumed.then_some(vfsd::Identity {
            uid: identity.uid,
            gid: identity.gid,
        }),
        markers: super::markers::open()?,
        work,
    };
    vfsd::begin(&config).map_err(|error| failure(&error))
}

pub(crate) fn failure(error: &VfsdError) -> Failure {
    let why = |error: &dyn std::error::Error| error.source().map_or_else(String::new, |source| format!(": {source}"));
    if matches!(error, VfsdError::Work { .. } | VfsdError::Held) {
        return Failure::unsupported(
            format!("`work = \"metered\"` cannot be enforced: {error}{}", why(error)),
            "name another directory with `--work DIR`, or ask for less: `--work DIR:ro`",
        );
    }
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
pub(crate) fn usage(files: &mut VfsdSession, records: &Records) -> Option<VfsdUsage> {
    let usage = files.everything_used().ok();
    // What it said before its answer is here by now.
    let _ = tell(files, records);
    usage
}

/// What to wait on.
pub(crate) fn descriptor(files: &VfsdSession) -> BorrowedFd<'_> {
    files.as_fd()
}
