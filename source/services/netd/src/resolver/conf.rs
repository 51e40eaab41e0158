//! What the host's own lookups read: resolv.conf(5) and hosts(5). Read anew for each lookup: networks change.

use std::io::Read;
use std::net::IpAddr;

/// How much of such a file is read; the longest lists of blocked hosts have some megabytes.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// How many servers count (`MAXNS`, resolv.conf(5)).
const SERVERS_MAX: usize = 3;

pub(super) fn read(path: &str) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        // What cannot be read says nothing.
        let _ = file.take(FILE_BYTES_MAX).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The host's name servers, in order; without any, the host's own.
pub(super) fn servers(resolv: &str) -> Vec<std::net::SocketAddr> {
    const PORT: u16 = 53;
    let mut servers: Vec<_> = resolv
        .lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next())?
        })
        .filter_map(parse)
        .take(SERVERS_MAX)
        .collect();
    if servers.is_empty() {
        servers.push(([127, 0, 0, 1], PORT).into());
    }
    servers
}

fn parse(text: &str) -> Option<std::net::SocketAddr> {
    const PORT: u16 = 53;
    match text.split_once('%') {
        None => Some((text.parse::<IpAddr>().ok()?, PORT).into()),
        Some((ip, interface)) => {
            let scope = interface.parse().ok().or_else(|| index(interface))?;
            Some(std::net::SocketAddrV6::new(ip.parse().ok()?, PORT, 0, scope).into())
        }
    }
}

/// The number of an interface. netdevice(7)
fn index(interface: &str) -> Option<u32> {
    use rustix::net::{AddressFamily, SocketType};
    let any = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
    rustix::net::netdevice::name_to_index(&any, interface).ok()
}

/// The addresses that the host's file has for a name in lower case.
pub(super) fn hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    lines
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let ip = words.next()?.parse().ok()?;
            words.any(|word| word.eq_ignore_ascii_case(name)).then_some(ip)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_those_that_the_host_asks() {
        let text = "# nameserver 9.9.9.9\nsearch x\nnameserver 10.0.0.1\nnameserver ::1\nnameserver bad\nnameserver fe80::1%7\nnameserver 10.0.0.3\n";
        let said: Vec<String> = servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(said, ["10.0.0.1:53", "[::1]:53", "[fe80::1%7]:53"]);
        assert_eq!(servers("")[0].to_string(), "127.0.0.1:53");
    }

    #[test]
    fn the_hosts_file_has_names_in_any_case_and_comments() {
        let text = "203.0.113.7 Git.Example.org git # x other\n2001:db8::1 git.example.org\nbad git.example.org\n";
        assert_eq!(hosts(text, "git.example.org").len(), 2);
        assert_eq!(hosts(text, "git").len(), 1);
        assert!(hosts(text, "other").is_empty() && hosts(text, "example.org").is_empty());
    }
}
