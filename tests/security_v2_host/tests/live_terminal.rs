//! In a terminal, under a shell with job control, a program behaves under `nx` as if the shell had started it.

use security_v2_host::{Home, Key, PROMPT, Terminal, as_everybody, users};
use std::fs;

/// Runs a test as everybody, each in a home and a terminal of its own, and sees that nothing is left.
fn in_a_terminal(test: impl Fn(&Home, &mut Terminal)) {
    as_everybody(|home| {
        let mut terminal = Terminal::open(home);
        test(home, &mut terminal);
        terminal.line("exit");
        terminal.rest();
        terminal.wait();
    });
}

/// Prints each signal that it catches, at once, and what it reads; `USR2` ends it with how often each came.
const COUNTER: &str = r#"
use POSIX;
$| = 1;
my %count;
my $all = POSIX::SigSet->new;
$all->fillset;
for my $name (qw(INT QUIT TSTP WINCH HUP TERM USR1 CONT)) {
    my $number = POSIX->can("SIG$name") ? POSIX->can("SIG$name")->() : 28;
    # Not deferred, so that two are never taken for one, and one at a time: perl stands no handler inside another.
    POSIX::sigaction($number, POSIX::SigAction->new(sub { $count{$name}++; syswrite STDOUT, "<$name>\n" }, $all));
}
POSIX::sigaction(POSIX::SIGUSR2, POSIX::SigAction->new(sub {
    syswrite STDOUT, "counts " . join(" ", map { "$_=$count{$_}" } sort keys %count) . " end\n";
    POSIX::_exit(42);
}, $all));
# They come where it waits, and not in the middle of perl's own steps.
POSIX::sigprocmask(POSIX::SIG_BLOCK, $all);
syswrite STDOUT, "counting\n";
while ($ARGV[0] eq "deaf") {
    POSIX::sigsuspend(POSIX::SigSet->new);
}
my ($line, $got) = ("");
while (1) {
    POSIX::sigprocmask(POSIX::SIG_UNBLOCK, $all);
    $got = sysread STDIN, $line, 4096;
    POSIX::sigprocmask(POSIX::SIG_BLOCK, $all);
    next unless defined $got;
    last unless $got;
    syswrite STDOUT, "read $line";
}
syswrite STDOUT, "end of input\n";
"#;

/// Says when it was continued, and prints the line that it reads.
const STOPPER: &str = r#"
use POSIX;
POSIX::sigaction(POSIX::SIGCONT, POSIX::SigAction->new(sub { syswrite STDOUT, "<CONT>\n" }));
# It comes where it waits, and not in the middle of perl's own steps.
my $cont = POSIX::SigSet->new(POSIX::SIGCONT);
POSIX::sigprocmask(POSIX::SIG_BLOCK, $cont);
syswrite STDOUT, "go\n";
my ($line, $got) = ("");
do {
    POSIX::sigprocmask(POSIX::SIG_UNBLOCK, $cont);
    $got = sysread STDIN, $line, 4096;
    POSIX::sigprocmask(POSIX::SIG_BLOCK, $cont);
} until defined $got;
syswrite STDOUT, "got $line";
exit 5;
"#;

/// Starts the counter in the foreground, `deaf` to the terminal or not; returns nx's pid.
fn count(home: &Home, terminal: &mut Terminal, how: &str) -> i32 {
    home.write_work("counter.pl", COUNTER);
    terminal.line(&format!(
        "sh -c 'echo nxpid=$$; exec nx run -q demo -- perl counter.pl {how}'"
    ));
    let pid = terminal.number("nxpid=");
    terminal.see("counting");
    pid
}

/// Everything that was on its way to the program has arrived when this one has: signals are passed on in order.
fn counts(home: &Home, terminal: &mut Terminal, nx: i32) -> String {
    assert!(home.shell(&format!("kill -USR1 {nx}")).status.success());
    terminal.see("<USR1>");
    assert!(home.shell(&format!("kill -USR2 {nx}")).status.success());
    terminal.see("counts ");
    let counts = terminal.see(" end");
    assert_eq!(terminal.status(), 42);
    counts
}

