//! From the protocol's requests to the operations, and back.

use rustix::io::Errno;

use super::attr::ttl;
use super::protocol::{Answer, Attr, Header, Request};
use super::{ROOT_ID, Vfs};

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// There is an answer.
    Answer,
    /// The kernel expects none.
    Nothing,
}

fn entry(answer: &mut Answer, attr: &Attr) {
    answer.entry(ttl(attr), attr);
}

fn attributes(answer: &mut Answer, attr: &Attr) {
    answer.attributes(ttl(attr), attr);
}

impl Vfs {
    /// Does what `request` asks and puts the answer's body into `answer`; an error is the whole answer.
    ///
    /// Whatever is not a file operation of ours is `ENOSYS`, after which the kernel does not ask again and does what it
    /// does for file systems without it. For `flush` that is right because writes went to the host when they were
    /// made; for locks because the kernel itself keeps them, for all sessions; for `poll` because files are ready.
    pub(crate) fn dispatch(&self, header: Header, request: Request<'_>, answer: &mut Answer) -> Result<Told, Errno> {
        let Header { node: id, pid, .. } = header;
        match request {
            Request::Lookup(name) => match self.op_lookup(id, name) {
                // Number 0 says "not there", and may be remembered: what is made is made by this kernel, or seen soon.
                Err(Errno::NOENT) => answer.entry(
                    self.absence_ttl(id),
                    &Attr {
                        id: 0,
                        ..self.root_attr()
                    },
                ),
                found => entry(answer, &found?),
            },
            Request::Forget(count) => {
                self.forgotten(id, count);
                return Ok(Told::Nothing);
            }
            Request::BatchForget(pairs) => {
                for (id, count) in Request::forgets(pairs) {
                    self.forgotten(id, count);
                }
                return Ok(Told::Nothing);
            }
            Request::Getattr { handle } => attributes(answer, &self.op_getattr(id, handle)?),
            Request::Statx { handle } => self.op_statx(id, handle, answer)?,
            Request::Setattr(changes) => attributes(answer, &self.op_setattr(id, changes, pid)?),
            Request::Readlink => answer.bytes(&self.op_readlink(id)?),
            Request::Symlink { name, target } => entry(answer, &self.op_symlink(id, name, target, pid)?),
            Request::Mknod { name, mode } => entry(answer, &self.op_mknod(id, name, mode, pid)?),
            Request::Mkdir { name, mode } => entry(answer, &self.op_mkdir(id, name, mode, pid)?),
            Request::Unlink(name) => self.op_unlink(id, name)?,
            Request::Rmdir(name) => self.op_rmdir(id, name)?,
            Request::Rename {
                name,
                new_parent,
                new_name,
                flags,
            } => self.op_rename(id, name, new_parent, new_name, flags)?,
            Request::Link { inode, name } => entry(answer, &self.op_link(inode, id, name, pid)?),
            Request::Open { flags } => {
                let (handle, flags) = self.op_open(id, flags, pid)?;
                answer.opened(handle, flags);
            }
            Request::Opendir => {
                let (handle, flags) = self.op_opendir(id, pid)?;
                answer.opened(handle, flags);
            }
            Request::Read { handle, offset, size } => self.op_read(handle, offset, size, answer)?,
            Request::Write(write) => answer.written(self.op_write(write.head, write.into(), pid)?),
            Request::Statfs => self.op_statfs(id, answer),
            Request::Release { handle } => self.op_release(handle),
            Request::Fsync { handle, only_data } => self.op_fsync(handle, only_data)?,
            Request::Setxattr { name, value, flags } => self.op_setxattr(id, name, value, flags, pid)?,
            Request::Getxattr { name, size } => self.op_getxattr(id, name, size, answer)?,
            Request::Listxattr { size } => self.op_listxattr(id, size, answer)?,
            Request::Removexattr(name) => self.op_removexattr(id, name)?,
            Request::Readdir { handle, offset, size } => self.op_readdir(id, handle, offset, size, answer)?,
            Request::Create { name, mode, flags } => {
                let (attr, handle, told) = self.op_create(id, name, mode, flags, pid)?;
                entry(answer, &attr);
                answer.opened(handle, told);
            }
            Request::Tmpfile { mode, flags } => {
                let (attr, handle, told) = self.op_tmpfile(id, mode, flags, pid)?;
                entry(answer, &attr);
                answer.opened(handle, told);
            }
            Request::Fallocate {
                handle,
                offset,
                length,
                mode,
            } => self.op_fallocate(handle, offset, length, mode, pid)?,
            Request::Lseek { handle, offset, whence } => answer.u64(self.op_lseek(handle, offset, whence)?),
            Request::Copy {
                from,
                from_offset,
                to,
                to_offset,
                length,
            } => answer.written(self.op_copy(from, from_offset, to, to_offset, length, pid)?),
            Request::Destroy => {}
            Request::Ioctl => return Err(Errno::NOTTY),
            Request::Init { .. } => return Err(Errno::PROTO),
            Request::Unknown(_) => return Err(Errno::NOSYS),
        }
        Ok(Told::Answer)
    }

    fn forgotten(&self, id: u64, count: u64) {
        if id != ROOT_ID {
            self.forget_node(id, count);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
