//! What can be done with descriptors and files beyond what they were given for.

use crate::raw::{c, call, close, say, say_io, try_call};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;

fn open(name: &str, path: &str, flags: i32) {
    // SAFETY: the path is a live C string.
    let fd = unsafe { libc::open(c(path).as_ptr(), flags, 0o600) };
    if say(name, fd) {
        if flags & (libc::O_WRONLY | libc::O_RDWR) != 0 {
            // SAFETY: the buffer is live.
            unsafe { libc::write(fd, b"broken".as_ptr().cast(), 6) };
        }
        close(fd);
    }
}

/// stdin was opened for reading only; this wants more of it.
pub(crate) fn reopen() {
    // SAFETY: the buffer is live; a write to a read-only descriptor.
    say("write", unsafe { libc::write(0, b"broken".as_ptr().cast(), 6) } as i64);
    for path in [
        "/proc/self/fd/0",
        "/dev/stdin",
        "/dev/fd/0",
        "/proc/thread-self/fd/0",
        "/proc/self/task/../fd/0",
    ] {
        open(&format!("{path}-write"), path, libc::O_WRONLY);
        open(&format!("{path}-both"), path, libc::O_RDWR);
        open(&format!("{path}-append"), path, libc::O_WRONLY | libc::O_APPEND);
        open(&format!("{path}-truncate"), path, libc::O_RDONLY | libc::O_TRUNC);
        // SAFETY: the path is a live C string.
        say(&format!("{path}-truncate-call"), unsafe {
            libc::truncate(c(path).as_ptr(), 0)
        });
    }
    // Over a path descriptor, and over another process's table.
    // SAFETY: the path is a live C string.
    let path_only = unsafe { libc::open(c"/proc/self/fd/0".as_ptr(), libc::O_PATH) };
    if path_only >= 0 {
        open("path-descriptor", &format!("/proc/self/fd/{path_only}"), libc::O_WRONLY);
    }
    // SAFETY: the child only waits to be killed.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: no memory is involved.
        unsafe { libc::pause() };
    }
    open("other-process", &format!("/proc/{child}/fd/0"), libc::O_WRONLY);
    // SAFETY: ends and reaps the child that was just made.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, std::ptr::null_mut(), 0);
    }
    // SAFETY: no memory is involved.
    say("truncate-descriptor", unsafe { libc::ftruncate(0, 0) });
    let at = libc::AT_FDCWD as u64;
    let (from, to) = (c("/proc/self/fd/0"), c("/tmp/linked"));
    try_call(
        "link",
        libc::SYS_linkat,
        &[at, from.as_ptr().addr() as u64, at, to.as_ptr().addr() as u64, 0x400],
    );
    try_call(
        "link-empty-path",
        libc::SYS_linkat,
        &[0, c"".as_ptr().addr() as u64, at, to.as_ptr().addr() as u64, 0x1000],
    );
    // SAFETY: a shared writable mapping of a read-only descriptor.
    let mapped = unsafe { libc::mmap(std::ptr::null_mut(), 4096, 3, libc::MAP_SHARED, 0, 0) };
    say("map-shared", if mapped == libc::MAP_FAILED { -1 } else { 0 });
}

/// stdout was opened for appending; what is there already should stay.
pub(crate) fn append() {
    let mut answers = Vec::new();
    let mut tell = |name: &str, result: i64| {
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        answers.push(format!(
            "{name} {}",
            if result >= 0 {
                "ok 0".into()
            } else {
                crate::raw::errno_name(errno)
            }
        ));
    };
    for path in ["/proc/self/fd/1", "/dev/stdout"] {
        // SAFETY: the path is a live C string.
        tell(
            &format!("{path}-truncate"),
            unsafe { libc::open(c(path).as_ptr(), libc::O_WRONLY | libc::O_TRUNC) }.into(),
        );
        // SAFETY: the path is a live C string.
        tell(
            &format!("{path}-write"),
            unsafe { libc::open(c(path).as_ptr(), libc::O_WRONLY) }.into(),
        );
        // SAFETY: the path is a live C string.
        tell(
            &format!("{path}-read"),
            unsafe { libc::open(c(path).as_ptr(), libc::O_RDONLY) }.into(),
        );
        // SAFETY: the path is a live C string.
        tell(
            &format!("{path}-truncate-call"),
            unsafe { libc::truncate(c(path).as_ptr(), 0) }.into(),
        );
    }
    for line in answers {
        eprintln!("{line}");
    }
}

/// What is open.
pub(crate) fn descriptors() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    for entry in entries.flatten() {
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        if !target.starts_with("/proc") {
            println!("{} -> {}", entry.file_name().to_string_lossy(), target.display());
        }
    }
}

