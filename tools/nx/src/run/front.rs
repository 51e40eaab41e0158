//! The process that the shell started: it looks to the shell as the program would.
//!
//! It stays in the shell's process group and so does the program, so that the terminal treats both alike. It stops when
//! the program stops, passes on what is sent to it alone, and ends as the program ends.

use super::link::{DONE, Link};
use super::signals::{Default, Signals};
use super::terminal::Terminal;
use execd::Spawned;
use nexus_sys::signal::bit;
use nexus_wire::control::{Command, Event};
use nexus_wire::packet::{Packet, PacketSocket};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use std::collections::VecDeque;
use std::os::fd::AsFd;

/// How the session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The program ended with this code.
    Exited(i32),
    /// The program was ended by this signal.
    Signaled(i32),
    /// The program could not be executed.
    ExecFailed(i32),
    /// The sandbox could not be built.
    SetupFailed {
        /// The step's number.
        step: u32,
        /// Why.
        errno: i32,
    },
    /// Init ended without a word.
    InitLost,
    /// The supervisor ended before the program, which was ended with it.
    SupervisorLost {
        /// Its last words, if it had any.
        words: Option<String>,
    },
}

/// How far the program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// There is none yet: this process stands for it.
    Building,
    /// It exists, and gets what goes to the process group, but may not have begun.
    Launching,
    /// It has begun.
    Running,
}

/// What the first process holds while the program runs.
pub(crate) struct Front<'a> {
    spawned: &'a Spawned,
    control: &'a PacketSocket,
    supervisor: &'a Link,
    signals: &'a mut Signals,
    terminal: Option<Terminal>,
    /// What init said and nobody has looked at yet.
    said: VecDeque<Event>,
    phase: Phase,
    /// Whether init says nothing any more.
    silent: bool,
    /// Whether the supervisor has done its part, which it has when nobody is filtered any more.
    supervised: bool,
    /// Signals that came before it began and wait for it.
    early: Vec<i32>,
}

impl<'a> Front<'a> {
    pub(crate) fn new(
        spawned: &'a Spawned,
        control: &'a PacketSocket,
        supervisor: &'a Link,
        signals: &'a mut Signals,
    ) -> Self {
        Self {
            spawned,
            control,
            supervisor,
            signals,
            terminal: Terminal::of_this_process(),
            said: VecDeque::new(),
            phase: Phase::Building,
            silent: false,
            supervised: true,
            early: Vec::new(),
        }
    }

    /// Follows the program until it and everything that it left behind is gone.
    pub(crate) fn follow(mut self, mut on_start: impl FnMut()) -> End {
        let mut end = None;
        loop {
            let (signal, gone, word) = self.wait();
            // Everything that init said before it ended is there once its end is seen.
            self.listen();
            while let Some(event) = self.said.pop_front() {
                match event {
                    Event::Launching => self.phase = Phase::Launching,
                    Event::Started => {
                        on_start();
                        self.begin();
                    }
                    Event::Stopped(signal) => self.stop_too(signal),
                    // An answer that was not waited for does not come.
                    Event::Continued | Event::Pending(_) => {}
                    Event::Exited(code) => end = Some(End::Exited(code)),
                    Event::Signaled(signal) => end = Some(End::Signaled(signal)),
                    Event::ExecFailed(errno) => end = Some(End::ExecFailed(errno)),
                    Event::SetupFailed { step, errno } => end = Some(End::SetupFailed { step, errno }),
                }
                self.listen();
            }
            if gone {
                // The kernel has ended whatever was left in the namespace by now.
                self.spawned.kill();
                if let Some(terminal) = &self.terminal {
                    terminal.reclaim();
                }
                return end.unwrap_or(End::InitLost);
            }
            if word {
                // It sees the last process end before init has reaped it, and then goes on without being watched.
                let said = self.supervisor.try_receive();
                let said = said.as_ref().map(Packet::bytes).unwrap_or_default();
                if said != DONE && end.is_none() {
                    self.spawned.kill();
                    let words = (!said.is_empty()).then(|| String::from_utf8_lossy(said).into_owned());
                    return End::SupervisorLost { words };
                }
                self.supervised = false;
            }
            if signal && self.phase == Phase::Running {
                self.pass_on();
            } else if signal && let Some(signal) = self.before_the_start() {
                self.spawned.kill();
                return End::Signaled(signal);
            }
        }
    }

