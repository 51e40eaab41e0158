//! How long the policy's own work takes: `cargo run --release -p benches --bin bench-policy` builds `nx` first; with `--check`
//! it ends with 1 if a promise is broken.
//!
//! Times are of the processor, so that what else the machine does matters little; the clock's stand beside them.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nexus_policy::{MemoryTree, Policy};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The least of so many: what else the machine does makes a round slower, never faster.
const ROUNDS: usize = 200;

const SUBJECTS: usize = 10_000;
/// Of each subject: 100,000 of all together.
const RULES: usize = 10;
const FILES: usize = 4;

/// What is promised of a tree of that size.
const SECONDS_MAX: f64 = 2.0;
const MEBIBYTES_MAX: u64 = 256;

fn least<T>(mut what: impl FnMut() -> Result<T>) -> Result<Duration> {
    let mut least = Duration::MAX;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let made = what()?;
        least = least.min(started.elapsed());
        drop(made);
    }
    Ok(least)
}

fn main() -> Result<()> {
    let check = std::env::args().any(|arg| arg == "--check");
    let shipped = MemoryTree::shipped();
    let policy = Policy::load(&shipped)?;
    let bytes = policy.snapshot()?;
    let text = least(|| Ok(Policy::load(&shipped)?))?;
    let binary = least(|| Ok(Policy::from_snapshot(&bytes)?))?;
    println!(
        "the shipped tree                   from its text {text:?}, from its snapshot of {} bytes {binary:?}",
        bytes.len()
    );
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "-p", "nx"])
        .status()?;
    if !built.success() {
        return Err("nx does not build".into());
    }
    let nx = std::env::current_exe()?.parent().ok_or("no directory")?.join("nx");
    let place = tempfile::tempdir()?;
    let (before, after) = (place.path().join("before"), place.path().join("after"));
    write(&before, false)?;
    write(&after, true)?;
    let mut broken = 0;
    let commands: [(&str, Vec<&Path>); 3] = [
        ("validate", vec![&before]),
        ("diff", vec![&before, &after]),
        ("snapshot build", vec![&before]),
    ];
    for (command, paths) in commands {
        let used = run(&nx, command, &paths)?;
        let kept = used.processor <= SECONDS_MAX && used.mebibytes <= MEBIBYTES_MAX;
        broken += usize::from(!kept);
        println!(
            "nx policy {command:<16} {SUBJECTS} subjects, {} rules: {:.2} s of the processor (at most {SECONDS_MAX}), {:.2} s by the clock, \
             {} MiB (at most {MEBIBYTES_MAX})  {}",
            SUBJECTS * RULES,
            used.processor,
            used.clock,
            used.mebibytes,
            if kept { "kept" } else { "BROKEN" }
        );
    }
    if check && broken > 0 {
        return Err(format!("{broken} promises broken").into());
    }
    Ok(())
}

struct Used {
    processor: f64,
    clock: f64,
    mebibytes: u64,
}

/// Runs it, and looks at its process until it ends: the kernel keeps the peak itself.
fn run(nx: &Path, command: &str, paths: &[&Path]) -> Result<Used> {
    let started = Instant::now();
    let mut child = Command::new(nx)
        .arg("policy")
        .args(command.split(' '))
        .args(paths)
        .stdout(Stdio::null())
        .spawn()?;
    let proc = PathBuf::from("/proc").join(child.id().to_string());
    let (mut mebibytes, mut ticks) = (0, 0);
    let status = loop {
        if let Ok(status) = std::fs::read_to_string(proc.join("status"))
            && let Some(line) = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))
        {
            let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
            mebibytes = mebibytes.max(kibibytes / 1024);
        }
        if let Ok(stat) = std::fs::read_to_string(proc.join("stat")) {
            // proc_pid_stat(5): utime and stime are the 14th and 15th fields, the 12th and 13th after the name.
            let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
            ticks = ticks.max(fields.filter_map(|field| field.parse::<u64>().ok()).sum());
        }
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    if !matches!(status.code(), Some(0 | 3)) {
        return Err(format!("`nx policy {command}` ended with {status}").into());
    }
    Ok(Used {
        // A tick is a hundredth of a second to programs, on every machine (proc_pid_stat(5)).
        processor: ticks as f64 / 100.0,
        clock: started.elapsed().as_secs_f64(),
        mebibytes,
    })
}

/// A tree of many subjects, each with rules of its own; of every seventh one differs where it is `other`.
fn write(directory: &Path, other: bool) -> Result<()> {
    std::fs::create_dir(directory)?;
    let shipped = MemoryTree::shipped();
    let mut root = String::from("version = 1\ninclude = [");
    for file in 0..FILES {
        write!(root, "\"p{file}.egress.toml\", \"p{file}.quotas.toml\", ")?;
    }
    root.push_str("\"abi.toml\", \"sandbox.toml\"]\n");
    for domain in 0..10 {
        writeln!(root, "[domain.d{domain}]")?;
    }
    for subject in 0..SUBJECTS {
        writeln!(root, "[subject.s{subject}]\ndomain = \"d{}\"", subject % 10)?;
    }
    std::fs::write(directory.join("nexus.policy.toml"), root)?;
    for name in ["abi.toml", "sandbox.toml"] {
        let text = shipped.files().find(|(path, _)| *path == name).ok_or("no such file")?.1;
        let text = String::from_utf8(text.to_vec())?.replace("domain.tools", "domain.d0");
        std::fs::write(directory.join(name), text)?;
    }
    for file in 0..FILES {
        let (mut egress, mut quotas) = (String::new(), String::new());
        for subject in (file..SUBJECTS).step_by(FILES) {
            writeln!(egress, "[subject.s{subject}]\nallow = [")?;
            for rule in 0..RULES {
                let port = if other && subject % 7 == 0 && rule == 3 {
                    444
                } else {
                    443
                };
                writeln!(
                    egress,
                    "    \"{}.{}.{}.0/24:{port}\",",
                    20 + (subject >> 8),
                    subject & 255,
                    rule * 16
                )?;
            }
            egress.push_str("]\n");
            writeln!(quotas, "[subject.s{subject}.tmp]\nhard = \"64MiB\"\ninodes = 4096")?;
        }
        std::fs::write(directory.join(format!("p{file}.egress.toml")), egress)?;
        std::fs::write(directory.join(format!("p{file}.quotas.toml")), quotas)?;
    }
    Ok(())
}
