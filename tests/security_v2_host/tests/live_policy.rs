//! `nx policy` and the real thing: what it begins runs, what it explains happens, what its document shows is what it prints.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests; the lints know only functions that are tests themselves"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use security_v2_host::{Home, Run, console, printed, users, users_with};

fn shell(home: &Arc<Home>, script: &str) -> (i32, String) {
    let done = home.shell(&format!("exec 2>&1\n{script}"));
    (
        done.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&done.stdout).into_owned(),
    )
}

#[test]
fn each_preset_works_at_once_and_closes_what_it_says() {
    for user in users() {
        for (preset, writes_work) in [("agent", true), ("ci", false), ("service", false)] {
            let home = Home::new(user);
            let directory = home.policy().join("tree");
            let (code, said) = shell(
                &home,
                &format!(
                    "nx policy init --preset {preset} --subject mine --dir {}",
                    directory.display()
                ),
            );
            assert_eq!(code, 0, "{said}");
            let run = |script: &str| {
                Run::at(&home)
                    .policy_directory(&directory)
                    .subject("mine")
                    .bash(script)
                    .run()
            };
            let kept = run("echo kept > /state/file && cat /state/file && mktemp > /dev/null && uname");
            assert_eq!(
                (kept.code(), kept.out().as_str()),
                (Some(0), "kept\nLinux\n"),
                "{preset}: {kept}"
            );
            let again = run("cat /state/file; cat /etc/shadow");
            assert_eq!(
                (again.code(), again.out().as_str()),
                (Some(1), "kept\n"),
                "{preset}: {again}"
            );
            let made = home.work().join("made");
            let work = run(&format!("echo x > {}", made.display()));
            assert_eq!(work.code() == Some(0), writes_work, "{preset}: {work}");
            assert_eq!(made.exists(), writes_work, "{preset}: {work}");
            let out = run("exec 3<> /dev/tcp/203.0.113.7/443");
            assert_ne!(out.code(), Some(0), "{preset}: {out}");
            assert_eq!(out.records_for("egress.no_rule").len(), 1, "{preset}: {out}");
            home.assert_nothing_left();
        }
    }
}

#[test]
fn what_is_explained_is_what_a_record_of_the_running_program_says() {
    for user in users() {
        let home = Home::new(user);
        let explain = |question: &str| {
            let (code, said) = shell(&home, &format!("nx policy explain --json demo {question}"));
            assert_eq!(code, 0, "{said}");
            serde_json::from_str::<serde_json::Value>(&said).unwrap()["said"].clone()
        };
        for (question, script) in [
            ("connect tcp 203.0.113.7:443", "exec 3<> /dev/tcp/203.0.113.7/443"),
            ("connect tcp 169.254.169.254:80", "exec 3<> /dev/tcp/169.254.169.254/80"),
            ("write tmp 65MiB", "dd if=/dev/zero of=/tmp/f bs=1M count=65"),
            ("syscall unshare 0x10000000", "unshare --user true"),
        ] {
            let said = explain(question);
            assert_eq!(said["verdict"], "deny", "{question}");
            let ran = Run::at(&home).bash(script).run();
            let reason = said["reason"].as_str().unwrap();
            let records = ran.records_for(reason);
            let record = records
                .first()
                .unwrap_or_else(|| panic!("{question}: no record of {reason}\n{ran}"));
            assert_eq!(record.verdict.as_str(), "deny", "{question}");
            // A special address is denied for the lack of a rule, which the record leaves open.
            if let Some(at) = &record.at {
                assert_eq!(Some(&**at), said["rule"]["at"].as_str(), "{question}");
            }
        }
        // And what is allowed is.
        assert_eq!(explain("syscall getpid")["verdict"], "allow");
        assert_eq!(explain("write tmp 1MiB")["verdict"], "allow");
        assert_eq!(explain("open /usr/bin/env")["verdict"], "allow");
        let ran = Run::at(&home)
            .bash("dd if=/dev/zero of=/tmp/f bs=1M count=1 && test -r /usr/bin/env")
            .run();
        assert_eq!(ran.code(), Some(0), "{ran}");
        home.assert_nothing_left();
    }
}

