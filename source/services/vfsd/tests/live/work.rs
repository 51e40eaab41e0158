//! A directory of the user's, metered.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use nexus_abi::{Area, Reason};
use nexus_wire::vfs::{FromVfsd, ToVfsd};
use rustix::io::Errno;
use vfsd::{VfsdError, join};

use crate::Case;
use crate::world::{MIB, Mode, World, budget, errno, eventually};

pub(crate) const CASES: &[Case] = &[
    ("what_is_there_is_the_start_and_only_growth_counts", growth),
    ("removing_what_was_there_gives_room_and_no_more", replaced),
    ("two_sessions_in_one_or_two_directories_share_one_budget", shared),
    ("a_start_lasts_as_long_as_the_subject_has_a_session", start_lasts),
    ("growth_past_soft_is_one_warning_and_past_hard_a_deny", records),
    ("what_others_change_is_seen_and_is_nobodys_growth", seen),
    ("a_held_name_means_what_it_meant_whatever_replaces_it", held),
    (
        "what_others_make_just_before_is_emptied_by_an_open_that_empties",
        made_beside,
    ),
    ("a_name_that_is_not_held_follows_its_replacement", not_held),
    (
        "what_belongs_to_others_cannot_be_written_and_what_is_made_belongs_to_the_directorys_owner",
        owners,
    ),
    ("what_is_no_directory_or_no_name_is_refused", refused),
    ("an_area_is_nobodys_work_directory", an_area),
    ("an_area_can_be_told_from_other_directories", told_from_others),
    (
        "a_number_that_others_reuse_for_another_kind_of_thing_is_another_thing",
        reused,
    ),
];

const BLOCK: u64 = 4096;
const EDQUOT: i32 = 122;
const EACCES: i32 = 13;

/// Makes a file as its owner would, outside.
fn put(world: &World, path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    if let Some(user) = world.mode().start_as() {
        // Only where this process is still root.
        let _ = std::os::unix::fs::chown(path, Some(user), Some(user));
    }
}

fn work_of(connection: &mut vfsd::VfsdConnection) -> nexus_wire::vfs::WorkUsage {
    connection.everything_used().unwrap().work.unwrap()
}

fn growth(world: &World) {
    let dir = world.work_dir();
    put(world, &dir.join("old"), &[1; 5000]);
    fs::create_dir(dir.join("sub")).unwrap();
    let mut connection = world.join_work(&dir, budget(2 * BLOCK, 2));
    world.inside(&connection, |dirs| {
        let room = rustix::fs::statvfs(&dirs.work).unwrap();
        assert_eq!(
            (room.f_blocks, room.f_bavail),
            (4, 2),
            "what is there, and the growth that is left"
        );
        assert_eq!((room.f_files, room.f_favail), (4, 2));
        let old = OpenOptions::new().write(true).open(dirs.work.join("old")).unwrap();
        old.write_all_at(&[2; 8192], 0).unwrap();
        let mut new = File::create(dirs.work.join("sub/new")).unwrap();
        new.write_all(&[3; 2 * BLOCK as usize]).unwrap();
        assert_eq!(errno(new.write_all(b"x")), EDQUOT);
        assert_eq!(errno(old.write_all_at(b"x", 8192)), EDQUOT);
        File::create(dirs.work.join("second")).unwrap();
        assert_eq!(errno(File::create(dirs.work.join("third"))), EDQUOT);
        assert_eq!(errno(fs::create_dir(dirs.work.join("third"))), EDQUOT);
        // What is there costs nothing, whatever is done inside it.
        old.write_all_at(&[4; 8192], 0).unwrap();
        new.write_all_at(&[4; 8192], 0).unwrap();
        fs::rename(dirs.work.join("old"), dirs.work.join("sub/old")).unwrap();
    });
    let used = work_of(&mut connection);
    assert_eq!((used.used_bytes, used.used_inodes), World::measure(&dir));
    assert_eq!((used.start_bytes, used.start_inodes), (2 * BLOCK, 2));
    assert_eq!(fs::read(dir.join("sub/old")).unwrap(), vec![4; 8192]);
}

