//! Processes of one test, found by what only they have in their environment.

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// Every process that was started with this directory for `XDG_STATE_HOME`. Those that keep their environment from the
/// caller are not seen; none of them outlives one that is.
pub(crate) fn of_state(state: &Path) -> Vec<(Pid, String)> {
    let wanted = format!("XDG_STATE_HOME={}", state.display());
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Some(pid) = Pid::from_raw(number).filter(|_| number.cast_unsigned() != own) else {
            continue;
        };
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == wanted.as_bytes())
        {
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
