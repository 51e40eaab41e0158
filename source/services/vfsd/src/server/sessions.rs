//! The thread that talks with sessions.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_abi::Area;
use nexus_wire::packet::PacketSocket;
use nexus_wire::vfs::{Budgets, Event, FromVfsd, PolicyHex, Refusal, SubjectName, ToVfsd};
use nexus_wire::{Bounded, DecodeError};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::SocketFlags;

use super::attribute::session_of;
use super::marker::Markers;
use super::mount::Mounts;
use super::place::Wanted;
use super::start::welcome;
use super::work::{Granted, Measuring, Refused, Wish};
use crate::fs::Zone;
use crate::fs::books::Books;
use crate::fs::events::{EventQueue, Kind};
use crate::fs::places::{Held, Places};
use crate::fs::who::Who;
use crate::fs::works::Works;

/// How many sessions a subject has at once, those that have not yet said who they are among them. Each is a socket and
/// three mounts.
const SESSIONS_MAX: usize = 256;

/// How long a connection may say nothing before it is closed: it says Hello at once.
const HELLO_WAIT: Duration = Duration::from_secs(2);

/// How long measuring a work directory may take: as long as a session waits for it.
const MEASURE_WAIT: Duration = Duration::from_secs(60);

/// How long the last session's processes may take to let go of the mounts, once its connection is closed. Less than a
/// new session waits for us.
const LEAVE_WAIT: Duration = Duration::from_secs(4);

/// How many kinds of loss are kept for a session that does not read; there are fewer kinds.
const LOST_KINDS_MAX: usize = 64;

#[derive(Debug)]
struct Session {
    socket: PacketSocket,
    /// Until when it has to say Hello; `None` once it did.
    hello_until: Option<Instant>,
    init_pid: Option<u32>,
    /// It wants to know what is used.
    asks_usage: bool,
    /// The work directory that it asked for before Hello.
    wish: Option<Wish>,
    /// The names in `tmp` that it mounts on, said before Hello.
    places: Wanted,
    /// They are held.
    held: Option<Held>,
    /// Its Hello, which waits for the work directory.
    waiting: Option<(Measuring, Greeting)>,
    /// Told as soon as it reads again.
    lost: Vec<(Kind, u64)>,
}

/// What Hello asks for.
#[derive(Debug)]
struct Greeting {
    budgets: Budgets,
    policy: PolicyHex,
    fresh: bool,
}

/// Everything that sessions share.
#[derive(Debug)]
pub(crate) struct Sessions {
    pub(crate) subject: SubjectName,
    pub(crate) markers: Markers,
    pub(crate) peer_uid: u32,
    pub(crate) books: Arc<Books>,
    pub(crate) works: Arc<Works>,
    pub(crate) places: Arc<Places>,
    pub(crate) events: Arc<EventQueue>,
    pub(crate) who: Arc<Who>,
    pub(crate) mounts: Mounts,
    pub(crate) listener: OwnedFd,
    pub(crate) socket_path: PathBuf,
}

impl Sessions {
    /// Serves the first session and all that come while there is one.
    pub(crate) fn serve(self, first: PacketSocket) {
        let mut open: HashMap<u64, Session> = HashMap::new();
        let mut next = 1_u64;
        open.insert(0, Session::new(first));
        loop {
            self.wait(&open);
            if self.events.is_over() {
                // The superblock is gone although sessions are not: somebody aborted it. Their sockets close with us.
                return;
            }
            self.tell_who(&open);
            // Who asked when there was no room for an answer: what happened before goes first, what happens now does not.
            open.retain(|_, session| {
                session.tell_lost();
                !session.asks_usage || self.tell_usage(session)
            });
            // Taken first and let in last: who connects after the last session has closed finds nobody, however close in
            // time, and gets a server and a `tmp` of its own. Closing its connection tells it to try again.
            let knocking = self.accept(open.len());
            let numbers: Vec<u64> = open.keys().copied().collect();
            for number in numbers {
                if let Some(session) = open.get_mut(&number)
                    && !self.hear(session, number == 0)
                {
                    open.remove(&number);
                }
            }
            self.tell(&mut open);
            // What happened before it was asked is told before it is answered: who asks may not listen afterwards.
            open.retain(|_, session| !session.asks_usage || self.tell_usage(session));
            // After what woke us was taken: what is measured from here on wakes us again.
            open.retain(|_, session| self.go_on(session));
            if !open.iter().any(|(number, session)| session.keeps_alive(*number)) {
                break;
            }
            for session in knocking {
                open.insert(next, session);
                next = next.saturating_add(1);
            }
        }
        self.end();
    }

