//! `nx sec test` on the kernel: what policy says is seen in force.

use nexus_abi::syscall;
use nx_sec_host::proof::{all, findings, left, left_out, policy as write, test};
use nx_sec_host::sec_json;
use security_v2_host::{Home, Running, Server, Tree, as_everybody, eventually};
use std::path::PathBuf;

#[test]
fn a_denied_call_is_proven_by_its_errno_its_record_and_its_counter_and_an_allowed_one_is_not() {
    as_everybody(|home| {
        for (name, reason) in [
            ("unshare", "abi.arg_mismatch"),
            ("reboot", "abi.deny_rule"),
            ("kexec_load", "abi.deny_rule"),
            ("clone", "abi.deny_rule"),
        ] {
            let (value, said) = sec_json(home, &["test", "deny", "--subject", "demo", "--syscall", name]);
            assert_eq!((said.code, &value["ok"]), (Some(0), &true.into()), "{said}");
            let [finding] = value["subjects"][0]["findings"].as_array().unwrap().as_slice() else {
                panic!("{said}");
            };
            let seen: Vec<_> = finding["seen"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| &one["what"])
                .collect();
            assert_eq!(seen, ["errno", "record", "counter"], "{said}");
            assert!(finding["seen"][1]["text"].as_str().unwrap().ends_with(reason), "{said}");
            assert!(finding["at"].as_str().unwrap().starts_with("abi.toml:"), "{said}");
        }
        let said = test(home, &["deny", "--subject", "demo", "--syscall", "getpid"]);
        assert_eq!(said.code, Some(3), "{said}");
        assert!(
            said.err.contains("policy allows `getpid` to demo") && said.err.contains("abi.toml:"),
            "{said}"
        );
        assert_eq!(left(home), Vec::<PathBuf>::new());
    });
}

#[test]
fn chosen_arguments_are_attempted_where_policy_denies_them_and_named_where_it_does_not() {
    as_everybody(|home| {
        let deny = ["deny", "--subject", "demo", "--syscall", "socket"];
        let said = test(home, &[&deny[..], &["AF_PACKET", "3", "0"]].concat());
        assert_eq!(said.code, Some(0), "{said}");
        assert!(said.out.contains("socket socket(0x11, 0x3, 0x0)"), "{said}");
        let said = test(home, &[&deny[..], &["AF_INET", "1", "0"]].concat());
        assert_eq!(said.code, Some(3), "{said}");
    });
}

#[test]
fn what_cannot_be_asked_is_refused_with_the_next_step() {
    as_everybody(|home| {
        for (words, code, text) in [
            (
                &["deny", "--subject", "demo", "--syscall", "unshar"][..],
                2,
                "did you mean `unshare`",
            ),
            (
                &["deny", "--subject", "nobody", "--syscall", "unshare"],
                3,
                "subjects that can run: demo",
            ),
            (
                &["deny", "--subject", "demo", "--syscall", "connect"],
                3,
                "nx sec test egress",
            ),
            (
                &["egress", "--subject", "demo", "--to", "example.org:443"],
                2,
                "a proof asks no name server",
            ),
        ] {
            let said = test(home, words);
            assert_eq!(said.code, Some(code), "{said}");
            assert!(said.err.contains(text), "{said}");
        }
    });
}

