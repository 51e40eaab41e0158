//! What the kernel asks.

use std::ffi::CStr;

use super::Durable;

/// What cannot be a request: a length that is not there, a name that does not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// `struct fuse_in_header`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// What the answer is matched by.
    pub(crate) unique: u64,
    /// The inode that is meant.
    pub(crate) node: u64,
    /// The thread that asks, 0 where the kernel asks by itself.
    pub(crate) pid: u32,
}

/// A time that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeChange {
    /// The present.
    Now,
    /// Seconds since 1970, before it negative, and nanoseconds upwards from there.
    To(i64, u32),
}

/// `struct fuse_setattr_in`: what `chmod`, `chown`, `truncate` and `utimensat` change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) handle: Option<u64>,
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) size: Option<u64>,
    pub(crate) atime: Option<TimeChange>,
    pub(crate) mtime: Option<TimeChange>,
}

/// `struct fuse_read_in`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReadHead {
    pub(crate) handle: u64,
    pub(crate) offset: u64,
    pub(crate) size: u32,
    /// For the program's own memory, and not for the kernel's copy of the file.
    pub(crate) passes: bool,
}

/// `struct fuse_write_in`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WriteHead {
    pub(crate) handle: u64,
    pub(crate) offset: u64,
    /// How many bytes of data follow.
    pub(crate) size: usize,
    /// From the page cache, on nobody's behalf.
    pub(crate) back: bool,
    /// What is to be on the disk when it is answered: the file was opened so, or this very write asked for it.
    pub(crate) durable: Durable,
}

/// A write whose data is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Write<'a> {
    pub(crate) head: WriteHead,
    pub(crate) data: &'a [u8],
}

/// `FUSE_WRITE`.
pub(crate) const WRITE: u32 = 16;

