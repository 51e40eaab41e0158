//! Says `SELFTEST: … ok` on the marker sink, each line after the thing was seen and never before.
//!
//! What is seen is what `nx sec test` finds in real sandboxes of two subjects of a policy that comes along. What this
//! machine does not have is said to be unsupported, and is not said to be ok.
//!
//! Ends with 0 if all of it was seen, with 6 if some of it is unsupported here, with 3 if some of it is not so.
#![forbid(unsafe_code)]

mod policy;

use serde_json::Value;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// The variable that names where markers go: a file, or a terminal such as a serial line. Unset: stdout.
const MARKERS: &str = "NEXUS_MARKERS";

/// The `nx` to ask, where it is not in `$PATH`.
const NX: &str = "NEXUS_NX";

/// One line to be said, and what has to be seen first.
struct Selftest {
    marker: &'static str,
    /// After `nx sec test`.
    words: &'static [&'static str],
    /// Findings that must be among those: what they say and the end of their names.
    among: &'static [(&'static str, &'static str)],
}

const SELFTESTS: [Selftest; 6] = [
    Selftest {
        marker: "sec syscall deny",
        words: &["deny", "--subject", "selftest", "--syscall", "unshare"],
        among: &[("deny", "unshare(0xffffffffffffffff)")],
    },
    Selftest {
        marker: "sec profile windowd",
        words: &["all", "--subject", "windowd", "--part", "syscall,view"],
        among: &[("allow", "/usr is there"), ("bound", "is not there"), ("deny", ")")],
    },
    Selftest {
        marker: "sec quota ipc",
        words: &["all", "--subject", "windowd", "--part", "ipc"],
        among: &[
            ("allow", "shared memory"),
            ("bound", "shared memory + 1 byte"),
            ("bound", "semaphore 16 + 1"),
        ],
    },
    Selftest {
        marker: "quota deny",
        words: &["quota", "--subject", "selftest", "--area", "state"],
        among: &[
            ("deny", "state hard bytes + 1 written"),
            ("deny", "state hard inodes + 1"),
        ],
    },
    Selftest {
        marker: "egress deny",
        words: &[
            "egress",
            "--subject",
            "selftest",
            "--to",
            "198.51.101.0:443",
            "--expect",
            "deny",
        ],
        among: &[("deny", "tcp 198.51.101.0:443")],
    },
    Selftest {
        marker: "egress allow",
        words: &[
            "egress",
            "--subject",
            "selftest",
            "--to",
            "198.51.100.255:443",
            "--expect",
            "allow",
        ],
        among: &[("allow", "tcp 198.51.100.255:443")],
    },
];

/// What became of one of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Seen,
    Unsupported,
    NotSo,
}

fn main() -> ExitCode {
    match run() {
        Ok(Outcome::Seen) => ExitCode::SUCCESS,
        Ok(Outcome::Unsupported) => ExitCode::from(6),
        Ok(Outcome::NotSo) => ExitCode::from(3),
        Err(why) => {
            eprintln!("selftest-client: {why}");
            ExitCode::from(4)
        }
    }
}

fn run() -> Result<Outcome, String> {
    let nx = std::env::var_os(NX).unwrap_or_else(|| "nx".into());
    let tree = policy::Tree::write()?;
    let mut worst = Outcome::Seen;
    for selftest in &SELFTESTS {
        let (outcome, why) = look(&nx, tree.path(), selftest);
        let line = match outcome {
            Outcome::Seen => format!("SELFTEST: {} ok\n", selftest.marker),
            Outcome::Unsupported => format!("SELFTEST: {} unsupported: {why}\n", selftest.marker),
            Outcome::NotSo => format!("SELFTEST: {} FAILED: {why}\n", selftest.marker),
        };
        say(&line)?;
        worst = worst.max(outcome);
    }
    say("SELFTEST: end\n")?;
    Ok(worst)
}

/// One write, so that no other's line tears it.
fn say(line: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("the marker sink cannot be written: {error}");
    match std::env::var_os(MARKERS).filter(|path| !path.is_empty()) {
        None => std::io::stdout().write_all(line.as_bytes()).map_err(failed),
        Some(path) => {
            let mut options = OpenOptions::new();
            let mut sink = options.append(true).create(true).open(path).map_err(failed)?;
            sink.write_all(line.as_bytes()).map_err(failed)
        }
    }
}

