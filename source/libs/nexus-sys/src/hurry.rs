//! Calls that must not wait for long, whatever they let go: a thread looks after those who make them, and interrupts the one
//! that stays.
//!
//! Whoever holds a file when its owner closes it closes it last, and closing may wait for a peer: a stream with `SO_LINGER`
//! waits in `close` for up to the time that was set, socket(7). That is so for every call that holds another process's file
//! or memory only for a moment, pidfd_getfd(2) and `/proc` among them: the kernel lets go of what such a call held when it
//! returns, and it returns only then. A signal ends that wait, and the kernel sends on by itself.
//!
//! To begin and to end is a store each: a call that is judged costs one to two hundredths more by it. A timer of the thread's own
//! would take two system calls, and one of those timers and signals of which a user has only so many (`RLIMIT_SIGPENDING`).

use crate::signal::{SignalSet, ThreadHandle, set_mask};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

/// After how many looks at which nobody hurried, nor had meanwhile, nobody looks any more.
const LOOKS_IDLE: u32 = 4;

/// Between two looks after somebody was interrupted: the signal may have come just before the wait, and who makes others wait once
/// does so again.
const PAUSE_AFTER: Duration = Duration::from_millis(1);

/// For how many looks.
const LOOKS_AFTER: u32 = 100;

/// A thread that looks after others of this process. It ends when this is dropped.
#[derive(Debug)]
pub struct Hurrier(Arc<Shared>);

/// A way for further threads to be looked after.
#[derive(Clone, Debug)]
pub struct Also(Arc<Shared>);

struct Shared {
    signal: i32,
    /// How long it sleeps between two looks.
    pause: Duration,
    hands: Mutex<Vec<Arc<Hand>>>,
    /// Nobody looks.
    asleep: AtomicBool,
    over: AtomicBool,
    /// Who looks.
    thread: OnceLock<Thread>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("signal", &self.signal)
            .finish_non_exhaustive()
    }
}

/// What a thread that hurries shows.
struct Hand {
    thread: ThreadHandle,
    /// How many times it hurried, above [`FLAGS`].
    state: AtomicU64,
    /// That, at the last look.
    seen: AtomicU64,
}

/// It hurries now.
const HURRIES: u64 = 1;
/// It is about to be sent a signal.
const CALLED: u64 = 2;
/// It was sent one.
const TOLD: u64 = 4;
const FLAGS: u64 = HURRIES | CALLED | TOLD;
/// One more time.
const TIME: u64 = 8;

thread_local! {
    static HERE: RefCell<Option<Here>> = const { RefCell::new(None) };
}

/// A thread that is looked after.
struct Here {
    shared: Arc<Shared>,
    hand: Arc<Hand>,
    times: Cell<u64>,
    /// How many [`Hurried`] there are of it.
    depth: Cell<u32>,
}

impl Hurrier {
    /// Starts the thread. `signal` is what it sends: it needs a handler ([`crate::signal::set_interrupting`]), or it ends the
    /// process. Who hurries is interrupted after one to two `pause`s, and from then on, for a tenth of a second, after one to two
    /// milliseconds.
    ///
    /// # Errors
    /// Those of making a thread.
    pub fn start(signal: i32, pause: Duration) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            signal,
            pause,
            hands: Mutex::default(),
            asleep: AtomicBool::new(false),
            over: AtomicBool::new(false),
            thread: OnceLock::new(),
        });
        let looks = Arc::clone(&shared);
        let work = move || {
            // No signal is for this thread; with one it would only look earlier.
            let _ = set_mask(&SignalSet::full());
            looks.look();
        };
        let thread = thread::Builder::new().name("hurry".into()).stack_size(STACK_BYTES);
        let thread = thread.spawn(work)?.thread().clone();
        // Nobody else sets it.
        let _ = shared.thread.set(thread);
        Ok(Self(shared))
    }

    /// Looks after the calling thread from now on, until that ends. Its mask has to let the signal through.
    pub fn look_after_here(&self) {
        Also(Arc::clone(&self.0)).look_after_here();
    }
}

/// A stack for a thread that looks at a few numbers.
const STACK_BYTES: usize = 64 * 1024;

impl Drop for Hurrier {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::SeqCst);
        self.0.wake();
    }
}

impl Also {
    /// Who looks after the calling thread, if anybody does.
    #[must_use]
    pub fn as_here() -> Option<Self> {
        let shared = |here: &RefCell<Option<Here>>| Some(Self(Arc::clone(&here.borrow().as_ref()?.shared)));
        HERE.try_with(shared).ok()?
    }

    /// As [`Hurrier::look_after_here`].
    pub fn look_after_here(self) {
        let hand = Arc::new(Hand {
            thread: ThreadHandle::current(),
            state: AtomicU64::new(0),
            seen: AtomicU64::new(0),
        });
        self.0.hands().push(Arc::clone(&hand));
        let here = Here {
            shared: self.0,
            hand,
            times: Cell::new(0),
            depth: Cell::new(0),
        };
        // Whom it had before lets go of it.
        HERE.set(Some(here));
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        // Its number may be another thread's afterwards.
        self.hand.state.store(0, Ordering::SeqCst);
        self.shared.hands().retain(|hand| !Arc::ptr_eq(hand, &self.hand));
    }
}

