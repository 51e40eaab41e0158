//! What the host does to the files while they are served.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use nexus_abi::Reason;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::Pid;

use crate::Case;
use crate::stalls::Stopped;
use crate::world::{MIB, World, budget, errno, eventually};

pub(crate) const CASES: &[Case] = &[
    (
        "a_state_that_was_edited_while_nobody_ran_is_measured_as_it_is",
        edited_between,
    ),
    (
        "a_state_that_is_edited_while_it_is_served_is_seen_and_booked",
        edited_meanwhile,
    ),
    ("a_slow_server_loses_nothing_and_denies_nothing", slow),
    ("a_work_directory_that_is_removed_gives_errors_and_ends_well", gone),
    ("a_file_handed_to_another_session_is_charged_as_before", handed_over),
    (
        "a_file_handed_to_another_subject_is_charged_to_its_own",
        handed_to_stranger,
    ),
];

/// These need a file system of their own, in which an ordinary user is mapped.
pub(crate) const USER_CASES: &[Case] = &[
    ("a_host_that_turns_read_only_says_so_and_nothing_is_charged", read_only),
    ("a_full_work_directory_is_enospc_and_no_quota", full_work),
    ("a_file_system_that_is_taken_away_is_no_other", taken_away),
];

const EDQUOT: i32 = 122;
const EROFS: i32 = 30;
const ENOSPC: i32 = 28;

fn edited_between(world: &World) {
    let connection = world.join_roomy();
    world.inside(&connection, |dirs| {
        fs::write(dirs.state.join("a"), vec![1; MIB as usize]).unwrap();
        fs::write(dirs.state.join("b"), vec![1; MIB as usize]).unwrap();
    });
    drop(connection);
    // Until the server has ended the files are its own.
    let mut again = world.join_roomy();
    drop(std::mem::replace(&mut again, world.join_roomy()));
    drop(again);
    let state = world.subject_dir().join("state");
    crate::sessions::wait_for_end(world);
    fs::remove_file(state.join("a")).unwrap();
    fs::write(state.join("b"), b"short").unwrap();
    let mut connection = world.join(budget(0, 0), budget(2 * 4096, 2));
    let (_, used) = connection.usage().unwrap();
    assert_eq!((used.used_bytes, used.used_inodes), World::measure(&state));
    world.inside(&connection, |dirs| {
        assert_eq!(fs::read(dirs.state.join("b")).unwrap(), b"short");
        fs::write(dirs.state.join("c"), [1; 4096]).unwrap();
        assert_eq!(errno(File::create(dirs.state.join("d"))), EDQUOT);
    });
}

fn edited_meanwhile(world: &World) {
    let mut connection = world.join(budget(0, 0), budget(4 * 4096, 10));
    let (mut ready, tell_ready) = std::io::pipe().unwrap();
    let (mut go, tell_go) = std::io::pipe().unwrap();
    let inside = world.begin(&connection, |dirs| {
        let path = dirs.state.join("file");
        fs::write(&path, b"one").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        (&tell_ready).write_all(b"x").unwrap();
        go.read_exact(&mut [0]).unwrap();
        assert_eq!(
            fs::read(&path).unwrap()[..3],
            *b"two",
            "what is in it is looked at when it is opened"
        );
        // Three of four blocks are used now: one more fits and no second.
        let mut other = File::create(dirs.state.join("other")).unwrap();
        other.write_all(&[1; 4096]).unwrap();
        assert_eq!(errno(other.write_all(b"x")), EDQUOT);
    });
    drop(tell_ready);
    ready.read_exact(&mut [0]).unwrap();
    let state = world.subject_dir().join("state");
    let mut content = b"two".to_vec();
    content.resize(3 * 4096, 0);
    fs::write(state.join("file"), content).unwrap();
    (&tell_go).write_all(b"x").unwrap();
    inside.end();
    let (_, used) = connection.usage().unwrap();
    assert_eq!((used.used_bytes, used.used_inodes), World::measure(&state));
}

fn server(connection: &vfsd::VfsdConnection) -> Pid {
    Pid::from_raw(i32::try_from(connection.vfsd_pid).unwrap()).unwrap()
}

