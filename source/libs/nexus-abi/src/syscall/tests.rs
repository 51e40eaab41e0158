use super::*;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::string::ToString;
use std::vec::Vec;

const ARCHES: [Arch; 3] = [Arch::X86_64, Arch::Aarch64, Arch::Riscv64];

#[test]
fn rows_are_sorted_by_name_and_names_are_unique() {
    assert!(TABLE.is_sorted_by(|a, b| a.name < b.name));
}

#[test]
fn a_number_names_one_call_on_each_architecture_and_stays_below_the_limit() {
    for arch in ARCHES {
        let mut seen = BTreeMap::new();
        for call in all() {
            let Some(number) = call.number_on(arch) else { continue };
            assert!(number < NUMBERS_MAX, "{} is past the limit", call.name());
            assert_eq!(
                seen.insert(number, call.name()),
                None,
                "{} shares its number",
                call.name()
            );
        }
        assert!(seen.len() > 320);
    }
}

#[test]
fn every_call_is_found_by_its_name_and_by_its_number() {
    for call in all() {
        assert_eq!(by_name(call.name()), Some(call));
        match call.number() {
            Some(native) => {
                assert_eq!(by_number(native), Some(call));
                assert_eq!(number(call.name()), Some(native));
                assert_eq!(name(native), Some(call.name()));
            }
            None => assert_eq!(number(call.name()), None),
        }
    }
    assert_eq!(number("openat3"), None);
    assert_eq!(number(""), None);
    assert_eq!(name(NUMBERS_MAX), None);
    assert_eq!(name(ABSENT), None);
}

#[test]
fn numbers_between_the_two_blocks_and_past_the_last_call_name_nothing() {
    let x86 = |n| {
        all()
            .find(|call| call.number_on(Arch::X86_64) == Some(n))
            .map(Syscall::name)
    };
    assert_eq!(x86(335), Some("uretprobe"));
    assert_eq!(x86(336), Some("uprobe"));
    assert_eq!(x86(337), None);
    assert_eq!(x86(423), None);
    assert_eq!(x86(424), Some("pidfd_send_signal"));
    assert_eq!(x86(469), Some("file_setattr"));
    assert_eq!(x86(470), None);
}

#[test]
fn x86_64_has_every_number_of_both_its_blocks() {
    let numbers: BTreeSet<u32> = all().filter_map(|call| call.number_on(Arch::X86_64)).collect();
    let expected: BTreeSet<u32> = (0..=336).chain(424..=469).collect();
    assert_eq!(numbers, expected);
}

#[test]
fn known_calls_have_the_numbers_that_their_architectures_give_them() {
    for (name, x86_64, aarch64, riscv64) in [
        ("read", Some(0), Some(63), Some(63)),
        ("open", Some(2), None, None),
        ("newfstatat", Some(262), Some(79), Some(79)),
        ("renameat", Some(264), Some(38), None),
        ("openat", Some(257), Some(56), Some(56)),
        ("clone", Some(56), Some(220), Some(220)),
        ("seccomp", Some(317), Some(277), Some(277)),
        ("io_uring_setup", Some(425), Some(425), Some(425)),
        ("fchmodat2", Some(452), Some(452), Some(452)),
        ("riscv_hwprobe", None, None, Some(258)),
    ] {
        let call = by_name(name).unwrap();
        let numbers = ARCHES.map(|arch| call.number_on(arch));
        assert_eq!(numbers, [x86_64, aarch64, riscv64], "{name}");
    }
}

#[test]
fn signatures_have_at_most_six_known_letters() {
    for call in all() {
        assert!(call.arguments() <= 6, "{}", call.name());
        for index in 0..call.arguments() {
            assert!(call.argument(index).is_some(), "{} argument {index}", call.name());
        }
        assert_eq!(call.argument(call.arguments()), None);
    }
}

