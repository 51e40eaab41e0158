//! What a program does to its areas to get more of them than its budget, or to keep them from others.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use crate::raw::{c, call, close, say, say_io};

/// How many processes hold files open, or write, at once.
const CROWD: usize = 24;

/// Blocks and inodes that are used, as df(1) says.
fn used(directory: &str) -> (i64, i64) {
    // SAFETY: all zero is a value of it.
    let mut told: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a live C string, and a place for the answer.
    unsafe { libc::statfs(c(directory).as_ptr(), &raw mut told) };
    let blocks = told.f_blocks.wrapping_sub(told.f_bfree) as i64;
    (blocks, told.f_files.wrapping_sub(told.f_ffree) as i64)
}

/// Waits until as much is used as `before`: what is closed is told to the file server a moment later.
fn settles(name: &str, directory: &str, before: (i64, i64)) {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while used(directory) != before && std::time::Instant::now() < until {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let after = used(directory);
    println!("{name}-blocks ok {}", after.0 - before.0);
    println!("{name}-inodes ok {}", after.1 - before.1);
}

/// Processes that each do `act` and then wait to be killed; what `act` came to, summed up, is told once all have done it.
fn crowd(act: impl Fn(usize, &mut File)) -> (Vec<i32>, i64) {
    let (mut reads, writes) = std::io::pipe().expect("a pipe");
    let mut children = Vec::new();
    for who in 0..CROWD {
        // SAFETY: this program has one thread.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let mut tell = File::from(std::os::fd::OwnedFd::from(writes.try_clone().expect("a descriptor")));
            act(who, &mut tell);
            loop {
                // SAFETY: no memory is involved.
                unsafe { libc::pause() };
            }
        }
        children.push(child);
    }
    let mut sum = 0;
    for _ in 0..CROWD {
        let mut number = [0; 8];
        std::io::Read::read_exact(&mut reads, &mut number).expect("each says what it came to");
        sum += i64::from_ne_bytes(number);
    }
    (children, sum)
}

fn end(children: &[i32]) {
    for child in children {
        // SAFETY: ends and reaps a child of this process.
        unsafe {
            libc::kill(*child, libc::SIGKILL);
            libc::waitpid(*child, std::ptr::null_mut(), 0);
        }
    }
}

/// Makes files without a name and keeps them open, as many as `each` in each process, until none can be made.
pub(crate) fn unlinked(directory: &str, each: u64) {
    let before = used(directory);
    let (children, held) = crowd(|who, tell| {
        let path = format!("{directory}/gone-{who}");
        let mut held = Vec::new();
        while (held.len() as u64) < each
            && let Ok(file) = File::create(&path)
        {
            let _ = fs::remove_file(&path);
            held.push(file);
        }
        let _ = tell.write_all(&(held.len() as i64).to_ne_bytes());
        std::mem::forget(held);
    });
    println!("held ok {held}");
    println!("held-inodes ok {}", used(directory).1 - before.1);
    end(&children);
    settles("held-left", directory, before);
    let path = format!("{directory}/after");
    say_io("after", fs::write(&path, b"x"));
    let _ = fs::remove_file(&path);
}

/// Writes at the limit, in processes that are killed while they do.
pub(crate) fn killed_writers(directory: &str, rounds: u64) {
    let before = used(directory);
    for round in 0..rounds {
        let (children, _) = crowd(|who, tell| {
            let path = format!("{directory}/writer-{}", who % 5);
            let data = vec![who as u8; 300_000];
            let mut told = false;
            for turn in 0_u64.. {
                let file = OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(turn % 3 == 0)
                    .open(&path);
                let _ = file.and_then(|file| {
                    file.write_at(&data, turn % 7 * 250_000)?;
                    file.set_len(turn % 5 * 100_000)
                });
                if turn % 4 == 3 {
                    let _ = fs::remove_file(&path);
                }
                if !std::mem::replace(&mut told, true) {
                    let _ = tell.write_all(&0_i64.to_ne_bytes());
                }
            }
        });
        std::thread::sleep(std::time::Duration::from_millis(5 + round % 7));
        end(&children);
    }
    for who in 0..5 {
        let _ = fs::remove_file(format!("{directory}/writer-{who}"));
    }
    settles("killed-left", directory, before);
}

/// Directories in directories, each with the longest name, far deeper than a path may be; moved, and taken away again.
pub(crate) fn deep(directory: &str, depth: u64) {
    let before = used(directory);
    let name = CString::new("d".repeat(255)).unwrap_or_default();
    // SAFETY: a live C string.
    let top = unsafe { libc::open(c(directory).as_ptr(), libc::O_DIRECTORY) };
    let mut at = top;
    let mut made = 0;
    for _ in 0..depth {
        // SAFETY: a live C string; what is opened is closed below.
        let next = unsafe {
            if libc::mkdirat(at, name.as_ptr(), 0o700) < 0 {
                break;
            }
            libc::openat(at, name.as_ptr(), libc::O_DIRECTORY)
        };
        if at != top {
            close(at);
        }
        at = next;
        made += 1;
    }
    println!("deep ok {made}");
    // SAFETY: live C strings.
    say("deep-move", unsafe {
        libc::renameat(top, name.as_ptr(), top, c"moved".as_ptr())
    });
    // SAFETY: live C strings; into itself.
    say("deep-into-itself", unsafe {
        libc::renameat(top, c"moved".as_ptr(), at, c"inside".as_ptr())
    });
    // SAFETY: live C strings.
    say("deep-remove-full", unsafe {
        libc::unlinkat(top, c"moved".as_ptr(), libc::AT_REMOVEDIR)
    });
    for step in 0..made {
        // SAFETY: live C strings; each descriptor is closed once.
        unsafe {
            let above = libc::openat(at, c"..".as_ptr(), libc::O_DIRECTORY);
            close(at);
            let last = if step + 1 == made {
                c"moved".as_ptr()
            } else {
                name.as_ptr()
            };
            libc::unlinkat(above, last, libc::AT_REMOVEDIR);
            at = above;
        }
    }
    close(at);
    close(top);
    settles("deep-left", directory, before);
}

