//! The first process of a session's pid namespace: builds the view, starts the program, reaps, and passes signals on.
//!
//! Nobody inside can trace it (it is not dumpable), signal it (it is the namespace's init) or outlive it.

use crate::broker;
use crate::build::HOST_NAME;
use crate::input::{self, Input};
use crate::ipc::{self, Held};
use crate::launch::{self, Inherited, Launched};
use crate::plan::{Plan, SysV};
use crate::spawn::Links;
use crate::step::{Failed, Step};
use crate::view::{self, Areas};
use nexus_sys::signal::{SignalSet, bit, descriptor, is_ignored, set_default, set_ignored, set_mask, take};
use nexus_sys::{process, socket};
use nexus_wire::broker::Reply;
use nexus_wire::control::{Command, Event};
use nexus_wire::packet::PacketSocket;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Mode;
use rustix::process::{Pid, WaitOptions, WaitStatus};
use rustix::thread::{Gid, Uid};
use std::os::fd::{AsFd, OwnedFd};

/// Runs as the child of [`crate::spawn()`] and ends the process.
pub(crate) fn run(plan: &Plan, links: Links, in_cgroup: bool) -> ! {
    let Links {
        control,
        broker,
        mask,
        open_files,
    } = links;
    let inherited = Inherited { mask, open_files };
    let code = match start(plan, &control, &broker, &inherited, in_cgroup) {
        Ok(Some((launched, input, held))) => {
            let code = serve(&control, &broker, &held, launched.pid);
            if let Some(input) = input {
                input.hand_back();
            }
            code
        }
        // What became of it was told.
        Ok(None) => 0,
        Err(Failed { step, errno }) => {
            // If `nx run` is gone there is nobody to tell.
            let step = step.number();
            let _ = control.send(&Event::SetupFailed { step, errno }.encode(), &[]);
            1
        }
    };
    process::exit_now(code)
}

/// Builds everything up to the running program; `None` if `nx run` went away, or exec failed or a signal came before it,
/// and that was told.
fn start(
    plan: &Plan,
    control: &PacketSocket,
    broker: &PacketSocket,
    inherited: &Inherited,
    in_cgroup: bool,
) -> Result<Option<(Launched, Option<Input>, Held)>, Failed> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(Failed::at(Step::Prepare))?;
    process::close_all_but(3, &[control.as_fd(), broker.as_fd()]).map_err(Failed::io(Step::Prepare))?;
    set_mask(&SignalSet::full()).map_err(Failed::io(Step::Prepare))?;
    // Were it ignored, the kernel would reap in this process's place and the program's end be lost; the program finds it
    // as it was.
    let ignores_children = is_ignored(CHILD_SIGNAL);
    set_default(CHILD_SIGNAL);
    // Here and not in clone: it takes longer than all else that clone does, and the parent has other things to do. With
    // bounds on its IPC, the session enters a namespace that is made for them.
    process::new_network_namespace().map_err(Failed::io(Step::Namespaces))?;
    if plan.ipc.sysv == SysV::Denied {
        process::new_ipc_namespace().map_err(Failed::io(Step::Namespaces))?;
    }
    let go = control.receive().map_err(Failed::at(Step::Prepare))?;
    if Command::decode(go.bytes()) != Some(Command::Go) {
        return Ok(None);
    }
    if in_cgroup {
        // The one that clone made begins where `nx` is, and the session's cgroup lies outside of that: the program would
        // be told its place on the host.
        process::new_cgroup_namespace().map_err(Failed::io(Step::Cgroup))?;
    }
    // While this process still is the user, with the user's right to look; then never again.
    let sources = view::open_sources(plan)?;
    let input = input::close_in().map_err(Failed::at(Step::Input))?;
    take_identity(plan)?;
    let bounding = match plan.ipc.sysv {
        SysV::Bounded => Some(ipc::begin(&plan.ipc, plan.identity.uid, plan.identity.gid)?),
        SysV::Denied => None,
    };
    socket::loopback_up().map_err(Failed::io(Step::Loopback))?;
    launch::bound_capabilities().map_err(Failed::at(Step::Privileges))?;
    let view = view::build(sources)?;
    if let Some(bounding) = &bounding {
        bounding.enter()?;
    }
    let mut held = Held::new(&plan.ipc)?;
    let word = control.receive().map_err(Failed::at(Step::Prepare))?;
    if Command::decode(word.bytes()) != Some(Command::Areas) {
        return Ok(None);
    }
    let mut mounts = word.descriptors;
    let work = if mounts.len() > 3 { mounts.pop() } else { None };
    let Ok([tmp, state, shm]) = <[OwnedFd; 3]>::try_from(mounts) else {
        return Err(Failed {
            step: Step::Prepare,
            errno: rustix::io::Errno::PROTO.raw_os_error(),
        });
    };
    let areas = Areas { tmp, state, shm, work };
    view::finish(view, &areas)?;
    drop(areas);
    if let Some(bounding) = bounding {
        bounding.see_gone();
    }
    control
        .send(&Event::Launching.encode(), &[])
        .map_err(Failed::at(Step::Fork))?;
    let mut launched = launch::launch(plan, inherited, &held, || {
        if ignores_children {
            set_ignored(CHILD_SIGNAL);
        }
    })?;
    drop_privileges().map_err(Failed::at(Step::Privileges))?;
    if let Some(signal) = launched.signal {
        let _ = control.send(&Event::Signaled(signal).encode(), &[]);
        return Ok(None);
    }
    if launched.exec_errno != 0 {
        let _ = control.send(&Event::ExecFailed(launched.exec_errno).encode(), &[]);
        return Ok(None);
    }
    // Handed over and closed: a second copy would keep the listener alive with nobody listening.
    let Some(listener) = launched.listener.take() else {
        return Ok(None);
    };
    let own = socket::socket(libc_af_inet(), libc_sock_dgram(), 0).map_err(Failed::io(Step::Listener))?;
    broker
        .send(&Reply::Listener.encode(), &[listener.as_fd(), own.as_fd()])
        .map_err(Failed::at(Step::Listener))?;
    // Landlock has been told.
    drop(held.queues.take());
    Ok(Some((launched, input, held)))
}

