//! One session takes all descriptors of the file server that it can get; another of its subject goes on.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use nexus_abi::{Operation, Reason};
use nexus_sys::process::{CloneFlags, Fork, clone, exit_now};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit};
use vfsd::VfsdConnection;

use crate::Case;
use crate::world::{Dirs, Inside, MIB, World, budget, errno};

/// These need a limit that root would raise again.
pub(crate) const USER_CASES: &[Case] = &[
    ("a_session_that_opens_all_it_can_leaves_others_their_share", opens),
    (
        "a_session_whose_processes_come_and_go_has_one_share_all_the_same",
        comes_and_goes,
    ),
    (
        "a_session_that_holds_what_has_no_name_leaves_others_their_share",
        holds_nameless,
    ),
];

const ENFILE: i32 = 23;
const ESTALE: i32 = 116;

/// How many descriptors the file server may have. 768 of them are for files, half of those for open ones.
const DESCRIPTORS: u64 = 1024;

/// Half of what there is for open files: the most that one session gets.
const SHARE: usize = 192;

/// Enough for anybody.
const ENOUGH: u64 = 10_000;

fn limited(world: &World) -> (VfsdConnection, VfsdConnection) {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let few = Rlimit {
        current: Some(DESCRIPTORS),
        maximum: limit.maximum,
    };
    // The server takes its limit from what it is started with; what it is started by gets its own back.
    let hard = Rlimit {
        current: Some(DESCRIPTORS),
        maximum: Some(DESCRIPTORS),
    };
    rustix::process::setrlimit(Resource::Nofile, few).unwrap();
    rustix::process::setrlimit(Resource::Nofile, hard).unwrap();
    let join = || world.join(budget(64 * MIB, ENOUGH), budget(64 * MIB, ENOUGH));
    (join(), join())
}

/// A session's program that begins when it is told to, so that its session is known by then.
fn program(world: &World, connection: &mut VfsdConnection, act: impl FnOnce(&Dirs)) -> (Inside, std::io::PipeWriter) {
    let (mut go, tell) = std::io::pipe().unwrap();
    let inside = world.begin(connection, |dirs| {
        go.read_exact(&mut [0]).unwrap();
        act(dirs);
    });
    connection.attach(u32::try_from(inside.pid).unwrap(), None).unwrap();
    // Answered after Attach was heard.
    connection.usage().unwrap();
    (inside, tell)
}

/// What anybody expects to be able to do.
fn works(dirs: &Dirs) {
    let names: Vec<_> = (0..40).map(|number| dirs.tmp.join(format!("own{number}"))).collect();
    let files: Vec<File> = names.iter().map(|name| File::create_new(name).unwrap()).collect();
    (&files[7]).write_all(b"fine").unwrap();
    drop(files);
    assert_eq!(fs::read(&names[7]).unwrap(), b"fine");
    assert!(fs::read_dir(&dirs.tmp).unwrap().count() >= 40);
    for name in names {
        fs::remove_file(name).unwrap();
    }
}

/// Does `greedy` in one session and holds what it got, while `modest` has what it needs in another.
fn beside(world: &World, greedy: impl FnOnce(&Dirs) -> Vec<OwnedFd>) {
    let (mut one, mut two) = limited(world);
    let (mut ready, tell_ready) = std::io::pipe().unwrap();
    let (mut done, tell_done) = std::io::pipe().unwrap();
    let (first, mut go_first) = program(world, &mut one, |dirs| {
        let held = greedy(dirs);
        (&tell_ready).write_all(b"x").unwrap();
        done.read_exact(&mut [0]).unwrap();
        drop(held);
    });
    let (second, mut go_second) = program(world, &mut two, works);
    drop(tell_ready);
    go_first.write_all(b"x").unwrap();
    ready.read_exact(&mut [0]).unwrap();
    go_second.write_all(b"x").unwrap();
    second.end();
    // A session that comes now is taken as well.
    let mut three = world.join(budget(64 * MIB, ENOUGH), budget(64 * MIB, ENOUGH));
    let (third, mut go_third) = program(world, &mut three, works);
    go_third.write_all(b"x").unwrap();
    third.end();
    (&tell_done).write_all(b"x").unwrap();
    first.end();
    assert_eq!(two.next_message().unwrap(), None, "it was denied nothing");
    let event = world.event(&mut one);
    assert_eq!((event.operation, event.reason), (Operation::Open, Reason::VfsOpenFiles));
}

