//! What two policies mean, compared: not which lines changed but what became possible and what no longer is.
//!
//! Exact: destinations, names and arguments are compared as sets, so two trees that mean the same differ in nothing however
//! they are written. A subject's meaning is what it may do; the names of domains and profiles, the places of rules and their
//! ids are no part of it.

mod names;
mod settings;
mod syscalls;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use nexus_abi::{Area, Protocol};
use nexus_net_egress::{PortRange, Reachable, prefixes};

use crate::effective::{EgressLayer, SubjectPolicy};
use crate::layers::Layers;
use crate::policy::Policy;
use crate::size::render_size;

/// Where a destination lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Where {
    /// On the host's network, as long as it is no address of the host itself.
    Outside,
    /// On the host's network where it is an address of the host itself.
    HostOwn,
    /// On the subject's own loopback.
    OwnLoopback,
}

impl Where {
    /// The word in output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Outside => "outside",
            Self::HostOwn => "host",
            Self::OwnLoopback => "own loopback",
        }
    }
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// It can run at all.
    Subject,
    /// Destinations: every one of these addresses at every one of these ports.
    Egress {
        /// Where they lie.
        place: Where,
        /// Over which protocol.
        protocol: Protocol,
        /// The first address.
        first: IpAddr,
        /// The last.
        last: IpAddr,
        /// The ports.
        ports: Vec<PortRange>,
    },
    /// Destinations by name.
    Name {
        /// Over which protocol.
        protocol: Protocol,
        /// A name, or `*.NAME` for all below it.
        name: String,
        /// Names and `*.NAME` that are not meant.
        except: Vec<String>,
        /// The ports.
        ports: Vec<PortRange>,
    },
    /// Calls, with any arguments.
    Calls {
        /// Their names, sorted; several where the same is said of all.
        names: Vec<String>,
    },
    /// Calls with some arguments.
    Arguments {
        /// Their names, sorted; several where the same is said of all.
        names: Vec<String>,
        /// Each a set of arguments in words; one of them must fit.
        patterns: Vec<String>,
        /// Whether there are more patterns than are listed.
        is_cut: bool,
    },
    /// What a denied call is answered; no verdict changed.
    Errno {
        /// Their names, sorted.
        names: Vec<String>,
        /// The errno before and after, `none` where the lack of a rule answers; `several` where it depends on arguments.
        before: String,
        /// After.
        after: String,
    },
    /// A limit of an area.
    Budget {
        /// Which area.
        area: Area,
        /// `soft`, `hard`, `inodes`.
        key: &'static str,
        /// Before; `None`: none is set.
        before: Option<u64>,
        /// After.
        after: Option<u64>,
    },
    /// A path that is shown, with what is below it.
    Path {
        /// The path; `~/` is the caller's home.
        path: String,
        /// Paths below that are not meant, because they were shown before or are shown still.
        except: Vec<String>,
    },
    /// A variable that is passed on: its name, or `NAME*`.
    Variable {
        /// Which.
        name: String,
    },
    /// Another setting.
    Setting {
        /// Which, as it is written.
        key: String,
        /// Before.
        before: String,
        /// After.
        after: String,
    },
}

/// How one subject differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubjectDiff {
    /// What became possible.
    pub wider: Vec<Change>,
    /// What no longer is.
    pub narrower: Vec<Change>,
    /// What is neither: how denied calls are answered, what is recorded, what must be there for a start.
    pub other: Vec<Change>,
}

impl SubjectDiff {
    fn is_empty(&self) -> bool {
        self.wider.is_empty() && self.narrower.is_empty() && self.other.is_empty()
    }

    /// Puts a change of a number or word on the side where it belongs.
    fn put(&mut self, order: std::cmp::Ordering, change: Change) {
        match order {
            std::cmp::Ordering::Less => self.wider.push(change),
            std::cmp::Ordering::Greater => self.narrower.push(change),
            std::cmp::Ordering::Equal => {}
        }
    }
}

