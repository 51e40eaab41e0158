//! Places on the network that no rule opens.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use security_v2_host::{closed_port, eventually, output, spawn, users, users_with};

use crate::kit::{Answers, Attack, Catcher};

fn open(port: u16) -> Vec<String> {
    vec![format!("127.0.0.1:{port}"), format!("[::1]:{port}")]
}

#[test]
fn only_tcp_udp_and_unix_sockets_with_a_peer_can_be_made() {
    for user in users() {
        // With a rule for the outside and without.
        for rules in [open(1), Vec::new()] {
            let attack = Attack::with_egress(user, &rules);
            let (answers, _) = attack.run(&["families"]);
            let mptcp = ["mptcp", "mptcp6", "mptcp-clean", "mptcp-dirty"];
            let others = ["tcp", "tcp6", "udp", "unix-stream"];
            answers.assert_only(&[&mptcp[..], &others[..]].concat(), 40);
            let tcp = i64::from(rustix::net::ipproto::TCP.as_raw().get());
            for made in ["mptcp-clean", "mptcp-dirty"] {
                assert_eq!(answers.value(made), tcp, "{made}");
            }
            let bare = attack.bare(&["families"]);
            bare.assert_ok(&["unix-dgram", "netlink-route", "pair-dgram", "tcp"]);
            // The kernel reads the same number of both, where it has the protocol.
            assert_eq!(bare.value("mptcp-dirty"), bare.value("mptcp-clean"));
        }
    }
}

#[test]
fn no_option_or_request_changes_where_a_socket_goes_or_tells_of_the_host() {
    for user in users() {
        // With a rule for the outside: the socket lives on the host.
        let attack = Attack::with_egress(user, &open(1));
        let (answers, _) = attack.run(&["options"]);
        answers.assert_only(&["tcp-TCP_NODELAY", "tcp6-TCP_NODELAY"], 90);
        attack
            .bare(&["options"])
            .assert_ok(&["tcp-TCP_FASTOPEN_CONNECT", "tcp-SO_DONTROUTE"]);
    }
}

/// What lists interfaces, and what asks for each: names, addresses, numbers.
const INTERFACES: &str = r#"
import array, errno, fcntl, socket, struct, sys
def told(name, work):
    try: print(name, work())
    except OSError as error: print(name, errno.errorcode[error.errno])
def names(one, room=40 * 64):
    space = array.array("B", bytes(room)); at = space.buffer_info()[0]
    length = struct.unpack("i4x8x", fcntl.ioctl(one, 0x8912, struct.pack("i4xQ", room, at)))[0]
    entries = [bytes(space[i:i + 40]) for i in range(0, length, 40)]
    return [(entry[:16].rstrip(b"\0").decode(), socket.inet_ntoa(entry[20:24])) for entry in entries]
def ask(one, command, name): return fcntl.ioctl(one, command, struct.pack("16s24x", name))[16:]
for family in (socket.AF_INET, socket.AF_INET6):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        one = socket.socket(family, kind)
        told("list", lambda: names(one)); told("no-room", lambda: names(one, 39))
        told("needed", lambda: struct.unpack("i4x8x", fcntl.ioctl(one, 0x8912, struct.pack("i4xQ", -7, 0)))[0])
        told("index", lambda: struct.unpack("i", ask(one, 0x8933, b"lo")[:4])[0])
        told("name", lambda: fcntl.ioctl(one, 0x8910, struct.pack("16si20x", b"", 1))[:16].rstrip(b"\0"))
        told("up", lambda: struct.unpack("H", ask(one, 0x8913, b"lo")[:2])[0] & 9)
        told("mask", lambda: socket.inet_ntoa(ask(one, 0x891b, b"lo")[4:8]))
        for host in sys.argv[1:]: told("host", lambda: ask(one, 0x8933, host.encode()) and "told")
told("far", lambda: fcntl.ioctl(one, 0x8912, struct.pack("i4xQ", 4000, 1 << 46)))
told("pipe", lambda: names(sys.stdout))
"#;

