//! The judge's turn: what makes its own connect last, and changes what that connect is about, while others want to go on.

use crate::raw::{call, close, errno_name, socket};
use crate::sockets::{connect_raw, greet, loopback};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

const STREAM: i32 = libc::SOCK_STREAM;

/// How many threads connect at once to somebody who takes nobody.
const HELD: usize = 8;

/// The number that every round's socket has.
const NUMBER: u64 = 200;

/// So many connects to one that takes nobody, whose sockets change between waiting and not waiting, that the judge's own
/// connect waits sooner or later where it must not. Each round others have to go on beside it.
pub(crate) fn flags(full: u16, open: u16, rounds: usize) {
    let full = loopback(full);
    let shared = Arc::new(AtomicI32::new(-1));
    for _ in 0..2 {
        let shared = Arc::clone(&shared);
        thread::spawn(move || {
            loop {
                let fd = shared.load(Ordering::Relaxed) as u64;
                call(libc::SYS_fcntl, &[fd, libc::F_SETFL as u64, libc::O_NONBLOCK as u64]);
                call(libc::SYS_fcntl, &[fd, libc::F_SETFL as u64, 0]);
            }
        });
    }
    let (mut beside, mut answers) = (0, BTreeMap::<String, u32>::new());
    for _ in 0..rounds {
        let fd = socket(libc::AF_INET, STREAM, 0);
        shared.store(fd, Ordering::Relaxed);
        let address = full.clone();
        let held = thread::spawn(move || connect_raw(fd, &address).min(0) - i64::from(errno_now()));
        // Judged after it, and answered whatever became of it.
        for _ in 0..3 {
            let other = socket(libc::AF_INET, STREAM, 0);
            if connect_raw(other, &loopback(open)) == 0 {
                greet(other, "beside");
                beside += 1;
            }
            close(other);
        }
        // It may not have begun; one that waits ends by this.
        while !held.is_finished() {
            call(libc::SYS_shutdown, &[fd as u64, 2]);
            thread::sleep(std::time::Duration::from_micros(200));
        }
        let ended = held.join().unwrap_or_default();
        *answers.entry(errno_name((-1 - ended) as i32)).or_default() += 1;
        close(fd);
    }
    println!("beside ok {beside}");
    for (name, count) in answers {
        println!("held-{name} ok {count}");
    }
    // Those who flip go on to the end.
    std::process::exit(0);
}

extern "C" fn nothing(_: i32) {}

/// Threads whose connects last, while the number they were called with gets other sockets, is shut and closed, and each
/// thread is sent a signal a thousand times a second.
pub(crate) fn swap(full: u16, open: u16, forbidden: u16, path: &str, rounds: usize) {
    // SAFETY: all zeroes is a valid action; the handler does nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut());
    }
    let mut unix = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
    unix.extend(path.as_bytes());
    unix.push(0);
    let addresses = [loopback(full), loopback(forbidden), loopback(open), unix];
    let done = Arc::new(AtomicBool::new(false));
    let threads = Arc::new(Mutex::new(Vec::new()));
    let here = || call(libc::SYS_gettid, &[]) as u64;
    let mut workers = Vec::new();
    for worker in 0..HELD {
        let (done, addresses, threads) = (Arc::clone(&done), addresses.clone(), Arc::clone(&threads));
        workers.push(thread::spawn(move || {
            if let Ok(mut threads) = threads.lock() {
                threads.push(here());
            }
            let (mut turn, mut ended) = (worker, 0_u32);
            while !done.load(Ordering::Relaxed) {
                turn += 1;
                let address = &addresses[turn % addresses.len()];
                let at = address.as_ptr().addr() as u64;
                let result = call(libc::SYS_connect, &[NUMBER, at, address.len() as u64]);
                if result == 0 && turn % addresses.len() != 2 {
                    greet(NUMBER as i32, "swapped");
                }
                ended += 1;
            }
            ended
        }));
    }
    let ticking = {
        let (done, threads) = (Arc::clone(&done), Arc::clone(&threads));
        thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                let all = threads.lock().map(|threads| threads.clone()).unwrap_or_default();
                for thread in all {
                    call(
                        libc::SYS_tgkill,
                        &[u64::from(std::process::id()), thread, libc::SIGUSR1 as u64],
                    );
                }
                thread::sleep(std::time::Duration::from_millis(1));
            }
        })
    };
    let swapping = {
        let done = Arc::clone(&done);
        thread::spawn(move || {
            let mut turn = 0_usize;
            while !done.load(Ordering::Relaxed) {
                turn += 1;
                let kinds = [
                    (libc::AF_INET, STREAM),
                    (libc::AF_UNIX, STREAM),
                    (libc::AF_INET6, STREAM),
                ];
                let (domain, kind) = kinds[turn % kinds.len()];
                let new = socket(domain, kind, 0);
                call(libc::SYS_dup2, &[new as u64, NUMBER]);
                close(new);
                if turn.is_multiple_of(3) {
                    call(libc::SYS_shutdown, &[NUMBER, 2]);
                }
                if turn.is_multiple_of(5) {
                    close(NUMBER as i32);
                }
            }
        })
    };
    let mut beside = 0;
    for _ in 0..rounds {
        let other = socket(libc::AF_INET, STREAM, 0);
        // Only this thread is sent no signals.
        if connect_raw(other, &loopback(open)) == 0 {
            beside += 1;
        }
        close(other);
    }
    done.store(true, Ordering::Relaxed);
    let _ = swapping.join();
    println!("beside ok {beside}");
    // What waits still is ended by its signals, which go on until nobody is left.
    let mut ended = 0;
    for worker in workers {
        while !worker.is_finished() {
            let all = threads.lock().map(|threads| threads.clone()).unwrap_or_default();
            for thread in all {
                call(
                    libc::SYS_tgkill,
                    &[u64::from(std::process::id()), thread, libc::SIGUSR1 as u64],
                );
            }
            thread::sleep(std::time::Duration::from_millis(1));
        }
        ended += worker.join().unwrap_or_default();
    }
    let _ = ticking.join();
    println!("ended ok {ended}");
}

