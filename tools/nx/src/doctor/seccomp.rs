//! A filter whose calls somebody else answers. seccomp_unotify(2).

use super::child::{Failure, Refused, run};
use super::facts::{Facts, read};
use super::report::{Mend, State};
use super::syscalls;
use nexus_abi::syscall::nr;
use nexus_sys::process::CloneFlags;
use nexus_sys::seccomp::{Instruction, adopt_listener, install_with_listener};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

// linux/bpf_common.h, linux/seccomp.h.
const LOAD_WORD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const USER_NOTIF: u32 = 0x7fc0_0000;
const ALLOW: u32 = 0x7fff_0000;

/// A call that nothing else makes: its answer is the caller's own business.
const CALL: u32 = nr::getppid;

/// The number given as the second call's result; no process has it (`PID_MAX_LIMIT` is 2^22).
const ANSWER: i32 = (1 << 22) + 1;

const SYNC: &str = "sync";

/// Below [`super::child::PROBE_TIME_MAX`], so that a thread that says nothing is told from a probe that hangs.
const THREAD_TIME_MAX: Duration = Duration::from_secs(1);

const fn instruction(code: u16, jump_true: u8, jump_false: u8, k: u32) -> Instruction {
    Instruction {
        code,
        jump_true,
        jump_false,
        k,
    }
}

const PROGRAM: [Instruction; 4] = [
    instruction(LOAD_WORD, 0, 0, 0),
    instruction(JUMP_IF_EQUAL, 0, 1, CALL),
    instruction(RETURN, 0, 0, USER_NOTIF),
    instruction(RETURN, 0, 0, ALLOW),
];

/// What the filtered thread says.
enum Said {
    Listener(Result<i32, Refused>),
    Result(i32),
}

fn filtered(to: &Sender<Said>) {
    let install = || {
        rustix::thread::set_no_new_privs(true).map_err(Refused::at("give up new privileges"))?;
        install_with_listener(&PROGRAM).map_err(Refused::io("install a filter with a listener (Linux 5.19)"))
    };
    let installed = install();
    let go_on = installed.is_ok();
    // The other side is there as long as the probe is.
    let _ = to.send(Said::Listener(installed));
    for _ in 0..if go_on { 2 } else { 0 } {
        // Where nobody answers any more the kernel says `ENOSYS`, to a call that cannot fail otherwise.
        let parent = std::os::unix::process::parent_id().cast_signed();
        let _ = to.send(Said::Result(parent));
    }
}

fn tried() -> Result<String, Refused> {
    let (to, from) = channel();
    std::thread::Builder::new()
        .spawn(move || filtered(&to))
        .map_err(Refused::io("start a thread"))?;
    let silent = |_| Refused::at("hear of the filtered thread")(Errno::TIMEDOUT);
    let Said::Listener(number) = from.recv_timeout(THREAD_TIME_MAX).map_err(silent)? else {
        return Err(Refused::at("see a filtered call wait")(Errno::PROTO));
    };
    let listener = adopt_listener(number?).map_err(Refused::io("take the listener"))?;
    let sync = listener.set_sync_wake_up();
    let take = || -> Result<u64, Refused> {
        let call = listener.receive().map_err(Refused::io("receive a call"))?;
        if u32::try_from(call.number) != Ok(CALL) || !listener.is_waiting(call.id) {
            return Err(Refused::at("receive the call that was made")(Errno::PROTO));
        }
        Ok(call.id)
    };
    let result = || match from.recv_timeout(THREAD_TIME_MAX).map_err(silent)? {
        Said::Result(value) => Ok(value),
        Said::Listener(_) => Err(Refused::at("hear the call's result")(Errno::PROTO)),
    };

    let (given, _other) = rustix::pipe::pipe().map_err(Refused::at("make a pipe"))?;
    let id = take()?;
    let number = listener
        .succeed_with_descriptor(id, given.as_fd(), true)
        .map_err(Refused::io(
            "answer with a descriptor (SECCOMP_ADDFD_FLAG_SEND, Linux 5.14)",
        ))?;
    if result()? != number || !same(given.as_fd(), number)? {
        return Err(Refused::at("see the descriptor arrive")(Errno::PROTO));
    }

    let id = take()?;
    let (other, _end) = rustix::pipe::pipe().map_err(Refused::at("make a pipe"))?;
    let place = u32::try_from(number).unwrap_or(0);
    listener
        .replace_descriptor(id, other.as_fd(), place, true)
        .map_err(Refused::io("replace a descriptor (SECCOMP_ADDFD_FLAG_SETFD)"))?;
    listener
        .succeed(id, ANSWER.into())
        .map_err(Refused::io("answer a call"))?;
    if result()? != ANSWER || !same(other.as_fd(), number)? {
        return Err(Refused::at("see the descriptor replaced")(Errno::PROTO));
    }
    Ok(if sync { SYNC } else { "" }.to_owned())
}

/// Whether the descriptor `number` of this process is what `fd` is.
fn same(fd: BorrowedFd<'_>, number: i32) -> Result<bool, Refused> {
    let failed = Refused::at("look at a descriptor");
    let one = rustix::fs::fstat(fd).map_err(&failed)?;
    let other = rustix::fs::stat(format!("/proc/self/fd/{number}")).map_err(&failed)?;
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

pub(crate) fn notification(facts: &Facts) -> State {
    match run(CloneFlags::NONE, tried) {
        Ok(_) => {
            let actions = read("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
            let actions = actions.split_whitespace().collect::<Vec<_>>().join(" ");
            State::available(format!(
                "a filtered call was answered with a value and with a descriptor ({actions})"
            ))
        }
        Err(failure) => explain(&failure, facts),
    }
}

fn explain(failure: &Failure, facts: &Facts) -> State {
    let mend = match failure.errno() {
        // seccomp(2): one listener for all filters of a thread.
        Some(Errno::BUSY) => vec![Mend::words(
            "start nx outside of the container or sandbox whose supervisor already answers this process's calls (LXC: `security.syscalls.intercept.*`)",
        )],
        Some(Errno::INVAL) if facts.container.is_none() => vec![Mend::words("boot Linux 5.19 or later")],
        _ => syscalls::mend(facts),
    };
    State::missing(failure.to_string(), mend)
}

pub(crate) fn sync_wake_up(_: &Facts) -> State {
    match run(CloneFlags::NONE, tried).as_deref() {
        Ok(SYNC) => State::available("a waiting call wakes its answerer on the same core"),
        Ok(_) => State::degraded(
            "each call that is judged takes about three times as long as it does from Linux 6.6 on",
            vec![Mend::words("boot Linux 6.6 or later")],
        ),
        Err(failure) => State::degraded(format!("cannot be tried: {failure}"), vec![]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_listener_is_told_from_an_old_kernel() {
        let text = |errno| {
            let failure = Failure::Refused(Refused::at("install a filter")(errno));
            format!("{:?}", explain(&failure, &Facts::default()))
        };
        assert!(text(Errno::BUSY).contains("already answers"));
        assert!(text(Errno::INVAL).contains("Linux 5.19"));
    }
}
