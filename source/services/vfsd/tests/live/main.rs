//! The file server against the kernel: as an ordinary user, and as root that gives up its identity.
//!
//! Each case runs in a process of its own, which is what a panic or a hang ends; whatever it leaves is removed by this
//! process. Where a case cannot run, it says so, and fails if `NEXUS_REQUIRE_LIVE=1`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod bytes;
mod corners;
mod crowds;
mod hostile;
mod kept;
mod kills;
mod locks;
mod mapping;
mod nameless;
mod names;
mod passing;
mod places;
mod random;
mod sessions;
mod stalls;
mod trees;
mod weather;
mod work;
mod world;

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use world::{Mode, World};

/// A case and its claim.
type Case = (&'static str, fn(&World));

/// Those that mean nothing, or something else, under root.
const USER_CASES: [&[Case]; 6] = [
    bytes::USER_CASES,
    trees::USER_CASES,
    weather::USER_CASES,
    crowds::USER_CASES,
    stalls::USER_CASES,
    kills::USER_CASES,
];

/// Those that need another user, whom only root can be as well.
const ROOT_CASES: [&[Case]; 2] = [hostile::ROOT_CASES, sessions::ROOT_CASES];

/// How long a case may take before it counts as hung.
const CASE_WAIT: Duration = Duration::from_secs(120);

/// The same where cases are asked to be long.
const SOAK_WAIT: Duration = Duration::from_secs(3600);

/// Whether `NEXUS_SOAK=1` asks for the long form of the cases that have one.
fn soak() -> bool {
    std::env::var_os("NEXUS_SOAK").is_some_and(|value| value == "1")
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (user_cases, root_cases) = (USER_CASES.concat(), ROOT_CASES.concat());
    let cases: Vec<Case> = [
        bytes::CASES,
        names::CASES,
        nameless::CASES,
        hostile::CASES,
        corners::CASES,
        locks::CASES,
        passing::CASES,
        random::CASES,
        trees::CASES,
        sessions::CASES,
        work::CASES,
        places::CASES,
        weather::CASES,
        kills::CASES,
        user_cases.as_slice(),
        root_cases.as_slice(),
    ]
    .concat();
    if let [flag, mode, name, root] = arguments.as_slice()
        && flag == "--inside"
    {
        let mode = Mode::from_name(mode).expect("a mode");
        let (_, case) = cases.iter().find(|(known, _)| known == name).expect("a case");
        case(&World::new(mode, root.into()));
        return;
    }
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let list = arguments.iter().any(|argument| argument == "--list");
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for mode in Mode::ALL {
        let others = match mode {
            Mode::Root => &user_cases,
            Mode::User => &root_cases,
        };
        let elsewhere = |name| others.iter().any(|(known, _)| *known == name);
        for (name, _) in cases.iter().filter(|(name, _)| !elsewhere(*name)) {
            let full = format!("{}::{name}", mode.name());
            if filter.is_some_and(|filter| !full.contains(filter.as_str())) {
                continue;
            }
            if list {
                println!("{full}: test");
                continue;
            }
            if let Err(why) = mode.possible() {
                println!("test {full} ... SKIPPED: {why}");
                skipped += 1;
                continue;
            }
            let started = Instant::now();
            match run(mode, name) {
                Ok(Ran::Whole) => {
                    println!("test {full} ... ok ({} ms)", started.elapsed().as_millis());
                    passed += 1;
                }
                Ok(Ran::Cannot) => {
                    println!("test {full} ... SKIPPED: as it said");
                    skipped += 1;
                }
                Err(why) => {
                    println!("test {full} ... FAILED: {why}");
                    failed += 1;
                }
            }
        }
    }
    if list {
        return;
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {passed} passed; {failed} failed; {skipped} ignored; 0 measured; 0 filtered out");
    let required = std::env::var_os("NEXUS_REQUIRE_LIVE").is_some_and(|value| value == "1");
    if skipped > 0 {
        println!("{skipped} live cases DID NOT RUN: nothing is known about them");
    }
    assert!(failed == 0, "{failed} live cases failed");
    assert!(
        !required || skipped == 0,
        "NEXUS_REQUIRE_LIVE=1, and {skipped} live cases could not run"
    );
}

/// What became of a case that did not fail.
enum Ran {
    Whole,
    Cannot,
}

/// A case that cannot run here ends with this, as tests do elsewhere.
const CANNOT: i32 = 77;

/// Ends a case that cannot run here, and says why. Not from inside a session, whose process is another.
pub(crate) fn cannot(why: &str) -> ! {
    println!("{why}");
    std::process::exit(CANNOT)
}

/// Runs one case in a process of its own and cleans up behind it.
fn run(mode: Mode, name: &str) -> Result<Ran, String> {
    let root = world::make_root(mode);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--inside", mode.name(), name])
        .arg(&root)
        .process_group(0);
    if let Some(user) = mode.start_as() {
        command.uid(user).gid(user);
    }
    let mut child = command.spawn().unwrap();
    let until = Instant::now() + if soak() { SOAK_WAIT } else { CASE_WAIT };
    let result = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break match status.code() {
                Some(0) => Ok(Ran::Whole),
                Some(CANNOT) => Ok(Ran::Cannot),
                _ => Err(status.to_string()),
            };
        }
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            break Err("it hung".to_owned());
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    // Whatever the case left running is in its group; the file server is not, and ends by itself.
    if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    world::remove_root(&root).and(result)
}
