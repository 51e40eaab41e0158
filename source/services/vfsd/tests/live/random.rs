//! Random operations on files, byte for byte against the bare file system and against an account kept beside.
//!
//! `NEXUS_SOAK=1` does a million of them; otherwise some thousands, of the same sequence. `NEXUS_SEED=N` chooses another.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FallocateFlags, RenameFlags};

use crate::Case;
use crate::hostile::Numbers;
use crate::mapping::Mapping;
use crate::world::{KIB, MIB, World, budget};

pub(crate) const CASES: &[Case] = &[(
    "random_operations_agree_with_the_bare_file_system_and_with_the_account",
    random,
)];

const STEPS: u64 = 6_000;
const STEPS_SOAK: u64 = 1_000_000;

/// How many names there are.
const NAMES: u64 = 6;

/// No file gets longer: so the budget is met often, and comparing stays quick.
const LEN_MAX: u64 = 300 * KIB;

/// Less than all files together could have.
const HARD_BYTES: u64 = MIB;

const HARD_INODES: u64 = NAMES - 1;

/// What is tried with the names and handles of one side.
#[derive(Clone, Debug)]
enum Step {
    Open(u64),
    Close(u64),
    Write {
        name: u64,
        offset: u64,
        length: u64,
        byte: u8,
    },
    Append {
        name: u64,
        length: u64,
        byte: u8,
    },
    Read {
        name: u64,
        offset: u64,
        length: u64,
    },
    Map {
        name: u64,
        offset: u64,
        length: u64,
        byte: u8,
    },
    Truncate {
        name: u64,
        length: u64,
        by_handle: bool,
    },
    Allocate {
        name: u64,
        offset: u64,
        length: u64,
        flags: FallocateFlags,
    },
    Copy {
        from: u64,
        offset: u64,
        to: u64,
        to_offset: u64,
        length: u64,
    },
    Rename {
        from: u64,
        to: u64,
        flags: RenameFlags,
    },
    Link {
        from: u64,
        to: u64,
    },
    Unlink(u64),
    Sync(u64),
}

fn step(numbers: &mut Numbers) -> Step {
    let (name, other) = (numbers.below(NAMES), numbers.below(NAMES));
    let offset = numbers.below(LEN_MAX);
    let length = match numbers.below(3) {
        0 => numbers.below(16),
        1 => numbers.below(4 * KIB),
        _ => numbers.below(64 * KIB),
    }
    .min(LEN_MAX - offset);
    let byte = u8::try_from(numbers.below(255)).unwrap() + 1;
    match numbers.below(32) {
        0..3 => Step::Open(name),
        3..5 => Step::Close(name),
        5..11 => Step::Write {
            name,
            offset,
            length,
            byte,
        },
        11..13 => Step::Append {
            name,
            length: length.min(4 * KIB),
            byte,
        },
        13..17 => Step::Read { name, offset, length },
        17..19 => Step::Map {
            name,
            offset,
            length,
            byte,
        },
        19..21 => Step::Truncate {
            name,
            length: offset,
            by_handle: numbers.below(2) == 0,
        },
        21 => Step::Allocate {
            name,
            offset,
            length: length.max(1),
            flags: FallocateFlags::empty(),
        },
        22 => Step::Allocate {
            name,
            offset,
            length: length.max(1),
            flags: FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        },
        23 => Step::Allocate {
            name,
            offset,
            length: length.max(1),
            flags: FallocateFlags::ZERO_RANGE,
        },
        24 | 25 => Step::Copy {
            from: name,
            offset,
            to: other,
            to_offset: numbers.below(LEN_MAX - length),
            length,
        },
        26 => Step::Rename {
            from: name,
            to: other,
            flags: RenameFlags::empty(),
        },
        27 => Step::Rename {
            from: name,
            to: other,
            flags: RenameFlags::EXCHANGE,
        },
        28 => Step::Link { from: name, to: other },
        29 | 30 => Step::Unlink(name),
        _ => Step::Sync(name),
    }
}

/// One of the two file systems.
struct Side {
    dir: PathBuf,
    open: BTreeMap<u64, File>,
    /// The same opened only to write, before the other: unless one was open already, what is written through it passes the
    /// kernel's copy by.
    writers: BTreeMap<u64, File>,
}

/// What a step came to: bytes that were read, or a number.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Nothing,
    Number(u64),
    Bytes(Vec<u8>),
    Failed(i32),
    /// There was no handle to do it with.
    Idle,
}

fn outcome(result: io::Result<Outcome>) -> Outcome {
    result.unwrap_or_else(|error| Outcome::Failed(error.raw_os_error().unwrap_or(0)))
}

impl Side {
    fn path(&self, name: u64) -> PathBuf {
        self.dir.join(format!("f{name}"))
    }