fn replaced(world: &World) {
    let dir = world.work_dir();
    put(world, &dir.join("old"), &vec![1; 16 * BLOCK as usize]);
    let connection = world.join_work(&dir, budget(BLOCK, 1));
    world.inside(&connection, |dirs| {
        let path = dirs.work.join("new");
        assert_eq!(errno(fs::write(&path, vec![1; 2 * BLOCK as usize])), EDQUOT);
        fs::remove_file(dirs.work.join("old")).unwrap();
        fs::write(&path, vec![1; 17 * BLOCK as usize]).unwrap();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        assert_eq!(errno(file.write_all(b"x")), EDQUOT);
    });
}

fn shared(world: &World) {
    let (here, there) = (world.work_dir().join("here"), world.work_dir().join("there"));
    for dir in [&here, &there] {
        fs::create_dir(dir).unwrap();
        put(world, &dir.join("old"), &vec![1; MIB as usize]);
    }
    let mut one = world.join_work(&here, budget(4 * BLOCK, 10));
    let two = world.join_work(&here, budget(4 * BLOCK, 10));
    let three = world.join_work(&there, budget(4 * BLOCK, 10));
    assert_eq!(one.vfsd_pid, three.vfsd_pid);
    world.inside(&one, |dirs| {
        fs::write(dirs.work.join("a"), [1; BLOCK as usize]).unwrap()
    });
    world.inside(&two, |dirs| {
        assert_eq!(fs::read(dirs.work.join("a")).unwrap().len() as u64, BLOCK);
        fs::write(dirs.work.join("b"), [1; BLOCK as usize]).unwrap();
    });
    world.inside(&three, |dirs| {
        assert!(!dirs.work.join("a").exists(), "another directory");
        let mut file = File::create(dirs.work.join("c")).unwrap();
        file.write_all(&[1; 2 * BLOCK as usize]).unwrap();
        assert_eq!(errno(file.write_all(b"x")), EDQUOT, "all of the subject's together");
    });
    let used = work_of(&mut one);
    assert_eq!(used.used_bytes - used.start_bytes, 4 * BLOCK);
    assert_eq!(used.start_bytes, 2 * MIB);
}

fn start_lasts(world: &World) {
    let dir = world.work_dir();
    let keeps = world.join_work(&dir, budget(2 * BLOCK, 10));
    world.inside(&keeps, |dirs| {
        fs::write(dirs.work.join("a"), [1; BLOCK as usize]).unwrap()
    });
    // A session that comes while the subject has one meets what is left.
    let mut next = world.join_work(&dir, budget(2 * BLOCK, 10));
    assert_eq!(work_of(&mut next).start_bytes, 0);
    drop(keeps);
    world.inside(&next, |dirs| {
        assert_eq!(errno(fs::write(dirs.work.join("b"), [1; 2 * BLOCK as usize])), EDQUOT);
    });
    drop(next);
    // One that comes after the last begins with what is there.
    let mut later = world.join_work(&dir, budget(2 * BLOCK, 10));
    assert!(later.fresh);
    assert_eq!(work_of(&mut later).start_bytes, BLOCK);
}

fn records(world: &World) {
    let dir = world.work_dir();
    put(world, &dir.join("old"), &vec![1; 4 * BLOCK as usize]);
    let mut work = budget(3 * BLOCK, 10);
    work.soft_bytes = Some(BLOCK);
    let mut connection = world.join_work(&dir, work);
    world.inside(&connection, |dirs| {
        let mut file = File::create(dirs.work.join("new")).unwrap();
        for _ in 0..3 {
            file.write_all(&[1; BLOCK as usize]).unwrap();
        }
        assert_eq!(errno(file.write_all(b"x")), EDQUOT);
    });
    let (warning, deny) = (world.event(&mut connection), world.event(&mut connection));
    assert_eq!((warning.area, warning.reason), (Area::Work, Reason::QuotaSoftBytes));
    assert_eq!((deny.area, deny.reason), (Area::Work, Reason::QuotaHardBytes));
    connection.usage().unwrap();
    assert_eq!(connection.next_message().unwrap(), None);
}

