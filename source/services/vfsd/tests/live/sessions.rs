//! Sessions: sharing, ending, and being killed.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nexus_abi::Reason;
use nexus_quota::Budget;
use nexus_wire::Bounded;
use nexus_wire::packet::PacketSocket;
use nexus_wire::vfs::{Budgets, FromVfsd, Refusal, ToVfsd};

use crate::Case;
use crate::world::{MIB, World, budget, errno};

pub(crate) const CASES: &[Case] = &[
    ("two_sessions_share_one_ledger_and_one_tree", share),
    ("each_session_hears_of_its_own_denials", attribution),
    ("who_asks_late_is_given_a_server_that_listens", late),
    ("state_stays_and_tmp_goes_with_the_last_session", lifetime),
    ("a_killed_server_leaves_no_mount_and_the_next_measures_the_disk", killed),
    ("the_latest_budget_holds_for_everybody", budgets),
    ("a_budget_below_use_lets_only_shrink", below_use),
    ("sessions_that_come_and_go_at_once_lose_nothing", come_and_go),
    ("the_socket_refuses_another_subject_and_nonsense", refusals),
    ("the_last_session_is_let_in_and_the_next_is_told_why_not", too_many),
    (
        "what_another_user_left_in_the_place_of_a_subject_is_not_used",
        foreign_owner,
    ),
    ("a_session_without_a_device_or_with_bad_words_is_told_why", bad_config),
];

/// The other user is the one that root's server serves: an ordinary user can be nobody else.
pub(crate) const ROOT_CASES: &[Case] = &[("another_users_connection_is_heard_by_nobody", other_user)];

const EDQUOT: i32 = 122;
const ECONNABORTED: i32 = 103;
const ENOTCONN: i32 = 107;

fn share(world: &World) {
    let mut one = world.join(budget(MIB, 100), budget(MIB, 100));
    let mut two = world.join(budget(MIB, 100), budget(MIB, 100));
    let three = world.join(budget(MIB, 100), budget(MIB, 100));
    assert!(one.fresh && !two.fresh);
    assert_eq!(one.vfsd_pid, two.vfsd_pid);
    world.inside(&one, |dirs| {
        fs::write(dirs.tmp.join("a"), vec![1; MIB as usize / 2]).unwrap()
    });
    world.inside(&two, |dirs| {
        assert_eq!(fs::read(dirs.tmp.join("a")).unwrap().len() as u64, MIB / 2);
        fs::write(dirs.tmp.join("b"), vec![1; MIB as usize / 2]).unwrap();
        assert_eq!(errno(fs::write(dirs.tmp.join("c"), b"x")), EDQUOT);
    });
    assert_eq!(one.usage().unwrap().0, two.usage().unwrap().0);
    drop(one);
    world.inside(&three, |dirs| {
        assert!(dirs.tmp.join("a").exists(), "tmp lives as long as one session does");
        fs::remove_file(dirs.tmp.join("a")).unwrap();
    });
    assert_eq!(two.usage().unwrap().0.used_bytes, MIB / 2);
}

/// Starts a program that waits until it is told to go on, so that its number is known before it does anything.
fn attributed(
    world: &World,
    connection: &vfsd::VfsdConnection,
    name: &str,
) -> (crate::world::Inside, std::io::PipeWriter) {
    let (mut go, tell) = std::io::pipe().unwrap();
    let inside = world.begin(connection, |dirs| {
        std::io::Read::read_exact(&mut go, &mut [0]).unwrap();
        // By a grandchild, as a program's usually are.
        let path = dirs.tmp.join(name);
        let script = format!("dd if=/dev/zero of={} bs=4096 count=64 2>/dev/null", path.display());
        assert!(
            !std::process::Command::new("sh")
                .args(["-c", &script, "true"])
                .status()
                .unwrap()
                .success()
        );
    });
    (inside, tell)
}

