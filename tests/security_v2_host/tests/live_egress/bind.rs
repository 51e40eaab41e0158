//! Ports of the host's: by rule, or left to the kernel; own ones always.

use std::sync::atomic::{AtomicU16, Ordering};

use security_v2_host::output;

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
told("by-rule", lambda: from_port(GIVEN))
told("next", lambda: from_port(NEXT))
told("ephemeral", lambda: from_port(0)[0])
def in_range():
    # Others on the host have ports of that range too.
    for number in range(33000, 60000, 1013):
        try: return from_port(number)
        except OSError as error:
            if error.errno != errno.EADDRINUSE: raise
told("in-range", in_range)
told("loopback", lambda: from_port(0, "127.0.0.1")[0])
server = datagram(("0.0.0.0", NEXT))
told("own-server", lambda: (datagram().sendto(b"b", ("127.0.0.1", NEXT)), server.recv(9)))
tcp = socket.socket(); tcp.bind(("0.0.0.0", NEXT)); tcp.listen()
told("own-stream", lambda: socket.create_connection(("127.0.0.1", NEXT), 30).getpeername()[1] == NEXT)
told("nowhere", lambda: datagram(("203.0.113.7", 0)))
"#;
        let rules = r#"allow = ["udp 127.0.0.1:PORT", "127.0.0.1:PORT"]
bind = ["udp GIVEN"]"#;
        let (given, next) = two_ports();
        let text = text.replace("GIVEN", &given).replace("NEXT", &next);
        let done = script(user, &rules.replace("GIVEN", &given), port, &text);
        let expected = [
            "by-rule (b'A', True)",
            "next EPERM",
            "ephemeral b'A'",
            "in-range (b'A', True)",
            "loopback b'A'",
            "own-server (1, b'b')",
            "own-stream True",
            "nowhere EADDRNOTAVAIL",
        ];
        assert_eq!(lines(&done), expected, "{done}");
        let records = done.records_for("egress.no_rule");
        let said: Vec<String> = records
            .iter()
            .map(|record| format!("{} {}", record.op, record.object))
            .collect();
        assert_eq!(said, [format!("bind udp 0.0.0.0:{next}")], "{done}");
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
told("fixed", lambda: to_server(GIVEN, "0.0.0.0"))
told("fixed-denied", lambda: to_server(NEXT, "0.0.0.0"))
told("ephemeral", lambda: to_server(0, "0.0.0.0")[:2])
told("loopback", lambda: to_server(0, "127.0.0.1")[:2])
"#;
        let rules = r#"allow = ["127.0.0.1:PORT"]
bind = ["tcp GIVEN"]"#;
        let (given, next) = two_ports();
        let text = text.replace("GIVEN", &given).replace("NEXT", &next);
        let rules = rules.replace("GIVEN", &given);
        let done = script(user, &rules, server.address().port(), &text);
        let expected = [
            "fixed (True, b'hello', True, True)",
            "fixed-denied EPERM",
            "ephemeral (True, b'hello')",
            "loopback (True, b'hello')",
        ];
        assert_eq!(lines(&done), expected, "{done}");
    }
}

/// Goes for the port of a service that shares it, by every way to a port of the host's; says whether it got it.
const SHARING: &str = r#"
port = SERVICE
def sharing(): made = datagram(); made.setsockopt(1, 2, 1); made.setsockopt(1, 15, 1); return made
def narrow(): made = sharing(); made.setsockopt(0, 51, struct.pack("I", port << 16 | port)); return made
to = ("127.0.0.1", PORT)
def ends(name, made, work):
    try: work(made)
    except OSError as error: return print(name, errno.errorcode[error.errno])
    print(name, made.getsockname()[1] == port)
ends("bound", sharing(), lambda one: (one.bind(("0.0.0.0", port)), one.sendto(b"a", to)))
ends("sent", narrow(), lambda one: one.sendto(b"a", to))
ends("connected", narrow(), lambda one: one.connect(to))
ends("chosen", narrow(), lambda one: one.bind(("0.0.0.0", 0)))
def again(one):
    one.setsockopt(0, 51, bytes(4)); one.connect(to); one.send(b"a")
    ctypes.CDLL(None).connect(one.fileno(), bytes(16), 16)
    one.setsockopt(0, 51, struct.pack("I", port << 16 | port)); one.sendto(b"a", to)
ends("dissolved", narrow(), again)
def written(one):
    # What has no port gets one from the kernel before it is told that it has no peer.
    told("unnamed", lambda: one.send(b""))
    one.sendto(b"a", to)
