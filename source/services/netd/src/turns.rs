//! Who judges: one thread at a time, and one that stands by.
//!
//! What a call does is done by the thread that judged it, which nobody has to be woken for. Where that may wait for the other
//! side, whoever judges puts the turn down for as long; the one that stands by looks every millisecond whether it still lies
//! there, and then goes on with it. The one that waited stands by in its place once it is done.

use crate::worker::nudge;
use nexus_sys::hurry::Hurrier;
use nexus_sys::signal::{SignalSet, ThreadHandle, set_interrupting, set_mask};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How long a turn lies at least before somebody else takes it, and at most twice that: a near server has answered a hundred times
/// over by then, and whoever calls meanwhile does not notice it.
const LOOK: Duration = Duration::from_millis(1);

/// Between two looks at whoever judges and hurries: a look in each millisecond would cost who asks for much three hundredths.
pub(crate) const HURRY_PAUSE: Duration = Duration::from_millis(10);

/// After how many looks without a turn put down in between nobody looks any more.
const LOOKS_IDLE: u32 = 4;

/// How long the end of whoever judges is waited for until it is told once more: it may have been just about to wait.
const TOLD_AGAIN: Duration = Duration::from_micros(50);

/// The turn of a session's judge, which is `T`.
pub struct Turns<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    over: AtomicBool,
    serve: Serve<T>,
    /// Looks after whoever judges.
    hurrier: Hurrier,
}

/// Told who waits.
type Taken = Box<dyn FnOnce(Option<ThreadHandle>) + Send>;

type Serve<T> = Box<dyn Fn(&Arc<Turns<T>>, T) + Send + Sync>;

struct State<T> {
    /// The turn, and what is to be done by the one who takes it.
    down: Option<(T, Taken)>,
    /// How many times it was put down.
    count: u64,
    standing_by: StandingBy,
    /// Who has the turn, or had it last and waits.
    judge: Option<(thread::ThreadId, ThreadHandle)>,
    ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StandingBy {
    /// Nobody was needed yet.
    NotYet,
    /// The one who would waits.
    Nobody,
    Asleep,
    Looks,
}

impl<T> fmt::Debug for Turns<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns").finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Turns<T> {
    /// Begins with the turn. `serve` judges until [`Self::are_over`] or the turn is somebody else's; its threads are sent a
    /// signal to look up, and no other.
    ///
    /// # Errors
    /// Those of making a thread.
    pub fn begin(turn: T, serve: impl Fn(&Arc<Self>, T) + Send + Sync + 'static) -> io::Result<Arc<Self>> {
        set_interrupting(nudge())?;
        let turns = Arc::new(Self {
            state: Mutex::new(State {
                down: None,
                count: 0,
                standing_by: StandingBy::NotYet,
                judge: None,
                ended: false,
            }),
            changed: Condvar::new(),
            over: AtomicBool::new(false),
            serve: Box::new(serve),
            hurrier: Hurrier::start(nudge(), HURRY_PAUSE)?,
        });
        turns.hire(Some(turn))?;
        Ok(turns)
    }

    fn hire(self: &Arc<Self>, turn: Option<T>) -> io::Result<()> {
        let turns = Arc::clone(self);
        let work = move || {
            // Nothing else is for these threads, and one without this mask only takes more.
            let _ = set_mask(&SignalSet::full_without(nudge()));
            turns.hurrier.look_after_here();
            let mut next = turn.inspect(|_| turns.state().judge = Some(here()));
            while let Some(turn) = next.or_else(|| turns.stand_by()) {
                (turns.serve)(&turns, turn);
                turns.served();
                next = None;
            }
        };
        thread::Builder::new().name("judge".into()).spawn(work).map(drop)
    }

    /// The turn is no longer this thread's: another's, or nobody's any more.
    fn served(&self) {
        let mut state = self.state();
        if state.judge.is_some_and(|(thread, _)| thread == thread::current().id()) {
            state.end();
            self.over.store(true, Ordering::Release);
            self.changed.notify_all();
        }
    }

