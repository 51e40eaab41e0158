//! A session whose program is a probe.

use super::evidence::Evidence;
use super::scratch::Scratch;
use super::{fences, interrupt, network, tamper::Tamper};
use crate::cli::RunArgs;
use crate::run::{Exit, Failure, Places, Prepared, plain, prove};
use execd::{Access, Entry};
use nexus_abi::{Protocol, syscall};
use nexus_sys::probe::{FRAME_BYTES, Frame, HELLO, Reply};
use nexus_sys::process::{Child, CloneFlags, Fork, clone, exit_now};
use nexus_wire::packet::{PACKET_DESCRIPTORS_MAX, PacketSocket};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where the probe is in the subject's view: the one path more than in a run.
const PROBE: &str = "/nx-probe";

/// How long a session may take to start, and to end. Its areas are empty, so that its file server has nothing to measure: what
/// takes longer hangs, most likely in the file system that the state directory lies on.
pub(super) const START_WAIT: Duration = Duration::from_secs(20);

/// How long a session that is given up may take to end in order, before it is killed.
const END_WAIT: Duration = Duration::from_secs(1);

/// After how long it is said what is waited for.
const SILENT_WAIT: Duration = Duration::from_secs(2);

/// How long one call may take. What is allowed and might wait is never attempted, so only a broken sandbox waits.
const CALL_WAIT: Duration = Duration::from_secs(10);

/// The most calls that are recorded in one session: fewer than wait for the journal's writer at most, so that none is held
/// back however slow the disk is.
pub(super) const RECORDED_MAX: usize = 512;

/// The most calls that are on their way at once: their frames and their replies each fit a pipe, which has 16 pages at
/// least (pipe(7)) and never gives a page to more than one writer's frame where it will not.
pub(super) const BATCH_MAX: usize = 16;

/// What a session is started with.
pub(super) struct Setup<'a> {
    /// `--policy`.
    pub(super) policy: Option<&'a Path>,
    pub(super) subject: &'a str,
    /// The host's own addresses.
    pub(super) own: &'a [IpAddr],
    /// Ports that somebody listens on, so that what arrives is seen.
    pub(super) ports: &'a [(Protocol, u16)],
    /// Name servers that the proof answers for.
    pub(super) servers: &'a [SocketAddr],
    /// Whether the probe may not hear or speak, and so ends at once.
    pub(super) mute: bool,
    pub(super) tamper: &'a dyn Tamper,
}

/// A running one.
pub(super) struct Live {
    child: Child,
    to: Option<OwnedFd>,
    from: OwnedFd,
    control: PacketSocket,
    scratch: Scratch,
    subject: String,
    /// Its name, as records have it.
    pub(super) session: String,
    /// One for each of the setup's ports, and then for each of its name servers.
    pub(super) sinks: Vec<OwnedFd>,
    /// The probe's Unix socket, once it has one.
    socket: Option<i64>,
    /// Whether a key lies in the session keyring that the session was started with.
    pub(super) keyed: bool,
    /// Readable once somebody wants an end.
    notice: OwnedFd,
    /// [`START_WAIT`], but where a test waits less.
    patience: Duration,
}

/// Why the probe says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// It ended.
    Ended,
    /// The call did not return.
    Waits,
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ended => "the probe ended at the call",
            Self::Waits => "the call did not return",
        })
    }
}