/// Set-id bits, every way to set them.
pub(crate) fn set_id(directories: &[&str]) {
    for directory in directories {
        let file = |name: &str| format!("{directory}/{name}");
        let plain = file("plain");
        let _ = std::fs::write(&plain, b"#!/bin/sh\n");
        let at = libc::AT_FDCWD as u64;
        let path = c(&plain);
        let pointer = path.as_ptr().addr() as u64;
        // SAFETY: the path is a live C string.
        let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDWR) } as u64;
        for (name, mode) in [
            ("uid", 0o4755_u64),
            ("gid", 0o2755),
            ("dirty", 0xdead_0000_0000 | 0o4755),
            ("dirty-16", 0x10000 | 0o4755),
        ] {
            try_call(&format!("{directory} chmod-{name}"), libc::SYS_chmod, &[pointer, mode]);
            try_call(&format!("{directory} fchmod-{name}"), libc::SYS_fchmod, &[fd, mode]);
            try_call(
                &format!("{directory} fchmodat-{name}"),
                libc::SYS_fchmodat,
                &[at, pointer, mode],
            );
            try_call(&format!("{directory} fchmodat2-{name}"), 452, &[at, pointer, mode, 0]);
            for (way, number, args) in [
                ("open", libc::SYS_open, vec![0, 0o1102, mode]),
                ("creat", libc::SYS_creat, vec![0, mode]),
                ("mknod", libc::SYS_mknod, vec![0, 0o100_000 | mode, 0]),
            ] {
                let made = c(&file(&format!("{way}-{name}")));
                let mut args = args;
                args[0] = made.as_ptr().addr() as u64;
                try_call(&format!("{directory} {way}-{name}"), number, &args);
            }
            let made = c(&file(&format!("openat-{name}")));
            let pointer = made.as_ptr().addr() as u64;
            try_call(
                &format!("{directory} openat-{name}"),
                libc::SYS_openat,
                &[at, pointer, 0o1102, mode],
            );
            let made = c(&file(&format!("mknodat-{name}")));
            let pointer = made.as_ptr().addr() as u64;
            try_call(
                &format!("{directory} mknodat-{name}"),
                libc::SYS_mknodat,
                &[at, pointer, 0o100_000 | mode, 0],
            );
            let made = c(&file(&format!("mkdir-{name}")));
            try_call(
                &format!("{directory} mkdir-{name}"),
                libc::SYS_mkdir,
                &[made.as_ptr().addr() as u64, mode],
            );
            let how = [0o1102_u64, mode & 0o7777, 0];
            let made = c(&file(&format!("openat2-{name}")));
            let pointer = made.as_ptr().addr() as u64;
            try_call(
                &format!("{directory} openat2-{name}"),
                libc::SYS_openat2,
                &[at, pointer, how.as_ptr().addr() as u64, 24],
            );
            // An unnamed file, given a name afterwards.
            let here = c(directory);
            let unnamed = call(libc::SYS_open, &[here.as_ptr().addr() as u64, 0o20200002, mode]);
            say(&format!("{directory} tmpfile-{name}"), unnamed);
            if unnamed >= 0 {
                let from = c(&format!("/proc/self/fd/{unnamed}"));
                let made = c(&file(&format!("tmpfile-{name}")));
                call(
                    libc::SYS_linkat,
                    &[at, from.as_ptr().addr() as u64, at, made.as_ptr().addr() as u64, 0x400],
                );
            }
        }
        let device = c(&file("device"));
        for (name, kind) in [
            ("char", 0o020_600_u64),
            ("block", 0o060_600),
            ("char-dirty", 0x10000 | 0o020_600),
        ] {
            try_call(
                &format!("{directory} mknod-{name}"),
                libc::SYS_mknod,
                &[device.as_ptr().addr() as u64, kind, 0x103],
            );
        }
        let value = [1_u8, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let name = c("security.capability");
        try_call(
            &format!("{directory} capability-xattr"),
            libc::SYS_setxattr,
            &[
                pointer,
                name.as_ptr().addr() as u64,
                value.as_ptr().addr() as u64,
                20,
                0,
            ],
        );
        close(fd as i32);
    }
}

/// Changes that a protected path must not take: `write:PATH`, `remove:PATH`, `rename:FROM:TO`, `make:PATH`,
/// `directory:PATH`, `link:FROM:TO`, `symlink:TO:PATH`, `exchange:A:B`, `chmod:PATH`, `truncate:PATH`, `times:PATH`.
pub(crate) fn change(paths: &[&str]) {
    for text in paths {
        let parts: Vec<&str> = text.splitn(3, ':').collect();
        let at = libc::AT_FDCWD as u64;
        match parts.as_slice() {
            ["write", path] => {
                let file = OpenOptions::new().write(true).open(path);
                if let Some(mut file) = say_io(text, file) {
                    use std::io::Write;
                    let _ = file.write_all(b"broken");
                }
            }
            ["make", path] => {
                let file = OpenOptions::new().write(true).create_new(true).mode(0o755).open(path);
                if let Some(mut file) = say_io(text, file) {
                    use std::io::Write;
                    let _ = file.write_all(b"broken");
                }
            }
            ["directory", path] => drop(say_io(text, std::fs::create_dir(path))),
            ["remove", path] => drop(say_io(
                text,
                std::fs::remove_file(path).or_else(|_| std::fs::remove_dir(path)),
            )),
            ["truncate", path] => {
                // SAFETY: the path is a live C string.
                say(text, unsafe { libc::truncate(c(path).as_ptr(), 0) });
            }
            ["chmod", path] => {
                // SAFETY: the path is a live C string.
                say(text, unsafe { libc::chmod(c(path).as_ptr(), 0o777) });
            }
            ["times", path] => {
                // SAFETY: the path is a live C string; NULL means now.
                say(text, unsafe {
                    libc::utimensat(libc::AT_FDCWD, c(path).as_ptr(), std::ptr::null(), 0)
                });
            }
            ["rename", from, to] => drop(say_io(text, std::fs::rename(from, to))),
            ["link", from, to] => drop(say_io(text, std::fs::hard_link(from, to))),
            ["symlink", to, path] => drop(say_io(text, std::os::unix::fs::symlink(to, path))),
            ["exchange", a, b] => {
                let (a, b) = (c(a), c(b));
                try_call(
                    text,
                    libc::SYS_renameat2,
                    &[at, a.as_ptr().addr() as u64, at, b.as_ptr().addr() as u64, 2],
                );
            }
            _ => println!("{text} EINVAL"),
        }
    }
}
