//! Messages between the services.

use nexus_wire::broker::{Reply, Request};
use nexus_wire::control::{Command, Event};
use nexus_wire::vfs::{FromVfsd, ToVfsd};

/// What init, the broker and the supervisor say to each other: a message that is understood means the same when it is sent
/// on.
pub fn wire_messages(data: &[u8]) -> bool {
    let mut accepted = false;
    if let Some(request) = Request::decode(data) {
        accepted = true;
        assert_eq!(request.encode(), data);
    }
    if let Some(reply) = Reply::decode(data) {
        accepted = true;
        assert_eq!(Reply::decode(&reply.encode()), Some(reply));
    }
    if let Some(event) = Event::decode(data) {
        accepted = true;
        assert_eq!(Event::decode(&event.encode()), Some(event));
    }
    if let Some(command) = Command::decode(data) {
        accepted = true;
        assert_eq!(Command::decode(&command.encode()), Some(command));
    }
    accepted
}

/// What the file server and a session say to each other.
pub fn vfs_messages(data: &[u8]) -> bool {
    let mut accepted = false;
    if let Ok(message) = ToVfsd::decode(data) {
        accepted = true;
        assert_eq!(ToVfsd::decode(&message.encode()), Ok(message));
    }
    if let Ok(message) = FromVfsd::decode(data) {
        accepted = true;
        assert_eq!(FromVfsd::decode(&message.encode()), Ok(message));
    }
    accepted
}