/// A listener with a full queue; what fills it is kept.
fn full(address: &mut Vec<u8>) -> i32 {
    let domain = i32::from(u16::from_ne_bytes([address[0], address[1]]));
    let listener = socket(domain, STREAM, 0);
    call(
        libc::SYS_bind,
        &[listener as u64, address.as_ptr().addr() as u64, address.len() as u64],
    );
    call(libc::SYS_listen, &[listener as u64, 0]);
    if domain == libc::AF_INET {
        let mut length = 16_u32;
        let (at, length_at) = (address.as_mut_ptr().addr() as u64, (&raw mut length).addr() as u64);
        call(libc::SYS_getsockname, &[listener as u64, at, length_at]);
    }
    for _ in 0..4 {
        connect_raw(socket(domain, STREAM | libc::SOCK_NONBLOCK, 0), address);
    }
    listener
}

/// Threads that connect to everybody who takes nobody: on the host, of its own, one whose process is stopped, at a path; and
/// one that sends itself datagrams without end. The rest goes on beside them, says how often, and waits for the end of stdin.
pub(crate) fn held(host: u16, open: u16, path: &str, rounds: usize) {
    let mut unix = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
    unix.extend(path.as_bytes());
    unix.push(0);
    let (mut own, mut stopped) = (loopback(0), loopback(0));
    full(&mut own);
    full(&mut unix);
    let listener = full(&mut stopped);
    // SAFETY: the child makes raw calls only, and nothing else runs in it.
    let child = unsafe { libc::fork() };
    if child == 0 {
        loop {
            call(libc::SYS_accept4, &[listener as u64, 0, 0, 0]);
        }
    }
    call(libc::SYS_kill, &[child as u64, libc::SIGSTOP as u64]);
    // It may take one more until it stands still.
    call(libc::SYS_wait4, &[child as u64, 0, libc::WUNTRACED as u64, 0]);
    for _ in 0..4 {
        connect_raw(socket(libc::AF_INET, STREAM | libc::SOCK_NONBLOCK, 0), &stopped);
    }
    let mut waiting = Vec::new();
    for address in [loopback(host), own, unix, stopped] {
        let domain = i32::from(u16::from_ne_bytes([address[0], address[1]]));
        for _ in 0..HELD {
            let address = address.clone();
            waiting.push(thread::spawn(move || connect_raw(socket(domain, STREAM, 0), &address)));
        }
    }
    thread::spawn(|| {
        let sender = socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        let to = loopback(9);
        let data = [0_u8; 1400];
        loop {
            let at = data.as_ptr().addr() as u64;
            call(
                libc::SYS_sendto,
                &[sender as u64, at, 1400, 0, to.as_ptr().addr() as u64, 16],
            );
        }
    });
    let (mut connected, mut bound) = (0, 0);
    for _ in 0..rounds {
        let other = socket(libc::AF_INET, STREAM, 0);
        if connect_raw(other, &loopback(open)) == 0 {
            greet(other, "beside");
            connected += 1;
        }
        close(other);
        let server = socket(libc::AF_INET, STREAM, 0);
        let at = loopback(0);
        let named = call(libc::SYS_bind, &[server as u64, at.as_ptr().addr() as u64, 16]);
        if named == 0 && call(libc::SYS_listen, &[server as u64, 1]) == 0 {
            bound += 1;
        }
        close(server);
    }
    println!("connected ok {connected}");
    println!("bound ok {bound}");
    println!(
        "waiting ok {}",
        waiting.iter().filter(|thread| !thread.is_finished()).count()
    );
    println!("ready ok 0");
    let _ = std::io::Read::read(&mut std::io::stdin(), &mut [0]);
    call(libc::SYS_kill, &[child as u64, libc::SIGKILL as u64]);
    std::process::exit(0);
}

/// Threads that wait for somebody who takes nobody and greet once they are taken, while others try a forbidden place for ever.
pub(crate) fn killed(full: u16, forbidden: u16) {
    for _ in 0..HELD {
        thread::spawn(move || {
            let fd = socket(libc::AF_INET, STREAM, 0);
            // Whatever became of the call.
            connect_raw(fd, &loopback(full));
            loop {
                greet(fd, "held");
                connect_raw(fd, &loopback(forbidden));
            }
        });
    }
    println!("ready ok 0");
    loop {
        let fd = socket(libc::AF_INET, STREAM, 0);
        connect_raw(fd, &loopback(forbidden));
        greet(fd, "forbidden");
        close(fd);
    }
}

fn errno_now() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
