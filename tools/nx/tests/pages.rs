//! The manual pages and completions: that what reads them takes them, and that they are made of the command line itself.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests; the lints know only functions that are tests themselves"
)]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn nx(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nx"))
        .args(args)
        .env_clear()
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs a reader; `None`, with a word on stderr, where this machine has none and nobody says that it has to.
fn reader(program: &str, args: &[&str]) -> Option<Output> {
    let done = Command::new(program).args(args).stdin(Stdio::null()).output();
    match done {
        Ok(output) => Some(output),
        Err(error) => {
            let required = std::env::var_os("NEXUS_REQUIRE_LIVE").is_some_and(|value| value == "1");
            assert!(!required, "`{program}` is not there: {error}");
            // Also where the test passes: the harness keeps back what `eprintln!` says.
            let _ = writeln!(std::io::stderr(), "\nSKIPPED: `{program}` is not there: {error}");
            None
        }
    }
}

fn pages(directory: &Path) -> Vec<String> {
    let done = nx(&["man", directory.to_str().unwrap()]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn every_page_is_read_by_groff_and_mandoc_without_a_warning() {
    let place = tempfile::tempdir().unwrap();
    let pages = pages(&place.path().join("man1"));
    assert!(pages.len() > 15, "{pages:?}");
    for page in &pages {
        if let Some(groff) = reader("groff", &["-man", "-Tutf8", "-ww", "-z", page]) {
            assert!(
                groff.status.success() && groff.stderr.is_empty(),
                "{page}: {}",
                text(&groff.stderr)
            );
        }
        if let Some(mandoc) = reader("mandoc", &["-Tlint", "-Wwarning", page]) {
            // They bear no date on purpose: the same nx makes the same pages.
            let said = text(&mandoc.stdout);
            let wrong: Vec<&str> = said.lines().filter(|line| !line.contains("missing date")).collect();
            assert!(wrong.is_empty(), "{wrong:#?}");
        }
    }
}

/// What is known of a page without any reader of pages: man(7), roff(7).
#[test]
fn every_page_has_a_title_and_sections_and_nothing_but_macros_and_escapes_that_every_reader_knows() {
    const MACROS: [&str; 9] = [".TH", ".SH", ".TP", ".PP", ".IP", ".RS", ".RE", ".ie", ".el"];
    let place = tempfile::tempdir().unwrap();
    for page in pages(place.path()) {
        let page_text = std::fs::read_to_string(&page).unwrap();
        let lines: Vec<&str> = page_text.lines().collect();
        let asked = |line: &&&str| line.starts_with(['.', '\'']);
        let macro_of = |line: &str| line.split([' ', '\\']).next().unwrap_or_default().to_owned();
        for line in lines.iter().filter(asked) {
            assert!(MACROS.contains(&&*macro_of(line)), "{page}: {line}");
        }
        assert_eq!(
            lines.iter().filter(|line| line.starts_with(".TH ")).count(),
            1,
            "{page}"
        );
        for section in [".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION"] {
            assert!(lines.contains(&section), "{page} lacks `{section}`");
        }
        assert!(
            page_text.is_ascii(),
            "{page}: what is not ASCII has to stand by its number"
        );
        for (at, _) in page_text.match_indices('\\') {
            let escape = &page_text[at + 1..];
            let known = ["fB", "fI", "fR", "-", "(", "*(", "n(", "["];
            assert!(
                known.iter().any(|begin| escape.starts_with(begin)),
                "{page}: \\{}",
                &escape[..escape.len().min(20)]
            );
        }
    }
}

#[test]
fn there_is_a_page_for_every_command_that_help_names_and_none_for_another() {
    let place = tempfile::tempdir().unwrap();
    let pages = pages(place.path());
    let mut commands = vec![vec![]];
    let mut expected = Vec::new();
    while let Some(path) = commands.pop() {
        let words: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let help = text(&nx(&words).stdout);
        let list = help.split("\nCommands:\n").nth(1).unwrap_or("");
        for line in list.lines().take_while(|line| line.starts_with("  ")) {
            let Some(name) = line.strip_prefix("  ").and_then(|line| line.split(' ').next()) else {
                continue;
            };
            if !name.is_empty() && name != "help" {
                commands.push([path.clone(), vec![name.to_owned()]].concat());
            }
        }
        let name = [vec!["nx".to_owned()], path].concat().join("-");
        expected.push(place.path().join(format!("{name}.1")).to_str().unwrap().to_owned());
    }
    expected.sort();
    assert_eq!(pages, expected);
}

#[test]
fn a_page_is_found_by_its_name_and_by_its_command_and_an_unknown_one_is_a_usage_error() {
    let by_name = nx(&["man", "nx-sec-audit"]);
    assert!(text(&by_name.stdout).contains(".TH NX-SEC-AUDIT 1"));
    assert_eq!(nx(&["man", "sec", "audit"]).stdout, by_name.stdout);
    assert_eq!(nx(&["man", "nx", "sec", "audit"]).stdout, by_name.stdout);
    assert!(text(&nx(&["man"]).stdout).contains(".TH NX 1"));
    let unknown = nx(&["man", "nx-sec-audits"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("`nx-sec-audits`") && text(&unknown.stderr).contains("nx-sec-audit,"));
}

#[test]
fn pages_that_cannot_be_written_are_an_error_that_names_where() {
    let done = nx(&["man", "/proc/no/such"]);
    assert_eq!(done.status.code(), Some(4));
    assert!(text(&done.stderr).contains("`/proc/no/such`"), "{done:?}");
}

#[test]
fn completion_scripts_load_in_their_shells() {
    let place = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = place.path().join(shell);
        std::fs::write(&script, nx(&["completions", shell]).stdout).unwrap();
        if let Some(checked) = reader(shell, &["-n", script.to_str().unwrap()]) {
            assert!(
                checked.status.success() && checked.stderr.is_empty(),
                "{shell}: {checked:?}"
            );
        }
    }
    assert_eq!(nx(&["completions", "tcsh"]).status.code(), Some(2));
}

/// What bash would offer after these words, by the function that the script installs.
fn offered_by_bash(words: &[&str]) -> Vec<String> {
    let place = tempfile::tempdir().unwrap();
    let script = place.path().join("nx.bash");
    std::fs::write(&script, nx(&["completions", "bash"]).stdout).unwrap();
    let line = r#"
        source "$1"; shift
        registered=$(complete -p nx); function=${registered#*-F }; function=${function%% *}
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
        "$function" nx "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let script = script.to_str().unwrap();
    let args = [&["--norc", "-c", line, "bash", script][..], words].concat();
    let done = Command::new("bash").args(args).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    text(&done.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn bash_offers_commands_and_options_and_not_those_of_another_command() {
    let commands = offered_by_bash(&["nx", "sec", ""]);
    assert!(
        commands.contains(&"audit".to_owned()) && commands.contains(&"counters".to_owned()),
        "{commands:?}"
    );
    assert!(!commands.contains(&"validate".to_owned()), "{commands:?}");
    let options = offered_by_bash(&["nx", "sec", "counters", "--"]);
    assert!(options.contains(&"--prometheus".to_owned()), "{options:?}");
    assert!(!options.contains(&"--follow".to_owned()), "{options:?}");
    assert_eq!(offered_by_bash(&["nx", "compl"]), ["completions"]);
}
