//! Killed at any moment: the ledger is the disk, and nothing is left.
//!
//! `NEXUS_SOAK=1` kills a thousand times; without it a few dozen.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions};

use crate::Case;
use crate::hostile::Numbers;
use crate::kept::{Deed, Kept};
use crate::world::{MIB, World, budget, eventually};

pub(crate) const CASES: &[Case] = &[
    (
        "killed_at_any_moment_what_was_acknowledged_is_there_and_charged_and_nothing_is_left",
        kills,
    ),
    ("a_session_that_is_killed_takes_nothing_from_another", other_goes_on),
];

/// As root somebody stands between a session and the server that it starts, and its number is not known so early.
pub(crate) const USER_CASES: &[Case] = &[(
    "killed_while_it_starts_and_takes_its_first_session_in_it_is_gone",
    killed_at_start,
)];

/// `ECONNABORTED` and `ENOTCONN`; `EIO` for a request that it was just reading (`fuse_dev_do_read`, fs/fuse/dev.c).
const SERVER_GONE: [i32; 3] = [103, 107, 5];

const SHORT: u32 = 24;
const LONG: u32 = 1000;

/// The same moments in every run.
fn chance(seed: u64) -> Numbers {
    Numbers(0x6e65_7875_7300_0000 | seed)
}

/// Does to the files of `dir` whatever comes up, until it is killed or its file server is; says into `log` what came of each, once it is told.
fn churn(dir: &Path, mut numbers: Numbers, mut log: &File) {
    loop {
        let came = match Deed::next(&mut numbers).act(dir) {
            Ok(()) => 0,
            Err(error) => error.raw_os_error().unwrap(),
        };
        if SERVER_GONE.contains(&came) {
            return;
        }
        log.write_all(&[u8::try_from(came).unwrap()]).unwrap();
    }
}

/// What was acknowledged of a sequence is on the disk, and nothing else but of the one after it; returns what is there.
fn kept(before: &Kept, mut numbers: Numbers, came: &[u8], disk: &Path, when: &str) -> Kept {
    let mut model = before.clone();
    for (number, came) in came.iter().enumerate() {
        let deed = Deed::next(&mut numbers);
        let expected = model.apply(&deed).err().unwrap_or_default();
        assert_eq!(i32::from(*came), expected, "{when}: {number}, {deed:?}");
    }
    let under_way = Deed::next(&mut numbers);
    let disk = Kept::on_disk(disk);
    assert!(
        model.is_kept_by(&disk, &under_way),
        "{when}: after {} acknowledged and perhaps {under_way:?} the disk should have {} and has {}",
        came.len(),
        model.told(),
        disk.told()
    );
    disk
}

fn rounds() -> u32 {
    if crate::soak() { LONG } else { SHORT }
}

fn kills(world: &World) {
    let mut chance = chance(1);
    let state = world.subject_dir().join("state");
    let log_path = world.bare_dir().join("log");
    let mut there = Kept::default();
    let (mut servers, mut programs, mut deeds) = (0, 0, 0);
    for round in 0..rounds() {
        let mut connection = world.join(budget(4 * MIB, 1000), budget(4 * MIB, 1000));
        let (_, used) = connection.usage().unwrap();
        let used = (used.used_bytes, used.used_inodes);
        assert_eq!(
            used,
            there.cost(),
            "before kill {round}: what is charged is what is there"
        );
        assert_eq!(used, World::measure(&state), "and what a walk finds");
        let seed = chance.below(u64::MAX) | 1;
        let log = File::create(&log_path).unwrap();
        let inside = world.begin(&connection, |dirs| churn(&dirs.state, Numbers(seed), &log));
        std::thread::sleep(Duration::from_micros(chance.below(6000)));
        let kill = |pid: i32| rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        let server_too = chance.below(3) > 0;
        if server_too {
            kill(i32::try_from(connection.vfsd_pid).unwrap());
            servers += 1;
        } else {
            kill(inside.pid);
            programs += 1;
        }
        // A program whose server is gone ends by itself, one that was killed by that.
        let ended = rustix::process::waitpid(Pid::from_raw(inside.pid), WaitOptions::empty());
        let ended = ended.unwrap().unwrap().1;
        let wanted = if server_too { (Some(0), None) } else { (None, Some(9)) };
        assert_eq!(
            (ended.exit_status(), ended.terminating_signal()),
            wanted,
            "kill {round}"
        );
        let came = fs::read(&log_path).unwrap();
        deeds += came.len();
        let when = format!("kill {round}, of the {}", if server_too { "server" } else { "program" });
        there = kept(&there, Numbers(seed), &came, &state, &when);
        if !server_too {
            // The server lives: its ledger is the disk now, and not only for the next.
            eventually(&format!("{when}: what is charged is what is there"), || {
                let (_, used) = connection.usage().unwrap();
                (used.used_bytes, used.used_inodes) == there.cost()
            });
        }
        drop(connection);
    }
    assert!(
        servers > rounds() / 3 && programs > rounds() / 6 && deeds > rounds() as usize,
        "{servers} servers, {programs} programs, {deeds} deeds"
    );
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
    let mut chance = chance(2);
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
    let state = world.subject_dir().join("state");
    let log_path = world.bare_dir().join("log");
    let mut there = Kept::default();
    for round in 1..=8_u64 {
        // Each connection's mounts are good for one program.
        let next = world.join(budget(MIB, 100), budget(4 * MIB, 1000));
        let log = File::create(&log_path).unwrap();
        let program = world.begin(&next, |dirs| churn(&dirs.state, chance(round), &log));
        std::thread::sleep(Duration::from_millis(3));
        rustix::process::kill_process(Pid::from_raw(program.pid).unwrap(), Signal::KILL).unwrap();
        let ended = rustix::process::waitpid(Pid::from_raw(program.pid), WaitOptions::empty());
        assert_eq!(
            ended.unwrap().unwrap().1.terminating_signal(),
            Some(9),
            "it did not end before"
        );
        drop(next);
        let came = fs::read(&log_path).unwrap();
        there = kept(&there, chance(round), &came, &state, &format!("program {round}"));
        eventually("what is charged is what is there", || {
            let (_, used) = lives.usage().unwrap();
            (used.used_bytes, used.used_inodes) == there.cost()
        });
    }
    drop(doomed);
    world.inside(&lives, |dirs| fs::write(dirs.tmp.join("still"), b"here").unwrap());
}
