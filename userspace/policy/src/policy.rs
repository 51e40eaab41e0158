use std::fmt;
use std::sync::{Arc, LazyLock};

use nexus_abi::RuleRef;
use nexus_abi_policy::Profile;
use nexus_snapshot::TreeHash;
use sha2::{Digest as _, Sha256};

use crate::diagnostic::{Diagnostics, Sources};
use crate::effective::{AreaBudget, Budgets, InheritedFds, Layer, Limit, Limits, SubjectPolicy};
use crate::fields::nearest;
use crate::layers::Layers;
use crate::rules::RuleInfo;
use crate::scope::ANY_SUBJECT;
use crate::settings::OnJournalFailure;
use crate::source::TreeSource;
use crate::tree_rules::Tree;

/// Made once: it is the same for everybody.
static FLOOR: LazyLock<Profile> = LazyLock::new(nexus_abi_policy::floor);

/// What a policy says, in 32 bytes: the SHA-256 of its canonical JSON, its ceilings' included. The same on any machine,
/// whatever the comments, the order, the spelling of numbers, and the files that hold the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyVersion([u8; 32]);

impl PolicyVersion {
    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for PolicyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why a policy has no subject of a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSubject {
    /// Its tree declares none.
    #[error("the policy declares no subject {}", crate::fields::quote(.name))]
    Undeclared {
        /// The name.
        name: String,
        /// A declared name that is like it.
        nearest: Option<String>,
    },
    /// The tree declares it, and the administrator's neither names it nor has a subject `*`.
    #[error("the administrator's policy does not let subject {} run", crate::fields::quote(.name))]
    NotUnderCeiling {
        /// The name.
        name: String,
    },
}

impl NoSubject {
    /// What to do next.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Undeclared {
                nearest: Some(nearest), ..
            } => format!("did you mean `{nearest}`?"),
            // Nor is it said once more: whoever chose it may want to speak to a terminal.
            Self::Undeclared { name, nearest: None } if crate::scope::name_problem(name).is_some() => {
                format!("no subject has such a name: {}", crate::scope::NAME_RULE)
            }
            Self::Undeclared { name, nearest: None } => {
                format!("declare `[subject.{name}]` in {}", crate::source::ROOT_FILE)
            }
            Self::NotUnderCeiling { name } => {
                format!(
                    "ask the administrator for `[subject.{name}]` or `[subject.\"*\"]` in the policy of this machine"
                )
            }
        }
    }
}

/// A loaded policy: a tree, and the ceilings over it.
#[derive(Clone, Debug)]
pub struct Policy {
    own: Arc<Tree>,
    /// The outermost first.
    ceilings: Vec<Arc<Tree>>,
    version: PolicyVersion,
}

impl Policy {
    /// Reads a tree whole and checks it.
    ///
    /// # Errors
    /// Everything that is wrong with it, up to a bound; then nothing of it can be used.
    pub fn load(source: &dyn TreeSource) -> Result<Self, Diagnostics> {
        let own = Arc::new(Tree::read(source)?);
        let version = version(&[], &own);
        Ok(Self {
            own,
            ceilings: Vec::new(),
            version,
        })
    }

    /// A policy of a tree that a snapshot held.
    pub(crate) fn of_tree(own: Arc<Tree>, version: [u8; 32]) -> Self {
        Self {
            own,
            ceilings: Vec::new(),
            version: PolicyVersion(version),
        }
    }

    pub(crate) fn own(&self) -> &Tree {
        &self.own
    }

    /// The version of the tree alone, without its ceilings.
    #[must_use]
    pub fn own_version(&self) -> PolicyVersion {
        if self.ceilings.is_empty() {
            self.version
        } else {
            version(&[], &self.own)
        }
    }

    /// The canonical form of the tree alone, without its ceilings': what stands in `policy.json`.
    #[must_use]
    pub fn own_canonical_json(&self) -> &str {
        &self.own.canonical
    }

    /// How many rules the tree has, without its ceilings'; the rules that stand for the lack of one among them.
    #[must_use]
    pub fn rules_count(&self) -> usize {
        self.own.rules.len()
    }

    /// The hash of the tree's files, comments and all, without its ceilings'.
    #[must_use]
    pub fn tree_hash(&self) -> TreeHash {
        self.own.hash()
    }

    /// This policy, narrowed: from now on something is allowed only if both allow it.
    ///
    /// A subject is judged by the ceiling's subject of the same name, else by the ceiling's subject `*`; where there is
    /// neither, it cannot run.
    #[must_use]
    pub fn under_ceiling(&self, ceiling: &Self) -> Self {
        let mut ceilings = ceiling.ceilings.clone();
        ceilings.push(Arc::clone(&ceiling.own));
        ceilings.extend(self.ceilings.iter().cloned());
        let version = version(&ceilings, &self.own);
        Self {
            own: Arc::clone(&self.own),
            ceilings,
            version,
        }
    }

