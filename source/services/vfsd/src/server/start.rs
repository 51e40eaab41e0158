//! From a forked child to a serving process.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nexus_abi::Area;
use nexus_quota::Ledger;
use nexus_sys::hurry::{Also, Hurrier};
use nexus_wire::packet::PacketSocket;
use nexus_wire::vfs::{Budgets, FromVfsd, PolicyHex, Refusal, SubjectName};
use nexus_wire::{Bounded, vfs};
use rustix::io::Errno;

use super::attribute::session_of;
use super::marker::Markers;
use super::sessions::Sessions;
use super::{drop, mount};
use crate::Identity;
use crate::fs::books::Books;
use crate::fs::events::EventQueue;
use crate::fs::serve::Server;
use crate::fs::serve::quiet;
use crate::fs::who::Who;
use crate::fs::{Vfs, Zone};
use crate::layout::{Backing, measure};

/// Between two looks at those who look at the subject's processes: what they learn is for nobody who waits for it.
const HURRY_PAUSE: Duration = Duration::from_millis(20);

/// What the starter prepared.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) subject: SubjectName,
    pub(crate) budgets: Budgets,
    pub(crate) policy: PolicyHex,
    pub(crate) owner: Identity,
    /// Whether the starter is root, so that this process has another identity to become.
    pub(crate) from_root: bool,
    /// The starter's user: only it may connect.
    pub(crate) peer_uid: u32,
    /// The subject's directory.
    pub(crate) dir: OwnedFd,
    /// The lock, held.
    pub(crate) lock: OwnedFd,
    /// Where later sessions connect, listening.
    pub(crate) listener: OwnedFd,
    /// Its path, to be removed at the end.
    pub(crate) socket_path: std::path::PathBuf,
    /// The starter: the first session.
    pub(crate) first: PacketSocket,
    /// Where markers go.
    pub(crate) markers: Option<OwnedFd>,
    /// Where somebody with the right writes our identity maps: we say that we have a namespace, it says when it is done.
    /// `None` for an ordinary user, who writes its own.
    pub(crate) mapper: Option<PacketSocket>,
}

/// Serves until the last session has ended. Run in a process of its own that has one thread.
pub(crate) fn run(start: Start) {
    // Ours to speak over once the start is given up with everything in it.
    let Ok(first) = start.first.as_fd().try_clone_to_owned() else {
        return;
    };
    let mut complaints = Some(first);
    if let Err((stage, errno)) = serve(start, &mut complaints)
        && let Some(first) = complaints
    {
        let refused = FromVfsd::Refused {
            refusal: Refusal::Start,
            stage: Bounded::cut(stage.as_bytes()),
            errno: errno.raw_os_error().unsigned_abs(),
        };
        let _ = PacketSocket::from(first).try_send(&refused.encode(), &[]);
    }
}

