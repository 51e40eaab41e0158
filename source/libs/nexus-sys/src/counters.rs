//! Counters that several processes share, in a file mapped into each of them.
//!
//! A step is one atomic addition in memory that the kernel keeps: a process that is killed with `SIGKILL` leaves every
//! step that it made. A power cut may take steps that were not yet written back ([`SharedCounters::sync`]).
#![expect(unsafe_code, reason = "maps a file into memory and looks at it as atomic words")]

use rustix::fs::{
    CWD, FallocateFlags, FileType, FlockOperation, Mode, OFlags, Stat, fallocate, fdatasync, flock, fstat, openat,
};
use rustix::io::{Errno, pread, pwrite};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use thiserror::Error;

/// The longest name of a slot, in bytes: the longest subject name.
pub const COUNTER_NAME_BYTES_MAX: usize = 64;

/// How many counters a slot has: the four of the product and room for as many again without a new file version.
pub const COUNTERS_PER_SLOT: usize = 8;

/// The most slots of a file: as many subjects as may be counted, 3 MiB of file.
pub const COUNTER_SLOTS_MAX: usize = 16_384;

/// The first word of a file that is ours: `nxcount` and the version of the layout, 1.
const MAGIC: u64 = u64::from_be_bytes(*b"nxcount\x01");

const WORD_BYTES: usize = 8;
/// The header is one page, so that the slots are aligned however they grow.
const HEADER_WORDS: usize = 512;
/// Three cache lines: the name's length, the name, the counters, and room.
const SLOT_WORDS: usize = 24;
const NAME_WORDS: usize = COUNTER_NAME_BYTES_MAX / WORD_BYTES;
const LENGTH_AT: usize = 0;
const NAME_AT: usize = 1;
const COUNTERS_AT: usize = NAME_AT + NAME_WORDS;
const WORDS: usize = HEADER_WORDS + COUNTER_SLOTS_MAX * SLOT_WORDS;
const FILE_BYTES: usize = WORDS * WORD_BYTES;

/// Why a counter file cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CountersError {
    /// The kernel refused.
    #[error("cannot {what} the counter file")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        #[source]
        errno: Errno,
    },
    /// Not a regular file of this user's with mode 0600 and one name.
    #[error("the counter file is {0}; move it away, a new one is made")]
    NotOurs(&'static str),
    /// A counter file of another version, or not one at all.
    #[error("the counter file has a header that this program does not know; move it away, a new one is made")]
    Header,
    /// The file is not as long as its header says: it was cut, or made longer.
    #[error("the counter file has {found} bytes and not {FILE_BYTES}; move it away, a new one is made")]
    Size {
        /// How long it is.
        found: u64,
    },
    /// A slot holds what is no name.
    #[error("slot {0} of the counter file holds no name; move the file away, a new one is made")]
    Slot(usize),
    /// A name that is empty or longer than [`COUNTER_NAME_BYTES_MAX`].
    #[error("a counted subject's name has {0} bytes and not 1 to {COUNTER_NAME_BYTES_MAX}")]
    Name(usize),
    /// All [`COUNTER_SLOTS_MAX`] slots are taken.
    #[error("the counter file has no room for another subject: all {COUNTER_SLOTS_MAX} slots are taken")]
    Full,
}

fn failed(what: &'static str) -> impl FnOnce(Errno) -> CountersError {
    move |errno| CountersError::Io { what, errno }
}

/// The mapped file. Unmapped when the last user of it goes.
#[derive(Debug)]
struct Mapping {
    start: NonNull<AtomicU64>,
}

