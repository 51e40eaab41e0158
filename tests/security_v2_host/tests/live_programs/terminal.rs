//! Programs that paint the terminal, on a pseudo-terminal that `script` gives them.

use crate::need::{has, place, room};
use security_v2_host::{Home, Run, User, users};

/// Types into `nx run` on a terminal and returns what it painted. The policy is written by a first, plain run.
fn typed(home: &std::sync::Arc<Home>, command: &str, keys: &str) -> String {
    let prepared = Run::at(home).policy(&room()).subject("room").args(["true"]).run();
    assert_eq!(prepared.code(), Some(0), "{prepared}");
    let nx = format!(
        "{} run --policy {} room -- {command}",
        home.nx().display(),
        home.policy().display()
    );
    // Keys are typed once the program has begun, as it may throw away what came before.
    let line = format!(
        "({keys}) | timeout 60 script -qec {} /dev/null",
        quoted(&format!("stty rows 24 cols 80; {nx}; echo status=$?"))
    );
    let mut shell = std::process::Command::new("bash");
    if let (User::Ordinary(id), true) = (home.user(), rustix::process::geteuid().is_root()) {
        shell = std::process::Command::new("setpriv");
        shell.args([
            format!("--reuid={id}"),
            format!("--regid={id}"),
            "--clear-groups".to_owned(),
            "bash".to_owned(),
        ]);
    }
    shell
        .args(["-c", &line])
        .current_dir(home.work())
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("TERM", "xterm");
    shell
        .env("HOME", home.home())
        .env("XDG_STATE_HOME", home.state())
        .env("LC_ALL", "C.UTF-8");
    let output = security_v2_host::output(&mut shell).expect("bash and script are there");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[test]
fn tmux_opens_a_window_runs_a_shell_in_it_and_ends() {
    if !has(&["tmux", "script"]) {
        return;
    }
    for user in users() {
        let home = place(user);
        let inside = "tty > /state/tty; stty size > /state/size; for i in 1 2 3; do echo painted-$i; done; sleep 0.5";
        let shown = typed(
            &home,
            &format!("tmux -f /dev/null new-session {}", quoted(inside)),
            "sleep 3",
        );
        assert!(shown.contains("painted-3") && shown.contains("status=0"), "{shown}");
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
    if !has(&["vi", "script"]) {
        return;
    }
    for user in users() {
        let home = place(user);
        let keys = r"sleep 2; printf 'ihello from vi\033'; sleep 0.5; printf 'yyp:wq\r'; sleep 2";
        let shown = typed(&home, "vi /state/edited", keys);
        assert!(shown.contains("status=0") && shown.contains("denied  0"), "{shown}");
        let done = crate::need::works_unhindered(&home, "cat /state/edited");
        assert_eq!(done.out(), "hello from vi\nhello from vi\n", "{done}");
    }
}

#[test]
fn the_terminal_is_the_programs_with_its_size_and_name() {
    if !has(&["script"]) {
        return;
    }
    for user in users() {
        let home = place(user);
        let shown = typed(
            &home,
            &quoted_bash(
                "stty size; echo by-name > /dev/tty; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo all-three; tput cols; read line; echo got-$line",
            ),
            "sleep 1; echo typed; sleep 1",
        );
        for part in ["24 80", "by-name", "all-three", "\n80\r", "got-typed", "status=0"] {
            assert!(shown.contains(part), "no `{part}` in {shown}");
        }
    }
}

fn quoted_bash(script: &str) -> String {
    format!("bash -c {}", quoted(script))
}