fn slow(world: &World) {
    const EACH: u64 = 8;
    let mut connection = world.join(budget(MIB, 100), budget(MIB, 100));
    let (mut ready, tell_ready) = std::io::pipe().unwrap();
    let (mut go, tell_go) = std::io::pipe().unwrap();
    let inside = world.begin(&connection, |dirs| {
        let file = File::create(dirs.state.join("file")).unwrap();
        let mut pause = || {
            (&tell_ready).write_all(&file.as_raw_fd().to_ne_bytes()).unwrap();
            go.read_exact(&mut [0]).unwrap();
        };
        for turn in 0..64_u8 {
            if u64::from(turn) % EACH == 0 {
                pause();
            }
            (&file).write_all(&[turn; 4096]).unwrap();
        }
        pause();
        file.sync_all().unwrap();
    });
    let on_disk = world.subject_dir().join("state/file");
    for stop in 0..=64 / EACH {
        let mut fd = [0; 4];
        ready.read_exact(&mut fd).unwrap();
        let stopped = Stopped::new(server(&connection));
        (&tell_go).write_all(b"x").unwrap();
        let asked = if stop < 64 / EACH {
            libc::SYS_write
        } else {
            libc::SYS_fsync
        };
        inside.wait_asleep_in(asked, i32::from_ne_bytes(fd));
        assert_eq!(
            fs::metadata(&on_disk).unwrap().len(),
            stop * EACH * 4096,
            "it was not asked yet"
        );
        drop(stopped);
    }
    inside.end();
    let content = fs::read(on_disk).unwrap();
    let wanted: Vec<u8> = (0..64_u8).flat_map(|turn| [turn; 4096]).collect();
    assert_eq!(content, wanted);
    assert_eq!(connection.usage().unwrap().1.used_bytes, 64 * 4096);
    assert_eq!(connection.next_message().unwrap(), None);
}

fn gone(world: &World) {
    let dir = world.work_dir().join("project");
    fs::create_dir(&dir).unwrap();
    let mut connection = world.join_work(&dir, budget(MIB, 100));
    let (mut ready, tell_ready) = std::io::pipe().unwrap();
    let (mut go, tell_go) = std::io::pipe().unwrap();
    let inside = world.begin(&connection, |dirs| {
        let mut open = File::create(dirs.work.join("open")).unwrap();
        open.write_all(b"x").unwrap();
        (&tell_ready).write_all(b"x").unwrap();
        go.read_exact(&mut [0]).unwrap();
        // What is open goes on; a name in a directory that is no more cannot be made.
        open.write_all(b"y").unwrap();
        assert_eq!(
            errno(File::create(dirs.work.join("new"))),
            rustix::io::Errno::NOENT.raw_os_error()
        );
        fs::write(dirs.tmp.join("elsewhere"), b"fine").unwrap();
    });
    drop(tell_ready);
    ready.read_exact(&mut [0]).unwrap();
    fs::remove_dir_all(&dir).unwrap();
    (&tell_go).write_all(b"x").unwrap();
    inside.end();
    connection.everything_used().unwrap();
    assert_eq!(connection.next_message().unwrap(), None, "nothing was denied");
}

pub(crate) fn send(socket: &OwnedFd, file: &File) {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [file.as_fd()];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
    sendmsg(socket, &[IoSlice::new(b"x")], &mut ancillary, SendFlags::empty()).unwrap();
}

pub(crate) fn receive(socket: &OwnedFd) -> File {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut [0])],
        &mut ancillary,
        RecvFlags::empty(),
    )
    .unwrap();
    let message = ancillary.drain().next().unwrap();
    let RecvAncillaryMessage::ScmRights(mut fds) = message else {
        panic!("a descriptor");
    };
    fds.next().unwrap().into()
}

pub(crate) fn pair() -> (OwnedFd, OwnedFd) {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap()
}

fn handed_over(world: &World) {
    let giver = world.join(budget(2 * 4096, 10), budget(0, 0));
    let mut taker = world.join(budget(2 * 4096, 10), budget(0, 0));
    let (ours, theirs) = pair();
    let gives = world.begin(&giver, |dirs| {
        let path = dirs.tmp.join("secret");
        let mut file = OpenOptions::new()
            .create_new(true)
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        file.write_all(&[1; 4096]).unwrap();
        fs::remove_file(&path).unwrap();
        send(&ours, &file);
    });
    gives.end();
    drop(giver);
    // The one that made it is gone with its session; the file is not, and costs as before.
    let (mut hold, release) = std::io::pipe().unwrap();
    let (mut ready, tell_ready) = std::io::pipe().unwrap();
    let takes = world.begin(&taker, |dirs| {
        let mut file = receive(&theirs);
        file.write_all(&[2; 4096]).unwrap();
        assert_eq!(errno(file.write_all(b"x")), EDQUOT);
        assert_eq!(
            errno(fs::write(dirs.tmp.join("own"), b"x")),
            EDQUOT,
            "it is the same budget"
        );
        (&tell_ready).write_all(b"x").unwrap();
        hold.read_exact(&mut [0]).unwrap();
        drop(file);
        fs::write(dirs.tmp.join("own"), [1; 2 * 4096]).unwrap();
    });
    drop(tell_ready);
    ready.read_exact(&mut [0]).unwrap();
    assert_eq!(taker.usage().unwrap().0.used_bytes, 2 * 4096);
    (&release).write_all(b"x").unwrap();
    takes.end();
    assert_eq!(world.event(&mut taker).reason, Reason::QuotaHardBytes);
}

