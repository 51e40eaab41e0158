//! What is beside names and lengths: files without a name, attributes, room past the end, times.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags, StatxFlags, XattrFlags};

use crate::Case;
use crate::sessions::wait_for_scratch;
use crate::world::{KIB, MIB, World, budget, errno, eventually};

pub(crate) const CASES: &[Case] = &[
    ("a_file_without_a_name_is_charged_and_may_get_one", tmpfile),
    ("a_file_made_to_stay_without_a_name_gets_none", tmpfile_exclusive),
    ("a_file_whose_room_was_given_back_gets_no_name", tmpfile_reclaimed),
    ("user_attributes_are_kept_and_paid_for", attributes),
    ("attributes_of_other_kinds_are_refused", foreign_attributes),
    ("attributes_count_again_after_a_restart", attributes_measured),
    ("room_past_the_end_is_charged_while_the_file_is_open", reserved),
    (
        "room_past_the_end_that_a_killed_server_left_is_let_go_of",
        reserved_and_killed,
    ),
    ("a_birth_time_is_told_and_times_before_1970_are_exact", times),
    ("opening_to_empty_frees_at_once_also_for_reading_alone", open_to_empty),
    ("offsets_at_the_edge_of_64_bits_are_refused_whole", edges),
];

const EPERM: i32 = 1;
const E2BIG: i32 = 7;
const ENODATA: i32 = 61;
const EOPNOTSUPP: i32 = 95;
const EDQUOT: i32 = 122;
const ENOENT: i32 = 2;
const EFBIG: i32 = 27;
const ESTALE: i32 = 116;

fn nameless(dir: &Path, more: OFlags) -> File {
    let flags = OFlags::TMPFILE | OFlags::RDWR | more;
    rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR).unwrap().into()
}

fn name_it(file: &File, path: &Path) -> std::io::Result<()> {
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::linkat(CWD, own, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

fn tmpfile(world: &World) {
    let mut connection = world.join(budget(MIB, 2), budget(0, 0));
    world.inside(&connection, |dirs| {
        let file = nameless(&dirs.tmp, OFlags::empty());
        file.write_all_at(&vec![7; MIB as usize], 0).unwrap();
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        assert_eq!(errno(file.write_at(b"x", MIB).map(drop)), EDQUOT);
        assert_eq!(fs::read_dir(&dirs.tmp).unwrap().count(), 0);
        let path = dirs.tmp.join("named");
        name_it(&file, &path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().nlink(), 1);
        name_it(&file, &dirs.tmp.join("again")).unwrap();
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), vec![7; MIB as usize]);
        fs::remove_file(dirs.tmp.join("again")).unwrap();
        // The second inode; the third does not fit.
        let second = nameless(&dirs.tmp, OFlags::empty());
        let flags = OFlags::TMPFILE | OFlags::RDWR;
        let third = rustix::fs::open(&dirs.tmp, flags, Mode::RWXU).map_err(std::io::Error::from);
        assert_eq!(errno(third), EDQUOT);
        drop(second);
        // Its room comes back when it is closed.
        fs::write(dirs.tmp.join("other"), b"").unwrap();
    });
    let (tmp, _) = connection.usage().unwrap();
    assert_eq!((tmp.used_bytes, tmp.used_inodes), (MIB, 2));
}

/// A file without a name that nobody has open costs nothing once its room is needed; with a name it would again, unpaid.
fn tmpfile_reclaimed(world: &World) {
    let mut connection = world.join(budget(MIB, 2), budget(0, 0));
    world.inside(&connection, |dirs| {
        // Held so that it is not forgotten, but not open.
        let held = |file: File| -> File {
            let own = format!("/proc/self/fd/{}", file.as_raw_fd());
            rustix::fs::open(own, OFlags::PATH, Mode::empty()).unwrap().into()
        };
        let kept = held(nameless(&dirs.tmp, OFlags::empty()));
        fs::write(dirs.tmp.join("a"), b"").unwrap();
        // While there is room, it gets one.
        name_it(&kept, &dirs.tmp.join("kept")).unwrap();
        fs::remove_file(dirs.tmp.join("kept")).unwrap();
        drop(kept);
        let lost = held(nameless(&dirs.tmp, OFlags::empty()));
        fs::write(dirs.tmp.join("b"), b"").unwrap();
        assert_eq!(errno(name_it(&lost, &dirs.tmp.join("lost"))), ESTALE);
    });
    assert_eq!(connection.usage().unwrap().0.used_inodes, 2);
    wait_for_scratch(world, 1);
    let scratch = fs::read_dir(world.subject_dir()).unwrap().flatten();
    let scratch = scratch.map(|entry| entry.path().join("tmp")).find(|path| path.exists());
    assert_eq!(World::measure(&scratch.unwrap()).1, 2, "what is there is paid for");
}

