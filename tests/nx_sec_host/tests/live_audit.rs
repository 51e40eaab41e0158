//! `nx sec audit` and `nx sec counters` of what real programs were denied.

use nx_sec_host::{sec, sec_json};
use rustix::process::Signal;
use security_v2_host::{Run, Running, as_everybody};

/// Refused once by egress, and once by the syscall rules.
const REFUSED: &str = "exec 3<>/dev/tcp/192.0.2.1/443; umount /tmp";

#[test]
fn what_a_program_was_denied_is_in_the_journal_and_in_the_counters_and_the_chain_holds() {
    as_everybody(|home| {
        let first = Run::at(home).bash(REFUSED).run();
        let denies = first.records_for("egress.no_rule").len();
        assert_eq!(denies, 1, "{first}");

        let listed = sec(home, &["audit", "--reason", "egress.no_rule", "--subject", "demo"]);
        assert_eq!((listed.code, listed.out.lines().count()), (Some(0), 1), "{listed}");
        for part in [
            "deny EPERM",
            "egress.no_rule",
            "connect tcp 192.0.2.1:443",
            "(egress.toml:",
        ] {
            assert!(listed.out.contains(part), "{part}: {listed}");
        }
        let others = sec(home, &["audit", "--subject", "other"]);
        assert_eq!(
            (others.code, others.out.as_str()),
            (Some(3), ""),
            "nobody knows it: {others}"
        );

        let abi = first
            .records
            .iter()
            .filter(|record| record.reason.as_str().starts_with("abi."));
        let abi = abi.count();
        assert!(abi > 0, "umount2 is refused: {first}");
        let (counted, _) = sec_json(home, &["counters", "--subject", "demo"]);
        assert_eq!(counted["subjects"]["demo"]["egress_denies_total"], 1);
        assert_eq!(counted["subjects"]["demo"]["abi_denies_total"], abi);
        let listed = sec(home, &["audit", "--reason", "abi", "--subject", "demo"]);
        assert_eq!((listed.code, listed.out.lines().count()), (Some(0), abi), "{listed}");

        let verified = sec(home, &["audit", "--verify"]);
        assert!(
            verified.code == Some(0) && verified.out.contains("chain     holds"),
            "{verified}"
        );
        // Counters go on over sessions.
        let _ = Run::at(home).bash(REFUSED).run();
        let (counted, _) = sec_json(home, &["counters"]);
        assert_eq!(counted["subjects"]["demo"]["egress_denies_total"], 2);
    });
}

#[test]
fn a_deny_of_a_running_program_is_counted_and_followed_while_it_runs() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    as_everybody(|home| {
        let script = "trap go=1 USR1; echo begun; until [ $go ]; do sleep 0.01; done; (exec 3<>/dev/tcp/192.0.2.7/443); \
                      echo done; exec sleep 1000";
        let mut running = Running::start(home, &[], &["/bin/bash", "-c", script]);
        assert_eq!(running.line(), "begun");
        let mut command = home.command(home.nx());
        command.args(["sec", "audit", "--follow", "--reason", "egress"]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut follow = security_v2_host::spawn(&mut command).unwrap();
        running.signal(Signal::USR1);
        assert_eq!(running.line(), "done");
        let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        assert!(line.contains("connect tcp 192.0.2.7:443"), "{line}");
        let (counted, _) = sec_json(home, &["counters", "--subject", "demo"]);
        assert_eq!(counted["subjects"]["demo"]["egress_denies_total"], 1);
        drop(lines);
        running.signal(Signal::TERM);
        let _ = running.end();
        // Its reader is gone: it ends by itself.
        assert_eq!(follow.wait().unwrap().code(), Some(0));
    });
}

