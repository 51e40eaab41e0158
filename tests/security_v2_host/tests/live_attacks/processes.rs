//! Other processes, and what one process may take of the machine.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use security_v2_host::{Running, User, as_everybody, copy_program, eventually, spawn, users};

use crate::kit::{Attack, bare_user};

#[test]
fn the_sandboxs_init_takes_nothing_from_the_program() {
    for user in users() {
        let (answers, done) = Attack::new(user).run(&["init"]);
        assert_eq!(done.code(), Some(0), "{done}");
        // Signals to init come to nothing, whether the kernel says so or not.
        let said = |name: &str| answers.get(name).to_owned();
        for (name, _) in answers.said.iter().filter(|(name, _)| name.starts_with("init-")) {
            let is_signal = [
                "init-kill",
                "init-stop",
                "init-term",
                "init-int",
                "init-segv",
                "init-abrt",
                "init-rt",
            ]
            .contains(&name.as_str())
                || name.starts_with("init-pidfd-kill");
            assert!(is_signal || said(name) != "ok", "{name}\n{done}");
        }
        answers.assert_ok(&["own-limit", "alive"]);
        done.assert_nothing_left();
    }
}

#[test]
fn a_programs_own_processes_are_its_own() {
    for user in users() {
        let (answers, _) = Attack::new(user).run(&["own"]);
        answers.assert_only(
            &[
                "limit-of-child",
                "lower-limit-of-child",
                "priority-of-child",
                "kill-child",
            ],
            4,
        );
    }
}

struct Sleeper(std::process::Child);

impl Sleeper {
    /// In a process group of its own, which others may join.
    fn new(user: User) -> Self {
        let mut command = Command::new("sleep");
        command.arg("1000").process_group(0).stdin(Stdio::null());
        user.starts(&mut command);
        Self(spawn(&mut command).unwrap())
    }

