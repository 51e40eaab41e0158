//! A work directory that lies in `tmp`, which all sessions of the subject share, and a second session that is after what
//! protects the first one's.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use security_v2_host::{Output, Run, User, can_be_metered, copy_program, say_skipped, users};

use crate::kit::{Answers, Attack};

/// How the first session has its work directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unmetered,
    Metered,
}

/// A first session with a repository in a work directory in `tmp`, and a second that works elsewhere in there.
struct Two {
    attack: Attack,
    /// The second one's work directory.
    other: PathBuf,
}

/// What is tried on git's files, from inside the work directory.
const GIT: &[&str] = &[
    "write:.git/config",
    "truncate:.git/config",
    "remove:.git/config",
    "write:.git/hooks/pre-commit",
    "make:.git/hooks/post-checkout",
    "rename:.git:moved",
];

/// How long one session waits for the other, in steps of 20 ms: far more than a start takes.
const STEPS_MAX: u32 = 1500;

impl Two {
    fn new(user: User, kind: Kind) -> Option<Self> {
        let mut attack = Attack::new(user);
        let work = attack.home.work();
        if !["/tmp", "/var/tmp"].iter().any(|tmp| work.starts_with(tmp)) {
            say_skipped("the tests' directories do not lie below /tmp: what they say of it is not tried");
            return None;
        }
        if kind == Kind::Metered {
            if !can_be_metered(&attack.home) {
                return None;
            }
            attack.tree = attack
                .tree
                .edit("sandbox.toml", "work = \"unmetered\"", "work = \"metered\"")
                .append(
                    "quotas.toml",
                    "[subject.attack.work]\nhard = \"64MiB\"\ninodes = 1000\n",
                );
        }
        for directory in [".git", ".git/hooks"] {
            fs::create_dir(work.join(directory)).unwrap();
            attack.home.give(&work.join(directory));
        }
        for file in [".git/config", ".git/hooks/pre-commit"] {
            attack.home.write_work(file, "original");
        }
        let other = attack.home.home().join("other");
        fs::create_dir(&other).unwrap();
        attack.home.give(&other);
        copy_program(security_v2_host::attacker(), &other.join("attacker")).unwrap();
        // Written once: the two start at the same time.
        attack.tree.write(&attack.home.policy()).unwrap();
        Some(Self { attack, other })
    }

    fn prepare(&self, work: &Path, script: &str) -> Run {
        Run::at(&self.attack.home)
            .policy_directory(self.attack.home.policy())
            .subject("attack")
            .work(work.to_string_lossy())
            .bash(script)
    }

    fn first(&self, script: &str) -> Output {
        self.prepare(&self.attack.home.work(), script).run()
    }

    fn second(&self, script: &str) -> Output {
        self.prepare(&self.other, script).run()
    }

    fn work(&self) -> String {
        self.attack.home.work().display().to_string()
    }

    /// The directory that the work directory stands in.
    fn above(&self) -> String {
        self.attack.home.work().parent().unwrap().display().to_string()
    }

    fn assert_as_it_was(&self, done: &Output) {
        let git = self.attack.home.work().join(".git");
        for file in ["config", "hooks/pre-commit"] {
            let content = fs::read_to_string(git.join(file)).unwrap_or_else(|error| error.to_string());
            assert_eq!(content, "original", "{file}\n{done}");
        }
        assert_eq!(fs::read_dir(git.join("hooks")).unwrap().count(), 1, "{done}");
    }
}

/// For everybody whom a session can run as, and either kind of work directory.
fn each(test: impl Fn(&Two)) {
    for user in users() {
        for kind in [Kind::Unmetered, Kind::Metered] {
            eprintln!("as {user:?}, {kind:?}");
            if let Some(two) = Two::new(user, kind) {
                test(&two);
                two.attack.home.assert_nothing_left();
            }
        }
    }
}

/// Waits for a file in `tmp`.
fn until(file: &str) -> String {
    format!("for step in $(seq {STEPS_MAX}); do [ -e {file} ] && break; sleep 0.02; done\n")
}

