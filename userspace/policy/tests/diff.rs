//! What two trees mean, compared: exact, and blind to how it is written.
#![cfg(test)]

mod model;

use std::net::IpAddr;

use nexus_abi::{Area, Protocol};
use nexus_abi_policy::{Call, Guard, NoFacts, Request};
use nexus_net_egress::{HostAddresses, Reach};
use nexus_policy::{Change, Diff, MemoryTree, Policy, SubjectPolicy, Where};
use proptest::prelude::*;

fn load(tree: &MemoryTree) -> Policy {
    Policy::load(tree).unwrap_or_else(|errors| panic!("{errors}"))
}

/// A tree of one subject, `s`, in the domain `d`.
fn policy(files: &[(&str, &str)]) -> Policy {
    let root = "version = 1\ninclude = [\"quotas.toml\", \"egress.toml\", \"abi.toml\", \"sandbox.toml\"]\n\
                [domain.d]\n[subject.s]\ndomain = \"d\"\n";
    let matters = ["quotas.toml", "egress.toml", "abi.toml", "sandbox.toml"];
    let given = |name: &str| {
        files
            .iter()
            .find(|(path, _)| *path == name)
            .map_or("", |(_, text)| *text)
    };
    let all = matters.map(|name| (name, given(name)));
    load(&MemoryTree::new(all.into_iter().chain([("nexus.policy.toml", root)])))
}

fn words(diff: &Diff) -> (Vec<String>, Vec<String>, Vec<String>) {
    let Some(subject) = diff.subjects.get("s") else {
        return Default::default();
    };
    let side = |changes: &[Change]| changes.iter().map(ToString::to_string).collect::<Vec<_>>();
    (side(&subject.wider), side(&subject.narrower), side(&subject.other))
}

fn check(file: &str, before: &str, after: &str, wider: &[&str], narrower: &[&str], other: &[&str]) {
    let diff = policy(&[(file, before)]).diff(&policy(&[(file, after)])).unwrap();
    let (w, n, o) = words(&diff);
    assert_eq!(w, wider, "wider: {before} -> {after}");
    assert_eq!(n, narrower, "narrower: {before} -> {after}");
    assert_eq!(o, other, "other: {before} -> {after}");
    assert_eq!(diff.is_wider(), !wider.is_empty());
    // The other way round.
    let back = policy(&[(file, after)]).diff(&policy(&[(file, before)])).unwrap();
    let (w, n, _) = words(&back);
    assert_eq!(w.len(), narrower.len());
    assert_eq!(n.len(), wider.len());
}

fn same(file: &str, one: &str, other: &str) {
    check(file, one, other, &[], &[], &[]);
}

#[test]
fn destinations_that_are_cut_otherwise_are_the_same() {
    same(
        "egress.toml",
        "[subject.s]\nallow = [\"203.0.113.0/24:443\"]",
        "[domain.d]\nallow = [\"203.0.113.0/25:443\", \"203.0.113.128/25:443\"]",
    );
    same(
        "egress.toml",
        "[subject.s]\nallow = [\"203.0.113.0/24:1-100\"]",
        "[subject.s]\nallow = [\"203.0.113.0/24:1-50\", \"203.0.113.0/24:51-200\"]\ndeny = [\"203.0.112.0/23:101-65535\"]",
    );
    // What is denied anyway, and what lies within something wider.
    same(
        "egress.toml",
        "[subject.s]\nallow = [\"203.0.113.0/24:443\"]",
        "[subject.s]\nallow = [\"203.0.113.0/24:443\", \"203.0.113.128/25:443\"]\ndeny = [\"198.51.100.0/24:1-65535\"]",
    );
}

