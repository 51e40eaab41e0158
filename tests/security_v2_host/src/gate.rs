//! Writing a program and starting one exclude each other; and what was started does not stay for ever.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::{DEADLINE, processes, run};

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

/// Starts a program; back once it is executed. Whoever still waits for it after ten times [`DEADLINE`] waits in vain: it is
/// killed, with every session of its home, so that the test goes on and fails.
///
/// # Errors
/// As `Command::spawn`.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    spawn_for(command, (DEADLINE * 10).saturating_mul(run::patience()))
}

/// [`spawn`], with less patience.
///
/// # Errors
/// As `Command::spawn`.
pub fn spawn_for(command: &mut Command, most: Duration) -> io::Result<Child> {
    let child = start(command)?;
    // It has not been waited for: the number is its own.
    let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    let most = Timespec::try_from(most).map_err(io::Error::other)?;
    let mut environment = command.get_envs();
    let state = environment.find_map(|(name, value)| value.filter(|_| name == "XDG_STATE_HOME").map(PathBuf::from));
    let what = format!("{command:?}");
    let watch = move || {
        // It can be read once it has ended, waited for or not. Nobody sends this thread a signal.
        if poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&most)) == Ok(0) {
            eprintln!("killed, as it did not end: {what}");
            if let Some(state) = state {
                // They may hold what the test reads.
                processes::kill_of_state(&state);
            }
            // One that is gone by itself needs no signal.
            let _ = pidfd_send_signal(&process, Signal::KILL);
        }
    };
    std::thread::Builder::new().spawn(watch)?;
    Ok(child)
}

/// [`spawn`], for whoever sees to its end.
pub(crate) fn start(command: &mut Command) -> io::Result<Child> {
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
