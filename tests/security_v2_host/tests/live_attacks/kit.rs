//! What the attacks share.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use security_v2_host::{Home, ORDINARY_ID, Output, Run, Tree, User, attacker, copy_program, spawn};

/// A home with the hostile program in its work directory, and the policy that it is held by.
pub(crate) struct Attack {
    pub(crate) home: Arc<Home>,
    pub(crate) tree: Tree,
    work: Option<String>,
}

impl Attack {
    /// Under the shipped rules, with a work directory that it may write.
    pub(crate) fn new(user: User) -> Self {
        Self::with_egress(user, &[])
    }

    /// The same, and these addresses open.
    pub(crate) fn with_egress(user: User, open: &[String]) -> Self {
        let home = Home::new(user);
        copy_program(attacker(), &home.work().join("attacker")).expect("a copy of the attacker");
        let list: Vec<String> = open.iter().map(|to| format!("\"{to}\"")).collect();
        let tree = Tree::shipped()
            .append("nexus.policy.toml", "[subject.attack]\ndomain = \"tools\"\n")
            .append("sandbox.toml", "[subject.attack]\nwork = \"unmetered\"\n")
            .append(
                "egress.toml",
                &format!("[subject.attack]\nallow = [{}]\n", list.join(", ")),
            );
        Self { home, tree, work: None }
    }

    /// With `--work WORK`.
    pub(crate) fn work(mut self, work: impl Into<String>) -> Self {
        self.work = Some(work.into());
        self
    }

    /// The run, not started.
    pub(crate) fn prepare(&self, words: &[&str]) -> Run {
        let program = self.home.work().join("attacker").into_os_string();
        let mut command = vec![program];
        command.extend(words.iter().map(Into::into));
        self.prepare_any(command)
    }

    /// Of another program.
    pub(crate) fn prepare_any(&self, command: Vec<std::ffi::OsString>) -> Run {
        let run = Run::at(&self.home).policy(&self.tree).subject("attack").args(command);
        match &self.work {
            Some(work) => run.work(work.clone()),
            None => run,
        }
    }

    /// Attacks in a session.
    pub(crate) fn run(&self, words: &[&str]) -> (Answers, Output) {
        let done = self.prepare(words).run();
        (Answers::of(&done.out()), done)
    }

    /// Attacks without a session, in a process group of its own: never as root.
    pub(crate) fn bare(&self, words: &[&str]) -> Answers {
        let mut command = self.bare_command(words);
        let child = spawn(command.stdin(Stdio::null()).stdout(Stdio::piped())).expect("the attacker starts");
        let out = child.wait_with_output().expect("the attacker ends");
        Answers::of(&String::from_utf8_lossy(&out.stdout))
    }

    pub(crate) fn bare_command(&self, words: &[&str]) -> Command {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(self.home.work().join("attacker"));
        command.args(words).current_dir(self.home.work()).process_group(0);
        bare_user().starts(&mut command);
        command
    }
}

/// Whoever runs attacks without a session.
pub(crate) fn bare_user() -> User {
    User::Ordinary(if rustix::process::geteuid().is_root() {
        ORDINARY_ID
    } else {
        rustix::process::geteuid().as_raw()
    })
}

/// What the attacker said: of each try, `ok` with a value, or the errno.
#[derive(Debug)]
pub(crate) struct Answers {
    pub(crate) said: BTreeMap<String, String>,
    values: BTreeMap<String, i64>,
}

impl Answers {
    pub(crate) fn of(text: &str) -> Self {
        let (mut said, mut values) = (BTreeMap::new(), BTreeMap::new());
        for line in text.lines() {
            let Some((rest, last)) = line.rsplit_once(' ') else {
                continue;
            };
            match rest.strip_suffix(" ok") {
                Some(name) => {
                    said.insert(name.to_owned(), "ok".to_owned());
                    values.insert(name.to_owned(), last.parse().unwrap_or(-1));
                }
                None => drop(said.insert(rest.to_owned(), last.to_owned())),
            }
        }
        Self { said, values }
    }

    /// `ok`, an errno, or nothing if it was not tried.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.said.get(name).map_or("not tried", String::as_str)
    }

    pub(crate) fn value(&self, name: &str) -> i64 {
        self.values.get(name).copied().unwrap_or(-1)
    }

    /// Fails unless each of these was tried and refused.
    pub(crate) fn assert_refused(&self, names: &[&str]) {
        for name in names {
            let answer = self.get(name);
            assert!(answer != "ok" && answer != "not tried", "{name}: {answer}\n{self}");
        }
    }

    /// Fails unless each of these succeeded.
    pub(crate) fn assert_ok(&self, names: &[&str]) {
        for name in names {
            assert_eq!(self.get(name), "ok", "{name}\n{self}");
        }
    }

    /// Fails unless these, and no others, succeeded; `tries` is how many there must be at least.
    pub(crate) fn assert_only(&self, names: &[&str], tries: usize) {
        let ok: Vec<&str> = self
            .said
            .iter()
            .filter(|(_, said)| *said == "ok")
            .map(|(name, _)| name.as_str())
            .collect();
        let mut expected = names.to_vec();
        expected.sort_unstable();
        assert_eq!(ok, expected, "{self}");
        assert!(self.said.len() >= tries, "only {} tries\n{self}", self.said.len());
    }
}

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.said
            .iter()
            .try_for_each(|(name, said)| writeln!(f, "  {name}: {said}"))
    }
}

