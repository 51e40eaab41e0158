//! The parts of the command line, as a library: so that its tests and examples call what the command calls.
#![forbid(unsafe_code)]

pub mod doctor;
