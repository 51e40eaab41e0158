//! The file server of a subject: a FUSE file system that keeps the subject's ledger and refuses what does not fit.
//!
//! There is one process and one FUSE superblock per subject. [`join`] connects a session to it, and starts it if it
//! does not run; it ends with its last session. A session gets three detached mounts, `tmp`, `state` and `shm`, and
//! moves them into its own mount namespace.
//!
//! What is written lands in ordinary files below a base directory. Nothing here follows a symbolic link below it.
#![forbid(unsafe_code)]

mod config;
mod connection;
mod error;
mod fs;
mod join;
mod layout;
mod look;
mod server;
mod walk;

pub use config::{Identity, PlacePart, SUBJECT_BYTES_MAX, VfsdConfig, WorkConfig};
pub use connection::{VfsdConnection, VfsdMessage, VfsdSession, VfsdUsage};
pub use error::VfsdError;
pub use join::{Joining, begin, join};
pub use look::{LOOK_WAIT, look};
