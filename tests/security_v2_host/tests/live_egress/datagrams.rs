//! UDP: outside by rule, own loopback without.

use crate::{KIT, echo, lines, prepared, script, users_with_python};

const ALLOW: &str = r#"allow = ["udp 127.0.0.1:PORT", "udp [::1]:PORT"]"#;

#[test]
fn an_allowed_peer_is_sent_to_in_every_way_and_answers() {
    for user in users_with_python() {
        let port = echo();
        let text = r#"
to = ("127.0.0.1", PORT)
one = datagram()
told("sendto", lambda: (one.sendto(b"a", to), one.recvfrom(9)[0]))
told("sendmsg", lambda: (one.sendmsg([b"b", b"c", b""], [], 0, to), one.recv(9)))
told("marked", lambda: (one.sendmsg([b"d"], [(0, 1, struct.pack("i", 4)), (0, 2, struct.pack("i", 9))], 0, to), one.recv(9)))
told("empty", lambda: (one.sendto(b"", to), one.recv(9)))
told("largest", lambda: (one.sendto(b"x" * 65507, to), len(one.recv(65535))))
told("too-large", lambda: one.sendto(b"x" * 65508, to))
told("no-peer", lambda: one.send(b"x"))
told("local", lambda: one.getsockname()[1] != 0)
peer = datagram()
told("connect", lambda: (peer.connect(to), peer.send(b"e"), peer.recv(9), peer.getpeername() == to))
peer.settimeout(None)
told("write", lambda: (os.write(peer.fileno(), b"f"), os.read(peer.fileno(), 9)))
told("again", lambda: (peer.connect(to), peer.sendmsg([b"g"]), peer.recv(9)))
told("six-to-four", lambda: (lambda six: (six.sendto(b"h", ("::ffff:127.0.0.1", PORT)), six.recvfrom(9)[0]))(datagram(six=True)))
segments = datagram()
segments.setsockopt(17, 103, 2)
told("segments", lambda: (segments.sendto(b"aabbc", to), segments.recv(9), segments.recv(9), segments.recv(9)))
"#;
        let done = script(user, ALLOW, port, text);
        let expected = [
            "sendto (1, b'A')",
            "sendmsg (2, b'BC')",
            "marked (1, b'D')",
            "empty (0, b'')",
            "largest (65507, 65507)",
            "too-large EMSGSIZE",
            "no-peer EDESTADDRREQ",
            "local True",
            "connect (None, 1, b'E', True)",
            "write (1, b'F')",
            "again (None, 1, b'G')",
            "six-to-four (1, b'H')",
            "segments (5, b'AA', b'BB', b'C')",
        ];
        assert_eq!(lines(&done), expected, "{done}");
        done.assert_nothing_left();
    }
}

#[test]
fn a_refused_peer_is_eperm_and_a_record_and_the_socket_goes_on() {
    for user in users_with_python() {
        let port = echo();
        let text = r#"
one = datagram()
told("sendto", lambda: one.sendto(b"a", ("203.0.113.7", 53)))
told("sendmsg", lambda: one.sendmsg([b"a"], [], 0, ("203.0.113.7", 53)))
told("connect", lambda: one.connect(("203.0.113.7", 53)))
told("allowed", lambda: (one.sendto(b"b", ("127.0.0.1", PORT)), one.recv(9)))
told("tcp", lambda: socket.create_connection(("203.0.113.7", 53), 30))
"#;
        let done = script(user, ALLOW, port, text);
        let expected = [
            "sendto EPERM",
            "sendmsg EPERM",
            "connect EPERM",
            "allowed (1, b'B')",
            "tcp EPERM",
        ];
        assert_eq!(lines(&done), expected, "{done}");
        let said: Vec<String> = done
            .records_for("egress.no_rule")
            .iter()
            .map(|record| format!("{} {}", record.op, record.object))
            .collect();
        assert_eq!(
            said,
            [
                "send udp 203.0.113.7:53",
                "send udp 203.0.113.7:53",
                "connect udp 203.0.113.7:53",
                "connect tcp 203.0.113.7:53"
            ]
        );
    }
}

