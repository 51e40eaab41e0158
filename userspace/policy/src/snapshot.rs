//! From a tree to `policy.bin` and back. The bytes are `nexus_snapshot`'s matter; here they get and lose their meaning.

use std::marker::PhantomData;
use std::net::IpAddr;
use std::sync::Arc;

use nexus_abi::{Area, Effect, Protocol};
use nexus_abi_policy::ArgTest;
use nexus_net_egress::{EgressRule, PortRange};
use nexus_snapshot as bin;
use nexus_snapshot::{DecodeError, Sealed};

use crate::abi::{Abi, WrittenRule};
use crate::conditions::Written;
use crate::egress::Egress;
use crate::ipc;
use crate::names::NameRule;
use crate::policy::Policy;
use crate::quotas::{Limits, Quotas};
use crate::rules::RuleKind;
use crate::sandbox::Sandbox;
use crate::scope::{Declared, Ruled, Scope};
use crate::settings::{OnJournalFailure, ViewPath, WorkMode};
use crate::source::TreeSource;
use crate::tree_rules::Tree;

mod decode;

use decode::decode;

/// Why a snapshot cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The bytes are none.
    #[error("the snapshot is refused: {0}")]
    Decode(DecodeError),
    /// It is one, and says what no tree can say.
    #[error("the snapshot is refused: no tree says what it says of {0}")]
    Impossible(&'static str),
    /// A file of the tree is another one than it was made of.
    #[error("the snapshot is stale: {} is another one than it was made of", crate::fields::quote(.path))]
    Stale {
        /// The first such file, by its path in the tree.
        path: String,
    },
    /// It carries the tree's hash and was still not made of it.
    #[error("the snapshot is not what this version makes of the tree")]
    Different,
    /// `policy.json` is not the tree's canonical form.
    #[error("`policy.json` is not the canonical form of the tree")]
    Canonical,
}

impl SnapshotError {
    /// What to do next.
    #[must_use]
    pub const fn help(&self) -> &'static str {
        "make it again from its tree: `nx policy snapshot build`"
    }
}

const TEXTS: PhantomData<&'static str> = PhantomData;

impl Policy {
    /// The bytes of `policy.bin`: the tree itself, without its ceilings. The same files give the same bytes on any machine.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`] for a tree whose snapshot nobody would read.
    pub fn snapshot(&self) -> Result<Vec<u8>, SnapshotError> {
        let tree = self.own();
        let sealed = Sealed {
            tree: tree.hash(),
            policy: *self.own_version().as_bytes(),
            snapshot: encode(tree),
        };
        sealed.encode().map_err(SnapshotError::Decode)
    }

    /// A policy from the bytes of `policy.bin`, more than ten times faster than from its files. Everything can be asked of it that
    /// can be asked of the tree, each rule's file and line and text among it; only the files' whole texts are not there.
    ///
    /// Who loads it must trust where it comes from as much as the tree: [`Policy::verify_snapshot`] and [`is_fresh`] hold it
    /// to its files.
    ///
    /// # Errors
    /// [`SnapshotError::Decode`] also for a single flipped bit; [`SnapshotError::Impossible`] for forged bytes.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let sealed = bin::Snapshot::decode(bytes).map_err(SnapshotError::Decode)?;
        let tree = decode(&sealed)?;
        Ok(Self::of_tree(Arc::new(tree), sealed.policy))
    }

    /// Whether these bytes are exactly the snapshot of this policy's tree, which was read from its files.
    ///
    /// # Errors
    /// [`SnapshotError`], naming what is wrong.
    pub fn verify_snapshot(&self, bytes: &[u8]) -> Result<(), SnapshotError> {
        if self.snapshot()? == bytes {
            return Ok(());
        }
        let sealed = bin::Snapshot::decode(bytes).map_err(SnapshotError::Decode)?;
        if sealed.tree == self.own().hash() {
            return Err(SnapshotError::Different);
        }
        let theirs = sealed.snapshot.files;
        let tree = self.own();
        let changed = tree.sources.iter().map(|file| file.path()).find(|path| {
            let now = tree.file_hash(path);
            !theirs.iter().any(|file| file.path == *path && Some(file.hash) == now)
        });
        let gone = || {
            theirs
                .iter()
                .map(|file| file.path)
                .find(|path| tree.file_hash(path).is_none())
        };
        Err(SnapshotError::Stale {
            path: changed.or_else(gone).unwrap_or("a file").to_owned(),
        })
    }
}

