//! The whole screen of a terminal, given back whatever happens.

mod guardian;

use guardian::Guardian;
use nexus_sys::signal::{SignalSet, descriptor, set_default, set_mask, take};
use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_current_process_group, kill_process};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, Once, PoisonError};

/// The alternate screen, without a cursor. xterm's control sequences, "The Alternate Screen Buffer".
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[2J";
/// Colours as they were, the cursor back, and the screen that was there before.
const LEAVE: &[u8] = b"\x1b[0m\x1b[?25h\x1b[?1049l";

/// What ends a view, stops it, wakes it, or says that its window changed: every signal that would end or stop a process whose
/// default it is, but for the faults of a program's own and for reading or writing in the background. signal(7).
const TAKEN: [Signal; 18] = [
    Signal::TERM,
    Signal::INT,
    Signal::HUP,
    Signal::QUIT,
    Signal::ABORT,
    Signal::ALARM,
    Signal::VTALARM,
    Signal::PROF,
    Signal::USR1,
    Signal::USR2,
    Signal::XCPU,
    Signal::XFSZ,
    Signal::IO,
    Signal::POWER,
    Signal::TRAP,
    Signal::TSTP,
    Signal::CONT,
    Signal::WINCH,
];

/// The terminal as it was; `None` while it is as it was. For whoever gives it back, also in the middle of a panic.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Who gives the terminal back where this process can not; there as long as a [`Screen`] is.
static GUARDIAN: Mutex<Option<Guardian>> = Mutex::new(None);

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// To end as by this signal.
    End(Signal),
    /// To stop until somebody continues it.
    Stop,
    /// To take the screen over again: it was stopped without having been asked.
    Continued,
    /// To draw again: the window has another size.
    Resized,
}

/// The screen, taken over until this is dropped.
#[derive(Debug)]
pub(crate) struct Screen {
    signals: OwnedFd,
    set: SignalSet,
    mask_before: SignalSet,
}

/// Whether there is a screen to take over.
pub(crate) fn is_there() -> bool {
    let is_dumb = std::env::var_os("TERM").is_some_and(|kind| kind == "dumb");
    io::stdin().is_terminal() && io::stdout().is_terminal() && !is_dumb
}

impl Screen {
    /// Takes the screen over. The process must have one thread, whose signals are blocked from here on.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn enter() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                // First, so that what is said is seen: it would go with the other screen.
                give_back();
                before(panic);
            }));
        });
        let set = TAKEN
            .iter()
            .fold(SignalSet::empty(), |set, signal| set.with(signal.as_raw()));
        let mask_before = set_mask(&set)?;
        let screen = Self {
            signals: descriptor(&set)?,
            set,
            mask_before,
        };
        // A test's process has more threads than one, and cannot fork; the view with its guardian is seen from outside.
        if !cfg!(test) {
            *GUARDIAN.lock().unwrap_or_else(PoisonError::into_inner) = Some(Guardian::start()?);
        }
        take_over()?;
        Ok(screen)
    }

    /// What came since the last look, the most serious first.
    pub(crate) fn asked(&self) -> Option<Asked> {
        let mut asked = None;
        while let Some(signal) = take(&self.set) {
            let new = match Signal::from_named_raw(signal.number) {
                Some(Signal::WINCH) => Asked::Resized,
                Some(Signal::TSTP) => Asked::Stop,
                Some(Signal::CONT) => Asked::Continued,
                Some(signal) => return Some(Asked::End(signal)),
                None => continue,
            };
            // In this order: a stop gives everything back, and what is taken over again is drawn anew.
            if !matches!(
                (asked, new),
                (Some(Asked::Stop), _) | (Some(Asked::Continued), Asked::Resized)
            ) {
                asked = Some(new);
            }
        }
        asked
    }

    /// Stops this job as a terminal's key does, with the screen given back, until it is continued.
    ///
    /// # Errors
    /// What the kernel says when the screen is taken over again.
    pub(crate) fn stop(&self) -> io::Result<()> {
        give_back();
        // The others of this job, such as the shell of a script. Our own is blocked, and must not be found afterwards.
        let _ = kill_current_process_group(Signal::TSTP);
        while take(&self.set).is_some_and(|taken| taken.number != Signal::TSTP.as_raw()) {}
        kill_process(getpid(), Signal::STOP)?;
        take_over()
    }

    /// Takes the screen over once more, after a stop that nobody could give it back before (`SIGSTOP`): the shell may have set
    /// the terminal otherwise since.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn again(&self) -> io::Result<()> {
        let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(mut raw) = before else { return Ok(()) };
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        write_all(ENTER)?;
        Ok(())
    }

    /// Ends this process by this signal, with the screen given back.
    pub(crate) fn end_by(self, signal: Signal) -> u8 {
        drop(self);
        set_default(signal.as_raw());
        let _ = kill_process(getpid(), signal);
        // The mask is as it was before: where the signal was blocked then, what a shell would say has to do.
        u8::try_from(128 + signal.as_raw()).unwrap_or(u8::MAX)
    }
}

