//! Examples in documentation.
#![forbid(unsafe_code)]

use tidy::{crates, files, root};

/// Whether a comment of documentation opens a block that rustdoc would compile. Every other line of a fence closes one.
fn has_example(text: &str) -> bool {
    let fences = text.lines().filter_map(|line| {
        let line = line.trim_start();
        let said = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"))?;
        said.trim_start().strip_prefix("```")
    });
    fences
        .step_by(2)
        .any(|named| !matches!(named.trim(), "text" | "sh" | "toml" | "json"))
}

/// Looking for examples costs each crate some seconds of each run of the tests, so a crate without any says `doctest = false`.
#[test]
fn a_crate_whose_examples_are_no_tests_has_none_and_one_whose_are_has_some() {
    let root = root().canonicalize().unwrap();
    let files = files().unwrap();
    let mut with = 0;
    for member in crates().unwrap() {
        let Some(library) = member.manifest.parent().map(|directory| directory.join("src/lib.rs")) else {
            continue;
        };
        if !library.exists() {
            continue;
        }
        let source = library
            .parent()
            .and_then(|source| source.strip_prefix(&root).ok())
            .unwrap();
        let has = files.iter().any(|file| {
            file.path.starts_with(source) && file.path.extension() == Some("rs".as_ref()) && has_example(&file.text)
        });
        assert_eq!(
            has, member.examples_are_tests,
            "{}: `doctest` in its manifest",
            member.name
        );
        with += usize::from(has);
    }
    assert!(with > 0, "no crate with an example was seen");
}

#[test]
fn an_example_is_a_block_that_rustdoc_compiles() {
    assert!(has_example("/// Like this:\n/// ```\n/// f();\n/// ```\nfn f() {}\n"));
    assert!(has_example("//! ```no_run\n//! f();\n//! ```\n"));
    assert!(has_example(
        "    /// ```text\n    /// a\n    /// ```\n    /// ```rust\n    /// f();\n    /// ```\n"
    ));
    assert!(!has_example("//! ```text\n//! a tree\n//! ```\n"));
    assert!(!has_example("// ```\n// not documentation\n// ```\n"));
}