#[test]
fn what_lists_interfaces_is_told_of_the_sessions_own_network_wherever_its_socket_lives() {
    let hosts: Vec<String> = std::fs::read_dir("/sys/class/net")
        .map(|entries| {
            entries
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect()
        })
        .unwrap_or_default();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).filter(|name| *name != "lo").collect();
    for user in users_with(&["/usr/bin/python3"]) {
        // Without and with a rule for the outside: then the sockets live on the host.
        for rules in [vec![], vec!["127.0.0.1:1".to_owned(), "udp 127.0.0.1:1".to_owned()]] {
            let attack = Attack::with_egress(user, &rules);
            let words = [&["/usr/bin/python3", "-c", INTERFACES][..], &hosts].concat();
            let done = attack.prepare_any(words.iter().map(Into::into).collect()).run();
            let mut each = vec![
                "list [('lo', '127.0.0.1')]",
                "no-room []",
                "needed 40",
                "index 1",
                "name b'lo'",
                "up 9",
                "mask 255.0.0.0",
            ];
            each.extend(hosts.iter().map(|_| "host ENODEV"));
            let mut expected = each.repeat(4);
            expected.extend(["far EFAULT", "pipe ENOTTY"]);
            assert_eq!(done.out().lines().collect::<Vec<_>>(), expected, "{done}");
            let bare = output(std::process::Command::new(words[0]).args(&words[1..])).unwrap();
            let told = String::from_utf8_lossy(&bare.stdout)
                .lines()
                .filter(|line| *line == "host told")
                .count();
            assert_eq!(told, 4 * hosts.len());
            done.assert_nothing_left();
        }
    }
}

#[test]
fn every_form_of_an_address_leads_where_the_judged_address_leads() {
    for user in users() {
        let host = Catcher::tcp("127.0.0.1");
        let other = Catcher::tcp_at("127.0.0.2", host.port());
        let port = host.port().to_string();
        let allowed = Attack::with_egress(user, &[format!("127.0.0.1:{port}")]);
        let (answers, _) = allowed.run(&["forms", &port]);
        let loopback = ["127.0.0.1", "0.0.0.0", "::ffff:127.0.0.1", "::ffff:0.0.0.0"];
        answers.assert_only(&loopback, 20);
        host.flush();
        let mut caught = host.caught();
        caught.sort_unstable();
        let mut expected = loopback.to_vec();
        expected.sort_unstable();
        assert_eq!(caught, expected);
        for special in [
            "169.254.169.254",
            "64:ff9b::7f00:1",
            "::7f00:1",
            "fe80::1",
            "fe80::1%1",
            "2002:7f00:1::1",
        ] {
            assert_eq!(answers.get(special), "EPERM", "{special}");
        }
        if let Some(other) = other {
            other.assert_nothing();
        }

        let host = Catcher::tcp("127.0.0.1");
        let denied = Attack::with_egress(user, &open(closed_port()));
        let (answers, _) = denied.run(&["forms", &host.port().to_string()]);
        answers.assert_only(&[], 20);
        host.assert_nothing();
        denied.bare(&["forms", &host.port().to_string(), "near"]);
        host.flush();
        let mut caught = host.caught();
        caught.sort_unstable();
        assert_eq!(caught, expected);
    }
}

#[test]
fn addresses_of_any_length_and_family_reach_nobody() {
    for user in users() {
        let host = Catcher::tcp("127.0.0.1");
        let attack = Attack::with_egress(user, &open(closed_port()));
        let (answers, _) = attack.run(&["lengths", &host.port().to_string()]);
        host.assert_nothing();
        for name in [
            "empty",
            "one-byte",
            "family-only",
            "short-15",
            "over-129",
            "negative",
            "huge",
        ] {
            assert_eq!(answers.get(name), "EINVAL", "{name}");
        }
        let bare = attack.bare(&["lengths", &host.port().to_string()]);
        bare.assert_ok(&["exact-16", "long-128", "dirty-16"]);
        host.assert_something();
    }
}

#[test]
fn data_in_the_first_packet_connects_to_nobody() {
    for user in users() {
        let host = Catcher::tcp("127.0.0.1");
        let port = host.port().to_string();
        let attack = Attack::with_egress(user, &open(closed_port()));
        let (answers, _) = attack.run(&["fast-open", &port]);
        host.assert_nothing();
        for name in ["sendto", "sendto-dirty", "sendmsg", "sendmmsg", "option"] {
            assert_eq!(answers.get(name), "EPERM", "{name}");
        }
        attack
            .bare(&["fast-open", &port])
            .assert_ok(&["sendto", "sendmsg", "sendmmsg", "option"]);
        host.assert_something();
    }
}

