//! Files that are opened only to be written: what is written passes the kernel's copy of the file by, and nobody can tell.

use std::fs::{self, File, OpenOptions};
use std::io::{IoSlice, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nexus_sys::process::{CloneFlags, Fork, clone, exit_now};

use crate::Case;
use crate::mapping::Mapping;
use crate::world::{KIB, MIB, World, budget, errno, eventually, kernel};

pub(crate) const CASES: &[Case] = &[
    (
        "what_is_only_written_is_seen_at_once_by_readers_and_mappings",
        seen_at_once,
    ),
    (
        "a_write_beside_stores_through_a_mapping_of_the_same_page_is_never_lost",
        beside_stores,
    ),
    (
        "nor_is_one_of_whom_had_the_file_open_before_it_was_mapped_and_no_store_either",
        before_it_was_mapped,
    ),
    (
        "a_long_write_beside_stores_into_many_of_its_pages_loses_none",
        beside_many_stores,
    ),
    (
        "a_store_into_a_page_that_was_read_after_the_write_counts_also_through_a_direct_descriptor",
        direct_mapping,
    ),
    (
        "who_appends_while_others_empty_the_file_goes_on_at_its_end",
        emptied_by_others,
    ),
    (
        "a_reader_that_races_with_a_writer_is_not_left_with_what_was",
        racing_reader,
    ),
    ("what_is_written_from_a_mapping_of_the_file_itself_arrives", from_itself),
    (
        "a_write_of_many_pieces_or_from_nowhere_is_what_it_is_on_any_file",
        pieces_and_nowhere,
    ),
    (
        "a_write_that_does_not_fit_is_refused_whole_and_a_long_one_ends_at_the_limit",
        at_the_limit,
    ),
    ("what_the_kernel_moves_into_a_file_arrives", moved_in),
    ("writing_takes_set_id_bits_from_a_file_of_the_users", set_id),
    (
        "what_is_only_written_is_kept_in_no_page_of_the_kernels_and_what_is_opened_for_both_is",
        pages_of,
    ),
    (
        "a_write_that_asks_to_be_on_the_disk_ends_when_the_host_says_so_and_with_its_error",
        durable,
    ),
];

fn writer(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).open(path).unwrap()
}

fn both(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

/// Runs `act` beside this process until it is told to end.
fn beside(act: impl Fn()) -> rustix::process::Pid {
    match clone(CloneFlags::NONE).unwrap() {
        Fork::Child => loop {
            act();
        },
        Fork::Parent(child) => rustix::process::Pid::from_raw(child.pid).unwrap(),
    }
}

fn end(child: rustix::process::Pid) {
    rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
    rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty()).unwrap();
}

fn seen_at_once(world: &World) {
    let connection = world.join_roomy();
    world.inside(&connection, |dirs| {
        let path = dirs.state.join("f");
        let writer = writer(&path);
        writer.write_all_at(&[1; 20_000], 0).unwrap();
        let reader = File::open(&path).unwrap();
        let both = both(&path);
        let mut mapping = Mapping::new(&both, 0, 20_000).unwrap();
        for round in 2..200_u8 {
            let mut bytes = [0; 20_000];
            reader.read_exact_at(&mut bytes, 0).unwrap();
            // Inside a page whose other bytes were stored through the mapping a moment ago, and over the edge of two.
            mapping.bytes_mut()[4096] = round;
            writer.write_all_at(&[round; 5000], 4097).unwrap();
            assert_eq!(mapping.bytes()[4096..9097], [round; 5001]);
            assert_eq!(mapping.bytes()[9097], 1);
            reader.read_exact_at(&mut bytes, 0).unwrap();
            assert_eq!(bytes[4096..9097], [round; 5001]);
            assert_eq!(bytes[4095], 1);
        }
        // Longer at once, and shorter, for all who have it open.
        writer.write_all_at(&[7; 10], 50_001).unwrap();
        assert_eq!(reader.metadata().unwrap().len(), 50_011);
        let mut bytes = [9; 40];
        assert_eq!(reader.read_at(&mut bytes, 49_991).unwrap(), 20);
        assert_eq!(bytes[..10], [0; 10]);
        assert_eq!(bytes[10..20], [7; 10]);
        writer.set_len(3).unwrap();
        writer.write_all_at(b"z", 5).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"\x01\x01\x01\0\0z");
        rustix::fs::fsync(&writer).unwrap();
    });
    let on_disk = fs::read(world.subject_dir().join("state/f")).unwrap();
    assert_eq!(on_disk, b"\x01\x01\x01\0\0z");
}

