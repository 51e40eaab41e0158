//! What the areas cost: the same work on the file system that they lie on, and through the file server.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Bench, Promise, Result, median, pairs};

/// The subject with room for it.
const SUBJECT: &str = "files";

/// How many modules the crate has that is built; together some tens of files that are written.
const MODULES: usize = 24;

/// What is appended to the shipped budgets.
pub(crate) const QUOTAS: &str = "[subject.files.tmp]\nhard = \"2GiB\"\ninodes = 100000\n";

struct Case {
    name: &'static str,
    what: &'static [&'static str],
    numbers: &'static [&'static str],
    ratio_max: f64,
}

impl Case {
    /// One whose time is mostly copying, which no file server of its own can do without where the file is read as well.
    fn is_large_write(&self) -> bool {
        matches!(self.what, ["grow" | "overwrite"]) && self.numbers.first() == Some(&"131072")
    }
}

/// Writes to a file that is opened to be written (`O_WRONLY`: `cp`, `tar`, a shell's `>`, most compilers), and to one that is opened to
/// be read as well (`O_RDWR`: databases, linkers), since the file server does not do the same for them.
const CASES: &[Case] = &[
    Case {
        name: "4 KiB write, growing",
        what: &["only", "grow"],
        numbers: &["4096", "40000"],
        ratio_max: 8.0,
    },
    Case {
        name: "4 KiB write, growing, file read too",
        what: &["grow"],
        numbers: &["4096", "40000"],
        ratio_max: 8.0,
    },
    Case {
        name: "4 KiB write, overwriting",
        what: &["only", "overwrite"],
        numbers: &["4096", "40000"],
        ratio_max: 12.0,
    },
    Case {
        name: "4 KiB write, overwriting, file read too",
        what: &["overwrite"],
        numbers: &["4096", "40000"],
        ratio_max: 12.0,
    },
    Case {
        name: "128 KiB write, growing",
        what: &["only", "grow"],
        numbers: &["131072", "4000"],
        ratio_max: 3.5,
    },
    Case {
        name: "128 KiB write, growing, file read too",
        what: &["grow"],
        numbers: &["131072", "4000"],
        ratio_max: 3.5,
    },
    Case {
        name: "128 KiB write, overwriting",
        what: &["only", "overwrite"],
        numbers: &["131072", "4000"],
        ratio_max: 3.5,
    },
    Case {
        name: "128 KiB write, overwriting, file read too",
        what: &["overwrite"],
        numbers: &["131072", "4000"],
        ratio_max: 3.5,
    },
    Case {
        name: "cached 4 KiB read",
        what: &["read"],
        numbers: &["4096", "400000"],
        ratio_max: 1.1,
    },
    Case {
        name: "create and unlink",
        what: &["churn"],
        numbers: &["10000"],
        ratio_max: 10.0,
    },
];

const CARGO_BUILD: &str = "cargo build in /tmp";

impl Bench {
    /// The promise of each case with `text` in its name.
    pub(crate) fn files(&self, text: &str) -> Result<Vec<Promise>> {
        let bare_dir = self.scratch.path().join("bare");
        std::fs::create_dir_all(&bare_dir)?;
        let mut promises = Vec::new();
        for case in CASES.iter().filter(|case| case.name.contains(text)) {
            let probe = || Command::new(self.bin.join("bench-files"));
            let mut least = Vec::new();
            let (ratio, bare, inside) = pairs(
                || {
                    let bare = run(probe(), case, &bare_dir)?;
                    if case.is_large_write() {
                        least.push(self.least(case, &bare_dir)? / bare);
                    }
                    Ok(bare)
                },
                || {
                    let mut command = self.nx(SUBJECT, &self.bin);
                    command.arg(self.bin.join("bench-files"));
                    run(command, case, Path::new("/tmp"))
                },
            )?;
            let mut detail = format!("{:.2} µs bare, {:.2} µs inside", bare / 1e3, inside / 1e3);
            if !least.is_empty() {
                let times = median(least);
                detail.push_str(&format!(
                    "; {times:.2} times for a server that only copies, on one core"
                ));
            }
            promises.push(Promise {
                name: case.name,
                ratio_max: case.ratio_max,
                ratio,
                detail,
            });
        }
        if CARGO_BUILD.contains(text) {
            promises.extend(self.cargo_build(&bare_dir)?);
        }
        Ok(promises)
    }

    /// The same by a server that does nothing but copy, in whichever way is faster here.
    fn least(&self, case: &Case, dir: &Path) -> Result<f64> {
        let by = |way| {
            let mut command = Command::new(self.bin.join("bench-files"));
            command.args(["least", way]);
            run(command, case, dir)
        };
        Ok(by("pipe")?.min(by("copy")?))
    }

