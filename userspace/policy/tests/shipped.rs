//! The tree that ships with nexus.
#![cfg(test)]

use std::net::IpAddr;
use std::path::Path;

use nexus_abi::{Errno, Protocol, Reason, Verdict};
use nexus_abi_policy::{Call, Guard, NoFacts, Request};
use nexus_net_egress::{HostAddresses, Reach};
use nexus_policy::{MemoryTree, Policy, RuleKind, SubjectPolicy, WorkMode};

fn shipped() -> Policy {
    match Policy::load(&MemoryTree::shipped()) {
        Ok(policy) => policy,
        Err(errors) => panic!("{errors}"),
    }
}

#[test]
fn demo_is_the_one_subject() {
    assert_eq!(shipped().subjects().collect::<Vec<_>>(), ["demo"]);
}

#[test]
fn demo_may_connect_to_one_port_of_the_hosts_loopback_and_not_to_the_next() {
    let policy = shipped();
    let gate = policy.subject("demo").unwrap().egress_gate().unwrap();
    let host = HostAddresses::none();
    for address in ["127.0.0.1", "::1"] {
        let address: IpAddr = address.parse().unwrap();
        let open = gate.judge(Protocol::Tcp, address, 8443, &host);
        assert_eq!(open.reach, Some(Reach::Outside));
        let rule = policy.rule(open.verdict.rule().unwrap()).unwrap();
        assert!(rule.at.starts_with("egress.toml:"), "{}", rule.at);
        assert!(rule.text.ends_with(":8443\""), "{}", rule.text);
        // Its own loopback, which reaches nobody.
        assert_eq!(
            gate.judge(Protocol::Tcp, address, 8444, &host).reach,
            Some(Reach::OwnLoopback)
        );
        assert_eq!(
            gate.judge(Protocol::Udp, address, 8443, &host).reach,
            Some(Reach::OwnLoopback)
        );
    }
    for address in ["203.0.113.1", "2001:db8::1", "169.254.169.254", "127.0.0.2"] {
        let route = gate.judge(Protocol::Tcp, address.parse().unwrap(), 8443, &host);
        assert_ne!(route.reach, Some(Reach::Outside), "{address}");
    }
    let denied = gate.judge(Protocol::Tcp, "203.0.113.1".parse().unwrap(), 443, &host);
    let rule = policy.rule(denied.verdict.rule().unwrap()).unwrap();
    assert_eq!(
        rule.text, "[subject.demo]",
        "the lack of a rule is shown where one would be written"
    );
}

#[test]
fn demo_has_64_mib_in_tmp_and_state_and_reads_work() {
    let policy = shipped();
    let demo = policy.subject("demo").unwrap();
    assert_eq!(demo.budgets.tmp.budget.hard_bytes, 64 << 20);
    assert_eq!(demo.budgets.state.budget.hard_bytes, 64 << 20);
    assert_eq!(demo.budgets.work.budget.hard_bytes, 0);
    assert_eq!(demo.work, WorkMode::ReadOnly);
    let rule = policy.rule(demo.budgets.tmp.hard_rule.unwrap()).unwrap();
    assert_eq!(rule.text, "hard = \"64MiB\"");
    assert!(rule.at.starts_with("quotas.toml:"), "{}", rule.at);
    assert!(rule.id.to_string().starts_with("quota:"));
}

#[test]
fn no_secret_of_the_environment_is_passed_on() {
    let policy = shipped();
    let demo = policy.subject("demo").unwrap();
    let inherited = ["SSH_AUTH_SOCK", "GITHUB_TOKEN", "LANG", "PATH", "HOME", "LD_PRELOAD"]
        .map(|name| (name.to_owned(), "caller's".to_owned()));
    let environment = demo.environment(inherited);
    assert_eq!(environment.keys().collect::<Vec<_>>(), ["LANG", "PATH"]);
    assert_eq!(environment["LANG"], "caller's");
    assert!(environment["PATH"].starts_with("/usr/"));
}

#[test]
fn private_keys_are_not_in_the_view() {
    let policy = shipped();
    for path in policy.subject("demo").unwrap().view(Some("/home/u")) {
        assert!(!"/etc/ssl/private/key.pem".starts_with(&path.path), "{}", path.path);
        assert!(!path.path.starts_with("/home"), "{}", path.path);
    }
}

