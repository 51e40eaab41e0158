//! What the running sessions say of themselves.

use nx_sec_host::{sec, sec_json};
use rustix::process::{Pid, Signal, kill_process};
use security_v2_host::{Home, Running, Tree, User, as_everybody};
use serde_json::Value;
use std::os::unix::fs::FileTypeExt;
use std::time::{Duration, Instant};

/// A program that says when it runs, and runs until it is ended.
const WAITS: [&str; 3] = ["/bin/sh", "-c", "echo begun; exec sleep 1000"];

/// The named commands that speak of a subject.
const ABOUT: [&str; 4] = ["syscalls", "sandbox", "quotas", "egress"];

/// Longer than a command takes that waits two seconds for somebody, however busy the machine; what it prints says how long it
/// waited.
const PATIENT: Duration = Duration::from_secs(30);

fn start(home: &Home, options: &[&str]) -> Running {
    let mut running = Running::start(home, options, &WAITS);
    assert_eq!(running.line(), "begun");
    running
}

fn end(running: Running) {
    running.signal(Signal::TERM);
    let _ = running.end();
}

fn pid(value: &Value) -> Pid {
    Pid::from_raw(i32::try_from(value.as_i64().unwrap()).unwrap()).unwrap()
}

/// The only view's answer.
fn answer(home: &Home, words: &[&str]) -> Value {
    let (value, said) = sec_json(home, words);
    assert_eq!(value["views"].as_array().unwrap().len(), 1, "{said}");
    value["views"][0]["answer"].clone()
}

#[test]
fn every_command_speaks_of_what_runs_and_says_so() {
    as_everybody(|home| {
        let running = start(home, &[]);
        for name in ABOUT {
            let (value, said) = sec_json(home, &[name, "--subject", "demo"]);
            assert_eq!(said.code, Some(0), "{name}: {said}");
            assert_eq!(value["views"][0]["in_force"], true, "{name}: {said}");
            let text = sec(home, &[name, "--subject", "demo"]);
            assert_eq!(text.code, Some(0), "{name}: {text}");
            assert!(text.out.contains("\nin force     "), "{name}: {text}");
            assert!(!text.out.contains('\u{1b}'), "colour only on a terminal: {text}");
        }
        let (value, said) = sec_json(home, &["policy", "show"]);
        assert_eq!(
            (said.code, &value["views"][0]["source"]),
            (Some(0), &"session".into()),
            "{said}"
        );
        end(running);
    });
}

#[test]
fn without_a_session_what_would_be_in_force_is_unsupported_and_policy_is_named_policy() {
    as_everybody(|home| {
        for (name, code) in ABOUT.into_iter().zip([6, 6, 0, 0]) {
            let (value, said) = sec_json(home, &[name, "--subject", "demo"]);
            assert_eq!(said.code, Some(code), "{name}: {said}");
            assert_eq!(value["views"][0]["in_force"], false, "{name}: {said}");
            let text = sec(home, &[name, "--subject", "demo"]);
            assert!(
                text.out.contains("in force     unsupported: no session"),
                "{name}: {text}"
            );
        }
        let syscalls = answer(home, &["syscalls", "--subject", "demo"]);
        assert_eq!(syscalls["filter"], Value::Null, "no filter is made up");
        let (quotas, said) = sec_json(home, &["quotas", "--subject", "demo"]);
        assert_eq!(quotas["usage"]["source"], "unsupported", "{said}");
        assert_eq!(
            answer(home, &["egress", "--subject", "demo"])["open_names"],
            Value::Null
        );
        let policy = sec(home, &["policy", "show"]);
        assert!(
            policy
                .out
                .starts_with("not in force the built-in policy: no session runs\n"),
            "{policy}"
        );
    });
}

#[test]
fn an_unknown_subject_and_a_dead_session_are_told_with_the_next_step() {
    as_everybody(|home| {
        let running = start(home, &[]);
        for name in ABOUT {
            let said = sec(home, &[name, "--subject", "nobody"]);
            assert_eq!(said.code, Some(3), "{said}");
            assert!(
                said.err.contains("declares no subject `nobody`") && said.err.contains("subjects that can run: demo"),
                "{said}"
            );
            let said = sec(home, &[name, "--subject", "demo", "--session", "000000000000"]);
            assert_eq!(said.code, Some(4), "{said}");
            assert!(
                said.err.contains("no session `000000000000` of `demo` runs") && said.err.contains("nx sec ps"),
                "{said}"
            );
        }
        let (value, said) = sec_json(home, &["egress", "--subject", "a\u{1b}[2Jb"]);
        assert_eq!((said.code, &value["ok"]), (Some(3), &false.into()), "{said}");
        let said = sec(home, &["egress", "--subject", "a\u{1b}[2J\nb"]);
        assert!(
            !said.err.contains('\u{1b}'),
            "a name does not speak to the terminal: {said}"
        );
        end(running);
    });
}