impl AsFd for Screen {
    /// Readable when [`Screen::asked`] has something to say.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
        drop(GUARDIAN.lock().unwrap_or_else(PoisonError::into_inner).take());
        let _ = set_mask(&self.mask_before);
    }
}

fn take_over() -> io::Result<()> {
    let stdin = io::stdin();
    let now = tcgetattr(&stdin)?;
    let mut raw = now.clone();
    raw.make_raw();
    if let Some(guardian) = &mut *GUARDIAN.lock().unwrap_or_else(PoisonError::into_inner) {
        guardian.remember()?;
    }
    // Before it is changed, so that it can be given back from here on.
    *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    tcsetattr(&stdin, OptionalActions::Now, &raw)?;
    write_all(ENTER)?;
    Ok(())
}

/// Once for each time that it was taken over; nothing where it was not.
fn give_back() {
    let Some(before) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() else {
        return;
    };
    // A terminal that has gone away needs neither. Not through `stdout`, whose lock a panic may be inside of.
    let _ = write_all(LEAVE);
    let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
    if let Some(guardian) = &mut *GUARDIAN.lock().unwrap_or_else(PoisonError::into_inner) {
        guardian.forget();
    }
}

fn write_all(mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(rustix::stdio::stdout(), bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => bytes = bytes.get(written..).unwrap_or(&[]),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::LocalModes;
    use std::process::{Command, Stdio};

    const CHILD: &str = "NEXUS_TEST_SCREEN";

    #[test]
    #[ignore = "run by another test as a process of its own, with a terminal"]
    fn child_that_panics_with_the_screen_taken_over() {
        if std::env::var_os(CHILD).is_some() {
            let _screen = Screen::enter().unwrap();
            assert_eq!(1 + 1, 3, "as it must");
        }
    }

    #[test]
    fn a_panic_gives_the_screen_back_before_it_says_anything() {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).unwrap();
        let before = tcgetattr(&slave).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap());
        child
            .args([
                "--exact",
                "screen::tests::child_that_panics_with_the_screen_taken_over",
                "--ignored",
                "--nocapture",
            ])
            .env(CHILD, "1")
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::from(slave.try_clone().unwrap()))
            .stdout(Stdio::from(slave.try_clone().unwrap()))
            .stderr(Stdio::from(slave.try_clone().unwrap()));
        let mut child = child.spawn().unwrap();
        let mut said = Vec::new();
        let mut bytes = [0; 4096];
        // Read while it runs: a terminal holds only so much.
        while !String::from_utf8_lossy(&said).contains("test result") {
            let count = rustix::io::read(&master, &mut bytes).unwrap();
            said.extend_from_slice(&bytes[..count]);
        }
        assert!(!child.wait().unwrap().success());
        let said = String::from_utf8_lossy(&said).into_owned();
        let at = |text: &str| {
            said.find(text)
                .unwrap_or_else(|| unreachable!("{text:?} is in {said:?}"))
        };
        assert!(at("\x1b[?1049h") < at("\x1b[?1049l"));
        assert!(at("\x1b[?1049l") < at("as it must"), "{said:?}");
        let after = tcgetattr(&slave).unwrap();
        assert_eq!(after.local_modes, before.local_modes);
        assert!(
            after
                .local_modes
                .contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
        );
        assert_eq!(
            (after.input_modes, after.output_modes),
            (before.input_modes, before.output_modes)
        );
    }
}
