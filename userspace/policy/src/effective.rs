//! What a subject may do, after its domain, its own overrides and the ceilings.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash as _, Hasher as _};

use nexus_abi::{Area, RuleRef};
use nexus_abi_policy::Profile;
use nexus_net_egress::{CompileError, EgressRule};
use nexus_quota::Budget;

use crate::egress::BindRule;
use crate::gate::EgressGate;
use crate::ipc::IpcBudget;
use crate::layers::Layers;
use crate::names::NameRule;
use crate::paths::{expand, is_within};
use crate::profile_id::ProfileId;
use crate::quotas::Limits as AreaLimits;
use crate::sandbox::Sandbox;
use crate::scope::{Declared, Ruled};
use crate::settings::{Device, EnvPattern, OnJournalFailure, ViewPath, WorkMode};

/// Records of one reason that a subject writes per second where policy says nothing: a reader sees what happens, and a
/// program that is denied in a loop fills no disk.
pub const AUDIT_RATE_DEFAULT: u64 = 20;

/// Records of one reason that a subject may write at once where policy says nothing: the start of a usual program, with
/// each of its denies.
pub const AUDIT_BURST_DEFAULT: u64 = 100;

/// The egress rules of one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressLayer {
    /// Rules by address: the domain's, then the subject's own.
    pub rules: Vec<EgressRule>,
    /// Rules by name, in the same order.
    pub names: Vec<NameRule>,
    /// Ports to bind on the host, in the same order.
    pub binds: Vec<BindRule>,
    /// Stands for the lack of a rule: where one would be written.
    pub no_rule: RuleRef,
}

/// The syscall rules of one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyscallLayer {
    /// The domain's rules, then the subject's own.
    pub profile: Profile,
    /// What is listed as probed, and where.
    pub probes: Vec<(Vec<u32>, RuleRef)>,
    /// Stands for the lack of a rule: where one would be written.
    pub no_rule: RuleRef,
}

/// The budget of an area and the rules that set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AreaBudget {
    /// The limits. Where policy gives none, nothing may be written: zero bytes and inodes.
    pub budget: Budget,
    /// Who set the soft limit.
    pub soft_rule: Option<RuleRef>,
    /// Who set the hard limit of bytes.
    pub hard_rule: Option<RuleRef>,
    /// Who set the limit of inodes.
    pub inodes_rule: Option<RuleRef>,
}

/// The budgets of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// `/tmp`, `/var/tmp`, `/dev/shm`.
    pub tmp: AreaBudget,
    /// `/state`.
    pub state: AreaBudget,
    /// The directory that the run names: what it may grow by.
    pub work: AreaBudget,
    /// Shared memory, queues and memory files of each session.
    pub ipc: IpcBudget,
}

impl Budgets {
    /// The budget of an area; `None` for an area that policy does not speak of.
    #[must_use]
    pub fn get(&self, area: Area) -> Option<&AreaBudget> {
        match area {
            Area::Tmp => Some(&self.tmp),
            Area::State => Some(&self.state),
            Area::Work => Some(&self.work),
            _ => None,
        }
    }
}

/// Which inherited descriptors a session takes besides files, pipes, the terminal and `/dev/null`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InheritedFds {
    /// Sockets.
    pub allow_sockets: bool,
    /// Directories.
    pub allow_directories: bool,
    /// Devices other than the terminal and `/dev/null`.
    pub allow_devices: bool,
}

/// A limit and who set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The limit.
    pub value: u64,
    /// The rule.
    pub rule: RuleRef,
}

/// Limits of a session's resources; `None`: policy sets none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory.
    pub memory_bytes: Option<Limit>,
    /// Processes and threads.
    pub processes: Option<Limit>,
    /// Open files of one process.
    pub open_files: Option<Limit>,
}

/// How much is written of what is denied. Counters are exact whatever these say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditSettings {
    /// Records per second of one reason.
    pub rate: u64,
    /// Records of one reason at once.
    pub burst: u64,
    /// What happens when nothing can be written.
    pub on_journal_failure: OnJournalFailure,
}