fn document(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// Without what differs when the shipped tree does: hashes, and the lines of its files.
fn masked(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let hex = rest
            .bytes()
            .take_while(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte))
            .count();
        if hex >= 12 {
            out.push('#');
            rest = &rest[hex..];
        } else if let Some(after) = rest.strip_prefix(".toml:") {
            out.push_str(".toml:");
            rest = after.trim_start_matches(|digit: char| digit.is_ascii_digit());
        } else if let Some((number, after)) = numbered(rest) {
            let _ = number;
            out.push_str("\n  # |");
            rest = after;
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    // A longer number moves what stands behind it.
    out.lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join("\n")
}

/// A line's number before the source of a rule.
fn numbered(text: &str) -> Option<(&str, &str)> {
    let line = text.strip_prefix('\n')?;
    let (number, after) = line.split_once(" |")?;
    let is_number = number.starts_with("  ")
        && number.trim().bytes().all(|byte| byte.is_ascii_digit())
        && !number.trim().is_empty();
    is_number.then_some((number, after))
}

#[test]
fn what_the_document_shows_is_what_the_commands_print() {
    let path = document("docs/security/policy-as-code.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let bless = std::env::var_os("NEXUS_BLESS").is_some();
    for user in users() {
        let home = Home::new(user);
        let (written, commands) = console(&text, |command, shown| {
            let said = printed(&shell(&home, command).1);
            assert!(
                bless || masked(shown) == masked(&said),
                "$ {command}\nshown:\n{shown}\nsaid:\n{said}"
            );
            if bless { said } else { shown.to_owned() }
        });
        assert!(commands > 10, "the document has commands");
        if bless {
            std::fs::write(&path, written).unwrap();
            return;
        }
        home.assert_nothing_left();
    }
}

/// The script of a step of the example workflow.
fn step() -> String {
    let text = std::fs::read_to_string(document("docs/examples/policy-diff.yml")).unwrap();
    let (_, script) = text.split_once("run: |\n").unwrap();
    script
        .lines()
        .map_while(|line| line.strip_prefix("          "))
        .map(|line| format!("{line}\n"))
        .collect()
}

#[test]
fn the_example_workflow_fails_a_pull_request_that_opens_something_and_passes_one_that_closes() {
    let script = step();
    assert!(script.contains("nx policy diff --fail-on wider"), "{script}");
    for user in users_with(&["git"]) {
        for (change, code, line) in [
            (
                "s/^allow = .*/allow = [\"203.0.113.7:443\", \"203.0.113.8:443\"]/",
                3,
                "+ tcp 203.0.113.8/32:443",
            ),
            ("s/^allow = .*/allow = []/", 0, "- tcp 203.0.113.7/32:443"),
            ("s/^# Nothing yet.*/# Other words./", 0, "the two mean the same"),
        ] {
            let home = Home::new(user);
            let (made, said) = shell(
                &home,
                "set -e\nexport GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b\n\
                 git init -q -b main repository && cd repository\n\
                 nx policy init --preset agent --dir policy\n\
                 sed -i 's/^allow = .*/allow = [\"203.0.113.7:443\"]/' policy/egress.toml\n\
                 git add . && git commit -q -m base && git checkout -q -b change\n",
            );
            assert_eq!(made, 0, "{said}");
            let (changed, said) = shell(
                &home,
                &format!(
                    "set -e\ncd repository\nexport GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b\n\
                     sed -i '{change}' policy/egress.toml\ngit add . && git commit -q -m change\n"
                ),
            );
            assert_eq!(changed, 0, "{said}");
            // As GitHub runs a step with `shell: bash`.
            let (ended, said) = shell(
                &home,
                &format!(
                    "cd repository\nexport BASE=$(git rev-parse main) RUNNER_TEMP=$PWD/../temp GITHUB_STEP_SUMMARY=$PWD/../summary\n\
                     mkdir -p \"$RUNNER_TEMP\"\ncat > ../step.sh <<'STEP'\n{script}STEP\n\
                     bash --noprofile --norc -eo pipefail ../step.sh\n"
                ),
            );
            assert_eq!(ended, code, "{change}: {said}");
            let summary = std::fs::read_to_string(home.work().join("summary")).unwrap();
            assert!(summary.contains(line), "{change}: {summary}");
        }
    }
}