#[test]
fn a_second_session_cannot_take_the_place_of_the_work_directory_away() {
    each(|two| {
        let (work, above) = (two.work(), two.above());
        let attacks = [
            format!("remove:{work}"),
            format!("rename:{work}:{above}/old"),
            format!("rename:{above}/decoy:{work}"),
            format!("exchange:{above}/decoy:{work}"),
            format!("rename:{above}:/tmp/old"),
            format!("exchange:/tmp/decoy:{above}"),
        ];
        // The nearest that it may.
        let near = [
            format!("directory:{above}/decoy"),
            "directory:/tmp/decoy".to_owned(),
            format!("rename:{above}/decoy:/tmp/decoy/inside"),
            format!("rename:/tmp/decoy/inside:{above}/decoy"),
        ];
        let own = GIT.join(" ");
        let (first, second) = std::thread::scope(|scope| {
            let first = scope.spawn(|| {
                two.first(&format!(
                    "touch /tmp/running\n{}exec ./attacker change {own}",
                    until("/tmp/attacked")
                ))
            });
            let second = two.second(&format!(
                "{}./attacker change {} {}; touch /tmp/attacked",
                until("/tmp/running"),
                near.join(" "),
                attacks.join(" ")
            ));
            (first.join().unwrap(), second)
        });
        let near: Vec<&str> = near.iter().map(String::as_str).collect();
        let answers = Answers::of(&second.out());
        answers.assert_only(&near, near.len() + attacks.len());
        for attack in &attacks {
            assert_eq!(answers.get(attack), "EBUSY", "{second}");
        }
        Answers::of(&first.out()).assert_only(&[], GIT.len());
        two.assert_as_it_was(&first);
    });
}

#[test]
fn a_second_session_that_exchanges_the_place_while_the_first_starts_leaves_nothing_open() {
    each(|two| {
        let (work, above) = (two.work(), two.above());
        let exchange = format!("exchange:{above}/decoy:{work}");
        let exchanges = [exchange.as_str(); 50].join(" ");
        std::thread::scope(|scope| {
            let second = scope.spawn(|| {
                let script = format!(
                    "mkdir -p {above}/decoy/.git/hooks {work}/.git/hooks
                     for place in {above}/decoy {work}; do echo decoy > $place/.git/config; done
                     touch /tmp/running
                     until [ -e /tmp/enough ]; do ./attacker change {exchanges}; done | sort | uniq -c"
                );
                // As long as all the others, one after the other.
                let run = two.prepare(&two.other, &script);
                run.deadline(Duration::from_secs(300)).run()
            });
            let script = format!(
                "for place in {work} {above}/decoy; do
                    (echo broken > $place/.git/config; echo broken > $place/.git/hooks/pre-commit; mv $place/.git $place/moved) 2>/dev/null
                 done; true"
            );
            // Not before there is something to exchange.
            let began = two.second(&until("/tmp/running"));
            assert_eq!(began.code(), Some(0), "{began}");
            let mut last = None;
            for _ in 0..STARTS {
                let done = two.first(&script);
                two.assert_as_it_was(&done);
                // It is moved at times between two starts, and a start does not fail for it.
                assert_eq!(done.code(), Some(0), "{done}");
                last = Some(done);
            }
            let done = two.second("touch /tmp/enough");
            assert_eq!(done.code(), Some(0), "{done}");
            let second = second.join().unwrap();
            // Else nobody tried anything.
            assert!(second.out().contains(" ok 0"), "{second}\n{last:?}");
        });
    });
}

/// Enough for an exchange to fall into the start of one, where nothing holds the place.
const STARTS: u32 = 8;

#[test]
fn what_another_session_put_in_the_place_is_named_and_gone_with_that_session() {
    each(|two| {
        let work = two.work();
        let above = two.above();
        for (what, at, make, unmake) in [
            ("a link", &work, format!("ln -s /usr {work}"), format!("rm {work}")),
            ("a file", &work, format!("touch {work}"), format!("rm {work}")),
            (
                "a link",
                &above,
                format!("mv {above} /tmp/moved; ln -s /usr {above}"),
                format!("rm {above}; mv /tmp/moved {above}"),
            ),
        ] {
            std::thread::scope(|scope| {
                let second = scope.spawn(|| {
                    // Elsewhere than in `tmp`: its own place is nothing that it could move.
                    let run = Run::at(&two.attack.home)
                        .policy_directory(two.attack.home.policy())
                        .subject("attack")
                        .work("/usr/share:ro")
                        .bash(&format!(
                            "mkdir -p {above}; {make}; touch /tmp/running\n{}{unmake}; rm /tmp/running /tmp/go",
                            until("/tmp/go")
                        ));
                    run.deadline(Duration::from_secs(120)).run()
                });
                let elsewhere = |script: &str| {
                    Run::at(&two.attack.home)
                        .policy_directory(two.attack.home.policy())
                        .subject("attack")
                        .work("/usr/share:ro")
                        .bash(script)
                        .run()
                };
                let _ = elsewhere(&until("/tmp/running"));
                let done = two.first("echo started");
                let _ = elsewhere("touch /tmp/go");
                let second = second.join().unwrap();
                assert_eq!(second.code(), Some(0), "{second}");
                assert_eq!((done.code(), done.out().as_str()), (Some(6), ""), "{done}");
                let err = done.err();
                assert!(err.contains(what) && err.contains("another session"), "{done}");
                assert!(err.contains(&format!("`{at}`")) && err.contains("--work"), "{done}");
                assert!(!err.contains("nx sec doctor"), "{done}");
            });
            let done = two.first("echo started");
            assert_eq!((done.code(), done.out().as_str()), (Some(0), "started\n"), "{done}");
        }
    });
}