/// What becomes of a variable of the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvDecision {
    /// It is not passed on.
    Drop,
    /// It is passed on as it is.
    Pass,
    /// It has this value, whatever the caller's is.
    Set(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct EnvLayer {
    pub(crate) pass: BTreeSet<EnvPattern>,
    pub(crate) set: BTreeMap<String, String>,
}

impl EnvLayer {
    fn decide(&self, name: &str) -> EnvDecision {
        match self.set.get(name) {
            Some(value) => EnvDecision::Set(value.clone()),
            None if self.pass.iter().any(|pattern| pattern.covers(name)) => EnvDecision::Pass,
            None => EnvDecision::Drop,
        }
    }
}

/// What one subject may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectPolicy {
    /// Who.
    pub name: String,
    /// The group whose rules it inherits.
    pub domain: Option<String>,
    /// Where it may connect and send.
    pub egress: Layers<EgressLayer>,
    /// Which syscalls it may make.
    pub syscalls: Layers<SyscallLayer>,
    /// What it may write.
    pub budgets: Budgets,
    /// The name of the sandbox profile, to show.
    pub profile_name: String,
    /// What it may do with `work`.
    pub work: WorkMode,
    /// Paths below `work` that stay read-only where the rest may be written.
    pub work_protect: BTreeSet<String>,
    /// Which devices it has.
    pub dev: BTreeSet<Device>,
    /// Which descriptors it inherits.
    pub fds: InheritedFds,
    /// What it may use.
    pub limits: Limits,
    /// What is written of it.
    pub audit: AuditSettings,
    /// Where each key of `sandbox.toml` stands that is no list of rules, by its name; one map for each layer.
    pub settings: Layers<BTreeMap<&'static str, RuleRef>>,
    pub(crate) view: Layers<Vec<ViewPath>>,
    pub(crate) env: Layers<EnvLayer>,
    /// [`nexus_abi_policy::floor`], kept here so that no judge of the profiles can forget it.
    pub(crate) floor: &'static Profile,
}

impl SubjectPolicy {
    /// The read-only paths of the view, sorted, each once; `home` is what `~/` stands for, and without it such paths are
    /// left out. A ceiling shows what both lists show: of two paths of which one lies in the other, the inner one.
    /// Paths are compared as text; a symbolic link is another path than its target.
    #[must_use]
    pub fn view(&self, home: Option<&str>) -> Vec<ViewPath> {
        let expanded = |paths: &Vec<ViewPath>| -> Vec<ViewPath> {
            paths
                .iter()
                .filter_map(|path| {
                    Some(ViewPath {
                        path: expand(&path.path, home)?,
                        ..path.clone()
                    })
                })
                .collect()
        };
        let shown = self.view.narrow(expanded, |inner, ceiling| {
            let ceiling = expanded(ceiling);
            inner
                .iter()
                .flat_map(|path| ceiling.iter().filter_map(|other| intersect(path, other)))
                .collect()
        });
        let mut out: BTreeMap<String, ViewPath> = BTreeMap::new();
        for path in shown {
            match out.get_mut(&path.path) {
                // Said twice: it must be there if one of the two says so.
                Some(earlier) => earlier.optional &= path.optional,
                None => {
                    out.insert(path.path.clone(), path);
                }
            }
        }
        out.into_values().collect()
    }

    /// What becomes of a variable. Under a ceiling the narrower of the two counts, and of two fixed values the ceiling's.
    #[must_use]
    pub fn env_decision(&self, name: &str) -> EnvDecision {
        self.env.narrow(
            |own| own.decide(name),
            |inner, ceiling| match (inner, ceiling.decide(name)) {
                (EnvDecision::Drop, _) | (_, EnvDecision::Drop) => EnvDecision::Drop,
                (_, EnvDecision::Set(value)) => EnvDecision::Set(value),
                (inner, EnvDecision::Pass) => inner,
            },
        )
    }

    /// The environment that the program gets: what is passed on of the caller's, and what is fixed.
    pub fn environment(&self, inherited: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
        let passed = inherited
            .into_iter()
            .filter_map(|(name, value)| match self.env_decision(&name) {
                EnvDecision::Pass => Some((name, value)),
                EnvDecision::Drop | EnvDecision::Set(_) => None,
            });
        let fixed =
            self.env
                .iter()
                .flat_map(|layer| layer.set.keys())
                .filter_map(|name| match self.env_decision(name) {
                    EnvDecision::Set(value) => Some((name.clone(), value)),
                    EnvDecision::Drop | EnvDecision::Pass => None,
                });
        passed.chain(fixed).collect()
    }

    /// The patterns of variables that are passed on, one set for each layer; a variable must be in all.
    #[must_use]
    pub fn env_patterns(&self) -> Layers<BTreeSet<EnvPattern>> {
        self.env.map(|layer| layer.pass.clone())
    }

    /// The egress rules, ready to judge.
    ///
    /// # Errors
    /// Where the matcher cannot hold the rules, although the tree's own bounds were kept.
    pub fn egress_gate(&self) -> Result<EgressGate, CompileError> {
        EgressGate::new(&self.egress)
    }

    /// The syscall profiles, the outermost ceiling first and what no policy can open last, as
    /// `nexus_abi_policy::Guard::new` and `compile` take them.
    #[must_use]
    pub fn profiles(&self) -> Vec<&Profile> {
        let written = self.syscalls.iter().map(|layer| &layer.profile);
        written.chain(std::iter::once(self.floor)).collect()
    }

