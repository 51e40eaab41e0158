//! Whole trees: deep, large, stirred, and used as programs use them.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{CWD, RenameFlags};

use crate::Case;
use crate::world::{MIB, World, budget, errno};

pub(crate) const CASES: &[Case] = &[
    ("directories_deeper_than_a_path_are_made_measured_and_removed", deep),
    ("rename_storms_lose_nothing", storms),
    (
        "journals_that_come_and_go_and_objects_linked_into_place_leave_what_was_written",
        journals_and_objects,
    ),
    (
        "as_many_files_as_there_are_inodes_are_made_listed_measured_and_removed",
        a_million,
    ),
];

/// Cases that need a limit or a mount that root would not be bound by.
pub(crate) const USER_CASES: &[Case] = &[("more_files_than_descriptors_stay_reachable", many_files)];

fn deep(world: &World) {
    const DEEP: u64 = 3000;
    let mut connection = world.join_roomy();
    world.inside(&connection, |dirs| {
        for dir in [&dirs.state, &dirs.tmp] {
            std::env::set_current_dir(dir).unwrap();
            for _ in 0..DEEP {
                fs::create_dir("down").unwrap();
                std::env::set_current_dir("down").unwrap();
            }
            fs::write("bottom", b"here").unwrap();
            assert_eq!(fs::read("bottom").unwrap(), b"here");
        }
    });
    assert_eq!(connection.usage().unwrap().1.used_inodes, DEEP + 1);
    drop(connection);
    let mut connection = world.join_roomy();
    assert!(connection.fresh);
    let (_, state) = connection.usage().unwrap();
    assert_eq!((state.used_bytes, state.used_inodes), (4096, DEEP + 1));
    world.inside(&connection, |dirs| {
        assert!(
            std::process::Command::new("rm")
                .arg("-rf")
                .arg(dirs.state.join("down"))
                .status()
                .unwrap()
                .success()
        );
    });
    assert_eq!(connection.usage().unwrap().1.used_inodes, 0);
}

fn storms(world: &World) {
    let mut connection = world.join_roomy();
    world.inside(&connection, |dirs| {
        let root = &dirs.state;
        for name in ["p", "q"] {
            fs::create_dir_all(root.join(name).join("sub")).unwrap();
        }
        fs::write(root.join("p/sub/file"), b"content").unwrap();
        std::thread::scope(|scope| {
            for seed in 0..3_u32 {
                scope.spawn(move || {
                    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
                    for _ in 0..1500 {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        let pick =
                            |shift: u32| ["p", "q", "p/sub", "q/sub", "p/x", "q/x", "r"][(state >> shift) as usize % 7];
                        let (from, to) = (root.join(pick(8)), root.join(pick(16)));
                        let flags = if state & (1 << 30) == 0 {
                            RenameFlags::EXCHANGE
                        } else {
                            RenameFlags::NOREPLACE
                        };
                        let _ = rustix::fs::renameat_with(CWD, &from, CWD, &to, flags);
                        let _ = fs::write(from.join("new"), b"n");
                        let _ = fs::remove_file(to.join("new"));
                    }
                });
            }
        });
        let found = std::process::Command::new("find")
            .arg(root)
            .args(["-name", "file"])
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8(found.stdout).unwrap().lines().count(),
            1,
            "the file is still there, once"
        );
    });
    let (_, state) = connection.usage().unwrap();
    assert_eq!(
        (state.used_bytes, state.used_inodes),
        World::measure(&world.subject_dir().join("state"))
    );
}

fn many_files(world: &World) {
    // The server takes its bound from the limit that its starter has.
    let few = rustix::process::Rlimit {
        current: Some(256),
        maximum: Some(256),
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, few).unwrap();
    let mut connection = world.join_roomy();
    world.inside(&connection, |dirs| {
        for dir in 0..30 {
            let dir = dirs.state.join(format!("d{dir}"));
            fs::create_dir(&dir).unwrap();
            for number in 0..40 {
                fs::write(dir.join(format!("f{number}")), format!("{number}")).unwrap();
            }
        }
        // Moved while most have no handle: they are found by their new names.
        for dir in 0..30 {
            fs::rename(dirs.state.join(format!("d{dir}")), dirs.state.join(format!("e{dir}"))).unwrap();
        }
        for round in 0..2 {
            for dir in 0..30 {
                for number in 0..40 {
                    let path = dirs.state.join(format!("e{dir}/f{number}"));
                    assert_eq!(
                        fs::read(&path).unwrap(),
                        format!("{number}").as_bytes(),
                        "round {round}"
                    );
                }
            }
        }
    });
    let (_, state) = connection.usage().unwrap();
    assert_eq!((state.used_bytes, state.used_inodes), (1200 * 4096, 1230));
}

