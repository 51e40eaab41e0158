//! Datagrams from a session that may send some.

use security_v2_host::{output, users, users_with};

use crate::kit::{Attack, Catcher};
use crate::sockets::race_bare;

fn rules(open: &Catcher) -> Vec<String> {
    // A wide rule besides, as it never opens a special address.
    vec![format!("udp 127.0.0.1:{}", open.port()), "udp 0.0.0.0/0:1".to_owned()]
}

#[test]
fn only_the_open_port_gets_datagrams_whatever_the_way() {
    for user in users() {
        let (open, forbidden) = (Catcher::udp(), Catcher::udp());
        let attack = Attack::with_egress(user, &rules(&open));
        let words = ["udp-open", &open.port().to_string(), &forbidden.port().to_string()];
        let (answers, done) = attack.run(&words);
        forbidden.assert_nothing();
        open.flush();
        let mut caught = open.caught();
        caught.sort_unstable();
        assert_eq!(
            caught,
            [
                "before-listen",
                "connected",
                "control-tos",
                "copy-first",
                "mmsg-good",
                "mmsg-late",
                "mmsg-late",
                "sendto-open"
            ],
            "{done}"
        );
        for name in [
            "sendto-metadata",
            "sendto-broadcast",
            "sendto-multicast",
            "sendto6-nat64",
            "sendto6-compatible",
            "sendto6-link-local",
            "control-pktinfo",
            "control-retopts",
            "control-mark",
            "control-txtime",
            "control-rights",
            "control6-rthdr",
            "control6-pktinfo",
            "control6-hopopts",
            "reconnect-metadata",
        ] {
            assert_eq!(answers.get(name), "EPERM", "{name}: {done}");
        }
        for name in ["sendto-short", "sendto-empty"] {
            assert_eq!(answers.get(name), "EINVAL", "{name}");
        }
        assert_eq!(answers.get("listen"), "EOPNOTSUPP");
        // The one to the open port, and the one inside after it.
        assert_eq!(
            (answers.value("sendmmsg"), answers.value("sendmmsg-first")),
            (3, 10),
            "{done}"
        );
        assert!(!done.records_for("egress.control").is_empty(), "{done}");
        assert!(!done.records_for("egress.special_address").is_empty(), "{done}");
        done.assert_nothing_left();

        attack.bare(&words);
        forbidden.flush();
        let caught = forbidden.caught();
        for name in [
            "sendto",
            "sendto-any",
            "sendto-unspecified",
            "sendto6-mapped",
            "mmsg-bad",
            "connected-sendto",
            "copy",
        ] {
            assert!(caught.iter().any(|line| line == name), "{name}: {caught:?}");
        }
    }
}

#[test]
fn a_refused_message_ends_a_row_of_them_and_is_told_to_the_next_call() {
    for user in users_with(&["/usr/bin/python3"]) {
        let (open, forbidden) = (Catcher::udp(), Catcher::udp());
        let attack = Attack::with_egress(user, &rules(&open));
        let script = "
import ctypes, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def address(ip, port): return struct.pack('=H', 2) + struct.pack('>H', port) + socket.inet_aton(ip) + bytes(8)
keep = []
def header(to, data):
    name, text = ctypes.create_string_buffer(to), ctypes.create_string_buffer(data)
    vector = ctypes.create_string_buffer(struct.pack('QQ', ctypes.addressof(text), len(data)))
    keep.extend((name, text, vector))
    return struct.pack('QIIQQQQiIIi', ctypes.addressof(name), len(to), 0, ctypes.addressof(vector), 1, 0, 0, 0, 0, 0, 0)
good, bad = address('127.0.0.1', PORT), address(BAD)
row = ctypes.create_string_buffer(header(good, b'one') + header(good, b'two') + header(bad, b'bad') + header(good, b'late'))
print(libc.sendmmsg(s.fileno(), row, 4, 0))
print(libc.sendmmsg(s.fileno(), ctypes.addressof(row) + 128 and ctypes.byref(row, 128), 2, 0), ctypes.get_errno())
print([struct.unpack_from('I', row.raw, 64 * i + 56)[0] for i in range(4)])
"
        .replace("PORT", &open.port().to_string());
        let near = format!("'127.0.0.1', {}", forbidden.port());
        let [far, near] = ["'203.0.113.7', 5", &near].map(|bad| script.replace("BAD", bad));
        let words = ["/usr/bin/python3", "-c", &far];
        let done = attack.prepare_any(words.map(Into::into).to_vec()).run();
        assert_eq!(done.out(), "2\n-1 1\n[3, 3, 0, 0]\n", "{done}");
        open.flush();
        assert_eq!(open.caught(), ["one", "two"]);
        // Once for each call that it stopped.
        assert_eq!(done.records_for("egress.no_rule").len(), 2, "{done}");
        // To a port of the host's that no rule opens they go on the own loopback, where nobody is, and without a session there.
        let words = ["/usr/bin/python3", "-c", &near];
        let done = attack.prepare_any(words.map(Into::into).to_vec()).run();
        assert_eq!(done.out(), "4\n2 0\n[3, 3, 3, 4]\n", "{done}");
        forbidden.assert_nothing();
        let bare = output(std::process::Command::new(words[0]).args(&words[1..])).unwrap();
        assert_eq!(String::from_utf8_lossy(&bare.stdout), "4\n2 0\n[3, 3, 3, 4]\n");
        forbidden.flush();
        assert_eq!(forbidden.caught(), ["bad", "bad"]);
    }
}