    /// `cargo build` with the target directory in `/tmp`, against the same beside the areas.
    fn cargo_build(&self, bare_dir: &Path) -> Result<Option<Promise>> {
        let Some(toolchain) = toolchain() else {
            println!("cargo build: no toolchain that can be shown: not measured");
            return Ok(None);
        };
        let crate_dir = self.scratch.path().join("crate");
        write_crate(&crate_dir)?;
        let build = |target: &Path| {
            let (cargo, rustc) = (toolchain.join("bin/cargo"), toolchain.join("bin/rustc"));
            format!(
                "rm -rf {target}; s=$(date +%s%N); \
                 RUSTC={rustc} CARGO_TARGET_DIR={target} {cargo} build -q --offline 1>&2 || exit 1; \
                 e=$(date +%s%N); echo $((e-s))",
                target = target.display(),
                rustc = rustc.display(),
                cargo = cargo.display(),
            )
        };
        let timed = |mut command: Command, script: &str| -> Result<f64> {
            let out = command.args(["sh", "-c", script]).output()?;
            if !out.status.success() {
                return Err(format!("cargo build: {}", String::from_utf8_lossy(&out.stderr)).into());
            }
            Ok(String::from_utf8(out.stdout)?.trim().parse::<f64>()? / 1e9)
        };
        let (ratio, bare, inside) = pairs(
            || {
                let mut command = Command::new("env");
                command.current_dir(&crate_dir);
                timed(command, &build(&bare_dir.join("target")))
            },
            || timed(self.nx(SUBJECT, &crate_dir), &build(Path::new("/tmp/target"))),
        )?;
        Ok(Some(Promise {
            name: CARGO_BUILD,
            ratio_max: 1.25,
            ratio,
            detail: format!("{bare:.2} s bare, {inside:.2} s inside"),
        }))
    }
}

/// Where cargo and rustc are, if they are somewhere.
fn toolchain() -> Option<PathBuf> {
    let out = Command::new("rustc").args(["--print", "sysroot"]).output().ok()?;
    let path = PathBuf::from(String::from_utf8(out.stdout).ok()?.trim());
    path.join("bin/cargo").exists().then_some(path)
}

/// What is appended to the shipped view: the toolchain, and memory for it.
pub(crate) fn sandbox() -> String {
    let Some(toolchain) = toolchain() else {
        return String::new();
    };
    format!(
        "[subject.{SUBJECT}]\nread = [\"/usr\", \"{}\"]\n\
         limits = {{ memory = \"4GiB\", processes = 256, open_files = 1024 }}\n",
        toolchain.display()
    )
}

/// A crate without dependencies that takes some time to build and writes what builds write.
fn write_crate(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir.join("src"))?;
    let manifest = "[package]\nname = \"many\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n";
    std::fs::write(dir.join("Cargo.toml"), manifest)?;
    // Written by hand, since the crate's directory is shown read-only.
    let lock = "version = 4\n\n[[package]]\nname = \"many\"\nversion = \"0.1.0\"\n";
    std::fs::write(dir.join("Cargo.lock"), lock)?;
    let mut main = String::from("#![allow(dead_code)]\n");
    let mut calls = String::new();
    for module in 0..MODULES {
        main.push_str(&format!("mod m{module};\n"));
        calls.push_str(&format!("    sum += m{module}::run(sum);\n"));
        let mut text = String::from("use std::collections::BTreeMap;\n");
        for number in 0..10 {
            text.push_str(&format!(
                "#[derive(Clone, Debug, Default, PartialEq, Hash)]\npub struct S{number} {{ a: Vec<u64>, b: Option<String> }}\n"
            ));
        }
        text.push_str(
            "pub fn run(x: usize) -> usize {\n    let mut map = BTreeMap::new();\n    for n in 0..x {\n        \
             map.insert(n, format!(\"{n:?} {:?}\", S0::default()));\n    }\n    map.values().map(String::len).sum()\n}\n",
        );
        std::fs::write(dir.join(format!("src/m{module}.rs")), text)?;
    }
    main.push_str(&format!(
        "fn main() {{\n    let mut sum = 1;\n{calls}    println!(\"{{sum}}\");\n}}\n"
    ));
    Ok(std::fs::write(dir.join("src/main.rs"), main)?)
}

fn run(mut command: Command, case: &Case, dir: &Path) -> Result<f64> {
    let out = command
        .args(case.what)
        .arg(dir)
        .args(case.numbers)
        .stderr(Stdio::inherit())
        .output()?;
    if !out.status.success() {
        return Err(format!("`{}` ended with {}", case.name, out.status).into());
    }
    Ok(String::from_utf8(out.stdout)?.trim().parse()?)
}
