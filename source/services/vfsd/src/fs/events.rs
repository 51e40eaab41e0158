//! Denials and warnings on their way from the threads that serve files to the one that tells sessions.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nexus_abi::{Area, Operation, Reason};
use nexus_wire::vfs::Event;
use rustix::event::EventfdFlags;
use rustix::io::Errno;

/// How many events wait at most. A flood is counted, not kept: the journal would cut it anyway.
const WAITING_MAX: usize = 1024;

/// How long an answer to the program may wait for its event's session to be found. Finding takes microseconds; this ends
/// a wait for a thread that is itself waiting.
const PLACED_WAIT: Duration = Duration::from_secs(1);

/// What kind of event was lost.
pub(crate) type Kind = (Area, Operation, Reason);

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Event>,
    /// At most one entry for each kind that there is.
    lost: Vec<(Kind, u64)>,
    /// How many events were ever put in, and how many of them have found their session.
    pushed: u64,
    placed: u64,
}

/// A bounded queue that never blocks the side that puts in, and whose other side can be polled.
#[derive(Debug)]
pub(crate) struct EventQueue {
    waiting: Mutex<Waiting>,
    signal: OwnedFd,
    /// Whether there are several sessions to find the right one of.
    several: AtomicBool,
    /// Whether the files are served no more.
    over: AtomicBool,
    done: Condvar,
}

impl EventQueue {
    pub(crate) fn new() -> Result<Self, Errno> {
        let signal = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            waiting: Mutex::default(),
            signal,
            several: AtomicBool::new(false),
            over: AtomicBool::new(false),
            done: Condvar::new(),
        })
    }

    /// Puts an event in.
    ///
    /// With several sessions, waits until the event's own was found: the program that asked is still waiting for its
    /// answer, so its process is still there to be looked at.
    pub(crate) fn push(&self, event: Event) {
        let mut waiting = self.lock();
        if waiting.events.len() >= WAITING_MAX {
            let kind = (event.area, event.operation, event.reason);
            match waiting.lost.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, count)) => *count = count.saturating_add(1),
                None => waiting.lost.push((kind, 1)),
            }
            drop(waiting);
            return self.wake();
        }
        waiting.events.push_back(event);
        waiting.pushed = waiting.pushed.saturating_add(1);
        let own = waiting.pushed;
        self.wake();
        if self.several.load(Ordering::Relaxed) {
            let _ = self
                .done
                .wait_timeout_while(waiting, PLACED_WAIT, |waiting| waiting.placed < own);
        }
    }

    /// Says whether there are several sessions.
    pub(crate) fn set_several(&self, several: bool) {
        self.several.store(several, Ordering::Relaxed);
    }

    /// Says that `count` more events have found their sessions.
    pub(crate) fn placed(&self, count: usize) {
        let mut waiting = self.lock();
        waiting.placed = waiting.placed.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        drop(waiting);
        self.done.notify_all();
    }

    /// Says, once and for good, that the files are served no more. Said before the polling side is woken: whether the
    /// thread that says it has ended is known only later, and nobody would wake anybody for that.
    pub(crate) fn finish(&self) {
        self.over.store(true, Ordering::Release);
        self.wake();
    }

    /// Whether [`EventQueue::finish`] was called.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Wakes the polling side.
    pub(crate) fn wake(&self) {
        // EAGAIN means that the counter is full: the other side is awake already.
        let _ = rustix::io::write(&self.signal, &1_u64.to_ne_bytes());
    }

    /// Everything that waits.
    pub(crate) fn take(&self) -> (VecDeque<Event>, Vec<(Kind, u64)>) {
        let mut counter = [0_u8; 8];
        let _ = rustix::io::read(&self.signal, &mut counter);
        let mut waiting = self.lock();
        (std::mem::take(&mut waiting.events), std::mem::take(&mut waiting.lost))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for EventQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signal.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use nexus_wire::Bounded;

    use super::*;

    #[test]
    fn who_is_woken_by_the_end_knows_it_also_after_taking_what_woke_it() {
        let queue = EventQueue::new().unwrap();
        assert!(!queue.is_over());
        queue.finish();
        let polled = rustix::event::poll(
            &mut [rustix::event::PollFd::new(&queue, rustix::event::PollFlags::IN)],
            None,
        );
        assert_eq!(polled, Ok(1));
        let _ = queue.take();
        assert!(queue.is_over());
    }

    #[test]
    fn a_flood_is_bounded_and_its_count_is_exact() {
        let queue = EventQueue::new().unwrap();
        for asked in 0..(WAITING_MAX as u64 + 500) {
            queue.push(Event {
                area: Area::Tmp,
                operation: Operation::Write,
                reason: Reason::QuotaHardBytes,
                name: Bounded::cut(b"x"),
                asked,
                pid: 1,
                policy: Bounded::cut(b""),
            });
        }
        let (events, lost) = queue.take();
        assert_eq!(events.len(), WAITING_MAX);
        assert_eq!(lost, vec![((Area::Tmp, Operation::Write, Reason::QuotaHardBytes), 500)]);
        assert!(queue.take().0.is_empty());
    }
}