#[test]
fn a_datagrams_address_that_changes_between_look_and_act_leads_nobody_elsewhere() {
    for user in users() {
        let (open, forbidden) = (Catcher::udp(), Catcher::udp());
        let attack = Attack::with_egress(user, &rules(&open));
        let (open_port, forbidden_port) = (open.port().to_string(), forbidden.port().to_string());
        let (answers, done) = attack.run(&["udp-race", &open_port, &forbidden_port, "6000"]);
        assert!(answers.value("sent") > 0 && answers.value("refused") > 0, "{done}");
        forbidden.assert_nothing();
        race_bare(&attack, &["udp-race", &open_port, &forbidden_port, "20000"], &forbidden);
    }
}

#[test]
fn a_datagram_socket_that_was_passed_on_is_judged_as_before() {
    for user in users_with(&["/usr/bin/python3"]) {
        let (open, forbidden) = (Catcher::udp(), Catcher::udp());
        let attack = Attack::with_egress(user, &rules(&open));
        let script = "
import errno, os, socket
open_, forbidden = ('127.0.0.1', OPEN), ('127.0.0.1', FORBIDDEN)
def told(name, work):
    try: print(name, work())
    except OSError as error: print(name, errno.errorcode[error.errno])
left, right = socket.socketpair()
fresh, joined = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
joined.connect(open_)
socket.send_fds(left, [b'two'], [fresh.fileno(), joined.fileno()]); fresh.close(); joined.close(); left.close()
if os.fork() == 0:
    _, fds, _, _ = socket.recv_fds(right, 9, 9)
    fresh, joined = (socket.socket(fileno=fd) for fd in fds)
    told('fresh-open', lambda: fresh.sendto(b'fresh', open_))
    told('joined-open', lambda: joined.send(b'joined'))
    told('fresh-sendto', lambda: fresh.sendto(b'sendto', forbidden))
    told('fresh-sendmsg', lambda: fresh.sendmsg([b'sendmsg'], [], 0, forbidden))
    told('fresh-connect', lambda: (fresh.connect(forbidden), fresh.send(b'connected')))
    told('joined-sendto', lambda: joined.sendto(b'sendto', forbidden))
    told('joined-sendmsg', lambda: joined.sendmsg([b'sendmsg'], [], 0, forbidden))
    told('elsewhere-sendto', lambda: joined.sendto(b'sendto', ('203.0.113.7', 5)))
    told('elsewhere-connect', lambda: joined.connect(('203.0.113.7', 5)))
    told('still', lambda: joined.send(b'joined'))
    told('joined-connect', lambda: (joined.connect(forbidden), joined.send(b'connected')))
    os._exit(0)
os.wait()
"
        .replace("OPEN", &open.port().to_string())
        .replace("FORBIDDEN", &forbidden.port().to_string());
        let words = ["/usr/bin/python3", "-u", "-c", &script];
        let done = attack.prepare_any(words.map(Into::into).to_vec()).run();
        // A port of the loopback that no rule names is the session's own.
        let expected = [
            "fresh-open 5",
            "joined-open 6",
            "fresh-sendto 6",
            "fresh-sendmsg 7",
            "fresh-connect (None, 9)",
            "joined-sendto ENETUNREACH",
            "joined-sendmsg ENETUNREACH",
            "elsewhere-sendto EPERM",
            "elsewhere-connect EPERM",
            "still 6",
            "joined-connect (None, 9)",
        ];
        assert_eq!(done.out().lines().collect::<Vec<_>>(), expected, "{done}");
        forbidden.assert_nothing();
        open.flush();
        let mut caught = open.caught();
        caught.sort_unstable();
        assert_eq!(caught, ["fresh", "joined", "joined"]);
        done.assert_nothing_left();
        let mut bare = std::process::Command::new(words[0]);
        assert!(output(bare.args(&words[1..])).unwrap().status.success());
        forbidden.flush();
        for what in ["sendto", "sendmsg", "connected"] {
            assert!(forbidden.caught().iter().any(|line| line == what), "{what}");
        }
    }
}
