//! sendmsg and its kin of a subject with an outside UDP rule: carried out for the program, as if they were not.

use crate::{echo, lines, prepared, script, users_with_python};
use security_v2_host::Home;

const ALLOW: &str = r#"allow = ["udp 127.0.0.1:PORT"]"#;

#[test]
fn messages_between_the_programs_own_processes_arrive_whole_and_with_their_descriptors() {
    for user in users_with_python() {
        let text = r#"
left, right = socket.socketpair()
reader, writer = os.pipe()
def rights():
    socket.send_fds(left, [b"take"], [writer, writer]); data, fds, _, _ = socket.recv_fds(right, 9, 9)
    os.write(fds[1], b"through"); return data, len(fds), os.read(reader, 9)
told("rights", rights)
told("bad-right", lambda: left.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", 999))]))
own = struct.pack("iII", os.getpid(), os.getuid(), os.getgid())
told("own-name", lambda: (left.sendmsg([b"me"], [(socket.SOL_SOCKET, 2, own)]), right.recv(9)))
told("other-name", lambda: left.sendmsg([b"me"], [(socket.SOL_SOCKET, 2, struct.pack("iII", 1, 0, 0))]))
big = os.urandom(3_000_000); heard = bytearray()
def hear():
    while len(heard) < len(big): heard.extend(right.recv(1 << 16))
thread = threading.Thread(target=hear); thread.start()
told("big", lambda: left.sendmsg([big[:5], big[5:1_000_000], big[1_000_000:]])); thread.join(20)
told("same", lambda: bytes(heard) == big)
left.setblocking(False)
def fill():
    total = 0
    while True:
        try: total += left.sendmsg([big])
        except BlockingIOError: return total > 0
told("full", fill)
packets = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
told("packets", lambda: (packets[0].sendmsg([b"a", b"b"]), packets[0].sendmsg([b"c"]), packets[1].recv(9), packets[1].recv(9)))
right.close(); got = []
signal.signal(signal.SIGPIPE, lambda *_: got.append("pipe"))
told("broken", lambda: left.sendmsg([b"x"]))
told("broken-quiet", lambda: left.sendmsg([b"x"], [], socket.MSG_NOSIGNAL))
told("signals", lambda: got)
listener = socket.create_server(("127.0.0.1", 0)); peer = socket.create_connection(listener.getsockname()); accepted = listener.accept()[0]
told("stream", lambda: (peer.sendmsg([b"st", b"ream"]), accepted.recv(9)))
told("stream-address", lambda: (peer.sendto(b"x", ("203.0.113.7", 1)), accepted.recv(9)))
"#;
        let done = script(user, ALLOW, echo(), text);
        let expected = [
            "rights (b'take', 2, b'through')",
            "bad-right EBADF",
            "own-name (2, b'me')",
            "other-name EPERM",
            "big 3000000",
            "same True",
            "full True",
            "packets (2, 1, b'ab', b'c')",
            "broken EPIPE",
            "broken-quiet EPIPE",
            "signals ['pipe']",
            "stream (6, b'stream')",
            "stream-address (1, b'x')",
        ];
        assert_eq!(lines(&done), expected, "{done}");
        done.assert_nothing_left();
    }
}

#[test]
fn a_peer_that_takes_nothing_holds_up_nobody_else_and_a_signal_ends_the_wait() {
    for user in users_with_python() {
        let text = r#"
left, right = socket.socketpair()
class Enough(Exception): pass
def stuck():
    try: left.sendmsg([bytes(5_000_000)])
    except OSError as error: print("stuck", errno.errorcode[error.errno])
threads = [threading.Thread(target=stuck, daemon=True)]
threads[0].start(); time.sleep(0.2)
one = datagram()
told("meanwhile", lambda: (one.sendto(b"a", ("127.0.0.1", PORT)), one.recv(9)))
told("still", threads[0].is_alive)
def handler(*_): signal.setitimer(signal.ITIMER_REAL, 0); raise Enough
signal.signal(signal.SIGALRM, handler)
other, _keep = socket.socketpair()
try:
    # Again and again: one that comes before the kernel has the call interrupts nothing.
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    while True: other.sendmsg([bytes(1_000_000)])
except Enough: print("interrupted")
"#;
        let done = script(user, ALLOW, echo(), text);
        assert_eq!(
            lines(&done),
            ["meanwhile (1, b'A')", "still True", "interrupted"],
            "{done}"
        );
        assert_eq!(done.code(), Some(0), "{done}");
        done.assert_nothing_left();
    }
}

#[test]
fn nothing_is_sent_twice_or_lost_under_a_timer_of_a_thousand_a_second() {
    for user in users_with_python() {
        let port = echo();
        // Each call has a number of its own: what was told of it is held against what came back with that number.
        let text = r#"
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
ticks = 0
def tick(*_):
    global ticks; ticks += 1
signal.signal(signal.SIGALRM, tick)
for restarts in (True, False):
    signal.siginterrupt(signal.SIGALRM, not restarts)
    one = datagram(); one.settimeout(None); one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    name = struct.pack("=H", 2) + struct.pack(">H", PORT) + socket.inet_aton("127.0.0.1") + bytes(8)
    begun = ticks; calls = 0; sent = []; interrupted = []; heard = []
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    while len(sent) < 1500 or ticks - begun < 200:
        data = b"%d" % calls
        result = libc.sendto(one.fileno(), data, len(data), 0, name, 16)
        if result == len(data): sent.append(data)
        elif result == -1 and ctypes.get_errno() == errno.EINTR: interrupted.append(data)
        else: print("error", result, ctypes.get_errno()); break
        calls += 1
        if len(sent) % 50 == 0:
            while len(heard) < len(sent): heard.append(one.recv(9))
    signal.setitimer(signal.ITIMER_REAL, 0)
    # One more at the end: what was sent before it is back before it is.
    libc.sendto(one.fileno(), b"end", 3, 0, name, 16)
    while not heard or heard[-1] != b"END": heard.append(one.recv(9))
    heard.pop()
    print("calls", calls == len(sent) + len(interrupted), calls > 1500)
    print("told-and-came", heard == sent)
    print("told-not-and-came", sorted(set(heard) & set(interrupted)))
    print("interrupted", bool(restarts and interrupted))
    allowed = globals().get("allowed", 0) + len(sent) + 1
print("allowed", allowed)
"#;
        let home = Home::new(user);
        let done = prepared(&home, ALLOW, port, text).option("--json").run();
        let each = [
            "calls True True",
            "told-and-came True",
            "told-not-and-came []",
            "interrupted False",
        ];
        let told = lines(&done);
        let (last, before) = told.split_last().unwrap();
        assert_eq!(before, [each, each].concat(), "{done}");
        // Each that was told of was allowed once, and none that was not.
        let err = done.err();
        let summary = err.lines().rfind(|line| line.contains("\"summary\"")).unwrap();
        let summary: serde_json::Value = serde_json::from_str(summary).unwrap();
        assert_eq!(*last, format!("allowed {}", summary["egress_allows"]), "{done}");
    }
}

#[test]
fn a_datagram_that_is_longer_than_any_is_refused_before_it_is_copied() {
    for user in users_with_python() {
        let text = r#"
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
name = struct.pack("=H", 2) + struct.pack(">H", PORT) + socket.inet_aton("127.0.0.1") + bytes(8)
one = datagram(); room = ctypes.create_string_buffer(70000)
def said(result): return result if result >= 0 else errno.errorcode[ctypes.get_errno()]
def send(length): return said(libc.sendto(one.fileno(), room, ctypes.c_size_t(length), 0, name, 16))
for length in (65507, 65508, 65536, 1 << 32, 1 << 46, 1 << 62): print("sendto", send(length))
# The same kibibyte as often as a message may name it, and as long as it may say.
def row(length, count):
    pieces = ctypes.create_string_buffer(struct.pack("QQ", ctypes.addressof(room), length) * count)
    to = ctypes.create_string_buffer(name)
    header = struct.pack("QIIQQQQiI", ctypes.addressof(to), 16, 0, ctypes.addressof(pieces), count, 0, 0, 0, 0)
    return said(libc.sendmsg(one.fileno(), ctypes.create_string_buffer(header), 0))
for length, count in ((63, 1024), (64, 1024), (1 << 36, 1024), (1 << 62, 2)): print("sendmsg", row(length, count))
print(len(one.recv(70000)), len(one.recv(70000)))
"#;
        let done = script(user, ALLOW, echo(), text);
        let mut expected = vec!["sendto 65507"];
        expected.extend(["sendto EMSGSIZE"; 5]);
        expected.push("sendmsg 64512");
        expected.extend(["sendmsg EMSGSIZE"; 3]);
        expected.push("65507 64512");
        assert_eq!(lines(&done), expected, "{done}");
        done.assert_nothing_left();
    }
}
