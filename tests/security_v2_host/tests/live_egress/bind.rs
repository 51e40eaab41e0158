//! Ports of the host's: by rule, or left to the kernel; own ones always.

use crate::{echo, lines, script, users_with_python};

#[test]
fn a_fixed_port_of_the_host_needs_a_rule_and_an_ephemeral_one_none() {
    for user in users_with_python() {
        let port = echo();
        let text = r#"
to = ("127.0.0.1", PORT)
def from_port(number, at="0.0.0.0"):
    made = datagram((at, number)); made.sendto(b"a", to)
    return made.recv(9), made.getsockname()[1] == number
told("by-rule", lambda: from_port(5999))
told("next", lambda: from_port(5998))
told("ephemeral", lambda: from_port(0)[0])
def in_range():
    # Others on the host have ports of that range too.
    for number in range(33000, 60000, 1013):
        try: return from_port(number)
        except OSError as error:
            if error.errno != errno.EADDRINUSE: raise
told("in-range", in_range)
told("loopback", lambda: from_port(0, "127.0.0.1")[0])
server = datagram(("0.0.0.0", 5998))
told("own-server", lambda: (datagram().sendto(b"b", ("127.0.0.1", 5998)), server.recv(9)))
tcp = socket.socket(); tcp.bind(("0.0.0.0", 5997)); tcp.listen()
told("own-stream", lambda: socket.create_connection(("127.0.0.1", 5997), 30).getpeername()[1])
told("nowhere", lambda: datagram(("203.0.113.7", 0)))
"#;
        let rules = r#"allow = ["udp 127.0.0.1:PORT", "127.0.0.1:PORT"]
bind = ["udp 5999"]"#;
        let done = script(user, rules, port, text);
        let expected = [
            "by-rule (b'A', True)",
            "next EPERM",
            "ephemeral b'A'",
            "in-range (b'A', True)",
            "loopback b'A'",
            "own-server (1, b'b')",
            "own-stream 5997",
            "nowhere EADDRNOTAVAIL",
        ];
        assert_eq!(lines(&done), expected, "{done}");
        let records = done.records_for("egress.no_rule");
        let said: Vec<String> = records
            .iter()
            .map(|record| format!("{} {}", record.op, record.object))
            .collect();
        assert_eq!(said, ["bind udp 0.0.0.0:5998"], "{done}");
    }
}

#[test]
fn a_stream_keeps_the_port_and_the_options_that_it_was_given_before_it_connected() {
    for user in users_with_python() {
        let server = security_v2_host::Server::new([127, 0, 0, 1].into());
        let text = r#"
def to_server(number, at):
    made = socket.socket(); made.settimeout(30)
    # The last run's connection may not be forgotten yet.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1); made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 40000); made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 5))
    options = lambda: [made.getsockopt(1, 9), made.getsockopt(6, 1), made.getsockopt(1, 8), made.getsockopt(1, 13, 8)]
    before = options()
    made.bind((at, number)); bound = made.getsockname()[1]
    loop = select.epoll(); loop.register(made.fileno(), select.EPOLLIN)
    made.connect(("127.0.0.1", PORT)); made.send(b"hello")
    return loop.poll(30)[0][0] == made.fileno(), made.recv(9), made.getsockname()[1] == bound, options() == before
told("fixed", lambda: to_server(5996, "0.0.0.0"))
told("fixed-denied", lambda: to_server(5995, "0.0.0.0"))
told("ephemeral", lambda: to_server(0, "0.0.0.0")[:2])
told("loopback", lambda: to_server(0, "127.0.0.1")[:2])
"#;
        let rules = r#"allow = ["127.0.0.1:PORT"]
bind = ["tcp 5996"]"#;
        let done = script(user, rules, server.address().port(), text);
        let expected = [
            "fixed (True, b'hello', True, True)",
            "fixed-denied EPERM",
            "ephemeral (True, b'hello')",
            "loopback (True, b'hello')",
        ];
        assert_eq!(lines(&done), expected, "{done}");
    }
}
