//! A session as others find it: its facts, and what it answers.

use super::mask::{filter_hash, mask};
use super::places::Places;
use super::session::Session;
use super::supervisor::Subject;
use crate::registry::{
    self, Answers, Backend, Entry as Known, FACTS_VERSION, Facts, Filter, Process, ProcessFact, WorkFact,
};
use crate::sec::view::{InForce, Of};
use execd::{Access, AreaMount, Enforcement, Entry, Fence, Plan};
use netd::OpenNames;
use nexus_wire::session::Question;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

/// A session that is known. Its entry is there until this is dropped; a killed supervisor leaves it to be found as left over.
pub(crate) struct Registered {
    entry: Known,
    facts: Facts,
}

impl Registered {
    /// Makes the session known, and answers for it from now on.
    pub(crate) fn new(subject: &Subject, places: &Places, names: Arc<OnceLock<OpenNames>>) -> io::Result<Self> {
        let facts = facts(subject.session, subject.plan, subject.init)?;
        let (entry, listener) = registry::publish(&places.runtime, &facts)?;
        registry::serve(listener, Views::new(subject, names))?;
        Ok(Self { entry, facts })
    }

    /// Adds what takes too long for a start to wait for.
    pub(crate) fn complete(&self, session: &Session) -> io::Result<()> {
        self.entry.replace(&Facts {
            profile_id: Some(session.rules.profile_id().to_string()),
            ..self.facts.clone()
        })
    }
}

/// What a session answers about itself.
struct Views {
    session: &'static Session,
    plan: &'static Plan,
    names: Arc<OnceLock<OpenNames>>,
}

impl Views {
    /// `names` is set once the program's resolver stands.
    fn new(subject: &Subject, names: Arc<OnceLock<OpenNames>>) -> Self {
        Self {
            session: subject.session,
            plan: subject.plan,
            names,
        }
    }
}

impl Answers for Views {
    fn answer(&mut self, question: Question) -> Result<serde_json::Value, String> {
        let of = Of {
            policy: &self.session.policy,
            rules: &self.session.rules,
            live: Some(InForce {
                plan: self.plan,
                names: self.names.get(),
            }),
        };
        of.answer(question)
    }
}

/// What does not change while the session runs. The caller is its supervisor.
fn facts(session: &Session, plan: &Plan, init: i32) -> io::Result<Facts> {
    let of = |pid: i32| -> io::Result<ProcessFact> { Ok(Process::of(pid)?.fact()) };
    let rules = &session.rules;
    let front = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let in_force = rules.profiles_in_force();
    let in_force: Vec<_> = in_force.iter().map(AsRef::as_ref).collect();
    Ok(Facts {
        version: FACTS_VERSION,
        nx: env!("CARGO_PKG_VERSION").to_owned(),
        subject: session.subject.to_string(),
        domain: rules.domain.clone(),
        session: session.id.to_string(),
        supervisor: of(std::process::id().cast_signed())?,
        front: of(front)?,
        init: of(init)?,
        uid: plan.identity.uid,
        gid: plan.identity.gid,
        assumed: plan.identity.assumed,
        mode: "enforce".to_owned(),
        policy: session.version.to_string(),
        origin: session.origin.to_string(),
        profile_name: rules.profile_name.clone(),
        profile_id: None,
        filter: Filter {
            hash: filter_hash(&plan.filter),
            instructions: u32::try_from(plan.filter.len()).unwrap_or(u32::MAX),
        },
        syscalls: mask(&in_force).counts(),
        work: work(plan),
        backends: backends(plan),
        started_ms: now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX)),
    })
}

fn work(plan: &Plan) -> Option<WorkFact> {
    // The program starts in its work directory, where it has one; elsewhere there is no part of the host's.
    let kind = plan.view.iter().find_map(|entry| match entry {
        Entry::Area {
            area: AreaMount::Work, ..
        } => Some("metered"),
        Entry::Bind { at, access, .. } if *at == plan.directory => Some(match access {
            Access::ReadOnly => "read-only",
            Access::ReadWrite => "unmetered",
        }),
        _ => None,
    })?;
    Some(WorkFact {
        path: plan.directory.to_string_lossy().into_owned(),
        kind: kind.to_owned(),
    })
}

fn backends(plan: &Plan) -> Vec<Backend> {
    let by = |what: &str, by: &str, how: &str| Backend {
        what: what.to_owned(),
        by: Some(by.to_owned()),
        how: Some(how.to_owned()),
        why_not: None,
    };
    let not = |what: &str, why: &str| Backend {
        what: what.to_owned(),
        by: None,
        how: None,
        why_not: Some(why.to_owned()),
    };
    let mut out = vec![
        by(
            "syscalls",
            "seccomp",
            "a filter in the kernel; what it does not let through, the supervisor judges",
        ),
        by(
            "egress",
            "netns",
            "an empty network namespace; sockets for the outside are made by the supervisor, which judges each address",
        ),
        by(
            "quotas",
            "fuse",
            "the subject's file server keeps the ledger and denies before it writes",
        ),
        by(
            "paths",
            "mountns",
            "a mount namespace that holds the view and nothing else",
        ),
        match plan.fence {
            Fence::Missing => not("paths, second fence", "this kernel does not have Landlock"),
            fence => by("paths, second fence", "landlock", fence.as_str()),
        },
    ];
    let lack = plan.limits.cgroup.as_ref().and_then(|place| place.as_ref().err());
    for (name, limit) in plan.limits.each() {
        let what = format!("limit {name}");
        out.push(match &limit.enforcement {
            Enforcement::Enforced { backend } => {
                let word = match backend {
                    execd::Backend::Cgroup(_) => "cgroup",
                    execd::Backend::EachProcess | execd::Backend::UserNamespace => "rlimit",
                };
                let better = lack.filter(|_| name != "open_files").map(ToString::to_string);
                Backend {
                    why_not: better.map(|lack| format!("not cgroup: {lack}")),
                    ..by(&what, word, &backend.to_string())
                }
            }
            Enforcement::Unsupported { why } => not(&what, why),
        });
    }
    out.sort();
    out
}
