//! A program that is after more of its areas than its budget, while another session of its subject works in them.

use std::time::Duration;

use security_v2_host::{Run, users};

use crate::kit::{Answers, Attack};

/// What is left of what was used when it is over: nothing.
fn assert_settled(answers: &Answers, name: &str) {
    for what in ["blocks", "inodes"] {
        let left = format!("{name}-left-{what}");
        assert_eq!((answers.get(&left), answers.value(&left)), ("ok", 0), "{answers}");
    }
}

/// Attacks in one session while another of the same subject writes and reads files, which it has to be able to all the time.
fn beside_another(attack: &Attack, words: &[&str]) -> Answers {
    // Written once: they start at the same time.
    attack.tree.write(&attack.home.policy()).unwrap();
    let prepare = |words: &[&str]| {
        let run = Run::at(&attack.home)
            .policy_directory(attack.home.policy())
            .subject("attack");
        run.args(words).deadline(Duration::from_secs(180))
    };
    let attacker = attack.home.work().join("attacker").to_string_lossy().into_owned();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let script = "touch /tmp/other-runs
                for step in $(seq 3000); do
                    [ -e /tmp/over ] && break
                    echo $step > /state/other && [ \"$(cat /state/other)\" = $step ] || exit 3
                    sleep 0.01
                done
                rm /tmp/other-runs /state/other; echo worked";
            prepare(&["bash", "-c", script]).run()
        });
        let wait = "for step in $(seq 1500); do [ -e /tmp/other-runs ] && exit 0; sleep 0.02; done; exit 4";
        let waited = prepare(&["bash", "-c", wait]).run();
        assert_eq!(waited.code(), Some(0), "{waited}");
        let done = prepare(&[&[attacker.as_str()], words].concat()).run();
        let over = prepare(&["bash", "-c", "touch /tmp/over"]).run();
        assert_eq!(over.code(), Some(0), "{over}");
        let other = other.join().unwrap();
        assert_eq!((other.code(), other.out().as_str()), (Some(0), "worked\n"), "{other}");
        assert_eq!(done.code(), Some(0), "{done}");
        Answers::of(&done.out())
    })
}

#[test]
fn what_leads_around_a_files_name_opens_nothing_and_writes_nothing() {
    for user in users() {
        let attack = Attack::new(user);
        for area in ["/tmp", "/state", "/dev/shm"] {
            let (answers, done) = attack.run(&["areas-around", area]);
            answers.assert_ok(&["made", "as-it-was"]);
            assert_eq!(answers.value("as-it-was"), 1, "{done}");
            answers.assert_refused(&[
                "handle",
                "forged-1",
                "forged-81",
                "forged-82",
                "memory-made-writable",
                "reopened",
                "reopened-without-a-name",
            ]);
            for memory in ["memory-read-only", "memory-past-the-end"] {
                assert_ne!(answers.get(memory), "ok", "{done}");
            }
            assert_settled(&answers, "around");
        }
        attack.home.assert_nothing_left();
    }
}

#[test]
fn open_files_without_names_end_at_the_inodes_and_leave_nothing() {
    for user in users() {
        let attack = Attack::new(user);
        let answers = beside_another(&attack, &["areas-unlinked", "/tmp", "200"]);
        // Nobody has more inodes than the budget, or than its share of what the file server keeps open.
        assert_eq!(answers.value("held"), answers.value("held-inodes"), "{answers}");
        assert!((100..=4096).contains(&answers.value("held")), "{answers}");
        answers.assert_ok(&["after"]);
        assert_settled(&answers, "held");
        attack.home.assert_nothing_left();
    }
}

#[test]
fn writers_that_are_killed_at_the_limit_leave_the_ledger_as_it_was() {
    for user in users() {
        let attack = Attack::new(user);
        let answers = beside_another(&attack, &["areas-killed", "/tmp", "12"]);
        assert_settled(&answers, "killed");
        attack.home.assert_nothing_left();
    }
}

#[test]
fn directories_deeper_than_any_path_are_moved_and_removed() {
    for user in users() {
        let attack = Attack::new(user);
        let answers = beside_another(&attack, &["areas-deep", "/tmp", "1200"]);
        assert_eq!(answers.value("deep"), 1200, "{answers}");
        answers.assert_ok(&["deep-move"]);
        answers.assert_refused(&["deep-into-itself", "deep-remove-full"]);
        assert_settled(&answers, "deep");
        attack.home.assert_nothing_left();
    }
}

#[test]
fn attributes_that_many_set_and_remove_are_paid_for_and_given_back() {
    for user in users() {
        let attack = Attack::new(user);
        let answers = beside_another(&attack, &["areas-attributes", "/tmp"]);
        assert!(answers.value("attributes") > 0, "{answers}");
        assert_settled(&answers, "attributes");
        attack.home.assert_nothing_left();
    }
}