/// Who listens on the host's side, and writes down every greeting.
pub(crate) struct Catcher {
    place: Place,
    caught: Arc<Mutex<Vec<String>>>,
}

/// Where a greeting goes. Others may listen at the same number for the other protocol.
enum Place {
    Tcp(SocketAddr),
    Udp(u16),
    Stream(PathBuf),
    Datagrams(PathBuf),
}

impl Catcher {
    /// Who writes down what `hear` hears, one after the other, so that what came first is written down first. It ends with the
    /// test: nobody else comes to its place.
    fn new(place: Place, hear: impl FnOnce(&Mutex<Vec<String>>) + Send + 'static) -> Self {
        let caught = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&caught);
        std::thread::spawn(move || hear(&into));
        Self { place, caught }
    }

    /// On a free port of this address, over TCP.
    pub(crate) fn tcp(address: &str) -> Self {
        Self::tcp_at(address, 0).expect("a free port")
    }

    pub(crate) fn tcp_at(address: &str, port: u16) -> Option<Self> {
        let listener = TcpListener::bind((address, port)).ok()?;
        let address = listener.local_addr().ok()?;
        Some(Self::new(Place::Tcp(address), move |into| {
            for stream in listener.incoming().flatten() {
                let _ = stream.set_read_timeout(Some(SILENCE_MAX));
                note(into, stream);
            }
        }))
    }

    pub(crate) fn udp() -> Self {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("a free port");
        let port = socket.local_addr().expect("its address").port();
        Self::new(Place::Udp(port), move |into| {
            note_each(into, |bytes| socket.recv(bytes))
        })
    }

    pub(crate) fn unix(path: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("a socket at the path");
        open_to_all(path);
        Self::new(Place::Stream(path.to_owned()), move |into| {
            for stream in listener.incoming().flatten() {
                let _ = stream.set_read_timeout(Some(SILENCE_MAX));
                note(into, stream);
            }
        })
    }

    pub(crate) fn unix_datagram(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).expect("a socket at the path");
        open_to_all(path);
        Self::new(Place::Datagrams(path.to_owned()), move |into| {
            note_each(into, |bytes| socket.recv(bytes))
        })
    }

    /// `0` for one that is at a path.
    pub(crate) fn port(&self) -> u16 {
        match self.place {
            Place::Tcp(address) => address.port(),
            Place::Udp(port) => port,
            Place::Stream(_) | Place::Datagrams(_) => 0,
        }
    }

    pub(crate) fn caught(&self) -> Vec<String> {
        let mut caught = self.caught.lock().unwrap_or_else(PoisonError::into_inner).clone();
        caught.retain(|line| !line.starts_with(MARK));
        caught
    }

    /// Fails if anybody got through. Whatever was sent is here once a greeting of our own is, which comes after it.
    pub(crate) fn assert_nothing(&self) {
        self.flush();
        assert_eq!(self.caught(), Vec::<String>::new());
    }

    /// Fails if nobody got through.
    pub(crate) fn assert_something(&self) {
        self.flush();
        assert_ne!(self.caught(), Vec::<String>::new());
    }

    /// Waits until what came before has been written down.
    pub(crate) fn flush(&self) {
        static MARKS: AtomicUsize = AtomicUsize::new(0);
        let mark = format!("{MARK} {}", MARKS.fetch_add(1, Ordering::Relaxed));
        let until = Instant::now() + Duration::from_secs(60);
        // Again and again: a queue that an attack has filled takes no datagram.
        loop {
            let sent = self.mark(&mark);
            for _ in 0..100 {
                let caught = self.caught.lock().unwrap_or_else(PoisonError::into_inner);
                if caught.contains(&mark) {
                    return;
                }
                drop(caught);
                std::thread::sleep(Duration::from_millis(2));
            }
            assert!(Instant::now() < until, "the catcher is deaf: {sent:?}");
        }
    }

    /// Greets it as the attacks do.
    fn mark(&self, mark: &str) -> std::io::Result<()> {
        use std::io::Write;
        let mark = mark.as_bytes();
        match &self.place {
            Place::Tcp(address) => std::net::TcpStream::connect(address)?.write_all(mark),
            Place::Udp(port) => UdpSocket::bind("127.0.0.1:0")?
                .send_to(mark, ("127.0.0.1", *port))
                .map(drop),
            Place::Stream(path) => std::os::unix::net::UnixStream::connect(path)?.write_all(mark),
            Place::Datagrams(path) => UnixDatagram::unbound()?.send_to(mark, path).map(drop),
        }
    }
}

pub(crate) fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).expect("a mode of one's own file");
}

/// What begins a greeting of the test's own.
const MARK: &str = "mark";

/// How long one that connected may say nothing.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Writes down datagrams.
fn note_each(into: &Mutex<Vec<String>>, receive: impl Fn(&mut [u8]) -> std::io::Result<usize>) {
    let mut bytes = [0; 256];
    while let Ok(count) = receive(&mut bytes) {
        push(into, &bytes[..count]);
    }
}

fn note(into: &Mutex<Vec<String>>, mut stream: impl Read) {
    let mut bytes = [0; 256];
    let count = stream.read(&mut bytes).unwrap_or(0);
    push(into, &bytes[..count]);
}

fn push(into: &Mutex<Vec<String>>, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).trim().to_owned();
    into.lock().unwrap_or_else(PoisonError::into_inner).push(text);
}
