//! What libraries read before they look a name up, for a subject that may: every lookup leads to the session's resolver.

use crate::build::HOST_NAME;
use crate::plan::Entry;
use std::path::Path;

/// Where the session's resolver listens: the own loopback, so that no address of the host's is needed.
const NAME_SERVER: &str = "127.0.0.1";

/// How many search domains glibc before 2.26 takes, and how long all of them may be (`MAXDNSRCH`, resolv.conf(5)).
const SEARCH_MAX: usize = 6;

pub(crate) fn files() -> Vec<Entry> {
    let host = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    [
        ("/etc/resolv.conf", resolver(&host("/etc/resolv.conf"))),
        // Nothing of the host's: an address from there is open only if it was resolved, and the resolver reads the host's.
        (
            "/etc/hosts",
            format!("127.0.0.1 localhost {HOST_NAME}\n::1 localhost ip6-localhost ip6-loopback\n"),
        ),
        ("/etc/nsswitch.conf", switch(&host("/etc/nsswitch.conf"))),
    ]
    .into_iter()
    .map(|(at, content)| Entry::File {
        at: Path::new(at).to_owned(),
        content: content.into_bytes(),
    })
    .collect()
}

/// The host's search domains and how many dots make a name whole, in front of our server.
fn resolver(host: &str) -> String {
    let mut search = String::new();
    let mut dots = String::new();
    for line in host.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            // The last of either counts.
            Some("search" | "domain") => {
                let names: Vec<&str> = words.filter(|name| is_plain(name)).take(SEARCH_MAX).collect();
                search = if names.is_empty() {
                    String::new()
                } else {
                    format!("search {}\n", names.join(" "))
                };
            }
            Some("options") => {
                let given = words.filter(|word| word.strip_prefix("ndots:").is_some_and(|n| n.parse::<u8>().is_ok()));
                if let Some(word) = given.collect::<Vec<_>>().pop() {
                    dots = format!(" {word}");
                }
            }
            _ => {}
        }
    }
    // Not longer than the resolver itself waits for the host's.
    format!("{search}nameserver {NAME_SERVER}\noptions timeout:10 attempts:1{dots}\n")
}

fn is_plain(name: &str) -> bool {
    name.len() <= 253
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

/// Names of hosts come from the file above and from DNS; everything else as on the host.
fn switch(host: &str) -> String {
    let others = host.lines().filter(|line| !line.trim_start().starts_with("hosts:"));
    let mut text: String = others.map(|line| format!("{line}\n")).collect();
    text.push_str("hosts: files dns\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_domains_and_dots_are_the_hosts_and_the_server_is_ours() {
        let host =
            "# x\nnameserver 10.0.0.1\ndomain a.example\nsearch b.example c.example\noptions edns0 ndots:2 rotate\n";
        assert_eq!(
            resolver(host),
            "search b.example c.example\nnameserver 127.0.0.1\noptions timeout:10 attempts:1 ndots:2\n"
        );
        assert_eq!(resolver(""), "nameserver 127.0.0.1\noptions timeout:10 attempts:1\n");
        assert_eq!(
            resolver("search bad;name\noptions ndots:x"),
            "nameserver 127.0.0.1\noptions timeout:10 attempts:1\n"
        );
    }

    #[test]
    fn names_of_hosts_come_from_files_and_dns_and_the_rest_stays() {
        let host = "passwd: files systemd\nhosts: files mdns4_minimal [NOTFOUND=return] resolve dns\nnetworks: files\n";
        assert_eq!(
            switch(host),
            "passwd: files systemd\nnetworks: files\nhosts: files dns\n"
        );
    }
}
