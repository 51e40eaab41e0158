//! Whether a subject is anybody's.

use super::counters;
use crate::run::{Exit, Failure, plain};
use nexus_sys::counters::COUNTER_NAME_BYTES_MAX;
use policyd::Places;

const HELP: &str = "`nx policy` lists the subjects that there are";

/// Nothing is known of a subject: whether policy has it all the same. `never` says what there is not.
///
/// # Errors
/// Nobody knows it, or whether somebody does cannot be seen.
pub(super) fn in_policy(subject: &str, never: &str) -> Result<(), Failure> {
    if subject.is_empty() || subject.len() > COUNTER_NAME_BYTES_MAX {
        return Err(Failure::rejected(
            format!("{never}, and no subject has such a name"),
            HELP,
        ));
    }
    match policyd::load(&Places::of_process(None)) {
        Ok(loaded) if loaded.policy.subjects().any(|name| name == subject) => Ok(()),
        Ok(loaded) => Err(Failure::rejected(
            format!("{never}, and {} has no such subject", loaded.origin),
            HELP,
        )),
        Err(error) => Err(Failure::new(
            Exit::Rejected,
            format!("{never}, and the policy that would say whether it exists cannot be loaded"),
        )
        .with_help(format!("{error}; `nx policy validate` says more"))),
    }
}

/// The journal has no record of a subject: whether it ran, which counters are kept of, or policy has it.
///
/// # Errors
/// As [`in_policy`].
pub(super) fn without_record(subject: &str) -> Result<(), Failure> {
    if counters::all().is_ok_and(|rows| rows.iter().any(|(name, _)| name == subject)) {
        return Ok(());
    }
    in_policy(subject, &format!("the journal has no record of `{}`", plain(subject)))
}
