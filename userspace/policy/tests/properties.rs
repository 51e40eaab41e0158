//! What holds for every tree.
#![cfg(test)]

mod model;

use std::net::IpAddr;

use nexus_abi::{Area, Protocol};
use nexus_abi_policy::{Call, Guard, NoFacts, Request};
use nexus_net_egress::{HostAddresses, Reach};
use nexus_policy::{EnvDecision, MemoryTree, Policy, SubjectPolicy};
use proptest::prelude::*;

use model::{CALLS, Scope, Tree, tree};

fn load(tree: &MemoryTree) -> Policy {
    match Policy::load(tree) {
        Ok(policy) => policy,
        Err(errors) => {
            let files: Vec<String> = tree
                .files()
                .map(|(path, text)| format!("== {path}\n{}", String::from_utf8_lossy(text)))
                .collect();
            panic!("{errors}\n{}", files.join("\n"))
        }
    }
}

/// What a policy says of `demo`, with rules by their ids instead of their places.
fn rule_ids(policy: &Policy) -> Vec<String> {
    let mut ids: Vec<String> = (0..)
        .map_while(|number| policy.rule(nexus_abi::RuleRef(number)))
        .map(|rule| rule.id.to_string())
        .collect();
    ids.sort();
    ids
}

const ADDRESSES: [&str; 11] = [
    "203.0.113.7",
    "203.0.113.8",
    "203.0.113.200",
    "198.51.100.1",
    "127.0.0.1",
    "127.0.0.2",
    "10.0.0.1",
    "2001:db8::1",
    "2001:db9::1",
    "::1",
    "::ffff:203.0.113.7",
];

/// Everything that can be asked of a subject, and whether it is allowed.
fn allowed(subject: &SubjectPolicy) -> Vec<(String, bool)> {
    let mut out = Vec::new();
    let gate = subject.egress_gate().unwrap();
    let host = HostAddresses::none();
    for address in ADDRESSES {
        let ip: IpAddr = address.parse().unwrap();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for port in 0..9 {
                let route = gate.judge(protocol, ip, port, &host);
                out.push((format!("{protocol} {address} {port}"), route.verdict.is_allow()));
                out.push((
                    format!("outside {protocol} {address} {port}"),
                    route.reach == Some(Reach::Outside),
                ));
            }
        }
    }
    for (protocol, word) in [(Protocol::Tcp, "tcp"), (Protocol::Udp, "udp")] {
        // May be true where nothing is open to both; never the other way round.
        assert!(
            gate.opens(protocol)
                || !out
                    .iter()
                    .any(|(what, is)| *is && what.starts_with(&format!("outside {word}")))
        );
    }
    for name in ["git.example.org", "example.org"] {
        for port in 1..9 {
            let says = subject.egress.iter().all(|layer| {
                let hit = |effect| {
                    layer.names.iter().any(|rule| {
                        rule.effect == effect
                            && rule.protocol == Protocol::Tcp
                            && rule.pattern.covers(name)
                            && rule.ports.iter().any(|range| range.contains(port))
                    })
                };
                hit(nexus_abi::Effect::Allow) && !hit(nexus_abi::Effect::Deny)
            });
            out.push((format!("{name} {port}"), says));
        }
    }
    let guard = Guard::new(&subject.profiles()).unwrap();
    for name in CALLS
        .iter()
        .filter(|name| !name.starts_with('@'))
        .chain(&["pread64", "lookup_dcookie", "open"])
    {
        for value in 0..4 {
            let Some(number) = nexus_abi::syscall::number(name) else {
                continue;
            };
            let verdict = guard.judge(&Request::scalar(Call::native(number, [0, value, 0, 0, 0, 0])), &NoFacts);
            out.push((format!("{name} {value}"), verdict.is_allow()));
        }
    }
    for area in Area::ALL {
        let budget = subject.budgets.get(area).unwrap().budget;
        for pages in 0..6 {
            out.push((format!("{area} {pages} pages"), pages * 4096 <= budget.hard_bytes));
            out.push((format!("{area} {pages} inodes"), pages <= budget.hard_inodes));
        }
        assert!(budget.soft_bytes.is_none_or(|soft| soft <= budget.hard_bytes));
    }
    let view = subject.view(Some("/home/u"));
    for path in [
        "/usr",
        "/usr/lib",
        "/usr/lib/x/y",
        "/usrx",
        "/etc",
        "/etc/ssl/certs",
        "/opt/a",
        "/home/u/.rustup/b",
        "/",
    ] {
        let shown = view
            .iter()
            .any(|shown| path == shown.path || path.starts_with(&format!("{}/", shown.path)));
        out.push((format!("see {path}"), shown));
    }
    for name in ["LANG", "LC_ALL", "LC_TIME", "TERM", "PATH", "HOME", "LD_PRELOAD"] {
        out.push((format!("pass {name}"), subject.env_decision(name) == EnvDecision::Pass));
    }
    for (mode, word) in nexus_policy::WorkMode::ALL
        .iter()
        .zip(["none", "ro", "metered", "unmetered"])
    {
        out.push((format!("work {word}"), *mode <= subject.work));
    }
    for processes in 1..6 {
        let is = subject.limits.processes.is_none_or(|limit| processes <= limit.value);
        out.push((format!("{processes} processes"), is));
    }
    out.push(("sockets".into(), subject.fds.allow_sockets));
    out
}