#[test]
fn ctrl_c_ends_a_program_that_does_not_catch_it_with_130() {
    in_a_terminal(|_, terminal| {
        for program in ["sleep 1000", "cat"] {
            terminal.line(&format!("nx run -q demo -- sh -c 'echo go; exec {program}'"));
            terminal.see("go");
            terminal.press(Key::CtrlC);
            assert_eq!(terminal.status(), 130);
        }
    });
}

#[test]
fn ctrl_c_stops_the_shells_loop_around_the_program() {
    in_a_terminal(|home, terminal| {
        let turn = "for i in 1 2 3; do nx run -q demo -- sh -c \"echo round $i; exec sleep 1000\"; done";
        // A script's loop too: the shell that runs it asks how the program ended.
        home.write_work("loop.sh", turn);
        for command in [&format!("{turn}; echo behind"), "bash loop.sh; echo behind"] {
            terminal.line(command);
            terminal.see("round 1");
            terminal.press(Key::CtrlC);
            let shown = terminal.see("\x02[130]> ");
            assert!(!shown.contains("round") && !shown.contains("behind"), "{shown}");
        }
    });
}

#[test]
fn ctrl_c_reaches_a_program_that_catches_it_once_and_neither_it_nor_nx_ends() {
    in_a_terminal(|home, terminal| {
        let nx = count(home, terminal, "reading");
        for _ in 0..5 {
            terminal.press(Key::CtrlC);
            terminal.see("<INT>");
        }
        terminal.line("still here");
        terminal.see("read still here");
        assert_eq!(counts(home, terminal, nx), "INT=5 USR1=1");
    });
}

#[test]
fn ctrl_backslash_reaches_the_program_once_and_ends_one_that_does_not_catch_it_with_131() {
    in_a_terminal(|home, terminal| {
        let nx = count(home, terminal, "reading");
        terminal.press(Key::CtrlBackslash);
        terminal.see("<QUIT>");
        assert_eq!(counts(home, terminal, nx), "QUIT=1 USR1=1");
        terminal.line("nx run -q demo -- sh -c 'echo go; exec sleep 1000'");
        terminal.see("go");
        terminal.press(Key::CtrlBackslash);
        assert_eq!(terminal.status(), 131);
    });
}

#[test]
fn ctrl_z_stops_the_program_and_fg_continues_it_once() {
    in_a_terminal(|home, terminal| {
        home.write_work("stopper.pl", STOPPER);
        terminal.line("nx run -q demo -- perl stopper.pl");
        terminal.see("go");
        for _ in 0..3 {
            terminal.press(Key::CtrlZ);
            let shown = terminal.see("\x02[148]> ");
            assert!(shown.contains("Stopped") && !shown.contains("<CONT>"), "{shown}");
            terminal.line("jobs -s");
            terminal.see("Stopped");
            assert_eq!(terminal.status(), 0);
            terminal.line("fg");
            terminal.see("<CONT>");
            home.nx_waits();
        }
        terminal.line("a line");
        let shown = terminal.see("got a line");
        assert!(!shown.contains("<CONT>"), "{shown}");
        assert_eq!(terminal.status(), 5);
    });
}

#[test]
fn bg_lets_a_stopped_program_go_on_and_kill_ends_it() {
    in_a_terminal(|home, terminal| {
        let nx = count(home, terminal, "deaf");
        terminal.press(Key::CtrlZ);
        terminal.see("<TSTP>");
        assert!(home.shell(&format!("kill -STOP -{nx}")).status.success());
        assert_eq!(terminal.status(), 147);
        terminal.line("bg");
        terminal.see("<CONT>");
        terminal.line("jobs -r");
        terminal.see("Running");
        terminal.line("kill %1; wait %1");
        terminal.see("<TERM>");
        assert!(home.shell(&format!("kill -USR2 {nx}")).status.success());
        terminal.see("counts CONT=1 TERM=1 TSTP=1 end");
        terminal.see("\x02[42]> ");
    });
}