ends("written", narrow(), written)
six = datagram(six=True)
for level, name, value in ((1, 2, 1), (1, 15, 1), (0, 51, struct.pack("I", port << 16 | port))): six.setsockopt(level, name, value)
ends("six", six, lambda one: one.sendto(b"a", ("::ffff:127.0.0.1", PORT)))
free = sharing(); free.sendto(b"a", to)
told("free", lambda: free.recv(9))
told("options", lambda: (free.getsockopt(1, 2), free.getsockopt(1, 15)))
"#;

/// The option that says which ports are chosen from is not in the shipped rules.
const NARROW: &str = "[[subject.net.rule]]\nsyscall = \"setsockopt\"\neffect = \"allow\"\nwhen = [{ arg = 1, width = 32, equal = \"SOL_IP\" }, { arg = 2, width = 32, equal = 51 }]\n";

/// One that shares its port with whoever shares it too.
fn early_service() -> std::net::UdpSocket {
    use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};
    let service = socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
    sockopt::set_socket_reuseaddr(&service, true).unwrap();
    bind(&service, &std::net::SocketAddrV4::new([0, 0, 0, 0].into(), 0)).unwrap();
    service.into()
}

#[test]
fn a_port_that_a_service_of_the_hosts_shares_with_who_shares_too_is_not_the_sessions_to_take() {
    for user in users_with_python() {
        let service = early_service();
        let taken = service.local_addr().unwrap().port();
        let home = security_v2_host::Home::new(user);
        let text = SHARING.replace("SERVICE", &taken.to_string());
        let (rules, peer) = (r#"allow = ["udp 127.0.0.1:PORT"]"#, echo());
        let tree = crate::tree(&rules.replace("PORT", &peer.to_string())).append("abi.toml", NARROW);
        let done = crate::prepared(&home, rules, peer, &text).policy(&tree).run();
        let expected = [
            "bound False",
            "sent EADDRINUSE",
            "connected EADDRINUSE",
            "chosen EADDRINUSE",
            "dissolved False",
            "unnamed EDESTADDRREQ",
            "written EADDRINUSE",
            "six EADDRINUSE",
            "free b'A'",
            "options (0, 0)",
        ];
        assert_eq!(lines(&done), expected, "{done}");
        done.assert_nothing_left();
        // Without a session each has it, and the service hears no more.
        let mut bare = std::process::Command::new("/usr/bin/python3");
        let bare = output(bare.arg(home.work().join("script.py"))).unwrap();
        let bare = String::from_utf8_lossy(&bare.stdout).into_owned();
        let got = bare.lines().filter(|line| line.ends_with(" True")).count();
        assert_eq!(got, 7, "{bare}");
    }
}

/// Takes the port that each datagram comes from, sharing it with whoever shares it too; says what became of that.
fn late_service() -> u16 {
    use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};
    let open = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let own = open.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut bytes = [0; 16];
        while let Ok((_, from)) = open.recv_from(&mut bytes) {
            let service = socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
            sockopt::set_socket_reuseaddr(&service, true).unwrap();
            sockopt::set_socket_reuseport(&service, true).unwrap();
            let any = std::net::SocketAddrV4::new([0, 0, 0, 0].into(), from.port());
            let became = bind(&service, &any).map_or_else(|error| error.to_string(), |()| "shared".to_owned());
            drop(service);
            open.send_to(became.split('(').next().unwrap().trim().as_bytes(), from)
                .unwrap();
        }
    });
    own
}

/// Shares its port in every way and at every time.
const SHARED_LATER: &str = r#"
to = ("127.0.0.1", PORT)
def share(one):
    for name in (2, 15): one.setsockopt(1, name, 1)
def asked(one): one.sendto(b"a", to); return one.recv(99).decode()
def before(one): share(one); return asked(one)
def bound(at):
    def run(one): share(one); one.bind(at); return asked(one)
    return run
def named(one):
    share(one)
    for number in range(33000, 60000, 1013):
        try: one.bind(("0.0.0.0", number)); return asked(one)
        except OSError as error:
            if error.errno != errno.EADDRINUSE: raise
def joined(one): share(one); one.connect(to); one.send(b"a"); return one.recv(99).decode()
def afterwards(one): asked(one); share(one); return asked(one)
def one_each(name):
    def run(one): asked(one); one.setsockopt(1, name, 1)
    return run
def anew(one):
    share(one); one.connect(to); ctypes.CDLL(None).connect(one.fileno(), bytes(16), 16); return asked(one)
def written(one):
    share(one)
    try: one.send(b"")
    except OSError: pass
    return asked(one)
def undone(one):
    asked(one); one.connect(to); ctypes.CDLL(None).connect(one.fileno(), bytes(16), 16)
    try: share(one)
    except OSError: pass
    return written(one) if one.getsockname()[1] == 0 else asked(one)