#[test]
fn the_own_loopback_works_with_and_without_an_outside_rule() {
    let text = r#"
for family, any, own in ((False, "0.0.0.0", "127.0.0.1"), (True, "::", "::1")):
    server = datagram((own, 0), family); client = datagram(six=family)
    told("own", lambda: (client.sendto(b"a", server.getsockname()), server.recvfrom(9)[0]))
    told("back", lambda: (server.sendto(b"b", (own, client.getsockname()[1])), client.recvfrom(9)[1][1] == server.getsockname()[1]))
    wild = datagram((any, 0), family); other = datagram(six=family)
    at = (own, wild.getsockname()[1])
    wild.setblocking(False)
    told("wild", lambda: (other.sendto(b"c", at), select.select([wild], [], [], 30) and wild.recvfrom(9)[0]))
    wild.settimeout(30)
    told("wild-back", lambda: (wild.sendto(b"d", (own, other.getsockname()[1])), other.recv(9)))
    joined = datagram(six=family)
    told("wild-joined", lambda: (joined.connect(at), joined.send(b"e"), wild.recvfrom(9)[0]))
    told("joined-back", lambda: (wild.sendto(b"f", (own, joined.getsockname()[1])), joined.recv(9)))
    fixed = datagram((any, 5353), family)
    told("fixed", lambda: (client.sendto(b"g", (own, 5353)), fixed.recvfrom(9)[0]))
    told("nobody", lambda: (client.connect((own, 9)), client.send(b"h"), failed(client), client.send(b"i")))
    fixed.close()
"#;
    for user in users_with_python() {
        for rules in [ALLOW, ""] {
            let done = script(user, rules, echo(), text);
            let each = [
                "own (1, b'a')",
                "back (1, True)",
                "wild (1, b'c')",
                "wild-back (1, b'd')",
                "wild-joined (None, 1, b'e')",
                "joined-back (1, b'f')",
                "fixed (1, b'g')",
                "nobody ECONNREFUSED",
            ];
            assert_eq!(lines(&done), [each, each].concat(), "{rules}\n{done}");
        }
    }
}

#[test]
fn a_socket_that_moves_is_one_socket_in_copies_loops_and_options() {
    for user in users_with_python() {
        let port = echo();
        let text = r#"
server = datagram(("127.0.0.1", 0)); own = server.getsockname()
one = datagram(); copy = one.dup()
told("copies", lambda: (one.sendto(b"a", own), copy.sendto(b"b", own), server.recv(9), server.recv(9), one.getsockname() == copy.getsockname()))
looped = datagram(); looped.setblocking(False)
loop = select.epoll(); loop.register(looped.fileno(), select.EPOLLIN)
looped.sendto(b"c", own); server.sendto(b"d", ("127.0.0.1", looped.getsockname()[1]))
told("loop", lambda: [number == looped.fileno() for number, _ in loop.poll(30)])
told("loop-end", lambda: (loop.modify(looped.fileno(), 0), loop.unregister(looped.fileno())))
optioned = datagram()
optioned.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 30000); optioned.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
optioned.setsockopt(0, 1, 8); optioned.setsockopt(0, 8, 1); optioned.settimeout(0.05)
before = [optioned.getsockopt(level, name) for level, name in ((1, 8), (1, 6), (0, 1), (0, 8))]
optioned.sendto(b"e", own)
told("options", lambda: [optioned.getsockopt(level, name) for level, name in ((1, 8), (1, 6), (0, 1), (0, 8))] == before)
told("nonblocking", lambda: optioned.recv(9))
flags = __import__("fcntl")
told("cloexec", lambda: flags.fcntl(optioned, flags.F_GETFD))
# Threads that wait already, at a socket that is inside until it sends outside and at one that is outside until it turns to the own loopback.
def wait(how, turn, at=("0.0.0.0", 0)):
    one = datagram(at); one.settimeout(None); heard = []
    def run(): heard.append(how(one) or one.recv(9))
    thread = threading.Thread(target=run); thread.start()
    # Until it waits: 0 is read, 7 poll, 219 one that goes on after the last move, 23 and 270 select, 45 and 47 recv.
    while open(f"/proc/self/task/{thread.native_id}/syscall").read().split()[0] not in ("0", "7", "23", "45", "47", "219", "270"): time.sleep(0.001)
    turn(one); thread.join(30)
    return heard
def polled(one): waits = select.poll(); waits.register(one, select.POLLIN); waits.poll()
ways = (lambda one: one.recv(9), lambda one: os.read(one.fileno(), 9), lambda one: one.recvmsg(9)[0], polled, lambda one: select.select([one], [], []) and None)
out = lambda one: one.sendto(b"f", ("127.0.0.1", PORT))
other = datagram(("127.0.0.1", 0))
def back(one): one.sendto(b"g", other.getsockname()); other.sendto(b"G", other.recvfrom(9)[1])
told("already-waiting", lambda: [wait(how, out) for how in ways])
told("waiting-to-turn", lambda: [wait(how, back, None) for how in ways])
child = datagram()
if os.fork() == 0:
    child.sendto(b"g", ("127.0.0.1", PORT)); os._exit(0)
os.wait()
told("forked", lambda: child.recv(9))
"#;
        let done = script(user, ALLOW, port, text);
        let expected = [
            "copies (1, 1, b'a', b'b', True)",
            "loop [True]",
            "loop-end (None, None)",
            "options True",
            "nonblocking timed out",
            "cloexec 1",
            "already-waiting [[b'F'], [b'F'], [b'F'], [b'F'], [b'F']]",
            "waiting-to-turn [[b'G'], [b'G'], [b'G'], [b'G'], [b'G']]",
            "forked b'G'",
        ];
        assert_eq!(lines(&done), expected, "{done}");
    }
}

