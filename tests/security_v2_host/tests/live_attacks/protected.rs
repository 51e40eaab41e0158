//! What stays as it is in a work directory that may be written: git's hooks and settings, the policy, nexus's own files.

use std::fs;
use std::path::Path;

use security_v2_host::users;

use crate::kit::{Answers, Attack};

fn repository(attack: &Attack) {
    let work = attack.home.work();
    for directory in [".git", ".git/hooks", ".git/objects", "evil", "evil/hooks"] {
        fs::create_dir(work.join(directory)).unwrap();
        attack.home.give(&work.join(directory));
    }
    for file in [".git/config", ".git/HEAD", ".git/hooks/pre-commit", "evil/config"] {
        attack.home.write_work(file, "original");
    }
}

const GIT: &[&str] = &[
    "change",
    "write:.git/config",
    "truncate:.git/config",
    "remove:.git/config",
    "chmod:.git/config",
    "rename:evil/config:.git/config",
    "exchange:evil/config:.git/config",
    "link:.git/config:evil/linked",
    "write:.git/hooks/pre-commit",
    "make:.git/hooks/post-checkout",
    "remove:.git/hooks/pre-commit",
    "rename:.git/hooks:.git/old",
    "rename:evil/hooks:.git/hooks",
    "exchange:evil/hooks:.git/hooks",
    "rename:.git:moved",
    "exchange:evil:.git",
    "symlink:../evil/hooks:.git/hooks",
];

#[test]
fn hooks_and_settings_of_git_cannot_be_changed_moved_or_covered() {
    for user in users() {
        let attack = Attack::new(user);
        repository(&attack);
        let work = attack.home.work();
        let (answers, done) = attack.run(GIT);
        answers.assert_only(&[], GIT.len() - 1);
        for file in [".git/config", ".git/hooks/pre-commit"] {
            assert_eq!(fs::read_to_string(work.join(file)).unwrap(), "original", "{done}");
        }
        assert_eq!(fs::read_dir(work.join(".git/hooks")).unwrap().count(), 1, "{done}");
        // The nearest that git itself needs.
        let (answers, done) = attack.run(&[
            "change",
            "write:.git/HEAD",
            "make:.git/index.lock",
            "rename:.git/index.lock:.git/index",
        ]);
        if user != security_v2_host::User::Root {
            answers.assert_only(
                &[
                    "write:.git/HEAD",
                    "make:.git/index.lock",
                    "rename:.git/index.lock:.git/index",
                ],
                3,
            );
            assert!(work.join(".git/index").exists(), "{done}");
        }
    }
}

#[test]
fn without_the_rule_hooks_and_settings_are_changed() {
    for user in users().into_iter().filter(|user| *user != security_v2_host::User::Root) {
        let mut attack = Attack::new(user);
        repository(&attack);
        attack.tree = attack.tree.edit(
            "sandbox.toml",
            "[subject.attack]\n",
            "[subject.attack]\nwork_protect = []\n",
        );
        let (answers, _) = attack.run(&[
            "change",
            "write:.git/config",
            "make:.git/hooks/post-checkout",
            "rename:.git:moved",
        ]);
        answers.assert_only(
            &[
                "write:.git/config",
                "make:.git/hooks/post-checkout",
                "rename:.git:moved",
            ],
            3,
        );
    }
}

#[test]
fn the_file_that_stands_for_a_linked_worktrees_repository_is_protected() {
    for user in users() {
        let attack = Attack::new(user);
        attack.home.write_work(".git", "gitdir: /somewhere/worktrees/one\n");
        attack.home.write_work("evil", "gitdir: evil\n");
        let (answers, done) = attack.run(&[
            "change",
            "write:.git",
            "remove:.git",
            "rename:.git:moved",
            "rename:evil:.git",
            "exchange:evil:.git",
        ]);
        answers.assert_only(&[], 5);
        assert_eq!(
            fs::read_to_string(attack.home.work().join(".git")).unwrap(),
            "gitdir: /somewhere/worktrees/one\n",
            "{done}"
        );
    }
}

