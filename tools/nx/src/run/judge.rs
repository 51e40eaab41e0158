//! The process that judges: it answers what the filter hands over, and writes down what was denied.
//!
//! It never serves files: a page of the program's memory may lie in one, and then reading it waits for the file server.

use super::records::Records;
use super::syscall::describe;
use netd::{Answer, Broker, Connecting, Denial, Effects, Judges, Netd, OpenNames, Turns};
use nexus_abi::{Errno, Operation, Reason, Verdict, syscall};
use nexus_abi_policy::{Call, Guard, NoFacts, Request};
use nexus_sys::seccomp::{Listener, Notification};
use nexus_wire::broker::Reply;
use nexus_wire::packet::PacketSocket;
use std::os::fd::AsFd;
use std::sync::Arc;

/// A running judge: answers until nobody is filtered any more.
pub(crate) struct Judge {
    listener: Arc<Listener>,
    turns: Arc<Turns<Loop>>,
    names: OpenNames,
}

/// Numbers of the calls that are carried out here.
struct Mediated {
    connect: u32,
    bind: u32,
    listen: u32,
    socket: u32,
    kill: u32,
    memfd_create: u32,
    shmget: u32,
    msgget: u32,
    semget: u32,
    sendto: u32,
    sendmsg: u32,
    sendmmsg: u32,
    ioctl: u32,
    setsockopt: u32,
}

impl Mediated {
    fn of_this_machine() -> Option<Self> {
        Some(Self {
            connect: syscall::number("connect")?,
            bind: syscall::number("bind")?,
            listen: syscall::number("listen")?,
            socket: syscall::number("socket")?,
            kill: syscall::number("kill")?,
            memfd_create: syscall::number("memfd_create")?,
            shmget: syscall::number("shmget")?,
            msgget: syscall::number("msgget")?,
            semget: syscall::number("semget")?,
            sendto: syscall::number("sendto")?,
            sendmsg: syscall::number("sendmsg")?,
            sendmmsg: syscall::number("sendmmsg")?,
            ioctl: syscall::number("ioctl")?,
            setsockopt: syscall::number("setsockopt")?,
        })
    }
}

/// Why nobody judges.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SuperviseError {
    #[error("init did not hand over the filter's listener")]
    NoListener,
    #[error(transparent)]
    Netd(#[from] netd::StartError),
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
    #[error("this machine's syscall table lacks a call that every Linux has")]
    Table,
}

impl Judge {
    /// Waits for the program's filter and begins to answer.
    pub(crate) fn start(link: PacketSocket, judges: Judges, records: Arc<Records>) -> Result<Self, SuperviseError> {
        let packet = link.receive().map_err(|_| SuperviseError::NoListener)?;
        let reply = Reply::decode(packet.bytes());
        let mut descriptors = packet.descriptors.into_iter();
        let (Some(Reply::Listener), Some(listener), Some(inside)) = (reply, descriptors.next(), descriptors.next())
        else {
            return Err(SuperviseError::NoListener);
        };
        let listener = Arc::new(Listener::from(listener));
        // Whether the kernel has it only matters for speed.
        let _ = listener.set_sync_wake_up();
        let late = {
            let records = Arc::clone(&records);
            Arc::new(move |denial: Denial| records.denied(&denial))
        };
        let guard = Arc::clone(&judges.guard);
        let netd = Netd::start(judges, &inside, Broker::new(link), Arc::clone(&listener), late)?;
        let names = netd.names();
        let loop_ = Loop {
            listener: Arc::clone(&listener),
            guard,
            netd,
            records,
            mediated: Mediated::of_this_machine().ok_or(SuperviseError::Table)?,
        };
        let turns = Turns::begin(loop_, serve).map_err(SuperviseError::Thread)?;
        Ok(Self { listener, turns, names })
    }

    /// What to watch for the end: it hangs up when nobody is filtered any more.
    pub(crate) fn listener(&self) -> impl AsFd + '_ {
        self.listener.as_fd()
    }

    /// The names that are open.
    pub(crate) fn names(&self) -> OpenNames {
        self.names.clone()
    }

    /// Ends the judge, which may be waiting for a call that never comes.
    pub(crate) fn finish(self) {
        self.turns.end();
    }
}

/// Answers until nobody is filtered any more, or somebody else goes on with it.
fn serve(turns: &Arc<Turns<Loop>>, mut loop_: Loop) {
    let listener = Arc::clone(&loop_.listener);
    while !turns.are_over() {
        match listener.receive() {
            Ok(call) => {
                if let Some(connecting) = loop_.answer(&call) {
                    match connecting.make(turns, loop_) {
                        Some(back) => loop_ = back,
                        None => return,
                    }
                }
            }
            // A call was given up before it was read, or nobody is left to make one.
            Err(_) if hung_up(&listener) => break,
            Err(_) => {}
        }
    }
}