#[test]
fn a_socket_that_moves_wakes_each_loop_under_each_number_and_is_kept_where_an_exec_keeps_it() {
    for user in users_with_python() {
        let text = r#"
server = datagram(("127.0.0.1", 0)); own = server.getsockname()
# Others come first, which know much of others, and one of them by many numbers.
large = [select.epoll() for _ in range(20)]; copies = [os.dup(large[0].fileno()) for _ in range(100)]
ends = os.pipe(); known = [os.dup(ends[0]) for _ in range(3000)]
for loop in large:
    for number in known: loop.register(number, select.EPOLLIN)
one = datagram(); copy = one.dup(); gone = one.dup(); beside = datagram()
loops = [select.epoll() for _ in range(3)]; numbers = [one.fileno(), copy.fileno(), gone.fileno()]
for loop in loops:
    for number in [*numbers, beside.fileno()]: loop.register(number, select.EPOLLIN)
# What was registered under it stays, as long as there is another.
gone.close()
one.sendto(b"a", own); server.sendto(b"b", ("127.0.0.1", one.getsockname()[1]))
for loop in loops: told("loop", lambda: sorted(number for number, _ in loop.poll(30)) == sorted(numbers))
told("once", lambda: (copy.recv(9), [loop.poll(0) for loop in loops]))
beside.sendto(b"c", own); server.sendto(b"d", ("127.0.0.1", beside.getsockname()[1]))
for loop in loops: told("beside", lambda: [number == beside.fileno() for number, _ in loop.poll(30)])
kept = datagram(); os.set_inheritable(kept.fileno(), True); kept.sendto(b"e", own)
told("kept", lambda: (os.get_inheritable(kept.fileno()), os.get_inheritable(beside.fileno())))
"#;
        let expected = [
            "loop True",
            "loop True",
            "loop True",
            "once (b'b', [[], [], []])",
            "beside [True]",
            "beside [True]",
            "beside [True]",
            "kept (True, False)",
        ];
        let done = script(user, ALLOW, echo(), text);
        assert_eq!(lines(&done), expected, "{done}");
        let mut bare = std::process::Command::new("/usr/bin/python3");
        let bare = security_v2_host::output(bare.args(["-c", &format!("{KIT}\n{text}")])).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&bare.stdout).lines().collect::<Vec<_>>(),
            expected
        );
    }
}

#[test]
fn a_connected_socket_keeps_its_peer_and_sends_nothing_to_the_own_loopback_besides() {
    for user in users_with_python() {
        let port = echo();
        let text = r#"
one = datagram(); one.connect(("127.0.0.1", PORT)); other = datagram(("127.0.0.1", 0)); other.settimeout(0.2)
told("besides", lambda: one.sendto(b"x", other.getsockname()))
told("heard", lambda: other.recv(9))
told("kept", lambda: (one.getpeername() == ("127.0.0.1", PORT), one.send(b"a"), one.recv(9)))
"#;
        let done = script(user, ALLOW, port, text);
        let expected = ["besides ENETUNREACH", "heard timed out", "kept (True, 1, b'A')"];
        assert_eq!(lines(&done), expected, "{done}");
    }
}

