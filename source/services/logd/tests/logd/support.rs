//! A journal in a directory of its own, a clock that is set by hand, and children made of this very binary.

use logd::{Appended, Clock, Journal, JournalError, JournalLimits, load_key};
use nexus_abi::{Errno, Operation, Reason};
use nexus_audit::{Judgement, Record, UnixMillis};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Every look is a microsecond later: the same times in every run.
#[derive(Default)]
pub(crate) struct Ticks(AtomicU64);

impl Clock for Ticks {
    fn mono_ns(&self) -> u64 {
        self.0.fetch_add(1000, Ordering::Relaxed)
    }
    fn time(&self) -> UnixMillis {
        UnixMillis::new(1_795_294_791_000 + self.0.load(Ordering::Relaxed) / 1_000_000)
    }
}

pub(crate) fn clock() -> Arc<dyn Clock> {
    Arc::new(Ticks::default())
}

pub(crate) const SMALL: JournalLimits = JournalLimits {
    file_bytes_max: 64 * 1024,
    files_max: 3,
};

pub(crate) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// The journal's directory.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("audit")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn open(&self) -> Journal {
        self.open_with(JournalLimits::DEFAULT)
    }

    pub(crate) fn open_with(&self, limits: JournalLimits) -> Journal {
        open_at(&self.path(), limits)
    }

    /// What all the files take, the lock and the key left out.
    pub(crate) fn bytes(&self) -> u64 {
        let entries = std::fs::read_dir(self.path()).unwrap().map(Result::unwrap);
        let journal = entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(".jsonl"));
        journal.map(|entry| entry.metadata().unwrap().len()).sum()
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        let all = logd::read(&self.path(), logd::Filter::default()).unwrap();
        all.map(|entry| entry.unwrap().record).collect()
    }
}

pub(crate) fn open_at(path: &Path, limits: JournalLimits) -> Journal {
    let key = load_key(path).unwrap();
    Journal::open(path, limits, key, clock()).unwrap()
}

/// Appends beside another writer, again where it holds the lock for longer than anybody waits for it: it may get no processor.
pub(crate) fn append_beside(journal: &mut Journal, records: &[Record]) -> Appended {
    loop {
        match journal.append(records) {
            Ok(appended) => return appended,
            Err(failed) => assert!(
                failed.records == 0 && matches!(failed.error, JournalError::Busy { .. }),
                "{failed}"
            ),
        }
    }
}

pub(crate) fn record(object: &str) -> Record {
    Record {
        mono_ns: 1,
        time: UnixMillis::new(1_795_294_791_123),
        subject: Arc::from("demo"),
        session: Arc::from("demo-7"),
        op: Operation::Connect,
        object: Arc::from(object),
        verdict: Judgement::Deny(Errno::EPERM),
        reason: Reason::EgressNoRule,
        rule: None,
        at: None,
        policy: Arc::from("ab12"),
        suppressed: 0,
    }
}

pub(crate) fn batch(from: usize, count: usize) -> Vec<Record> {
    (from..from + count)
        .map(|n| record(&format!("tcp 203.0.113.7:{n}")))
        .collect()
}

/// A process that runs one ignored test of this binary; killed and waited for also where the parent panics.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(test: &str, path: &Path, number: usize) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--ignored", "--nocapture"]);
        Self::start_command(command, path, number)
    }

    pub(crate) fn start_command(mut command: Command, path: &Path, number: usize) -> Self {
        command
            .env("NEXUS_TEST_JOURNAL", path)
            .env("NEXUS_TEST_NUMBER", number.to_string());
        Self(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Lines of the child that start with this word, without it.
    pub(crate) fn lines(&mut self, word: &'static str) -> impl Iterator<Item = String> + use<> {
        let out = BufReader::new(self.0.stdout.take().unwrap());
        out.lines()
            .map(Result::unwrap)
            .filter_map(move |line| line.strip_prefix(word).map(str::to_owned))
    }

    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    pub(crate) fn succeeded(&mut self) -> bool {
        self.0.wait().unwrap().success()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// In a child: the journal's place and the number that the parent gave. `None` where somebody runs ignored tests by hand.
pub(crate) fn child() -> Option<(PathBuf, usize)> {
    let path = std::env::var_os("NEXUS_TEST_JOURNAL")?;
    Some((path.into(), std::env::var("NEXUS_TEST_NUMBER").ok()?.parse().ok()?))
}
