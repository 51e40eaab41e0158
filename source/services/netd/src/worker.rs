//! Calls that take as long as the other side likes: each waits in a thread of its own, so that none holds up another. A
//! thread that is done waits a while for the next call: most connects are short, and making a thread costs more than they.

use crate::away::{Away, look};
use crate::connecting::connect_once;
use crate::stream::Work;
use crate::taken::Taken;
use crate::{Denial, errno_of};
use nexus_abi::Errno;
use nexus_sys::hurry::Also;
use nexus_sys::seccomp::{Listener, Notification};
use nexus_sys::signal::{SignalSet, ThreadHandle, set_interrupting, set_mask};
use nexus_wire::broker::{Reply, UnixAction};
use nexus_wire::packet::PacketSocket;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno as HostErrno;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How many calls may wait at once. Each has a blocked thread of the program behind it, so only a program with more
/// threads than this meets it; each costs this side a thread with a small stack.
const WAITING_MAX: usize = 4096;

/// How many more may be under way of those that said that they do not wait, which is so but for a program that takes its word
/// back meanwhile: who keeps to it must not be told that others wait.
const PASSING_MAX: usize = 64;

/// What tells init's child to give up; what it says does not matter, only that it arrives.
const GIVE_UP: &[u8] = b"give up";

/// How many threads without a call are kept: as many as a busy program connects at once.
const IDLE_MAX: usize = 8;

/// A stack for a thread that makes three calls.
const STACK_BYTES: usize = 64 * 1024;

/// How often waiting calls are checked for signals. Nothing tells a supervisor that a signal is pending for a thread that
/// waits for it, so it has to look; a person who presses Ctrl-C does not notice a hundredth of a second.
const SIGNAL_CHECK: Duration = Duration::from_millis(10);

/// A look at many waiting calls takes its time; between two looks is at least this many times as much, so that looking
/// never takes more than a fifth of a processor.
const LOOK_SHARE: u32 = 4;

/// Tells somebody who keeps records of a denial that was found late.
pub type LateDenial = Arc<dyn Fn(Denial) + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Workers {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) listener: Arc<Listener>,
    late: LateDenial,
    waiting: Mutex<BTreeMap<u64, Waiting>>,
    changed: Condvar,
    /// Most programs never make a call that waits, and then nobody needs to look after them.
    watched: AtomicBool,
    pool: Mutex<Pool>,
    /// There is a job for a thread without one.
    hired: Condvar,
}

type Job = Box<dyn FnOnce() + Send>;

/// Threads that wait for a call to carry out, and calls for which one of these was chosen.
#[derive(Default)]
struct Pool {
    idle: usize,
    jobs: VecDeque<Job>,
}

struct Waiting {
    tid: u32,
    thread: Option<ThreadHandle>,
    give_way: Arc<GiveWay>,
    /// Whether it gives way to signals; to its caller's end it always does.
    interruptible: bool,
}

/// Whether a waiting call should give way, and how.
#[derive(Debug, Default)]
pub(crate) struct GiveWay(AtomicU8);

impl GiveWay {
    fn set(&self, away: Away) {
        let value = match away {
            Away::Marked => 1,
            Away::Perhaps => 2,
        };
        self.0.store(value, Ordering::Release);
    }

    pub(crate) fn get(&self) -> Option<Away> {
        match self.0.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Away::Marked),
            _ => Some(Away::Perhaps),
        }
    }
}

/// What a call that waited ends with.
pub(crate) enum Ended {
    /// It returns this.
    Value(usize),
    /// What init's child said.
    Told(Reply),
}

/// How a call waits.
struct Wait<F> {
    call: F,
    denial: Option<Denial>,
    interruptible: bool,
    /// Whether the call is made again after a signal whose handler wants that.
    restarts: bool,
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers")
            .field("waiting", &self.shared.waiting().len())
            .finish()
    }
}

