//! Lint tables of manifests.

use std::collections::BTreeMap;
use toml::de::{DeTable, DeValue};

/// Which lint has which level; a name is `rust.NAME` or `clippy.NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lints {
    /// The workspace's.
    Inherited,
    /// A crate's own, or the workspace's itself.
    Own(BTreeMap<String, String>),
}

/// The lint table of a manifest; `None` if it has none.
///
/// # Errors
/// A text that is no manifest.
pub fn lints(manifest: &str) -> Result<Option<Lints>, String> {
    let document = DeTable::parse(manifest).map_err(|error| error.to_string())?;
    let document = document.get_ref();
    let table = match table(document, "lints") {
        Some(table) => Some(table),
        None => table(document, "workspace").and_then(|workspace| self::table(workspace, "lints")),
    };
    let Some(table) = table else { return Ok(None) };
    if let Some(DeValue::Boolean(true)) = table.get("workspace").map(|value| value.get_ref()) {
        return Ok(Some(Lints::Inherited));
    }
    let mut own = BTreeMap::new();
    for (tool, rules) in table {
        let DeValue::Table(rules) = rules.get_ref() else {
            return Err(format!("`lints.{}` is no table", tool.get_ref()));
        };
        for (lint, level) in rules {
            let DeValue::String(level) = level.get_ref() else {
                return Err(format!("the level of `{}` is no string", lint.get_ref()));
            };
            own.insert(format!("{}.{}", tool.get_ref(), lint.get_ref()), level.to_string());
        }
    }
    Ok(Some(Lints::Own(own)))
}

fn table<'t, 'i>(of: &'t DeTable<'i>, name: &str) -> Option<&'t DeTable<'i>> {
    match of.get(name)?.get_ref() {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inherited_an_own_and_no_table_are_told_apart() {
        assert_eq!(lints("[package]\n").unwrap(), None);
        assert_eq!(lints("[lints]\nworkspace = true\n").unwrap(), Some(Lints::Inherited));
        let own = Some(Lints::Own([("rust.a".into(), "deny".into())].into()));
        assert_eq!(lints("[lints.rust]\na = 'deny'\n").unwrap(), own);
        assert_eq!(lints("[workspace.lints.rust]\na = 'deny'\n").unwrap(), own);
        assert!(lints("[lints.rust]\na = 1\n").is_err());
        assert!(lints("=").is_err());
    }
}
