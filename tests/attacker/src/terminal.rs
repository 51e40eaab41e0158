//! The caller's terminal.

use crate::raw::try_call;

pub(crate) fn run() {
    let fd = 0_u64;
    let byte = b"x";
    let at = byte.as_ptr().addr() as u64;
    try_call("TIOCSTI", libc::SYS_ioctl, &[fd, 0x5412, at]);
    try_call("TIOCSTI-dirty", libc::SYS_ioctl, &[fd, 0xffff_ffff_0000_5412, at]);
    let paste = [3_u8];
    try_call(
        "TIOCLINUX",
        libc::SYS_ioctl,
        &[fd, 0x541c, paste.as_ptr().addr() as u64],
    );
    try_call(
        "TIOCLINUX-dirty",
        libc::SYS_ioctl,
        &[fd, 0x1_0000_541c, paste.as_ptr().addr() as u64],
    );
    try_call("TIOCCONS", libc::SYS_ioctl, &[fd, 0x541d]);
    let discipline = 3_i32;
    try_call(
        "TIOCSETD",
        libc::SYS_ioctl,
        &[fd, 0x5423, (&raw const discipline).addr() as u64],
    );
    try_call("TIOCSIG", libc::SYS_ioctl, &[fd, 0x4004_5436, libc::SIGTERM as u64]);
    try_call("KDSKBENT", libc::SYS_ioctl, &[fd, 0x4b47, 0]);
    try_call("VT_ACTIVATE", libc::SYS_ioctl, &[fd, 0x5606, 1]);
    try_call("TIOCVHANGUP", libc::SYS_ioctl, &[fd, 0x5437]);
    // Input of the terminal as a signal for its whole foreground group, of which the program is only one.
    try_call("F_SETSIG", libc::SYS_fcntl, &[fd, 10, libc::SIGKILL as u64]);
    try_call(
        "O_ASYNC",
        libc::SYS_fcntl,
        &[fd, libc::F_SETFL as u64, libc::O_ASYNC as u64],
    );
    let on = 1_i32;
    try_call(
        "FIOASYNC",
        libc::SYS_ioctl,
        &[fd, 0x5452, (&raw const on).addr() as u64],
    );
    println!("ready ok 0");
    // Whoever has the other end writes now, and looks who is left.
    let mut line = String::new();
    let _ = std::io::stdin().read_line(&mut line);
}
