//! What is claimed.

use super::world::{in_namespaces, in_namespaces_with, make_directory, mount, mount_dead, under_nx, without_call};
use nexus_abi::syscall::nr;
use nx::doctor::{State, examine, examine_one, names};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

#[derive(Clone, Copy)]
pub(crate) enum Who {
    Everybody,
    Root,
}

pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) who: Who,
    pub(crate) run: fn(),
}

macro_rules! cases {
    ($($who:ident $name:ident),* $(,)?) => {
        pub(crate) const CASES: &[Case] = &[$(Case { name: stringify!($name), who: Who::$who, run: $name }),*];
    };
}

cases! {
    Everybody a_report_names_everything_in_order_and_gives_words_for_every_lack,
    Everybody this_kernel_gives_all_that_does_not_depend_on_how_the_machine_is_set_up,
    Everybody nothing_is_left_behind,
    Everybody a_device_that_one_may_open_is_available_and_one_that_is_not_there_is_missing,
    Root a_device_of_roots_alone_is_missing_with_the_words_that_open_it,
    Everybody user_namespaces_are_missing_at_a_limit_of_0_and_there_at_a_limit_above,
    Everybody a_proc_that_is_partly_covered_is_missing,
    Everybody a_refused_call_is_named_and_others_stay_available,
    Everybody a_second_listener_is_told_from_an_old_kernel,
    Everybody nx_inside_nx_is_told_in_plain_words,
    Everybody a_directory_that_hangs_is_reported_and_not_waited_for,
    Everybody a_state_directory_that_cannot_be_written_is_missing_and_one_that_can_is_not,
    Everybody a_caller_with_threads_is_refused_and_not_lied_to,
}

/// What `what` lacks in words; fails if nothing lacks.
fn lack(what: &str) -> String {
    let finding = examine_one(what).unwrap();
    finding
        .words()
        .unwrap_or_else(|| panic!("`{what}` lacks nothing: {finding:?}"))
}

