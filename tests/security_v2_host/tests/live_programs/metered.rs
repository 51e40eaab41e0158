//! A work directory that is metered, as people use one: with git, a build, and an editor open beside it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::need::{has, place, room, works};
use security_v2_host::{Home, Output, Run, eventually, users};

fn metered(home: &Arc<Home>) -> Run {
    Run::at(home).policy(&room()).subject("metered")
}

fn script(home: &Arc<Home>, script: &str) -> Output {
    metered(home).bash(&format!("set -euo pipefail\n{script}")).run()
}

#[test]
fn git_works_in_it_and_its_hooks_and_settings_stay() {
    if !has(&["git"]) {
        return;
    }
    for user in users() {
        let home = Home::new(user);
        let made = home.shell("git init -q && git config user.name n && git config user.email e@e && echo one > a && git add a && git commit -qm one");
        assert!(made.status.success(), "{made:?}");
        let done = script(
            &home,
            "echo two > a; git -c safe.directory='*' -c gc.auto=0 commit -qam two; git log --oneline | wc -l
             for try in 'echo x >> .git/config' 'echo x > .git/hooks/pre-commit' 'mv .git git' 'mv .git/hooks .git/h' 'rm -r .git/hooks' 'git config a.b c'; do
                (eval \"$try\") 2>/dev/null && echo \"$try worked\"; done; true",
        );
        assert_eq!((done.code(), done.out().as_str()), (Some(0), "2\n"), "{done}");
        let log = home.shell("git log --oneline | wc -l && git status --short a && git fsck");
        assert!(log.status.success() && log.stdout.starts_with(b"2"), "{log:?}");
        home.assert_nothing_left();
    }
}

/// Runs a program that waits for the file `go`, and does something outside once it runs.
fn meanwhile(home: &Arc<Home>, before: &str, act: impl FnOnce(&Path), after: &str) -> Output {
    std::thread::scope(|scope| {
        let session = scope.spawn(|| {
            script(
                home,
                &format!("{before}\ntouch running\nuntil [ -e go ]; do sleep 0.02; done\nsleep 1.2\n{after}"),
            )
        });
        eventually("the program runs", || home.work().join("running").exists());
        act(&home.work());
        home.write_work("go", "");
        session.join().expect("a run")
    })
}

#[test]
fn settings_that_are_replaced_outside_while_it_runs_stay_protected_inside() {
    for user in users() {
        let home = Home::new(user);
        let made = home.shell("mkdir -p .git/hooks && echo old > .git/config && echo old > .git/hooks/a");
        assert!(made.status.success());
        let done = meanwhile(
            &home,
            "cat .git/config",
            |work| {
                // As `git config` does it, and a checkout of hooks.
                home.write_work(".git/config.lock", "new\n");
                fs::rename(work.join(".git/config.lock"), work.join(".git/config")).expect("git's way");
                fs::rename(work.join(".git/hooks"), work.join(".git/hooks.old")).expect("a rename");
                fs::create_dir(work.join(".git/hooks")).expect("a directory");
                home.give(&work.join(".git/hooks"));
            },
            "cat .git/config
             for try in 'echo evil > .git/config' 'echo evil > .git/hooks/b' 'mv .git x' 'rm .git/config' 'rm -d .git/hooks' 'echo evil > evil; mv evil .git/config'; do
                 (eval \"$try\") 2>/dev/null && echo \"$try worked\"; done; true",
        );
        assert_eq!((done.code(), done.out().as_str()), (Some(0), "old\nold\n"), "{done}");
        let read = |name: &str| fs::read_to_string(home.work().join(name)).unwrap_or_default();
        assert_eq!(read(".git/config"), "new\n");
        assert!(!home.work().join(".git/hooks/b").exists() && !home.work().join(".git/hooks.old/b").exists());
    }
}

#[test]
fn what_an_editor_outside_changes_is_seen_inside_and_what_is_made_inside_outside() {
    for user in users() {
        let home = Home::new(user);
        home.write_work("kept", "old\n");
        home.write_work("replaced", "old\n");
        let done = meanwhile(
            &home,
            "cat kept replaced; mkdir inside; echo made > inside/file",
            |work| {
                assert_eq!(fs::read_to_string(work.join("inside/file")).expect("at once"), "made\n");
                fs::write(work.join("kept"), "new\n").expect("an edit in place");
                home.write_work("new", "new\n");
                fs::rename(work.join("new"), work.join("replaced")).expect("an edit by replacing");
                fs::remove_file(work.join("inside/file")).expect("a removal");
            },
            "cat kept replaced; ls inside",
        );
        assert_eq!(
            (done.code(), done.out().as_str()),
            (Some(0), "old\nold\nnew\nnew\n"),
            "{done}"
        );
    }
}

#[test]
fn what_is_asked_for_in_the_command_is_metered_within_policy() {
    for user in users() {
        let home = place(user);
        let done = Run::at(&home)
            .policy(&room())
            .subject("metered")
            .work(format!("{}:metered", home.work().display()))
            .bash("stat -f -c %a . ; echo x > made")
            .run();
        // A gibibyte of 4 KiB.
        assert_eq!((done.code(), done.out().as_str()), (Some(0), "262144\n"), "{done}");
        let done = Run::at(&home)
            .policy(&room())
            .subject("metered")
            .work(format!("{}:unmetered", home.work().display()))
            .args(["true"])
            .run();
        assert_eq!(done.code(), Some(3), "{done}");
    }
}

#[test]
fn a_unix_socket_of_the_hosts_in_it_cannot_be_reached_and_an_own_one_can() {
    if !has(&["python3"]) {
        return;
    }
    for user in users() {
        let home = Home::new(user);
        let host = std::os::unix::net::UnixListener::bind(home.work().join("host")).expect("a socket");
        home.give(&home.work().join("host"));
        let program = "import socket
def reach(path):
    s = socket.socket(socket.AF_UNIX)
    try: s.connect(path); return 'reached'
    except OSError as e: return e.errno
own = socket.socket(socket.AF_UNIX); own.bind('own'); own.listen()
print(reach('own'), reach('host'))";
        let done = metered(&home).args(["python3", "-c", program]).run();
        assert_eq!((done.code(), done.out().as_str()), (Some(0), "reached 111\n"), "{done}");
        drop(host);
    }
}

#[test]
fn it_is_no_way_around_the_budget_of_unmetered_bytes() {
    for user in users() {
        let home = place(user);
        // The same directory by another name, a mapping, a hole: all of it is growth.
        let done = works_metered(
            &home,
            "cd \"$PWD/.\"; truncate -s 1G hole 2>/dev/null; truncate -s 1 hole && ! truncate -s 2G hole 2>/dev/null; stat -f -c %a .; rm hole; stat -f -c %a .",
        );
        let free: Vec<u64> = done.out().lines().filter_map(|line| line.parse().ok()).collect();
        assert_eq!(free, [262_143, 262_144], "{done}");
        drop(works(&home, "true"));
    }
}

fn works_metered(home: &Arc<Home>, text: &str) -> Output {
    let done = script(home, text);
    assert_eq!(done.code(), Some(0), "{done}");
    done
}
