//! Finding and building the programs under test.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The `nx` of this build, built at the first call; or the one that `$NEXUS_NX` names, for a machine without cargo.
///
/// # Panics
/// Where it cannot be built.
#[must_use]
pub fn nx() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        begin_as_at_a_prompt();
        named("NEXUS_NX").unwrap_or_else(|| build("nx", "nx"))
    })
}

/// What starts the tests may ignore signals, and so would everything that a test starts: `nohup` hangups, a shell without
/// job control the interrupts of what it puts into the background, some builders all that they can.
fn begin_as_at_a_prompt() {
    const LAST_STANDARD: i32 = 31;
    // The Rust runtime ignores it on purpose and undoes that for what it starts.
    let pipe = rustix::process::Signal::PIPE.as_raw();
    for signal in (1..=LAST_STANDARD).filter(|signal| *signal != pipe) {
        // It changes nothing for the two that nobody can ignore.
        nexus_sys::signal::set_default(signal);
    }
}

/// The helper program that tries things from inside a sandbox (`src/bin/probe.rs`), built at the first call; or the one
/// that `$NEXUS_PROBE` names.
///
/// # Panics
/// Where it cannot be built.
#[must_use]
pub fn program() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| named("NEXUS_PROBE").unwrap_or_else(|| build("security_v2_host", "probe")))
}

/// The hostile program of `tests/attacker`, built at the first call; or the one that `$NEXUS_ATTACKER` names.
///
/// # Panics
/// Where it cannot be built.
#[must_use]
pub fn attacker() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| named("NEXUS_ATTACKER").unwrap_or_else(|| build("attacker", "attacker")))
}

/// The program that says `SELFTEST: … ok`, built at the first call; or the one that `$NEXUS_SELFTEST` names.
///
/// # Panics
/// Where it cannot be built.
#[must_use]
pub fn selftest_client() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| named("NEXUS_SELFTEST").unwrap_or_else(|| build("selftest-client", "selftest-client")))
}

fn named(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from)
}

/// `target/PROFILE`, where the running test is in `target/PROFILE/deps`.
fn profile_directory() -> PathBuf {
    let own = std::env::current_exe().expect("the test knows where it is");
    let deps = own.parent().expect("the test is in a directory");
    if deps.ends_with("deps") {
        deps.parent().expect("`deps` is in a directory").to_owned()
    } else {
        deps.to_owned()
    }
}

/// Builds a binary with the profile of the running test, into the same target directory, so that what cargo has done
/// already is done.
fn build(package: &str, binary: &str) -> PathBuf {
    let directory = profile_directory();
    let name = directory.file_name().and_then(|name| name.to_str()).unwrap_or("debug");
    let profile = if name == "debug" { "dev" } else { name };
    let target = directory
        .parent()
        .expect("the profile's directory is in the target directory");
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args([
            "build",
            "--quiet",
            "--package",
            package,
            "--bin",
            binary,
            "--profile",
            profile,
        ])
        .arg("--target-dir")
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null());
    let begun = std::time::Instant::now();
    let status = crate::gate::start(&mut cargo)
        .and_then(|mut child| child.wait())
        .unwrap_or_else(|error| panic!("cannot start cargo: {error}"));
    assert!(status.success(), "`{binary}` does not build: {cargo:?}");
    // Whichever test comes first waits for it, and for whoever else builds: that is no time of the test's own.
    if begun.elapsed().as_secs() > 5 {
        eprintln!("building `{binary}` took {} s of this test", begun.elapsed().as_secs());
    }
    directory.join(binary)
}