    /// What the policy says, as a number.
    #[must_use]
    pub fn version(&self) -> PolicyVersion {
        self.version
    }

    /// The canonical form that [`Policy::version`] is the hash of.
    #[must_use]
    pub fn canonical_json(&self) -> String {
        canonical(&self.ceilings, &self.own)
    }

    /// The files of the tree itself, without its ceilings'.
    #[must_use]
    pub fn sources(&self) -> &Sources {
        &self.own.sources
    }

    /// How many ceilings narrow the tree.
    #[must_use]
    pub fn ceilings(&self) -> usize {
        self.ceilings.len()
    }

    /// The names of the subjects that can run, sorted.
    pub fn subjects(&self) -> impl Iterator<Item = &str> {
        self.own.scopes.subjects.keys().map(String::as_str).filter(|name| {
            *name != ANY_SUBJECT && self.ceilings.iter().all(|tree| ceiling_subject(tree, name).is_some())
        })
    }

    /// What a subject may do. Made anew for each call: keep it.
    ///
    /// # Errors
    /// [`NoSubject`], where there is none of that name, or the ceiling lets none run.
    pub fn subject(&self, name: &str) -> Result<SubjectPolicy, NoSubject> {
        // `*` is no one: it stands for the others.
        let found = if name == ANY_SUBJECT {
            None
        } else {
            self.own.subject(name)
        };
        let Some((declared, domain)) = found else {
            let nearest = nearest(name, self.subjects()).map(str::to_owned);
            return Err(NoSubject::Undeclared {
                name: name.to_owned(),
                nearest,
            });
        };
        let own_rules = u32::try_from(self.own.rules.len()).unwrap_or(u32::MAX);
        let mut first_rule = own_rules;
        let mut ceilings = Vec::new();
        for tree in &self.ceilings {
            let Some(layer) = ceiling_subject(tree, name) else {
                return Err(NoSubject::NotUnderCeiling { name: name.to_owned() });
            };
            ceilings.push(Layer::new(layer.0, layer.1, first_rule));
            first_rule = first_rule.saturating_add(u32::try_from(tree.rules.len()).unwrap_or(u32::MAX));
        }
        let domain_name = declared.domain.as_ref().map(|(domain, _)| domain.clone());
        Ok(join(name, domain_name, Layer::new(declared, domain, 0), ceilings))
    }

    /// The names of all subjects of the tree, `*` among them, sorted.
    pub(crate) fn all_subjects(&self) -> impl Iterator<Item = &str> {
        let has_any = self.own.scopes.subjects.contains_key(ANY_SUBJECT);
        has_any.then_some(ANY_SUBJECT).into_iter().chain(self.subjects())
    }

    /// What a subject may do, and `*` if it were somebody.
    pub(crate) fn subject_or_any(&self, name: &str) -> Option<SubjectPolicy> {
        if name != ANY_SUBJECT {
            return self.subject(name).ok();
        }
        let (declared, domain) = self.own.subject(name)?;
        Some(join(name, None, Layer::new(declared, domain, 0), Vec::new()))
    }

    /// Whether two trees say the very same of a subject and its domain; they may mean the same and say it differently.
    pub(crate) fn says_the_same(&self, other: &Self, name: &str) -> bool {
        let alone = self.ceilings.is_empty() && other.ceilings.is_empty();
        alone && self.own.says(name).is_some() && self.own.says(name) == other.own.says(name)
    }

    /// What a rule is and where it stands. `None` for a reference of another policy.
    #[must_use]
    pub fn rule(&self, rule: RuleRef) -> Option<RuleInfo> {
        let mut index = usize::try_from(rule.0).ok()?;
        let trees = std::iter::once((&self.own, "")).chain(self.ceilings.iter().map(|tree| (tree, "ceiling:")));
        for (tree, prefix) in trees {
            if index < tree.rules.len() {
                return tree.rules.info(index, &tree.sources, prefix);
            }
            index = index.checked_sub(tree.rules.len())?;
        }
        None
    }
}

/// Who of a ceiling's subjects a name is judged by.
fn ceiling_subject<'t>(
    tree: &'t Tree,
    name: &str,
) -> Option<(&'t crate::scope::Declared, Option<&'t crate::scope::Declared>)> {
    tree.subject(name).or_else(|| tree.subject(ANY_SUBJECT))
}

fn canonical(ceilings: &[Arc<Tree>], own: &Tree) -> String {
    if ceilings.is_empty() {
        return own.canonical.clone();
    }
    let outer = ceilings
        .iter()
        .map(|tree| tree.canonical.as_str())
        .collect::<Vec<_>>()
        .join(",");
    format!("{{\"ceilings\":[{outer}],\"own\":{}}}", own.canonical)
}

fn version(ceilings: &[Arc<Tree>], own: &Tree) -> PolicyVersion {
    let mut bytes = [0; 32];
    for (to, from) in bytes
        .iter_mut()
        .zip(Sha256::digest(canonical(ceilings, own).as_bytes()).iter())
    {
        *to = *from;
    }
    PolicyVersion(bytes)
}

