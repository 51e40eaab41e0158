//! As many descriptors on their way as the user may have: nobody of the user's can send one any more.

use crate::raw::{call, close, socket};
use crate::sockets::{connect_raw, loopback};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Sends descriptors that nobody takes, until none can be sent any more or so many are.
fn fill(most: usize) -> (Vec<(UnixStream, UnixStream)>, i32) {
    let (mut pairs, mut sent) = (Vec::new(), 0);
    loop {
        let Ok((one, other)) = UnixStream::pair() else {
            return (pairs, 0);
        };
        one.set_nonblocking(true).ok();
        loop {
            let byte = [0_u8; 1];
            let mut vector = libc::iovec {
                iov_base: byte.as_ptr().cast_mut().cast(),
                iov_len: 1,
            };
            // A `cmsghdr` of one descriptor: its length, then level and type, then the number.
            let kind = u64::from(libc::SOL_SOCKET as u32) | u64::from(libc::SCM_RIGHTS as u32) << 32;
            let mut control = [20, kind, 0_u64];
            // SAFETY: all zeroes is a valid header.
            let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
            header.msg_iov = &raw mut vector;
            header.msg_iovlen = 1;
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = size_of_val(&control) as _;
            // SAFETY: the header and all that it names are live.
            if unsafe { libc::sendmsg(one.as_raw_fd(), &raw const header, 0) } == 1 {
                sent += 1;
                if sent < most {
                    continue;
                }
            }
            let error = std::io::Error::last_os_error().raw_os_error();
            if error == Some(libc::ETOOMANYREFS) || sent >= most {
                pairs.push((one, other));
                return (pairs, if sent >= most { 0 } else { error.unwrap_or(0) });
            }
            break;
        }
        pairs.push((one, other));
    }
}

/// Asks for what is made inside, with all of them on their way and after that. Where others meet it in a directory, it says `full`
/// and `after` there, and waits each time until they have answered.
pub(crate) fn run(port: u16, most: usize, others: Option<&Path>) {
    let ask = |what: &str| {
        // A name of its own: refused or not, it is answered.
        let fd = socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        let to_itself = loopback(1);
        let result = connect_raw(fd, &to_itself);
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        println!("{what}-inside ok {}", if result == 0 { 0 } else { errno });
        close(fd);
        let name = c"held";
        let file = call(libc::SYS_memfd_create, &[name.as_ptr().addr() as u64, 0]);
        println!("{what}-memory ok {}", i32::from(file >= 0));
        close(file as i32);
        let fd = socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        println!("{what}-outside ok {}", i32::from(connect_raw(fd, &loopback(port)) == 0));
        close(fd);
        if what != "before" {
            others.iter().for_each(|place| meet(place, what));
        }
    };
    // Once it is answered, whoever judges has all that it needs.
    ask("before");
    let (pairs, errno) = fill(most);
    println!("full ok {errno}");
    ask("full");
    drop(pairs);
    ask("after");
    std::process::exit(0);
}

/// Goes on once what was said is taken away, or nobody answers any more.
fn meet(place: &Path, what: &str) {
    let (said, over) = (place.join(what), place.join("over"));
    let _ = std::fs::write(&said, "");
    while said.exists() && !over.exists() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}