fn beside_stores(world: &World) {
    let connection = world.join_roomy();
    world.inside(&connection, |dirs| {
        let path = dirs.state.join("f");
        fs::write(&path, [0; 4096]).unwrap();
        let both = both(&path);
        let mapping = Mapping::new(&both, 0, 4096).unwrap();
        let writer = writer(&path);
        let child = beside(|| mapping.poke(0, 1));
        let mut lost = 0;
        for round in 0..3000_u32 {
            writer.write_all_at(&round.to_ne_bytes(), 8).unwrap();
            let mut back = [0; 4];
            both.read_exact_at(&mut back, 8).unwrap();
            lost += u32::from(back != round.to_ne_bytes());
        }
        end(child);
        assert_eq!(lost, 0, "writes were lost");
    });
}

/// The kernel was told to take what is written from the program's own pages before anybody could map the file: the file server keeps what a stale page
/// would write over it.
fn before_it_was_mapped(world: &World) {
    let connection = world.join_roomy();
    world.inside(&connection, |dirs| {
        let path = dirs.state.join("f");
        let writer = writer(&path);
        writer.write_all_at(&[0; 12288], 0).unwrap();
        let both = both(&path);
        let mapping = Mapping::new(&both, 0, 12288).unwrap();
        let stored = Mapping::new(&both, 0, 12288).unwrap();
        let child = beside(|| mapping.poke(4096, 1));
        let mut lost = 0;
        for round in 0..3000_u32 {
            // In the middle of the page that is stored into, and over its edge.
            writer.write_all_at(&round.to_ne_bytes(), 4104).unwrap();
            writer.write_all_at(&round.to_ne_bytes(), 8190).unwrap();
            // A store of one's own beside them, that nothing of this may take back.
            stored.poke(4200, round as u8);
            let mut back = [0; 4];
            for place in [4104, 8190] {
                both.read_exact_at(&mut back, place).unwrap();
                lost += u32::from(back != round.to_ne_bytes());
            }
            both.read_exact_at(&mut back[..1], 4200).unwrap();
            lost += u32::from(back[0] != round as u8);
        }
        end(child);
        assert_eq!(lost, 0, "writes were lost");
        drop((mapping, stored));
        rustix::fs::fsync(&both).unwrap();
    });
    let on_disk = fs::read(world.subject_dir().join("state/f")).unwrap();
    assert_eq!(on_disk[4104..4108], 2999_u32.to_ne_bytes());
    assert_eq!(on_disk[8190..8194], 2999_u32.to_ne_bytes());
    assert_eq!((on_disk[4200], on_disk[4096] > 0), (2999_u32 as u8, true));
}

fn beside_many_stores(world: &World) {
    const PAGES: usize = 512;
    let connection = world.join_roomy();
    world.inside(&connection, |dirs| {
        let path = dirs.state.join("f");
        let writer = writer(&path);
        writer.write_all_at(&vec![0; PAGES * 4096], 0).unwrap();
        let both = both(&path);
        let mapping = Mapping::new(&both, 0, PAGES * 4096).unwrap();
        // Every third page, in no order, so that each is read by itself.
        let child = beside(|| (0..PAGES).for_each(|page| mapping.poke(page * 97 % PAGES / 3 * 3 * 4096 + 100, 1)));
        let mut lost = 0;
        for round in 1..40_u8 {
            writer.write_all_at(&vec![round; PAGES * 4096], 0).unwrap();
            let mut back = [0; 1];
            for page in 0..PAGES as u64 {
                both.read_exact_at(&mut back, page * 4096 + 200).unwrap();
                lost += u32::from(back != [round]);
            }
        }
        end(child);
        assert_eq!(lost, 0, "pages were lost");
    });
}

fn direct_mapping(world: &World) {
    let connection = world.join_roomy();
    world.inside(&connection, |dirs| {
        let path = dirs.state.join("f");
        let writer = writer(&path);
        writer.write_all_at(&[1; 8192], 0).unwrap();
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .custom_flags(rustix::fs::OFlags::DIRECT.bits() as i32);
        let direct = options.open(&path).unwrap();
        let mapping = Mapping::new(&direct, 0, 8192).unwrap();
        mapping.poke(100, 2);
        mapping.poke(5000, 2);
        drop(mapping);
        rustix::fs::fsync(&direct).unwrap();
    });
    let on_disk = fs::read(world.subject_dir().join("state/f")).unwrap();
    assert_eq!(
        (on_disk[99], on_disk[100], on_disk[5000]),
        (1, 2, 2),
        "a store was lost"
    );
}