// SAFETY: the mapping belongs to no thread, and all access to it is by atomic operations through `words`.
unsafe impl Send for Mapping {}
// SAFETY: as for Send: shared access is what atomic words are for.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// `void *mmap(NULL, FILE_BYTES, prot, MAP_SHARED, fd, 0)` (mmap(2)). Who maps it without `PROT_WRITE` must not store
    /// into its words.
    fn new(file: BorrowedFd<'_>, prot: ProtFlags) -> Result<Self, CountersError> {
        // SAFETY: with a null hint and without MAP_FIXED the kernel picks a range that nothing else of this process uses.
        let start = unsafe { mmap(std::ptr::null_mut(), FILE_BYTES, prot, MapFlags::SHARED, file, 0) };
        let start = start.map_err(failed("map"))?;
        match NonNull::new(start.cast()) {
            Some(start) => Ok(Self { start }),
            None => Err(CountersError::Io {
                what: "map",
                errno: Errno::NOMEM,
            }),
        }
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: `start` is page-aligned and the start of a live mapping of FILE_BYTES = WORDS * 8 bytes, which stays
        // until `self` is dropped; any bits are an AtomicU64, and a load of one needs no right to write; every process touches the file only as atomic words once
        // it has a header, so there is no plain access to race with.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), WORDS) }
    }

    fn word(&self, slot: usize, offset: usize) -> Option<&AtomicU64> {
        let at = slot
            .checked_mul(SLOT_WORDS)?
            .checked_add(HEADER_WORDS)?
            .checked_add(offset)?;
        self.words().get(at)
    }

    /// The slot's name; `None` where it is free, an error where it holds no name.
    fn name(&self, slot: usize) -> Result<Option<String>, CountersError> {
        let wrong = || CountersError::Slot(slot);
        let length = self.word(slot, LENGTH_AT).ok_or_else(wrong)?.load(Ordering::Acquire);
        if length == 0 {
            return Ok(None);
        }
        let mut bytes = Vec::with_capacity(COUNTER_NAME_BYTES_MAX);
        for index in 0..NAME_WORDS {
            let word = self
                .word(slot, NAME_AT + index)
                .ok_or_else(wrong)?
                .load(Ordering::Relaxed);
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= bytes.len())
            .ok_or_else(wrong)?;
        bytes.truncate(length);
        String::from_utf8(bytes).map(Some).map_err(|_| wrong())
    }

    /// Writes the name first and its length last: killed in between, the slot is still free.
    fn take(&self, slot: usize, name: &str) -> Result<(), CountersError> {
        let wrong = || CountersError::Slot(slot);
        let mut bytes = [0_u8; COUNTER_NAME_BYTES_MAX];
        for (to, from) in bytes.iter_mut().zip(name.as_bytes()) {
            *to = *from;
        }
        for (index, chunk) in bytes.chunks_exact(WORD_BYTES).enumerate() {
            let word = chunk.try_into().map(u64::from_ne_bytes).map_err(|_| wrong())?;
            self.word(slot, NAME_AT + index)
                .ok_or_else(wrong)?
                .store(word, Ordering::Relaxed);
        }
        let length = u64::try_from(name.len()).map_err(|_| wrong())?;
        self.word(slot, LENGTH_AT)
            .ok_or_else(wrong)?
            .store(length, Ordering::Release);
        Ok(())
    }
}

impl Mapping {
    /// Every name and its counters, in the order of the names' bytes.
    fn rows(&self) -> Result<Vec<CounterRow>, CountersError> {
        let mut all = Vec::new();
        for index in 0..COUNTER_SLOTS_MAX {
            let Some(name) = self.name(index)? else { break };
            let mut row = [0_u64; COUNTERS_PER_SLOT];
            for (counter, value) in row.iter_mut().enumerate() {
                *value = self
                    .word(index, COUNTERS_AT + counter)
                    .map_or(0, |word| word.load(Ordering::Relaxed));
            }
            all.push((name, row));
        }
        all.sort_unstable();
        Ok(all)
    }
}

impl Drop for Mapping {
    /// `int munmap(void *addr, size_t length)` (mmap(2)).
    fn drop(&mut self) {
        // SAFETY: exactly the range that `new` mapped, once; `words` lends it no longer than `self` lives.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), FILE_BYTES) };
        debug_assert!(unmapped.is_ok(), "it fails only for a range that is no mapping");
    }
}

/// A counter file, open in this process.
///
/// The file must lie where only its user can write. A process of that same user that cuts the file while it is mapped
/// kills its users with `SIGBUS`: nothing that is confined can reach it.
#[derive(Debug)]
pub struct SharedCounters {
    mapping: Arc<Mapping>,
    /// Held while a slot is taken: flock(2) keeps out other processes, not other threads with the same description.
    file: Mutex<OwnedFd>,
}

