//! Signals arrive once, and nothing that `nx` does in a program's place happens twice or keeps a signal out.

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::Signal;
use security_v2_host::{Home, Tree, eventually, spawn, users};
use std::io::{BufRead, BufReader, Lines};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, ChildStdout, Stdio};
use std::sync::Arc;

/// Runs a test in a home of everybody's own, and sees that nothing is left.
fn as_everybody(test: impl Fn(&Arc<Home>)) {
    for user in users() {
        eprintln!("as {user:?}");
        let home = Home::new(user);
        test(&home);
        home.becomes_empty();
        home.assert_nothing_left();
    }
}

/// A running `nx`, leader of a process group of its own.
struct Running {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    err: Lines<BufReader<ChildStderr>>,
}

impl Running {
    fn start(home: &Home, options: &[&str], program: &[&str]) -> Self {
        let mut command = home.command(home.nx());
        command
            .arg("run")
            .args(options)
            .args(["demo", "--"])
            .args(program)
            .process_group(0);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = spawn(&mut command).unwrap();
        let out = BufReader::new(child.stdout.take().unwrap()).lines();
        let err = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, out, err }
    }

    fn line(&mut self) -> String {
        self.out.next().expect("another line").unwrap()
    }

    /// Waits for a line on stderr.
    fn hears(&mut self, text: &str) {
        let heard = self.err.by_ref().map(Result::unwrap).find(|line| line.contains(text));
        assert!(heard.is_some(), "`{text}` does not come");
    }

    fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    fn signal_group(&self, signal: Signal) {
        rustix::process::kill_process_group(self.pid(), signal).unwrap();
    }

    /// What is left to print, and how it ended.
    fn end(mut self) -> (Vec<String>, Vec<String>, std::process::ExitStatus) {
        let err = std::thread::spawn(move || self.err.map(Result::unwrap).collect());
        let out = self.out.map(Result::unwrap).collect();
        (out, err.join().unwrap(), self.child.wait().unwrap())
    }
}

/// Prints each signal that it catches, at once; `USR2` ends it with how often each came.
const COUNTER: &str = r#"
use POSIX;
my %count;
for my $name (qw(INT QUIT HUP TERM USR1 CONT ALRM)) {
    # Not deferred, so that two are never taken for one.
    POSIX::sigaction(POSIX->can("SIG$name")->(), POSIX::SigAction->new(sub { $count{$name}++; syswrite STDOUT, "$name\n" }));
}
POSIX::sigaction(POSIX::SIGUSR2, POSIX::SigAction->new(sub {
    syswrite STDOUT, join(" ", map { "$_=$count{$_}" } sort keys %count) . "\n";
    POSIX::_exit(42);
}));
setpgrp if $ARGV[0] eq "own group";
syswrite STDOUT, "counting\n";
POSIX::pause() while 1;
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
            home.nx_stops(false);
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

/// A timer of 1 kHz whose handler counts, and without `SA_RESTART` interrupts.
const TIMER: &str = r#"
use POSIX;
our $ticks = 0;
my $flags = $ARGV[0] eq "restart" ? &POSIX::SA_RESTART : 0;
sub timer_only {
    # setitimer(ITIMER_REAL, {interval, first}, NULL), in microseconds
    syscall(38, 0, my $times = pack("q4", 0, $_[0], 0, $_[0]), 0);
}
sub timer {
    my $action = POSIX::SigAction->new(sub { $ticks++ }, POSIX::SigSet->new, $flags);
    POSIX::sigaction(POSIX::SIGALRM, $action);
    timer_only($_[0]);
}
$| = 1;
"#;

fn summary(lines: &[String]) -> serde_json::Value {
    let parsed = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    let mut summaries = parsed.filter(|value: &serde_json::Value| value["event"] == "summary");
    summaries.next_back().unwrap_or_else(|| panic!("no summary: {lines:?}"))
}

