//! The doctor alone: `cargo run -p nx --example doctor [--json]`.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let report = nx::doctor::examine();
    let text = if std::env::args().nth(1).as_deref() == Some("--json") {
        report.json() + "\n"
    } else {
        report.text()
    };
    let written = std::io::stdout().write_all(text.as_bytes());
    if written.is_ok() && report.ready() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(4)
    }
}