    /// Whether there is nothing left to judge.
    #[must_use]
    pub fn are_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Ends the judging: what is being judged is judged, and what whoever judges waits for never comes.
    pub fn end(&self) {
        self.over.store(true, Ordering::Release);
        let mut state = self.state();
        loop {
            if state.down.take().is_some() {
                // It waits for the other side of a connection.
                state.end();
            }
            if state.ended {
                break;
            }
            if let Some((_, judge)) = state.judge {
                judge.interrupt(nudge());
            }
            let waited = self.changed.wait_timeout(state, TOLD_AGAIN);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Whether somebody would go on with the turn: `false` where who judges must not wait.
    pub(crate) fn are_watched(self: &Arc<Self>) -> bool {
        let mut state = self.state();
        match state.standing_by {
            StandingBy::Asleep | StandingBy::Looks => true,
            StandingBy::Nobody => false,
            StandingBy::NotYet => {
                // As if it looked already: it begins by that.
                if self.hire(None).is_ok() {
                    state.standing_by = StandingBy::Looks;
                }
                state.standing_by == StandingBy::Looks
            }
        }
    }

    /// Puts the turn down for as long as `work` takes. Whoever takes it meanwhile does `taken` first; then it is gone for this
    /// thread, which has nothing to do but to finish what it did.
    pub(crate) fn without<R>(
        &self,
        turn: T,
        taken: impl FnOnce(Option<ThreadHandle>) + Send + 'static,
        work: impl FnOnce() -> R,
    ) -> (Option<T>, R) {
        {
            let mut state = self.state();
            state.count = state.count.wrapping_add(1);
            state.down = Some((turn, Box::new(taken)));
            if state.standing_by == StandingBy::Asleep {
                state.standing_by = StandingBy::Looks;
                self.changed.notify_all();
            }
        }
        let result = work();
        (self.state().down.take().map(|(turn, _)| turn), result)
    }

    /// Waits for a turn that lies for too long.
    fn stand_by(&self) -> Option<T> {
        let mut state = self.state();
        state.standing_by = StandingBy::Looks;
        let (mut seen, mut idle) = (state.count, 0_u32);
        loop {
            if idle >= LOOKS_IDLE && state.down.is_none() && !self.are_over() {
                state.standing_by = StandingBy::Asleep;
                let asleep = |state: &mut State<T>| state.standing_by == StandingBy::Asleep && !self.are_over();
                let awake = self.changed.wait_while(state, asleep);
                state = awake.unwrap_or_else(PoisonError::into_inner);
                (seen, idle) = (state.count, 0);
            }
            if self.are_over() {
                return None;
            }
            drop(state);
            thread::sleep(LOOK);
            state = self.state();
            if state.count != seen {
                (seen, idle) = (state.count, 0);
            } else if let Some((turn, first)) = state.down.take() {
                state.standing_by = StandingBy::Nobody;
                let waits = state.judge.replace(here());
                first(waits.map(|(_, thread)| thread));
                return Some(turn);
            } else {
                idle = idle.saturating_add(1);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn end(&mut self) {
        self.judge = None;
        self.ended = true;
    }
}

fn here() -> (thread::ThreadId, ThreadHandle) {
    (thread::current().id(), ThreadHandle::current())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{self, Receiver, Sender};

    type Job = Box<dyn FnOnce() + Send>;

    /// Judges what comes: each thing may wait, and the next is told by whom.
    struct Bench {
        jobs: Receiver<Job>,
    }

    struct Ended(Sender<()>);

    impl Drop for Ended {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }

    type Begun = (Arc<Turns<(Bench, Ended)>>, Sender<Job>, Receiver<()>);

    fn begin() -> Begun {
        let (give, jobs) = mpsc::channel::<Job>();
        let (tell, ended) = mpsc::channel();
        let serve = |turns: &Arc<Turns<_>>, mut turn: (Bench, Ended)| {
            while !turns.are_over() {
                // It never waits for a job for ever, as a call does, which a signal ends.
                let Ok(job) = turn.0.jobs.recv_timeout(Duration::from_millis(1)) else {
                    continue;
                };
                if !turns.are_watched() {
                    job();
                    continue;
                }
                match turns.without(turn, |_| {}, job).0 {
                    Some(back) => turn = back,
                    None => return,
                }
            }
        };
        (Turns::begin((Bench { jobs }, Ended(tell)), serve).unwrap(), give, ended)
    }

    fn give(jobs: &Sender<Job>, job: impl FnOnce() + Send + 'static) {
        jobs.send(Box::new(job)).unwrap();
    }

    #[test]
    fn who_waits_is_followed_by_another_and_stands_by_once_it_is_done() {
        let (turns, jobs, ended) = begin();
        // The first of two waits for the other: one thread alone would wait for ever.
        for _ in 0..20 {
            let (release, released) = mpsc::channel();
            let (tell, told) = mpsc::channel();
            give(&jobs, {
                let tell = tell.clone();
                move || {
                    released.recv().unwrap();
                    tell.send(thread::current().id()).unwrap();
                }
            });
            give(&jobs, move || {
                release.send(()).unwrap();
                tell.send(thread::current().id()).unwrap();
            });
            let (one, other) = (told.recv().unwrap(), told.recv().unwrap());
            assert_ne!(one, other);
            until_somebody_stands_by(&turns);
        }
        turns.end();
        ended.recv().unwrap();
    }

    #[test]
    fn who_is_done_at_once_goes_on_itself_and_one_that_sleeps_is_woken() {
        let (turns, jobs, ended) = begin();
        let (tell, told) = mpsc::channel();
        for _ in 0..3 {
            for _ in 0..1000 {
                let tell = tell.clone();
                give(&jobs, move || tell.send(()).unwrap());
            }
            for _ in 0..1000 {
                told.recv().unwrap();
            }
            while turns.state().standing_by != StandingBy::Asleep {
                thread::yield_now();
            }
            let (release, released) = mpsc::channel::<()>();
            give(&jobs, move || released.recv().unwrap());
            give(&jobs, move || release.send(()).unwrap());
            while turns.state().standing_by != StandingBy::Asleep {
                thread::yield_now();
            }
        }
        turns.end();
        ended.recv().unwrap();
    }

    #[test]
    fn who_judges_is_looked_after_and_so_is_the_one_that_stands_by() {
        let (turns, jobs, ended) = begin();
        let (tell, told) = mpsc::channel();
        for _ in 0..2 {
            let (release, released) = mpsc::channel();
            let first = tell.clone();
            give(&jobs, move || {
                released.recv().unwrap();
                first.send(waits_for_nothing()).unwrap();
            });
            let second = tell.clone();
            give(&jobs, move || {
                second.send(waits_for_nothing()).unwrap();
                release.send(()).unwrap();
            });
            for _ in 0..2 {
                assert_eq!(told.recv().unwrap(), Err(rustix::io::Errno::INTR));
            }
            until_somebody_stands_by(&turns);
        }
        turns.end();
        ended.recv().unwrap();
    }

    /// The one that waited does so again: until then whoever judges must not wait.
    fn until_somebody_stands_by(turns: &Turns<(Bench, Ended)>) {
        while turns.state().standing_by == StandingBy::Nobody {
            thread::yield_now();
        }
    }

    /// In a hurry.
    fn waits_for_nothing() -> rustix::io::Result<usize> {
        let _hurried = nexus_sys::hurry::Hurried::now().ok_or(rustix::io::Errno::NOTRECOVERABLE)?;
        let (quiet, _keep) = std::os::unix::net::UnixStream::pair().unwrap();
        rustix::event::poll(
            &mut [rustix::event::PollFd::new(&quiet, rustix::event::PollFlags::IN)],
            None,
        )
    }

    #[test]
    fn the_end_waits_for_what_is_judged_and_not_for_what_waits() {
        // In the middle of a wait that never ends, taken over or not.
        for both in [false, true] {
            let (turns, jobs, ended) = begin();
            let (began, begun) = mpsc::channel();
            let (release, released) = mpsc::channel::<()>();
            for released in [Some(released), None].into_iter().take(if both { 2 } else { 1 }) {
                let began = began.clone();
                give(&jobs, move || {
                    began.send(()).unwrap();
                    if let Some(released) = released {
                        let _ = released.recv();
                    }
                });
                begun.recv().unwrap();
            }
            turns.end();
            ended.recv().unwrap();
            drop(release);
        }
        // Without any.
        let (turns, _jobs, ended) = begin();
        turns.end();
        ended.recv().unwrap();
        turns.end();
    }

    #[test]
    fn who_ends_by_itself_is_not_waited_for() {
        let (tell, ended) = mpsc::channel();
        let turns = Turns::begin(Ended(tell), |_, turn| drop(turn)).unwrap();
        ended.recv().unwrap();
        turns.end();
        assert!(turns.are_over());
    }
}