/// Opens until it is refused, and says how often it was not.
fn open_all(mut open: impl FnMut(usize) -> std::io::Result<OwnedFd>) -> Vec<OwnedFd> {
    let mut held = Vec::new();
    loop {
        match open(held.len()) {
            Ok(fd) => held.push(fd),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(ENFILE), "{error}");
                return held;
            }
        }
    }
}

fn directory(path: &Path) -> std::io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::DIRECTORY,
        Mode::empty(),
    )?)
}

fn opens(world: &World) {
    beside(world, |dirs| {
        let path = dirs.tmp.join("file");
        fs::write(&path, b"x").unwrap();
        // The same again and again, a new one each time, a directory: all are the server's descriptors.
        let mut held = open_all(|_| Ok(File::open(&path)?.into()));
        assert!((SHARE / 2..=SHARE).contains(&held.len()), "{}", held.len());
        assert_eq!(errno(directory(&dirs.tmp)), ENFILE);
        let refused = dirs.tmp.join("refused");
        assert_eq!(errno(File::create_new(&refused)), ENFILE);
        assert!(!refused.exists(), "what could not be opened was not made");
        held.truncate(held.len() / 2);
        // The kernel does not wait for a close.
        let mut more = Vec::new();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while more.len() < SHARE / 4 && std::time::Instant::now() < until {
            more.extend(open_all(|number| {
                let name = dirs.tmp.join(format!("new{}-{number}", more.len()));
                Ok(File::options()
                    .create(true)
                    .truncate(false)
                    .write(true)
                    .open(name)?
                    .into())
            }));
        }
        assert!(more.len() >= SHARE / 4, "what was closed may be opened again");
        held.extend(more);
        held
    });
}

fn comes_and_goes(world: &World) {
    beside(world, |dirs| {
        let path = dirs.tmp.join("file");
        fs::write(&path, b"x").unwrap();
        let (ours, theirs) = crate::weather::pair();
        // Each is opened by a process of its own, which is gone when the next one opens.
        let mut held = Vec::new();
        let refused = loop {
            match clone(CloneFlags::NONE).unwrap() {
                Fork::Child => {
                    let code = match File::open(&path) {
                        Ok(file) => {
                            crate::weather::send(&theirs, &file);
                            0
                        }
                        Err(error) => error.raw_os_error().unwrap_or(1),
                    };
                    exit_now(code)
                }
                Fork::Parent(child) => {
                    let pid = rustix::process::Pid::from_raw(child.pid);
                    let (_, status) = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty())
                        .unwrap()
                        .unwrap();
                    match status.exit_status() {
                        Some(0) => held.push(OwnedFd::from(crate::weather::receive(&ours))),
                        code => break code,
                    }
                }
            }
        };
        assert_eq!(refused, Some(ENFILE));
        assert!((SHARE / 2..=SHARE).contains(&held.len()), "{}", held.len());
        held
    });
}

fn holds_nameless(world: &World) {
    beside(world, |dirs| {
        // What is held without being open costs the server a descriptor as well, as long as it has no name.
        let handle = |path: &Path| rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()).unwrap();
        let mut held: Vec<OwnedFd> = Vec::new();
        for number in 0..600 {
            let path = dirs.tmp.join(format!("gone{number}"));
            match number % 3 {
                0 => fs::write(&path, b"x").unwrap(),
                1 => std::os::unix::fs::symlink("x", &path).unwrap(),
                _ => fs::create_dir(&path).unwrap(),
            }
            held.push(handle(&path));
            if number % 3 == 2 {
                fs::remove_dir(&path).unwrap();
            } else {
                fs::remove_file(&path).unwrap();
            }
        }
        // The oldest were given up: there is nothing of them any more.
        let first = rustix::fs::open(
            format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held[0])),
            OFlags::RDONLY,
            Mode::empty(),
        );
        assert_eq!(first.unwrap_err().raw_os_error(), ESTALE);
        let mut files = open_all(|number| {
            let path = dirs.tmp.join(format!("open{number}"));
            let file = File::create_new(&path)?;
            fs::remove_file(&path).unwrap();
            Ok(file.into())
        });
        assert!((SHARE / 2..=SHARE).contains(&files.len()), "{}", files.len());
        // Open ones are never given up.
        for file in &files {
            assert_eq!(rustix::fs::fstat(file).unwrap().st_nlink, 0);
            assert_eq!(rustix::io::pwrite(file, b"still", 0).unwrap(), 5);
        }
        held.append(&mut files);
        held
    });
}
