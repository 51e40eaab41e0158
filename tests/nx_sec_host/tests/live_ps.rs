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
        assert_eq!(
            std::fs::read_dir(&entries).unwrap().count(),
            2,
            "what a killed supervisor leaves: socket and facts"
        );
        let (value, said) = sec_json(home, &["ps"]);
        assert_eq!(value["sessions"].as_array().unwrap().len(), 0, "{said}");
        assert_eq!(said.code, Some(0), "{said}");
        assert_eq!(std::fs::read_dir(&entries).unwrap().count(), 0, "it is cleared away");
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
