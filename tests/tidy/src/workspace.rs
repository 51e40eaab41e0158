//! The workspace as cargo sees it.

use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

/// A member of the workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crate {
    /// Its name.
    pub name: String,
    /// Its manifest.
    pub manifest: PathBuf,
    /// Where its libraries and programs start.
    pub roots: Vec<PathBuf>,
    /// Whether the examples in its library's documentation are tests; `false` also without a library.
    pub examples_are_tests: bool,
    /// Everything that it uses, also in its tests and its build.
    pub dependencies: Vec<Dependency>,
}

/// Something that a member uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The package's own name.
    pub name: String,
    /// Whether it is a member of the workspace.
    pub member: bool,
    /// Whether only the user's own tests use it.
    pub in_tests: bool,
}

impl Crate {
    /// Whether it is there for tests or measurements alone: it may use everything, and nothing that ships may use it.
    #[must_use]
    pub fn is_outside(&self) -> bool {
        let root = crate::root().canonicalize().unwrap_or_default();
        self.manifest
            .strip_prefix(root)
            .is_ok_and(|path| path.starts_with("tests") || path.starts_with("benches"))
    }
}

/// Every member, in the order of their names.
///
/// # Errors
/// What keeps cargo from telling.
pub fn crates() -> Result<Vec<Crate>, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(crate::root())
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    let mut crates: Vec<_> = list(&metadata, "packages").iter().map(member).collect();
    crates.sort_by(|a: &Crate, b| a.name.cmp(&b.name));
    Ok(crates)
}

fn list<'v>(of: &'v Value, name: &str) -> &'v [Value] {
    of.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text(of: &Value, name: &str) -> String {
    of.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn member(package: &Value) -> Crate {
    let shipped = |target: &&Value| {
        list(target, "kind")
            .iter()
            .any(|kind| matches!(kind.as_str(), Some("lib" | "bin" | "proc-macro")))
    };
    Crate {
        name: text(package, "name"),
        manifest: text(package, "manifest_path").into(),
        examples_are_tests: list(package, "targets")
            .iter()
            .any(|target| target.get("doctest").and_then(Value::as_bool) == Some(true)),
        roots: list(package, "targets")
            .iter()
            .filter(shipped)
            .map(|target| text(target, "src_path").into())
            .collect(),
        dependencies: list(package, "dependencies")
            .iter()
            .map(|dependency| Dependency {
                name: text(dependency, "name"),
                in_tests: text(dependency, "kind") == "dev",
                member: dependency.get("path").is_some_and(|path| !path.is_null()),
            })
            .collect(),
    }
}
