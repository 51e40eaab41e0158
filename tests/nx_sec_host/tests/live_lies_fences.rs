//! A kernel that says that it did something and did not: what holds a session besides filter, view and ledger is missing, every
//! part of nx believes it to be there, and `nx sec test` sees that it is not, each time for its own reason.

use nx_sec_host::proof::{all, left, policy as write};
use nx_sec_host::said;
use security_v2_host::{Home, Tree, as_everybody, attacker, copy_program};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;

const PROVE: [&str; 8] = [
    "sec",
    "test",
    "all",
    "--subject",
    "demo",
    "--part",
    "limits,fences",
    "--json",
];

/// What failed of a proof on a kernel that lies about this: each claim with what it lacks.
fn failed(home: &Home, lie: &str) -> Vec<(String, Vec<String>)> {
    let nx = home.nx();
    let attack = home.work().join("attacker");
    if !attack.exists() {
        copy_program(attacker(), &attack).unwrap();
    }
    let mut command = home.command(attack);
    // Not what the host gives whoever asks for nothing.
    let tree = Tree::shipped().append("quotas.toml", "[subject.demo.ipc]\nmqueue = \"64KiB\"\n");
    let policy = write(home, &tree);
    let said = said(
        command
            .args(["lying-kernel", lie])
            .arg(nx)
            .args(PROVE)
            .args(["--policy", &policy]),
    );
    assert_eq!(said.code, Some(3), "{lie}: {said}");
    let value: Value = serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said}"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let not_ok = all(&value).into_iter().filter(|one| one["status"] != "ok");
    not_ok
        .map(|one| {
            assert_eq!(one["status"], "failed", "{one}");
            let lacks = one["lacks"].as_array().unwrap().iter().map(text).collect();
            (text(&one["name"]), lacks)
        })
        .collect()
}

/// That a lie fails these claims and no other, each with words that begin so.
fn is_caught(lie: &str, expected: &[(&str, &str)]) {
    as_everybody(|home| {
        let failed = failed(home, lie);
        let names: BTreeSet<_> = failed.iter().map(|(name, _)| name.as_str()).collect();
        let wanted: BTreeSet<_> = expected.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, wanted, "{lie}: {failed:#?}");
        for (name, begins) in expected {
            let lacks = failed
                .iter()
                .filter(|(other, _)| other == name)
                .flat_map(|(_, lacks)| lacks);
            assert!(lacks.clone().any(|lack| lack.starts_with(begins)), "{lie}: {failed:#?}");
        }
        assert_eq!(left(home), Vec::<PathBuf>::new());
    });
}

#[test]
fn a_capability_that_is_left_in_the_bounding_set_is_seen() {
    is_caught(
        "bounding-set",
        &[(
            "it can gain no capability: the bounding set is empty",
            "the kernel says CapBnd 0000000000200000, not 0000000000000000",
        )],
    );
}

#[test]
fn a_keyring_that_is_inherited_is_seen_by_a_key_in_it() {
    is_caught(
        "keyring",
        &[(
            "the caller's keys are not inherited",
            "the probe is shown the key of who started it",
        )],
    );
}

#[test]
fn a_second_fence_that_does_not_stand_is_seen_by_what_opens() {
    is_caught(
        "landlock",
        &[("what was handed in is not opened again for more", "returned ")],
    );
}

#[test]
fn a_limit_of_open_files_that_is_not_set_is_seen_by_the_descriptor_that_is_too_many() {
    is_caught(
        "open-files",
        &[
            ("open_files 4096 is set", "the kernel says Max open files "),
            ("open_files 4096 + 1", "returned 4096, not EBADF"),
        ],
    );
}

#[test]
fn a_limit_of_processes_that_is_not_set_is_seen_by_the_process_that_is_too_many() {
    is_caught(
        "processes",
        &[
            ("processes 512 is set", "the kernel says Max processes "),
            ("processes 512 + 1", "returned "),
        ],
    );
}

#[test]
fn a_limit_of_memory_that_is_not_set_is_seen_by_the_page_that_is_too_many() {
    is_caught(
        "memory",
        &[
            ("memory 2147483648 is set", "the kernel says Max data size "),
            ("memory 2147483648 + 4096, of one process", "returned "),
        ],
    );
}

#[test]
fn core_files_and_queues_whose_limits_are_not_set_are_seen() {
    is_caught("core", &[("no core file", "the kernel says Max core file size ")]);
    is_caught(
        "queues",
        &[(
            "POSIX queues of 65536 bytes are set",
            "the kernel says Max msgqueue size ",
        )],
    );
}

#[test]
fn mounts_on_which_set_id_counts_are_seen() {
    is_caught(
        "mount-attributes",
        &[("set-id programs give nothing", "set-id programs count at /")],
    );
}
