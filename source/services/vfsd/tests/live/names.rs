//! Names: files, directories, links, and what cannot be reached by them.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use nexus_abi::{Operation, Reason};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags};

use crate::Case;
use crate::world::{MIB, World, budget, errno};

pub(crate) const CASES: &[Case] = &[
    ("the_last_inode_is_made_and_the_next_is_denied", inodes),
    ("a_hard_link_is_counted_once_and_bounded", hard_links),
    ("rename_replaces_exchanges_and_refuses", renames),
    ("every_kind_of_file_can_be_made_but_devices", kinds),
    ("a_links_target_is_paid_for_as_a_files_content_is", targets),
    (
        "a_link_to_outside_opens_nothing_outside_on_the_server_side",
        symlink_attack,
    ),
    ("a_directory_of_thousands_lists_each_name_once", listing),
    ("listing_goes_on_while_names_are_removed", listing_while_removing),
    ("access_modes_hold_and_set_id_bits_do_not_stick", modes),
    ("times_and_owners_are_kept_or_refused", times),
    ("names_up_to_255_bytes_of_anything", long_names),
];

const EDQUOT: i32 = 122;
const EEXIST: i32 = 17;
const EXDEV: i32 = 18;
const EPERM: i32 = 1;

fn inodes(world: &World) {
    let mut connection = world.join(budget(MIB, 4), budget(MIB, 4));
    world.inside(&connection, |dirs| {
        fs::create_dir(dirs.tmp.join("dir")).unwrap();
        symlink("nowhere", dirs.tmp.join("link")).unwrap();
        File::create(dirs.tmp.join("dir/file")).unwrap();
        File::create(dirs.shm.join("file")).unwrap();
        assert_eq!(errno(File::create(dirs.tmp.join("one_more"))), EDQUOT);
        assert_eq!(errno(fs::create_dir(dirs.tmp.join("one_more"))), EDQUOT);
        assert!(!dirs.tmp.join("one_more").exists());
        fs::remove_file(dirs.tmp.join("link")).unwrap();
        fs::create_dir(dirs.tmp.join("one_more")).unwrap();
        // A directory's room comes back too.
        fs::remove_dir(dirs.tmp.join("one_more")).unwrap();
        symlink("nowhere", dirs.tmp.join("link")).unwrap();
    });
    let event = world.event(&mut connection);
    assert_eq!(
        (event.operation, event.reason),
        (Operation::Create, Reason::QuotaHardInodes)
    );
    assert_eq!((event.name.as_bytes(), event.asked), (&b"one_more"[..], 1));
    assert_eq!(connection.usage().unwrap().0.used_inodes, 4);
}

fn hard_links(world: &World) {
    let mut connection = world.join(budget(MIB, 3), budget(MIB, 4));
    world.inside(&connection, |dirs| {
        let (a, b) = (dirs.tmp.join("a"), dirs.tmp.join("b"));
        fs::write(&a, vec![1; MIB as usize]).unwrap();
        fs::hard_link(&a, &b).unwrap();
        assert_eq!(fs::metadata(&b).unwrap().nlink(), 2);
        assert_eq!(fs::metadata(&b).unwrap().ino(), fs::metadata(&a).unwrap().ino());
        fs::remove_file(&a).unwrap();
        // It has a name still.
        assert_eq!(errno(fs::write(dirs.tmp.join("c"), b"x")), EDQUOT);
        assert_eq!(fs::read(&b).unwrap().len() as u64, MIB);
        for name in ["x", "y", "z"] {
            fs::hard_link(&b, dirs.tmp.join(name)).unwrap();
        }
        assert_eq!(errno(fs::hard_link(&b, dirs.tmp.join("over"))), EDQUOT);
        assert_eq!(errno(fs::hard_link(&b, dirs.state.join("other_area"))), EXDEV);
        for name in ["b", "c", "x", "y"] {
            fs::remove_file(dirs.tmp.join(name)).unwrap();
        }
        // A symbolic link can have two names as well, and costs what it says.
        fs::remove_file(dirs.tmp.join("z")).unwrap();
        symlink("target", dirs.tmp.join("link")).unwrap();
        fs::hard_link(dirs.tmp.join("link"), dirs.tmp.join("link2")).unwrap();
        assert_eq!(fs::read_link(dirs.tmp.join("link2")).unwrap(), Path::new("target"));
        fs::remove_file(dirs.tmp.join("link")).unwrap();
        fs::remove_file(dirs.tmp.join("link2")).unwrap();
        fs::write(&a, vec![1; MIB as usize]).unwrap();
        // Both names of one file at once, again and again.
        for _ in 0..200 {
            fs::remove_file(&a).unwrap();
            File::create(&a).unwrap();
            fs::hard_link(&a, &b).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| fs::remove_file(&a).unwrap());
                scope.spawn(|| fs::remove_file(&b).unwrap());
            });
            File::create(&a).unwrap();
        }
    });
    let (tmp, _) = connection.usage().unwrap();
    assert_eq!((tmp.used_bytes, tmp.used_inodes), (0, 1));
}

