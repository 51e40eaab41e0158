//! A host's disk that does not answer: the subject's files lie in another file server's area, and that one is stopped.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::time::Duration;

use nexus_wire::Bounded;
use nexus_wire::packet::PacketSocket;
use nexus_wire::vfs::ToVfsd;
use rustix::process::{Pid, Signal, WaitOptions};
use vfsd::{VfsdConfig, VfsdConnection};

use crate::Case;
use crate::world::{Dirs, MIB, World, budget, eventually, wait_asleep_in};

pub(crate) const USER_CASES: &[Case] = &[
    ("killed_while_it_takes_a_session_in_it_is_gone", taking_in),
    ("a_disk_that_answers_late_loses_nothing_and_holds_up_nobody_else", late),
    (
        "many_that_wait_for_the_disk_do_not_stop_who_needs_none_and_all_are_answered",
        many_wait,
    ),
];

/// Longer than the outer server's attributes of a state are believed: the next look has to ask it.
const STALE: Duration = Duration::from_millis(1100);

fn pid(connection: &VfsdConnection) -> Pid {
    Pid::from_raw(i32::try_from(connection.vfsd_pid).unwrap()).unwrap()
}

/// A disk that stands still until this is dropped.
pub(crate) struct Stopped(Pid);

impl Stopped {
    pub(crate) fn new(disk: Pid) -> Self {
        rustix::process::kill_process(disk, Signal::STOP).unwrap();
        let stopped = Self(disk);
        // The signal is sent at once; each thread stops when it next leaves the kernel.
        eventually("all of it stands still", || {
            let threads = fs::read_dir(format!("/proc/{disk}/task")).unwrap().flatten();
            threads
                .filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok())
                .all(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T")))
        });
        stopped
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        rustix::process::kill_process(self.0, Signal::CONT).unwrap();
    }
}

/// A subject whose files lie in the outer session's state.
fn nested(world: &World, dirs: &Dirs) -> VfsdConfig {
    let mut config = world.config(budget(MIB, 100), budget(MIB, 100));
    config.subject = "inner".to_owned();
    config.base_dir = dirs.state.join("base");
    fs::create_dir_all(&config.base_dir).unwrap();
    config
}

fn sockets(config: &VfsdConfig) -> Vec<PathBuf> {
    let found = fs::read_dir(&config.runtime_dir).unwrap().flatten();
    found.map(|entry| entry.path()).collect()
}

fn taking_in(world: &World) {
    let outer = world.join_roomy();
    let disk = pid(&outer);
    world.inside(&outer, |dirs| {
        let config = nested(world, dirs);
        let others = sockets(&config);
        let first = vfsd::join(&config).unwrap();
        let server = pid(&first);
        let path = sockets(&config)
            .into_iter()
            .find(|path| !others.contains(path))
            .unwrap();
        let flags = rustix::net::SocketFlags::CLOEXEC;
        let (family, kind) = (rustix::net::AddressFamily::UNIX, rustix::net::SocketType::SEQPACKET);
        let socket = rustix::net::socket_with(family, kind, flags, None).unwrap();
        std::thread::sleep(STALE);
        rustix::net::connect(&socket, &rustix::net::SocketAddrUnix::new(&path).unwrap()).unwrap();
        let hello = ToVfsd::Hello {
            subject: Bounded::cut(b"inner"),
            budgets: config.budgets,
            policy: Bounded::cut(b"0123"),
        };
        let stopped = Stopped::new(disk);
        // It looks the state up to make a mount of it, and whoever serves that waits for the disk.
        PacketSocket::from(socket.as_fd().try_clone_to_owned().unwrap())
            .send(&hello.encode(), &[])
            .unwrap();
        std::thread::sleep(Duration::from_millis(200));
        rustix::process::kill_process(server, Signal::KILL).unwrap();
        drop(stopped);
        eventually("the server that was killed is gone", || {
            rustix::process::waitpid(Some(server), WaitOptions::NOHANG)
                .unwrap()
                .is_some()
        });
        drop(first);
        let again = vfsd::join(&config).unwrap();
        assert!(again.fresh);
    });
}