/// How two policies differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// The subjects that differ, by name.
    pub subjects: BTreeMap<String, SubjectDiff>,
}

impl Diff {
    /// Whether the two mean the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.subjects.is_empty()
    }

    /// Whether anything became possible.
    #[must_use]
    pub fn is_wider(&self) -> bool {
        self.subjects.values().any(|subject| !subject.wider.is_empty())
    }
}

/// Why two policies cannot be compared exactly.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiffError {
    /// The egress rules fall into too many pieces.
    #[error("subject {}: {why}", crate::fields::quote(.subject))]
    Egress {
        /// Whose.
        subject: String,
        /// Why.
        why: nexus_net_egress::TooComplex,
    },
    /// The argument rules of a call fall into too many cases.
    #[error("subject {}, call `{call}`: {why}", crate::fields::quote(.subject))]
    Call {
        /// Whose.
        subject: String,
        /// Which call.
        call: String,
        /// Why.
        why: nexus_abi_policy::TooComplex,
    },
}

impl Policy {
    /// What becomes possible, and what no longer is, when `after` takes the place of this policy. Exact.
    ///
    /// The subject `*` of a tree counts too: it is what a tree lets everybody else do when it is a ceiling.
    ///
    /// # Errors
    /// [`DiffError`] for rules whose sets no machine could hold.
    pub fn diff(&self, after: &Self) -> Result<Diff, DiffError> {
        let mut out = Diff::default();
        let names: BTreeSet<&str> = self.all_subjects().chain(after.all_subjects()).collect();
        // What nobody says anything of may do: the other side of a subject that is only in one.
        let nothing = SubjectPolicy::nothing();
        let mut shared = syscalls::Shared::default();
        for name in names {
            if self.says_the_same(after, name) {
                continue;
            }
            let (one, other) = (self.subject_or_any(name), after.subject_or_any(name));
            let mut diff = SubjectDiff::default();
            match (&one, &other) {
                (None, Some(_)) => diff.wider.push(Change::Subject),
                (Some(_), None) => diff.narrower.push(Change::Subject),
                _ => {}
            }
            compare(
                one.as_ref().unwrap_or(&nothing),
                other.as_ref().unwrap_or(&nothing),
                name,
                &mut shared,
                &mut diff,
            )?;
            if !diff.is_empty() {
                out.subjects.insert(name.to_owned(), diff);
            }
        }
        Ok(out)
    }
}

fn compare(
    before: &SubjectPolicy,
    after: &SubjectPolicy,
    name: &str,
    shared: &mut syscalls::Shared,
    out: &mut SubjectDiff,
) -> Result<(), DiffError> {
    // Every field of a subject is named here, so that a new one cannot be forgotten.
    let SubjectPolicy {
        name: _,
        domain: _,
        egress,
        syscalls: _,
        budgets: _,
        profile_name: _,
        work: _,
        work_protect: _,
        dev: _,
        fds: _,
        limits: _,
        audit: _,
        settings: _,
        view: _,
        env: _,
        floor: _,
    } = before;
    destinations(egress, &after.egress).map_or_else(
        |why| {
            Err(DiffError::Egress {
                subject: name.to_owned(),
                why,
            })
        },
        |(wider, narrower)| {
            out.wider.extend(wider);
            out.narrower.extend(narrower);
            Ok(())
        },
    )?;
    names::compare(egress, &after.egress, out);
    syscalls::compare(before, after, name, shared, out)?;
    settings::compare(before, after, out);
    Ok(())
}

type Sides = (Vec<Change>, Vec<Change>);

