//! Names in `tmp` that a session mounts something on, and another session of the subject.

use std::fs::{self, File};
use std::io::{PipeWriter, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nexus_sys::process::{Child, CloneFlags, Fork, clone, exit_now};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use vfsd::{PlacePart, VfsdConfig, VfsdError, join};

use crate::Case;
use crate::world::{Dirs, MIB, World, budget, errno};

pub(crate) const CASES: &[Case] = &[
    ("a_held_place_is_moved_removed_and_replaced_by_nobody", held),
    ("a_place_that_is_not_held_is_whoevers", not_held),
    (
        "a_place_that_is_not_there_is_kept_for_what_has_to_be_there",
        kept_for_its_kind,
    ),
    ("a_place_is_held_until_its_sessions_processes_have_ended", until_the_end),
    ("a_place_is_held_until_the_last_who_holds_it_has_ended", for_several),
    ("what_stands_in_the_place_is_told_and_nothing_is_held", in_the_place),
    ("too_many_names_are_refused", too_many),
];

const EBUSY: i32 = 16;

/// A path's directories, parents first, as a session names them.
fn places(path: &str) -> Vec<PlacePart> {
    let names = Path::new(path).components();
    (0_u32..)
        .zip(names)
        .map(|(parent, name)| PlacePart {
            parent,
            name: name.as_os_str().as_bytes().to_vec(),
            is_file: false,
        })
        .collect()
}

fn config(world: &World, path: &str) -> VfsdConfig {
    VfsdConfig {
        places: places(path),
        ..world.config(budget(MIB, 100), budget(MIB, 100))
    }
}

/// A process that runs until the writer is dropped.
fn sleeper() -> (Child, PipeWriter) {
    let (mut end, keep) = std::io::pipe().unwrap();
    match clone(CloneFlags::NONE).unwrap() {
        Fork::Parent(child) => (child, keep),
        Fork::Child => {
            drop(keep);
            let _ = end.read(&mut [0]);
            exit_now(0)
        }
    }
}

/// In a session that comes now: what closed its connection before has been heard of when this one is taken.
fn inside(world: &World, act: impl FnOnce(&Dirs)) {
    world.inside(&world.join_roomy(), act);
}

fn exchange(one: &Path, other: &Path) -> std::io::Result<()> {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).map_err(Into::into)
}

fn held(world: &World) {
    let holds = join(&config(world, "a/b")).unwrap();
    let other = world.join_roomy();
    world.inside(&other, |dirs| {
        let at = |name: &str| dirs.tmp.join(name);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::create_dir_all(at("decoy/b")).unwrap();
        for result in [
            fs::remove_dir(at("a/b")),
            fs::remove_dir(at("a")),
            fs::rename(at("a/b"), at("moved")),
            fs::rename(at("a"), at("moved")),
            fs::rename(at("decoy/b"), at("a/b")),
            fs::rename(at("decoy"), at("a")),
            exchange(&at("decoy"), &at("a")),
            exchange(&at("a/b"), &at("decoy/b")),
        ] {
            assert_eq!(errno(result), EBUSY);
        }
        // What is beside it, and in it, is whoever's.
        fs::create_dir(at("a/c")).unwrap();
        fs::create_dir(at("a/b/inside")).unwrap();
        fs::rename(at("a/b/inside"), at("a/c/inside")).unwrap();
        exchange(&at("a/c"), &at("decoy/b")).unwrap();
        fs::remove_dir_all(at("decoy")).unwrap();
        fs::remove_dir(at("a/c")).unwrap();
    });
    drop(holds);
}

fn not_held(world: &World) {
    let _one = world.join_roomy();
    let other = world.join_roomy();
    world.inside(&other, |dirs| {
        let at = |name: &str| dirs.tmp.join(name);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::create_dir_all(at("decoy/b")).unwrap();
        exchange(&at("decoy"), &at("a")).unwrap();
        fs::rename(at("a"), at("moved")).unwrap();
        fs::remove_dir_all(at("moved")).unwrap();
    });
}

fn kept_for_its_kind(world: &World) {
    let _holds = join(&config(world, "a/b")).unwrap();
    let other = world.join_roomy();
    world.inside(&other, |dirs| {
        let at = |name: &str| dirs.tmp.join(name);
        let others = |name: &str| {
            let name = at(name);
            assert_eq!(errno(File::create(&name)), EBUSY);
            assert_eq!(errno(std::os::unix::fs::symlink("/usr", &name)), EBUSY);
            assert_eq!(errno(fs::hard_link(at("file"), &name)), EBUSY);
            assert_eq!(errno(fs::rename(at("file"), &name)), EBUSY);
            assert_eq!(errno(fs::rename(at("directory"), &name)), EBUSY);
            assert_eq!(errno(std::os::unix::net::UnixListener::bind(&name)), EBUSY);
        };
        fs::write(at("file"), "").unwrap();
        fs::create_dir(at("directory")).unwrap();
        others("a");
        fs::create_dir(at("a")).unwrap();
        others("a/b");
        fs::create_dir(at("a/b")).unwrap();
        assert_eq!(errno(fs::remove_dir(at("a/b"))), EBUSY);
        // The same names elsewhere are others.
        fs::write(at("directory/a"), "").unwrap();
        fs::write(at("a/a"), "").unwrap();
        fs::write(at("b"), "").unwrap();
    });
}

