use std::fmt;
use std::path::{Path, PathBuf};

use nexus_policy::{Diagnostics, MemoryTree, Policy, ROOT_FILE};

use crate::directory::DirectoryTree;
use crate::places::Places;
use crate::trust::{Distrust, Owners};

/// Where a policy came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The directory that the caller named.
    Named(PathBuf),
    /// The directory that `$NEXUS_POLICY` names.
    Variable(PathBuf),
    /// The caller's own, in its home.
    Home(PathBuf),
    /// The administrator's.
    System(PathBuf),
    /// The one that is built in.
    Shipped,
}

impl Origin {
    /// The directory, if it is one.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Self::Named(path) | Self::Variable(path) | Self::Home(path) | Self::System(path) => Some(path),
            Self::Shipped => None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(path) | Self::Home(path) => write!(f, "{}", path.display()),
            Self::Variable(path) => write!(f, "{} ($NEXUS_POLICY)", path.display()),
            Self::System(path) => write!(f, "{} (the administrator's)", path.display()),
            Self::Shipped => f.write_str("the built-in policy"),
        }
    }
}

/// A policy that is in force from now on, and where it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The policy, under its ceiling.
    pub policy: Policy,
    /// Where its own tree came from.
    pub origin: Origin,
    /// Where its ceiling came from, if there is one.
    pub ceiling: Option<PathBuf>,
}

/// Why there is no policy. Nothing runs then.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LoadError {
    /// A directory that was asked for is not there.
    #[error("there is no policy directory `{}`", .path.display())]
    Missing {
        /// Which.
        path: PathBuf,
        /// Whether `$NEXUS_POLICY` asked, and not the command line.
        by_variable: bool,
    },
    /// A directory that is there cannot be opened.
    #[error("cannot open policy directory `{}`: {why}", .path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// A directory of the tree, or one that leads to it, could be changed by a stranger.
    #[error("policy is not trusted: `{}`: {why}", .path.display())]
    Distrusted {
        /// Which directory.
        path: PathBuf,
        /// Why.
        why: Distrust,
    },
    /// The tree has errors.
    #[error("policy of {origin} is invalid\n{diagnostics}")]
    Invalid {
        /// Whose tree.
        origin: Origin,
        /// The errors.
        diagnostics: Box<Diagnostics>,
    },
}

impl LoadError {
    /// What to do next.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Missing { by_variable: true, .. } => {
                "unset $NEXUS_POLICY, or let it name a directory that is there".into()
            }
            Self::Missing { by_variable: false, .. } => {
                format!("name a directory that holds `{ROOT_FILE}`, or leave it out for the default")
            }
            Self::Unreadable { .. } => "let its owner make it readable; a policy that is there is never skipped".into(),
            Self::Distrusted { path, why } => why.help(&path.display().to_string()),
            Self::Invalid { .. } => "mend the errors above; nothing runs under a policy that has some".into(),
        }
    }
}

/// Finds, checks and loads the policy of these places.
///
/// # Errors
/// [`LoadError`]; then nothing may run, also where only the ceiling is wrong.
pub fn load(places: &Places) -> Result<Loaded, LoadError> {
    let system = DirectoryTree::open(
        &places.system,
        Owners {
            uid: places.administrator,
        },
    )?;
    let own = find(places)?;
    // The administrator's tree, named in another way, is no ceiling to itself.
    let is_system = |tree: &DirectoryTree| system.as_ref().is_some_and(|system| system.path() == tree.path());
    let own = own.filter(|(tree, _)| !is_system(tree));
    let ceiling = match &system {
        Some(tree) => Some((
            read(tree, Origin::System(tree.path().to_owned()))?,
            tree.path().to_owned(),
        )),
        None => None,
    };
    let Some((tree, origin)) = own else {
        return match ceiling {
            Some((policy, path)) => Ok(Loaded {
                policy,
                origin: Origin::System(path),
                ceiling: None,
            }),
            None => shipped(),
        };
    };
    let policy = read(&tree, origin.clone())?;
    Ok(match ceiling {
        Some((ceiling, path)) => Loaded {
            policy: policy.under_ceiling(&ceiling),
            origin,
            ceiling: Some(path),
        },
        None => Loaded {
            policy,
            origin,
            ceiling: None,
        },
    })
}

/// Loads a tree to look at it: anybody's, under no ceiling. Nothing may run under what this gives.
///
/// # Errors
/// [`LoadError`].
pub fn load_untrusted(path: &Path) -> Result<Policy, LoadError> {
    match DirectoryTree::open_untrusted(path)? {
        Some(tree) => read(&tree, Origin::Named(tree.path().to_owned())),
        None => Err(LoadError::Missing {
            path: path.to_owned(),
            by_variable: false,
        }),
    }
}

/// The caller's own tree, if there is one.
fn find(places: &Places) -> Result<Option<(DirectoryTree, Origin)>, LoadError> {
    let owners = Owners { uid: places.caller };
    if let Some(path) = &places.named {
        return match DirectoryTree::open(path, owners)? {
            Some(tree) => Ok(Some((tree, Origin::Named(path.clone())))),
            None => Err(LoadError::Missing {
                path: path.clone(),
                by_variable: false,
            }),
        };
    }
    if let Some(path) = places
        .variable
        .as_ref()
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
    {
        return match DirectoryTree::open(&path, owners)? {
            Some(tree) => Ok(Some((tree, Origin::Variable(path)))),
            None => Err(LoadError::Missing {
                path,
                by_variable: true,
            }),
        };
    }
    let Some(home) = places.home.as_ref().filter(|home| home.is_absolute()) else {
        return Ok(None);
    };
    let path = home.join(".config/nexus/policy");
    Ok(DirectoryTree::open(&path, owners)?.map(|tree| (tree, Origin::Home(path))))
}

fn read(tree: &DirectoryTree, origin: Origin) -> Result<Policy, LoadError> {
    Policy::load(tree).map_err(|diagnostics| LoadError::Invalid {
        origin,
        diagnostics: Box::new(diagnostics),
    })
}

/// The snapshot of the shipped tree, made of its files when this was built.
static SHIPPED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/shipped.bin"));

fn shipped() -> Result<Loaded, LoadError> {
    let policy = match Policy::from_snapshot(SHIPPED) {
        Ok(policy) => policy,
        // The files are in the binary too: a snapshot that cannot be read costs a millisecond and nothing else.
        Err(_) => Policy::load(&MemoryTree::shipped()).map_err(|diagnostics| LoadError::Invalid {
            origin: Origin::Shipped,
            diagnostics: Box::new(diagnostics),
        })?,
    };
    Ok(Loaded {
        policy,
        origin: Origin::Shipped,
        ceiling: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_snapshot_that_is_built_in_is_that_of_the_files_that_are_built_in() {
        let tree = Policy::load(&MemoryTree::shipped()).unwrap();
        assert_eq!(tree.verify_snapshot(SHIPPED), Ok(()));
        let loaded = shipped().unwrap().policy;
        assert_eq!(loaded.version(), tree.version());
        assert_eq!(loaded.subject("demo"), tree.subject("demo"));
    }
}
