//! Bytes: what a length costs, to the byte.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use nexus_abi::{Area, Operation, Reason};

use crate::Case;
use crate::mapping::Mapping;
use crate::world::{MIB, World, budget, errno, eventually};

pub(crate) const CASES: &[Case] = &[
    (
        "a_write_to_the_last_byte_fits_and_the_next_is_denied_whole",
        to_the_limit,
    ),
    ("deleting_gives_room_back_at_once", deleting),
    ("truncating_charges_up_and_releases_down", truncating),
    ("an_unlinked_open_file_stays_charged_until_closed", unlinked_open),
    (
        "an_unlinked_path_handle_yields_its_room_when_it_is_needed",
        unlinked_path_handle,
    ),
    ("mapped_writes_inside_the_length_are_never_refused", mapped),
    ("statfs_tells_the_budget", statfs),
    ("fallocate_charges_what_it_takes", fallocate),
    ("copy_file_range_is_charged_like_a_write", copying),
    ("sendfile_and_splice_are_charged_like_a_write", moving),
    ("a_hole_costs_what_data_would", holes),
    ("append_from_many_descriptors_loses_nothing", appending),
    ("a_file_past_four_gib_is_addressed_right", past_four_gib),
    ("crossing_soft_is_warned_of_once", soft),
    ("shm_is_charged_to_tmp", shm),
    (
        "closing_an_unlinked_file_makes_room_for_the_very_next_write",
        close_then_write,
    ),
    ("writers_that_race_at_the_limit_never_pass_it", racing_writers),
];

/// Cases that need a limit or a mount that root would not be bound by.
pub(crate) const USER_CASES: &[Case] = &[("a_full_host_says_enospc_and_charges_nothing", full_host)];

const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;
const EOPNOTSUPP: i32 = 95;

fn to_the_limit(world: &World) {
    let mut connection = world.join(budget(MIB, 100), budget(MIB, 100));
    assert!(connection.fresh);
    world.inside(&connection, |dirs| {
        let mut file = File::create(dirs.tmp.join("full")).unwrap();
        file.write_all(&vec![7; MIB as usize]).unwrap();
        assert_eq!(errno(file.write_all(b"x")), EDQUOT);
        assert_eq!(file.metadata().unwrap().len(), MIB);
        assert_eq!(fs::read(dirs.tmp.join("full")).unwrap(), vec![7; MIB as usize]);
        // Overwriting is paid for.
        file.write_all_at(b"again", MIB - 5).unwrap();
        // The other area has its own.
        fs::write(dirs.state.join("small"), b"x").unwrap();
    });
    let event = world.event(&mut connection);
    assert_eq!(
        (event.area, event.operation, event.reason),
        (Area::Tmp, Operation::Write, Reason::QuotaHardBytes)
    );
    assert_eq!((event.name.as_bytes(), event.asked), (&b"full"[..], 4096));
    assert!(event.pid > 0);
    assert_eq!(event.policy.as_bytes(), b"0123456789abcdef");
    let (tmp, state) = connection.usage().unwrap();
    assert_eq!((tmp.used_bytes, tmp.used_inodes), (MIB, 1));
    assert_eq!((state.used_bytes, state.used_inodes), (4096, 1));
    assert_eq!(connection.next_message().unwrap(), None, "one denial, one event");
}

fn deleting(world: &World) {
    let mut connection = world.join(budget(MIB, 100), budget(0, 0));
    world.inside(&connection, |dirs| {
        for _ in 0..50 {
            let path = dirs.tmp.join("a");
            fs::write(&path, vec![1; MIB as usize]).unwrap();
            fs::remove_file(&path).unwrap();
            fs::write(&path, vec![2; MIB as usize]).unwrap();
            // Renaming over a file frees it too.
            fs::write(dirs.tmp.join("b"), b"").unwrap();
            fs::rename(dirs.tmp.join("b"), &path).unwrap();
            fs::write(dirs.tmp.join("b"), vec![3; MIB as usize]).unwrap();
            fs::remove_file(dirs.tmp.join("b")).unwrap();
        }
    });
    assert_eq!(connection.usage().unwrap().0.used_bytes, 0);
    assert_eq!(connection.next_message().unwrap(), None);
}

fn truncating(world: &World) {
    let mut connection = world.join(budget(MIB, 100), budget(MIB, 100));
    world.inside(&connection, |dirs| {
        let path = dirs.tmp.join("t");
        let file = File::create(&path).unwrap();
        file.set_len(MIB).unwrap();
        assert_eq!(errno(file.set_len(MIB + 1)), EDQUOT);
        assert_eq!(file.metadata().unwrap().len(), MIB);
        file.set_len(4097).unwrap();
        let other = File::create(dirs.tmp.join("u")).unwrap();
        assert_eq!(errno(other.set_len(MIB - 8191)), EDQUOT);
        other.set_len(MIB - 8192).unwrap();
        // By path, without a handle.
        drop(file);
        fs::OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        other.set_len(MIB).unwrap();
    });
    assert_eq!(connection.usage().unwrap().0.used_bytes, MIB);
}

