//! Processes of one test, found by what only they have in their environment, or in their command line: the helpers of `nx`
//! keep their environment from everybody but root.

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// Whether a process, `/proc/PID`, has one of these variables in its environment, or, where that cannot be read, runs a program
/// of this directory. proc_pid_environ(5), proc_pid_cmdline(5).
pub(crate) fn belongs(process: &Path, variables: &[&str], root: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    match std::fs::read(process.join("environ")) {
        Ok(environment) => environment
            .split(|byte| *byte == 0)
            .any(|one| variables.iter().any(|variable| one == variable.as_bytes())),
        Err(_) => {
            let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
            let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
            Path::new(std::ffi::OsStr::from_bytes(program)).starts_with(root)
        }
    }
}

/// What every `nx` of a home has in its environment.
pub(crate) fn variable_of(state: &Path) -> String {
    format!("XDG_STATE_HOME={}", state.display())
}

/// Every process that was started with this directory for `XDG_STATE_HOME`. Of those that keep their environment from the
/// caller only the ones are seen whose `nx` was started by its path.
pub(crate) fn of_state(state: &Path) -> Vec<(Pid, String)> {
    let wanted = variable_of(state);
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Some(pid) = Pid::from_raw(number).filter(|_| number.cast_unsigned() != own) else {
            continue;
        };
        if belongs(&entry.path(), &[&wanted], state.parent().unwrap_or(state)) {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ")));
        }
    }
    found
}

/// Ends them. Several times, since one may just have started another.
pub(crate) fn kill_of_state(state: &Path) {
    for _ in 0..100 {
        let found = of_state(state);
        if found.is_empty() {
            return;
        }
        for (pid, _) in found {
            // One that is gone by itself needs no signal.
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
