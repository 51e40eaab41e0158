//! Fetches a page by address as a subject of the shipped policy would, and says which rule refuses it otherwise.
//!
//! `cargo run -p nexus-net --example fetch -- demo 127.0.0.1:8443`

use nexus_net::Guarded;
use nexus_policy::{MemoryTree, Policy};
use std::io::{Read, Write};
use std::process::ExitCode;

fn fetch(subject: &str, address: &str) -> Result<String, Box<dyn std::error::Error>> {
    let policy = Policy::load(&MemoryTree::shipped())?;
    let net = Guarded::of_subject(&policy, subject, [])?;
    let mut peer = net.connect(address.parse()?)?;
    peer.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    peer.take(1 << 20).read_to_string(&mut page)?;
    Ok(page)
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [subject, address] = words.as_slice() else {
        eprintln!("usage: fetch SUBJECT ADDRESS:PORT");
        return ExitCode::from(2);
    };
    match fetch(subject, address) {
        Ok(page) => {
            print!("{page}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("fetch: {error}");
            ExitCode::from(3)
        }
    }
}