#[test]
fn a_denied_call_under_a_timer_is_denied_once_and_counted_once() {
    as_everybody(|home| {
        let program = format!(
            r#"{TIMER}
            my %got;
            timer(1000);
            # chroot("/")
            for (my $made = 0; $made < 3000 || $ticks < 300; $made++) {{
                $got{{syscall(161, my $root = "/") == -1 ? $! + 0 : "none"}}++;
            }}
            timer(0);
            print join(" ", map {{ "$_=$got{{$_}}" }} sort keys %got), "\n";
            "#
        );
        home.write_work("denied.pl", &program);
        for how in ["restart", "interrupt"] {
            let running = Running::start(home, &["--json"], &["perl", "denied.pl", how]);
            let (out, err, status) = running.end();
            assert_eq!(status.code(), Some(0), "{err:?}");
            let mut got: Vec<(&str, u64)> = out[0]
                .split(' ')
                .map(|pair| pair.split_once('=').unwrap())
                .map(|(errno, count)| (errno, count.parse().unwrap()))
                .collect();
            if how == "interrupt" {
                // A call that nobody had looked at yet when the signal came: it was not made.
                got.retain(|(errno, _)| *errno != "4");
            }
            let [("1", denied)] = got.as_slice() else {
                panic!("{how}: {out:?}")
            };
            assert_eq!(summary(&err)["denies"]["abi.deny_rule"], *denied, "{how}");
        }
    });
}

#[test]
fn sockets_made_under_a_timer_are_as_many_as_were_asked_for() {
    as_everybody(|home| {
        let program = format!(
            r#"{TIMER}
            sub open_now {{ opendir my $directory, "/proc/self/fd" or die; my @all = readdir $directory; scalar @all }}
            my $before = open_now();
            my (@made, $interrupted);
            timer(1000);
            while (@made < 1000) {{
                # socket(AF_INET, SOCK_STREAM, 0)
                my $fd = syscall(41, 2, 1, 0);
                if ($fd >= 0) {{ push @made, $fd }} elsif ($! == 4) {{ $interrupted++ }} else {{ die "$!" }}
            }}
            timer(0);
            print "opened ", open_now() - $before, "\n";
            POSIX::close($_) for @made;
            print "left ", open_now() - $before, "\n";
            print "interrupted\n" if $interrupted && $ARGV[0] eq "restart";
            "#
        );
        home.write_work("sockets.pl", &program);
        for how in ["restart", "interrupt"] {
            let (out, err, status) = Running::start(home, &["-q"], &["perl", "sockets.pl", how]).end();
            assert_eq!(status.code(), Some(0), "{err:?}");
            assert_eq!(out, ["opened 1000", "left 0"], "{how}");
        }
    });
}

/// A listener on this machine's loopback that has no room for another connection until somebody accepts.
struct Full {
    listener: OwnedFd,
    address: SocketAddr,
    fillers: std::cell::RefCell<Vec<OwnedFd>>,
}

impl Full {
    fn new() -> Self {
        let socket = || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap()
        };
        let listener = socket();
        rustix::net::bind(&listener, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let address = SocketAddr::try_from(rustix::net::getsockname(&listener).unwrap()).unwrap();
        // Over loopback a connection is made at once or not at all.
        let mut fillers = Vec::new();
        loop {
            let filler = socket();
            let _ = rustix::net::connect(&filler, &address);
            if rustix::net::getpeername(&filler).is_err() {
                break;
            }
            fillers.push(filler);
        }
        Self {
            listener,
            address,
            fillers: fillers.into(),
        }
    }

    /// The shipped tree with this one open door.
    fn tree(&self) -> Tree {
        let door = format!("[subject.demo]\nallow = [\"{}\"]\n", self.address);
        Tree::shipped().replace("egress.toml", &door)
    }

    /// Makes room, accepts what comes until `enough`, and then what else is there; how many came besides the fillers. They
    /// are closed then.
    fn accept(&self, mut enough: impl FnMut(usize) -> bool) -> usize {
        rustix::net::listen(&self.listener, 4096).unwrap();
        let mut accepted = Vec::new();
        let fillers = self.fillers.take();
        let besides = |accepted: &Vec<OwnedFd>| accepted.len().saturating_sub(fillers.len());
        eventually("connections come", || {
            accepted.extend(std::iter::from_fn(|| rustix::net::accept(&self.listener).ok()));
            enough(besides(&accepted))
        });
        accepted.extend(std::iter::from_fn(|| rustix::net::accept(&self.listener).ok()));
        besides(&accepted)
    }
}

/// Connects to its second argument, again after `EINTR`, and says how it went; a tenth of a second's worth of ticks is told.
const CONNECT: &str = r#"
use Socket;
my ($port) = $ARGV[1] =~ /:(\d+)$/;
socket my $socket, PF_INET, SOCK_STREAM, 0 or die;
my $name = pack_sockaddr_in($port, inet_aton("127.0.0.1"));
my $interrupted = 0;
$tell = 1;
timer(1000) if $ARGV[2] eq "timer";
print "connecting\n";
while (!connect $socket, $name) {
    if ($! == 4) { $interrupted++; next }
    last if $! == 106;
    print "error ", $! + 0, "\n"; exit 1;
}
timer(0);
sysread $socket, my $nothing, 1;
print "connected", $interrupted ? " after being interrupted" : "", "\n";
"#;