fn look(nx: &OsString, tree: &Path, selftest: &Selftest) -> (Outcome, String) {
    let mut command = Command::new(nx);
    command
        .args(["sec", "test"])
        .args(selftest.words)
        .arg("--json")
        .arg("--policy")
        .arg(tree)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let done = match command.output() {
        Ok(done) => done,
        Err(error) => {
            return (
                Outcome::NotSo,
                format!("`{}` cannot be started: {error}", nx.to_string_lossy()),
            );
        }
    };
    let Ok(said) = serde_json::from_slice::<Value>(&done.stdout) else {
        return (Outcome::NotSo, format!("nx ended with {} and no object", done.status));
    };
    judge(done.status.code(), &said, selftest)
}

/// What an object of `nx sec test` shows of a selftest.
fn judge(code: Option<i32>, said: &Value, selftest: &Selftest) -> (Outcome, String) {
    let words = |value: &Value| value.as_str().unwrap_or("no reason given").replace('\n', " ");
    match code {
        Some(0) if said["version"] == 1 && said["ok"] == true => {}
        Some(6) => return (Outcome::Unsupported, words(&said["message"])),
        Some(3) if said["message"].is_null() => return (Outcome::NotSo, lacks(said)),
        _ => return (Outcome::NotSo, words(&said["message"])),
    }
    for (says, name) in selftest.among {
        let is_it = |finding: &&Value| {
            finding["status"] == "ok"
                && finding["says"] == *says
                && finding["name"].as_str().is_some_and(|own| own.ends_with(name))
        };
        if findings(said).find(is_it).is_none() {
            let left_out = said["subjects"][0]["left_out"].as_array().into_iter().flatten();
            let left_out: Vec<_> = left_out.filter_map(Value::as_str).collect();
            return (
                Outcome::Unsupported,
                format!("`{name}` was not looked at: {}", left_out.join("; ")),
            );
        }
    }
    (Outcome::Seen, String::new())
}

fn findings(said: &Value) -> impl Iterator<Item = &Value> {
    let subjects = said["subjects"].as_array().into_iter().flatten();
    subjects.flat_map(|subject| subject["findings"].as_array().into_iter().flatten())
}

fn lacks(said: &Value) -> String {
    let failed = findings(said).filter(|finding| finding["status"] == "failed");
    let lacks: Vec<_> = failed
        .take(3)
        .map(|finding| {
            let lack = finding["lacks"][0].as_str().unwrap_or_default();
            format!("{}: {lack}", finding["name"].as_str().unwrap_or_default())
        })
        .collect();
    lacks.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report(status: &str, says: &str, name: &str) -> Value {
        json!({"version": 1, "ok": status != "failed", "subjects": [{
            "findings": [{"status": status, "says": says, "name": name, "lacks": ["no record of it"]}],
            "left_out": ["this kernel has none"],
        }]})
    }

    fn outcome(code: i32, said: &Value) -> char {
        match judge(Some(code), said, &SELFTESTS[0]).0 {
            Outcome::Seen => 's',
            Outcome::Unsupported => 'u',
            Outcome::NotSo => 'n',
        }
    }

    #[test]
    fn a_marker_is_said_only_for_what_was_proven_by_its_name() {
        let name = "unshare(0xffffffffffffffff)";
        assert_eq!(outcome(0, &report("ok", "deny", name)), 's');
        assert_eq!(outcome(0, &report("ok", "allow", name)), 'u');
        assert_eq!(outcome(0, &report("ok", "deny", "getpid()")), 'u');
        assert_eq!(outcome(0, &report("skipped", "deny", name)), 'u');
        assert_eq!(outcome(3, &report("failed", "deny", name)), 'n');
        assert_eq!(outcome(7, &report("ok", "deny", name)), 'n');
    }

    #[test]
    fn another_shape_is_never_taken_for_a_proof() {
        for said in [
            json!(null),
            json!({}),
            json!([]),
            json!({"version": 2, "ok": true, "subjects": []}),
        ] {
            assert_eq!(outcome(0, &said), 'n', "{said}");
        }
        assert_eq!(
            outcome(6, &json!({"version": 1, "ok": false, "message": "no /dev/fuse"})),
            'u'
        );
    }
}