fn tmpfile_exclusive(world: &World) {
    let mut connection = world.join_roomy();
    world.inside(&connection, |dirs| {
        let file = nameless(&dirs.tmp, OFlags::EXCL);
        file.write_all_at(b"secret", 0).unwrap();
        assert_eq!(errno(name_it(&file, &dirs.tmp.join("named"))), ENOENT);
        // A file that had a name and lost it gets none either.
        let path = dirs.tmp.join("had");
        let had = File::create_new(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(errno(name_it(&had, &path)), ENOENT);
    });
    // The kernel does not wait for a close.
    eventually("both are gone with their last handle", || {
        connection.usage().unwrap().0.used_inodes == 0
    });
}

fn set(path: &Path, name: &str, value: &[u8], flags: XattrFlags) -> std::io::Result<()> {
    Ok(rustix::fs::setxattr(path, name, value, flags)?)
}

fn get(path: &Path, name: &str) -> std::io::Result<Vec<u8>> {
    let mut value = vec![0; 65536];
    let count = rustix::fs::getxattr(path, name, &mut value)?;
    value.truncate(count);
    Ok(value)
}

/// Whether the host keeps attributes of users at all.
fn needs_attributes(world: &World) {
    let probe = world.subject_dir().join("state");
    let known = !matches!(
        rustix::fs::getxattr(&probe, "user.probe", &mut [0_u8; 0]),
        Err(rustix::io::Errno::OPNOTSUPP)
    );
    if !known {
        crate::cannot("the host's file system has no extended attributes: nothing to keep");
    }
}

fn attributes(world: &World) {
    let mut connection = world.join(budget(16 * KIB, 100), budget(0, 0));
    needs_attributes(world);
    world.inside(&connection, |dirs| {
        let path = dirs.tmp.join("f");
        File::create_new(&path).unwrap();
        assert_eq!(errno(get(&path, "user.note")), ENODATA);
        set(&path, "user.note", b"value", XattrFlags::empty()).unwrap();
        assert_eq!(get(&path, "user.note").unwrap(), b"value");
        assert_eq!(errno(set(&path, "user.note", b"x", XattrFlags::CREATE)), 17);
        assert_eq!(errno(set(&path, "user.other", b"x", XattrFlags::REPLACE)), ENODATA);
        set(&path, "user.other", b"", XattrFlags::CREATE).unwrap();
        let mut list = vec![0; 1024];
        let count = rustix::fs::listxattr(&path, &mut list).unwrap();
        let mut names: Vec<_> = list[..count]
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
            .collect();
        names.sort_unstable();
        assert_eq!(names, [&b"user.note"[..], b"user.other"]);
        // Both are in one block. With three blocks of content the budget is full.
        fs::write(&path, vec![1; 12 * KIB as usize]).unwrap();
        assert_eq!(errno(fs::write(dirs.tmp.join("g"), b"x")), EDQUOT);
        fs::create_dir(dirs.tmp.join("d")).unwrap();
        assert_eq!(
            errno(set(&dirs.tmp.join("d"), "user.x", b"x", XattrFlags::empty())),
            EDQUOT
        );
        assert_eq!(errno(set(&path, "user.big", &[1; 4090], XattrFlags::empty())), EDQUOT);
        rustix::fs::removexattr(&path, "user.note").unwrap();
        assert_eq!(
            errno(rustix::fs::removexattr(&path, "user.note").map_err(std::io::Error::from)),
            ENODATA
        );
        assert_eq!(errno(fs::write(dirs.tmp.join("g"), b"x")), EDQUOT);
        rustix::fs::removexattr(&path, "user.other").unwrap();
        fs::write(dirs.tmp.join("g"), b"x").unwrap();
        fs::remove_file(dirs.tmp.join("g")).unwrap();
        set(&dirs.tmp.join("d"), "user.x", b"x", XattrFlags::empty()).unwrap();
        fs::remove_dir(dirs.tmp.join("d")).unwrap();
        // What goes with its inode is given back with it.
        set(&path, "user.note", b"value", XattrFlags::empty()).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(dirs.tmp.join("all"), vec![1; 16 * KIB as usize]).unwrap();
    });
    let (tmp, _) = connection.usage().unwrap();
    assert_eq!((tmp.used_bytes, tmp.used_inodes), (16 * KIB, 1));
}

fn foreign_attributes(world: &World) {
    let connection = world.join_roomy();
    needs_attributes(world);
    world.inside(&connection, |dirs| {
        let path = dirs.tmp.join("f");
        File::create_new(&path).unwrap();
        // A set of capabilities that execve(2) would take (linux/capability.h), where it is one.
        let value = b"\x01\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        let put = |name| errno(set(&path, name, value, XattrFlags::empty()));
        let got = |name| errno(get(&path, name));
        // The file server is asked, and says no.
        for name in ["system.x", "system.nexus_area", "user."] {
            assert_eq!(put(name), EOPNOTSUPP, "{name}");
        }
        for name in ["security.capability", "security.x", "system.x", "user."] {
            assert_eq!(got(name), EOPNOTSUPP, "{name}");
        }
        // The kernel says it for us to who lacks a right over the host, and where there are no access control lists.
        for name in ["security.capability", "security.x", "trusted.x"] {
            assert_eq!(put(name), EPERM, "{name}");
        }
        assert_eq!(got("trusted.x"), ENODATA);
        for name in ["system.posix_acl_access", "system.posix_acl_default"] {
            assert_eq!((put(name), got(name)), (EOPNOTSUPP, EOPNOTSUPP), "{name}");
        }
        assert_eq!(rustix::fs::listxattr(&path, &mut [0_u8; 100]).unwrap(), 0);
        // The nearest that is allowed.
        set(&path, "user.x", value, XattrFlags::empty()).unwrap();
        std::os::unix::fs::symlink("f", dirs.tmp.join("l")).unwrap();
        let on_link = rustix::fs::lsetxattr(dirs.tmp.join("l"), "user.y", b"x", XattrFlags::empty());
        assert_eq!(on_link, Err(rustix::io::Errno::PERM));
        // More than a value may have, before anything is charged.
        assert_eq!(errno(set(&path, "user.y", &vec![0; 65537], XattrFlags::empty())), E2BIG);
        assert_eq!(get(&path, "user.x").unwrap(), value);
    });
    // Nothing came through to the host.
    let scratch = fs::read_dir(world.subject_dir()).unwrap().flatten();
    let file = scratch
        .map(|entry| entry.path().join("tmp/f"))
        .find(|path| path.exists())
        .unwrap();
    let mut list = vec![0; 1024];
    let count = rustix::fs::listxattr(&file, &mut list).unwrap();
    let names = list[..count]
        .split(|byte| *byte == 0)
        .filter(|name| !name.starts_with(b"security."));
    assert_eq!(names.collect::<Vec<_>>(), [&b"user.x"[..], b""]);
}

fn attributes_measured(world: &World) {
    let mut connection = world.join_roomy();
    needs_attributes(world);
    world.inside(&connection, |dirs| {
        let path = dirs.state.join("f");
        fs::write(&path, b"content").unwrap();
        set(&path, "user.note", b"value", XattrFlags::empty()).unwrap();
        fs::create_dir(dirs.state.join("d")).unwrap();
        set(&dirs.state.join("d"), "user.note", b"value", XattrFlags::empty()).unwrap();
    });
    let before = connection.usage().unwrap().1;
    assert_eq!((before.used_bytes, before.used_inodes), (12 * KIB, 2));
    drop(connection);
    let mut connection = world.join_roomy();
    assert!(connection.fresh);
    assert_eq!(connection.usage().unwrap().1, before);
    world.inside(&connection, |dirs| {
        assert_eq!(get(&dirs.state.join("f"), "user.note").unwrap(), b"value");
        fs::remove_file(dirs.state.join("f")).unwrap();
        fs::remove_dir(dirs.state.join("d")).unwrap();
    });
    assert_eq!(connection.usage().unwrap().1.used_bytes, 0);
}

fn reserve(file: &File, offset: u64, length: u64) -> std::io::Result<()> {
    Ok(rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, offset, length)?)
}

