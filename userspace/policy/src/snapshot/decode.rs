//! From a snapshot's form to a tree: everything that a tree's reader would refuse is refused here too.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use nexus_abi::{Area, Effect, Errno, Protocol, RuleRef};
use nexus_abi_policy::ArgTest;
use nexus_net_egress::{Cidr, EgressRule, PortRange};
use nexus_snapshot as bin;
use nexus_snapshot::Sealed;

use super::SnapshotError;
use crate::abi::{Abi, WrittenRule};
use crate::conditions::Written;
use crate::diagnostic::{FileId, Place, Sources};
use crate::egress::{BindRule, Egress};
use crate::ipc;
use crate::limits::{DOMAINS_MAX, FILES_MAX, RULES_MAX, SUBJECTS_MAX};
use crate::names::{NamePattern, NameRule};
use crate::paths::{relative_path_problem, view_path_problem};
use crate::quotas::{Limits, Quotas};
use crate::rules::{RuleId, RuleKind, RuleTable};
use crate::sandbox::{SETTINGS, Sandbox};
use crate::scope::{ANY_SUBJECT, Declared, Part, Ruled, Scope, Scopes, name_problem};
use crate::settings::{Device, EnvPattern, OnJournalFailure, ViewPath, WorkMode};
use crate::tree_rules::Tree;

type Result<T> = std::result::Result<T, SnapshotError>;

const fn no(what: &'static str) -> SnapshotError {
    SnapshotError::Impossible(what)
}

/// A tree of what a snapshot says.
pub(super) fn decode(sealed: &Sealed<'_>) -> Result<Tree> {
    let snapshot = &sealed.snapshot;
    let counts = [
        (snapshot.files.len(), FILES_MAX),
        // Probes and the keys of sandbox.toml are counted too.
        (snapshot.rules.len(), RULES_MAX),
        (snapshot.domains.len(), DOMAINS_MAX),
        (snapshot.subjects.len(), SUBJECTS_MAX),
    ];
    if counts.iter().any(|(count, count_max)| count > count_max) {
        return Err(no("how much there is"));
    }
    let mut sources = Sources::default();
    for file in &snapshot.files {
        sources.add(file.path.to_owned(), Arc::from(""));
    }
    let mut rules = RuleTable::default();
    let text_bytes = snapshot.rules.iter().map(|rule| rule.text.len()).sum();
    rules.reserve(snapshot.rules.len(), text_bytes);
    for rule in &snapshot.rules {
        let kind = RuleKind::ALL.get(usize::from(rule.kind)).ok_or(no("a rule"))?;
        if usize::from(rule.file) >= snapshot.files.len() {
            return Err(no("a rule's file"));
        }
        let id = RuleId::new(*kind, rule.hash);
        rules.add_printed(id, FileId(u32::from(rule.file)), rule.line, rule.text);
    }
    let decoder = Decoder {
        rules: snapshot.rules.len(),
    };
    let all = |scopes: &[bin::Scope<'_>]| -> Result<BTreeMap<String, Declared>> {
        if !scopes.is_sorted_by(|a, b| a.name < b.name) {
            return Err(no("the order of names"));
        }
        scopes
            .iter()
            .map(|scope| Ok((scope.name.to_owned(), decoder.scope(scope)?)))
            .collect()
    };
    let scopes = Scopes {
        domains: all(&snapshot.domains)?,
        subjects: all(&snapshot.subjects)?,
    };
    let named = scopes.domains.keys().any(|name| name_problem(name).is_some())
        || (scopes.subjects.keys()).any(|name| name != ANY_SUBJECT && name_problem(name).is_some());
    let lost = scopes.subjects.values().filter_map(|subject| subject.domain.as_ref());
    if named || lost.into_iter().any(|(domain, _)| !scopes.domains.contains_key(domain)) {
        return Err(no("a name"));
    }
    Ok(Tree {
        sources,
        scopes,
        rules,
        canonical: snapshot.canonical.to_owned(),
        said: None,
        hashes: Some(
            snapshot
                .files
                .iter()
                .map(|file| (file.path.to_owned(), file.hash))
                .collect(),
        ),
    })
}

struct Decoder {
    rules: usize,
}

/// Only errors of a tree's own text have a place; a snapshot has none.
fn nowhere() -> Place {
    Place::new(FileId(0), 0..0)
}

fn part<T>(says: T) -> Part<T> {
    Part {
        header: nowhere(),
        says,
    }
}

fn word<T: Copy>(known: &[T], text: fn(T) -> &'static str, given: &str) -> Result<T> {
    let found = known.iter().copied().find(|word| text(*word) == given);
    found.ok_or(no("a setting"))
}

fn effect(number: u8) -> Result<Effect> {
    match number {
        0 => Ok(Effect::Allow),
        1 => Ok(Effect::Deny),
        _ => Err(no("an effect")),
    }
}

