//! The one that reads while the machine is quiet: an idle thread, on the core of who asks.
//!
//! Where a core is idle, the scheduler moves there whom a server wakes, away from the core that both shared
//! (`select_idle_sibling` in Linux). Then one core has to wake another for each request, and that is most of what a request
//! takes. A core that runs nothing but threads of `SCHED_IDLE` counts as idle itself: whom such a thread wakes stays, and
//! runs at once.
//!
//! Where something else wants the core, such a thread would starve. So it reads only while requests flow from one caller
//! and a core is to spare; [`super::warden`] sees to both, every millisecond. An ordinary user's thread cannot become an
//! ordinary one again, so it is one of its own, and the others step back meanwhile.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use nexus_sys::signal::{ThreadHandle, set_interrupting};

use super::crew::{Crew, Hands, Post, QUIET, TURN_NS, leave_post};

/// `SIGUSR1` (signal(7)): ends a wait.
pub(crate) const LOOK_UP: i32 = 10;

/// After how many requests it looks whether its caller still shares its core: looking costs half a microsecond.
const FOLLOW_REQUESTS: u32 = 4;

/// What there is of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Quiet {
    /// Nothing yet.
    #[default]
    NotBegun,
    /// It waits for a quiet time.
    Waits,
    /// It reads, and nobody else does.
    Reads,
    /// This kernel does not have it.
    Refused,
}

/// Has [`LOOK_UP`] end a wait and do nothing else.
pub(crate) fn prepare() -> std::io::Result<()> {
    set_interrupting(LOOK_UP)
}

impl Crew {
    /// Whether it reads.
    pub(super) fn is_quiet(&self) -> bool {
        self.is_quiet.load(Ordering::Relaxed)
    }

    /// Has it read, where only one should.
    pub(super) fn begin_quiet(self: &Arc<Self>) {
        let mut muster = self.lock();
        let begun = match muster.quiet {
            Quiet::NotBegun => false,
            Quiet::Waits => true,
            Quiet::Reads | Quiet::Refused => return,
        };
        if muster.over || self.wanted() != 1 {
            return;
        }
        // Still at what it stepped aside for: nobody would read.
        if self
            .posts()
            .get(QUIET)
            .is_some_and(|post| post.steps.load(Ordering::Relaxed) & 1 == 1)
        {
            return;
        }
        if !begun {
            let crew = Arc::clone(self);
            let thread = std::thread::Builder::new()
                .name("vfsd-quiet".to_owned())
                .spawn(move || crew.work_quietly());
            match thread {
                // Nobody waits for its end: where all cores are busy it may be long in coming.
                Ok(thread) => drop(thread),
                Err(_) => return,
            }
        }
        muster.quiet = Quiet::Reads;
        self.is_quiet.store(true, Ordering::Relaxed);
        if let Some(post) = self.posts().get(QUIET) {
            post.reads.store(true, Ordering::Relaxed);
        }
        self.needed.notify_all();
        self.recount(muster);
    }

    /// Has the others read again; with `steps`, only if it is still where it was.
    pub(super) fn end_quiet(self: &Arc<Self>, steps: Option<u64>) {
        let mut muster = self.lock();
        let is_at = self.posts().get(QUIET).map(|post| post.steps.load(Ordering::Relaxed));
        if muster.quiet != Quiet::Reads || (steps.is_some() && steps != is_at) {
            return;
        }
        muster.quiet = Quiet::Waits;
        self.is_quiet.store(false, Ordering::Relaxed);
        if let Some(post) = self.posts().get(QUIET) {
            post.reads.store(false, Ordering::Relaxed);
        }
        self.recount(muster);
        // It may wait for a request that is better read by one of the others.
        if let Some(post) = self.posts().get(QUIET)
            && is_at.is_some_and(|steps| steps & 1 == 0)
            && let Ok(thread @ 1..) = i32::try_from(post.thread.load(Ordering::Relaxed))
        {
            ThreadHandle::of(thread).interrupt(LOOK_UP);
        }
    }

    /// Wakes it where it still waits for a request although it should not: the signal may have come just before it began to.
    pub(super) fn remind_quiet(&self) {
        if self.is_quiet() || !self.quiet_waits.load(Ordering::Relaxed) {
            return;
        }
        if let Some(post) = self.posts().get(QUIET)
            && let Ok(thread @ 1..) = i32::try_from(post.thread.load(Ordering::Relaxed))
        {
            ThreadHandle::of(thread).interrupt(LOOK_UP);
        }
    }

    fn work_quietly(self: &Arc<Self>) {
        // However this thread ends, nobody waits for it to read.
        let _gone = Gone(self);
        let Some(post) = self.take_post(QUIET) else { return };
        if step_back().is_ok() {
            let mut hands = Hands::new();
            while self.wait_for_quiet() {
                self.quiet_waits.store(true, Ordering::Relaxed);
                self.read_quietly(post, &mut hands);
                self.quiet_waits.store(false, Ordering::Relaxed);
            }
        }
        leave_post(post);
    }

    /// Serves while it should, and notices when its caller was moved to another core.
    fn read_quietly(self: &Arc<Self>, post: &Post, hands: &mut Hands) {
        let mut served = 0_u32;
        while post.reads.load(Ordering::Relaxed) {
            if self.serve_one(post, hands).is_err() {
                return self.end();
            }
            served = served.wrapping_add(1);
            // Who shares our core goes before us, so what it asks next is here before we look. Who does not, is elsewhere.
            if served.is_multiple_of(FOLLOW_REQUESTS) && !self.has_request() {
                self.lost_caller.store(true, Ordering::Relaxed);
                self.wake_warden();
            }
        }
    }

    /// Waits until it should read; `false` at the end.
    fn wait_for_quiet(&self) -> bool {
        let mut muster = self.lock();
        while !muster.over && muster.quiet != Quiet::Reads {
            muster = self.needed.wait(muster).unwrap_or_else(PoisonError::into_inner);
        }
        !muster.over
    }
}

/// Says when it is dropped that there is no reader for quiet times any more.
struct Gone<'c>(&'c Arc<Crew>);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.0.end_quiet(None);
        self.0.lock().quiet = Quiet::Refused;
    }
}

fn step_back() -> io::Result<()> {
    let nice = rustix::process::getpriority_process(None)?;
    nexus_sys::schedule::step_back(TURN_NS, nice)
}

#[cfg(test)]
mod tests;
