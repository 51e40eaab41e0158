//! The promises about speed, each as a ratio of two things measured in turn in this very run.
//!
//! `cargo run --release -p benches --bin bench-run` builds `nx` first; with `--check` it ends with 1 if a promise is broken;
//! with `--files` it measures only what the file server promises, with `--files TEXT` of that the cases with such a name, with `--as-built` what lies beside it without building.
#![forbid(unsafe_code)]

mod files;
mod notify;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How often each pair is measured; the median of the ratios counts.
const ROUNDS: usize = 7;

struct Promise {
    name: &'static str,
    ratio_max: f64,
    ratio: f64,
    detail: String,
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let check = args.iter().any(|arg| arg == "--check");
    let files = args.iter().position(|arg| arg == "--files");
    let only_files = files.is_some();
    let named = files
        .and_then(|at| args.get(at + 1))
        .filter(|text| !text.starts_with('-'));
    let bench = Bench::new(args.iter().any(|arg| arg == "--as-built"))?;
    let mut promises = Vec::new();
    if !only_files {
        promises.extend(bench.null_allowed()?);
        promises.extend(bench.null_with_argument_rule()?);
        promises.extend(bench.tar()?);
        promises.extend(bench.start()?);
        promises.extend(bench.denied()?);
    }
    promises.extend(bench.files(named.map_or("", String::as_str))?);
    let mut broken = 0;
    for promise in promises {
        let kept = promise.ratio <= promise.ratio_max;
        broken += usize::from(!kept);
        println!(
            "{:<44} {:>7.2} (at most {:.2}) {}  {}",
            promise.name,
            promise.ratio,
            promise.ratio_max,
            if kept { "kept  " } else { "BROKEN" },
            promise.detail
        );
    }
    if check && broken > 0 {
        return Err(format!("{broken} promises broken").into());
    }
    Ok(())
}

struct Bench {
    bin: PathBuf,
    scratch: tempfile::TempDir,
}

impl Bench {
    fn new(as_built: bool) -> Result<Self> {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--release", "--quiet", "-p", "nx", "-p", "benches"]);
        if !as_built && !build.status()?.success() {
            return Err("nx does not build".into());
        }
        let bin = std::env::current_exe()?.parent().ok_or("no directory")?.to_owned();
        let bench = Self {
            bin,
            scratch: tempfile::tempdir()?,
        };
        bench.write_policy()?;
        Ok(bench)
    }

    /// The shipped tree, with one more subject that has an argument rule and room.
    fn write_policy(&self) -> Result<()> {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes/security");
        let policy = self.policy();
        std::fs::create_dir(&policy)?;
        for entry in std::fs::read_dir(shipped)? {
            let entry = entry?;
            std::fs::copy(entry.path(), policy.join(entry.file_name()))?;
        }
        let append = |file: &str, text: &str| -> Result<()> {
            let path = policy.join(file);
            let old = std::fs::read_to_string(&path)?;
            Ok(std::fs::write(path, format!("{old}\n{text}"))?)
        };
        append(
            "nexus.policy.toml",
            "[subject.argument]\ndomain = \"tools\"\n[subject.files]\ndomain = \"tools\"\n",
        )?;
        append("quotas.toml", files::QUOTAS)?;
        append("sandbox.toml", &files::sandbox())?;
        append(
            "abi.toml",
            "[[subject.argument.rule]]\nsyscall = \"getpgid\"\neffect = \"deny\"\n\
             when = [{ arg = 0, width = 32, equal = 0x12345 }]\n",
        )?;
        Ok(())
    }

    fn policy(&self) -> PathBuf {
        self.scratch.path().join("policy")
    }

    fn nx(&self, subject: &str, work: &Path) -> Command {
        let mut command = self.nx_run();
        command
            .arg("--policy")
            .arg(self.policy())
            .arg("--work")
            .arg(work)
            .args([subject, "--"]);
        command
    }

    /// With the places of an account that has no tree and no journal.
    fn nx_run(&self) -> Command {
        let mut command = Command::new(self.bin.join("nx"));
        command
            .env("HOME", self.scratch.path())
            .env("XDG_STATE_HOME", self.scratch.path().join("state"))
            .env_remove("NEXUS_POLICY")
            .stderr(Stdio::null())
            .arg("run");
        command
    }

    fn probe(&self, mut command: Command, what: &[&str]) -> Result<f64> {
        let out = command.args(what).output()?;
        if !out.status.success() {
            return Err(format!(
                "the probe ended with {}: {}",
                out.status,
                String::from_utf8_lossy(&out.stderr)
            )
            .into());
        }
        Ok(String::from_utf8(out.stdout)?.trim().parse()?)
    }

    fn bare_probe(&self) -> Command {
        Command::new(self.bin.join("bench-probe"))
    }

    fn inside_probe(&self, subject: &str) -> Command {
        let mut command = self.nx(subject, &self.bin);
        command.arg(self.bin.join("bench-probe"));
        command
    }

