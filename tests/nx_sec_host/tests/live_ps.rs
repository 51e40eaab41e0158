//! `nx sec ps` of real sessions.

use nx_sec_host::{sec, sec_json};
use rustix::process::{Pid, Signal, kill_process};
use security_v2_host::{Running, as_everybody};

/// A program that says when it runs, and runs until it is ended.
const WAITS: [&str; 3] = ["/bin/sh", "-c", "echo begun; exec sleep 1000"];

#[test]
fn a_running_session_is_shown_and_one_that_ended_is_not() {
    as_everybody(|home| {
        let (before, said) = sec_json(home, &["ps"]);
        assert_eq!((said.code, before["sessions"].as_array().unwrap().len()), (Some(0), 0));
        assert_eq!(sec(home, &["ps"]).out, "no session runs\n");

        let mut running = Running::start(home, &[], &WAITS);
        assert_eq!(running.line(), "begun");
        let (value, said) = sec_json(home, &["ps"]);
        assert_eq!(said.code, Some(0), "{said}");
        let [session] = value["sessions"].as_array().unwrap().as_slice() else {
            panic!("{said}");
        };
        assert_eq!(
            (&session["subject"], &session["state"]),
            (&"demo".into(), &"running".into())
        );
        assert_eq!(session["front"], running.child.id());
        let program = &session["program"];
        // It says that it has begun before it becomes another program.
        assert!(["sh", "sleep"].contains(&program["name"].as_str().unwrap()), "{said}");
        assert_eq!(
            (&program["filtered"], &program["own_pid_namespace"]),
            (&true.into(), &true.into())
        );
        // What is told of its user is the kernel's word.
        let status = std::fs::read_to_string(format!("/proc/{}/status", program["pid"])).unwrap();
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:\t")).unwrap();
        assert_eq!(uid.split('\t').next().unwrap(), program["uid"].to_string());
        let text = sec(home, &["ps"]);
        assert!(text.out.contains(session["session"].as_str().unwrap()), "{text}");

        running.signal(Signal::TERM);
        let _ = running.end();
        let (after, said) = sec_json(home, &["ps"]);
        assert_eq!(after["sessions"].as_array().unwrap().len(), 0, "{said}");
    });
}

#[test]
fn a_killed_session_is_never_shown_as_running_and_its_entry_is_cleared_away() {
    as_everybody(|home| {
        let mut running = Running::start(home, &[], &WAITS);
        assert_eq!(running.line(), "begun");
        let (value, _) = sec_json(home, &["ps"]);
        let supervisor = value["sessions"][0]["supervisor"].as_i64().unwrap();
        let pid = Pid::from_raw(i32::try_from(supervisor).unwrap()).unwrap();
        // The first process too, which would clear it away: one after the other, before either can do anything about it.
        kill_process(pid, Signal::STOP).unwrap();
        running.signal(Signal::KILL);
        kill_process(pid, Signal::KILL).unwrap();
        let _ = running.end();
        let entries = home.state().join("nexus/run/sessions");
        // And other facts, where it was in the middle of exchanging them.
        assert!(
            std::fs::read_dir(&entries).unwrap().count() >= 2,
            "what a killed supervisor leaves: socket and facts"
        );
        // Its program has ended; its first process may take a moment more, and so long nothing is claimed.
        loop {
            let (value, said) = sec_json(home, &["ps"]);
            assert_eq!(value["sessions"].as_array().unwrap().len(), 0, "{said}");
            match value["troubles"].as_array().unwrap().as_slice() {
                [] => assert_eq!(said.code, Some(0), "{said}"),
                _ => {
                    assert_eq!(said.code, Some(4), "{said}");
                    continue;
                }
            }
            break;
        }
        assert_eq!(std::fs::read_dir(&entries).unwrap().count(), 0, "it is cleared away");
    });
}

