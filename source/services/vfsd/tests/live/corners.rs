//! What else a program could do to its file server: corners of the interface that are seldom walked into by chance.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nexus_abi::Reason;
use rustix::fs::{CWD, FallocateFlags, Mode, OFlags, RawDir, RenameFlags, SeekFrom, XattrFlags};

use crate::Case;
use crate::hostile::{Numbers, agrees};
use crate::mapping::{FileHandle, Mapping};
use crate::world::{KIB, MIB, World, budget, errno, eventually, kernel, open_or_make};

pub(crate) const CASES: &[Case] = &[
    (
        "a_listing_from_any_place_ends_and_leads_nowhere_else",
        listing_from_anywhere,
    ),
    ("a_file_handle_opens_nothing_that_a_name_does_not", file_handles),
    ("names_of_other_file_servers_hidden_files_are_names", hidden_names),
    (
        "a_file_copied_over_itself_grows_within_the_budget_or_not_at_all",
        copy_to_itself,
    ),
    (
        "what_is_copied_from_one_area_to_another_is_charged_where_it_arrives",
        copy_across,
    ),
    (
        "an_exchange_with_a_directory_keeps_both_and_the_ledger",
        exchange_directory,
    ),
    ("direct_writes_reach_the_last_block_and_no_further", direct),
    (
        "looking_for_data_and_holes_moves_nobodys_place_and_costs_nothing",
        data_and_holes,
    ),
    (
        "attributes_that_many_change_at_once_are_paid_for_exactly",
        storm_of_attributes,
    ),
    (
        "room_past_the_end_goes_with_the_last_of_closes_that_race",
        racing_closes,
    ),
    (
        "a_held_name_stays_for_those_who_hold_it_whatever_another_session_does",
        held_elsewhere,
    ),
];

const EDQUOT: i32 = 122;
const EINVAL: i32 = 22;
const EBUSY: i32 = 16;
const EPERM: i32 = 1;
const ESTALE: i32 = 116;

/// The names that a look into a directory finds from where it stands.
fn listed(dir: &File) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        names.push(entry?.file_name().to_string_lossy().into_owned());
        assert!(names.len() < 10_000, "it ends");
    }
    Ok(names)
}

fn listing_from_anywhere(world: &World) {
    let connection = world.join_roomy();
    world.inside(&connection, |dirs| {
        for root in [&dirs.tmp, &dirs.state] {
            let path = root.join("d");
            fs::create_dir(&path).unwrap();
            let mut real: BTreeSet<String> = (0..300).map(|number| format!("n{number}")).collect();
            for name in &real {
                File::create(path.join(name)).unwrap();
            }
            real.extend([".".to_owned(), "..".to_owned()]);
            let dir = File::open(&path).unwrap();
            let whole = listed(&dir).unwrap();
            assert_eq!(whole.iter().cloned().collect::<BTreeSet<_>>(), real);
            assert_eq!(whole.len(), real.len());
            let mut numbers = Numbers(0x1234_5678_9abc_def1);
            let edges = [
                0,
                1,
                2,
                3,
                u64::from(u32::MAX),
                1 << 40,
                i64::MAX as u64,
                i64::MAX as u64 - 1,
            ];
            let random = std::iter::repeat_with(|| numbers.below(i64::MAX as u64)).take(200);
            let mut known = 0;
            for place in edges.into_iter().chain(random) {
                // The host may not know the place; what it knows holds these names and no others.
                if rustix::fs::seek(&dir, SeekFrom::Start(place)).is_ok()
                    && let Ok(names) = listed(&dir)
                {
                    assert!(names.iter().all(|name| real.contains(name)), "{place}");
                    known += 1;
                }
            }
            assert!(known > 0, "no place could be looked at");
            // And from the start again it is whole.
            rustix::fs::seek(&dir, SeekFrom::Start(0)).unwrap();
            assert_eq!(listed(&dir).unwrap().len(), real.len());
        }
    });
}

