//! A shell that allows few open files: raised where the hard limit lets it, and else named as what it is.

use security_v2_host::{Home, Tree, users};

/// Without a limit of open files, so that the program has what the shell has.
fn without_limit(home: &Home) {
    let tree = Tree::shipped().edit(
        "sandbox.toml",
        ", processes = 512, open_files = 4096 }",
        ", processes = 512 }",
    );
    tree.write(&home.policy()).unwrap();
}

fn shell(home: &Home, script: &str) -> (Option<i32>, String, String) {
    let done = home.shell(script);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (done.status.code(), text(&done.stdout), text(&done.stderr))
}

#[test]
fn a_low_soft_limit_stops_nothing_and_is_the_programs_own_again() {
    for user in users() {
        let home = Home::new(user);
        without_limit(&home);
        for limit in [16, 24, 64, 256] {
            let policy = home.policy();
            let said = shell(
                &home,
                &format!(
                    "ulimit -Sn {limit}; nx run -q --policy {} demo -- bash -c 'ulimit -Sn; ulimit -Hn' && ulimit -Hn",
                    policy.display()
                ),
            );
            let lines: Vec<&str> = said.1.lines().collect();
            assert_eq!(said.0, Some(0), "{said:?}");
            assert_eq!(lines.first(), Some(&limit.to_string().as_str()), "{said:?}");
            // The hard limit is the shell's own, as ever.
            assert_eq!(lines.get(1), lines.get(2), "{said:?}");
        }
        // Where policy says how many, that many it is.
        let said = shell(&home, "ulimit -Sn 16; nx run -q demo -- bash -c 'ulimit -Sn'");
        assert_eq!((said.0, said.1.as_str()), (Some(0), "4096\n"), "{said:?}");
    }
}

#[test]
fn a_hard_limit_that_is_too_low_is_named_with_the_next_step_and_nothing_is_blamed() {
    for user in users() {
        let home = Home::new(user);
        for limit in [8, 12, 16, 24, 30, 33] {
            let said = shell(&home, &format!("ulimit -n {limit}; nx run demo -- echo ran"));
            assert_eq!((said.0, said.1.as_str()), (Some(6), ""), "{said:?}");
            assert!(
                said.2.contains(&format!("no more than {limit} files open")) && said.2.contains("ulimit -n"),
                "{said:?}"
            );
            for blamed in ["panicked", "doctor", "Linux", "seccomp"] {
                assert!(!said.2.contains(blamed), "{said:?}");
            }
        }
        let said = shell(&home, "ulimit -n 64; nx run -q demo -- echo ran");
        assert_eq!((said.0, said.1.as_str()), (Some(0), "ran\n"), "{said:?}");
    }
}

#[test]
fn what_the_doctor_finds_does_not_depend_on_a_low_soft_limit_and_a_low_hard_one_is_named() {
    for user in users() {
        let home = Home::new(user);
        let as_it_is = shell(&home, "nx sec doctor");
        let soft = shell(&home, "ulimit -Sn 8; nx sec doctor");
        assert_eq!((as_it_is.0, &as_it_is.2), (soft.0, &soft.2));
        for limit in [8, 10] {
            let hard = shell(&home, &format!("ulimit -n {limit}; nx sec doctor"));
            assert_eq!((hard.0, hard.2.as_str()), (Some(4), ""), "{hard:?}");
            assert!(hard.1.contains("ulimit -n 1024"), "{hard:?}");
            assert!(!hard.1.contains("boot Linux"), "{hard:?}");
        }
    }
}
