//! Open files of the areas are the file server's descriptors, which all sessions of a subject share.

use nexus_abi::Errno;
use nexus_audit::Judgement;
use security_v2_host::{Home, Run, User, users};

/// What the file server may have, as who starts it: 768 of them are for files, half of those for open ones, and of these a session
/// that is alone has three quarters.
const DESCRIPTORS: u32 = 1024;
const SHARE: usize = 288;

#[test]
fn open_files_past_a_sessions_share_get_enfile_and_a_record_that_names_no_rule() {
    for user in users() {
        let User::Ordinary(id) = user else {
            // Root's raises its limit, further than a session's processes may open files.
            continue;
        };
        let home = Home::new(user);
        let mut words = vec!["prlimit".to_owned(), format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}")];
        if rustix::process::geteuid().is_root() {
            let become_user = [
                "setpriv",
                &format!("--reuid={id}"),
                &format!("--regid={id}"),
                "--clear-groups",
                "--inh-caps=-all",
            ];
            words.extend(become_user.map(str::to_owned));
        }
        let script = "echo x >/tmp/file; n=0; while [ $n -lt 500 ] && exec {fd}</tmp/file; do n=$((n+1)); done; echo opened $n; \
                      exec {fd}<&-; while ! exec {again}</tmp/file; do :; done 2>/dev/null; echo again";
        let done = Run::at(&home)
            .around(words)
            .policy(&crate::quotas::tree())
            .subject("one")
            .bash(script)
            .run();
        assert_eq!(done.code(), Some(0), "{done}");
        let lines: Vec<String> = done.out().lines().map(str::to_owned).collect();
        let opened: usize = lines[0].strip_prefix("opened ").unwrap().parse().unwrap();
        // Bash itself may have some of its own there.
        assert!((SHARE - 8..=SHARE).contains(&opened), "{opened}: {done}");
        assert_eq!(lines[1], "again", "what was closed may be opened again");
        assert!(done.err().contains("Too many open files in system"), "{done}");
        let denied = done.records_for("vfs.open_files");
        assert!(!denied.is_empty(), "{done}");
        for record in &denied {
            assert_eq!(record.verdict, Judgement::Deny(Errno::ENFILE), "{done}");
            assert!(record.rule.is_none() && record.at.is_none(), "no policy set it");
        }
        crate::quotas::assert_denies(&home, "one", 0);
        done.assert_nothing_left();
    }
}
