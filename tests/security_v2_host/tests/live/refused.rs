//! What policy says and this version cannot make true: nothing starts, and the rule is named.

use security_v2_host::{Home, Run, Tree, User, users};

fn says(file: &str, text: &str) -> Tree {
    Tree::shipped().append(file, text)
}

#[test]
fn a_rule_that_nobody_would_enforce_starts_nothing_and_is_named() {
    let rule = |call: &str, effect: &str, when: &str| {
        says(
            "abi.toml",
            &format!("[[subject.demo.rule]]\nsyscall = \"{call}\"\neffect = \"{effect}\"\nwhen = [{when}]\n"),
        )
    };
    let unmetered = |tree: Tree| tree.append("sandbox.toml", "[subject.demo]\nwork = \"unmetered\"\n");
    let cases = [
        (rule("ftruncate", "deny", "{ budget = \"tmp\" }"), "abi.toml:"),
        (
            unmetered(rule("ftruncate", "allow", "{ budget = \"work\" }")),
            "abi.toml:",
        ),
    ];
    for user in users() {
        let home = Home::new(user);
        for (tree, place) in &cases {
            let done = Run::at(&home).policy(tree).args(["echo", "ran"]).run();
            assert_eq!((done.code(), done.out().as_str()), (Some(6), ""), "{done}");
            assert!(done.err().contains(place), "{done}");
        }
        // The nearest that can be enforced.
        for tree in [
            rule("sendto", "allow", "{ egress = true }"),
            rule("ftruncate", "allow", "{ budget = \"tmp\" }"),
            unmetered(rule("ftruncate", "allow", "{ budget = \"state\" }")),
        ] {
            let done = Run::at(&home).policy(&tree).args(["echo", "ran"]).run();
            assert_eq!((done.code(), done.out().as_str()), (Some(0), "ran\n"), "{done}");
        }
    }
}

#[test]
fn what_the_view_lacks_starts_nothing_and_ends_the_file_server_that_had_begun() {
    let shows = |path: &str| {
        let read = format!("[subject.demo]\nread = [\"/usr\", \"{path}\"]\n");
        says("sandbox.toml", &read)
    };
    for user in users() {
        let home = Home::new(user);
        let done = Run::at(&home)
            .policy(&shows("/no/such/path"))
            .args(["echo", "ran"])
            .run();
        assert_eq!((done.code(), done.out().as_str()), (Some(3), ""), "{done}");
        assert!(done.err().contains("`/no/such/path`"), "{done}");
        // Its directory says that it had begun.
        assert!(
            home.journal().with_file_name("subjects").join("demo").is_dir(),
            "{done}"
        );
        home.assert_nothing_left();
        let done = Run::at(&home).policy(&shows("/etc/passwd")).args(["echo", "ran"]).run();
        assert_eq!((done.code(), done.out().as_str()), (Some(0), "ran\n"), "{done}");
    }
}

#[test]
fn root_does_not_follow_what_another_user_could_plant_in_its_state() {
    for user in users().into_iter().filter(|user| *user == User::Root) {
        let home = Home::new(user);
        let place = home.state();
        std::fs::create_dir_all(&place).unwrap();
        let run = || Run::at(&home).args(["echo", "ran"]).run();
        std::os::unix::fs::chown(&place, Some(64_398), None).unwrap();
        let done = run();
        assert_eq!((done.code(), done.out().as_str()), (Some(3), ""), "{done}");
        assert!(done.err().contains("belongs to user 64398"), "{done}");
        std::os::unix::fs::chown(&place, Some(0), None).unwrap();
        assert_eq!(run().out(), "ran\n");
    }
}
