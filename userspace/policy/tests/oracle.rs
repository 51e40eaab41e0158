//! A second evaluator, naive and from the model alone: it never sees what the crates make of a tree. At least 100,000 pairs
//! of a tree and a question; where the two disagree, both say how they came to it.
#![cfg(test)]

mod model;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use nexus_abi::{Area, Effect, Protocol, Verdict, syscall};
use nexus_abi_policy::{ArgTest, Call, Condition, floor};
use nexus_net_egress::HostAddresses;
use nexus_policy::{MemoryTree, Policy, Question, SubjectPolicy};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;

use model::{CALLS, Fate, Scope, TARGETS, Tree};

/// Trees that are asked, each alone and under the one before it.
const TREES: usize = 420;

/// What the naive evaluator says, and how it came to it.
type Answer = (Result<(), &'static str>, Vec<String>);

fn scopes(tree: &Tree) -> impl Iterator<Item = &Scope> {
    tree.domain.iter().chain([&tree.subject])
}

/// First and last address of a target, as numbers of its family.
fn range(target: &str) -> Option<(bool, u128, u128)> {
    let (address, prefix) = target.rsplit_once('/')?;
    let address: IpAddr = address.trim_matches(['[', ']']).parse().ok()?;
    let prefix: u32 = prefix.parse().ok()?;
    Some(match address {
        IpAddr::V4(v4) => {
            let size = 1_u128 << (32 - prefix);
            (false, v4.to_bits().into(), u128::from(v4.to_bits()) + (size - 1))
        }
        IpAddr::V6(v6) if prefix == 0 => (true, v6.to_bits(), u128::MAX),
        IpAddr::V6(v6) => (true, v6.to_bits(), v6.to_bits() + ((1_u128 << (128 - prefix)) - 1)),
    })
}

/// Blocks that only a rule inside them opens: first and last address.
const SPECIAL: [(bool, u128, u128); 6] = [
    (false, 0x7f00_0000, 0x7fff_ffff),
    (false, 0xa9fe_0000, 0xa9fe_ffff),
    (false, 0xe000_0000, 0xefff_ffff),
    (false, 0, 0x00ff_ffff),
    (true, 1, 1),
    (true, 0xfe80 << 112, (0xfec0 << 112) - 1),
];

fn egress(tree: &Tree, protocol: Protocol, address: IpAddr, port: u16) -> Answer {
    let mut trace = Vec::new();
    let (mut six, mut bits) = match address {
        IpAddr::V4(v4) => (false, u128::from(v4.to_bits())),
        IpAddr::V6(v6) => (true, v6.to_bits()),
    };
    let nat64 = six && bits >> 32 == 0x64_ff9b << 64;
    if six && (bits >> 32 == 0xffff || nat64) {
        (six, bits) = (false, bits & 0xffff_ffff);
        trace.push(format!("judged as {}", Ipv4Addr::from_bits(bits as u32)));
    }
    let asked = bits;
    if bits == 0 {
        bits = if six { 1 } else { 0x7f00_0001 };
        trace.push("judged as loopback".to_owned());
    }
    let inside = |(of, first, last): (bool, u128, u128), bits: u128| of == six && first <= bits && bits <= last;
    let mut allowed = false;
    let block = SPECIAL.into_iter().find(|block| inside(*block, bits));
    for scope in scopes(tree) {
        for ((udp, target, first, more), allow) in &scope.egress {
            let (Some(range), same) = (range(TARGETS[*target]), *udp == (protocol == Protocol::Udp)) else {
                continue;
            };
            let has_port = (*first..=first + more).contains(&port);
            if !same || !has_port {
                continue;
            }
            if !allow && (inside(range, bits) || inside(range, asked)) {
                trace.push(format!("{} denies", TARGETS[*target]));
                return (Err("egress.deny_rule"), trace);
            }
            let names = block.is_none_or(|(_, from, to)| from <= range.1 && range.2 <= to);
            if *allow && inside(range, bits) {
                trace.push(format!(
                    "{} allows{}",
                    TARGETS[*target],
                    if names { "" } else { ", but is too wide" }
                ));
                allowed |= names;
            }
        }
    }
    // A deny that comes later beats an allow that came before: only now may it be allowed.
    if block.is_some() && nat64 {
        return (Err("egress.special_address"), trace);
    }
    let is_loopback = block == Some(SPECIAL[0]) || block == Some(SPECIAL[4]);
    match block {
        _ if allowed || is_loopback => (Ok(()), trace),
        None => (Err("egress.no_rule"), trace),
        Some(_) => (Err("egress.special_address"), trace),
    }
}

fn covers(name: &str, number: u32) -> bool {
    syscall::number(name) == Some(number) || syscall::group(name).is_some_and(|group| group.contains(&number))
}

fn call(tree: &Tree, call: &Call) -> Answer {
    let mut trace = Vec::new();
    let argument = call.args[1] & 0xffff_ffff;
    let (mut probed, mut allowed, mut known) = (false, false, false);
    let mut denied = false;
    for scope in scopes(tree) {
        for (index, fate) in &scope.calls {
            let name = CALLS[*index];
            if !covers(name, call.number) {
                continue;
            }
            trace.push(format!("{name}: {fate:?}"));
            match fate.of(name) {
                Fate::Allow => (known, allowed) = (true, true),
                Fate::AllowIf(value) => {
                    known = true;
                    allowed |= argument == u64::from(value);
                }
                Fate::Deny => denied = true,
                Fate::DenyIf(value) => denied |= argument == u64::from(value),
                Fate::Probe => probed = true,
            }
        }
    }
    let is_socket = [syscall::nr::socket, syscall::nr::socketpair].contains(&call.number);
    let said = match () {
        () if denied => Err("abi.deny_rule"),
        () if probed => Err("abi.unknown"),
        () if allowed => Ok(()),
        () if known && is_socket => Err("egress.family"),
        () if known => Err("abi.arg_mismatch"),
        () => Err("abi.no_rule"),
    };
    (said, trace)
}

/// What is closed below every policy: its list, walked rule by rule and bit by bit.
fn closed(call: &Call) -> Answer {
    let floor = floor();
    let holds = |condition: &Condition| match condition {
        Condition::Arg { index, width, test } => {
            let seen = (0..u32::from(width.bits()))
                .fold(0_u64, |seen, bit| seen | (call.args[usize::from(*index)] & (1 << bit)));
            match test {
                ArgTest::Equal(value) => seen == *value,
                ArgTest::Masked { mask, value } => {
                    (0..64).all(|bit| mask >> bit & 1 == 0 || seen >> bit & 1 == value >> bit & 1)
                }
                ArgTest::Range { first, last } => seen >= *first && seen <= *last,
                ArgTest::OneOf(values) => values.contains(&seen),
                ArgTest::AnyBit(mask) => (0..64).any(|bit| mask >> bit & 1 == 1 && seen >> bit & 1 == 1),
            }
        }
        Condition::Egress | Condition::Budget(_) => false,
    };
    let of = |effect: Effect| {
        let rules = floor
            .rules
            .iter()
            .filter(move |rule| rule.number == call.number && rule.effect == effect);
        rules.collect::<Vec<_>>()
    };
    let trace = vec![format!(
        "the floor has {} rules of it",
        of(Effect::Allow).len() + of(Effect::Deny).len()
    )];
    let any = |effect: Effect| of(effect).iter().any(|rule| rule.conditions.iter().all(holds));
    let is_socket = [syscall::nr::socket, syscall::nr::socketpair].contains(&call.number);
    let said = match () {
        () if any(Effect::Deny) => Err("abi.deny_rule"),
        () if floor.probed.contains(&call.number) => Err("abi.unknown"),
        () if any(Effect::Allow) => Ok(()),
        () if of(Effect::Allow).is_empty() => Err("abi.no_rule"),
        () if is_socket => Err("egress.family"),
        () => Err("abi.arg_mismatch"),
    };
    (said, trace)
}

fn growth(tree: &Tree, area: usize, bytes: u64) -> Answer {
    let own = tree.subject.quotas[area];
    let inherited = tree.domain.as_ref().and_then(|domain| domain.quotas[area]);
    let hard = own.or(inherited).map_or(0, |(_, hard, _)| hard * 4096);
    let charged = bytes.div_ceil(4096) * 4096;
    let said = if charged <= hard {
        Ok(())
    } else {
        Err("quota.hard_bytes")
    };
    (said, vec![format!("{charged} of {hard}")])
}

/// Each tree in its turn, the ceiling first: the first that denies has the word.
fn each(trees: &[&Tree], ask: impl Fn(&Tree) -> Answer) -> Answer {
    let mut trace = Vec::new();
    for tree in trees {
        let (said, steps) = ask(tree);
        trace.extend(steps);
        if said.is_err() {
            return (said, trace);
        }
    }
    (Ok(()), trace)
}

fn then(first: Answer, next: impl FnOnce() -> Answer) -> Answer {
    if first.0.is_err() {
        return first;
    }
    let (said, steps) = next();
    (said, [first.1, steps].concat())
}

const ADDRESSES: [&str; 14] = [
    "203.0.113.7",
    "203.0.113.8",
    "203.0.113.200",
    "198.51.100.1",
    "127.0.0.1",
    "127.0.0.2",
    "0.0.0.0",
    "10.0.0.1",
    "169.254.169.254",
    "2001:db8::1",
    "2001:db9::1",
    "::1",
    "::ffff:203.0.113.7",
    "64:ff9b::7f00:1",
];

const ASKED: [&str; 11] = [
    "read",
    "write",
    "ioctl",
    "ptrace",
    "pread64",
    "process_vm_readv",
    "socket",
    "clone3",
    "openat",
    "io_uring_setup",
    "kcmp",
];

fn said(verdict: Verdict) -> Result<(), &'static str> {
    match verdict {
        Verdict::Allow { .. } => Ok(()),
        Verdict::Deny { reason, .. } => Err(reason.as_str()),
    }
}

