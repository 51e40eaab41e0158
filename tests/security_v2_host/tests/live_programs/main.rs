//! It runs what people run: ordinary programs under a policy with room, as root and as an ordinary user.
//!
//! A harmless program is not only to work: it is to be denied nothing, or its user learns to overlook what is said at the
//! end. Where one is denied something all the same, its test names it.

mod archive;
mod build;
mod git;
mod interpreters;
mod ipc;
mod limits;
mod metered;
mod need;
mod python;
mod rust;
mod set_id;
mod shell;
mod sqlite;
mod surroundings;
mod terminal;
mod work;
