//! What a program does that wants to pass its budget, or to hang its file server.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nexus_sys::process::{CloneFlags, Fork, clone, exit_now};
use nexus_wire::packet::PacketSocket;
use nexus_wire::vfs::ToVfsd;
use rustix::fs::{CWD, Mode, OFlags, RenameFlags};
use vfsd::VfsdMessage;

use crate::Case;
use crate::mapping::Mapping;
use crate::world::{KIB, MIB, USER, World, budget, errno};

pub(crate) const CASES: &[Case] = &[
    (
        "shortening_a_file_under_a_mapping_that_writes_charges_what_is_there",
        truncate_against_mapping,
    ),
    ("arguments_in_uncached_pages_of_our_own_files_do_not_hang", own_pages),
    (
        "renames_links_and_removals_at_once_keep_the_ledger_exact",
        storm_of_names,
    ),
    (
        "writes_extents_and_shortening_at_once_keep_the_ledger_exact",
        storm_of_lengths,
    ),
    (
        "the_server_keeps_two_capabilities_and_shows_nobody_its_memory",
        stripped,
    ),
    ("set_id_bits_and_devices_mean_nothing_on_an_areas_mount", mount_flags),
    (
        "who_asks_what_is_used_behind_a_flood_of_denials_is_answered_and_stays",
        asked_behind_a_flood,
    ),
];

/// An ordinary user can be nobody else.
pub(crate) const ROOT_CASES: &[Case] = &[("whoever_listens_in_a_servers_place_is_not_believed", impostor)];

fn stripped(world: &World) {
    let connection = world.join_roomy();
    let status = fs::read_to_string(format!("/proc/{}/status", connection.vfsd_pid)).unwrap();
    let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim();
    // `CAP_DAC_OVERRIDE` (1) and `CAP_SYS_ADMIN` (21), over its own namespace (linux/capability.h).
    for set in ["CapPrm:", "CapEff:"] {
        assert_eq!(u64::from_str_radix(value(set), 16).unwrap(), 1 << 1 | 1 << 21, "{set}");
    }
    assert_eq!(u64::from_str_radix(value("CapInh:"), 16).unwrap(), 0);
    assert_eq!(value("NoNewPrivs:"), "1");
    // Root's, as long as it may not be looked into (proc_pid(5)).
    let memory = fs::metadata(format!("/proc/{}/mem", connection.vfsd_pid)).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&memory), 0);
}

fn impostor(world: &World) {
    let first = world.join_roomy();
    let config = world.config(budget(MIB, 100), budget(MIB, 100));
    let path = fs::read_dir(&config.runtime_dir)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    drop(first);
    crate::sessions::wait_for_end(world);
    let _ = fs::remove_file(&path);
    let flags = rustix::net::SocketFlags::CLOEXEC;
    let (family, kind) = (rustix::net::AddressFamily::UNIX, rustix::net::SocketType::SEQPACKET);
    let socket = rustix::net::socket_with(family, kind, flags, None).unwrap();
    rustix::net::bind(&socket, &rustix::net::SocketAddrUnix::new(&path).unwrap()).unwrap();
    let (mut ready, tell_ready) = std::io::pipe().unwrap();
    let (mut hold, release) = std::io::pipe().unwrap();
    let child = match clone(CloneFlags::NONE).unwrap() {
        Fork::Parent(child) => child,
        Fork::Child => {
            // Who listens is who the kernel names to those that connect (unix(7)).
            let id = rustix::fs::Uid::from_raw(USER);
            rustix::thread::set_thread_res_uid(id, id, id).unwrap();
            rustix::net::listen(&socket, 4).unwrap();
            (&tell_ready).write_all(b"x").unwrap();
            drop(release);
            let _ = hold.read(&mut [0]);
            exit_now(0)
        }
    };
    ready.read_exact(&mut [0]).unwrap();
    let refused = vfsd::join(&config).unwrap_err();
    assert!(matches!(refused, vfsd::VfsdError::Peer { uid: USER }), "{refused}");
    drop(release);
    rustix::process::waitpid(
        rustix::process::Pid::from_raw(child.pid),
        rustix::process::WaitOptions::empty(),
    )
    .unwrap();
    drop(socket);
    fs::remove_file(path).unwrap();
}

