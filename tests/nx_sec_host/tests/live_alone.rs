//! Who reaches a session's entry, and what `nx sec` itself reaches.

use nx_sec_host::sec_json;
use rustix::process::{Pid, Signal, kill_process};
use security_v2_host::{Home, Run, Running, Terminal, Tree, User, as_everybody, attacker, copy_program, output, spawn};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const WAITS: [&str; 3] = ["/bin/sh", "-c", "echo begun; exec sleep 1000"];

fn start(home: &Home) -> Running {
    let mut running = Running::start(home, &[], &WAITS);
    assert_eq!(running.line(), "begun");
    running
}

fn end(running: Running) {
    running.signal(Signal::TERM);
    let _ = running.end();
}

/// The socket of the only session.
fn socket(home: &Home) -> PathBuf {
    let (value, said) = sec_json(home, &["ps"]);
    let session = value["sessions"][0]["session"]
        .as_str()
        .unwrap_or_else(|| panic!("{said}"))
        .to_owned();
    home.state().join("nexus/run/sessions").join(session)
}

#[test]
fn a_program_cannot_see_or_reach_a_sessions_entry_whatever_its_work_directory_holds() {
    as_everybody(|home| {
        let running = start(home);
        let socket = socket(home);
        let attack = home.work().join("attacker");
        copy_program(attacker(), &attack).unwrap();
        let (attack, path) = (attack.to_str().unwrap(), socket.to_str().unwrap());
        // The attack works where nothing is around it.
        let bare = output(home.command(attack).args(["unix", path])).unwrap();
        let bare = String::from_utf8(bare.stdout).unwrap();
        assert!(bare.contains("seqpacket-connect ok"), "{bare}");
        // Everything that the home holds is the work directory, and may be written.
        let tree = Tree::shipped()
            .edit("sandbox.toml", "\nwork = \"ro\"", "\nwork = \"unmetered\"")
            .edit(
                "sandbox.toml",
                "work_protect = [\".git/hooks\", \".git/config\"]",
                "work_protect = []",
            );
        tree.write(&home.policy()).unwrap();
        let policy = home.policy();
        let all = home.work().parent().unwrap().to_owned();
        let options = ["--policy", policy.to_str().unwrap(), "--work", all.to_str().unwrap()];
        let line = format!("{attack} unix {path}; ls -d {path} {}", all.join("work").display());
        let (out, err, _) = Running::start(home, &options, &["/bin/sh", "-c", &line]).end();
        assert!(
            out.iter().any(|line| line.contains("seqpacket-connect")),
            "{out:?} {err:?}"
        );
        assert!(!out.iter().any(|line| line.contains("connect ok")), "{out:?}");
        assert!(!out.iter().any(|line| line == path), "it is not even there: {out:?}");
        assert!(out.iter().any(|line| line.ends_with("/work")), "the rest is: {out:?}");
        end(running);
    });
}

#[test]
fn another_user_learns_nothing_of_sessions() {
    if !rustix::process::geteuid().is_root() {
        security_v2_host::say_skipped("only root can be two users");
        return;
    }
    let home = Home::new(User::Root);
    let running = start(&home);
    let mut command = Command::new(home.nx());
    command
        .args(["sec", "ps"])
        .env_clear()
        .env("HOME", "/nowhere")
        .env("XDG_STATE_HOME", home.state())
        .uid(security_v2_host::ORDINARY_ID)
        .gid(security_v2_host::ORDINARY_ID);
    let done = output(&mut command).unwrap();
    assert_eq!(done.status.code(), Some(4), "{done:?}");
    assert!(done.stdout.is_empty(), "{done:?}");
    assert!(
        String::from_utf8_lossy(&done.stderr).contains("cannot see who runs"),
        "{done:?}"
    );
    end(running);
}

