//! The authority: finds the policy tree, makes sure that it is one to trust, loads it, and narrows it by the
//! administrator's.
//!
//! # Where a policy comes from
//! The first of these: the directory that the caller names; `$NEXUS_POLICY`; `~/.config/nexus/policy`;
//! `/etc/nexus/policy`; the tree that is built into the binary. The first two must be there when they are named; the
//! others count when their directory exists. A directory that exists and cannot be read is an error and never skipped.
//!
//! # The ceiling
//! Where `/etc/nexus/policy` exists, it is the ceiling of a policy from anywhere else.
//!
//! # Whom to trust
//! A tree belongs to its caller or to root, and nobody else may write it: not the directories that lead to it, not its
//! own, not its files. The administrator's belongs to root. Symbolic links inside a tree are not followed.
#![forbid(unsafe_code)]

mod directory;
mod load;
mod places;
mod trust;

pub use directory::DirectoryTree;
pub use load::{LoadError, Loaded, Origin, load, load_untrusted};
pub use places::{Places, SYSTEM_DIRECTORY};
pub use trust::{Distrust, Owners};
