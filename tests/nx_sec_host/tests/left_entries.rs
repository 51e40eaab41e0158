//! What is left of an entry at which nobody listens: told while its first process lives, or nobody knows, and else removed.

use nx::registry::{self, Process, ProcessFact, SESSIONS, SESSIONS_MAX, list, publish};
use nx_sec_host::{close, ended, facts, lives, names, place, rewrite, trouble};
use security_v2_host::spawn;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// A user who is neither root nor who runs the tests.
const SOMEBODY: u32 = 64_998;

/// Leaves what a killed supervisor leaves: its files, and no socket.
fn leave(runtime: &Path, facts: &nx::registry::Facts) {
    let (entry, socket) = publish(runtime, facts).unwrap();
    std::mem::forget(entry);
    close(socket);
}

/// What lies in the directory of entries.
fn files(runtime: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(runtime.join(SESSIONS)).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Facts whose processes have all ended.
fn dead(session: &str) -> nx::registry::Facts {
    let ended = ended();
    nx::registry::Facts {
        supervisor: ended,
        front: ended,
        init: ended,
        ..facts(session, "s")
    }
}

#[test]
fn an_entry_whose_owner_was_killed_is_not_shown_and_removed() {
    let place = place();
    leave(place.path(), &dead("a"));
    // It was killed while it exchanged its facts.
    std::fs::write(place.path().join(SESSIONS).join(".new-a.json"), "").unwrap();
    assert_eq!(files(place.path()), [".new-a.json", "a", "a.json"]);
    assert_eq!(names(place.path()), [""; 0]);
    assert_eq!(files(place.path()), [""; 0]);
}

#[test]
fn an_entry_whose_first_process_lives_is_told_and_stays_and_is_gone_with_it() {
    for what in ["nobody listens", "no socket", "another version"] {
        let place = place();
        let (mut child, init) = lives();
        let mut left = dead("a");
        left.init = init;
        leave(place.path(), &left);
        match what {
            "no socket" => std::fs::remove_file(place.path().join(SESSIONS).join("a")).unwrap(),
            "another version" => {
                left.version += 1;
                rewrite(place.path(), "a", &serde_json::to_string(&left).unwrap());
            }
            _ => {}
        }
        let there = files(place.path());
        for _ in 0..2 {
            let why = trouble(place.path());
            let lives = format!("its first process (pid {}) lives on", init.pid);
            assert!(
                why.contains(&lives) && why.contains("its supervisor has ended"),
                "{what}: {why}"
            );
            assert!(why.contains("name subject `s`"), "{what}: {why}");
            assert!(why.contains(&format!("`kill -KILL {}`", init.pid)), "{what}: {why}");
            // Neither a reader nor who clears up after a killed supervisor removes it.
            registry::clear(place.path(), "a");
            assert_eq!(files(place.path()), there, "{what}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(names(place.path()), [""; 0]);
        assert_eq!(files(place.path()), [""; 0], "{what}");
    }
}

#[test]
fn a_later_process_of_the_first_ones_number_or_another_users_keeps_no_entry() {
    let place = place();
    let (mut child, init) = lives();
    let mut later = dead("a");
    later.init = ProcessFact {
        started: init.started - 1,
        ..init
    };
    leave(place.path(), &later);
    // Root's own is the first process of all, so root makes one of another user.
    let mut somebody_elses = rustix::process::geteuid().is_root().then(|| {
        let mut command = Command::new("/bin/sleep");
        spawn(command.arg("1000").uid(SOMEBODY).gid(SOMEBODY)).unwrap()
    });
    let number = somebody_elses
        .as_ref()
        .map_or(1, |child| i32::try_from(child.id()).unwrap());
    let mut others = dead("b");
    others.init = Process::of(number).unwrap().fact();
    leave(place.path(), &others);
    assert_eq!(names(place.path()), [""; 0]);
    assert_eq!(files(place.path()), [""; 0]);
    for child in somebody_elses.iter_mut().chain([&mut child]) {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn an_entry_whose_socket_somebody_removed_is_told_while_its_processes_live() {
    let place = place();
    let held = publish(place.path(), &facts("a", "s")).unwrap();
    std::fs::remove_file(place.path().join(SESSIONS).join("a")).unwrap();
    let why = trouble(place.path());
    assert!(why.contains("its socket is gone, its supervisor (pid "), "{why}");
    assert_eq!(files(place.path()), ["a.json"]);
    drop(held);
    assert_eq!(names(place.path()), [""; 0]);
}

#[test]
fn facts_that_are_gone_or_damaged_where_nobody_listens_leave_it_unknown_and_nothing_is_removed() {
    for damage in [
        None,
        Some(""),
        Some("{"),
        Some("{\"version\":3}"),
        Some("{\"version\":9}"),
    ] {
        let place = place();
        leave(place.path(), &dead("a"));
        let text = place.path().join(SESSIONS).join("a.json");
        match damage {
            None => std::fs::remove_file(&text).unwrap(),
            Some(damage) => std::fs::write(&text, damage).unwrap(),
        }
        let there = files(place.path());
        let why = trouble(place.path());
        assert!(
            why.contains("whether its program still runs is not known"),
            "{damage:?}: {why}"
        );
        assert!(
            why.contains("remove `sessions/a` and `sessions/a.json`"),
            "{damage:?}: {why}"
        );
        assert_eq!(files(place.path()), there, "{damage:?}");
    }
}

#[test]
fn an_entry_in_the_middle_of_being_made_or_removed_is_its_supervisors_and_no_trouble() {
    let place = place();
    let (entry, socket) = publish(place.path(), &facts("a", "s")).unwrap();
    let sessions = place.path().join(SESSIONS);
    let bound = rustix::net::getsockname(&socket).unwrap();
    let bound = rustix::net::SocketAddrUnix::try_from(bound).unwrap();
    let bound = Path::new(std::str::from_utf8(bound.path_bytes().unwrap()).unwrap()).to_owned();
    for name in [bound.file_name().unwrap(), std::ffi::OsStr::new(".new-a")] {
        std::fs::rename(sessions.join("a"), sessions.join(name)).unwrap();
        assert_eq!(names(place.path()), [""; 0], "{name:?}");
        assert_eq!(files(place.path()).len(), 2, "{name:?}");
        std::fs::rename(sessions.join(name), sessions.join("a")).unwrap();
        assert_eq!(names(place.path()), ["a"]);
    }
    drop(entry);
    assert_eq!(files(place.path()), [""; 0]);
}

#[test]
fn a_session_that_ends_is_never_in_doubt_while_it_takes_its_entry_away() {
    let place = place();
    let looks = || list(place.path()).unwrap().troubles;
    // Somebody looks all the time. No name is given twice: who looks removes what is left of one that has ended.
    std::thread::scope(|scope| {
        let ends = scope.spawn(|| {
            for number in 0..500 {
                drop(publish(place.path(), &facts(&format!("{number:012x}"), "s")).unwrap());
            }
        });
        while !ends.is_finished() {
            assert_eq!(looks(), []);
        }
    });
    assert_eq!(files(place.path()), [""; 0]);
}

#[test]
fn what_was_being_made_goes_once_it_is_old_but_where_somebody_listens() {
    let place = place();
    let _held = publish(place.path(), &facts("a", "s")).unwrap();
    let sessions = place.path().join(SESSIONS);
    let hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    // Somebody was stopped in the middle of it.
    let stopped = publish(place.path(), &facts("e", "s")).unwrap();
    std::fs::rename(sessions.join("e"), sessions.join(".new-e")).unwrap();
    std::fs::remove_file(sessions.join("e.json")).unwrap();
    rustix::fs::utimensat(
        rustix::fs::CWD,
        sessions.join(".new-e"),
        &rustix::fs::Timestamps {
            last_access: rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 },
            last_modification: rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 },
        },
        rustix::fs::AtFlags::empty(),
    )
    .unwrap();
    for (name, old) in [
        (".new-c", true),
        (".new-c.json", true),
        (".new-d.json", false),
        ("a.json", true),
    ] {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(sessions.join(name))
            .unwrap();
        if old {
            file.set_modified(hour_ago).unwrap();
        }
    }
    assert_eq!(names(place.path()), ["a"]);
    assert_eq!(files(place.path()), [".new-d.json", ".new-e", "a", "a.json"]);
    drop(stopped);
}

#[test]
fn what_a_killed_supervisor_left_of_its_own_session_is_cleared_and_others_stay() {
    let place = place();
    let _held = publish(place.path(), &facts("a", "s")).unwrap();
    leave(place.path(), &dead("b"));
    let sessions = place.path().join(SESSIONS);
    for name in [".new-b", ".new-b.json", ".new-a", ".new-a.json"] {
        std::fs::write(sessions.join(name), "").unwrap();
    }
    registry::clear(place.path(), "b");
    assert_eq!(files(place.path()), [".new-a", ".new-a.json", "a", "a.json"]);
    registry::clear(&place.path().join("not there"), "b");
}

#[test]
fn a_directory_of_more_than_is_looked_at_is_told_and_one_of_fewer_is_not() {
    // What begins with a dot was begun and has no name yet, what ends so are facts; the third is no socket.
    for (prefix, suffix, few, many) in [
        (".new-", "", 16, 2 * SESSIONS_MAX + 2),
        ("", ".json", 16, 2 * SESSIONS_MAX + 2),
        ("", "", 16, SESSIONS_MAX + 1),
    ] {
        let place = place();
        let (entry, _socket) = publish(place.path(), &facts("here", "s")).unwrap();
        let sessions = place.path().join(SESSIONS);
        let mut made = 0;
        for (up_to, told) in [(few, false), (many, true)] {
            for number in made..up_to {
                // Of one inode, which costs the least.
                let name = sessions.join(format!("{prefix}{number:012}{suffix}"));
                if number % 1000 == 0 {
                    std::fs::write(&name, "").unwrap();
                } else {
                    let first = sessions.join(format!("{prefix}{:012}{suffix}", number / 1000 * 1000));
                    std::fs::hard_link(first, &name).unwrap();
                }
            }
            made = up_to;
            let listing = list(place.path()).unwrap();
            let found = listing
                .troubles
                .iter()
                .any(|trouble| trouble.why.contains("there are more than"));
            assert_eq!(found, told, "{prefix}…{suffix}, {up_to}");
        }
        drop(entry);
    }
}