fn file_handles(world: &World) {
    let mut connection = world.join_roomy();
    world.inside(&connection, |dirs| {
        // Directories, since the kernel lets nothing else be opened so by who is not root of the machine.
        let [own, others] = [&dirs.state, &dirs.tmp].map(|area| area.join("d"));
        let of = |path: &Path| {
            fs::create_dir(path).unwrap();
            FileHandle::of(&CString::new(path.as_os_str().as_bytes()).unwrap())
        };
        // All areas are one file system: that another lies in it does not make it reachable from here.
        let (own_handle, others_handle) = match (of(&own), of(&others)) {
            (Ok(own), Ok(others)) => (own, others),
            said => {
                assert!(kernel() < (6, 6), "{:?} {:?}", said.0.err(), said.1.err());
                return;
            }
        };
        let mut forged = vec![others_handle];
        forged.extend((1..64).map(|inode| FileHandle::made_up(inode, 0)));
        let mut numbers = Numbers(0xfeed_beef_0000_0001);
        for _ in 0..300 {
            let mut handle = own_handle;
            let bytes = handle.bytes_mut();
            let at = numbers.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 + numbers.below(255) as u8;
            forged.push(handle);
        }
        let below = File::open(&dirs.state).unwrap();
        for handle in forged.iter().chain([&own_handle]) {
            assert_eq!(
                errno(handle.open(&below)),
                EPERM,
                "it takes a right that a program does not have"
            );
        }
        // In a user namespace of its own it has that right (since Linux 6.12): for what it can reach by a name.
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        nexus_sys::userns::unshare_user_and_mounts().unwrap();
        nexus_sys::userns::map_self(uid, gid).unwrap();
        let (below, refused) = (
            File::open(&dirs.state).unwrap(),
            if kernel() < (6, 12) { EPERM } else { ESTALE },
        );
        let named = [&dirs.state, &own].map(|path| fs::metadata(path).unwrap().ino());
        for handle in &forged {
            match handle.open(&below) {
                // A number that was guessed right may lead to what has a name here, and to nothing else.
                Ok(opened) => assert!(named.contains(&opened.metadata().unwrap().ino())),
                Err(error) => assert_eq!(error.raw_os_error(), Some(refused)),
            }
        }
        match own_handle.open(&below) {
            Ok(opened) => {
                assert_eq!(opened.metadata().unwrap().ino(), fs::metadata(&own).unwrap().ino());
                // Nor is it there for longer than its name.
                drop(opened);
                fs::remove_dir(&own).unwrap();
                assert_eq!(errno(own_handle.open(&below)), ESTALE);
            }
            Err(error) => assert_eq!(error.raw_os_error(), Some(refused)),
        }
    });
    // It goes on as it did.
    agrees(world, &mut connection);
}

fn hidden_names(world: &World) {
    let mut connection = world.join(budget(MIB, 10), budget(0, 0));
    world.inside(&connection, |dirs| {
        let names = [
            ".fuse_hidden0000000100000001",
            ".nfs0001",
            "...",
            "-",
            " ",
            "\n",
            "\u{202e}",
            "~",
            "%s%n",
            "\\",
            "*",
        ];
        for name in names {
            let path = dirs.tmp.join(name);
            fs::write(&path, b"mine").unwrap();
            let open = File::open(&path).unwrap();
            fs::remove_file(&path).unwrap();
            // Removed is removed, also while it is open: nothing stands in for it.
            assert_eq!(fs::read_dir(&dirs.tmp).unwrap().count(), 0, "{name:?}");
            assert_eq!(open.metadata().unwrap().nlink(), 0);
            open.read_exact_at(&mut [0; 4], 0).unwrap();
        }
        for name in ["", ".", ".."] {
            assert!(fs::create_dir(dirs.tmp.join(name)).is_err());
        }
        // Above an area is what it is mounted in, and nothing of the file server's.
        let above = rustix::fs::open(dirs.tmp.join(".."), OFlags::PATH, Mode::empty()).unwrap();
        let parent = rustix::fs::open(dirs.tmp.parent().unwrap(), OFlags::PATH, Mode::empty()).unwrap();
        let number = |fd| {
            let stat = rustix::fs::fstat(fd).unwrap();
            (stat.st_dev, stat.st_ino)
        };
        assert_eq!(number(&above), number(&parent));
    });
    // No close is waited for.
    eventually("all of it is given back", || {
        connection.usage().unwrap().0.used_inodes == 0
    });
}

