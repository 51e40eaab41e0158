//! A directory outside of what every session has of its own.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A directory that is not below `/tmp`, where every session has its own, and that whoever the tests run as can reach; best in
/// `first`. Removed when it is dropped.
///
/// # Panics
/// There is no such place that the starter of the tests may write.
#[must_use]
pub fn elsewhere(first: &str) -> tempfile::TempDir {
    // Who is no root tests as itself only.
    let reached = |part: &Path| {
        !rustix::process::geteuid().is_root()
            || std::fs::metadata(part).is_ok_and(|found| found.permissions().mode() & 0o001 != 0)
    };
    let own = std::env::var("HOME").unwrap_or_default();
    let made = [first, "/srv", "/opt", "/var/lib", &own]
        .into_iter()
        .filter(|place| place.starts_with('/') && !Path::new(place).starts_with("/tmp"))
        .filter(|place| Path::new(place).ancestors().all(reached))
        .find_map(|place| tempfile::Builder::new().prefix("nexus-").tempdir_in(place).ok())
        .expect("a directory of the test's own that everybody can reach");
    std::fs::set_permissions(made.path(), std::fs::Permissions::from_mode(0o755))
        .expect("a mode of one's own directory");
    made
}
