//! Copying a program and starting one exclude each other.

use std::io;
use std::path::Path;
use std::process::{Child, Command};
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

/// Starts a program; back once it is executed.
///
/// # Errors
/// As `Command::spawn`.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    let _held = GATE.lock().unwrap_or_else(PoisonError::into_inner);
    command.spawn()
}
