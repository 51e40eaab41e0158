//! Breaking what a proof looks at, to see that the proof notices.
//!
//! Nothing here breaks anything: what does lives in a test's own binary, which calls [`prove_with`].

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

/// What a test breaks.
pub trait Tamper {
    /// Changes what is enforced, after it was decided and before anything starts.
    fn decided(&self, plan: &mut execd::Plan, judges: &mut netd::Judges, rules: &mut nexus_policy::SubjectPolicy) {
        let _ = (plan, judges, rules);
    }

    /// How long the session may take to begin, and to end.
    fn patience(&self) -> Duration {
        super::live::START_WAIT
    }

    /// Changes what was written down in this state directory, once the session is over.
    fn over(&self, state: &Path) {
        let _ = state;
    }
}

/// Nothing is broken.
pub(crate) struct Honest;

impl Tamper for Honest {}

/// `nx` with these arguments after its name, where `nx sec test` runs with something broken.
#[must_use]
pub fn prove_with(arguments: impl IntoIterator<Item = OsString>, tamper: &dyn Tamper) -> u8 {
    crate::cli::prove_with(arguments, tamper)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_not_a_test_waits_less_or_longer_than_twenty_seconds() {
        assert_eq!(Honest.patience(), Duration::from_secs(20));
    }
}