    /// Has what the program opens counted for the session that it belongs to. Before a session is welcomed it is one of
    /// several, so nothing that it opens counts for another.
    fn tell_who(&self, open: &HashMap<u64, Session>) {
        let mut numbers: Vec<u64> = open.keys().copied().collect();
        numbers.sort_unstable();
        self.who.set_sessions(&numbers, inits_of(open));
    }

    fn wait(&self, open: &HashMap<u64, Session>) {
        let mut fds = vec![
            PollFd::new(&self.listener, PollFlags::IN),
            PollFd::new(self.events.as_ref(), PollFlags::IN),
        ];
        let mut until: Option<Instant> = None;
        for session in open.values() {
            let wanted = if session.lost.is_empty() && !session.asks_usage {
                PollFlags::IN
            } else {
                PollFlags::IN | PollFlags::OUT
            };
            fds.push(PollFd::new(&session.socket, wanted));
            until = match (until, session.hello_until) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
        let timeout = until.map(|until| {
            let left = until
                .saturating_duration_since(Instant::now())
                .saturating_add(Duration::from_millis(1));
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        // Whatever it says, everything is looked at without blocking.
        let _ = rustix::event::poll(&mut fds, timeout.as_ref());
    }

    /// Takes new connections, beside `open` that there are.
    fn accept(&self, open: usize) -> Vec<Session> {
        let mut taken = Vec::new();
        // Errors of a connection that is already gone, and having no descriptor left, mean: not now.
        while let Ok(socket) = rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC) {
            let known =
                rustix::net::sockopt::socket_peercred(&socket).is_ok_and(|peer| peer.uid.as_raw() == self.peer_uid);
            if !known {
                continue;
            }
            let session = Session::new(PacketSocket::from(socket));
            if open.saturating_add(taken.len()) >= SESSIONS_MAX {
                session.refuse(Refusal::TooManySessions, None);
                continue;
            }
            taken.push(session);
        }
        taken
    }

    /// Hears what a session says; `false` if it is over.
    fn hear(&self, session: &mut Session, fresh: bool) -> bool {
        // A session that floods us is heard again after the others.
        for _ in 0..16 {
            let mut packet = match session.socket.try_receive() {
                Ok(packet) => packet,
                Err(Errno::AGAIN) => return session.hello_until.is_none_or(|until| Instant::now() < until),
                Err(_) => return false,
            };
            if packet.bytes().is_empty() {
                return false;
            }
            let message = ToVfsd::decode(packet.bytes());
            let descriptor = packet.descriptors.pop();
            if !self.answer(session, message, descriptor, fresh) {
                return false;
            }
        }
        true
    }

    fn answer(
        &self,
        session: &mut Session,
        message: Result<ToVfsd, DecodeError>,
        descriptor: Option<OwnedFd>,
        fresh: bool,
    ) -> bool {
        match (message, session.hello_until) {
            (Ok(_), _) if session.waiting.is_some() => session.refuse(Refusal::Protocol, None),
            (Ok(ToVfsd::Work), Some(_)) => match descriptor {
                Some(directory) if session.wish.is_none() => {
                    session.wish = Some(Wish::new(directory));
                    true
                }
                _ => session.refuse(Refusal::Protocol, None),
            },
            (Ok(ToVfsd::Hold { parent, name }), Some(_)) => {
                let held = session
                    .wish
                    .as_mut()
                    .is_some_and(|wish| wish.hold(parent, name.as_bytes()));
                held || session.refuse(Refusal::Protocol, None)
            }
            (Ok(ToVfsd::Place { parent, name, is_file }), Some(_)) => {
                session.places.add(parent, name.as_bytes(), is_file) || session.refuse(Refusal::Protocol, None)
            }
            (
                Ok(ToVfsd::Hello {
                    subject,
                    budgets,
                    policy,
                }),
                Some(_),
            ) => {
                if subject != self.subject {
                    return session.refuse(Refusal::Subject, None);
                }
                if [budgets.tmp, budgets.state, budgets.work]
                    .iter()
                    .any(|budget| budget.validate().is_err())
                {
                    return session.refuse(Refusal::Budget, None);
                }
                let greeting = Greeting { budgets, policy, fresh };
                // Before it gets anything: from Welcome on it may be mounting.
                match std::mem::take(&mut session.places).hold(&self.places) {
                    Ok(held) => session.held = held,
                    Err((part, errno)) => return session.refuse_place(part, errno),
                }
                match session
                    .wish
                    .take()
                    .map(|wish| wish.grant(&self.works, &self.mounts, &self.events))
                {
                    None => self.welcome(session, greeting, None),
                    Some(Ok(Granted::Now(zone))) => self.welcome(session, greeting, Some(zone)),
                    Some(Ok(Granted::Later(measuring))) => {
                        session.hello_until = Some(Instant::now() + MEASURE_WAIT);
                        session.waiting = Some((measuring, greeting));
                        true
                    }
                    Some(Err(refused)) => session.refuse_work(refused),
                }
            }
            (Ok(ToVfsd::Attach { init_pid }), None) => {
                session.init_pid = Some(init_pid);
                if let (Some(held), Some(process)) = (&session.held, descriptor) {
                    held.belongs_to(process);
                }
                true
            }
            (Ok(ToVfsd::QueryUsage), Some(_)) if session.wish.is_none() => {
                // Who only looks is told and gone.
                self.tell_usage(session);
                false
            }
            (Ok(ToVfsd::QueryUsage), None) => {
                session.asks_usage = true;
                true
            }
            _ => session.refuse(Refusal::Protocol, None),
        }
    }

    /// Tells a session what is used, or stays asked while it does not read; `false` if it is over.
    fn tell_usage(&self, session: &mut Session) -> bool {
        if !session.lost.is_empty() {
            // What was lost is told first, and there was no room even for that.
            return true;
        }
        let usage = FromVfsd::Usage {
            tmp: self.books.usage(Area::Tmp),
            state: self.books.usage(Area::State),
            work: self.books.work_usage(),
        };
        let told = session.socket.try_send(&usage.encode(), &[]);
        session.asks_usage = told == Err(Errno::AGAIN);
        told.is_ok() || session.asks_usage
    }

    /// Welcomes a session whose work directory was measured; `false` if it is over.
    fn go_on(&self, session: &mut Session) -> bool {
        let Some((measuring, greeting)) = session.waiting.take() else {
            return true;
        };
        match measuring.finish(&self.works) {
            None => {
                session.waiting = Some((measuring, greeting));
                true
            }
            Some(Ok(zone)) => self.welcome(session, greeting, Some(zone)),
            Some(Err(refused)) => session.refuse_work(refused),
        }
    }

    /// Puts a session's budgets in force and gives it its mounts; `false` if it is over.
    fn welcome(&self, session: &mut Session, greeting: Greeting, work: Option<Zone>) -> bool {
        let zones: Vec<Zone> = [Zone::Tmp, Zone::State, Zone::Shm].into_iter().chain(work).collect();
        let copies = match self.mounts.copies(&zones) {
            Ok(copies) => copies,
            Err(errno) => return session.refuse(Refusal::Mount, Some(errno)),
        };
        self.books.set_budgets(greeting.budgets, greeting.policy);
        session.hello_until = None;
        let descriptors: Vec<_> = copies.iter().map(AsFd::as_fd).collect();
        if let Err(errno) = session.try_send(&welcome(greeting.fresh), &descriptors) {
            return session.refuse(Refusal::Mount, Some(errno));
        }
        self.markers.quota_set(&greeting.budgets);
        true
    }

    /// Tells sessions what happened: each event to the session whose process it was, or to the longest there.
    fn tell(&self, open: &mut HashMap<u64, Session>) {
        for session in open.values_mut() {
            session.tell_lost();
        }
        self.events.set_several(open.len() > 1);
        let (events, lost) = self.events.take();
        let count = events.len();
        if events.is_empty() && lost.is_empty() {
            return;
        }
        let inits = inits_of(open);
        // Those that have not said Hello are told nothing.
        let oldest = open
            .iter()
            .filter(|(_, session)| session.hello_until.is_none())
            .map(|(number, _)| *number)
            .min();
        let mut known: HashMap<u32, Option<u64>> = HashMap::new();
        for event in events {
            self.markers.quota_deny(event.area, event.reason);
            let owner = if inits.len() > 1 {
                *known.entry(event.pid).or_insert_with(|| session_of(event.pid, &inits))
            } else {
                inits.values().next().copied()
            };
            if let Some(session) = owner.or(oldest).and_then(|number| open.get_mut(&number)) {
                session.tell(event);
            }
        }
        self.events.placed(count);
        if let Some(session) = oldest.and_then(|number| open.get_mut(&number)) {
            for (kind, count) in lost {
                session.lose(kind, count);
            }
            session.tell_lost();
        }
    }

    /// The last session is over: nobody can connect any more, and what its processes still write is written.
    fn end(self) {
        let Self {
            listener,
            mounts,
            events,
            socket_path,
            ..
        } = self;
        // We hold the lock, so this is our socket and nobody's else. Started by root we may not remove it; nobody
        // listens there then, which says the same.
        let _ = std::fs::remove_file(&socket_path);
        drop(listener);
        // Nobody is told any more, so nobody waits to be.
        events.set_several(false);
        // With our own reference gone, the superblock lives as long as a mount of a dying process; then the kernel
        // writes everything back, and the device says that it is over.
        drop(mounts);
        let until = Instant::now() + LEAVE_WAIT;
        while !events.is_over() && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            let _ = rustix::event::poll(&mut [PollFd::new(events.as_ref(), PollFlags::IN)], Some(&timeout));
            // Nobody is there to be told.
            let _ = events.take();
        }
    }
}

/// The sessions by their init processes, of those that have said it.
fn inits_of(open: &HashMap<u64, Session>) -> HashMap<u32, u64> {
    let known = open.iter();
    known
        .filter_map(|(number, session)| session.init_pid.map(|pid| (pid, *number)))
        .collect()
}

impl Session {
    fn new(socket: PacketSocket) -> Self {
        Self {
            socket,
            hello_until: Some(Instant::now() + HELLO_WAIT),
            init_pid: None,
            asks_usage: false,
            wish: None,
            places: Wanted::default(),
            held: None,
            waiting: None,
            lost: Vec::new(),
        }
    }