impl Shared {
    fn hands(&self) -> MutexGuard<'_, Vec<Arc<Hand>>> {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.asleep.store(false, Ordering::SeqCst);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Looks, and sleeps where nobody hurries.
    fn look(&self) {
        let (mut idle, mut after) = (0_u32, 0_u32);
        while !self.over.load(Ordering::SeqCst) {
            if idle < LOOKS_IDLE {
                thread::sleep(if after > 0 {
                    self.pause.min(PAUSE_AFTER)
                } else {
                    self.pause
                });
                let seen = self.look_once();
                idle = if seen == Seen::Nobody {
                    idle.saturating_add(1)
                } else {
                    0
                };
                after = if seen == Seen::OneWhoStays {
                    LOOKS_AFTER
                } else {
                    after.saturating_sub(1)
                };
                continue;
            }
            // First this, then one more look: who begins after that look sees it.
            self.asleep.store(true, Ordering::SeqCst);
            if self.look_once() != Seen::Nobody {
                self.asleep.store(false, Ordering::SeqCst);
            }
            while self.asleep.load(Ordering::SeqCst) && !self.over.load(Ordering::SeqCst) {
                thread::park();
            }
            idle = 0;
        }
    }

    /// Interrupts who has hurried since the last look.
    fn look_once(&self) -> Seen {
        let mut seen = Seen::Nobody;
        // Held while signals are sent: no thread ends meanwhile, and leaves its number to another.
        for hand in self.hands().iter() {
            let state = hand.state.load(Ordering::SeqCst);
            let times = state & !FLAGS;
            let is_new = hand.seen.swap(times, Ordering::Relaxed) != times;
            let hurries = state & HURRIES != 0;
            if hurries && !is_new {
                hand.interrupt(state, self.signal);
                seen = Seen::OneWhoStays;
            } else if (hurries || is_new) && seen == Seen::Nobody {
                seen = Seen::Somebody;
            }
        }
        seen
    }
}

/// At a look.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Nobody hurries, nor has since the last.
    Nobody,
    Somebody,
    OneWhoStays,
}

impl Hand {
    /// Sends the signal, if it still hurries as it did.
    fn interrupt(&self, state: u64, signal: i32) {
        let called = state | CALLED;
        let (success, failure) = (Ordering::SeqCst, Ordering::SeqCst);
        if self.state.compare_exchange(state, called, success, failure).is_ok() {
            self.thread.interrupt(signal);
            // Whoever is called changes nothing.
            self.state.store((state | TOLD) & !CALLED, Ordering::SeqCst);
        }
    }
}

/// The thread that made it hurries until it is dropped there, if somebody looks after it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Hurried;

impl Hurried {
    /// From now on. One within another changes nothing.
    #[must_use]
    pub fn now() -> Option<Self> {
        let begin = |here: &RefCell<Option<Here>>| {
            here.borrow().as_ref()?.begin();
            Some(Self)
        };
        HERE.try_with(begin).ok()?
    }
}

impl Drop for Hurried {
    fn drop(&mut self) {
        let _ = HERE.try_with(|here| here.borrow().iter().for_each(Here::end));
    }
}

impl Here {
    fn begin(&self) {
        let depth = self.depth.get();
        self.depth.set(depth.saturating_add(1));
        if depth > 0 {
            return;
        }
        let times = self.times.get().wrapping_add(TIME);
        self.times.set(times);
        self.hand.state.store(times | HURRIES, Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst) {
            self.shared.wake();
        }
    }

    /// No more. A signal that was sent is taken before this returns, so that no later call is interrupted by it.
    fn end(&self) {
        let depth = self.depth.get();
        self.depth.set(depth.saturating_sub(1));
        // It was another thread's, or is not the outermost.
        if depth != 1 {
            return;
        }
        let times = self.times.get();
        let state = &self.hand.state;
        let (success, failure) = (Ordering::SeqCst, Ordering::SeqCst);
        if state.compare_exchange(times | HURRIES, times, success, failure).is_ok() {
            return;
        }
        let told = times | HURRIES | TOLD;
        while state.compare_exchange(told, times, success, failure).is_err() {
            thread::yield_now();
        }
        // It is pending since before that was said, and taken when the thread returns from the next system call.
        thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::set_interrupting;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;
    use std::time::Instant;

    const SIGNAL: i32 = libc::SIGUSR2;
    const LOOK: Duration = Duration::from_millis(1);

    /// In a thread that is looked after; fails if it does not end by itself.
    fn looked_after<T: Send + 'static>(hurrier: &Hurrier, work: impl FnOnce() -> T + Send + 'static) -> T {
        set_interrupting(SIGNAL).unwrap();
        let (tell, told) = mpsc::channel();
        let also = Also(Arc::clone(&hurrier.0));
        thread::spawn(move || {
            also.look_after_here();
            tell.send(work()).unwrap();
        });
        told.recv_timeout(Duration::from_secs(60)).expect("it waits")
    }