/// A change of what a tree says that no other writing of it can make.
fn mutate(tree: &mut Tree, which: u8) {
    let scope = |tree: &mut Tree, change: &dyn Fn(&mut Scope)| change(&mut tree.subject);
    match which % 9 {
        0 => scope(tree, &|scope| match &mut scope.quotas[0] {
            Some((_, hard, _)) => *hard += 1,
            none => *none = Some((Some(0), 0, 0)),
        }),
        1 => scope(tree, &|scope| {
            scope.egress.insert((false, 6, 77, 0), true);
        }),
        2 => scope(tree, &|scope| {
            let flipped: Vec<_> = scope.egress.iter().map(|(rule, allow)| (*rule, !allow)).collect();
            scope.egress = flipped.into_iter().collect();
            scope.egress.insert((true, 6, 77, 0), false);
        }),
        3 => scope(tree, &|scope| {
            use model::Fate::{Allow, Deny};
            let fate = if scope.calls.get(&0) == Some(&Allow) {
                Deny
            } else {
                Allow
            };
            // The same fate, said with a condition that this call cannot have.
            scope.calls.insert(0, fate);
        }),
        4 => scope(tree, &|scope| {
            scope.work = Some(scope.work.map_or(0, |work| (work + 1) % 3))
        }),
        5 => scope(tree, &|scope| {
            scope.processes = Some(scope.processes.map_or(1, |processes| processes + 1))
        }),
        6 => scope(tree, &|scope| {
            let value = scope.env_set.get(&0).map_or(0, |value| 1 - value);
            scope.env_set.insert(0, value);
        }),
        7 => tree.any = !tree.any,
        _ => scope(tree, &|scope| {
            scope.allow_sockets = Some(!scope.allow_sockets.unwrap_or(false))
        }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn however_a_tree_is_written_it_is_the_same_policy(tree in tree(), one: u64, other: u64) {
        let (one, other) = (load(&tree.write(one)), load(&tree.write(other)));
        prop_assert_eq!(one.canonical_json(), other.canonical_json());
        prop_assert_eq!(one.version(), other.version());
        prop_assert_eq!(rule_ids(&one), rule_ids(&other));
        if !tree.any {
            prop_assert_eq!(allowed(&one.subject("demo").unwrap()), allowed(&other.subject("demo").unwrap()));
        }
    }

    #[test]
    fn a_tree_that_says_something_else_has_another_version(tree in tree(), which: u8, one: u64, other: u64) {
        let mut changed = tree.clone();
        mutate(&mut changed, which);
        let is_same = normal(&tree) == normal(&changed);
        let (one, other) = (load(&tree.write(one)), load(&changed.write(other)));
        prop_assert_eq!(one.version() == other.version(), is_same);
    }

    #[test]
    fn under_a_ceiling_only_what_both_allow_is_allowed(user in tree(), admin in tree(), seed: u64) {
        let user = load(&Tree { any: false, ..user }.write(seed));
        let admin_tree = admin;
        let admin = load(&admin_tree.write(!seed));
        let both = user.under_ceiling(&admin);
        prop_assert_ne!(both.version(), user.version());
        prop_assert_ne!(both.version(), admin.version());
        // Alone, the administrator's `*` is nobody: let it be somebody, to be asked.
        let admin_alone = load(&Tree { any: false, ..admin_tree }.write(seed)).subject("demo").unwrap();
        let user_alone = user.subject("demo").unwrap();
        let narrowed = both.subject("demo").unwrap();
        let (user_says, admin_says) = (allowed(&user_alone), allowed(&admin_alone));
        for ((what, is), ((_, user_is), (_, admin_is))) in allowed(&narrowed).iter().zip(user_says.iter().zip(&admin_says)) {
            prop_assert_eq!(*is, *user_is && *admin_is, "{}: user {}, administrator {}", what, user_is, admin_is);
        }
        // A value is given only where the administrator would let it be.
        for name in ["LANG", "LC_ALL", "TERM", "PATH"] {
            let (user, admin) = (user_alone.env_decision(name), admin_alone.env_decision(name));
            let expected = match (&user, &admin) {
                (EnvDecision::Drop, _) | (_, EnvDecision::Drop) => EnvDecision::Drop,
                (_, EnvDecision::Set(value)) => EnvDecision::Set(value.clone()),
                (user, EnvDecision::Pass) => user.clone(),
            };
            prop_assert_eq!(narrowed.env_decision(name), expected);
        }
        // Every rule that is named can be shown, and stands in the tree that it is said to stand in.
        for layer in narrowed.egress.iter() {
            for rule in layer.rules.iter().map(|rule| rule.rule).chain([layer.no_rule]) {
                prop_assert!(both.rule(rule).is_some());
            }
        }
        let ceiling = narrowed.egress.iter().next().unwrap();
        prop_assert!(both.rule(ceiling.no_rule).unwrap().at.starts_with("ceiling:"));
        let own = narrowed.egress.iter().next_back().unwrap();
        prop_assert!(!both.rule(own.no_rule).unwrap().at.starts_with("ceiling:"));
    }

    #[test]
    fn any_bytes_are_a_policy_or_an_error(root: Vec<u8>, other: Vec<u8>, which in 0_usize..4) {
        let name = ["quotas.toml", "egress.toml", "abi.toml", "sandbox.toml"][which];
        let _ = Policy::load(&MemoryTree::new([("nexus.policy.toml", root)]));
        let index = format!("version = 1\ninclude = [\"{name}\"]\n[subject.demo]\n");
        let _ = Policy::load(&MemoryTree::new([("nexus.policy.toml", index.into_bytes()), (name, other)]));
    }

    #[test]
    fn any_changed_tree_is_a_policy_or_an_error_with_places_inside(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), edit()), 1..6),
    ) {
        let mut files: Vec<(String, Vec<u8>)> =
            MemoryTree::shipped().files().map(|(path, content)| (path.to_owned(), content.to_vec())).collect();
        for (file, at, edit) in &edits {
            let (_, content) = &mut files[file.index(5)];
            let at = at.index(content.len() + 1);
            match edit {
                Edit::Put(text) => drop(content.splice(at..at, text.bytes())),
                Edit::Cut(count) => drop(content.splice(at..(at + count).min(content.len()), [])),
                Edit::Byte(byte) => content.insert(at, *byte),
            }
        }
        if let Err(errors) = Policy::load(&MemoryTree::new(files)) {
            prop_assert!(!errors.items().is_empty());
            for item in errors.items() {
                let file = errors.sources().get(item.place.file).unwrap();
                prop_assert!(file.text().get(item.place.span.start..item.place.span.end).is_some(), "{errors}");
            }
            let hides = errors.to_string().contains('\u{202e}');
            prop_assert!(!hides);
        }
    }
}