fn connector(home: &Home, full: &Full, how: &str, timer: &str) -> Running {
    // The handler says when the call has been called away often enough.
    let timer_words = TIMER.replace(
        "$ticks++ }",
        "$ticks++; syswrite STDERR, \"ticked\\n\" if $tell && $ticks == 100 }",
    );
    home.write_work(
        "connect.pl",
        &format!("our $tell;{timer_words}{CONNECT}").replace("SigAction->new(sub", "SigAction->new(sub"),
    );
    let address = full.address.to_string();
    full.tree().write(&home.policy()).unwrap();
    let policy = home.policy();
    let options = ["--policy", policy.to_str().unwrap(), "--json"];
    let mut running = Running::start(home, &options, &["perl", "connect.pl", how, &address, timer]);
    assert_eq!(running.line(), "connecting");
    running
}

#[test]
fn a_connect_that_waits_under_a_timer_happens_once_and_is_counted_once() {
    as_everybody(|home| {
        for (how, word) in [
            ("restart", "connected"),
            ("interrupt", "connected after being interrupted"),
        ] {
            let full = Full::new();
            let mut running = connector(home, &full, how, "timer");
            running.hears("ticked");
            assert_eq!(full.accept(|came| came > 0), 1);
            assert_eq!(running.line(), word);
            let (_, err, status) = running.end();
            assert_eq!(status.code(), Some(0));
            assert_eq!(full.accept(|_| true), 0);
            assert_eq!(summary(&err)["egress_allows"], 1, "{how}: {err:?}");
        }
    });
}

#[test]
fn a_connect_that_waits_gives_way_to_a_signal_and_ends_with_the_program() {
    as_everybody(|home| {
        // Caught without SA_RESTART: EINTR; the program tries again, and again a signal gets through.
        let full = Full::new();
        let mut running = connector(home, &full, "interrupt", "none");
        home.nx_waits();
        running.signal(Signal::TERM);
        let (_, _, status) = running.end();
        assert_eq!(status.code(), Some(143));
        // Nobody connects in its place any more.
        assert_eq!(full.accept(|_| true), 0);
        running = connector(home, &full, "interrupt", "none");
        running.signal(Signal::KILL);
        home.becomes_empty();
        assert_eq!(running.end().2.code(), None);
    });
}

#[test]
fn a_program_with_a_waiting_connect_stops_and_goes_on() {
    as_everybody(|home| {
        let full = Full::new();
        let mut running = connector(home, &full, "restart", "none");
        for _ in 0..3 {
            running.signal(Signal::TSTP);
            home.nx_stops(true);
            eventually("the program stops", || home.states("perl") == "T");
            running.signal_group(Signal::CONT);
            home.nx_stops(false);
        }
        assert_eq!(full.accept(|came| came > 0), 1);
        assert_eq!(running.line(), "connected");
        let (_, err, _) = running.end();
        assert_eq!(summary(&err)["egress_allows"], 1, "{err:?}");
    });
}

fn threads(home: &Home, full: &Full, count: usize) -> Running {
    full.tree().write(&home.policy()).unwrap();
    let policy = home.policy();
    let options = ["--policy", policy.to_str().unwrap(), "-q"];
    let (count, address) = (count.to_string(), full.address.to_string());
    let mut running = Running::start(home, &options, &["./probe", "connect-threads", &count, &address]);
    running.hears("connecting");
    running
}

#[test]
fn three_hundred_threads_connect_at_once() {
    as_everybody(|home| {
        let full = Full::new();
        let running = threads(home, &full, 300);
        let end = std::thread::spawn(move || running.end());
        let came = full.accept(|came| came >= 300 || end.is_finished());
        let (out, err, status) = end.join().unwrap();
        assert!(status.success() && out[0].ends_with(": 300 ok"), "{out:?} {err:?}");
        assert_eq!(came, 300);
    });
}

#[test]
fn many_threads_with_waiting_connects_stop_and_go_on_and_end() {
    as_everybody(|home| {
        let full = Full::new();
        let running = threads(home, &full, 20);
        for _ in 0..2 {
            running.signal(Signal::TSTP);
            home.nx_stops(true);
            eventually("all threads stop", || home.states("probe") == "T");
            running.signal_group(Signal::CONT);
            home.nx_stops(false);
        }
        let end = std::thread::spawn(move || running.end());
        let came = full.accept(|came| came >= 20 || end.is_finished());
        let (out, err, _) = end.join().unwrap();
        assert!(out[0].ends_with(": 20 ok"), "{out:?} {err:?}");
        assert_eq!(came, 20);

        let running = threads(home, &full, 20);
        running.signal(Signal::TERM);
        assert_eq!(running.end().2.code(), Some(143));
    });
}