fn copy_to_itself(world: &World) {
    let mut connection = world.join(budget(8 * 4096, 10), budget(0, 0));
    world.inside(&connection, |dirs| {
        let path = dirs.tmp.join("f");
        let file = open_or_make(&path);
        let content: Vec<u8> = (0..4 * 4096_u32).map(|at| (at % 251) as u8).collect();
        file.write_all_at(&content, 0).unwrap();
        let copy = |from: u64, to: u64, length: usize| {
            let (mut read_at, mut write_at) = (from, to);
            rustix::fs::copy_file_range(&file, Some(&mut read_at), &file, Some(&mut write_at), length)
                .map_err(std::io::Error::from)
        };
        // Over itself: refused, and nothing of it done.
        assert_eq!(errno(copy(0, 100, 4 * 4096)), EINVAL);
        assert_eq!(errno(copy(4096, 0, 2 * 4096)), EINVAL);
        assert_eq!(fs::read(&path).unwrap(), content);
        // To its own end, as far as there is room, and from past it nothing.
        assert_eq!(copy(0, 4 * 4096, 4 * 4096).unwrap(), 4 * 4096);
        assert_eq!(errno(copy(0, 8 * 4096, 1)), EDQUOT);
        assert_eq!(errno(copy(0, 8 * 4096 - 10, 11)), EDQUOT, "denied whole");
        assert_eq!(copy(9 * 4096, 0, 4096).unwrap(), 0);
        assert!(copy(0, i64::MAX as u64 - 5, 10).is_err());
        assert_eq!(fs::read(&path).unwrap(), [content.clone(), content].concat());
    });
    assert_eq!(connection.usage().unwrap().0.used_bytes, 8 * 4096);
}

fn copy_across(world: &World) {
    let mut connection = world.join(budget(MIB, 10), budget(16 * KIB, 10));
    world.inside(&connection, |dirs| {
        let from = open_or_make(&dirs.tmp.join("from"));
        from.write_all_at(&[7; 20 * 1024], 0).unwrap();
        let to = open_or_make(&dirs.state.join("to"));
        let copy = |at: u64, length: usize| {
            let (mut read_at, mut write_at) = (0, at);
            rustix::fs::copy_file_range(&from, Some(&mut read_at), &to, Some(&mut write_at), length)
                .map_err(std::io::Error::from)
        };
        assert_eq!(errno(copy(0, 20 * 1024)), EDQUOT);
        assert_eq!(to.metadata().unwrap().len(), 0);
        assert_eq!(copy(0, 16 * 1024).unwrap(), 16 * 1024);
        assert_eq!(errno(copy(16 * 1024, 1)), EDQUOT);
        assert_eq!(fs::read(dirs.state.join("to")).unwrap(), vec![7; 16 * 1024]);
    });
    let (tmp, state) = connection.usage().unwrap();
    assert_eq!((tmp.used_bytes, state.used_bytes), (20 * KIB, 16 * KIB));
    assert_eq!(world.event(&mut connection).area, nexus_abi::Area::State);
}

fn exchange_directory(world: &World) {
    let mut connection = world.join_roomy();
    world.inside(&connection, |dirs| {
        let root = &dirs.state;
        let swap = |one: &str, two: &str| {
            rustix::fs::renameat_with(CWD, root.join(one), CWD, root.join(two), RenameFlags::EXCHANGE)
                .map_err(std::io::Error::from)
        };
        fs::create_dir_all(root.join("a/deep/deeper")).unwrap();
        fs::write(root.join("a/deep/deeper/file"), vec![1; 5000]).unwrap();
        fs::create_dir(root.join("b")).unwrap();
        fs::write(root.join("b/plain"), vec![2; 100]).unwrap();
        // With what is in it, or what it is in: no.
        assert_eq!(errno(swap("a", "a/deep")), EINVAL);
        assert!(swap("a/deep/deeper/file", "a").is_err());
        // A directory for a file, in another directory, again and again, while somebody stands in it.
        let stands = File::open(root.join("a/deep/deeper")).unwrap();
        for _ in 0..25 {
            swap("a/deep", "b/plain").unwrap();
            assert_eq!(fs::read(root.join("a/deep")).unwrap(), vec![2; 100]);
            assert_eq!(fs::read(root.join("b/plain/deeper/file")).unwrap(), vec![1; 5000]);
            swap("b/plain", "a/deep").unwrap();
            assert_eq!(fs::read(root.join("a/deep/deeper/file")).unwrap(), vec![1; 5000]);
            assert_eq!(listed(&stands).unwrap().len(), 3);
            rustix::fs::seek(&stands, SeekFrom::Start(0)).unwrap();
        }
        // A full directory is not replaced, by an exchange it may be.
        assert!(fs::rename(root.join("b"), root.join("a")).is_err());
        swap("a", "b").unwrap();
        assert_eq!(fs::read(root.join("a/plain")).unwrap(), vec![2; 100]);
    });
    agrees(world, &mut connection);
}

