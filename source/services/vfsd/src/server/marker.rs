//! Lines that say what was seen to happen, for whoever waits for them: without time or number, each once.

use std::cell::Cell;
use std::os::fd::OwnedFd;

use nexus_abi::{Area, Reason};
use nexus_wire::vfs::{Budgets, SubjectName};

/// Where markers go, and which were said. A subject's first in the life of its file server.
#[derive(Debug)]
pub(crate) struct Markers {
    sink: Option<OwnedFd>,
    subject: String,
    set: Cell<bool>,
    denied: Cell<bool>,
}

impl Markers {
    pub(crate) fn new(sink: Option<OwnedFd>, subject: &SubjectName) -> Self {
        Self {
            sink,
            subject: String::from_utf8_lossy(subject.as_bytes()).into_owned(),
            set: Cell::new(false),
            denied: Cell::new(false),
        }
    }

    /// The budgets are in force and a session has its areas.
    pub(crate) fn quota_set(&self, budgets: &Budgets) {
        if !self.set.replace(true) {
            let (tmp, state) = (budgets.tmp.hard_bytes, budgets.state.hard_bytes);
            let subject = &self.subject;
            self.say(&format!(
                "vfsd: quota set (subject={subject} tmp={tmp} state={state})\n"
            ));
        }
    }

    /// Something was denied. A warning is none.
    pub(crate) fn quota_deny(&self, area: Area, reason: Reason) {
        if reason != Reason::QuotaSoftBytes && !self.denied.replace(true) {
            let subject = &self.subject;
            self.say(&format!(
                "vfsd: quota deny (subject={subject} area={area} reason={reason})\n"
            ));
        }
    }

    fn say(&self, line: &str) {
        if let Some(sink) = &self.sink {
            // One write, so that no other's line tears it. Who does not listen misses it.
            let _ = rustix::io::write(sink, line.as_bytes());
        }
    }
}