impl Live {
    /// Starts a session of the subject's and waits for the probe's first word.
    pub(super) fn start(setup: &Setup<'_>, state: &Path) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            let errno = error.raw_os_error();
            let failure = Failure::internal(format!("cannot start a proof: {error}"));
            failure.of_machine_or_limit(errno)
        };
        let notice = interrupt::notice().map_err(failed)?;
        if readable(&notice, Instant::now()) {
            return Err(interrupted());
        }
        let scratch = Scratch::new(state)?;
        let pair = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|error| failed(error.into()));
        let ((stdin, to), (from, stdout)) = (pair()?, pair()?);
        let (control, other) = PacketSocket::pair().map_err(|error| failed(error.into()))?;
        let parent = rustix::process::getpid();
        let child = match clone(CloneFlags::NONE).map_err(failed)? {
            Fork::Child => {
                drop((to, from, control));
                let _ = interrupt::as_before();
                let code = match inside(setup, &scratch, &other, &stdin, &stdout, parent) {
                    Ok(code) => code,
                    Err(failure) => {
                        tell(&other, &failure);
                        failure.exit.code()
                    }
                };
                exit_now(code.into())
            }
            Fork::Parent(child) => child,
        };
        drop((stdin, stdout, other));
        let mut live = Self {
            child,
            to: Some(to),
            from,
            control,
            scratch,
            subject: setup.subject.to_owned(),
            session: String::new(),
            sinks: Vec::new(),
            socket: None,
            keyed: false,
            notice,
            patience: setup.tamper.patience(),
        };
        live.greet(setup)?;
        Ok(live)
    }

    fn greet(&mut self, setup: &Setup<'_>) -> Result<(), Failure> {
        let sinks = setup.ports.len().saturating_add(setup.servers.len());
        if setup.mute {
            // One that is not refused what it should be ends here too.
            drop(self.to.take());
        }
        self.patient(&self.from, "begin")?;
        let mut hello = self.hear(self.patience);
        if setup.mute {
            // It ends at the call that it may not make, before or after its first word.
            while hello.is_ok() {
                hello = self.hear(self.patience);
            }
            hello = match hello {
                Err(Lost::Ended) => Ok(Reply {
                    value: HELLO.cast_signed(),
                    data: Vec::new(),
                }),
                other => other,
            };
        }
        while let Ok(packet) = self.control.try_receive() {
            match packet.bytes().split_first() {
                Some((b'S', session)) => self.session = String::from_utf8_lossy(session).into_owned(),
                Some((b'K', _)) => self.keyed = true,
                Some((b'L', _)) => self.sinks.extend(packet.descriptors),
                Some((b'F', words)) => return Err(heard(words)),
                _ => break,
            }
        }
        let version = hello.map(|reply| reply.value.cast_unsigned());
        if version != Ok(HELLO) || self.session.is_empty() || self.sinks.len() != sinks {
            return Err(Failure::internal(format!(
                "the probe did not begin: {}",
                version.err().unwrap_or(Lost::Ended)
            )));
        }
        Ok(())
    }

    /// Where the session's entry is.
    pub(super) fn runtime(&self) -> PathBuf {
        runtime(&self.scratch)
    }

    /// The process that the session was started by.
    pub(super) fn front(&self) -> i32 {
        self.child.pid
    }

    /// A Unix socket of the probe's, of these arguments, made where there is none yet; or the errno.
    pub(super) fn unix_socket(&mut self, args: [u64; 6]) -> Result<i64, Lost> {
        if let Some(socket) = self.socket {
            return Ok(socket);
        }
        let number = syscall::number("socket").unwrap_or(u32::MAX);
        let frame = Frame {
            number: number.into(),
            args,
            ..Frame::default()
        };
        let made = self.call(&frame)?.value;
        self.socket = Some(made).filter(|socket| *socket >= 0);
        Ok(made)
    }

    /// Where calls are written to; nowhere once somebody wants an end.
    fn to(&self) -> Result<&OwnedFd, Lost> {
        let to = self.to.as_ref().ok_or(Lost::Ended)?;
        if readable(&self.notice, Instant::now()) {
            return Err(Lost::Ended);
        }
        Ok(to)
    }

    /// Makes one call in the sandbox.
    pub(super) fn call(&mut self, frame: &Frame<'_>) -> Result<Reply, Lost> {
        let to = self.to()?;
        // Shorter than PIPE_BUF, and the probe has read the one before: written whole.
        match rustix::io::write(to, &frame.encode()) {
            Ok(FRAME_BYTES) => self.hear(CALL_WAIT),
            _ => Err(Lost::Ended),
        }
    }

    /// Makes one call, and meanwhile does what these want to have done whenever there is something to read from one of them.
    pub(super) fn call_beside(
        &mut self,
        frame: &Frame<'_>,
        others: &[usize],
        mut work: impl FnMut(&OwnedFd),
    ) -> Result<Reply, Lost> {
        let to = self.to()?;
        if rustix::io::write(to, &frame.encode()) != Ok(FRAME_BYTES) {
            return Err(Lost::Ended);
        }
        let until = Instant::now() + CALL_WAIT;
        let others: Vec<&OwnedFd> = others.iter().filter_map(|index| self.sinks.get(*index)).collect();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Lost::Waits);
            }
            let mut fds = vec![PollFd::new(&self.from, PollFlags::IN)];
            fds.extend(others.iter().map(|other| PollFd::new(*other, PollFlags::IN)));
            fds.push(PollFd::new(&self.notice, PollFlags::IN));
            match poll(&mut fds, Some(&Timespec::try_from(left).unwrap_or_default())) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Err(Lost::Ended),
            }
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            for (other, _) in others.iter().zip(ready.iter().skip(1)).filter(|(_, ready)| **ready) {
                work(other);
            }
            if ready.last().is_some_and(|wanted| *wanted) {
                return Err(Lost::Ended);
            }
            if ready.first().is_some_and(|heard| *heard) {
                return self.hear(CALL_WAIT);
            }
        }
    }

    /// Makes several calls, one after another, and gives what each returned; at most [`BATCH_MAX`]. Faster than one by one:
    /// the probe goes from one to the next without waiting to be told.
    pub(super) fn calls(&mut self, frames: &[Frame<'_>]) -> Result<Vec<Reply>, Lost> {
        let to = self.to()?;
        let frames = frames.get(..frames.len().min(BATCH_MAX)).unwrap_or_default();
        for frame in frames {
            if rustix::io::write(to, &frame.encode()) != Ok(FRAME_BYTES) {
                return Err(Lost::Ended);
            }
        }
        frames.iter().map(|_| self.hear(CALL_WAIT)).collect()
    }

    /// Waits for what the session does, and says so where it takes long.
    fn patient(&self, fd: &OwnedFd, what: &str) -> Result<(), Failure> {
        let began = Instant::now();
        if self.comes(fd, began + SILENT_WAIT) {
            return Ok(());
        }
        if readable(&self.notice, Instant::now()) {
            return Err(interrupted());
        }
        let place = plain(&self.scratch.state().to_string_lossy());
        let seconds = self.patience.as_secs();
        // Who closed stderr does not want to know.
        let _ = writeln!(
            std::io::stderr(),
            "nx: the proof's session does not {what} yet: waiting up to {seconds} s for its file server and its journal in `{place}`"
        );
        if self.comes(fd, began + self.patience) {
            return Ok(());
        }
        if readable(&self.notice, Instant::now()) {
            return Err(interrupted());
        }
        let why = format!(
            "the proof's session did not {what} within {seconds} s: its file server or its journal in `{place}` hangs"
        );
        Err(Failure::new(Exit::Missing, why)
            .with_help("see whether that file system answers, and whether something stops processes of nx's"))
    }

    /// Waits until there is something to read, or an end is seen; not once somebody wants an end.
    fn comes(&self, fd: &OwnedFd, until: Instant) -> bool {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).unwrap_or_default();
            let mut both = [PollFd::new(fd, PollFlags::IN), PollFd::new(&self.notice, PollFlags::IN)];
            match poll(&mut both, Some(&timeout)) {
                Ok(0) => return false,
                Ok(_) => {
                    let [_, notice] = both;
                    return notice.revents().is_empty();
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }

    fn hear(&self, wait: Duration) -> Result<Reply, Lost> {
        let until = Instant::now() + wait;
        let mut bytes = [0_u8; FRAME_BYTES];
        let mut length = 0;
        while let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty()) {
            if !self.comes(&self.from, until) {
                return Err(Lost::Waits);
            }
            match rustix::io::read(&self.from, rest) {
                Ok(0) => return Err(Lost::Ended),
                Ok(count) => length += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Err(Lost::Ended),
            }
        }
        Ok(Reply::decode(&bytes))
    }

    /// Ends the session, so that everything is written down, and takes what was.
    pub(super) fn finish(mut self, tamper: &dyn Tamper) -> Result<Evidence, Failure> {
        drop(self.to.take());
        self.patient(&self.child.pidfd, "end")?;
        if let Ok(packet) = self.control.try_receive()
            && let Some((b'F', words)) = packet.bytes().split_first()
        {
            return Err(heard(words));
        }
        tamper.over(self.scratch.state());
        let mut evidence = Evidence::read(&self.scratch.journal(), &self.subject, &self.session)?;
        // It is collected when this is dropped.
        let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        let ended = rustix::process::waitid(rustix::process::WaitId::PidFd(self.child.pidfd.as_fd()), options);
        evidence.status = ended.ok().flatten().and_then(|ended| ended.exit_status());
        Ok(evidence)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // The probe ends with what it reads, and everything of the session in order after it.
        drop(self.to.take());
        let has_begun = !self.session.is_empty();
        let wait = if has_begun { END_WAIT } else { Duration::ZERO };
        if !readable(&self.child.pidfd, Instant::now() + wait) {
            // Everything of the session ends with it, each a moment later.
            let _ = rustix::process::pidfd_send_signal(&self.child.pidfd, rustix::process::Signal::KILL);
            self.scratch.killed();
        }
        let _ = rustix::process::waitid(
            rustix::process::WaitId::PidFd(self.child.pidfd.as_fd()),
            rustix::process::WaitIdOptions::EXITED,
        );
    }
}