const NOT_LET_GO: &str = "the host's file system does not let go of what lies past an end: room there is refused";

/// Whether the host keeps room past a file's end, and lets go of it with the end set anew: seen beside the file server.
fn host_lets_go(world: &World) -> bool {
    let file = File::create_new(world.bare_dir().join("room")).unwrap();
    let room = || file.metadata().unwrap().blocks() * 512;
    reserve(&file, 0, MIB).is_ok() && room() >= MIB && file.set_len(0).is_ok() && room() == 0
}

fn reserved(world: &World) {
    let mut connection = world.join(budget(MIB, 100), budget(0, 0));
    if !host_lets_go(world) {
        world.inside(&connection, |dirs| {
            let file = File::create_new(dirs.tmp.join("f")).unwrap();
            assert_eq!(errno(reserve(&file, 0, MIB)), EOPNOTSUPP);
        });
        crate::cannot(NOT_LET_GO);
    }
    world.inside(&connection, |dirs| {
        let path = dirs.tmp.join("f");
        let file = File::create_new(&path).unwrap();
        reserve(&file, 0, MIB).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 0);
        assert_eq!(errno(reserve(&file, MIB, 1)), EDQUOT);
        assert_eq!(errno(fs::write(dirs.tmp.join("g"), b"x")), EDQUOT);
        // What is reserved is what a write uses.
        file.write_all_at(&vec![1; MIB as usize / 2], 0).unwrap();
        assert_eq!(errno(fs::write(dirs.tmp.join("g"), b"x")), EDQUOT);
        // An end set anew is an end.
        file.set_len(MIB / 2).unwrap();
        fs::write(dirs.tmp.join("g"), b"x").unwrap();
        fs::remove_file(dirs.tmp.join("g")).unwrap();
        reserve(&file, 0, MIB).unwrap();
        assert_eq!(errno(fs::write(dirs.tmp.join("g"), b"x")), EDQUOT);
        // By another handle the room stays; with the last one it goes.
        let other = File::open(&path).unwrap();
        drop(file);
        assert_eq!(errno(fs::write(dirs.tmp.join("g"), b"x")), EDQUOT);
        drop(other);
        wait_for_room(|| fs::write(dirs.tmp.join("g"), vec![1; MIB as usize / 2]));
        assert_eq!(fs::metadata(&path).unwrap().len(), MIB / 2);
        assert_eq!(fs::metadata(&path).unwrap().blocks() * 512, MIB / 2);
    });
    let used = connection.usage().unwrap().0.used_bytes;
    assert!(used == MIB || used == 0);
}