fn emptied_by_others(world: &World) {
    let connection = world.join_roomy();
    world.inside(&connection, |dirs| {
        let path = dirs.state.join("f");
        let append = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        let children = [(); 2].map(|()| beside(|| (&append).write_all(&[b'x'; 16]).unwrap()));
        let holes = (0..300).filter(|_| {
            drop(File::create(&path).unwrap());
            std::thread::sleep(std::time::Duration::from_micros(300));
            // A read that is under way may take what is appended just then for zeros (docs/decisions/file-server.md); a hole stays.
            let has_holes = || fs::read(&path).unwrap().contains(&0);
            has_holes() && has_holes() && has_holes()
        });
        let holes = holes.count();
        children.into_iter().for_each(end);
        assert_eq!(holes, 0, "records were written at an end that was no more");
    });
}

fn racing_reader(world: &World) {
    let connection = world.join_roomy();
    world.inside(&connection, |dirs| {
        let path = dirs.state.join("f");
        let writer = writer(&path);
        writer.write_all_at(&[0; 4096], 0).unwrap();
        let reader = File::open(&path).unwrap();
        let child = beside(|| {
            let _ = reader.read_at(&mut [0; 4096], 0);
        });
        for round in 0..3000_u32 {
            writer.write_all_at(&round.to_ne_bytes(), 8).unwrap();
            let mut back = [0; 4];
            reader.read_exact_at(&mut back, 8).unwrap();
            assert_eq!(back, round.to_ne_bytes(), "what was is still there");
        }
        end(child);
    });
}

fn from_itself(world: &World) {
    let connection = world.join_roomy();
    world.inside(&connection, |dirs| {
        let path = dirs.state.join("f");
        let writer = writer(&path);
        let data: Vec<u8> = (0..MIB).map(|at| (at / 4096) as u8).collect();
        writer.write_all_at(&data, 0).unwrap();
        let both = both(&path);
        let mapping = Mapping::new(&both, 0, MIB as usize).unwrap();
        // Its pages are in nobody's memory: the kernel reads them from the server while it holds the file.
        for shift in [0, 4096, 12_345] {
            rustix::fs::fadvise(&both, 0, None, rustix::fs::Advice::DontNeed).unwrap();
            let before = fs::read(&path).unwrap();
            rustix::fs::fadvise(&both, 0, None, rustix::fs::Advice::DontNeed).unwrap();
            writer.write_all_at(&mapping.bytes()[..500_000], shift).unwrap();
            let after = fs::read(&path).unwrap();
            let shift = shift as usize;
            if shift == 0 {
                assert!(before == after);
            } else {
                // A piece that was written may be the source of the next.
                assert!(after[..shift] == before[..shift]);
                assert!(after[shift..shift + 4096] == before[..4096]);
                assert!(after[shift + 500_000..] == before[shift + 500_000..]);
            }
        }
    });
}

fn pieces_and_nowhere(world: &World) {
    let connection = world.join_roomy();
    let bare = world.bare_dir();
    world.inside(&connection, |dirs| {
        let said: Vec<_> = [&bare, &dirs.state]
            .map(|dir| {
                let path = dir.join("f");
                let mut writer = writer(&path);
                let small: Vec<Vec<u8>> = (0..1024_u32).map(|at| at.to_ne_bytes()[..3].to_vec()).collect();
                let slices: Vec<IoSlice<'_>> = small.iter().map(|piece| IoSlice::new(piece)).collect();
                let count = writer.write_vectored(&slices).unwrap();
                let nothing = writer.write(&[]).unwrap();
                let nowhere = errno(crate::mapping::write_from_nowhere(&writer, 4096).map(|_| ()));
                let half = crate::mapping::write_half_from_nowhere(&writer).unwrap();
                let unaligned = vec![5; 3 * MIB as usize + 1];
                writer.write_all(&unaligned[1..]).unwrap();
                (count, nothing, nowhere, half, fs::read(&path).unwrap())
            })
            .into();
        assert_eq!(said[0].0, 3072);
        assert_eq!((said[0].2, said[0].3), (14, 4096));
        assert!(
            said[0] == said[1],
            "{:?} {:?}",
            (said[0].0, said[0].3),
            (said[1].0, said[1].3)
        );
    });
}

