//! Every fuzz body on some thousand inputs, always the same ones.

use std::sync::Arc;

use fuzz_bodies::{
    BODIES, Body, Mutator, Seed, address_text, audit_journal, audit_line, dns_message, filter, policy_seeds,
    policy_snapshot, policy_tree, snapshot_seed, sockaddr, vfs_messages, wire_messages,
};
use nexus_abi::{Area, Errno, Operation, Reason};
use nexus_audit::{Chain, Judgement, Key, Record, UnixMillis};
use nexus_wire::Bounded;
use nexus_wire::broker::{Reply, Request, UnixAction};
use nexus_wire::control;
use nexus_wire::vfs::{Event, FromVfsd, ToVfsd};

const SEED: Seed = 0x006e_6578_7573;

/// Runs a body on the corpus itself and on `cases` mutations of it; says which input it was when one fails. Of the
/// mutations, some must be accepted and some refused, or the run has tried nothing.
fn run(body: Body, corpus: &[Vec<u8>], cases: u32) {
    for input in corpus {
        attempt(body, input);
    }
    let mut mutator = Mutator::new(corpus, SEED);
    let accepted: u32 = (0..cases).map(|_| u32::from(attempt(body, &mutator.input()))).sum();
    let least = cases / 50;
    assert!(
        (least..=cases - least).contains(&accepted),
        "{accepted} of {cases} were accepted"
    );
}