    fn act(&mut self, step: &Step) -> Outcome {
        outcome(self.try_act(step))
    }

    fn try_act(&mut self, step: &Step) -> io::Result<Outcome> {
        let file = |name: &u64| self.open.get(name);
        Ok(match step {
            Step::Open(name) => {
                let mut only = OpenOptions::new();
                only.write(true).create(true).truncate(false);
                self.writers.insert(*name, only.open(self.path(*name))?);
                let mut how = OpenOptions::new();
                let opened = how
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .open(self.path(*name))?;
                self.open.insert(*name, opened);
                Outcome::Nothing
            }
            Step::Close(name) if self.writers.remove(name).is_none() => Outcome::Idle,
            Step::Close(name) => self.open.remove(name).map_or(Outcome::Idle, |_| Outcome::Nothing),
            Step::Write {
                name,
                offset,
                length,
                byte,
            } => match self.writers.get(name).filter(|_| byte % 2 == 1).or(file(name)) {
                Some(file) => Outcome::Number(file.write_at(&vec![*byte; *length as usize], *offset)? as u64),
                None => Outcome::Idle,
            },
            Step::Append { name, length, byte } => {
                let mut file = OpenOptions::new().append(true).open(self.path(*name))?;
                Outcome::Number(io::Write::write(&mut file, &vec![*byte; *length as usize])? as u64)
            }
            Step::Read { name, offset, length } => match file(name) {
                Some(file) => {
                    let mut bytes = vec![0; *length as usize];
                    let count = file.read_at(&mut bytes, *offset)?;
                    bytes.truncate(count);
                    Outcome::Bytes(bytes)
                }
                None => Outcome::Idle,
            },
            Step::Map {
                name,
                offset,
                length,
                byte,
            } => match file(name) {
                Some(file) => Outcome::Number(write_mapped(file, *offset, *length, *byte)?),
                None => Outcome::Idle,
            },
            Step::Truncate {
                name,
                length,
                by_handle,
            } => {
                match file(name).filter(|_| *by_handle) {
                    Some(file) => file.set_len(*length)?,
                    None => OpenOptions::new()
                        .write(true)
                        .open(self.path(*name))?
                        .set_len(*length)?,
                }
                Outcome::Nothing
            }
            Step::Allocate {
                name,
                offset,
                length,
                flags,
            } => match file(name) {
                Some(file) => {
                    rustix::fs::fallocate(file, *flags, *offset, *length)?;
                    Outcome::Nothing
                }
                None => Outcome::Idle,
            },
            Step::Copy {
                from,
                offset,
                to,
                to_offset,
                length,
            } => match (file(from), file(to)) {
                (Some(from), Some(to)) => {
                    let (mut from_at, mut to_at) = (*offset, *to_offset);
                    let count =
                        rustix::fs::copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), *length as usize)?;
                    Outcome::Number(count as u64)
                }
                _ => Outcome::Idle,
            },
            Step::Rename { from, to, flags } => {
                rustix::fs::renameat_with(CWD, self.path(*from), CWD, self.path(*to), *flags)?;
                Outcome::Nothing
            }
            Step::Link { from, to } => {
                fs::hard_link(self.path(*from), self.path(*to))?;
                Outcome::Nothing
            }
            Step::Unlink(name) => {
                fs::remove_file(self.path(*name))?;
                Outcome::Nothing
            }
            Step::Sync(name) => match file(name) {
                Some(file) => {
                    file.sync_data()?;
                    Outcome::Nothing
                }
                None => Outcome::Idle,
            },
        })
    }

    /// Every name's content, and each open file's.
    fn content(&self) -> Vec<(String, Vec<u8>)> {
        let mut all = Vec::new();
        for name in 0..NAMES {
            if let Ok(bytes) = fs::read(self.path(name)) {
                all.push((format!("f{name}"), bytes));
            }
            if let Some(file) = self.open.get(&name) {
                let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
                file.read_exact_at(&mut bytes, 0).unwrap();
                all.push((format!("open {name}"), bytes));
            }
        }
        all
    }
}

/// Writes through a mapping what lies inside the file's length, and says how much that was.
fn write_mapped(file: &File, offset: u64, length: u64, byte: u8) -> io::Result<u64> {
    let end = file.metadata()?.len().min(offset + length);
    if end <= offset {
        return Ok(0);
    }
    let base = offset / 4096 * 4096;
    let span = (end - base) as usize;
    let mut mapping = Mapping::new(file, base, span)?;
    mapping.bytes_mut()[(offset - base) as usize..].fill(byte);
    Ok(end - offset)
}