    /// Waits until something happens: a signal here, the end of init, the end of the supervisor, or a word of init.
    fn wait(&self) -> (bool, bool, bool) {
        let (signals, supervisor) = (self.signals.descriptor(), self.supervisor.as_fd());
        let mut fds = [
            PollFd::new(&signals, PollFlags::IN),
            PollFd::new(&self.spawned.init.pidfd, PollFlags::IN),
            PollFd::new(self.control, PollFlags::IN),
            PollFd::new(&supervisor, PollFlags::IN),
        ];
        // A closed pair would be told again and again.
        let watched = match (self.supervised, self.silent) {
            (true, false) => 4,
            (false, false) => 3,
            (_, true) => 2,
        };
        // What was heard while an answer was waited for is looked at first.
        let now = Timespec::default();
        let timeout = (!self.said.is_empty() || self.supervisor.has_word()).then_some(&now);
        if fds.get_mut(..watched).is_none_or(|fds| poll(fds, timeout).is_err()) {
            return (false, false, false);
        }
        let [signal, gone, _, word] = fds.map(|fd| !fd.revents().is_empty());
        (signal, gone, word || (self.supervised && self.supervisor.has_word()))
    }

    /// Takes what init has said so far.
    fn listen(&mut self) {
        while !self.silent
            && let Ok(packet) = self.control.try_receive()
        {
            // Nothing comes after an empty packet, and soon the end of init is seen.
            self.silent = packet.bytes().is_empty();
            self.said.extend(Event::decode(packet.bytes()));
        }
    }

    /// Asks init which signals it got. None if it is gone, which is the next thing seen.
    fn pending_of_init(&mut self) -> u64 {
        if self.control.send(&Command::Pending.encode(), &[]).is_err() {
            return 0;
        }
        loop {
            match self
                .control
                .receive()
                .ok()
                .and_then(|packet| Event::decode(packet.bytes()))
            {
                Some(Event::Pending(signals)) => return signals,
                Some(event) => self.said.push_back(event),
                None => return 0,
            }
        }
    }

    /// Passes on what came to this process alone; what went to the whole process group has reached the program.
    fn pass_on(&mut self) {
        let before = self.pending_of_init();
        let mut taken = self.signals.take_all();
        let after = self.pending_of_init();
        let everybody = self.signals.of_everybody(before, &taken, after);
        taken.retain(|signal| !self.supervisor.has_sent(signal));
        for signal in taken {
            self.send(signal.number, everybody & bit(signal.number) != 0);
        }
    }

    fn send(&self, number: i32, everybody: bool) {
        // If init is gone, its end is the next thing seen.
        let _ = self.control.send(&Command::Signal { number, everybody }.encode(), &[]);
    }

    /// The program has begun: it gets what waited for it.
    fn begin(&mut self) {
        self.phase = Phase::Running;
        let early = std::mem::take(&mut self.early);
        let of_init = self.pending_of_init();
        for signal in early {
            self.send(signal, of_init & bit(signal) != 0);
        }
    }

    /// Does what a signal does to a program that has no handlers yet. Returns the signal that ends the run.
    fn before_the_start(&mut self) -> Option<i32> {
        for signal in self.signals.take_all() {
            match self.signals.default_of(signal.number) {
                _ if self.supervisor.has_sent(&signal) => {}
                Default::End if self.phase == Phase::Building => return Some(signal.number),
                Default::Stop if self.phase == Phase::Launching && self.begins_soon() => self.early.push(signal.number),
                // Init waits for the program's exec and would not notice that it stopped.
                Default::Stop => {
                    let stop = || self.signals.stop_by(signal.number);
                    self.supervisor.while_watched(self.control, &mut self.said, stop);
                    // Woken because it has begun all the same: then the stop is the program's.
                    if !self.said.is_empty() {
                        self.early.push(signal.number);
                    }
                }
                Default::Nothing if self.phase == Phase::Building => {}
                Default::End | Default::Wait | Default::Nothing => self.early.push(signal.number),
            }
        }
        None
    }

    /// Waits a little for word that the program has begun; then its stop will be told.
    fn begins_soon(&mut self) -> bool {
        // Between an exec and init's word of it lies less than a hundredth of this.
        const SOON: Timespec = Timespec {
            tv_sec: 0,
            tv_nsec: 100_000_000,
        };
        let _ = poll(&mut [PollFd::new(self.control, PollFlags::IN)], Some(&SOON));
        self.listen();
        !self.said.is_empty()
    }

    /// Stops this process as its program was stopped, so that the shell sees a stopped job; returns when it is continued.
    fn stop_too(&mut self, signal: i32) {
        // A stop that was told late may be over: the keys of a terminal stop this process too while it is about to be
        // stopped, and a shell has continued it since.
        let of_init = self.pending_of_init();
        self.signals.of_everybody(of_init, &[], 0);
        if !self.said.iter().all(|event| matches!(event, Event::Stopped(_))) {
            return;
        }
        let inner = self.terminal.as_ref().and_then(Terminal::foreground_inside);
        let stopped = self
            .supervisor
            .while_watched(self.control, &mut self.said, || self.signals.stop_by(signal));
        if let (Some(terminal), Some(group)) = (&self.terminal, inner)
            && terminal.is_ours()
        {
            terminal.give_to(group);
        }
        if !stopped {
            // Nobody would ever continue the program: it goes on as we do.
            self.send(Signal::CONT.as_raw(), false);
        }
    }
}
