//! A socket that was registered before it moved: epoll(7) knows the file, not the number.

use crate::caller::Caller;
use crate::taken::Taken;
use nexus_sys::epoll::{Registration, move_registration};
use nexus_sys::procfs;
use std::os::fd::{AsFd, OwnedFd};

/// Registrations, and in what.
pub(crate) struct Registered {
    /// Let go of as all that is taken: by the time that it was, it may have been any file.
    epoll: Taken,
    registrations: Vec<Registration>,
}

/// How many epoll instances of a caller are looked at, how much of what is said of them together, and how many registrations of a socket are moved, each by
/// a thread: loops have one or two instances, and a socket once in each.
const INSTANCES_MAX: usize = 64;
const TEXT_BYTES_MAX: u64 = 4 << 20;
const REGISTRATIONS_MAX: usize = 1024;

/// Every registration of the file in the caller's own instances, also under a number that the caller has closed since: it lasts
/// as long as the file, epoll(7).
pub(crate) fn registrations(caller: &Caller<'_>, socket: &OwnedFd, instances: &[u32]) -> Vec<Registered> {
    let Ok(inode) = rustix::fs::fstat(socket).map(|stat| stat.st_ino) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut left = REGISTRATIONS_MAX;
    let mut text_left = TEXT_BYTES_MAX;
    for number in instances.iter().take(INSTANCES_MAX) {
        // The kernel makes the whole of it for the first byte: many numbers of one large instance are not looked at one by one.
        if text_left == 0 {
            break;
        }
        let text = procfs::read_at_most(caller.tid(), &format!("fdinfo/{number}"), text_left);
        let text = String::from_utf8(text.unwrap_or_default()).unwrap_or_default();
        text_left = text_left.saturating_sub(text.len() as u64);
        let registrations: Vec<Registration> = text.lines().filter_map(|line| parse(line, inode)).take(left).collect();
        if registrations.is_empty() {
            continue;
        }
        left = left.saturating_sub(registrations.len());
        // The number may mean something else by now: then adding fails, or the program confused only itself.
        if let Ok(epoll) = caller.take(u64::from(*number)) {
            found.push(Registered { epoll, registrations });
        }
    }
    found
}

/// `tfd:        5 events:       19 data:                5  pos:0 ino:1b6a sdev:8`, proc_pid_fdinfo(5).
fn parse(line: &str, inode: u64) -> Option<Registration> {
    let mut words = line
        .split(|c: char| c == ':' || c.is_ascii_whitespace())
        .filter(|word| !word.is_empty());
    let mut field = |name: &str| {
        words.find(|word| *word == name)?;
        words.next()
    };
    let number = field("tfd")?.parse().ok()?;
    let events = u32::from_str_radix(field("events")?, 16).ok()?;
    let data = u64::from_str_radix(field("data")?, 16).ok()?;
    let other = u64::from_str_radix(field("ino")?, 16).ok()?;
    (other == inode).then_some(Registration { number, events, data })
}

/// Registers the new file where the old one was.
pub(crate) fn repair(registered: &[Registered], old: &OwnedFd, new: &OwnedFd) {
    for Registered { epoll, registrations } in registered {
        for registration in registrations {
            // An instance that takes no more says nothing of this socket, as it would have said nothing of the old one.
            let _ = move_registration(epoll.as_fd(), *registration, old.as_fd(), new.as_fd());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_read_and_others_are_not() {
        let line = "tfd:        5 events:     2019 data: ffffffff00000005  pos:0 ino:1b6a sdev:8";
        let expected = Registration {
            number: 5,
            events: 0x2019,
            data: 0xffff_ffff_0000_0005,
        };
        assert_eq!(parse(line, 0x1b6a), Some(expected));
        assert_eq!(parse(line, 0x1b6b), None);
        assert_eq!(parse("flags:\t02", 0x1b6a), None);
        assert_eq!(parse("", 0), None);
    }
}
