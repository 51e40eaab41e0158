//! From the protocol's requests to the operations, and back.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};

use super::attr::ttl;
use super::read::READ_BYTES_MAX;
use super::setattr::Changes;
use super::{ROOT_ID, Vfs};

/// The largest write that comes as one request, and so is judged as one.
const WRITE_BYTES_MAX: u32 = 1024 * 1024;

/// How many requests the kernel sends ahead of answers: read-ahead and releases.
const BACKGROUND_MAX: u16 = 64;

fn code(errno: rustix::io::Errno) -> Errno {
    Errno::from_i32(errno.raw_os_error())
}

fn entry(reply: ReplyEntry, result: Result<FileAttr, rustix::io::Errno>) {
    match result {
        Ok(attr) => reply.entry(ttl(&attr), &attr, Generation(0)),
        Err(errno) => reply.error(code(errno)),
    }
}

fn empty(reply: ReplyEmpty, result: Result<(), rustix::io::Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(code(errno)),
    }
}

fn attr(reply: ReplyAttr, result: Result<FileAttr, rustix::io::Errno>) {
    match result {
        Ok(attr) => reply.attr(ttl(&attr), &attr),
        Err(errno) => reply.error(code(errno)),
    }
}

fn open(reply: ReplyOpen, result: Result<(u64, FopenFlags), rustix::io::Errno>) {
    match result {
        Ok((number, flags)) => reply.opened(FileHandle(number), flags),
        Err(errno) => reply.error(code(errno)),
    }
}

fn written(reply: ReplyWrite, result: Result<u32, rustix::io::Errno>) {
    match result {
        Ok(count) => reply.written(count),
        Err(errno) => reply.error(code(errno)),
    }
}