fn asked_behind_a_flood(world: &World) {
    const DENIALS: u64 = 3000;
    const QUESTIONS: usize = 3;
    let mut connection = world.join(budget(MIB, 10), budget(0, 0));
    let (mut ready, tell_ready) = std::io::pipe().unwrap();
    let (mut go, tell_go) = std::io::pipe().unwrap();
    let inside = world.begin(&connection, |dirs| {
        fs::write(dirs.tmp.join("file"), vec![1; MIB as usize]).unwrap();
        for _ in 0..DENIALS {
            assert_eq!(errno(fs::write(dirs.tmp.join("more"), b"x")), 122);
        }
        (&tell_ready).write_all(b"x").unwrap();
        go.read_exact(&mut [0]).unwrap();
        assert_eq!(
            fs::read(dirs.tmp.join("file")).unwrap(),
            vec![1; MIB as usize],
            "it is still served"
        );
    });
    ready.read_exact(&mut [0]).unwrap();
    // Nobody has listened all the while, so there is no room for an answer either.
    let socket = PacketSocket::from(connection.session.as_fd().try_clone_to_owned().unwrap());
    for _ in 0..QUESTIONS {
        socket.send(&ToVfsd::QueryUsage.encode(), &[]).unwrap();
    }
    std::thread::sleep(Duration::from_millis(100));
    let mut told = 0;
    for _ in 0..=QUESTIONS {
        assert_eq!(connection.usage().unwrap().0.used_bytes, MIB);
        while let Some(message) = connection.next_message().unwrap() {
            told += match message {
                VfsdMessage::Event(_) => 1,
                VfsdMessage::Lost { count, .. } => count,
            };
        }
    }
    assert_eq!(told, DENIALS, "each was told or counted before the answer");
    (&tell_go).write_all(b"x").unwrap();
    inside.end();
}

fn mount_flags(world: &World) {
    let connection = world.join_work(&world.work_dir(), budget(MIB, 100));
    world.inside(&connection, |dirs| {
        for dir in [&dirs.tmp, &dirs.state, &dirs.shm, &dirs.work] {
            let flags = rustix::fs::statvfs(dir).unwrap().f_flag;
            let wanted = rustix::fs::StatVfsMountFlags::NOSUID | rustix::fs::StatVfsMountFlags::NODEV;
            assert!(flags.contains(wanted), "{}: {flags:?}", dir.display());
        }
    });
}

fn truncate_against_mapping(world: &World) {
    let mut connection = world.join(budget(MIB, 100), budget(0, 0));
    world.inside(&connection, |dirs| {
        let path = dirs.tmp.join("f");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        // In a child: what is cut off under a mapping ends who touches it (SIGBUS).
        for round in 0..20_u64 {
            file.set_len(MIB).unwrap();
            let child = match nexus_sys::process::clone(nexus_sys::process::CloneFlags::NONE).unwrap() {
                nexus_sys::process::Fork::Child => {
                    let mapping = Mapping::new(&file, 0, MIB as usize).unwrap();
                    for at in (0..MIB as usize).step_by(512).cycle().take(1 << 16) {
                        mapping.poke(at, 9);
                    }
                    nexus_sys::process::exit_now(0)
                }
                nexus_sys::process::Fork::Parent(child) => child,
            };
            for step in 0..64 {
                file.set_len((round * 7919 + step * 104_729) % MIB).unwrap();
            }
            let pid = rustix::process::Pid::from_raw(child.pid);
            rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap();
            rustix::fs::fsync(&file).unwrap();
        }
        file.set_len(3 * 4096 + 1).unwrap();
        let content = fs::read(&path).unwrap();
        assert_eq!(content.len(), 3 * 4096 + 1);
        // What was cut off is zero when it is back.
        file.set_len(1).unwrap();
        file.set_len(8192).unwrap();
        assert!(fs::read(&path).unwrap().iter().skip(1).all(|byte| *byte == 0));
    });
    assert_eq!(connection.usage().unwrap().0.used_bytes, 8192);
}

