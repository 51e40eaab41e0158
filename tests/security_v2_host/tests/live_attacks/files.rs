//! Files that are not in the view, and bits that outlive a session.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use security_v2_host::users;

use crate::kit::Attack;

#[test]
fn no_way_leads_to_a_file_outside_the_view() {
    for user in users() {
        let attack = Attack::new(user);
        let secret = attack.home.home().join("secret");
        std::fs::write(&secret, "the secret\n").unwrap();
        attack.home.give(&secret);
        let secret = secret.to_string_lossy();
        let (answers, done) = attack.run(&["escape", &secret]);
        assert!(!done.out().contains("the secret"), "{done}");
        for way in [
            "plain",
            "self-root",
            "init-root",
            "init-cwd",
            "dots",
            "tmp-dots",
            "after-chroot",
            "/tmp/to-secret",
        ] {
            answers.assert_refused(&[way]);
        }
        answers.assert_refused(&["/state/to-secret-hard"]);
        assert!(!done.out().contains("map-file-write ok"), "{done}");
        done.assert_nothing_left();
    }
}

#[test]
fn without_a_session_the_same_ways_lead_there() {
    for user in users().into_iter().rev().take(1) {
        let attack = Attack::new(user);
        let secret = attack.home.home().join("secret");
        std::fs::write(&secret, "the secret\n").unwrap();
        attack.home.give(&secret);
        attack
            .bare(&["escape", &secret.to_string_lossy()])
            .assert_ok(&["plain", "self-root", "dots", "self-cwd"]);
    }
}

#[test]
fn files_of_proc_give_nothing_away_and_take_nothing() {
    for user in users() {
        let (answers, done) = Attack::new(user).run(&["proc"]);
        let bad: Vec<&String> = answers
            .said
            .iter()
            .filter(|(name, said)| *said == "ok" && (name.ends_with("-written") || name.ends_with("-link")))
            .map(|(name, _)| name)
            .collect();
        assert_eq!(bad, Vec::<&String>::new(), "{done}");
        answers.assert_refused(&[
            "/proc/sysrq-trigger-write",
            "/proc/sys/kernel/core_pattern-write",
            "/proc/sys/kernel/hostname-write",
            "/proc/1/mem-write",
            "/proc/1/mem-open",
            "/proc/1/environ-open",
            "/proc/1/maps-open",
            "/proc/1/root-link",
            "/proc/1/cwd-link",
            "/proc/1/exe-link",
            "/proc/1/fd/3-link",
            "/proc/1/ns/net-link",
        ]);
    }
}

fn set_id_files(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.path().symlink_metadata() else {
            continue;
        };
        // A directory may take the group bit over from the one that it is made in; it runs nothing.
        if !metadata.is_dir() && metadata.permissions().mode() & 0o6000 != 0 {
            found.push(entry.path());
        }
        if metadata.is_dir() {
            found.extend(set_id_files(&entry.path()));
        }
    }
    found
}

#[test]
fn no_call_leaves_a_set_id_file_or_a_device() {
    for user in users() {
        let attack = Attack::new(user);
        let work = attack.home.work();
        if user != security_v2_host::User::Root {
            let (answers, done) = attack.run(&["set-id", &work.to_string_lossy()]);
            let bad: Vec<&String> = answers
                .said
                .iter()
                .filter(|(name, said)| *said == "ok" && !name.contains(" mkdir-"))
                .map(|(name, _)| name)
                .collect();
            assert_eq!(bad, Vec::<&String>::new(), "{done}");
            assert!(answers.said.len() > 40, "{done}");
            assert_eq!(set_id_files(&work), Vec::<std::path::PathBuf>::new());
        }
        let (answers, done) = attack.run(&["set-id", "/tmp", "/state", "/dev/shm"]);
        let bad: Vec<&String> = answers
            .said
            .iter()
            .filter(|(name, said)| *said == "ok" && !name.contains(" mkdir-"))
            .map(|(name, _)| name)
            .collect();
        assert_eq!(bad, Vec::<&String>::new(), "{done}");
        assert!(answers.said.len() > 3 * 40, "{done}");
        assert_eq!(set_id_files(&attack.home.state()), Vec::<std::path::PathBuf>::new());
    }
}

#[test]
fn without_a_session_set_id_files_are_left() {
    for user in users().into_iter().rev().take(1) {
        let attack = Attack::new(user);
        let work = attack.home.work();
        attack.bare(&["set-id", &work.to_string_lossy()]);
        assert!(set_id_files(&work).len() > 4);
    }
}