/// Asks one policy everything; gives how many questions there were.
fn ask(subject: &SubjectPolicy, trees: &[&Tree], files: &MemoryTree, seen: &mut BTreeSet<&'static str>) -> usize {
    let host = HostAddresses::none();
    let gate = subject.egress_gate().unwrap();
    let mut asked = 0;
    let mut agree = |what: &str, enforced: Verdict, how: &dyn Fn() -> String, naive: Answer| {
        asked += 1;
        seen.insert(naive.0.err().unwrap_or("allowed"));
        if said(enforced) == naive.0 {
            return;
        }
        let files: Vec<String> = files
            .files()
            .map(|(path, text)| format!("== {path}\n{}", String::from_utf8_lossy(text)))
            .collect();
        panic!(
            "{what}\nenforced: {:?}\n{}\nnaive: {:?}\n  {}\n{}",
            said(enforced),
            how(),
            naive.0,
            naive.1.join("\n  "),
            files.join("\n")
        );
    };
    for address in ADDRESSES {
        let ip: IpAddr = address.parse().unwrap();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for port in [1, 3, 7] {
                let route = gate.judge(protocol, ip, port, &host);
                // The naive one looks at one rule after the other: where several layers deny, each for its own reason.
                let naive = each(trees, |tree| egress(tree, protocol, ip, port));
                agree(
                    &format!("{protocol} {address}:{port}"),
                    route.verdict,
                    &|| format!("{route:?}"),
                    naive,
                );
            }
        }
    }
    for name in ASKED {
        for value in [0, 1, 2, 0x1_0000_0001] {
            let Some(number) = syscall::number(name) else { continue };
            let asked = Call::native(number, [2, value, 0, 0, 0, 0]);
            let explanation = subject.explain(&Question::Syscall(asked), &host).unwrap();
            let naive = then(each(trees, |tree| call(tree, &asked)), || closed(&asked));
            agree(
                &format!("{name}(2, {value:#x})"),
                explanation.verdict,
                &|| format!("{explanation:#?}"),
                naive,
            );
        }
    }
    for (index, area) in Area::ALL.into_iter().enumerate() {
        for bytes in [0, 1, 4096, 4097, 8192, 20_000] {
            let question = Question::Write {
                area,
                bytes,
                used_bytes: 0,
            };
            let explanation = subject.explain(&question, &host).unwrap();
            let write = Call::native(syscall::number("write").unwrap(), [0; 6]);
            let naive = then(each(trees, |tree| call(tree, &write)), || {
                then(closed(&write), || each(trees, |tree| growth(tree, index, bytes)))
            });
            agree(
                &format!("write {area} {bytes}"),
                explanation.verdict,
                &|| format!("{explanation:#?}"),
                naive,
            );
        }
    }
    asked
}