fn renames(world: &World) {
    let mut connection = world.join_roomy();
    world.inside(&connection, |dirs| {
        let (a, b) = (dirs.state.join("a"), dirs.state.join("b"));
        fs::write(&a, b"aa").unwrap();
        fs::write(&b, b"bbb").unwrap();
        let rename = |flags| rustix::fs::renameat_with(CWD, &a, CWD, &b, flags).map_err(std::io::Error::from);
        assert_eq!(errno(rename(RenameFlags::NOREPLACE)), EEXIST);
        rename(RenameFlags::EXCHANGE).unwrap();
        assert_eq!(
            (fs::read(&a).unwrap(), fs::read(&b).unwrap()),
            (b"bbb".to_vec(), b"aa".to_vec())
        );
        rename(RenameFlags::empty()).unwrap();
        assert_eq!(fs::read(&b).unwrap(), b"bbb");
        assert!(!a.exists());
        assert_eq!(errno(fs::rename(&b, dirs.tmp.join("b"))), EXDEV);
        fs::create_dir_all(dirs.state.join("d1/d2")).unwrap();
        fs::create_dir(dirs.state.join("e")).unwrap();
        fs::rename(dirs.state.join("d1/d2"), dirs.state.join("e")).unwrap();
        fs::rename(&b, dirs.state.join("d1/b")).unwrap();
        fs::rename(dirs.state.join("d1"), dirs.state.join("moved")).unwrap();
        assert_eq!(fs::read(dirs.state.join("moved/b")).unwrap(), b"bbb");
        fs::rename(dirs.state.join("moved"), dirs.state.join("moved/inside")).unwrap_err();
    });
    let (_, state) = connection.usage().unwrap();
    assert_eq!(
        (state.used_bytes, state.used_inodes),
        World::measure(&world.subject_dir().join("state"))
    );
    assert_eq!((state.used_bytes, state.used_inodes), (4096, 3));
}

fn kinds(world: &World) {
    let connection = world.join_roomy();
    world.inside(&connection, |dirs| {
        let make = |name: &str, kind| {
            rustix::fs::mknodat(CWD, dirs.tmp.join(name), kind, Mode::RWXU, 0).map_err(std::io::Error::from)
        };
        make("fifo", FileType::Fifo).unwrap();
        make("plain", FileType::RegularFile).unwrap();
        assert_eq!(errno(make("device", FileType::CharacterDevice)), EPERM);
        let fifo = dirs.tmp.join("fifo");
        std::thread::scope(|scope| {
            scope.spawn(|| fs::write(&fifo, b"through").unwrap());
            assert_eq!(fs::read(&fifo).unwrap(), b"through");
        });
        let listener = std::os::unix::net::UnixListener::bind(dirs.tmp.join("socket")).unwrap();
        let mut client = std::os::unix::net::UnixStream::connect(dirs.tmp.join("socket")).unwrap();
        client.write_all(b"hi").unwrap();
        drop(client);
        let mut got = Vec::new();
        std::io::Read::read_to_end(&mut listener.accept().unwrap().0, &mut got).unwrap();
        assert_eq!(got, b"hi");
        assert_eq!(
            fs::symlink_metadata(dirs.tmp.join("socket")).unwrap().mode() & 0o170_000,
            0o140_000
        );
    });
}

