//! The judge makes connects to this machine itself. What makes its own last, changes under it, or ends it in the middle, opens
//! nothing and holds up nobody.

use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};

use security_v2_host::{DEADLINE, Output, User, closed_port, eventually, queued, spawn, users};

use crate::kit::{Answers, Attack, Catcher, open_to_all};
use crate::sockets::{race_bare, supervisor_of, while_ready};

/// How many connects to each who takes nobody the attacks make.
const HELD: usize = 8;

/// Somebody of the host's who takes nobody.
struct Full {
    listener: TcpListener,
    port: u16,
    _queue: Vec<TcpStream>,
}

impl Full {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let port = listener.local_addr().unwrap().port();
        let _queue = vec![TcpStream::connect(("127.0.0.1", port)).unwrap()];
        eventually("the queue is full", || queued(port) == Some(1));
        Self { listener, port, _queue }
    }
}

/// Threads that never rest are enough for a machine one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Attacks in a session, however slow the machine is.
fn run(attack: &Attack, words: &[&str]) -> (Answers, Output) {
    let done = attack.prepare(words).deadline(DEADLINE * 4).run();
    (Answers::of(&done.out()), done)
}

fn open(ports: &[u16]) -> Vec<String> {
    ports.iter().map(|port| format!("127.0.0.1:{port}")).collect()
}

#[test]
fn a_connect_that_says_that_it_does_not_wait_and_then_does_holds_up_nobody() {
    let _alone = alone();
    for user in users() {
        let (full, near) = (Full::new(), Catcher::tcp("127.0.0.1"));
        let attack = Attack::with_egress(user, &open(&[full.port, near.port()]));
        let words = ["turn-flags", &full.port.to_string(), &near.port().to_string(), "200"];
        let (answers, done) = run(&attack, &words);
        assert_eq!((done.code(), answers.value("beside")), (Some(0), 3 * 200), "{done}");
        // Both were seen, or nothing raced.
        answers.assert_ok(&["held-ECONNRESET", "held-EINPROGRESS"]);
        done.assert_nothing_left();
        let bare = attack.bare(&words);
        assert_eq!(bare.value("beside"), 3 * 200, "{bare}");
        bare.assert_ok(&["held-ECONNRESET", "held-EINPROGRESS"]);
    }
}

#[test]
fn sockets_that_are_swapped_shut_and_closed_under_a_connect_that_lasts_reach_nobody_else() {
    let _alone = alone();
    for user in users() {
        let (full, near, forbidden) = (Full::new(), Catcher::tcp("127.0.0.1"), Catcher::tcp("127.0.0.1"));
        let attack = Attack::with_egress(user, &open(&[full.port, near.port()]));
        let path = attack.home.work().join("host.sock");
        let host = Catcher::unix(&path);
        let path = path.to_string_lossy();
        let ports = [full.port, near.port(), forbidden.port()].map(|port| port.to_string());
        let words = ["turn-swap", &ports[0], &ports[1], &ports[2], &path, "400"];
        let (answers, done) = run(&attack, &words);
        assert_eq!((done.code(), answers.value("beside")), (Some(0), 400), "{done}");
        assert!(answers.value("ended") > 0, "{done}");
        forbidden.assert_nothing();
        host.assert_nothing();
        done.assert_nothing_left();
        race_bare(&attack, &words, &forbidden);
    }
}

#[test]
fn who_connects_to_everybody_that_takes_nobody_holds_up_neither_itself_nor_another_session() {
    let _alone = alone();
    for user in users() {
        let (full, near) = (Full::new(), Catcher::tcp("127.0.0.1"));
        let attack = Attack::with_egress(user, &open(&[full.port, near.port()]));
        let other = Attack::with_egress(user, &open(&[near.port()]));
        let (full_port, port) = (full.port.to_string(), near.port().to_string());
        let each = |answers: &Answers| {
            assert_eq!(
                (answers.value("connected"), answers.value("bound")),
                (200, 200),
                "{answers}"
            );
            assert_eq!(usize::try_from(answers.value("waiting")), Ok(4 * HELD), "{answers}");
        };
        let words = ["turn-held", &full_port, &port, "/tmp/full.sock", "200"];
        while_ready(attack.prepare(&words).command(), |answers| {
            each(answers);
            let (answers, done) = other.run(&["parallel", &port, "100"]);
            assert_eq!(answers.value("connected"), 100, "{done}");
            answers.assert_ok(&["after"]);
        });
        attack.home.assert_nothing_left();
        let place = tempfile::tempdir().unwrap();
        open_to_all(place.path());
        let path = place.path().join("full.sock");
        let words = ["turn-held", &full_port, &port, &path.to_string_lossy(), "200"];
        while_ready(attack.bare_command(&words), each);
    }
}

