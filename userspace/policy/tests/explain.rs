//! What a path is to a program, as a run has it.
#![cfg(test)]

use nexus_net_egress::HostAddresses;
use nexus_policy::{MemoryTree, Policy, Question};

fn is_there(path: &str, work: Option<&str>) -> bool {
    let root = "version = 1\ninclude = [\"abi.toml\", \"sandbox.toml\"]\n[subject.s]\n";
    let sandbox = "[subject.s]\nread = [\"/usr\"]\nread_optional = [\"/etc/ssl/certs\"]\ndev = [\"null\", \"pts\"]\nwork = \"ro\"\n";
    let abi = "[subject.s]\nallow = [\"@file-system\"]\n";
    let files = [
        ("nexus.policy.toml", root),
        ("abi.toml", abi),
        ("sandbox.toml", sandbox),
    ];
    let policy = Policy::load(&MemoryTree::new(files)).unwrap_or_else(|errors| panic!("{errors}"));
    let question = Question::Open {
        path: path.to_owned(),
        home: None,
        work: work.map(str::to_owned),
    };
    let subject = policy.subject("s").unwrap();
    let explained = subject.explain(&question, &HostAddresses::none()).unwrap();
    explained.verdict.is_allow()
}

#[test]
fn directories_on_the_way_to_what_is_shown_are_there_and_their_other_entries_are_not() {
    for there in [
        "/",
        "/etc",
        "/etc/ssl",
        "/etc/ssl/certs/x",
        "/usr/bin",
        "/var",
        "/var/tmp",
        "/dev",
        "/proc",
    ] {
        assert!(is_there(there, None), "{there}");
    }
    for missing in [
        "/etc/shadow",
        "/etc/ssl/private",
        "/et",
        "/us",
        "/var/log",
        "/home",
        "/run",
    ] {
        assert!(!is_there(missing, None), "{missing}");
    }
    assert!(is_there("/home/u", Some("/home/u/w")));
    assert!(!is_there("/home/v", Some("/home/u/w")));
}

#[test]
fn slashes_that_the_kernel_leaves_out_change_nothing() {
    for there in ["//usr//bin", "/usr/", "//", "/dev//null"] {
        assert!(is_there(there, None), "{there}");
    }
    assert!(!is_there("//etc//shadow/", None));
}

#[test]
fn a_program_has_its_own_descriptors_and_the_devices_that_it_was_given() {
    for there in [
        "/dev/fd",
        "/dev/fd/0",
        "/dev/stdin",
        "/dev/stdout",
        "/dev/stderr",
        "/dev/null",
        "/dev/ptmx",
        "/dev/pts/0",
    ] {
        assert!(is_there(there, None), "{there}");
    }
    for missing in ["/dev/sda", "/dev/zero", "/dev/stdin2", "/dev/tty"] {
        assert!(!is_there(missing, None), "{missing}");
    }
}
