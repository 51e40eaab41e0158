//! `nx policy` from the command line: what it says, where, in which shape, and with what status it ends.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests; the lints know only functions that are tests themselves"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A directory of a test's own, and commands in it that know no policy but those that they name.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn nx(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_nx"))
            .arg("policy")
            .args(args)
            .current_dir(self.0.path())
            .env_clear()
            .env("HOME", self.0.path())
            .output()
            .unwrap()
    }

    /// A tree of one subject, `s`, that says this of it.
    fn tree(&self, name: &str, files: &[(&str, &str)]) {
        let directory = self.path(name);
        std::fs::create_dir_all(&directory).unwrap();
        let included: Vec<String> = files.iter().map(|(path, _)| format!("\"{path}\"")).collect();
        let root = format!("version = 1\ninclude = [{}]\n[subject.s]\n", included.join(", "));
        std::fs::write(directory.join("nexus.policy.toml"), root).unwrap();
        for (path, text) in files {
            std::fs::write(directory.join(path), text).unwrap();
        }
    }
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    let text = out(output);
    assert_eq!(text.lines().count(), 1, "one object on one line: {text}");
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["version"], 1);
    value
}

/// What stands in `tests/policy/NAME`. With `NEXUS_BLESS=1` it is written anew, to be read in the diff.
fn golden(name: &str, said: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policy").join(name);
    if std::env::var_os("NEXUS_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, said).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(said, expected, "{name}");
}

const EGRESS: &str =
    "[subject.s]\nallow = [\n    # A mirror.\n    \"203.0.113.0/24:443\",\n]\ndeny = [\"203.0.113.9:443\"]\n";

#[test]
fn every_error_of_a_tree_is_told_at_once_with_its_source_and_as_json() {
    let place = Place::new();
    let wrong = "[subject.s]\nallwo = []\nallow = [\"203.0.113.1/24:443\", \"203.0.113.7:0\"]\n";
    place.tree("t", &[("egress.toml", wrong)]);
    let said = place.nx(&["validate", "t"]);
    assert_eq!(said.status.code(), Some(3));
    assert_eq!(out(&said), "");
    let text = err(&said);
    assert!(
        text.contains("3 errors") && text.contains("did you mean `allow`?"),
        "{text}"
    );
    assert!(
        text.contains("egress.toml:2:1") && text.contains("203.0.113.0/24"),
        "{text}"
    );
    assert!(!text.contains('\u{1b}'), "no colour where nobody looks");
    let said = place.nx(&["validate", "t", "--json"]);
    assert_eq!((said.status.code(), err(&said)), (Some(3), String::new()));
    let mut value = json(&said);
    assert_eq!(value["errors"].as_array().unwrap().len(), 3);
    // Its only part that differs from machine to machine.
    value["message"] = "policy of DIR is invalid".into();
    golden(
        "errors.json",
        &format!("{}\n", serde_json::to_string_pretty(&value).unwrap()),
    );
}

#[test]
fn a_tree_that_is_not_there_is_missing_and_a_wrong_word_is_usage() {
    let place = Place::new();
    for (args, code) in [
        (&["validate", "nowhere"][..], 4),
        (&["diff", "nowhere", "nowhere"], 4),
        (&["snapshot", "verify", "nowhere"], 4),
        (&["snapshot", "build"], 2),
        (&["show", "nobody"], 3),
        (&["explain", "demo", "fly"], 2),
        (&["explain", "demo", "connect", "tcp", "203.0.113.7"], 2),
        (&["explain", "demo", "syscall", "no_such_call"], 2),
        (&["explain", "demo", "write", "tmp", "much"], 2),
        (&["explain", "demo", "open", "../etc"], 2),
        (&["init", "--preset", "agent", "--subject", "No Name"], 2),
        (&["init", "--preset", "nothing"], 2),
    ] {
        let said = place.nx(args);
        assert_eq!(said.status.code(), Some(code), "{args:?}: {}", err(&said));
        assert!(!err(&said).is_empty(), "{args:?}");
    }
    let late = place.nx(&["explain", "demo", "open", "/usr", "--json"]);
    assert_eq!(late.status.code(), Some(2));
    assert!(
        err(&late).contains("options stand before the subject"),
        "{}",
        err(&late)
    );
    let said = place.nx(&["validate", "nowhere", "--json"]);
    let value = json(&said);
    assert_eq!((&value["ok"], &value["exit"]), (&Value::Bool(false), &4.into()));
}

#[test]
fn without_a_tree_of_ones_own_it_is_said_how_to_make_one_and_with_one_what_to_do_next() {
    let place = Place::new();
    let said = place.nx(&[]);
    assert_eq!(said.status.code(), Some(0));
    assert!(
        out(&said).contains("built-in") && out(&said).contains("nx policy init --preset agent"),
        "{}",
        out(&said)
    );
    assert_eq!(json(&place.nx(&["--json"]))["built_in"], true);
    let made = place.nx(&["init", "--preset", "ci", "--subject", "build"]);
    assert_eq!(made.status.code(), Some(0), "{}", err(&made));
    let said = out(&place.nx(&[]));
    assert!(
        said.contains(".config/nexus/policy") && said.contains("subjects     build"),
        "{said}"
    );
    assert!(said.contains("nx policy diff"), "{said}");
    // What somebody wrote is never written over.
    let again = place.nx(&["init", "--preset", "agent"]);
    assert_eq!(again.status.code(), Some(3));
    assert!(err(&again).contains("not empty"), "{}", err(&again));
    assert!(out(&place.nx(&["show"])).contains("subject      build"));
}

#[test]
fn each_preset_is_valid_and_says_why_of_each_of_its_rules() {
    let place = Place::new();
    for preset in ["agent", "ci", "service"] {
        let made = place.nx(&["init", "--preset", preset, "--dir", preset]);
        assert_eq!(made.status.code(), Some(0), "{}", err(&made));
        let valid = json(&place.nx(&["validate", preset, "--json"]));
        assert_eq!(
            valid["notes"],
            Value::Array(vec![]),
            "{preset}: nothing that `nx run` would refuse"
        );
        for file in [
            "nexus.policy.toml",
            "quotas.toml",
            "egress.toml",
            "abi.toml",
            "sandbox.toml",
        ] {
            let text = std::fs::read_to_string(place.path(preset).join(file)).unwrap();
            assert!(text.starts_with('#') && !text.contains("SUBJECT"), "{preset}/{file}");
            assert!(!text.contains("demo]"), "{preset}/{file}: the example's subject stayed");
        }
    }
}

#[test]
fn every_line_that_is_shown_has_the_file_and_line_that_made_it_so() {
    let place = Place::new();
    let made = place.nx(&["init", "--preset", "service", "--dir", "t"]);
    assert_eq!(made.status.code(), Some(0), "{}", err(&made));
    let shown = out(&place.nx(&["show", "--policy", "t", "service"]));
    let lines: Vec<&str> = shown.lines().filter(|line| line.starts_with("  ")).collect();
    assert!(lines.len() > 100, "{shown}");
    for line in &lines {
        let nothing_said = line.contains("no budget");
        assert!(line.contains(".toml:") || nothing_said, "{line}");
    }
    // A domain's list that the subject replaces is not there, and its own is.
    let root = std::fs::read_to_string(place.path("t/sandbox.toml")).unwrap();
    let number = root
        .lines()
        .position(|line| line.starts_with("env = [\"LANG\", \"LC_*\", \"TZ\"]"))
        .unwrap()
        + 1;
    assert!(
        lines
            .iter()
            .any(|line| line.contains("pass LANG LC_* TZ") && line.ends_with(&format!("sandbox.toml:{number}"))),
        "{shown}"
    );
    let value = json(&place.nx(&["show", "--policy", "t", "service", "--json"]));
    assert_eq!(value["lines"].as_array().unwrap().len(), lines.len());
}

#[test]
fn an_answer_is_explained_with_the_rule_in_its_source_and_in_one_shape() {
    let place = Place::new();
    place.tree(
        "t",
        &[
            ("egress.toml", EGRESS),
            ("abi.toml", "[subject.s]\nallow = [\"socket\", \"connect\"]\n"),
            ("quotas.toml", "[subject.s.tmp]\nhard = \"1MiB\"\ninodes = 8\n"),
        ],
    );
    let ask = |question: &[&str]| out(&place.nx(&[&["explain", "--policy", "t", "s"], question].concat()));
    let allowed = ask(&["connect", "tcp", "203.0.113.8:443"]);
    assert!(
        allowed.starts_with("allowed      s: connect tcp 203.0.113.8:443\nrule         egress.toml:4 egress:"),
        "{allowed}"
    );
    assert!(allowed.contains("       4 | \"203.0.113.0/24:443\""), "{allowed}");
    let denied = ask(&["connect", "tcp", "203.0.113.9:443"]);
    assert!(
        denied.contains("reason       egress.deny_rule (errno EPERM)") && denied.contains("egress.toml:6"),
        "{denied}"
    );
    assert!(ask(&["connect", "tcp", "203.0.114.0:443"]).contains("egress.no_rule"));
    assert!(ask(&["connect", "tcp", "[::ffff:203.0.113.8]:443"]).starts_with("allowed"));
    assert!(
        ask(&["connect", "tcp", "169.254.169.254:443"]).contains("reason       egress.no_rule")
            || ask(&["connect", "tcp", "169.254.169.254:443"]).contains("egress.special_address")
    );
    assert!(ask(&["syscall", "ptrace"]).contains("abi.no_rule"));
    assert!(ask(&["syscall", "socket", "AF_INET", "1", "0"]).starts_with("allowed"));
    assert!(ask(&["syscall", "io_uring_enter"]).contains("denied"));
    // The floor holds under any policy.
    place.tree(
        "open",
        &[("abi.toml", "[subject.s]\nallow = [\"io_uring_enter\", \"write\"]\n")],
    );
    let floor = out(&place.nx(&["explain", "--policy", "open", "s", "syscall", "io_uring_enter"]));
    assert!(floor.contains("built in (floor:io-uring)"), "{floor}");
    let mut value = json(&place.nx(&[
        "explain",
        "--policy",
        "t",
        "--json",
        "s",
        "connect",
        "tcp",
        "203.0.113.9:443",
    ]));
    value["policy"] = "VERSION".into();
    golden(
        "explain.json",
        &format!("{}\n", serde_json::to_string_pretty(&value).unwrap()),
    );
}

#[test]
fn a_trace_is_bounded_however_many_rules_there_are() {
    let place = Place::new();
    let rules: Vec<String> = (0..500)
        .map(|port| format!("\"203.0.113.7:{}\"", 1000 + port * 2))
        .collect();
    let egress = format!("[subject.s]\nallow = [{}]\n", rules.join(", "));
    place.tree(
        "t",
        &[
            ("egress.toml", &egress),
            ("abi.toml", "[subject.s]\nallow = [\"socket\", \"connect\"]\n"),
        ],
    );
    let value = json(&place.nx(&[
        "explain",
        "--policy",
        "t",
        "--json",
        "s",
        "connect",
        "tcp",
        "203.0.113.7:443",
    ]));
    let egress = value["judged"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (egress["considered"].as_array().unwrap().len(), &egress["cut"]),
        (64, &Value::Bool(true))
    );
}

#[test]
fn a_snapshot_is_the_same_bytes_again_and_a_changed_or_stale_one_is_refused() {
    let place = Place::new();
    place.tree("t", &[("egress.toml", EGRESS)]);
    let files = || ["policy.json", "policy.bin"].map(|name| std::fs::read(place.path("t").join(name)).unwrap());
    let built = place.nx(&["snapshot", "build", "t"]);
    assert_eq!(built.status.code(), Some(0), "{}", err(&built));
    let first = files();
    assert_eq!(place.nx(&["snapshot", "build", "t"]).status.code(), Some(0));
    assert_eq!(files(), first);
    let verify = || place.nx(&["snapshot", "verify", "t"]);
    assert_eq!(verify().status.code(), Some(0), "{}", err(&verify()));
    // A bit of either file.
    for (name, content) in ["policy.json", "policy.bin"].iter().zip(&first) {
        let mut changed = content.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 4;
        std::fs::write(place.path("t").join(name), changed).unwrap();
        assert_eq!(verify().status.code(), Some(3), "{name}");
        std::fs::write(place.path("t").join(name), content).unwrap();
    }
    assert_eq!(verify().status.code(), Some(0));
    // A comment more.
    std::fs::write(place.path("t/egress.toml"), format!("# New.\n{EGRESS}")).unwrap();
    let stale = verify();
    assert_eq!(stale.status.code(), Some(3));
    assert!(
        err(&stale).contains("stale: `egress.toml`") && err(&stale).contains("nx policy snapshot build"),
        "{}",
        err(&stale)
    );
    // A pipe is not waited for.
    let bin = place.path("t/policy.bin");
    std::fs::remove_file(&bin).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &bin, rustix::fs::Mode::RWXU).unwrap();
    let pipe = verify();
    assert_eq!(pipe.status.code(), Some(4));
    assert!(err(&pipe).contains("it is not a regular file"), "{}", err(&pipe));
    // The policy's version is what anybody computes of policy.json.
    let value = json(&place.nx(&["snapshot", "build", "t", "--json"]));
    let canonical = std::fs::read(place.path("t/policy.json")).unwrap();
    let shown = json(&place.nx(&["validate", "t", "--json"]));
    assert_eq!(value["policy"], shown["policy"]);
    assert!(canonical.starts_with(b"{\"domains\""));
}

