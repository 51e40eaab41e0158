//! Destinations by name: what is resolved, what that opens, and what it does not.

mod clients;
mod programs;

use std::sync::Arc;

use nexus_audit::Judgement;
use security_v2_host::{Home, Output, Town, Tree, User, users};

const RULES: &str = r#"
[subject.named]
allow = ["git.example.org:80,8080", "short.example.org:80", "long.example.org:80", "*.example.net:80", "udp *.example.net:4433",
    "listed.example.org:80", "trap.example.org:80"]
deny = ["closed.example.net:80", "udp closed.example.net:4433", "203.0.113.10:80"]
"#;

pub(crate) fn tree(rules: &str) -> Tree {
    Tree::shipped()
        .append("nexus.policy.toml", "[subject.named]\ndomain = \"tools\"\n")
        .append("sandbox.toml", "[subject.named]\nwork = \"unmetered\"\n")
        .append("egress.toml", rules)
}

/// What all of these scripts begin with.
const KIT: &str = r#"
import os, select, socket, struct, sys, threading, time
def told(name, work):
    try: print(name, work())
    except OSError as error: print(name, error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno))
def addresses(name, port=80):
    return sorted({entry[4][0] for entry in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)})
def get(where, port=80):
    with socket.create_connection((where, port), 30) as peer:
        peer.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return peer.recv(100)[-6:].decode().strip()
"#;

fn in_town(user: User, rules: &str, script: &str) -> Option<(Town, Arc<Home>, Output)> {
    let home = Home::new(user);
    let town = Town::new(&home)?;
    let script = home.write_work("script.py", &format!("{KIT}\n{script}"));
    let run = town.run().policy(&tree(rules)).subject("named");
    let done = run
        .args(["/usr/bin/python3".into(), "-u".into(), script.into_os_string()])
        .run();
    Some((town, home, done))
}

fn lines(done: &Output) -> Vec<String> {
    done.out().lines().map(str::to_owned).collect()
}

fn denied<'d>(done: &'d Output, reason: &str) -> Vec<&'d str> {
    let records = done.records_for(reason);
    records
        .into_iter()
        .filter(|record| matches!(record.verdict, Judgement::Deny(_)))
        .map(|record| &*record.object)
        .collect()
}

#[test]
fn a_named_host_is_reached_at_its_ports_once_it_was_resolved_and_no_other() {
    for user in users() {
        let script = r#"
told("early", lambda: get("203.0.113.7"))
told("six-early", lambda: get("2001:db8::7", 8080))
told("git", lambda: addresses("git.example.org"))
told("by-name", lambda: get("git.example.org"))
told("by-address", lambda: get("203.0.113.7"))
told("six", lambda: get("2001:db8::7", 8080))
told("other-port", lambda: get("203.0.113.7", 81))
told("other-address", lambda: get("203.0.113.6"))
told("not-named", lambda: addresses("other.example.org"))
told("above", lambda: addresses("example.org"))
told("search", lambda: addresses("mixed"))
told("listed", lambda: (addresses("listed.example.org"), ))
told("trap", lambda: (addresses("trap.example.org"), ))
"#;
        let Some((town, _home, done)) = in_town(user, RULES, script) else {
            return;
        };
        let expected = [
            "early Operation not permitted",
            "six-early Operation not permitted",
            "git ['2001:db8::7', '203.0.113.7']",
            "by-name hello",
            "by-address hello",
            "six hello",
            "other-port Operation not permitted",
            "other-address Operation not permitted",
            "not-named Name or service not known",
            "above Name or service not known",
            "search ['203.0.113.10']",
            "listed (['203.0.113.20'],)",
            "trap No address associated with hostname",
        ];
        assert_eq!(lines(&done), expected, "{done}");
        // What policy does not name is asked of nobody.
        assert!(
            !town
                .asked()
                .iter()
                .any(|line| line.starts_with("other.example.org ") || line.starts_with("example.org ")),
            "{:?}",
            town.asked()
        );
        let names = denied(&done, "egress.name_no_rule");
        assert!(
            names.contains(&"other.example.org") && names.contains(&"example.org"),
            "{done}"
        );
        let record = done.records_for("egress.name_no_rule")[0];
        assert_eq!(record.op.as_str(), "resolve");
        assert!(record.at.as_deref().unwrap().starts_with("egress.toml:"), "{done}");
        done.assert_nothing_left();
    }
}