impl Shared {
    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The signal that makes a blocked worker look up.
pub(crate) fn nudge() -> i32 {
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
            pool: Mutex::new(Pool::default()),
            hired: Condvar::new(),
        });
        Ok(Self { shared })
    }

    /// Notes that this thread waits for a call that it answers itself.
    pub(crate) fn note(&self, (id, tid): (u64, u32), thread: Option<ThreadHandle>, give_way: Arc<GiveWay>) {
        let entry = Waiting {
            tid,
            thread,
            give_way,
            interruptible: true,
        };
        self.shared.waiting().insert(id, entry);
        self.shared.changed.notify_one();
        // Without a thread for that it waits for its peer alone.
        let _ = self.watch();
    }

    /// It is over.
    pub(crate) fn forget(&self, id: u64) {
        self.shared.waiting().remove(&id);
    }

    /// Starts looking after waiting calls, with the first of them.
    fn watch(&self) -> std::io::Result<()> {
        if self.shared.watched.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let watched = Arc::clone(&self.shared);
        let also = Also::as_here();
        let work = move || {
            also.into_iter().for_each(Also::look_after_here);
            watch(&watched);
        };
        let thread = thread::Builder::new().name("signals".into()).stack_size(STACK_BYTES);
        thread.spawn(work).map(drop).inspect_err(|_| {
            self.shared.watched.store(false, Ordering::Release);
        })
    }

    /// Connects: in the kernel's own way, on the judged bytes, until it is done or the caller is called away. `passes`
    /// where it did not mean to wait.
    pub(crate) fn connect(
        &self,
        (id, tid): (u64, u32),
        socket: Taken,
        address: Vec<u8>,
        (restarts, passes): (bool, bool),
    ) -> std::io::Result<()> {
        let connect = move |give_way: &GiveWay| {
            let done = connect_once(&socket, &address, || give_way.get().is_none());
            done.map(|()| Ended::Value(0))
        };
        let places = WAITING_MAX.saturating_add(if passes { PASSING_MAX } else { 0 });
        let wait = Wait {
            call: connect,
            denial: None,
            interruptible: true,
            restarts,
        };
        self.wait_at((id, tid), wait, places)
    }

    /// Sends what has to wait for the other side; `work` says how much it sent.
    pub(crate) fn send(&self, call: &Notification, mut work: Work, restarts: bool) -> std::io::Result<()> {
        let work = move |give_way: &GiveWay| work(give_way).map(Ended::Value);
        self.wait_for(
            (call.id, call.tid),
            Wait {
                call: work,
                denial: None,
                interruptible: true,
                restarts,
            },
        )
    }

    /// Waits for what init's child says of a Unix socket; `denial` is recorded if the socket is not the subject's.
    pub(crate) fn unix(
        &self,
        call: &Notification,
        action: UnixAction,
        outcome: PacketSocket,
        denial: Denial,
    ) -> std::io::Result<()> {
        let wait = move |give_way: &GiveWay| {
            loop {
                match poll(&mut [PollFd::new(&outcome, PollFlags::IN)], None) {
                    // The child gives up, or has just succeeded; either way it says so. Until then nobody else may
                    // connect the same socket.
                    Err(HostErrno::INTR) if give_way.get().is_some() => {
                        let _ = outcome.try_send(GIVE_UP, &[]);
                    }
                    Err(HostErrno::INTR) => {}
                    Err(error) => return Err(error.into()),
                    Ok(_) => break,
                }
            }
            let packet = match outcome.receive() {
                // It ended without reading what was sent to it; what it said is there all the same, unix(7).
                Err(HostErrno::CONNRESET) => outcome.receive()?,
                other => other?,
            };
            match Reply::decode(packet.bytes()) {
                Some(Reply::Failed(errno)) if errno == HostErrno::INTR.raw_os_error() => Err(HostErrno::INTR.into()),
                Some(reply) => Ok(Ended::Told(reply)),
                None => Ok(Ended::Told(Reply::Failed(i32::from(Errno::EIO.raw())))),
            }
        };
        // The others never wait for anybody, and what is done is not to be done again.
        let interruptible = action == UnixAction::Connect;
        self.wait_for(
            (call.id, call.tid),
            Wait {
                call: wait,
                denial: Some(denial),
                interruptible,
                restarts: true,
            },
        )
    }

    fn wait_for(
        &self,
        caller: (u64, u32),
        wait: Wait<impl FnMut(&GiveWay) -> std::io::Result<Ended> + Send + 'static>,
    ) -> std::io::Result<()> {
        self.wait_at(caller, wait, WAITING_MAX)
    }

    fn wait_at(
        &self,
        (id, tid): (u64, u32),
        wait: Wait<impl FnMut(&GiveWay) -> std::io::Result<Ended> + Send + 'static>,
        places: usize,
    ) -> std::io::Result<()> {
        self.watch()?;
        let give_way = Arc::new(GiveWay::default());
        {
            let mut waiting = self.shared.waiting();
            if waiting.len() >= places {
                return Err(std::io::Error::from_raw_os_error(i32::from(Errno::EAGAIN.raw())));
            }
            let entry = Waiting {
                tid,
                thread: None,
                give_way: Arc::clone(&give_way),
                interruptible: wait.interruptible,
            };
            waiting.insert(id, entry);
        }
        self.shared.changed.notify_one();
        let shared = Arc::clone(&self.shared);
        self.begin(Box::new(move || shared.carry_out(id, wait, &give_way)))
            .inspect_err(|_| {
                self.shared.waiting().remove(&id);
            })
    }

    /// Gives a job to a thread that has none, or to a new one.
    fn begin(&self, job: Job) -> std::io::Result<()> {
        let mut pool = self.shared.pool();
        if pool.idle > pool.jobs.len() {
            pool.jobs.push_back(job);
            drop(pool);
            self.shared.hired.notify_one();
            return Ok(());
        }
        drop(pool);
        let shared = Arc::clone(&self.shared);
        let work = move || {
            // Only in these threads may the nudge arrive. One without this mask would not look up.
            if set_mask(&SignalSet::full_without(nudge())).is_ok() {
                job();
                shared.work_on();
            } else {
                job();
            }
        };
        let thread = thread::Builder::new().name("wait".into()).stack_size(STACK_BYTES);
        thread.spawn(work).map(drop)
    }
}

