//! With enforcement broken on purpose, `nx sec test` fails, each time for its own reason.

use nx_sec_host::proof::{few, policy};
use nx_sec_host::{Said, said};
use security_v2_host::{Home, Tree, as_everybody, copy_program};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tempfile::TempDir;

/// The program in which something is broken, where every user may execute it: one copy, of some fifty megabytes, for all
/// tests that run at once, gone with the last of them.
fn program() -> Arc<TempDir> {
    static COPY: Mutex<Weak<TempDir>> = Mutex::new(Weak::new());
    let mut shared = COPY.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let copy = Arc::new(tempfile::tempdir().unwrap());
        std::fs::set_permissions(copy.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        copy_program(Path::new(env!("CARGO_BIN_EXE_broken")), &copy.path().join("broken")).unwrap();
        *shared = Arc::downgrade(&copy);
        copy
    })
}

/// As everybody, with the program at hand all the while.
fn with_program(test: impl Fn(&Arc<Home>)) {
    let _held = program();
    as_everybody(|home| test(home));
}

/// `broken WORDS`, as the home's user.
fn broken(home: &Home, words: &[&str]) -> Said {
    said(home.command(program().path().join("broken")).args(words))
}

fn lacks(said: &Said) -> Vec<&str> {
    let lines = said.out.lines();
    lines
        .filter_map(|line| line.trim_start().strip_prefix("lacks    "))
        .collect()
}

const DENY: [&str; 6] = ["sec", "test", "deny", "--subject", "demo", "--syscall"];

fn deny<'a>(what: &'a str, call: &'a str) -> Vec<&'a str> {
    std::iter::once(what).chain(DENY).chain([call]).collect()
}

#[test]
fn a_filter_that_is_not_loaded_is_seen_by_the_kernels_own_errno() {
    with_program(|home| {
        let said = broken(home, &deny("filter", "unshare"));
        assert_eq!(said.code, Some(3), "{said}");
        let lacks = lacks(&said);
        assert!(lacks[0].starts_with("EINVAL, not EPERM"), "{said}");
        assert!(lacks.iter().any(|lack| lack.starts_with("no record of it")), "{said}");
        assert!(
            lacks.iter().any(|lack| lack.contains("stepped by 0, not by 1")),
            "{said}"
        );
        // A call that the kernel itself refuses with the same errno is no proof either.
        let said = broken(home, &deny("filter", "vhangup"));
        assert_eq!(said.code, Some(3), "{said}");
        assert!(
            said.out.contains("errno    EPERM") && said.out.contains("no record of it"),
            "{said}"
        );
    });
}

#[test]
fn a_ledger_that_is_not_charged_is_seen_by_the_byte_that_was_written() {
    with_program(|home| {
        let directory = home.write_work("uncharged", "");
        std::fs::remove_file(&directory).unwrap();
        std::fs::create_dir(&directory).unwrap();
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o777)).unwrap();
        home.give(&directory);
        let place = directory.to_string_lossy().into_owned();
        let policy = policy(home, &few());
        let quota = [
            "sec",
            "test",
            "quota",
            "--subject",
            "demo",
            "--area",
            "tmp",
            "--policy",
            &policy,
        ];
        let said = broken(home, &[&["ledger", place.as_str()], &quota[..]].concat());
        assert_eq!(said.code, Some(3), "{said}");
        let lacks_text = lacks(&said);
        assert!(
            lacks_text.iter().any(|lack| lack.starts_with("returned 0, not EDQUOT")),
            "{said}"
        );
        assert!(lacks_text.iter().any(|lack| lack.contains("bytes long, not")), "{said}");
        let said = broken(home, &[&["budget"], &quota[..]].concat());
        assert_eq!(said.code, Some(3), "{said}");
        assert!(
            lacks(&said)
                .iter()
                .any(|lack| lack.starts_with("returned 0, not EDQUOT")),
            "{said}"
        );
    });
}