fn at_the_limit(world: &World) {
    const EDQUOT: i32 = 122;
    let mut connection = world.join(budget(0, 0), budget(MIB, 10));
    world.inside(&connection, |dirs| {
        let path = dirs.state.join("f");
        let mut writer = writer(&path);
        writer.write_all(&vec![1; (MIB - 8 * KIB) as usize]).unwrap();
        assert_eq!(errno(writer.write(&[2; 8193])), EDQUOT);
        assert_eq!(fs::metadata(&path).unwrap().len(), MIB - 8 * KIB);
        writer.write_all(&[2; 8192]).unwrap();
        // What is there may be written again; one byte more may not.
        writer.write_all_at(&[3; 4096], MIB - 4096).unwrap();
        assert_eq!(errno(writer.write(&[4])), EDQUOT);
        writer.set_len(0).unwrap();
        // In requests of half a mebibyte, cut where the program's own pages end: the third does not fit.
        let reached = writer.write_at(&vec![5; 3 * MIB as usize], 0).unwrap() as u64;
        assert!((MIB - 4096..=MIB).contains(&reached), "{reached}");
        assert_eq!(errno(writer.write_at(&[6; 4097], MIB - 4096)), EDQUOT);
        assert!(fs::read(&path).unwrap() == vec![5; reached as usize]);
        // Many at once, each at the end: whole records, none over another.
        writer.set_len(0).unwrap();
        let record = 100_usize;
        let children: Vec<_> = (0..4_u8)
            .map(|who| match clone(CloneFlags::NONE).unwrap() {
                Fork::Child => {
                    let mut log = OpenOptions::new().append(true).open(&path).unwrap();
                    for _ in 0..200 {
                        log.write_all(&vec![who + 1; record]).unwrap();
                    }
                    exit_now(0)
                }
                Fork::Parent(child) => child.pid,
            })
            .collect();
        for child in children {
            let pid = rustix::process::Pid::from_raw(child);
            rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap();
        }
        let log = fs::read(&path).unwrap();
        assert_eq!(log.len(), 4 * 200 * record);
        assert!(log.chunks(record).all(|one| one.iter().all(|byte| *byte == one[0])));
    });
    crate::hostile::agrees(world, &mut connection);
}

fn moved_in(world: &World) {
    let connection = world.join_roomy();
    world.inside(&connection, |dirs| {
        let from = dirs.tmp.join("from");
        let data: Vec<u8> = (0..700_000_u32).map(|at| (at / 997) as u8).collect();
        fs::write(&from, &data).unwrap();
        let source = File::open(&from).unwrap();
        for how in 0..3 {
            let path = dirs.state.join(format!("to{how}"));
            let target = writer(&path);
            let mut sent = 0;
            while sent < data.len() {
                let rest = data.len() - sent;
                let count = match how {
                    0 => rustix::fs::sendfile(&target, &source, Some(&mut (sent as u64)), rest).unwrap(),
                    1 => {
                        let (mut at, mut to) = (sent as u64, sent as u64);
                        rustix::fs::copy_file_range(&source, Some(&mut at), &target, Some(&mut to), rest).unwrap()
                    }
                    _ => {
                        let (out, into) = std::io::pipe().unwrap();
                        let flags = rustix::pipe::SpliceFlags::empty();
                        let mut at = sent as u64;
                        let held = rustix::pipe::splice(&source, Some(&mut at), &into, None, rest, flags).unwrap();
                        let mut at = sent as u64;
                        rustix::pipe::splice(&out, None, &target, Some(&mut at), held, flags).unwrap()
                    }
                };
                assert!(count > 0);
                sent += count;
            }
            assert!(fs::read(&path).unwrap() == data, "way {how}");
            // Asked for by the program itself, and given up again.
            let flags = rustix::fs::OFlags::DIRECT;
            rustix::fs::fcntl_setfl(&target, flags).unwrap();
            rustix::fs::fcntl_setfl(&target, rustix::fs::OFlags::empty()).unwrap();
            rustix::fs::flock(&target, rustix::fs::FlockOperation::LockExclusive).unwrap();
            target.write_all_at(b"!", 5).unwrap();
            assert_eq!(fs::read(&path).unwrap()[5], b'!');
            // It is for writing alone, as it was opened.
            assert_eq!(errno(target.read_at(&mut [0], 0)), 9);
            assert_eq!(errno(Mapping::new(&target, 0, 4096).map(drop)), 13);
        }
    });
}

fn set_id(world: &World) {
    let work = world.work_dir();
    let path = work.join("tool");
    fs::write(&path, b"x").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6755)).unwrap();
    let connection = world.join_work(&work, budget(MIB, 100));
    world.inside(&connection, |dirs| {
        let path = dirs.work.join("tool");
        let mut options = OpenOptions::new();
        let file = options.write(true).custom_flags(libc::O_DSYNC).open(&path).unwrap();
        file.write_all_at(b"y", 0).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o6000, 0);
    });
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o755);
}

/// From which kernel on what is only written passes its copy (FUSE 7.45).
const PASSES: (u32, u32) = (6, 18);

