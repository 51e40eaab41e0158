//! The session's end of the subject's file server.

use super::failure::{Exit, Failure};
use super::metered;
use super::places::Places;
use super::records::Records;
use super::session::Session;
use execd::Plan;
use nexus_wire::vfs::Budgets;
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use vfsd::{Joining, VfsdConfig, VfsdError, VfsdSession, VfsdUsage};

/// Asks the subject's file server for the areas, and starts it if it does not run; it answers while the session is made.
pub(crate) fn begin(session: &Session, places: &Places, plan: &Plan) -> Result<Joining, Failure> {
    let budgets = &session.rules.budgets;
    let identity = plan.identity;
    let config = VfsdConfig {
        base_dir: places.state.clone(),
        runtime_dir: places.runtime.clone(),
        subject: session.subject.to_string(),
        budgets: Budgets {
            tmp: budgets.tmp.budget,
            state: budgets.state.budget,
            work: budgets.work.budget,
        },
        policy: session.version.to_string(),
        identity: identity.assumed.then_some(vfsd::Identity {
            uid: identity.uid,
            gid: identity.gid,
        }),
        markers: markers()?,
        work: metered::config(plan)?,
    };
    vfsd::begin(&config).map_err(|error| failure(&error))
}

/// The variable that names where markers go. Unset: nowhere.
const MARKERS: &str = "NEXUS_MARKERS";

/// The marker sink: a file to append to, or a terminal such as a serial line.
fn markers() -> Result<Option<Arc<OwnedFd>>, Failure> {
    let Some(path) = std::env::var_os(MARKERS).filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let opened = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR);
    opened.map(|sink| Some(Arc::new(sink))).map_err(|error| {
        let path = path.to_string_lossy();
        Failure::new(
            Exit::Missing,
            format!("the marker sink `{path}` of `{MARKERS}` cannot be opened: {error}"),
        )
    })
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
