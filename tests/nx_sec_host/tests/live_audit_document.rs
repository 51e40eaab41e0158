//! What docs/security/nx-sec-audit.md shows is what the commands print. `NEXUS_BLESS=1` writes what they print now.

use security_v2_host::{Home, as_everybody, console, users};
use std::path::{Path, PathBuf};

fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/security/nx-sec-audit.md")
}

/// Without what differs from run to run: times, hashes and sessions' names, and the lines of shipped files.
fn masked(text: &str) -> String {
    let mask = |word: &str| {
        let hex = |part: &str| part.len() >= 12 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        if let Some((file, _)) = word.split_once(".toml:") {
            format!("{file}.toml:#")
        } else if let Some((seq, _)) = word.split_once(':').filter(|(_, mac)| hex(mac)) {
            format!("{seq}:#")
        } else if hex(word) || word.len() == 24 && word.ends_with('Z') {
            "#".to_owned()
        } else {
            word.to_owned()
        }
    };
    let line = |line: &str| line.split(' ').map(mask).collect::<Vec<_>>().join(" ");
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// The document with what its commands print now, and how many there are.
fn run(home: &Home, text: &str) -> (String, usize) {
    console(text, |command, _| {
        let done = home.shell(&format!("exec 2>&1; {command}"));
        String::from_utf8(done.stdout).unwrap()
    })
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
        assert!(commands > 10, "the document has commands");
        let (shown, printed) = (masked(&text), masked(&printed));
        for (shown, printed) in shown.lines().zip(printed.lines()) {
            assert_eq!(shown, printed);
        }
        assert_eq!(shown, printed);
    });
}
