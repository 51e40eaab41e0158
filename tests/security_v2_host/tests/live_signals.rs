//! Signals reach the program once, whether they are sent to `nx` alone or to its whole process group.

use rustix::process::Signal;
use security_v2_host::{Home, Running, as_everybody, eventually};
use std::os::unix::process::ExitStatusExt;

/// Prints each signal that it catches, at once; `USR2` ends it with how often each came.
const COUNTER: &str = r#"
use POSIX;
my %count;
# Signals come at one point only, one at a time, and not deferred, so that two are never taken for one.
my $all = POSIX::SigSet->new;
$all->fillset;
POSIX::sigprocmask(POSIX::SIG_BLOCK, $all);
for my $name (qw(INT QUIT HUP TERM USR1 CONT ALRM)) {
    my $counting = sub { $count{$name}++; syswrite STDOUT, "$name\n" };
    POSIX::sigaction(POSIX->can("SIG$name")->(), POSIX::SigAction->new($counting, $all));
}
POSIX::sigaction(POSIX::SIGUSR2, POSIX::SigAction->new(sub {
    syswrite STDOUT, join(" ", map { "$_=$count{$_}" } sort keys %count) . "\n";
    POSIX::_exit(42);
}, $all));
setpgrp if $ARGV[0] eq "own group";
syswrite STDOUT, "counting\n";
POSIX::sigsuspend(POSIX::SigSet->new) while 1;
"#;

fn count(home: &Home, how: &str) -> Running {
    home.write_work("counter.pl", COUNTER);
    let mut running = Running::start(home, &["-q"], &["perl", "counter.pl", how]);
    assert_eq!(running.line(), "counting");
    running
}

/// Everything that was on its way has arrived when this has: signals are passed on in order.
fn counts(mut running: Running) -> String {
    running.signal(Signal::ALARM);
    assert_eq!(running.line(), "ALRM");
    running.signal(Signal::USR2);
    let counts = running.line();
    assert_eq!(running.child.wait().unwrap().code(), Some(42));
    counts
}

#[test]
fn a_signal_to_nx_alone_reaches_the_program_once() {
    as_everybody(|home| {
        for how in ["same group", "own group"] {
            let mut running = count(home, how);
            for _ in 0..20 {
                for (signal, name) in [
                    (Signal::TERM, "TERM"),
                    (Signal::USR1, "USR1"),
                    (Signal::HUP, "HUP"),
                    (Signal::INT, "INT"),
                    (Signal::CONT, "CONT"),
                ] {
                    running.signal(signal);
                    assert_eq!(running.line(), name);
                }
            }
            assert_eq!(counts(running), "ALRM=1 CONT=20 HUP=20 INT=20 TERM=20 USR1=20");
        }
    });
}

#[test]
fn a_signal_to_the_whole_group_reaches_the_program_once() {
    as_everybody(|home| {
        for how in ["same group", "own group"] {
            let mut running = count(home, how);
            // The next one is sent the moment that the program has the last, while nx still handles it.
            for _ in 0..200 {
                running.signal_group(Signal::USR1);
                assert_eq!(running.line(), "USR1");
            }
            if how == "same group" {
                assert_eq!(counts(running), "ALRM=1 USR1=200");
            } else {
                // Only nx is in the group: it passes each on, and two that came at once are one, as everywhere.
                assert!(counts(running).starts_with("ALRM=1 USR1="));
            }
        }
    });
}

#[test]
fn signals_to_nx_alone_and_to_the_group_are_told_apart() {
    as_everybody(|home| {
        let mut running = count(home, "same group");
        for round in 0..100 {
            if round % 2 == 0 {
                running.signal(Signal::USR1);
            } else {
                running.signal_group(Signal::USR1);
            }
            assert_eq!(running.line(), "USR1");
            // Two of one kind that meet at nx are one, as everywhere; so the next waits until nx has done with this one.
            running.signal(Signal::HUP);
            assert_eq!(running.line(), "HUP");
        }
        assert_eq!(counts(running), "ALRM=1 HUP=100 USR1=100");
    });
}

#[test]
fn the_group_stops_and_continues_as_one() {
    as_everybody(|home| {
        let mut running = count(home, "same group");
        for _ in 0..5 {
            running.signal_group(Signal::STOP);
            home.nx_stops(true);
            eventually("the program stops", || home.states("perl") == "T");
            running.signal_group(Signal::CONT);
            assert_eq!(running.line(), "CONT");
            home.nx_waits();
        }
        assert_eq!(counts(running), "ALRM=1 CONT=5");
    });
}

#[test]
fn a_program_that_does_not_catch_a_signal_ends_by_it_with_nx_and_without() {
    as_everybody(|home| {
        for (signal, code) in [
            (Signal::TERM, 143),
            (Signal::HUP, 129),
            (Signal::USR1, 138),
            (Signal::ALARM, 142),
        ] {
            for group in [false, true] {
                let mut running = Running::start(home, &["-q"], &["sh", "-c", "echo go; exec sleep 1000"]);
                assert_eq!(running.line(), "go");
                if group {
                    running.signal_group(signal)
                } else {
                    running.signal(signal)
                }
                assert_eq!(running.end().2.code(), Some(code));
            }
        }
    });
}

#[test]
fn a_signal_before_the_program_begins_ends_the_run_too() {
    as_everybody(|home| {
        for round in 0..40 {
            let running = Running::start(home, &["-q"], &["sleep", "1000"]);
            eventually("it has begun", || home.processes().len() > 1);
            if round % 2 == 0 {
                running.signal(Signal::TERM)
            } else {
                running.signal_group(Signal::TERM)
            }
            // Before nx has taken its signals over, one ends it as it ends any program.
            let status = running.end().2;
            assert!(status.code() == Some(143) || status.signal() == Some(15), "{status}");
        }
    });
}