#[test]
fn the_last_address_of_a_range_arrives_at_the_proof_and_the_next_is_refused() {
    as_everybody(|home| {
        let tree = Tree::shipped().edit(
            "egress.toml",
            "allow = [\n    # A service",
            "allow = [\n    \"203.0.113.0/24:443\", \"udp [2001:db8::]/32:53\",\n    # A service",
        );
        let policy = write(home, &tree);
        let (_, range) = (policy.len(), ["--subject", "demo", "--policy", policy.as_str()]);
        for (to, udp, says) in [
            ("203.0.113.255:443", false, "allow"),
            ("203.0.114.0:443", false, "deny"),
            ("203.0.113.255:444", false, "deny"),
            ("203.0.113.255:443", true, "deny"),
            ("[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:53", true, "allow"),
            ("[2001:db9::]:53", true, "deny"),
            ("[::ffff:203.0.113.1]:443", false, "allow"),
            ("[::ffff:203.0.114.1]:443", false, "deny"),
        ] {
            let mut words = vec!["test", "egress", "--to", to];
            words.extend(range);
            words.extend(udp.then_some("--udp"));
            let (value, said) = sec_json(home, &words);
            assert_eq!(said.code, Some(0), "{to}: {said}");
            let finding = &value["subjects"][0]["findings"][0];
            assert_eq!(finding["says"], says, "{to}: {said}");
            let arrived = said.out.contains("\"arrived at the proof's listener\"");
            assert_eq!(arrived, says == "allow", "{to}: {said}");
        }
        let mut words = vec!["egress", "--to", "203.0.113.1:443", "--expect", "deny"];
        words.extend(range);
        let said = test(home, &words);
        assert_eq!(said.code, Some(3), "{said}");
        assert!(said.err.contains("egress.toml:"), "the rule that allows it: {said}");
    });
}

#[test]
fn what_policy_allows_arrives_nowhere_but_at_the_proof() {
    as_everybody(|home| {
        let server = Server::new([127, 0, 0, 1].into());
        let to = server.address().to_string();
        let tree = Tree::shipped().edit("egress.toml", "127.0.0.1:8443", &to);
        let policy = write(home, &tree);
        let said = test(home, &["egress", "--subject", "demo", "--policy", &policy, "--to", &to]);
        assert_eq!(said.code, Some(0), "{said}");
        assert!(said.out.contains("arrived at the proof's listener"), "{said}");
        assert_eq!(server.connections(), 0, "nobody came to the host's own server");
    });
}

#[test]
fn an_area_stops_at_its_last_byte_and_its_last_inode_whatever_the_budget() {
    as_everybody(|home| {
        let tree = Tree::shipped().edit(
            "quotas.toml",
            "[domain.tools.tmp]\nsoft = \"48MiB\"\nhard = \"64MiB\"",
            "[domain.tools.tmp]\nsoft = \"3TiB\"\nhard = \"5TiB\"",
        );
        let policy = write(home, &tree);
        let (value, said) = sec_json(
            home,
            &[
                "test",
                "quota",
                "--subject",
                "demo",
                "--area",
                "tmp",
                "--policy",
                &policy,
            ],
        );
        assert_eq!(said.code, Some(0), "{said}");
        let found = findings(&value);
        let all: Vec<_> = found
            .iter()
            .map(|(status, says, name)| [status.as_str(), says, name])
            .collect();
        assert_eq!(
            all,
            [
                ["ok", "allow", "tmp soft bytes"],
                ["ok", "warn", "tmp soft bytes + 1"],
                ["ok", "allow", "tmp hard bytes - 4096"],
                ["ok", "allow", "tmp hard bytes - 1"],
                ["ok", "allow", "tmp hard bytes"],
                ["ok", "deny", "tmp hard bytes + 1"],
                ["ok", "deny", "tmp hard bytes + 1 written"],
                ["ok", "allow", "tmp hard inodes - 1"],
                ["ok", "allow", "tmp hard inodes"],
                ["ok", "deny", "tmp hard inodes + 1"],
            ],
            "{said}"
        );
        assert_eq!(left(home), Vec::<PathBuf>::new());
    });
}

