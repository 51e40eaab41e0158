//! Sockets that several have: when they stay one, and when not.

use security_v2_host::{Home, output};

use crate::{echo, lines, prepared, users_with_python};

const SCRIPT: &str = r#"
def in_child(work):
    if os.fork() == 0:
        try: work()
        finally: os._exit(0)
    os.wait()
def stream(): return socket.socket(socket.AF_INET, socket.SOCK_STREAM)
def port(one): return one.getsockname()[1]
own = ("127.0.0.1", 0)
server = datagram(own)
# Named before they were shared, or by who shares the numbers: one.
named, every = stream(), stream(); named.bind(own); every.bind(("0.0.0.0", 0))
in_child(lambda: (named.listen(), every.listen()))
for one in (named, every): told("named", lambda: (socket.create_connection(("127.0.0.1", port(one)), 30), one.accept()) and "one")
heard = datagram(own); in_child(lambda: heard.sendto(b"x", server.getsockname()))
told("heard", lambda: server.recvfrom(9)[1] == heard.getsockname())
table, copy = stream(), None; copy = table.dup()
thread = threading.Thread(target=lambda: table.bind(own)); thread.start(); thread.join()
told("thread", lambda: port(copy) == port(table) != 0)
later = stream(); later.bind(own); in_child(lambda: later.connect(named.getsockname()))
told("peer", lambda: later.getpeername() == named.getsockname())
# Without an address until one of two processes turns it to the own loopback: that one's.
def turns(one): return lambda: (one.bind(own), one.listen(), told("child", lambda: port(one) != 0))
shared = stream(); in_child(turns(shared))
told("stream", lambda: port(shared) != 0); shared.settimeout(0.2); told("accept", lambda: shared.accept())
told("its-own", lambda: (shared.bind(own), port(shared) != 0)[1])
joined = stream(); in_child(lambda: joined.connect(named.getsockname()))
told("joined", lambda: joined.getpeername() == named.getsockname())
sent = datagram(); in_child(lambda: sent.sendto(b"x", server.getsockname()))
told("sent", lambda: server.recvfrom(9)[1][1] == port(sent))
wide = datagram(("0.0.0.0", 0)); in_child(lambda: wide.sendto(b"x", server.getsockname()))
told("wide", lambda: (server.recvfrom(9)[1], server.sendto(b"y", ("127.0.0.1", port(wide))), wide.recv(9))[-1])
goes = datagram(("0.0.0.0", 0)); in_child(lambda: goes.sendto(b"z", ("127.0.0.1", PORT)))
# Briefly where silence is expected.
told("goes", lambda: (goes.settimeout(float(sys.argv[1]) if sys.argv[1:] else 0.2), goes.recv(9))[1])
# On its way in a message meanwhile: as if another process had it.
left, right = socket.socketpair(); flies = stream(); socket.send_fds(left, [b"x"], [flies.fileno()]); flies.bind(own)
told("flew", lambda: port(socket.socket(fileno=socket.recv_fds(right, 9, 1)[1][0])) == port(flies))
"#;

#[test]
fn a_socket_stays_one_unless_one_of_two_processes_turns_it_without_an_address_to_the_own_loopback() {
    for user in users_with_python() {
        let home = Home::new(user);
        let run = prepared(
            &home,
            r#"allow = ["127.0.0.1:PORT", "udp 127.0.0.1:PORT"]"#,
            echo(),
            SCRIPT,
        );
        let done = run.run();
        let stay = [
            "named one",
            "named one",
            "heard True",
            "thread True",
            "peer True",
            "child True",
        ];
        // What is told with a session, and without.
        let parts = [
            ("stream False", "stream True"),
            ("accept EINVAL", "accept timed out"),
            ("its-own True", "its-own EINVAL"),
            ("joined ENOTCONN", "joined True"),
            ("sent False", "sent True"),
            ("wide b'y'", "wide b'y'"),
            ("goes timed out", "goes b'Z'"),
            ("flew False", "flew True"),
        ];
        let (parted, whole): (Vec<&str>, Vec<&str>) = parts.into_iter().unzip();
        assert_eq!(lines(&done), [&stay[..], &parted].concat(), "{done}");
        done.assert_nothing_left();
        let mut bare = std::process::Command::new("/usr/bin/python3");
        let script = home.work().join("script.py").into_os_string();
        let bare = output(bare.args(["-u".into(), script, "30".into()])).unwrap();
        let bare = String::from_utf8_lossy(&bare.stdout).into_owned();
        assert_eq!(bare.lines().collect::<Vec<_>>(), [&stay[..], &whole].concat());
    }
}