fn seen(world: &World) {
    let dir = world.work_dir();
    put(world, &dir.join("same-length"), b"one");
    put(world, &dir.join("grows"), b"x");
    put(world, &dir.join("goes"), b"x");
    let mut connection = world.join_work(&dir, budget(BLOCK, 10));
    let (mut ready, tell_ready) = std::io::pipe().unwrap();
    let (mut go, tell_go) = std::io::pipe().unwrap();
    let inside = world.begin(&connection, |dirs| {
        let at = |name: &str| dirs.work.join(name);
        for name in ["same-length", "grows", "goes"] {
            fs::read(at(name)).unwrap();
        }
        assert!(!at("comes").exists());
        (&tell_ready).write_all(b"x").unwrap();
        std::io::Read::read_exact(&mut go, &mut [0]).unwrap();
        // What is in a file is looked at when it is opened.
        assert_eq!(fs::read(at("same-length")).unwrap(), b"two");
        eventually("a new name", || at("comes").exists());
        eventually("a name that went", || !at("goes").exists());
        eventually("a new length", || {
            fs::metadata(at("grows")).unwrap().len() == 100 * BLOCK
        });
        // What others added is nobody's growth: one block more is all that there is, and it is there.
        let mut file = OpenOptions::new().append(true).open(at("grows")).unwrap();
        file.write_all(&[9; BLOCK as usize]).unwrap();
        assert_eq!(errno(file.write_all(b"x")), EDQUOT);
    });
    drop(tell_ready);
    std::io::Read::read_exact(&mut ready, &mut [0]).unwrap();
    fs::write(dir.join("same-length"), b"two").unwrap();
    fs::write(dir.join("grows"), vec![1; 100 * BLOCK as usize]).unwrap();
    fs::remove_file(dir.join("goes")).unwrap();
    put(world, &dir.join("comes"), b"x");
    (&tell_go).write_all(b"x").unwrap();
    inside.end();
    let used = work_of(&mut connection);
    assert_eq!(used.used_bytes - used.start_bytes, BLOCK);
    assert_eq!(fs::metadata(dir.join("grows")).unwrap().len(), 101 * BLOCK);
}

/// A session that reads a name, and again after it was replaced on the host.
fn replace_meanwhile(world: &World, held: bool) -> String {
    let dir = world.work_dir();
    fs::create_dir(dir.join("box")).unwrap();
    put(world, &dir.join("box/file"), b"before");
    let mut config = world.work_config(&dir, budget(MIB, 10));
    if let Some(work) = config.work.as_mut().filter(|_| held) {
        work.held = vec![
            (0, b"box".to_vec()),
            (1, b"file".to_vec()),
            (1, b"missing".to_vec()),
            (3, b"x".to_vec()),
        ];
    }
    let connection = join(&config).unwrap();
    let (mut ready, tell_ready) = std::io::pipe().unwrap();
    let (mut go, tell_go) = std::io::pipe().unwrap();
    let report = dir.join("report");
    put(world, &report, b"");
    let inside = world.begin(&connection, |dirs| {
        let file = dirs.work.join("box/file");
        assert_eq!(fs::read(&file).unwrap(), b"before");
        (&tell_ready).write_all(b"x").unwrap();
        std::io::Read::read_exact(&mut go, &mut [0]).unwrap();
        if held {
            // Longer than anything is believed unasked.
            std::thread::sleep(Duration::from_millis(1500));
        } else {
            eventually("the replacement", || fs::read(&file).unwrap() == b"after");
        }
        fs::copy(&file, dirs.work.join("report")).unwrap();
    });
    drop(tell_ready);
    std::io::Read::read_exact(&mut ready, &mut [0]).unwrap();
    put(world, &dir.join("box/other"), b"after");
    fs::rename(dir.join("box/other"), dir.join("box/file")).unwrap();
    (&tell_go).write_all(b"x").unwrap();
    inside.end();
    fs::read_to_string(report).unwrap()
}

fn held(world: &World) {
    assert_eq!(replace_meanwhile(world, true), "before");
}