#[test]
fn an_address_more_or_less_is_told_exactly() {
    check(
        "egress.toml",
        "[subject.s]\nallow = [\"203.0.113.0/24:443\"]",
        "[subject.s]\nallow = [\"203.0.113.0/24:443,8443\"]\ndeny = [\"203.0.113.7:443\"]",
        &["tcp 203.0.113.0/24:8443"],
        &["tcp 203.0.113.7/32:443"],
        &[],
    );
    // A rule for exactly an address opens it also where it is the host's own.
    check(
        "egress.toml",
        "[subject.s]\nallow = [\"203.0.113.0/24:443\"]",
        "[subject.s]\nallow = [\"203.0.113.0/24:443\", \"203.0.113.7:443\"]",
        &["tcp 203.0.113.7/32:443 (where it is an address of this host)"],
        &[],
        &[],
    );
    // Cloud metadata is opened by a rule inside its block only.
    same(
        "egress.toml",
        "[subject.s]\nallow = [\"0.0.0.0/0:80\"]",
        "[subject.s]\nallow = [\"0.0.0.0/1:80\", \"128.0.0.0/1:80\"]",
    );
    check(
        "egress.toml",
        "[subject.s]\nallow = [\"0.0.0.0/0:80\"]",
        "[subject.s]\nallow = [\"0.0.0.0/0:80\", \"169.254.0.0/16:80\"]",
        &["tcp 169.254.0.0/16:80"],
        &[],
        &[],
    );
    check(
        "egress.toml",
        "",
        "[subject.s]\nallow = [\"udp [2001:db8::]/32:53\"]",
        &["udp [2001:db8::]/32:53"],
        &[],
        &[],
    );
    // The host's loopback instead of the subject's own.
    check(
        "egress.toml",
        "",
        "[subject.s]\nallow = [\"127.0.0.1:5432\"]",
        &["tcp 0.0.0.0/32:5432", "tcp 127.0.0.1/32:5432"],
        &[
            "tcp 0.0.0.0/32:5432 (the subject's own loopback)",
            "tcp 127.0.0.1/32:5432 (the subject's own loopback)",
        ],
        &[],
    );
}

#[test]
fn names_are_compared_as_what_they_cover() {
    same(
        "egress.toml",
        "[subject.s]\nallow = [\"*.example.net:443\"]",
        "[subject.s]\nallow = [\"*.example.net:443\", \"a.example.net:443\", \"*.b.example.net:443\"]",
    );
    check(
        "egress.toml",
        "[subject.s]\nallow = [\"a.example.net:443\"]",
        "[subject.s]\nallow = [\"*.example.net:443\"]",
        &["tcp *.example.net:443 (not a.example.net)"],
        &[],
        &[],
    );
    check(
        "egress.toml",
        "[subject.s]\nallow = [\"*.example.net:443\"]",
        "[subject.s]\nallow = [\"*.example.net:443\"]\ndeny = [\"bad.example.net:1-65535\"]",
        &[],
        &["tcp bad.example.net:443"],
        &[],
    );
}

#[test]
fn ports_to_bind_are_compared_by_what_they_give() {
    same(
        "egress.toml",
        "[subject.s]\nbind = [\"udp 5000-5001\"]",
        "[domain.d]\nbind = [\"udp 5001\", \"udp 5000\"]",
    );
    check(
        "egress.toml",
        "[subject.s]\nbind = [\"udp 5000-5010\"]",
        "[subject.s]\nbind = [\"udp 5005-5020\"]",
        &["bind udp port 5011-5020"],
        &["bind udp port 5000-5004"],
        &[],
    );
}

