//! `nx sec top` in a real terminal.

use nx_sec_host::{sec, sec_json};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use security_v2_host::{Home, Key, Run, Running, Terminal, as_everybody, eventually};

/// xterm's sequences for the other screen and the one before.
const ENTERED: &str = "\x1b[?1049h";
const LEFT: &str = "\x1b[?1049l";

/// A shell in a terminal of this size, and the terminal's settings as `stty -g` says them.
fn shell(home: &Home, rows: u16, columns: u16) -> (Terminal, String) {
    let mut terminal = Terminal::open(home);
    terminal.resize(rows, columns);
    let settings = settings(&mut terminal);
    (terminal, settings)
}

fn settings(terminal: &mut Terminal) -> String {
    terminal.line("echo \"<$(stty -g)>\"");
    terminal.see("<");
    let settings = terminal.see(">");
    assert_eq!(terminal.status(), 0);
    settings
}

/// Starts the view, and gives its pid once it has drawn.
fn start(terminal: &mut Terminal) -> Pid {
    terminal.line("TERM=xterm bash -c 'echo pid=$$; exec nx sec top'");
    let pid = terminal.number("pid=");
    terminal.see(ENTERED);
    terminal.see("SUBJECT");
    Pid::from_raw(pid).unwrap()
}

#[test]
fn a_deny_shows_while_the_view_is_open_and_q_and_ctrl_c_give_the_terminal_back() {
    as_everybody(|home| {
        let _ = Run::at(home).args(["true"]).run();
        for key in ["q", "\x03"] {
            let (mut terminal, before) = shell(home, 24, 80);
            let _ = start(&mut terminal);
            let done = Run::at(home).bash("exec 3<>/dev/tcp/192.0.2.77/443").run();
            assert_eq!(done.records_for("egress.no_rule").len(), 1);
            terminal.see("192.0.2.77:443");
            terminal.types(key);
            terminal.see(LEFT);
            assert_eq!(terminal.status(), 0);
            assert_eq!(settings(&mut terminal), before);
        }
    });
}

#[test]
fn every_signal_that_ends_it_gives_the_terminal_back_first() {
    as_everybody(|home| {
        for (signal, number) in [
            (Signal::TERM, 15),
            (Signal::INT, 2),
            (Signal::HUP, 1),
            (Signal::QUIT, 3),
            (Signal::ABORT, 6),
            (Signal::USR1, 10),
            (Signal::ALARM, 14),
        ] {
            let (mut terminal, before) = shell(home, 24, 80);
            let pid = start(&mut terminal);
            kill_process(pid, signal).unwrap();
            terminal.see(LEFT);
            assert_eq!(terminal.status(), 128 + number);
            assert_eq!(settings(&mut terminal), before);
        }
    });
}

/// The process that gives the terminal back where the view cannot.
fn guardian(view: Pid) -> Pid {
    let pid = view.as_raw_nonzero();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let [guardian] = children.split_whitespace().collect::<Vec<_>>()[..] else {
        panic!("{children}")
    };
    Pid::from_raw(guardian.parse().unwrap()).unwrap()
}

#[test]
fn a_view_that_is_killed_or_fails_leaves_the_terminal_as_it_was_all_the_same() {
    as_everybody(|home| {
        // The second one as by a fault of its own.
        for signal in [Signal::KILL, Signal::FPE] {
            // A shell without job control sets nothing right itself.
            let (mut terminal, before) = shell(home, 24, 80);
            terminal.line(
                "TERM=xterm bash -c '(echo pid=$BASHPID; exec nx sec top); echo ended=$?; read; echo \"<$(stty -g)>\"'",
            );
            let view = Pid::from_raw(terminal.number("pid=")).unwrap();
            terminal.see("SUBJECT");
            let guardian = guardian(view);
            kill_process(view, signal).unwrap();
            terminal.see(LEFT);
            terminal.types("\n");
            terminal.see("<");
            assert_eq!(terminal.see(">"), before);
            assert_eq!(terminal.status(), 0);
            eventually("nobody is left", || {
                rustix::process::test_kill_process(guardian).is_err()
            });
        }
        // The whole job at once.
        let (mut terminal, before) = shell(home, 24, 80);
        let view = start(&mut terminal);
        kill_process_group(view, Signal::KILL).unwrap();
        terminal.see(LEFT);
        let _ = terminal.status();
        assert_eq!(settings(&mut terminal), before);
    });
}

