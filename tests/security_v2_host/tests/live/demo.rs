//! README's job on the policy that ships.

use security_v2_host::{Run, Server, Tree, users};

const EPERM: &str = "errno 1";

/// The shipped tree with another port in the place of 8443, which somebody may use here.
fn shipped_for(server: &Server) -> Tree {
    let to = format!("\"127.0.0.1:{}\"", server.address().port());
    Tree::shipped().edit("egress.toml", "    \"127.0.0.1:8443\"", &format!("    {to}"))
}

#[test]
fn an_allowed_connect_works_and_a_forbidden_one_gets_eperm() {
    for user in users() {
        let (open, closed) = (Server::new([127, 0, 0, 1].into()), Server::new([127, 0, 0, 1].into()));
        let (open_at, closed_at) = (open.address().to_string(), closed.address().to_string());
        let done = Run::new(user)
            .policy(&shipped_for(&open))
            .probe([
                "connect",
                &open_at,
                ",",
                "connect",
                "192.0.2.1:443",
                ",",
                "connect",
                "169.254.169.254:80",
                ",",
                "connect",
                &closed_at,
            ])
            .run();
        assert_eq!(done.code(), Some(0), "{done}");
        let answers = done.probed();
        // The host's loopback where no rule names it is the program's own, where nobody listens.
        assert_eq!(answers, ["ok", EPERM, EPERM, "errno 111"], "{done}");
        assert_eq!((open.connections(), closed.connections()), (1, 0), "{done}");
        let denied = done.records_for("egress.no_rule");
        assert_eq!(denied.len(), 1, "{done}");
        assert_eq!(&*denied[0].object, "tcp 192.0.2.1:443");
        assert!(
            denied[0].at.as_deref().is_some_and(|at| at.starts_with("egress.toml:")),
            "{done}"
        );
        assert_eq!(done.records_for("egress.special_address").len(), 1, "{done}");
        done.assert_nothing_left();
    }
}

#[test]
fn a_write_past_the_budget_gets_edquot_at_the_last_byte_that_fits() {
    for user in users() {
        for path in ["/tmp/file", "/state/file"] {
            let done = Run::new(user)
                .probe([
                    "append", path, "67108865", ",", "append", path, "1", ",", "remove", path,
                ])
                .run();
            assert_eq!(done.code(), Some(0), "{done}");
            let answers = done.probed();
            assert_eq!(
                answers,
                ["errno 122 after 67108864", "errno 122 after 0", "ok"],
                "{done}"
            );
            let denied = done.records_for("quota.hard_bytes");
            assert_eq!(denied.len(), 2, "{done}");
            assert!(
                denied[0].at.as_deref().is_some_and(|at| at.starts_with("quotas.toml:")),
                "{done}"
            );
            assert_eq!(done.records_for("quota.soft_bytes").len(), 1, "{done}");
            done.assert_nothing_left();
        }
    }
}

#[test]
fn a_forbidden_syscall_gets_eperm_and_its_harmless_neighbour_works() {
    for user in users() {
        let done = Run::new(user)
            .probe([
                "socket",
                "16",
                "3",
                ",",
                "socket",
                "1",
                "1",
                ",",
                "pidfd-getfd",
                ",",
                "chroot",
                "/",
                ",",
                "nice-self",
            ])
            .run();
        assert_eq!(done.code(), Some(0), "{done}");
        let answers = done.probed();
        assert_eq!(answers, [EPERM, "ok", EPERM, EPERM, "ok"], "{done}");
        assert_eq!(done.records_for("egress.family").len(), 1, "{done}");
        for denied in done.records_for("abi.deny_rule") {
            assert!(
                denied.at.as_deref().is_some_and(|at| at.starts_with("abi.toml:")),
                "{done}"
            );
        }
        assert_eq!(done.records_for("abi.deny_rule").len(), 2, "{done}");
        done.assert_nothing_left();
    }
}

#[test]
fn the_summary_says_what_was_used_and_what_was_denied_by_which_rule() {
    for user in users() {
        let done = Run::new(user)
            .probe(["connect", "192.0.2.1:443", ",", "append", "/state/kept", "4096"])
            .run();
        let err = done.err();
        for part in [
            "nx: demo",
            "denied  1",
            "tcp 192.0.2.1:443",
            "egress.no_rule",
            "egress.toml:",
        ] {
            assert!(err.contains(part), "no `{part}`: {done}");
        }
        assert!(
            err.lines()
                .any(|line| line.trim_start().starts_with("state") && line.contains("4.0 KiB of 64.0 MiB")),
            "{done}"
        );
    }
}

#[test]
fn what_a_program_prints_reads_and_ends_with_is_its_own() {
    for user in users() {
        let done = Run::new(user)
            .stdin("from outside\n")
            .option("--quiet")
            .bash("cat; echo to stderr >&2; exit 7")
            .run();
        assert_eq!(
            (done.code(), done.out().as_str(), done.err().as_str()),
            (Some(7), "from outside\n", "to stderr\n"),
            "{done}"
        );
        done.assert_nothing_left();
    }
}

#[test]
fn state_is_kept_between_runs_and_tmp_is_not() {
    for user in users() {
        let first = Run::new(user)
            .probe(["append", "/state/kept", "5000", ",", "append", "/tmp/lost", "5000"])
            .run();
        assert_eq!(first.code(), Some(0), "{first}");
        first.assert_nothing_left();
        let second = Run::at(&first.home)
            .probe(["read", "/state/kept", ",", "read", "/tmp/lost"])
            .run();
        let out = second.out();
        assert!(
            out.contains("/state/kept: 5000 bytes") && out.contains("/tmp/lost: errno 2"),
            "{second}"
        );
    }
}