/// Attributes until there is no room, by many at once, and taken away again.
pub(crate) fn attributes(directory: &str) {
    let before = used(directory);
    let (children, set) = crowd(|who, tell| {
        let path = c(&format!("{directory}/attributes-{}", who % 6));
        let _ = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path.to_string_lossy().as_ref());
        let value = [7_u8; 900];
        let mut set = 0_i64;
        for turn in 0..200 {
            let name = c(&format!("user.a{}", turn % 60));
            // SAFETY: live C strings and a live value.
            let result = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), 900, 0) };
            set += i64::from(result == 0);
            if turn % 3 == who % 3 {
                // SAFETY: live C strings.
                unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) };
            }
        }
        let _ = tell.write_all(&set.to_ne_bytes());
    });
    println!("attributes ok {set}");
    end(&children);
    for who in 0..6 {
        let _ = fs::remove_file(format!("{directory}/attributes-{who}"));
    }
    settles("attributes-left", directory, before);
}

/// Ways to a file that lead around its name, and to memory that lies over it.
pub(crate) fn around(directory: &str) {
    const BYTES: usize = 128;
    let path = format!("{directory}/around");
    let before = used(directory);
    say_io("made", fs::write(&path, [5; 4096]));
    // `struct file_handle`: how many bytes, a kind, and the bytes (open_by_handle_at(2)).
    let mut handle = [0_u32; 2 + BYTES / 4];
    let mut mount = 0_i32;
    let name = c(&path);
    let at = libc::AT_FDCWD as u64;
    let mut ask = |kind: &str, flags: u64| {
        handle[0] = BYTES as u32;
        let arguments = [at, name.as_ptr().addr() as u64, handle.as_mut_ptr().addr() as u64];
        let result = call(
            libc::SYS_name_to_handle_at,
            &[
                arguments[0],
                arguments[1],
                arguments[2],
                (&raw mut mount).addr() as u64,
                flags,
            ],
        );
        say(kind, result);
    };
    ask("handle", 0);
    // AT_HANDLE_FID: one that need not be good for opening.
    ask("handle-for-telling", 0x200);
    let Ok(below) = File::open(directory) else { return };
    // FILEID_INO32_GEN, FILEID_INO64_GEN and FUSE's own numbers, of the first inodes.
    for (kind, words) in [(1_u32, 2_u32), (0x81, 3), (0x82, 6)] {
        for inode in 1..40_u32 {
            let mut forged = [0_u32; 2 + BYTES / 4];
            (forged[0], forged[1]) = (words * 4, kind);
            forged[2] = if kind == 1 { inode } else { 0 };
            forged[3] = if kind == 1 { 0 } else { inode };
            let fd = call(
                libc::SYS_open_by_handle_at,
                &[
                    below.as_raw_fd() as u64,
                    forged.as_mut_ptr().addr() as u64,
                    libc::O_RDONLY as u64,
                ],
            );
            if fd >= 0 || inode == 1 {
                say(&format!("forged-{kind:x}"), fd);
            }
        }
    }
    // A mapping that may only be read, written by way of /proc.
    let reading = File::open(&path);
    if let (Ok(reading), Ok(memory)) = (
        &reading,
        OpenOptions::new().read(true).write(true).open("/proc/self/mem"),
    ) {
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                8192,
                libc::PROT_READ,
                libc::MAP_SHARED,
                reading.as_raw_fd(),
                0,
            )
        };
        say_io("memory-read-only", memory.write_at(&[9; 16], start.addr() as u64));
        // The second page lies past the file's end.
        say_io(
            "memory-past-the-end",
            memory.write_at(&[9; 16], start.addr() as u64 + 4096),
        );
        say_io(
            "memory-read-past-the-end",
            memory.read_at(&mut [0; 16], start.addr() as u64 + 4096),
        );
        // SAFETY: an address of this process's own.
        say("memory-made-writable", unsafe {
            libc::mprotect(start, 8192, libc::PROT_READ | libc::PROT_WRITE)
        });
        // SAFETY: the mapping above, which nothing refers to: it would keep the file.
        unsafe { libc::munmap(start, 8192) };
    } else {
        println!("memory EACCES");
    }
    let as_it_was = fs::read(&path).is_ok_and(|bytes| bytes == [5; 4096]);
    println!("as-it-was ok {}", i64::from(as_it_was));
    // What was opened for one thing, opened again for another, and without a name.
    let _ = fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o400));
    if let Ok(reading) = &reading {
        say_io(
            "reopened",
            OpenOptions::new()
                .write(true)
                .open(format!("/proc/self/fd/{}", reading.as_raw_fd())),
        );
        let _ = fs::remove_file(&path);
        say_io(
            "reopened-without-a-name",
            OpenOptions::new()
                .write(true)
                .open(format!("/proc/self/fd/{}", reading.as_raw_fd())),
        );
    }
    drop(reading);
    settles("around-left", directory, before);
}
