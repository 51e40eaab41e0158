//! Who watches the readers, and never serves a file: it looks into `/proc` of who asked.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nexus_sys::procfs;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::thread::{CpuSet, Pid};

use super::crew::{Crew, POSTS, QUIET};

/// How often it looks while requests come: a reader that serves the same request at two looks is stuck.
const LOOK: Duration = Duration::from_millis(1);

/// Between two times that it follows a caller that moved: one that sleeps between two requests looks as if it had.
const FOLLOW_PAUSE: Duration = Duration::from_micros(100);

/// How many looks without a request send it to sleep.
const IDLE_LOOKS: u32 = 50;

/// Every how many looks it looks where the caller runs: a look costs some microseconds, programs seldom move.
const PLACE_LOOKS: u32 = 4;

/// One more thread reads after so many looks, more often than not, at which requests waited and came from somebody else
/// than at the look before. One caller alone gains nothing from a second reader: it waits for each answer, and what it
/// does not wait for (a close, read-ahead) may as well be done after.
const BUSY_SCORE: u32 = 16;

/// After how many looks at which none of this was so one thread less reads.
const CALM_LOOKS: u32 = 64;

/// More readers than this gain nothing: a reader waits for no disk.
const READERS_MAX: usize = 8;

/// Watches until the crew's end.
pub(super) fn watch(crew: &Arc<Crew>) {
    let everywhere = crew.everywhere();
    let cores = everywhere.and_then(|everywhere| usize::try_from(everywhere.count()).ok());
    let readers_max = cores.unwrap_or(1).clamp(1, READERS_MAX);
    let mut places: [Place; POSTS] = Default::default();
    let mut shunned = None;
    let mut seen = [0_u64; POSTS];
    let mut calm_times = Calm::new(cores.unwrap_or(1));
    let (mut idle, mut looks, mut score, mut calm) = (0_u32, 0_u32, 0_u32, 0_u32);
    let mut caller = 0;
    while !crew.is_over() {
        if idle >= IDLE_LOOKS {
            crew.end_quiet(None);
            crew.warden_sleeps.store(true, Ordering::SeqCst);
            let mut posts = crew.posts().iter().zip(&seen);
            if posts.all(|(post, seen)| post.steps.load(Ordering::SeqCst) == *seen) {
                std::thread::park();
            }
            crew.warden_sleeps.store(false, Ordering::SeqCst);
            idle = 0;
            looks = 0;
            continue;
        }
        let (mut moved, mut other) = (false, caller);
        let before = seen.get(QUIET).copied();
        for (number, (post, seen)) in crew.posts().iter().zip(&mut seen).enumerate() {
            let steps = post.steps.load(Ordering::Relaxed);
            if steps != *seen {
                *seen = steps;
                moved = true;
                let asked = post.caller.load(Ordering::Relaxed);
                if asked != caller {
                    other = asked;
                }
            } else if steps & 1 == 1 {
                moved = true;
                // In quiet times the one who asked is the only one, and waits for this very request: while nobody else asks, others reading gains
                // nothing, and changing over and back costs the caller its place for milliseconds.
                if number != QUIET || crew.has_request() {
                    crew.take_aside(number, Some(steps));
                }
            }
        }
        idle = if moved { 0 } else { idle.saturating_add(1) };
        if readers_max > 1 {
            if other != caller && crew.has_request() {
                score = score.saturating_add(2);
                calm = 0;
            } else {
                score = score.saturating_sub(1);
                calm = calm.saturating_add(1);
            }
            if score >= BUSY_SCORE && crew.wanted() < readers_max {
                crew.set_wanted(crew.wanted().saturating_add(1));
                score = 0;
            } else if calm >= CALM_LOOKS && crew.wanted() > 1 {
                crew.set_wanted(crew.wanted().saturating_sub(1));
                calm = 0;
            }
            let look = Look {
                moved,
                alone: other == caller && crew.wanted() == 1,
                stuck: before == seen.get(QUIET).copied() && crew.has_request(),
            };
            match calm_times.judge(crew.is_quiet(), look) {
                Some(true) => crew.begin_quiet(),
                Some(false) => crew.end_quiet(None),
                None => crew.remind_quiet(),
            }
            caller = other;
            // Moving away from a caller that shares its core is dear, so where they do one looks each time.
            if (looks.is_multiple_of(PLACE_LOOKS) || crew.is_quiet())
                && let Some(everywhere) = everywhere
            {
                put(crew, everywhere, &mut places);
                shun(crew, everywhere, &places, &mut shunned);
            }
        }
        looks = looks.wrapping_add(1);
        let next = Instant::now() + LOOK;
        loop {
            std::thread::park_timeout(next.saturating_duration_since(Instant::now()));
            if Instant::now() >= next || crew.is_over() {
                break;
            }
            // Woken early: nothing is to be judged, but somebody is to be followed.
            if crew.lost_caller.swap(false, Ordering::Relaxed)
                && let Some(everywhere) = everywhere
            {
                put(crew, everywhere, &mut places);
                shun(crew, everywhere, &places, &mut shunned);
                std::thread::sleep(FOLLOW_PAUSE);
            }
        }
    }
}

