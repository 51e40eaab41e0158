//! Calls that a timer of 1 kHz interrupts: what each is told, and how often it was done.
//!
//! `how` is `restart` for a handler with `SA_RESTART` and `interrupt` for one without.

use std::collections::BTreeMap;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use libc::c_int;

use crate::raw::{call, socket};
use crate::sockets::{bytes_of, connect_raw};

/// How often the timer called.
static TICKS: AtomicU64 = AtomicU64::new(0);

/// Where the handler says, once, that it was called [`OFTEN`] times; none below 0.
static TELL: AtomicI32 = AtomicI32::new(-1);
const OFTEN: u64 = 100;

/// What it says.
const TICKED: &[u8] = b"ticked\n";

extern "C" fn tick(_: c_int) {
    let fd = TELL.load(Ordering::Relaxed);
    if TICKS.fetch_add(1, Ordering::Relaxed) + 1 == OFTEN && fd >= 0 {
        // SAFETY: the bytes are static; write(2) is safe in a handler, and whoever is interrupted looks at errno only of calls
        // that were interrupted, which is EINTR in either case.
        unsafe { libc::write(fd, TICKED.as_ptr().cast(), TICKED.len()) };
    }
}

fn every(microseconds: i64) {
    let time = libc::timeval {
        tv_sec: 0,
        tv_usec: microseconds,
    };
    let timer = libc::itimerval {
        it_interval: time,
        it_value: time,
    };
    // SAFETY: the timer is live; the old one is not asked for.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
}

/// Begins to tick.
fn begin(how: &str) {
    // SAFETY: all zeroes is a valid action; the handler does what handlers may do.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = tick as extern "C" fn(c_int) as usize;
        action.sa_flags = if how == "restart" { libc::SA_RESTART } else { 0 };
        libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut());
    }
    every(1000);
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// A call that is always denied, until both enough were made and enough ticks came: each errno and how often it came.
pub(crate) fn denied(how: &str) {
    let mut got = BTreeMap::new();
    begin(how);
    let root = c"/".as_ptr().addr() as u64;
    let mut made = 0;
    while made < 3000 || TICKS.load(Ordering::Relaxed) < 300 {
        let errno = if call(libc::SYS_chroot, &[root]) < 0 {
            errno()
        } else {
            0
        };
        *got.entry(errno).or_insert(0_u64) += 1;
        made += 1;
    }
    every(0);
    let got: Vec<String> = got.iter().map(|(errno, count)| format!("{errno}={count}")).collect();
    println!("{}", got.join(" "));
}

fn open_now() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Makes a thousand sockets.
pub(crate) fn sockets(how: &str) {
    let before = open_now();
    let (mut made, mut interrupted) = (Vec::new(), false);
    begin(how);
    while made.len() < 1000 {
        let fd = socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        if fd >= 0 {
            // SAFETY: it was just made, and nobody else has it.
            made.push(unsafe { OwnedFd::from_raw_fd(fd) });
        } else if errno() == libc::EINTR {
            interrupted = true;
        } else {
            every(0);
            println!("error {}", errno());
            return;
        }
    }
    every(0);
    println!("opened {}", open_now() - before);
    drop(made);
    println!("left {}", open_now() - before);
    if interrupted && how == "restart" {
        println!("interrupted");
    }
}

/// Connects, again after `EINTR`; whether that was needed, or the errno that ended it.
fn connect_on(fd: c_int, address: &[u8]) -> Result<bool, i32> {
    let mut interrupted = false;
    while connect_raw(fd, address) < 0 {
        match errno() {
            libc::EINTR => interrupted = true,
            // The call that was interrupted went on.
            libc::EISCONN => break,
            other => return Err(other),
        }
    }
    Ok(interrupted)
}

/// Connects to somebody who keeps it waiting, under the timer or not, and says how that went.
pub(crate) fn connect(how: &str, address: &str, timer: &str) {
    let Ok(address) = address.parse::<SocketAddr>() else {
        return println!("no address");
    };
    let fd = socket(libc::AF_INET, libc::SOCK_STREAM, 0);
    println!("connecting");
    TELL.store(2, Ordering::Relaxed);
    begin(how);
    if timer != "timer" {
        every(0);
    }
    let ended = connect_on(fd, &bytes_of(address));
    every(0);
    match ended {
        Err(errno) => println!("error {errno}"),
        Ok(interrupted) => {
            let mut nothing = [0_u8];
            // SAFETY: the buffer is live and as long as it is said to be.
            unsafe { libc::read(fd, nothing.as_mut_ptr().cast(), 1) };
            println!("connected{}", if interrupted { " after being interrupted" } else { "" });
        }
    }
}

/// Connects to a Unix socket of this program's own whose queue is full, and says how often that arrived.
pub(crate) fn unix(how: &str) {
    const NAME: &str = "/tmp/listener";
    let _ = std::fs::remove_file(NAME);
    let Ok(listener) = UnixListener::bind(NAME) else {
        return println!("no listener");
    };
    let mut address = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
    address.extend(NAME.bytes().chain([0]));
    // SAFETY: no memory is involved.
    unsafe { libc::listen(listener.as_raw_fd(), 0) };
    let mut fillers = Vec::new();
    loop {
        let filler = socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0);
        if connect_raw(filler, &address) < 0 {
            break;
        }
        fillers.push(filler);
    }
    let (Ok((often, tell_often)), Ok((done, tell_done))) = (std::io::pipe(), std::io::pipe()) else {
        return println!("no pipe");
    };
    // SAFETY: this program has one thread.
    if unsafe { libc::fork() } == 0 {
        drop((tell_often, tell_done));
        accept(&listener, fillers.len(), often, done);
        std::process::exit(0);
    }
    TELL.store(tell_often.as_raw_fd(), Ordering::Relaxed);
    let fd = socket(libc::AF_UNIX, libc::SOCK_STREAM, 0);
    begin(how);
    let ended = connect_on(fd, &address);
    every(0);
    match ended {
        Err(errno) => println!("error {errno}"),
        Ok(_) => println!("connected"),
    }
    drop(tell_done);
    // SAFETY: the status is not asked for.
    unsafe { libc::wait(std::ptr::null_mut()) };
    keep(tell_often);
}

/// Until here.
fn keep(_: PipeWriter) {}

/// Accepts once the other has waited long enough; how many came beside the fillers, and how many processes there are meanwhile.
fn accept(listener: &UnixListener, fillers: usize, mut often: PipeReader, mut done: PipeReader) {
    let _ = often.read(&mut [0]);
    let is_process = |name: &std::ffi::OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    let processes = std::fs::read_dir("/proc").map_or(usize::MAX, |all| {
        all.flatten().filter(|entry| is_process(&entry.file_name())).count()
    });
    let mut accepted: Vec<_> = (0..=fillers).filter_map(|_| listener.accept().ok()).collect();
    let _ = done.read(&mut [0]);
    let _ = listener.set_nonblocking(true);
    accepted.extend(std::iter::from_fn(|| listener.accept().ok()));
    println!("came {}", accepted.len() - fillers);
    match processes {
        ..12 => println!("processes few"),
        many => println!("processes many: {many}"),
    }
    let _ = std::io::stdout().flush();
}
