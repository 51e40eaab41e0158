//! From a subject's policy to a plan.

use crate::limits::Limits;
use crate::names;
use crate::pins::{GIT_POINTERS, Pins, Unprotected, protects_git};
use crate::plan::{Access, AreaMount, Entry, Fence, Identity, Ipc, Plan, Program, SysV};
use nexus_abi::{Protocol, syscall};
use nexus_abi_policy::{ArgTest, Call, CompileError, Condition, Mediated, Profile, ScalarVerdict, compile};
use nexus_policy::{Device, EgressGate, IpcBudget, IpcLimit, SubjectPolicy};
use nexus_sys::seccomp::Instruction;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// What a plan needs to know besides policy.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Who runs it.
    pub identity: Identity,
    /// The login name that the program sees.
    pub user: String,
    /// The caller's home, which `~/` in policy stands for.
    pub home: Option<String>,
    /// The caller's environment.
    pub environment: BTreeMap<String, String>,
    /// The caller's umask.
    pub umask: u32,
    /// The directory that the run names, resolved, and what may be done with it.
    pub work: Option<Work>,
    /// Directories of nexus itself that the program must not see: journal, state, configuration.
    pub hidden: Vec<PathBuf>,
    /// The policy tree, which the program must not change.
    pub pinned: Vec<PathBuf>,
    /// The second fence.
    pub fence: Fence,
    /// What holds the session to the subject's limits here.
    pub limits: Limits,
}

/// The `work` directory of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// On the host and inside: absolute, without links.
    pub path: PathBuf,
    /// What may be done with it.
    pub access: Access,
    /// Whether the subject's file server serves it and counts what it grows by.
    pub metered: bool,
}

/// Why there is no plan.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The rules make no filter.
    #[error("the syscall rules make no filter: {0}")]
    Filter(CompileError),
    /// Nothing can start without these calls.
    #[error("the syscall rules deny `{0}`, without which no program starts")]
    CannotStart(&'static str),
    /// A path that policy shows is not there.
    #[error("policy shows `{}`, which cannot be looked at: {error}", .path.display())]
    Missing {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The work directory lies where the session has something of its own.
    #[error("`{}` cannot be the work directory: `{}` is the session's own", .path.display(), .own)]
    WorkPlace {
        /// The directory.
        path: PathBuf,
        /// What it would cover.
        own: &'static str,
    },
    /// The work directory lies in what nexus keeps for itself.
    #[error("`{}` cannot be the work directory: nexus keeps its own files there", .path.display())]
    WorkOfNexus {
        /// The directory.
        path: PathBuf,
    },
    /// Something that policy protects is not there, and the program could make it.
    #[error("`work_protect` names `{}`, which is not there: nothing keeps the program from making it", .path.display())]
    CannotProtect {
        /// The path.
        path: PathBuf,
    },
    /// Something that policy protects is a link, and the program could make what it leads to.
    #[error("`{}`, which is protected from the program, is a link to nothing: nothing keeps the program from making what it leads to", .path.display())]
    LeadsNowhere {
        /// The link.
        path: PathBuf,
    },
    /// Whether something that policy protects is there cannot be seen, and the program could open it again.
    #[error("`{}`, or what is in it, is protected from the program and cannot be looked at", .path.display())]
    CannotLook {
        /// The path.
        path: PathBuf,
    },
}

impl From<Unprotected> for PlanError {
    fn from(why: Unprotected) -> Self {
        match why {
            Unprotected::Missing(path) => Self::CannotProtect { path },
            Unprotected::Nowhere(path) => Self::LeadsNowhere { path },
            Unprotected::Unseen(path) => Self::CannotLook { path },
        }
    }
}

/// What the machine is called in every session: the host's name is nobody's business.
pub(crate) const HOST_NAME: &str = "nexus";

/// Where the program's home is: in `state`, so that it is kept.
pub const HOME: &str = "/state/home";

impl Plan {
    /// The plan for a program under a subject's policy.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn new(
        subject: &SubjectPolicy,
        egress: &EgressGate,
        program: Program,
        around: &Surroundings,
    ) -> Result<Self, PlanError> {
        let view = View::new(subject, egress, around)?.entries;
        let ipc = ipc(&subject.budgets.ipc);
        Ok(Self {
            identity: around.identity,
            view,
            directory: around
                .work
                .as_ref()
                .map_or_else(|| PathBuf::from(HOME), |work| work.path.clone()),
            program,
            environment: environment(subject, around),
            umask: around.umask,
            limits: around.limits.clone(),
            filter: filter(
                &subject.profiles_in_force(),
                &mediated(egress, ipc.sysv, subject.fds.allow_sockets),
            )?,
            ipc,
            fence: around.fence,
        })
    }
}

