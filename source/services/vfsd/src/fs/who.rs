//! Whose program asks: the session of a thread, for those that serve files and must not look into `/proc` themselves.

use nexus_sys::hurry::Also;
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// For how long a thread's session is remembered. A number means another thread sooner or later; in this time nobody can have
/// all numbers given out.
const KNOWN_FOR: Duration = Duration::from_millis(500);

/// How many threads are remembered: more than ask within that time. Then all are forgotten.
const KNOWN_MAX: usize = 4096;

/// How long a request waits to be told whose it is. Finding out takes microseconds.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// Who has something of the file server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Holder {
    /// The programs of a session, by its number.
    Session(u64),
    /// A program that no session is known of: one that is about to end, or has not yet said who it is.
    Unknown,
}

/// Finds the session that the thread belongs to, of those whose init process is known.
pub(crate) type Find = fn(u32, &HashMap<u32, u64>) -> Option<u64>;

#[derive(Debug, Default)]
struct Inner {
    /// The only session, while there is one alone: whatever is asked is its.
    only: Option<u64>,
    /// By the number of its init process.
    inits: HashMap<u32, u64>,
    known: HashMap<u32, (Holder, Instant)>,
    /// At most one for each thread that serves.
    asked: Vec<u32>,
    is_begun: bool,
    is_over: bool,
}

/// Whose program asks.
///
/// One session alone is never looked for. With several, a thread that serves no file looks.
#[derive(Debug)]
pub(crate) struct Who {
    inner: Mutex<Inner>,
    question: Condvar,
    answer: Condvar,
    find: Find,
}

impl Who {
    pub(crate) fn new(find: Find) -> Self {
        Self {
            inner: Mutex::default(),
            question: Condvar::new(),
            answer: Condvar::new(),
            find,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says which sessions there are: all their numbers, and the init processes of those that have said it.
    pub(crate) fn set_sessions(self: &Arc<Self>, numbers: &[u64], inits: HashMap<u32, u64>) {
        let only = match numbers {
            [number] => Some(*number),
            _ => None,
        };
        let mut inner = self.lock();
        if inner.only == only && inner.inits == inits {
            return;
        }
        inner.only = only;
        inner.inits = inits;
        inner.known.clear();
        if only.is_none() && !inner.is_begun {
            let (who, also) = (Arc::clone(self), Also::as_here());
            let begun = std::thread::Builder::new().name("vfsd-who".to_owned()).spawn(move || {
                also.into_iter().for_each(Also::look_after_here);
                who.look();
            });
            // Without it everybody is unknown, and shares one share.
            inner.is_begun = begun.is_ok();
        }
    }

    /// The files are served no more.
    pub(crate) fn finish(&self) {
        self.lock().is_over = true;
        self.question.notify_all();
        self.answer.notify_all();
    }

    /// Whose the thread `pid` is, as the host numbers it; 0 where the kernel does not say.
    pub(crate) fn holder(&self, pid: u32) -> Holder {
        let mut inner = self.lock();
        if let Some(number) = inner.only {
            return Holder::Session(number);
        }
        if pid == 0 || !inner.is_begun {
            return Holder::Unknown;
        }
        if let Some(holder) = inner.known_now(pid) {
            return holder;
        }
        if !inner.asked.contains(&pid) {
            inner.asked.push(pid);
        }
        self.question.notify_one();
        let waits = |inner: &mut Inner| !inner.is_over && inner.only.is_none() && inner.known_now(pid).is_none();
        let waited = self.answer.wait_timeout_while(inner, ANSWER_WAIT, waits);
        let inner = waited.map_or_else(|error| error.into_inner().0, |(inner, _)| inner);
        match inner.only {
            Some(number) => Holder::Session(number),
            None => inner.known_now(pid).unwrap_or(Holder::Unknown),
        }
    }

    /// Whether the subject has one session and no more.
    pub(crate) fn is_one_alone(&self) -> bool {
        self.lock().only.is_some()
    }

    fn look(&self) {
        let mut inner = self.lock();
        while !inner.is_over {
            let Some(pid) = inner.asked.pop() else {
                inner = self.question.wait(inner).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let inits = inner.inits.clone();
            drop(inner);
            let holder = (self.find)(pid, &inits).map_or(Holder::Unknown, Holder::Session);
            inner = self.lock();
            if inner.known.len() >= KNOWN_MAX {
                inner.known.clear();
            }
            // Of sessions that are no more nobody asks.
            let holder = if inner.inits == inits { holder } else { Holder::Unknown };
            inner.known.insert(pid, (holder, Instant::now()));
            self.answer.notify_all();
        }
    }
}

impl Inner {
    fn known_now(&self, pid: u32) -> Option<Holder> {
        let (holder, since) = self.known.get(&pid)?;
        (since.elapsed() < KNOWN_FOR).then_some(*holder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_session_is_never_looked_for_and_of_several_the_right_one_is_found() {
        let who = Arc::new(Who::new(|pid, inits| {
            assert_eq!(inits.len(), 2);
            inits.get(&(pid / 100 * 100)).copied()
        }));
        assert_eq!(who.holder(7), Holder::Unknown, "nobody is there");
        who.set_sessions(&[5], HashMap::new());
        assert_eq!(who.holder(7), Holder::Session(5));
        assert!(who.is_one_alone());
        let inits = HashMap::from([(100, 5), (200, 6)]);
        who.set_sessions(&[5, 6], inits.clone());
        assert!(!who.is_one_alone());
        // A busy machine may take longer to find it than anybody waits.
        let found = |pid| {
            let mut told = (0..60).map(|_| who.holder(pid));
            told.find(|holder| *holder != Holder::Unknown)
        };
        for _ in 0..3 {
            assert_eq!(found(107), Some(Holder::Session(5)));
            assert_eq!(found(299), Some(Holder::Session(6)));
            assert_eq!(who.holder(300), Holder::Unknown);
            assert_eq!(who.holder(0), Holder::Unknown);
        }
        who.set_sessions(&[6], inits);
        assert_eq!(who.holder(107), Holder::Session(6), "there is nobody else");
        who.finish();
    }

    #[test]
    fn at_the_end_nobody_waits_for_an_answer() {
        let who = Arc::new(Who::new(|_, _| None));
        who.set_sessions(&[], HashMap::new());
        who.finish();
        let is_told_at_once = || {
            let begin = Instant::now();
            assert_eq!(who.holder(3), Holder::Unknown);
            begin.elapsed() < ANSWER_WAIT
        };
        // Whoever waits never is. A busy machine may stop us that long as well, but not again and again.
        assert!((0..60).any(|_| is_told_at_once()));
    }
}