impl Shared {
    /// Carries out what comes, as one of the threads that are kept; returns where there are enough of these.
    fn work_on(&self) {
        let mut pool = self.pool();
        if pool.idle >= IDLE_MAX {
            return;
        }
        pool.idle = pool.idle.saturating_add(1);
        loop {
            if let Some(job) = pool.jobs.pop_front() {
                pool.idle = pool.idle.saturating_sub(1);
                drop(pool);
                job();
                pool = self.pool();
                if pool.idle >= IDLE_MAX {
                    return;
                }
                pool.idle = pool.idle.saturating_add(1);
                continue;
            }
            pool = self.hired.wait(pool).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Makes a call, in a thread of its own, and answers it.
    fn carry_out(&self, id: u64, mut wait: Wait<impl FnMut(&GiveWay) -> std::io::Result<Ended>>, give_way: &GiveWay) {
        if let Some(entry) = self.waiting().get_mut(&id) {
            entry.thread = Some(ThreadHandle::current());
        }
        let result = loop {
            match (wait.call)(give_way) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted && give_way.get().is_none() => {}
                other => break other,
            }
        };
        // What was taken for it: it is closed before its caller goes on, and whatever that waits for is waited for as the call
        // was, as one of so many, for as long as its caller is there and called by no signal.
        drop(wait.call);
        self.waiting().remove(&id);
        self.tell(id, result, wait.restarts, wait.denial, give_way);
    }

    /// Answers a call that is done or gives way.
    pub(crate) fn tell(
        &self,
        id: u64,
        result: std::io::Result<Ended>,
        restarts: bool,
        denial: Option<Denial>,
        give_way: &GiveWay,
    ) {
        // A caller that is gone hears nothing.
        let _ = match result {
            Ok(Ended::Value(value)) => self.listener.succeed(id, i64::try_from(value).unwrap_or(i64::MAX)),
            Ok(Ended::Told(Reply::Done | Reply::Listener)) => self.listener.succeed(id, 0),
            Ok(Ended::Told(Reply::Failed(errno))) => self.listener.fail(id, errno_of(Some(errno)).raw()),
            Ok(Ended::Told(Reply::Outside)) => {
                let errno = denial.as_ref().map_or(Errno::EPERM, |denial| denial.errno);
                if let Some(denial) = denial {
                    (self.late)(denial);
                }
                self.listener.fail(id, errno.raw())
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {
                if restarts && give_way.get() == Some(Away::Marked) {
                    self.listener.interrupt(id)
                } else {
                    self.listener.fail(id, Errno::EINTR.raw())
                }
            }
            Err(error) => self.listener.fail(id, errno_of(error.raw_os_error()).raw()),
        };
    }
}

/// Looks after the waiting calls: whoever has a signal to take, or is gone, must not wait on.
fn watch(shared: &Shared) {
    let mut pause = SIGNAL_CHECK;
    let mut waiting = shared.waiting();
    loop {
        if waiting.is_empty() {
            waiting = shared.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        // Not held while it looks: who is done must not wait for it.
        drop(waiting);
        thread::sleep(pause);
        let start = Instant::now();
        look_at_all(shared);
        pause = SIGNAL_CHECK.max(start.elapsed().saturating_mul(LOOK_SHARE));
        waiting = shared.waiting();
    }
}

fn look_at_all(shared: &Shared) {
    let calls: Vec<(u64, u32, bool)> = {
        let waiting = shared.waiting();
        let entries = waiting.iter().filter(|(_, entry)| entry.give_way.get().is_none());
        entries
            .map(|(id, entry)| (*id, entry.tid, entry.interruptible))
            .collect()
    };
    // One of a process's threads at a time: the first to give way may be the one that the signal is for.
    let mut guessed = BTreeSet::new();
    for (id, tid, interruptible) in calls {
        let away = if !shared.listener.is_waiting(id) {
            Some(Away::Marked)
        } else if interruptible {
            look(tid)
                .filter(|(group, away)| *away == Away::Marked || guessed.insert(*group))
                .map(|(_, away)| away)
        } else {
            None
        };
        if let (Some(away), Some(entry)) = (away, shared.waiting().get(&id)) {
            entry.give_way.set(away);
        }
    }
    for entry in shared.waiting().values().filter(|entry| entry.give_way.get().is_some()) {
        if let Some(thread) = entry.thread {
            // Again at every look until it is gone: the first may come just before it blocks.
            thread.interrupt(nudge());
        }
    }
}
