//! Words that do not change.

use std::path::Path;

/// Whether these are the words of `goldens/NAME`; with `NEXUS_BLESS=1` they are from now on.
///
/// # Panics
/// Where they are not.
pub fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens").join(name);
    if std::env::var_os("NEXUS_BLESS").is_some() {
        std::fs::write(&path, text).expect("a golden can be written");
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(
        expected == text,
        "`{name}` was\n{expected}\nand is\n{text}\n(NEXUS_BLESS=1 takes it over)"
    );
}