    fn group(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    fn is_alive(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    fn niceness(&self) -> String {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap_or_default();
        let (_, rest) = stat.rsplit_once(')').unwrap_or_default();
        rest.split_ascii_whitespace().nth(16).unwrap_or_default().to_owned()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn nothing_reaches_the_callers_process_group() {
    for user in users() {
        let attack = Attack::new(user);
        let mut sleeper = Sleeper::new(user);
        // That of whoever starts the tests.
        let niceness = sleeper.niceness();
        let mut command = attack.prepare(&["group", "confined"]).command();
        command.process_group(sleeper.group());
        let child = spawn(
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped()),
        )
        .unwrap();
        let done = child.wait_with_output().unwrap();
        let out = String::from_utf8_lossy(&done.stdout);
        let answers = crate::kit::Answers::of(&out);
        answers.assert_ok(&["done", "kill-0"]);
        answers.assert_refused(&[
            "setpriority-group",
            "setpriority-group-dirty",
            "ioprio-group",
            "ioprio-user",
            "pidfd-group",
        ]);
        assert_eq!(
            done.status.code(),
            Some(0),
            "{out}{}",
            String::from_utf8_lossy(&done.stderr)
        );
        assert!(sleeper.is_alive(), "{out}");
        assert_eq!(sleeper.niceness(), niceness, "{out}");
    }
}

#[test]
fn a_group_gets_the_last_signal_that_there_is_and_not_the_next() {
    for user in users() {
        let attack = Attack::new(user);
        for answers in [attack.run(&["group-signals"]).0, attack.bare(&["group-signals"])] {
            answers.assert_only(&["none", "last"], 4);
            for name in ["next", "negative"] {
                assert_eq!(answers.get(name), "EINVAL", "{name}");
            }
        }
    }
}

/// Whether a process can be looked into by its own user: what opens its environment opens its memory. ptrace(2), "access mode
/// checking".
fn opens_to_its_user(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    let uid = uid.split_ascii_whitespace().next().unwrap().parse().unwrap();
    let mut look = Command::new("cat");
    look.arg(format!("/proc/{pid}/environ"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    User::Ordinary(uid).starts(&mut look);
    spawn(&mut look).unwrap().wait().unwrap().success()
}

#[test]
fn what_judges_and_what_serves_is_not_looked_into_by_its_own_user() {
    as_everybody(|home| {
        let mut sleeper = Sleeper::new(home.user());
        assert!(opens_to_its_user(sleeper.0.id()));
        sleeper.0.kill().unwrap();
        sleeper.0.wait().unwrap();
        let mut running = Running::start(home, &[], &["sh", "-c", "echo ready; exec sleep 1000"]);
        assert_eq!(running.line(), "ready");
        for name in ["nx-supervisor", "nx-vfsd"] {
            // Root looks into everything.
            if (name, home.user()) == ("nx-supervisor", User::Root) {
                continue;
            }
            let mut found = home.processes();
            found.retain(|process| process.name == name);
            assert_eq!(found.len(), 1, "{name}: {found:?}");
            assert!(
                !opens_to_its_user(found[0].pid.as_raw_nonzero().get().cast_unsigned()),
                "{name}"
            );
        }
        running.signal(Signal::TERM);
        let _ = running.end();
    });
}

#[test]
fn keys_of_the_callers_session_are_nobodys_inside() {
    const NAME: &str = "nexus-test-key";
    for user in users() {
        let attack = Attack::new(user);
        // A session whose keys nobody but itself may see: keyrings(7).
        let with_key = |command: &Command| {
            let mut with_key = attack.bare_command(&["with-key", NAME]);
            with_key
                .arg(command.get_program())
                .args(command.get_args())
                .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
            let child = spawn(with_key.stdin(Stdio::null()).stdout(Stdio::piped())).unwrap();
            let done = child.wait_with_output().unwrap();
            String::from_utf8_lossy(&done.stdout).into_owned()
        };
        let inside = attack.prepare_any(["cat", "/proc/keys"].map(Into::into).to_vec());
        if user == bare_user() {
            let seen = with_key(&inside.command());
            assert!(seen.contains("keyring") && !seen.contains(NAME), "{seen}");
        }
        let mut outside = Command::new("cat");
        assert!(with_key(outside.arg("/proc/keys")).contains(NAME));
        attack.home.assert_nothing_left();
    }
}

#[test]
fn without_a_session_the_callers_process_group_is_reached() {
    if users().is_empty() {
        return;
    }
    let attack = Attack::new(bare_user());
    let mut sleeper = Sleeper::new(bare_user());
    let mut command = attack.bare_command(&["group"]);
    command.process_group(sleeper.group());
    spawn(command.stdin(Stdio::null()).stdout(Stdio::null()))
        .unwrap()
        .wait()
        .unwrap();
    eventually("it ends", || !sleeper.is_alive());
    let ended = sleeper.0.wait().unwrap();
    assert_eq!(ended.signal(), Some(Signal::TERM.as_raw()));
}

#[test]
fn no_limit_can_be_raised() {
    for user in users() {
        let (answers, done) = Attack::new(user).run(&["limits"]);
        // Of nine limits what it is, and two ways to raise it.
        assert_eq!((done.code(), answers.said.len()), (Some(0), 27), "{done}");
        for (name, said) in &answers.said {
            assert!(!name.contains("-raise") || said == "EPERM", "{name}: {said}\n{done}");
        }
        assert!(
            (0..=512).contains(&answers.value("processes-hard")) && (0..=1).contains(&answers.value("core-hard")),
            "{done}"
        );
    }
}

#[test]
fn a_program_has_no_capability_and_no_way_to_one() {
    for user in users() {
        let (_, done) = Attack::new(user).run(&["status"]);
        let out = done.out();
        for field in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert!(out.contains(&format!("{field}:\t0000000000000000")), "{field}\n{out}");
        }
        assert!(out.contains("NoNewPrivs:\t1"), "{out}");
        // NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE with their locks, KEEP_CAPS_LOCKED.
        assert!(out.contains("securebits 239"), "{out}");
        assert!(
            !out.contains("uid_map 0 ") && !out.contains("uid_map          0"),
            "{out}"
        );
    }
}

#[test]
fn a_crash_leaves_no_core_file() {
    for user in users() {
        let attack = Attack::new(user);
        let done = attack.prepare(&["dump"]).run();
        assert_eq!(done.code(), Some(128 + 6), "{done}");
        let left: Vec<_> = std::fs::read_dir(attack.home.work())
            .unwrap()
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        assert!(
            !left.iter().any(|name| name.to_string_lossy().contains("core")),
            "{left:?}"
        );
    }
}

#[test]
fn memory_processes_descriptors_and_signals_end_at_their_limits_and_the_session_lives() {
    for user in users() {
        let attack = Attack::new(user);
        for (what, errno, most) in [
            ("memory", "ENOMEM", 128),
            ("processes", "EAGAIN", 512),
            ("descriptors", "EMFILE", 4096),
            ("signals", "EAGAIN", 4096),
        ] {
            let (answers, done) = attack.run(&["eat", what]);
            assert_eq!(answers.get(what), errno, "{done}");
            assert!((1..=most).contains(&answers.value("had")), "{done}");
        }
        attack.home.assert_nothing_left();
    }
}

#[test]
fn shared_memory_and_queues_of_the_host_are_not_there() {
    for user in users() {
        let attack = Attack::new(user);
        let make = |flag: &str| {
            let mut command = Command::new("ipcmk");
            command.args([flag, "4096", "-p", "0666"]);
            if flag == "-Q" {
                command = Command::new("ipcmk");
                command.args(["-Q", "-p", "0666"]);
            }
            user.starts(&mut command);
            let out = spawn(command.stdout(Stdio::piped()))
                .and_then(std::process::Child::wait_with_output)
                .unwrap();
            String::from_utf8_lossy(&out.stdout)
                .trim()
                .rsplit(' ')
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        let (shared, queue) = (make("-M"), make("-Q"));
        let (answers, _) = attack.run(&["ipc", &shared, &queue]);
        let bare = attack.bare(&["ipc", &shared, &queue]);
        for (flag, id) in [("-m", &shared), ("-q", &queue)] {
            let mut remove = Command::new("ipcrm");
            remove.args([flag, id]);
            user.starts(&mut remove);
            let _ = spawn(&mut remove).and_then(|mut child| child.wait());
        }
        answers.assert_refused(&["shmat", "msgrcv"]);
        assert_eq!(answers.value("/proc/sysvipc/shm"), 0, "{answers}");
        assert_eq!(answers.value("/proc/sysvipc/msg"), 0, "{answers}");
        bare.assert_ok(&["shmat"]);
    }
}

#[test]
fn nx_inside_nx_is_refused_in_words() {
    for user in users() {
        let attack = Attack::new(user);
        copy_program(security_v2_host::nx(), &attack.home.work().join("nx")).unwrap();
        let nx = attack.home.work().join("nx").into_os_string();
        let done = attack
            .prepare_any(vec![nx, "run".into(), "demo".into(), "--".into(), "true".into()])
            .deadline(Duration::from_secs(60))
            .run();
        assert_eq!(done.code(), Some(6), "{done}");
        assert!(done.err().contains("already runs under nx"), "{done}");
        done.assert_nothing_left();
    }
}
