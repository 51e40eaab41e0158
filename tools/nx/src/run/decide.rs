//! What is decided of a run before anything is done: from policy, the command line and the caller to the plan.

use super::failure::{Exit, Failure};
use super::made::Absent;
use super::places::{Places, identity, user_name};
use super::session::Session;
use super::work::{self, Asked};
use super::{descriptors, enforceable, limits, open_files, trusted};
use crate::cli::RunArgs;
use crate::diagnostics::draw;
use crate::plain::plain;
use execd::{Access, Fence, Identity, Limits, Plan, Program, Surroundings, Work};
use netd::Judges;
use nexus_abi_policy::Guard;
use nexus_policy::{EgressGate, NoSubject, Policy, SubjectPolicy};
use policyd::{LoadError, Loaded};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Everything that is decided before anything is done.
pub(super) struct Decided {
    pub(super) session: Session,
    pub(super) places: Places,
    pub(super) plan: Plan,
    pub(super) judges: Judges,
    pub(super) note: Option<String>,
    pub(super) absent: Absent,
    /// The limit of open files that nx was started with, where it was raised.
    pub(super) open_files: Option<u64>,
}

/// What policy and the caller say of a run, before it is worked out how that is carried out.
pub(super) struct Chosen {
    pub(super) loaded: Loaded,
    pub(super) rules: SubjectPolicy,
    pub(super) places: Places,
    pub(super) egress: EgressGate,
    pub(super) fence: Fence,
    pub(super) identity: Identity,
    pub(super) limits: Limits,
    pub(super) work: Option<Work>,
    pub(super) note: Option<String>,
    pub(super) open_files: Option<u64>,
}

pub(super) fn choose(args: &RunArgs) -> Result<Chosen, Failure> {
    let open_files = open_files::raise();
    let loaded =
        policyd::load(&policyd::Places::of_process(args.policy.clone())).map_err(|error| policy_failure(&error))?;
    let rules = loaded
        .policy
        .subject(&args.subject)
        .map_err(|error| no_subject(&error, &loaded.policy))?;
    let places = Places::of_caller(|name| std::env::var(name).ok()).map_err(|why| {
        Failure::new(Exit::Missing, format!("there is no place for the journal: {why}"))
            .with_help("set `HOME` or `XDG_STATE_HOME`")
    })?;
    trusted::check(&places)?;
    let egress = rules
        .egress_gate()
        .map_err(|error| Failure::rejected(error.to_string(), "use fewer egress rules"))?;
    enforceable::check(&rules, &loaded.policy)?;
    let landlock = execd::landlock_available();
    let file_handed_in = descriptors::check(rules.fds).map_err(|refused| {
        Failure::rejected(
            format!(
                "{} is {}, which is not handed to the program",
                refused.name, refused.what
            ),
            &refused.help,
        )
    })?;
    let asked = args.work.as_deref().map(Asked::parse);
    let (work, note) = work::choose(asked.as_ref(), rules.work, places.home.as_deref())?;
    let identity = identity(&rules.name);
    let note = note.or_else(|| work::surprise(work.as_ref()?, identity, &rules.budgets.work.budget));
    let limits = limits::of(&rules);
    let fence = if !landlock {
        Fence::Missing
    } else if file_handed_in {
        Fence::Everything
    } else {
        Fence::Changes
    };
    Ok(Chosen {
        loaded,
        rules,
        places,
        egress,
        fence,
        identity,
        limits,
        work,
        note,
        open_files,
    })
}

impl Chosen {
    /// How it is carried out.
    pub(super) fn decide(self, args: &RunArgs) -> Result<Decided, Failure> {
        let Self {
            loaded,
            rules,
            places,
            egress,
            fence,
            identity,
            limits,
            work,
            note,
            open_files,
        } = self;
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let around = Surroundings {
            identity,
            user: user_name(identity, &rules.name, &passwd),
            home: places.home.as_ref().map(|home| home.to_string_lossy().into_owned()),
            environment: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            umask: current_umask(),
            hidden: hidden(&places, work.as_ref())?,
            work,
            // As they really are: the one that was named may be relative, or a link.
            pinned: loaded
                .origin
                .directory()
                .into_iter()
                .chain(loaded.ceiling.as_deref())
                .filter_map(|path| std::fs::canonicalize(path).ok())
                .collect(),
            fence,
            limits,
        };
        let program = Program {
            name: args.command.first().cloned().unwrap_or_default(),
            arguments: args.command.clone(),
        };
        let absent = Absent::before(around.work.as_ref(), &rules.work_protect);
        let plan = Plan::new(&rules, &egress, program, &around).map_err(|error| plan_failure(&error))?;
        let profiles = rules.profiles_in_force();
        let profiles: Vec<_> = profiles.iter().map(AsRef::as_ref).collect();
        let guard = Guard::new(&profiles).map_err(|error| Failure::rejected(error.to_string(), "see abi.toml"))?;
        let judges = Judges {
            guard: Arc::new(guard),
            egress,
            markers: super::markers::open()?,
        };
        let session = Session::new(loaded.policy, rules, &loaded.origin.to_string())
            .map_err(|error| Failure::internal(format!("the kernel gives no random bytes: {error}")))?;
        Ok(Decided {
            session,
            places,
            plan,
            judges,
            note,
            absent,
            open_files,
        })
    }
}