fn protocol(number: u8) -> Result<Protocol> {
    match number {
        0 => Ok(Protocol::Tcp),
        1 => Ok(Protocol::Udp),
        _ => Err(no("a protocol")),
    }
}

fn ports(ranges: &[(u16, u16)]) -> Result<Vec<PortRange>> {
    let ranges = ranges.iter().map(|(first, last)| PortRange::new(*first, *last));
    ranges.collect::<std::result::Result<_, _>>().map_err(|_| no("ports"))
}

impl Decoder {
    fn rule(&self, rule: u32) -> Result<RuleRef> {
        if usize::try_from(rule).is_ok_and(|at| at < self.rules) {
            Ok(RuleRef(rule))
        } else {
            Err(no("a rule's place"))
        }
    }

    fn scope(&self, scope: &bin::Scope<'_>) -> Result<Declared> {
        // A domain has none of these.
        let default = |rule: u32| {
            if rule == u32::MAX {
                Ok(RuleRef(rule))
            } else {
                self.rule(rule)
            }
        };
        Ok(Declared {
            at: nowhere(),
            domain: scope.domain.map(|domain| (domain.to_owned(), nowhere())),
            scope: Scope {
                quotas: scope
                    .quotas
                    .as_ref()
                    .map(|says| self.quotas(says))
                    .transpose()?
                    .map(part),
                egress: scope
                    .egress
                    .as_ref()
                    .map(|says| self.egress(says))
                    .transpose()?
                    .map(part),
                abi: scope.abi.as_ref().map(|says| self.abi(says)).transpose()?.map(part),
                sandbox: scope
                    .sandbox
                    .as_ref()
                    .map(|says| self.sandbox(says))
                    .transpose()?
                    .map(part),
            },
            no_egress: default(scope.no_egress)?,
            no_abi: default(scope.no_abi)?,
        })
    }

    fn ruled(&self, ruled: &Option<bin::Ruled<'_>>) -> Result<Option<Ruled<u64>>> {
        let Some(ruled) = ruled else { return Ok(None) };
        Ok(Some(Ruled {
            value: ruled.value,
            rule: self.rule(ruled.rule)?,
            place: nowhere(),
        }))
    }

    fn quotas(&self, quotas: &bin::Quotas<'_>) -> Result<Quotas> {
        let mut out = Quotas::default();
        if quotas.areas.len() != out.areas.len() {
            return Err(no("areas"));
        }
        for (to, from) in out.areas.iter_mut().zip(&quotas.areas) {
            *to = Limits {
                soft: self.ruled(&from.soft)?,
                hard: self.ruled(&from.hard)?,
                inodes: self.ruled(&from.inodes)?,
            };
        }
        out.ipc = quotas.ipc.as_ref().map(|says| self.ipc(says)).transpose()?;
        Ok(out)
    }

    fn ipc(&self, says: &bin::Ipc<'_>) -> Result<ipc::Says> {
        let mut out = ipc::Says::default();
        for bound in &says.limits {
            let slot = out
                .limits
                .get_mut(usize::from(bound.which))
                .ok_or(no("a limit of ipc"))?;
            *slot = self.ruled(&bound.limit)?;
        }
        Ok(out)
    }

