//! Locks of all three kinds: the kernel keeps them, for all sessions of a subject.

use std::fs::{File, OpenOptions};

use rustix::fs::FlockOperation;

use crate::Case;
use crate::mapping::ofd_lock;
use crate::world::{Dirs, World, errno, eventually, open_or_make};

pub(crate) const CASES: &[Case] = &[
    ("locks_hold_between_sessions_and_end_with_their_holder", locks),
    (
        "a_lock_of_a_description_is_its_own_and_ends_with_its_last_descriptor",
        descriptions,
    ),
    ("a_lock_of_a_process_ends_with_any_close_of_the_file_by_it", processes),
    ("locks_of_other_subjects_are_others", strangers),
];

const EAGAIN: i32 = 11;

fn open(dirs: &Dirs, name: &str) -> File {
    open_or_make(&dirs.state.join(name))
}

fn locks(world: &World) {
    let (one, two) = (world.join_roomy(), world.join_roomy());
    let (mut told, tell) = std::io::pipe().unwrap();
    let (wait, mut go_on) = std::io::pipe().unwrap();
    let holder = world.begin(&one, move |dirs| {
        use std::io::{Read, Write};
        let (mut tell, mut wait) = (tell, wait);
        let flocked = File::create(dirs.state.join("flock")).unwrap();
        rustix::fs::flock(&flocked, FlockOperation::LockExclusive).unwrap();
        let posix = File::create(dirs.state.join("posix")).unwrap();
        rustix::fs::fcntl_lock(&posix, FlockOperation::LockExclusive).unwrap();
        let ofd = File::create(dirs.state.join("ofd")).unwrap();
        ofd_lock(&ofd, libc::F_WRLCK, 100, 50).unwrap();
        tell.write_all(b"x").unwrap();
        wait.read_exact(&mut [0]).unwrap();
    });
    std::io::Read::read_exact(&mut told, &mut [0]).unwrap();
    world.inside(&two, |dirs| {
        let open = |name| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(dirs.state.join(name))
                .unwrap()
        };
        let (flocked, posix, ofd) = (open("flock"), open("posix"), open("ofd"));
        let flock = |operation| rustix::fs::flock(&flocked, operation).map_err(std::io::Error::from);
        let lock = |operation| rustix::fs::fcntl_lock(&posix, operation).map_err(std::io::Error::from);
        assert_eq!(errno(flock(FlockOperation::NonBlockingLockShared)), EAGAIN);
        assert_eq!(errno(lock(FlockOperation::NonBlockingLockExclusive)), EAGAIN);
        // Byte for byte.
        assert_eq!(errno(ofd_lock(&ofd, libc::F_WRLCK, 149, 1)), EAGAIN);
        assert_eq!(errno(ofd_lock(&ofd, libc::F_RDLCK, 100, 1)), EAGAIN);
        ofd_lock(&ofd, libc::F_WRLCK, 150, 0).unwrap();
        ofd_lock(&ofd, libc::F_WRLCK, 0, 100).unwrap();
        std::io::Write::write_all(&mut go_on, b"x").unwrap();
        // Waits until the other session's program has ended, whose locks end with it.
        flock(FlockOperation::LockExclusive).unwrap();
        lock(FlockOperation::LockExclusive).unwrap();
        eventually("the other's", || ofd_lock(&ofd, libc::F_WRLCK, 0, 0).is_ok());
        // The standard library's are flock's; a second description of one process is another holder.
        let again = open("flock");
        assert!(again.try_lock().is_err());
        flock(FlockOperation::Unlock).unwrap();
        again.try_lock().unwrap();
    });
    holder.end();
}