fn unlinked_open(world: &World) {
    let mut connection = world.join(budget(MIB, 100), budget(0, 0));
    world.inside(&connection, |dirs| {
        let path = dirs.tmp.join("gone");
        fs::write(&path, vec![5; MIB as usize]).unwrap();
        let mut open = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(errno(fs::write(dirs.tmp.join("more"), b"x")), EDQUOT);
        let mut content = Vec::new();
        open.read_to_end(&mut content).unwrap();
        assert_eq!(content, vec![5; MIB as usize]);
        open.set_len(MIB - 4096).unwrap();
        fs::write(dirs.tmp.join("more"), b"x").unwrap();
    });
    // The kernel tells of a close when it likes, also after the process is gone.
    let start = std::time::Instant::now();
    while connection.usage().unwrap().0.used_bytes != 4096 {
        assert!(
            start.elapsed() < std::time::Duration::from_secs(60),
            "closed with its process"
        );
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

fn unlinked_path_handle(world: &World) {
    let connection = world.join(budget(MIB, 100), budget(0, 0));
    world.inside(&connection, |dirs| {
        let path = dirs.tmp.join("held");
        fs::write(&path, vec![5; MIB as usize]).unwrap();
        let handle = rustix::fs::open(&path, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        fs::remove_file(&path).unwrap();
        let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&handle));
        // As long as there is room, it is what it was.
        assert_eq!(fs::read(&again).unwrap().len() as u64, MIB);
        // What cannot be named any more does not stand in the way of what can.
        fs::write(dirs.tmp.join("new"), vec![6; MIB as usize]).unwrap();
        fs::read(&again).expect_err("its content is gone, and it says so");
        drop(handle);
        assert_eq!(errno(fs::write(dirs.tmp.join("over"), b"x")), EDQUOT);
    });
}

fn mapped(world: &World) {
    let mut connection = world.join(budget(MIB, 100), budget(MIB, 100));
    world.inside(&connection, |dirs| {
        let path = dirs.state.join("map");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .unwrap();
        file.set_len(MIB).unwrap();
        write_mapped(&file, MIB as usize);
        assert_eq!(errno(fs::write(dirs.state.join("over"), b"x")), EDQUOT);
        let mut back = vec![0; MIB as usize];
        file.read_exact_at(&mut back, 0).unwrap();
        assert!(back.iter().all(|byte| *byte == 9));
    });
    assert_eq!(connection.usage().unwrap().1.used_bytes, MIB);
    drop(connection);
    // What was written through the mapping is on the host once the session is over.
    let mut connection = world.join_roomy();
    assert!(
        fs::read(world.subject_dir().join("state/map"))
            .unwrap()
            .iter()
            .all(|byte| *byte == 9)
    );
    assert_eq!(connection.usage().unwrap().1.used_bytes, MIB);
}

fn write_mapped(file: &File, length: usize) {
    Mapping::new(file, 0, length).unwrap().bytes_mut().fill(9);
}

fn statfs(world: &World) {
    let connection = world.join(budget(8 * MIB, 50), budget(4 * MIB, 40));
    world.inside(&connection, |dirs| {
        fs::write(dirs.tmp.join("x"), vec![0; MIB as usize]).unwrap();
        let tmp = rustix::fs::statvfs(&dirs.tmp).unwrap();
        assert_eq!(
            (tmp.f_blocks * tmp.f_frsize, tmp.f_bavail * tmp.f_frsize),
            (8 * MIB, 7 * MIB)
        );
        assert_eq!((tmp.f_files, tmp.f_ffree), (50, 49));
        let state = rustix::fs::statvfs(&dirs.state).unwrap();
        assert_eq!((state.f_blocks * state.f_frsize, state.f_files), (4 * MIB, 40));
        fs::remove_file(dirs.tmp.join("x")).unwrap();
        assert_eq!(rustix::fs::statvfs(&dirs.tmp).unwrap().f_bavail * 4096, 8 * MIB);
    });
}

fn fallocate(world: &World) {
    use rustix::fs::FallocateFlags as F;
    let connection = world.join(budget(MIB, 100), budget(0, 0));
    world.inside(&connection, |dirs| {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(dirs.tmp.join("f"))
            .unwrap();
        let allocate =
            |flags, offset, length| rustix::fs::fallocate(&file, flags, offset, length).map_err(std::io::Error::from);
        allocate(F::empty(), 0, MIB).unwrap();
        assert_eq!(file.metadata().unwrap().len(), MIB);
        assert_eq!(errno(allocate(F::empty(), MIB, 1)), EDQUOT);
        assert_eq!(errno(allocate(F::KEEP_SIZE, MIB, 4096)), EDQUOT);
        assert_eq!(errno(allocate(F::COLLAPSE_RANGE, 0, 4096)), EOPNOTSUPP);
        assert_eq!(errno(allocate(F::INSERT_RANGE, 0, 4096)), EOPNOTSUPP);
        assert_eq!(file.metadata().unwrap().len(), MIB);
        file.write_all_at(&[1; 8192], 0).unwrap();
        allocate(F::PUNCH_HOLE | F::KEEP_SIZE, 0, 4096).unwrap();
        let mut back = [9; 8192];
        file.read_exact_at(&mut back, 0).unwrap();
        assert_eq!((back[4095], back[4096]), (0, 1));
        // A punched hole is paid for still.
        assert_eq!(errno(fs::write(dirs.tmp.join("g"), b"x")), EDQUOT);
    });
}

fn copying(world: &World) {
    let connection = world.join(budget(MIB, 100), budget(0, 0));
    world.inside(&connection, |dirs| {
        let half = MIB / 2;
        fs::write(dirs.tmp.join("from"), vec![3; half as usize]).unwrap();
        let from = File::open(dirs.tmp.join("from")).unwrap();
        let to = File::create(dirs.tmp.join("to")).unwrap();
        let copy = |at: u64, length: u64| {
            let (mut read_at, mut write_at) = (0, at);
            rustix::fs::copy_file_range(&from, Some(&mut read_at), &to, Some(&mut write_at), length as usize)
                .map_err(std::io::Error::from)
        };
        assert_eq!(copy(0, half).unwrap() as u64, half);
        assert_eq!(errno(copy(half, 1)), EDQUOT);
        assert_eq!(fs::read(dirs.tmp.join("to")).unwrap(), vec![3; half as usize]);
    });
}

fn moving(world: &World) {
    let mut connection = world.join(budget(MIB, 100), budget(0, 0));
    world.inside(&connection, |dirs| {
        let half = MIB as usize / 2;
        fs::write(dirs.tmp.join("from"), vec![3; half]).unwrap();
        let from = File::open(dirs.tmp.join("from")).unwrap();
        let to = File::create(dirs.tmp.join("to")).unwrap();
        let send = |count: usize| {
            let sent = rustix::fs::sendfile(&to, &from, Some(&mut 0), count);
            sent.map_err(std::io::Error::from)
        };
        assert_eq!(send(half - 4096).unwrap(), half - 4096);
        // The last block comes out of a pipe.
        let (out, into) = std::io::pipe().unwrap();
        let splice = |count: usize| {
            (&into).write_all(&vec![4; count]).unwrap();
            let flags = rustix::pipe::SpliceFlags::empty();
            let moved = rustix::pipe::splice(&out, None, &to, None, count, flags);
            moved.map_err(std::io::Error::from)
        };
        assert_eq!(splice(4096).unwrap(), 4096);
        assert_eq!(errno(splice(1)), EDQUOT);
        assert_eq!(errno(send(1)), EDQUOT);
        let mut wanted = vec![3; half - 4096];
        wanted.resize(half, 4);
        assert!(fs::read(dirs.tmp.join("to")).unwrap() == wanted);
    });
    assert_eq!(connection.usage().unwrap().0.used_bytes, MIB);
}

fn holes(world: &World) {
    let connection = world.join(budget(MIB, 100), budget(0, 0));
    world.inside(&connection, |dirs| {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(dirs.tmp.join("h"))
            .unwrap();
        assert_eq!(errno(file.write_at(b"x", MIB).map(drop)), EDQUOT);
        file.write_all_at(b"x", MIB - 1).unwrap();
        assert_eq!(
            rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)).unwrap(),
            MIB - 4096
        );
        file.seek(SeekFrom::Start(0)).unwrap();
        assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap(), 0);
    });
}