/// As a database writes with a journal beside it, and git its objects. They themselves are run where all of nx is.
fn journals_and_objects(world: &World) {
    const PAGES: u64 = 50;
    let mut connection = world.join_roomy();
    world.inside(&connection, |dirs| {
        let database = dirs.state.join("db");
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).open(&database).unwrap();
        let again = OpenOptions::new().read(true).write(true).open(&database).unwrap();
        // Locks between two open files are the kernel's.
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let refused = rustix::fs::flock(&again, rustix::fs::FlockOperation::NonBlockingLockExclusive);
        assert_eq!(refused, Err(rustix::io::Errno::WOULDBLOCK));
        rustix::fs::flock(&file, rustix::fs::FlockOperation::Unlock).unwrap();
        rustix::fs::flock(&again, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
        for round in 0..PAGES {
            let journal = dirs.state.join("db-journal");
            let mut journal_file = File::create_new(&journal).unwrap();
            journal_file.write_all(&round.to_le_bytes()).unwrap();
            journal_file.sync_all().unwrap();
            file.write_all_at(&[round as u8; 4096], round * 4096).unwrap();
            file.sync_data().unwrap();
            // What the other has open is what was just written.
            let mut page = [0; 4096];
            again.read_exact_at(&mut page, round * 4096).unwrap();
            assert_eq!(page, [round as u8; 4096]);
            assert_eq!(fs::read(&journal).unwrap(), round.to_le_bytes());
            fs::remove_file(&journal).unwrap();
            File::open(&dirs.state).unwrap().sync_all().unwrap();
        }
        // As git writes an object: under another name, then linked or renamed into place.
        fs::write(dirs.state.join("tmp_obj"), b"object").unwrap();
        fs::hard_link(dirs.state.join("tmp_obj"), dirs.state.join("obj")).unwrap();
        fs::remove_file(dirs.state.join("tmp_obj")).unwrap();
        fs::write(dirs.state.join("index.lock"), b"index").unwrap();
        fs::rename(dirs.state.join("index.lock"), dirs.state.join("index")).unwrap();
        assert_eq!(fs::metadata(dirs.state.join("obj")).unwrap().nlink(), 1);
    });
    let state = world.subject_dir().join("state");
    let wanted: Vec<u8> = (0..PAGES).flat_map(|page| [page as u8; 4096]).collect();
    assert_eq!(fs::read(state.join("db")).unwrap(), wanted);
    assert_eq!(fs::read(state.join("obj")).unwrap(), b"object");
    assert_eq!(fs::read(state.join("index")).unwrap(), b"index");
    assert_eq!(World::measure(&state), ((PAGES + 2) * 4096, 3));
    crate::hostile::agrees(world, &mut connection);
}

/// How many files: `NEXUS_SOAK=1` makes a million.
const FILES: u64 = 6_000;
const FILES_SOAK: u64 = 1_000_000;

/// How many are in one directory.
const FILES_IN_ONE: u64 = 3_000;

fn a_million(world: &World) {
    let files = if crate::soak() { FILES_SOAK } else { FILES };
    let directories = files.div_ceil(FILES_IN_ONE);
    let room = budget(64 * MIB, files + directories);
    let mut connection = world.join(budget(0, 0), room);
    world.inside(&connection, |dirs| {
        for number in 0..directories {
            let directory = dirs.state.join(format!("d{number}"));
            fs::create_dir(&directory).unwrap();
            for file in 0..FILES_IN_ONE.min(files - number * FILES_IN_ONE) {
                File::create_new(directory.join(format!("f{file}"))).unwrap();
            }
        }
        assert_eq!(errno(File::create_new(dirs.state.join("over"))), 122);
        let mut seen = 0;
        for directory in fs::read_dir(&dirs.state).unwrap() {
            seen += fs::read_dir(directory.unwrap().path()).unwrap().count() as u64;
        }
        assert_eq!(seen, files);
    });
    let before = connection.usage().unwrap().1;
    assert_eq!(before.used_inodes, files + directories);
    drop(connection);
    let mut connection = world.join(budget(0, 0), room);
    assert_eq!(connection.usage().unwrap().1, before, "measured anew it is the same");
    world.inside(&connection, |dirs| {
        for directory in 0..directories {
            fs::remove_dir_all(dirs.state.join(format!("d{directory}"))).unwrap();
        }
    });
    assert_eq!(connection.usage().unwrap().1.used_inodes, 0);
}