impl SharedCounters {
    /// Opens the file, and makes it if it is not there, with its whole size on the disk, so that a full disk is an error
    /// here and not a signal later.
    ///
    /// # Errors
    /// [`CountersError`]: a file that is cut, of another version, of another user, or open to others is refused.
    pub fn open(path: &Path) -> Result<Self, CountersError> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = openat(CWD, path, flags, Mode::RUSR | Mode::WUSR).map_err(failed("open"))?;
        check_owner(&fstat(&file).map_err(failed("look at"))?)?;
        let locked = Locked::new(file.as_fd())?;
        make_whole(file.as_fd())?;
        let mapping = Mapping::new(file.as_fd(), ProtFlags::READ | ProtFlags::WRITE)?;
        drop(locked);
        Ok(Self {
            mapping: Arc::new(mapping),
            file: Mutex::new(file),
        })
    }

    /// The counters of a name: those it has, or a new slot of zeros.
    ///
    /// # Errors
    /// [`CountersError::Name`], [`CountersError::Full`], and whatever is wrong with the file.
    pub fn slot(&self, name: &str) -> Result<CounterSlot, CountersError> {
        if name.is_empty() || name.len() > COUNTER_NAME_BYTES_MAX {
            return Err(CountersError::Name(name.len()));
        }
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let _locked = Locked::new(file.as_fd())?;
        check_size(&fstat(&*file).map_err(failed("look at"))?)?;
        for index in 0..COUNTER_SLOTS_MAX {
            match self.mapping.name(index)? {
                Some(taken) if taken == name => {
                    return Ok(CounterSlot {
                        mapping: Arc::clone(&self.mapping),
                        index,
                    });
                }
                Some(_) => {}
                // Slots are taken in order and never given back, so the first free one ends the search.
                None => {
                    self.mapping.take(index, name)?;
                    return Ok(CounterSlot {
                        mapping: Arc::clone(&self.mapping),
                        index,
                    });
                }
            }
        }
        Err(CountersError::Full)
    }

    /// Every name and its counters, in the order of the names' bytes. Each number is exact at some moment of the call.
    ///
    /// # Errors
    /// [`CountersError::Slot`] for a file that somebody else wrote into, [`CountersError::Size`] for one that was cut.
    pub fn read_all(&self) -> Result<Vec<CounterRow>, CountersError> {
        {
            let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            check_size(&fstat(&*file).map_err(failed("look at"))?)?;
        }
        self.mapping.rows()
    }

    /// Waits until every step that was made is on the disk (fdatasync(2)).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn sync(&self) -> Result<(), CountersError> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        fdatasync(&*file).map_err(failed("sync"))
    }
}

/// A name and its counters.
pub type CounterRow = (String, [u64; COUNTERS_PER_SLOT]);

/// A counter file that somebody only looks at: nothing is made, nothing is written, and no lock is waited for.
#[derive(Debug)]
pub struct CounterReader {
    mapping: Mapping,
    file: OwnedFd,
}

impl CounterReader {
    /// Opens the file; `None` where there is none, or one that no writer has finished making.
    ///
    /// # Errors
    /// [`CountersError`]: a file that is cut, of another version, of another user, or open to others is refused.
    pub fn open(path: &Path) -> Result<Option<Self>, CountersError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match openat(CWD, path, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(CountersError::Io { what: "open", errno }),
        };
        let stat = fstat(&file).map_err(failed("look at"))?;
        check_owner(&stat)?;
        let mut header = [0_u8; WORD_BYTES];
        let read = pread(&file, &mut header[..], 0).map_err(failed("read"))?;
        match u64::from_ne_bytes(header) {
            MAGIC if read == WORD_BYTES => {}
            // The header is written last.
            0 => return Ok(None),
            _ => return Err(CountersError::Header),
        }
        check_size(&stat)?;
        let mapping = Mapping::new(file.as_fd(), ProtFlags::READ)?;
        Ok(Some(Self { mapping, file }))
    }

    /// As [`SharedCounters::read_all`].
    ///
    /// # Errors
    /// As [`SharedCounters::read_all`].
    pub fn read_all(&self) -> Result<Vec<CounterRow>, CountersError> {
        check_size(&fstat(&self.file).map_err(failed("look at"))?)?;
        self.mapping.rows()
    }
}

