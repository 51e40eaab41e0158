//! What docs/security/nx-sec-test.md shows is what the commands print.

use security_v2_host::{Home, as_everybody, users};
use std::path::{Path, PathBuf};

fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/security/nx-sec-test.md")
}

/// Without what differs when the shipped tree does, and from session to session: hashes, and the lines of its files.
fn masked(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let hex = rest
            .bytes()
            .take_while(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte))
            .count();
        if hex >= 12 && !out.ends_with("0x") {
            out.push('#');
            rest = &rest[hex..];
        } else if let Some(after) = rest.strip_prefix(".toml:") {
            out.push_str(".toml:");
            rest = after.trim_start_matches(|digit: char| digit.is_ascii_digit());
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

fn said(home: &Home, command: &str) -> String {
    let output = home.shell(&format!("exec 2>&1; {command}"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn what_the_document_shows_is_what_the_commands_print() {
    let text = std::fs::read_to_string(document()).unwrap();
    if std::env::var_os("NEXUS_BLESS").is_some() {
        let home = Home::new(users()[0]);
        return std::fs::write(document(), run(&home, &text).0).unwrap();
    }
    as_everybody(|home| {
        let (printed, commands) = run(home, &text);
        assert!(commands >= 8, "the document has commands");
        let (shown, printed) = (masked(&text), masked(&printed));
        for (shown, printed) in shown.lines().zip(printed.lines()) {
            assert_eq!(shown, printed);
        }
        assert_eq!(shown, printed);
    });
}

/// The document with what its commands print now, and how many there are.
fn run(home: &Home, text: &str) -> (String, usize) {
    let (mut out, mut commands, mut inside) = (String::new(), 0, false);
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        out.push_str(line);
        out.push('\n');
        if line.starts_with("```") {
            inside = line == "```console";
        }
        if let Some(command) = line.strip_prefix("$ ").filter(|_| inside) {
            commands += 1;
            while lines
                .peek()
                .is_some_and(|next| !next.starts_with("$ ") && !next.starts_with("```"))
            {
                lines.next();
            }
            out.push_str(&said(home, command));
        }
    }
    (out, commands)
}
