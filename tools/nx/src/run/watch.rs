//! `--watch`: each deny is told as it happens, by somebody for whom nobody waits.
//!
//! The program may hold up the terminal that it is told on. So whoever writes the journal hands a record on and goes back to
//! the journal.

use super::summary;
use logd::Sink;
use nexus_audit::Record;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// The most records that wait to be told: what a reader could not follow anyway.
const WAITING_MAX: usize = 1024;

/// Who tells, until the records end.
pub(crate) struct Watch {
    teller: JoinHandle<()>,
    dropped: Arc<AtomicU64>,
}

/// The journal's end of it.
struct Told {
    records: SyncSender<Record>,
    dropped: Arc<AtomicU64>,
}

impl Watch {
    /// Begins, and gives what the recorder shows its records to.
    ///
    /// # Errors
    /// There is no thread for it.
    pub(crate) fn start(mut tell: impl FnMut(&Record) + Send + 'static) -> std::io::Result<(Self, Box<dyn Sink>)> {
        let (records, told): (_, Receiver<Record>) = sync_channel(WAITING_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let work = move || told.iter().for_each(|record| tell(&record));
        let teller = std::thread::Builder::new().name("nx-watch".into()).spawn(work)?;
        let sink = Told {
            records,
            dropped: Arc::clone(&dropped),
        };
        Ok((Self { teller, dropped }, Box::new(sink)))
    }

    /// Waits until everything is told. The recorder must have ended.
    pub(crate) fn finish(self) {
        // One that panicked has told what it could.
        let _ = self.teller.join();
        let dropped = self.dropped.load(Ordering::Relaxed);
        if dropped > 0 {
            summary::say(&format!(
                "nx: {dropped} more were not told here in time; the journal has them"
            ));
        }
    }
}

impl Sink for Told {
    fn admitted(&mut self, record: &Record) {
        if self.records.try_send(record.clone()).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nexus_abi::{Errno, Operation, Reason};
    use nexus_audit::Judgement;
    use std::sync::mpsc::channel;

    fn record() -> Record {
        Record {
            mono_ns: 0,
            time: nexus_audit::UnixMillis::new(0),
            subject: "demo".into(),
            session: "0".into(),
            op: Operation::Connect,
            object: "tcp 192.0.2.1:1".into(),
            verdict: Judgement::Deny(Errno::EPERM),
            reason: Reason::EgressNoRule,
            rule: None,
            at: None,
            policy: "".into(),
            suppressed: 0,
        }
    }

    #[test]
    fn a_reader_who_does_not_read_keeps_nobody_waiting_and_the_rest_is_counted() {
        let (release, held) = channel::<()>();
        let (count, counted) = channel();
        let (watch, mut sink) = Watch::start(move |_| {
            let _ = held.recv();
            let _ = count.send(());
        })
        .unwrap();
        // Every one of these would wait for ever, were it told by who hands it on.
        for _ in 0..WAITING_MAX + 500 {
            sink.admitted(&record());
        }
        let dropped = watch.dropped.load(Ordering::Relaxed);
        assert!((499..=500).contains(&dropped), "{dropped}");
        drop((sink, release));
        watch.finish();
        assert_eq!(counted.iter().count() as u64 + dropped, WAITING_MAX as u64 + 500);
    }
}
