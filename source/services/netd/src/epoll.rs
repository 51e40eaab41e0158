//! A socket that was registered before it moved: epoll(7) knows the file, not the number.

use crate::caller::Caller;
use crate::taken::Taken;
use nexus_sys::epoll::{Registration, move_registration};
use nexus_sys::process::is_same_file;
use nexus_sys::procfs;
use std::os::fd::{AsFd, OwnedFd};

/// Registrations, and in what.
pub(crate) struct Registered {
    /// Let go of as all that is taken: by the time that it was, it may have been any file.
    epoll: Taken,
    registrations: Vec<Registration>,
}

/// How many epoll instances of a caller are looked at: loops have one or two.
const INSTANCES_MAX: usize = 64;

/// How much of what is said of each is read: some 50,000 registrations. The kernel makes the whole of it for the first byte, so
/// many numbers of one large instance are looked at once. How many registrations there are in all is bounded for each user,
/// epoll(7).
const TEXT_BYTES_MAX: u64 = 4 << 20;

/// How many registrations of a socket are moved, each by a thread: a socket is in a loop once.
const REGISTRATIONS_MAX: usize = 1024;

/// Every registration of the file in the caller's own instances, also under a number that the caller has closed since: it lasts
/// as long as the file, epoll(7).
pub(crate) fn registrations(caller: &Caller<'_>, socket: &OwnedFd, instances: &[u32]) -> Vec<Registered> {
    let Ok(inode) = rustix::fs::fstat(socket).map(|stat| stat.st_ino) else {
        return Vec::new();
    };
    let read = |number: u32| {
        let text = procfs::read_at_most(caller.tid(), &format!("fdinfo/{number}"), TEXT_BYTES_MAX);
        text.unwrap_or_default()
    };
    // Where nobody can tell they are two.
    let is_same = |one, other| is_same_file(caller.tid(), one, other).unwrap_or(false);
    let found = listed(&distinct(instances, is_same), inode, read);
    let take = |(number, registrations)| {
        // The number may mean something else by now: then adding fails, or the program confused only itself.
        let epoll = caller.take(u64::from(number)).ok()?;
        Some(Registered { epoll, registrations })
    };
    found.into_iter().filter_map(take).collect()
}

/// One number for each instance, and no more than are looked at.
fn distinct(instances: &[u32], is_same: impl Fn(u32, u32) -> bool) -> Vec<u32> {
    let mut found: Vec<u32> = Vec::new();
    for number in instances {
        if found.len() >= INSTANCES_MAX {
            break;
        }
        if !found.iter().any(|known| is_same(*known, *number)) {
            found.push(*number);
        }
    }
    found
}

/// `read` says what proc_pid_fdinfo(5) has of a number.
fn listed(instances: &[u32], inode: u64, read: impl Fn(u32) -> Vec<u8>) -> Vec<(u32, Vec<Registration>)> {
    let mut left = REGISTRATIONS_MAX;
    let mut found = Vec::new();
    for number in instances {
        if left == 0 {
            break;
        }
        let text = String::from_utf8(read(*number)).unwrap_or_default();
        let registrations: Vec<Registration> = text.lines().filter_map(|line| parse(line, inode)).take(left).collect();
        left = left.saturating_sub(registrations.len());
        if !registrations.is_empty() {
            found.push((*number, registrations));
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

    const LINE: &str = "tfd:        5 events:       19 data:                5  pos:0 ino:7 sdev:8\n";

    /// Which numbers were read, and how many registrations were found.
    fn read_and_found(instances: &[u32], text: &str) -> (Vec<u32>, usize) {
        let numbers = std::cell::RefCell::new(Vec::new());
        let read = |number| {
            numbers.borrow_mut().push(number);
            text.as_bytes().to_vec()
        };
        let found = listed(instances, 7, read);
        (numbers.into_inner(), found.iter().map(|(_, found)| found.len()).sum())
    }

    #[test]
    fn a_socket_that_is_in_a_few_loops_is_found_in_each() {
        assert_eq!(read_and_found(&[3, 4], LINE), (vec![3, 4], 2));
        let other = LINE.replace("ino:7", "ino:8");
        assert_eq!(
            read_and_found(&[3, 4], &format!("{other}{LINE}{other}")),
            (vec![3, 4], 2)
        );
        assert_eq!(read_and_found(&[3, 4], &other), (vec![3, 4], 0));
    }

    #[test]
    fn no_more_registrations_are_moved_than_is_said() {
        assert_eq!(
            read_and_found(&[3, 4], &LINE.repeat(REGISTRATIONS_MAX - 1)),
            (vec![3, 4], REGISTRATIONS_MAX)
        );
        assert_eq!(
            read_and_found(&[3, 4], &LINE.repeat(REGISTRATIONS_MAX)),
            (vec![3], REGISTRATIONS_MAX)
        );
    }

    #[test]
    fn many_numbers_of_one_instance_are_looked_at_once_and_no_more_instances_than_is_said() {
        let many: Vec<u32> = (0..).take(INSTANCES_MAX * 4).collect();
        let most = many.get(..INSTANCES_MAX).unwrap().to_vec();
        assert_eq!(distinct(&many, |_, _| true), [0]);
        assert_eq!(distinct(&many, |_, _| false), most);
        // Each has four numbers.
        let firsts: Vec<u32> = many.iter().copied().filter(|number| number % 4 == 0).collect();
        assert_eq!(distinct(&many, |one, other| one / 4 == other / 4), firsts);
        assert_eq!(distinct(&most, |one, other| one == other), most);
    }
}
