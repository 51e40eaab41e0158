//! `--json` has one shape everywhere: each answer is one object on one line, with a version, whether all is well, and fields
//! sorted by name; a failure is one too.

use nx_sec_host::{Said, sec};
use rustix::process::Signal;
use security_v2_host::{Run, Running, as_everybody};
use serde_json::Value;
use std::collections::BTreeSet;

/// Whether every object of it has its fields in order, as they were written.
fn is_sorted(line: &str) -> bool {
    // What was read keeps no order of its own: it is written sorted, and is the same but for the escapes of what would speak to a
    // terminal, of which there are none here.
    serde_json::from_str::<Value>(line).is_ok_and(|value| line == format!("{value}"))
}

fn has_the_shape(words: &[&str], said: &Said) {
    assert!(!said.out.is_empty() && said.out.ends_with('\n'), "{words:?}: {said}");
    for line in said.out.lines() {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{words:?}: {error}: {said}"));
        assert_eq!(value["version"], 1, "{words:?}: {said}");
        assert!(value["ok"].is_boolean(), "{words:?}: {said}");
        assert!(is_sorted(line), "{words:?}: {line}");
        let is_ok = said.code == Some(0);
        assert_eq!(value["ok"], is_ok, "{words:?}: {said}");
    }
}

#[test]
fn every_command_says_one_shape_and_so_does_its_failure() {
    as_everybody(|home| {
        let mut running = Running::start(home, &[], &["/bin/bash", "-c", "echo begun; exec sleep 1000"]);
        assert_eq!(running.line(), "begun");
        let _ = Run::at(home).bash("exec 3<>/dev/tcp/192.0.2.1/443").run();
        let mut tried = BTreeSet::new();
        let said: [(&[&str], &[i32]); 21] = [
            (&["ps"], &[0]),
            (&["audit"], &[0]),
            (&["audit", "--reason", "egress"], &[0]),
            (&["audit", "--verify"], &[0]),
            (&["audit", "--verify", "--anchor", "9:00"], &[2, 3]),
            (&["counters"], &[0]),
            (&["counters", "--subject", "nobody"], &[3]),
            (&["export"], &[0]),
            (&["export", "--output", "here.json"], &[0]),
            (&["export", "--output", "here.json"], &[2]),
            (&["top"], &[0]),
            // Where a machine lacks something that a run needs, that is said in the same shape.
            (&["doctor"], &[0, 4]),
            (&["policy", "show"], &[0]),
            (&["policy", "show", "--policy", "nowhere"], &[4]),
            (&["syscalls", "--subject", "demo"], &[0]),
            (&["sandbox", "--subject", "demo"], &[0]),
            (&["quotas", "--subject", "demo"], &[0]),
            (&["egress", "--subject", "demo"], &[0]),
            (&["egress", "--subject", "nobody"], &[3]),
            (&["test", "deny", "--subject", "demo", "--syscall", "mount"], &[0]),
            (&["test", "deny", "--subject", "demo", "--syscall", "getpid"], &[3]),
        ];
        for (words, codes) in said {
            tried.insert(words[0]);
            let said = sec(home, &[words, &["--json"]].concat());
            assert!(said.code.is_some_and(|code| codes.contains(&code)), "{words:?}: {said}");
            if said.out.is_empty() && said.code == Some(2) {
                // What the words themselves lack is said in words, before any of them is heard.
                assert!(said.err.starts_with("error: "), "{words:?}: {said}");
                continue;
            }
            has_the_shape(words, &said);
        }
        // No command is left out.
        let help = sec(home, &["--help"]).out;
        let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
        let names = commands.take_while(|line| !line.is_empty()).filter_map(|line| {
            line.strip_prefix("  ")?
                .split(' ')
                .next()
                .filter(|name| !name.is_empty())
        });
        for name in names {
            assert!(name == "help" || tried.contains(name), "`{name}` was tried");
        }
        running.signal(Signal::TERM);
        let _ = running.end();
    });
}
