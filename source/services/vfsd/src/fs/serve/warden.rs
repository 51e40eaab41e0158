//! Who watches the readers, and never serves a file: it looks into `/proc` of who asked.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::thread::{CpuSet, Pid};

use super::crew::{Crew, THREADS_MAX};

/// How often it looks while requests come: a reader that serves the same request at two looks is stuck.
const LOOK: Duration = Duration::from_millis(1);

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
    let mut places: [Place; THREADS_MAX] = Default::default();
    let mut seen = [0_u64; THREADS_MAX];
    let (mut idle, mut looks, mut score, mut calm) = (0_u32, 0_u32, 0_u32, 0_u32);
    let mut caller = 0;
    while !crew.is_over() {
        if idle >= IDLE_LOOKS {
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
                crew.take_aside(number, Some(steps));
            }
        }
        idle = if moved { 0 } else { idle.saturating_add(1) };
        if readers_max > 1 {
            if other != caller && waiting(crew) {
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
            caller = other;
            if looks.is_multiple_of(PLACE_LOOKS)
                && let Some(everywhere) = everywhere
            {
                put(crew, everywhere, &mut places);
            }
        }
        looks = looks.wrapping_add(1);
        std::thread::park_timeout(LOOK);
    }
}

/// Whether a request waits for a reader at this moment.
fn waiting(crew: &Crew) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(crew.device(), PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(1..))
        && fds.iter().any(|fd| fd.revents().contains(PollFlags::IN))
}

/// Where a thread was put, and how long its caller's descriptor is good for.
#[derive(Debug, Default)]
struct Place {
    core: Option<usize>,
    caller: u32,
    stat: Option<OwnedFd>,
}

/// Puts each reader where its caller runs, or lets it run everywhere when there are several readers.
fn put(crew: &Crew, everywhere: &CpuSet, places: &mut [Place]) {
    let alone = crew.wanted() == 1;
    for (post, place) in crew.posts().iter().zip(places) {
        let thread = post.thread.load(Ordering::Relaxed);
        let Some(thread) = i32::try_from(thread).ok().and_then(Pid::from_raw) else {
            continue;
        };
        let caller = post.caller.load(Ordering::Relaxed);
        let core = if alone {
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

impl Place {
    /// The core that the thread `caller` runs on, or ran last.
    fn core_of(&mut self, caller: u32) -> Option<usize> {
        if caller == 0 {
            return None;
        }
        if self.caller != caller {
            self.caller = caller;
            let path = format!("/proc/{caller}/stat");
            self.stat = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok();
        }
        let mut line = [0; 1024];
        let count = rustix::io::pread(self.stat.as_ref()?.as_fd(), &mut line, 0).ok()?;
        core_in(line.get(..count)?)
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

    proptest! {
        #[test]
        fn any_bytes_are_a_stat_line_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = core_in(&bytes);
        }
    }
}