#[test]
fn denies_of_a_flood_that_are_held_back_are_told_while_it_runs_and_written_at_its_end() {
    as_everybody(|home| {
        let script =
            "for n in {1..400}; do (exec 3<>/dev/tcp/192.0.2.7/443); done 2> /dev/null; echo done; exec sleep 1000";
        let mut running = Running::start(home, &[], &["/bin/bash", "-c", script]);
        assert_eq!(running.line(), "done");
        let denies = |listed: &str| -> u64 {
            let lines = listed
                .lines()
                .filter(|line| line.contains(" deny ") || line.contains("journal.suppressed"));
            let held = |line: &str| {
                line.rsplit_once('+')?
                    .1
                    .strip_suffix(" not written")?
                    .parse::<u64>()
                    .ok()
            };
            lines
                .map(|line| held(line).unwrap_or(0) + u64::from(line.contains(" deny ")))
                .sum()
        };
        let (counted, _) = sec_json(home, &["counters", "--subject", "demo"]);
        let counted = |counter: &str| counted["subjects"]["demo"][counter].as_u64().unwrap();
        let counted = counted("abi_denies_total") + counted("egress_denies_total") + counted("quota_denies_total");
        assert!(counted >= 400, "{counted}");
        let listed = sec(home, &["audit", "--subject", "demo"]);
        assert_eq!(listed.code, Some(0), "{listed}");
        assert!(listed.out.contains(" not written"), "the flood was none: {listed}");
        // What the limit let through in the flood's last moment is written: then there is nothing to tell.
        let more = counted.checked_sub(denies(&listed.out)).unwrap();
        let says = format!("nx: {more} more denies of `demo` are counted and not in the journal");
        assert_eq!(listed.err.contains(&says), more > 0, "{listed}");
        let json = sec(home, &["audit", "--json"]);
        let says = format!(r#"{{"count":{more},"event":"not_written","ok":true,"subject":"demo","version":1}}"#);
        assert_eq!(json.out.lines().any(|line| line == says), more > 0, "{json}");
        running.signal(Signal::TERM);
        let _ = running.end();
        let after = sec(home, &["audit", "--subject", "demo"]);
        assert!(!after.err.contains("more denies"), "{after}");
        assert_eq!(denies(&after.out), counted, "{after}");
    });
}

#[test]
fn where_the_kernel_tells_of_no_changes_any_more_it_says_so_and_follows_all_the_same() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    as_everybody(|home| {
        let first = Run::at(home).bash("exec 3<>/dev/tcp/192.0.2.8/443").run();
        assert_eq!(first.records_for("egress.no_rule").len(), 1);
        // A user namespace in which this user may watch nothing: nobody else's limit is touched.
        let none =
            "echo 0 > /proc/sys/user/max_inotify_instances && exec nx sec audit --follow --reason egress --seq 1..";
        let mut command = home.command("unshare");
        command.args(["--user", "--map-root-user", "/bin/sh", "-c", none]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut follow = security_v2_host::spawn(&mut command).unwrap();
        let mut err = BufReader::new(follow.stderr.take().unwrap()).lines();
        let said = err.next().unwrap().unwrap();
        assert!(said.contains("looked at four times a second"), "{said}");
        let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        assert!(line.contains("connect tcp 192.0.2.8:443"), "{line}");
        let second = Run::at(home).bash("exec 3<>/dev/tcp/192.0.2.9/443").run();
        assert_eq!(second.records_for("egress.no_rule").len(), 1, "{second}");
        let line = lines.next().unwrap().unwrap();
        assert!(line.contains("connect tcp 192.0.2.9:443"), "{line}");
        drop(lines);
        // Its reader is gone: it ends by itself.
        assert_eq!(follow.wait().unwrap().code(), Some(0));
    });
}

#[test]
fn a_journal_that_somebody_removed_is_not_said_never_to_have_been() {
    as_everybody(|home| {
        // Nothing ran yet.
        for words in [&["audit"][..], &["counters"]] {
            let said = sec(home, words);
            assert_eq!(said.code, Some(0), "{words:?}: {said}");
        }
        for words in [&["audit", "--verify"][..], &["audit", "--follow"]] {
            let said = sec(home, words);
            assert_eq!(said.code, Some(4), "{words:?}: {said}");
            assert!(said.err.contains("there is no journal yet"), "{words:?}: {said}");
        }
        let _ = Run::at(home).bash("exec 3<>/dev/tcp/192.0.2.1/443").run();
        // All of it but its directory.
        let journal = home.state().join("nexus/journal");
        for file in std::fs::read_dir(&journal).unwrap() {
            std::fs::remove_file(file.unwrap().path()).unwrap();
        }
        for words in [
            &["audit"][..],
            &["audit", "--json"],
            &["audit", "--verify"],
            &["counters"],
            &["counters", "--json"],
        ] {
            let said = sec(home, words);
            assert_eq!(said.code, Some(4), "{words:?}: {said}");
            assert!(format!("{said}").contains("somebody removed them"), "{words:?}: {said}");
        }
        std::fs::remove_dir_all(&journal).unwrap();
        for words in [
            &["audit"][..],
            &["audit", "--subject", "demo"],
            &["audit", "--json"],
            &["audit", "--verify"],
            &["audit", "--verify", "--json"],
            &["audit", "--follow"],
            &["counters"],
            &["counters", "--subject", "demo"],
            &["counters", "--json"],
            &["counters", "--prometheus"],
        ] {
            let said = sec(home, words);
            assert_eq!(said.code, Some(4), "{words:?}: {said}");
            assert!(format!("{said}").contains("somebody removed them"), "{words:?}: {said}");
        }
    });
}