fn not_held(world: &World) {
    assert_eq!(replace_meanwhile(world, false), "after");
}

fn made_beside(world: &World) {
    let dir = world.work_dir();
    let mut connection = world.join_work(&dir, budget(MIB, 100));
    let (mut ready, tell_ready) = std::io::pipe().unwrap();
    let (mut go, tell_go) = std::io::pipe().unwrap();
    let inside = world.begin(&connection, |dirs| {
        for round in 0..8 {
            let path = dirs.work.join(format!("n{round}"));
            // Known not to be there, and there a moment later.
            assert!(!path.exists());
            (&tell_ready).write_all(b"x").unwrap();
            std::io::Read::read_exact(&mut go, &mut [0]).unwrap();
            fs::write(&path, b"short").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"short");
        }
    });
    drop(tell_ready);
    for round in 0..8 {
        std::io::Read::read_exact(&mut ready, &mut [0]).unwrap();
        put(world, &dir.join(format!("n{round}")), &[7; 10_000]);
        (&tell_go).write_all(b"x").unwrap();
    }
    inside.end();
    for round in 0..8 {
        assert_eq!(fs::read(dir.join(format!("n{round}"))).unwrap(), b"short");
    }
    connection.everything_used().unwrap();
}

fn owners(world: &World) {
    let dir = world.work_dir();
    let owner = fs::metadata(&dir).unwrap().uid();
    put(world, &dir.join("own"), b"x");
    fs::set_permissions(dir.join("own"), PermissionsExt::from_mode(0o600)).unwrap();
    let strange = world.mode() == Mode::Root;
    if strange {
        put(world, &dir.join("strange"), b"x");
        std::os::unix::fs::chown(dir.join("strange"), Some(1), Some(1)).unwrap();
    }
    let connection = world.join_work(&dir, budget(MIB, 10));
    world.inside(&connection, |dirs| {
        let me = rustix::process::geteuid().as_raw();
        assert_eq!(fs::metadata(dirs.work.join("own")).unwrap().uid(), me);
        fs::write(dirs.work.join("own"), b"more").unwrap();
        fs::write(dirs.work.join("made"), b"x").unwrap();
        fs::create_dir(dirs.work.join("made-too")).unwrap();
        if strange {
            assert_eq!(fs::read(dirs.work.join("strange")).unwrap(), b"x");
            assert_eq!(errno(fs::write(dirs.work.join("strange"), b"y")), EACCES);
            assert_ne!(fs::metadata(dirs.work.join("strange")).unwrap().uid(), me);
        }
        // What it may not become outside it does not become here.
        fs::set_permissions(dirs.work.join("made"), PermissionsExt::from_mode(0o6755)).unwrap();
    });
    for name in ["own", "made", "made-too"] {
        assert_eq!(fs::metadata(dir.join(name)).unwrap().uid(), owner, "{name}");
    }
    assert_eq!(fs::metadata(dir.join("made")).unwrap().mode() & 0o7777, 0o755);
}

fn refused(world: &World) {
    let dir = world.work_dir();
    put(world, &dir.join("file"), b"");
    let mut config = world.work_config(&dir, budget(MIB, 10));
    let directory = std::sync::Arc::new(std::os::fd::OwnedFd::from(File::open(dir.join("file")).unwrap()));
    let with = |work: vfsd::WorkConfig| vfsd::VfsdConfig {
        work: Some(work),
        ..config.clone()
    };
    let no_directory = with(vfsd::WorkConfig {
        directory,
        held: Vec::new(),
    });
    let error = join(&no_directory).unwrap_err();
    assert!(
        matches!(&error, VfsdError::Work { source, .. } if *source == rustix::io::Errno::NOTDIR),
        "{error:?}"
    );
    let good = config.work.clone().unwrap();
    for held in [
        vec![(0, b"..".to_vec())],
        vec![(0, b"a/b".to_vec())],
        vec![(0, Vec::new())],
        vec![(7, b"a".to_vec())],
    ] {
        let work = vfsd::WorkConfig { held, ..good.clone() };
        assert!(join(&with(work)).is_err());
    }
    let many = vec![(0, b"a".to_vec()); nexus_wire::vfs::HELD_NAMES_MAX + 1];
    let too_many = with(vfsd::WorkConfig { held: many, ..good });
    assert!(matches!(join(&too_many), Err(VfsdError::Held)));
    config.budgets.work = budget(1, 1);
    assert!(matches!(join(&config), Err(VfsdError::Budget(_))));
}

