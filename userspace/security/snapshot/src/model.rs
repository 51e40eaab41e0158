//! What a snapshot says. What the words and numbers mean is the policy crate's matter: here they have only a form.

use alloc::vec::Vec;

use crate::wire::record;

record! {
    /// A tree.
    Snapshot {
        /// The files, by their paths, in the order in which they were read.
        files: Vec<File<'a>>,
        /// Every rule; others name it by its place here.
        rules: Vec<Rule<'a>>,
        /// The declared domains, sorted by name.
        domains: Vec<Scope<'a>>,
        /// The declared subjects, sorted by name.
        subjects: Vec<Scope<'a>>,
        /// The canonical JSON: what stands in `policy.json`.
        canonical: &'a str,
    }
}

record! {
    /// A file of the tree.
    File {
        /// Its path in the tree.
        path: &'a str,
        /// Its content, by [`file_hash`](crate::file_hash).
        hash: [u8; 32],
    }
}

record! {
    /// A rule as people see it.
    Rule {
        /// What it is about, by its place in the list of kinds.
        kind: u8,
        /// The start of the hash that its id shows.
        hash: u64,
        /// The file, by its place in [`Snapshot::files`].
        file: u16,
        /// The line, from 1.
        line: u32,
        /// The rule as it stands in its file.
        text: &'a str,
    }
}

record! {
    /// What a tree says of one domain or subject.
    Scope {
        /// Its name.
        name: &'a str,
        /// A subject's domain.
        domain: Option<&'a str>,
        /// A subject's rule that stands for the lack of an egress rule.
        no_egress: u32,
        /// A subject's rule that stands for the lack of a syscall rule.
        no_abi: u32,
        /// `quotas.toml`
        quotas: Option<Quotas<'a>>,
        /// `egress.toml`
        egress: Option<Egress<'a>>,
        /// `abi.toml`
        abi: Option<Abi<'a>>,
        /// `sandbox.toml`
        sandbox: Option<Sandbox<'a>>,
    }
}

record! {
    /// A number and the rule that set it.
    Ruled {
        /// The number.
        value: u64,
        /// The rule.
        rule: u32,
    }
}

record! {
    /// The budget of one area.
    Quota {
        /// Bytes.
        soft: Option<Ruled<'a>>,
        /// Bytes.
        hard: Option<Ruled<'a>>,
        /// Inodes.
        inodes: Option<Ruled<'a>>,
    }
}

record! {
    /// Budgets.
    Quotas {
        /// One for each area, in the areas' order.
        areas: Vec<Quota<'a>>,
        /// What is bounded of IPC.
        ipc: Option<Ipc<'a>>,
    }
}

record! {
    /// What is bounded of IPC.
    Ipc {
        /// Each limit at most once.
        limits: Vec<IpcLimit<'a>>,
    }
}

record! {
    /// One limit of IPC.
    IpcLimit {
        /// Which, by its place among all.
        which: u8,
        /// The limit.
        limit: Option<Ruled<'a>>,
    }
}

record! {
    /// A rule for destinations by name.
    NameRule {
        /// 0 allows, 1 denies.
        effect: u8,
        /// 0 is tcp, 1 is udp.
        protocol: u8,
        /// Whether names below it are meant, and not itself.
        below: bool,
        /// The name.
        name: &'a str,
        /// First and last of each range.
        ports: Vec<(u16, u16)>,
        /// The rule.
        rule: u32,
    }
}

record! {
    /// A rule for destinations by address.
    EgressRule {
        /// 0 allows, 1 denies.
        effect: u8,
        /// 0 is tcp, 1 is udp.
        protocol: u8,
        /// Whether it is an IPv6 address.
        six: bool,
        /// The address; an IPv4 one in the lower 32 bits.
        address: u128,
        /// The length of the prefix.
        prefix: u8,
        /// First and last of each range.
        ports: Vec<(u16, u16)>,
        /// The rule.
        rule: u32,
    }
}

record! {
    /// Ports that may be bound on the host.
    BindRule {
        /// 0 is tcp, 1 is udp.
        protocol: u8,
        /// First and last of each range.
        ports: Vec<(u16, u16)>,
        /// The rule.
        rule: u32,
    }
}

record! {
    /// Destinations, and ports to send from.
    Egress {
        /// By address.
        rules: Vec<EgressRule<'a>>,
        /// By name.
        names: Vec<NameRule<'a>>,
        /// Ports to bind.
        binds: Vec<BindRule<'a>>,
    }
}

record! {
    /// What a rule asks of a call.
    Condition {
        /// 0 to 4 test an argument: equal, masked, range, one of, any bit; 5 asks the egress rules, 6 a budget.
        kind: u8,
        /// The argument, or the area by its place.
        index: u8,
        /// The numbers of the test.
        values: Vec<u64>,
    }
}

record! {
    /// A rule for syscalls.
    SyscallRule {
        /// Names of calls and groups, as written.
        calls: Vec<&'a str>,
        /// 0 allows, 1 denies.
        effect: u8,
        /// What a deny answers.
        errno: u16,
        /// All must hold.
        when: Vec<Condition<'a>>,
        /// The rule.
        rule: u32,
    }
}

record! {
    /// What libraries probe.
    Probe {
        /// The name of a call or group.
        name: &'a str,
        /// The rule.
        rule: u32,
    }
}

record! {
    /// Syscalls.
    Abi {
        /// In policy order.
        rules: Vec<SyscallRule<'a>>,
        /// What libraries probe.
        probed: Vec<Probe<'a>>,
    }
}

record! {
    /// A path of the view.
    Path {
        /// The path.
        path: &'a str,
        /// The rule.
        rule: u32,
    }
}

record! {
    /// A variable, or all that begin so.
    Pattern {
        /// The name, or how it begins.
        begins: &'a str,
        /// Whether it only begins so.
        open: bool,
    }
}

record! {
    /// A variable with a fixed value.
    Fixed {
        /// Its name.
        name: &'a str,
        /// Its value.
        value: &'a str,
    }
}

record! {
    /// A key of `sandbox.toml` and the rule that stands for it.
    Setting {
        /// The key.
        key: &'a str,
        /// The rule.
        rule: u32,
    }
}

record! {
    /// The view, the environment, the limits.
    Sandbox {
        /// `profile`
        profile: Option<&'a str>,
        /// `read`
        read: Option<Vec<Path<'a>>>,
        /// `read_optional`
        read_optional: Option<Vec<Path<'a>>>,
        /// `env`
        env: Option<Vec<Pattern<'a>>>,
        /// `env_set`
        env_set: Vec<Fixed<'a>>,
        /// `dev`
        dev: Option<Vec<&'a str>>,
        /// `work`
        work: Option<&'a str>,
        /// `work_protect`
        work_protect: Option<Vec<&'a str>>,
        /// `fds.allow_sockets`
        allow_sockets: Option<bool>,
        /// `fds.allow_directories`
        allow_directories: Option<bool>,
        /// `fds.allow_devices`
        allow_devices: Option<bool>,
        /// `limits.memory`
        memory_bytes: Option<Ruled<'a>>,
        /// `limits.processes`
        processes: Option<Ruled<'a>>,
        /// `limits.open_files`
        open_files: Option<Ruled<'a>>,
        /// `on_journal_failure`
        on_journal_failure: Option<&'a str>,
        /// `audit.rate`
        audit_rate: Option<u64>,
        /// `audit.burst`
        audit_burst: Option<u64>,
        /// Where each key stands.
        settings: Vec<Setting<'a>>,
    }
}