fn ipc(budget: &IpcBudget) -> Ipc {
    let value = |which| budget.value(which);
    Ipc {
        shm_bytes: value(IpcLimit::Shm),
        segments: value(IpcLimit::Segments),
        queue_bytes: value(IpcLimit::Queue),
        queues: value(IpcLimit::Queues),
        semaphores: value(IpcLimit::Semaphores),
        mqueue_bytes: value(IpcLimit::Mqueue),
        memfd_bytes: value(IpcLimit::Memfd),
        sysv: SysV::of_this_kernel(),
    }
}

fn environment(subject: &SubjectPolicy, around: &Surroundings) -> BTreeMap<OsString, OsString> {
    let mut variables = subject.environment(around.environment.clone());
    let directory = around
        .work
        .as_ref()
        .map_or(HOME.to_owned(), |work| work.path.to_string_lossy().into_owned());
    for (name, value) in [
        ("HOME", HOME),
        ("TMPDIR", "/tmp"),
        ("USER", &around.user),
        ("LOGNAME", &around.user),
        ("PWD", &directory),
    ] {
        variables.insert(name.to_owned(), value.to_owned());
    }
    variables
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

/// The kernel's filter: what policy allows runs; what it denies, and what must be seen, comes to the supervisor.
fn filter(profiles: &[Cow<'_, Profile>], mediated: &[Mediated]) -> Result<Vec<Instruction>, PlanError> {
    let profiles: Vec<&Profile> = profiles.iter().map(AsRef::as_ref).collect();
    // execve and exit_group run between the filter and the first moment at which anybody could answer.
    for name in ["execve", "exit_group"] {
        let number = syscall::number(name).ok_or(PlanError::CannotStart(name))?;
        let call = Call::native(number, [0; 6]);
        let allowed = |profile: &&Profile| matches!(profile.judge_scalar(&call), ScalarVerdict::Known(verdict) if verdict.is_allow());
        if !profiles.iter().all(allowed) {
            return Err(PlanError::CannotStart(name));
        }
    }
    let program = compile(&profiles, mediated).map_err(PlanError::Filter)?;
    Ok(program
        .instructions()
        .iter()
        .map(|one| Instruction {
            code: one.code,
            jump_true: one.jt,
            jump_false: one.jf,
            k: one.k,
        })
        .collect())
}

/// The calls that are carried out by the supervisor although policy allows them. `handed`: sockets of the host's may be handed
/// in.
fn mediated(egress: &EgressGate, sysv: SysV, handed: bool) -> Vec<Mediated> {
    use rustix::net::{AddressFamily, SocketType};
    use syscall::Width;
    let arg = |index, test| Condition::Arg {
        index,
        width: Width::W32,
        test,
    };
    let mut calls = vec![("connect", vec![]), ("kill", vec![arg(0, ArgTest::Equal(0))])];
    // What interfaces there are is told of the session's own network, wherever the socket lives that is asked.
    let questions = ArgTest::OneOf(nexus_abi_policy::INTERFACE_QUESTIONS.into());
    calls.push(("ioctl", vec![arg(1, questions)]));
    // A memory file lies where it is bounded.
    calls.push(("memfd_create", vec![]));
    if sysv == SysV::Denied {
        calls.extend(["shmget", "msgget", "semget"].map(|name| (name, vec![])));
    }
    let (tcp, udp) = (egress.opens(Protocol::Tcp), egress.opens(Protocol::Udp));
    if tcp || udp || handed {
        // A socket of the host's side in the program's hands must never get a name or a queue there.
        calls.push(("bind", vec![]));
        calls.push(("listen", vec![]));
    }
    let families = [AddressFamily::INET, AddressFamily::INET6].map(|family| u64::from(family.as_raw()));
    for (opens, kind) in [(tcp, SocketType::STREAM), (udp, SocketType::DGRAM)] {
        let kind = ArgTest::Masked {
            mask: SOCK_TYPE_MASK,
            value: u64::from(kind.as_raw()),
        };
        if opens {
            calls.push(("socket", vec![arg(0, ArgTest::OneOf(families.into())), arg(1, kind)]));
        }
    }
    // The kernel makes nobody one of these: who asks for MPTCP gets TCP, on the side where its others are.
    calls.push((
        "socket",
        vec![
            arg(0, ArgTest::OneOf(families.into())),
            arg(2, ArgTest::Equal(u64::from(rustix::net::ipproto::MPTCP.as_raw().get()))),
        ],
    ));
    if udp || handed {
        // A datagram socket of the host's side sends to whatever address it is given: one in a register, and whatever may
        // lie in memory. What goes to a peer without an address is the kernel's.
        let given = Condition::Arg {
            index: 4,
            width: Width::W64,
            test: ArgTest::AnyBit(u64::MAX),
        };
        calls.push(("sendto", vec![given]));
        calls.push(("sendmsg", vec![]));
        calls.push(("sendmmsg", vec![]));
        // Who else may have its port there.
        let (level, names) = nexus_abi_policy::PORT_SHARING;
        let conditions = vec![arg(1, ArgTest::Equal(level)), arg(2, ArgTest::OneOf(names.into()))];
        calls.push(("setsockopt", conditions));
    }
    calls
        .into_iter()
        .filter_map(|(name, conditions)| {
            Some(Mediated {
                number: syscall::number(name)?,
                conditions,
            })
        })
        .collect()
}

/// The type without its flags (linux/net.h).
const SOCK_TYPE_MASK: u64 = 0xf;

struct View {
    entries: Vec<Entry>,
}

impl View {
    fn new(subject: &SubjectPolicy, egress: &EgressGate, around: &Surroundings) -> Result<Self, PlanError> {
        let mut places: BTreeMap<PathBuf, Entry> = BTreeMap::new();
        let mut add = |entry: Entry| {
            places.insert(entry.at(), entry);
        };
        for shown in subject.view(around.home.as_deref()) {
            let path = PathBuf::from(&shown.path);
            match shown_entry(path.clone(), around) {
                Ok(entry) => add(entry),
                Err(error) if shown.optional && error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(PlanError::Missing { path, error }),
            }
        }
        if egress.opens_names() {
            names::files().into_iter().for_each(&mut add);
        }
        add(Entry::Processes);
        add(Entry::Directory { at: "/dev".into() });
        for device in &subject.dev {
            match device {
                Device::Pts => {
                    add(Entry::Terminals);
                    add(Entry::Link {
                        at: "/dev/ptmx".into(),
                        to: "pts/ptmx".into(),
                    });
                }
                Device::Shm => add(Entry::Area {
                    area: AreaMount::Shm,
                    at: "/dev/shm".into(),
                }),
                named => add(Entry::Device { name: named.as_str() }),
            }
        }
        for (name, to) in [
            ("fd", "/proc/self/fd"),
            ("stdin", "fd/0"),
            ("stdout", "fd/1"),
            ("stderr", "fd/2"),
        ] {
            add(Entry::Link {
                at: Path::new("/dev").join(name),
                to: to.into(),
            });
        }
        add(Entry::Area {
            area: AreaMount::Tmp,
            at: "/tmp".into(),
        });
        add(Entry::Area {
            area: AreaMount::Tmp,
            at: "/var/tmp".into(),
        });
        add(Entry::Area {
            area: AreaMount::State,
            at: "/state".into(),
        });
        add(Entry::Directory { at: HOME.into() });
        if let Some(work) = &around.work {
            add(if work.metered {
                Entry::Area {
                    area: AreaMount::Work,
                    at: work.path.clone(),
                }
            } else {
                Entry::Bind {
                    source: work.path.clone(),
                    at: work.path.clone(),
                    access: work.access,
                }
            });
            if let Some(own) = OWN_PLACES.iter().find(|own| Path::new(own).starts_with(&work.path)) {
                return Err(PlanError::WorkPlace {
                    path: work.path.clone(),
                    own,
                });
            }
            if let Some(own) = ["/proc", "/dev", "/state"]
                .iter()
                .find(|own| work.path.starts_with(own))
            {
                return Err(PlanError::WorkPlace {
                    path: work.path.clone(),
                    own,
                });
            }
            if around.hidden.iter().any(|hidden| work.path.starts_with(hidden)) {
                return Err(PlanError::WorkOfNexus {
                    path: work.path.clone(),
                });
            }
        }
        let mut entries = nested(places);
        let shown = |path: &Path, entries: &[Entry]| {
            entries.iter().any(|entry| match entry {
                Entry::Bind { at, .. } => path.starts_with(at),
                Entry::Area { area, at } => *area == AreaMount::Work && path.starts_with(at),
                _ => false,
            })
        };
        let hidden: Vec<&PathBuf> = around.hidden.iter().filter(|path| shown(path, &entries)).collect();
        if let Some(work) = around.work.as_ref().filter(|work| work.access == Access::ReadWrite) {
            let mut pins = Pins::new(&work.path);
            for path in &subject.work_protect {
                pins.protect(&work.path.join(path))?;
            }
            let pointers = GIT_POINTERS.iter().filter(|_| protects_git(&subject.work_protect));
            for path in pointers
                .map(|name| work.path.join(name))
                .chain(around.pinned.iter().cloned())
            {
                pins.protect_if_there(&path)?;
            }
            for path in hidden.iter().filter(|path| path.starts_with(&work.path)) {
                pins.hide(path);
            }
            entries.extend(pins.into_entries(work.metered));
        }
        let covered = |path: &Path| {
            around
                .work
                .as_ref()
                .is_some_and(|work| work.access == Access::ReadWrite && path.starts_with(&work.path))
        };
        entries.extend(
            hidden
                .into_iter()
                .filter(|path| !covered(path))
                .map(|path| Entry::Hide { at: path.clone() }),
        );
        Ok(Self { entries })
    }
}

/// What a work directory must not cover.
const OWN_PLACES: &[&str] = &["/proc", "/dev", "/tmp", "/var/tmp", "/state", "/usr"];

/// Leaves out what an earlier entry shows already, and turns what lies inside something of the host's into a pin.
fn nested(places: BTreeMap<PathBuf, Entry>) -> Vec<Entry> {
    let mut out: Vec<Entry> = Vec::new();
    for (at, entry) in places {
        let around = out.iter().rev().find_map(|earlier| match earlier {
            Entry::Bind { at: outer, access, .. } | Entry::Pin { at: outer, access, .. } => {
                (at.starts_with(outer) && at != *outer).then_some((*access, false))
            }
            Entry::Area { area, at: outer } if *area == AreaMount::Work => {
                (at.starts_with(outer) && at != *outer).then_some((Access::ReadWrite, true))
            }
            _ => None,
        });
        let metered = around.is_some_and(|(_, metered)| metered);
        match (around.map(|(access, _)| access), entry) {
            // The same file is there by the area already, and read-only it is not counted either.
            (Some(_), Entry::Bind { at, access, .. }) if metered => out.push(Entry::PinArea { at, access }),
            (Some(outer), Entry::Bind { access, .. }) if outer == access => {}
            (Some(_), Entry::Bind { source, at, access }) => out.push(Entry::Pin { source, at, access }),
            // A link or file of ours has no place inside what is the host's: the host's own is there.
            (Some(_), Entry::Link { .. } | Entry::File { .. } | Entry::Copy { .. } | Entry::Directory { .. }) => {}
            (_, entry) => out.push(entry),
        }
    }
    out
}

/// A file that anybody on the host may read: a copy of it tells nobody more than the file itself would.
fn is_public(found: &std::fs::Metadata) -> bool {
    const READABLE_BY_OTHERS: u32 = 0o004;
    found.is_file() && found.mode() & READABLE_BY_OTHERS != 0
}

/// The longest file that is copied rather than mounted; a view's root has room for a few hundred such.
const COPY_BYTES_MAX: u64 = crate::view::COPY_BYTES_MAX as u64;

/// Something that policy shows: a link as a link, names as the session's own, everything else as it is.
fn shown_entry(path: PathBuf, around: &Surroundings) -> std::io::Result<Entry> {
    let found = std::fs::symlink_metadata(&path)?;
    if found.is_symlink() {
        let to = std::fs::read_link(&path)?;
        return Ok(Entry::Link { at: path, to });
    }
    let Identity { uid, gid, .. } = around.identity;
    let user = &around.user;
    let content = match path.to_str() {
        Some("/etc/passwd") => format!(
            "root:x:0:0:root:/root:/usr/sbin/nologin\n{user}:x:{uid}:{gid}:{user}:{HOME}:/bin/sh\n\
             nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
        ),
        Some("/etc/group") => format!("root:x:0:\n{user}:x:{gid}:\nnogroup:x:65534:\n"),
        // Java, `hostname -f` and others look their own name up and fail without an answer.
        Some("/etc/hosts") if is_public(&found) && found.len() <= COPY_BYTES_MAX => {
            let hosts = std::fs::read(&path)?;
            let hosts = String::from_utf8_lossy(&hosts);
            format!("{}\n127.0.0.1 {HOST_NAME}\n", hosts.trim_end())
        }
        Some(_) if path.starts_with("/etc") && is_public(&found) && found.len() <= COPY_BYTES_MAX => {
            return Ok(Entry::Copy { at: path });
        }
        _ => {
            return Ok(Entry::Bind {
                source: path.clone(),
                at: path,
                access: Access::ReadOnly,
            });
        }
    };
    Ok(Entry::File {
        at: path,
        content: content.into_bytes(),
    })
}