#[test]
fn calls_are_compared_by_what_they_may_be_asked() {
    // A group and its calls; a floor that closes a call anyway; a rule that another one covers.
    let basic: Vec<String> = nexus_abi::syscall::group("@basic-io")
        .unwrap()
        .iter()
        .map(|number| format!("\"{}\"", nexus_abi::syscall::name(*number).unwrap()))
        .collect();
    same(
        "abi.toml",
        "[subject.s]\nallow = [\"@basic-io\"]",
        &format!("[domain.d]\nallow = [{}]", basic.join(", ")),
    );
    same("abi.toml", "", "[subject.s]\nallow = [\"io_uring_enter\"]");
    let ioctl = |when: &str| format!("[[subject.s.rule]]\nsyscall = \"ioctl\"\neffect = \"allow\"\nwhen = [{when}]\n");
    same(
        "abi.toml",
        &ioctl("{ arg = 1, in = [0x100, 0x101, 0x102] }"),
        &format!(
            "{}{}",
            ioctl("{ arg = 1, range = [0x100, 0x101] }"),
            ioctl("{ arg = 1, mask = 0xffffffff, value = 0x102 }")
        ),
    );
    check(
        "abi.toml",
        "",
        "[subject.s]\nallow = [\"getpid\", \"getppid\"]",
        &["syscalls getpid getppid"],
        &[],
        &[],
    );
    check(
        "abi.toml",
        &ioctl("{ arg = 1, in = [0x5401, 0x5402] }"),
        &ioctl("{ arg = 1, in = [0x5401, 0x5403] }"),
        &["syscalls ioctl: argument 1 = 0x5403"],
        &["syscalls ioctl: argument 1 = 0x5402"],
        &[],
    );
    check(
        "abi.toml",
        "[subject.s]\ndeny = [\"getpid\"]",
        "[[subject.s.rule]]\nsyscall = \"getpid\"\neffect = \"deny\"\nerrno = \"EACCES\"\n",
        &[],
        &[],
        &["syscalls getpid: denied with EACCES instead of EPERM"],
    );
    check(
        "abi.toml",
        "",
        "[subject.s]\nprobe = [\"getpid\"]",
        &[],
        &[],
        &["syscalls getpid: denied with ENOSYS instead of EPERM"],
    );
}

#[test]
fn budgets_paths_and_settings_go_to_the_side_where_they_belong() {
    let quota = |hard: &str, soft: &str| format!("[subject.s.tmp]\n{soft}hard = \"{hard}\"\ninodes = 16\n");
    check(
        "quotas.toml",
        &quota("64MiB", ""),
        &quota("65536KiB", ""),
        &[],
        &[],
        &[],
    );
    check(
        "quotas.toml",
        &quota("64MiB", ""),
        &quota("128MiB", ""),
        &["tmp hard 64MiB -> 128MiB"],
        &[],
        &[],
    );
    check(
        "quotas.toml",
        &quota("64MiB", ""),
        &quota("64MiB", "soft = \"4KiB\"\n"),
        &[],
        &[],
        &["tmp soft none -> 4KiB"],
    );
    let ipc = |says: &str| format!("[subject.s.ipc]\n{says}\n");
    check(
        "quotas.toml",
        &ipc("queues = 3"),
        &ipc("queues = 4"),
        &["ipc.queues: 3 -> 4"],
        &[],
        &[],
    );
    same("quotas.toml", &ipc("queues = 0"), "");
    let read = |paths: &str| format!("[subject.s]\nread_optional = [{paths}]\n");
    same("sandbox.toml", &read("\"/usr\""), &read("\"/usr\", \"/usr/lib\""));
    check(
        "sandbox.toml",
        &read("\"/usr/lib\""),
        &read("\"/usr\""),
        &["path /usr (not /usr/lib)"],
        &[],
        &[],
    );
    check(
        "sandbox.toml",
        &read("\"/opt\""),
        &read("\"~/x\""),
        &["path ~/x"],
        &["path /opt"],
        &[],
    );
    same(
        "sandbox.toml",
        "[subject.s]\nwork = \"none\"",
        "[domain.d]\nprofile = \"another\"",
    );
    check(
        "sandbox.toml",
        "",
        "[subject.s]\nwork = \"ro\"",
        &["work: none -> ro"],
        &[],
        &[],
    );
    check(
        "sandbox.toml",
        "",
        "[subject.s]\nlimits = { processes = 5 }",
        &[],
        &["limits.processes: none -> 5"],
        &[],
    );
    check(
        "sandbox.toml",
        "",
        "[subject.s]\non_journal_failure = \"continue\"",
        &["on_journal_failure: stop -> continue"],
        &[],
        &[],
    );
    check(
        "sandbox.toml",
        "",
        "[subject.s]\nenv = [\"LC_*\"]",
        &["variable LC_*"],
        &[],
        &[],
    );
    same(
        "sandbox.toml",
        "[subject.s]\nenv = [\"LC_*\"]",
        "[subject.s]\nenv = [\"LC_*\", \"LC_ALL\"]",
    );
    check(
        "sandbox.toml",
        "[subject.s]\ndev = [\"null\"]",
        "[subject.s]\ndev = [\"tty\"]",
        &["dev.tty: not there -> there"],
        &["dev.null: there -> not there"],
        &[],
    );
}

