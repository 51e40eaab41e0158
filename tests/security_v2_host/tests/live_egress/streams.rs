//! Streams to an allowed peer, and to the own loopback, in every way to connect: what a program is told is what it is told
//! without us, line by line.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};

use security_v2_host::{FullServer, Home, closed_port, output};

use crate::{lines, prepared, users_with_python};

const ALLOW: &str = r#"allow = ["127.0.0.1:PORT", "127.0.0.1:CLOSED", "127.0.0.1:FULL"]"#;

/// Sends back what it gets in capitals, until there is no more, and then says so.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut peer in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = peer.read(&mut bytes) {
                    if peer.write_all(&bytes[..count].to_ascii_uppercase()).is_err() {
                        return;
                    }
                }
                let _ = peer.write_all(b"END");
                let _ = peer.shutdown(Shutdown::Write);
            });
        }
    });
    port
}

const SCRIPT: &str = r#"
import fcntl, tempfile
there, closed, full = ("127.0.0.1", PORT), ("127.0.0.1", CLOSED), ("127.0.0.1", FULL)
def stream(**how): return socket.socket(socket.AF_INET, socket.SOCK_STREAM)
def whole(one):
    data = b""
    while part := one.recv(99): data += part
    return data
def try_all(there, closed, tag):
    def told_(name, work): told(tag + name, work)
    one = stream(); one.settimeout(30)
    told_("blocking", lambda: (one.connect_ex(there), one.getpeername() == there, one.getsockname()[0], one.getsockname()[1] > 0))
    told_("again", lambda: one.connect(there))
    told_("error", lambda: one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    told_("half-closed", lambda: (one.send(b"abc"), one.shutdown(socket.SHUT_WR), whole(one)))
    told_("after", lambda: one.send(b"x"))
    told_("gone", lambda: one.shutdown(socket.SHUT_RDWR))
    refused = stream()
    told_("refused", lambda: refused.connect(closed))
    told_("no-peer", lambda: refused.getpeername())
    told_("retried", lambda: (refused.connect(there), refused.send(b"r"), refused.recv(9)))
    # Registered before it connects, edge by edge, as netty and Go do.
    early = stream(); early.setblocking(False); loop = select.epoll(); loop.register(early, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
    loop.poll(0)
    told_("nonblocking", lambda: early.connect_ex(there) in (0, errno.EINPROGRESS))
    told_("writable", lambda: [bits & select.EPOLLOUT for _, bits in loop.poll(30)])
    told_("finished", lambda: (early.getsockopt(1, 4), early.send(b"edge")))
    told_("readable", lambda: [bits & select.EPOLLIN for _, bits in loop.poll(30)])
    told_("edge", lambda: early.recv(9))
    lost = stream(); lost.setblocking(False); lost.connect_ex(closed); poll = select.poll(); poll.register(lost, select.POLLOUT)
    told_("lost", lambda: (bool(poll.poll(30000)), errno.errorcode.get(lost.getsockopt(1, 4))))
    # Copies and children made before the connect mean the same socket.
    first = stream(); copy = first.dup()
    told_("copy", lambda: (first.connect(there), copy.getpeername() == there, copy.send(b"copy"), first.recv(9)))
    shared = stream()
    child = os.fork()
    if child == 0:
        if tag == "out-": shared.connect(there)
        os._exit(0)
    os.waitpid(child, 0)
    if tag == "out-": told_("forked", lambda: (shared.getpeername() == there, shared.send(b"fork"), shared.recv(9)))
    named = stream(); named.bind(("127.0.0.1", 0)); kept = named.getsockname()[1]
    told_("named", lambda: (named.connect(there), named.getsockname()[1] == kept))
    told_("named-again", lambda: named.bind(("127.0.0.1", 0)))
    told_("named-still", lambda: (named.getsockname()[1] == kept, named.send(b"n"), named.recv(9)))
    dissolved = stream(); dissolved.connect(there)
    libc = ctypes.CDLL(None, use_errno=True)
    told_("dissolved", lambda: (libc.connect(dissolved.fileno(), bytes(16), 16), dissolved.connect_ex(there), dissolved.send(b"d"), dissolved.recv(9)))
    brief = stream()
    told_("short", lambda: (libc.connect(brief.fileno(), bytes([2, 0, 0, 1]), 4), errno.errorcode[ctypes.get_errno()]))
    told_("not-a-socket", lambda: (libc.connect(0, bytes(16), 16), errno.errorcode[ctypes.get_errno()]))
    told_("no-descriptor", lambda: (libc.connect(999, bytes(16), 16), errno.errorcode[ctypes.get_errno()]))
    mapped = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    told_("mapped", lambda: (mapped.connect(("::ffff:" + there[0], there[1])), mapped.getpeername()[0], mapped.send(b"m"), mapped.recv(9)))
    urgent = stream(); urgent.connect(there)
    told_("urgent", lambda: urgent.send(b"!", socket.MSG_OOB))
    rest = stream(); rest.setsockopt(1, 13, struct.pack("ii", 1, 0)); rest.setsockopt(6, 1, 1); rest.setsockopt(1, 9, 1); rest.connect(there)
    told_("options", lambda: (rest.getsockopt(1, 13, 8), rest.getsockopt(6, 1), rest.getsockopt(1, 9)))
try_all(there, closed, "out-")
def serve(listener):
    while True:
        peer = listener.accept()[0]
        def back(peer=peer):
            while data := peer.recv(999): peer.sendall(data.upper())
            peer.sendall(b"END"); peer.close()
        threading.Thread(target=back, daemon=True).start()
listener = socket.create_server(("127.0.0.1", 0)); threading.Thread(target=serve, args=[listener], daemon=True).start()
nobody = stream(); nobody.bind(("127.0.0.1", 0))
try_all(listener.getsockname(), nobody.getsockname(), "own-")
# Somebody who takes nobody: waits, as long as it should and no longer.
waits = stream(); waits.setblocking(False)
told("under-way", lambda: (waits.connect_ex(full) == errno.EINPROGRESS, waits.connect_ex(full) == errno.EALREADY))
told("listens", lambda: waits.listen())
told("still-under-way", lambda: waits.connect_ex(full) == errno.EALREADY)
# Who has a peer, or is on its way to one, keeps it when it turns to somebody of the own loopback.
told("elsewhere-under-way", lambda: waits.connect_ex(listener.getsockname()) == errno.EALREADY)
kept = stream(); kept.connect(there)
told("elsewhere", lambda: kept.connect(listener.getsockname()))
told("kept", lambda: (kept.getpeername() == there, kept.send(b"k"), kept.recv(9)))
timed = stream(); timed.setsockopt(1, 21, struct.pack("ll", 0, 100000))
start = time.monotonic(); told("timed", lambda: timed.connect(full)); told("in-time", lambda: 0.09 < time.monotonic() - start < 20)
class Enough(Exception): pass
def handler(*_): signal.setitimer(signal.ITIMER_REAL, 0); raise Enough
signal.signal(signal.SIGALRM, handler); interrupted = stream()
# Again and again: one that comes before the kernel has the call interrupts nothing.
try: signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1); interrupted.connect(full)
except Enough: print("interrupted")
cancelled = stream(); ends = []
def cancel():
    try: ends.append(cancelled.connect(full))
    except OSError as error: ends.append(errno.errorcode[error.errno])
thread = threading.Thread(target=cancel); thread.start()
def shut(one):
    # Nothing tells when the connect has begun; before that there is nothing to shut.
    while True:
        try: return one.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            if error.errno != errno.ENOTCONN: raise
        time.sleep(0.05)
told("shut", lambda: (shut(cancelled), thread.join(20), ends))
# Others connect and are told beside some that wait, which end as they should, each once.
stuck = [stream() for _ in range(6)]; given = []
def wait_for(one):
    try: given.append(one.connect(full))
    except OSError as error: given.append(errno.errorcode[error.errno])
waiting = [threading.Thread(target=wait_for, args=[one]) for one in stuck]
def passes():
    one = stream(); one.connect(there); one.send(b"p"); return one.recv(9)
for thread in waiting:
    thread.start()
    told("beside", lambda: [passes() for _ in range(30)] == [b"P"] * 30)
told("shut-all", lambda: ([shut(one) for one in stuck], [thread.join(20) for thread in waiting], given))
told("past", lambda: passes())
left, right = socket.socketpair()
told("who", lambda: struct.unpack("iII", left.getsockopt(1, 17, 12))[1:] == (os.getuid(), os.getgid()))
place = tempfile.mkdtemp() + "/s"; local = socket.socket(socket.AF_UNIX); local.bind(place); local.listen()
peer = socket.socket(socket.AF_UNIX); peer.connect(place); taken = local.accept()[0]
told("who-connected", lambda: struct.unpack("iII", taken.getsockopt(1, 17, 12))[1:] == (os.getuid(), os.getgid()))
"#;

#[test]
fn a_stream_is_told_what_it_is_told_without_a_session() {
    for user in users_with_python() {
        let port = echo();
        let closed = closed_port();
        let full = FullServer::start();
        let numbers = |text: &str| {
            let text = text.replace("CLOSED", &closed.to_string());
            text.replace("FULL", &full.address.port().to_string())
        };
        let home = Home::new(user);
        let done = prepared(&home, &numbers(ALLOW), port, &numbers(SCRIPT)).run();
        let mut bare = std::process::Command::new("/usr/bin/python3");
        let bare = output(bare.args(["-u".into(), home.work().join("script.py").into_os_string()])).unwrap();
        let bare = String::from_utf8_lossy(&bare.stdout).into_owned();
        let bare: Vec<&str> = bare.lines().collect();
        assert!(bare.len() > 50, "{bare:#?}");
        assert_eq!(lines(&done), bare, "{done}");
        done.assert_nothing_left();
    }
}

/// What a program is told that asks for MPTCP, and where it gets with that.
const MULTIPATH: &str = r#"
def multipath(family=socket.AF_INET, kind=socket.SOCK_STREAM): return socket.socket(family, kind, 262)
for family in (socket.AF_INET, socket.AF_INET6):
    told("made", lambda: multipath(family).getsockopt(1, 38))
told("flags", lambda: (lambda one: (fcntl.fcntl(one, fcntl.F_GETFL) & os.O_NONBLOCK > 0, one.get_inheritable()))(multipath(kind=socket.SOCK_STREAM | socket.SOCK_NONBLOCK)))
told("datagrams", lambda: multipath(kind=socket.SOCK_DGRAM))
def asked(one): return one.getsockopt(284, 1)
told("is-it", lambda: asked(multipath()))
def passes(to):
    one = multipath(); one.settimeout(30); one.connect(to); one.send(b"abc"); return one.recv(9)
told("open", lambda: passes(("127.0.0.1", PORT)))
told("closed", lambda: passes(("127.0.0.2", PORT)))
listener = multipath(); listener.bind(("127.0.0.1", 0)); listener.listen()
def serve():
    peer = listener.accept()[0]; peer.send(peer.recv(9).upper())
threading.Thread(target=serve, daemon=True).start()
told("own", lambda: passes(listener.getsockname()))
"#;

#[test]
fn who_asks_for_mptcp_gets_tcp_that_reaches_what_tcp_reaches() {
    for user in users_with_python() {
        let port = echo();
        let text = format!("import fcntl\n{MULTIPATH}");
        // With and without a rule for the outside: then its sockets are inside.
        for (rule, open) in [
            (r#"allow = ["127.0.0.1:PORT"]"#, "open b'ABC'"),
            ("", "open ECONNREFUSED"),
        ] {
            let done = crate::script(user, rule, port, &text);
            let expected = [
                "made 6",
                "made 6",
                "flags (True, False)",
                "datagrams EPROTONOSUPPORT",
                "is-it ENOTSUP",
                open,
                // The session's own loopback, where nobody listens.
                "closed ECONNREFUSED",
                "own b'ABC'",
            ];
            assert_eq!(lines(&done), expected, "{done}");
            done.assert_nothing_left();
        }
        let done = crate::script(
            user,
            r#"allow = ["203.0.113.7:PORT"]"#,
            port,
            "told('far', lambda: socket.socket(2, 1, 262).connect(('203.0.113.8', PORT)))",
        );
        assert_eq!(lines(&done), ["far EPERM"], "{done}");
        assert_eq!(done.records_for("egress.no_rule").len(), 1, "{done}");
    }
}

/// Closes a socket that lingers for an hour, to a peer that takes nothing, in the middle of calls on it that are judged.
const LINGERS: &str = r#"
libc = ctypes.CDLL(None, use_errno=True)
name = struct.pack("=H", 2) + struct.pack(">H", PORT) + socket.inet_aton("127.0.0.1") + bytes(8)
for turn in range(8):
    one = socket.create_connection(("127.0.0.1", PORT)); one.setblocking(False)
    try:
        while True: one.send(bytes(1 << 16))
    except BlockingIOError: pass
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
    # A number that nobody gets after it.
    number = os.dup2(one.fileno(), 300 + turn); one.close()
    def ask(call, number=number):
        while call(number, name, 16) == -1 and ctypes.get_errno() != errno.EBADF: pass
    asking = [threading.Thread(target=ask, args=[call], daemon=True) for call in (libc.bind, libc.connect)]
    for thread in asking: thread.start()
    # Whoever closes it last waits, and that may be this thread, or without a session too the one that connects.
    threading.Thread(target=os.close, args=[number], daemon=True).start()
    asking[0].join()
    other = socket.socket(); other.bind(("127.0.0.1", 0)); other.close()
print("on", flush=True); os._exit(0)
"#;

#[test]
fn a_socket_that_lingers_and_is_closed_while_a_call_on_it_is_judged_holds_up_no_other_call() {
    for user in users_with_python() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stuck = std::thread::spawn(move || (0..8).map_while(|_| listener.accept().ok()).collect::<Vec<_>>());
        let done = crate::script(user, r#"allow = ["127.0.0.1:PORT"]"#, port, LINGERS);
        assert_eq!(lines(&done), ["on"], "{done}");
        assert_eq!(done.code(), Some(0), "{done}");
        done.assert_nothing_left();
        drop(stuck.join());
    }
}