    /// As [`SubjectPolicy::profiles`], as a session has them in force: what a rule asks of a budget is judged by the file server,
    /// when something grows (`Profile::in_front_of_the_ledger`).
    #[must_use]
    pub fn profiles_in_force(&self) -> Vec<Cow<'_, Profile>> {
        let written = self.profiles().into_iter();
        written.map(Profile::in_front_of_the_ledger).collect()
    }

    /// A number that is the same for subjects that have the very same syscall rules at the same places: to do once what
    /// follows from these alone. For nothing that is kept: [`SubjectPolicy::profile_id`] is for that.
    #[must_use]
    pub fn profile_key(&self) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        for layer in self.syscalls.iter() {
            layer.profile.rules.hash(&mut hasher);
            layer.profile.probed.hash(&mut hasher);
        }
        hasher.finish()
    }

    /// The same for subjects that have the very same syscall rules wherever these stand.
    pub(crate) fn meaning_key(&self) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        for layer in self.syscalls.iter() {
            layer.profile.rules.len().hash(&mut hasher);
            for rule in &layer.profile.rules {
                (rule.number, rule.effect, rule.errno, &rule.conditions).hash(&mut hasher);
            }
            layer.profile.probed.hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Which syscalls it may make, as a number.
    #[must_use]
    pub fn profile_id(&self) -> ProfileId {
        ProfileId::of(&self.syscalls)
    }
}

fn intersect(path: &ViewPath, other: &ViewPath) -> Option<ViewPath> {
    if path.path == other.path {
        return Some(ViewPath {
            optional: path.optional && other.optional,
            ..path.clone()
        });
    }
    if is_within(&path.path, &other.path) {
        return Some(path.clone());
    }
    // What the program asked for is wider than what it gets: that the inner part is missing stops nobody.
    is_within(&other.path, &path.path).then(|| ViewPath {
        optional: true,
        ..other.clone()
    })
}

