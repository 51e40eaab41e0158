//! What `nx sec` says of a fixed policy, byte for byte. `NEXUS_BLESS=1` writes what it says now.

use nx_sec_host::golden;
use std::path::Path;
use std::process::{Command, Output};

/// A copy of the fixture, its snapshot with it, and nothing that runs.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/policy");
        let policy = place.0.path().join("policy");
        std::fs::create_dir(&policy).unwrap();
        for file in std::fs::read_dir(fixture).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), policy.join(file.file_name())).unwrap();
        }
        let made = place.nx(&["policy", "snapshot", "build", "policy"]);
        assert!(made.status.success(), "{made:?}");
        place
    }

    fn nx(&self, words: &[&str]) -> Output {
        Command::new(security_v2_host::nx())
            .args(words)
            .current_dir(self.0.path())
            .env_clear()
            .env("HOME", self.0.path())
            // Root's would be the machine's otherwise.
            .env("XDG_STATE_HOME", self.0.path())
            .output()
            .unwrap()
    }

    fn edit(&self, file: &str, edit: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        let path = self.0.path().join("policy").join(file);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(path, edit(bytes)).unwrap();
    }

    /// What a command says, which ends with this.
    fn says(&self, words: &[&str], code: i32) -> String {
        let done = self.nx(&[&["sec"], words].concat());
        let (out, err) = (
            String::from_utf8(done.stdout).unwrap(),
            String::from_utf8(done.stderr).unwrap(),
        );
        assert_eq!(done.status.code(), Some(code), "{out}{err}");
        format!("{out}{err}")
    }
}

/// Takes a field out of every object.
fn forget(value: &mut serde_json::Value, name: &str) {
    match value {
        serde_json::Value::Object(fields) => {
            fields.remove(name);
            fields.values_mut().for_each(|value| forget(value, name));
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(|value| forget(value, name)),
        _ => {}
    }
}

#[test]
fn a_fixed_snapshot_gives_fixed_words() {
    let place = Place::new();
    let snapshot = ["--snapshot", "policy"];
    let tree = ["--policy", "policy"];
    golden("ps.txt", &place.says(&["ps"], 0));
    golden("ps.json", &place.says(&["ps", "--json"], 0));
    for (name, code) in [("sandbox", 6), ("quotas", 0), ("egress", 0)] {
        for subject in ["build", "fetch"] {
            let words = [&[name, "--subject", subject], &tree[..]].concat();
            golden(&format!("{name}-{subject}.txt"), &place.says(&words, code));
            golden(
                &format!("{name}-{subject}.json"),
                &place.says(&[&words[..], &["--json"]].concat(), code),
            );
        }
    }
    golden(
        "unknown.txt",
        &place.says(&[&["egress", "--subject", "nobody"], &tree[..]].concat(), 3),
    );
    golden(
        "unknown.json",
        &place.says(&[&["egress", "--subject", "nobody", "--json"], &tree[..]].concat(), 3),
    );
    // Groups hold other calls elsewhere, and the profile's id is made of calls.
    if !cfg!(target_arch = "x86_64") {
        let required = std::env::var_os(security_v2_host::REQUIRE_LIVE).is_some();
        assert!(!required, "the words about syscalls are those of x86_64");
        return security_v2_host::say_skipped("the words about syscalls are those of x86_64");
    }
    golden(
        "policy.txt",
        &place.says(&[&["policy", "show"], &snapshot[..]].concat(), 0),
    );
    golden(
        "policy.json",
        &place.says(&[&["policy", "show", "--json"], &snapshot[..]].concat(), 0),
    );
    // Without a session nothing is in force: what speaks of that alone ends with 6.
    for subject in ["build", "fetch"] {
        let words = [&["syscalls", "--subject", subject], &tree[..]].concat();
        golden(&format!("syscalls-{subject}.txt"), &place.says(&words, 6));
        golden(
            &format!("syscalls-{subject}.json"),
            &place.says(&[&words[..], &["--json"]].concat(), 6),
        );
    }
    let all = [&["syscalls", "--subject", "build", "--all"], &tree[..]].concat();
    golden("syscalls-build-all.txt", &place.says(&all, 6));
}

#[test]
fn the_same_policy_in_another_order_says_the_same() {
    let place = Place::new();
    // Where a rule stands is another place then, and nothing else is.
    let show = || {
        let said = place.says(&["policy", "show", "--policy", "policy", "--json"], 0);
        let mut value: serde_json::Value = serde_json::from_str(&said).unwrap();
        forget(&mut value, "at");
        value
    };
    let before = show();
    place.edit("nexus.policy.toml", |_| {
        b"version = 1\ninclude = [\"sandbox.toml\", \"quotas.toml\", \"egress.toml\", \"abi.toml\"]\n\
          [subject.fetch]\ndomain = \"tools\"\n[subject.build]\ndomain = \"tools\"\n[domain.tools]\n"
            .to_vec()
    });
    assert_eq!(show(), before);
}

#[test]
fn a_snapshot_that_is_stale_damaged_of_another_version_or_missing_is_refused_by_name() {
    let place = Place::new();
    let show = ["policy", "show", "--snapshot", "policy"];
    place.edit("egress.toml", |mut text| {
        text.extend(b"# a word\n");
        text
    });
    assert!(
        place
            .says(&show, 3)
            .contains("the snapshot is stale: `egress.toml` is another one")
    );
    let place = Place::new();
    place.edit("policy.bin", |mut bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        bytes
    });
    assert!(place.says(&show, 3).contains("the snapshot is refused"));
    let place = Place::new();
    place.edit("policy.bin", |mut bytes| {
        bytes.truncate(bytes.len() / 2);
        bytes
    });
    assert!(place.says(&show, 3).contains("the snapshot is refused"));
    let place = Place::new();
    // The format's version stands behind its magic.
    place.edit("policy.bin", |mut bytes| {
        bytes[8] = 0xff;
        bytes
    });
    assert!(place.says(&show, 3).contains("the snapshot is refused"));
    std::fs::remove_file(place.0.path().join("policy/policy.bin")).unwrap();
    let said = place.says(&show, 4);
    assert!(
        said.contains("cannot read `policy/policy.bin`") && said.contains("nx policy snapshot build"),
        "{said}"
    );
}

