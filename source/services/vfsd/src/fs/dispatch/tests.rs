//! Requests that no kernel sends: numbers that nobody was told, names that are none, lengths at every edge.

use std::fs::{File, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nexus_abi::Area;
use nexus_quota::{Amount, Budget, Ledger};
use nexus_wire::Bounded;
use proptest::prelude::*;

use super::super::books::Books;
use super::super::events::EventQueue;
use super::super::who::Who;
use super::super::{Limits, Zone};
use super::*;
use crate::Identity;

/// A directory that goes with its test.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).unwrap();
        let path = std::env::temp_dir().join(format!("vfsd-unit-{:016x}", u64::from_le_bytes(random)));
        for zone in Zone::ALL {
            std::fs::create_dir_all(path.join(&*zone.name())).unwrap();
        }
        Self(path)
    }

    fn open(&self, zone: Zone) -> OwnedFd {
        File::open(self.0.join(&*zone.name())).unwrap().into()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.0.exists() {
            open_up(&self.0);
        }
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const HARD_BYTES: u64 = 64 * 1024;

pub(crate) fn vfs(scratch: &Scratch) -> (Vfs, Arc<Books>) {
    let budget = Budget {
        soft_bytes: None,
        hard_bytes: HARD_BYTES,
        hard_inodes: 12,
    };
    let ledger = Ledger::default()
        .with(Area::Tmp, budget, Amount::ZERO)
        .with(Area::State, budget, Amount::ZERO);
    let books = Arc::new(Books::new(
        ledger,
        Bounded::cut(b"0123"),
        Arc::new(EventQueue::new().unwrap()),
    ));
    let owner = Identity {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
    };
    let limits = Limits { nodes: 64, handles: 16 };
    let who = Arc::new(Who::new(|_, _| None));
    let vfs = Vfs::new(Arc::clone(&books), owner, limits, who, |zone| Ok(scratch.open(zone))).unwrap();
    (vfs, books)
}

/// Numbers that are known, numbers that were, and numbers that never are.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => 0_u64..6,
        1 => Just(u64::MAX),
        1 => Just(1_u64 << 63),
        1 => Just(i64::MAX as u64),
        2 => 0..2 * HARD_BYTES,
        1 => any::<u64>(),
    ]
}

const NAMES: [&[u8]; 8] = [b"a\0", b"b\0", b"c\0", b".\0", b"..\0", b"x/y\0", b"\0", b"user.x\0"];

/// A request's body: eight numbers that may be anything, and two names.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let numbers = proptest::collection::vec(number(), 0..9);
    (numbers, 0..NAMES.len(), 0..NAMES.len()).prop_map(|(numbers, one, other)| {
        let mut body: Vec<u8> = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
        body.extend(NAMES.get(one).unwrap().iter());
        body.extend(NAMES.get(other).unwrap().iter());
        body
    })
}

/// Gives the owner every right below a directory. A file server looks past the modes that programs set, since it is root of
/// its own user namespace; a test is not.
fn open_up(directory: &Path) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if !kind.is_symlink() {
            std::fs::set_permissions(entry.path(), Permissions::from_mode(0o700)).unwrap();
        }
        if kind.is_dir() {
            open_up(&entry.path());
        }
    }
}

/// What the files on disk cost, as a walk would count it: files that lost their names and are open are not among them.
fn on_disk(scratch: &Scratch, zone: Zone) -> Amount {
    open_up(&scratch.0.join(&*zone.name()));
    crate::layout::measure(std::os::fd::AsFd::as_fd(&scratch.open(zone))).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn requests_that_no_kernel_sends_neither_panic_nor_pass_the_budget(
        requests in proptest::collection::vec((1_u32..53, 0_usize..6, number(), body()), 1..80)
    ) {
        let scratch = Scratch::new();
        let (vfs, books) = vfs(&scratch);
        let known: Vec<u64> = vfs.zones.iter().map(|zone| zone.id).collect();
        let mut answer = Answer::new();
        for (opcode, place, other, body) in requests {
            let node = known.get(place).copied().unwrap_or(other);
            let Ok(request) = Request::parse(opcode, &body) else { continue };
            // The kernel forgets only what it was told, which the three directories never were.
            if matches!(request, Request::Forget(_) | Request::BatchForget(_)) {
                continue;
            }
            answer.clear();
            let _ = vfs.dispatch(Header { unique: 1, node, pid: 0 }, request, &mut answer);
        }
        for (area, zones) in [(Area::Tmp, &[Zone::Tmp, Zone::Shm][..]), (Area::State, &[Zone::State])] {
            let disk = zones.iter().map(|zone| on_disk(&scratch, *zone)).fold(Amount::ZERO, |sum, one| {
                sum.checked_add(one).unwrap()
            });
            let used = books.usage(area);
            prop_assert!(used.used_bytes <= HARD_BYTES && used.used_inodes <= 12);
            prop_assert!(disk.bytes <= used.used_bytes && disk.inodes <= used.used_inodes, "{disk:?} {used:?}");
        }
    }
}