fn check_lack(what: &str, words: &[&str]) {
    let text = lack(what);
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

fn check_available(what: &str) {
    let finding = examine_one(what).unwrap();
    assert!(finding.state.is_available(), "{:?}", finding.words());
}

fn a_report_names_everything_in_order_and_gives_words_for_every_lack() {
    let report = examine();
    assert!(report.findings.iter().map(|finding| finding.what).eq(names()));
    assert_eq!(names().collect::<BTreeSet<_>>().len(), names().count());
    let text = report.text();
    for finding in &report.findings {
        let words = report.words_for(finding.what);
        assert_eq!(words.is_none(), finding.state.is_available());
        assert!(words.is_none_or(|words| text.contains(&words)));
    }
    let blocked = report.findings.iter().any(|f| f.required && f.state.is_missing());
    assert_eq!(report.ready(), !blocked);
    let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
    assert_eq!(json["version"], 1);
    assert_eq!(json["ready"], report.ready());
    assert_eq!(json["findings"].as_array().unwrap().len(), names().count());
    // The same machine gives the same report.
    assert_eq!(examine(), report);
}

fn this_kernel_gives_all_that_does_not_depend_on_how_the_machine_is_set_up() {
    for what in [
        "architecture",
        "nesting",
        "user-namespaces",
        "namespaces",
        "mounts",
        "proc",
        "terminals",
        "system-calls",
        "seccomp-notify",
        "memory-access",
        "netns-cookie",
        "keyring",
        "state-directory",
    ] {
        check_available(what);
    }
}

fn nothing_is_left_behind() {
    let look = || {
        let list = |path: &str| -> BTreeSet<_> {
            let entries = std::fs::read_dir(path).unwrap();
            entries.flatten().map(|entry| entry.file_name()).collect()
        };
        (
            std::fs::read_to_string("/proc/self/mountinfo").unwrap(),
            std::fs::read_to_string("/proc/self/cgroup").unwrap(),
            std::fs::read_to_string("/proc/self/uid_map").unwrap(),
            std::env::current_dir().unwrap(),
            rustix::system::uname().nodename().to_owned(),
            list("/proc/self/fd").len(),
            list("/tmp")
                .into_iter()
                .filter(|name| name.to_string_lossy().contains("nx-doctor"))
                .count(),
            list(&std::env::var("HOME").unwrap()),
        )
    };
    let before = look();
    for _ in 0..3 {
        let _ = examine();
    }
    assert_eq!(look(), before);
    let options = rustix::process::WaitOptions::NOHANG;
    assert_eq!(
        rustix::process::wait(options).unwrap_err(),
        Errno::CHILD,
        "a probe is still there"
    );
    for mount in before.0.lines().filter(|line| line.contains(" - cgroup2 ")) {
        let point = mount.split(' ').nth(4).unwrap();
        for entry in std::fs::read_dir(point).into_iter().flatten().flatten() {
            assert!(
                !entry.file_name().to_string_lossy().starts_with("nx-d0c7"),
                "a cgroup is still there"
            );
        }
    }
}

fn a_device_that_one_may_open_is_available_and_one_that_is_not_there_is_missing() {
    in_namespaces(|| {
        mount("tmpfs", "/dev");
        check_lack("fuse-device", &["/dev/fuse", "ENOENT", "mend: "]);
        check_lack("fuse-mount", &["without `fuse-device`"]);
        // What opens is called available: only a mount shows what it is.
        std::fs::write("/dev/fuse", "").unwrap();
        check_available("fuse-device");
        assert!(examine_one("fuse-mount").unwrap().state.is_missing());
    });
}

fn a_device_of_roots_alone_is_missing_with_the_words_that_open_it() {
    const SOMEBODY: u32 = 64_124;
    in_namespaces_with(&format!("0 0 1\n{SOMEBODY} {SOMEBODY} 1"), || {
        mount("tmpfs", "/dev");
        let set_mode = |mode| {
            std::fs::set_permissions("/dev", PermissionsExt::from_mode(0o755)).unwrap();
            std::fs::set_permissions("/dev/fuse", PermissionsExt::from_mode(mode)).unwrap();
        };
        std::fs::write("/dev/fuse", "").unwrap();
        set_mode(0o600);
        check_available("fuse-device");
        let uid = rustix::thread::Uid::from_raw(SOMEBODY);
        rustix::thread::set_thread_res_uid(uid, uid, rustix::thread::Uid::ROOT).unwrap();
        check_lack(
            "fuse-device",
            &[
                "EACCES",
                "mend: $ sudo chmod 666 /dev/fuse",
                "udev/rules.d",
                r#"KERNEL=="fuse", MODE="0666""#,
            ],
        );
        let root = rustix::thread::Uid::ROOT;
        rustix::thread::set_thread_res_uid(root, root, root).unwrap();
        set_mode(0o666);
        rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        check_available("fuse-device");
    });
}

fn user_namespaces_are_missing_at_a_limit_of_0_and_there_at_a_limit_above() {
    in_namespaces(|| {
        let limit = |value: &str| std::fs::write("/proc/sys/user/max_user_namespaces", value).unwrap();
        limit("0");
        check_lack(
            "user-namespaces",
            &[
                "`user.max_user_namespaces` is 0",
                "mend: $ sudo sysctl -w user.max_user_namespaces=15000",
            ],
        );
        check_lack("namespaces", &["`user.max_user_namespaces` is 0"]);
        check_lack("mounts", &["without `namespaces`"]);
        limit("100");
        check_available("user-namespaces");
        check_available("mounts");
        std::fs::write("/proc/sys/user/max_net_namespaces", "0").unwrap();
        check_available("user-namespaces");
        check_lack("namespaces", &["sysctl -w user.max_net_namespaces=15000"]);
    });
}

fn a_proc_that_is_partly_covered_is_missing() {
    in_namespaces(|| {
        check_available("proc");
        mount("tmpfs", "/proc/bus");
        check_lack("proc", &["a part of `/proc` is covered", "EPERM", "mend: "]);
        check_available("terminals");
    });
}

fn a_refused_call_is_named_and_others_stay_available() {
    for (number, errno, what, words) in [
        (nr::mount_setattr, Errno::PERM, "mounts", "mount_setattr"),
        (nr::pivot_root, Errno::PERM, "mounts", "pivot_root"),
        (nr::fsopen, Errno::NOSYS, "terminals", "mount /dev/pts"),
        (nr::openat2, Errno::NOSYS, "system-calls", "openat2 (Linux 5.6)"),
        (nr::close_range, Errno::PERM, "system-calls", "close_range"),
        (nr::process_vm_readv, Errno::PERM, "memory-access", "process_vm_readv"),
        (nr::pidfd_getfd, Errno::PERM, "memory-access", "pidfd_getfd"),
        (nr::keyctl, Errno::PERM, "keyring", "session keyring"),
        (nr::clone3, Errno::PERM, "user-namespaces", "syscall filter"),
        (nr::clone3, Errno::NOSYS, "user-namespaces", "ENOSYS"),
        (nr::landlock_create_ruleset, Errno::NOSYS, "landlock", "through a pipe"),
        (
            nr::landlock_create_ruleset,
            Errno::OPNOTSUPP,
            "landlock",
            "lsm=landlock",
        ),
    ] {
        without_call(number, errno, || {
            check_lack(what, &[words]);
            check_available("architecture");
            if number != nr::clone3 {
                check_available("netns-cookie");
            }
        });
    }
    // A kernel without keyrings is not a lack.
    without_call(nr::keyctl, Errno::NOSYS, || check_available("keyring"));
    let landlock = || examine_one("landlock").unwrap();
    without_call(nr::landlock_create_ruleset, Errno::NOSYS, || {
        assert!(matches!(landlock().state, State::Degraded { .. }));
        assert!(!landlock().required);
    });
}

fn a_second_listener_is_told_from_an_old_kernel() {
    check_available("seccomp-notify");
    without_call(nr::kexec_load, Errno::PERM, || {
        check_lack("seccomp-notify", &["EBUSY", "already answers"]);
        assert!(matches!(
            examine_one("seccomp-sync-wake-up").unwrap().state,
            State::Degraded { .. }
        ));
    });
}

fn nx_inside_nx_is_told_in_plain_words() {
    check_available("nesting");
    under_nx(|| {
        for what in ["nesting", "user-namespaces", "namespaces"] {
            check_lack(what, &["already runs under nx", "shell outside"]);
        }
    });
}

fn a_directory_that_hangs_is_reported_and_not_waited_for() {
    let device = Path::new("/dev/fuse");
    let mine = |mode| rustix::fs::access(device, mode).is_ok();
    if !mine(rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK) {
        // Somebody whom this machine does not let open the device: the words for it have a test of their own.
        check_lack("fuse-device", &["chmod 666"]);
        return;
    }
    in_namespaces(|| {
        mount("tmpfs", "/mnt");
        make_directory("/mnt/dead");
        let server = mount_dead(device, "/mnt/dead");
        let words = words_with_state_in("/mnt/dead");
        assert!(words.contains("no answer within 2 s"), "{words}");
        drop(server);
    });
}

/// What the doctor says of the state directory in an environment that names another one.
fn words_with_state_in(state_home: &str) -> String {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .env(crate::CASE, crate::WORDS_OF_STATE)
        .env("XDG_STATE_HOME", state_home)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Prints them.
pub(crate) fn words_of_state() {
    println!(
        "{}",
        examine_one("state-directory").unwrap().words().unwrap_or_default()
    );
}

fn a_state_directory_that_cannot_be_written_is_missing_and_one_that_can_is_not() {
    let home = std::env::var("HOME").unwrap();
    assert_eq!(words_with_state_in(&home), "\n");
    assert_eq!(words_with_state_in(&format!("{home}/not/there/yet")), "\n");
    let file = format!("{home}/file");
    std::fs::write(&file, "").unwrap();
    assert!(words_with_state_in(&file).contains("not a directory"));
    in_namespaces(|| {
        mount("tmpfs", "/mnt");
        let flags = rustix::mount::MountFlags::RDONLY;
        rustix::mount::mount_remount("/mnt", flags, "").unwrap();
        let words = words_with_state_in("/mnt/a\u{1b}[31m");
        assert!(words.contains("EROFS") && words.contains("mend: "), "{words}");
        assert!(!words.contains('\u{1b}'), "{words}");
    });
}

fn a_caller_with_threads_is_refused_and_not_lied_to() {
    std::thread::scope(|scope| {
        let handle = scope.spawn(|| lack("user-namespaces"));
        assert!(handle.join().unwrap().contains("EBUSY"));
    });
    // A thread that was joined is still there for the kernel, for a moment.
    while std::fs::read_dir("/proc/self/task").unwrap().count() > 1 {
        std::thread::yield_now();
    }
    check_available("user-namespaces");
}
