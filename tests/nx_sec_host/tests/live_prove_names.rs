//! `nx sec test all` of rules by name and of ports to send from, and of what is left out.

use nx_sec_host::proof::{all, left, left_out, policy, test, unproven};
use nx_sec_host::sec_json;
use security_v2_host::{Tree, as_everybody, elsewhere};
use serde_json::Value;
use std::path::PathBuf;

const EGRESS: [&str; 6] = ["test", "all", "--subject", "demo", "--part", "egress"];

fn ruled(rules: &str) -> Tree {
    Tree::shipped().edit("egress.toml", "[subject.demo]\n", &format!("[subject.demo]\n{rules}\n"))
}

fn opening(allow: &str, more: &str) -> Tree {
    let tree = Tree::shipped().edit(
        "egress.toml",
        "allow = [\n    # A service",
        &format!("allow = [\n    {allow},\n    # A service"),
    );
    tree.append("egress.toml", more)
}

fn named<'a>(value: &'a Value, name: &str) -> &'a Value {
    let mut found = all(value).into_iter().filter(|one| one["name"] == name);
    let one = found.next().unwrap_or_else(|| {
        let names: Vec<_> = all(value).iter().map(|one| one["name"].clone()).collect();
        panic!("no `{name}` in {names:#?}, left out {:#?}", left_out(value))
    });
    assert!(found.next().is_none(), "`{name}` is one claim");
    one
}

fn seen<'a>(finding: &'a Value, what: &str) -> &'a str {
    let mut all = finding["seen"].as_array().unwrap().iter();
    let found = all.find(|one| one["what"] == what);
    found.map_or("", |one| one["text"].as_str().unwrap())
}

#[test]
fn an_allowed_name_is_answered_and_opens_its_ports_and_the_nearest_other_name_is_refused_unasked() {
    as_everybody(|home| {
        let tree = opening(
            "\"git.example.org:22,443\", \"*.example.net:8000-8100\", \"udp time.example.com:123\"",
            "deny = [\"closed.example.net:1-65535\"]\n",
        );
        let policy = policy(home, &tree);
        let (value, said) = sec_json(home, &[&EGRESS[..], &["--policy", &policy]].concat());
        assert!(
            unproven(&value).is_empty() && said.code == Some(0),
            "{:#?}",
            unproven(&value)
        );
        for name in ["git.example.org", "nx-proof.example.net", "time.example.com"] {
            let finding = named(&value, &format!("the name {name}"));
            assert_eq!(finding["says"], "allow", "{finding}");
            assert!(
                seen(finding, "seen").contains("by the proof's name server"),
                "{finding}"
            );
            assert!(finding["at"].as_str().unwrap().starts_with("egress.toml:"), "{finding}");
        }
        for (name, reason) in [
            ("xgit.example.org", "egress.name_no_rule"),
            ("nx-proof.git.example.org", "egress.name_no_rule"),
            ("example.org", "egress.name_no_rule"),
            ("example.net", "egress.name_no_rule"),
            ("xexample.net", "egress.name_no_rule"),
            ("closed.example.net", "egress.deny_rule"),
        ] {
            let finding = named(&value, &format!("the name {name}"));
            assert_eq!(
                (&finding["status"], &finding["says"]),
                (&"ok".into(), &"deny".into()),
                "{finding}"
            );
            assert_eq!(seen(finding, "record"), format!("resolve {name} {reason}"), "{finding}");
            assert_eq!(seen(finding, "seen"), "nobody was asked", "{finding}");
            assert!(
                seen(finding, "counter").starts_with("egress_denies_total +1"),
                "{finding}"
            );
        }
        // The address is closed until the name was looked up, and then open at the rule's ports and no other.
        let of = |when: &str| -> Vec<(String, String)> {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let found = all(&value)
                .into_iter()
                .filter(|one| one["name"].as_str().unwrap().ends_with(when));
            let mut found: Vec<_> = found
                .map(|one| {
                    let name = text(&one["name"]);
                    let port = name.split(',').next().unwrap().rsplit(':').next().unwrap().to_owned();
                    (port, text(&one["says"]))
                })
                .collect();
            found.sort();
            found
        };
        let pairs = |all: &[(&str, &str)]| -> Vec<(String, String)> {
            let mut all: Vec<_> = all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
            all.sort();
            all
        };
        assert_eq!(of("before git.example.org was looked up"), pairs(&[("22", "deny")]));
        assert_eq!(
            of("once git.example.org was looked up"),
            pairs(&[
                ("21", "deny"),
                ("22", "allow"),
                ("23", "deny"),
                ("442", "deny"),
                ("443", "allow"),
                ("444", "deny"),
            ])
        );
        assert_eq!(
            of("once time.example.com was looked up"),
            pairs(&[("122", "deny"), ("123", "allow"), ("124", "deny")])
        );
        assert!(
            left_out(&value).iter().all(|one| !one.contains("name server")),
            "{:?}",
            left_out(&value)
        );
        assert_eq!(left(home), Vec::<PathBuf>::new());
    });
}