#[test]
fn arguments_that_policy_tests_have_the_width_that_the_kernel_reads() {
    use Width::{W16, W32, W64};
    for (name, index, width) in [
        ("ioctl", 1, W32),
        ("ioctl", 2, W64),
        ("socket", 0, W32),
        ("socket", 1, W32),
        ("socketpair", 2, W32),
        ("clone", 0, W32),
        ("unshare", 0, W64),
        ("setns", 1, W32),
        ("prctl", 0, W32),
        ("prctl", 1, W64),
        ("personality", 0, W32),
        ("fcntl", 1, W32),
        ("fcntl", 2, W64),
        ("setsockopt", 1, W32),
        ("setsockopt", 2, W32),
        ("getsockopt", 2, W32),
        ("sendto", 3, W32),
        ("sendmsg", 2, W32),
        ("sendmmsg", 3, W32),
        ("recvmsg", 2, W32),
        ("mmap", 2, W64),
        ("mprotect", 2, W64),
        ("openat", 2, W32),
        ("openat", 3, W16),
        ("mkdirat", 2, W16),
        ("chmod", 1, W16),
        ("fchmod", 1, W16),
        ("fchmodat", 2, W16),
        ("fchmodat2", 2, W16),
        ("mknodat", 2, W16),
        ("mknodat", 3, W32),
        ("kill", 0, W32),
        ("tgkill", 2, W32),
        ("keyctl", 0, W32),
        ("bpf", 0, W32),
        ("perf_event_open", 4, W64),
        ("splice", 5, W32),
        ("seccomp", 0, W32),
        ("seccomp", 1, W32),
        ("prlimit64", 0, W32),
    ] {
        assert_eq!(
            by_name(name).unwrap().argument(index),
            Some(Kind::Scalar(width)),
            "{name} argument {index}"
        );
    }
    for (name, index) in [
        ("connect", 1),
        ("openat", 1),
        ("clone3", 0),
        ("openat2", 2),
        ("ppoll", 0),
    ] {
        assert_eq!(
            by_name(name).unwrap().argument(index),
            Some(Kind::Pointer),
            "{name} argument {index}"
        );
    }
}

#[test]
fn groups_hold_only_known_calls_sorted_and_each_once() {
    assert!(GROUPS.is_sorted_by(|a, b| a.name < b.name));
    for group in groups() {
        assert!(group.name.starts_with('@'));
        assert!(!group.about.is_empty());
        assert!(
            !group.numbers.is_empty() || Arch::NATIVE != Arch::X86_64,
            "{} is empty",
            group.name
        );
        assert!(
            group.numbers.is_sorted_by(|a, b| a < b),
            "{} is unsorted or holds one twice",
            group.name
        );
        for number in group.numbers {
            assert!(by_number(*number).is_some(), "{} holds {number}", group.name);
        }
    }
}

#[test]
fn a_group_that_names_others_holds_all_of_theirs() {
    let whole: BTreeSet<u32> = group("@system-service").unwrap().iter().copied().collect();
    for inner in [
        "@aio",
        "@basic-io",
        "@chown",
        "@default",
        "@file-system",
        "@io-event",
        "@ipc",
        "@keyring",
        "@memlock",
        "@network-io",
        "@process",
        "@resources",
        "@setuid",
        "@signal",
        "@sync",
        "@timer",
    ] {
        for number in group(inner).unwrap() {
            assert!(whole.contains(number), "{inner} {number}");
        }
    }
    assert!(!whole.contains(&nr::ptrace) && !whole.contains(&nr::mount) && !whole.contains(&nr::bpf));
}

#[test]
fn an_unknown_group_is_none_and_every_documented_group_is_there() {
    assert_eq!(group("@files"), None);
    assert_eq!(group("file-system"), None);
    let names: Vec<_> = groups().map(|group| group.name.to_string()).collect();
    assert_eq!(
        names.join(" "),
        "@aio @basic-io @chown @clock @cpu-emulation @debug @default @file-system @io-event @ipc @keyring @memlock \
         @module @mount @network-io @obsolete @pkey @privileged @process @raw-io @reboot @resources @sandbox @setuid \
         @signal @swap @sync @system-service @timer"
    );
}

#[test]
fn widths_lead_back_from_their_bits() {
    for width in [Width::W16, Width::W32, Width::W64] {
        assert_eq!(Width::from_bits(u64::from(width.bits())), Some(width));
        assert_eq!(width.mask().count_ones(), u32::from(width.bits()));
    }
    assert_eq!(Width::from_bits(8), None);
}
