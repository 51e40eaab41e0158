//! One run of `nx`.

use std::ffi::OsString;
use std::fmt;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nexus_audit::{Record, read_line};

use crate::{Home, Tree, User, gate, lacking, processes};

/// How long a run may take: many times what any takes, even on a busy machine. Past it, it is killed and the test fails.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How many times longer everything may take here: `$NEXUS_TEST_PATIENCE`, for an emulated processor; else once.
pub(crate) fn patience() -> u32 {
    std::env::var("NEXUS_TEST_PATIENCE")
        .ok()
        .and_then(|times| times.parse().ok())
        .unwrap_or(1)
}

/// The most that a run may print on one stream; the rest is dropped.
const OUTPUT_BYTES_MAX: u64 = 16 << 20;

/// A run of `nx run`, as a test wants it. Without more words: subject `demo` of the built-in policy, in the home's work
/// directory, without input.
#[derive(Debug)]
pub struct Run {
    home: Arc<Home>,
    policy: Option<PathBuf>,
    subject: String,
    work: Option<String>,
    options: Vec<OsString>,
    stdin: Vec<u8>,
    environment: Vec<(OsString, OsString)>,
    command: Vec<OsString>,
    around: Vec<OsString>,
    deadline: Duration,
}

impl Run {
    /// A run in a fresh home of this user.
    #[must_use]
    pub fn new(user: User) -> Self {
        Self::at(&Home::new(user))
    }

    /// A run in this home, with what earlier runs left there.
    #[must_use]
    pub fn at(home: &Arc<Home>) -> Self {
        Self {
            home: Arc::clone(home),
            policy: None,
            subject: "demo".to_owned(),
            work: None,
            options: Vec::new(),
            stdin: Vec::new(),
            environment: Vec::new(),
            command: Vec::new(),
            around: Vec::new(),
            deadline: DEADLINE,
        }
    }

    /// The home of the run.
    #[must_use]
    pub const fn home(&self) -> &Arc<Home> {
        &self.home
    }

    /// Under this tree, which is written into the home.
    ///
    /// # Panics
    /// Where it cannot be written.
    #[must_use]
    pub fn policy(mut self, tree: &Tree) -> Self {
        let directory = self.home.policy();
        tree.write(&directory).expect("a policy tree in the home");
        self.policy = Some(directory);
        self
    }

    /// Under the tree in this directory.
    #[must_use]
    pub fn policy_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.policy = Some(directory.into());
        self
    }

    /// As this subject.
    #[must_use]
    pub fn subject(mut self, subject: &str) -> Self {
        subject.clone_into(&mut self.subject);
        self
    }

    /// With `--work WORK`; without, the work directory is the current one.
    #[must_use]
    pub fn work(mut self, work: impl Into<String>) -> Self {
        self.work = Some(work.into());
        self
    }

    /// With one more option of `nx run`.
    #[must_use]
    pub fn option(mut self, option: impl Into<OsString>) -> Self {
        self.options.push(option.into());
        self
    }

    /// With these bytes on stdin.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// With one more variable in the caller's environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The program and its arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, command: impl IntoIterator<Item = A>) -> Self {
        self.command = command.into_iter().map(Into::into).collect();
        self
    }

    /// The helper program of the work directory, with these arguments.
    #[must_use]
    pub fn probe<A: Into<OsString>>(self, arguments: impl IntoIterator<Item = A>) -> Self {
        let probe = self.home.work().join("probe").into_os_string();
        let rest: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
        self.args([vec![probe], rest].concat())
    }

    /// A line of bash.
    #[must_use]
    pub fn bash(self, line: &str) -> Self {
        self.args(["bash", "-c", line])
    }

    /// Started by this command, to whose words those of `nx` are added, and which starts `nx` as the run's user.
    #[must_use]
    pub fn around<A: Into<OsString>>(mut self, command: impl IntoIterator<Item = A>) -> Self {
        self.around = command.into_iter().map(Into::into).collect();
        self
    }

    /// Kills the run after this time instead of [`DEADLINE`].
    #[must_use]
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The command as it will be started, for tests that drive it themselves: only the run's own environment, in the work
    /// directory, streams inherited.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = match self.around.split_first() {
            None => Command::new(self.home.nx()),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(self.home.nx());
                command
            }
        };
        command.arg("run");
        if let Some(policy) = &self.policy {
            command.arg("--policy").arg(policy);
        }
        if let Some(work) = &self.work {
            command.arg("--work").arg(work);
        }
        command
            .args(&self.options)
            .arg(&self.subject)
            .arg("--")
            .args(&self.command);
        command
            .current_dir(self.home.work())
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LC_ALL", "C")
            .env("HOME", self.home.home())
            .env("XDG_STATE_HOME", self.home.state())
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        // What is around it starts it as its user.
        if self.around.is_empty() {
            self.home.user().starts(&mut command);
        }
        command
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// Where it cannot be started, does not end in time, or leaves a journal that cannot be read.
    #[must_use]
    pub fn run(self) -> Output {
        let before = read_journal(&self.home).len();
        let mut command = self.command();
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = gate::start(&mut command).unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        feed(&mut child, self.stdin);
        let stdout = gather(child.stdout.take());
        let stderr = gather(child.stderr.take());
        let until = Instant::now() + self.deadline.saturating_mul(patience());
        let status = wait(&mut child, until);
        if status.is_none() {
            // Its own processes first, so that none of them waits for another.
            processes::kill_of_state(&self.home.state());
            let _ = child.kill();
            let _ = child.wait();
        }
        // Somebody whom the end of the run left behind may hold a stream open: that is no reason to wait longer.
        let rest = until
            .saturating_duration_since(Instant::now())
            .max(Duration::from_secs(1));
        let stdout = stdout
            .recv_timeout(rest)
            .unwrap_or_else(|_| b"(stdout did not end)".to_vec());
        let stderr = stderr
            .recv_timeout(rest)
            .unwrap_or_else(|_| b"(stderr did not end)".to_vec());
        let Some(status) = status else {
            panic!(
                "{command:?} did not end in {:?}\nstdout: {}\nstderr: {}",
                self.deadline,
                String::from_utf8_lossy(&stdout),
                String::from_utf8_lossy(&stderr)
            );
        };
        let records = read_journal(&self.home).split_off(before);
        Output {
            home: self.home,
            status,
            stdout,
            stderr,
            records,
        }
    }
}

