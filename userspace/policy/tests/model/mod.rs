//! Random trees as values, and ways to write each of them down.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use nexus_policy::MemoryTree;
use proptest::collection::{btree_map, btree_set};
use proptest::option;
use proptest::prelude::*;

/// Few and close together, so that rules meet.
pub(crate) const TARGETS: [&str; 12] = [
    "203.0.113.0/24",
    "203.0.113.0/25",
    "203.0.113.7/32",
    "0.0.0.0/0",
    "127.0.0.1/32",
    "127.0.0.0/8",
    "10.0.0.0/8",
    "[2001:db8::]/32",
    "[2001:db8::1]/128",
    "[::]/0",
    "[::1]/128",
    "git.example.org",
];
pub(crate) const CALLS: [&str; 8] = [
    "read",
    "write",
    "ioctl",
    "ptrace",
    "@basic-io",
    "@debug",
    "socket",
    "clone3",
];
pub(crate) const PATHS: [&str; 7] = [
    "/usr",
    "/usr/lib",
    "/usr/lib/x",
    "/etc",
    "/etc/ssl/certs",
    "/opt",
    "~/.rustup",
];
pub(crate) const VARIABLES: [&str; 5] = ["LANG", "LC_*", "LC_ALL", "L*", "TERM"];
pub(crate) const FIXED: [&str; 3] = ["PATH", "TERM", "LC_ALL"];
pub(crate) const WORK: [&str; 3] = ["none", "ro", "unmetered"];

/// What an egress rule matches: protocol is UDP, which target, first port, how many more.
pub(crate) type Match = (bool, usize, u16, u16);

/// What is done with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Allow,
    Deny,
    Probe,
    /// Allowed with this argument 1, or with the bit set.
    AllowIf(u32),
    DenyIf(u32),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scope {
    /// soft, hard, inodes of tmp, state, work, in pages.
    pub(crate) quotas: [Option<(Option<u64>, u64, u64)>; 3],
    pub(crate) egress: BTreeMap<Match, bool>,
    pub(crate) calls: BTreeMap<usize, Fate>,
    pub(crate) read: Option<BTreeMap<usize, bool>>,
    pub(crate) env: Option<BTreeSet<usize>>,
    pub(crate) env_set: BTreeMap<usize, u8>,
    pub(crate) work: Option<usize>,
    pub(crate) processes: Option<u64>,
    pub(crate) allow_sockets: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tree {
    pub(crate) domain: Option<Scope>,
    pub(crate) subject: Scope,
    /// Whether the subject is called `*`.
    pub(crate) any: bool,
}

fn budget() -> impl Strategy<Value = (Option<u64>, u64, u64)> {
    (0_u64..6, 0_u64..4).prop_map(|(hard, inodes)| (Some(hard / 2), hard, inodes))
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        3 => Just(Fate::Allow),
        2 => Just(Fate::Deny),
        1 => Just(Fate::Probe),
        1 => (0_u32..3).prop_map(Fate::AllowIf),
        1 => (0_u32..3).prop_map(Fate::DenyIf),
    ]
}

fn scope() -> impl Strategy<Value = Scope> {
    let port_match = (any::<bool>(), 0..TARGETS.len(), 1_u16..6, 0_u16..3);
    let lists = (
        [option::of(budget()), option::of(budget()), option::of(budget())],
        btree_map(port_match, any::<bool>(), 0..6),
        btree_map(0..CALLS.len(), fate(), 0..6),
    );
    let sandbox = (
        option::of(btree_map(0..PATHS.len(), any::<bool>(), 0..5)),
        option::of(btree_set(0..VARIABLES.len(), 0..4)),
        btree_map(0..FIXED.len(), 0_u8..2, 0..2),
        option::of(0..WORK.len()),
        option::of(1_u64..5),
        option::of(any::<bool>()),
    );
    (lists, sandbox).prop_map(
        |((quotas, egress, calls), (read, env, env_set, work, processes, allow_sockets))| Scope {
            quotas,
            egress,
            calls,
            read,
            env,
            env_set,
            work,
            processes,
            allow_sockets,
        },
    )
}

pub(crate) fn tree() -> impl Strategy<Value = Tree> {
    (option::of(scope()), scope(), prop::bool::weighted(0.2)).prop_map(|(domain, subject, any)| Tree {
        domain,
        subject,
        any,
    })
}

/// Choices of a writer: the same seed, the same choices (splitmix64).
struct Writer(u64);