def inside_first(one): one.bind(("0.0.0.0", 0)); share(one); return asked(one)
def raced(one):
    over = []
    def hammer():
        while not over:
            try: share(one)
            except OSError: pass
    threads = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in threads: thread.start()
    asked(one); time.sleep(0.05); over.append(1)
    for thread in threads: thread.join()
    return asked(one)
def written_in_between(_):
    # In the moment between getting a socket on the host and its being bound there.
    became = set()
    for _ in range(20):
        one = datagram(); share(one); first = one.getsockopt(1, 57, 8); over = []
        def writes():
            while not over and one.getsockopt(1, 57, 8) == first: pass
            try: one.send(b"")
            except OSError: pass
        thread = threading.Thread(target=writes); thread.start()
        # Whoever names a socket while it is being named may be told that it has a name, as by any bind.
        try: became.add(asked(one))
        except OSError as error:
            if error.errno != errno.EINVAL: raise
        over.append(1); thread.join()
    return " ".join(became)
for name, work in (("before", before), ("chosen", bound(("0.0.0.0", 0))), ("named", named), ("here", bound(("127.0.0.1", 0))), ("joined", joined), ("written", written),
        ("afterwards", afterwards), ("addr", one_each(2)), ("port", one_each(15)), ("anew", anew), ("undone", undone), ("inside", inside_first), ("raced", raced),
        ("between", written_in_between)):
    told(name, lambda: work(datagram()))
told("off", lambda: (lambda one: (asked(one), one.setsockopt(1, 2, 0)))(datagram())[1])
inside = [datagram() for _ in range(2)]
for one in inside: share(one); one.bind(("127.0.0.1", 4000))
told("own", lambda: [one.getsockname()[1] for one in inside])
told("unix", lambda: socket.socket(socket.AF_UNIX).setsockopt(1, 2, 1))
told("stream", lambda: (lambda one: (share(one), one.getsockopt(1, 2)))(socket.socket())[1])
told("stream-bound", lambda: (lambda one: (one.bind(("0.0.0.0", 0)), share(one), one.getsockopt(1, 2)))(socket.socket())[2])
told("short", lambda: inside[0].setsockopt(1, 2, b"123"))
libc = ctypes.CDLL(None, use_errno=True)
def by_number(number, pointer): libc.setsockopt(number, 1, 2, pointer, 4); return errno.errorcode[ctypes.get_errno()]
told("none", lambda: by_number(inside[0].fileno(), 8))
told("file", lambda: by_number(os.open("/dev/null", 0), b"1234"))
told("closed", lambda: by_number(99, b"1234"))
"#;

#[test]
fn a_service_of_the_hosts_that_would_share_a_port_of_the_sessions_does_not_get_it() {
    for user in users_with_python() {
        let home = security_v2_host::Home::new(user);
        let run = crate::prepared(&home, r#"allow = ["udp 127.0.0.1:PORT"]"#, late_service(), SHARED_LATER);
        let done = run.run();
        let kept = "Address already in use";
        let expected: Vec<String> = ["before", "chosen", "named", "here", "joined", "written"]
            .map(|name| format!("{name} {kept}"))
            .into_iter()
            .collect();
        assert_eq!(lines(&done)[..6], expected, "{done}");
        let rest = [
            "afterwards EPERM",
            "addr EPERM",
            "port EPERM",
            &format!("anew {kept}"),
            &format!("undone {kept}"),
            &format!("inside {kept}"),
            &format!("raced {kept}"),
            &format!("between {kept}"),
            "off None",
            "own [4000, 4000]",
            "unix None",
            "stream 1",
            "stream-bound 1",
            "short EINVAL",
            "none EFAULT",
            "file ENOTSOCK",
            "closed EBADF",
        ];
        assert_eq!(lines(&done)[6..], rest, "{done}");
        let records = done.records_for("egress.no_rule");
        let shared = records.iter().filter(|record| record.object.ends_with(", shared"));
        assert!(shared.count() >= 3, "{done}");
        done.assert_nothing_left();
        // Without a session the service has the port as well, whenever it was asked to be shared.
        let mut bare = std::process::Command::new("/usr/bin/python3");
        let bare = output(bare.arg(home.work().join("script.py"))).unwrap();
        let bare = String::from_utf8_lossy(&bare.stdout).into_owned();
        let shared = bare.lines().filter(|line| line.ends_with(" shared")).count();
        assert_eq!(shared, 12, "{bare}");
    }
}

/// Sends to whoever named its port over a stream, and never heard of it before.
fn caller() -> std::net::SocketAddr {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut port) = (stream.unwrap(), [0; 2]);
            while stream.read_exact(&mut port).is_ok() {
                let from = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
                let _ = from.send_to(b"called", ("127.0.0.1", u16::from_be_bytes(port)));
                stream.write_all(b".").unwrap();
            }
        }
    });
    own
}

