//! Accepts connections on the loopback address and closes them: the other side of README's example.
//!
//! `listen PORT` prints `listening` once it does, and ends with its standard input.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::args().nth(1).unwrap_or_default().parse::<u16>()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    println!("listening");
    std::thread::spawn(move || for _connection in listener.incoming() {});
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
