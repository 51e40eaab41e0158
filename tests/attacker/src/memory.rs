//! Arguments that are hard to read, and memory without end.

use crate::raw::{call, close, socket, try_call};
use crate::sockets::loopback;
use std::os::fd::AsRawFd;

const PAGE: usize = 4096;

fn map(length: usize, protection: i32, flags: i32, fd: i32) -> *mut u8 {
    // SAFETY: a new mapping at an address of the kernel's choice.
    unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, fd, 0).cast() }
}

fn connect_at(name: &str, at: u64, length: u64) {
    let fd = socket(libc::AF_INET, libc::SOCK_STREAM, 0);
    try_call(name, libc::SYS_connect, &[fd as u64, at, length]);
    close(fd);
}

/// Addresses in memory that is not there, not readable, or in a file that somebody has to be asked for. `directory` is
/// one of the session's areas.
pub(crate) fn pointers(port: u16, directory: &str) {
    let good = loopback(port);
    connect_at("null", 0, 16);
    connect_at("kernel", 0xffff_8000_0000_0000, 16);
    connect_at("non-canonical", 0x8000_0000_0000_0000, 16);
    connect_at("last", u64::MAX, 16);
    let none = map(PAGE, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1);
    connect_at("no-access", none.addr() as u64, 16);
    let two = map(
        2 * PAGE,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        -1,
    );
    // SAFETY: unmaps the second of two pages that were just mapped; then writes eight bytes at the end of the first.
    unsafe {
        libc::munmap(two.add(PAGE).cast(), PAGE);
        std::ptr::copy_nonoverlapping(good.as_ptr(), two.add(PAGE - 8), 8);
    }
    connect_at("across-the-end", two.addr() as u64 + PAGE as u64 - 8, 16);
    // A page of one of our own files, read for the first time by whoever reads the address.
    for round in 0..64 {
        let path = format!("{directory}/pages-{round}");
        let mut content = vec![0_u8; 16 * PAGE];
        content[8 * PAGE..8 * PAGE + 16].copy_from_slice(&good);
        if std::fs::write(&path, &content).is_err() {
            println!("own-file EIO");
            return;
        }
        let Ok(file) = std::fs::File::open(&path) else { return };
        // SAFETY: no memory is involved. Out of the cache with it.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        let pages = map(16 * PAGE, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd());
        let fd = socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        let result = call(
            libc::SYS_connect,
            &[fd as u64, pages.addr() as u64 + 8 * PAGE as u64, 16],
        );
        if round == 0 || result == 0 {
            crate::raw::say("own-file", result);
        }
        close(fd);
        // Past the end of the file: the kernel sends SIGBUS to a reader of its own, EFAULT to others.
        let fd = socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        // SAFETY: shrinks the file that is mapped.
        let writable = std::fs::OpenOptions::new().write(true).open(&path);
        if let Ok(writable) = writable {
            let _ = writable.set_len(PAGE as u64);
        }
        let result = call(
            libc::SYS_connect,
            &[fd as u64, pages.addr() as u64 + 12 * PAGE as u64, 16],
        );
        if round == 0 {
            crate::raw::say("past-the-end", result);
        }
        close(fd);
        let _ = std::fs::remove_file(&path);
    }
    // While a second thread takes the mapping away and puts it back.
    let target = map(
        PAGE,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        -1,
    );
    let done = std::sync::atomic::AtomicBool::new(false);
    let at = target.addr() as u64;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                call(libc::SYS_mprotect, &[at, PAGE as u64, 0]);
                call(libc::SYS_mprotect, &[at, PAGE as u64, 3]);
            }
        });
        for _ in 0..500 {
            let fd = socket(libc::AF_INET, libc::SOCK_STREAM, 0);
            call(libc::SYS_connect, &[fd as u64, at, 16]);
            close(fd);
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    println!("ready ok 0");
}

/// Takes all there is of something.
pub(crate) fn eat(what: &str) {
    let mut count = 0_u64;
    match what {
        "memory" => {
            // Touched page by page in steps of 16 MiB, up to 64 GiB.
            const STEP: usize = 16 << 20;
            while count < 4096 {
                let piece = map(
                    STEP,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                );
                if piece.addr() == usize::MAX {
                    break;
                }
                count += 1;
            }
            crate::raw::say("memory", if count < 4096 { -1 } else { 0 });
        }
        "processes" => loop {
            // SAFETY: the child only waits to be killed with all the others.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: no memory is involved.
                unsafe { libc::pause() };
            }
            if child < 0 || count > 100_000 {
                crate::raw::say("processes", child);
                break;
            }
            count += 1;
        },
        // To itself, where they wait: each counts for the user.
        "signals" => {
            const REAL_TIME: i32 = 40;
            // SAFETY: all zeroes is a valid `sigset_t`, and both live over the calls, which keep no pointer.
            let queue = || unsafe {
                let mut set: libc::sigset_t = std::mem::zeroed();
                libc::sigaddset(&raw mut set, REAL_TIME);
                libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
                let value: libc::sigval = std::mem::zeroed();
                libc::sigqueue(libc::getpid(), REAL_TIME, value)
            };
            let mut told = 0;
            while told == 0 && count < 10_000 {
                told = queue();
                count += u64::from(told == 0);
            }
            crate::raw::say("signals", told);
        }
        _ => loop {
            let fd = socket(libc::AF_UNIX, libc::SOCK_STREAM, 0);
            if fd < 0 || count > 1_000_000 {
                crate::raw::say("descriptors", fd);
                break;
            }
            count += 1;
        },
    }
    println!("had ok {count}");
    if what == "processes" {
        // SAFETY: no memory is involved; inside, this reaches the session's own processes only, and outside it is never run.
        unsafe { libc::kill(-1, libc::SIGKILL) };
    }
}