/// What the files of `dir` cost, open ones without a name included: the oracle, which knows nothing of the ledger but
/// what a byte costs.
fn cost(side: &Side) -> (u64, u64) {
    let mut met = BTreeMap::new();
    let mut add = |metadata: fs::Metadata| {
        use std::os::unix::fs::MetadataExt;
        met.insert(metadata.ino(), metadata.len().div_ceil(4 * KIB) * 4 * KIB);
    };
    for entry in fs::read_dir(&side.dir).unwrap() {
        add(entry.unwrap().metadata().unwrap());
    }
    for file in side.open.values() {
        add(file.metadata().unwrap());
    }
    (met.values().sum(), met.len() as u64)
}

/// How long a step would make its file, and which file: what the budget is asked for.
fn wanted(side: &Side, step: &Step) -> Option<(u64, u64)> {
    let len = |name: &u64| side.open.get(name).map(|file| file.metadata().unwrap().len());
    let path_len = |name: &u64| fs::metadata(side.path(*name)).ok().map(|metadata| metadata.len());
    let (now, then) = match step {
        Step::Write {
            name, offset, length, ..
        } if *length > 0 => (len(name)?, offset + length),
        Step::Append { name, length, .. } => (path_len(name)?, path_len(name)? + length),
        Step::Truncate {
            name,
            length,
            by_handle,
        } => (len(name).filter(|_| *by_handle).or_else(|| path_len(name))?, *length),
        Step::Allocate {
            name,
            offset,
            length,
            flags,
        } if !flags.contains(FallocateFlags::KEEP_SIZE) => (len(name)?, offset + length),
        Step::Copy {
            from,
            offset,
            to,
            to_offset,
            length,
        } => {
            let length = (*length).min(len(from)?.saturating_sub(*offset));
            (len(to)?, if length == 0 { 0 } else { to_offset + length })
        }
        _ => return None,
    };
    Some((now, then.max(now)))
}

/// Whether the account has room for a step.
fn fits(side: &Side, step: &Step) -> bool {
    let (bytes, inodes) = cost(side);
    if let Step::Open(name) = step {
        return side.path(*name).exists() || inodes < HARD_INODES;
    }
    let blocks = |len: u64| len.div_ceil(4 * KIB) * 4 * KIB;
    wanted(side, step).is_none_or(|(now, then)| bytes - blocks(now) + blocks(then) <= HARD_BYTES || then == now)
}

fn random(world: &World) {
    const EDQUOT: i32 = 122;
    let seed = std::env::var("NEXUS_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(43);
    let steps = if crate::soak() { STEPS_SOAK } else { STEPS };
    let mut connection = world.join(budget(0, 0), budget(HARD_BYTES, HARD_INODES));
    let bare = world.bare_dir();
    world.inside(&connection, |dirs| compare(&dirs.state, &bare, seed, steps, EDQUOT));
    crate::hostile::agrees(world, &mut connection);
    let before = connection.usage().unwrap().1;
    drop(connection);
    let mut connection = world.join(budget(0, 0), budget(HARD_BYTES, HARD_INODES));
    assert!(connection.fresh);
    assert_eq!(connection.usage().unwrap().1, before, "measured anew it is the same");
}

fn compare(inside: &Path, bare: &Path, seed: u64, steps: u64, denied: i32) {
    let mut numbers = Numbers(seed);
    let mut ours = Side {
        dir: inside.to_owned(),
        open: BTreeMap::new(),
        writers: BTreeMap::new(),
    };
    let mut theirs = Side {
        dir: bare.to_owned(),
        open: BTreeMap::new(),
        writers: BTreeMap::new(),
    };
    let mut denials = 0_u64;
    for number in 0..steps {
        let mut step = step(&mut numbers);
        let fits = fits(&theirs, &step);
        let got = ours.act(&step);
        if !fits {
            denials += 1;
            match (&mut step, &got) {
                (_, Outcome::Failed(errno)) if *errno == denied => continue,
                // Where the file system has another objection, that may well come first.
                (_, Outcome::Failed(_) | Outcome::Idle) => {}
                // The kernel makes several requests of a write where it likes, and what fits of them is written.
                (Step::Write { length, .. } | Step::Append { length, .. }, Outcome::Number(count))
                    if count < length =>
                {
                    *length = *count;
                    assert!(
                        self::fits(&theirs, &step),
                        "step {number}, {step:?}: written past the limit"
                    );
                }
                other => panic!("step {number}: {other:?} although it does not fit"),
            }
        }
        let expected = theirs.act(&step);
        assert_eq!(got, expected, "step {number} of seed {seed}: {step:?}");
        if number % 64 == 0 || number + 1 == steps {
            assert!(
                ours.content() == theirs.content(),
                "contents differ at step {number} of seed {seed}"
            );
        }
    }
    assert!(denials > steps / 200, "the limit was met: {denials}");
}
