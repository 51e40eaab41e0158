//! A session's wish for a work directory, until it is served.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, mpsc};

use nexus_quota::Amount;
use nexus_wire::vfs::HELD_NAMES_MAX;
use rustix::io::Errno;

use super::mount::Mounts;
use crate::fs::Zone;
use crate::fs::events::EventQueue;
use crate::fs::works::{HeldName, Works, is_directory};
use crate::layout::measure_shared;

/// Why a directory is not served: what was tried, and what the kernel said.
pub(super) type Refused = (&'static str, Errno);

/// What a session asked for before its Hello.
#[derive(Debug)]
pub(super) struct Wish {
    directory: OwnedFd,
    held: Vec<HeldName>,
}

/// Whether it is one part of a path, and leads nowhere else.
pub(super) fn is_plain_name(name: &[u8]) -> bool {
    !name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/')
}

/// A wish whose directory is being measured.
#[derive(Debug)]
pub(super) struct Measuring {
    wish: Wish,
    result: Receiver<Result<Amount, Errno>>,
}

/// What came of a wish.
#[derive(Debug)]
pub(super) enum Granted {
    Now(Zone),
    Later(Measuring),
}

impl Wish {
    pub(super) const fn new(directory: OwnedFd) -> Self {
        Self {
            directory,
            held: Vec::new(),
        }
    }

    /// One more name; false if there are too many, or it is none.
    pub(super) fn hold(&mut self, parent: u32, name: &[u8]) -> bool {
        match CString::new(name) {
            Ok(name) if is_plain_name(name.as_bytes()) && self.held.len() < HELD_NAMES_MAX => {
                self.held.push(HeldName { parent, name });
                true
            }
            _ => false,
        }
    }

    /// Serves the directory if it is served already; measures it otherwise, which may take seconds and is not this
    /// thread's to wait for.
    pub(super) fn grant(self, works: &Works, mounts: &Mounts, wake: &Arc<EventQueue>) -> Result<Granted, Refused> {
        // Before anything is asked of it: that would be asked of us.
        match mounts.are_of(self.directory.as_fd()) {
            Ok(false) => {}
            Ok(true) => return Err(("it lies in an area of this very subject", Errno::XDEV)),
            Err(errno) => return Err(("looking at it", errno)),
        }
        is_directory(&self.directory).map_err(|errno| ("looking at it", errno))?;
        let known = works
            .zone_of(self.directory.as_fd())
            .map_err(|errno| ("looking at it", errno))?;
        if let Some(zone) = known {
            return self.hold_in(works, zone).map(Granted::Now);
        }
        if !works.has_room() {
            return Err(("the subject's sessions have too many already", Errno::NFILE));
        }
        let failed = |error: std::io::Error| ("measuring it", super::drop::errno_of(error));
        let directory = self.directory.try_clone().map_err(failed)?;
        let (tell, result): (mpsc::Sender<Result<Amount, Errno>>, _) = channel();
        let wake = Arc::clone(wake);
        std::thread::Builder::new()
            .name("vfsd-measure".to_owned())
            .spawn(move || {
                // A session that is gone by now hears nothing.
                let _ = tell.send(measure_shared(directory.as_fd()));
                wake.wake();
            })
            .map_err(failed)?;
        Ok(Granted::Later(Measuring { wish: self, result }))
    }

    fn hold_in(&self, works: &Works, zone: Zone) -> Result<Zone, Refused> {
        works
            .hold(zone, &self.held)
            .map_err(|errno| ("holding what is protected in it", errno))?;
        Ok(zone)
    }
}

impl Measuring {
    /// What came of it, once it did.
    pub(super) fn finish(&self, works: &Works) -> Option<Result<Zone, Refused>> {
        let start = match self.result.try_recv() {
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => Err(Errno::IO),
            Ok(result) => result,
        };
        let what = |errno| match errno {
            Errno::XDEV => "something is mounted inside it",
            _ => "measuring it",
        };
        let zone = start
            .map_err(|errno| (what(errno), errno))
            .and_then(|start| {
                works
                    .add(self.wish.directory.as_fd(), start)
                    .map_err(|errno| ("serving it", errno))
            })
            .and_then(|zone| self.wish.hold_in(works, zone));
        Some(zone)
    }
}