fn appending(world: &World) {
    let connection = world.join_roomy();
    world.inside(&connection, |dirs| {
        let path = dirs.tmp.join("log");
        let writers: Vec<_> = (0..4)
            .map(|writer: u8| {
                let path = path.clone();
                std::thread::spawn(move || {
                    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
                    for _ in 0..500 {
                        file.write_all(&[writer; 100]).unwrap();
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        let content = fs::read(&path).unwrap();
        assert_eq!(content.len(), 4 * 500 * 100);
        for record in content.chunks(100) {
            assert!(record.iter().all(|byte| *byte == record[0]), "no record is torn");
        }
    });
}

fn past_four_gib(world: &World) {
    let connection = world.join(budget(16 * 1024 * MIB, 100), budget(0, 0));
    world.inside(&connection, |dirs| {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(dirs.tmp.join("big"))
            .unwrap();
        let at = 5 * 1024 * MIB + 123;
        file.write_all_at(b"here", at).unwrap();
        let mut back = [0; 4];
        file.read_exact_at(&mut back, at).unwrap();
        assert_eq!(&back, b"here");
        assert_eq!(file.metadata().unwrap().len(), at + 4);
        file.read_exact_at(&mut back, at - (1 << 32)).unwrap();
        assert_eq!(back, [0; 4]);
    });
}

fn soft(world: &World) {
    let tmp = nexus_quota::Budget {
        soft_bytes: Some(8192),
        hard_bytes: MIB,
        hard_inodes: 10,
    };
    let mut connection = world.join(tmp, budget(0, 0));
    world.inside(&connection, |dirs| {
        fs::write(dirs.tmp.join("a"), [0; 8192]).unwrap();
        fs::write(dirs.tmp.join("b"), [0; 1]).unwrap();
        fs::write(dirs.tmp.join("c"), [0; 4096]).unwrap();
    });
    let event = world.event(&mut connection);
    assert_eq!(
        (event.reason, event.name.as_bytes()),
        (Reason::QuotaSoftBytes, &b"b"[..])
    );
    connection.usage().unwrap();
    assert_eq!(connection.next_message().unwrap(), None);
}

fn shm(world: &World) {
    let mut connection = world.join(budget(MIB, 100), budget(0, 0));
    world.inside(&connection, |dirs| {
        fs::write(dirs.shm.join("segment"), vec![1; MIB as usize]).unwrap();
        assert_eq!(errno(fs::write(dirs.tmp.join("x"), b"x")), EDQUOT);
        assert!(!dirs.tmp.join("segment").exists());
    });
    assert_eq!(world.event(&mut connection).area, Area::Tmp);
}

fn close_then_write(world: &World) {
    let mut connection = world.join(budget(MIB, 100), budget(0, 0));
    world.inside(&connection, |dirs| {
        for _ in 0..100 {
            let path = dirs.tmp.join("gone");
            let mut file = File::create(&path).unwrap();
            file.write_all(&vec![5; MIB as usize]).unwrap();
            fs::remove_file(&path).unwrap();
            drop(file);
            fs::write(&path, vec![6; MIB as usize]).unwrap();
            fs::remove_file(&path).unwrap();
        }
    });
    assert_eq!(connection.next_message().unwrap(), None, "nothing was denied");
}

fn racing_writers(world: &World) {
    let mut connection = world.join(budget(MIB, 100), budget(0, 0));
    world.inside(&connection, |dirs| {
        let written: u64 = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4)
                .map(|writer| {
                    let path = dirs.tmp.join(format!("w{writer}"));
                    scope.spawn(move || {
                        let mut file = File::create(path).unwrap();
                        let mut written = 0;
                        while file.write_all(&[1; 4096]).is_ok() {
                            written += 4096;
                        }
                        written
                    })
                })
                .collect();
            writers.into_iter().map(|writer| writer.join().unwrap()).sum()
        });
        assert_eq!(written, MIB, "all of the budget and no more");
    });
    assert_eq!(connection.usage().unwrap().0.used_bytes, MIB);
}

fn full_host(world: &World) {
    world.enter_small_host(2 * MIB);
    let mut connection = world.join(budget(64 * MIB, 100_000), budget(64 * MIB, 100_000));
    world.inside(&connection, |dirs| {
        // Refused by the host after it was charged: what it did not take is given back. Where nobody else changes files, so that a wrong length is found by
        // nothing else.
        let room = File::create(dirs.tmp.join("room")).unwrap();
        let taken = rustix::fs::fallocate(&room, rustix::fs::FallocateFlags::empty(), 0, 32 * MIB);
        assert_eq!(errno(taken.map_err(Into::into)), ENOSPC);
        assert_eq!(room.metadata().unwrap().len(), 0);
        assert_eq!(rustix::fs::statvfs(&dirs.tmp).unwrap().f_bfree, 64 * MIB / 4096);
        let mut file = File::create(dirs.state.join("big")).unwrap();
        let block = vec![1; 64 * 1024];
        let error = loop {
            if let Err(error) = file.write_all(&block) {
                break error;
            }
        };
        assert_eq!(error.raw_os_error(), Some(ENOSPC));
        let long = file.metadata().unwrap().len();
        assert!(long > MIB, "most of it fitted");
        assert!(fs::read(dirs.state.join("big")).unwrap().iter().all(|byte| *byte == 1));
        drop(file);
        fs::write(dirs.state.join("small"), b"x").unwrap_err();
        fs::remove_file(dirs.state.join("big")).unwrap();
        // No close is waited for.
        eventually("its room is there", || {
            fs::write(dirs.state.join("small"), b"x").is_ok()
        });
    });
    crate::hostile::agrees(world, &mut connection);
    assert_eq!(connection.next_message().unwrap(), None, "it is not called a quota");
}