#[test]
fn what_is_used_is_the_live_ledgers_word() {
    as_everybody(|home| {
        let program = [
            "/bin/sh",
            "-c",
            "head -c 10000 /dev/zero > /state/f; echo begun; exec sleep 1000",
        ];
        let mut running = Running::start(home, &[], &program);
        assert_eq!(running.line(), "begun");
        let (value, said) = sec_json(home, &["quotas", "--subject", "demo"]);
        assert_eq!(value["usage"]["source"], "ledger", "{said}");
        let state = &value["usage"]["areas"][1];
        assert_eq!(
            (&state["area"], &state["used_bytes"]),
            (&"state".into(), &12288.into()),
            "{said}"
        );
        end(running);
        let (value, said) = sec_json(home, &["quotas", "--subject", "demo"]);
        assert_eq!(value["usage"]["source"], "unsupported", "{said}");
        assert_eq!(value["usage"]["areas"], Value::Null, "{said}");
    });
}

#[test]
fn a_file_server_whose_socket_somebody_removed_is_not_said_to_be_gone_while_a_session_runs() {
    as_everybody(|home| {
        let running = start(home, &[]);
        let run = home.state().join("nexus/run");
        let sockets: Vec<_> = std::fs::read_dir(&run)
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_type().unwrap().is_socket())
            .collect();
        assert_eq!(sockets.len(), 1, "the file server's");
        std::fs::remove_file(sockets[0].path()).unwrap();
        let said = sec(home, &["quotas", "--subject", "demo"]);
        assert_eq!(said.code, Some(4), "{said}");
        assert!(
            said.out
                .contains("unknown: a session runs, so somebody keeps its ledger"),
            "{said}"
        );
        assert!(!said.out.contains("nobody keeps"), "{said}");
        let (value, said) = sec_json(home, &["quotas", "--subject", "demo"]);
        assert_eq!((said.code, &value["ok"]), (Some(4), &false.into()), "{said}");
        end(running);
    });
}

#[test]
fn looking_keeps_no_file_server_alive_and_charges_nothing() {
    as_everybody(|home| {
        let running = start(home, &[]);
        let before = sec_json(home, &["quotas", "--subject", "demo"]).0;
        for _ in 0..20 {
            assert_eq!(
                sec_json(home, &["quotas", "--subject", "demo"]).0["usage"],
                before["usage"]
            );
        }
        end(running);
        home.assert_nothing_left();
    });
}

#[test]
fn a_stopped_supervisor_is_told_within_two_seconds_and_never_passed_over() {
    as_everybody(|home| {
        let (first, second) = (start(home, &[]), start(home, &[]));
        let (value, _) = sec_json(home, &["ps"]);
        let sessions = value["sessions"].as_array().unwrap();
        assert_eq!(sessions.len(), 2);
        let stopped = pid(&sessions[0]["supervisor"]);
        kill_process(stopped, Signal::STOP).unwrap();
        let (value, said) = sec_json(home, &["ps"]);
        assert_eq!(said.code, Some(0));
        assert_eq!(value["sessions"][0]["state"], "supervisor-stopped", "{said}");
        for name in ABOUT {
            let began = Instant::now();
            let (value, said) = sec_json(home, &[name, "--subject", "demo"]);
            assert!(began.elapsed() < PATIENT, "{name}: {:?}", began.elapsed());
            assert_eq!((said.code, &value["ok"]), (Some(4), &false.into()), "{name}: {said}");
            let views = value["views"].as_array().unwrap();
            assert_eq!(views.len(), 2, "{name}: {said}");
            assert!(
                views[0]["why_not"]
                    .as_str()
                    .unwrap()
                    .contains("does not answer within 2 s"),
                "{name}: {said}"
            );
            assert!(views[1]["answer"].is_object(), "the other speaks: {said}");
        }
        // Of two under the same policy the one that speaks is asked.
        assert_eq!(sec(home, &["policy", "show"]).code, Some(0));
        kill_process(stopped, Signal::CONT).unwrap();
        end(first);
        end(second);
    });
}

#[test]
fn a_stopped_file_server_is_told_within_two_seconds_and_no_figure_is_made_up() {
    as_everybody(|home| {
        let running = start(home, &[]);
        let server = home
            .processes()
            .into_iter()
            .find(|process| process.name == "nx-vfsd")
            .or_else(|| server(home))
            .expect("a file server");
        kill_process(server.pid, Signal::STOP).unwrap();
        let began = Instant::now();
        let (value, said) = sec_json(home, &["quotas", "--subject", "demo"]);
        let took = began.elapsed();
        kill_process(server.pid, Signal::CONT).unwrap();
        assert!(took < PATIENT, "{took:?}");
        // What is known is said, and that it is not all.
        assert_eq!((said.code, &value["ok"]), (Some(4), &false.into()), "{said}");
        assert_eq!(value["usage"]["source"], "unsupported", "{said}");
        assert!(
            value["usage"]["why"]
                .as_str()
                .unwrap()
                .contains("does not say within 2 s"),
            "{said}"
        );
        assert!(
            value["views"][0]["answer"]["areas"].is_array(),
            "the budgets are there: {said}"
        );
        end(running);
    });
}

