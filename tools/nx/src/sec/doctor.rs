//! `nx sec doctor`.

use super::output::written;
use crate::run::Exit;

pub(super) fn doctor(json: bool) -> u8 {
    // As `nx run` does: what it says is of the machine, and not of a shell that allows few.
    let _ = crate::run::open_files::raise();
    let report = crate::doctor::examine();
    let text = if json {
        format!("{}\n", report.json())
    } else {
        report.text()
    };
    if let Err(failure) = written(text.as_bytes()) {
        eprintln!("{failure}");
        return failure.exit.code();
    }
    if report.ready() { 0 } else { Exit::Missing.code() }
}