impl Filesystem for Vfs {
    /// Says what we want of the kernel. Not wanted, and never asked for: the write-back cache, which grows files
    /// unasked; locks, which the kernel keeps right by itself while it is the only one; attribute-driven invalidation,
    /// which would throw away the page cache after each write of our own.
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for wanted in [
            // Look-ups in one directory at once.
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            // There are no set-id bits to strip at each write, so the kernel need not look for them.
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
            InitFlags::FUSE_ASYNC_DIO,
        ] {
            // What an older kernel lacks only costs speed.
            let _ = config.add_capabilities(wanted);
        }
        // Each returns the nearest value that is possible, which is then taken.
        if let Err(nearest) = config.set_max_write(WRITE_BYTES_MAX) {
            let _ = config.set_max_write(nearest);
        }
        if let Err(nearest) = config.set_max_readahead(READ_BYTES_MAX) {
            let _ = config.set_max_readahead(nearest);
        }
        let _ = config.set_max_background(BACKGROUND_MAX);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.op_lookup(parent.0, name) {
            // Number 0 says "not there", and may be remembered: what is made is made by this kernel, or seen soon.
            Err(rustix::io::Errno::NOENT) => {
                let nothing = FileAttr {
                    ino: INodeNo(0),
                    ..self.root_attr()
                };
                reply.entry(&self.absence_ttl(parent.0), &nothing, Generation(0));
            }
            result => entry(reply, result),
        }
    }

    fn forget(&self, _: &Request, id: INodeNo, count: u64) {
        if id.0 != ROOT_ID {
            self.forget_node(id.0, count);
        }
    }

    fn getattr(&self, _: &Request, id: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        attr(reply, self.op_getattr(id.0, handle.map(|handle| handle.0)));
    }

    fn setattr(
        &self,
        request: &Request,
        id: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changes = Changes {
            mode,
            uid,
            gid,
            size,
            atime,
            mtime,
        };
        attr(
            reply,
            self.op_setattr(id.0, handle.map(|handle| handle.0), changes, request.pid()),
        );
    }

    fn readlink(&self, _: &Request, id: INodeNo, reply: ReplyData) {
        match self.op_readlink(id.0) {
            Ok(target) => reply.data(&target),
            Err(errno) => reply.error(code(errno)),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _device: u32,
        reply: ReplyEntry,
    ) {
        entry(reply, self.op_mknod(parent.0, name, mode, request.pid()));
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        entry(reply, self.op_mkdir(parent.0, name, mode, request.pid()));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.op_unlink(parent.0, name));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.op_rmdir(parent.0, name));
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        entry(
            reply,
            self.op_symlink(parent.0, name, target.as_os_str(), request.pid()),
        );
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        empty(
            reply,
            self.op_rename(parent.0, name, new_parent.0, new_name, flags.bits()),
        );
    }

    fn link(&self, request: &Request, id: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(reply, self.op_link(id.0, parent.0, name, request.pid()));
    }

    fn open(&self, _: &Request, id: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        open(reply, self.op_open(id.0, flags.0));
    }

    fn read(
        &self,
        _: &Request,
        _id: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.op_read(handle.0, offset, size, |result| match result {
            Ok(data) => reply.data(data),
            Err(errno) => reply.error(code(errno)),
        });
    }

    fn write(
        &self,
        request: &Request,
        _id: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let result = if write_flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
            self.op_write_back(handle.0, offset, data)
        } else {
            self.op_write(handle.0, offset, data, request.pid())
        };
        written(reply, result);
    }

    fn flush(&self, _: &Request, _id: INodeNo, _handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        // Writes went to the host when they were made. This answer tells the kernel not to ask again.
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _: &Request,
        _id: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.op_release(handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _id: INodeNo, handle: FileHandle, only_data: bool, reply: ReplyEmpty) {
        empty(reply, self.op_fsync(handle.0, only_data));
    }

    fn opendir(&self, _: &Request, id: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        open(reply, self.op_opendir(id.0));
    }

    fn readdir(&self, _: &Request, id: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let add = |id: INodeNo, next: u64, kind: FileType, name: &OsStr| reply.add(id, next, kind, name);
        match self.op_readdir(id.0, handle.0, offset, add) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(code(errno)),
        }
    }

    fn releasedir(&self, _: &Request, _id: INodeNo, handle: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.op_release(handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _id: INodeNo, handle: FileHandle, only_data: bool, reply: ReplyEmpty) {
        empty(reply, self.op_fsync(handle.0, only_data));
    }

    fn statfs(&self, _: &Request, id: INodeNo, reply: ReplyStatfs) {
        let room = self.op_statfs(id.0);
        reply.statfs(
            room.blocks,
            room.free_blocks,
            room.free_blocks,
            room.inodes,
            room.free_inodes,
            room.block_bytes,
            room.name_bytes_max,
            room.block_bytes,
        );
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        match self.op_create(parent.0, name, mode, flags, request.pid()) {
            Ok((attr, number)) => {
                reply.created(
                    ttl(&attr),
                    &attr,
                    Generation(0),
                    FileHandle(number),
                    FopenFlags::FOPEN_KEEP_CACHE,
                );
            }
            Err(errno) => reply.error(code(errno)),
        }
    }

    fn fallocate(
        &self,
        request: &Request,
        _id: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        empty(reply, self.op_fallocate(handle.0, offset, length, mode, request.pid()));
    }

    fn lseek(&self, _: &Request, _id: INodeNo, handle: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        match self.op_lseek(handle.0, offset, whence) {
            Ok(at) => reply.offset(at),
            Err(errno) => reply.error(code(errno)),
        }
    }

    fn copy_file_range(
        &self,
        request: &Request,
        _id_in: INodeNo,
        handle_in: FileHandle,
        offset_in: u64,
        _id_out: INodeNo,
        handle_out: FileHandle,
        offset_out: u64,
        length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        written(
            reply,
            self.op_copy(handle_in.0, offset_in, handle_out.0, offset_out, length, request.pid()),
        );
    }
}