fn attempt(body: Body, input: &[u8]) -> bool {
    std::panic::catch_unwind(|| body(input)).unwrap_or_else(|panic| {
        eprintln!("the input: \"{}\"", input.escape_ascii());
        std::panic::resume_unwind(panic)
    })
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[test]
fn the_same_seed_gives_the_same_inputs_and_another_seed_others() {
    let corpus = texts(&["one", "another"]);
    let inputs = |seed| {
        let mut mutator = Mutator::new(&corpus, seed);
        (0..100).map(|_| mutator.input()).collect::<Vec<_>>()
    };
    assert_eq!(inputs(1), inputs(1));
    assert_ne!(inputs(1), inputs(2));
}

#[test]
fn a_policy_tree_of_any_bytes_is_refused_or_whole() {
    let seeds = policy_seeds();
    let (small, shipped) = seeds.split_at(seeds.len() - 1);
    run(policy_tree, small, 4000);
    // Reading the whole one takes milliseconds.
    run(policy_tree, shipped, 150);
}

#[test]
fn a_snapshot_of_any_bytes_is_refused_or_whole() {
    run(policy_snapshot, &[snapshot_seed()], 1500);
}

fn journal() -> Vec<u8> {
    let mut chain = Chain::new(Key::new([7; 32]));
    let record = |at: u64, object: &str, rule: Option<&str>| Record {
        mono_ns: at,
        time: UnixMillis::new(1_800_000_000_000 + at),
        subject: Arc::from("demo"),
        session: Arc::from("0123456789ab"),
        op: Operation::ALL[usize::try_from(at).unwrap() % Operation::ALL.len()],
        object: Arc::from(object),
        verdict: [Judgement::Deny(Errno::EPERM), Judgement::Warn, Judgement::Note][usize::try_from(at).unwrap() % 3],
        reason: Reason::ALL[usize::try_from(at).unwrap() % Reason::ALL.len()],
        rule: rule.map(Arc::from),
        at: rule.map(|_| Arc::from("egress.toml:12")),
        policy: Arc::from("0123456789abcdef"),
        suppressed: at / 2,
    };
    let objects = ["tcp 192.0.2.1:443", "socket(16, 3, 0)", "tmp \u{202e}\u{7f}\"\\\n", ""];
    let lines = (0_u64..8).map(|at| {
        let object = objects[usize::try_from(at).unwrap() % objects.len()];
        chain.seal(&record(at, object, (at % 2 == 0).then_some("egress:0011223344556677")))
    });
    lines.collect::<String>().into_bytes()
}

#[test]
fn a_journal_line_of_any_bytes_is_refused_or_whole() {
    let lines: Vec<Vec<u8>> = journal().split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    run(audit_line, &lines, 20_000);
}

#[test]
fn a_journal_of_any_bytes_holds_only_under_its_own_key() {
    let whole = journal();
    let lines: Vec<&[u8]> = whole.trim_ascii_end().split(|byte| *byte == b'\n').collect();
    for count in 1..=lines.len() {
        assert!(audit_journal(&lines[..count].join(&b'\n')), "the first {count} lines");
    }
    let corpus = [lines.join(&b'\n')];
    let mut mutator = Mutator::new(&corpus, SEED);
    for input in (0..2000).map(|_| mutator.input()) {
        // Cut at the end of a line, or not damaged after all.
        assert!(!attempt(audit_journal, &input) || corpus[0].starts_with(&input));
    }
}

#[test]
fn a_socket_address_of_any_bytes_is_read_as_the_kernel_reads_it() {
    let with = |family: u16, rest: &[u8]| [&family.to_ne_bytes()[..], rest].concat();
    let corpus = vec![
        with(2, &[0x01, 0xbb, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
        with(
            10,
            &[&[0x01, 0xbb, 0, 0, 0, 0][..], &[0x20; 16], &[2, 0, 0, 0]].concat(),
        ),
        with(1, b"/run/socket\0"),
        with(1, b"\0abstract"),
        with(1, &[]),
        with(0, &[0; 14]),
        with(17, &[0; 18]),
        Vec::new(),
    ];
    run(sockaddr, &corpus, 50_000);
}

/// A message of one question, and these records behind it: name, type, data.
fn message(flags: u16, name: &str, kind: u16, records: &[(&[u8], u16, &[u8])]) -> Vec<u8> {
    let wire = |name: &str| -> Vec<u8> {
        let labels = name.split('.').flat_map(|label| {
            let length = u8::try_from(label.len()).unwrap();
            [&[length][..], label.as_bytes()].concat()
        });
        labels.chain([0]).collect()
    };
    let count = u16::try_from(records.len()).unwrap();
    let mut bytes: Vec<u8> = [7, flags, 1, count, 0, 0]
        .into_iter()
        .flat_map(u16::to_be_bytes)
        .collect();
    bytes.extend([&wire(name)[..], &kind.to_be_bytes(), &[0, 1]].concat());
    for (name, kind, data) in records {
        let length = u16::try_from(data.len()).unwrap();
        bytes.extend(
            [
                name,
                &kind.to_be_bytes()[..],
                &[0, 1, 0, 0, 0, 60],
                &length.to_be_bytes(),
                data,
            ]
            .concat(),
        );
    }
    bytes
}

#[test]
fn a_dns_message_of_any_bytes_is_refused_or_has_names_such_as_hosts_have() {
    // The question's name, as an answer points back to it.
    let asked: &[u8] = b"\xc0\x0c";
    let corpus = vec![
        message(0x0100, "git.example.org", 1, &[]),
        message(0x0100, "a.b.c.example.org", 28, &[]),
        message(0x8180, "git.example.org", 1, &[(asked, 1, &[203, 0, 113, 7])]),
        message(0x8180, "git.example.org", 28, &[(asked, 28, &[0x20; 16])]),
        message(
            0x8180,
            "a.example.net",
            1,
            &[
                (asked, 5, b"\x01b\x07example\x03com\0"),
                (b"\x01b\x07example\x03com\0", 1, &[203, 0, 113, 8]),
            ],
        ),
        // Round in circles, past the end, and a text with dots inside.
        message(
            0x8180,
            "a.example.net",
            1,
            &[(b"\xc0\x1f", 5, b"\xc0\x1f"), (b"\xff\xff", 1, &[0; 4])],
        ),
        message(0x8180, "a.example.net", 1, &[(b"\x03a.b\0", 16, b"\xffcut")]),
        message(0x8183, "a.example.net", 1, &[]),
        Vec::new(),
    ];
    run(dns_message, &corpus, 50_000);
}

#[test]
fn addresses_and_ports_of_any_text_are_refused_at_a_place_in_it_or_written_back_the_same() {
    let corpus = texts(&[
        "203.0.113.0/24",
        "203.0.113.7",
        "[2001:db8::]/32",
        "2001:db8::1",
        "::ffff:1.2.3.4",
        "443",
        "8000-8100,443, 22",
        "203.0.113.0/24:443,8000-8100",
        "[2001:db8::]/32:443",
        "0.0.0.0/0:1-65535",
        "äöü",
    ]);
    run(address_text, &corpus, 50_000);
}

#[test]
fn messages_of_any_bytes_are_refused_or_mean_the_same_when_sent_on() {
    let unix = |action| Request::Unix {
        action,
        umask: 0o022,
        address: b"\x01\0/run/socket".to_vec(),
    };
    let mut corpus = vec![
        Request::Socket {
            domain: 2,
            kind: 1,
            protocol: 0,
        }
        .encode(),
        unix(UnixAction::Connect).encode(),
        unix(UnixAction::Bind).encode(),
        unix(UnixAction::Listen(128)).encode(),
        Request::SignalGroup { pid: 7, signal: 15 }.encode(),
        Reply::Listener.encode().to_vec(),
        Vec::new(),
    ];
    let events = [
        control::Event::Started,
        control::Event::Stopped(19),
        control::Event::Continued,
        control::Event::Exited(7),
        control::Event::Signaled(9),
        control::Event::ExecFailed(2),
        control::Event::SetupFailed { step: 3, errno: 1 },
    ];
    corpus.extend(events.map(|event| event.encode().to_vec()));
    let commands = [
        control::Command::Go,
        control::Command::Areas,
        control::Command::Pending,
        control::Command::Signal {
            number: 2,
            everybody: true,
        },
    ];
    corpus.extend(commands.map(|command| command.encode().to_vec()));
    run(wire_messages, &corpus, 50_000);
}

#[test]
fn messages_of_the_file_server_of_any_bytes_are_refused_or_mean_the_same_when_sent_on() {
    let mut corpus = vec![
        ToVfsd::QueryUsage.encode(),
        ToVfsd::Attach { init_pid: 12 }.encode(),
        FromVfsd::Welcome {
            vfsd_pid: 3,
            fresh: true,
        }
        .encode(),
        FromVfsd::Event(Event {
            area: Area::Tmp,
            operation: Operation::Write,
            reason: Reason::QuotaHardBytes,
            name: Bounded::cut(b"file"),
            asked: 4096,
            pid: 9,
            policy: Bounded::cut(b"0123"),
        })
        .encode(),
        FromVfsd::Lost {
            area: Area::State,
            operation: Operation::Create,
            reason: Reason::QuotaHardInodes,
            count: 3,
        }
        .encode(),
    ];
    corpus.push(Vec::new());
    run(vfs_messages, &corpus, 50_000);
}

#[test]
fn rules_of_any_kind_make_a_filter_that_lets_through_only_what_the_guard_allows() {
    let mut corpus: Vec<Vec<u8>> = (0..=u8::MAX)
        .map(|at| {
            (0..200_u8)
                .map(|byte| byte.wrapping_mul(at | 1).wrapping_add(at))
                .collect()
        })
        .collect();
    corpus.push(Vec::new());
    run(filter, &corpus, 4000);
}

#[test]
fn every_body_has_a_fuzz_target_and_every_target_a_body() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz");
    let entries = std::fs::read_dir(format!("{directory}/fuzz_targets")).unwrap();
    let mut targets: Vec<String> = entries
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    targets.sort_unstable();
    assert_eq!(targets, BODIES.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    let manifest = std::fs::read_to_string(format!("{directory}/Cargo.toml")).unwrap();
    for (name, body) in BODIES {
        assert!(
            manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")),
            "{name}"
        );
        // Bytes that are nothing at all, and no bytes.
        body(&[0xff; 300]);
        body(&[]);
    }
}