#[test]
fn connections_that_linger_for_an_hour_and_are_closed_under_whoever_judges_hold_up_nobody() {
    const ROUNDS: i64 = 120;
    let _alone = alone();
    for user in users() {
        // One that is connected to, and never reads.
        let stuck = TcpListener::bind("127.0.0.1:0").unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&stuck, 4096).unwrap();
        rustix::net::listen(&stuck, 1024).unwrap();
        let stuck_port = stuck.local_addr().unwrap().port();
        let near = Catcher::tcp("127.0.0.1");
        let attack = Attack::with_egress(user, &open(&[stuck_port, near.port()]));
        let forbidden = closed_port();
        let ports = [stuck_port, near.port(), forbidden].map(|port| port.to_string());
        let words = ["turn-linger", &ports[0], &ports[1], &ports[2], &ROUNDS.to_string()];
        let (answers, done) = run(&attack, &words);
        assert_eq!((done.code(), answers.value("beside")), (Some(0), ROUNDS), "{done}");
        assert_eq!(answers.value("away"), ROUNDS / 3, "{done}");
        done.assert_nothing_left();
        assert_eq!(attack.bare(&words).value("beside"), ROUNDS);
    }
}

/// Who has descriptors on their way, and around what it is run.
struct Sender {
    user: User,
    /// It takes all that the user may have: all that have its number have one share, so who takes it gets a number of its own;
    /// where there is none, and for root's programs, it takes some, and nothing may come of it.
    takes_all: bool,
    around: Vec<String>,
}

impl Sender {
    /// `files` is how many it may have open, as prlimit(1) takes it.
    fn new(user: User, apart: u32, files: &str) -> Self {
        let (user, takes_all) = match user {
            User::Ordinary(id) if rustix::process::geteuid().is_root() => (User::Ordinary(id + apart), true),
            other => (other, false),
        };
        let id = user.id();
        let around = if takes_all {
            format!("prlimit --nofile={files} setpriv --reuid {id} --regid {id} --clear-groups")
        } else {
            "env".into()
        };
        let around = around.split(' ').map(str::to_owned).collect();
        Self {
            user,
            takes_all,
            around,
        }
    }

    fn words<'w>(&self, port: &'w str) -> [&'w str; 3] {
        ["flight", port, if self.takes_all { "100000" } else { "20" }]
    }
}

/// As many descriptors for the processes of nx's own as for a program of a session.
const AS_MANY: &str = "256:4096";

#[test]
fn where_no_descriptor_can_be_sent_any_more_calls_are_answered_and_go_on_once_one_can() {
    let _alone = alone();
    for user in users() {
        let sender = Sender::new(user, 1, AS_MANY);
        let near = Catcher::tcp("127.0.0.1");
        let attack = Attack::with_egress(sender.user, &open(&[near.port()]));
        let run = attack.prepare(&sender.words(&near.port().to_string()));
        let done = run.around(&sender.around).deadline(DEADLINE * 4).run();
        let answers = Answers::of(&done.out());
        let too_many = i64::from(rustix::io::Errno::TOOMANYREFS.raw_os_error());
        let refused = i64::from(rustix::io::Errno::CONNREFUSED.raw_os_error());
        let seen = ["full", "full-inside"].map(|name| answers.value(name) == too_many);
        assert_eq!(
            (done.code(), seen),
            (Some(0), [sender.takes_all; 2]),
            "{answers}\n{done}"
        );
        for when in ["before", "after"] {
            // Nobody is there.
            for (what, expected) in [("inside", refused), ("memory", 1), ("outside", 1)] {
                assert_eq!(answers.value(&format!("{when}-{what}")), expected, "{done}");
            }
        }
        done.assert_nothing_left();
    }
}

/// Tells a program, however the test ends, that nobody meets it any more.
struct Over(PathBuf);

impl Drop for Over {
    fn drop(&mut self) {
        let _ = std::fs::write(&self.0, "");
    }
}

#[test]
fn where_no_descriptor_can_be_sent_any_more_a_further_session_says_so_and_one_begins_once_one_can() {
    let _alone = alone();
    for user in users() {
        let sender = Sender::new(user, 2, AS_MANY);
        beside_sender(&sender, |done| {
            if sender.takes_all {
                assert!(matches!(done.code(), Some(4 | 6 | 7)), "{done}");
                let said = done.err();
                assert!(
                    said.contains("on their way in messages that nobody has received"),
                    "{done}"
                );
            } else {
                assert_eq!(done.code(), Some(0), "{done}");
            }
        });
    }
}