#[test]
fn a_connection_that_is_allowed_is_no_ticket_to_another_place() {
    for user in users() {
        let (allowed, forbidden) = (Catcher::tcp("127.0.0.1"), Catcher::tcp("127.0.0.1"));
        let attack = Attack::with_egress(user, &open(allowed.port()));
        let words = ["reconnect", &allowed.port().to_string(), &forbidden.port().to_string()];
        let (answers, _) = attack.run(&words);
        answers.assert_ok(&["first"]);
        answers.assert_refused(&["again", "after-dissolve", "after-shutdown"]);
        forbidden.assert_nothing();
        attack.bare(&words).assert_ok(&["first", "after-dissolve"]);
        forbidden.assert_something();
    }
}

#[test]
fn no_datagram_leaves() {
    for user in users() {
        let host = Catcher::udp();
        let port = host.port().to_string();
        // The rule is for TCP.
        let attack = Attack::with_egress(user, &open(host.port()));
        attack.run(&["udp", &port]);
        host.assert_nothing();
        attack.bare(&["udp", &port]);
        host.flush();
        assert!(host.caught().len() >= 5, "{:?}", host.caught());
    }
}

/// The ports of the host's at which somebody listens who is not this process: its other tests listen too, and a session has
/// the same numbers for ports of its own.
pub(crate) fn listening() -> Vec<u16> {
    const LISTEN: &str = "0A";
    let own: Vec<String> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter_map(|to| Some(to.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .flat_map(|path| {
            std::fs::read_to_string(path)
                .unwrap_or_default()
                .lines()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace().skip(1);
            let port = fields.next()?.rsplit_once(':')?.1.to_owned();
            let listens = fields.nth(1)? == LISTEN;
            let inode = fields.nth(5)?;
            (listens && !own.iter().any(|own| own == inode)).then(|| u16::from_str_radix(&port, 16).ok())?
        })
        .collect()
}

/// Reads what the attacker says until it is ready, looks, and lets it end.
pub(crate) fn while_ready(mut command: std::process::Command, look: impl FnOnce(&Answers)) {
    let mut child = spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped())).unwrap();
    let mut said = String::new();
    for line in BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
    {
        let ready = line.starts_with("ready ");
        said.push_str(&line);
        said.push('\n');
        if ready {
            look(&Answers::of(&said));
            break;
        }
    }
    drop(child.stdin.take());
    child.wait().unwrap();
    assert!(said.contains("ready "), "{said}");
}

#[test]
fn nothing_listens_on_the_host() {
    for user in users() {
        let closed = closed_port();
        let words = ["listen", &closed.to_string()];
        let attack = Attack::with_egress(user, &open(closed));
        while_ready(attack.prepare(&words).command(), |answers| {
            let listening = listening();
            answers.assert_ok(&["unbound", "bound", "refused", "copied"]);
            for (name, _) in answers.said.iter().filter(|(name, _)| name.ends_with("-port")) {
                let port = u16::try_from(answers.value(name)).unwrap();
                assert!(!listening.contains(&port), "{name} {port} listens on the host");
            }
        });
        while_ready(attack.bare_command(&words), |answers| {
            let listening = listening();
            for name in ["unbound-port", "bound-port", "refused-port", "copied-port"] {
                assert!(
                    listening.contains(&u16::try_from(answers.value(name)).unwrap()),
                    "{name}"
                );
            }
        });
        attack.home.assert_nothing_left();
    }
}

#[test]
fn a_socket_with_a_peer_takes_no_others_and_keeps_the_one_that_it_has() {
    for user in users() {
        let allowed = Catcher::tcp("127.0.0.1");
        let attack = Attack::with_egress(user, &open(allowed.port()));
        let words = ["listen-connected", &allowed.port().to_string()];
        for answers in [attack.run(&words).0, attack.bare(&words)] {
            answers.assert_only(&["connect"], 2);
            assert_eq!(answers.get("listen"), "EINVAL");
        }
        allowed.flush();
        assert_eq!(allowed.caught(), ["after-listen", "after-listen"]);
    }
}

