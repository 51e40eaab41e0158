use crate::summary::{Tally, step};
use crate::{AppendError, Clock, Event, Journal, JournalError, Outcome, Sink, Summary};
use nexus_abi::{Operation, Reason};
use nexus_audit::{Admission, Counter, Judgement, OBJECT_BYTES_MAX, RateLimit, RateLimiter, Record, clip};
use nexus_sys::counters::{CounterSlot, CountersError, SharedCounters};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use thiserror::Error;

/// The most records that wait for the writer: at the longest line, 8 MiB.
const QUEUE_RECORDS_MAX: usize = 1024;

/// The most records that the writer appends at once; what waits meanwhile goes into the next batch.
const BATCH_RECORDS_MAX: usize = 128;

/// The most subjects of one recorder: a session has one; what asks for more is a mistake and not counted.
const SUBJECTS_OF_SESSION_MAX: usize = 64;

/// What a recorder starts with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The session's subject, whose counters are there before its program starts.
    pub subject: Arc<str>,
    /// How often a subject is recorded for one reason.
    pub rate: RateLimit,
}

/// Why a recorder cannot start.
#[derive(Debug, Error)]
pub enum RecorderError {
    /// The counters cannot be used.
    #[error(transparent)]
    Counters(#[from] CountersError),
    /// The writer's thread cannot be made.
    #[error("cannot start the journal's writer")]
    Thread(#[source] std::io::Error),
}

/// A session's recorder: owns the journal's writer. [`Recorder::finish`] ends it; dropped, it ends too, without a word.
#[derive(Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<Writer>>,
}

/// What those who judge hold: tells the recorder, from any thread, and never waits for the journal.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    counters: Arc<SharedCounters>,
    front: Mutex<Front>,
    /// The last attempt to write failed.
    failing: AtomicBool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("front", &self.front)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Front {
    slots: BTreeMap<Arc<str>, CounterSlot>,
    limiter: RateLimiter,
    tally: Tally,
    /// `None` once the recorder has ended. In boxes: a queue has all its places from the start, and a session that denies
    /// nothing touches none of them.
    queue: Option<SyncSender<Box<Record>>>,
}

/// What the writer's thread owns, and gives back at its end.
struct Writer {
    journal: Journal,
    sink: Option<Box<dyn Sink>>,
    shared: Arc<Shared>,
    written: u64,
    errors: u64,
    first_error: Option<String>,
}

impl Recorder {
    /// Starts the writer, over an open journal and open counters.
    ///
    /// # Errors
    /// [`RecorderError`]: the subject's counters or the thread cannot be had.
    pub fn start(
        settings: Settings,
        journal: Journal,
        counters: Arc<SharedCounters>,
        clock: Arc<dyn Clock>,
        sink: Option<Box<dyn Sink>>,
    ) -> Result<Self, RecorderError> {
        let slot = counters.slot(&settings.subject)?;
        let (queue, records) = sync_channel(QUEUE_RECORDS_MAX);
        let front = Front {
            slots: BTreeMap::from([(settings.subject, slot)]),
            limiter: RateLimiter::new(settings.rate),
            tally: Tally::default(),
            queue: Some(queue),
        };
        let shared = Arc::new(Shared {
            clock,
            counters,
            front: Mutex::new(front),
            failing: AtomicBool::new(false),
        });
        let mut writer = Writer {
            journal,
            sink,
            shared: Arc::clone(&shared),
            written: 0,
            errors: 0,
            first_error: None,
        };
        let thread = std::thread::Builder::new().name("nx-journal".to_owned());
        let run = move || {
            writer.run(&records);
            writer
        };
        let writer = thread.spawn(run).map_err(RecorderError::Thread)?;
        Ok(Self {
            shared,
            writer: Some(writer),
        })
    }

    /// What to tell the recorder with; as many as there are judges.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Ends the recorder: everything that waits is written, what was held back is told of, and the journal is on the
    /// disk. What handles tell afterwards is still counted, and not recorded.
    #[must_use]
    pub fn finish(mut self) -> Summary {
        self.end()
    }

    fn end(&mut self) -> Summary {
        // The writer stops once it has everything and nobody can send any more.
        drop(self.shared.front().queue.take());
        let writer = self.writer.take().and_then(|writer| writer.join().ok());
        let mut summary = self.shared.front().tally.summary();
        if let Some(mut writer) = writer {
            writer.tell_suppressed();
            // A session without a deny has nothing to bring to the disk.
            if writer.written > 0
                && let Err(error) = writer.journal.sync()
            {
                writer.failed(&error);
            }
            summary.written = writer.written;
            summary.journal_errors = writer.errors;
            summary.first_journal_error = writer.first_error;
        }
        summary
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if self.writer.is_some() {
            let _ = self.end();
        }
    }
}

impl Handle {
    /// Tells of one judgement. Steps the exact counter at once; then the rate limit decides whether it is recorded, and
    /// a full queue counts as held back. Costs a lock that nobody holds for long, and no I/O.
    pub fn record(&self, event: Event) {
        let verdict = match event.outcome {
            Outcome::Allow => None,
            Outcome::Deny { reason, errno } => Some((Judgement::Deny(errno), reason)),
            Outcome::Warn { reason } => Some((Judgement::Warn, reason)),
        };
        let counter = match verdict {
            None => Counter::of_allow(event.op),
            Some((verdict, reason)) => Counter::of_record(verdict, reason),
        };
        let mut front = self.shared.front();
        if let Some(counter) = counter {
            front.count(&self.shared.counters, &event.subject, counter);
        }
        let Some((verdict, reason)) = verdict else {
            step(&mut front.tally.allows);
            return;
        };
        let object: Arc<str> = if event.object.len() > OBJECT_BYTES_MAX {
            Arc::from(clip(&event.object, OBJECT_BYTES_MAX))
        } else {
            Arc::from(event.object)
        };
        match verdict {
            Judgement::Deny(_) => front
                .tally
                .deny(reason, event.rule.as_ref(), event.at.as_ref(), &object),
            _ => front.tally.warn(reason),
        }
        let mono_ns = self.shared.clock.mono_ns();
        let Admission::Admit { suppressed_before } = front.limiter.admit(&event.subject, reason, mono_ns) else {
            step(&mut front.tally.suppressed);
            return;
        };
        let record = Box::new(Record {
            mono_ns,
            time: self.shared.clock.time(),
            subject: event.subject,
            session: event.session,
            op: event.op,
            object,
            verdict,
            reason,
            rule: event.rule,
            at: event.at,
            policy: event.policy,
            suppressed: suppressed_before,
        });
        let refused = match &front.queue {
            Some(queue) => match queue.try_send(record) {
                Ok(()) => return,
                Err(TrySendError::Full(record)) => {
                    step(&mut front.tally.queue_full);
                    record
                }
                Err(TrySendError::Disconnected(record)) => record,
            },
            None => record,
        };
        front.not_written(&refused);
    }

