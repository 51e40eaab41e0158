//! Nothing that `nx` does in a program's place happens twice or keeps a signal out, under a timer of 1 kHz too.

use rustix::process::Signal;
use security_v2_host::{FullServer, Home, Running, as_everybody, attacker, copy_program, eventually, need};

/// Starts the attacker, whose `ticking` calls a timer of 1 kHz interrupts.
fn attack(home: &Home, options: &[&str], words: &[&str]) -> Running {
    let path = home.work().join("attacker");
    if !path.exists() {
        copy_program(attacker(), &path).unwrap();
    }
    Running::start(home, options, &[&["./attacker"], words].concat())
}

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
        for how in ["restart", "interrupt"] {
            let (out, err, status) = attack(home, &["--json"], &["ticking-denied", how]).end();
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
        for how in ["restart", "interrupt"] {
            let (out, err, status) = attack(home, &["-q"], &["ticking-sockets", how]).end();
            assert_eq!(status.code(), Some(0), "{err:?}");
            assert_eq!(out, ["opened 1000", "left 0"], "{how}");
        }
    });
}

fn connector(home: &Home, full: &FullServer, how: &str, timer: &str) -> Running {
    let address = full.address.to_string();
    full.tree().write(&home.policy()).unwrap();
    let policy = home.policy();
    let options = ["--policy", policy.to_str().unwrap(), "--json"];
    let mut running = attack(home, &options, &["ticking-connect", how, &address, timer]);
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
            let full = FullServer::start();
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
        let full = FullServer::start();
        let mut running = connector(home, &full, "interrupt", "none");
        home.nx_waits();
        running.signal(Signal::TERM);
        let (_, _, status) = running.end();
        assert_eq!(status.code(), Some(143));
        // Nobody connects in its place any more.
        assert_eq!(full.accept(|_| true), 0);
        // The queue of that one has room now.
        let full = FullServer::start();
        running = connector(home, &full, "interrupt", "none");
        home.nx_waits();
        running.signal(Signal::KILL);
        home.becomes_empty();
        assert_eq!(running.end().2.code(), None);
        assert_eq!(full.accept(|_| true), 0);
    });
}

#[test]
fn a_program_with_a_waiting_connect_stops_and_goes_on() {
    as_everybody(|home| {
        let full = FullServer::start();
        let mut running = connector(home, &full, "restart", "none");
        for _ in 0..3 {
            running.signal(Signal::TSTP);
            home.nx_stops(true);
            eventually("the program stops", || home.states("attacker") == "T");
            running.signal_group(Signal::CONT);
            home.nx_waits();
        }
        assert_eq!(full.accept(|came| came > 0), 1);
        assert_eq!(running.line(), "connected");
        let (_, err, _) = running.end();
        assert_eq!(summary(&err)["egress_allows"], 1, "{err:?}");
    });
}

fn threads(home: &Home, full: &FullServer, count: usize) -> Running {
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
        let full = FullServer::start();
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
        let full = FullServer::start();
        let running = threads(home, &full, 20);
        for _ in 0..2 {
            running.signal(Signal::TSTP);
            home.nx_stops(true);
            eventually("all threads stop", || home.states("probe") == "T");
            running.signal_group(Signal::CONT);
            home.nx_waits();
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
    if !need(&["/usr/bin/python3"]) {
        return;
    }
    as_everybody(|home| {
        let program = r#"
import errno, os, signal, socket, sys, threading
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
        # A call that a signal stops before the supervisor has seen it ends with EINTR where handlers ask for that, and has
        # not begun; without a session a connect would go on by itself, and making a socket waits for nobody. The number
        # that came shows that it did not.
        if error.errno in (errno.EINTR, errno.ENOTCONN) and sys.argv[2] == "interrupt":
            return connect()
        # The others are closed when all have come: they would wait for this one.
        print(errno.errorcode.get(error.errno, str(error.errno)), flush=True)
        os._exit(1)
threads = [threading.Thread(target=connect) for _ in range(8)]
if sys.argv[3] == "blocked":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
for thread in threads:
    thread.start()
print("connecting", flush=True)
# A call that a signal stops before anybody has looked at it begins anew. Where whoever looks gets no processor for a
# millisecond, and always, that would never end: it is twice as long every two seconds.
pause = 0.001
for thread in threads:
    while thread.is_alive():
        signal.setitimer(signal.ITIMER_REAL, pause, pause)
        thread.join(2)
        pause *= 2 if thread.is_alive() else 1
print(*sorted(ends))
"#;
        home.write_work("threads.py", program);
        for how in ["restart", "interrupt"] {
            for main in ["blocked", "open"] {
                let full = FullServer::start();
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
        for how in ["restart", "interrupt"] {
            let (mut out, err, status) = attack(home, &["-q"], &["ticking-unix", how]).end();
            out.sort_unstable();
            assert_eq!(out, ["came 1", "connected", "processes few"], "{how}: {err:?}");
            assert!(status.success());
        }
    });
}
