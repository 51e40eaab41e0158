//! The session's second process: judges, writes down, and says at the end what was used and denied.
//!
//! It stands in a session of its own, so that no key of the terminal stops or ends it, and outlives the first process by
//! as long as it takes to write the last record.

use super::areas;
use super::judge::Judge;
use super::places::Places;
use super::records::Records;
use super::session::Session;
use super::summary;
use nexus_sys::process::exit_now;
use nexus_sys::signal::Taken;
use nexus_wire::packet::{Packet, PacketSocket};
use netd::Judges;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, Signal, pidfd_open};
use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use vfsd::VfsdConnection;

/// What the supervisor says once it can write down.
pub(crate) const READY: &[u8] = b"ready";

/// The first process is about to stop. Comes with its end of the pair that it shares with init.
const STOPPING: &[u8] = b"stopping";

/// The first process runs again; answered with the same word.
const AWAKE: &[u8] = b"awake";

/// Nobody is filtered any more and everything is written: what follows is not the loss of the supervisor.
const DONE: &[u8] = b"done";

/// The first process's end of the pair that it shares with the supervisor.
pub(crate) struct Link {
    socket: PacketSocket,
    pid: i32,
    /// Words that came where an answer was waited for.
    words: RefCell<Option<Packet>>,
}

impl Link {
    pub(crate) fn new(socket: PacketSocket, pid: i32) -> Self {
        Self { socket, pid, words: RefCell::new(None) }
    }

    /// Waits for a word of the supervisor's.
    pub(crate) fn receive(&self) -> Result<Packet, Errno> {
        self.socket.receive()
    }

    /// A word of the supervisor's, if there is one.
    pub(crate) fn try_receive(&self) -> Result<Packet, Errno> {
        self.words.take().map_or_else(|| self.socket.try_receive(), Ok)
    }

    /// Whether the supervisor has said that it is done. Anything else that it said is kept.
    pub(crate) fn is_done(&self) -> bool {
        let Ok(packet) = self.try_receive() else { return false };
        let done = packet.bytes() == DONE;
        if !done {
            self.words.replace(Some(packet));
        }
        done
    }

    /// Whether the supervisor sent this signal, which then is for the first process only.
    pub(crate) fn has_sent(&self, signal: &Taken) -> bool {
        signal.sender == self.pid && signal.number == Signal::CONT.as_raw()
    }

    /// Does something that stops this process, while the supervisor continues it as soon as init has something to say:
    /// a program can be continued from inside, or ended, and then no shell will do so.
    pub(crate) fn while_watching<T>(&self, control: &PacketSocket, stop: impl FnOnce() -> T) -> T {
        // A supervisor that is gone is seen soon.
        let _ = self.socket.send(STOPPING, &[control.as_fd()]);
        let result = stop();
        if self.socket.send(AWAKE, &[]).is_ok()
            && let Ok(packet) = self.socket.receive()
            && packet.bytes() != AWAKE
        {
            self.words.replace(Some(packet));
        }
        result
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// How much the user wants to hear.
pub(crate) struct Options {
    pub(crate) quiet: bool,
    pub(crate) watch: bool,
    pub(crate) json: bool,
}

/// Runs as a fork of the first process and ends.
pub(crate) fn run(
    session: &Session,
    places: &Places,
    judges: Judges,
    front: PacketSocket,
    broker: PacketSocket,
    files: VfsdConnection,
    options: &Options,
) -> ! {
    let code = match supervise(session, places, judges, &front, broker, files, options) {
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
    session: &Session,
    places: &Places,
    judges: Judges,
    front: &PacketSocket,
    broker: PacketSocket,
    mut files: VfsdConnection,
    options: &Options,
) -> Result<(), String> {
    harden()?;
    let mut sleeper = Sleeper::of_parent();
    let records = Arc::new(Records::open(session, places, options)?);
    front.send(READY, &[]).map_err(|_| "the first process is gone".to_owned())?;
    let Ok(judge) = Judge::start(broker, judges, Arc::clone(&records)) else {
        // The program never began; the first process knows why from init.
        return Ok(());
    };
    let mut front_gone = false;
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
            if let (false, Some(unheard)) = (front_gone, &sleeper.unheard) {
                fds.push(PollFd::new(unheard, PollFlags::IN));
            }
            if poll(&mut fds, None).is_err() {
                continue;
            }
            let ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
            (ready(0), ready(1), ready(2), ready(3))
        };
        if event && !areas::tell(&mut files, &records) {
            return Err("the file server ended; the program was ended with it".into());
        }
        if heard {
            sleeper.wake();
        }
        if word {
            match front.receive() {
                Ok(packet) if packet.bytes() == STOPPING => sleeper.unheard = packet.descriptors.into_iter().next(),
                Ok(packet) if packet.bytes() == AWAKE => {
                    sleeper.unheard = None;
                    let _ = front.send(AWAKE, &[]);
                }
                // Init dies with the first process, and with init everything that is filtered.
                _ => front_gone = true,
            }
        }
        if records.must_stop() {
            return Err("the journal cannot be written, and policy says to stop then".into());
        }
        if ended {
            break;
        }
    }
    judge.finish();
    let usage = areas::usage(&mut files, &records);
    let done = records.finish();
    if !options.quiet && !front_gone {
        summary::print(session, usage.as_ref(), &done, options.json);
    }
    // If the first process is gone, nobody needs to know.
    let _ = front.send(DONE, &[]);
    Ok(())
}

/// The first process while it is stopped; continued at the latest when this is dropped, because then the program is gone
/// and the shell must hear so.
struct Sleeper {
    process: Option<OwnedFd>,
    /// The end at which it hears what init says, while it is stopped and cannot.
    unheard: Option<OwnedFd>,
}

impl Sleeper {
    fn of_parent() -> Self {
        let process = rustix::process::getppid().and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        Self { process, unheard: None }
    }

    fn wake(&mut self) {
        if let (Some(_), Some(process)) = (self.unheard.take(), &self.process) {
            // It can only fail because it is gone.
            let _ = rustix::process::pidfd_send_signal(process, Signal::CONT);
        }
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.wake();
    }
}

/// What reads the words of an untrusted program should be able to do little itself.
fn harden() -> Result<(), String> {
    let failed = |what: &'static str| move |error: rustix::io::Errno| format!("cannot {what}: {error}");
    rustix::process::setsid().map_err(failed("leave the terminal's session"))?;
    rustix::thread::set_no_new_privs(true).map_err(failed("give up new privileges"))?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(failed("close the memory to others"))?;
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