/// One request. Names are as the kernel gives them: any bytes but NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request<'a> {
    Lookup(&'a CStr),
    Forget(u64),
    /// Pairs of an inode and a count.
    BatchForget(&'a [u8]),
    Getattr {
        handle: Option<u64>,
    },
    Setattr(Changes),
    Readlink,
    Symlink {
        name: &'a CStr,
        target: &'a CStr,
    },
    Mknod {
        name: &'a CStr,
        mode: u32,
    },
    Mkdir {
        name: &'a CStr,
        mode: u32,
    },
    Unlink(&'a CStr),
    Rmdir(&'a CStr),
    Rename {
        name: &'a CStr,
        new_parent: u64,
        new_name: &'a CStr,
        flags: u32,
    },
    /// The request's inode is the directory.
    Link {
        inode: u64,
        name: &'a CStr,
    },
    Open {
        flags: u32,
    },
    Read(ReadHead),
    Write(Write<'a>),
    Statfs,
    Release {
        handle: u64,
    },
    Fsync {
        handle: u64,
        only_data: bool,
    },
    Setxattr {
        name: &'a CStr,
        value: &'a [u8],
        flags: u32,
    },
    Getxattr {
        name: &'a CStr,
        size: u32,
    },
    Listxattr {
        size: u32,
    },
    Removexattr(&'a CStr),
    Opendir,
    Readdir {
        handle: u64,
        offset: u64,
        size: u32,
    },
    Create {
        name: &'a CStr,
        mode: u32,
        flags: u32,
    },
    /// A file without a name, in the request's directory.
    Tmpfile {
        mode: u32,
        flags: u32,
    },
    Fallocate {
        handle: u64,
        offset: u64,
        length: u64,
        mode: u32,
    },
    Lseek {
        handle: u64,
        offset: u64,
        whence: u32,
    },
    Copy {
        from: u64,
        from_offset: u64,
        to: u64,
        to_offset: u64,
        length: u64,
    },
    Statx {
        handle: Option<u64>,
    },
    Init {
        major: u32,
        minor: u32,
        max_readahead: u32,
        flags: u32,
    },
    Ioctl,
    Destroy,
    /// What we do without, by its number: the kernel is told so and does not ask again.
    Unknown(u32),
}

const GETATTR_HANDLE: u32 = 1;
const WRITE_CACHE: u32 = 1;

/// `FUSE_READ_LOCKOWNER` of `fuse_read_in.read_flags`.
const READ_LOCKOWNER: u32 = 1 << 1;
const FSYNC_DATA: u32 = 1;

/// Bits of `fuse_setattr_in.valid`.
mod valid {
    pub(super) const MODE: u32 = 1;
    pub(super) const UID: u32 = 1 << 1;
    pub(super) const GID: u32 = 1 << 2;
    pub(super) const SIZE: u32 = 1 << 3;
    pub(super) const ATIME: u32 = 1 << 4;
    pub(super) const MTIME: u32 = 1 << 5;
    pub(super) const HANDLE: u32 = 1 << 6;
    pub(super) const ATIME_NOW: u32 = 1 << 7;
    pub(super) const MTIME_NOW: u32 = 1 << 8;
}

/// What is left of a request.
#[derive(Clone, Copy, Debug)]
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn u32(&mut self) -> Result<u32, Malformed> {
        let (first, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(u32::from_ne_bytes(*first))
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        let (first, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(u64::from_ne_bytes(*first))
    }

    fn skip(&mut self, count: usize) -> Result<(), Malformed> {
        self.bytes(count).map(drop)
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn name(&mut self) -> Result<&'a CStr, Malformed> {
        let name = CStr::from_bytes_until_nul(self.0).map_err(|_| Malformed)?;
        self.skip(name.count_bytes().saturating_add(1))?;
        Ok(name)
    }
}

impl Header {
    /// The header alone, where it is there: what an error can be answered to.
    pub(crate) fn of(bytes: &[u8]) -> Result<(Self, u32, &[u8]), Malformed> {
        Self::of_first(bytes, bytes.len())
    }

    /// The header of a request that is `total` bytes long and begins with `bytes`.
    fn of_first(bytes: &[u8], total: usize) -> Result<(Self, u32, &[u8]), Malformed> {
        let mut rest = Rest(bytes);
        let len = usize::try_from(rest.u32()?).map_err(|_| Malformed)?;
        let opcode = rest.u32()?;
        let (unique, node) = (rest.u64()?, rest.u64()?);
        rest.skip(8)?;
        let pid = rest.u32()?;
        rest.skip(4)?;
        if len != total {
            return Err(Malformed);
        }
        Ok((Self { unique, node, pid }, opcode, rest.0))
    }
}

impl<'a> Request<'a> {
    /// The request with the number `opcode` and this body.
    pub(crate) fn parse(opcode: u32, body: &'a [u8]) -> Result<Self, Malformed> {
        let mut body = Rest(body);
        let body = &mut body;
        Ok(match opcode {
            1 => Self::Lookup(body.name()?),
            2 => Self::Forget(body.u64()?),
            3 => Self::Getattr {
                handle: handle_if(body)?,
            },
            4 => Self::Setattr(changes(body)?),
            5 => Self::Readlink,
            6 => Self::Symlink {
                name: body.name()?,
                target: body.name()?,
            },
            8 => {
                let mode = body.u32()?;
                body.skip(12)?;
                Self::Mknod {
                    mode,
                    name: body.name()?,
                }
            }
            9 => {
                let mode = body.u32()?;
                body.skip(4)?;
                Self::Mkdir {
                    mode,
                    name: body.name()?,
                }
            }
            10 => Self::Unlink(body.name()?),
            11 => Self::Rmdir(body.name()?),
            12 => Self::Rename {
                new_parent: body.u64()?,
                flags: 0,
                name: body.name()?,
                new_name: body.name()?,
            },
            13 => Self::Link {
                inode: body.u64()?,
                name: body.name()?,
            },
            14 => Self::Open { flags: body.u32()? },
            15 => Self::Read(read_head(body)?),
            WRITE => {
                let head = write_head(body)?;
                let data = body.bytes(head.size)?;
                Self::Write(Write { head, data })
            }
            17 => Self::Statfs,
            18 | 29 => Self::Release { handle: body.u64()? },
            20 | 30 => Self::Fsync {
                handle: body.u64()?,
                only_data: body.u32()? & FSYNC_DATA != 0,
            },
            21 => {
                let size = usize::try_from(body.u32()?).map_err(|_| Malformed)?;
                Self::Setxattr {
                    flags: body.u32()?,
                    name: body.name()?,
                    value: body.bytes(size)?,
                }
            }
            22 => {
                let size = body.u32()?;
                body.skip(4)?;
                Self::Getxattr {
                    size,
                    name: body.name()?,
                }
            }
            23 => Self::Listxattr { size: body.u32()? },
            24 => Self::Removexattr(body.name()?),
            26 => Self::Init {
                major: body.u32()?,
                minor: body.u32()?,
                max_readahead: body.u32()?,
                flags: body.u32()?,
            },
            27 => Self::Opendir,
            28 => Self::Readdir {
                handle: body.u64()?,
                offset: body.u64()?,
                size: body.u32()?,
            },
            35 | 51 => {
                let (flags, mode) = (body.u32()?, body.u32()?);
                body.skip(8)?;
                if opcode == 51 {
                    Self::Tmpfile { mode, flags }
                } else {
                    Self::Create {
                        mode,
                        flags,
                        name: body.name()?,
                    }
                }
            }
            38 => Self::Destroy,
            39 => Self::Ioctl,
            42 => {
                let count = usize::try_from(body.u32()?).map_err(|_| Malformed)?;
                body.skip(4)?;
                Self::BatchForget(body.bytes(count.checked_mul(FORGET_BYTES).ok_or(Malformed)?)?)
            }
            43 => Self::Fallocate {
                handle: body.u64()?,
                offset: body.u64()?,
                length: body.u64()?,
                mode: body.u32()?,
            },
            45 => {
                let (new_parent, flags) = (body.u64()?, body.u32()?);
                body.skip(4)?;
                Self::Rename {
                    new_parent,
                    flags,
                    name: body.name()?,
                    new_name: body.name()?,
                }
            }
            46 => Self::Lseek {
                handle: body.u64()?,
                offset: body.u64()?,
                whence: body.u32()?,
            },
            47 => {
                let (from, from_offset) = (body.u64()?, body.u64()?);
                body.skip(8)?;
                Self::Copy {
                    from,
                    from_offset,
                    to: body.u64()?,
                    to_offset: body.u64()?,
                    length: body.u64()?,
                }
            }
            52 => Self::Statx {
                handle: handle_if(body)?,
            },
            unknown => Self::Unknown(unknown),
        })
    }

    /// What [`Request::BatchForget`] holds.
    pub(crate) fn forgets(pairs: &[u8]) -> impl Iterator<Item = (u64, u64)> {
        pairs.chunks_exact(FORGET_BYTES).filter_map(|pair| {
            let mut pair = Rest(pair);
            Some((pair.u64().ok()?, pair.u64().ok()?))
        })
    }
}

/// `struct fuse_forget_one`.
const FORGET_BYTES: usize = 16;

/// The handle of `fuse_getattr_in` and `fuse_statx_in`.
fn handle_if(body: &mut Rest<'_>) -> Result<Option<u64>, Malformed> {
    let flags = body.u32()?;
    body.skip(4)?;
    let handle = body.u64()?;
    Ok((flags & GETATTR_HANDLE != 0).then_some(handle))
}

fn changes(body: &mut Rest<'_>) -> Result<Changes, Malformed> {
    let valid = body.u32()?;
    body.skip(4)?;
    let (handle, size) = (body.u64()?, body.u64()?);
    body.skip(8)?;
    let (atime, mtime) = (body.u64()?.cast_signed(), body.u64()?.cast_signed());
    body.skip(8)?;
    let (atime_ns, mtime_ns) = (body.u32()?, body.u32()?);
    body.skip(4)?;
    let mode = body.u32()?;
    body.skip(4)?;
    let (uid, gid) = (body.u32()?, body.u32()?);
    let has = |bit: u32| valid & bit != 0;
    let time = |set: u32, now: u32, seconds: i64, nanoseconds: u32| {
        if has(now) {
            Some(TimeChange::Now)
        } else {
            has(set).then_some(TimeChange::To(seconds, nanoseconds))
        }
    };
    Ok(Changes {
        handle: has(valid::HANDLE).then_some(handle),
        mode: has(valid::MODE).then_some(mode),
        uid: has(valid::UID).then_some(uid),
        gid: has(valid::GID).then_some(gid),
        size: has(valid::SIZE).then_some(size),
        atime: time(valid::ATIME, valid::ATIME_NOW, atime, atime_ns),
        mtime: time(valid::MTIME, valid::MTIME_NOW, mtime, mtime_ns),
    })
}

fn read_head(body: &mut Rest<'_>) -> Result<ReadHead, Malformed> {
    let (handle, offset, size) = (body.u64()?, body.u64()?, body.u32()?);
    let flags = body.u32()?;
    Ok(ReadHead {
        handle,
        offset,
        size,
        // Who reads for itself is named (`fuse_send_read`, fs/fuse/file.c); a page is nobody's, also through a descriptor with `O_DIRECT`.
        passes: flags & READ_LOCKOWNER != 0,
    })
}

fn write_head(body: &mut Rest<'_>) -> Result<WriteHead, Malformed> {
    let (handle, offset) = (body.u64()?, body.u64()?);
    let size = usize::try_from(body.u32()?).map_err(|_| Malformed)?;
    let flags = body.u32()?;
    // `lock_owner`.
    body.skip(8)?;
    let durable = Durable::of(body.u32()?);
    body.skip(4)?;
    Ok(WriteHead {
        handle,
        offset,
        size,
        back: flags & WRITE_CACHE != 0,
        durable,
    })
}

impl WriteHead {
    /// How many bytes come before the data, the request's header included.
    pub(crate) const BYTES: usize = 80;

    /// The head of a write whose data is still elsewhere: `bytes` are the first of a request that is `len` long. `None`
    /// if it is something else.
    pub(crate) fn of(bytes: &[u8; Self::BYTES], len: usize) -> Option<(Header, Self)> {
        let (header, opcode, body) = Header::of_first(bytes, len).ok()?;
        let head = write_head(&mut Rest(body)).ok()?;
        (opcode == WRITE && head.size.checked_add(Self::BYTES) == Some(len)).then_some((header, head))
    }
}

#[cfg(test)]
mod tests;
