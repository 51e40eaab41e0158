//! Another user at either end of a session's socket: nobody is told anything, and nothing that it says is believed.
//!
//! The kernel notes the credentials of the *thread* that listens or connects (unix(7), `SO_PEERCRED`), so a thread that
//! becomes somebody else stands for another user with this very process's number. Only root can make one.

use nexus_wire::packet::PacketSocket;
use nexus_wire::session::Question;
use nx::registry::{self, AskError, SESSIONS, ask, list, publish};
use nx_sec_host::facts;
use rustix::fs::{Gid, Uid};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use security_v2_host::say_skipped;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// An unprivileged user that nobody is.
const SOMEBODY: u32 = 64_127;

/// Whether this process can stand for somebody else.
fn can_be_somebody_else() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    // Not held against `NEXUS_REQUIRE_LIVE`: CI runs the tests as root as well.
    say_skipped("another user at a session's socket was NOT tried: only root can stand for one");
    false
}

/// Does this as another user, in a thread of its own.
fn as_somebody_else<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            rustix::thread::set_thread_groups(&[]).unwrap();
            let (uid, gid) = (Uid::from_raw(SOMEBODY), Gid::from_raw(SOMEBODY));
            rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            act()
        });
        thread.join().unwrap()
    })
}

struct Says;

impl registry::Answers for Says {
    fn answer(&mut self, question: Question) -> Result<serde_json::Value, String> {
        Ok(serde_json::json!({"question": question.as_str()}))
    }
}

/// Whoever listens from here on is the caller.
fn listen(socket: &OwnedFd) {
    rustix::net::listen(socket, 8).unwrap();
}

#[test]
fn a_socket_at_which_another_user_listens_is_no_session() {
    if !can_be_somebody_else() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (_entry, socket) = publish(place.path(), &facts("a", "s")).unwrap();
    let socket = socket.as_fd().try_clone_to_owned().unwrap();
    let listing = list(place.path()).unwrap();
    assert_eq!((listing.live.len(), listing.troubles.len()), (1, 0), "{listing:?}");
    as_somebody_else(|| listen(&socket));
    let listing = list(place.path()).unwrap();
    assert_eq!(listing.live.len(), 0, "{listing:?}");
    assert!(listing.troubles[0].why.contains("not permitted"), "{listing:?}");
}

#[test]
fn another_user_who_listens_is_not_asked() {
    if !can_be_somebody_else() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let facts = facts("a", "s");
    let (_entry, socket) = publish(place.path(), &facts).unwrap();
    let again = socket.as_fd().try_clone_to_owned().unwrap();
    registry::serve(socket, Says).unwrap();
    let answer = ask(place.path(), &facts, Question::Policy).unwrap();
    assert_eq!(answer["question"], "policy");
    as_somebody_else(|| listen(&again));
    let refused = ask(place.path(), &facts, Question::Policy);
    assert!(
        matches!(refused, Err(AskError::Kernel(rustix::io::Errno::PERM))),
        "{refused:?}"
    );
}

#[test]
fn another_user_who_asks_is_told_nothing() {
    if !can_be_somebody_else() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (_entry, socket) = publish(place.path(), &facts("a", "s")).unwrap();
    registry::serve(socket, Says).unwrap();
    // Somebody opened it to all: what the directory keeps out is not what is tried here.
    let sessions = place.path().join(SESSIONS);
    for path in [place.path(), &sessions, &sessions.join("a")] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let asked = |path: &Path| {
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let socket = socket.unwrap();
        rustix::net::connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
        let socket = PacketSocket::from(socket);
        // It may have hung up already.
        let _ = socket.send(&Question::Policy.encode(), &[]);
        socket.receive().map_or(0, |packet| packet.bytes().len())
    };
    assert!(asked(&sessions.join("a")) > 0, "its own user is told");
    assert_eq!(as_somebody_else(|| asked(&sessions.join("a"))), 0);
}

#[test]
fn a_directory_of_sessions_that_belongs_to_another_user_is_refused() {
    if !can_be_somebody_else() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let _held = publish(place.path(), &facts("a", "s")).unwrap();
    assert_eq!(list(place.path()).unwrap().live.len(), 1);
    std::os::unix::fs::chown(place.path().join(SESSIONS), Some(SOMEBODY), None).unwrap();
    let error = list(place.path()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
    assert!(error.to_string().contains(&format!("uid {SOMEBODY}")), "{error}");
}
