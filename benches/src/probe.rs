//! What runs inside: makes one syscall many times and prints nanoseconds per call.
//!
//! `bench-probe getppid COUNT [filtered]` · `bench-probe getpgid COUNT [filtered]` · `bench-probe denied COUNT`
#![forbid(unsafe_code)]

use nexus_sys::seccomp::{Instruction, install_with_listener};
use std::time::Instant;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A measurement is cut into so many parts, of which the median counts: what else ran meanwhile then spoils a few.
const PARTS: u32 = 40;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let what = args.next().unwrap_or_default();
    let count: u32 = args.next().unwrap_or_default().parse()?;
    if args.next().is_some_and(|word| word == "filtered") {
        install_least_filter()?;
    }
    let each = match what.as_str() {
        "getppid" => null(count, || {
            let _ = std::hint::black_box(rustix::process::getppid());
        }),
        "getpgid" => null(count, || {
            let _ = std::hint::black_box(rustix::process::getpgid(None));
        }),
        "denied" => denied(count)?,
        other => return Err(format!("`{other}` is no probe").into()),
    };
    println!("{each:.1}");
    Ok(())
}

/// A call for which the kernel does next to nothing.
fn null(count: u32, call: impl Fn()) -> f64 {
    let part = (count / PARTS).max(1);
    let mut parts: Vec<f64> = (0..PARTS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..part {
                call();
            }
            start.elapsed().as_secs_f64() * 1e9 / f64::from(part)
        })
        .collect();
    parts.sort_by(f64::total_cmp);
    parts.get(parts.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The least that a filter can be, one instruction that allows all: what remains is the kernel's own price of having one.
fn install_least_filter() -> Result<()> {
    const RET: u16 = 6;
    const ALLOW: u32 = 0x7fff_0000;
    rustix::thread::set_no_new_privs(true)?;
    install_with_listener(&[Instruction {
        code: RET,
        jump_true: 0,
        jump_false: 0,
        k: ALLOW,
    }])?;
    Ok(())
}

/// sethostname: in no group that ordinary programs get, and refused by the kernel to who has no privilege.
fn denied(count: u32) -> Result<f64> {
    let start = Instant::now();
    for _ in 0..count {
        if rustix::system::sethostname(b"x").is_ok() {
            return Err("the call was not denied".into());
        }
    }
    Ok(start.elapsed().as_secs_f64() * 1e9 / f64::from(count))
}
