//! Whole ways to somebody who listens, by calls that are not those that are judged.

use crate::raw::{call, int80_full, say, socket, try_call};
use crate::sockets::loopback;

const AF_INET: u32 = 2;
const STREAM: u32 = 1;

/// Memory of a page below 4 GiB, where 32-bit pointers reach.
fn low_page() -> *mut u8 {
    // SAFETY: a new private mapping wherever the kernel likes.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
            -1,
            0,
        )
    };
    page.cast()
}

/// `socketcall(2)` of the 32-bit table, from socket to send; and the table's own connect and sendto.
pub(crate) fn int80(port: u16) {
    let page = low_page();
    if page.addr() == usize::MAX {
        return println!("low-page ENOMEM");
    }
    let at = |offset: usize| (page.addr() + offset) as u32;
    let write = |offset: usize, bytes: &[u8]| {
        // SAFETY: the page is this function's own and has room: 256 bytes behind the last offset that is used.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), page.add(offset), bytes.len()) };
    };
    const ADDRESS: usize = 512;
    const DATA: usize = 1024;
    const SOCKETCALL: u32 = 102;
    write(ADDRESS, &loopback(port));
    let multiplexed = |name: &str, which: u32, words: &[u32]| {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        write(0, &bytes);
        let result = int80_full(SOCKETCALL, [which, at(0), 0, 0, 0, 0]);
        say(name, result);
        result
    };
    let fd = multiplexed("socketcall-socket", 1, &[AF_INET, STREAM, 0]);
    // If only the first is refused, the others try a socket of the 64-bit table.
    let fd = if fd < 0 { i64::from(socket(2, 1, 0)) } else { fd } as u32;
    multiplexed("socketcall-connect", 3, &[fd, at(ADDRESS), 16]);
    write(DATA, b"socketcall\n");
    multiplexed("socketcall-send", 9, &[fd, at(DATA), 11, 0]);
    let datagrams = socket(2, 2, 0) as u32;
    write(DATA, b"socketcall\n");
    multiplexed("socketcall-sendto", 11, &[datagrams, at(DATA), 11, 0, at(ADDRESS), 16]);
    let fd = socket(2, 1, 0) as u32;
    say("int80-connect", int80_full(362, [fd, at(ADDRESS), 16, 0, 0, 0]));
    write(DATA, b"int80\n");
    say("int80-write", int80_full(4, [fd, at(DATA), 6, 0, 0, 0]));
    let fd = socket(2, 2, 0) as u32;
    say("int80-sendto", int80_full(369, [fd, at(DATA), 6, 0, at(ADDRESS), 16]));
}

/// A connect and a send by a ring.
pub(crate) fn ring(port: u16) {
    const CONNECT: u8 = 16;
    const SEND: u8 = 26;
    const ENTRIES: u64 = 4;
    let mut parameters = [0_u32; 30];
    let ring = try_call(
        "ring-setup",
        libc::SYS_io_uring_setup,
        &[ENTRIES, parameters.as_mut_ptr().addr() as u64],
    );
    if ring < 0 {
        return;
    }
    let map = |offset: i64, length: usize| -> *mut u8 {
        // SAFETY: a shared mapping of the ring's own file.
        unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                ring as i32,
                offset,
            )
        }
        .cast()
    };
    // io_uring(7): the ring of submissions, and the entries themselves.
    let (queue, entries) = (map(0, 4096), map(0x1000_0000, 4096));
    let (tail_at, array_at) = (parameters[11] as usize, parameters[16] as usize);
    let fd = socket(2, 1, 0);
    let (address, data) = (loopback(port), b"ring\n");
    let jobs = [
        (CONNECT, address.as_ptr().addr(), 0_u32, 16_u64),
        (SEND, data.as_ptr().addr(), 5, 0),
    ];
    for (index, (opcode, pointer, length, offset)) in jobs.into_iter().enumerate() {
        let mut entry = [0_u8; 64];
        entry[0] = opcode;
        entry[4..8].copy_from_slice(&fd.to_ne_bytes());
        entry[8..16].copy_from_slice(&offset.to_ne_bytes());
        entry[16..24].copy_from_slice(&(pointer as u64).to_ne_bytes());
        entry[24..28].copy_from_slice(&length.to_ne_bytes());
        // SAFETY: both mappings are live and have room for four entries; the kernel reads them at the next call.
        unsafe {
            std::ptr::copy_nonoverlapping(entry.as_ptr(), entries.add(index * 64), 64);
            queue.add(array_at + index * 4).cast::<u32>().write(index as u32);
            queue.add(tail_at).cast::<u32>().write(index as u32 + 1);
        }
        // IORING_ENTER_GETEVENTS: until it is done.
        say(
            "ring-enter",
            call(libc::SYS_io_uring_enter, &[ring as u64, 1, index as u64 + 1, 1, 0, 0]),
        );
    }
}
