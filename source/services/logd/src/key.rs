use crate::JournalError;
use crate::directory::{Directory, write_all};
use crate::lock::LockFile;
use nexus_audit::{KEY_BYTES, Key};
use rustix::fs::OFlags;
use rustix::io::{Errno, pread};
use rustix::rand::{GetRandomFlags, getrandom};
use std::os::fd::AsFd;
use std::path::Path;

/// The key's file, beside the journal, mode 0600.
pub const KEY_FILE: &str = "journal.key";
/// Where a new key is written before it gets its name: there is never half a key.
const NEW_KEY_FILE: &str = "journal.key.new";

/// The chain's key of the journal in this directory; made from the kernel's random numbers where there is none yet.
///
/// It belongs to the same user as the journal, so it finds accidents and clumsy edits, no more: who can write the journal
/// can read the key and make a chain that holds. Against that there is only an [`crate::Anchor`] kept out of reach.
///
/// # Errors
/// [`JournalError`]; a key file of another length is refused and not replaced, because the journal's chain hangs on it.
pub fn load_key(directory: &Path) -> Result<Key, JournalError> {
    let directory = Directory::open_or_make(directory)?;
    let lock = LockFile::open_or_make(&directory)?;
    let _locked = lock.exclusive(&directory)?;
    match read_key(&directory)? {
        Some(key) => Ok(key),
        None => make_key(&directory),
    }
}

/// The key, where there is one: what a reader uses, that makes nothing.
pub(crate) fn read_key(directory: &Directory) -> Result<Option<Key>, JournalError> {
    let Some((fd, stat)) = directory.file(KEY_FILE, OFlags::RDONLY)? else {
        return Ok(None);
    };
    let bytes = u64::try_from(stat.st_size).unwrap_or(0);
    let wrong = || JournalError::Key {
        path: directory.path_of(KEY_FILE),
        bytes,
    };
    if bytes != KEY_BYTES as u64 {
        return Err(wrong());
    }
    let mut key = [0_u8; KEY_BYTES];
    let read = pread(&fd, &mut key[..], 0).map_err(directory.failed("read", KEY_FILE))?;
    if read == KEY_BYTES {
        Ok(Some(Key::new(key)))
    } else {
        Err(wrong())
    }
}

fn make_key(directory: &Directory) -> Result<Key, JournalError> {
    let mut key = [0_u8; KEY_BYTES];
    // Up to 256 bytes come whole (getrandom(2)).
    let random = getrandom(&mut key[..], GetRandomFlags::empty()).map_err(directory.failed("make", KEY_FILE))?;
    if random != KEY_BYTES {
        return Err(directory.failed("make", KEY_FILE)(Errno::IO));
    }
    directory.remove(NEW_KEY_FILE)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let Some((fd, _)) = directory.file(NEW_KEY_FILE, flags)? else {
        return Err(directory.failed("make", NEW_KEY_FILE)(Errno::NOENT));
    };
    write_all(fd.as_fd(), &key).map_err(directory.failed("write", NEW_KEY_FILE))?;
    rustix::fs::fsync(&fd).map_err(directory.failed("sync", NEW_KEY_FILE))?;
    directory.rename(NEW_KEY_FILE, KEY_FILE)?;
    directory.sync()?;
    Ok(Key::new(key))
}