#[test]
fn a_port_that_is_taken_on_the_host_is_free_inside_and_so_none_is_told_or_taken_there() {
    for user in users() {
        let taken = Catcher::tcp("127.0.0.1");
        let port = taken.port().to_string();
        // With a rule for loopback, a fresh socket lives on the host.
        let attack = Attack::with_egress(user, &open(closed_port()));
        let (answers, _) = attack.run(&["bind-taken", &port]);
        answers.assert_ok(&["bind-taken"]);
        attack.bare(&["bind-taken", &port]).assert_refused(&["bind-taken"]);
    }
}

#[test]
fn calls_of_another_table_and_rings_reach_nobody() {
    for user in users() {
        let (streams, datagrams) = (Catcher::tcp("127.0.0.1"), Catcher::udp());
        // A neighbour is open: sockets for the outside are there to be used.
        let closed = closed_port();
        let rules = [format!("127.0.0.1:{closed}"), format!("udp 127.0.0.1:{closed}")];
        let attack = Attack::with_egress(user, &rules);
        for catcher in [&streams, &datagrams] {
            let port = catcher.port().to_string();
            let (answers, done) = attack.run(&["int80", &port]);
            answers.assert_only(&[], 7);
            assert_eq!(done.records_for("abi.foreign").len(), 7, "{done}");
            let (answers, _) = attack.run(&["ring", &port]);
            answers.assert_only(&[], 1);
            catcher.assert_nothing();
            attack.bare(&["int80", &port]);
            catcher.flush();
            let caught = catcher.caught();
            assert!(caught.iter().any(|line| line == "socketcall"), "{caught:?}");
        }
        // Where the kernel gives everybody rings.
        let bare = attack.bare(&["ring", &streams.port().to_string()]);
        if bare.get("ring-setup") == "ok" {
            streams.flush();
            assert!(streams.caught().contains(&"ring".to_owned()), "{bare}");
        }
        attack.home.assert_nothing_left();
    }
}

#[test]
fn a_socket_that_was_passed_on_is_judged_as_before() {
    for user in users() {
        let closed = closed_port();
        let forbidden = Catcher::tcp("127.0.0.1");
        let words = ["pass", &closed.to_string(), &forbidden.port().to_string()];
        let attack = Attack::with_egress(user, &open(closed));
        while_ready(attack.prepare(&words).command(), |answers| {
            answers.assert_ok(&["sent", "received"]);
            answers.assert_refused(&["passed-connect"]);
        });
        forbidden.assert_nothing();
        while_ready(attack.bare_command(&words), |answers| {
            answers.assert_ok(&["passed-connect"])
        });
        forbidden.assert_something();
    }
}

/// A race without a guard is won sooner or later, and no machine says how soon.
pub(crate) fn race_bare(attack: &Attack, words: &[&str], forbidden: &Catcher) {
    const TRIES: usize = 200;
    for _ in 0..TRIES {
        attack.bare(words);
        forbidden.flush();
        if !forbidden.caught().is_empty() {
            return;
        }
    }
    panic!("{words:?}: nothing arrives without a guard either");
}

#[test]
fn an_address_that_changes_between_look_and_act_reaches_nobody_else() {
    for user in users() {
        let (allowed, forbidden) = (Catcher::tcp("127.0.0.1"), Catcher::tcp("127.0.0.1"));
        let (open_port, forbidden_port) = (allowed.port().to_string(), forbidden.port().to_string());
        let attack = Attack::with_egress(user, &open(allowed.port()));
        let (answers, done) = attack.run(&["race-address", &open_port, &forbidden_port, "3000"]);
        // Both were seen, or nothing raced.
        assert!(answers.value("connected") > 0 && answers.value("refused") > 0, "{done}");
        forbidden.assert_nothing();
        race_bare(
            &attack,
            &["race-address", &open_port, &forbidden_port, "2000"],
            &forbidden,
        );
    }
}

