//! Writing a program and starting one exclude each other.

use std::io;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};

/// A thread that forks while another writes a program hands the open file to its child for a moment, and to execute a file
/// that somebody has open for writing is `ETXTBSY`.
static GATE: Mutex<()> = Mutex::new(());

/// Copies a program, 0755.
///
/// # Errors
/// As `std::fs::copy`.
pub fn copy_program(from: &Path, to: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let _held = GATE.lock().unwrap_or_else(PoisonError::into_inner);
    std::fs::copy(from, to)?;
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755))
}

/// Writes a file that may be executed.
///
/// # Errors
/// As `std::fs::write`.
pub(crate) fn write(path: &Path, content: &str) -> io::Result<()> {
    let _held = GATE.lock().unwrap_or_else(PoisonError::into_inner);
    std::fs::write(path, content)
}

/// Starts a program; back once it is executed.
///
/// # Errors
/// As `Command::spawn`.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    let _held = GATE.lock().unwrap_or_else(PoisonError::into_inner);
    command.spawn()
}

/// Back once every child that [`spawn`] had begun to start is executed: what was closed before is closed in all of them.
pub fn no_child_is_starting() {
    drop(GATE.lock().unwrap_or_else(PoisonError::into_inner));
}

/// Runs a program to its end, without input, and takes what it prints.
///
/// # Errors
/// As `Command::output`.
pub fn output(command: &mut Command) -> io::Result<Output> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    spawn(command)?.wait_with_output()
}