#[test]
fn a_running_session_its_areas_its_journal_and_its_counters_are_as_they_were() {
    as_everybody(|home| {
        // Looks at its areas when it is told to: before the proofs, after them, and whether there still is room as before.
        let script = "echo kept > /tmp/file; echo kept > /state/file; go=; trap go=1 USR1; echo begun
            for when in before after; do
                until [ \"$go\" ]; do sleep 0.01; done; go=
                cat /tmp/file /state/file
                df --output=used,iused /tmp /state | tail -n 2 | tr -s ' ' | tr '\\n' ' '
                ls -A /tmp /state | tr '\\n' ' '; echo
                head -c 4096 /dev/zero > /tmp/more && rm /tmp/more && echo room
            done
            exec sleep 1000";
        let mut running = Running::start(home, &[], &["/bin/bash", "-c", script]);
        assert_eq!(running.line(), "begun");
        let mut areas = || {
            running.signal(rustix::process::Signal::USR1);
            let seen: Vec<String> = (0..4).map(|_| running.line()).collect();
            assert_eq!((&*seen[0], &*seen[1], &*seen[3]), ("kept", "kept", "room"), "{seen:?}");
            (
                seen,
                sec_json(home, &["quotas", "--subject", "demo"]).0["usage"].clone(),
            )
        };
        let areas_before = areas();
        assert_eq!(areas_before.1["source"], "ledger");
        let journal = |home: &Home| {
            let mut files: Vec<_> = std::fs::read_dir(home.journal())
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| (entry.path(), std::fs::read(entry.path()).unwrap_or_default()))
                .collect();
            files.sort();
            files
        };
        let before = journal(home);
        assert!(!before.is_empty(), "the session has a journal");
        for words in [
            &["quota", "--subject", "demo", "--area", "tmp"][..],
            &["quota", "--subject", "demo", "--area", "state"],
            &["deny", "--subject", "demo", "--syscall", "unshare"],
            &["egress", "--subject", "demo", "--to", "192.0.2.1:443"],
            &["all", "--subject", "demo", "--part", "view,ipc,limits,fences"],
        ] {
            let said = test(home, words);
            assert_eq!(said.code, Some(0), "{said}");
        }
        assert!(journal(home) == before, "the journal and the counters of real sessions");
        assert_eq!(areas(), areas_before, "its areas and its ledger");
        running.signal(rustix::process::Signal::KILL);
        drop(running.end());
        assert_eq!(left(home), Vec::<PathBuf>::new());
        assert!(
            !home.state().join("nexus/proof").exists(),
            "not even the directory of all proofs is left"
        );
    });
}

#[test]
fn all_that_the_shipped_policy_says_is_proven_and_said_in_every_format() {
    as_everybody(|home| {
        let (value, said) = sec_json(home, &["test", "all", "--subject", "demo"]);
        let found = findings(&value);
        let failed: Vec<_> = found.iter().filter(|(status, ..)| status != "ok").collect();
        assert!(failed.is_empty() && said.code == Some(0), "{failed:#?} {}", said.err);
        for says in ["allow", "deny", "warn"] {
            assert!(found.iter().any(|(_, said, _)| said == says), "{says}");
        }
        // Each call of the table has a claim, or is said not to be tried.
        let left_out = left_out(&value).join("\n");
        for call in syscall::all().filter(|call| call.number().is_some()) {
            let name = call.name();
            let tried = found.iter().any(|(_, _, own)| {
                own.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with('(') || rest.starts_with(" on a Unix socket"))
            });
            let said = left_out.split([' ', '\n', '`', ',']).any(|word| word == name);
            assert!(tried || said, "nothing is said of `{name}`: {left_out}");
        }
        // Of some only arguments that do nothing: how many others there are is said.
        assert!(
            left_out.contains("allowed arguments that are not tried, because") && left_out.contains(" setpriority ("),
            "{left_out}"
        );
        for part in ["syscall", "egress", "quota", "view", "ipc", "limits", "fences"] {
            assert!(all(&value).iter().any(|one| one["part"] == part), "{part}");
        }
        assert_eq!(left(home), Vec::<PathBuf>::new());
    });
}

#[test]
fn what_a_first_tree_says_is_proven_whatever_it_is_for() {
    as_everybody(|home| {
        for preset in ["agent", "ci", "service"] {
            let directory = home.work().join(preset).to_string_lossy().into_owned();
            let made = home.shell(&format!("nx policy init --preset {preset} --dir {directory}"));
            assert!(made.status.success(), "{made:?}");
            let parts = ["--part", "syscall,egress,view,ipc", "--policy", &directory];
            let (value, said) = sec_json(home, &[&["test", "all"], &parts[..]].concat());
            let found = findings(&value);
            let failed: Vec<_> = found.iter().filter(|(status, ..)| status != "ok").collect();
            assert!(
                failed.is_empty() && said.code == Some(0),
                "{preset}: {failed:#?} {}",
                said.err
            );
        }
    });
}