#[test]
fn special_addresses_are_nobodys_names_and_a_denied_address_stays_denied() {
    for user in users() {
        let script = r#"
told("rebind", lambda: addresses("rebind.example.net"))
for ip in ("169.254.169.254", "198.51.100.1", "0.0.0.0", "::ffff:127.0.0.1", "64:ff9b::7f00:1"):
    told(ip, lambda: get(ip))
told("mixed", lambda: addresses("mixed.example.net"))
told("denied", lambda: get("203.0.113.10"))
"#;
        let Some((_, _home, done)) = in_town(user, RULES, script) else {
            return;
        };
        let expected = [
            "rebind No address associated with hostname",
            "169.254.169.254 Operation not permitted",
            "198.51.100.1 Operation not permitted",
            // The own loopback, where nobody is.
            "0.0.0.0 Connection refused",
            "::ffff:127.0.0.1 Connection refused",
            "64:ff9b::7f00:1 Operation not permitted",
            "mixed ['203.0.113.10']",
            "denied Operation not permitted",
        ];
        assert_eq!(lines(&done), expected, "{done}");
        let special = denied(&done, "egress.special_address");
        for object in [
            "rebind.example.net 127.0.0.1",
            "rebind.example.net 169.254.169.254",
            "rebind.example.net 198.51.100.1",
        ] {
            assert!(special.contains(&object), "{object}: {done}");
        }
        assert_eq!(denied(&done, "egress.deny_rule"), ["tcp 203.0.113.10:80"], "{done}");
    }
}

#[test]
fn aliases_lead_to_addresses_and_never_to_a_denied_name() {
    for user in users() {
        let script = r#"
told("alias", lambda: addresses("alias.example.net"))
told("reached", lambda: get("alias.example.net"))
told("loop", lambda: addresses("loop.example.net"))
told("evil", lambda: addresses("evil.example.net"))
told("closed", lambda: addresses("closed.example.net"))
told("its-address", lambda: get("203.0.113.9"))
told("target", lambda: addresses("two.example.com"))
"#;
        let Some((_, _home, done)) = in_town(user, RULES, script) else {
            return;
        };
        let expected = [
            "alias ['203.0.113.8']",
            "reached hello",
            "loop Name or service not known",
            "evil Name or service not known",
            "closed Name or service not known",
            "its-address Operation not permitted",
            "target Name or service not known",
        ];
        assert_eq!(lines(&done), expected, "{done}");
        let closed = denied(&done, "egress.deny_rule");
        assert!(closed.contains(&"evil.example.net alias closed.example.net"), "{done}");
        assert!(closed.contains(&"closed.example.net"), "{done}");
    }
}

#[test]
fn answers_for_somebody_elses_question_and_broken_ones_open_nothing() {
    for user in users() {
        let script = r#"
for name in ("guess", "wrong", "cut", "junk", "extra"):
    told(name, lambda: addresses(name + ".example.net"))
told("planted", lambda: get("203.0.113.66"))
told("many", lambda: len(addresses("many.example.net")))
told("last", lambda: get("203.0.113.64"))
told("next", lambda: get("203.0.113.65"))
"#;
        let Some((town, home, done)) = in_town(user, RULES, script) else {
            return;
        };
        let real = "['203.0.113.11']";
        let expected = [
            format!("guess {real}"),
            format!("wrong {real}"),
            format!("cut {real}"),
            format!("junk {real}"),
            format!("extra {real}"),
            "planted Operation not permitted".to_owned(),
            // What was cut is asked for over TCP, and no more of it is opened than the limit says.
            "many 64".to_owned(),
            "last hello".to_owned(),
            "next Operation not permitted".to_owned(),
        ];
        assert_eq!(lines(&done), expected, "{done}");
        let refused = ["tcp 203.0.113.66:80", "tcp 203.0.113.65:80"];
        let mut streams = denied(&done, "egress.no_rule");
        // The library sorts what it found by connecting datagram sockets.
        streams.retain(|object| object.starts_with("tcp "));
        assert_eq!(streams, refused, "{done}");
        assert!(
            town.asked().contains(&"many.example.net 1 tcp".to_owned()),
            "{:?}",
            town.asked()
        );
        // With a rule by address both are reached: somebody is there, and what refused them is that no name opened them.
        let both = format!("{RULES}\n[domain.tools]\nallow = [\"203.0.113.65:80\", \"203.0.113.66:80\"]\n");
        let words = [
            "/usr/bin/python3".into(),
            home.work().join("script.py").into_os_string(),
        ];
        let done = town.run().policy(&tree(&both)).subject("named").args(words).run();
        let told = lines(&done);
        for line in ["planted hello", "next hello"] {
            assert!(told.iter().any(|told| told == line), "{line}: {done}");
        }
    }
}

