//! From the command line to a running session, and to its end.

use super::decide::{Decided, choose};
use super::failure::{Exit, Failure};
use super::front::{End, Front};
use super::link::{FILES, Link, READY};
use super::places::Places;
use super::session::Session;
use super::signals::Signals;
use super::status::Status;
use super::{areas, descriptors, limits, open_files, print, supervisor};
use crate::cli::RunArgs;
use crate::plain::plain;
use crate::registry;
use execd::cgroup::Group;
use execd::{Identity, Links, Plan, SpawnError, Spawned, Step};
use netd::Judges;
use nexus_policy::SubjectPolicy;
use nexus_sys::process::{CloneFlags, Fork, clone};
use nexus_wire::control::Event;
use nexus_wire::packet::PacketSocket;
use std::os::fd::AsFd;
use vfsd::Joining;

pub(crate) fn run(args: &RunArgs, status: &mut Status) -> Result<u8, Failure> {
    if status.is_missing(args.status_fd) {
        return Err(
            Failure::usage("the descriptor of `--status-fd` is not open for writing".into())
                .with_help("open it in the shell: `nx run --status-fd 3 … 3>FILE`"),
        );
    }
    // Never dropped: the process ends when this returns, and taking a policy apart takes time that nobody gets back.
    let chosen = choose(args)?;
    if args.print_plan {
        let decided = Box::leak(Box::new(chosen.decide(args)?));
        let text = print::plan(&decided.plan, &decided.session, args.json);
        crate::sec::output::written(text.as_bytes())?;
        return Ok(0);
    }
    let version = chosen.loaded.policy.version().to_string();
    // A cgroup of nx's own is left for a leaf of it before anything is started: what stays in it would keep it from passing
    // controllers on, and that is known only with the plan.
    let begun = if limits::moves_nx(&chosen.limits) {
        Begun::signals(chosen.identity)?
    } else {
        Begun::new(&chosen.rules, version, &chosen.places, chosen.identity)?
    };
    let decided = Box::leak(Box::new(begun.signals.while_open(|| chosen.decide(args))?));
    if let (Some(note), false) = (&decided.note, args.quiet) {
        super::summary::say(&format!("nx: {}", plain(note)));
    }
    limits::enforceable(&decided.plan.limits, &decided.session.rules, &decided.session.policy)?;
    start(args, status, decided, begun)
}

/// What a proof may change of a run that is decided and not started.
pub(crate) struct Prepared<'a> {
    pub(crate) session: &'a mut Session,
    pub(crate) places: &'a mut Places,
    pub(crate) plan: &'a mut Plan,
    pub(crate) judges: &'a mut Judges,
}

/// A run whose program is a probe: decided, started and ended by the same code as any other.
pub(crate) fn prove(args: &RunArgs, prepare: impl FnOnce(Prepared<'_>) -> Result<(), Failure>) -> Result<u8, Failure> {
    let decided = Box::leak(Box::new(choose(args)?.decide(args)?));
    let Decided {
        session,
        places,
        plan,
        judges,
        ..
    } = &mut *decided;
    prepare(Prepared {
        session,
        places,
        plan,
        judges,
    })?;
    limits::enforceable(&decided.plan.limits, &decided.session.rules, &decided.session.policy)?;
    let begun = Begun::signals(decided.plan.identity)?;
    start(args, &mut Status::new(None), decided, begun)
}

/// What has begun before the plan is made: the file server's start takes as long as that, on another core.
struct Begun {
    signals: Signals,
    /// `None` where the file server has to wait for the session's cgroup.
    joining: Option<Joining>,
}

impl Begun {
    /// Nothing but that signals are taken over.
    fn signals(identity: Identity) -> Result<Self, Failure> {
        Ok(Self {
            signals: take_over(identity)?,
            joining: None,
        })
    }

    fn new(rules: &SubjectPolicy, version: String, places: &Places, identity: Identity) -> Result<Self, Failure> {
        open_files::check(&[])?;
        let signals = take_over(identity)?;
        let joining = signals.while_open(|| areas::begin(rules, version, places, identity))?;
        Ok(Self {
            signals,
            joining: Some(joining),
        })
    }
}

/// Takes signals over, and gives up what root's groups may open, before anything is forked.
fn take_over(identity: Identity) -> Result<Signals, Failure> {
    let signals = Signals::take_over().map_err(internal("take signals over"))?;
    if identity.assumed {
        rustix::thread::set_thread_groups(&[]).map_err(|error| cannot_give_up_groups(error.into()))?;
    }
    Ok(signals)
}

fn internal(what: &str) -> impl Fn(std::io::Error) -> Failure + '_ {
    move |error| {
        let failure = Failure::internal(format!("cannot {what}: {error}"));
        match rustix::io::Errno::from_io_error(&error) {
            Some(rustix::io::Errno::MFILE) => failure.with_help(open_files::help()),
            _ => failure,
        }
    }
}