fn libc_af_inet() -> i32 {
    i32::from(rustix::net::AddressFamily::INET.as_raw())
}

fn libc_sock_dgram() -> i32 {
    rustix::net::SocketType::DGRAM.as_raw().cast_signed()
}

fn take_identity(plan: &Plan) -> Result<(), Failed> {
    let failed = Failed::at(Step::Identity);
    let (uid, gid) = (Uid::from_raw(plan.identity.uid), Gid::from_raw(plan.identity.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(&failed)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(&failed)?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).map_err(&failed)?;
    // setresuid clears the death signal.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).map_err(&failed)?;
    rustix::system::sethostname(HOST_NAME.as_bytes()).map_err(&failed)?;
    rustix::process::umask(Mode::empty());
    // A kernel without keyrings has nothing to inherit.
    match process::new_session_keyring() {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::NOSYS.raw_os_error()) => {
            Err(Failed::io(Step::Identity)(error))
        }
        _ => Ok(()),
    }
}

/// Gives up every capability for good. Init's own work is done; what the broker does needs none.
fn drop_privileges() -> Result<(), rustix::io::Errno> {
    launch::drop_capabilities()?;
    rustix::thread::set_no_new_privs(true)
}

/// Reaps, passes signals and job control on, and does what the supervisor asks, until the program ends.
fn serve(control: &PacketSocket, broker: &PacketSocket, held: &Held, program: Pid) -> i32 {
    let Ok(signals) = descriptor(&SignalSet::empty().with(CHILD_SIGNAL)) else {
        return 1;
    };
    if control.send(&Event::Started.encode(), &[]).is_err() {
        return 1;
    }
    let mut supervised = true;
    loop {
        while take(&SignalSet::empty().with(CHILD_SIGNAL)).is_some() {}
        if reap(control, program) {
            return 0;
        }
        let mut fds = [
            PollFd::new(&signals, PollFlags::IN),
            PollFd::new(control, PollFlags::IN),
            PollFd::new(broker, PollFlags::IN),
        ];
        let watched = if supervised { fds.len() } else { fds.len() - 1 };
        if fds.get_mut(..watched).is_none_or(|fds| poll(fds, None).is_err()) {
            continue;
        }
        let [_, command, request] = fds.map(|fd| !fd.revents().is_empty());
        if command && !obey(control, program) {
            return 0;
        }
        // A supervisor that has seen the last filtered process end goes before the program is reaped; if it goes
        // earlier, `nx run` ends the session.
        if request && !broker::answer(broker, held) {
            supervised = false;
            // Whoever still asks is not to wait for an answer.
            let _ = rustix::net::shutdown(broker, rustix::net::Shutdown::Both);
        }
    }
}

const CHILD_SIGNAL: i32 = rustix::process::Signal::CHILD.as_raw();

/// Takes every change of a child; true once the program itself ended.
fn reap(control: &PacketSocket, program: Pid) -> bool {
    let options = WaitOptions::NOHANG | WaitOptions::UNTRACED | WaitOptions::CONTINUED;
    while let Ok(Some((pid, status))) = rustix::process::wait(options) {
        let Some(event) = event_of(status).filter(|_| pid == program) else {
            continue;
        };
        // If `nx run` is gone, its death signal is on the way.
        let _ = control.send(&event.encode(), &[]);
        if matches!(event, Event::Exited(_) | Event::Signaled(_)) {
            return true;
        }
    }
    false
}

fn event_of(status: WaitStatus) -> Option<Event> {
    status
        .exit_status()
        .map(Event::Exited)
        .or_else(|| status.terminating_signal().map(Event::Signaled))
        .or_else(|| status.stopping_signal().map(Event::Stopped))
        .or_else(|| status.continued().then_some(Event::Continued))
}

/// Does what `nx run` says; false once it is gone, or the program.
fn obey(control: &PacketSocket, program: Pid) -> bool {
    let Ok(packet) = control.receive() else { return false };
    match Command::decode(packet.bytes()) {
        Some(Command::Signal { number, everybody }) => {
            // What went to the whole process group has reached a program that still is in that group.
            let has_it = everybody && in_same_group(program);
            if !has_it {
                let _ = nexus_sys::signal::kill(program.as_raw_nonzero().get(), number);
            }
            true
        }
        Some(Command::Pending) => {
            // What the program did so far is told before the answer.
            if reap(control, program) {
                return false;
            }
            control.send(&Event::Pending(take_all()).encode(), &[]).is_ok()
        }
        Some(Command::Go | Command::Areas) | None => !packet.bytes().is_empty(),
    }
}

fn in_same_group(program: Pid) -> bool {
    let own = process::group_of(0).ok();
    own.is_some() && process::group_of(program.as_raw_nonzero().get()).ok() == own
}

/// Takes every signal that waits here; all are blocked.
fn take_all() -> u64 {
    let set = SignalSet::full_without(CHILD_SIGNAL);
    let mut signals = 0;
    while let Some(taken) = take(&set) {
        signals |= bit(taken.number);
    }
    signals
}
