//! What no policy can open, tried under a policy that allows every call.

use security_v2_host::{Run, Tree, users};

#[test]
fn a_policy_that_allows_every_call_still_denies_what_goes_around_the_guards() {
    for user in users() {
        let done = Run::new(user)
            .policy(&Tree::wide_open())
            .probe([
                "socket",
                "16",
                "3",
                ",",
                "socket",
                "17",
                "3",
                ",",
                "socket",
                "1",
                "2",
                ",",
                "socket",
                "40",
                "1",
                ",",
                "pidfd-getfd",
                ",",
                "chroot",
                "/",
                ",",
                "nice-group",
                ",",
                "create",
                "/tmp/file",
                ",",
                "chmod",
                "/tmp/file",
                "4755",
                ",",
                "chmod",
                "/tmp/file",
                "0755",
                ",",
                "nice-self",
                ",",
                "socket",
                "1",
                "1",
            ])
            .run();
        assert_eq!(done.code(), Some(0), "{done}");
        let answers = done.probed();
        let denied = "errno 1";
        assert_eq!(
            answers,
            [
                denied, denied, denied, denied, denied, denied, denied, "ok", denied, "ok", "ok", "ok"
            ],
            "{done}"
        );
        let mut named: Vec<&str> = done
            .records
            .iter()
            .filter_map(|record| record.rule.as_deref())
            .collect();
        named.retain(|rule| rule.starts_with("floor:"));
        let expected = [
            "floor:sockets",
            "floor:sockets",
            "floor:sockets",
            "floor:sockets",
            "floor:other-processes",
            "floor:mounts",
            "floor:priority-of-others",
            "floor:set-id",
        ];
        assert_eq!(named, expected, "{done}");
        done.assert_nothing_left();
    }
}

#[test]
fn programs_start_threads_under_a_policy_that_allows_clone3() {
    for user in users() {
        let done = Run::new(user)
            .policy(&Tree::wide_open())
            .bash("sort --parallel=4 <(seq 100000) | tail -n 1")
            .run();
        assert_eq!((done.code(), done.out().trim()), (Some(0), "99999"), "{done}");
    }
}
