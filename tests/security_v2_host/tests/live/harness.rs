//! What the other live tests rest on.

use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Stdio;
use std::time::Duration;

use security_v2_host::{Home, Run, Tree, spawn_for, users};

#[test]
fn a_run_that_does_not_end_is_killed_and_fails_the_test_and_leaves_nothing() {
    for user in users() {
        let home = Home::new(user);
        let run = Run::at(&home)
            .deadline(Duration::from_secs(2))
            .bash("sleep 1000 & sleep 1000");
        let message = catch_unwind(AssertUnwindSafe(|| run.run())).expect_err("the run ended");
        let message = message.downcast_ref::<String>().cloned().unwrap_or_default();
        assert!(message.contains("did not end in 2s"), "{message}");
        home.assert_nothing_left();
    }
}

#[test]
fn whoever_waits_for_a_child_that_does_not_end_goes_on_with_all_of_its_sessions_killed() {
    for user in users() {
        let home = Home::new(user);
        // Whatever ends first, the others hold the stream.
        let mut command = home.command("/bin/bash");
        command.args(["-c", "nx run -q demo -- sleep 1000 & nx run -q demo -- sleep 1000"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let child = spawn_for(&mut command, Duration::from_secs(2)).unwrap();
        let done = child.wait_with_output().unwrap();
        assert_eq!(done.status.signal(), Some(9), "{done:?}");
        home.becomes_empty();
        home.assert_nothing_left();
    }
}

#[test]
fn a_home_takes_everything_with_it_also_when_its_test_panics() {
    for user in users() {
        let home = Home::new(user);
        let root = home.state().parent().map(ToOwned::to_owned).unwrap_or_default();
        let held = std::sync::Arc::clone(&home);
        let died = catch_unwind(AssertUnwindSafe(move || {
            let done = Run::at(&held).probe(["append", "/tmp/file", "4096"]).run();
            panic!("as a failing assertion does: {done}");
        }));
        assert!(died.is_err());
        assert!(root.exists());
        drop(home);
        assert!(!root.exists(), "{}", root.display());
    }
}

#[test]
fn a_policy_that_is_wrong_starts_nothing() {
    for user in users() {
        let done = Run::new(user)
            .policy(&Tree::shipped().append("egress.toml", "nonsense = 1"))
            .bash("echo ran")
            .run();
        assert_eq!((done.code(), done.out().as_str()), (Some(3), ""), "{done}");
        done.assert_nothing_left();
    }
}