#[test]
fn names_that_would_speak_to_a_terminal_are_escaped_everywhere() {
    let place = Place::new();
    for words in [
        ["egress", "--subject", "x\u{1b}[31m\u{202e}y"].as_slice(),
        &["egress", "--subject", "x\u{1b}[31m\u{202e}y", "--json"],
        &["egress", "--subject", "build", "--session", "\u{9b}31m", "--json"],
        &["policy", "show", "--snapshot", "\u{1b}]0;x\u{7}"],
        &["egress", "--subject", "x\n  help: all is well"],
        &["quotas", "--subject", "x\nok  y"],
        &["counters", "--subject", "x\nok  y"],
        &[
            "test",
            "deny",
            "--syscall",
            "mount",
            "--subject",
            "x\n  help: all is well",
        ],
    ] {
        let done = place.nx(&[&["sec"], words].concat());
        let text = [done.stdout, done.stderr].concat();
        let text = String::from_utf8(text).unwrap();
        assert!(!text.is_empty());
        assert!(!text.chars().any(|one| one.is_control() && one != '\n'), "{text:?}");
        assert!(!text.contains('\u{202e}'), "{text:?}");
        // Nor does a name begin a line of its own, or is one advised that no subject can have.
        assert!(
            !text
                .lines()
                .any(|line| line.starts_with("ok") || line == "  help: all is well"),
            "{text:?}"
        );
        assert!(!text.contains("[subject.x"), "{text:?}");
    }
}

#[test]
fn without_a_home_it_says_what_to_set_and_root_has_a_place_of_the_systems() {
    use std::os::unix::process::CommandExt;
    let root = rustix::process::geteuid().is_root();
    // Where everybody may execute it.
    let place = Place::new();
    std::fs::set_permissions(place.0.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let nx = place.0.path().join("nx");
    security_v2_host::copy_program(security_v2_host::nx(), &nx).unwrap();
    let mut command = Command::new(&nx);
    command.args(["sec", "ps"]).env_clear().current_dir("/");
    if root {
        command
            .uid(security_v2_host::ORDINARY_ID)
            .gid(security_v2_host::ORDINARY_ID);
    }
    let done = security_v2_host::output(&mut command).unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(4), "{said}");
    assert!(said.contains("HOME") && said.contains("XDG_STATE_HOME"), "{said}");
    if root {
        let mut command = Command::new(&nx);
        let done = security_v2_host::output(command.args(["sec", "ps"]).env_clear()).unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!said.contains("HOME"), "{said}");
    }
}