#[test]
fn a_program_that_catches_ctrl_z_and_stops_itself_is_a_stopped_job() {
    in_a_terminal(|home, terminal| {
        // As vi does: the terminal is put in order before the stop and taken again after it.
        let editor = r#"
            use POSIX;
            $| = 1;
            $SIG{TSTP} = sub {
                print "put in order\n";
                $SIG{TSTP} = "DEFAULT";
                POSIX::sigprocmask(POSIX::SIG_UNBLOCK, POSIX::SigSet->new(POSIX::SIGTSTP));
                kill "TSTP", $ARGV[0] eq "group" ? 0 : $$;
                print "taken again\n";
                POSIX::_exit(9);
            };
            # Kept back until it waits: perl runs a handler between two steps, so a signal that came between the last step
            # before a read and the read itself would wait for the read's end.
            my $kept = POSIX::SigSet->new(POSIX::SIGTSTP);
            POSIX::sigprocmask(POSIX::SIG_BLOCK, $kept);
            print "editing\n";
            while (1) { POSIX::sigsuspend(POSIX::SigSet->new) }
        "#;
        home.write_work("editor.pl", editor);
        for whom in ["self", "group"] {
            terminal.line(&format!("nx run -q demo -- perl editor.pl {whom}"));
            terminal.see("editing");
            terminal.press(Key::CtrlZ);
            terminal.see("put in order");
            terminal.see("Stopped");
            assert_eq!(terminal.status(), 148);
            terminal.line("fg");
            terminal.see("taken again");
            assert_eq!(terminal.status(), 9);
        }
    });
}

#[test]
fn a_stopped_program_that_is_killed_is_gone_for_the_shell_at_once() {
    in_a_terminal(|home, terminal| {
        home.write_work("stopper.pl", STOPPER);
        terminal.line("nx run -q demo -- perl stopper.pl");
        terminal.see("go");
        terminal.press(Key::CtrlZ);
        assert_eq!(terminal.status(), 148);
        // The program itself, not nx: as the kernel does that runs out of memory.
        home.signal("perl", rustix::process::Signal::KILL);
        home.nx_stops(false);
        terminal.line("wait %1");
        assert_eq!(terminal.status(), 137);
    });
}

#[test]
fn a_program_that_is_stopped_and_continued_from_inside_goes_on() {
    in_a_terminal(|home, terminal| {
        // No person types `fg`: the shell is a script's.
        let wait = "while ! grep -q ^State:.T /proc/$$/status; do :; done; kill -CONT $$";
        home.write_work(
            "script.sh",
            &format!("nx run -q demo -- sh -c '({wait}) & kill -STOP $$; echo going on; exit 8'"),
        );
        terminal.line("bash script.sh");
        terminal.see("going on");
        assert_eq!(terminal.status(), 8);
    });
}

#[test]
fn the_window_has_the_terminals_size_and_a_change_arrives_once() {
    in_a_terminal(|home, terminal| {
        terminal.resize(31, 97);
        terminal.line("nx run -q demo -- stty size");
        terminal.see("31 97");
        assert_eq!(terminal.status(), 0);
        let nx = count(home, terminal, "reading");
        terminal.resize(32, 98);
        terminal.see("<WINCH>");
        terminal.resize(33, 99);
        terminal.see("<WINCH>");
        assert_eq!(counts(home, terminal, nx), "USR1=1 WINCH=2");
        terminal.line("nx run -q demo -- stty size");
        terminal.see("33 99");
        assert_eq!(terminal.status(), 0);
    });
}

#[test]
fn closing_the_window_hangs_the_program_up_and_leaves_nothing() {
    for user in users() {
        for catches in [true, false] {
            let home = Home::new(user);
            let told = home.work().join("told");
            // What it says goes to a pipe: the terminal is gone by then.
            let trap = if catches {
                "trap \"trap : HUP; echo hung up >&2; exit 0\" HUP; "
            } else {
                ""
            };
            let inside = format!("{trap}echo go >/dev/tty; while :; do read -t 0.05 -r line </dev/null; done");
            home.write_work("reader.sh", &format!("trap '' HUP; exec cat >{}", told.display()));
            let mut terminal = Terminal::open(&home);
            terminal.line(&format!(
                "nx run -q demo -- bash -c '{inside}' 2>&1 >/dev/null | bash reader.sh"
            ));
            terminal.see("go");
            terminal.close();
            home.becomes_empty();
            let told = fs::read_to_string(told).unwrap();
            assert_eq!(told, if catches { "hung up\n" } else { "" });
        }
    }
}

