//! Names that speak to the terminal on which `nx` tells of them.

use std::path::Path;
use std::process::Stdio;

use security_v2_host::{as_everybody, spawn};

/// It sets the window's title, clears the screen, turns the rest around, and begins a line as `nx` does.
const NAME: &str = "owned\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\u{202e}x\nnx: fine";

fn assert_plain(told: &str, words: &[&str]) {
    let speaks = |one: char| (one.is_control() && one != '\n') || one == '\u{202e}';
    assert!(!told.contains(speaks), "{words:?}: {told:?}");
    assert!(!told.lines().any(|line| line == "nx: fine"), "{words:?}: {told:?}");
}

#[test]
fn no_name_that_is_told_speaks_to_the_terminal_or_begins_a_line() {
    as_everybody(|home| {
        let place = home.work().join(NAME);
        std::fs::create_dir(&place).unwrap();
        home.give(&place);
        std::fs::write(place.join("file"), NAME).unwrap();
        // A tree whose words are the same: as text, and as what TOML makes of it.
        let tree = home.work().join("tree");
        security_v2_host::Tree::shipped()
            .append("sandbox.toml", "[subject.demo]\nread = [\"/own\\u001b[2Jed\"]\n")
            .append(
                "egress.toml",
                &format!("# {}\n[subject.demo]\nowned = 1\n", &NAME[..19]),
            )
            .write(&tree)
            .unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let (file, none) = (text(&place.join("file")), text(&place.join("none")));
        let (place, tree) = (text(&place), text(&tree));
        let tries: &[&[&str]] = &[
            &["run", "demo", "--", NAME],
            &["run", "demo", "--", &file],
            &["run", "--work", &none, "demo", "--", "true"],
            &["run", "--work", &file, "demo", "--", "true"],
            &["run", "--work", &place, "--print-plan", "demo", "--", NAME, NAME],
            &["run", "--work", &place, "--print-plan", "--json", "demo", "--", "true"],
            &["run", "--policy", &place, "demo", "--", "true"],
            &["run", "--policy", &tree, "demo", "--", "true"],
            &["run", NAME, "--", "true"],
            &["run", &format!("--{NAME}"), "demo", "--", "true"],
            &["policy", "validate", &none],
            &["policy", "validate", &tree],
            &["policy", "validate", "--json", &tree],
            &["policy", "show", NAME],
            &["policy", "explain", "demo", "open", NAME],
            &["policy", "explain", "--json", "demo", "open", NAME],
            &["policy", "init", "--preset", "agent", &place],
            &["policy", "snapshot", "build", &none],
            &["policy", "diff", &none, &tree],
            &["sec", "ps", NAME],
        ];
        let mut named = 0;
        for words in tries {
            let mut command = home.command(home.nx());
            command.args(*words).stdin(Stdio::null());
            let child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped())).unwrap();
            let done = child.wait_with_output().unwrap();
            for stream in [&done.stdout, &done.stderr] {
                let told = String::from_utf8_lossy(stream);
                assert_plain(&told, words);
                named += usize::from(told.contains("own"));
            }
        }
        assert!(named >= tries.len() - 1, "only {named} tell of the name");
    });
}

/// What a program names, and what it is called, told as it happens and at the end.
#[test]
fn no_name_that_a_program_chose_speaks_to_the_terminal() {
    as_everybody(|home| {
        let program = home.work().join(NAME);
        security_v2_host::copy_program(security_v2_host::program(), &program).unwrap();
        let mut command = home.command(home.nx());
        command
            .args(["run", "--watch", "demo", "--"])
            .arg(&program)
            .args(["connect", "192.0.2.1:443", ",", "chroot", NAME])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let child = spawn(command.stderr(Stdio::piped())).unwrap();
        let told = String::from_utf8_lossy(&child.wait_with_output().unwrap().stderr).into_owned();
        assert!(told.contains("egress.no_rule"), "{told}");
        assert_plain(&told, &["--watch"]);
    });
}