/// As a kernel asks that leaves emptying to the open, and one that asks for what has no bytes.
#[test]
fn opening_to_empty_gives_back_to_be_durable_is_so_on_the_host_and_only_regular_files_are_opened() {
    const TRUNC: u32 = 0o1000;
    let scratch = Scratch::new();
    let (vfs, books) = vfs(&scratch);
    let tmp = vfs.zones.first().unwrap().id;
    let (attr, handle, _) = vfs.op_create(tmp, c"f", 0o600, 2, 0).unwrap();
    let head = super::super::protocol::WriteHead {
        handle,
        offset: 0,
        size: 5000,
        back: false,
        durable: crate::fs::protocol::Durable::No,
    };
    let data = super::super::write::Data::Here(&[1; 5000]);
    assert_eq!(vfs.op_write(head, data, 0), Ok(5000));
    assert_eq!(books.usage(Area::Tmp).used_bytes, 8192);
    let path = scratch.0.join(&*Zone::Tmp.name()).join("f");
    vfs.op_open(attr.id, 1, 0).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 5000);
    vfs.op_open(attr.id, 1 | TRUNC, 0).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    assert_eq!(books.usage(Area::Tmp).used_bytes, 0);
    // What was opened to be durable is so on the host.
    for (flags, wanted) in [
        (libc::O_DSYNC, libc::O_DSYNC),
        (libc::O_SYNC, libc::O_SYNC),
        (libc::O_APPEND, 0),
    ] {
        let (number, _) = vfs.op_open(attr.id, 1 | flags.unsigned_abs(), 0).unwrap();
        let host = rustix::fs::fcntl_getfl(&vfs.handle(number).unwrap().file).unwrap();
        let kept = host.bits() & (libc::O_SYNC | libc::O_APPEND).unsigned_abs();
        assert_eq!(kept, wanted.unsigned_abs());
    }
    let fifo = vfs.op_mknod(tmp, c"p", 0o010_600, 0).unwrap();
    for id in [tmp, fifo.id] {
        assert_eq!(vfs.op_open(id, 0, 0), Err(Errno::NXIO));
    }
}

/// The guard: with the charge taken away the same writes do pass the limit, so it is the charge that holds them.
#[test]
fn without_the_charge_a_write_would_pass_the_limit() {
    let scratch = Scratch::new();
    let (vfs, books) = vfs(&scratch);
    let tmp = vfs.zones.first().unwrap().id;
    let (_, handle, _) = vfs.op_create(tmp, c"f", 0o600, 2, 0).unwrap();
    let write = |offset| {
        let head = super::super::protocol::WriteHead {
            handle,
            offset,
            size: 4096,
            back: false,
            durable: crate::fs::protocol::Durable::No,
        };
        vfs.op_write(head, super::super::write::Data::Here(&[1; 4096]), 0)
    };
    assert_eq!(write(HARD_BYTES - 4096), Ok(4096));
    assert_eq!(write(HARD_BYTES), Err(Errno::DQUOT));
    // As if nothing had been charged.
    books.release(Area::Tmp, Amount::of_bytes(HARD_BYTES));
    assert_eq!(write(HARD_BYTES), Ok(4096));
    assert!(on_disk(&scratch, Zone::Tmp).bytes > HARD_BYTES);
}

