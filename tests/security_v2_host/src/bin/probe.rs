//! Tries things from inside a sandbox and says how each ended: `ok`, or the errno's number.
//!
//! `probe WHAT [ARGS]…`, several separated by `,`. One line each.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use rustix::net::{AddressFamily, SocketType};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    for words in arguments.split(|word| word == ",") {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let answer = match attempt(&words) {
            Ok(told) => told,
            Err(error) => error
                .raw_os_error()
                .map_or_else(|| format!("{error}"), |errno| format!("errno {errno}")),
        };
        println!("{}: {answer}", words.join(" "));
    }
}

fn attempt(words: &[&str]) -> io::Result<String> {
    let ok = || "ok".to_owned();
    match words {
        ["connect", address] => connect(address),
        ["connect-threads", count, address] => connect_threads(number(count)?, address),
        ["append", path, bytes] => append(Path::new(path), number(bytes)?),
        ["create", path] => File::create(path).map(|_| ok()),
        ["remove", path] => std::fs::remove_file(path).map(|()| ok()),
        ["read", path] => std::fs::read(path).map(|bytes| format!("{} bytes", bytes.len())),
        ["list", path] => std::fs::read_dir(path).map(|entries| format!("{} entries", entries.count())),
        ["chmod", path, mode] => {
            let mode = u32::from_str_radix(mode, 8).map_err(io::Error::other)?;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(path, mode).map(|()| ok())
        }
        ["socket", family, kind] => {
            let family = AddressFamily::from_raw(u16::try_from(number(family)?).map_err(io::Error::other)?);
            let kind = SocketType::from_raw(u32::try_from(number(kind)?).map_err(io::Error::other)?);
            Ok(rustix::net::socket(family, kind, None).map(|_| ok())?)
        }
        ["memory", mebibytes] => memory(number(mebibytes)?),
        ["files", path] => Ok(files(Path::new(path))),
        ["processes"] => processes(),
        ["chroot", path] => Ok(rustix::process::chroot(*path).map(|()| ok())?),
        ["pidfd-getfd"] => {
            let own = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())?;
            let flags = rustix::process::PidfdGetfdFlags::empty();
            Ok(rustix::process::pidfd_getfd(own, 0, flags).map(|_| ok())?)
        }
        ["nice-group"] => Ok(rustix::process::setpriority_pgrp(None, 1).map(|()| ok())?),
        // One more than now: whoever runs the tests may be nice already, and nobody may become less so.
        ["nice-self"] => {
            let now = rustix::process::getpriority_process(None)?;
            Ok(rustix::process::setpriority_process(None, now + 1).map(|()| ok())?)
        }
        _ => Err(io::Error::other(format!("the probe knows no `{}`", words.join(" ")))),
    }
}

fn number(text: &str) -> io::Result<u64> {
    text.parse().map_err(io::Error::other)
}

/// Asks for memory and uses it.
fn memory(mebibytes: u64) -> io::Result<String> {
    let bytes = usize::try_from(mebibytes << 20).map_err(io::Error::other)?;
    let mut memory: Vec<u8> = Vec::new();
    // The allocator keeps the kernel's answer to itself: there is but one that it can be.
    memory
        .try_reserve_exact(bytes)
        .map_err(|_| io::Error::from(rustix::io::Errno::NOMEM))?;
    memory.resize(bytes, 1);
    Ok(format!("{} MiB", std::hint::black_box(&memory).len() >> 20))
}

/// Opens a file until that fails, and says how often it went well.
fn files(path: &Path) -> String {
    let mut open = Vec::new();
    loop {
        match File::open(path) {
            Ok(file) => open.push(file),
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(0);
                return format!("errno {errno} after {}", open.len());
            }
        }
    }
}

/// Starts programs that wait until that fails, says how often it went well, and ends them.
fn processes() -> io::Result<String> {
    let mut running = Vec::new();
    let failed = loop {
        match std::process::Command::new("sleep").arg("60").spawn() {
            Ok(child) => running.push(child),
            Err(error) => break error.raw_os_error().unwrap_or(0),
        }
    };
    let count = running.len();
    for mut child in running {
        child.kill()?;
        child.wait()?;
    }
    Ok(format!("errno {failed} after {count}"))
}

/// Connects, and hears back what it says.
fn connect(address: &str) -> io::Result<String> {
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"hello")?;
    let mut heard = [0_u8; 5];
    io::Read::read_exact(&mut stream, &mut heard)?;
    Ok(if heard == *b"hello" {
        "ok".to_owned()
    } else {
        "another answer".to_owned()
    })
}

/// Connects from many threads at once, and says how many of them ended how.
fn connect_threads(count: u64, address: &str) -> io::Result<String> {
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let threads: Vec<_> = (0..count)
        .map(|_| {
            std::thread::Builder::new()
                .stack_size(64 * 1024)
                .spawn(move || TcpStream::connect(address))
        })
        .collect::<io::Result<_>>()?;
    eprintln!("connecting");
    let mut ends = std::collections::BTreeMap::new();
    // Each is held until the other side has accepted and closed it.
    for thread in threads {
        let connected = thread.join().map_err(|_| io::Error::other("a thread panicked"))?;
        let end = match connected.and_then(|mut stream| io::Read::read(&mut stream, &mut [0])) {
            Ok(_) => "ok".to_owned(),
            Err(error) => format!("errno {}", error.raw_os_error().unwrap_or(0)),
        };
        *ends.entry(end).or_insert(0_u64) += 1;
    }
    Ok(ends
        .iter()
        .map(|(end, count)| format!("{count} {end}"))
        .collect::<Vec<_>>()
        .join(", "))
}

/// Writes zeros at the end of a file, and says where it stopped.
fn append(path: &Path, bytes: u64) -> io::Result<String> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let block = [0_u8; 4096];
    let mut left = bytes;
    while left > 0 {
        let count = usize::try_from(left.min(4096)).map_err(io::Error::other)?;
        match file.write(&block[..count]) {
            Ok(written) => left -= written as u64,
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(0);
                return Ok(format!("errno {errno} after {}", bytes - left));
            }
        }
    }
    Ok("ok".to_owned())
}