fn attribution(world: &World) {
    let mut one = world.join(budget(4096, 100), budget(0, 0));
    let mut two = world.join(budget(4096, 100), budget(0, 0));
    let (first, mut go_first) = attributed(world, &one, "from-one");
    one.attach(u32::try_from(first.pid).unwrap(), None).unwrap();
    let (second, mut go_second) = attributed(world, &two, "from-two");
    two.attach(u32::try_from(second.pid).unwrap(), None).unwrap();
    // Answered after Attach was heard.
    one.usage().unwrap();
    two.usage().unwrap();
    // The event is told while the process may be gone already, so the second goes first: a wrong guess shows.
    go_second.write_all(b"x").unwrap();
    let event = world.event(&mut two);
    assert_eq!(
        (event.name.as_bytes(), event.reason),
        (&b"from-two"[..], Reason::QuotaHardBytes)
    );
    second.end();
    go_first.write_all(b"x").unwrap();
    let event = world.event(&mut one);
    assert_eq!(event.name.as_bytes(), b"from-one");
    first.end();
    assert_eq!(two.next_message().unwrap(), None);
}

fn late(world: &World) {
    let config = world.config(budget(MIB, 100), budget(MIB, 100));
    // A server that was begun is gone by the time that it is asked; so is one that ran.
    for running in [false, true] {
        let other = running.then(|| world.join_roomy());
        let mut joining = vfsd::begin(&config).unwrap();
        drop(other);
        std::thread::sleep(Duration::from_millis(2200));
        joining.ask(None, Vec::new()).unwrap();
        let connection = joining.finish().unwrap();
        assert!(connection.fresh);
        world.inside(&connection, |dirs| fs::write(dirs.tmp.join("file"), b"x").unwrap());
    }
}

fn lifetime(world: &World) {
    let connection = world.join_roomy();
    world.inside(&connection, |dirs| {
        fs::write(dirs.tmp.join("scratch"), b"x").unwrap();
        fs::write(dirs.state.join("kept"), b"kept").unwrap();
        fs::create_dir(dirs.tmp.join("closed")).unwrap();
        fs::write(dirs.tmp.join("closed/inside"), b"x").unwrap();
        fs::set_permissions(
            dirs.tmp.join("closed"),
            std::os::unix::fs::PermissionsExt::from_mode(0o000),
        )
        .unwrap();
    });
    let server = connection.vfsd_pid;
    drop(connection);
    let mut connection = world.join_roomy();
    assert!(connection.fresh, "a new server, after the old one has ended");
    assert_ne!(connection.vfsd_pid, server);
    world.inside(&connection, |dirs| {
        assert_eq!(fs::read(dirs.state.join("kept")).unwrap(), b"kept");
        assert_eq!(fs::read_dir(&dirs.tmp).unwrap().count(), 0);
    });
    assert_eq!(connection.usage().unwrap().1.used_bytes, 4096);
    wait_for_scratch(world, 1);
}