/// The value that counts: the subject's own, else its domain's.
fn pick<'d, T: 'd>(
    subject: &'d Declared,
    domain: Option<&'d Declared>,
    get: impl Fn(&'d Sandbox) -> Option<T>,
) -> Option<T> {
    let own = subject.scope.sandbox.as_ref().and_then(|part| get(&part.says));
    own.or_else(|| domain?.scope.sandbox.as_ref().and_then(|part| get(&part.says)))
}

pub(crate) fn work_mode(subject: &Declared, domain: Option<&Declared>) -> WorkMode {
    pick(subject, domain, |says| says.work).unwrap_or(WorkMode::None)
}

/// The limits of each area, in the order of [`Area::ALL`].
pub(crate) fn merged_limits(subject: &Declared, domain: Option<&Declared>) -> [AreaLimits; Area::ALL.len()] {
    Area::ALL.map(|area| {
        let of = |declared: &Declared| {
            declared
                .scope
                .quotas
                .as_ref()
                .and_then(|part| part.says.area(area))
                .cloned()
        };
        let own = of(subject).unwrap_or_default();
        let inherited = domain.and_then(of).unwrap_or_default();
        AreaLimits {
            soft: own.soft.or(inherited.soft),
            hard: own.hard.or(inherited.hard),
            inodes: own.inodes.or(inherited.inodes),
        }
    })
}

/// What one tree says of a subject, with its rules where the whole policy's table has them.
pub(crate) struct Layer {
    pub(crate) egress: EgressLayer,
    pub(crate) syscalls: SyscallLayer,
    pub(crate) budgets: Budgets,
    pub(crate) profile_name: Option<String>,
    pub(crate) view: Vec<ViewPath>,
    pub(crate) env: EnvLayer,
    pub(crate) dev: BTreeSet<Device>,
    pub(crate) work: WorkMode,
    pub(crate) work_protect: BTreeSet<String>,
    pub(crate) fds: InheritedFds,
    pub(crate) limits: Limits,
    pub(crate) audit: AuditSettings,
    pub(crate) settings: BTreeMap<&'static str, RuleRef>,
}

impl Layer {
    pub(crate) fn new(subject: &Declared, domain: Option<&Declared>, first_rule: u32) -> Self {
        let shift = |rule: RuleRef| RuleRef(rule.0.saturating_add(first_rule));
        let scopes = || {
            domain
                .into_iter()
                .chain(std::iter::once(subject))
                .map(|declared| &declared.scope)
        };
        let egress = EgressLayer {
            rules: scopes()
                .filter_map(|scope| scope.egress.as_ref())
                .flat_map(|part| &part.says.rules)
                .map(|rule| EgressRule {
                    rule: shift(rule.rule),
                    ..rule.clone()
                })
                .collect(),
            names: scopes()
                .filter_map(|scope| scope.egress.as_ref())
                .flat_map(|part| &part.says.names)
                .map(|rule| NameRule {
                    rule: shift(rule.rule),
                    ..rule.clone()
                })
                .collect(),
            binds: scopes()
                .filter_map(|scope| scope.egress.as_ref())
                .flat_map(|part| &part.says.binds)
                .map(|rule| BindRule {
                    rule: shift(rule.rule),
                    ..rule.clone()
                })
                .collect(),
            no_rule: shift(subject.no_egress),
        };
        let mut profile = Profile::default();
        let mut probes = Vec::new();
        for part in scopes().filter_map(|scope| scope.abi.as_ref()) {
            profile.rules.extend(crate::abi::shifted(&part.says.rules, shift));
            profile.probed.extend(&part.says.probed);
            let written = part.says.probes.iter();
            probes.extend(written.map(|(name, rule)| (crate::abi::numbers_of(name), shift(*rule))));
        }
        profile.probed.sort_unstable();
        profile.probed.dedup();
        let [tmp, state, work] = merged_limits(subject, domain).map(|limits| area_budget(&limits, shift));
        fn says_of_ipc(declared: &Declared) -> Option<&crate::ipc::Says> {
            declared.scope.quotas.as_ref().and_then(|part| part.says.ipc.as_ref())
        }
        let ipc = IpcBudget::merged(says_of_ipc(subject), domain.and_then(says_of_ipc), shift);
        let limit = |get: fn(&Sandbox) -> &Option<Ruled<u64>>| {
            pick(subject, domain, |says| get(says).as_ref()).map(|ruled| Limit {
                value: ruled.value,
                rule: shift(ruled.rule),
            })
        };
        let mut view = Vec::new();
        for list in [
            pick(subject, domain, |says| says.read.as_ref()),
            pick(subject, domain, |says| says.read_optional.as_ref()),
        ] {
            let paths = list.into_iter().flatten();
            view.extend(paths.map(|path| ViewPath {
                rule: shift(path.rule),
                ..path.clone()
            }));
        }
        let mut set = BTreeMap::new();
        for part in scopes().filter_map(|scope| scope.sandbox.as_ref()) {
            set.extend(
                part.says
                    .env_set
                    .iter()
                    .map(|(name, value)| (name.clone(), value.clone())),
            );
        }
        let mut settings = BTreeMap::new();
        for part in scopes().filter_map(|scope| scope.sandbox.as_ref()) {
            settings.extend(part.says.settings.iter().map(|(key, rule)| (*key, shift(*rule))));
        }
        let flag = |get: fn(&Sandbox) -> Option<bool>| pick(subject, domain, get).unwrap_or(false);
        Self {
            egress,
            syscalls: SyscallLayer {
                profile,
                probes,
                no_rule: shift(subject.no_abi),
            },
            budgets: Budgets { tmp, state, work, ipc },
            profile_name: pick(subject, domain, |says| says.profile.clone()),
            view,
            env: EnvLayer {
                pass: pick(subject, domain, |says| says.env.clone()).unwrap_or_default(),
                set,
            },
            dev: pick(subject, domain, |says| says.dev.clone()).unwrap_or_default(),
            work: work_mode(subject, domain),
            work_protect: pick(subject, domain, |says| says.work_protect.clone()).unwrap_or_default(),
            fds: InheritedFds {
                allow_sockets: flag(|says| says.allow_sockets),
                allow_directories: flag(|says| says.allow_directories),
                allow_devices: flag(|says| says.allow_devices),
            },
            limits: Limits {
                memory_bytes: limit(|says| &says.memory_bytes),
                processes: limit(|says| &says.processes),
                open_files: limit(|says| &says.open_files),
            },
            audit: AuditSettings {
                rate: pick(subject, domain, |says| says.audit_rate).unwrap_or(AUDIT_RATE_DEFAULT),
                burst: pick(subject, domain, |says| says.audit_burst).unwrap_or(AUDIT_BURST_DEFAULT),
                on_journal_failure: pick(subject, domain, |says| says.on_journal_failure)
                    .unwrap_or(OnJournalFailure::Stop),
            },
            settings,
        }
    }
}

fn area_budget(limits: &AreaLimits, shift: impl Fn(RuleRef) -> RuleRef) -> AreaBudget {
    let rule = |ruled: &Option<Ruled<u64>>| ruled.as_ref().map(|ruled| shift(ruled.rule));
    let value = |ruled: &Option<Ruled<u64>>| ruled.as_ref().map_or(0, |ruled| ruled.value);
    AreaBudget {
        budget: Budget {
            soft_bytes: limits.soft.as_ref().map(|soft| soft.value),
            hard_bytes: value(&limits.hard),
            hard_inodes: value(&limits.inodes),
        },
        soft_rule: rule(&limits.soft),
        hard_rule: rule(&limits.hard),
        inodes_rule: rule(&limits.inodes),
    }
}
