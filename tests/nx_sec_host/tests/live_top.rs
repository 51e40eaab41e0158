//! `nx sec top` in a real terminal.

use nx_sec_host::sec;
use rustix::process::{Pid, Signal, kill_process};
use security_v2_host::{Home, Key, Run, Terminal, as_everybody, eventually};

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