fn late(world: &World) {
    let outer = world.join_roomy();
    let disk = pid(&outer);
    let mut config = world.config(budget(MIB, 100), budget(MIB, 100));
    config.subject = "beside".to_owned();
    let beside = vfsd::join(&config).unwrap();
    let (mut go, tell_go) = std::io::pipe().unwrap();
    let (mut done, tell_done) = std::io::pipe().unwrap();
    let other = world.begin(&beside, |dirs| {
        go.read_exact(&mut [0]).unwrap();
        fs::write(dirs.tmp.join("file"), [1; 8192]).unwrap();
        assert_eq!(fs::read(dirs.tmp.join("file")).unwrap(), [1; 8192]);
        (&tell_done).write_all(b"x").unwrap();
    });
    world.inside(&outer, |dirs| {
        let config = nested(world, dirs);
        let mut inner = vfsd::join(&config).unwrap();
        let mut idle = vfsd::join(&config).unwrap();
        let (mut ready, tell_ready) = std::io::pipe().unwrap();
        let (mut next, tell_next) = std::io::pipe().unwrap();
        let program = world.begin(&inner, |dirs| {
            let mut file = File::create(dirs.state.join("file")).unwrap();
            for turn in 0..64_u8 {
                if turn == 8 {
                    (&tell_ready).write_all(&file.as_raw_fd().to_ne_bytes()).unwrap();
                    next.read_exact(&mut [0]).unwrap();
                }
                file.write_all(&[turn; 4096]).unwrap();
            }
            file.sync_all().unwrap();
        });
        let mut fd = [0; 4];
        ready.read_exact(&mut fd).unwrap();
        let stopped = Stopped::new(disk);
        (&tell_next).write_all(b"x").unwrap();
        program.wait_asleep_in(libc::SYS_write, i32::from_ne_bytes(fd));
        (&tell_go).write_all(b"x").unwrap();
        done.read_exact(&mut [0]).unwrap();
        // Who asks what is used waits for no disk.
        let used = idle.usage().unwrap().1.used_bytes;
        assert!((8 * 4096..=9 * 4096).contains(&used), "{used}");
        drop(stopped);
        program.end();
        assert_eq!(inner.usage().unwrap().1.used_bytes, 64 * 4096);
        assert_eq!(inner.next_message().unwrap(), None, "nothing was denied");
        let content = fs::read(config.base_dir.join("subjects/inner/state/file")).unwrap();
        let wanted: Vec<u8> = (0..64_u8).flat_map(|turn| [turn; 4096]).collect();
        assert_eq!(content, wanted);
    });
    other.end();
}

/// More than a file server has threads (16).
const MANY: usize = 24;

/// So many that one thread is left.
const ALL_BUT_ONE: usize = 15;

fn many_wait(world: &World) {
    let outer = world.join_roomy();
    let disk = pid(&outer);
    world.inside(&outer, |dirs| {
        let config = nested(world, dirs);
        let mut inner = vfsd::join(&config).unwrap();
        let (mut told, tell) = std::io::pipe().unwrap();
        let (mut go, tell_go) = std::io::pipe().unwrap();
        let program = world.begin(&inner, |dirs| {
            let files = (0..MANY).map(|number| File::create(dirs.state.join(format!("synced{number}"))).unwrap());
            let files: Vec<File> = files.collect();
            for mut file in &files {
                file.write_all(&[1; 4096]).unwrap();
            }
            let say = |number: i32| (&tell).write_all(&number.to_ne_bytes()).unwrap();
            say(0);
            std::thread::scope(|scope| {
                for (number, file) in files.iter().enumerate() {
                    go.read_exact(&mut [0]).unwrap();
                    scope.spawn(move || {
                        say(rustix::thread::gettid().as_raw_nonzero().get());
                        say(file.as_raw_fd());
                        file.sync_all().unwrap();
                    });
                    if number + 1 == ALL_BUT_ONE {
                        // What the ledger knows is asked of no disk.
                        go.read_exact(&mut [0]).unwrap();
                        say(i32::try_from(rustix::fs::statvfs(&dirs.state).unwrap().f_bfree).unwrap());
                    }
                }
            });
        });
        let mut hear = || {
            let mut number = [0; 4];
            told.read_exact(&mut number).unwrap();
            i32::from_ne_bytes(number)
        };
        let go = || (&tell_go).write_all(b"x").unwrap();
        assert_eq!(hear(), 0);
        let stopped = Stopped::new(disk);
        for number in 1..=MANY {
            go();
            let (thread, fd) = (hear(), hear());
            wait_asleep_in(&format!("/proc/{}/task/{thread}", program.pid), libc::SYS_fsync, fd);
            if number == ALL_BUT_ONE {
                go();
                assert_eq!(hear() as u64, MIB / 4096 - MANY as u64);
            }
        }
        drop(stopped);
        program.end();
        assert_eq!(inner.usage().unwrap().1.used_bytes, MANY as u64 * 4096);
    });
}