fn serve(start: Start, complaints: &mut Option<OwnedFd>) -> Result<(), (&'static str, Errno)> {
    let at = |stage: &'static str| move |errno: Errno| (stage, errno);
    let mut keep = vec![
        start.dir.as_fd(),
        start.lock.as_fd(),
        start.listener.as_fd(),
        start.first.as_fd(),
    ];
    keep.extend(complaints.as_ref().map(AsFd::as_fd));
    keep.extend(start.mapper.as_ref().map(AsFd::as_fd));
    keep.extend(start.markers.as_ref().map(AsFd::as_fd));
    drop::leave_starter(&keep).map_err(at("leaving the starter's session"))?;
    let limits = drop::limits();
    enter_namespace(&start)?;
    let device = mount::open_device().map_err(at("opening `/dev/fuse`"))?;
    let mount = mount::make(&device, start.owner).map_err(at("mounting a FUSE file system"))?;
    drop::become_owner(start.owner, start.from_root).map_err(at("giving up privileges"))?;
    let mounts = mount::Mounts::begin(mount).map_err(at("making a thread that copies mounts"))?;

    // Whoever looks into `/proc` at the subject's processes.
    let hurrier = quiet::prepare().and_then(|()| Hurrier::start(quiet::LOOK_UP, HURRY_PAUSE));
    let hurrier = hurrier.map_err(|error| ("starting threads", drop::errno_of(error)))?;
    hurrier.look_after_here();

    let backing = Backing::open(start.dir.as_fd()).map_err(at("making the subject's directories"))?;
    let used = measure(backing.state.as_fd()).map_err(at("measuring what the state holds"))?;
    let ledger = Ledger::default()
        .with(Area::Tmp, start.budgets.tmp, nexus_quota::Amount::ZERO)
        .with(Area::State, start.budgets.state, used)
        .with(Area::Work, start.budgets.work, nexus_quota::Amount::ZERO);
    let events = Arc::new(EventQueue::new().map_err(at("making an event queue"))?);
    let books = Arc::new(Books::new(ledger, start.policy.clone(), Arc::clone(&events)));
    let open = |zone| match zone {
        Zone::Tmp => backing.tmp.try_clone().map_err(drop::errno_of),
        Zone::Shm => backing.shm.try_clone().map_err(drop::errno_of),
        Zone::State => backing.state.try_clone().map_err(drop::errno_of),
        Zone::Work(_) => Err(Errno::INVAL),
    };
    let who = Arc::new(Who::new(session_of));
    let vfs = Vfs::new(Arc::clone(&books), start.owner, limits, Arc::clone(&who), open)
        .map_err(at("opening the subject's directories"))?;

    let (works, places) = (vfs.works(), vfs.places());
    // The kernel lets in only who has our user and group; nobody looks a second time, which would refuse requests that
    // the kernel makes on nobody's behalf.
    let server = Server::new(device, vfs).map_err(at("shaking hands with the kernel"))?;
    let (ended, nobody) = (Arc::clone(&events), Arc::clone(&who));
    let also = Also::as_here();
    std::thread::Builder::new()
        .name("vfsd-serve".to_owned())
        .spawn(move || {
            also.into_iter().for_each(Also::look_after_here);
            server.run();
            nobody.finish();
            ended.finish();
        })
        .map_err(|error| ("starting threads", drop::errno_of(error)))?;

    let sessions = Sessions {
        markers: Markers::new(start.markers, &start.subject),
        subject: start.subject,
        peer_uid: start.peer_uid,
        books,
        works,
        places,
        events,
        who,
        mounts,
        listener: start.listener,
        socket_path: start.socket_path,
    };
    // Leftovers of killed servers: nobody waits for their removal.
    let (backing, dir) = (Arc::new(backing), Arc::new(start.dir));
    let (leftovers, below) = (Arc::clone(&backing), Arc::clone(&dir));
    let cleaning = std::thread::Builder::new()
        .name("vfsd-clean".to_owned())
        .spawn(move || leftovers.remove_leftovers(below.as_fd()));
    // From here on the session alone has its end of the connection: when we are done with it, it is told.
    *complaints = None;
    sessions.serve(start.first);
    // The files are served no more. A new server may begin before the scratch is gone: it has its own.
    std::mem::drop(start.lock);
    let _ = backing.remove_scratch(dir.as_fd());
    if let Ok(cleaning) = cleaning {
        let _ = cleaning.join();
    }
    Ok(())
}

/// Enters a user namespace in which our identity is what it was.
fn enter_namespace(start: &Start) -> Result<(), (&'static str, Errno)> {
    let failed = |error: std::io::Error| ("entering a user namespace", drop::errno_of(error));
    nexus_sys::userns::unshare_user_and_mounts().map_err(failed)?;
    match &start.mapper {
        None => nexus_sys::userns::map_self(start.owner.uid, start.owner.gid).map_err(failed),
        Some(mapper) => {
            let stage = "having our identity mapped";
            mapper.send(b"map", &[]).map_err(|errno| (stage, errno))?;
            let answer = mapper.receive().map_err(|errno| (stage, errno))?;
            if answer.bytes() == b"mapped" {
                Ok(())
            } else {
                Err((stage, Errno::PERM))
            }
        }
    }
}

/// What a session is told at the start.
pub(crate) fn welcome(fresh: bool) -> vfs::FromVfsd {
    FromVfsd::Welcome {
        vfsd_pid: std::process::id(),
        fresh,
    }
}