fn start(args: &RunArgs, status: &mut Status, decided: &'static mut Decided, begun: Begun) -> Result<u8, Failure> {
    open_files::check(&decided.plan.view)?;
    let Begun { mut signals, joining } = begun;
    let identity = decided.plan.identity;
    if identity.assumed {
        descriptors::hand_over(identity.uid, identity.gid);
    }
    let mut group = limits::join(&mut decided.plan, &decided.session, args.quiet)?;
    let decided: &'static Decided = decided;
    let joining = match joining {
        Some(joining) => Ok(joining),
        None => {
            let Decided { session, places, .. } = decided;
            let version = session.version.to_string();
            signals.while_open(|| areas::begin(&session.rules, version, places, identity))
        }
    };
    let joining = match joining {
        Ok(joining) => joining,
        Err(failure) => {
            if let Some(group) = group {
                group.remove();
            }
            return Err(failure);
        }
    };
    let ended = run_session(args, status, decided, joining, &mut signals, &mut group);
    let out_of_memory = group.is_some_and(|group| {
        let out_of_memory = group.ran_out_of_memory();
        group.remove();
        out_of_memory
    });
    // What reached the whole process group before the program began may have ended a part of nx first.
    let ended = match ended {
        Err(failure) => signals.end_of_start().map(End::Signaled).ok_or(failure),
        ended => ended,
    };
    let Decided { session, plan, .. } = decided;
    if !out_of_memory {
        return finish(ended?, plan, session, &mut signals, status);
    }
    let end = ended.map_err(|_| {
        Failure::rejected(
            "the subject's memory limit is too small for any program to start".into(),
            "give it more: `limits.memory` in sandbox.toml",
        )
    })?;
    if !args.quiet {
        limits::tell_out_of_memory(plan, session, args.json);
    }
    // Init has no more to say when the kernel ends all of the session at once.
    let end = match end {
        End::InitLost => End::Signaled(rustix::process::Signal::KILL.as_raw()),
        other => other,
    };
    finish(end, plan, session, &mut signals, status)
}