#[test]
fn a_port_that_a_rule_gives_is_on_the_host_at_once_and_may_be_shared_there_and_another_hears_from_who_it_sent_to() {
    for user in users_with_python() {
        let given = free_port();
        let text = r#"
peer = socket.create_connection(("127.0.0.1", PORT), 30)
def called(one): peer.sendall(struct.pack("!H", one.getsockname()[1])); peer.recv(1); one.settimeout(0.2); return one.recv(9)
first = datagram(); first.setsockopt(1, 2, 1); first.bind(("0.0.0.0", GIVEN))
told("given", lambda: called(first))
second = datagram(); second.setsockopt(1, 2, 1)
told("shared", lambda: (second.bind(("0.0.0.0", GIVEN)), second.getsockopt(1, 2)))
told("later", lambda: second.setsockopt(1, 2, 1))
any = datagram(("0.0.0.0", 0)); told("any", lambda: called(any))
any.settimeout(30); told("sent", lambda: any.sendto(b"x", ("127.0.0.1", GIVEN)))
told("any-sent", lambda: called(any))
"#;
        let rules = r#"allow = ["127.0.0.1:PORT", "udp 127.0.0.1:GIVEN"]
bind = ["udp GIVEN"]"#;
        let given = given.to_string();
        let done = script(
            user,
            &rules.replace("GIVEN", &given),
            caller().port(),
            &text.replace("GIVEN", &given),
        );
        let expected = [
            "given b'called'",
            "shared (None, 1)",
            "later None",
            "any timed out",
            "sent 1",
            "any-sent b'called'",
        ];
        assert_eq!(lines(&done), expected, "{done}");
    }
}

#[test]
fn who_shares_a_port_that_a_rule_gives_and_gives_it_up_shares_no_other() {
    for user in users_with_python() {
        let service = early_service();
        // Of those that the kernel chooses from. Free now; who takes it meanwhile fails the test, and says so.
        let given = early_service().local_addr().unwrap().port();
        let taken = service.local_addr().unwrap().port();
        let text = r#"
def chosen_from(one, port): one.setsockopt(0, 51, struct.pack("I", port << 16 | port))
one = datagram(); chosen_from(one, GIVEN)
told("unnamed", lambda: one.send(b""))
told("given", lambda: (one.getsockname()[1] == GIVEN, one.setsockopt(1, 2, 1)))
chosen_from(one, TAKEN)
told("dissolved", lambda: (ctypes.CDLL(None).connect(one.fileno(), bytes(16), 16), one.getsockname()[1]))
# Without a port to have it is EAGAIN, which Python would try again until its time is over.
one.settimeout(0)
try: one.send(b"")
except OSError: pass
told("taken", lambda: one.getsockname()[1] == TAKEN)
"#;
        let text = text
            .replace("GIVEN", &given.to_string())
            .replace("TAKEN", &taken.to_string());
        let home = security_v2_host::Home::new(user);
        let tree = format!("allow = [\"udp 127.0.0.1:9\"]\nbind = [\"udp {given}\"]");
        let tree = crate::tree(&tree).append("abi.toml", NARROW);
        let done = crate::prepared(&home, "", 9, &text).policy(&tree).run();
        let both = ["unnamed EDESTADDRREQ", "given (True, None)", "dissolved (0, 0)"];
        assert_eq!(lines(&done), [&both[..], &["taken False"]].concat(), "{done}");
        let mut bare = std::process::Command::new("/usr/bin/python3");
        let bare = output(bare.arg(home.work().join("script.py"))).unwrap();
        let bare = String::from_utf8_lossy(&bare.stdout).into_owned();
        assert_eq!(bare.lines().collect::<Vec<_>>(), [&both[..], &["taken True"]].concat());
    }
}

/// One that is free for both protocols, and that the kernel gives to nobody who does not ask for it (`ip_local_port_range`).
fn free_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    // The tests of another process begin elsewhere.
    let first = u16::try_from(std::process::id() % 1000).unwrap() * 10;
    let free = |port: &u16| {
        let at = (std::net::Ipv4Addr::UNSPECIFIED, *port);
        std::net::UdpSocket::bind(at).is_ok() && std::net::TcpListener::bind(at).is_ok()
    };
    std::iter::repeat_with(|| 20_000 + (first + TAKEN.fetch_add(1, Ordering::Relaxed)) % 12_000)
        .take(12_000)
        .find(free)
        .expect("a free port")
}

/// [`free_port`], and another.
fn two_ports() -> (String, String) {
    (free_port().to_string(), free_port().to_string())
}
