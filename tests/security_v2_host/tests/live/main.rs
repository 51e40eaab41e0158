//! Real programs under `nx run`, as root and as an ordinary user.

mod demo;
mod floor;
mod harness;
mod limits;
mod quotas;
mod refused;
