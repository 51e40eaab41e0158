//! docs/security/nx-sec.md shows what the commands print. `NEXUS_BLESS=1` writes what they print now.

use nx_sec_host::sec_json;
use rustix::process::{Signal, kill_process};
use security_v2_host::{Home, console, printed, spawn, users};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/security/nx-sec.md")
}

/// The program that the document says runs in another terminal.
fn in_another_terminal(home: &Home) -> Child {
    let mut command = home.command(home.nx());
    let program = ["/bin/sh", "-c", "echo begun; exec sleep 600"];
    command
        .args(["run", "--quiet", "--policy", "policy", "fetcher", "--"])
        .args(program)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // Not what the test was started with: where that is a file, a session says so.
        .stderr(Stdio::null());
    let mut child = spawn(&mut command).unwrap();
    let mut begun = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut begun).unwrap();
    // It says so before it becomes the other program.
    while sec_json(home, &["ps"]).0["sessions"][0]["program"]["name"] != "sleep" {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child
}

/// What of this machine the document's words depend on: it shows one without a delegated cgroup and with all of Landlock.
#[derive(Clone, Copy)]
struct Machine {
    has_cgroup: bool,
    has_landlock: bool,
}

/// Without what differs from run to run: hashes, pids and users, lines of shipped files, spaces; and where this machine is
/// another one than the document's, without the lines that say so.
fn masked(text: &str, machine: Machine) -> String {
    text.lines()
        .map(|line| {
            let words = line.split_whitespace().map(|word| {
                let hex = word.trim_matches(|one: char| !one.is_ascii_alphanumeric());
                let is_hash = hex.len() >= 12 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
                let word = if is_hash {
                    word.replace(hex, "#")
                } else {
                    word.to_owned()
                };
                let word = match word.split_once(".toml:") {
                    Some((file, _)) => format!("{file}.toml:#"),
                    None => word,
                };
                word.replace("cgroup", "rlimit")
            });
            let words: Vec<String> = words.collect();
            let is_session = words.iter().any(|word| word == "enforce");
            let after_pid = |at: usize| at > 0 && words.get(at - 1).is_some_and(|word| word.ends_with("(pid"));
            let mask = |(at, word): (usize, &String)| {
                let is_number = word.bytes().all(|byte| byte.is_ascii_digit() || byte == b',');
                if is_number && (is_session || after_pid(at)) {
                    "N".to_owned()
                } else {
                    word.clone()
                }
            };
            words.iter().enumerate().map(mask).collect::<Vec<_>>().join(" ")
        })
        .filter(|line| {
            let counted = line.starts_with("used by ") || line.starts_with("by the kernel's counters of its");
            let limit = counted || line.contains("rlimit ") || line.contains("no rlimit holds it");
            !(machine.has_cgroup && limit) && (machine.has_landlock || !line.starts_with("Landlock"))
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn what_the_document_shows_is_what_the_commands_print() {
    let path = document();
    let text = std::fs::read_to_string(&path).unwrap();
    let bless = std::env::var_os("NEXUS_BLESS").is_some();
    // The words of an ordinary user, where there is a choice.
    for user in users().into_iter().rev() {
        let home = Home::new(user);
        let mut session = None;
        let mut machine = Machine {
            has_cgroup: false,
            has_landlock: execd::landlock_holds_descriptors(),
        };
        let (written, commands) = console(&text, |command, shown| {
            let done = home.shell(&format!("exec 2>&1; {command}"));
            let said = printed(&String::from_utf8(done.stdout).unwrap());
            let (expected, found) = (masked(shown, machine), masked(&said, machine));
            assert!(
                bless || expected == found,
                "$ {command}\nshown:\n{expected}\nsaid:\n{found}"
            );
            if session.is_none() {
                session = Some(in_another_terminal(&home));
                let running = sec_json(&home, &["ps"]).0["sessions"][0]["backends"].to_string();
                machine.has_cgroup = running.contains("cgroup\"");
            }
            if bless { said } else { shown.to_owned() }
        });
        assert!(commands > 8, "the document has commands");
        if let Some(mut session) = session {
            kill_process(rustix::process::Pid::from_child(&session), Signal::TERM).unwrap();
            session.wait().unwrap();
        }
        if bless {
            std::fs::write(&path, written).unwrap();
            return;
        }
        home.assert_nothing_left();
    }
}