    /// Whether the server goes on for it: for the one that it was started for, and for those that have said who they are.
    /// Another that has said nothing yet may only want to look; one that joins tries again.
    const fn keeps_alive(&self, number: u64) -> bool {
        number == 0 || self.hello_until.is_none() || self.waiting.is_some()
    }

    fn send(&self, message: &FromVfsd, fds: &[std::os::fd::BorrowedFd<'_>]) -> bool {
        self.try_send(message, fds).is_ok()
    }

    fn try_send(&self, message: &FromVfsd, fds: &[std::os::fd::BorrowedFd<'_>]) -> Result<(), Errno> {
        self.socket.try_send(&message.encode(), fds)
    }

    /// Always false: the session is over.
    fn refuse(&self, refusal: Refusal, errno: Option<Errno>) -> bool {
        self.refuse_saying(refusal, "", errno)
    }

    /// Always false: the session is over.
    fn refuse_work(&self, (stage, errno): Refused) -> bool {
        self.refuse_saying(Refusal::Work, stage, Some(errno))
    }

    /// Always false: the session is over.
    fn refuse_place(&self, part: u32, errno: Errno) -> bool {
        let errno = errno.raw_os_error().unsigned_abs();
        self.send(&FromVfsd::NoPlace { part, errno }, &[]);
        false
    }

    fn refuse_saying(&self, refusal: Refusal, stage: &str, errno: Option<Errno>) -> bool {
        let errno = errno.map_or(0, |errno| errno.raw_os_error().unsigned_abs());
        self.send(
            &FromVfsd::Refused {
                refusal,
                stage: Bounded::cut(stage.as_bytes()),
                errno,
            },
            &[],
        );
        false
    }

    fn tell(&mut self, event: Event) {
        let kind = (event.area, event.operation, event.reason);
        // Once something was lost, what follows is counted too until the loss was told: events stay in order.
        if !self.lost.is_empty() || !self.send(&FromVfsd::Event(event), &[]) {
            self.lose(kind, 1);
        }
    }

    fn lose(&mut self, kind: Kind, more: u64) {
        if let Some((_, count)) = self.lost.iter_mut().find(|(known, _)| *known == kind) {
            *count = count.saturating_add(more);
        } else if self.lost.len() < LOST_KINDS_MAX {
            self.lost.push((kind, more));
        }
    }

    fn tell_lost(&mut self) {
        while let Some(((area, operation, reason), count)) = self.lost.first().copied() {
            if !self.send(
                &FromVfsd::Lost {
                    area,
                    operation,
                    reason,
                    count,
                },
                &[],
            ) {
                return;
            }
            self.lost.remove(0);
        }
    }
}