fn targets(world: &World) {
    let mut connection = world.join(budget(3 * 4096, 100), budget(2 * 4096, 100));
    let long = |bytes: usize| "x/".repeat(bytes / 2) + &"y".repeat(bytes % 2);
    world.inside(&connection, |dirs| {
        // One block each, however much of it is used.
        symlink("short", dirs.state.join("a")).unwrap();
        symlink(long(4095), dirs.state.join("b")).unwrap();
        assert_eq!(errno(symlink("c", dirs.state.join("c"))), EDQUOT);
        assert_eq!(errno(fs::write(dirs.state.join("w"), b"x")), EDQUOT);
        fs::remove_file(dirs.state.join("w")).unwrap();
        // Two names of one link cost no second block.
        fs::hard_link(dirs.state.join("b"), dirs.state.join("b2")).unwrap();
        fs::remove_file(dirs.state.join("b")).unwrap();
        assert_eq!(fs::read_link(dirs.state.join("b2")).unwrap().as_os_str().len(), 4095);
        assert_eq!(errno(symlink("c", dirs.state.join("c"))), EDQUOT);
        assert_eq!(errno(symlink("c", dirs.state.join("b2"))), EEXIST);
        // One that is replaced, removed, or refused by the host gives back what it cost.
        fs::rename(dirs.state.join("a"), dirs.state.join("b2")).unwrap();
        symlink(long(4000), dirs.state.join("c")).unwrap();
        assert_eq!(errno(symlink(long(4000), dirs.state.join("c"))), EEXIST);
        let held = rustix::fs::open(dirs.state.join("c"), OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()).unwrap();
        fs::remove_file(dirs.state.join("c")).unwrap();
        // Held by nothing but a descriptor that cannot read it, it is in nobody's way.
        symlink(long(4000), dirs.state.join("d")).unwrap();
        drop(held);
        for number in 0..3 {
            symlink(long(3000), dirs.tmp.join(format!("l{number}"))).unwrap();
        }
        assert_eq!(errno(symlink("x", dirs.tmp.join("l3"))), EDQUOT);
    });
    let (tmp, before) = connection.usage().unwrap();
    assert_eq!((tmp.used_bytes, tmp.used_inodes), (3 * 4096, 3));
    assert_eq!((before.used_bytes, before.used_inodes), (2 * 4096, 2));
    let denied: Vec<_> = (0..4).map(|_| world.event(&mut connection).reason).collect();
    assert_eq!(denied, [Reason::QuotaHardBytes; 4]);
    drop(connection);
    let mut connection = world.join(budget(3 * 4096, 100), budget(2 * 4096, 100));
    assert!(connection.fresh);
    assert_eq!(connection.usage().unwrap().1, before, "measured anew it is the same");
    world.inside(&connection, |dirs| {
        assert_eq!(errno(symlink("x", dirs.state.join("x"))), EDQUOT);
        for name in ["b2", "d"] {
            fs::remove_file(dirs.state.join(name)).unwrap();
        }
    });
    assert_eq!(connection.usage().unwrap().1.used_bytes, 0);
}

fn symlink_attack(world: &World) {
    let secret = world.subject_dir().parent().unwrap().join("secret");
    fs::create_dir_all(world.subject_dir().parent().unwrap()).unwrap();
    fs::write(&secret, b"secret").unwrap();
    let connection = world.join_roomy();
    world.inside(&connection, |dirs| {
        // On the server's side these lead out of the subject's directory; on ours they lead wherever our own view says.
        symlink(&secret, dirs.state.join("file")).unwrap();
        symlink("../../secret", dirs.state.join("relative")).unwrap();
        symlink("..", dirs.state.join("up")).unwrap();
        assert_eq!(fs::read_link(dirs.state.join("file")).unwrap(), secret);
        assert_eq!(
            fs::symlink_metadata(dirs.state.join("file")).unwrap().len() as usize,
            secret.as_os_str().len()
        );
        // `..` of the area is the mount point's parent, not the subject's directory.
        assert!(!dirs.state.join("up/lock").exists());
        assert!(!dirs.state.join("relative").exists());
        // Renamed back and forth over a file that is opened at the same time.
        fs::write(dirs.state.join("plain"), b"plain").unwrap();
        symlink(&secret, dirs.state.join("trap")).unwrap();
        let (plain, trap) = (dirs.state.join("plain"), dirs.state.join("trap"));
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    rustix::fs::renameat_with(CWD, &plain, CWD, &trap, RenameFlags::EXCHANGE).unwrap();
                }
            });
            for _ in 0..2000 {
                let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NOFOLLOW;
                if let Ok(file) = rustix::fs::open(&plain, flags, Mode::empty()) {
                    let mut buffer = [0; 16];
                    let read = rustix::io::read(&file, &mut buffer).unwrap();
                    assert_eq!(&buffer[..read], b"plain");
                }
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    });
    assert_eq!(fs::read(&secret).unwrap(), b"secret");
    drop(connection);
    // A second server measures and serves the links without following them.
    let mut connection = world.join_roomy();
    assert_eq!(connection.usage().unwrap().1.used_inodes, 5);
}

