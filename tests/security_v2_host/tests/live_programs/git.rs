//! git, where a developer has it: on scratch space, on kept space, and in a work directory that may be written.

use crate::need::{denied, has, in_room, last, place, succeeds, works_unhindered};
use security_v2_host::{Home, Output, User, users};

const LIFE: &str = r#"
    git config --global user.email somebody@example.org; git config --global user.name Somebody
    git config --global init.defaultBranch main; git config --global advice.detachedHead false
    git init -q one; cd one
    for i in $(seq 60); do echo $i > f$i; done; mkdir -p a/b; echo x > a/b/c; ln -s f1 link; echo '#!/bin/sh' > run; chmod +x run
    git add .; git commit -qm first; git status --porcelain | wc -l | grep -qx 0
    git checkout -qb side; echo more >> f1; git commit -qam second; echo left >> f2; git stash -q; git stash pop -q; git checkout -q f2
    git switch -q main; echo other >> f3; git commit -qam third; git merge -q --no-edit side; git tag -a -m t v1
    git rebase -q side~1 2>/dev/null || git rebase --abort; git gc -q; git fsck --no-dangling --no-progress; git repack -adq
    cd ..; git clone -q one local; git clone -q --no-local one copied; git clone -q "file://$PWD/one" far; git clone -q --bare one bare.git
    cd copied; echo pushed > p; git add p; git commit -qm fourth; git push -q ../bare.git HEAD:refs/heads/fresh; git pull -q
    git -C ../bare.git log --oneline fresh | wc -l; git diff --stat HEAD~1 | tail -n 1; git grep -q pushed; git archive HEAD | tar -t | wc -l
    git worktree add -q ../tree; git -C ../tree status -s; git bisect start -q 2>/dev/null || true; git log --graph --oneline > /dev/null
    cd ..; rm -rf one local copied far bare.git tree; echo end
"#;

#[test]
fn git_lives_its_life_on_tmp_and_state_and_work() {
    if !has(&["git", "tar"]) {
        return;
    }
    for user in users() {
        let home = place(user);
        for place in ["/tmp", "/state", "."] {
            let done = works_unhindered(&home, &format!("cd {place}\n{LIFE}"));
            assert_eq!(last(&done), "end", "{done}");
        }
        home.assert_nothing_left();
    }
}

/// A repository of the user's own in the work directory, made outside.
const OUTSIDE: &str = "git init -q . && git -c user.email=a@b -c user.name=n commit -q --allow-empty -m made-outside && echo '#!/bin/sh' > .git/hooks/post-commit";

fn prepared(user: User) -> std::sync::Arc<Home> {
    let home = place(user);
    let _ = as_host(&home, OUTSIDE);
    home
}

fn as_host(home: &Home, script: &str) -> String {
    let mut command = std::process::Command::new("bash");
    command
        .args(["-c", script])
        .current_dir(home.work())
        .env("HOME", home.home());
    home.run_as_user(&mut command);
    let output = security_v2_host::output(&mut command).expect("bash is there");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_commit_in_a_writable_work_directory_works_and_hooks_and_settings_stay() {
    if !has(&["git"]) {
        return;
    }
    for user in users() {
        let home = prepared(user);
        let before = as_host(&home, "cat .git/config; ls -lR .git/hooks");
        // Under root the program is somebody else than the owner of the work directory; it is told so and may not write.
        if user == User::Root {
            continue;
        }
        let script = "git -c user.email=a@b -c user.name=n commit -q --allow-empty -m made-inside; git log --format=%s
             fails() { if \"$@\" 2> /tmp/why; then echo \"$* works\"; exit 1; fi; sed 's/.*: //' /tmp/why | tail -n 1; }
             fails sh -c 'echo x >> .git/config'; fails sh -c 'echo x > .git/hooks/pre-commit'; fails rm .git/hooks/post-commit
             fails mv .git moved; fails mv .git/hooks .git/other; fails rm -r .git/hooks; fails chmod 777 .git/config
             fails ln -f .git/config other; fails git config a.b c; fails sh -c ': > .git/hooks/post-commit'; echo end";
        let done: Output = succeeds(in_room(&home).bash(&format!("set -euo pipefail\n{script}")));
        let out = done.out();
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines[..2], ["made-inside", "made-outside"], "{done}");
        let read_only = "Read-only file system";
        assert_eq!(lines[2..4], [read_only, read_only], "{done}");
        assert_eq!(
            lines[5..7],
            ["Device or resource busy", "Device or resource busy"],
            "{done}"
        );
        assert_eq!(lines.last(), Some(&"end"), "{done}");
        assert_eq!(as_host(&home, "cat .git/config; ls -lR .git/hooks"), before, "{done}");
        assert_eq!(denied(&done), Vec::<String>::new(), "{done}");
        assert_eq!(
            as_host(&home, "git -c safe.directory='*' log --format=%s"),
            "made-inside\nmade-outside\n"
        );
    }
}