/// The kernel does not wait for our answer to a close.
fn wait_for_room(mut act: impl FnMut() -> std::io::Result<()>) {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while let Err(error) = act() {
        assert!(std::time::Instant::now() < until, "{error}");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

fn reserved_and_killed(world: &World) {
    let mut connection = world.join_roomy();
    if !host_lets_go(world) {
        crate::cannot(NOT_LET_GO);
    }
    let killed = rustix::process::Pid::from_raw(i32::try_from(connection.vfsd_pid).unwrap()).unwrap();
    world.inside(&connection, |dirs| {
        let file = File::create_new(dirs.state.join("f")).unwrap();
        file.write_all_at(b"content", 0).unwrap();
        reserve(&file, 0, 64 * KIB).unwrap();
        assert!(file.metadata().unwrap().blocks() * 512 >= 64 * KIB);
        rustix::process::kill_process(killed, rustix::process::Signal::KILL).unwrap();
    });
    connection.usage().expect_err("it is gone");
    drop(connection);
    let mut connection = world.join_roomy();
    assert_eq!(connection.usage().unwrap().1.used_bytes, 4 * KIB);
    world.inside(&connection, |dirs| {
        assert_eq!(fs::read(dirs.state.join("f")).unwrap(), b"content");
        assert!(fs::metadata(dirs.state.join("f")).unwrap().blocks() * 512 <= 8 * KIB);
    });
}

fn times(world: &World) {
    let connection = world.join_roomy();
    world.inside(&connection, |dirs| {
        let path = dirs.state.join("f");
        let file = File::create_new(&path).unwrap();
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let stat = rustix::fs::statx(CWD, &path, AtFlags::empty(), wanted).unwrap();
        assert_eq!(stat.stx_ino, file.metadata().unwrap().ino());
        if stat.stx_mask & StatxFlags::BTIME.bits() != 0 {
            assert!(stat.stx_btime.tv_sec > 1_700_000_000);
        }
        for (seconds, nanoseconds) in [(-1, 999_999_999), (-1, 0), (-2, 500_000_000), (0, 0), (1 << 33, 1)] {
            let time = rustix::fs::Timespec {
                tv_sec: seconds,
                tv_nsec: nanoseconds,
            };
            let times = rustix::fs::Timestamps {
                last_access: time,
                last_modification: time,
            };
            rustix::fs::futimens(&file, &times).unwrap();
            let metadata = fs::metadata(&path).unwrap();
            assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (seconds, nanoseconds));
            assert_eq!((metadata.atime(), metadata.atime_nsec()), (seconds, nanoseconds));
        }
    });
}

fn open_to_empty(world: &World) {
    let mut connection = world.join(budget(MIB, 100), budget(0, 0));
    world.inside(&connection, |dirs| {
        let path = dirs.tmp.join("f");
        for flags in [OFlags::WRONLY, OFlags::RDWR, OFlags::RDONLY] {
            fs::write(&path, vec![1; MIB as usize]).unwrap();
            let file: File = rustix::fs::open(&path, flags | OFlags::TRUNC, Mode::empty())
                .unwrap()
                .into();
            assert_eq!(file.metadata().unwrap().len(), 0);
            assert_eq!(fs::read(&path).unwrap(), b"");
            fs::write(dirs.tmp.join("g"), vec![1; MIB as usize]).unwrap();
            fs::remove_file(dirs.tmp.join("g")).unwrap();
        }
        // Who may not write may not empty.
        fs::write(&path, b"kept").unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
        rustix::fs::open(&path, OFlags::RDONLY | OFlags::TRUNC, Mode::empty()).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"kept");
    });
    assert_eq!(connection.usage().unwrap().0.used_bytes, 4 * KIB);
}

fn edges(world: &World) {
    let mut connection = world.join(budget(1 << 62, 100), budget(0, 0));
    world.inside(&connection, |dirs| {
        let path = dirs.tmp.join("f");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        let end = i64::MAX as u64;
        for offset in [end, end - 1, end - 4095] {
            file.write_at(&[1; 8192], offset).unwrap_err();
        }
        assert_eq!(
            errno(rustix::fs::fallocate(&file, FallocateFlags::empty(), end, 1).map_err(Into::into)),
            EFBIG
        );
        rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, end - 1, 2).unwrap_err();
        rustix::fs::ftruncate(&file, 1 << 63).unwrap_err();
        rustix::fs::ftruncate(&file, end).unwrap_err();
        // Past what the host's file system can have, far past: not charged for.
        assert_eq!(file.metadata().unwrap().len(), 0);
        assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(end)).unwrap(), end);
        assert_eq!(file.read_at(&mut [0; 16], end - 16).unwrap(), 0);
    });
    assert_eq!(connection.usage().unwrap().0.used_bytes, 0);
}
