//! A cgroup for a session: cgroups(7), version 2, wherever it is mounted.
//!
//! [`find`] reads and tries nothing; what it finds is a place where the caller may make a cgroup with the controllers
//! that limits need. [`Group`] is the session's cgroup there.

mod group;
mod place;
mod usage;

pub use group::Group;
pub use place::{Lack, Place, find};
pub use usage::{Usage, usage};
