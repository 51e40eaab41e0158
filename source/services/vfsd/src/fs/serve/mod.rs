//! The threads that serve requests: how many read, and where they run.
//!
//! A request costs two changes of context at least, and on most machines far less when both are on one core than when
//! one core has to wake another. So, as long as one thread can keep up, one thread reads, and it is kept on the core of
//! who asked last. Others step in when it waits for something, is stuck, or has more to do than one core can.
//!
//! Whatever [`warden`] decides is only about speed: any number of threads may read at once, and each answers what it read.

mod crew;
mod pipe;
pub(crate) mod quiet;
mod warden;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use nexus_sys::hurry::Also;
use rustix::io::Errno;

use self::crew::Crew;
pub(crate) use self::crew::{Others, aside};
pub(crate) use self::pipe::Pipe;
use super::Vfs;
use super::protocol::{Agreed, Answer, Header, REQUEST_BYTES_MAX, Request, WriteHead, agree};
use super::write::Data;

/// A FUSE device whose kernel side has agreed with us.
#[derive(Debug)]
pub(crate) struct Server {
    device: OwnedFd,
    vfs: Vfs,
}

impl Server {
    /// Shakes hands with the kernel, which has asked for it by the time that the device is mounted.
    pub(crate) fn new(device: OwnedFd, mut vfs: Vfs) -> Result<Self, Errno> {
        let mut buffer = vec![0; REQUEST_BYTES_MAX];
        let mut answer = Answer::new();
        loop {
            let bytes = match receive(&device, &mut buffer) {
                Err(Errno::INTR) => continue,
                received => received?,
            };
            let (header, opcode, body) = Header::of(bytes).map_err(|_| Errno::PROTO)?;
            let Ok(Request::Init {
                major,
                minor,
                max_readahead,
                flags,
            }) = Request::parse(opcode, body)
            else {
                return Err(Errno::PROTO);
            };
            answer.clear();
            let agreed = agree(&mut answer, major, minor, max_readahead, flags);
            let result = agreed.map(drop).map_err(|_| Errno::PROTO);
            rustix::io::write(&device, answer.finish(header.unique, result))?;
            match agreed {
                Ok(Agreed::Yes { writes_pass }) => {
                    vfs.writes_pass = writes_pass;
                    return Ok(Self { device, vfs });
                }
                Ok(Agreed::AskAgain) => {}
                Err(_) => return Err(Errno::PROTO),
            }
        }
    }

    /// Serves until the file system is gone.
    pub(crate) fn run(self) {
        // Without it a thread ends its wait with the next request: all that is lost is speed.
        let _ = quiet::prepare();
        let crew = Arc::new(Crew::new(self));
        let warden = {
            let (crew, also) = (Arc::clone(&crew), Also::as_here());
            std::thread::Builder::new()
                .name("vfsd-warden".to_owned())
                .spawn(move || {
                    also.into_iter().for_each(Also::look_after_here);
                    warden::watch(&crew);
                })
        };
        if let Ok(warden) = &warden {
            crew.set_warden(warden.thread().clone());
        }
        crew.serve();
        if let Ok(warden) = warden {
            warden.thread().unpark();
            let _ = warden.join();
        }
    }
}

/// Waits for one request; an error means that there will be no more, but for `EINTR`.
fn receive<'a>(device: &OwnedFd, buffer: &'a mut [u8]) -> Result<&'a [u8], Errno> {
    loop {
        match rustix::io::read(device, &mut *buffer) {
            // No device says so; nothing that stands for one has more to say then.
            Ok(0) => return Err(Errno::NODEV),
            Ok(count) => return Ok(buffer.get(..count).unwrap_or_default()),
            // A request that was taken back while we were on our way to it.
            Err(Errno::NOENT | Errno::AGAIN) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Answers one request.
fn answer_one(server: &Server, header: Header, opcode: u32, body: &[u8], answer: &mut Answer) {
    answer.clear();
    let result = match Request::parse(opcode, body) {
        Ok(request) => server.vfs.dispatch(header, request, answer),
        Err(_) => Err(Errno::INVAL),
    };
    let result = match result {
        Ok(super::dispatch::Told::Nothing) => return,
        Ok(super::dispatch::Told::Answer) => Ok(()),
        // Its own descriptors are no matter of the program's.
        Err(Errno::MFILE) => Err(Errno::NFILE),
        Err(errno) => Err(errno),
    };
    // It fails where nobody waits any more.
    let _ = rustix::io::write(&server.device, answer.finish(header.unique, result));
}

/// Answers a write whose data is in `pipe`.
fn answer_piped(server: &Server, header: Header, head: WriteHead, pipe: &Pipe, answer: &mut Answer) {
    answer.clear();
    let result = server.vfs.op_write(head, Data::Piped(pipe), header.pid);
    let result = result.map(|count| answer.written(count));
    let _ = rustix::io::write(&server.device, answer.finish(header.unique, result));
}
