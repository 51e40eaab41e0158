//! The doctor, on this very machine: as it is, and with one guard or gift removed at a time.
//!
//! Each case runs in a process of its own with one thread, because probes are made by clone3(2).
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot be set up has failed, and the message is the panic's"
)]

mod doctor {
    pub(crate) mod cases;
    pub(crate) mod world;
}

use doctor::cases::{CASES, Case, Who, words_of_state};
use libtest_mimic::{Arguments, Failed, Trial};
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use tempfile::TempDir;

/// The program's name in the directory that [`copy`] makes.
const PROGRAM: &str = "doctor";

/// Which case a process of its own is for.
const CASE: &str = "NX_DOCTOR_CASE";

/// The case that proves nothing itself and prints what the doctor says of the state directory.
const WORDS_OF_STATE: &str = "words_of_state";

/// Anybody but root; no such account is needed.
const ORDINARY: u32 = 64_124;

fn main() -> ExitCode {
    if let Some(name) = std::env::var_os(CASE) {
        return alone(&name);
    }
    let arguments = Arguments::from_args();
    let place = match copy() {
        Ok(place) => Arc::new(place),
        Err(error) => {
            eprintln!("cannot copy the test program: {error}");
            return ExitCode::FAILURE;
        }
    };
    let root = rustix::process::geteuid().is_root();
    let trial = |case: &'static Case, who: &str, as_root: bool| {
        let place = Arc::clone(&place);
        Trial::test(format!("{}::{who}", case.name), move || {
            start(case, place.path(), as_root)
        })
    };
    let mut trials = Vec::new();
    for case in CASES {
        if root {
            trials.push(trial(case, "as_root", true));
        }
        match (case.who, root) {
            (Who::Everybody, _) => trials.push(trial(case, "as_an_ordinary_user", false)),
            (Who::Root, true) => {}
            (Who::Root, false) => trials.push(Trial::test(case.name, || cannot_run(case))),
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A copy of this program where everybody may start it: the build's own directory may be closed to an ordinary user.
/// Made before any other thread can fork with the half-written file open.
fn copy() -> std::io::Result<TempDir> {
    let place = tempfile::tempdir()?;
    let program = place.path().join(PROGRAM);
    std::fs::copy(std::env::current_exe()?, &program)?;
    for path in [place.path(), program.as_path()] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755))?;
    }
    Ok(place)
}

fn cannot_run(case: &Case) -> Result<(), Failed> {
    let words = format!("LIVE TEST NOT RUN: `{}` needs root", case.name);
    eprintln!("{words}");
    if std::env::var_os("NEXUS_REQUIRE_LIVE").is_some_and(|value| value == "1") {
        return Err(words.into());
    }
    Ok(())
}

fn alone(name: &OsString) -> ExitCode {
    if name == WORDS_OF_STATE {
        words_of_state();
        return ExitCode::SUCCESS;
    }
    match CASES.iter().find(|case| case.name == name.as_os_str()) {
        Some(case) => {
            (case.run)();
            ExitCode::SUCCESS
        }
        None => ExitCode::FAILURE,
    }
}

fn start(case: &Case, place: &Path, as_root: bool) -> Result<(), Failed> {
    let home = tempfile::tempdir()?;
    let program = place.join(PROGRAM);
    let mut command = Command::new(&program);
    if rustix::process::geteuid().is_root() && !as_root {
        std::os::unix::fs::chown(home.path(), Some(ORDINARY), Some(ORDINARY))?;
        command.uid(ORDINARY).gid(ORDINARY);
    }
    let output = command
        .current_dir("/")
        .env(CASE, case.name)
        .env("HOME", home.path())
        .env_remove("XDG_STATE_HOME")
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
    .into())
}
