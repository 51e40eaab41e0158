//! Sockets of a session as programs use them: what they are told, what arrives, what stays inside.

mod bind;
mod datagrams;
mod host;
mod moving;
mod sends;
mod shared;
mod streams;
mod unusable;

use std::net::UdpSocket;
use std::sync::Arc;

use security_v2_host::{Home, Output, Run, Tree, User, users_with};

/// What all of these scripts begin with.
const KIT: &str = r#"
import array, asyncio, ctypes, errno, os, select, signal, socket, struct, sys, threading, time
def told(name, work):
    try: print(name, work())
    except OSError as error: print(name, errno.errorcode.get(error.errno, error))
def datagram(at=None, six=False):
    made = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
    made.settimeout(30)
    if at: made.bind(at)
    return made
def failed(one):
    # Until the kernel has an error for it.
    waiting = select.poll(); waiting.register(one, 0); waiting.poll(30000)
"#;

/// Everybody, where there is what runs these scripts.
pub(crate) fn users_with_python() -> Vec<User> {
    users_with(&["/usr/bin/python3"])
}

/// Sends back what it gets, in capitals, from a port of the host's loopback.
pub(crate) fn echo() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut bytes = [0; 65536];
        while let Ok((count, from)) = socket.recv_from(&mut bytes) {
            let _ = socket.send_to(&bytes[..count].to_ascii_uppercase(), from);
        }
    });
    port
}

pub(crate) fn tree(egress: &str) -> Tree {
    Tree::shipped()
        .append("nexus.policy.toml", "[subject.net]\ndomain = \"tools\"\n")
        .append("sandbox.toml", "[subject.net]\nwork = \"unmetered\"\n")
        .append("egress.toml", &format!("[subject.net]\n{egress}\n"))
}

/// Runs a script under these egress rules; `PORT` stands for a number in both.
pub(crate) fn script(user: User, egress: &str, port: u16, text: &str) -> Output {
    prepared(&Home::new(user), egress, port, text).run()
}

pub(crate) fn prepared(home: &Arc<Home>, egress: &str, port: u16, text: &str) -> Run {
    let port = port.to_string();
    let path = home.write_work("script.py", &format!("{KIT}\n{}", text.replace("PORT", &port)));
    let words = ["/usr/bin/python3".into(), "-u".into(), path.into_os_string()];
    Run::at(home)
        .policy(&tree(&egress.replace("PORT", &port)))
        .subject("net")
        .args(words)
}

pub(crate) fn lines(done: &Output) -> Vec<String> {
    done.out().lines().map(str::to_owned).collect()
}
