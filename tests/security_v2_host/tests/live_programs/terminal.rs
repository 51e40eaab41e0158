//! Programs that paint the terminal.

use crate::need::{has, place, room};
use security_v2_host::{Home, Run, Terminal, users};

/// A terminal in which a shell has been told to run this in `nx run`. The policy is written by a first, plain run.
fn painted_by(home: &std::sync::Arc<Home>, command: &str) -> Terminal {
    let prepared = Run::at(home).policy(&room()).subject("room").args(["true"]).run();
    assert_eq!(prepared.code(), Some(0), "{prepared}");
    let mut terminal = Terminal::open(home);
    terminal.resize(24, 80);
    terminal.line(&format!(
        "TERM=xterm LC_ALL=C.UTF-8 nx run --policy {} room -- {command}",
        home.policy().display()
    ));
    terminal
}

/// What shows until the shell's next prompt; the program must succeed. The terminal is closed then.
fn rest(mut terminal: Terminal) -> String {
    let shown = terminal.see("\x02[");
    assert_eq!(terminal.see("]> "), "0", "{shown}");
    shown
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[test]
fn tmux_opens_a_window_runs_a_shell_in_it_and_ends() {
    if !has(&["tmux"]) {
        return;
    }
    for user in users() {
        let home = place(user);
        let inside = "tty > /state/tty; stty size > /state/size; for i in 1 2 3; do echo painted-$i; done; read line";
        let mut terminal = painted_by(&home, &format!("tmux -f /dev/null new-session {}", quoted(inside)));
        terminal.see("painted-3");
        terminal.line("");
        let shown = rest(terminal);
        // A helper of tmux tells the system's log that it could not write who is logged in. There is no such log.
        assert!(
            shown
                .lines()
                .filter(|line| line.contains(" × "))
                .all(|line| line.contains("socket(0x1, 0x80002, ")),
            "{shown}"
        );
        let done = crate::need::works_unhindered(&home, "cat /state/tty /state/size");
        // The last line of the window is tmux's own.
        assert_eq!(done.out(), "/dev/pts/0\n23 80\n", "{done}");
        home.assert_nothing_left();
    }
}

#[test]
fn vi_edits_a_file() {
    if !has(&["vi"]) {
        return;
    }
    for user in users() {
        let home = place(user);
        let mut terminal = painted_by(&home, "vi /state/edited");
        // It may throw away what is typed before it has painted.
        terminal.see("/state/edited");
        terminal.types("ihello from vi\x1b");
        terminal.see("hello from vi");
        terminal.types("yyp");
        terminal.see("hello from vi");
        terminal.types(":wq\r");
        let shown = rest(terminal);
        assert!(shown.contains("denied  0"), "{shown}");
        let done = crate::need::works_unhindered(&home, "cat /state/edited");
        assert_eq!(done.out(), "hello from vi\nhello from vi\n", "{done}");
    }
}

#[test]
fn the_terminal_is_the_programs_with_its_size_and_name() {
    for user in users() {
        let home = place(user);
        let mut terminal = painted_by(
            &home,
            &quoted_bash(
                "stty size; echo by-name > /dev/tty; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo all-three; tput cols; read line; echo got-$line",
            ),
        );
        for part in ["24 80\r\n", "by-name\r\n", "all-three\r\n", "80\r\n"] {
            assert_eq!(terminal.see(part), "");
        }
        terminal.line("typed");
        terminal.see("got-typed");
        rest(terminal);
    }
}

fn quoted_bash(script: &str) -> String {
    format!("bash -c {}", quoted(script))
}