#[test]
fn nx_as_the_terminals_own_session_leader_passes_the_hangup_on() {
    for user in users() {
        let home = Home::new(user);
        home.write_work(
            "leader.pl",
            "$SIG{HUP} = sub { exit 3 }; $| = 1; print \"go\\n\"; sleep 1 while 1",
        );
        let mut terminal = Terminal::of(&home, &["nx", "run", "-q", "demo", "--", "perl", "leader.pl"]);
        terminal.see("go");
        terminal.close();
        assert_eq!(terminal.wait().code(), Some(3));
        home.becomes_empty();
    }
}

#[test]
fn a_shell_inside_has_job_control_and_gives_the_terminal_back() {
    in_a_terminal(|home, terminal| {
        home.write_work("stopper.pl", STOPPER);
        home.write_work("inner", &format!("PS1='{PROMPT}'"));
        terminal.line("nx run -q demo -- bash --noprofile --noediting --rcfile inner -i");
        assert_eq!(terminal.status(), 0);
        terminal.line("perl stopper.pl");
        terminal.see("go");
        terminal.press(Key::CtrlZ);
        terminal.see("Stopped");
        assert_eq!(terminal.status(), 148);
        terminal.line("fg");
        terminal.see("<CONT>");
        terminal.press(Key::CtrlC);
        assert_eq!(terminal.status(), 130);
        // The inner shell itself stops, and comes back with the terminal.
        for _ in 0..2 {
            terminal.line("suspend");
            terminal.see("Stopped");
            assert_eq!(terminal.status(), 147);
            terminal.line("echo outside $(hostname)");
            assert!(!terminal.see("\x02[0]> ").contains("nexus"));
            terminal.line("fg");
            assert_eq!(terminal.status(), 0);
            terminal.line("echo inside $(hostname)");
            terminal.see("inside nexus");
            assert_eq!(terminal.status(), 0);
        }
        terminal.line("sh -c 'echo go; exec sleep 1000'");
        terminal.see("go");
        terminal.press(Key::CtrlC);
        assert_eq!(terminal.status(), 130);
        terminal.line("exit 7");
        assert_eq!(terminal.status(), 7);
        terminal.line("read -r line; echo read \"<$line>\"");
        terminal.line("from the terminal");
        terminal.see("read <from the terminal>");
        assert_eq!(terminal.status(), 0);
    });
}

#[test]
fn a_shell_inside_that_is_killed_leaves_the_terminal_to_the_outer_one() {
    in_a_terminal(|home, terminal| {
        home.write_work("inner", &format!("PS1='{PROMPT}'"));
        // No shell with job control stands around it, which would take the terminal back by itself.
        let inner = "nx run -q demo -- bash --noprofile --noediting --rcfile inner -i";
        terminal.line(&format!(
            "sh -c '{inner}; echo ended; read -r line; echo read \"<$line>\"'"
        ));
        assert_eq!(terminal.status(), 0);
        terminal.line("sh -c 'kill -KILL $PPID'");
        terminal.see("ended");
        terminal.line("from the terminal");
        terminal.see("read <from the terminal>");
        assert_eq!(terminal.status(), 0);
    });
}

#[test]
fn reading_the_terminal_from_the_background_stops_the_program_until_fg() {
    in_a_terminal(|home, terminal| {
        terminal.line("nx run -q demo -- sh -c 'read line; echo got $line' &");
        assert_eq!(terminal.status(), 0);
        home.nx_stops(true);
        terminal.line("jobs -s");
        terminal.see("Stopped");
        assert_eq!(terminal.status(), 0);
        terminal.line("fg");
        terminal.see("nx run");
        terminal.line("a line");
        terminal.see("got a line");
        assert_eq!(terminal.status(), 0);
    });
}