/// After so many looks at which requests came from one caller and a core was to spare, the one for quiet times reads.
const QUIET_LOOKS: u32 = 8;

/// After so many looks at which it was otherwise it stops: one may be chance.
const LOUD_LOOKS: u32 = 2;

/// For so many looks it is not asked again after it got no core although one seemed to spare, and for twice as many after each
/// further time: a program that works in turns with one that takes all cores could have its subject wait again and again.
const STARVED_LOOKS: u32 = 1000;

/// How often that is doubled: about a minute.
const STARVED_TIMES_MAX: u32 = 6;

/// After it read for so many looks without that, it is as if it had never been.
const FED_LOOKS: u32 = 10_000;

/// What was seen at a look.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// Requests came.
    moved: bool,
    /// From one caller, for whom one reader is enough.
    alone: bool,
    /// A request waits, and the one for quiet times did nothing since the last look.
    stuck: bool,
}

/// Whether the machine is quiet enough for a reader that everybody else goes before.
#[derive(Debug)]
struct Calm {
    cores: usize,
    load: Option<OwnedFd>,
    /// Looks in a row that spoke against what is.
    against: u32,
    stuck: u32,
    /// How often it got no core.
    starved: u32,
    /// Looks in a row at which it read and got one.
    fed: u32,
    /// Looks to come at which it is not asked.
    pause: u32,
}