#[test]
fn a_signal_for_one_of_many_waiting_threads_shows_no_thread_an_errno_that_is_none() {
    as_everybody(|home| {
        let program = r#"
import errno, signal, socket, sys, threading
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, sys.argv[2] == "interrupt")
ends = []
def connect():
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    try:
        with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
            # Until it was accepted and closed.
            connection.recv(1)
            ends.append("ok")
    except OSError as error:
        ends.append(errno.errorcode.get(error.errno, str(error.errno)))
threads = [threading.Thread(target=connect) for _ in range(8)]
if sys.argv[3] == "blocked":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
for thread in threads:
    thread.start()
print("connecting", flush=True)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
for thread in threads:
    thread.join()
print(*sorted(ends))
"#;
        home.write_work("threads.py", program);
        for how in ["restart", "interrupt"] {
            for main in ["blocked", "open"] {
                let full = Full::new();
                full.tree().write(&home.policy()).unwrap();
                let (policy, port) = (home.policy(), full.address.port().to_string());
                let options = ["--policy", policy.to_str().unwrap(), "-q"];
                let command = ["/usr/bin/python3", "threads.py", &port, how, main];
                let mut running = Running::start(home, &options, &command);
                assert_eq!(running.line(), "connecting");
                let end = std::thread::spawn(move || running.end());
                let came = full.accept(|came| came >= 8 || end.is_finished());
                let (out, err, _) = end.join().unwrap();
                assert_eq!(out, ["ok ok ok ok ok ok ok ok"], "{how} {main}: {err:?}");
                assert_eq!(came, 8, "{how} {main}");
            }
        }
    });
}

#[test]
fn a_unix_connect_that_waits_under_a_timer_happens_once() {
    as_everybody(|home| {
        let program = format!(
            r#"{TIMER}
            use Socket;
            use Fcntl;
            my $name = pack_sockaddr_un("/tmp/listener");
            socket my $listener, PF_UNIX, SOCK_STREAM, 0 or die;
            bind $listener, $name or die "bind $!";
            listen $listener, 0 or die "listen $!";
            my @fillers;
            while (1) {{
                socket my $filler, PF_UNIX, SOCK_STREAM, 0 or die;
                fcntl $filler, F_SETFL, O_NONBLOCK;
                last unless connect $filler, $name;
                push @fillers, $filler;
            }}
            pipe my $reader, my $writer;
            pipe my $done_reader, my $done_writer;
            if (!fork) {{
                close $writer; close $done_writer;
                sysread $reader, my $go, 1;
                my $processes = grep /^\d+$/, do {{ opendir my $all, "/proc"; readdir $all }};
                my $came = 0;
                fcntl $listener, F_SETFL, O_NONBLOCK;
                my @accepted;
                while ($came < @fillers + 1) {{ if (accept my $socket, $listener) {{ $came++; push @accepted, $socket }} else {{ select undef, undef, undef, 0.001 }} }}
                sysread $done_reader, $go, 1;
                $came++ while accept my $more, $listener;
                print "came ", $came - @fillers, "\n";
                print "processes ", $processes < 12 ? "few" : "many: $processes", "\n";
                POSIX::_exit(0);
            }}
            socket my $socket, PF_UNIX, SOCK_STREAM, 0 or die;
            my $told;
            POSIX::sigaction(POSIX::SIGALRM, POSIX::SigAction->new(sub {{
                $ticks++;
                syswrite $writer, "x" if $ticks == 100;
            }}, POSIX::SigSet->new, $flags));
            timer_only(1000);
            my $interrupted = 0;
            while (!connect $socket, $name) {{ if ($! == 4) {{ $interrupted++ }} else {{ print "error ", $! + 0, "\n"; last }} }}
            timer(0);
            print "connected\n";
            close $done_writer;
            close $done_reader;
            wait;
            "#
        );
        home.write_work("unix.pl", &program);
        for how in ["restart", "interrupt"] {
            let (mut out, err, status) = Running::start(
                home,
                &["-q"],
                &["sh", "-c", &format!("rm -f /tmp/listener; perl unix.pl {how}")],
            )
            .end();
            out.sort_unstable();
            assert_eq!(out, ["came 1", "connected", "processes few"], "{how}: {err:?}");
            assert!(status.success());
        }
    });
}