/// Whether nobody is filtered any more. seccomp_unotify(2).
fn hung_up(listener: &Listener) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(listener, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok() && fds.iter().any(|fd| fd.revents().contains(PollFlags::HUP))
}

struct Loop {
    listener: Arc<Listener>,
    guard: Arc<Guard>,
    netd: Netd,
    records: Arc<Records>,
    mediated: Mediated,
}

impl Loop {
    /// A connection that is returned is made by who asked, and answers the call.
    fn answer(&mut self, call: &Notification) -> Option<Connecting> {
        let judged = Call {
            number: call.number.cast_unsigned(),
            arch: call.arch,
            args: call.args,
        };
        let foreign = judged.is_foreign();
        if !foreign && let Some(answer) = self.addressed(call, judged.number) {
            return self.reply(call, answer);
        }
        if let Verdict::Deny { reason, errno, rule } = self.guard.judge(&Request::scalar(judged), &NoFacts) {
            // The answer first: a record is nothing to wait for.
            let _ = self.listener.fail(call.id, errno.raw());
            let operation = operation_of(judged.number, &self.mediated);
            let object = describe(call, foreign);
            self.records.denied(&Denial {
                operation,
                object,
                reason,
                errno,
                rule,
            });
            return None;
        }
        let answer = match judged.number {
            number if number == self.mediated.listen => self.netd.listen(call),
            number if number == self.mediated.socket => self.netd.socket(call),
            number if number == self.mediated.ioctl => self.netd.interfaces(call),
            number if number == self.mediated.setsockopt => self.netd.share(call),
            number if number == self.mediated.kill => self.netd.signal_group(call),
            number if number == self.mediated.memfd_create && self.records.has_memory_files() => {
                self.netd.memory_file(call)
            }
            // No budget, or nothing here that would hold the program to it.
            number
                if number == self.mediated.memfd_create
                    || number == self.mediated.shmget
                    || number == self.mediated.msgget
                    || number == self.mediated.semget =>
            {
                Answer::Denied(Denial {
                    operation: Operation::Syscall,
                    object: describe(call, foreign),
                    reason: Reason::IpcNoRule,
                    errno: Errno::EPERM,
                    rule: None,
                })
            }
            // The filter and the guard are made of the same rules; were they ever to disagree, nothing gets through.
            _ => Answer::Denied(Denial {
                operation: Operation::Syscall,
                object: describe(call, foreign),
                reason: Reason::AbiNoRule,
                errno: Errno::EPERM,
                rule: None,
            }),
        };
        self.reply(call, answer)
    }

    /// What is judged where the address is known, which these calls have in memory; `None` for other calls.
    fn addressed(&mut self, call: &Notification, number: u32) -> Option<Answer> {
        let mut effects = Effects::default();
        let mediated = &self.mediated;
        let answer = match number {
            number if number == mediated.connect => self.netd.connect(call, &mut effects),
            number if number == mediated.bind => self.netd.bind(call),
            number if number == mediated.sendto => self.netd.send_to(call, &mut effects),
            number if number == mediated.sendmsg => self.netd.send_message(call, &mut effects),
            number if number == mediated.sendmmsg => self.netd.send_messages(call, &mut effects),
            _ => return None,
        };
        self.records.egress_allowed(effects.egress_allowed);
        if let Some(denial) = effects.denied {
            self.records.denied(&denial);
        }
        Some(answer)
    }

    /// A caller that is gone by now hears nothing, and nothing is lost by it.
    fn reply(&self, call: &Notification, answer: Answer) -> Option<Connecting> {
        let told = match answer {
            Answer::Here(connecting) => return Some(connecting),
            Answer::Later => Ok(()),
            Answer::Value(value) => self.listener.succeed(call.id, value),
            Answer::Errno(errno) => self.listener.fail(call.id, errno.raw()),
            Answer::Descriptor { fd, cloexec } => {
                match self.listener.succeed_with_descriptor(call.id, fd.as_fd(), cloexec) {
                    Ok(_) => Ok(()),
                    Err(error) => {
                        let errno = error.raw_os_error().and_then(|raw| u16::try_from(raw).ok());
                        self.listener.fail(call.id, errno.unwrap_or(Errno::EMFILE.raw()))
                    }
                }
            }
            Answer::Denied(denial) => {
                let told = self.listener.fail(call.id, denial.errno.raw());
                self.records.denied(&denial);
                told
            }
        };
        drop(told);
        None
    }
}

fn operation_of(number: u32, mediated: &Mediated) -> Operation {
    match number {
        number if number == mediated.socket => Operation::Socket,
        number if number == mediated.bind => Operation::Bind,
        number if number == mediated.listen => Operation::Listen,
        _ => Operation::Syscall,
    }
}