/// Waits until no file server has the subject's files.
pub(crate) fn wait_for_end(world: &World) {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let lock = fs::File::open(world.subject_dir().join("lock")).unwrap();
    while rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        assert!(std::time::Instant::now() < until, "a file server is left");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Waits until only `wanted` scratch directories are left on the host.
pub(crate) fn wait_for_scratch(world: &World, wanted: usize) {
    let count = || {
        let names = fs::read_dir(world.subject_dir()).unwrap().flatten();
        names
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("tmp-"))
            .count()
    };
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while count() != wanted {
        assert!(
            std::time::Instant::now() < until,
            "{} scratch directories are left",
            count()
        );
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn killed(world: &World) {
    let mut connection = world.join_roomy();
    let (mut done, tell_done) = std::io::pipe().unwrap();
    let (mut go, mut tell_go) = std::io::pipe().unwrap();
    let inside = world.begin(&connection, |dirs| {
        let mut tell_done = tell_done.try_clone().unwrap();
        fs::write(dirs.state.join("kept"), vec![1; 100_000]).unwrap();
        fs::write(dirs.tmp.join("scratch"), vec![1; 100_000]).unwrap();
        tell_done.write_all(b"x").unwrap();
        std::io::Read::read_exact(&mut go, &mut [0]).unwrap();
        // The first may have been on its way when the server died.
        assert!([ECONNABORTED, ENOTCONN].contains(&errno(fs::metadata(dirs.state.join("other")))));
        assert!([ECONNABORTED, ENOTCONN].contains(&errno(fs::write(dirs.state.join("kept"), b"x"))));
    });
    drop(tell_done);
    std::io::Read::read_exact(&mut done, &mut [0]).unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(connection.vfsd_pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let timeout = rustix::event::Timespec { tv_sec: 60, tv_nsec: 0 };
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(
        connection.as_fd(),
        rustix::event::PollFlags::IN,
    )];
    assert!(rustix::event::poll(&mut fds, Some(&timeout)).unwrap() > 0);
    assert!(matches!(connection.next_message(), Err(vfsd::VfsdError::Gone)));
    tell_go.write_all(b"x").unwrap();
    inside.end();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains("vfsd-test"), "nothing is mounted outside sessions");
    // A new session starts a new server at once, although the old one's connection is still open here.
    let mut again = world.join_roomy();
    assert!(again.fresh);
    let (tmp, state) = again.usage().unwrap();
    assert_eq!(
        (state.used_bytes, state.used_inodes),
        World::measure(&world.subject_dir().join("state"))
    );
    assert_eq!((tmp.used_bytes, tmp.used_inodes), (0, 0));
    wait_for_scratch(world, 1);
    world.inside(&again, |dirs| {
        assert_eq!(fs::read(dirs.state.join("kept")).unwrap().len(), 100_000)
    });
}

fn budgets(world: &World) {
    let mut one = world.join(budget(MIB, 100), budget(MIB, 100));
    let mut two = world.join(budget(2 * MIB, 100), budget(MIB, 7));
    assert_eq!(one.usage().unwrap().0.budget.hard_bytes, 2 * MIB);
    world.inside(&one, |dirs| {
        fs::write(dirs.tmp.join("a"), vec![1; 2 * MIB as usize]).unwrap()
    });
    assert_eq!(two.usage().unwrap().1.budget.hard_inodes, 7);
}

fn below_use(world: &World) {
    let one = world.join(budget(0, 0), budget(MIB, 100));
    world.inside(&one, |dirs| {
        fs::write(dirs.state.join("a"), vec![1; MIB as usize / 2]).unwrap();
        fs::write(dirs.state.join("b"), vec![1; MIB as usize / 4]).unwrap();
    });
    let mut two = world.join(budget(0, 0), budget(MIB / 2, 1));
    world.inside(&two, |dirs| {
        assert_eq!(fs::read(dirs.state.join("a")).unwrap().len() as u64, MIB / 2);
        assert_eq!(errno(fs::File::create(dirs.state.join("c"))), EDQUOT);
        let mut file = fs::OpenOptions::new().append(true).open(dirs.state.join("b")).unwrap();
        assert_eq!(errno(file.write_all(b"x")), EDQUOT);
        assert_eq!(rustix::fs::statvfs(&dirs.state).unwrap().f_bavail, 0);
        fs::remove_file(dirs.state.join("a")).unwrap();
        file.write_all(b"x").unwrap();
    });
    assert_eq!(two.usage().unwrap().1.used_bytes, MIB / 4 + 4096);
}

fn come_and_go(world: &World) {
    use nexus_sys::process::{CloneFlags, Fork, clone, exit_now};
    const COUNTERS: u32 = 6;
    const ROUNDS: u32 = 12;
    let children: Vec<i32> = (0..COUNTERS)
        .map(|number| match clone(CloneFlags::NONE).unwrap() {
            Fork::Parent(child) => child.pid,
            Fork::Child => {
                let result = std::panic::catch_unwind(|| {
                    for round in 0..ROUNDS {
                        let connection = world.join_roomy();
                        world.inside(&connection, |dirs| {
                            let path = dirs.state.join(format!("count-{number}"));
                            let before = fs::read(&path).unwrap_or_default();
                            assert_eq!(before.len() as u32, round, "nothing that was written is lost");
                            fs::OpenOptions::new()
                                .create(true)
                                .append(true)
                                .open(&path)
                                .unwrap()
                                .write_all(b"x")
                                .unwrap();
                        });
                    }
                });
                exit_now(i32::from(result.is_err()))
            }
        })
        .collect();
    for pid in children {
        crate::world::Inside { pid }.end();
    }
    let mut connection = world.join_roomy();
    let (_, state) = connection.usage().unwrap();
    assert_eq!(
        (state.used_bytes, state.used_inodes),
        (u64::from(COUNTERS) * 4096, u64::from(COUNTERS))
    );
}

/// Where the file server listens.
pub(crate) fn socket_path(world: &World) -> PathBuf {
    let mut entries = fs::read_dir(world.subject_dir().join("../../../run")).unwrap();
    fs::canonicalize(entries.next().unwrap().unwrap().path()).unwrap()
}

/// Connects as no session does.
pub(crate) fn knock(path: &Path) -> PacketSocket {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    PacketSocket::from(socket)
}

pub(crate) const LITTLE: Budgets = Budgets {
    tmp: Budget {
        soft_bytes: None,
        hard_bytes: 4096,
        hard_inodes: 1,
    },
    state: Budget {
        soft_bytes: None,
        hard_bytes: 4096,
        hard_inodes: 1,
    },
    work: Budget::NOTHING,
};

pub(crate) fn hello(subject: &[u8], budgets: Budgets) -> Vec<u8> {
    let hello = ToVfsd::Hello {
        subject: Bounded::cut(subject),
        budgets,
        policy: Bounded::cut(b"00"),
    };
    hello.encode().to_vec()
}

fn refused(refusal: Refusal) -> FromVfsd {
    FromVfsd::Refused {
        refusal,
        stage: Bounded::cut(b""),
        errno: 0,
    }
}

/// What is answered.
pub(crate) fn answer(socket: &PacketSocket) -> FromVfsd {
    FromVfsd::decode(socket.receive().unwrap().bytes()).unwrap()
}

/// Fills the last place and one more.
fn too_many(world: &World) {
    const SESSIONS_MAX: usize = 256;
    let _first = world.join_roomy();
    let path = socket_path(world);
    // Those that said Hello stay as long as they like.
    let enter = || {
        let session = knock(&path);
        // One that is refused may be gone by now.
        let _ = session.send(&hello(b"demo", LITTLE), &[]);
        match answer(&session) {
            FromVfsd::Welcome { .. } => Some(session),
            other => {
                assert_eq!(other, refused(Refusal::TooManySessions));
                None
            }
        }
    };
    let mut others: Vec<PacketSocket> = (1..SESSIONS_MAX).map(|_| enter().unwrap()).collect();
    for _ in 0..3 {
        assert_eq!(answer(&knock(&path)), refused(Refusal::TooManySessions));
    }
    let error = world.try_join(budget(MIB, 100), budget(MIB, 100)).unwrap_err();
    assert!(
        matches!(error, vfsd::VfsdError::Refused(Refusal::TooManySessions)),
        "{error}"
    );
    drop(others.pop());
    // Who comes with the news of that end may still be refused.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    others.push(loop {
        if let Some(session) = enter() {
            break session;
        }
        assert!(std::time::Instant::now() < until, "no place becomes free");
    });
    assert_eq!(answer(&knock(&path)), refused(Refusal::TooManySessions));
}

