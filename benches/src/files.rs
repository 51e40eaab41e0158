//! What the areas cost: the same work on the file system that they lie on, and through the file server.

use std::path::Path;
use std::process::{Command, Stdio};

use super::{Bench, Promise, Result, pairs};

/// The subject with room for it.
const SUBJECT: &str = "files";

/// What is appended to the shipped budgets.
pub(crate) const QUOTAS: &str = "[subject.files.tmp]\nhard = \"2GiB\"\ninodes = 100000\n";

struct Case {
    name: &'static str,
    what: &'static str,
    numbers: &'static [&'static str],
    ratio_max: f64,
}

const CASES: &[Case] = &[
    Case {
        name: "4 KiB write, growing",
        what: "grow",
        numbers: &["4096", "40000"],
        ratio_max: 8.0,
    },
    Case {
        name: "4 KiB write, overwriting",
        what: "overwrite",
        numbers: &["4096", "40000"],
        ratio_max: 12.0,
    },
    Case {
        name: "128 KiB write, growing",
        what: "grow",
        numbers: &["131072", "4000"],
        ratio_max: 3.5,
    },
    Case {
        name: "128 KiB write, overwriting",
        what: "overwrite",
        numbers: &["131072", "4000"],
        ratio_max: 3.5,
    },
    Case {
        name: "cached 4 KiB read",
        what: "read",
        numbers: &["4096", "400000"],
        ratio_max: 1.1,
    },
    Case {
        name: "create and unlink",
        what: "churn",
        numbers: &["10000"],
        ratio_max: 10.0,
    },
];

impl Bench {
    /// Each case's promise.
    pub(crate) fn files(&self) -> Result<Vec<Promise>> {
        let bare_dir = self.scratch.path().join("bare");
        std::fs::create_dir_all(&bare_dir)?;
        let mut promises = Vec::new();
        for case in CASES {
            let (ratio, bare, inside) = pairs(
                || run(Command::new(self.bin.join("bench-files")), case, &bare_dir),
                || {
                    let mut command = self.nx(SUBJECT, &self.bin);
                    command.arg(self.bin.join("bench-files"));
                    run(command, case, Path::new("/tmp"))
                },
            )?;
            promises.push(Promise {
                name: case.name,
                ratio_max: case.ratio_max,
                ratio,
                detail: format!("{:.2} µs bare, {:.2} µs inside", bare / 1e3, inside / 1e3),
            });
        }
        Ok(promises)
    }
}

fn run(mut command: Command, case: &Case, dir: &Path) -> Result<f64> {
    let out = command
        .arg(case.what)
        .arg(dir)
        .args(case.numbers)
        .stderr(Stdio::inherit())
        .output()?;
    if !out.status.success() {
        return Err(format!("`{}` ended with {}", case.name, out.status).into());
    }
    Ok(String::from_utf8(out.stdout)?.trim().parse()?)
}