#[test]
fn a_port_that_a_rule_gives_is_where_a_connection_comes_from_and_its_neighbours_are_refused() {
    as_everybody(|home| {
        let tree = opening(
            "\"203.0.113.7:443\", \"udp 203.0.113.7:5000\"",
            "bind = [\"udp 5353\", \"tcp 20000-20010\", \"tcp 80\", \"tcp 40000\"]\n",
        );
        let policy = policy(home, &tree);
        let (value, said) = sec_json(home, &[&EGRESS[..], &["--policy", &policy]].concat());
        assert!(
            unproven(&value).is_empty() && said.code == Some(0),
            "{:#?}",
            unproven(&value)
        );
        let from = |protocol: &str, port: u16| {
            let to = if protocol == "tcp" { 443 } else { 5000 };
            let mut all = all(&value).into_iter();
            let ends = format!("from port {port}");
            all.find(|one| {
                let name = one["name"].as_str().unwrap();
                name.starts_with(protocol) && name.contains(&format!(":{to} ")) && name.ends_with(&ends)
            })
            .unwrap_or_else(|| panic!("{protocol} {port}: {:?}", left_out(&value)))
        };
        for (protocol, port) in [("udp", 5353), ("tcp", 20000), ("tcp", 20010), ("tcp", 40000)] {
            let finding = from(protocol, port);
            assert_eq!(finding["says"], "allow", "{finding}");
            let arrived = format!("arrived at the proof's listener from port {port}");
            assert_eq!(seen(finding, "seen"), arrived, "{finding}");
        }
        for (protocol, port) in [("udp", 5352), ("udp", 5354), ("tcp", 19999), ("tcp", 20011)] {
            let finding = from(protocol, port);
            assert_eq!(finding["says"], "deny", "{finding}");
            let record = format!("bind {protocol} 0.0.0.0:{port} egress.no_rule");
            assert_eq!(seen(finding, "record"), record, "{finding}");
        }
        for (port, why) in [
            (80, "the kernel gives ports below 1024 to root alone"),
            (40001, "the kernel chooses such ports itself"),
        ] {
            let said = left_out(&value);
            let named = said
                .iter()
                .any(|one| one.contains(&format!("port {port}:")) && one.contains(why));
            assert!(named, "{said:?}");
        }
    });
}