#[test]
fn a_pipeline_keeps_the_terminal_for_whoever_reads_it() {
    in_a_terminal(|_, terminal| {
        // As a pager does: the text from the pipe, the keys from the terminal, after nx has ended too.
        let pager = "cat; echo all; read -r key </dev/tty; echo pressed \"<$key>\"";
        for command in [
            format!("nx run -q demo -- echo text | bash -c '{pager}'"),
            format!("echo text | nx run -q demo -- bash -c '{pager}' | cat"),
            format!("echo text | nx run -q demo -- cat | nx run -q demo -- bash -c '{pager}'"),
        ] {
            terminal.line(&command);
            terminal.see("all");
            terminal.line("q");
            terminal.see("pressed <q>");
            assert_eq!(terminal.status(), 0);
        }
        // Ctrl-C ends the whole pipeline.
        terminal.line("nx run -q demo -- sh -c 'echo go >&2; exec sleep 1000' | cat");
        terminal.see("go");
        terminal.press(Key::CtrlC);
        assert_eq!(terminal.status(), 130);
    });
}

#[test]
fn ctrl_z_stops_a_whole_pipeline_with_nx_at_both_ends() {
    in_a_terminal(|home, terminal| {
        home.write_work("stopper.pl", &STOPPER.replace("STDOUT", "STDERR"));
        terminal.line("nx run -q demo -- perl stopper.pl | nx run -q demo -- cat");
        terminal.see("go");
        for _ in 0..3 {
            terminal.press(Key::CtrlZ);
            terminal.see("Stopped");
            assert_eq!(terminal.status(), 148);
            terminal.line("fg");
            terminal.see("<CONT>");
            home.nx_waits();
        }
        terminal.line("a line");
        terminal.see("got a line");
        assert_eq!(terminal.status(), 0);
    });
}

#[test]
fn end_of_input_and_raw_mode_work_as_without_nx() {
    in_a_terminal(|_, terminal| {
        terminal.line("nx run -q demo -- sh -c 'echo go; cat; echo cat ended'");
        terminal.see("go");
        terminal.line("copied");
        terminal.see("copied");
        terminal.press(Key::CtrlD);
        terminal.see("cat ended");
        assert_eq!(terminal.status(), 0);
        let raw = "saved=$(stty -g); stty raw; echo go; byte=$(head -c 1 | od -An -tu1); stty $saved; echo byte $byte";
        terminal.line(&format!("nx run -q demo -- sh -c '{raw}'"));
        terminal.see("go");
        terminal.press(Key::CtrlC);
        terminal.see("byte 3");
        assert_eq!(terminal.status(), 0);
    });
}

#[test]
fn ctrl_c_while_nx_still_starts_is_not_lost() {
    in_a_terminal(|_, terminal| {
        // The key meets ever other moments of the start.
        for _ in 0..40 {
            terminal.line("sh -c 'echo begin; exec nx run -q demo -- sleep 1000'");
            terminal.see("begin");
            terminal.press(Key::CtrlC);
            assert_eq!(terminal.status(), 130);
        }
    });
}

#[test]
fn a_terminal_that_the_program_stopped_and_locked_is_free_again_after_it() {
    in_a_terminal(|_, terminal| {
        // TCXONC with TCOOFF holds up what is printed, the summary too; TIOCEXCL keeps everybody from opening it.
        let hold = "ioctl STDOUT, 0x540c, 0; syswrite STDOUT, qq(held\\n); ioctl STDOUT, 0x540a, 0";
        terminal.line(&format!("nx run demo -- perl -e '{hold}'"));
        terminal.see("held");
        terminal.see("inodes");
        assert_eq!(terminal.status(), 0);
        terminal.line("echo again > /dev/tty");
        terminal.see("again");
        assert_eq!(terminal.status(), 0);
    });
}

#[test]
fn a_program_that_holds_up_the_terminal_holds_up_no_record_with_watch() {
    in_a_terminal(|home, terminal| {
        let hold = "ioctl STDOUT, 0x540a, 0; chroot qq(/) for 1..5; sleep 1000";
        terminal.line(&format!(
            "nx run --watch demo -- perl -e '$| = 1; print qq(go\\n); {hold}'"
        ));
        terminal.see("go");
        let recorded = || {
            fs::read_to_string(home.journal().join("journal.jsonl"))
                .unwrap_or_default()
                .matches("chroot(")
                .count()
        };
        let start = std::time::Instant::now();
        while recorded() < 5 {
            assert!(
                start.elapsed() < security_v2_host::DEADLINE,
                "only {} were recorded",
                recorded()
            );
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        terminal.press(Key::CtrlC);
        assert_eq!(terminal.status(), 130);
    });
}
