//! Addresses that a socket cannot use: no rule could open them, and what is said of them is Linux's own.

use crate::{KIT, echo, lines, script, users_with_python};

const ASKS: &str = r#"
libc = ctypes.CDLL(None, use_errno=True)
def four(port, ip="203.0.113.7"): return struct.pack("=H", 2) + struct.pack(">H", port) + socket.inet_aton(ip) + bytes(8)
def six(port, ip="2001:db8::7"): return struct.pack("=H", 10) + struct.pack(">HI", port, 0) + socket.inet_pton(socket.AF_INET6, ip) + bytes(4)
def other(family, length): return struct.pack("=H", family) + bytes(length - 2)
def said(result): return errno.errorcode[ctypes.get_errno()] if result < 0 else result
def connect(one, name): return said(libc.connect(one.fileno(), name, len(name)))
def send(one, name): return said(libc.sendto(one.fileno(), b"x", 1, 0, name, len(name)))
neither = {"short": four(9)[:15], "one": b"\2", "none": b"", "unix": other(1, 30), "unknown": other(99, 16), "unknown-long": other(99, 28), "negative": other(65535, 28)}
of_six = {"six": six(9), "mapped": six(9, "::ffff:203.0.113.7"), "six-24": six(9)[:24], "six-20": six(9)[:20], **neither}
for name, address in of_six.items():
    print("four-stream", name, connect(socket.socket(2, 1), address))
    print("four-datagram", name, connect(socket.socket(2, 2), address), send(socket.socket(2, 2), address) if address else "")
for name, address in {"four": four(9), "four-long": four(9) + bytes(12), "six-20": six(9)[:20], **neither}.items():
    print("six-stream", name, connect(socket.socket(10, 1), address))
for name, address in {"six-20": six(9)[:20], **neither}.items():
    print("six-datagram", name, connect(socket.socket(10, 2), address), send(socket.socket(10, 2), address) if address else "")
for name, one, address in (("four", socket.socket(2, 2), four(0)), ("six", socket.socket(10, 2), six(0)), ("mapped", socket.socket(10, 2), six(0, "::ffff:203.0.113.7"))):
    print("to-port-0", name, send(one, address))
peer = socket.create_server(("127.0.0.1", 0)); one = socket.create_connection(peer.getsockname())
for name, address in of_six.items(): print("connected", name, connect(one, address))
"#;

#[test]
fn what_no_socket_could_use_is_told_as_without_a_session_and_is_no_deny() {
    for user in users_with_python() {
        let port = echo();
        let rules = r#"allow = ["127.0.0.1:PORT", "udp 127.0.0.1:PORT"]"#;
        let done = script(user, rules, port, ASKS);
        let mut bare = std::process::Command::new("/usr/bin/python3");
        let bare = security_v2_host::output(bare.args(["-c", &format!("{KIT}\n{ASKS}")])).unwrap();
        let bare = String::from_utf8_lossy(&bare.stdout);
        assert!(bare.lines().count() > 50, "{bare}");
        assert_eq!(lines(&done), bare.lines().collect::<Vec<_>>(), "{done}");
        for reason in ["egress.no_rule", "egress.special_address"] {
            assert_eq!(done.records_for(reason).len(), 0, "{done}");
        }
        // Their nearest neighbours, of the right family and length, are judged.
        let neighbours = r#"
told("stream", lambda: socket.socket(2, 1).connect(("203.0.113.7", 9)))
told("six", lambda: socket.socket(10, 1).connect(("2001:db8::7", 9)))
told("datagram", lambda: socket.socket(2, 2).sendto(b"x", ("203.0.113.7", 1)))
told("port-0", lambda: socket.socket(2, 2).connect(("203.0.113.7", 0)))
"#;
        let done = script(user, rules, port, neighbours);
        assert_eq!(
            lines(&done),
            ["stream EPERM", "six EPERM", "datagram EPERM", "port-0 EPERM"],
            "{done}"
        );
        assert_eq!(done.records_for("egress.no_rule").len(), 4, "{done}");
    }
}