#[test]
fn a_link_in_the_place_of_the_repository_or_its_hooks_cannot_be_replaced() {
    for user in users() {
        let attack = Attack::new(user);
        repository(&attack);
        let work = attack.home.work();
        fs::rename(work.join(".git"), work.join("real")).unwrap();
        fs::rename(work.join("real/hooks"), work.join("my-hooks")).unwrap();
        std::os::unix::fs::symlink("../my-hooks", work.join("real/hooks")).unwrap();
        std::os::unix::fs::symlink("real", work.join(".git")).unwrap();
        let (answers, done) = attack.run(&[
            "change",
            "remove:.git",
            "rename:evil:.git",
            "exchange:evil:.git",
            "write:real/config",
            "remove:real/hooks",
            "rename:real:moved",
            "write:my-hooks/pre-commit",
            "make:my-hooks/post-checkout",
            "rename:my-hooks:moved",
        ]);
        answers.assert_only(&[], 9);
        assert_eq!(
            fs::read_to_string(work.join(".git/hooks/pre-commit")).unwrap(),
            "original",
            "{done}"
        );
    }
}

#[test]
fn a_repository_without_hooks_is_refused_with_the_command_that_mends_it() {
    for user in users() {
        let attack = Attack::new(user);
        repository(&attack);
        let work = attack.home.work();
        fs::remove_dir_all(work.join(".git/hooks")).unwrap();
        let done = attack.prepare(&["environment"]).run();
        assert_eq!((done.code(), done.out().as_str()), (Some(6), ""), "{done}");
        assert!(
            done.err()
                .contains(&format!("mkdir {}", work.join(".git/hooks").display())),
            "{done}"
        );
        let done = attack
            .prepare(&["environment"])
            .work(format!("{}:ro", work.display()))
            .run();
        assert_eq!(done.code(), Some(0), "{done}");
    }
}