/// Whether a tree's files are those that a snapshot was made of: reads and hashes them, and parses nothing.
///
/// # Errors
/// [`SnapshotError::Stale`] where they are not, [`SnapshotError::Decode`] where the bytes are no snapshot.
pub fn is_fresh(bytes: &[u8], source: &dyn TreeSource) -> Result<(), SnapshotError> {
    let sealed = bin::Snapshot::decode(bytes).map_err(SnapshotError::Decode)?;
    let mut left = crate::limits::TREE_BYTES_MAX;
    // What a file includes stands in it: where all of these are the same, there are no others.
    for file in &sealed.snapshot.files {
        let stale = || SnapshotError::Stale {
            path: file.path.to_owned(),
        };
        let content = source
            .read(file.path, crate::limits::FILE_BYTES_MAX.min(left))
            .map_err(|_| stale())?;
        left = left.saturating_sub(content.len());
        if nexus_snapshot::file_hash(&content) != file.hash {
            return Err(stale());
        }
    }
    Ok(())
}

// --- to bytes

fn effect_number(effect: Effect) -> u8 {
    match effect {
        Effect::Allow => 0,
        Effect::Deny => 1,
    }
}

fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 0,
        Protocol::Udp => 1,
    }
}

fn encode(tree: &Tree) -> bin::Snapshot<'_> {
    let files = tree.sources.iter().map(|file| bin::File {
        path: file.path(),
        hash: tree.file_hash(file.path()).unwrap_or_default(),
        texts: TEXTS,
    });
    let rules = (0..tree.rules.len()).filter_map(|index| {
        let id = tree.rules.get(index)?.id;
        let (file, line, text) = tree.rules.shown(index, &tree.sources)?;
        Some(bin::Rule {
            kind: RuleKind::ALL
                .iter()
                .position(|kind| *kind == id.kind())
                .and_then(|at| u8::try_from(at).ok())?,
            hash: id.hash(),
            file: u16::try_from(file.0).ok()?,
            line: u32::try_from(line).ok()?,
            text,
            texts: TEXTS,
        })
    });
    bin::Snapshot {
        files: files.collect(),
        rules: rules.collect(),
        domains: tree
            .scopes
            .domains
            .iter()
            .map(|(name, says)| scope(name, says))
            .collect(),
        subjects: tree
            .scopes
            .subjects
            .iter()
            .map(|(name, says)| scope(name, says))
            .collect(),
        canonical: &tree.canonical,
        texts: TEXTS,
    }
}

fn scope<'t>(name: &'t str, declared: &'t Declared) -> bin::Scope<'t> {
    let Declared {
        at: _,
        domain,
        scope: Scope {
            quotas,
            egress,
            abi,
            sandbox,
        },
        no_egress,
        no_abi,
    } = declared;
    bin::Scope {
        name,
        domain: domain.as_ref().map(|(domain, _)| domain.as_str()),
        no_egress: no_egress.0,
        no_abi: no_abi.0,
        quotas: quotas.as_ref().map(|part| encode_quotas(&part.says)),
        egress: egress.as_ref().map(|part| encode_egress(&part.says)),
        abi: abi.as_ref().map(|part| encode_abi(&part.says)),
        sandbox: sandbox.as_ref().map(|part| encode_sandbox(&part.says)),
        texts: TEXTS,
    }
}

fn encode_ruled(ruled: &Option<Ruled<u64>>) -> Option<bin::Ruled<'static>> {
    ruled.as_ref().map(|ruled| bin::Ruled {
        value: ruled.value,
        rule: ruled.rule.0,
        texts: TEXTS,
    })
}

fn encode_quotas(quotas: &Quotas) -> bin::Quotas<'static> {
    let Quotas { areas, ipc } = quotas;
    let area = |limits: &Limits| {
        let Limits { soft, hard, inodes } = limits;
        bin::Quota {
            soft: encode_ruled(soft),
            hard: encode_ruled(hard),
            inodes: encode_ruled(inodes),
            texts: TEXTS,
        }
    };
    bin::Quotas {
        areas: areas.iter().map(area).collect(),
        ipc: ipc.as_ref().map(encode_ipc),
        texts: TEXTS,
    }
}

fn encode_ipc(says: &ipc::Says) -> bin::Ipc<'static> {
    let limits = (0_u8..).zip(&says.limits).filter(|(_, limit)| limit.is_some());
    bin::Ipc {
        limits: limits
            .map(|(which, limit)| bin::IpcLimit {
                which,
                limit: encode_ruled(limit),
                texts: TEXTS,
            })
            .collect(),
        texts: TEXTS,
    }
}

fn encode_ports(ports: &[PortRange]) -> Vec<(u16, u16)> {
    ports.iter().map(|range| (range.first(), range.last())).collect()
}

fn encode_egress(egress: &Egress) -> bin::Egress<'_> {
    let Egress { rules, names, binds } = egress;
    let address = |rule: &EgressRule| {
        let (six, address) = match rule.cidr.address() {
            IpAddr::V4(v4) => (false, u128::from(v4.to_bits())),
            IpAddr::V6(v6) => (true, v6.to_bits()),
        };
        bin::EgressRule {
            effect: effect_number(rule.effect),
            protocol: protocol_number(rule.protocol),
            six,
            address,
            prefix: rule.cidr.prefix(),
            ports: encode_ports(&rule.ports),
            rule: rule.rule.0,
            texts: TEXTS,
        }
    };
    bin::Egress {
        rules: rules.iter().map(address).collect(),
        names: names.iter().map(encode_name).collect(),
        binds: binds
            .iter()
            .map(|bind| bin::BindRule {
                protocol: protocol_number(bind.protocol),
                ports: encode_ports(&bind.ports),
                rule: bind.rule.0,
                texts: TEXTS,
            })
            .collect(),
        texts: TEXTS,
    }
}