#[test]
fn a_stop_that_nobody_can_be_asked_about_is_mended_when_it_goes_on() {
    as_everybody(|home| {
        let (mut terminal, before) = shell(home, 24, 80);
        let view = start(&mut terminal);
        kill_process(view, Signal::STOP).unwrap();
        assert_eq!(terminal.status(), 128 + 19);
        assert_eq!(settings(&mut terminal), before, "by the shell");
        terminal.line("fg");
        terminal.see(ENTERED);
        terminal.see("SUBJECT");
        terminal.types("q");
        terminal.see(LEFT);
        assert_eq!(terminal.status(), 0);
        assert_eq!(settings(&mut terminal), before);
        // Somebody who stops the one that watches holds nothing up.
        let view = start(&mut terminal);
        kill_process(guardian(view), Signal::STOP).unwrap();
        terminal.types("q");
        terminal.see(LEFT);
        assert_eq!(terminal.status(), 0);
        assert_eq!(settings(&mut terminal), before);
    });
}

#[test]
fn what_cannot_be_read_is_unknown_and_never_nothing() {
    as_everybody(|home| {
        let look = || sec_json(home, &["top"]);
        let (value, said) = look();
        assert_eq!((said.code, &value["ok"]), (Some(0), &true.into()), "{said}");
        assert_eq!(value["journal"]["state"], "absent", "{said}");
        let mut running = Running::start(home, &[], &["/bin/bash", "-c", "echo begun; exec sleep 1000"]);
        assert_eq!(running.line(), "begun");
        let denied = Run::at(home).bash("exec 3<>/dev/tcp/192.0.2.77/443").run();
        assert_eq!(denied.records_for("egress.no_rule").len(), 1);
        let (value, said) = look();
        assert_eq!((said.code, &value["ok"]), (Some(0), &true.into()), "{said}");
        let demo = &value["subjects"]["demo"];
        assert_eq!(
            (&demo["sessions"], &demo["denies"]["egress"]),
            (&1.into(), &1.into()),
            "{said}"
        );
        assert_eq!(demo["usage"]["source"], "ledger", "{said}");
        assert_eq!(value["journal"]["state"], "read", "{said}");
        let objects = value["journal"]["records"].as_array().unwrap();
        assert!(
            objects.iter().any(|record| record["object"] == "tcp 192.0.2.77:443"),
            "{said}"
        );
        // The counters and the journal, each put away and back again; a directory in its place stops root as well.
        let nexus = home.state().join("nexus");
        for (name, in_its_place, words) in [
            ("journal/counters", true, "counts unknown: "),
            (
                "journal/counters",
                false,
                "the counter file has nothing of 1 of the subjects",
            ),
            ("journal/journal.jsonl", true, ""),
            ("journal", false, "there is no journal, and something runs"),
        ] {
            let (path, away) = (nexus.join(name), nexus.join("away"));
            std::fs::rename(&path, &away).unwrap();
            if in_its_place {
                std::fs::create_dir(&path).unwrap();
            }
            let (value, said) = look();
            if in_its_place {
                std::fs::remove_dir(&path).unwrap();
            }
            std::fs::rename(&away, &path).unwrap();
            assert_eq!((said.code, &value["ok"]), (Some(4), &false.into()), "{name}: {said}");
            assert!(said.out.contains(words), "{name}: {said}");
            if name == "journal/counters" {
                assert!(value["subjects"]["demo"]["denies"].is_null(), "{name}: {said}");
                assert_eq!(value["journal"]["state"], "read", "{name}: {said}");
            } else {
                assert_eq!(value["journal"]["state"], "unknown", "{name}: {said}");
                assert!(value["journal"]["why"].is_string(), "{name}: {said}");
            }
        }
        // And so on the screen.
        let counters = nexus.join("journal/counters");
        std::fs::rename(&counters, nexus.join("away")).unwrap();
        let (mut terminal, _) = shell(home, 24, 80);
        terminal.line("TERM=xterm nx sec top");
        terminal.see("counts unknown");
        terminal.see("?");
        terminal.types("q");
        assert_eq!(terminal.status(), 0);
        std::fs::rename(nexus.join("away"), &counters).unwrap();
        running.signal(Signal::TERM);
        let _ = running.end();
    });
}