/// What nexus keeps for itself: the journal must not be read or written by those it speaks of. In a work directory, what is
/// not there yet is made: so that it can be covered, and so that nobody else makes it, a policy tree above all.
fn hidden(places: &Places, work: Option<&Work>) -> Result<Vec<PathBuf>, Failure> {
    let configuration = places.home.as_ref().map(|home| home.join(".config/nexus"));
    // The usual place too, where this run keeps its state elsewhere: other runs do not, and must find it as they left it.
    let usual = places.home.as_ref().map(|home| home.join(".local/state/nexus"));
    let own: Vec<PathBuf> = std::iter::once(places.state.clone())
        .chain(usual.filter(|usual| *usual != places.state))
        .chain(configuration)
        .collect();
    for path in &own {
        let endangered = work.is_some_and(|work| {
            (work.access == Access::ReadWrite || *path == places.state) && leads_into(path, &work.path)
        });
        if endangered && let Err(error) = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path) {
            return Err(Failure::rejected(
                format!(
                    "`{}` lies in the work directory and cannot be made before the program could: {error}",
                    path.display()
                ),
                "name another directory with `--work DIR`, or one that is read-only: `--work DIR:ro`",
            ));
        }
    }
    let system = PathBuf::from("/etc/nexus");
    Ok(own
        .into_iter()
        .chain([system])
        .filter_map(|path| std::fs::canonicalize(path).ok())
        .collect())
}

/// Whether a path, as far as it is there, leads into a directory.
fn leads_into(path: &Path, directory: &Path) -> bool {
    let there = path.ancestors().find_map(|part| std::fs::canonicalize(part).ok());
    there.is_some_and(|there| there.starts_with(directory))
}

fn current_umask() -> u32 {
    let mask = rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::umask(mask);
    mask.as_raw_mode()
}

pub(crate) fn policy_failure(error: &LoadError) -> Failure {
    let failure = match error {
        LoadError::Invalid { origin, diagnostics } => {
            let origin = plain(&origin.to_string());
            Failure::drawn(
                Exit::Rejected,
                format!("policy of {origin} is invalid\n{}", draw(diagnostics)),
            )
        }
        other => Failure::new(Exit::Rejected, other.to_string()),
    };
    failure.with_help(error.help())
}

pub(crate) fn no_subject(error: &NoSubject, policy: &Policy) -> Failure {
    let known: Vec<&str> = policy.subjects().take(20).collect();
    Failure::rejected(
        error.to_string(),
        &format!("{}; subjects that can run: {}", error.help(), known.join(", ")),
    )
}

fn plan_failure(error: &execd::PlanError) -> Failure {
    let help = match error {
        execd::PlanError::Missing { .. } => "put it under `read_optional` in sandbox.toml if it may be missing",
        execd::PlanError::WorkPlace { .. } | execd::PlanError::WorkOfNexus { .. } => {
            "name another directory with `--work DIR`"
        }
        execd::PlanError::CannotStart(_) => "allow it in abi.toml: `@process` holds it",
        execd::PlanError::CannotProtect { path } => {
            let make = if path.ends_with("hooks") { "mkdir" } else { "touch" };
            let help = format!(
                "make it: `{make} {}`; or run with `--work DIR:ro`, or take it out of `work_protect` in sandbox.toml",
                path.display()
            );
            return Failure::unsupported(error.to_string(), &help);
        }
        execd::PlanError::LeadsNowhere { path } => {
            let help = format!(
                "make what it leads to, or remove it: `rm {}`; or run with `--work DIR:ro`",
                path.display()
            );
            return Failure::unsupported(error.to_string(), &help);
        }
        execd::PlanError::CannotLook { path } => {
            let around = path.parent().unwrap_or(path).display();
            let help = format!(
                "a program that ran there may have closed it: look why, then `chmod u+rwx {around}`; or run with `--work DIR:ro`"
            );
            return Failure::unsupported(error.to_string(), &help);
        }
        _ => "see abi.toml",
    };
    Failure::rejected(error.to_string(), help)
}