fn encode_name(rule: &NameRule) -> bin::NameRule<'_> {
    bin::NameRule {
        effect: effect_number(rule.effect),
        protocol: protocol_number(rule.protocol),
        below: rule.pattern.is_below(),
        name: rule.pattern.name(),
        ports: encode_ports(&rule.ports),
        rule: rule.rule.0,
        texts: TEXTS,
    }
}

fn encode_abi(abi: &Abi) -> bin::Abi<'_> {
    // What is spread out over this machine's numbers is spread out again where it is loaded.
    let Abi {
        rules: _,
        probed: _,
        written,
        probes,
    } = abi;
    bin::Abi {
        rules: written.iter().map(encode_written).collect(),
        probed: probes
            .iter()
            .map(|(name, rule)| bin::Probe {
                name,
                rule: rule.0,
                texts: TEXTS,
            })
            .collect(),
        texts: TEXTS,
    }
}

fn encode_written(rule: &WrittenRule) -> bin::SyscallRule<'_> {
    bin::SyscallRule {
        calls: rule.calls.iter().map(String::as_str).collect(),
        effect: effect_number(rule.effect),
        errno: rule.errno.raw(),
        when: rule.when.iter().map(encode_condition).collect(),
        rule: rule.rule.0,
        texts: TEXTS,
    }
}

fn encode_condition(condition: &Written) -> bin::Condition<'static> {
    let (kind, index, values) = match condition {
        Written::Arg { index, test } => {
            let (kind, values) = match test {
                ArgTest::Equal(value) => (0, vec![*value]),
                ArgTest::Masked { mask, value } => (1, vec![*mask, *value]),
                ArgTest::Range { first, last } => (2, vec![*first, *last]),
                ArgTest::OneOf(values) => (3, values.clone()),
                ArgTest::AnyBit(mask) => (4, vec![*mask]),
            };
            (kind, *index, values)
        }
        Written::Egress => (5, 0, Vec::new()),
        Written::Budget(area) => (6, area_number(*area), Vec::new()),
    };
    bin::Condition {
        kind,
        index,
        values,
        texts: TEXTS,
    }
}

fn area_number(area: Area) -> u8 {
    let at = Area::ALL.iter().position(|known| *known == area);
    at.and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX)
}

fn encode_sandbox(sandbox: &Sandbox) -> bin::Sandbox<'_> {
    let Sandbox {
        profile,
        read,
        read_optional,
        env,
        env_set,
        dev,
        work,
        work_protect,
        allow_sockets,
        allow_directories,
        allow_devices,
        memory_bytes,
        processes,
        open_files,
        on_journal_failure,
        audit_rate,
        audit_burst,
        settings,
    } = sandbox;
    bin::Sandbox {
        profile: profile.as_deref(),
        read: read.as_deref().map(encode_paths),
        read_optional: read_optional.as_deref().map(encode_paths),
        env: env.as_ref().map(|env| {
            env.iter()
                .map(|pattern| bin::Pattern {
                    begins: pattern.begins(),
                    open: pattern.is_open(),
                    texts: TEXTS,
                })
                .collect()
        }),
        env_set: env_set
            .iter()
            .map(|(name, value)| bin::Fixed {
                name,
                value,
                texts: TEXTS,
            })
            .collect(),
        dev: dev
            .as_ref()
            .map(|dev| dev.iter().map(|device| device.as_str()).collect()),
        work: work.map(WorkMode::as_str),
        work_protect: work_protect
            .as_ref()
            .map(|paths| paths.iter().map(String::as_str).collect()),
        allow_sockets: *allow_sockets,
        allow_directories: *allow_directories,
        allow_devices: *allow_devices,
        memory_bytes: encode_ruled(memory_bytes),
        processes: encode_ruled(processes),
        open_files: encode_ruled(open_files),
        on_journal_failure: on_journal_failure.map(OnJournalFailure::as_str),
        audit_rate: *audit_rate,
        audit_burst: *audit_burst,
        settings: settings
            .iter()
            .map(|(key, rule)| bin::Setting {
                key,
                rule: rule.0,
                texts: TEXTS,
            })
            .collect(),
        texts: TEXTS,
    }
}

fn encode_paths(paths: &[ViewPath]) -> Vec<bin::Path<'_>> {
    paths
        .iter()
        .map(|path| bin::Path {
            path: &path.path,
            rule: path.rule.0,
            texts: TEXTS,
        })
        .collect()
}
