//! Thousands of connects at once.

use crate::raw::{close, errno_name, socket};
use crate::sockets::{connect_raw, connected_within, loopback};
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

/// How long anything is waited for: past it, what is missing is missing.
const PATIENCE: Duration = Duration::from_secs(100);

fn last_errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

fn tell(answers: &BTreeMap<String, u32>) {
    for (name, count) in answers {
        println!("{name} ok {count}");
    }
}

/// So many sockets of one thread that are all on their way before the first is looked at, and all open at the end.
pub(crate) fn flock(port: u16, count: usize) {
    let address = loopback(port);
    let mut answers = BTreeMap::<String, u32>::new();
    let mut under_way = Vec::new();
    let mut open = Vec::new();
    for _ in 0..count {
        let fd = socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0);
        let errno = if connect_raw(fd, &address) == 0 {
            0
        } else {
            last_errno()
        };
        if fd < 0 || (errno != 0 && errno != libc::EINPROGRESS) {
            *answers.entry(errno_name(errno)).or_default() += 1;
            close(fd);
        } else {
            under_way.push(fd);
        }
    }
    let until = Instant::now() + PATIENCE;
    for fd in under_way {
        let left = until.saturating_duration_since(Instant::now()).as_millis() as i32;
        let name = match connected_within(fd, left) {
            Some(0) => "connected".to_owned(),
            Some(errno) => errno_name(errno),
            None => "unanswered".to_owned(),
        };
        *answers.entry(name).or_default() += 1;
        open.push(fd);
    }
    tell(&answers);
    open.into_iter().for_each(close);
}

/// So many threads that all connect to somebody who takes nobody. Says `ready` once all but `waiting` were answered, then
/// connects to somebody who does, and waits for the end of stdin; the rest ends with this program.
pub(crate) fn crowd(full: u16, open: u16, count: usize, waiting: usize) {
    const STACK_BYTES: usize = 32 * 1024;
    let gate = Arc::new(RwLock::new(()));
    let answers = Arc::new(Mutex::new(BTreeMap::<String, u32>::new()));
    let answered = Arc::new(AtomicUsize::new(0));
    let closed = gate.write();
    for _ in 0..count {
        let (gate, answers, counter) = (Arc::clone(&gate), Arc::clone(&answers), Arc::clone(&answered));
        let note = move |name: String| {
            if let Ok(mut answers) = answers.lock() {
                *answers.entry(name).or_default() += 1;
            }
            counter.fetch_add(1, Ordering::AcqRel);
        };
        let also = note.clone();
        let work = move || {
            drop(gate.read());
            let fd = socket(libc::AF_INET, libc::SOCK_STREAM, 0);
            if connect_raw(fd, &loopback(full)) == 0 {
                note("connected".to_owned());
            } else {
                note(errno_name(last_errno()));
            }
        };
        if std::thread::Builder::new().stack_size(STACK_BYTES).spawn(work).is_err() {
            also("no-thread".to_owned());
        }
    }
    drop(closed);
    let until = Instant::now() + PATIENCE;
    while answered.load(Ordering::Acquire) < count.saturating_sub(waiting) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    if let Ok(answers) = answers.lock() {
        tell(&answers);
    }
    let fd = socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0);
    let result = connect_raw(fd, &loopback(open));
    let fine = result == 0 || last_errno() == libc::EINPROGRESS;
    println!("meanwhile ok {}", i32::from(fine));
    println!("ready ok 0");
    let _ = std::io::stdin().read(&mut [0]);
    std::process::exit(0);
}