    fn egress(&self, egress: &bin::Egress<'_>) -> Result<Egress> {
        let address = |rule: &bin::EgressRule<'_>| {
            let address = match (rule.six, u32::try_from(rule.address)) {
                (true, _) => IpAddr::V6(Ipv6Addr::from_bits(rule.address)),
                (false, Ok(v4)) => IpAddr::V4(Ipv4Addr::from_bits(v4)),
                (false, Err(_)) => return Err(no("an address")),
            };
            Ok(EgressRule {
                effect: effect(rule.effect)?,
                protocol: protocol(rule.protocol)?,
                cidr: Cidr::new(address, rule.prefix).map_err(|_| no("an address"))?,
                ports: ports(&rule.ports)?,
                rule: self.rule(rule.rule)?,
            })
        };
        let name = |rule: &bin::NameRule<'_>| {
            Ok(NameRule {
                effect: effect(rule.effect)?,
                protocol: protocol(rule.protocol)?,
                pattern: NamePattern::of_parts(rule.name, rule.below).ok_or(no("a name"))?,
                ports: ports(&rule.ports)?,
                rule: self.rule(rule.rule)?,
            })
        };
        let bind = |rule: &bin::BindRule<'_>| {
            Ok(BindRule {
                protocol: protocol(rule.protocol)?,
                ports: ports(&rule.ports)?,
                rule: self.rule(rule.rule)?,
            })
        };
        Ok(Egress {
            rules: egress.rules.iter().map(address).collect::<Result<_>>()?,
            names: egress.names.iter().map(name).collect::<Result<_>>()?,
            binds: egress.binds.iter().map(bind).collect::<Result<_>>()?,
        })
    }

    fn abi(&self, abi: &bin::Abi<'_>) -> Result<Abi> {
        let rule = |rule: &bin::SyscallRule<'_>| {
            Ok(WrittenRule {
                calls: rule.calls.iter().map(|name| (*name).to_owned()).collect(),
                effect: effect(rule.effect)?,
                errno: Errno::from_raw(rule.errno).ok_or(no("an errno"))?,
                when: rule.when.iter().map(condition).collect::<Result<_>>()?,
                rule: self.rule(rule.rule)?,
            })
        };
        let probes = abi
            .probed
            .iter()
            .map(|probe| Ok((probe.name.to_owned(), self.rule(probe.rule)?)));
        Abi::of_written(
            abi.rules.iter().map(rule).collect::<Result<_>>()?,
            probes.collect::<Result<_>>()?,
        )
        .ok_or(no("a syscall"))
    }

    fn paths(&self, paths: &Option<Vec<bin::Path<'_>>>, optional: bool) -> Result<Option<Vec<ViewPath>>> {
        let Some(paths) = paths else { return Ok(None) };
        let path = |path: &bin::Path<'_>| {
            if view_path_problem(path.path).is_some() {
                return Err(no("a path"));
            }
            Ok(ViewPath {
                path: path.path.to_owned(),
                optional,
                rule: self.rule(path.rule)?,
            })
        };
        paths.iter().map(path).collect::<Result<_>>().map(Some)
    }

    fn sandbox(&self, sandbox: &bin::Sandbox<'_>) -> Result<Sandbox> {
        let pattern =
            |pattern: &bin::Pattern<'_>| EnvPattern::of_parts(pattern.begins, pattern.open).ok_or(no("a variable"));
        let protect = |path: &&str| {
            if relative_path_problem(path).is_some() {
                return Err(no("a path"));
            }
            Ok((*path).to_owned())
        };
        let setting = |setting: &bin::Setting<'_>| {
            let key = SETTINGS
                .into_iter()
                .find(|key| *key == setting.key)
                .ok_or(no("a key"))?;
            Ok((key, self.rule(setting.rule)?))
        };
        Ok(Sandbox {
            profile: sandbox.profile.map(str::to_owned),
            read: self.paths(&sandbox.read, false)?,
            read_optional: self.paths(&sandbox.read_optional, true)?,
            env: sandbox
                .env
                .as_ref()
                .map(|env| env.iter().map(pattern).collect::<Result<BTreeSet<_>>>())
                .transpose()?,
            env_set: sandbox
                .env_set
                .iter()
                .map(|fixed| (fixed.name.to_owned(), fixed.value.to_owned()))
                .collect(),
            dev: sandbox
                .dev
                .as_ref()
                .map(|dev| {
                    dev.iter()
                        .map(|name| word(&Device::ALL, Device::as_str, name))
                        .collect::<Result<BTreeSet<_>>>()
                })
                .transpose()?,
            work: sandbox
                .work
                .map(|mode| word(&WorkMode::ALL, WorkMode::as_str, mode))
                .transpose()?,
            work_protect: sandbox
                .work_protect
                .as_ref()
                .map(|paths| paths.iter().map(protect).collect::<Result<BTreeSet<_>>>())
                .transpose()?,
            allow_sockets: sandbox.allow_sockets,
            allow_directories: sandbox.allow_directories,
            allow_devices: sandbox.allow_devices,
            memory_bytes: self.ruled(&sandbox.memory_bytes)?,
            processes: self.ruled(&sandbox.processes)?,
            open_files: self.ruled(&sandbox.open_files)?,
            on_journal_failure: sandbox
                .on_journal_failure
                .map(|failure| word(&OnJournalFailure::ALL, OnJournalFailure::as_str, failure))
                .transpose()?,
            audit_rate: sandbox.audit_rate,
            audit_burst: sandbox.audit_burst,
            settings: sandbox.settings.iter().map(setting).collect::<Result<_>>()?,
        })
    }
}

fn condition(condition: &bin::Condition<'_>) -> Result<Written> {
    let test = match (condition.kind, condition.values.as_slice()) {
        (0, [value]) => ArgTest::Equal(*value),
        (1, [mask, value]) => ArgTest::Masked {
            mask: *mask,
            value: *value,
        },
        (2, [first, last]) => ArgTest::Range {
            first: *first,
            last: *last,
        },
        (3, values) => ArgTest::OneOf(values.to_vec()),
        (4, [mask]) => ArgTest::AnyBit(*mask),
        (5, []) => return Ok(Written::Egress),
        (6, []) => {
            let area = Area::ALL.get(usize::from(condition.index)).ok_or(no("an area"))?;
            return Ok(Written::Budget(*area));
        }
        _ => return Err(no("a condition")),
    };
    Ok(Written::Arg {
        index: condition.index,
        test,
    })
}