#[test]
fn a_diff_ends_with_what_was_asked_of_it() {
    let place = Place::new();
    place.tree("a", &[("egress.toml", EGRESS)]);
    place.tree("same", &[("egress.toml", "[subject.s]\ndeny = [\"203.0.113.9/32:443\"]\nallow = [\"203.0.113.0/25:443\", \"203.0.113.128/25:443\"]\n")]);
    place.tree(
        "wider",
        &[("egress.toml", "[subject.s]\nallow = [\"203.0.113.0/24:443\"]\n")],
    );
    let diff = |args: &[&str]| place.nx(&[&["diff"], args].concat());
    for (args, code) in [
        (&["a", "same"][..], 0),
        (&["a", "a"], 0),
        (&["a", "wider"], 3),
        (&["wider", "a"], 3),
        (&["a", "wider", "--fail-on", "wider"], 3),
        (&["wider", "a", "--fail-on", "wider"], 0),
        (&["a", "same", "--fail-on", "wider"], 0),
    ] {
        let said = diff(args);
        assert_eq!(said.status.code(), Some(code), "{args:?}: {}{}", out(&said), err(&said));
    }
    assert_eq!(out(&diff(&["a", "same"])), "the two mean the same\n");
    golden("diff.txt", &out(&diff(&["a", "wider"])));
    let mut value = json(&diff(&["a", "wider", "--json"]));
    (value["before"], value["after"]) = ("VERSION".into(), "VERSION".into());
    golden(
        "diff.json",
        &format!("{}\n", serde_json::to_string_pretty(&value).unwrap()),
    );
    assert_eq!(json(&diff(&["a", "same", "--json"]))["same"], true);
}