    fn wait(time: Option<&Timespec>) -> rustix::io::Result<usize> {
        let (quiet, _keep) = UnixStream::pair().unwrap();
        poll(&mut [PollFd::new(&quiet, PollFlags::IN)], time)
    }

    const SHORT: Timespec = Timespec {
        tv_sec: 0,
        tv_nsec: 5_000_000,
    };

    #[test]
    fn a_wait_without_an_end_is_ended_for_who_hurries_and_lasts_for_who_does_not() {
        let hurrier = Hurrier::start(SIGNAL, LOOK).unwrap();
        looked_after(&hurrier, || {
            for _ in 0..20 {
                let hurried = Hurried::now();
                assert!(hurried.is_some());
                assert_eq!(wait(None), Err(rustix::io::Errno::INTR));
                // Again and again.
                assert_eq!(wait(None), Err(rustix::io::Errno::INTR));
                drop(hurried);
                assert_eq!(wait(Some(&SHORT)), Ok(0));
            }
        });
    }

    #[test]
    fn it_lasts_until_the_outermost_ends() {
        let hurrier = Hurrier::start(SIGNAL, LOOK).unwrap();
        looked_after(&hurrier, || {
            let outer = Hurried::now();
            drop(Hurried::now());
            assert_eq!(wait(None), Err(rustix::io::Errno::INTR));
            drop(outer);
            assert_eq!(wait(Some(&SHORT)), Ok(0));
        });
    }

    #[test]
    fn who_is_woken_for_it_looks_as_well() {
        let hurrier = Hurrier::start(SIGNAL, LOOK).unwrap();
        let shared = Arc::clone(&hurrier.0);
        looked_after(&hurrier, move || {
            for _ in 0..3 {
                while !shared.asleep.load(Ordering::SeqCst) {
                    thread::yield_now();
                }
                let _hurried = Hurried::now();
                assert_eq!(wait(None), Err(rustix::io::Errno::INTR));
            }
        });
    }

    #[test]
    fn who_makes_others_wait_again_and_again_is_looked_at_more_often() {
        // At each second look alone this would take minutes, and fail.
        let hurrier = Hurrier::start(SIGNAL, Duration::from_secs(1)).unwrap();
        looked_after(&hurrier, || {
            for _ in 0..150 {
                let _hurried = Hurried::now();
                assert_eq!(wait(None), Err(rustix::io::Errno::INTR));
            }
        });
    }

    #[test]
    fn nobody_is_interrupted_by_what_was_sent_before() {
        let hurrier = Hurrier::start(SIGNAL, LOOK).unwrap();
        looked_after(&hurrier, || {
            let mut sent = 0;
            while sent < 300 {
                // About as long as it takes until a signal comes: before, at, and after it.
                let hurried = Hurried::now();
                let begin = Instant::now();
                let long = LOOK + LOOK * (sent % 10) / 10;
                while begin.elapsed() < long {
                    std::hint::spin_loop();
                }
                drop(hurried);
                let none = Timespec {
                    tv_sec: 0,
                    tv_nsec: 100_000,
                };
                assert_eq!(wait(Some(&none)), Ok(0));
                sent += 1;
            }
        });
    }

    #[test]
    fn who_ends_while_it_is_about_to_be_told_waits_for_that() {
        // Nobody looks but this test.
        let hurrier = Hurrier::start(SIGNAL, Duration::from_secs(3600)).unwrap();
        looked_after(&hurrier, || {
            let hand = HERE.with_borrow(|here| Arc::clone(&here.as_ref().unwrap().hand));
            for _ in 0..20 {
                let hurried = Hurried::now();
                let state = hand.state.fetch_or(CALLED, Ordering::SeqCst);
                let other = {
                    let hand = Arc::clone(&hand);
                    thread::spawn(move || {
                        thread::sleep(Duration::from_millis(1));
                        hand.thread.interrupt(SIGNAL);
                        hand.state.store(state | TOLD, Ordering::SeqCst);
                    })
                };
                drop(hurried);
                assert_eq!(wait(Some(&SHORT)), Ok(0));
                other.join().unwrap();
            }
        });
    }

    #[test]
    fn further_threads_are_looked_after_by_the_same_and_no_longer_than_they_live() {
        let hurrier = Hurrier::start(SIGNAL, LOOK).unwrap();
        assert!(Also::as_here().is_none());
        assert!(Hurried::now().is_none());
        looked_after(&hurrier, || {
            let also = Also::as_here().unwrap();
            let other = move || {
                also.look_after_here();
                let _hurried = Hurried::now();
                wait(None)
            };
            assert_eq!(thread::spawn(other).join().unwrap(), Err(rustix::io::Errno::INTR));
        });
        // A thread that has said all that it had to say may still be ending.
        while !hurrier.0.hands().is_empty() {
            thread::yield_now();
        }
        let shared = Arc::downgrade(&hurrier.0);
        drop(hurrier);
        while shared.strong_count() > 0 {
            thread::yield_now();
        }
    }
}