#[test]
fn ten_thousand_subjects_are_no_reason_to_wait() {
    let place = Place::new();
    place.edit("nexus.policy.toml", |mut text| {
        for number in 0..10_000 {
            text.extend(format!("[subject.s{number}]\ndomain = \"tools\"\n").bytes());
        }
        text
    });
    // It may have to be built first.
    let _ = security_v2_host::nx();
    let began = std::time::Instant::now();
    for (command, code) in [("egress", 0), ("quotas", 0), ("sandbox", 6), ("syscalls", 6)] {
        let said = place.says(&[command, "--subject", "s9999", "--policy", "policy"], code);
        assert!(said.contains("subject      s9999"), "{said}");
        let said = place.says(&[command, "--subject", "s10000", "--policy", "policy"], 3);
        assert!(said.len() < 4096, "the list of who there is stays short");
    }
    // All of them, and as many as a proof takes.
    let said = place.says(&["policy", "show", "--policy", "policy"], 4);
    let shown = said.lines().filter(|line| line.starts_with("subject ")).count();
    assert_eq!(shown, 500);
    assert!(said.ends_with("and 9502 more subjects: name one with `--subject NAME`\n"));
    let said = place.says(&["test", "all", "--policy", "policy"], 2);
    assert!(said.contains("10002 subjects, and one run proves 64 at most"), "{said}");
    // Of each something was counted: as many as the counter file has room for are listed, and seen at once.
    let journal = place.0.path().join("nexus/journal");
    std::fs::create_dir_all(&journal).unwrap();
    let counters = nexus_sys::counters::SharedCounters::open(&journal.join("counters")).unwrap();
    let counted = (0..10_000)
        .take_while(|number| counters.slot(&format!("s{number}")).is_ok())
        .count();
    assert!(counted > 1000, "{counted}");
    let said = place.says(&["counters"], 0);
    assert_eq!(said.lines().count(), counted + 1);
    let said: serde_json::Value = serde_json::from_str(&place.says(&["top", "--json"], 0)).unwrap();
    assert_eq!(said["subjects"].as_object().unwrap().len(), counted);
    // It takes some tenths of a second; this is for a machine that does ten things besides.
    assert!(
        began.elapsed() < std::time::Duration::from_secs(60),
        "{:?}",
        began.elapsed()
    );
}

/// With what differs from run to run and machine to machine under its name.
fn masked(text: &str) -> String {
    let me = std::process::id();
    let status = std::fs::read_to_string(format!("/proc/{me}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:\t")).unwrap();
    let uid = rustix::process::geteuid().as_raw();
    let masks = [
        (format!("\"supervisor\":{me}"), "\"supervisor\":N"),
        (format!("\"init\":{me}"), "\"init\":N"),
        (format!("\"front\":{parent}"), "\"front\":N"),
        (format!("\"uid\":{uid}"), "\"uid\":N"),
        (format!("  {uid}  "), "  N  "),
    ];
    let text = masks
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    // How wide the column of users is.
    text.lines()
        .map(|line| {
            line.split("  ")
                .filter(|word| !word.is_empty())
                .collect::<Vec<_>>()
                .join("  ")
                + "\n"
        })
        .collect()
}

#[test]
fn who_runs_is_said_in_fixed_words_and_a_fixed_order_however_they_came() {
    use nx::registry::{Backend, Mask, WorkFact, publish};
    let backend = |what: &str, by: Option<&str>| Backend {
        what: what.to_owned(),
        by: by.map(str::to_owned),
        how: None,
        why_not: by.is_none().then(|| "this kernel has none".to_owned()),
    };
    let facts = |session: &str, subject: &str| {
        let mut facts = nx_sec_host::facts(session, subject);
        facts.syscalls = Mask {
            allowed: 256,
            conditional: 30,
            denied: 97,
        };
        facts.backends = vec![
            backend("files", Some("fuse")),
            backend("second fence", None),
            backend("calls", Some("seccomp")),
        ];
        facts
    };
    let mut said = Vec::new();
    for order in [[0, 1, 2], [2, 1, 0]] {
        let place = Place::new();
        let runtime = place.0.path().join("nexus/run");
        let mut all = [
            facts("0123456789ab", "fetch"),
            facts("ffffffffffff", "build"),
            facts("00000000000a", "build"),
        ];
        all[1].domain = Some("tools".to_owned());
        all[2].work = Some(WorkFact {
            path: "/work\u{1b}[2J".to_owned(),
            kind: "ro".to_owned(),
        });
        let _held: Vec<_> = order.iter().map(|at| publish(&runtime, &all[*at]).unwrap()).collect();
        said.push((place.says(&["ps"], 0), place.says(&["ps", "--json"], 0)));
    }
    assert_eq!(said[0], said[1]);
    golden("ps-three.txt", &masked(&said[0].0));
    golden("ps-three.json", &masked(&said[0].1));
}