fn until_the_end(world: &World) {
    // Before it is connected, or it would keep the connection open.
    let (init, keep) = sleeper();
    let holds = join(&config(world, "a")).unwrap();
    holds
        .attach(u32::try_from(init.pid).unwrap(), Some(init.pidfd.as_fd()))
        .unwrap();
    let _keeps = world.join_roomy();
    inside(world, |dirs| fs::create_dir(dirs.tmp.join("a")).unwrap());
    drop(holds);
    inside(world, |dirs| {
        assert_eq!(errno(fs::remove_dir(dirs.tmp.join("a"))), EBUSY);
    });
    drop(keep);
    let pid = rustix::process::Pid::from_raw(init.pid);
    rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap();
    inside(world, |dirs| fs::remove_dir(dirs.tmp.join("a")).unwrap());
}

fn for_several(world: &World) {
    let one = join(&config(world, "a/one")).unwrap();
    let two = join(&config(world, "a/two")).unwrap();
    let _keeps = world.join_roomy();
    let gone = |names: &'static [&'static str], kept: &'static [&'static str]| {
        inside(world, |dirs| {
            for name in kept {
                assert_eq!(errno(fs::remove_dir(dirs.tmp.join(name))), EBUSY, "{name}");
            }
            for name in names {
                fs::remove_dir(dirs.tmp.join(name)).unwrap();
            }
        });
    };
    inside(world, |dirs| {
        fs::create_dir_all(dirs.tmp.join("a/one")).unwrap();
        fs::create_dir_all(dirs.tmp.join("a/two")).unwrap();
    });
    gone(&[], &["a/one", "a/two"]);
    drop(one);
    gone(&["a/one"], &["a/two", "a"]);
    drop(two);
    gone(&["a/two", "a"], &[]);
}

fn in_the_place(world: &World) {
    let _keeps = world.join_roomy();
    inside(world, |dirs| {
        let at = |name: &str| dirs.tmp.join(name);
        std::os::unix::fs::symlink("/usr", at("link")).unwrap();
        fs::write(at("file"), "").unwrap();
        fs::create_dir_all(at("a")).unwrap();
        std::os::unix::fs::symlink(".", at("a/link")).unwrap();
    });
    for (path, at, expected) in [
        ("link", "link", Errno::LOOP),
        ("link/b", "link", Errno::LOOP),
        ("file", "file", Errno::NOTDIR),
        ("file/b", "file", Errno::NOTDIR),
        ("a/link/c", "a/link", Errno::LOOP),
    ] {
        match join(&config(world, path)) {
            Err(VfsdError::Place { path, source, .. }) => {
                assert_eq!((path.as_path(), source), (Path::new(at), expected));
            }
            other => panic!("{path}: {other:?}"),
        }
    }
    // A file's place is a file.
    let mut wants_file = config(world, "a/link");
    wants_file.places[1].is_file = true;
    assert!(matches!(
        join(&wants_file),
        Err(VfsdError::Place {
            source: Errno::LOOP,
            ..
        })
    ));
    let mut wants_file = config(world, "a");
    wants_file.places[0].is_file = true;
    assert!(matches!(
        join(&wants_file),
        Err(VfsdError::Place {
            source: Errno::ISDIR,
            ..
        })
    ));
    // Nothing of all that is held.
    inside(world, |dirs| fs::remove_dir_all(dirs.tmp.join("a")).unwrap());
    // Two that wait for different things in the same place.
    let _waits = join(&config(world, "later/b")).unwrap();
    let mut wants_file = config(world, "later");
    wants_file.places[0].is_file = true;
    assert!(matches!(
        join(&wants_file),
        Err(VfsdError::Place {
            source: Errno::BUSY,
            ..
        })
    ));
}

fn too_many(world: &World) {
    let path = ["n"; nexus_wire::vfs::PLACE_PARTS_MAX].join("/");
    drop(join(&config(world, &path)).unwrap());
    assert!(matches!(
        join(&config(world, &format!("{path}/n"))),
        Err(VfsdError::Places)
    ));
    for name in [&b""[..], b".", b"..", b"a/b"] {
        let mut wrong = config(world, "a");
        wrong.places[0].name = name.to_vec();
        assert!(matches!(join(&wrong), Err(VfsdError::Refused(_))), "{name:?}");
    }
    let mut wrong = config(world, "a");
    wrong.places[0].parent = 1;
    assert!(matches!(join(&wrong), Err(VfsdError::Place { .. })));
}
