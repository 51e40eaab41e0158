//! Calls that take as long as the other side likes: each waits in a thread of its own, so that none holds up another.

use crate::{Denial, errno_of};
use nexus_abi::Errno;
use nexus_sys::seccomp::{Listener, Notification};
use nexus_sys::signal::{SignalSet, ThreadHandle, set_interrupting, set_mask};
use nexus_sys::socket as sys;
use nexus_wire::broker::Reply;
use nexus_wire::packet::PacketSocket;
use rustix::event::{PollFd, PollFlags, poll};
use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How many calls may wait at once. Each has a blocked thread of the program behind it, so only a program with more
/// threads than this meets it; each costs this side a thread with a small stack.
const WAITING_MAX: usize = 4096;

/// A stack for a thread that makes three calls.
const STACK_BYTES: usize = 64 * 1024;

/// How often waiting calls are checked for signals. Nothing tells a supervisor that a signal is pending for a thread that
/// waits for it, so it has to look; a person who presses Ctrl-C does not notice a hundredth of a second.
const SIGNAL_CHECK: Duration = Duration::from_millis(10);

/// Tells somebody who keeps records of a denial that was found late.
pub type LateDenial = Arc<dyn Fn(Denial) + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Workers {
    shared: Arc<Shared>,
}

struct Shared {
    listener: Arc<Listener>,
    late: LateDenial,
    waiting: Mutex<BTreeMap<u64, Waiting>>,
    changed: Condvar,
    /// Most programs never make a call that waits, and then nobody needs to look after them.
    watched: AtomicBool,
}

struct Waiting {
    tid: u32,
    thread: Option<ThreadHandle>,
    give_way: Arc<AtomicBool>,
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers")
            .field("waiting", &self.shared.waiting().len())
            .finish()
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The signal that makes a blocked worker look up.
fn nudge() -> i32 {
    rustix::process::Signal::USR1.as_raw()
}

impl Workers {
    pub(crate) fn new(listener: Arc<Listener>, late: LateDenial) -> std::io::Result<Self> {
        set_interrupting(nudge())?;
        let shared = Arc::new(Shared {
            listener,
            late,
            waiting: Mutex::new(BTreeMap::new()),
            changed: Condvar::new(),
            watched: AtomicBool::new(false),
        });
        Ok(Self { shared })
    }

    /// Starts looking after waiting calls, with the first of them.
    fn watch(&self) -> std::io::Result<()> {
        if self.shared.watched.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let watched = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name("signals".into()).stack_size(STACK_BYTES);
        thread.spawn(move || watch(&watched)).map(drop).inspect_err(|_| {
            self.shared.watched.store(false, Ordering::Release);
        })
    }

    /// Connects a blocking socket: in the kernel's own way, on the judged bytes, until it is done or the caller is
    /// called away.
    pub(crate) fn connect(&self, call: &Notification, socket: OwnedFd, address: Vec<u8>) -> std::io::Result<()> {
        self.wait_for(
            call,
            move |_| sys::connect(&socket, &address).map(|()| Reply::Done),
            None,
        )
    }

    /// Waits for what init's child says of a Unix socket; `denial` is recorded if the socket is not the subject's.
    pub(crate) fn unix(&self, call: &Notification, outcome: PacketSocket, denial: Denial) -> std::io::Result<()> {
        let wait = move |_: &AtomicBool| {
            poll(&mut [PollFd::new(&outcome, PollFlags::IN)], None)?;
            let packet = outcome.receive()?;
            Ok(Reply::decode(packet.bytes()).unwrap_or(Reply::Failed(i32::from(Errno::EIO.raw()))))
        };
        self.wait_for(call, wait, Some(denial))
    }

    fn wait_for(
        &self,
        call: &Notification,
        wait: impl Fn(&AtomicBool) -> std::io::Result<Reply> + Send + 'static,
        denial: Option<Denial>,
    ) -> std::io::Result<()> {
        self.watch()?;
        let (id, tid) = (call.id, call.tid);
        let give_way = Arc::new(AtomicBool::new(false));
        {
            let mut waiting = self.shared.waiting();
            if waiting.len() >= WAITING_MAX {
                return Err(std::io::Error::from_raw_os_error(i32::from(Errno::EAGAIN.raw())));
            }
            waiting.insert(
                id,
                Waiting {
                    tid,
                    thread: None,
                    give_way: Arc::clone(&give_way),
                },
            );
        }
        self.shared.changed.notify_one();
        let shared = Arc::clone(&self.shared);
        let work = move || {
            // Only here may the nudge arrive.
            let mask = set_mask(&SignalSet::full_without(nudge()));
            if let (Ok(_), Some(entry)) = (mask, shared.waiting().get_mut(&id)) {
                entry.thread = Some(ThreadHandle::current());
            }
            let result = loop {
                match wait(&give_way) {
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {
                        if give_way.load(Ordering::Acquire) {
                            break Err(error);
                        }
                    }
                    other => break other,
                }
            };
            shared.waiting().remove(&id);
            // A caller that is gone hears nothing.
            let _ = match result {
                Ok(Reply::Done | Reply::Listener) => shared.listener.succeed(id, 0),
                Ok(Reply::Failed(errno)) => shared.listener.fail(id, errno_of(Some(errno)).raw()),
                Ok(Reply::Outside) => {
                    let errno = denial.as_ref().map_or(Errno::EPERM, |denial| denial.errno);
                    if let Some(denial) = denial {
                        (shared.late)(denial);
                    }
                    shared.listener.fail(id, errno.raw())
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => shared.listener.interrupt(id),
                Err(error) => shared.listener.fail(id, errno_of(error.raw_os_error()).raw()),
            };
        };
        thread::Builder::new()
            .name("wait".into())
            .stack_size(STACK_BYTES)
            .spawn(work)
            .map(drop)
            .inspect_err(|_| {
                self.shared.waiting().remove(&id);
            })
    }
}

/// Looks after the waiting calls: whoever has a signal to take, or is gone, must not wait on.
fn watch(shared: &Shared) {
    let mut waiting = shared.waiting();
    loop {
        if waiting.is_empty() {
            waiting = shared.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        let (guard, _) = shared
            .changed
            .wait_timeout(waiting, SIGNAL_CHECK)
            .unwrap_or_else(PoisonError::into_inner);
        waiting = guard;
        for (id, entry) in &*waiting {
            let Some(thread) = entry.thread else { continue };
            if entry.give_way.load(Ordering::Acquire) || signal_pending(entry.tid) || !shared.listener.is_waiting(*id) {
                entry.give_way.store(true, Ordering::Release);
                // Again at every look until it is gone: the first may come just before it blocks.
                thread.interrupt(nudge());
            }
        }
    }
}

/// Whether a thread has a signal that it neither blocks nor ignores. proc_pid_status(5).
fn signal_pending(tid: u32) -> bool {
    let Ok(text) = std::fs::read_to_string(format!("/proc/{tid}/status")) else {
        return true;
    };
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|value| u64::from_str_radix(value.trim(), 16).ok())
            .unwrap_or(0)
    };
    (field("SigPnd:") | field("ShdPnd:")) & !field("SigBlk:") & !field("SigIgn:") != 0
}