/// A tree without the difference that no reader can see: an empty list of something that a list adds to, and conditions of
/// calls that have none.
fn normal(tree: &Tree) -> Tree {
    let scope = |scope: &Scope| {
        let mut scope = scope.clone();
        for (call, fate) in &mut scope.calls {
            *fate = fate.of(CALLS[*call]);
        }
        scope
    };
    Tree {
        domain: tree.domain.as_ref().map(scope),
        subject: scope(&tree.subject),
        any: tree.any,
    }
}

#[derive(Clone, Debug)]
enum Edit {
    Put(&'static str),
    Cut(usize),
    Byte(u8),
}

fn edit() -> impl Strategy<Value = Edit> {
    const WORDS: [&str; 24] = [
        "[",
        "]",
        "{",
        "}",
        "\"",
        "\n",
        "=",
        ".",
        ",",
        "allow",
        "deny",
        "[subject.demo]",
        "[[domain.tools.rule]]",
        "-1",
        "0x8000000000000000",
        "\"udp 0.0.0.0/0:1-65535\",",
        "include = [\"egress.toml\"]",
        "'''",
        "\u{202e}",
        "\u{fffd}",
        "domain = \"demo\"",
        "*",
        "1e999",
        "inf",
    ];
    prop_oneof![
        prop::sample::select(WORDS.to_vec()).prop_map(Edit::Put),
        (0_usize..200).prop_map(Edit::Cut),
        any::<u8>().prop_map(Edit::Byte),
    ]
}