fn destinations(
    before: &Layers<EgressLayer>,
    after: &Layers<EgressLayer>,
) -> Result<Sides, nexus_net_egress::TooComplex> {
    let same = |a: &EgressLayer, b: &EgressLayer| {
        a.rules.len() == b.rules.len()
            && a.rules
                .iter()
                .zip(&b.rules)
                .all(|(a, b)| (a.effect, a.protocol, a.cidr, &a.ports) == (b.effect, b.protocol, b.cidr, &b.ports))
    };
    if before.count() == after.count() && before.iter().zip(after.iter()).all(|(a, b)| same(a, b)) {
        return Ok((Vec::new(), Vec::new()));
    }
    let (one, other) = (reachable(before)?, reachable(after)?);
    let (mut wider, mut narrower) = (Vec::new(), Vec::new());
    for (place, one, other) in [
        (Where::Outside, &one.outside, &other.outside),
        (Where::HostOwn, &one.host_own, &other.host_own),
        (Where::OwnLoopback, &one.own_loopback, &other.own_loopback),
    ] {
        for (side, set) in [
            (&mut wider, other.difference(one)?),
            (&mut narrower, one.difference(other)?),
        ] {
            side.extend(set.pieces().map(|piece| Change::Egress {
                place,
                protocol: piece.protocol,
                first: piece.first,
                last: piece.last,
                ports: piece.ports.to_vec(),
            }));
        }
    }
    Ok((wider, narrower))
}

fn reachable(layers: &Layers<EgressLayer>) -> Result<Reachable, nexus_net_egress::TooComplex> {
    let mut out: Option<Reachable> = None;
    for layer in layers.iter().rev() {
        let of = Reachable::of(&layer.rules)?;
        out = Some(match out {
            Some(inner) => inner.under(&of)?,
            None => of,
        });
    }
    match out {
        Some(out) => Ok(out),
        None => Reachable::of(&[]),
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |ports: &[PortRange]| ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        match self {
            Self::Subject => f.write_str("it can run"),
            Self::Egress {
                place,
                protocol,
                first,
                last,
                ports,
            } => {
                let cidrs = prefixes(*first, *last);
                match cidrs.as_slice() {
                    [one] => write!(f, "{protocol} {one}:{}", list(ports))?,
                    _ => write!(f, "{protocol} {first} to {last}, ports {}", list(ports))?,
                }
                match place {
                    Where::Outside => Ok(()),
                    Where::HostOwn => f.write_str(" (where it is an address of this host)"),
                    Where::OwnLoopback => f.write_str(" (the subject's own loopback)"),
                }
            }
            Self::Name {
                protocol,
                name,
                except,
                ports,
            } => {
                write!(f, "{protocol} {name}:{}", list(ports))?;
                but_not(f, except)
            }
            Self::Calls { names } => write!(f, "syscalls {}", names.join(" ")),
            Self::Arguments {
                names,
                patterns,
                is_cut,
            } => {
                write!(f, "syscalls {}: {}", names.join(" "), patterns.join("; or "))?;
                f.write_str(if *is_cut { "; and more" } else { "" })
            }
            Self::Errno { names, before, after } => {
                write!(
                    f,
                    "syscalls {}: denied with {after} instead of {before}",
                    names.join(" ")
                )
            }
            Self::Budget {
                area,
                key,
                before,
                after,
            } => {
                let word = |value: &Option<u64>| match value {
                    None => "none".to_owned(),
                    Some(value) if *key == "inodes" => value.to_string(),
                    Some(value) => render_size(*value),
                };
                write!(f, "{area} {key} {} -> {}", word(before), word(after))
            }
            Self::Path { path, except } => {
                write!(f, "path {path}")?;
                but_not(f, except)
            }
            Self::Variable { name } => write!(f, "variable {name}"),
            Self::Setting { key, before, after } => write!(f, "{key}: {before} -> {after}"),
        }
    }
}

fn but_not(f: &mut fmt::Formatter<'_>, except: &[String]) -> fmt::Result {
    if except.is_empty() {
        return Ok(());
    }
    write!(f, " (not {})", except.join(", "))
}