fn direct(world: &World) {
    let mut connection = world.join(budget(8 * 4096, 10), budget(0, 0));
    world.inside(&connection, |dirs| {
        let path = dirs.tmp.join("f");
        let file = open_or_make(&path);
        file.write_all_at(&[1; 4096], 0).unwrap();
        let straight = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::DIRECT.bits() as i32)
            .open(&path)
            .unwrap();
        let mut mapping = Mapping::new(&file, 0, 4096).unwrap();
        mapping.bytes_mut()[17] = 9;
        // From memory that is aligned, as direct I/O may ask for it.
        let mut pages = Mapping::new(&open_or_make(&dirs.tmp.join("pages")), 0, 4096);
        open_or_make(&dirs.tmp.join("pages")).set_len(4096).unwrap();
        let page = pages.as_mut().unwrap().bytes_mut();
        page.fill(5);
        straight.read_exact_at(page, 0).unwrap();
        assert_eq!((page[16], page[17]), (1, 9), "what was mapped is seen");
        page.fill(5);
        // The file of pages has one block, this one the other seven.
        for block in 1..7 {
            straight.write_all_at(page, block * 4096).unwrap();
        }
        assert_eq!(errno(straight.write_at(page, 7 * 4096)), EDQUOT);
        straight.write_all_at(page, 0).unwrap();
        assert_eq!(mapping.bytes()[17], 5, "what was written past the cache is seen");
        assert_eq!(fs::read(&path).unwrap(), vec![5; 7 * 4096]);
    });
    assert_eq!(connection.usage().unwrap().0.used_bytes, 8 * 4096);
    assert_eq!(world.event(&mut connection).reason, Reason::QuotaHardBytes);
}

fn data_and_holes(world: &World) {
    let mut connection = world.join(budget(MIB, 10), budget(0, 0));
    world.inside(&connection, |dirs| {
        let path = dirs.tmp.join("f");
        let file = open_or_make(&path);
        file.write_all_at(&[1; 4096], MIB / 2).unwrap();
        rustix::fs::seek(&file, SeekFrom::Start(MIB / 2)).unwrap();
        let other = open_or_make(&path);
        for place in [0, 1, 4095, MIB / 4, MIB / 2, MIB / 2 + 4095] {
            let data = rustix::fs::seek(&other, SeekFrom::Data(place)).unwrap();
            let hole = rustix::fs::seek(&other, SeekFrom::Hole(place)).unwrap();
            assert!(
                data >= place && hole >= place && hole <= MIB / 2 + 4096,
                "{place}: {data} {hole}"
            );
        }
        for place in [MIB / 2 + 4096, MIB, 1 << 40, i64::MAX as u64] {
            rustix::fs::seek(&other, SeekFrom::Data(place)).unwrap_err();
            rustix::fs::seek(&other, SeekFrom::Hole(place)).unwrap_err();
        }
        // Each description stands where it stood.
        let mut byte = [0];
        std::io::Read::read_exact(&mut &file, &mut byte).unwrap();
        assert_eq!(byte, [1]);
    });
    assert_eq!(connection.usage().unwrap().0.used_bytes, MIB / 2 + 4096);
}