/// Each command that would say that nobody runs, and what it must not say of a session of which nothing certain can be said.
fn in_doubt(home: &security_v2_host::Home, session: &str, why: &str) {
    for words in [
        &["ps"][..],
        &["policy", "show"],
        &["policy", "show", "--subject", "demo"],
        &["syscalls", "--subject", "demo"],
        &["sandbox", "--subject", "demo"],
        &["quotas", "--subject", "demo"],
        &["egress", "--subject", "demo"],
    ] {
        let said = sec(home, words);
        assert_eq!(said.code, Some(4), "{words:?}: {said}");
        assert!(said.out.contains("runs that can be vouched for"), "{words:?}: {said}");
        for claim in [
            "runs\n",
            "runs,",
            "no filter is loaded",
            "no view stands",
            "nothing is in force",
        ] {
            assert!(!said.out.contains(claim), "{claim}, {words:?}: {said}");
        }
        let line = said
            .out
            .lines()
            .find(|line| line.starts_with(&format!("session {session}: ")));
        assert!(line.is_some_and(|line| line.contains(why)), "{words:?}: {said}");
        let (value, said) = sec_json(home, words);
        assert_eq!((said.code, &value["ok"]), (Some(4), &false.into()), "{words:?}: {said}");
        assert_eq!(value["troubles"][0]["session"], session, "{words:?}: {said}");
        if let Some(view) = value["views"].get(0) {
            assert!(view["in_force"].is_null(), "{words:?}: {said}");
        }
    }
    // Nor is it counted as none.
    let (value, said) = sec_json(home, &["top"]);
    assert_eq!((said.code, &value["sessions_in_doubt"]), (Some(4), &1.into()), "{said}");
    let demo = value["subjects"]["demo"].as_object().unwrap();
    assert!(demo["sessions"].is_null() && !demo["denies"].is_null(), "{said}");
}

#[test]
fn a_session_without_its_supervisor_whose_front_is_stopped_is_in_doubt_while_its_program_lives() {
    as_everybody(|home| {
        let mut running = Running::start(home, &[], &WAITS);
        assert_eq!(running.line(), "begun");
        let (value, _) = sec_json(home, &["ps"]);
        let one = &value["sessions"][0];
        let pid = |name: &str| Pid::from_raw(i32::try_from(one[name].as_i64().unwrap()).unwrap()).unwrap();
        let session = one["session"].as_str().unwrap();
        running.signal(Signal::STOP);
        kill_process(pid("supervisor"), Signal::KILL).unwrap();
        // Until it is gone: it may not be waited for by who is stopped.
        let stat = format!("/proc/{}/stat", one["supervisor"]);
        while !std::fs::read_to_string(&stat).unwrap().contains(") Z ") {}
        let why = format!(
            "its supervisor has ended, and its first process (pid {}) lives on",
            one["init"]
        );
        in_doubt(home, session, &why);
        let said = sec(home, &["ps"]);
        let next = format!("`kill -CONT {}` lets it go on", one["front"]);
        assert!(said.out.contains(&next), "{said}");
        let entries = home.state().join("nexus/run/sessions");
        assert_eq!(std::fs::read_dir(&entries).unwrap().count(), 2, "nothing is removed");
        // The doubt was right: the program lives.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", one["program"]["pid"])).unwrap();
        assert!(stat.contains(") S ") || stat.contains(") R "), "{stat}");
        // The next step is one: who was stopped ends the session, and clears up.
        running.signal(Signal::CONT);
        let _ = running.end();
        let (value, said) = sec_json(home, &["ps"]);
        assert_eq!(
            (said.code, &value["troubles"]),
            (Some(0), &serde_json::json!([])),
            "{said}"
        );
        assert_eq!(std::fs::read_dir(&entries).unwrap().count(), 0, "{said}");
    });
}

#[test]
fn a_session_whose_socket_somebody_removes_is_in_doubt_until_it_ends() {
    as_everybody(|home| {
        let mut running = Running::start(home, &[], &WAITS);
        assert_eq!(running.line(), "begun");
        let (value, _) = sec_json(home, &["ps"]);
        let session = value["sessions"][0]["session"].as_str().unwrap();
        let entries = home.state().join("nexus/run/sessions");
        std::fs::remove_file(entries.join(session)).unwrap();
        in_doubt(home, session, "its socket is gone, its supervisor (pid ");
        let facts = entries.join(format!("{session}.json"));
        assert!(facts.exists());
        running.signal(Signal::TERM);
        let _ = running.end();
        let (value, said) = sec_json(home, &["ps"]);
        assert_eq!(
            (said.code, &value["troubles"]),
            (Some(0), &serde_json::json!([])),
            "{said}"
        );
        assert!(!facts.exists());
    });
}

#[test]
fn a_session_whose_entry_somebody_removes_runs_on() {
    // As soon as it has begun: its entry is not yet what it will be.
    const GOES_ON: [&str; 3] = ["/bin/sh", "-c", "echo begun; sleep 0.3; echo alive; exec sleep 1000"];
    as_everybody(|home| {
        let mut running = Running::start(home, &[], &GOES_ON);
        assert_eq!(running.line(), "begun");
        std::fs::remove_dir_all(home.state().join("nexus/run/sessions")).unwrap();
        assert_eq!(running.line(), "alive");
        running.signal(Signal::TERM);
        let _ = running.end();
    });
}