/// From the first process of the session to the last.
fn run_session(
    args: &RunArgs,
    status: &mut Status,
    decided: &'static Decided,
    mut joining: Joining,
    signals: &mut Signals,
    group: &mut Option<Group>,
) -> Result<End, Failure> {
    let Decided {
        session,
        places,
        plan,
        judges,
        absent,
        open_files,
        ..
    } = decided;
    signals.while_open(|| areas::ask(&mut joining, plan))?;
    let pair = || PacketSocket::pair().map_err(|error| internal("make a socket pair")(error.into()));
    let (control, init_control) = pair()?;
    let (front, supervisor) = pair()?;
    let (broker, init_broker) = pair()?;
    // Init builds the view and the file server measures the state while the supervisor opens the journal.
    let links = Links {
        control: init_control,
        broker: init_broker,
        mask: signals.inherited,
        open_files: *open_files,
    };
    let spawned = execd::spawn(plan, links, &control, group.as_ref()).map_err(|error| spawn_failure(&error))?;
    let child = match clone(CloneFlags::NONE).map_err(internal("fork"))? {
        Fork::Child => {
            let init = spawned.init.pid;
            // The cgroup is this process's to remove and to keep from being removed, not the supervisor's.
            drop((front, control, spawned, group.take()));
            let options = supervisor::Options {
                quiet: args.quiet,
                watch: args.watch,
                json: args.json,
            };
            let subject = supervisor::Subject { session, plan, init };
            supervisor::run(&subject, places, judges.clone(), supervisor, broker, &options)
        }
        Fork::Parent(child) => child,
    };
    drop((supervisor, broker));
    let front = Link::new(front, child.pid);
    if let Err(failure) = begin(&spawned, joining, &control, &front, signals, session) {
        spawned.kill();
        // The supervisor has nobody to supervise: its links are gone, so it ends by itself.
        drop((control, front));
        wait(&child, places, session);
        return Err(failure);
    }
    let on_start = || status.started(&session.id, spawned.init.pid);
    let end = Front::new(&spawned, &control, &front, signals).follow(on_start);
    drop(control);
    // Also with `--quiet`: this is no summary.
    for line in absent.after(&session.id) {
        eprintln!("nx: {}", plain(&line));
    }
    wait(&child, places, session);
    // Not earlier: a supervisor that hears of our end before it sees the program's would say nothing.
    drop(front);
    Ok(end)
}

/// Brings file server, supervisor and init together: nothing starts before somebody can judge and write down.
fn begin(
    spawned: &Spawned,
    joining: Joining,
    control: &PacketSocket,
    front: &Link,
    signals: &Signals,
    session: &Session,
) -> Result<(), Failure> {
    let files = signals
        .while_open(|| joining.finish())
        .map_err(|error| areas::failure(&error))?;
    let init = &spawned.init;
    let attached = files.attach(init.pid.cast_unsigned(), Some(init.pidfd.as_fd()));
    attached.map_err(|error| areas::lost(&error))?;
    let gone = |error| Failure::internal(format!("the supervisor is gone: {error}")).of_limit(error);
    let packet = signals.while_open(|| front.receive()).map_err(gone)?;
    if packet.bytes() != READY {
        return Err(supervisor_failure(packet.bytes()));
    }
    front.send(FILES, &[files.session.as_fd()]).map_err(gone)?;
    let mut areas = vec![files.tmp.as_fd(), files.state.as_fd(), files.shm.as_fd()];
    areas.extend(files.work.as_ref().map(AsFd::as_fd));
    spawned
        .provide(control, &areas)
        .map_err(|error| said_by_init(control, session).unwrap_or_else(|| spawn_failure(&error)))
}

/// Why init ended before it got the areas, if it said so.
fn said_by_init(control: &PacketSocket, session: &Session) -> Option<Failure> {
    loop {
        let packet = match control.try_receive() {
            // It ended without reading all that was sent to it; what it said is there all the same, unix(7).
            Err(rustix::io::Errno::CONNRESET) => continue,
            other => other.ok()?,
        };
        match Event::decode(packet.bytes()) {
            Some(Event::SetupFailed { step, errno }) => return Some(setup_failure(step, errno, session)),
            Some(_) => {}
            None => return None,
        }
    }
}