#[test]
fn enforcement_and_a_naive_reading_of_the_model_agree_on_a_hundred_thousand_questions() {
    let mut runner = TestRunner::deterministic();
    let mut before: Option<(Tree, Policy)> = None;
    let mut asked = 0;
    let mut seen = BTreeSet::new();
    for seed in 0..TREES as u64 {
        let tree = model::tree().new_tree(&mut runner).unwrap().current();
        let tree = Tree { any: false, ..tree };
        let files = tree.write(seed);
        let policy = Policy::load(&files).unwrap_or_else(|errors| panic!("{errors}"));
        asked += ask(&policy.subject("demo").unwrap(), &[&tree], &files, &mut seen);
        if let Some((ceiling, ceiling_policy)) = &before {
            let both = policy.under_ceiling(ceiling_policy);
            asked += ask(&both.subject("demo").unwrap(), &[ceiling, &tree], &files, &mut seen);
        }
        before = Some((tree, policy));
    }
    assert!(asked >= 100_000, "only {asked} were asked");
    // Every answer came up: nothing agrees because nothing was asked.
    let all = [
        "abi.arg_mismatch",
        "abi.deny_rule",
        "abi.no_rule",
        "abi.unknown",
        "allowed",
        "egress.deny_rule",
        "egress.family",
        "egress.no_rule",
        "egress.special_address",
        "quota.hard_bytes",
    ];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), all);
}