#[test]
fn a_descriptor_that_changes_between_look_and_act_reaches_nobody_else() {
    for user in users() {
        let (allowed, forbidden) = (Catcher::tcp("127.0.0.1"), Catcher::tcp("127.0.0.1"));
        let attack = Attack::with_egress(user, &open(allowed.port()));
        let path = attack.home.work().join("host.sock");
        let host = Catcher::unix(&path);
        let path = path.to_string_lossy();
        let (open_port, forbidden_port) = (allowed.port().to_string(), forbidden.port().to_string());
        let (answers, done) = attack.run(&["race-descriptor", &open_port, &forbidden_port, &path, "6000"]);
        assert!(answers.value("connected") > 0 && answers.value("refused") > 0, "{done}");
        forbidden.assert_nothing();
        host.assert_nothing();
        // The racer listens as well; on the host it must not have.
        attack.home.assert_nothing_left();
        race_bare(
            &attack,
            &["race-descriptor", &open_port, &forbidden_port, &path, "3000"],
            &forbidden,
        );
    }
}

#[test]
fn pointers_that_are_hard_to_read_end_in_an_error_and_hang_nobody() {
    for user in users() {
        let allowed = Catcher::tcp("127.0.0.1");
        let attack = Attack::with_egress(user, &open(allowed.port()));
        for area in ["/tmp", "/state", "/dev/shm"] {
            let (answers, done) = attack.run(&["pointers", &allowed.port().to_string(), area]);
            assert_eq!(done.code(), Some(0), "{done}");
            answers.assert_ok(&["own-file", "ready"]);
            for name in [
                "null",
                "kernel",
                "non-canonical",
                "last",
                "no-access",
                "across-the-end",
                "past-the-end",
            ] {
                assert_eq!(answers.get(name), "EFAULT", "{name}");
            }
        }
    }
}

#[test]
fn many_connects_at_once_are_all_answered_and_leave_the_session_alive() {
    for user in users() {
        let allowed = Catcher::tcp("127.0.0.1");
        let attack = Attack::with_egress(user, &open(allowed.port()));
        let (answers, done) = attack.run(&["parallel", &allowed.port().to_string(), "450"]);
        let answered: i64 = answers
            .said
            .keys()
            .filter(|name| *name != "after")
            .map(|name| answers.value(name))
            .sum();
        assert_eq!(answered, 450, "{done}");
        answers.assert_ok(&["after", "connected"]);
        done.assert_nothing_left();
    }
}

/// The supervisor of the `nx` that this process started: its child of that name.
pub(crate) fn supervisor_of(nx: u32) -> Option<rustix::process::Pid> {
    let children = std::fs::read_to_string(format!("/proc/{nx}/task/{nx}/children")).ok()?;
    children.split_ascii_whitespace().find_map(|child| {
        let name = std::fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
        (name.trim() == "nx-supervisor").then(|| rustix::process::Pid::from_raw(child.parse().ok()?))?
    })
}

#[test]
fn with_its_judge_killed_in_the_middle_of_connects_nothing_gets_through() {
    for user in users() {
        let (allowed, forbidden) = (Catcher::tcp("127.0.0.1"), Catcher::tcp("127.0.0.1"));
        let attack = Attack::with_egress(user, &open(allowed.port()));
        let (open_port, forbidden_port) = (allowed.port().to_string(), forbidden.port().to_string());
        // More rounds than anybody waits for.
        let mut command = attack
            .prepare(&["race-address", &open_port, &forbidden_port, "100000000"])
            .command();
        let mut child = spawn(
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped()),
        )
        .unwrap();
        eventually("it connects", || {
            assert!(child.try_wait().unwrap().is_none());
            allowed.caught().len() >= 20
        });
        let supervisor = supervisor_of(child.id()).expect("a supervisor");
        rustix::process::kill_process(supervisor, rustix::process::Signal::KILL).unwrap();
        eventually("it ends", || child.try_wait().unwrap().is_some());
        let done = child.wait_with_output().unwrap();
        assert_eq!(done.status.code(), Some(7), "{}", String::from_utf8_lossy(&done.stderr));
        forbidden.assert_nothing();
        attack.home.assert_nothing_left();
        let words = ["race-address", &open_port, &forbidden_port, "2000"];
        race_bare(&attack, &words, &forbidden);
    }
}