#[test]
fn the_environment_holds_no_secret_of_the_callers() {
    for user in users() {
        let attack = Attack::new(user);
        let done = attack
            .prepare(&["environment"])
            .env("GITHUB_TOKEN", "top-secret")
            .env("SSH_AUTH_SOCK", "/run/agent-secret")
            .env("AWS_SECRET_ACCESS_KEY", "top-secret")
            .env("LD_PRELOAD_X", "top-secret")
            .env("LC_TIME", "C")
            .run();
        assert!(done.out().contains("LC_TIME=C"), "{done}");
        assert!(!done.out().contains("secret"), "{done}");
        assert!(!done.out().contains(&*attack.home.state().to_string_lossy()), "{done}");
    }
}

#[test]
fn a_link_that_another_session_puts_on_the_way_to_a_work_directory_is_not_followed() {
    // What the plan resolved is what is mounted: the plan's path has no links, and a part that became one is refused.
    for user in users() {
        let attack = Attack::new(user);
        let work = attack.home.work();
        let (real, other) = (work.join("real"), attack.home.home().join("other"));
        for path in [&real, &other] {
            std::fs::create_dir(path).unwrap();
            attack.home.give(path);
        }
        std::os::unix::fs::symlink(&other, work.join("link")).unwrap();
        // A link that is there from the start is the user's own word and is resolved.
        let done = attack
            .prepare_any(vec!["pwd".into()])
            .work(work.join("link").to_string_lossy())
            .run();
        assert_eq!(done.out().trim(), other.to_string_lossy(), "{done}");
    }
}

#[test]
fn nothing_is_linked_or_renamed_from_an_area_into_the_work_directory() {
    for user in users() {
        let attack = Attack::new(user);
        let to = attack.home.work().join("taken").to_string_lossy().into_owned();
        let (link, rename) = (format!("link:/tmp/file:{to}"), format!("rename:/tmp/file:{to}"));
        let (answers, done) = attack.run(&["change", "make:/tmp/file", &link, &rename, "link:/usr/bin/env:/tmp/env"]);
        answers.assert_only(&["make:/tmp/file"], 4);
        assert!(!attack.home.work().join("taken").exists(), "{done}");
    }
}

#[test]
fn a_home_that_a_session_spoiled_keeps_no_later_one_from_starting_and_mending_it() {
    let spoils = [
        "rm -rf /state/home && ln -s /tmp /state/home",
        "rm -rf /state/home && ln -s /proc/1/root /state/home",
        "rm -rf /state/home && echo file > /state/home",
        "rm -rf /state/home; i=0; while : > /state/f$i; do i=$((i+1)); done 2> /dev/null",
        "chmod 000 /state/home /state",
    ];
    for user in users() {
        let attack = Attack::new(user);
        // Nothing else to stand in.
        let tree = attack
            .tree
            .clone()
            .edit(
                "sandbox.toml",
                "[subject.attack]\nwork = \"unmetered\"\n",
                "[subject.attack]\nwork = \"none\"\n",
            )
            .append(
                "quotas.toml",
                "[subject.attack.state]\nsoft = \"1MiB\"\nhard = \"1MiB\"\ninodes = 32\n",
            );
        let script = |line: &str| {
            security_v2_host::Run::at(&attack.home)
                .policy(&tree)
                .subject("attack")
                .bash(line)
                .run()
        };
        for spoil in spoils {
            let _ = script(spoil);
            let done = script("pwd -P; chmod 755 /state; rm -rf /state/* && mkdir /state/home");
            assert_eq!(done.code(), Some(0), "{spoil}: {done}");
            assert!(["/state\n", "/state/home\n"].contains(&&*done.out()), "{spoil}: {done}");
            let done = script("pwd -P");
            assert_eq!(done.out(), "/state/home\n", "{spoil}: {done}");
        }
    }
}

#[test]
fn nothing_is_mounted_writable_but_the_areas_devices_and_proc_and_nothing_with_set_id_or_devices() {
    const WRITABLE: &[&str] = &[
        "/dev/full",
        "/dev/null",
        "/dev/pts",
        "/dev/random",
        "/dev/shm",
        "/dev/tty",
        "/dev/urandom",
        "/dev/zero",
        "/proc",
        "/state",
        "/tmp",
        "/var/tmp",
    ];
    for user in users() {
        let done = security_v2_host::Run::new(user).bash("cat /proc/self/mountinfo").run();
        let mut writable = Vec::new();
        for line in done.out().lines() {
            // proc_pid_mountinfo(5): the fifth field is the mount point, the sixth its options.
            let fields: Vec<&str> = line.split(' ').collect();
            let (at, options): (&str, Vec<&str>) = (fields[4], fields[5].split(',').collect());
            assert!(options.contains(&"nosuid"), "{line}");
            assert!(options.contains(&"nodev") || at.starts_with("/dev/"), "{line}");
            if !options.contains(&"ro") {
                writable.push(at.to_owned());
            }
        }
        writable.sort_unstable();
        assert_eq!(writable, WRITABLE, "{done}");
    }
}