/// What was written through a mapping is written back up to the length, and makes no file longer.
#[test]
fn what_is_written_back_ends_at_the_length() {
    let scratch = Scratch::new();
    let (vfs, books) = vfs(&scratch);
    let tmp = vfs.zones.first().unwrap().id;
    let (_, handle, _) = vfs.op_create(tmp, c"f", 0o600, 2, 0).unwrap();
    let path = scratch.0.join(&*Zone::Tmp.name()).join("f");
    let write = |offset, data: &[u8], back| {
        let head = super::super::protocol::WriteHead {
            handle,
            offset,
            size: data.len(),
            back,
            durable: crate::fs::protocol::Durable::No,
        };
        vfs.op_write(head, super::super::write::Data::Here(data), 0)
    };
    assert_eq!(write(0, &[1; 5000], false), Ok(5000));
    let used = books.usage(Area::Tmp).used_bytes;
    // The kernel hands over whole pages; the last one's rest, and pages behind it, are nobody's.
    for (offset, length) in [(0, 4096), (4096, 4096), (8192, 4096), (4999, 2), (5000, 1)] {
        assert_eq!(
            write(offset, &vec![2; length], true),
            Ok(u32::try_from(length).unwrap())
        );
    }
    assert_eq!(std::fs::read(path).unwrap(), [2; 5000]);
    assert_eq!(books.usage(Area::Tmp).used_bytes, used);
}

/// A page that the kernel read before a write that passed its copy by, and writes back after it, has what was in the write's place.
#[test]
fn a_page_from_before_a_write_is_written_back_around_it_and_one_from_after_it_whole() {
    use super::super::protocol::{Answer, ReadHead, WriteHead};
    let scratch = Scratch::new();
    let (mut vfs, _) = vfs(&scratch);
    vfs.writes_pass = true;
    let tmp = vfs.zones.first().unwrap().id;
    let direct = |told: u32| told & super::super::protocol::opened::DIRECT_IO != 0;
    let (attr, writer, told) = vfs.op_create(tmp, c"f", 0o600, 1, 0).unwrap();
    assert!(direct(told), "the kernel is told to pass its copy by");
    let (mapper, told) = vfs.op_open(attr.id, 2, 0).unwrap();
    assert!(!direct(told));
    let (late, told) = vfs.op_open(attr.id, 1, 0).unwrap();
    assert!(!direct(told), "not where the file may be mapped to be written");
    vfs.op_release(late);
    let path = scratch.0.join(&*Zone::Tmp.name()).join("f");
    let write = |handle, offset, data: &[u8], back| {
        let head = WriteHead {
            handle,
            offset,
            size: data.len(),
            back,
            durable: crate::fs::protocol::Durable::No,
        };
        vfs.op_write(head, super::super::write::Data::Here(data), 0)
    };
    let read = |passes| {
        let head = ReadHead {
            handle: mapper,
            offset: 0,
            size: 4096,
            passes,
        };
        vfs.op_read(head, &mut Answer::new()).unwrap();
    };
    let bytes = || std::fs::read(&path).unwrap();
    write(writer, 0, &[1; 4096], false).unwrap();
    read(false);
    write(writer, 8, &[2; 8], false).unwrap();
    write(writer, 16, &[2; 8], false).unwrap();
    // A read for somebody's own memory brings no page.
    read(true);
    assert_eq!(write(mapper, 0, &[3; 4096], true), Ok(4096));
    assert_eq!((bytes()[7], bytes()[24]), (3, 3));
    assert_eq!(bytes()[8..24], [2; 16]);
    read(false);
    write(mapper, 0, &[4; 4096], true).unwrap();
    assert!(bytes() == [4; 4096]);
    // One that is refused has written nothing that could be kept.
    write(writer, 100, &[5; 8], false).unwrap();
    read(false);
    assert_eq!(write(writer, HARD_BYTES, &[5; 8], false), Err(Errno::DQUOT));
    write(mapper, 0, &[6; 4096], true).unwrap();
    assert!(bytes() == [6; 4096]);
    // Another write comes after the one before it is over.
    write(writer, 100, &[7; 8], false).unwrap();
    write(mapper, 0, &[8; 4], false).unwrap();
    write(mapper, 0, &[9; 4096], true).unwrap();
    assert!(bytes() == [9; 4096]);
    // Once nobody writes past the copy, nothing is remembered that a page could be held to.
    write(writer, 100, &[1; 8], false).unwrap();
    vfs.op_release(writer);
    read(false);
    write(mapper, 0, &[2; 4096], true).unwrap();
    assert!(bytes() == [2; 4096]);
}

