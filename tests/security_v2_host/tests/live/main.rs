//! Real programs under `nx run`, as root and as an ordinary user.

mod demo;
mod few_files;
mod floor;
mod harness;
mod kills;
mod limits;
mod open_files;
mod quotas;
mod refused;