#[test]
fn tap_and_junit_say_the_same_as_text() {
    as_everybody(|home| {
        let deny = ["deny", "--subject", "demo", "--syscall", "mount", "--format"];
        let tap = test(home, &[&deny[..], &["tap"]].concat());
        assert!(
            tap.out.starts_with("TAP version 14\n1..1\nok 1 - demo syscall mount("),
            "{tap}"
        );
        let junit = test(home, &[&deny[..], &["junit"]].concat());
        assert!(junit.out.starts_with("<?xml version=\"1.0\""), "{junit}");
        assert!(
            junit.out.contains("tests=\"1\" failures=\"0\" skipped=\"0\""),
            "{junit}"
        );
        let text = test(home, &[&deny[..], &["text"]].concat());
        assert!(text.out.starts_with("ok      syscall  deny  mount("), "{text}");
        assert!(!text.out.contains('\u{1b}'), "no colour but on a terminal");
    });
}

#[test]
fn what_a_killed_proof_leaves_is_gone_after_the_next() {
    as_everybody(|home| {
        let mut command = home.command(home.nx());
        command
            .args(["sec", "test", "all", "--subject", "demo"])
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let mut killed = security_v2_host::spawn(&mut command).unwrap();
        eventually("a proof has begun", || !left(home).is_empty());
        killed.kill().unwrap();
        killed.wait().unwrap();
        // Its session ends with it; then nobody holds its directory.
        eventually("everything of it has ended", || home.left().is_empty());
        let said = test(home, &["deny", "--subject", "demo", "--syscall", "unshare"]);
        assert_eq!(said.code, Some(0), "{said}");
        assert_eq!(left(home), Vec::<PathBuf>::new());
    });
}

#[test]
fn everywhere_but_special_addresses_is_seen_at_every_edge() {
    as_everybody(|home| {
        let tree = Tree::shipped().edit(
            "egress.toml",
            "\"127.0.0.1:8443\"",
            "\"0.0.0.0/0:80,443-445\", \"udp [::]/0:53\", \"127.0.0.1:8443\"",
        );
        let tree = tree.append("egress.toml", "deny = [\"203.0.113.0/24:443\"]\n");
        let policy = write(home, &tree);
        let words = [
            "test",
            "all",
            "--subject",
            "demo",
            "--part",
            "egress",
            "--policy",
            &policy,
        ];
        let (value, said) = sec_json(home, &words);
        let found = findings(&value);
        let failed: Vec<_> = found.iter().filter(|(status, ..)| status != "ok").collect();
        assert!(failed.is_empty() && said.code == Some(0), "{failed:#?} {}", said.err);
        let says = |name: &str| {
            let finding = found.iter().find(|(_, _, own)| own == name);
            finding.map_or("nothing", |(_, says, _)| says.as_str())
        };
        for (name, expected) in [
            ("tcp 223.255.255.255:445", "allow"),
            ("tcp 223.255.255.255:80", "allow"),
            ("tcp 169.254.169.254:80", "deny"),
            ("tcp 203.0.113.0:443", "deny"),
            ("tcp 203.0.112.255:443", "allow"),
            ("tcp 203.0.114.0:443", "allow"),
            ("tcp 127.0.0.1:8443", "allow"),
            ("udp [2001::]:53", "nothing"),
        ] {
            assert_eq!(says(name), expected, "{name}: {}", said.out);
        }
        let own = nexus_sys::interface::addresses().unwrap();
        for ip in own.iter().filter(|ip| ip.is_ipv4() && !ip.is_loopback()).take(2) {
            assert_eq!(
                says(&format!("tcp {ip}:80")),
                "deny",
                "the host's own {ip}: {}",
                said.out
            );
        }
    });
}