#[test]
fn errors_of_the_other_side_come_back_as_they_do_without_us() {
    for user in users_with_python() {
        // A port at which nobody is.
        let port = security_v2_host::closed_datagram_port();
        let text = r#"
one = datagram(); one.connect(("127.0.0.1", PORT)); one.send(b"a"); failed(one)
told("so-error", lambda: one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED)
told("cleared", lambda: one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
two = datagram(); two.setsockopt(0, 11, 1); two.sendto(b"b", ("127.0.0.1", PORT)); failed(two)
def queue():
    data, control, flags, peer = two.recvmsg(9, 200, socket.MSG_ERRQUEUE)
    return data, peer == ("127.0.0.1", PORT), struct.unpack("I", control[0][2][:4])[0] == errno.ECONNREFUSED
told("error-queue", queue)
"#;
        let done = script(user, ALLOW, port, text);
        let expected = ["so-error True", "cleared 0", "error-queue (b'b', True, True)"];
        assert_eq!(lines(&done), expected, "{done}");
    }
}

#[test]
fn loops_of_libraries_with_unconnected_sockets_work() {
    for user in users_with_python() {
        let port = echo();
        let text = r#"
class Peer(asyncio.DatagramProtocol):
    def __init__(self): self.heard = asyncio.get_running_loop().create_future()
    def datagram_received(self, data, peer): self.heard.done() or self.heard.set_result(data)
async def run(**how):
    loop = asyncio.get_running_loop()
    transport, peer = await loop.create_datagram_endpoint(Peer, **how)
    transport.sendto(b"a", None if "remote_addr" in how else ("127.0.0.1", PORT))
    return await asyncio.wait_for(peer.heard, 30)
told("bound", lambda: asyncio.run(run(local_addr=("0.0.0.0", 0))))
told("joined", lambda: asyncio.run(run(remote_addr=("127.0.0.1", PORT))))
told("neither", lambda: asyncio.run(run(family=socket.AF_INET)))
"#;
        let done = script(user, ALLOW, port, text);
        assert_eq!(lines(&done), ["bound b'A'", "joined b'A'", "neither b'A'"], "{done}");
    }
}

#[test]
fn each_message_is_counted_and_enforcement_is_marked_once_and_only_where_asked() {
    for user in users_with_python() {
        let port = echo();
        let text = r#"
one = datagram()
for _ in range(5): one.sendto(b"a", ("127.0.0.1", PORT))
told("refused", lambda: one.sendto(b"a", ("203.0.113.7", 53)))
one.connect(("127.0.0.1", PORT))
for _ in range(7): one.send(b"not judged again")
"#;
        let home = security_v2_host::Home::new(user);
        let markers = home.write_work("markers", "");
        let run = prepared(&home, ALLOW, port, text).option("--json");
        let done = run.env("NEXUS_MARKERS", &markers).run();
        assert_eq!(lines(&done), ["refused EPERM"], "{done}");
        let said = std::fs::read_to_string(&markers).unwrap();
        let enforced = said.lines().filter(|line| *line == "net-egress: enforced");
        assert_eq!(enforced.count(), 1, "{said}");
        let err = done.err();
        let summary = err.lines().rfind(|line| line.contains("\"summary\"")).unwrap();
        let summary: serde_json::Value = serde_json::from_str(summary).unwrap();
        assert_eq!(summary["egress_allows"], 6, "{done}");
        assert_eq!(summary["denies"]["egress.no_rule"], 1, "{done}");
        // A session in which nothing of egress was asked marks nothing.
        let idle = prepared(&home, ALLOW, port, "print(1)")
            .env("NEXUS_MARKERS", &markers)
            .run();
        assert_eq!(lines(&idle), ["1"], "{idle}");
        let again = std::fs::read_to_string(&markers).unwrap();
        assert_eq!(again.matches("net-egress: enforced").count(), 1, "{again}");
    }
}

/// A service of the host's that takes the port named in a datagram to its rule's address, on an address that no rule names.
fn neighbour() -> (u16, std::thread::JoinHandle<std::net::UdpSocket>) {
    let open = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = open.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        let mut bytes = [0; 16];
        let (count, from) = open.recv_from(&mut bytes).unwrap();
        let port: u16 = std::str::from_utf8(&bytes[..count]).unwrap().parse().unwrap();
        let service = std::net::UdpSocket::bind(("127.0.0.2", port)).expect("a connected socket has one address");
        open.send_to(b"there", from).unwrap();
        service
    });
    (port, thread)
}

#[test]
fn the_port_of_a_socket_that_was_connected_away_reaches_no_service_of_the_hosts_beside_it() {
    for user in users_with_python() {
        let (port, service) = neighbour();
        let text = r#"
one = datagram()
one.bind(("0.0.0.0", 0))
mine = one.getsockname()[1]
joined = datagram()
joined.connect(("127.0.0.2", mine)); joined.send(b"x")
told("connect", lambda: one.connect(("127.0.0.1", PORT)))
told("asked", lambda: (one.send(str(mine).encode()), one.recv(9)))
two = datagram()
told("own", lambda: two.sendto(b"x", ("127.0.0.2", mine)))
told("unspecified", lambda: two.sendto(b"x", ("0.0.0.0", mine)))
told("connected", lambda: (two.connect(("127.0.0.2", mine)), two.send(b"x")))
told("before", lambda: joined.send(b"x"))
told("again", lambda: joined.send(b"x"))
"#;
        let done = script(user, r#"allow = ["udp 127.0.0.1:PORT"]"#, port, text);
        assert_eq!(lines(&done)[0], "connect None", "{done}");
        assert!(lines(&done)[1].ends_with("b'there')"), "{done}");
        let service = service.join().unwrap();
        service.set_nonblocking(true).unwrap();
        let got = service.recv(&mut [0; 9]).map_err(|error| error.kind());
        assert_eq!(got, Err(std::io::ErrorKind::WouldBlock), "{done}");
    }
}
