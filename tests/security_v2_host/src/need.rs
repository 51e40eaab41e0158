//! What a test needs of the machine besides a kernel.

use std::path::Path;

use crate::{REQUIRE_LIVE, User, say_skipped, users};

/// Where ordinary users look for programs, and the system's owner.
const PLACES: [&str; 4] = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin"];

/// Whether this machine has these programs, each by its name or its path. Where one is missing, that is said.
///
/// # Panics
/// Where one is missing and `NEXUS_REQUIRE_LIVE=1`: `tests/packages.txt` names what to install.
#[must_use]
pub fn need(programs: &[&str]) -> bool {
    // A path is its own answer wherever it is joined to.
    let there = |name: &&str| PLACES.iter().any(|place| Path::new(place).join(name).exists());
    let missing: Vec<&str> = programs.iter().copied().filter(|name| !there(name)).collect();
    if missing.is_empty() {
        return true;
    }
    lacking(&format!(
        "no {} on this machine: see tests/packages.txt",
        missing.join(", ")
    ));
    false
}

/// [`users`], if this machine has these programs, as [`need`] says; nobody otherwise.
///
/// # Panics
/// As the two.
#[must_use]
pub fn users_with(programs: &[&str]) -> Vec<User> {
    if need(programs) { users() } else { Vec::new() }
}

/// Says that something cannot be tried here.
///
/// # Panics
/// With `NEXUS_REQUIRE_LIVE=1`.
pub fn lacking(why: &str) {
    let required = std::env::var_os(REQUIRE_LIVE).is_some_and(|value| value == "1");
    assert!(!required, "{why}");
    say_skipped(why);
}