#[test]
fn who_sends_all_that_it_may_one_after_another_holds_up_no_session_that_may_have_more() {
    let _alone = alone();
    for user in users() {
        let sender = Sender::new(user, 3, "256:8192");
        beside_sender(&sender, |done| assert_eq!(done.code(), Some(0), "{done}"));
    }
}

/// A session of the same subject's, with all that a program of one may send on its way, and one after that. The first session
/// lasts meanwhile, and so does the file server of all of them.
fn beside_sender(sender: &Sender, beside: impl FnOnce(&Output)) {
    let near = Catcher::tcp("127.0.0.1");
    let attack = Attack::with_egress(sender.user, &open(&[near.port()]));
    let (work, port) = (attack.home.work(), near.port().to_string());
    // Root's programs have another number, and meet here too.
    open_to_all(&work);
    let [flight, port, most] = sender.words(&port);
    let run = attack.prepare(&[flight, port, most, work.to_str().unwrap()]);
    let run = run.around(&sender.around).deadline(DEADLINE * 8);
    let first = std::thread::spawn(move || run.run());
    let _over = Over(work.join("over"));
    let another = || {
        let run = attack.prepare_any(vec!["true".into()]);
        run.around(&sender.around).deadline(DEADLINE * 4).run()
    };
    let meets = |said: &str| eventually(said, || work.join(said).exists() || first.is_finished());

    meets("full");
    beside(&another());
    let _ = std::fs::remove_file(work.join("full"));
    meets("after");
    let done = another();
    assert_eq!(done.code(), Some(0), "{done}");
    let _ = std::fs::remove_file(work.join("after"));
    let done = first.join().unwrap();
    assert_eq!(Answers::of(&done.out()).value("full") != 0, sender.takes_all, "{done}");
    assert_eq!(done.code(), Some(0), "{done}");
    done.assert_nothing_left();
}

#[test]
fn with_its_judge_killed_while_its_own_connect_lasts_nothing_gets_through() {
    let _alone = alone();
    for user in users() {
        let (full, forbidden) = (Full::new(), Catcher::tcp("127.0.0.1"));
        let attack = Attack::with_egress(user, &open(&[full.port]));
        let words = ["turn-killed", &full.port.to_string(), &forbidden.port().to_string()];
        let mut command = attack.prepare(&words).command();
        let streams = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = spawn(streams).unwrap();
        // The first by the judge itself.
        eventually("its connects last", || {
            assert!(child.try_wait().unwrap().is_none());
            on_the_way(full.port) == HELD
        });
        let judge = supervisor_of(child.id()).expect("a supervisor");
        rustix::process::kill_process(judge, rustix::process::Signal::KILL).unwrap();
        eventually("it ends", || child.try_wait().unwrap().is_some());
        let done = child.wait_with_output().unwrap();
        assert_eq!(done.status.code(), Some(7), "{}", String::from_utf8_lossy(&done.stderr));
        forbidden.assert_nothing();
        // Whoever still was on the way says nothing any more.
        full.listener.set_nonblocking(true).unwrap();
        drop(full._queue);
        while let Ok((mut stream, _)) = full.listener.accept() {
            stream.set_nonblocking(false).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            let mut said = Vec::new();
            let ended = stream.read_to_end(&mut said).map_err(|error| error.kind());
            assert!(ended != Err(ErrorKind::WouldBlock), "somebody is still there");
            assert_eq!(said, b"");
        }
        attack.home.assert_nothing_left();
        // Without a session, and with nobody killed, both arrive.
        let mut full = Full::new();
        let words = ["turn-killed", &full.port.to_string(), &forbidden.port().to_string()];
        let mut bare = spawn(attack.bare_command(&words).stdin(Stdio::null()).stdout(Stdio::null())).unwrap();
        eventually("it greets whom it must not", || !forbidden.caught().is_empty());
        full.listener.set_nonblocking(true).unwrap();
        // The filler, and who waits for its place.
        eventually("both are accepted", || {
            full._queue.extend(full.listener.accept().map(|(stream, _)| stream));
            full._queue.len() == 3
        });
        let mut held = full._queue.pop().unwrap();
        held.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut said = [0];
        held.read_exact(&mut said).unwrap();
        assert_eq!(said, *b"h");
        bare.kill().unwrap();
        bare.wait().unwrap();
    }
}

/// How many connections to this port of the host's loopback are on the way. proc_net_tcp.rst
fn on_the_way(port: u16) -> usize {
    const SYN_SENT: &str = "02";
    let text = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let to = format!("0100007F:{port:04X}");
    let ways = text.lines().filter(|line| {
        let mut fields = line.split_ascii_whitespace().skip(2);
        fields.next() == Some(&to) && fields.next() == Some(SYN_SENT)
    });
    ways.count()
}