#[test]
fn subjects_that_come_and_go_are_told_with_what_they_may_do() {
    let one = policy(&[]);
    let root = "version = 1\ninclude = [\"egress.toml\"]\n[subject.s]\n[subject.t]\n[subject.\"*\"]\n";
    let more = load(&MemoryTree::new([
        ("nexus.policy.toml", root),
        (
            "egress.toml",
            "[subject.t]\nallow = [\"203.0.113.7:443\"]\n[subject.\"*\"]\nallow = [\"203.0.113.8:1\"]\n",
        ),
    ]));
    let diff = one.diff(&more).unwrap();
    assert_eq!(diff.subjects.keys().collect::<Vec<_>>(), ["*", "t"]);
    assert!(diff.subjects["t"].wider.contains(&Change::Subject));
    assert_eq!(diff.subjects["t"].wider.len(), 2, "{:?}", diff.subjects["t"]);
    let added = &diff.subjects["t"];
    assert!(added.narrower.is_empty() && added.other.is_empty(), "{added:?}");
    let limited = load(&MemoryTree::new([
        (
            "nexus.policy.toml",
            "version = 1\ninclude = [\"sandbox.toml\"]\n[subject.s]\n[subject.t]\n",
        ),
        ("sandbox.toml", "[subject.t]\nlimits = { processes = 5 }\n"),
    ]));
    let gone = limited.diff(&one).unwrap();
    assert!(
        !gone.is_wider() && !gone.is_empty(),
        "that its limits are gone with it opens nothing: {gone:?}"
    );
    let back = more.diff(&one).unwrap();
    assert!(back.subjects["t"].narrower.contains(&Change::Subject) && !back.is_wider());
}

/// What a subject may do, asked point by point: destinations, calls, bytes.
fn points(subject: &SubjectPolicy) -> Vec<bool> {
    let mut out = Vec::new();
    let gate = subject.egress_gate().unwrap();
    let addresses = [
        "203.0.113.7",
        "203.0.113.8",
        "203.0.113.200",
        "198.51.100.1",
        "127.0.0.1",
        "10.0.0.1",
        "2001:db8::1",
        "::1",
    ];
    for address in addresses {
        let ip: IpAddr = address.parse().unwrap();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for port in 1..80 {
                let route = gate.judge(protocol, ip, port, &HostAddresses::none());
                out.push(route.reach == Some(Reach::Outside));
                out.push(route.reach == Some(Reach::OwnLoopback));
            }
        }
    }
    let guard = Guard::new(&subject.profiles()).unwrap();
    for number in 0..460 {
        for value in 0..4 {
            let call = Call::native(number, [0, value, 0, 0, 0, 0]);
            out.push(guard.judge(&Request::scalar(call), &NoFacts).is_allow());
        }
    }
    for area in Area::ALL {
        let budget = subject.budgets.get(area).unwrap().budget;
        out.extend((0..6).map(|pages| pages * 4096 <= budget.hard_bytes));
        out.extend((0..6).map(|inodes| inodes <= budget.hard_inodes));
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn however_a_tree_is_written_it_differs_in_nothing(tree in model::tree(), one: u64, other: u64) {
        let (one, other) = (load(&tree.write(one)), load(&tree.write(other)));
        prop_assert_eq!(one.diff(&other).unwrap(), Diff::default());
        // Without the shortcut for what is written the same.
        let snapshot = Policy::from_snapshot(&one.snapshot().unwrap()).unwrap();
        prop_assert_eq!(snapshot.diff(&other).unwrap(), Diff::default());
    }

    #[test]
    fn what_became_possible_is_on_the_wider_side_and_what_no_longer_is_on_the_other(
        one in model::tree(), other in model::tree(), seed: u64,
    ) {
        let (one, other) = (model::Tree { any: false, ..one }, model::Tree { any: false, ..other });
        let (one, other) = (load(&one.write(seed)), load(&other.write(!seed)));
        let diff = one.diff(&other).unwrap();
        let (a, b) = (one.subject("demo").unwrap(), other.subject("demo").unwrap());
        let (before, after) = (points(&a), points(&b));
        let pairs = || before.iter().zip(&after);
        let found = diff.subjects.get("demo").cloned().unwrap_or_default();
        if pairs().any(|(a, b)| !a && *b) {
            prop_assert!(!found.wider.is_empty());
        }
        if pairs().any(|(a, b)| *a && !b) {
            prop_assert!(!found.narrower.is_empty());
        }
        // Each destination that is told is really allowed on one side only.
        let host = HostAddresses::none();
        for (side, now, then) in [(&found.wider, &b, &a), (&found.narrower, &a, &b)] {
            for change in side {
                if let Change::Egress { place: Where::Outside, protocol, first, last, ports } = change {
                    for address in [first, last] {
                        for port in [ports[0].first(), ports[ports.len() - 1].last()] {
                            let reach = |of: &SubjectPolicy| of.egress_gate().unwrap().judge(*protocol, *address, port, &host).reach;
                            prop_assert_eq!(reach(now), Some(Reach::Outside));
                            prop_assert_ne!(reach(then), Some(Reach::Outside));
                        }
                    }
                }
            }
        }
        // And back: the same with its sides changed.
        let back = other.diff(&one).unwrap().subjects.get("demo").cloned().unwrap_or_default();
        prop_assert_eq!(back.wider.len(), found.narrower.len());
        prop_assert_eq!(back.narrower.len(), found.wider.len());
    }
}

