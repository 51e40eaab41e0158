//! `nx run`

mod areas;
mod decide;
mod descriptors;
pub(crate) mod enforceable;
mod failure;
mod front;
mod judge;
mod limits;
mod link;
mod made;
mod markers;
mod mask;
mod metered;
mod mounted_in_tmp;
pub(crate) mod open_files;
mod places;
mod print;
mod records;
mod registered;
mod session;
mod signals;
mod start;
mod status;
mod summary;
mod supervisor;
mod syscall;
mod terminal;
mod trusted;
mod watch;
mod work;

pub(crate) use crate::plain::{json_line, plain};
pub(crate) use decide::{no_subject, policy_failure};
pub(crate) use failure::{Exit, Failure};
pub(crate) use mask::{Class, filter_hash, mask};
pub(crate) use places::{Places, identity};
pub(crate) use print::describe as describe_entry;
pub(crate) use session::Session;
pub(crate) use start::{Prepared, prove};
pub(crate) use syscall::describe;
pub(crate) use trusted::check as check_trusted;

use crate::cli::RunArgs;

/// Runs a program and says with what status `nx` ends.
pub(crate) fn run(args: &RunArgs) -> u8 {
    let mut status = status::Status::new(args.status_fd);
    match start::run(args, &mut status) {
        Ok(code) => code,
        Err(failure) => {
            summary::say(&failure.to_string());
            status.failed(&failure);
            failure.exit.code()
        }
    }
}
