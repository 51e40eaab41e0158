//! Ways to a file that the view does not hold.

use crate::raw::{c, call, say, say_io};

fn try_read(name: &str, path: &str) {
    if let Some(content) = say_io(name, std::fs::read(path)) {
        let text = String::from_utf8_lossy(&content);
        println!("{name}-content {}", text.lines().next().unwrap_or_default());
    }
}

/// Plain reads.
pub(crate) fn read(paths: &[&str]) {
    for path in paths {
        try_read(path, path);
    }
}

/// `secret` is a file of the host's that is not in the view.
pub(crate) fn escape(secret: &str) {
    try_read("plain", secret);
    for (name, prefix) in [
        ("self-root", "/proc/self/root"),
        ("thread-root", "/proc/thread-self/root"),
        ("init-root", "/proc/1/root"),
        ("init-cwd", "/proc/1/cwd"),
        ("self-cwd", "/proc/self/cwd/../../../../../../.."),
        ("dots", "/../../../../../.."),
        ("tmp-dots", "/tmp/../../../../.."),
        ("state-dots", "/state/../../../.."),
        ("var-tmp-dots", "/var/tmp/../../../.."),
        ("shm-dots", "/dev/shm/../../../.."),
        ("usr-dots", "/usr/../../.."),
        ("parent-cwd", "/proc/self/../1/cwd"),
    ] {
        try_read(name, &format!("{prefix}{secret}"));
    }
    for fd in 0..256 {
        try_read(&format!("init-fd-{fd}"), &format!("/proc/1/fd/{fd}"));
        if fd > 2 {
            try_read(&format!("own-fd-{fd}"), &format!("/proc/self/fd/{fd}{secret}"));
        }
    }
    // A working directory that is left open while the root changes would lead out.
    // SAFETY: no memory is involved but C strings that live.
    unsafe {
        let root = libc::open(c"/".as_ptr(), libc::O_RDONLY);
        say("chroot-again", libc::chroot(c"/tmp".as_ptr()));
        libc::fchdir(root);
        for _ in 0..64 {
            libc::chdir(c"..".as_ptr());
        }
    }
    try_read("after-chroot", secret.trim_start_matches('/'));
    let secret_path = c(secret);
    for name in ["/tmp/to-secret", "/state/to-secret", "/dev/shm/to-secret"] {
        let _ = std::os::unix::fs::symlink(secret, name);
        try_read(name, name);
        let linked = format!("{name}-hard");
        say(
            &linked,
            call(
                libc::SYS_link,
                &[secret_path.as_ptr().addr() as u64, c(&linked).as_ptr().addr() as u64],
            ),
        );
    }
    if let Ok(entries) = std::fs::read_dir("/proc/self/map_files") {
        for entry in entries.flatten().take(4) {
            let opened = std::fs::OpenOptions::new().write(true).open(entry.path());
            say_io("map-file-write", opened);
        }
    }
    let opened = std::fs::OpenOptions::new().write(true).open("/proc/self/exe");
    say_io("own-program-write", opened);
}

/// Files of /proc that speak to the kernel or to other processes.
pub(crate) fn proc_files() {
    for path in [
        "/proc/sysrq-trigger",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/kernel/hostname",
        "/proc/sys/kernel/sysrq",
        "/proc/sys/kernel/randomize_va_space",
        "/proc/sys/kernel/ns_last_pid",
        "/proc/sys/kernel/yama/ptrace_scope",
        "/proc/sys/kernel/shmmax",
        "/proc/sys/kernel/msgmax",
        "/proc/sys/fs/protected_symlinks",
        "/proc/sys/fs/mqueue/msg_max",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/net/ipv4/ip_unprivileged_port_start",
        "/proc/sys/net/ipv4/ping_group_range",
        "/proc/sys/user/max_user_namespaces",
        "/proc/sys/vm/overcommit_memory",
        "/proc/self/uid_map",
        "/proc/self/gid_map",
        "/proc/self/setgroups",
        "/proc/self/projid_map",
        "/proc/self/sched_group",
        "/proc/1/oom_score_adj",
        "/proc/1/oom_adj",
        "/proc/1/comm",
        "/proc/1/mem",
        "/proc/1/clear_refs",
        "/proc/1/coredump_filter",
        "/proc/1/timerslack_ns",
        "/proc/1/uid_map",
        "/proc/1/attr/current",
        "/proc/mtrr",
        "/proc/irq/default_smp_affinity",
        "/proc/acpi/wakeup",
        "/proc/bus/pci",
    ] {
        let opened = std::fs::OpenOptions::new().write(true).open(path);
        if let Some(mut file) = say_io(&format!("{path}-write"), opened) {
            use std::io::{Read, Write};
            // What is there already, where that can be read, so that a success changes nothing: the answer is what counts.
            let mut now = String::new();
            let _ = std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut now));
            let text = if now.trim().is_empty() { "1" } else { now.trim_end() };
            say_io(&format!("{path}-written"), file.write_all(text.as_bytes()));
        }
    }
    for path in [
        "/proc/1/environ",
        "/proc/1/mem",
        "/proc/1/maps",
        "/proc/1/auxv",
        "/proc/1/stack",
        "/proc/1/syscall",
        "/proc/1/io",
        "/proc/1/mountinfo",
        "/proc/1/fdinfo/3",
        "/proc/1/map_files",
        "/proc/1/pagemap",
        "/proc/1/personality",
        "/proc/kcore",
        "/proc/kmsg",
        "/proc/kpagecount",
        "/proc/vmallocinfo",
        "/proc/slabinfo",
        "/proc/timer_list",
        "/proc/sched_debug",
    ] {
        let opened = std::fs::File::open(path);
        if let Some(mut file) = say_io(&format!("{path}-open"), opened) {
            use std::io::Read;
            say_io(
                &format!("{path}-read"),
                file.read(&mut [0; 64]).and_then(|count| {
                    if count > 0 {
                        Ok(())
                    } else {
                        Err(std::io::Error::from_raw_os_error(libc::ENODEV))
                    }
                }),
            );
        }
    }
    for path in [
        "/proc/1/root",
        "/proc/1/cwd",
        "/proc/1/exe",
        "/proc/1/ns/net",
        "/proc/1/ns/user",
        "/proc/1/fd/3",
    ] {
        say_io(&format!("{path}-link"), std::fs::read_link(path));
    }
}