fn storm_of_attributes(world: &World) {
    let connection = world.join(budget(0, 0), budget(MIB, 20));
    let mut watcher = world.join(budget(0, 0), budget(MIB, 20));
    world.inside(&connection, |dirs| {
        let paths: Vec<_> = (0..3).map(|number| dirs.state.join(format!("f{number}"))).collect();
        for path in &paths {
            drop(open_or_make(path));
        }
        let done = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for seed in 1..=4_u64 {
                let (paths, done) = (&paths, &done);
                scope.spawn(move || {
                    let mut numbers = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                    for _ in 0..300 {
                        let path = &paths[numbers.below(3) as usize];
                        // A name as long as there is, and short ones.
                        let name = match numbers.below(4) {
                            0 => format!("user.{}", "n".repeat(250)),
                            number => format!("user.{number}"),
                        };
                        let value = vec![1; numbers.below(3000) as usize];
                        // Each may fail: the host has no room, or it is not there.
                        let went = if numbers.below(3) == 0 {
                            rustix::fs::removexattr(path, name.as_str()).is_ok()
                        } else {
                            rustix::fs::setxattr(path, name.as_str(), &value, XattrFlags::empty()).is_ok()
                        };
                        done.fetch_add(u32::from(went), std::sync::atomic::Ordering::Relaxed);
                    }
                });
            }
        });
        assert!(done.into_inner() > 100, "it was no storm");
        // A longer name is none.
        assert!(
            rustix::fs::setxattr(&paths[0], format!("user.{}", "n".repeat(251)), b"", XattrFlags::empty()).is_err()
        );
    });
    drop(connection);
    let left = watcher.usage().unwrap().1;
    assert!(left.used_bytes <= 3 * 64 * KIB, "{left:?}");
    drop(watcher);
    // Measured by the next, it is the same.
    crate::sessions::wait_for_end(world);
    let mut again = world.join(budget(0, 0), budget(MIB, 20));
    assert_eq!(again.usage().unwrap().1.used_bytes, left.used_bytes);
    world.inside(&again, |dirs| {
        for number in 0..3 {
            fs::remove_file(dirs.state.join(format!("f{number}"))).unwrap();
        }
    });
    eventually("all of it is given back", || again.usage().unwrap().1.used_bytes == 0);
}

fn racing_closes(world: &World) {
    let mut connection = world.join(budget(0, 0), budget(64 * MIB, 100));
    world.inside(&connection, |dirs| {
        let path = dirs.state.join("f");
        fs::write(&path, b"x").unwrap();
        for _ in 0..200 {
            let (one, two) = (open_or_make(&path), open_or_make(&path));
            rustix::fs::fallocate(&one, FallocateFlags::KEEP_SIZE, 0, MIB).unwrap();
            let together = std::sync::Barrier::new(2);
            std::thread::scope(|scope| {
                for file in [one, two] {
                    let together = &together;
                    scope.spawn(move || {
                        together.wait();
                        drop(file);
                    });
                }
            });
        }
    });
    // No close is waited for.
    eventually("the room past the end is given back", || {
        connection.usage().unwrap().1.used_bytes == 4 * KIB
    });
    let file = world.subject_dir().join("state/f");
    eventually("and the host's", || {
        fs::metadata(&file).unwrap().blocks() * 512 <= 4 * KIB
    });
}

fn held_elsewhere(world: &World) {
    let dir = world.work_dir();
    for name in ["box", "box/inner"] {
        fs::create_dir(dir.join(name)).unwrap();
    }
    fs::write(dir.join("box/inner/kept"), b"kept").unwrap();
    fs::write(dir.join("free"), b"free").unwrap();
    if let Some(user) = world.mode().start_as() {
        for name in ["box", "box/inner", "box/inner/kept", "free"] {
            let _ = std::os::unix::fs::chown(dir.join(name), Some(user), Some(user));
        }
    }
    let mut config = world.work_config(&dir, budget(MIB, 10));
    if let Some(work) = config.work.as_mut() {
        work.held = vec![(0, b"box".to_vec()), (1, b"inner".to_vec()), (2, b"kept".to_vec())];
    }
    let holds = vfsd::join(&config).unwrap();
    // Mounts nothing on them, so that nothing but the file server stands in its way.
    let other = world.join_work(&dir, budget(MIB, 10));
    world.inside(&other, |dirs| {
        let at = |name: &str| dirs.work.join(name);
        for name in ["box", "box/inner", "box/inner/kept"] {
            assert_eq!(errno(fs::rename(at(name), at("moved"))), EBUSY, "{name}");
            let swapped = rustix::fs::renameat_with(CWD, at(name), CWD, at("free"), RenameFlags::EXCHANGE);
            assert_eq!(errno(swapped.map_err(Into::into)), EBUSY, "{name}");
        }
        assert_eq!(errno(fs::remove_file(at("box/inner/kept"))), EBUSY);
        assert_eq!(errno(fs::rename(at("free"), at("box/inner/kept"))), EBUSY);
        assert_eq!(errno(fs::remove_dir(at("box/inner"))), EBUSY);
        // What is held is the name; what it means may be read and written, and what is beside it moved.
        fs::write(at("box/inner/kept"), b"changed").unwrap();
        fs::rename(at("free"), at("box/inner/beside")).unwrap();
        fs::remove_file(at("box/inner/beside")).unwrap();
    });
    assert_eq!(fs::read(dir.join("box/inner/kept")).unwrap(), b"changed");
    drop(holds);
}
