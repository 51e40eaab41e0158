//! What files may be and say.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::Path;
use tidy::{File, crates, files, root};

/// Past this a file holds more than one thing.
const SHIPPED_LINES_MAX: usize = 600;

fn is_shipped(path: &Path) -> bool {
    let part = |name: &str| path.components().any(|part| part.as_os_str() == name);
    path.extension().is_some_and(|extension| extension == "rs")
        && part("src")
        && !path.starts_with("tests")
        && !path.starts_with("benches")
}

#[test]
fn no_shipped_file_is_too_long() {
    let long: Vec<_> = files()
        .unwrap()
        .into_iter()
        .filter(|file| is_shipped(&file.path) && file.text.lines().count() > SHIPPED_LINES_MAX)
        .map(|file| file.path)
        .collect();
    assert!(long.is_empty(), "{long:?}");
    assert!(is_shipped(Path::new("tools/nx/src/main.rs")));
    assert!(!is_shipped(Path::new("tools/nx/tests/doctor.rs")));
}

/// What ties the repository to one machine or one registry: directories of its first build, and hosts. In two halves, so
/// that this file does not hold them.
const FORBIDDEN: [[&str; 2]; 8] = [
    ["/wo", "rk/"],
    ["/ro", "ot/"],
    ["index.crates", ".io"],
    ["static.crates", ".io"],
    ["registry.npmjs", ".org"],
    ["files.pythonhosted", ".org"],
    ["deb.debian", ".org"],
    ["proxy.golang", ".org"],
];

fn forbidden(text: &str) -> Option<String> {
    FORBIDDEN.iter().map(|halves| halves.concat()).find(|word| {
        text.match_indices(word.as_str()).any(|(at, _)| {
            // A path's middle is another path: only an absolute one counts.
            let before = text.get(..at).and_then(|text| text.chars().next_back());
            !before.is_some_and(|c| c.is_alphanumeric() || "._-~}$)".contains(c))
        })
    })
}

#[test]
fn nothing_names_the_machine_it_was_written_on_or_a_registrys_host() {
    let found: Vec<_> = files()
        .unwrap()
        .into_iter()
        .filter_map(|File { path, text }| forbidden(&text).map(|word| (path, word)))
        .collect();
    assert!(found.is_empty(), "{found:?}");
    let path = FORBIDDEN[0].concat();
    assert!(forbidden(&format!("in {path}x")).is_some());
    assert!(forbidden(&format!("in some{path}x")).is_none());
}

/// The names in a section's table; fails for a row that says nothing.
fn rows(text: &str, section: &str) -> Vec<String> {
    text.split("\n## ")
        .filter(|part| part.starts_with(section))
        .flat_map(str::lines)
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            let name = cells.next()?.trim_end_matches('`');
            assert!(
                cells.next().is_some_and(|earns| earns.len() > 10),
                "`{name}` earns nothing"
            );
            Some(name.to_owned())
        })
        .collect()
}

#[test]
fn docs_name_every_dependency_once_in_its_section_with_what_it_earns_and_no_other() {
    let (mut shipped, mut others) = (BTreeSet::new(), BTreeSet::new());
    for member in crates().unwrap() {
        let ships = !member.is_outside();
        for used in member.dependencies.into_iter().filter(|used| !used.member) {
            if ships && !used.in_tests {
                shipped.insert(used.name);
            } else {
                others.insert(used.name);
            }
        }
    }
    let others: BTreeSet<_> = others.difference(&shipped).cloned().collect();
    let text = std::fs::read_to_string(root().join("docs/dependencies.md")).unwrap();
    // Sets come in the order of their names, and so do the rows.
    assert_eq!(
        rows(&text, "In what is shipped"),
        shipped.into_iter().collect::<Vec<_>>()
    );
    assert_eq!(
        rows(&text, "In tests and measurements"),
        others.into_iter().collect::<Vec<_>>()
    );
}

#[test]
fn every_dependency_of_a_member_comes_from_the_workspaces_one_table() {
    for member in crates().unwrap() {
        let manifest = std::fs::read_to_string(&member.manifest).unwrap();
        let mut dependencies = false;
        for line in manifest.lines() {
            if line.starts_with('[') {
                dependencies = line.contains("dependencies]");
            } else if dependencies && line.contains('=') && !line.starts_with('#') {
                assert!(line.contains("workspace = true"), "{}: {line}", member.name);
            }
        }
    }
}
