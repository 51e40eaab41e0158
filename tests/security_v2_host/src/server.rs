//! Something to connect to.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a peer may be silent before its connection is dropped.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// A TCP server on a free port of this machine's loopback that sends back what it gets, one connection after another.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts listening.
    ///
    /// # Panics
    /// Where the address is not this machine's.
    #[must_use]
    pub fn new(address: IpAddr) -> Self {
        let listener = TcpListener::bind((address, 0)).expect("a free port");
        let address = listener.local_addr().expect("the listener's address");
        let (connections, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (connections, done) = (Arc::clone(&connections), Arc::clone(&done));
            std::thread::spawn(move || serve(&listener, &connections, &done))
        };
        Self {
            address,
            connections,
            done,
            thread: Some(thread),
        }
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections came in.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn serve(listener: &TcpListener, connections: &AtomicUsize, done: &AtomicBool) {
    for stream in listener.incoming() {
        if done.load(Ordering::SeqCst) {
            return;
        }
        if let Ok(stream) = stream {
            connections.fetch_add(1, Ordering::SeqCst);
            echo(stream);
        }
    }
}

fn echo(mut stream: TcpStream) {
    let _ = stream.set_read_timeout(Some(SILENCE_MAX));
    let mut bytes = [0_u8; 4096];
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.done.store(true, Ordering::SeqCst);
        // Wakes the thread out of accept.
        drop(TcpStream::connect_timeout(&self.address, SILENCE_MAX));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