fn other_user(world: &World) {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let connection = world.join_roomy();
    let path = socket_path(world);
    let open_to_all = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for directory in path.ancestors().skip(1).take(2) {
        open_to_all(directory, 0o755);
    }
    open_to_all(&path, 0o777);
    let served = fs::metadata(world.subject_dir()).unwrap().uid();
    assert_ne!(served, 0);
    let other = std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            // Of this thread alone.
            let id = rustix::fs::Uid::from_raw(served);
            rustix::thread::set_thread_res_uid(id, id, id).unwrap();
            knock(&path)
        });
        other.join().unwrap()
    });
    // It may be closed already.
    let _ = other.send(&hello(b"demo", LITTLE), &[]);
    assert!(other.receive().map_or(true, |answer| answer.bytes().is_empty()));
    let own = knock(&path);
    own.send(&hello(b"demo", LITTLE), &[]).unwrap();
    assert!(matches!(answer(&own), FromVfsd::Welcome { .. }));
    drop(connection);
}

fn foreign_owner(world: &World) {
    use std::os::unix::fs::{chown, symlink};
    const OTHER: u32 = 64_777;
    let mut config = world.config(budget(4096, 1), budget(4096, 1));
    if rustix::process::geteuid().is_root() {
        drop(vfsd::join(&config).unwrap());
        wait_for_end(world);
        chown(world.subject_dir(), Some(OTHER), None).unwrap();
    } else {
        // Nobody can give anything away: what is root's is led to.
        config.base_dir.push("led");
        fs::create_dir(&config.base_dir).unwrap();
        symlink("/", config.base_dir.join("subjects")).unwrap();
        "usr".clone_into(&mut config.subject);
    }
    let error = vfsd::join(&config).unwrap_err();
    assert!(
        error.to_string().contains("belongs to another user or group"),
        "{error}"
    );
    if rustix::process::geteuid().is_root() {
        // Root's own, it gives to whom it serves.
        chown(world.subject_dir(), Some(0), None).unwrap();
        drop(vfsd::join(&config).unwrap());
    }
}

