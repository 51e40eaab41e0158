//! What runs inside: does one thing many times and prints nanoseconds for each.
//!
//! `bench-probe getpgid COUNT` · `bench-probe denied COUNT` · `bench-probe grow|overwrite|read DIR BYTES COUNT` ·
//! `bench-probe churn DIR COUNT`
#![forbid(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How long a file becomes before it is written from its start again.
const FILE_BYTES: u64 = 16 << 20;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let what = args.next().unwrap_or_default();
    let each = match what.as_str() {
        "getpgid" => {
            let count = number(args.next())?;
            timed(count, || {
                let _ = std::hint::black_box(rustix::process::getpgid(None));
                Ok(())
            })?
        }
        // sethostname: in no group that ordinary programs get, and refused by the kernel to who has no privilege.
        "denied" => {
            let count = number(args.next())?;
            timed(count, || {
                if rustix::system::sethostname(b"x").is_ok() {
                    return Err("the call was not denied".into());
                }
                Ok(())
            })?
        }
        "grow" | "overwrite" | "read" | "churn" => {
            let dir = args.next().ok_or("a directory is missing")?;
            let (dir, numbers) = (Path::new(&dir), args.collect::<Vec<_>>());
            match (what.as_str(), numbers.as_slice()) {
                ("churn", [count]) => churn(dir, count.parse()?)?,
                (_, [bytes, count]) => file(&what, dir, bytes.parse()?, count.parse()?)?,
                _ => return Err("a number is missing".into()),
            }
        }
        other => return Err(format!("`{other}` is no probe").into()),
    };
    println!("{each}");
    Ok(())
}

fn number(argument: Option<String>) -> Result<u32> {
    Ok(argument.unwrap_or_default().parse()?)
}

/// Nanoseconds for each of `count` calls.
fn timed(count: u32, mut act: impl FnMut() -> Result<()>) -> Result<u128> {
    let start = Instant::now();
    for _ in 0..count {
        act()?;
    }
    Ok(start.elapsed().as_nanos() / u128::from(count))
}

/// Writes or reads blocks of `bytes` one after the other.
fn file(what: &str, dir: &Path, bytes: usize, count: u32) -> Result<u128> {
    let path = dir.join("bench-file");
    let mut block = vec![0x5a; bytes];
    let step = u64::try_from(bytes)?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)?;
    if what != "grow" {
        for at in (0..FILE_BYTES).step_by(bytes) {
            file.write_all_at(&block, at)?;
        }
    }
    let mut spent = Duration::ZERO;
    let (mut at, mut done) = (0, 0);
    while done < count {
        if at >= FILE_BYTES {
            at = 0;
            if what == "grow" {
                // Giving room back is no part of growing.
                file.set_len(0)?;
            }
        }
        let start = Instant::now();
        while done < count && at < FILE_BYTES {
            if what == "read" {
                file.read_exact_at(&mut block, at)?;
            } else {
                file.write_all_at(&block, at)?;
            }
            at += step;
            done += 1;
        }
        spent += start.elapsed();
    }
    drop(file);
    fs::remove_file(&path)?;
    Ok(spent.as_nanos() / u128::from(count))
}

/// Makes and removes empty files.
fn churn(dir: &Path, count: u32) -> Result<u128> {
    let path = dir.join("bench-churn");
    timed(count, || {
        File::create_new(&path)?;
        Ok(fs::remove_file(&path)?)
    })
}