fn descriptions(world: &World) {
    let connection = world.join_roomy();
    world.inside(&connection, |dirs| {
        let (one, two) = (open(dirs, "f"), open(dirs, "f"));
        // Of one process, and still two holders.
        ofd_lock(&one, libc::F_WRLCK, 0, 10).unwrap();
        assert_eq!(errno(ofd_lock(&two, libc::F_RDLCK, 9, 1)), EAGAIN);
        ofd_lock(&two, libc::F_RDLCK, 10, 1).unwrap();
        // Two readers at once, and no writer beside them.
        ofd_lock(&one, libc::F_RDLCK, 10, 1).unwrap();
        assert_eq!(errno(ofd_lock(&one, libc::F_WRLCK, 10, 1)), EAGAIN);
        // A descriptor more is the same holder; the lock goes with the last, not with another's close.
        let same = one.try_clone().unwrap();
        drop(open(dirs, "f"));
        drop(one);
        assert_eq!(errno(ofd_lock(&two, libc::F_WRLCK, 0, 1)), EAGAIN);
        drop(same);
        ofd_lock(&two, libc::F_WRLCK, 0, 0).unwrap();
        // They and a process's own are held against one another.
        let lock = |file| rustix::fs::fcntl_lock(file, FlockOperation::NonBlockingLockExclusive);
        let three = open(dirs, "f");
        assert_eq!(errno(lock(&three).map_err(Into::into)), EAGAIN);
        ofd_lock(&two, libc::F_UNLCK, 0, 0).unwrap();
        lock(&three).unwrap();
        assert_eq!(errno(ofd_lock(&two, libc::F_RDLCK, 0, 1)), EAGAIN);
    });
}

fn processes(world: &World) {
    let (one, two) = (world.join_roomy(), world.join_roomy());
    let (mut told, tell) = std::io::pipe().unwrap();
    let (wait, mut go_on) = std::io::pipe().unwrap();
    let holder = world.begin(&one, move |dirs| {
        use std::io::{Read, Write};
        let (mut tell, mut wait) = (tell, wait);
        let held = open(dirs, "f");
        rustix::fs::fcntl_lock(&held, FlockOperation::LockExclusive).unwrap();
        tell.write_all(b"x").unwrap();
        wait.read_exact(&mut [0]).unwrap();
        // As POSIX has it, for better or worse.
        drop(open(dirs, "f"));
        tell.write_all(b"x").unwrap();
        wait.read_exact(&mut [0]).unwrap();
    });
    world.inside(&two, |dirs| {
        use std::io::{Read, Write};
        let lock = |file: &File| rustix::fs::fcntl_lock(file, FlockOperation::NonBlockingLockExclusive);
        told.read_exact(&mut [0]).unwrap();
        let file = open(dirs, "f");
        assert_eq!(errno(lock(&file).map_err(Into::into)), EAGAIN);
        go_on.write_all(b"x").unwrap();
        told.read_exact(&mut [0]).unwrap();
        lock(&file).unwrap();
        go_on.write_all(b"x").unwrap();
    });
    holder.end();
}

fn strangers(world: &World) {
    let ours = world.join_roomy();
    let mut config = world.config(crate::world::budget(1 << 20, 10), crate::world::budget(1 << 20, 10));
    config.subject = "stranger".to_owned();
    let theirs = vfsd::join(&config).unwrap();
    let (mut told, tell) = std::io::pipe().unwrap();
    let (wait, mut go_on) = std::io::pipe().unwrap();
    let holder = world.begin(&ours, move |dirs| {
        use std::io::{Read, Write};
        let (mut tell, mut wait) = (tell, wait);
        let held = open(dirs, "f");
        held.lock().unwrap();
        ofd_lock(&held, libc::F_WRLCK, 0, 0).unwrap();
        tell.write_all(b"x").unwrap();
        wait.read_exact(&mut [0]).unwrap();
    });
    std::io::Read::read_exact(&mut told, &mut [0]).unwrap();
    world.inside(&theirs, |dirs| {
        let same_name = open(dirs, "f");
        same_name.try_lock().unwrap();
        ofd_lock(&same_name, libc::F_WRLCK, 0, 0).unwrap();
    });
    std::io::Write::write_all(&mut go_on, b"x").unwrap();
    holder.end();
}
