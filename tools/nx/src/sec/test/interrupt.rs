//! Ending in the middle of a proof, as a key of the terminal or a signal asks for, with nothing left behind.
//!
//! While a proof runs these signals are blocked, and whatever waits for the session stops waiting once one has come. What is
//! taken down then is what every proof takes down at its end.

use nexus_sys::signal::{SignalSet, descriptor, is_ignored, set_default, set_mask, take};
use rustix::process::{Signal, getpid, kill_process};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

/// What asks a command to end. `SIGKILL` cannot be waited for: what it leaves, the next proof removes.
const ENDING: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];

/// The mask as it was, while a proof runs.
static BEFORE: Mutex<Option<SignalSet>> = Mutex::new(None);

/// The signals that end it, blocked until this is dropped. The process must have one thread.
pub(super) struct Interrupt;

/// Those that are not ignored, as `nohup` has `SIGHUP`: a blocked one is kept for us even then.
fn set() -> SignalSet {
    let heard = ENDING.iter().filter(|signal| !is_ignored(signal.as_raw()));
    heard.fold(SignalSet::empty(), |set, signal| set.with(signal.as_raw()))
}

impl Interrupt {
    pub(super) fn begin() -> io::Result<Self> {
        let before = set_mask(&set())?;
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        Ok(Self)
    }

    /// Ends this process as by the signal that came, if one did; there is nothing left to take down.
    pub(super) fn end(self) -> Option<u8> {
        let number = take(&set())?.number;
        drop(self);
        set_default(number);
        if let Some(signal) = Signal::from_named_raw(number) {
            let _ = kill_process(getpid(), signal);
        }
        // Where it was blocked before, what a shell would say has to do.
        Some(u8::try_from(128 + number).unwrap_or(u8::MAX))
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        let _ = as_before();
    }
}

/// The mask as it was: in a process of the session's, which takes signals as `nx run` does.
pub(super) fn as_before() -> io::Result<()> {
    match *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(before) => set_mask(&before).map(drop),
        None => Ok(()),
    }
}

/// Readable once one has come.
pub(super) fn notice() -> io::Result<OwnedFd> {
    descriptor(&set())
}