/// The counters of one name.
#[derive(Clone, Debug)]
pub struct CounterSlot {
    mapping: Arc<Mapping>,
    index: usize,
}

impl CounterSlot {
    /// Adds `n` to a counter: one atomic addition, seen at once by every process. A counter that does not exist
    /// (`counter` at or above [`COUNTERS_PER_SLOT`]) is none.
    pub fn add(&self, counter: usize, n: u64) {
        if let Some(word) = self.word(counter) {
            word.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// A counter's value now; 0 for one that does not exist.
    #[must_use]
    pub fn get(&self, counter: usize) -> u64 {
        self.word(counter).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    fn word(&self, counter: usize) -> Option<&AtomicU64> {
        if counter < COUNTERS_PER_SLOT {
            self.mapping.word(self.index, COUNTERS_AT + counter)
        } else {
            None
        }
    }
}

/// `int flock(int fd, LOCK_EX)` (flock(2)), held until dropped.
struct Locked<'a>(BorrowedFd<'a>);

impl<'a> Locked<'a> {
    fn new(file: BorrowedFd<'a>) -> Result<Self, CountersError> {
        loop {
            match flock(file, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(Self(file)),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(CountersError::Io { what: "lock", errno }),
            }
        }
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // Cannot fail for an open file; and closing the file unlocks it too.
        let _ = flock(self.0, FlockOperation::Unlock);
    }
}

fn check_owner(stat: &Stat) -> Result<(), CountersError> {
    let wrong = if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        "no regular file"
    } else if stat.st_uid != rustix::process::geteuid().as_raw() {
        "another user's"
    } else if stat.st_mode & 0o077 != 0 {
        "open to other users"
    } else if stat.st_nlink != 1 {
        "known under a second name"
    } else {
        return Ok(());
    };
    Err(CountersError::NotOurs(wrong))
}

fn check_size(stat: &Stat) -> Result<(), CountersError> {
    let found = u64::try_from(stat.st_size).unwrap_or(0);
    if usize::try_from(found) == Ok(FILE_BYTES) {
        Ok(())
    } else {
        Err(CountersError::Size { found })
    }
}

/// Under the lock: makes a new or half-made file whole, or checks that it is. The header is written last, so a file
/// without one never had a user.
fn make_whole(file: BorrowedFd<'_>) -> Result<(), CountersError> {
    let stat = fstat(file).map_err(failed("look at"))?;
    let mut header = [0_u8; WORD_BYTES];
    let read = pread(file, &mut header[..], 0).map_err(failed("read"))?;
    let magic = u64::from_ne_bytes(header);
    if read == WORD_BYTES && magic == MAGIC {
        return check_size(&stat);
    }
    if magic != 0 || usize::try_from(stat.st_size).map_or(true, |size| size > FILE_BYTES) {
        return Err(CountersError::Header);
    }
    allocate(file)?;
    check_size(&fstat(file).map_err(failed("look at"))?)?;
    write_all(file, &MAGIC.to_ne_bytes(), 0)
}

/// `int fallocate(int fd, 0, 0, FILE_BYTES)` (fallocate(2)); written out as zeros where the file system cannot.
fn allocate(file: BorrowedFd<'_>) -> Result<(), CountersError> {
    match fallocate(file, FallocateFlags::empty(), 0, FILE_BYTES as u64) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            let zeros = [0_u8; HEADER_WORDS * WORD_BYTES];
            let mut at = 0_usize;
            while at < FILE_BYTES {
                let length = zeros.len().min(FILE_BYTES - at);
                write_all(file, zeros.get(..length).unwrap_or(&zeros), at as u64)?;
                at += length;
            }
            Ok(())
        }
        Err(errno) => Err(CountersError::Io {
            what: "make room for",
            errno,
        }),
    }
}

fn write_all(file: BorrowedFd<'_>, mut bytes: &[u8], mut at: u64) -> Result<(), CountersError> {
    while !bytes.is_empty() {
        match pwrite(file, bytes, at) {
            Ok(0) => {
                return Err(CountersError::Io {
                    what: "write",
                    errno: Errno::NOSPC,
                });
            }
            Ok(written) => {
                bytes = bytes.get(written..).unwrap_or(&[]);
                at += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(CountersError::Io { what: "write", errno }),
        }
    }
    Ok(())
}