fn setup_failure(step: u32, errno: i32, session: &Session) -> Failure {
    let step = Step::from_number(step);
    let what = step.map_or("build the sandbox", Step::as_str);
    let error = std::io::Error::from_raw_os_error(errno);
    let budget = &session.rules.budgets.ipc;
    let limit = step.and_then(Step::ipc_limit).and_then(|limit| budget.get(limit));
    if let Some(info) = limit.and_then(|limit| session.rule(Some(limit.rule))) {
        let help = format!("the kernel does not take the limit of {} at {}", info.id, info.at);
        return Failure::unsupported(format!("cannot {what}: {error}"), &help);
    }
    if step == Some(Step::MountPoint) && errno == rustix::io::Errno::DQUOT.raw_os_error() {
        return Failure::unsupported(
            "there is no room in the subject's `tmp` for the place of what is mounted there".into(),
            "each directory on the way to a work directory below `/tmp` costs an inode of the budget of `tmp`: remove something \
             in a session, give `tmp` more `inodes` in quotas.toml, or name a directory elsewhere with `--work DIR`",
        );
    }
    if errno == 0 {
        return ended(&format!("cannot {what}: the process that does it was killed"));
    }
    Failure::new(Exit::Unsupported, format!("cannot {what}: {error}")).of_machine_or_limit(Some(errno))
}

/// A process of nx's own that is gone without a word. It does not panic, and nobody inside reaches it.
fn ended(what: &str) -> Failure {
    Failure::internal(what.to_owned()).with_help(
        "something outside of nx killed it: `sudo dmesg | tail` says whether the kernel did, for want of memory; then try \
         again",
    )
}

/// The one thing that root may not be able to do where it is root of a user namespace only. user_namespaces(7).
fn cannot_give_up_groups(error: std::io::Error) -> Failure {
    Failure::unsupported(
        format!("cannot give up root's groups: {error}"),
        "run nx as an ordinary user, or where root may set its groups: in a user namespace that somebody with the right \
         to has mapped",
    )
}

fn supervisor_failure(words: &[u8]) -> Failure {
    if words.is_empty() {
        return Failure::internal("the supervisor ended before the program began".into());
    }
    Failure::new(Exit::Missing, String::from_utf8_lossy(words).into_owned())
}

/// Waits for the supervisor. One that was killed has left its entry, or what was to become one: nobody else would know for a
/// minute that nobody makes it any more.
fn wait(child: &nexus_sys::process::Child, places: &Places, session: &Session) {
    let ended = rustix::process::waitid(
        rustix::process::WaitId::PidFd(child.pidfd.as_fd()),
        rustix::process::WaitIdOptions::EXITED,
    );
    // It fails only when there is nothing to wait for.
    if let Ok(Some(ended)) = ended
        && !ended.exited()
    {
        registry::clear(&places.runtime, &session.id);
    }
}

fn finish(end: End, plan: &Plan, session: &Session, signals: &mut Signals, status: &mut Status) -> Result<u8, Failure> {
    let name = plan.program.name.to_string_lossy();
    match end {
        End::Exited(code) => {
            status.exited(code);
            Ok(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
        }
        End::Signaled(signal) => {
            status.signaled(signal);
            Ok(signals.leave(signal))
        }
        End::ExecFailed(errno) => {
            let error = std::io::Error::from_raw_os_error(errno);
            let missing = error.kind() == std::io::ErrorKind::NotFound;
            let exit = if missing { Exit::NotFound } else { Exit::NotExecutable };
            let failure = Failure::new(exit, format!("cannot execute `{name}`: {error}"));
            Err(if missing {
                failure.with_help(
                    "the program must be in the subject's view: `read` in sandbox.toml, or the work directory",
                )
            } else {
                failure
            })
        }
        End::SetupFailed { step, errno } => Err(setup_failure(step, errno, session)),
        End::InitLost => Err(ended("the sandbox's init ended without a word")),
        End::SupervisorLost { words } => {
            Err(Failure::internal(words.unwrap_or_else(|| {
                "the supervisor ended; the program was ended with it".into()
            })))
        }
    }
}

fn spawn_failure(error: &SpawnError) -> Failure {
    match error {
        SpawnError::Init(errno) => ended(&error.to_string()).of_limit(*errno),
        SpawnError::Namespaces(why) | SpawnError::Cgroup(why) | SpawnError::IdentityMap(why) => {
            Failure::new(Exit::Unsupported, error.to_string()).of_machine_or_limit(why.raw_os_error())
        }
        _ => Failure::new(Exit::Unsupported, error.to_string()).of_machine(),
    }
}