    fn null(&self, name: &'static str, subject: &str, call: &str, ratio_max: f64) -> Result<Option<Promise>> {
        const COUNT: &str = "2000000";
        let mut least = Vec::new();
        let (ratio, bare, inside) = pairs(
            || self.probe(self.bare_probe(), &[call, COUNT]),
            || {
                least.push(self.probe(self.bare_probe(), &[call, COUNT, "filtered"])?);
                self.probe(self.inside_probe(subject), &[call, COUNT])
            },
        )?;
        let least = median(least);
        Ok(Some(Promise {
            name,
            ratio_max,
            ratio,
            detail: format!(
                "{bare:.0} ns bare, {inside:.0} ns inside; {least:.0} ns under a filter of one instruction"
            ),
        }))
    }

    fn null_allowed(&self) -> Result<Option<Promise>> {
        self.null("null syscall by the allowlist", "demo", "getppid", 1.2)
    }

    /// getppid takes no argument, so no rule can look at one.
    fn null_with_argument_rule(&self) -> Result<Option<Promise>> {
        self.null("null syscall with an argument rule", "argument", "getpgid", 1.3)
    }

    /// tar reads 20,000 small files from a bind mount and writes nowhere.
    fn tar(&self) -> Result<Option<Promise>> {
        const FILES: usize = 20_000;
        let tree = self.scratch.path().join("tree");
        for directory in 0..FILES / 100 {
            let directory = tree.join(format!("d{directory:03}"));
            std::fs::create_dir_all(&directory)?;
            for file in 0..100 {
                std::fs::write(directory.join(format!("file{file:02}.txt")), [b'x'; 1500])?;
            }
        }
        // A pipe: tar notices /dev/null and does not read.
        let job = format!("tar -cf - -C {} . | cat >/dev/null", tree.display());
        let (ratio, bare, inside) = pairs(
            || seconds(Command::new("sh").args(["-c", &job])),
            || {
                // The start is another promise's matter: measured by the program itself.
                let timed = format!("s=$(date +%s%N); {job}; e=$(date +%s%N); echo $((e-s))");
                let out = self.nx("demo", &tree).args(["sh", "-c", &timed]).output()?;
                if !out.status.success() {
                    return Err(format!("tar ended with {}", out.status).into());
                }
                Ok(String::from_utf8(out.stdout)?.trim().parse::<f64>()? / 1e9)
            },
        )?;
        let detail = format!("{:.0} ms bare, {:.0} ms inside", bare * 1e3, inside * 1e3);
        Ok(Some(Promise {
            name: "tar of 20,000 small files",
            ratio_max: 1.03,
            ratio,
            detail,
        }))
    }

    fn start(&self) -> Result<Option<Promise>> {
        const RUNS: u32 = 20;
        let mut other = Command::new("bwrap");
        other.args([
            "--ro-bind",
            "/",
            "/",
            "--dev",
            "/dev",
            "--proc",
            "/proc",
            "--unshare-all",
            "true",
        ]);
        if other.status().is_err() {
            println!("start: bwrap is not installed, so there is nothing to compare with: not measured");
            return Ok(None);
        }
        let each = |command: &mut Command| -> Result<f64> {
            let start = Instant::now();
            for _ in 0..RUNS {
                if !command.status()?.success() {
                    return Err("a start failed".into());
                }
            }
            Ok(start.elapsed().as_secs_f64() / f64::from(RUNS))
        };
        let mut ours = self.nx_run();
        ours.current_dir("/usr").args(["demo", "--", "true"]);
        let (ratio, bare, inside) = pairs(|| each(&mut other), || each(&mut ours))?;
        let detail = format!("{:.2} ms bwrap, {:.2} ms nx", bare * 1e3, inside * 1e3);
        Ok(Some(Promise {
            name: "nx run demo -- true against bwrap",
            ratio_max: 1.5,
            ratio,
            detail,
        }))
    }

    fn denied(&self) -> Result<Option<Promise>> {
        const COUNT: u32 = 20_000;
        let (ratio, bare, inside) = pairs(
            || notify::round_trip(COUNT),
            || self.probe(self.inside_probe("demo"), &["denied", &COUNT.to_string()]),
        )?;
        // 20 µs where a bare round trip takes 5.
        let detail = format!(
            "{:.1} µs bare notification, {:.1} µs denied and recorded",
            bare / 1e3,
            inside / 1e3
        );
        Ok(Some(Promise {
            name: "denied syscall against a bare notification",
            ratio_max: 4.0,
            ratio,
            detail,
        }))
    }
}

fn seconds(command: &mut Command) -> Result<f64> {
    let start = Instant::now();
    if !command.status()?.success() {
        return Err("a command failed".into());
    }
    Ok(start.elapsed().as_secs_f64())
}

/// Measures in turn, A B A B, and gives the median ratio B/A with the medians of both.
fn pairs(mut a: impl FnMut() -> Result<f64>, mut b: impl FnMut() -> Result<f64>) -> Result<(f64, f64, f64)> {
    // Once unmeasured: caches, and the file server's start.
    a()?;
    b()?;
    let (mut ratios, mut first, mut second) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (x, y) = (a()?, b()?);
        ratios.push(y / x);
        first.push(x);
        second.push(y);
    }
    Ok((median(ratios), median(first), median(second)))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