#[test]
fn nothing_is_removed_where_somebody_else_could_have_planted_it() {
    use std::os::unix::fs::PermissionsExt;
    as_everybody(|home| {
        let state = home.work().join("state");
        let planted = state.join("nexus/proof/0badf00d");
        std::fs::create_dir_all(&planted).unwrap();
        std::fs::write(planted.join("lock"), "").unwrap();
        for path in [&state, &state.join("nexus"), &state.join("nexus/proof"), &planted] {
            home.give(path);
        }
        std::fs::set_permissions(state.join("nexus"), std::fs::Permissions::from_mode(0o777)).unwrap();
        let mut command = home.command(home.nx());
        command
            .env("XDG_STATE_HOME", &state)
            .args(["sec", "test", "deny", "--subject", "demo", "--syscall", "unshare"])
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let done = security_v2_host::spawn(&mut command)
            .unwrap()
            .wait_with_output()
            .unwrap();
        let err = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(3), "{err}");
        assert!(err.contains("everybody may write it"), "{err}");
        assert!(planted.exists(), "what was planted is not followed");
    });
}

#[test]
fn a_running_session_under_another_policy_than_the_one_that_is_proven_is_named() {
    as_everybody(|home| {
        let mut running = Running::start(home, &[], &["/bin/sh", "-c", "echo begun; exec sleep 1000"]);
        assert_eq!(running.line(), "begun");
        let (ps, _) = sec_json(home, &["ps"]);
        let (session, old) = (&ps["sessions"][0]["session"], &ps["sessions"][0]["policy"]);
        let deny = ["deny", "--subject", "demo", "--syscall", "mount"];
        // The one that it is under: nothing to say.
        let (same, said) = sec_json(home, &[&["test"], &deny[..]].concat());
        assert_eq!(
            same["subjects"][0]["other_policy"]["sessions"],
            serde_json::json!([]),
            "{said}"
        );
        let said = test(home, &deny);
        assert!(said.code == Some(0) && !said.out.contains("another policy"), "{said}");
        // Its nearest neighbour: the same rules, and one that says nothing new.
        let tree = Tree::shipped().append("egress.toml", "deny = [\"198.51.100.7:9\"]\n");
        let policy = write(home, &tree);
        let changed = [&deny[..], &["--policy", &policy]].concat();
        let (value, said) = sec_json(home, &[&["test"], &changed[..]].concat());
        assert_eq!(said.code, Some(0), "{said}");
        let others = &value["subjects"][0]["other_policy"];
        assert_eq!(others["sessions"][0]["session"], *session, "{said}");
        assert_eq!(others["sessions"][0]["policy"], *old, "{said}");
        assert_ne!(value["subjects"][0]["policy"], *old, "{said}");
        for (format, begins) in [
            ("text", "running  session "),
            ("tap", "# running: session "),
            ("junit", "    <system-out>session "),
        ] {
            let said = test(home, &[&changed[..], &["--format", format]].concat());
            let line = said
                .out
                .lines()
                .find(|line| line.starts_with(begins))
                .unwrap_or_else(|| panic!("{said}"));
            assert!(
                line.contains(session.as_str().unwrap()) && line.contains(old.as_str().unwrap()),
                "{line}"
            );
            assert!(line.contains("what is proven here is not what it is held to"), "{line}");
        }
        running.signal(rustix::process::Signal::TERM);
        drop(running.end());
        // Who has ended is under no policy any more.
        let said = test(home, &changed);
        assert!(!said.out.contains("another policy"), "{said}");
    });
}

#[test]
fn the_own_loopback_is_open_by_no_rule_of_policys_and_what_opens_it_is_named() {
    as_everybody(|home| {
        for (udp, to, rule) in [
            (true, "127.0.0.1:53", "own-loopback at built-in"),
            (false, "[::1]:9", "own-loopback at built-in"),
            // The nearest that a rule opens: the host's.
            (false, "127.0.0.1:8443", "egress:"),
        ] {
            let mut words = vec!["egress", "--subject", "demo", "--to", to];
            words.extend(udp.then_some("--udp"));
            let said = test(home, &words);
            assert_eq!(said.code, Some(0), "{said}");
            assert!(said.out.contains(&format!("rule     {rule}")), "{said}");
        }
    });
}
