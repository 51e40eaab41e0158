//! The session's end of the subject's file server.

use super::failure::{Exit, Failure};
use super::places::Places;
use super::records::Records;
use super::{metered, mounted_in_tmp};
use execd::{Identity, Plan};
use nexus_policy::SubjectPolicy;
use nexus_wire::vfs::Budgets;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use vfsd::{Joining, VfsdConfig, VfsdError, VfsdSession, VfsdUsage};

/// Reaches the subject's file server, under the policy of this version, or starts it if it does not run.
pub(crate) fn begin(
    rules: &SubjectPolicy,
    version: String,
    places: &Places,
    identity: Identity,
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
        // The plan says.
        work: None,
        places: Vec::new(),
    };
    vfsd::begin(&config).map_err(|error| failure(&error))
}

/// Asks it for the areas that the plan shows; it answers while the session is made.
pub(crate) fn ask(joining: &mut Joining, plan: &Plan) -> Result<(), Failure> {
    let places = mounted_in_tmp::places(&plan.view, Path::is_dir);
    let asked = joining.ask(metered::config(plan)?, places);
    asked.map_err(|error| failure(&error))
}

pub(crate) fn failure(error: &VfsdError) -> Failure {
    let why = |error: &dyn std::error::Error| error.source().map_or_else(String::new, |source| format!(": {source}"));
    if matches!(error, VfsdError::Work { .. } | VfsdError::Held) {
        return Failure::unsupported(
            format!("`work = \"metered\"` cannot be enforced: {error}{}", why(error)),
            "name another directory with `--work DIR`, or ask for less: `--work DIR:ro`",
        );
    }
    if let VfsdError::Place { path, what, .. } = error {
        let at = Path::new("/tmp").join(path);
        return Failure::unsupported(
            format!(
                "what policy shows of your directories cannot be mounted: {what}, at `{}` in the subject's own `tmp`",
                at.display()
            ),
            "another session of the subject put it there: name another directory with `--work DIR`, remove it in a session, \
             or wait until the subject's last session has ended, with which `tmp` goes",
        );
    }
    if matches!(error, VfsdError::Places) {
        return Failure::unsupported(error.to_string(), "name another directory with `--work DIR`");
    }
    Failure::new(
        Exit::Missing,
        format!("the subject's file server cannot be reached: {error}"),
    )
    .of_machine_or_limit(errno_of(error))
}

/// Of one that was reached, and cannot be told more. No machine is asked for a cause: there is a session by now.
pub(crate) fn lost(error: &VfsdError) -> Failure {
    let failure = Failure::internal(format!(
        "the subject's file server was lost before the program began: {error}"
    ));
    match errno_of(error) {
        Some(errno) => failure.of_limit(rustix::io::Errno::from_raw_os_error(errno)),
        None => failure,
    }
}

/// What the kernel said, where it was asked.
fn errno_of(error: &VfsdError) -> Option<i32> {
    let source = std::error::Error::source(error)?;
    let errno = source
        .downcast_ref::<rustix::io::Errno>()
        .map(|errno| errno.raw_os_error());
    errno.or_else(|| source.downcast_ref::<std::io::Error>()?.raw_os_error())
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