#[test]
fn the_resolver_takes_any_message_and_goes_on() {
    for user in users() {
        let script = r#"
import random
def query(name, kind=1, flags=0x0100, count=1):
    wire = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"
    return struct.pack(">HHHHHH", 7, flags, count, 0, 0, 0) + wire + struct.pack(">HH", kind, 1)
def ask(message, wait=3, tries=10):
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); peer.settimeout(wait)
    peer.connect(("127.0.0.1", 53))
    for _ in range(tries):
        peer.send(message)
        try: return peer.recv(4096)
        except TimeoutError: pass
random.seed(1)
quiet = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); quiet.connect(("127.0.0.1", 53))
for _ in range(500):
    junk = bytearray(query("git.example.org")) + bytes(random.randrange(40))
    for _ in range(random.randrange(6)): junk[random.randrange(len(junk))] = random.randrange(256)
    quiet.send(bytes(junk[:random.randrange(1, len(junk) + 1)]))
time.sleep(0.3)
told("code", lambda: [ask(message)[3] & 15 for message in (query("git.example.org"), query("other.example.org"), query("git.example.org", flags=0x2100), query("git.example.org", count=3))])
told("other-kind", lambda: struct.unpack(">HHHHHH", ask(query("git.example.org", 16))[:12])[3])
told("an-answer", lambda: ask(query("git.example.org", flags=0x8180), 0.3, 1))
tcp = socket.create_connection(("127.0.0.1", 53), 30)
for name in ("git.example.org", "short.example.org"):
    message = query(name); tcp.sendall(struct.pack(">H", len(message)) + message)
    told("tcp", lambda: struct.unpack(">H", tcp.recv(2))[0] == len(tcp.recv(4096)))
held = [socket.create_connection(("127.0.0.1", 53), 30) for _ in range(40)]
told("still", lambda: addresses("git.example.org"))
# One after the other they would be waited for longer than the library waits for an answer.
silent = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(10)]
for one in silent: one.connect(("127.0.0.1", 53)); one.send(query("mute.example.net"))
told("meanwhile", lambda: addresses("git.example.org"))
"#;
        let Some((_, _home, done)) = in_town(user, RULES, script) else {
            return;
        };
        let both = "['2001:db8::7', '203.0.113.7']";
        let expected = [
            "code [0, 3, 4, 1]".to_owned(),
            "other-kind 0".to_owned(),
            "an-answer None".to_owned(),
            "tcp True".to_owned(),
            "tcp True".to_owned(),
            format!("still {both}"),
            format!("meanwhile {both}"),
        ];
        assert_eq!(lines(&done), expected, "{done}");
        assert_eq!(done.code(), Some(0), "{done}");
    }
}

#[test]
fn names_open_datagrams_too_and_a_name_of_one_session_opens_nothing_in_the_next() {
    for user in users() {
        let script = r#"
def shout(where):
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); peer.settimeout(30)
    peer.sendto(b"hello", (where, 4433)); return peer.recv(10).decode()
told("early", lambda: shout("203.0.113.8"))
if "later" not in sys.argv:
    told("alias", lambda: addresses("alias.example.net"))
    told("late", lambda: shout("203.0.113.8"))
"#;
        let Some((town, home, done)) = in_town(user, RULES, script) else {
            return;
        };
        assert_eq!(
            lines(&done),
            ["early Operation not permitted", "alias ['203.0.113.8']", "late HELLO"],
            "{done}"
        );
        let script = home.work().join("script.py");
        let words = ["/usr/bin/python3".into(), script.into_os_string(), "later".into()];
        let done = town.run().policy(&tree(RULES)).subject("named").args(words).run();
        assert_eq!(lines(&done), ["early Operation not permitted"], "{done}");
    }
}