fn pages_of(world: &World) {
    const PAGES: usize = 64;
    let connection = world.join_roomy();
    world.inside(&connection, |dirs| {
        let passes = kernel() >= PASSES;
        // Where nobody else changes files, so that opening one leaves what the kernel has of it.
        let path = dirs.tmp.join("f");
        let only = writer(&path);
        only.write_all_at(&[1; PAGES * 4096], 0).unwrap();
        let both = both(&path);
        let mapping = Mapping::new(&both, 0, PAGES * 4096).unwrap();
        assert_eq!(mapping.resident().unwrap(), [!passes; PAGES]);
        // Readers have it in the kernel's memory, and keep what is not written.
        assert_eq!(fs::read(&path).unwrap(), [1; PAGES * 4096]);
        assert!(mapping.bytes() == [1; PAGES * 4096]);
        assert_eq!(mapping.resident().unwrap(), [true; PAGES]);
        only.write_all_at(&[2; 8 * 4096], 16 * 4096).unwrap();
        let resident = mapping.resident().unwrap();
        for (page, is) in resident.into_iter().enumerate() {
            assert_eq!(is, !passes || !(16..24).contains(&page), "{page}");
        }
        // What is opened for both leaves what it writes there, to be read without anybody being asked.
        // From memory that is there: what is copied in two parts is not known to be whole.
        both.write_all_at(&vec![3; 8 * 4096], 16 * 4096).unwrap();
        assert_eq!(mapping.resident().unwrap(), [true; PAGES]);
        assert_eq!(mapping.bytes()[16 * 4096], 3);
        // While it may be mapped to be written nobody passes, and once it may not be any more (the kernel tells of the last close when it gets to it) all do.
        let is_kept = |only: &File| {
            only.write_all_at(&vec![4; 4096], 0).unwrap();
            let both = self::both(&path);
            Mapping::new(&both, 0, 4096).unwrap().resident().unwrap() == [true]
        };
        assert!(is_kept(&writer(&path)));
        drop((only, both, mapping));
        if passes {
            eventually("it passes again", || !is_kept(&writer(&path)));
        }
    });
}

/// Whether the host was asked to sync is seen by its saying no: those calls of the file server fail with errnos that nothing else gives.
fn durable(world: &World) {
    use nexus_sys::seccomp::{Instruction, install_with_listener};
    use rustix::io::{ReadWriteFlags, pwritev2};
    const EDOM: i32 = 33;
    const ERANGE: i32 = 34;
    let instruction = |code, jump_true, k| Instruction {
        code,
        jump_true,
        jump_false: 0,
        k,
    };
    let number = |call: i64| u32::try_from(call).unwrap();
    // Loads the system call's number, and lets all through but two (linux/filter.h, linux/seccomp.h).
    let filter = [
        instruction(0x20, 0, 0),
        instruction(0x15, 2, number(libc::SYS_fdatasync)),
        instruction(0x15, 2, number(libc::SYS_fsync)),
        instruction(0x06, 0, libc::SECCOMP_RET_ALLOW),
        instruction(0x06, 0, libc::SECCOMP_RET_ERRNO | EDOM as u32),
        instruction(0x06, 0, libc::SECCOMP_RET_ERRNO | ERANGE as u32),
    ];
    let connection = {
        // Of this thread and those that it starts: the file server.
        rustix::thread::set_no_new_privs(true).unwrap();
        install_with_listener(&filter).unwrap();
        world.join_roomy()
    };
    world.inside(&connection, |dirs| {
        let path = dirs.state.join("f");
        let only = writer(&path);
        let mut options = OpenOptions::new();
        let always = options.write(true).custom_flags(libc::O_DSYNC).open(&path).unwrap();
        let both = both(&path);
        let write = |file: &File, flags| {
            let written = pwritev2(file, &[IoSlice::new(&[1; 100])], 0, flags);
            written.map_err(std::io::Error::from)
        };
        for (file, name) in [(&only, "only"), (&both, "both")] {
            assert_eq!(write(file, ReadWriteFlags::empty()).unwrap(), 100, "{name}");
            assert_eq!(errno(write(file, ReadWriteFlags::DSYNC)), EDOM, "{name}");
            assert_eq!(errno(write(file, ReadWriteFlags::SYNC)), ERANGE, "{name}");
        }
        // Opened to be so it is written so by the host: nothing more is asked but what is more than that.
        if kernel() >= PASSES {
            assert_eq!(write(&always, ReadWriteFlags::DSYNC).unwrap(), 100);
        }
        assert_eq!(errno(write(&always, ReadWriteFlags::SYNC)), ERANGE);
    });
}