fn names_in(dir: &Path) -> Vec<String> {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn listing(world: &World) {
    let connection = world.join_roomy();
    world.inside(&connection, |dirs| {
        let wanted: BTreeSet<String> = (0..5000).map(|number| format!("file-{number}")).collect();
        for name in &wanted {
            File::create(dirs.tmp.join(name)).unwrap();
        }
        let got = names_in(&dirs.tmp);
        assert_eq!(got.len(), wanted.len());
        assert_eq!(got.into_iter().collect::<BTreeSet<_>>(), wanted);
        for entry in fs::read_dir(&dirs.tmp).unwrap().take(100) {
            let entry = entry.unwrap();
            assert_eq!(
                std::os::unix::fs::DirEntryExt::ino(&entry),
                entry.metadata().unwrap().ino()
            );
        }
    });
}

fn listing_while_removing(world: &World) {
    let connection = world.join_roomy();
    world.inside(&connection, |dirs| {
        for number in 0..3000 {
            File::create(dirs.tmp.join(format!("f{number}"))).unwrap();
        }
        for entry in fs::read_dir(&dirs.tmp).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        assert_eq!(names_in(&dirs.tmp), Vec::<String>::new());
    });
}

fn modes(world: &World) {
    let connection = world.join_roomy();
    world.inside(&connection, |dirs| {
        let path = dirs.tmp.join("f");
        fs::write(&path, b"x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert_eq!(errno(OpenOptions::new().write(true).open(&path)), 13);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o6755)).unwrap();
        assert_eq!(mode(&path), 0o755);
        fs::create_dir(dirs.tmp.join("d")).unwrap();
        fs::set_permissions(dirs.tmp.join("d"), fs::Permissions::from_mode(0o3777)).unwrap();
        assert_eq!(mode(&dirs.tmp.join("d")), 0o1777);
        // Closed to its owner, it is closed; and can be opened again.
        fs::set_permissions(dirs.tmp.join("d"), fs::Permissions::from_mode(0o000)).unwrap();
        assert_eq!(errno(fs::read_dir(dirs.tmp.join("d"))), 13);
        fs::set_permissions(dirs.tmp.join("d"), fs::Permissions::from_mode(0o700)).unwrap();
        // Made read-only, written through the handle that made it.
        let mut file = std::os::unix::fs::OpenOptionsExt::mode(OpenOptions::new().write(true).create_new(true), 0o400)
            .open(dirs.tmp.join("readonly"))
            .unwrap();
        file.write_all(b"written").unwrap();
        // Executable, not readable.
        fs::copy("/bin/true", dirs.tmp.join("program")).unwrap();
        fs::set_permissions(dirs.tmp.join("program"), fs::Permissions::from_mode(0o111)).unwrap();
        assert!(
            std::process::Command::new(dirs.tmp.join("program"))
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(mode(&dirs.tmp), 0o1777);
        assert_eq!(mode(&dirs.state), 0o700);
        fs::write(dirs.state.join("changed"), b"x").unwrap();
        fs::set_permissions(dirs.state.join("changed"), fs::Permissions::from_mode(0o6755)).unwrap();
        std::os::unix::fs::OpenOptionsExt::mode(OpenOptions::new().write(true).create_new(true), 0o6755)
            .open(dirs.state.join("made"))
            .unwrap();
    });
    // What is shown inside is one thing; on the host's side they would be a gift for whoever gets there.
    for name in ["changed", "made"] {
        let kept = fs::metadata(world.subject_dir().join("state").join(name)).unwrap();
        assert_eq!(kept.permissions().mode() & 0o6000, 0, "{name}");
    }
}

fn times(world: &World) {
    let connection = world.join_roomy();
    world.inside(&connection, |dirs| {
        let path = dirs.state.join("f");
        fs::write(&path, b"x").unwrap();
        let when = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(when)
            .unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), when);
        let before = std::time::SystemTime::UNIX_EPOCH - std::time::Duration::new(3, 500_000_000);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(before)
            .unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
        let own = fs::metadata(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(own.uid()), Some(own.gid())).unwrap();
        assert_eq!(own.uid(), rustix::process::geteuid().as_raw());
        std::os::unix::fs::chown(&path, Some(own.uid() + 1), None).unwrap_err();
        symlink("x", dirs.state.join("l")).unwrap();
        let times = rustix::fs::Timestamps {
            last_access: rustix::fs::Timespec { tv_sec: 5, tv_nsec: 6 },
            last_modification: rustix::fs::Timespec { tv_sec: 7, tv_nsec: 8 },
        };
        rustix::fs::utimensat(CWD, dirs.state.join("l"), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        assert_eq!(fs::symlink_metadata(dirs.state.join("l")).unwrap().mtime(), 7);
    });
}

fn long_names(world: &World) {
    use std::os::unix::ffi::OsStringExt;
    let mut connection = world.join(budget(4096, 10), budget(0, 0));
    let longest = std::ffi::OsString::from_vec(
        (0..255_u8)
            .map(|byte| if byte == b'/' { 255 } else { byte.max(1) })
            .collect(),
    );
    world.inside(&connection, |dirs| {
        let path = dirs.tmp.join(&longest);
        fs::write(&path, vec![0; 4096]).unwrap();
        assert_eq!(
            fs::read_dir(&dirs.tmp).unwrap().next().unwrap().unwrap().file_name(),
            longest
        );
        assert_eq!(
            errno(OpenOptions::new().append(true).open(&path).unwrap().write_all(b"x")),
            EDQUOT
        );
        let mut longer = longest.clone();
        longer.push("x");
        assert_eq!(errno(File::create(dirs.tmp.join(longer))), 36);
    });
    assert_eq!(world.event(&mut connection).name.as_bytes(), longest.as_encoded_bytes());
}