/// Joins what the layers say. Every field of [`Layer`] is named here, so that a new one cannot be forgotten.
fn join(name: &str, domain: Option<String>, own: Layer, ceilings: Vec<Layer>) -> SubjectPolicy {
    let Layer {
        egress,
        syscalls,
        mut budgets,
        profile_name,
        view,
        env,
        mut dev,
        mut work,
        mut work_protect,
        mut fds,
        mut limits,
        mut audit,
        settings,
    } = own;
    let profile_name = profile_name
        .or_else(|| domain.clone())
        .unwrap_or_else(|| name.to_owned());
    let (mut egress_outer, mut syscalls_outer, mut view_outer, mut env_outer) = (vec![], vec![], vec![], vec![]);
    let mut settings_outer = vec![];
    for ceiling in ceilings {
        let Layer {
            egress,
            syscalls,
            budgets: budgets_max,
            profile_name: _, // A name narrows nothing.
            view,
            env,
            dev: dev_max,
            work: work_max,
            work_protect: protect_too,
            fds: fds_max,
            limits: limits_max,
            audit: audit_max,
            settings,
        } = ceiling;
        settings_outer.push(settings);
        egress_outer.push(egress);
        syscalls_outer.push(syscalls);
        view_outer.push(view);
        env_outer.push(env);
        budgets = Budgets {
            tmp: narrower_budget(budgets.tmp, budgets_max.tmp),
            state: narrower_budget(budgets.state, budgets_max.state),
            work: narrower_budget(budgets.work, budgets_max.work),
            ipc: budgets.ipc.narrowed(&budgets_max.ipc),
        };
        dev.retain(|device| dev_max.contains(device));
        work = work.min(work_max);
        work_protect.extend(protect_too);
        fds = InheritedFds {
            allow_sockets: fds.allow_sockets && fds_max.allow_sockets,
            allow_directories: fds.allow_directories && fds_max.allow_directories,
            allow_devices: fds.allow_devices && fds_max.allow_devices,
        };
        limits = Limits {
            memory_bytes: narrower_limit(limits.memory_bytes, limits_max.memory_bytes),
            processes: narrower_limit(limits.processes, limits_max.processes),
            open_files: narrower_limit(limits.open_files, limits_max.open_files),
        };
        audit.rate = audit.rate.min(audit_max.rate);
        audit.burst = audit.burst.min(audit_max.burst);
        if audit_max.on_journal_failure == OnJournalFailure::Stop {
            audit.on_journal_failure = OnJournalFailure::Stop;
        }
    }
    SubjectPolicy {
        name: name.to_owned(),
        domain,
        egress: Layers::new(egress_outer, egress),
        syscalls: Layers::new(syscalls_outer, syscalls),
        budgets,
        profile_name,
        work,
        work_protect,
        dev,
        fds,
        limits,
        audit,
        floor: &FLOOR,
        settings: Layers::new(settings_outer, settings),
        view: Layers::new(view_outer, view),
        env: Layers::new(env_outer, env),
    }
}

impl SubjectPolicy {
    /// A subject of which nothing is said.
    pub(crate) fn nothing() -> Self {
        let nowhere = RuleRef(u32::MAX);
        let declared = crate::scope::Declared {
            at: crate::diagnostic::Place::new(crate::diagnostic::FileId(0), 0..0),
            domain: None,
            scope: crate::scope::Scope::default(),
            no_egress: nowhere,
            no_abi: nowhere,
        };
        join("", None, Layer::new(&declared, None, 0), Vec::new())
    }
}

/// The lower of each limit. A soft limit above the new hard one is lowered to it: it is then never passed.
fn narrower_budget(own: AreaBudget, ceiling: AreaBudget) -> AreaBudget {
    let mut out = own;
    if ceiling.budget.hard_bytes < out.budget.hard_bytes {
        out.budget.hard_bytes = ceiling.budget.hard_bytes;
        out.hard_rule = ceiling.hard_rule;
    }
    if ceiling.budget.hard_inodes < out.budget.hard_inodes {
        out.budget.hard_inodes = ceiling.budget.hard_inodes;
        out.inodes_rule = ceiling.inodes_rule;
    }
    if let Some(soft) = ceiling.budget.soft_bytes
        && out.budget.soft_bytes.is_none_or(|own| soft < own)
    {
        out.budget.soft_bytes = Some(soft);
        out.soft_rule = ceiling.soft_rule;
    }
    out.budget.soft_bytes = out.budget.soft_bytes.map(|soft| soft.min(out.budget.hard_bytes));
    out
}

fn narrower_limit(own: Option<Limit>, ceiling: Option<Limit>) -> Option<Limit> {
    match (own, ceiling) {
        (Some(own), Some(ceiling)) => Some(if ceiling.value < own.value { ceiling } else { own }),
        (one, None) | (None, one) => one,
    }
}