#[test]
fn the_callers_home_is_no_other_path_however_that_is_called() {
    let read = |paths: &str| format!("[subject.s]\nread_optional = [{paths}]\n");
    for named in ["/~/x", "/~0/x", "/~x", "/x", "/.x"] {
        check(
            "sandbox.toml",
            &read("\"~/x\""),
            &read(&format!("\"{named}\"")),
            &[&format!("path {named}")],
            &["path ~/x"],
            &[],
        );
    }
    check(
        "sandbox.toml",
        &read("\"~/x\", \"/~0/a\", \"/~1/a\""),
        &read("\"/~0/a\", \"/~2/x\", \"/~1/a\""),
        &["path /~2/x"],
        &["path ~/x"],
        &[],
    );
}

#[test]
fn what_is_protected_of_work_counts_only_where_work_may_be_written() {
    let work = |mode: &str, protect: &str| format!("[subject.s]\nwork = \"{mode}\"\nwork_protect = [{protect}]\n");
    let (none, hooks) = ("", "\".git/hooks\"");
    same("sandbox.toml", &work("ro", none), &work("ro", hooks));
    same("sandbox.toml", &work("none", none), &work("none", hooks));
    let opened = ["work: ro -> unmetered"];
    check(
        "sandbox.toml",
        &work("ro", none),
        &work("unmetered", hooks),
        &opened,
        &[],
        &[],
    );
    check(
        "sandbox.toml",
        &work("unmetered", hooks),
        &work("unmetered", none),
        &["work_protect .git/hooks: read-only -> as `work`"],
        &[],
        &[],
    );
}

#[test]
fn what_a_ceiling_takes_away_anyhow_is_no_difference_whichever_of_the_two_says_less() {
    let wide =
        "[subject.s]\nallow = [\"203.0.113.7:443-444\", \"a.example.org:443-444\"]\nbind = [\"udp 5353-5354\"]\n";
    let narrow = "[subject.s]\nallow = [\"203.0.113.7:443\", \"a.example.org:443\"]\nbind = [\"udp 5353\"]\n";
    let [wide, narrow] = [wide, narrow].map(|text| policy(&[("egress.toml", text)]));
    let least = narrow.under_ceiling(&narrow);
    for same in [wide.under_ceiling(&narrow), narrow.under_ceiling(&wide)] {
        assert_eq!(least.diff(&same).unwrap(), Diff::default());
        assert_eq!(same.diff(&least).unwrap(), Diff::default());
    }
    let (wider, narrower, other) = words(&least.diff(&wide.under_ceiling(&wide)).unwrap());
    assert_eq!((wider.len(), narrower.len(), other.len()), (3, 0, 0), "{wider:?}");
}
