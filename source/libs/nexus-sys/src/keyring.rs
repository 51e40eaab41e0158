//! Keys that a process hands to those that it makes: keyrings(7).

use crate::check;
use std::ffi::CStr;
use std::io;

// linux/keyctl.h
const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
const KEYCTL_CHOWN: libc::c_long = 4;
const KEYCTL_SETPERM: libc::c_long = 5;
const KEY_SPEC_SESSION_KEYRING: libc::c_long = -3;
/// All that a possessor may do, and nothing for anybody else: not even the same user is shown it.
const KEY_POS_ALL: libc::c_long = 0x3f00_0000;

/// `keyctl(KEYCTL_JOIN_SESSION_KEYRING, keyring)`, `add_key("user", key, …, KEY_SPEC_SESSION_KEYRING)`,
/// `keyctl(KEYCTL_CHOWN, …)`,
/// `keyctl(KEYCTL_SETPERM, KEY_POS_ALL)` keyctl(2), add_key(2), Linux 2.6.
///
/// Gives this process a session keyring of this name that holds one key of this user's, which only who has the keyring is shown:
/// in `/proc/keys` it stands for those alone who inherited the keyring, and in whose user namespace that user is.
///
/// # Errors
/// `ENOSYS` where the kernel has no keys, `EDQUOT` where the user has as many as it may, `EACCES` for another user's without
/// privilege.
pub fn join_with_key(keyring: &CStr, key: &CStr, (uid, gid): (u32, u32)) -> io::Result<()> {
    // SAFETY: `keyring` is a string that ends in NUL and lives over the call; the kernel copies it.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, keyring.as_ptr()) })?;
    let (kind, payload) = (c"user", b"x");
    // SAFETY: two strings that end in NUL and one byte of payload, all alive over the call; the kernel copies them.
    let serial = check(unsafe {
        libc::syscall(
            libc::SYS_add_key,
            kind.as_ptr(),
            key.as_ptr(),
            payload.as_ptr(),
            payload.len(),
            KEY_SPEC_SESSION_KEYRING,
        )
    })?;
    // SAFETY: a key's number and two users' numbers; no memory is involved.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_CHOWN, serial, uid, gid) })?;
    // SAFETY: a key's number and a mask; no memory is involved.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, serial, KEY_POS_ALL) }).map(drop)
}
