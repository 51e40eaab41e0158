//! `nx sec doctor`.

use crate::run::Exit;
use std::io::Write;

pub(super) fn doctor(json: bool) -> u8 {
    let report = crate::doctor::examine();
    let text = if json {
        match report.json() {
            Ok(text) => format!("{text}\n"),
            Err(error) => {
                eprintln!("nx: the report cannot be written as JSON: {error}");
                return Exit::Internal.code();
            }
        }
    } else {
        report.text()
    };
    // A reader that has seen enough is no failure.
    let _ = std::io::stdout().write_all(text.as_bytes());
    if report.ready() { 0 } else { Exit::Missing.code() }
}