impl Writer {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }

    fn shuffled<T>(&mut self, mut items: Vec<T>) -> Vec<T> {
        for last in (1..items.len()).rev() {
            let other = self.below(last + 1);
            items.swap(last, other);
        }
        items
    }

    fn comment(&mut self) -> &'static str {
        ["", "", " # a comment", "\n# a line of its own\n", "\n\n"][self.below(5)]
    }

    fn list(&mut self, items: Vec<String>) -> String {
        let items = self.shuffled(items);
        let between = if self.coin() { ", " } else { ",\n    # one more\n    " };
        format!("[{}]", items.join(between))
    }

    fn size(&mut self, pages: u64) -> String {
        let bytes = pages * 4096;
        match self.below(3) {
            0 => format!("\"{bytes}B\""),
            1 => format!("\"{} KiB\"", bytes / 1024),
            _ => format!("'{}KiB'", bytes / 1024),
        }
    }

    fn number(&mut self, number: u64) -> String {
        match self.below(3) {
            0 => format!("{number}"),
            1 => format!("0x{number:x}"),
            _ => format!("0o{number:o}"),
        }
    }

    fn ports(&mut self, first: u16, more: u16) -> String {
        let last = first + more;
        match self.below(2) {
            0 if more > 0 => format!("{first}-{last}"),
            _ => (first..=last)
                .rev()
                .map(|port| port.to_string())
                .collect::<Vec<_>>()
                .join(","),
        }
    }

    fn egress(&mut self, (udp, target, first, more): Match) -> String {
        let target = TARGETS[target];
        // A single address may be written with or without its length.
        let bare = target
            .strip_suffix("/32")
            .filter(|_| !target.starts_with('['))
            .or(target.strip_suffix("/128"));
        let target = match bare {
            Some(bare) if self.coin() => bare,
            _ => target,
        };
        let ports = self.ports(first, more);
        if self.coin() {
            let protocol = if udp { "udp " } else { ["", "tcp "][self.below(2)] };
            format!("\"{protocol}{target}:{ports}\"")
        } else {
            let protocol = if udp {
                ", protocol = \"udp\""
            } else {
                ["", ", protocol = \"tcp\""][self.below(2)]
            };
            format!("{{ ports = [\"{ports}\"], to = '{target}'{protocol} }}")
        }
    }

    fn quotas(&mut self, scope: &str, says: &Scope) -> String {
        let mut out = format!("[{scope}]\n");
        for (area, budget) in ["tmp", "state", "work"].iter().zip(&says.quotas) {
            let Some((soft, hard, inodes)) = budget else { continue };
            let mut keys = vec![
                format!("hard = {}", self.size(*hard)),
                format!("inodes = {}", self.number(*inodes)),
            ];
            if let Some(soft) = soft {
                keys.push(format!("soft = {}", self.size(*soft)));
            }
            let keys = self.shuffled(keys);
            if self.coin() {
                writeln!(out, "{area} = {{ {} }}{}", keys.join(", "), self.comment()).unwrap();
            } else {
                for key in keys {
                    writeln!(out, "{area}.{key}{}", self.comment()).unwrap();
                }
            }
        }
        out
    }

    fn egress_file(&mut self, scope: &str, says: &Scope) -> String {
        let mut out = format!("[{scope}]{}\n", self.comment());
        for allow in [true, false] {
            let entries: Vec<String> = says
                .egress
                .iter()
                .filter(|(_, is)| **is == allow)
                .map(|(rule, _)| self.egress(*rule))
                .collect();
            if !entries.is_empty() || self.coin() {
                let key = if allow { "allow" } else { "deny" };
                writeln!(out, "{key} = {}", self.list(entries)).unwrap();
            }
        }
        out
    }

    fn abi(&mut self, scope: &str, says: &Scope) -> String {
        let mut lists: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        let mut rules = Vec::new();
        for (call, fate) in &says.calls {
            let name = CALLS[*call];
            let (key, value) = match fate.of(name) {
                Fate::Allow => ("allow", None),
                Fate::Deny => ("deny", None),
                Fate::Probe => ("probe", None),
                Fate::AllowIf(value) => ("allow", Some(value)),
                Fate::DenyIf(value) => ("deny", Some(value)),
            };
            match value {
                None => lists.entry(key).or_default().push(format!("\"{name}\"")),
                Some(value) => {
                    let width = ["", "width = 32, "][self.below(2)];
                    let value = self.number(value.into());
                    let errno = if key == "deny" {
                        ["", "errno = \"EPERM\"\n", "errno = 1\n"][self.below(3)]
                    } else {
                        ""
                    };
                    rules.push(format!(
                        "[[{scope}.rule]]\nsyscall = \"{name}\"\n{errno}effect = \"{key}\"\nwhen = [{{ arg = 1, {width}equal = {value} }}]\n"
                    ));
                }
            }
        }
        let mut out = format!("[{scope}]\n");
        for (key, entries) in lists {
            writeln!(out, "{key} = {}", self.list(entries)).unwrap();
        }
        for rule in self.shuffled(rules) {
            out.push_str(&rule);
        }
        out
    }

    fn sandbox(&mut self, scope: &str, says: &Scope) -> String {
        let mut keys = Vec::new();
        if let Some(read) = &says.read {
            for optional in [false, true] {
                let paths = read
                    .iter()
                    .filter(|(_, is)| **is == optional)
                    .map(|(path, _)| format!("\"{}\"", PATHS[*path]));
                let list = paths.collect();
                keys.push(format!(
                    "{} = {}",
                    if optional { "read_optional" } else { "read" },
                    self.list(list)
                ));
            }
        }
        if let Some(env) = &says.env {
            let list = env.iter().map(|name| format!("\"{}\"", VARIABLES[*name])).collect();
            keys.push(format!("env = {}", self.list(list)));
        }
        if !says.env_set.is_empty() {
            let set: Vec<String> = says
                .env_set
                .iter()
                .map(|(name, value)| format!("{} = \"v{value}\"", FIXED[*name]))
                .collect();
            keys.push(format!("env_set = {{ {} }}", self.shuffled(set).join(", ")));
        }
        if let Some(work) = says.work {
            keys.push(format!("work = \"{}\"", WORK[work]));
        }
        if let Some(processes) = says.processes {
            keys.push(format!("limits.processes = {}", self.number(processes)));
        }
        if let Some(allow) = says.allow_sockets {
            keys.push(format!("fds = {{ allow_sockets = {allow} }}"));
        }
        let mut out = format!("[{scope}]\n");
        for key in self.shuffled(keys) {
            writeln!(out, "{key}{}", self.comment()).unwrap();
        }
        out
    }
}