/// Whether the home's work directory can be metered for its user: root's has to be lent to the program's own number, which
/// not every file system can. Where it cannot, nothing starts, and that is seen and said.
///
/// # Panics
/// Where a run fails in another way, or it cannot and `NEXUS_REQUIRE_LIVE=1`.
#[must_use]
pub fn can_be_metered(home: &Arc<Home>) -> bool {
    let tree = Tree::shipped()
        .edit("sandbox.toml", "\nwork = \"ro\"", "\nwork = \"metered\"")
        .append("quotas.toml", "[subject.demo.work]\nhard = \"4KiB\"\ninodes = 1\n");
    let done = Run::at(home).policy(&tree).args(["true"]).run();
    if done.code() == Some(0) {
        return true;
    }
    assert!(
        home.user() == User::Root && done.code() == Some(6) && done.err().contains("cannot be lent"),
        "{done}"
    );
    lacking("this file system cannot lend a directory of root's");
    false
}

fn wait(child: &mut Child, until: Instant) -> Option<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return Some(status);
        }
        if Instant::now() >= until {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn feed(child: &mut Child, bytes: Vec<u8>) {
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input ends the thread with EPIPE.
        std::thread::spawn(move || stdin.write_all(&bytes));
    }
}

fn gather(stream: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (tell, told) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.by_ref().take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes);
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
        // A test that gave up hears nothing.
        let _ = tell.send(bytes);
    });
    told
}

/// Every record of the home's journal by its sequence number. Read from the files themselves: the reader that `nx` has
/// refuses what belongs to another user, as the journals of most tests do.
fn read_journal(home: &Home) -> Vec<Record> {
    let mut records = Vec::new();
    for entry in std::fs::read_dir(home.journal()).into_iter().flatten().flatten() {
        if entry.path().extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        let content = std::fs::read(entry.path()).expect("a journal's file");
        for line in content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let (seq, record, _) =
                read_line(line).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(line)));
            records.push((seq, record));
        }
    }
    records.sort_by_key(|(seq, _)| *seq);
    records.into_iter().map(|(_, record)| record).collect()
}

/// What came of a run. Its home lives as long.
#[derive(Debug)]
pub struct Output {
    /// Where it ran.
    pub home: Arc<Home>,
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: Vec<u8>,
    /// What it and `nx` printed besides.
    pub stderr: Vec<u8>,
    /// What it added to the journal, oldest first.
    pub records: Vec<Record>,
}

impl Output {
    /// The exit status, unless a signal ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended it, if one did.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// What it printed, as text.
    #[must_use]
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// What stood on stderr, as text.
    #[must_use]
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// What the probe was answered, of each thing that it tried: behind the last colon of each line.
    #[must_use]
    pub fn probed(&self) -> Vec<String> {
        let out = self.out();
        let answers = out.lines().filter_map(|line| line.rsplit_once(": "));
        answers.map(|(_, answer)| answer.to_owned()).collect()
    }

    /// The records for this reason, such as `egress.no_rule`.
    #[must_use]
    pub fn records_for(&self, reason: &str) -> Vec<&Record> {
        self.records
            .iter()
            .filter(|record| record.reason.as_str() == reason)
            .collect()
    }

    /// [`Home::assert_nothing_left`] of its home.
    ///
    /// # Panics
    /// Where something is left.
    pub fn assert_nothing_left(&self) {
        self.home.assert_nothing_left();
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}: {}", self.home.user(), self.status)?;
        writeln!(f, "stdout: {}\nstderr: {}", self.out(), self.err())?;
        for record in &self.records {
            let at = record.at.as_deref().unwrap_or("no rule");
            writeln!(
                f,
                "record: {:?} {} {} {} ({at})",
                record.verdict, record.op, record.object, record.reason
            )?;
        }
        Ok(())
    }
}
