//! The change of readers, over a socket that stands for the device: each packet is a request.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::super::super::dispatch::tests::{Scratch, vfs};
use super::super::Server;
use super::super::crew::Crew;
use super::Quiet;

/// `FUSE_GETATTR` of the root, as the kernel asks for it (linux/fuse.h).
fn request(unique: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in [56_u32, 3] {
        bytes.extend(number.to_ne_bytes());
    }
    for number in [unique, 1] {
        bytes.extend(number.to_ne_bytes());
    }
    bytes.resize(56, 0);
    bytes
}

/// A crew at work, and the kernel's side of its device.
fn at_work(act: impl FnOnce(&Arc<Crew>, &OwnedFd)) {
    super::prepare().unwrap();
    let scratch = Scratch::new();
    let (kernel, device) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let crew = Arc::new(Crew::new(Server {
        device,
        vfs: vfs(&scratch).0,
    }));
    let serves = {
        let crew = Arc::clone(&crew);
        std::thread::spawn(move || crew.serve())
    };
    act(&crew, &kernel);
    drop(kernel);
    serves.join().unwrap();
}

fn is_answered(kernel: &OwnedFd, unique: u64) {
    rustix::net::send(kernel, &request(unique), SendFlags::empty()).unwrap();
    let mut answer = [0; 512];
    let (count, _) = rustix::net::recv(kernel, &mut answer, RecvFlags::empty()).unwrap();
    assert!(count > 16);
    assert_eq!(answer[8..16], unique.to_ne_bytes());
}

#[test]
fn each_request_is_answered_whoever_reads() {
    at_work(|crew, kernel| {
        for round in 0..200 {
            crew.begin_quiet();
            for unique in 0..round % 4 {
                is_answered(kernel, unique + 1);
            }
            crew.end_quiet(None);
            for unique in 0..round % 3 {
                is_answered(kernel, unique + 1);
            }
        }
        crew.begin_quiet();
    });
}

#[test]
fn requests_that_come_while_readers_change_are_all_answered() {
    at_work(|crew, kernel| {
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    crew.begin_quiet();
                    std::thread::yield_now();
                    crew.end_quiet(None);
                }
            });
            for unique in 1..3000 {
                is_answered(kernel, unique);
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    });
}

#[test]
fn where_there_is_no_thread_for_it_the_others_go_on() {
    at_work(|crew, kernel| {
        crew.begin_quiet();
        is_answered(kernel, 1);
        drop(super::Gone(crew));
        is_answered(kernel, 2);
        crew.begin_quiet();
        assert_eq!(crew.lock().quiet, Quiet::Refused);
        assert!(!crew.is_quiet());
        is_answered(kernel, 3);
    });
}