/// Waits until there is something to read, or an end is seen.
pub(super) fn readable(fd: impl AsFd, until: Instant) -> bool {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or_default();
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
            Ok(count) => return count > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// Nobody is told: the command ends by the signal.
fn interrupted() -> Failure {
    Failure::internal("the proof was given up: somebody asked for an end".into())
}

fn tell(control: &PacketSocket, failure: &Failure) {
    let help = failure.help.as_deref().unwrap_or_default();
    let mut words = vec![b'F', failure.exit.code()];
    words.extend(failure.message.as_bytes());
    words.push(0);
    words.extend(help.as_bytes());
    words.truncate(nexus_wire::packet::PACKET_BYTES_MAX);
    // Nobody is left to be told if this fails.
    let _ = control.send(&words, &[]);
}

fn heard(words: &[u8]) -> Failure {
    let (code, text) = words.split_first().map_or((0, &[][..]), |(code, text)| (*code, text));
    let mut parts = text.splitn(2, |byte| *byte == 0).map(String::from_utf8_lossy);
    let known = [
        Exit::Usage,
        Exit::Rejected,
        Exit::Missing,
        Exit::Unsupported,
        Exit::Internal,
        Exit::NotExecutable,
        Exit::NotFound,
    ];
    let exit = known
        .into_iter()
        .find(|exit| exit.code() == code)
        .unwrap_or(Exit::Internal);
    let message = parts.next().unwrap_or_default().into_owned();
    // The probe needs no other file: what cannot execute it is the file system that the state directory lies on.
    let failure = match exit {
        Exit::NotExecutable | Exit::NotFound => {
            return Failure::unsupported(
                format!("the probe cannot be executed: {message}"),
                "programs must be allowed where the state directory lies: not a file system mounted `noexec`",
            );
        }
        _ => Failure::new(exit, message),
    };
    match parts.next().filter(|help| !help.is_empty()) {
        Some(help) => failure.with_help(help),
        None => failure,
    }
}

/// The child: becomes the first process of a session, as `nx run` would be.
fn inside(
    setup: &Setup<'_>,
    scratch: &Scratch,
    control: &PacketSocket,
    stdin: &OwnedFd,
    stdout: &OwnedFd,
    parent: rustix::process::Pid,
) -> Result<u8, Failure> {
    let failed = |error: rustix::io::Errno| Failure::internal(format!("cannot prepare a proof: {error}"));
    let die_with_parent = || {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).map_err(failed)?;
        // It may have gone before it was watched.
        if rustix::process::getppid() == Some(parent) {
            Ok(())
        } else {
            Err(Failure::internal("the proof was given up".into()))
        }
    };
    die_with_parent()?;
    // No key of the terminal is for the probe.
    rustix::process::setsid().map_err(failed)?;
    rustix::stdio::dup2_stdin(stdin).map_err(failed)?;
    rustix::stdio::dup2_stdout(stdout).map_err(failed)?;
    rustix::stdio::dup2_stderr(scratch.handed_in().map_err(failed)?).map_err(failed)?;
    // The caller's directory is not handed to the probe.
    rustix::process::chdir("/").map_err(failed)?;
    let args = RunArgs {
        policy: setup.policy.map(Path::to_owned),
        work: None,
        quiet: true,
        watch: false,
        json: false,
        status_fd: None,
        print_plan: false,
        subject: setup.subject.to_owned(),
        command: vec![PROBE.into()],
    };
    prove(&args, |prepared| {
        let Prepared {
            session,
            places,
            plan,
            judges,
        } = prepared;
        *places = of_proof(places, scratch);
        // Every record of a proof counts; a flood cannot come of it, the proof being bounded itself.
        let rules = Arc::make_mut(&mut session.rules);
        rules.audit.rate = u64::MAX;
        rules.audit.burst = u64::MAX;
        plan.view.push(Entry::Bind {
            source: scratch.probe(),
            at: PathBuf::from(PROBE),
            access: Access::ReadOnly,
        });
        let keyed = fences::hand_in_a_key(setup.subject);
        setup.tamper.decided(plan, judges, Arc::make_mut(&mut session.rules));
        let sinks = network::enter(setup.own, setup.ports, setup.servers)?;
        die_with_parent()?;
        let mut said = vec![b'S'];
        said.extend(session.id.as_bytes());
        control.send(&said, &[]).map_err(failed)?;
        if keyed {
            control.send(b"K", &[]).map_err(failed)?;
        }
        for some in sinks.chunks(PACKET_DESCRIPTORS_MAX) {
            let some: Vec<_> = some.iter().map(AsFd::as_fd).collect();
            control.send(b"L", &some).map_err(failed)?;
        }
        Ok(())
    })
}

fn of_proof(places: &Places, scratch: &Scratch) -> Places {
    Places {
        state: scratch.state().to_owned(),
        runtime: runtime(scratch),
        home: places.home.clone(),
    }
}

fn runtime(scratch: &Scratch) -> PathBuf {
    scratch.state().join("run")
}