#[test]
fn every_rule_that_ships_has_a_comment_above_it_or_above_its_neighbours() {
    // A rule is a line that is no comment, no header and no bracket; a paragraph of them has one comment at least.
    for (path, content) in MemoryTree::shipped().files() {
        let text = std::str::from_utf8(content).unwrap();
        let mut is_explained = false;
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() {
                is_explained = false;
            } else if line.starts_with('#') || line.starts_with('[') && !line.starts_with("[[") {
                is_explained |= line.starts_with('#');
            } else if !line.ends_with('[') && !line.starts_with(']') {
                assert!(is_explained, "{path}:{}: {line}", index + 1);
            }
        }
    }
}

/// The fixture with room, which tests of real programs run under.
fn room() -> MemoryTree {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/policy-room");
    MemoryTree::new(MemoryTree::shipped().files().map(|(path, _)| {
        let content = std::fs::read(directory.join(path)).unwrap();
        (path.to_owned(), content)
    }))
}

#[test]
fn the_fixture_with_room_has_the_shipped_syscalls_and_view_and_more_bytes() {
    if std::env::var_os("NEXUS_BLESS").is_some() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        std::fs::copy(
            root.join("recipes/security/abi.toml"),
            root.join("tests/fixtures/policy-room/abi.toml"),
        )
        .unwrap();
    }
    let (shipped_tree, room_tree) = (MemoryTree::shipped(), room());
    let file = |tree: &MemoryTree, path: &str| {
        let content = tree.files().find(|(each, _)| *each == path).unwrap().1.to_vec();
        String::from_utf8(content).unwrap()
    };
    assert_eq!(
        file(&shipped_tree, "abi.toml"),
        file(&room_tree, "abi.toml"),
        "NEXUS_BLESS=1 copies it"
    );

    let policy = Policy::load(&room_tree).map_err(|errors| errors.to_string()).unwrap();
    assert_eq!(policy.subjects().collect::<Vec<_>>(), ["metered", "room"]);
    let demo = shipped().subject("demo").unwrap();
    let room = policy.subject("room").unwrap();
    let paths = |subject: &SubjectPolicy| subject.view(None).into_iter().map(|path| path.path).collect::<Vec<_>>();
    assert_eq!(
        paths(&demo),
        paths(&room),
        "what ships must be enough for what people run"
    );
    assert!(
        room.view(Some("/home/u"))
            .iter()
            .any(|path| path.path == "/home/u/.rustup")
    );
    assert!(room.budgets.tmp.budget.hard_bytes > demo.budgets.tmp.budget.hard_bytes);
    assert_eq!(room.work, WorkMode::Unmetered);
    assert_eq!(policy.subject("metered").unwrap().work, WorkMode::Metered);
}

#[test]
fn demo_may_write_and_may_not_trace_others() {
    let policy = shipped();
    let demo = policy.subject("demo").unwrap();
    let guard = Guard::new(&demo.profiles()).unwrap();
    let judge = |name: &str, args: [u64; 6]| {
        let number = nexus_abi::syscall::number(name).unwrap();
        guard.judge(&Request::scalar(Call::native(number, args)), &NoFacts)
    };
    assert!(judge("write", [1, 0, 4096, 0, 0, 0]).is_allow());
    let denied = judge("ptrace", [0; 6]);
    assert!(matches!(
        denied,
        Verdict::Deny {
            reason: Reason::AbiDenyRule,
            errno: Errno::EPERM,
            ..
        }
    ));
    let rule = policy.rule(denied.rule().unwrap()).unwrap();
    assert_eq!((rule.text.as_str(), rule.id.kind()), ("\"@debug\"", RuleKind::Abi));
    assert!(rule.at.starts_with("abi.toml:"));
    assert!(matches!(
        judge("clone3", [0; 6]),
        Verdict::Deny {
            errno: Errno::ENOSYS,
            ..
        }
    ));
    // TIOCSTI, with the upper half of the register filled, as a caller might try.
    assert!(!judge("ioctl", [0, 0xdead_beef_0000_5412, 0, 0, 0, 0]).is_allow());
    assert!(judge("ioctl", [0, 0x5413, 0, 0, 0, 0]).is_allow());
}