/// The file server, by what it is called.
fn server(home: &Home) -> Option<security_v2_host::Process> {
    home.processes()
        .into_iter()
        .find(|process| process.name.contains("vfsd"))
}

/// Whether root here is what `PTRACE_SECCOMP_GET_FILTER` asks for, ptrace(2): `CAP_SYS_ADMIN` in the first user namespace, under
/// no filter of its own. In a container it is not; it is told why like anybody else.
fn may_read_filters_back() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let effective = u64::from_str_radix(&field("CapEff:"), 16).unwrap();
    let maps = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    let first = maps.split_whitespace().eq(["0", "0", "4294967295"]);
    // CAP_SYS_ADMIN, linux/capability.h
    effective & 1 << 21 != 0 && field("Seccomp:") == "0" && first
}

#[test]
fn the_filter_in_the_kernel_is_the_one_that_was_loaded_and_who_may_not_ask_is_told_why() {
    as_everybody(|home| {
        let running = start(home, &[]);
        let (value, said) = sec_json(home, &["syscalls", "--subject", "demo", "--read-back"]);
        let source = &value["views"][0]["source"];
        let session = &source["sessions"][0];
        assert_eq!(session["filter_on"], true, "{said}");
        if home.user() == User::Root && may_read_filters_back() {
            assert_eq!(said.code, Some(0), "{said}");
            assert_eq!(source["source"], "kernel", "{said}");
            assert_eq!(session["same_in_kernel"], true, "{said}");
        } else {
            assert_eq!((said.code, &value["ok"]), (Some(6), &false.into()), "{said}");
            assert_eq!(source["source"], "installer", "{said}");
            let text = sec(home, &["syscalls", "--subject", "demo", "--read-back"]);
            assert_eq!(text.code, Some(6), "{text}");
            assert!(
                text.out
                    .contains("reading the kernel's filter back is unsupported: that needs root"),
                "{text}"
            );
            assert!(session["why"].as_str().unwrap().contains("needs root"), "{said}");
        }
        // It was not ended by it, nor is it stopped.
        let (value, said) = sec_json(home, &["ps"]);
        assert_eq!(value["sessions"][0]["state"], "running", "{said}");
        end(running);
    });
}

#[test]
fn what_is_shown_is_what_runs_and_not_what_the_tree_says_by_now() {
    as_everybody(|home| {
        let tree = Tree::shipped();
        tree.write(&home.policy()).unwrap();
        let policy = home.policy();
        let named = ["--policy", policy.to_str().unwrap()];
        let running = start(home, &named);
        let before = answer(home, &["syscalls", "--subject", "demo"]);
        let wider = tree.append("abi.toml", "[subject.demo]\nallow = [\"ustat\"]\n");
        wider.write(&home.policy()).unwrap();
        let after = answer(home, &["syscalls", "--subject", "demo", named[0], named[1]]);
        assert_eq!(before, after, "the session is under what it began with");
        end(running);
        let (value, said) = sec_json(home, &["syscalls", "--subject", "demo", named[0], named[1]]);
        let allowed = value["views"][0]["answer"]["allowed"].as_array().unwrap();
        assert!(allowed.contains(&"ustat".into()), "{said}");
        assert_eq!(value["views"][0]["in_force"], false, "{said}");
    });
}

#[test]
fn unmetered_work_is_named_as_such() {
    as_everybody(|home| {
        let tree = Tree::shipped().edit("sandbox.toml", "\nwork = \"ro\"", "\nwork = \"unmetered\"");
        let tree = tree.edit(
            "sandbox.toml",
            "work_protect = [\".git/hooks\", \".git/config\"]",
            "work_protect = []",
        );
        tree.write(&home.policy()).unwrap();
        let policy = home.policy();
        let running = start(home, &["--policy", policy.to_str().unwrap()]);
        let open = answer(home, &["sandbox", "--subject", "demo"])["open"].to_string();
        assert!(
            open.contains("may be written, and nobody counts how much (unmetered)"),
            "{open}"
        );
        end(running);
        let running = start(home, &[]);
        let open = answer(home, &["sandbox", "--subject", "demo"])["open"].to_string();
        assert!(!open.contains("unmetered"), "{open}");
        end(running);
    });
}