/// Runs a command that an internet socket would kill.
fn without_internet(home: &Home, words: &[&str]) -> ExitStatus {
    let mut command = home.command(attacker());
    command
        .arg("without-internet")
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = spawn(&mut command).unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > until {
            kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
            return child.wait().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn no_command_but_a_probe_opens_an_internet_socket() {
    as_everybody(|home| {
        let nx = home.nx();
        let nx = nx.to_str().unwrap();
        let running = start(home);
        Tree::shipped().write(&home.work().join("policy")).unwrap();
        home.give(&home.work().join("policy"));
        let attack = home.work().join("attacker");
        copy_program(attacker(), &attack).unwrap();
        let killed = Signal::SYS.as_raw();
        // The fence stands: who makes one is killed.
        let fenced = without_internet(home, &[attack.to_str().unwrap(), "families"]);
        assert_eq!(fenced.signal(), Some(killed), "{fenced:?}");
        let known: [&[&str]; 23] = [
            &["audit"],
            &["audit", "--json", "--subject", "demo"],
            &["audit", "--verify"],
            &["counters"],
            &["counters", "--prometheus"],
            &["counters", "--subject", "demo"],
            &["counters", "--json"],
            &["export"],
            &["export", "--objects", "--json"],
            &["ps"],
            &["ps", "--json"],
            &["policy", "show"],
            &["policy", "show", "--subject", "demo"],
            &["policy", "show", "--policy", "policy"],
            &["top", "--json"],
            &["egress", "--subject", "demo", "--json"],
            &["sandbox", "--subject", "demo", "--json"],
            &["quotas", "--subject", "demo", "--json"],
            &["syscalls", "--subject", "demo"],
            &["syscalls", "--subject", "demo", "--read-back"],
            &["sandbox", "--subject", "demo"],
            &["quotas", "--subject", "demo"],
            &["egress", "--subject", "demo"],
        ];
        for words in known {
            let done = without_internet(home, &[&[nx, "sec"], words].concat());
            // Filtered itself, it may not read filters back, and says so.
            let code = if words.contains(&"--read-back") { 6 } else { 0 };
            assert_eq!(done.code(), Some(code), "{words:?}: {done:?}");
        }
        // Two that go on until they are ended: the second in a terminal.
        let fence = format!("{} without-internet {nx} sec", attack.display());
        let mut following = home.command("/bin/sh");
        following
            .args(["-c", &format!("exec {fence} audit --follow")])
            .stdin(Stdio::null());
        following.stdout(Stdio::null()).stderr(Stdio::null());
        let mut following = spawn(&mut following).unwrap();
        let denied = Run::at(home).bash("exec 3<>/dev/tcp/192.0.2.1/443").run();
        assert_eq!(denied.records_for("egress.no_rule").len(), 1);
        let mut terminal = Terminal::open(home);
        terminal.resize(24, 80);
        terminal.line(&format!("TERM=xterm {fence} top"));
        terminal.see("SUBJECT");
        terminal.see("demo");
        terminal.types("q");
        assert_eq!(terminal.status(), 0);
        assert!(following.try_wait().unwrap().is_none(), "it follows on");
        following.kill().unwrap();
        following.wait().unwrap();
        // Whatever else there is: `test` starts probes, and `doctor` is one.
        let help = output(home.command(nx).args(["sec", "--help"])).unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
        let names: Vec<&str> = commands
            .take_while(|line| !line.is_empty())
            .filter_map(|line| {
                line.strip_prefix("  ")?
                    .split(' ')
                    .next()
                    .filter(|name| !name.is_empty())
            })
            .collect();
        assert!(names.contains(&"egress"), "{help}");
        let tried: Vec<&str> = known.iter().map(|words| words[0]).collect();
        for name in names {
            assert!(
                tried.contains(&name) || ["test", "doctor", "help"].contains(&name),
                "`{name}` was tried"
            );
        }
        // And the fence sees what it is there to see: a probe's listener is an internet socket, and there the proof ends.
        let probe = [
            nx,
            "sec",
            "test",
            "egress",
            "--subject",
            "demo",
            "--to",
            "192.0.2.1:443",
        ];
        let done = output(home.command(nx).args(&probe[1..])).unwrap();
        assert_eq!(done.status.code(), Some(0), "{done:?}");
        let fenced = without_internet(home, &probe);
        assert!(!fenced.success(), "{fenced:?}");
        end(running);
    });
}