fn handed_to_stranger(world: &World) {
    let mut giver = world.join(budget(2 * 4096, 10), budget(0, 0));
    let mut config = world.config(budget(MIB, 10), budget(0, 0));
    config.subject = "stranger".to_owned();
    let mut stranger = vfsd::join(&config).unwrap();
    let (ours, theirs) = pair();
    let (mut hold, release) = std::io::pipe().unwrap();
    let gives = world.begin(&giver, |dirs| {
        let file = File::create(dirs.tmp.join("lent")).unwrap();
        send(&ours, &file);
        hold.read_exact(&mut [0]).unwrap();
    });
    let takes = world.begin(&stranger, |_| {
        let mut file = receive(&theirs);
        file.write_all(&[2; 2 * 4096]).unwrap();
        assert_eq!(errno(file.write_all(b"x")), EDQUOT);
    });
    takes.end();
    assert_eq!(giver.usage().unwrap().0.used_bytes, 2 * 4096);
    assert_eq!(stranger.usage().unwrap().0.used_bytes, 0);
    assert_eq!(world.event(&mut giver).reason, Reason::QuotaHardBytes);
    assert_eq!(stranger.next_message().unwrap(), None);
    (&release).write_all(b"x").unwrap();
    gives.end();
}

fn read_only(world: &World) {
    world.enter_small_host(64 * MIB);
    let mut connection = world.join(budget(MIB, 100), budget(MIB, 100));
    let base = world.subject_dir().join("../..");
    let turn = |flags| {
        // The kernel refuses while a file is open for writing, and a close is not waited for.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while let Err(error) = rustix::mount::mount_remount(&base, flags, "") {
            assert!(std::time::Instant::now() < until, "{error}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    };
    let (mut ready, tell_ready) = std::io::pipe().unwrap();
    let (mut go, tell_go) = std::io::pipe().unwrap();
    let inside = world.begin(&connection, |dirs| {
        fs::write(dirs.state.join("file"), [1; 4096]).unwrap();
        (&tell_ready).write_all(b"x").unwrap();
        go.read_exact(&mut [0]).unwrap();
        assert_eq!(fs::read(dirs.state.join("file")).unwrap(), vec![1; 4096]);
        assert_eq!(errno(File::create(dirs.state.join("new"))), EROFS);
        assert_eq!(errno(fs::create_dir(dirs.state.join("new"))), EROFS);
        assert_eq!(errno(fs::remove_file(dirs.state.join("file"))), EROFS);
        assert_eq!(
            errno(OpenOptions::new().append(true).open(dirs.state.join("file"))),
            EROFS
        );
        (&tell_ready).write_all(b"x").unwrap();
        go.read_exact(&mut [0]).unwrap();
        fs::write(dirs.state.join("new"), b"x").unwrap();
    });
    ready.read_exact(&mut [0]).unwrap();
    turn(MountFlags::RDONLY);
    (&tell_go).write_all(b"x").unwrap();
    ready.read_exact(&mut [0]).unwrap();
    let (_, used) = connection.usage().unwrap();
    assert_eq!((used.used_bytes, used.used_inodes), (4096, 1));
    turn(MountFlags::empty());
    (&tell_go).write_all(b"x").unwrap();
    inside.end();
    let (_, used) = connection.usage().unwrap();
    assert_eq!((used.used_bytes, used.used_inodes), (2 * 4096, 2));
    assert_eq!(connection.next_message().unwrap(), None, "it is not called a quota");
}

/// A small file system in memory at a place of the user's.
fn small(at: &std::path::Path, bytes: u64) {
    let options = std::ffi::CString::new(format!("size={bytes},mode=700")).unwrap();
    rustix::mount::mount("tmpfs", at, "tmpfs", MountFlags::empty(), options.as_c_str()).unwrap();
}

fn full_work(world: &World) {
    world.enter_small_host(8 * MIB);
    let dir = world.work_dir();
    small(&dir, MIB);
    let mut connection = world.join_work(&dir, budget(64 * MIB, 1000));
    world.inside(&connection, |dirs| {
        let mut file = File::create(dirs.work.join("big")).unwrap();
        let error = loop {
            if let Err(error) = file.write_all(&[1; 4096]) {
                break error;
            }
        };
        assert_eq!(error.raw_os_error(), Some(ENOSPC));
        fs::remove_file(dirs.work.join("big")).unwrap();
    });
    // The kernel tells of the last close when it gets to it.
    eventually("what was removed is given back", || {
        let used = connection.everything_used().unwrap().work.unwrap();
        (used.used_bytes, used.used_inodes) == World::measure(&dir)
    });
    assert_eq!(connection.next_message().unwrap(), None, "it is not called a quota");
    let inner = dir.join("inner");
    fs::create_dir(&inner).unwrap();
    small(&inner, MIB);
    // With something mounted inside, what is there cannot be counted: another directory, and a session says so.
    let outer = dir.clone();
    drop(connection);
    crate::sessions::wait_for_end(world);
    let error = vfsd::join(&world.work_config(&outer, budget(MIB, 10))).unwrap_err();
    assert!(error.to_string().contains("mounted inside"), "{error}");
}

fn taken_away(world: &World) {
    world.enter_small_host(64 * MIB);
    let mut connection = world.join(budget(MIB, 100), budget(MIB, 100));
    let base = world.subject_dir().join("../..").canonicalize().unwrap();
    let held = File::open(&base).unwrap();
    let taken = PathBuf::from(format!("/proc/self/fd/{}/subjects/demo/state", held.as_raw_fd()));
    let (mut ready, tell_ready) = std::io::pipe().unwrap();
    let (mut go, tell_go) = std::io::pipe().unwrap();
    let inside = world.begin(&connection, |dirs| {
        let at = |name: &str| dirs.state.join(name);
        fs::create_dir(at("dir")).unwrap();
        fs::write(at("dir/unseen"), b"unseen").unwrap();
        fs::write(at("file"), b"file").unwrap();
        let open = OpenOptions::new().read(true).write(true).open(at("file")).unwrap();
        (&tell_ready).write_all(b"x").unwrap();
        go.read_exact(&mut [0]).unwrap();
        // Out of the kernel's memory, so that the file server is asked.
        rustix::fs::fadvise(&open, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let mut content = [0; 4];
        open.read_exact_at(&mut content, 0).unwrap();
        assert_eq!(&content, b"file");
        open.write_all_at(b"more", 4).unwrap();
        assert_eq!(fs::read(at("file")).unwrap(), b"filemore");
        assert_eq!(fs::read(at("dir/unseen")).unwrap(), b"unseen");
        fs::rename(at("dir/unseen"), at("seen")).unwrap();
        fs::write(at("new"), [1; 5000]).unwrap();
        fs::remove_dir(at("dir")).unwrap();
        // The budget is its own as well, not that of what is there now.
        assert_eq!(errno(fs::write(at("big"), vec![1; MIB as usize])), EDQUOT);
        fs::remove_file(at("big")).unwrap();
        open.sync_all().unwrap();
        let names: BTreeSet<_> = fs::read_dir(&dirs.state)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["file", "new", "seen"].map(OsString::from).into());
    });
    ready.read_exact(&mut [0]).unwrap();
    // Unmounted on the host: the server holds what it serves, and no other file takes its place, though it has its name.
    rustix::mount::unmount(&base, UnmountFlags::DETACH).unwrap();
    assert_eq!(fs::read_dir(&base).unwrap().count(), 0);
    small(&base, MIB);
    let other = world.subject_dir().join("state");
    fs::create_dir_all(other.join("dir")).unwrap();
    for name in ["file", "dir/unseen"] {
        fs::write(other.join(name), b"other").unwrap();
    }
    let before = World::measure(&other);
    (&tell_go).write_all(b"x").unwrap();
    inside.end();
    assert_eq!(World::measure(&other), before);
    for name in ["file", "dir/unseen"] {
        assert_eq!(fs::read(other.join(name)).unwrap(), b"other");
    }
    assert_eq!(fs::read(taken.join("file")).unwrap(), b"filemore");
    assert_eq!(fs::read(taken.join("seen")).unwrap(), b"unseen");
    assert_eq!(fs::read(taken.join("new")).unwrap(), [1; 5000]);
    assert_eq!(World::measure(&taken), (4 * 4096, 3));
    eventually("what is charged is what is there", || {
        let (_, used) = connection.usage().unwrap();
        (used.used_bytes, used.used_inodes) == (4 * 4096, 3)
    });
}
