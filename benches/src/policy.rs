//! How long the policy's own work takes: `cargo run --release -p benches --bin bench-policy`.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use nexus_policy::{MemoryTree, Policy};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The least of so many: what else the machine does makes a round slower, never faster.
const ROUNDS: usize = 200;

fn least<T>(mut what: impl FnMut() -> Result<T>) -> Result<Duration> {
    let mut least = Duration::MAX;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let made = what()?;
        least = least.min(started.elapsed());
        drop(made);
    }
    Ok(least)
}

fn main() -> Result<()> {
    let shipped = MemoryTree::shipped();
    let policy = Policy::load(&shipped)?;
    let bytes = policy.snapshot()?;
    let text = least(|| Ok(Policy::load(&shipped)?))?;
    let binary = least(|| Ok(Policy::from_snapshot(&bytes)?))?;
    let subject = least(|| Ok(policy.subject("demo")?))?;
    println!(
        "the shipped tree: from its text {text:?}, from its snapshot ({} bytes) {binary:?}, its subject {subject:?}",
        bytes.len()
    );
    Ok(())
}
