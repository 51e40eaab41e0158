//! How a run ends: its status, what is left of it, and what happens when one of its processes is killed.

use rustix::process::Signal;
use security_v2_host::{DEADLINE, Home, Process, Run, as_everybody, eventually, spawn};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

/// `nx run ARGUMENTS…` with pipes.
fn nx(home: &Home, arguments: &[&str]) -> Command {
    let mut command = home.command(home.nx());
    command.arg("run").args(arguments);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// What a shell script that runs `nx` prints.
fn told(home: &Home, script: &str) -> String {
    let output = home.shell(script);
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn the_programs_status_is_nxs_status() {
    as_everybody(|home| {
        for code in [0, 1, 2, 3, 4, 6, 7, 42, 125, 126, 127, 128, 255] {
            let done = Run::at(home)
                .option("-q")
                .args(["sh", "-c", &format!("exit {code}")])
                .run();
            assert_eq!(done.code(), Some(code), "{done}");
            assert_eq!(done.err(), "", "{done}");
        }
    });
}

#[test]
fn a_signal_is_128_and_its_number_for_the_shell() {
    as_everybody(|home| {
        for signal in [
            "HUP", "INT", "QUIT", "ILL", "ABRT", "KILL", "SEGV", "PIPE", "ALRM", "TERM", "USR1", "RTMIN",
        ] {
            let program = format!("sh -c 'kill -{signal} $$'");
            let script = |nx: &str| format!("{{ {nx}{program}; echo $?; }} 2>/dev/null");
            let bare = told(home, &script(""));
            assert!(bare.len() == 4, "SIG{signal}: {bare}");
            assert_eq!(told(home, &script("nx run -q demo -- ")), bare, "SIG{signal}");
        }
    });
}

#[test]
fn what_cannot_be_executed_is_126_or_127_as_in_a_shell() {
    as_everybody(|home| {
        home.write_work("plain", "no program\n");
        let missing = Run::at(home).args(["no-such-program"]).run();
        assert_eq!(missing.code(), Some(127), "{missing}");
        assert!(missing.err().contains("cannot execute `no-such-program`"), "{missing}");
        for not_executable in ["./plain", "/usr"] {
            let done = Run::at(home).args([not_executable]).run();
            assert_eq!(done.code(), Some(126), "{done}");
        }
    });
}

/// The events of a run's `--status-fd`.
fn events(home: &Home, arguments: &str) -> Vec<serde_json::Value> {
    let text = told(
        home,
        &format!("nx run -q --status-fd 3 {arguments} 3>&1 >/dev/null 2>&1"),
    );
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[test]
fn status_fd_tells_nxs_own_failures_from_the_programs_codes() {
    as_everybody(|home| {
        for code in [3, 4, 6, 7, 126, 127] {
            let events = events(home, &format!("demo -- sh -c 'exit {code}'"));
            let [started, exited] = events.as_slice() else {
                panic!("{events:?}")
            };
            assert_eq!((&started["event"], &started["version"]), (&"started".into(), &1.into()));
            assert_eq!((&exited["event"], &exited["code"]), (&"exited".into(), &code.into()));
        }
        let events_of_signal = events(home, "demo -- sh -c 'kill -TERM $$'");
        assert_eq!(events_of_signal[1]["event"], "signaled");
        assert_eq!(events_of_signal[1]["signal"], 15);
        home.write_work("plain", "no program\n");
        let state = "XDG_STATE_HOME=/proc/no-such-place";
        for (arguments, exit) in [
            ("--work /no/such/directory demo -- true", 2),
            ("no-such-subject -- true", 3),
            ("demo -- ./plain", 126),
            ("demo -- no-such-program", 127),
        ] {
            let events = events(home, arguments);
            let [failed] = events.as_slice() else {
                panic!("{arguments}: {events:?}")
            };
            assert_eq!(
                (&failed["event"], &failed["exit"]),
                (&"failed".into(), &exit.into()),
                "{arguments}"
            );
        }
        let missing = told(
            home,
            &format!("{state} nx run -q --status-fd 3 demo -- true 3>&1 >/dev/null 2>&1"),
        );
        let missing: serde_json::Value = serde_json::from_str(&missing).unwrap();
        assert_eq!((&missing["event"], &missing["exit"]), (&"failed".into(), &4.into()));
    });
}

#[test]
fn a_status_fd_that_is_not_open_is_a_usage_error_and_nothing_runs() {
    as_everybody(|home| {
        let told = told(home, "nx run -q --status-fd 9 demo -- echo ran; echo $?");
        assert!(told.starts_with("2\n") && !told.contains("ran"), "{told}");
    });
}

#[test]
fn the_status_fd_is_closed_with_nx_and_is_not_the_programs() {
    as_everybody(|home| {
        // `cat` ends when the last writer has closed.
        let told = told(
            home,
            "nx run -q --status-fd 3 demo -- sh -c 'ls /proc/self/fd | tr \"\\n\" \" \"' 3>&1 >&2 | cat >/dev/null",
        );
        assert_eq!(told, "0 1 2 3 ", "3 is the directory that ls reads");
    });
}

#[test]
fn a_reader_that_has_enough_ends_the_pipeline() {
    as_everybody(|home| {
        let counted = |text: &str| text.to_owned() + "; echo ${PIPESTATUS[@]}";
        assert_eq!(told(home, &counted("nx run -q demo -- yes | head -1")), "y\n141 0\n");
        assert_eq!(told(home, &counted("yes | nx run -q demo -- head -1")), "y\n141 0\n");
        assert_eq!(
            told(home, &counted("nx run -q demo -- yes | nx run -q demo -- head -1")),
            "y\n141 0\n"
        );
        // The summary too may find nobody.
        assert_eq!(told(home, &counted("nx run demo -- yes 2>&1 | head -1")), "y\n141 0\n");
    });
}

#[test]
fn an_ignored_sigpipe_stays_ignored_and_a_default_one_default() {
    as_everybody(|home| {
        let writing = |nx: &str| format!("{nx} sh -c 'yes 2>/dev/null || exit 9' | head -1; echo ${{PIPESTATUS[0]}}");
        // It ends by the signal, which its shell makes a status; or it hears the error.
        for ignoring in ["", "trap '' PIPE HUP; "] {
            for program in
                [&writing, &|nx: &str| format!("{nx} grep SigIgn /proc/self/status")] as [&dyn Fn(&str) -> String; 2]
            {
                let bare = told(home, &format!("{ignoring}{}", program("")));
                assert_eq!(told(home, &format!("{ignoring}{}", program("nx run -q demo --"))), bare);
            }
        }
    });
}

#[test]
fn an_ignored_sigchld_does_not_lose_the_programs_end() {
    as_everybody(|home| {
        let ignoring = "perl -e '$SIG{CHLD} = \"IGNORE\"; exec @ARGV'";
        let nx = "nx run -q demo --";
        assert_eq!(told(home, &format!("{ignoring} {nx} sh -c 'exit 6'; echo $?")), "6\n");
        let status = "grep SigIgn /proc/self/status";
        assert_eq!(
            told(home, &format!("{ignoring} {nx} {status}")),
            told(home, &format!("{ignoring} {status}"))
        );
    });
}

#[test]
fn blocked_signals_stay_blocked_and_no_other_is() {
    as_everybody(|home| {
        let blocking = "perl -MPOSIX -e 'sigprocmask(SIG_BLOCK, POSIX::SigSet->new(SIGUSR1)); exec @ARGV'";
        let status = "nx run -q demo -- grep SigBlk /proc/self/status";
        assert_eq!(
            told(home, &format!("{blocking} {status}")),
            "SigBlk:\t0000000000000200\n"
        );
        assert_eq!(told(home, status), "SigBlk:\t0000000000000000\n");
    });
}

#[test]
fn pipes_and_files_are_shared_as_without_nx() {
    as_everybody(|home| {
        home.write_work("file", "abcdefgh");
        assert_eq!(
            told(home, "echo text | nx run -q demo -- cat | nx run -q demo -- tr a-z A-Z"),
            "TEXT\n"
        );
        // One open file has one offset, whoever reads.
        assert_eq!(
            told(home, "{ nx run -q demo -- dd bs=1 count=3 status=none; cat; } <file"),
            "abcdefgh"
        );
        assert_eq!(
            told(
                home,
                "{ nx run -q demo -- dd bs=1 count=3 status=none >/dev/null; cat; } <file"
            ),
            "defgh"
        );
        let log = home.state().join("log");
        let script = format!(
            "{{ echo before; nx run -q demo -- echo inside; echo after; }} >{0}; cat {0}",
            log.display()
        );
        assert_eq!(told(home, &script), "before\ninside\nafter\n");
    });
}

#[test]
fn the_summary_comes_after_the_programs_last_word_and_quiet_says_nothing() {
    as_everybody(|home| {
        let program = "sh -c 'chroot / true 2>/dev/null; echo last word >&2; exit 3'";
        let loud = told(home, &format!("nx run demo -- {program} 2>&1; echo $?"));
        let (first, rest) = loud.split_once('\n').unwrap();
        assert_eq!(first, "last word");
        assert!(
            rest.starts_with("nx: demo · session ") && rest.contains("chroot") && rest.ends_with("\n3\n"),
            "{loud}"
        );
        assert_eq!(
            told(home, &format!("nx run --quiet demo -- {program} 2>&1; echo $?")),
            "last word\n3\n"
        );
    });
}

#[test]
fn json_is_one_object_a_line_and_watch_tells_before_the_program_ends() {
    as_everybody(|home| {
        for json in [false, true] {
            let mut arguments = vec!["--watch"];
            arguments.extend(json.then_some("--json"));
            // It waits for a word after the deny, which comes only after the deny was told.
            arguments.extend([
                "demo",
                "--",
                "sh",
                "-c",
                "chroot / true 2>/dev/null; read word; chroot /tmp true 2>/dev/null; exit 4",
            ]);
            let mut child = spawn(nx(home, &arguments).stdin(Stdio::piped())).unwrap();
            let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
            let denied = lines.by_ref().find(|line| line.contains("chroot")).unwrap();
            assert!(child.try_wait().unwrap().is_none());
            drop(child.stdin.take());
            let rest: Vec<String> = lines.collect();
            assert_eq!(child.wait().unwrap().code(), Some(4));
            if json {
                let parse = |line: &String| serde_json::from_str::<serde_json::Value>(line).unwrap();
                let denied = parse(&denied);
                assert_eq!(
                    (&denied["event"], &denied["reason"]),
                    (&"record".into(), &"abi.deny_rule".into())
                );
                let rest: Vec<_> = rest.iter().map(parse).collect();
                let [second, summary] = rest.as_slice() else {
                    panic!("{rest:?}")
                };
                assert_eq!(
                    (&second["event"], &summary["event"]),
                    (&"record".into(), &"summary".into())
                );
                assert_eq!(summary["denies"]["abi.deny_rule"], 2, "{summary}");
            } else {
                assert!(denied.starts_with("nx: denied with EPERM: "), "{denied}");
                assert!(
                    rest[0].starts_with("nx: denied with EPERM: ") && rest[1].starts_with("nx: demo · "),
                    "{rest:?}"
                );
            }
        }
    });
}

#[test]
fn what_the_program_leaves_behind_ends_with_it() {
    as_everybody(|home| {
        for leaving in [
            "sleep 1000 & exit 5",
            "(sleep 1000 & sleep 1000 &) ; exit 5",
            // Daemons: own sessions, deaf to everything, orphaned twice.
            "setsid sh -c \"trap '' HUP TERM INT; (sleep 1000; sleep 1000) & (setsid sleep 1000 &)\" & exit 5",
            "sleep 1000 & kill -STOP $!; exit 5",
        ] {
            let done = Run::at(home).option("-q").args(["bash", "-c", leaving]).run();
            assert_eq!(done.code(), Some(5), "{leaving}: {done}");
            let left: Vec<Process> = home
                .processes()
                .into_iter()
                .filter(|left| !left.name.starts_with("nx"))
                .collect();
            assert!(left.is_empty(), "{leaving}: {left:?}");
        }
    });
}

#[test]
fn whoever_holds_the_pipe_is_gone_when_nx_is() {
    as_everybody(|home| {
        // Without nx `cat` would wait for the daemon for ever.
        assert_eq!(
            told(home, "nx run -q demo -- bash -c 'setsid sleep 1000 & echo said' | cat"),
            "said\n"
        );
    });
}

#[test]
fn a_fork_bomb_meets_the_limit_and_ends_with_its_session() {
    as_everybody(|home| {
        let bomb = "perl -e 'my $made = 0; while (1) { my $pid = fork; if (!defined $pid) { print \"refused \", $made > 100 ? \"late\" : \"early\", \"\\n\"; exit 7 } if (!$pid) { sleep 1000; exit } $made++ }'";
        assert_eq!(
            told(home, &format!("nx run -q demo -- {bomb}; echo $?")),
            "refused late\n7\n"
        );
        // It grows while the loop runs, which forks nothing: at the limit a fork of the shell's own would end it.
        let bomb = "bomb() { bomb | bomb & }; bomb 2>/dev/null; for ((i = 0; i < 300000; i++)); do :; done; exit 8";
        let run = Run::at(home).option("-q").args(["bash", "-c", bomb]);
        // The loop shares the processors with all of them.
        let done = run.deadline(DEADLINE * 4).run();
        assert_eq!(done.code(), Some(8), "{done}");
    });
}

/// A program that runs until it is ended, and says what it has written so far.
fn endless(home: &Home, options: &[&str]) -> (Child, i32) {
    let mut arguments = options.to_vec();
    arguments.extend([
        "demo",
        "--",
        "sh",
        "-c",
        "chroot / true 2>/dev/null; echo kept > /state/kept; sleep 1000 & echo go; wait",
    ]);
    let mut child = spawn(&mut nx(home, &arguments)).unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "go\n");
    let pid = i32::try_from(child.id()).unwrap();
    (child, pid)
}

/// The program is gone, the journal is whole, and the next run works.
fn next_run_works(home: &Arc<Home>) {
    eventually("the sandboxed processes end", || {
        home.processes().iter().all(|process| process.name.starts_with("nx"))
    });
    home.becomes_empty();
    home.assert_nothing_left();
    let done = Run::at(home).args(["sh", "-c", "cat /state/kept; chroot / true"]).run();
    assert_eq!(done.out(), "kept\n", "{done}");
    assert_eq!(done.records_for("abi.deny_rule").len(), 1, "{done}");
    home.assert_nothing_left();
}

#[test]
fn nx_killed_takes_the_program_along_and_leaves_everything_whole() {
    as_everybody(|home| {
        let (mut child, _) = endless(home, &["-q"]);
        child.kill().unwrap();
        child.wait().unwrap();
        next_run_works(home);
    });
}

#[test]
fn nx_killed_while_it_starts_leaves_nothing() {
    as_everybody(|home| {
        for _ in 0..30 {
            // Gone at ever other moments of the start.
            let mut child = spawn(&mut nx(home, &["-q", "demo", "--", "sleep", "1000"])).unwrap();
            eventually("it has begun", || home.processes().len() > 1);
            child.kill().unwrap();
            child.wait().unwrap();
        }
        home.becomes_empty();
    });
}

#[test]
fn the_supervisor_killed_ends_the_program_and_nx_says_so() {
    as_everybody(|home| {
        let (mut child, _) = endless(home, &["-q"]);
        home.signal("nx-supervisor", Signal::KILL);
        assert_eq!(child.wait().unwrap().code(), Some(7));
        next_run_works(home);
    });
}

#[test]
fn init_killed_ends_the_program_and_nx_says_so() {
    as_everybody(|home| {
        let (mut child, nx) = endless(home, &["-q"]);
        let inits = home
            .processes()
            .into_iter()
            .filter(|process| process.name == "nx" && process.pid.as_raw_nonzero().get() != nx);
        let inits: Vec<Process> = inits.collect();
        let [init] = inits.as_slice() else { panic!("{inits:?}") };
        rustix::process::kill_process(init.pid, Signal::KILL).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(7));
        next_run_works(home);
    });
}

#[test]
fn the_file_server_killed_ends_the_program_and_nx_says_so() {
    as_everybody(|home| {
        let (child, _) = endless(home, &["-q"]);
        home.signal("nx-vfsd", Signal::KILL);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(7), "{output:?}");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains("file server"), "{told}");
        eventually("the sandboxed processes end", || home.processes().is_empty());
        let done = Run::at(home).args(["sh", "-c", "chroot / true"]).run();
        assert_eq!(done.records_for("abi.deny_rule").len(), 1, "{done}");
    });
}

#[test]
fn all_processes_of_a_session_killed_at_once_leave_nothing_mounted_and_the_next_run_works() {
    as_everybody(|home| {
        let (mut child, _) = endless(home, &["-q"]);
        for process in home.processes() {
            let _ = rustix::process::kill_process(process.pid, Signal::KILL);
        }
        child.wait().unwrap();
        home.becomes_empty();
        home.assert_nothing_left();
        let done = Run::at(home).args(["sh", "-c", "chroot / true"]).run();
        assert_eq!(done.records_for("abi.deny_rule").len(), 1, "{done}");
    });
}