#[test]
fn what_no_proof_looks_at_is_said_in_every_form_and_why() {
    as_everybody(|home| {
        let tree = ruled("bind = [\"udp 5353\"]").append(
            "quotas.toml",
            "[subject.demo.tmp]\nsoft = \"1MiB\"\nhard = \"2MiB\"\ninodes = 70000\n\
             [subject.demo.state]\nsoft = \"1MiB\"\nhard = \"2MiB\"\ninodes = 64\n",
        );
        let policy = policy(home, &tree);
        let words = [
            "all",
            "--subject",
            "demo",
            "--part",
            "egress,quota,view,ipc",
            "--policy",
            &policy,
        ];
        let said = |form: &str| {
            let said = test(home, &[&words[..], &["--format", form]].concat());
            assert_eq!(said.code, Some(0), "{said}");
            said.out
        };
        let (text, json, tap, junit) = (said("text"), said("json"), said("tap"), said("junit"));
        for what in [
            "tmp: 70000 inodes are more than a proof makes (65536)",
            "edges of rules for udp ports to send from: no rule by address opens",
            "view: what a device does that is shown",
            "the bytes of System V queues",
        ] {
            let escaped = what.replace('\'', "&apos;");
            for (form, out) in [("text", &text), ("json", &json), ("tap", &tap), ("junit", &junit)] {
                assert!(
                    out.contains(what) || out.contains(&escaped),
                    "{form} does not say `{what}`:\n{out}"
                );
            }
        }
        let lines = |out: &str, start: &str| out.lines().filter(|line| line.starts_with(start)).count();
        let value: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(lines(&text, "left out "), left_out(&value).len());
        assert_eq!(lines(&tap, "# left out: "), left_out(&value).len());
    });
}

#[test]
fn the_hosts_sockets_and_devices_are_seen_not_to_be_there_and_one_in_a_shown_path_is_refused() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    as_everybody(|home| {
        // Not in a place that every session has of its own, as `/tmp`, where the home lies.
        let holder = elsewhere(env!("CARGO_TARGET_TMPDIR"));
        let shown = holder.path().join("shown");
        std::fs::create_dir(&shown).unwrap();
        std::fs::set_permissions(&shown, std::fs::Permissions::from_mode(0o755)).unwrap();
        let (inside, outside) = (shown.join("s"), home.work().join("s"));
        let _inside = UnixListener::bind(&inside).unwrap();
        let _outside = UnixListener::bind(&outside).unwrap();
        home.give(&inside);
        home.give(&outside);
        let abstract_name = format!("nx-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        let _abstract = UnixListener::bind_addr(&address).unwrap();
        let tree = Tree::shipped().append("sandbox.toml", &format!("[subject.demo]\nread = [{shown:?}]\n"));
        let policy = policy(home, &tree);
        let words = [
            "test",
            "all",
            "--subject",
            "demo",
            "--part",
            "view",
            "--policy",
            &policy,
        ];
        let (value, said) = sec_json(home, &words);
        assert!(
            unproven(&value).is_empty() && said.code == Some(0),
            "{:#?}",
            unproven(&value)
        );
        let claim = |name: &str| named(&value, &format!("the host's Unix socket {name} is not reached"));
        let refused = claim(inside.to_str().unwrap());
        assert_eq!(refused["says"], "deny", "{refused}");
        let record = format!("connect unix {} ipc.no_rule", inside.display());
        assert_eq!(seen(refused, "record"), record);
        let here = |name: &str| {
            all(&value)
                .iter()
                .any(|one| one["name"].as_str().unwrap().contains(name))
        };
        // There may be more listeners on a machine than are tried.
        if left_out(&value)
            .iter()
            .all(|one| !one.contains("more of the host's Unix sockets"))
        {
            assert_eq!(claim(outside.to_str().unwrap())["says"], "bound");
            assert_eq!(claim(&format!("@{abstract_name}"))["says"], "bound");
        }
        for made in [
            "a Unix socket is made at /tmp/nx-socket",
            "a Unix socket is made at /state/nx-socket",
        ] {
            assert_eq!(named(&value, made)["says"], "allow");
        }
        assert!(here("/dev/null is there") && here("/dev/urandom is there"), "{said}");
        assert!(
            here("/dev/kmsg is not there") || !std::path::Path::new("/dev/kmsg").exists(),
            "{said}"
        );
    });
}
