//! Turns a policy into a plan, and the plan into a confined process.
//!
//! The plan is a value that can be printed and compared; [`spawn`] is the only thing that acts on it.
#![forbid(unsafe_code)]

mod broker;
mod build;
pub mod cgroup;
mod init;
mod input;
mod ipc;
mod landlock_fence;
mod launch;
mod limits;
pub mod mountinfo;
mod names;
mod pins;
mod plan;
mod points;
mod spawn;
mod step;
mod view;

pub use build::{HOME, PlanError, Surroundings, Work};
pub use landlock_fence::{landlock_available, landlock_holds_descriptors};
pub use limits::{Asked, Backend, Enforcement, Limit, Limits};
pub use pins::{GIT_POINTERS, protects_git};
pub use plan::{Access, AreaMount, Entry, Fence, Identity, Ipc, Plan, Program, SysV};
pub use spawn::{Links, SpawnError, Spawned, spawn};
pub use step::Step;