#[test]
fn a_repository_that_one_session_closed_is_not_open_to_the_next() {
    // Root looks through every mode, and its program owns nothing there.
    for user in users().into_iter().filter(|user| *user != security_v2_host::User::Root) {
        let attack = Attack::new(user);
        repository(&attack);
        let script = |line: &str| attack.prepare_any(vec!["bash".into(), "-c".into(), line.into()]).run();
        assert_eq!(script("chmod 000 .git").code(), Some(0));
        let done = script("chmod 755 .git; echo evil > .git/hooks/pre-commit");
        assert_eq!((done.code(), done.out().as_str()), (Some(6), ""), "{done}");
        assert!(done.err().contains("chmod u+rwx"), "{done}");
        let git = attack.home.work().join(".git");
        fs::set_permissions(&git, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(fs::read_to_string(git.join("hooks/pre-commit")).unwrap(), "original");
    }
}

#[test]
fn hooks_that_are_a_link_to_nothing_are_refused() {
    for user in users() {
        let attack = Attack::new(user);
        repository(&attack);
        let hooks = attack.home.work().join(".git/hooks");
        fs::remove_dir_all(&hooks).unwrap();
        std::os::unix::fs::symlink("../later", &hooks).unwrap();
        let done = attack.prepare(&["environment"]).run();
        assert_eq!((done.code(), done.out().as_str()), (Some(6), ""), "{done}");
        assert!(done.err().contains("is a link to nothing"), "{done}");
    }
}

#[test]
fn a_file_that_sends_git_elsewhere_is_put_aside() {
    for user in users().into_iter().filter(|user| *user != security_v2_host::User::Root) {
        let attack = Attack::new(user);
        repository(&attack);
        let work = attack.home.work();
        let (answers, done) = attack.run(&["change", "make:.git/commondir"]);
        answers.assert_ok(&["make:.git/commondir"]);
        assert!(!work.join(".git/commondir").exists(), "{done}");
        assert!(done.err().contains("sends git elsewhere"), "{done}");
        // One that is there already is protected, and stays.
        attack.home.write_work(".git/commondir", ".");
        let (answers, done) = attack.run(&["change", "write:.git/commondir", "remove:.git/commondir"]);
        answers.assert_only(&[], 2);
        assert_eq!(fs::read_to_string(work.join(".git/commondir")).unwrap(), ".", "{done}");
    }
}

#[test]
fn the_policy_in_a_work_directory_cannot_be_changed_moved_or_replaced() {
    for user in users() {
        let attack = Attack::new(user);
        let work = attack.home.work();
        let policy = work.join("conf/policy");
        // Written where the harness puts it, then moved into the work directory.
        let done = attack.prepare(&["environment"]).run();
        assert_eq!(done.code(), Some(0), "{done}");
        for directory in ["conf", "conf/policy", "evil"] {
            fs::create_dir(work.join(directory)).unwrap();
            attack.home.give(&work.join(directory));
        }
        for entry in fs::read_dir(attack.home.policy()).unwrap().flatten() {
            let to = policy.join(entry.file_name());
            fs::copy(entry.path(), &to).unwrap();
            attack.home.give(&to);
        }
        let before = fs::read(policy.join("egress.toml")).unwrap();
        let tries = [
            "change",
            "write:conf/policy/egress.toml",
            "truncate:conf/policy/egress.toml",
            "remove:conf/policy/egress.toml",
            "make:conf/policy/more.toml",
            "rename:conf/policy:conf/old",
            "rename:conf:old",
            "rename:evil:conf",
            "exchange:evil:conf",
            "exchange:evil:conf/policy",
            "chmod:conf/policy",
        ];
        let program = work.join("attacker").into_os_string();
        let words: Vec<_> = std::iter::once(program).chain(tries.iter().map(Into::into)).collect();
        let run = security_v2_host::Run::at(&attack.home)
            .policy_directory("conf/policy")
            .subject("attack")
            .args(words);
        let done = run.run();
        Answers::of(&done.out()).assert_only(&[], tries.len() - 1);
        assert_eq!(fs::read(policy.join("egress.toml")).unwrap(), before, "{done}");
    }
}

/// A work directory that holds nexus's own places, as `--work ~` does.
#[test]
fn journal_state_and_policy_of_the_user_cannot_be_seen_moved_or_made() {
    for user in users() {
        let attack = Attack::new(user);
        let top = attack.home.home();
        let (state, policy) = (top.join(".local/state"), top.join(".config/nexus/policy"));
        copy_into(&attack, &top);
        let tries = [
            "change",
            "make:.config/nexus/policy",
            "directory:.config/nexus/policy",
            "rename:.config:old",
            "rename:.config/nexus:.config/old",
            "remove:.local/state/nexus/journal/journal.key",
            "make:.local/state/nexus/journal/more",
            "rename:.local:old",
            "rename:.local/state:.local/old",
            "rename:.local/state/nexus:.local/state/old",
        ];
        let mut words = vec![top.join("attacker").into_os_string()];
        words.extend(tries.iter().map(Into::into));
        let run = |words| {
            let run = attack.prepare_any(words).work(top.to_string_lossy());
            run.env("XDG_STATE_HOME", &state).run()
        };
        let done = run(words);
        assert_eq!(done.code(), Some(0), "{done}");
        Answers::of(&done.out()).assert_only(&[], tries.len() - 1);
        assert!(!policy.exists(), "{done}");
        assert!(state.join("nexus/journal/journal.key").exists(), "{done}");
        let done = run(vec!["find".into(), ".local/state/nexus".into(), ".config/nexus".into()]);
        // A root-run program is somebody else, and does not even get there.
        let empty = if user == security_v2_host::User::Root {
            ""
        } else {
            ".local/state/nexus\n.config/nexus\n"
        };
        assert_eq!(done.out(), empty, "{done}");
    }
}

/// The same with the state of this run elsewhere: other runs of the user keep theirs in the usual place.
#[test]
fn a_run_with_its_state_elsewhere_leaves_the_usual_place_as_it_is() {
    for user in users().into_iter().filter(|user| *user != security_v2_host::User::Root) {
        let attack = Attack::new(user);
        let top = attack.home.home();
        copy_into(&attack, &top);
        let tries = [
            "change",
            "make:.local/state/nexus/journal",
            "remove:.local/state/nexus",
            "rename:.local:old",
            "rename:.local/state:.local/old",
        ];
        let mut words = vec![top.join("attacker").into_os_string()];
        words.extend(tries.iter().map(Into::into));
        let done = attack.prepare_any(words).work(top.to_string_lossy()).run();
        assert_eq!(done.code(), Some(0), "{done}");
        Answers::of(&done.out()).assert_only(&[], tries.len() - 1);
        assert_eq!(
            fs::read_dir(top.join(".local/state/nexus")).unwrap().count(),
            0,
            "{done}"
        );
    }
}

fn copy_into(attack: &Attack, to: &Path) {
    let copy = to.join("attacker");
    security_v2_host::copy_program(security_v2_host::attacker(), &copy).unwrap();
    attack.home.give(&copy);
    use std::os::unix::fs::PermissionsExt;
    // A root-run program is somebody else, and has to get to the top.
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn what_nexus_keeps_cannot_be_the_work_directory() {
    for user in users() {
        let attack = Attack::new(user);
        let done = attack.prepare(&["environment"]).run();
        assert_eq!(done.code(), Some(0), "{done}");
        let inside = attack.home.state().join("nexus/subjects/attack");
        let done = attack.prepare(&["environment"]).work(inside.to_string_lossy()).run();
        assert_eq!((done.code(), done.out().as_str()), (Some(3), ""), "{done}");
    }
}