#[test]
fn text_of_a_tree_reaches_no_terminal_as_it_is() {
    let place = Place::new();
    // TOML lets a string hold what an escape names.
    place.tree(
        "t",
        &[("sandbox.toml", "[subject.s]\nenv_set = { A = \"x\\u001b[31mred\" }\n")],
    );
    for args in [&["show", "--policy", "t"][..], &["diff", "t", "e"]] {
        place.tree("e", &[]);
        let said = place.nx(args);
        assert!(
            !out(&said).contains('\u{1b}') && out(&said).contains("\\u{1b}"),
            "{args:?}: {}{}",
            out(&said),
            err(&said)
        );
    }
}

#[test]
fn what_init_made_is_one_object_and_so_is_why_it_made_nothing() {
    let place = Place::new();
    let made = place.nx(&[
        "init",
        "--preset",
        "ci",
        "--subject",
        "build",
        "--dir",
        "tree",
        "--json",
    ]);
    assert_eq!(made.status.code(), Some(0), "{}", err(&made));
    let value = json(&made);
    assert_eq!(value["ok"], true);
    assert_eq!(
        (&value["done"], &value["subject"], &value["preset"]),
        (&"made".into(), &"build".into(), &"ci".into())
    );
    assert_eq!(value["directory"], "tree");
    let shown = json(&place.nx(&["validate", "tree", "--json"]));
    assert_eq!(value["policy"], shown["policy"]);
    let files = value["files"].as_array().unwrap();
    assert!(!files.is_empty());
    for file in files {
        assert!(place.path("tree").join(file.as_str().unwrap()).is_file(), "{file}");
    }
    let again = place.nx(&["init", "--preset", "ci", "--dir", "tree", "--json"]);
    assert_eq!(again.status.code(), Some(3));
    assert_eq!(json(&again)["ok"], false);
}
