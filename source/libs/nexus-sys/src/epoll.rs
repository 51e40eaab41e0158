//! Moving a registration from one file to another, behind the same number: epoll(7).

use crate::check;
use crate::hurry::{Also, Hurried};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// A registration, as proc_pid_fdinfo(5) tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The number under which the file was registered. An epoll instance knows a registration by file *and* number.
    pub number: i32,
    /// `EPOLL*`.
    pub events: u32,
    /// What it tells its owner.
    pub data: u64,
}

/// `epoll_ctl(EPOLL_CTL_DEL, old)` and `epoll_ctl(EPOLL_CTL_ADD, new)` epoll_ctl(2), each under the owner's number.
///
/// Done in a thread with a descriptor table of its own (`unshare(CLONE_FILES)`, unshare(2)), where the number is free to
/// mean one and then the other. What the number means elsewhere in this process may be closed by that in the last place: that
/// thread hurries ([`Hurried`]) where the caller is looked after.
///
/// # Errors
/// Why the new file could not be registered; `EAGAIN` without a thread.
pub fn move_registration(
    epoll: BorrowedFd<'_>,
    registration: Registration,
    old: BorrowedFd<'_>,
    new: BorrowedFd<'_>,
) -> io::Result<()> {
    let Registration { number, events, data } = registration;
    let (epoll, old, new) = (epoll.as_raw_fd(), old.as_raw_fd(), new.as_raw_fd());
    let also = Also::as_here();
    let work = move || -> io::Result<()> {
        also.into_iter().for_each(Also::look_after_here);
        let _hurried = Hurried::now();
        // SAFETY: from here on this thread's table is its own copy: what it does with numbers is nobody else's matter.
        check(unsafe { libc::unshare(libc::CLONE_FILES) }.into())?;
        let above = number.checked_add(1).ok_or(io::Error::from_raw_os_error(libc::EBADF))?;
        let copy = |fd: i32| -> io::Result<i32> {
            // SAFETY: makes one more number for a file that the caller holds open.
            let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, above) };
            check(copy.into()).map(|_| copy)
        };
        let (epoll, old, new) = (copy(epoll)?, copy(old)?, copy(new)?);
        // SAFETY: in this thread's own table, where no owner of the number is left.
        check(unsafe { libc::dup3(old, number, libc::O_CLOEXEC) }.into())?;
        let mut event = libc::epoll_event { events, u64: data };
        // One that is not there any more needs no end.
        // SAFETY: `event` is live; deleting ignores it.
        unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_DEL, number, &raw mut event) };
        // SAFETY: as above.
        check(unsafe { libc::dup3(new, number, libc::O_CLOEXEC) }.into())?;
        // SAFETY: `event` is live, and the kernel copies it.
        check(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, number, &raw mut event) }.into()).map(drop)
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .stack_size(64 * 1024)
            .spawn_scoped(scope, work)?;
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::from_raw_os_error(libc::EIO)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_was_registered_wakes_for_the_new_file_and_no_longer_for_the_old() {
        let (old, mut old_peer) = UnixStream::pair().unwrap();
        let (new, mut new_peer) = UnixStream::pair().unwrap();
        let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap();
        let number = old.as_raw_fd();
        let flags = rustix::event::epoll::EventFlags::IN;
        rustix::event::epoll::add(&epoll, &old, rustix::event::epoll::EventData::new_u64(7), flags).unwrap();
        let registration = Registration {
            number,
            events: flags.bits(),
            data: 7,
        };
        move_registration(epoll.as_fd(), registration, old.as_fd(), new.as_fd()).unwrap();
        let heard = |wait: i64| {
            let mut events = Vec::with_capacity(4);
            let wait = rustix::event::Timespec {
                tv_sec: 0,
                tv_nsec: wait,
            };
            rustix::event::epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), Some(&wait)).unwrap();
            events.iter().map(|event| event.data.u64()).collect::<Vec<_>>()
        };
        old_peer.write_all(b"x").unwrap();
        assert_eq!(heard(1_000_000), Vec::<u64>::new());
        new_peer.write_all(b"x").unwrap();
        assert_eq!(heard(999_999_999), [7]);
        drop(new);
    }
}
