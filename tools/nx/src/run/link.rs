//! What the first process and the supervisor tell each other.
//!
//! The first process stops when the program stops, so that the shell sees a stopped job. A program can then be continued
//! from inside, or be killed, and no shell will ever continue the first process. So the supervisor, which stands in a
//! session of its own and is never stopped, listens to init in its place and continues it when there is something to hear.

use nexus_sys::signal::Taken;
use nexus_wire::control::{Event, MESSAGE_BYTES};
use nexus_wire::packet::{PACKET_BYTES_MAX, Packet, PacketSocket};
use rustix::event::Timespec;
use rustix::io::Errno;
use rustix::process::{PidfdFlags, Signal, pidfd_open};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// What the supervisor says once it can write down.
pub(crate) const READY: &[u8] = b"ready";

/// What the first process answers, with the session at the file server.
pub(crate) const FILES: &[u8] = b"files";

/// What the supervisor says once nobody is left to be judged: its end is no loss from here on.
pub(crate) const DONE: &[u8] = b"done";

/// The first process is about to stop. Comes with its end of the pair that it shares with init.
const STOPPING: &[u8] = b"stopping";

/// The first process runs again; answered with the same word and what init said in between.
const AWAKE: &[u8] = b"awake";

/// The first process's end of the pair that it shares with the supervisor.
pub(crate) struct Link {
    socket: PacketSocket,
    pid: i32,
    /// Words that came where an answer was waited for.
    words: RefCell<Option<Packet>>,
}

impl Link {
    pub(crate) fn new(socket: PacketSocket, pid: i32) -> Self {
        Self {
            socket,
            pid,
            words: RefCell::new(None),
        }
    }

    /// Waits for a word of the supervisor's.
    pub(crate) fn receive(&self) -> Result<Packet, Errno> {
        self.socket.receive()
    }

    /// Sends a word to the supervisor.
    pub(crate) fn send(&self, word: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        self.socket.send(word, descriptors)
    }

    /// A word of the supervisor's, if there is one; none if it is gone.
    pub(crate) fn try_receive(&self) -> Option<Packet> {
        self.words.take().or_else(|| self.socket.try_receive().ok())
    }

    /// Whether a word waits that came where another was waited for.
    pub(crate) fn has_word(&self) -> bool {
        self.words.borrow().is_some()
    }

    /// Whether the supervisor sent this signal, which then is for the first process only.
    pub(crate) fn has_sent(&self, signal: &Taken) -> bool {
        signal.sender == self.pid && signal.number == Signal::CONT.as_raw()
    }

    /// Does something that stops this process, while the supervisor listens to init in its place; adds what it heard.
    pub(crate) fn while_watched<T>(
        &self,
        control: &PacketSocket,
        said: &mut VecDeque<Event>,
        stop: impl FnOnce() -> T,
    ) -> T {
        // A supervisor that is gone is seen soon.
        let _ = self.socket.send(STOPPING, &[control.as_fd()]);
        let result = stop();
        if self.socket.send(AWAKE, &[]).is_ok()
            && let Ok(packet) = self.socket.receive()
        {
            match packet.bytes().strip_prefix(AWAKE) {
                Some(events) => said.extend(events.chunks(MESSAGE_BYTES).filter_map(Event::decode)),
                None => drop(self.words.replace(Some(packet))),
            }
        }
        result
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// How long the supervisor waits for the next word after init said that the program was continued. Ctrl-Z just after `fg`
/// stops program and first process alike, and only the program's stop has yet to be told; waking the first process then
/// would show the shell a job that flutters. Whoever waits in earnest does not notice.
const SETTLE: Duration = Duration::from_millis(20);

/// As many events as an answer has room for.
const EVENTS_MAX: usize = (PACKET_BYTES_MAX - AWAKE.len()) / MESSAGE_BYTES;

/// The first process as the supervisor sees it; continued at the latest when this is dropped, because then the program is
/// gone and the shell must hear so.
pub(crate) struct Sleeper {
    process: Option<OwnedFd>,
    /// Whether it said that it stops, and has not said since that it runs.
    asleep: bool,
    /// The end at which it hears init, while it is stopped and cannot.
    control: Option<PacketSocket>,
    heard: VecDeque<Event>,
    wake_at: Option<Instant>,
}

impl Sleeper {
    pub(crate) fn of_parent() -> Self {
        let process = rustix::process::getppid().and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        Self {
            process,
            asleep: false,
            control: None,
            heard: VecDeque::new(),
            wake_at: None,
        }
    }

    /// What to wait on, if it sleeps and nobody has woken it yet.
    pub(crate) fn control(&self) -> Option<&PacketSocket> {
        self.control.as_ref()
    }

    /// How long to wait at most.
    pub(crate) fn timeout(&self) -> Option<Timespec> {
        let left = self.wake_at?.saturating_duration_since(Instant::now());
        Timespec::try_from(left).ok()
    }

    /// Takes what the first process says. False once it is gone; init dies with it, and with init everything that is
    /// filtered.
    pub(crate) fn obey(&mut self, front: &PacketSocket) -> bool {
        match front.receive() {
            Ok(packet) if packet.bytes() == STOPPING => {
                self.asleep = true;
                self.control = packet.descriptors.into_iter().next().map(PacketSocket::from);
                true
            }
            Ok(packet) if packet.bytes() == AWAKE => {
                self.asleep = false;
                self.control = None;
                self.wake_at = None;
                let mut answer = AWAKE.to_vec();
                answer.extend(self.heard.drain(..).flat_map(Event::encode));
                front.send(&answer, &[]).is_ok()
            }
            _ => false,
        }
    }

    /// Listens to init.
    pub(crate) fn listen(&mut self) {
        let Some(control) = &self.control else { return };
        loop {
            match control.try_receive() {
                Err(Errno::AGAIN) => return,
                Ok(packet) => match Event::decode(packet.bytes()) {
                    Some(event) => {
                        // What is dropped came before a stop or go-on that came later.
                        if self.heard.len() >= EVENTS_MAX {
                            self.heard.pop_front();
                        }
                        self.heard.push_back(event);
                        self.wake_at = match event {
                            Event::Stopped(_) => None,
                            Event::Continued => Some(Instant::now() + SETTLE),
                            _ => Some(Instant::now()),
                        };
                    }
                    None => return self.wake(),
                },
                Err(_) => return self.wake(),
            }
        }
    }

    /// Wakes it, because nobody is left inside, and tells it what was heard. False once it is gone.
    pub(crate) fn rise(&mut self, front: &PacketSocket) -> bool {
        self.wake();
        while self.asleep {
            if !self.obey(front) {
                return false;
            }
        }
        true
    }

    /// Wakes it if it is time.
    pub(crate) fn wake_in_time(&mut self) {
        if self.wake_at.is_some_and(|at| at <= Instant::now()) {
            self.wake();
        }
    }

    fn wake(&mut self) {
        self.wake_at = None;
        if let (Some(_), Some(process)) = (self.control.take(), &self.process) {
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