/// Of two closes that are served at once each sees the other's handle.
#[test]
fn of_two_closes_at_once_one_lets_go_of_the_room_past_the_end() {
    const KEEP_SIZE: u32 = 1;
    let scratch = Scratch::new();
    let (vfs, books) = vfs(&scratch);
    let tmp = vfs.zones.first().unwrap().id;
    let (attr, one, _) = vfs.op_create(tmp, c"f", 0o600, 2, 0).unwrap();
    vfs.op_open(attr.id, 2, 0).unwrap();
    match vfs.op_fallocate(one, 0, 4 * 4096, KEEP_SIZE, 0) {
        // No such room on this host: nothing to let go of.
        Err(Errno::OPNOTSUPP) => return,
        reserved => reserved.unwrap(),
    }
    assert_eq!(books.usage(Area::Tmp).used_bytes, 4 * 4096);
    let node = vfs.table.get(attr.id).unwrap();
    for _ in 0..2 {
        vfs.closing(&node);
        vfs.trim(&node);
    }
    for _ in 0..2 {
        vfs.left(&node);
    }
    assert_eq!(books.usage(Area::Tmp).used_bytes, 0);
}

/// The kernel says so before: each area is a mount of its own. It is said here as well, since each is another account.
#[test]
fn between_areas_nothing_is_linked_or_moved() {
    let scratch = Scratch::new();
    let (vfs, books) = vfs(&scratch);
    let of = |zone| vfs.zones.iter().find(|node| node.zone == zone).unwrap().id;
    let (tmp, state) = (of(Zone::Tmp), of(Zone::State));
    let (attr, _, _) = vfs.op_create(tmp, c"f", 0o600, 2, 0).unwrap();
    vfs.op_create(state, c"g", 0o600, 2, 0).unwrap();
    assert_eq!(vfs.op_link(attr.id, state, c"h", 0), Err(Errno::XDEV));
    for (name, flags) in [(c"h", 0), (c"h", 1), (c"g", 0), (c"g", 2)] {
        assert_eq!(vfs.op_rename(tmp, c"f", state, name, flags), Err(Errno::XDEV));
    }
    for (zone, area) in [(Zone::Tmp, Area::Tmp), (Zone::State, Area::State)] {
        assert_eq!(books.usage(area).used_inodes, 1);
        assert_eq!(on_disk(&scratch, zone).inodes, 1);
    }
    // Its nearest neighbour that may.
    vfs.op_link(attr.id, tmp, c"h", 0).unwrap();
    vfs.op_rename(tmp, c"f", tmp, c"i", 0).unwrap();
}

#[test]
fn the_root_is_nobodys_to_change_and_a_name_is_one_part() {
    let scratch = Scratch::new();
    let (vfs, _) = vfs(&scratch);
    let tmp = vfs.zones.first().unwrap().id;
    assert_eq!(vfs.op_mkdir(ROOT_ID, c"new", 0o700, 0), Err(Errno::PERM));
    assert_eq!(vfs.op_rmdir(ROOT_ID, c"shm"), Err(Errno::PERM));
    let times = super::super::protocol::Changes {
        mtime: Some(super::super::protocol::TimeChange::Now),
        ..Default::default()
    };
    assert_eq!(vfs.op_setattr(ROOT_ID, times, 0), Err(Errno::PERM));
    assert_eq!(vfs.op_rename(ROOT_ID, c"shm", tmp, c"shm", 0), Err(Errno::PERM));
    assert_eq!(vfs.op_rename(tmp, c"shm", ROOT_ID, c"shm", 0), Err(Errno::PERM));
    for name in [c"", c".", c"..", c"../new", c"a/b", c"/"] {
        assert_eq!(vfs.op_mkdir(tmp, name, 0o700, 0), Err(Errno::INVAL), "{name:?}");
        assert_eq!(vfs.op_lookup(tmp, name), Err(Errno::INVAL), "{name:?}");
        assert_eq!(vfs.op_symlink(tmp, name, c"x", 0), Err(Errno::INVAL), "{name:?}");
    }
    assert!(!scratch.0.join("new").exists());
    vfs.op_mkdir(tmp, c"..new", 0o700, 0).unwrap();
}

