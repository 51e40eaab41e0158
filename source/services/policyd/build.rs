//! Makes the snapshot of the shipped tree, so that a start need not read its text.
#![forbid(unsafe_code)]

use std::error::Error;
use std::path::PathBuf;

use nexus_policy::{MemoryTree, Policy};

fn main() -> Result<(), Box<dyn Error>> {
    // The tree is built into the crate that is used here: when it changes, this is built anew and runs again.
    println!("cargo::rerun-if-changed=build.rs");
    let policy = Policy::load(&MemoryTree::shipped())?;
    let out = std::env::var_os("OUT_DIR").ok_or("cargo says no place for what is built")?;
    std::fs::write(PathBuf::from(out).join("shipped.bin"), policy.snapshot()?)?;
    Ok(())
}
