//! Killed at any moment: the ledger is the disk, and nothing is left.
//!
//! `NEXUS_SOAK=1` kills a thousand times; without it a few dozen.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions};

use crate::Case;
use crate::world::{MIB, World, budget};

pub(crate) const CASES: &[Case] = &[
    ("killed_at_any_moment_the_ledger_is_the_disk_and_nothing_is_left", kills),
    ("a_session_that_is_killed_takes_nothing_from_another", other_goes_on),
];

/// As root somebody stands between a session and the server that it starts, and its number is not known so early.
pub(crate) const USER_CASES: &[Case] = &[(
    "killed_while_it_starts_and_takes_its_first_session_in_it_is_gone",
    killed_at_start,
)];

const SHORT: u32 = 24;
const LONG: u32 = 1000;

/// The same moments in every run: xorshift, Marsaglia 2003.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Does to the files of `dir` whatever comes up, until it is killed or its file server is.
fn churn(dir: &Path, mut chance: Chance) {
    loop {
        let name = |chance: &mut Chance| dir.join(format!("f{}", chance.below(12)));
        let (one, other) = (name(&mut chance), name(&mut chance));
        let at = chance.below(200_000);
        let result = match chance.below(8) {
            0..=2 => File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(one)
                .and_then(|file| file.write_all_at(&vec![7; 1 + at as usize / 2], at)),
            3 => OpenOptions::new()
                .write(true)
                .open(one)
                .and_then(|file| file.set_len(at)),
            4 => fs::rename(one, other),
            5 => fs::hard_link(one, other),
            6 => fs::create_dir(dir.join(format!("d{}", chance.below(4)))),
            _ => fs::remove_file(one),
        };
        if let Err(error) = result
            && [103, 107].contains(&error.raw_os_error().unwrap_or(0))
        {
            return;
        }
    }
}

fn rounds() -> u32 {
    if crate::soak() { LONG } else { SHORT }
}

fn kills(world: &World) {
    let rounds = rounds();
    let mut chance = Chance(0x6e65_7875_7300_0001);
    let state = world.subject_dir().join("state");
    for round in 0..rounds {
        let mut connection = world.join(budget(4 * MIB, 1000), budget(4 * MIB, 1000));
        let (_, used) = connection.usage().unwrap();
        assert_eq!(
            (used.used_bytes, used.used_inodes),
            World::measure(&state),
            "after kill {round}: the ledger is the disk"
        );
        let seed = chance.next() | 1;
        let inside = world.begin(&connection, |dirs| churn(&dirs.state, Chance(seed)));
        std::thread::sleep(Duration::from_micros(chance.below(6000)));
        let kill = |pid: i32| rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        let server_too = chance.below(3) > 0;
        if server_too {
            kill(i32::try_from(connection.vfsd_pid).unwrap());
        } else {
            kill(inside.pid);
        }
        // A program whose server is gone ends by itself, one that was killed by that.
        rustix::process::waitpid(Pid::from_raw(inside.pid), WaitOptions::empty()).unwrap();
        if !server_too {
            // The server lives: its ledger is the disk now, and not only for the next.
            let (_, used) = connection.usage().unwrap();
            assert_eq!(
                (used.used_bytes, used.used_inodes),
                World::measure(&state),
                "kill {round} of the program"
            );
        }
        drop(connection);
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains("vfsd-test"), "nothing is left mounted");
    let last = world.join_roomy();
    crate::sessions::wait_for_scratch(world, 1);
    drop(last);
}

/// The one child of this process.
fn child() -> Option<Pid> {
    let thread = rustix::thread::gettid();
    let children = fs::read_to_string(format!("/proc/self/task/{thread}/children")).unwrap();
    children
        .split_ascii_whitespace()
        .next()?
        .parse()
        .ok()
        .and_then(Pid::from_raw)
}

fn killed_at_start(world: &World) {
    let mut chance = Chance(0x6e65_7875_7300_0002);
    for round in 0..rounds() {
        let mut joining = vfsd::begin(&world.config(budget(MIB, 100), budget(MIB, 100))).unwrap();
        joining.ask(None, Vec::new()).unwrap();
        let server = child().expect("a server was started");
        // To be welcomed takes about a millisecond.
        std::thread::sleep(Duration::from_micros(chance.below(1500)));
        rustix::process::kill_process(server, Signal::KILL).unwrap();
        // It was welcomed or not.
        drop(joining.finish());
        crate::world::eventually(&format!("the server of round {round} is gone"), || {
            rustix::process::waitpid(Some(server), WaitOptions::NOHANG)
                .unwrap()
                .is_some()
        });
    }
    drop(world.join_roomy());
    let end = child().expect("the last one");
    rustix::process::waitpid(Some(end), WaitOptions::empty()).unwrap();
}

fn other_goes_on(world: &World) {
    let doomed = world.join(budget(MIB, 100), budget(4 * MIB, 1000));
    let mut lives = world.join(budget(MIB, 100), budget(4 * MIB, 1000));
    for round in 1..=8_u64 {
        // Each connection's mounts are good for one program.
        let next = world.join(budget(MIB, 100), budget(4 * MIB, 1000));
        let program = world.begin(&next, |dirs| churn(&dirs.state, Chance(round)));
        std::thread::sleep(Duration::from_millis(3));
        rustix::process::kill_process(Pid::from_raw(program.pid).unwrap(), Signal::KILL).unwrap();
        rustix::process::waitpid(Pid::from_raw(program.pid), WaitOptions::empty()).unwrap();
        drop(next);
        let (_, used) = lives.usage().unwrap();
        assert_eq!(
            (used.used_bytes, used.used_inodes),
            World::measure(&world.subject_dir().join("state"))
        );
    }
    drop(doomed);
    world.inside(&lives, |dirs| fs::write(dirs.tmp.join("still"), b"here").unwrap());
}