fn reused(world: &World) {
    let dir = world.work_dir();
    let connection = world.join_work(&dir, budget(MIB, 1000));
    world.inside(&connection, |dirs| {
        // Outside and inside take turns in making and removing names: numbers come back as other things.
        let outside = world.work_dir();
        for round in 0..50 {
            let name = format!("n{round}");
            let path = dirs.work.join(&name);
            fs::write(&path, b"x").unwrap();
            drop(fs::metadata(&path));
            // This process is the files' owner in both worlds but root's.
            if world.mode() == Mode::User {
                fs::remove_file(outside.join(&name)).unwrap();
                fs::create_dir(outside.join(format!("d{round}"))).unwrap();
                let _ = fs::symlink_metadata(dirs.work.join(format!("d{round}")));
            }
            let _ = fs::remove_file(&path);
        }
        let names = fs::read_dir(&dirs.work).unwrap().flatten();
        for entry in names {
            let kind = entry.metadata().unwrap().file_type();
            assert!(kind.is_dir(), "{entry:?}");
        }
    });
}

fn an_area(world: &World) {
    let session = world.join_roomy();
    let path = crate::sessions::socket_path(world);
    // Of the subject itself, whose server would wait for itself, and of another, whose server may wait for this one.
    for subject in ["demo", "another"] {
        for mount in [&session.tmp, &session.state, &session.shm] {
            let mut config = world.config(budget(MIB, 100), budget(MIB, 100));
            config.subject = subject.to_owned();
            config.budgets.work = budget(MIB, 10);
            config.work = Some(vfsd::WorkConfig {
                directory: std::sync::Arc::new(mount.try_clone().unwrap()),
                held: Vec::new(),
            });
            let error = join(&config).unwrap_err();
            match error {
                VfsdError::Work { source, .. } => assert_eq!(source, Errno::XDEV),
                other => panic!("{other}"),
            }
        }
    }
    // The server itself takes nobody's word for it.
    let socket = crate::sessions::knock(&path);
    socket
        .send(&ToVfsd::Work.encode(), &[std::os::fd::AsFd::as_fd(&session.tmp)])
        .unwrap();
    socket
        .send(&crate::sessions::hello(b"demo", crate::sessions::LITTLE), &[])
        .unwrap();
    let answer = crate::sessions::answer(&socket);
    let FromVfsd::Refused { stage, .. } = &answer else {
        panic!("{answer:?}");
    };
    assert!(
        String::from_utf8_lossy(stage.as_bytes()).contains("very subject"),
        "{answer:?}"
    );
}

fn told_from_others(world: &World) {
    const AREA: &std::ffi::CStr = c"system.nexus_area";
    let connection = world.join_roomy();
    world.inside(&connection, |dirs| {
        let file = dirs.state.join("f");
        fs::write(&file, b"x").unwrap();
        for path in [&dirs.tmp, &dirs.shm, &file] {
            let mut value = [0; 8];
            assert_eq!(rustix::fs::getxattr(path, AREA, &mut value).unwrap(), 1);
            assert_eq!(rustix::fs::getxattr_query(path, AREA).unwrap(), 1);
            // It costs nothing, is listed nowhere, and stays.
            let flags = rustix::fs::XattrFlags::empty();
            assert_eq!(rustix::fs::setxattr(path, AREA, b"0", flags), Err(Errno::OPNOTSUPP));
            assert_eq!(rustix::fs::removexattr(path, AREA), Err(Errno::OPNOTSUPP));
            assert_eq!(rustix::fs::listxattr(path, &mut [0_u8; 64]).unwrap(), 0);
        }
    });
    assert!(rustix::fs::getxattr(world.work_dir(), AREA, &mut [0_u8; 8]).is_err());
}