fn refusals(world: &World) {
    let mut connection = world.join_roomy();
    let path = socket_path(world);
    let say = |packet: &[u8]| {
        let socket = knock(&path);
        socket.send(packet, &[]).unwrap();
        let answer = socket.receive().unwrap();
        assert!(answer.descriptors.is_empty());
        FromVfsd::decode(answer.bytes()).unwrap()
    };
    let budgets = LITTLE;
    assert_eq!(say(&hello(b"other", budgets)), refused(Refusal::Subject));
    let odd = Budgets {
        tmp: budget(4097, 1),
        ..budgets
    };
    assert_eq!(say(&hello(b"demo", odd)), refused(Refusal::Budget));
    assert_eq!(say(b"nonsense"), refused(Refusal::Protocol));
    // Who only looks is told what is used, and gets nothing else.
    let FromVfsd::Usage { tmp, .. } = say(&ToVfsd::QueryUsage.encode()) else {
        panic!("no usage");
    };
    assert_eq!(tmp.budget.hard_bytes, 256 * MIB);
    // None of them changed anything.
    assert_eq!(connection.usage().unwrap().0.budget.hard_bytes, 256 * MIB);
}

fn bad_config(world: &World) {
    let good = world.config(budget(4096, 1), budget(4096, 1));
    for subject in ["", ".", "..", "a/b", ".hidden", "a b", &"x".repeat(65)] {
        let config = vfsd::VfsdConfig {
            subject: subject.to_owned(),
            ..good.clone()
        };
        assert!(
            matches!(vfsd::join(&config), Err(vfsd::VfsdError::Subject(_))),
            "{subject:?}"
        );
    }
    let config = vfsd::VfsdConfig {
        policy: "no hex".to_owned(),
        ..good.clone()
    };
    assert!(matches!(vfsd::join(&config), Err(vfsd::VfsdError::Policy(_))));
    let config = vfsd::VfsdConfig {
        identity: Some(vfsd::Identity { uid: 0, gid: 0 }),
        ..good.clone()
    };
    assert!(matches!(vfsd::join(&config), Err(vfsd::VfsdError::Identity)));
    let config = vfsd::VfsdConfig {
        subject: "x".repeat(64),
        ..good
    };
    drop(vfsd::join(&config).unwrap());
}