#[test]
fn counters_that_say_less_than_the_journal_are_unknown_and_never_zero() {
    as_everybody(|home| {
        let counters = home.state().join("nexus/journal/counters");
        let lose = || {
            std::fs::remove_file(&counters).unwrap();
            let _ = Run::at(home).args(["true"]).run();
        };
        let deny = || {
            let done = Run::at(home).bash("exec 3<>/dev/tcp/192.0.2.77/443").run();
            assert_eq!(done.records_for("egress.no_rule").len(), 1);
        };
        let _ = Run::at(home).args(["true"]).run();
        // Nothing is lost where nothing was denied: that zero is one.
        lose();
        let (value, said) = sec_json(home, &["top"]);
        assert_eq!((said.code, &value["ok"]), (Some(0), &true.into()), "{said}");
        assert_eq!(value["subjects"]["demo"]["denies"]["egress"], 0, "{said}");
        // What a view read while it was open is held against the counters as well.
        let (mut terminal, _) = shell(home, 24, 80);
        let _ = start(&mut terminal);
        deny();
        terminal.see("192.0.2.77:443");
        lose();
        terminal.see("counts unknown: the counter file says less than the journal of 1");
        terminal.types("q");
        terminal.see(LEFT);
        assert_eq!(terminal.status(), 0);
        let (value, said) = sec_json(home, &["top"]);
        assert_eq!((said.code, &value["ok"]), (Some(4), &false.into()), "{said}");
        assert!(value["subjects"]["demo"]["denies"].is_null(), "{said}");
        let troubles = value["troubles"].as_array().unwrap();
        assert_eq!(troubles.len(), 1, "{said}");
        assert!(
            troubles[0]
                .as_str()
                .unwrap()
                .contains("says less than the journal of 1 of the subjects")
        );
        // Where the file has nothing at all, the subject is told of all the same.
        std::fs::remove_file(&counters).unwrap();
        let (value, said) = sec_json(home, &["top"]);
        assert_eq!(said.code, Some(4), "{said}");
        assert!(
            value["subjects"]["demo"].as_object().unwrap()["denies"].is_null(),
            "{said}"
        );
        // And without a journal nobody says that nothing was denied.
        std::fs::remove_dir_all(home.state().join("nexus/journal")).unwrap();
        let (value, said) = sec_json(home, &["top"]);
        assert_eq!(
            (said.code, &value["journal"]["state"]),
            (Some(4), &"unknown".into()),
            "{said}"
        );
    });
}

#[test]
fn a_stopped_view_leaves_the_terminal_to_the_shell_and_comes_back_with_fg() {
    as_everybody(|home| {
        let (mut terminal, before) = shell(home, 24, 80);
        let pid = start(&mut terminal);
        terminal.press(Key::CtrlZ);
        terminal.see(LEFT);
        assert_eq!(
            terminal.status(),
            128 + 20 - 1,
            "bash says 128 and the number of SIGSTOP"
        );
        assert_eq!(settings(&mut terminal), before);
        terminal.line("fg");
        terminal.see(ENTERED);
        terminal.see("SUBJECT");
        // The same by a signal from elsewhere, which stops the view too and not only asks it.
        kill_process(pid, Signal::TSTP).unwrap();
        terminal.see(LEFT);
        let _ = terminal.status();
        assert_eq!(settings(&mut terminal), before);
        terminal.line("fg");
        terminal.see("SUBJECT");
        terminal.types("q");
        terminal.see(LEFT);
        assert_eq!(terminal.status(), 0);
        assert_eq!(settings(&mut terminal), before);
    });
}

#[test]
fn it_draws_anew_at_every_size() {
    as_everybody(|home| {
        let _ = Run::at(home).args(["true"]).run();
        let (mut terminal, _) = shell(home, 24, 80);
        let _ = start(&mut terminal);
        for (rows, columns) in [(10, 40), (50, 160), (3, 20), (24, 80)] {
            terminal.resize(rows, columns);
            // A view of another size is cleared and drawn whole.
            terminal.see("top");
        }
        for (rows, columns) in [(1, 1), (2, 300), (24, 80)] {
            terminal.resize(rows, columns);
        }
        terminal.see("SUBJECT");
        terminal.types("q");
        terminal.see(LEFT);
        assert_eq!(terminal.status(), 0);
    });
}

#[test]
fn a_terminal_that_is_closed_ends_it() {
    as_everybody(|home| {
        let (mut terminal, _) = shell(home, 24, 80);
        let pid = start(&mut terminal);
        terminal.close();
        let gone = || rustix::process::test_kill_process(pid).is_err();
        eventually("the view ends", gone);
    });
}

#[test]
fn without_a_terminal_it_says_what_to_call_instead() {
    as_everybody(|home| {
        let said = sec(home, &["top"]);
        assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{said}");
        assert!(
            said.err.contains("needs a terminal") && said.err.contains("nx sec audit --follow"),
            "{said}"
        );
    });
}