impl Calm {
    fn new(cores: usize) -> Self {
        let load = rustix::fs::openat(CWD, "/proc/loadavg", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        Self {
            cores,
            load: load.ok(),
            against: 0,
            stuck: 0,
            starved: 0,
            fed: 0,
            pause: 0,
        }
    }

    /// What should be from now on, if it should be otherwise.
    fn judge(&mut self, is_quiet: bool, look: Look) -> Option<bool> {
        self.pause = self.pause.saturating_sub(1);
        if is_quiet && look.stuck {
            self.stuck = self.stuck.saturating_add(1);
            if self.stuck >= LOUD_LOOKS {
                (self.stuck, self.against, self.fed) = (0, 0, 0);
                self.pause = STARVED_LOOKS << self.starved;
                self.starved = self.starved.saturating_add(1).min(STARVED_TIMES_MAX);
                return Some(false);
            }
        } else {
            self.stuck = 0;
        }
        if is_quiet {
            self.fed = self.fed.saturating_add(1);
            if self.fed >= FED_LOOKS {
                self.starved = 0;
            }
        }
        // Once it reads, only what it is there for counts: that it gets a core, it shows itself. What else runs now and then
        // says nothing, and changing over costs more than it does.
        let should = look.alone && (is_quiet || (look.moved && self.pause == 0 && self.has_spare_core()));
        if should == is_quiet {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        if self.against < if is_quiet { LOUD_LOOKS } else { QUIET_LOOKS } {
            return None;
        }
        self.against = 0;
        Some(should)
    }

    /// Whether a core would be idle if this thread slept; `false` where that cannot be known.
    fn has_spare_core(&self) -> bool {
        let mut line = [0; 128];
        let running = (|| {
            let count = rustix::io::pread(self.load.as_ref()?.as_fd(), &mut line, 0).ok()?;
            running_in(line.get(..count)?)
        })();
        // This thread, a reader, and for each core but one somebody else.
        running.is_some_and(|running| running <= self.cores.saturating_add(1))
    }
}

/// How many threads run or want to, in `/proc/loadavg` (proc_loadavg(5), fourth field).
fn running_in(loadavg: &[u8]) -> Option<usize> {
    let line = std::str::from_utf8(loadavg).ok()?;
    let (running, _) = line.split_ascii_whitespace().nth(3)?.split_once('/')?;
    running.parse().ok()
}

/// Where a thread was put, and how long its caller's descriptor is good for.
#[derive(Debug, Default)]
struct Place {
    core: Option<usize>,
    caller: u32,
    stat: Option<procfs::Kept>,
}

/// Puts each reader where its caller runs, or lets it run everywhere when there are several readers.
fn put(crew: &Crew, everywhere: &CpuSet, places: &mut [Place]) {
    let alone = crew.wanted() == 1;
    for (number, (post, place)) in crew.posts().iter().zip(places).enumerate() {
        let thread = post.thread.load(Ordering::Relaxed);
        let Some(thread) = i32::try_from(thread).ok().and_then(Pid::from_raw) else {
            continue;
        };
        let caller = post.caller.load(Ordering::Relaxed);
        // The one for quiet times that is done has to find a core wherever one is free.
        let core = if alone && (number != QUIET || crew.is_quiet()) {
            // One who is gone says nothing: the next may well run where it ran.
            let core = place.core_of(caller).filter(|core| everywhere.is_set(*core));
            core.or(place.core)
        } else {
            None
        };
        if core == place.core {
            continue;
        }
        place.core = core;
        let set = match core {
            Some(core) => {
                let mut set = CpuSet::new();
                set.set(core);
                set
            }
            None => *everywhere,
        };
        // Where it is not allowed the thread stays where it is, and all that is lost is speed.
        let _ = rustix::thread::sched_setaffinity(Some(thread), &set);
    }
}

/// Keeps this thread away from the core that the one for quiet times is on: whom that one wakes while we run there would be
/// moved away.
fn shun(crew: &Crew, everywhere: &CpuSet, places: &[Place], shunned: &mut Option<usize>) {
    let core = if crew.is_quiet() {
        places.get(QUIET).and_then(|place| place.core)
    } else {
        None
    };
    if core == *shunned {
        return;
    }
    *shunned = core;
    let mut set = *everywhere;
    if let Some(core) = core {
        set.unset(core);
    }
    // There is another, or nobody would be there for quiet times.
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

impl Place {
    /// The core that the thread `caller` runs on, or ran last.
    fn core_of(&mut self, caller: u32) -> Option<usize> {
        if caller == 0 {
            return None;
        }
        if self.caller != caller {
            self.caller = caller;
            self.stat = procfs::Kept::open(caller, "stat").ok();
        }
        let mut line = [0; 1024];
        core_in(self.stat.as_ref()?.read(&mut line).ok()?)
    }
}

/// The core in a line of `/proc/PID/stat` (proc_pid_stat(5), field 39). The name, in parentheses, may hold anything.
fn core_in(stat: &[u8]) -> Option<usize> {
    /// Fields between the name and the core.
    const BETWEEN: usize = 36;
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(name_end.checked_add(1)?..)?).ok()?;
    rest.split_ascii_whitespace().nth(BETWEEN)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn our_own_core_is_one_that_there_is() {
        let mut place = Place::default();
        let core = place.core_of(std::process::id()).unwrap();
        assert!(core < CpuSet::MAX_CPU);
        assert_eq!(place.core_of(0), None);
        assert_eq!(place.core_of(u32::MAX), None);
    }

    #[test]
    fn what_runs_is_the_fourth_word() {
        assert_eq!(running_in(b"0.56 1.35 1.56 6/125 4384\n"), Some(6));
        for odd in [
            &b""[..],
            b"0.1 0.2 0.3",
            b"0.1 0.2 0.3 6 7",
            b"a b c d/e",
            b"0 0 0 -1/9",
        ] {
            assert_eq!(running_in(odd), None);
        }
        let own = std::fs::read("/proc/loadavg").unwrap();
        assert!(running_in(&own).unwrap() > 0);
    }

    /// A machine whose load is what is said.
    fn calm(cores: usize, load: &str) -> Calm {
        let mut file = tempfile();
        std::io::Write::write_all(&mut file, load.as_bytes()).unwrap();
        Calm {
            load: Some(file.into()),
            ..Calm::new(cores)
        }
    }

    fn tempfile() -> std::fs::File {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, std::env::temp_dir(), flags, Mode::RUSR | Mode::WUSR)
            .unwrap()
            .into()
    }

    const FLOWS: Look = Look {
        moved: true,
        alone: true,
        stuck: false,
    };

    #[test]
    fn it_is_quiet_after_some_looks_at_which_a_core_was_to_spare_and_not_where_none_is() {
        let mut two = calm(2, "0 0 0 3/100 1");
        for _ in 1..QUIET_LOOKS {
            assert_eq!(two.judge(false, FLOWS), None);
        }
        assert_eq!(two.judge(false, FLOWS), Some(true));
        let mut busy = calm(2, "0 0 0 4/100 1");
        let mut unknown = Calm {
            load: None,
            ..calm(2, "")
        };
        for _ in 0..4 * QUIET_LOOKS {
            assert_eq!(busy.judge(false, FLOWS), None);
            assert_eq!(unknown.judge(false, FLOWS), None);
            assert_eq!(two.judge(false, Look { moved: false, ..FLOWS }), None);
            assert_eq!(two.judge(false, Look { alone: false, ..FLOWS }), None);
        }
    }

    #[test]
    fn it_is_loud_again_as_soon_as_somebody_else_comes_and_not_for_what_else_runs() {
        let mut calm = calm(2, "0 0 0 9/100 1");
        for _ in 0..100 {
            assert_eq!(calm.judge(true, FLOWS), None, "it shows itself whether it gets a core");
            assert_eq!(calm.judge(true, Look { moved: false, ..FLOWS }), None);
        }
        let others = Look { alone: false, ..FLOWS };
        assert_eq!(calm.judge(true, others), None, "once may be chance");
        assert_eq!(calm.judge(true, FLOWS), None);
        assert_eq!(calm.judge(true, others), None);
        assert_eq!(calm.judge(true, others), Some(false));
    }

    #[test]
    fn one_that_gets_no_core_is_not_asked_again_for_a_while_and_for_longer_each_time() {
        let mut calm = calm(2, "0 0 0 2/100 1");
        let stuck = Look { stuck: true, ..FLOWS };
        let mut pause = STARVED_LOOKS;
        for _ in 0..3 {
            assert_eq!(calm.judge(true, stuck), None);
            assert_eq!(calm.judge(true, stuck), Some(false));
            for _ in 1..pause {
                assert_eq!(calm.judge(false, FLOWS), None);
            }
            let again = (0..=QUIET_LOOKS).find_map(|_| calm.judge(false, FLOWS));
            assert_eq!(again, Some(true));
            pause *= 2;
        }
        for _ in 0..FED_LOOKS {
            assert_eq!(calm.judge(true, FLOWS), None);
        }
        assert_eq!(calm.judge(true, stuck), None);
        assert_eq!(calm.judge(true, stuck), Some(false));
        assert_eq!(calm.pause, STARVED_LOOKS);
        for _ in 0..100 {
            calm.judge(true, stuck);
        }
        assert_eq!(calm.pause, STARVED_LOOKS << STARVED_TIMES_MAX);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_stat_line_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = core_in(&bytes);
            let _ = running_in(&bytes);
        }
    }
}
