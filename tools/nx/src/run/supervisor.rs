//! The session's second process: judges, writes down, and says at the end what was used and denied.
//!
//! It stands in a session of its own, so that no key of the terminal stops or ends it, and outlives the first process by
//! as long as it takes to write the last record.

use super::areas;
use super::judge::{Judge, SuperviseError};
use super::link::{DONE, READY, Sleeper};
use super::places::Places;
use super::records::Records;
use super::registered::Registered;
use super::session::Session;
use super::summary;
use execd::Plan;
use netd::Judges;
use nexus_sys::process::exit_now;
use nexus_wire::packet::PacketSocket;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use vfsd::VfsdSession;

/// How long a session runs before its entry says also what takes a while to find out: starting is not the time for it, and
/// many a program has ended by then.
const SETTLED: Duration = Duration::from_millis(20);

/// How much the user wants to hear.
pub(crate) struct Options {
    pub(crate) quiet: bool,
    pub(crate) watch: bool,
    pub(crate) json: bool,
}

/// What is supervised.
pub(crate) struct Subject {
    pub(crate) session: &'static Session,
    pub(crate) plan: &'static Plan,
    /// The program's init, as the first process numbers it.
    pub(crate) init: i32,
}

/// Runs as a fork of the first process and ends.
pub(crate) fn run(
    subject: &Subject,
    places: &Places,
    judges: Judges,
    front: PacketSocket,
    broker: PacketSocket,
    options: &Options,
) -> ! {
    let code = match supervise(subject, places, judges, &front, broker, options) {
        Ok(()) => 0,
        Err(words) => {
            let words = words.as_bytes();
            let cut = words.len().min(nexus_wire::packet::PACKET_BYTES_MAX);
            // If the first process is gone, so is the program.
            let _ = front.send(words.get(..cut).unwrap_or_default(), &[]);
            1
        }
    };
    exit_now(code)
}

fn supervise(
    subject: &Subject,
    places: &Places,
    judges: Judges,
    front: &PacketSocket,
    broker: PacketSocket,
    options: &Options,
) -> Result<(), String> {
    harden()?;
    let mut sleeper = Sleeper::of_parent();
    let session = subject.session;
    let records = Arc::new(Records::open(session, places, options)?);
    // Before the program can begin: a session that runs is a session that `nx sec ps` shows.
    let names = Arc::new(OnceLock::new());
    let unknown = |error| {
        format!(
            "the session cannot be made known in `{}`: {error}",
            places.runtime.display()
        )
    };
    let registered = Registered::new(subject, places, Arc::clone(&names)).map_err(unknown)?;
    let gone = |_| "the first process is gone".to_owned();
    front.send(READY, &[]).map_err(gone)?;
    let Some(files) = front.receive().map_err(gone)?.descriptors.pop() else {
        // The program will not begin; the first process knows why.
        return Ok(());
    };
    let mut files = VfsdSession::from(files);
    let judge = match Judge::start(broker, judges, Arc::clone(&records)) {
        Ok(judge) => judge,
        // The program never began; the first process knows why from init.
        Err(SuperviseError::NoListener) => return Ok(()),
        // It has begun, and nobody would answer it.
        Err(error) => return Err(error.to_string()),
    };
    // Nobody else sets it.
    let _ = names.set(judge.names());
    let mut front_gone = false;
    let mut unsaid = Some(Instant::now() + SETTLED);
    loop {
        let (ended, event, word, heard) = {
            let (listener, served) = (judge.listener(), areas::descriptor(&files));
            let mut fds = vec![
                // Nothing is read here: only the hang-up counts, and that is always told.
                PollFd::new(&listener, PollFlags::empty()),
                PollFd::new(&served, PollFlags::IN),
            ];
            if !front_gone {
                fds.push(PollFd::new(front, PollFlags::IN));
            }
            if let (false, Some(control)) = (front_gone, sleeper.control()) {
                fds.push(PollFd::new(control, PollFlags::IN));
            }
            let left = unsaid.map(|at| at.saturating_duration_since(Instant::now()));
            let timeout = sleeper
                .timeout()
                .into_iter()
                .chain(left.and_then(|left| Timespec::try_from(left).ok()))
                .min();
            if poll(&mut fds, timeout.as_ref()).is_err() {
                continue;
            }
            let ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
            (ready(0), ready(1), ready(2), ready(3))
        };
        if event && !areas::tell(&mut files, &records) {
            return Err("the file server ended; the program was ended with it".into());
        }
        if unsaid.is_some_and(|at| at <= Instant::now()) {
            unsaid = None;
            // Where it cannot be written, on a full disk, a reader asks for it: no reason to end a program that runs.
            let _ = registered.complete(session);
        }
        if heard {
            sleeper.listen();
        }
        sleeper.wake_in_time();
        if word {
            // Init dies with the first process, and with init everything that is filtered.
            front_gone = !sleeper.obey(front);
        }
        if records.must_stop() {
            return Err("the journal cannot be written, and policy says to stop then".into());
        }
        if ended {
            break;
        }
    }
    front_gone = front_gone || !sleeper.rise(front);
    if !front_gone {
        // If it went just now, so did the program.
        let _ = front.send(DONE, &[]);
    }
    judge.finish();
    // The last record is yet to be written, but nothing runs any more.
    drop(registered);
    let usage = areas::usage(&mut files, &records);
    let done = records.finish();
    if !options.quiet && !front_gone {
        summary::print(session, usage.as_ref(), &done, options.json);
    }
    Ok(())
}

/// What reads the words of an untrusted program should be able to do little itself.
fn harden() -> Result<(), String> {
    let failed = |what: &'static str| move |error: rustix::io::Errno| format!("cannot {what}: {error}");
    rustix::process::setsid().map_err(failed("leave the terminal's session"))?;
    rustix::thread::set_no_new_privs(true).map_err(failed("give up new privileges"))?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(failed("close the memory to others"))?;
    // Every call of the program that waits costs a descriptor or two here. Below the hard limit, raising is always allowed.
    let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let _ = rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit {
            current: hard,
            maximum: hard,
        },
    );
    // For `ps` only.
    let _ = rustix::thread::set_name(c"nx-supervisor");
    Ok(())
}

impl Options {
    /// Whether denies are told as they happen.
    pub(crate) fn tells(&self) -> bool {
        self.watch && !self.quiet
    }
}