/// A length is given to the file that is named, whatever handle comes with it.
#[test]
fn a_handle_of_another_file_shortens_only_the_one_that_was_named() {
    let scratch = Scratch::new();
    let (vfs, books) = vfs(&scratch);
    let tmp = vfs.zones.first().unwrap().id;
    let made = [c"f", c"g"].map(|name| {
        let (attr, handle, _) = vfs.op_create(tmp, name, 0o600, 2, 0).unwrap();
        let head = super::super::protocol::WriteHead {
            handle,
            offset: 0,
            size: 4096,
            back: false,
            durable: crate::fs::protocol::Durable::No,
        };
        vfs.op_write(head, super::super::write::Data::Here(&[1; 4096]), 0)
            .unwrap();
        (attr.id, handle)
    });
    let [(f, _), (_, g_handle)] = made;
    let changes = super::super::protocol::Changes {
        size: Some(0),
        handle: Some(g_handle),
        ..Default::default()
    };
    vfs.op_setattr(f, changes, 0).unwrap();
    let len = |name| {
        std::fs::metadata(scratch.0.join(&*Zone::Tmp.name()).join(name))
            .unwrap()
            .len()
    };
    assert_eq!((len("f"), len("g")), (0, 4096));
    assert_eq!(books.usage(Area::Tmp).used_bytes, 4096);
}

/// A file is opened again by its name only if the name still means it.
#[test]
fn what_others_put_in_a_files_place_is_never_taken_for_it() {
    let scratch = Scratch::new();
    let (vfs, _) = vfs(&scratch);
    let state = vfs.zones.iter().find(|node| node.zone == Zone::State).unwrap().id;
    // Without a handle on the inode until one is needed.
    let (attr, _, _) = vfs.op_create(state, c"f", 0o600, 2, 0).unwrap();
    let place = scratch.0.join(&*Zone::State.name()).join("f");
    let other = scratch.0.join("other");
    std::fs::write(&other, b"others").unwrap();
    std::fs::rename(&other, &place).unwrap();
    for changes in [
        super::super::protocol::Changes {
            size: Some(0),
            ..Default::default()
        },
        super::super::protocol::Changes {
            mode: Some(0o400),
            ..Default::default()
        },
    ] {
        assert_eq!(vfs.op_setattr(attr.id, changes, 0), Err(Errno::STALE));
    }
    assert_eq!(vfs.op_open(attr.id, 2, 0), Err(Errno::STALE));
    assert_eq!(std::fs::read(&place).unwrap(), b"others");
}

#[test]
fn a_file_is_given_to_nobody_else() {
    let scratch = Scratch::new();
    let (vfs, _) = vfs(&scratch);
    let tmp = vfs.zones.first().unwrap().id;
    let (attr, _, _) = vfs.op_create(tmp, c"f", 0o600, 2, 0).unwrap();
    let to = |uid, gid| super::super::protocol::Changes {
        uid,
        gid,
        ..Default::default()
    };
    let Identity { uid, gid } = vfs.owner;
    for foreign in [
        to(Some(uid + 1), None),
        to(None, Some(gid + 1)),
        to(Some(uid), Some(gid + 1)),
    ] {
        assert_eq!(vfs.op_setattr(attr.id, foreign, 0), Err(Errno::PERM));
    }
    vfs.op_setattr(attr.id, to(Some(uid), Some(gid)), 0).unwrap();
}

/// The kernel refuses most of these before, for want of privilege; the host would show or take some.
#[test]
fn attributes_are_those_of_users_alone() {
    let scratch = Scratch::new();
    let (vfs, _) = vfs(&scratch);
    let tmp = vfs.zones.first().unwrap().id;
    let (attr, _, _) = vfs.op_create(tmp, c"f", 0o600, 2, 0).unwrap();
    for name in [
        c"security.capability",
        c"security.selinux",
        c"system.posix_acl_access",
        c"trusted.x",
        c"user",
        c"user.",
        c"usera.x",
        c"",
    ] {
        assert_eq!(
            vfs.op_setxattr(attr.id, name, b"x", 0, 0),
            Err(Errno::OPNOTSUPP),
            "{name:?}"
        );
        assert_eq!(vfs.op_removexattr(attr.id, name), Err(Errno::OPNOTSUPP), "{name:?}");
        let got = vfs.op_getxattr(attr.id, name, 0, &mut Answer::new());
        assert_eq!(got, Err(Errno::OPNOTSUPP), "{name:?}");
    }
}