#[test]
fn a_journal_that_drops_is_seen_by_the_record_that_is_not_there() {
    with_program(|home| {
        let said = broken(home, &deny("journal", "unshare"));
        assert_eq!(said.code, Some(3), "{said}");
        let [lack] = lacks(&said)[..] else { panic!("{said}") };
        assert!(lack.starts_with("no record of it in the journal"), "{said}");
    });
}

#[test]
fn a_journal_that_was_changed_is_seen_by_its_chain() {
    with_program(|home| {
        let said = broken(home, &deny("chain", "unshare"));
        assert_eq!(said.code, Some(3), "{said}");
        assert!(lacks(&said).iter().any(|lack| lack.contains("does not hold")), "{said}");
    });
}

#[test]
fn counters_that_do_not_step_are_seen() {
    with_program(|home| {
        let said = broken(home, &deny("counters", "unshare"));
        assert_eq!(said.code, Some(3), "{said}");
        let [lack] = lacks(&said)[..] else { panic!("{said}") };
        assert_eq!(lack, "the counter abi_denies_total stepped by 0, not by 1", "{said}");
    });
}

#[test]
fn a_rule_widened_after_load_is_seen_by_what_arrives() {
    with_program(|home| {
        let tree = Tree::shipped().edit("egress.toml", "127.0.0.1:8443", "192.0.2.0/24:443");
        let wider = policy(home, &tree);
        let words = [
            "egress",
            &wider,
            "sec",
            "test",
            "egress",
            "--subject",
            "demo",
            "--to",
            "192.0.2.1:443",
        ];
        let said = broken(home, &words);
        assert_eq!(said.code, Some(3), "{said}");
        let lacks = lacks(&said);
        assert!(
            lacks.iter().any(|lack| lack.starts_with("returned 0, not EPERM")),
            "{said}"
        );
        assert!(lacks.contains(&"it arrived at the proof's listener"), "{said}");
    });
}

#[test]
fn records_that_are_held_back_are_seen() {
    with_program(|home| {
        let words = ["rate", "sec", "test", "quota", "--subject", "demo", "--area", "tmp"];
        let said = broken(home, &words);
        assert_eq!(said.code, Some(3), "{said}");
        assert!(
            lacks(&said).iter().any(|lack| lack.starts_with("no record of it")),
            "{said}"
        );
    });
}

#[test]
fn a_name_opened_after_load_is_seen_by_who_was_asked_for_it() {
    with_program(|home| {
        let narrow = Tree::shipped().edit("egress.toml", "127.0.0.1:8443", "git.example.org:443");
        let wide = Tree::shipped().edit("egress.toml", "127.0.0.1:8443", "*.example.org:443");
        let wider = home.work().join("wider");
        wide.write(&wider).unwrap();
        home.give(&wider);
        let (wider, policy) = (wider.to_string_lossy().into_owned(), policy(home, &narrow));
        let all = [
            "sec",
            "test",
            "all",
            "--subject",
            "demo",
            "--part",
            "egress",
            "--policy",
            &policy,
        ];
        let said = broken(home, &[&["egress", wider.as_str()], &all[..]].concat());
        assert_eq!(said.code, Some(3), "{said}");
        let lacks = lacks(&said);
        assert!(
            lacks.contains(&"answered with code 0, not 3: nothing refused the name"),
            "{said}"
        );
        assert!(
            lacks.iter().any(|lack| lack.starts_with("the name server was asked ")),
            "{said}"
        );
    });
}

#[test]
fn a_session_that_begins_late_is_waited_for_with_a_word_and_one_that_never_does_is_given_up() {
    with_program(|home| {
        let said = broken(home, &deny("late", "unshare"));
        assert_eq!(said.code, Some(0), "{said}");
        assert!(
            said.err
                .starts_with("nx: the proof's session does not begin yet: waiting up to 20 s for its file server"),
            "{said}"
        );
        // A test waits three seconds where nx waits twenty, by the same code.
        let said = broken(home, &deny("never", "unshare"));
        assert_eq!(said.code, Some(4), "{said}");
        assert!(
            said.err.contains("does not begin yet: waiting up to 3 s")
                && said.err.contains("did not begin within 3 s")
                && said.err.contains("help: "),
            "{said}"
        );
    });
}
