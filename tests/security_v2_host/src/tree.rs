//! Policy trees of tests: the shipped one, and what a test changes in it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use nexus_policy::MemoryTree;

/// The files of a policy tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    files: BTreeMap<String, String>,
}

impl Default for Tree {
    fn default() -> Self {
        Self::shipped()
    }
}

impl Tree {
    /// The tree that ships with nexus.
    ///
    /// # Panics
    /// Never: what ships is text.
    #[must_use]
    pub fn shipped() -> Self {
        let shipped = MemoryTree::shipped();
        let files = shipped.files().map(|(path, content)| {
            let text = std::str::from_utf8(content).expect("the shipped tree is text");
            (path.to_owned(), text.to_owned())
        });
        Self { files: files.collect() }
    }

    /// Puts this text in the place of a whole file.
    #[must_use]
    pub fn replace(mut self, file: &str, text: &str) -> Self {
        self.files.insert(file.to_owned(), text.to_owned());
        self
    }

    /// Puts this text at the end of a file.
    #[must_use]
    pub fn append(mut self, file: &str, text: &str) -> Self {
        let content = self.files.entry(file.to_owned()).or_default();
        content.push('\n');
        content.push_str(text);
        self
    }

    /// Puts `to` in the place of `from`, which must stand in the file once.
    ///
    /// # Panics
    /// Where it does not.
    #[must_use]
    pub fn edit(mut self, file: &str, from: &str, to: &str) -> Self {
        let content = self
            .files
            .get_mut(file)
            .unwrap_or_else(|| panic!("no `{file}` in the tree"));
        assert_eq!(content.matches(from).count(), 1, "`{from}` stands not once in `{file}`");
        *content = content.replace(from, to);
        self
    }

    /// The shipped tree in which `demo` may do everything that rules can allow: every known call, no deny rule, no probe.
    /// What still fails is what no policy can open.
    #[must_use]
    pub fn wide_open() -> Self {
        let calls = every_call();
        Self::shipped().replace("abi.toml", &format!("[subject.demo]\nallow = [{calls}]\n"))
    }

    /// Writes the tree into a directory.
    ///
    /// # Errors
    /// Where a file cannot be written.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        for (file, text) in &self.files {
            let path = directory.join(file);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(path, text)?;
        }
        Ok(())
    }
}

/// Every call of this machine's table, as a TOML list's content.
fn every_call() -> String {
    let names = nexus_abi::syscall::all().filter(|call| call.number().is_some());
    names
        .map(|call| format!("\"{}\"", call.name()))
        .collect::<Vec<_>>()
        .join(", ")
}