    /// Counts what a subject was allowed, `count` times. Nothing is recorded of it; what [`Handle::record`] does with
    /// [`Outcome::Allow`], without an event.
    pub fn allowed(&self, subject: &Arc<str>, op: Operation, count: u64) {
        let Some(counter) = Counter::of_allow(op) else { return };
        let mut front = self.shared.front();
        for _ in 0..count {
            front.count(&self.shared.counters, subject, counter);
            step(&mut front.tally.allows);
        }
    }

    /// Whether the journal could not be written when that was last tried. What then is the policy's to say.
    #[must_use]
    pub fn journal_failing(&self) -> bool {
        self.shared.failing.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn front(&self) -> MutexGuard<'_, Front> {
        // A thread that panicked while it held the lock left counters and buckets that are whole all the same.
        self.front.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Front {
    fn count(&mut self, counters: &SharedCounters, subject: &Arc<str>, counter: Counter) {
        if let Some(slot) = self.slots.get(subject) {
            slot.add(counter.index(), 1);
            return;
        }
        let slot = if self.slots.len() < SUBJECTS_OF_SESSION_MAX {
            counters.slot(subject).ok()
        } else {
            None
        };
        match slot {
            Some(slot) => {
                slot.add(counter.index(), 1);
                self.slots.insert(Arc::clone(subject), slot);
            }
            None => step(&mut self.tally.uncounted),
        }
    }

    /// The record was admitted and is not in the journal: the next one of its kind tells of it.
    fn not_written(&mut self, record: &Record) {
        self.limiter
            .not_written(&record.subject, record.reason, record.suppressed);
        step(&mut self.tally.suppressed);
    }
}

impl Writer {
    /// Until nobody can send any more.
    fn run(&mut self, records: &Receiver<Box<Record>>) {
        let mut batch = Vec::with_capacity(BATCH_RECORDS_MAX);
        while let Ok(first) = records.recv() {
            batch.push(*first);
            while batch.len() < BATCH_RECORDS_MAX
                && let Ok(next) = records.try_recv()
            {
                batch.push(*next);
            }
            self.write(&batch);
            batch.clear();
        }
    }

    fn write(&mut self, batch: &[Record]) {
        if let Some(sink) = &mut self.sink {
            for record in batch {
                sink.admitted(record);
            }
        }
        let (written, failed) = match self.journal.append(batch) {
            Ok(_) => (batch.len(), None),
            Err(AppendError { records, error }) => (records, Some(error)),
        };
        self.written = self.written.saturating_add(u64::try_from(written).unwrap_or(u64::MAX));
        let lost = batch.get(written..).unwrap_or(&[]);
        if !lost.is_empty() {
            let mut front = self.shared.front();
            for record in lost {
                front.not_written(record);
            }
        }
        // Last: who sees that the journal fails must find what it lost given back already, or the next record would
        // not tell of it.
        match failed {
            None => self.shared.failing.store(false, Ordering::Relaxed),
            Some(error) => self.failed(&error),
        }
    }

    /// Writes what no later record will tell of any more.
    fn tell_suppressed(&mut self) {
        let left = self.shared.front().limiter.flush();
        if left.is_empty() {
            return;
        }
        let nobody: Arc<str> = Arc::from("");
        let mut notes = Vec::with_capacity(left.len());
        for suppressed in left {
            let (subject, object) = match suppressed.key {
                Some((subject, reason)) => (subject, Arc::from(reason.as_str())),
                None => (Arc::clone(&nobody), Arc::from("several")),
            };
            notes.push(Record {
                mono_ns: self.shared.clock.mono_ns(),
                time: self.shared.clock.time(),
                subject,
                session: Arc::clone(&nobody),
                op: Operation::Journal,
                object,
                verdict: Judgement::Note,
                reason: Reason::JournalSuppressed,
                rule: None,
                at: None,
                policy: Arc::clone(&nobody),
                suppressed: suppressed.count,
            });
        }
        if let Err(failed) = self.journal.append(&notes) {
            self.failed(&failed.error);
        }
    }

    fn failed(&mut self, error: &JournalError) {
        self.shared.failing.store(true, Ordering::Relaxed);
        step(&mut self.errors);
        if self.first_error.is_none() {
            let cause = std::error::Error::source(error)
                .map(|cause| format!(": {cause}"))
                .unwrap_or_default();
            self.first_error = Some(format!("{error}{cause}"));
        }
    }
}