fn own_pages(world: &World) {
    let connection = world.join_roomy();
    let (one, two) = (world.join_roomy(), world.join_roomy());
    drop((one, two));
    world.inside(&connection, |dirs| {
        let target = dirs.tmp.join("a-file-that-is-opened-by-a-name-in-a-file");
        fs::write(&target, b"found").unwrap();
        let name = CString::new(target.as_os_str().as_bytes()).unwrap();
        let lies = dirs.tmp.join("arguments");
        let mut page = name.as_bytes_with_nul().to_vec();
        page.resize(64 * KIB as usize, 0x55);
        fs::write(&lies, &page).unwrap();
        for round in 0..50 {
            let file = OpenOptions::new().read(true).write(true).open(&lies).unwrap();
            // Out of the kernel's memory, so that touching it asks the file server.
            rustix::fs::fsync(&file).unwrap();
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
            let mut mapping = Mapping::new(&file, 0, 64 * KIB as usize).unwrap();
            match round % 4 {
                0 => {
                    // A path.
                    let path = std::ffi::CStr::from_bytes_until_nul(mapping.bytes()).unwrap();
                    let opened = rustix::fs::open(path, OFlags::RDONLY, Mode::empty()).unwrap();
                    let mut content = [0; 5];
                    rustix::io::read(&opened, &mut content).unwrap();
                    assert_eq!(&content, b"found");
                }
                1 => {
                    // What is written, into another file and into itself.
                    let other = File::create(dirs.tmp.join("other")).unwrap();
                    let bytes = mapping.bytes();
                    other.write_all_at(&bytes[4096..], 0).unwrap();
                    file.write_all_at(&bytes[8192..12288], 4096).unwrap();
                    assert_eq!(fs::read(dirs.tmp.join("other")).unwrap(), &bytes[4096..]);
                }
                2 => {
                    // Where a read puts what it read: into the file itself.
                    let room = &mut mapping.bytes_mut()[16384..20480];
                    file.read_exact_at(room, 32768).unwrap();
                }
                _ => {
                    // A name in the directory that is being looked into.
                    let path = std::ffi::CStr::from_bytes_until_nul(mapping.bytes()).unwrap();
                    rustix::fs::stat(path).unwrap();
                    assert!(rustix::fs::mkdir(path, Mode::RWXU).is_err());
                }
            }
        }
    });
}

/// Runs `act` in four threads, each with its own sequence of numbers.
fn four(steps: u32, act: impl Fn(&mut Numbers) -> bool + Sync) {
    let done = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for seed in 1..=4 {
            let (act, done) = (&act, &done);
            scope.spawn(move || {
                let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
                for _ in 0..steps {
                    let went = act(&mut numbers);
                    done.fetch_add(u32::from(went), std::sync::atomic::Ordering::Relaxed);
                }
            });
        }
    });
    // Some fail, because somebody else was faster; where most do, it was no storm.
    let done = done.into_inner();
    assert!(done > steps / 2, "{done} of {} did anything", steps * 4);
}

/// A sequence that is the same each time (xorshift).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // The upper bits are the better ones.
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % end
    }
}

fn storm_of_names(world: &World) {
    let mut connection = world.join_roomy();
    world.inside(&connection, |dirs| {
        let root = &dirs.state;
        for dir in ["a", "b"] {
            fs::create_dir(root.join(dir)).unwrap();
        }
        let any = |numbers: &mut Numbers| {
            let dir = if numbers.below(2) == 0 { "a" } else { "b" };
            root.join(dir).join(format!("n{}", numbers.below(6)))
        };
        four(600, |numbers| {
            let (one, two) = (any(numbers), any(numbers));
            // Each may fail: somebody else was faster.
            match numbers.below(7) {
                0 => fs::write(&one, vec![1; 5000]).is_ok(),
                1 => fs::hard_link(&one, &two).is_ok(),
                2 => fs::rename(&one, &two).is_ok(),
                3 => rustix::fs::renameat_with(CWD, &one, CWD, &two, RenameFlags::EXCHANGE).is_ok(),
                4 => fs::create_dir(&one).is_ok(),
                5 => fs::remove_dir(&one).is_ok(),
                _ => fs::remove_file(&one).is_ok(),
            }
        });
    });
    agrees(world, &mut connection);
}

fn storm_of_lengths(world: &World) {
    let mut connection = world.join(budget(0, 0), budget(2 * MIB, 100));
    world.inside(&connection, |dirs| {
        let root = &dirs.state;
        four(400, |numbers| {
            let path = root.join(format!("f{}", numbers.below(3)));
            let Ok(file) = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
            else {
                return false;
            };
            let (offset, length) = (numbers.below(MIB), numbers.below(64 * KIB) + 1);
            match numbers.below(6) {
                0 | 1 => file.write_at(&vec![1; length as usize], offset).is_ok(),
                2 => file.set_len(offset).is_ok(),
                3 => rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), offset, length).is_ok(),
                4 => rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::KEEP_SIZE, offset, length).is_ok(),
                _ => fs::remove_file(&path).is_ok(),
            }
        });
    });
    agrees(world, &mut connection);
}

/// The ledger says what the disk says, once the kernel has told of the last closes, for which nobody waits.
pub(crate) fn agrees(world: &World, connection: &mut vfsd::VfsdConnection) {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let used = connection.usage().unwrap().1;
        let disk = World::measure(&world.subject_dir().join("state"));
        if (used.used_bytes, used.used_inodes) == disk {
            return;
        }
        assert!(Instant::now() < until, "the ledger says {used:?}, the disk {disk:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
