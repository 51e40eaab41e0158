//! A pseudo-terminal with an interactive shell in it, as a person has one.

use crate::{DEADLINE, Home, gate};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::Winsize;
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::time::Instant;

/// The keys that a terminal turns into signals. termios(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// `SIGINT`.
    CtrlC,
    /// `SIGTSTP`.
    CtrlZ,
    /// `SIGQUIT`.
    CtrlBackslash,
    /// End of input.
    CtrlD,
}

impl Key {
    fn byte(self) -> u8 {
        match self {
            Self::CtrlC => 3,
            Self::CtrlD => 4,
            Self::CtrlZ => 26,
            Self::CtrlBackslash => 28,
        }
    }
}

/// The prompt, with a byte that nobody prints by chance.
pub const PROMPT: &str = "\x02[$?]> ";

/// The person's side of a terminal.
pub struct Terminal {
    master: Option<OwnedFd>,
    shell: Child,
    screen: String,
    seen: usize,
}

impl Terminal {
    /// A terminal in which an interactive `bash` with job control waits for a line. It does not echo, and its prompt is
    /// `[$?]> `.
    #[must_use]
    pub fn open(home: &Home) -> Self {
        Self::running(home, &["bash", "--norc", "--noprofile", "--noediting", "-i"], true)
    }

    /// A terminal whose session leader is this command.
    #[must_use]
    pub fn of(home: &Home, command: &[&str]) -> Self {
        Self::running(home, command, false)
    }

    fn running(home: &Home, command: &[&str], shell: bool) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).unwrap();
        let mut start = home.command("/usr/bin/setsid");
        start
            .args(["--ctty", "--wait", "--"])
            .args(command)
            .env("PS1", PROMPT)
            .env("PS2", "");
        start
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(Stdio::from(slave));
        let child = gate::spawn(&mut start).unwrap();
        let mut terminal = Self {
            master: Some(master),
            shell: child,
            screen: String::new(),
            seen: 0,
        };
        if shell {
            terminal.line("stty -echo; echo rea''dy");
            terminal.see("ready");
            assert_eq!(terminal.status(), 0);
        }
        terminal
    }

    fn master(&self) -> &OwnedFd {
        self.master.as_ref().unwrap()
    }

    /// The session leader's pid.
    #[must_use]
    pub fn leader(&self) -> i32 {
        i32::try_from(self.shell.id()).unwrap()
    }

    /// Types a line.
    pub fn line(&mut self, text: &str) {
        self.write(format!("{text}\n").as_bytes());
    }

    /// Types these characters, without an end of line.
    pub fn types(&mut self, text: &str) {
        self.write(text.as_bytes());
    }

    /// Presses a key.
    pub fn press(&mut self, key: Key) {
        self.write(&[key.byte()]);
    }

    fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let count = rustix::io::write(self.master(), bytes).unwrap();
            bytes = &bytes[count..];
        }
    }

    /// Makes the window this large.
    pub fn resize(&mut self, rows: u16, columns: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(self.master(), size).unwrap();
    }

    /// Waits until this text shows, past what was seen before; returns what came before it.
    pub fn see(&mut self, text: &str) -> String {
        let start = Instant::now();
        loop {
            let unseen = &self.screen[self.seen..];
            if let Some(at) = unseen.find(text) {
                let before = unseen[..at].to_owned();
                self.seen += at + text.len();
                return before;
            }
            let open = self.read(start);
            assert!(open, "the terminal closed before `{text}`; it shows:\n{}", self.screen);
            assert!(
                start.elapsed() < DEADLINE,
                "`{text}` does not show; what does:\n{}",
                self.screen
            );
        }
    }

    /// The number that follows this text on its line.
    pub fn number(&mut self, text: &str) -> i32 {
        self.see(text);
        let digits = self.see("\r\n");
        digits
            .trim()
            .parse()
            .unwrap_or_else(|_| panic!("`{digits}` is no number"))
    }

    /// Waits for the shell's next prompt; returns `$?`. Whoever types before it may type to somebody else.
    pub fn status(&mut self) -> i32 {
        self.see("\x02[");
        self.see("]> ").parse().unwrap()
    }

    /// Reads a little; false once the other side is closed.
    fn read(&mut self, start: Instant) -> bool {
        let left = DEADLINE.saturating_sub(start.elapsed());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap(),
            tv_nsec: 0,
        };
        let ready = poll(&mut [PollFd::new(self.master(), PollFlags::IN)], Some(&timeout)).unwrap();
        if ready == 0 {
            return true;
        }
        let mut bytes = [0; 4096];
        match rustix::io::read(self.master(), &mut bytes) {
            Ok(0) | Err(rustix::io::Errno::IO) => false,
            Ok(count) => {
                self.screen.push_str(&String::from_utf8_lossy(&bytes[..count]));
                true
            }
            Err(error) => panic!("cannot read the terminal: {error}"),
        }
    }

    /// Reads until every process has closed the terminal; returns what came.
    pub fn rest(&mut self) -> String {
        let start = Instant::now();
        while self.read(start) {
            assert!(
                start.elapsed() < DEADLINE,
                "the terminal stays open; it shows:\n{}",
                self.screen
            );
        }
        let rest = self.screen[self.seen..].to_owned();
        self.seen = self.screen.len();
        rest
    }

    /// Closes the window: the terminal hangs up.
    pub fn close(&mut self) {
        self.master = None;
    }

    /// How the session leader ended.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.shell.try_wait().unwrap() {
                return status;
            }
            assert!(
                start.elapsed() < DEADLINE,
                "the session's leader does not end; it shows:\n{}",
                self.screen
            );
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the terminal showed:\n{}", self.screen);
        }
        self.close();
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