impl Fate {
    /// Conditions only for calls whose argument 1 is a number.
    pub(crate) fn of(self, name: &str) -> Self {
        match self {
            Self::AllowIf(_) if !["ioctl", "socket"].contains(&name) => Self::Allow,
            Self::DenyIf(_) if !["ioctl", "socket"].contains(&name) => Self::Deny,
            fate => fate,
        }
    }
}

impl Tree {
    /// Writes the tree down, in one of many ways.
    pub(crate) fn write(&self, seed: u64) -> MemoryTree {
        let mut writer = Writer(seed);
        let subject = if self.any { "subject.\"*\"" } else { "subject.demo" };
        let mut scopes = vec![(subject, &self.subject)];
        let mut root = format!("[{subject}]\n");
        if let Some(domain) = &self.domain {
            scopes.push(("domain.tools", domain));
            root.push_str("domain = \"tools\"\n[domain.tools]\n");
        }
        let scopes = writer.shuffled(scopes);
        let mut files: Vec<(String, String)> = Vec::new();
        type Write = fn(&mut Writer, &str, &Scope) -> String;
        let matters: [(&str, Write); 4] = [
            ("quotas", Writer::quotas),
            ("egress", Writer::egress_file),
            ("abi", Writer::abi),
            ("sandbox", Writer::sandbox),
        ];
        for (matter, write) in writer.shuffled(matters.to_vec()) {
            let parts: Vec<String> = scopes
                .iter()
                .map(|(name, says)| write(&mut writer, name, says))
                .collect();
            match writer.below(3) {
                0 => files.push((format!("{matter}.toml"), parts.join("\n"))),
                1 => {
                    for (number, part) in parts.into_iter().enumerate() {
                        files.push((format!("teams/part{number}.{matter}.toml"), part));
                    }
                }
                _ => {
                    // One file includes the other.
                    let mut parts = parts.into_iter();
                    let first = parts.next().unwrap_or_default();
                    let rest: Vec<String> = parts.collect();
                    let include = if rest.is_empty() {
                        ""
                    } else {
                        "include = [\"more/rest.MATTER.toml\"]\n"
                    };
                    files.push((
                        format!("{matter}.toml"),
                        format!("{}{first}", include.replace("MATTER", matter)),
                    ));
                    if !rest.is_empty() {
                        files.push((format!("more/rest.{matter}.toml"), rest.join("\n")));
                    }
                }
            }
        }
        let included: Vec<String> = files
            .iter()
            .filter(|(path, _)| !path.starts_with("more/"))
            .map(|(path, _)| format!("\"{path}\""))
            .collect();
        let include = writer.list(included);
        if writer.coin() {
            files.push(("who.policy.toml".into(), root));
            let include = include.replacen('[', "[\"who.policy.toml\", ", 1);
            files.push((
                "nexus.policy.toml".into(),
                format!("version = 1\ninclude = {include}\n"),
            ));
        } else {
            files.push((
                "nexus.policy.toml".into(),
                format!("# a tree\ninclude = {include}\nversion = 1\n{root}"),
            ));
        }
        MemoryTree::new(files)
    }
}
