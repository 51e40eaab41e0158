//! What runs inside to measure files: does one thing many times and prints nanoseconds for each.
//!
//! `bench-files [only] grow|overwrite|read DIR BYTES COUNT` (`only`: opened only to write) · `bench-files churn DIR COUNT` ·
//! `bench-files least pipe|copy grow|overwrite DIR BYTES COUNT`
#![forbid(unsafe_code)]

mod floor;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How long a file becomes before it is written from its start again.
const FILE_BYTES: u64 = 16 << 20;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let each = match args.as_slice() {
        ["churn", dir, count] => churn(Path::new(dir), count.parse()?)?,
        [what @ ("grow" | "overwrite" | "read"), dir, bytes, count] => {
            file(what, Opened::Both, Path::new(dir), bytes.parse()?, count.parse()?)?
        }
        ["only", what @ ("grow" | "overwrite"), dir, bytes, count] => file(
            what,
            Opened::OnlyToWrite,
            Path::new(dir),
            bytes.parse()?,
            count.parse()?,
        )?,
        ["least", way, what @ ("grow" | "overwrite"), dir, bytes, count] => {
            floor::least(way, what, Path::new(dir), bytes.parse()?, count.parse()?)?
        }
        _ => return Err("grow|overwrite|read DIR BYTES COUNT, churn DIR COUNT, or least".into()),
    };
    println!("{each}");
    Ok(())
}

/// How a program opens what it writes.
#[derive(Clone, Copy)]
enum Opened {
    /// To read and to write (`O_RDWR`), as databases and linkers do.
    Both,
    /// Only to write (`O_WRONLY`), as `cp`, `tar`, a shell's `>` and most compilers do.
    OnlyToWrite,
}

/// Writes or reads blocks of `bytes` one after the other.
fn file(what: &str, opened: Opened, dir: &Path, bytes: usize, count: u32) -> Result<u128> {
    let path = dir.join("bench-file");
    let file = OpenOptions::new()
        .read(matches!(opened, Opened::Both))
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)?;
    let each = measure(&file, what, bytes, count)?;
    drop(file);
    fs::remove_file(&path)?;
    Ok(each)
}

/// The same in a file that is open.
fn measure(file: &File, what: &str, bytes: usize, count: u32) -> Result<u128> {
    let mut block = vec![0x5a; bytes];
    let step = u64::try_from(bytes)?;
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
    Ok(spent.as_nanos() / u128::from(count))
}

/// Makes and removes empty files.
fn churn(dir: &Path, count: u32) -> Result<u128> {
    let path = dir.join("bench-churn");
    let start = Instant::now();
    for _ in 0..count {
        File::create_new(&path)?;
        fs::remove_file(&path)?;
    }
    Ok(start.elapsed().as_nanos() / u128::from(count))
}
