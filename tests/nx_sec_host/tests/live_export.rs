//! `nx sec export` of a home where secrets lie everywhere.

use nx_sec_host::{Said, sec};
use rustix::process::Signal;
use security_v2_host::{Home, Run, Running, Tree, as_everybody, spawn};
use serde_json::Value;
use std::process::Stdio;

/// In everything that is planted.
const SECRET: &str = "hunter2";

fn export(home: &Home, words: &[&str]) -> Said {
    let mut command = home.command(home.nx());
    command
        .args(["sec", "export"])
        .args(words)
        .env("NEXUS_POLICY", home.policy());
    command.env("TOKEN", "hunter2-environment-of-nx");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let done = spawn(&mut command).unwrap().wait_with_output().unwrap();
    Said {
        code: done.status.code(),
        out: String::from_utf8(done.stdout).unwrap(),
        err: String::from_utf8(done.stderr).unwrap(),
    }
}

/// Leaves secrets in policy comments, files, the environment, arguments, and in names that are denied and recorded.
fn plant(home: &std::sync::Arc<Home>) -> Running {
    let tree = Tree::shipped()
        .append("egress.toml", "\n# hunter2-comment\n")
        .append("nexus.policy.toml", "\n# hunter2-comment\n");
    let file = home.write_work("hunter2-file", "hunter2-contents");
    let denied = Run::at(home)
        .policy(&tree)
        .env("TOKEN", "hunter2-environment")
        .args([
            "/bin/bash",
            "-c",
            "exec 3<>/dev/tcp/192.0.2.1/443; mount hunter2-source /tmp; cat hunter2-file",
            "hunter2-argument",
        ])
        .run();
    assert!(denied.records_for("egress.no_rule").len() == 1, "{denied}");
    assert!(denied.out().contains("hunter2-contents"), "{denied}");
    let name = "head -c 99999999 /dev/zero > /tmp/hunter2-name";
    let filled = Run::at(home).policy(&tree).bash(name).run();
    assert!(!filled.records_for("quota.hard_bytes").is_empty(), "{filled}");
    drop(file);
    let script = "echo begun; exec -a hunter2-zero sleep 1000";
    let mut running = Running::start(home, &[], &["/bin/bash", "-c", script, "hunter2-argument"]);
    assert_eq!(running.line(), "begun");
    running
}

fn without(text: &str, parts: &[&str]) -> Value {
    let mut value: Value = serde_json::from_str(text).unwrap();
    for part in parts {
        value.as_object_mut().unwrap().remove(*part).unwrap();
    }
    value
}

#[test]
fn no_secret_and_no_path_of_the_machine_is_in_it_and_it_says_what_it_left_out() {
    as_everybody(|home| {
        let running = plant(home);
        let said = export(home, &[]);
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{}", said.err);
        assert!(!said.out.contains(SECRET), "{}", said.out);
        let root = home.home().parent().unwrap().to_string_lossy().into_owned();
        assert!(!said.out.contains(&root), "{}", said.out);
        let value: Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(value["version"], 1);
        assert_eq!(value["policy"]["origin"], "$NEXUS_POLICY");
        assert_eq!(value["sessions"]["sessions"][0]["subject"], "demo");
        assert_eq!(value["counters"]["subjects"]["demo"]["egress_denies_total"], 1);
        assert_eq!(value["journal"]["chain"]["ok"], true);
        let records = value["journal"]["records"].as_array().unwrap();
        let objects: Vec<&str> = records.iter().filter_map(|record| record["object"].as_str()).collect();
        assert!(
            objects.contains(&"tcp 192.0.2.1:443") && objects.contains(&"tmp"),
            "{objects:?}"
        );
        // Who wants the names asks for them.
        let whole = export(home, &["--objects"]);
        assert!(whole.out.contains("hunter2-name"));
        assert!(!whole.out.contains("hunter2-environment") && !whole.out.contains("hunter2-contents"));
        assert!(!whole.out.contains("hunter2-comment") && !whole.out.contains("hunter2-argument"));
        running.signal(Signal::TERM);
        let _ = running.end();
    });
}

#[test]
fn the_same_system_gives_the_same_bytes_and_only_what_was_denied_since_changes_any() {
    as_everybody(|home| {
        let running = plant(home);
        let first = export(home, &[]);
        assert_eq!(first.out, export(home, &[]).out);
        let _ = Run::at(home).bash("exec 3<>/dev/tcp/192.0.2.2/443").run();
        let later = export(home, &[]);
        let changes = ["journal", "counters"];
        assert_eq!(without(&first.out, &changes), without(&later.out, &changes));
        assert_ne!(without(&first.out, &["counters"]), without(&later.out, &["counters"]));
        running.signal(Signal::TERM);
        let _ = running.end();
    });
}

#[test]
fn of_a_journal_that_somebody_removed_it_says_neither_that_there_is_none_nor_that_nothing_was_counted() {
    as_everybody(|home| {
        let look = || serde_json::from_str::<Value>(&export(home, &[]).out).unwrap();
        let value = look();
        assert_eq!(value["journal"]["there_is"], false, "{value}");
        assert_eq!(value["counters"]["subjects"], serde_json::json!({}), "{value}");
        let _ = Run::at(home).bash("exec 3<>/dev/tcp/192.0.2.1/443").run();
        let journal = home.state().join("nexus/journal");
        std::fs::remove_file(journal.join("journal.jsonl")).unwrap();
        let value = look();
        assert_eq!(value["journal"]["chain"]["ok"], false, "{value}");
        std::fs::remove_dir_all(&journal).unwrap();
        let value = look();
        for part in ["journal", "counters"] {
            let unknown = value[part]["unknown"].as_str().unwrap();
            assert!(unknown.contains("somebody removed them"), "{value}");
            assert_eq!(value[part].as_object().unwrap().len(), 1, "{value}");
        }
    });
}

#[test]
fn it_is_written_for_its_user_alone_and_over_nothing() {
    as_everybody(|home| {
        use std::os::unix::fs::PermissionsExt;
        let _ = Run::at(home).args(["true"]).run();
        let path = home.home().join("bundle.json");
        let name = path.to_str().unwrap();
        let said = sec(home, &["export", "--output", name]);
        assert_eq!(said.code, Some(0), "{said}");
        let file = std::fs::metadata(&path).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
        assert_eq!(said.out, format!("wrote {} bytes to {name}\n", file.len()));
        let again = sec(home, &["export", "--output", name]);
        assert_eq!(again.code, Some(2), "{again}");
        assert!(again.err.contains("help: nothing is written over"), "{again}");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), file.len());
    });
}
