//! What runs inside: makes one syscall many times and prints nanoseconds per call.
//!
//! `bench-probe getpgid COUNT` · `bench-probe denied COUNT`
#![forbid(unsafe_code)]

use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let what = args.next().unwrap_or_default();
    let count: u32 = args.next().unwrap_or_default().parse()?;
    let start = Instant::now();
    match what.as_str() {
        "getpgid" => {
            for _ in 0..count {
                let _ = std::hint::black_box(rustix::process::getpgid(None));
            }
        }
        // sethostname: in no group that ordinary programs get, and refused by the kernel to who has no privilege.
        "denied" => {
            for _ in 0..count {
                if rustix::system::sethostname(b"x").is_ok() {
                    return Err("the call was not denied".into());
                }
            }
        }
        other => return Err(format!("`{other}` is no probe").into()),
    }
    println!("{}", start.elapsed().as_nanos() / u128::from(count));
    Ok(())
}
