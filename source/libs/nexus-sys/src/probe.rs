//! A program that makes the system calls that it is told to make, and says what they returned.
//!
//! It is started inside a sandbox to see what the sandbox does. It is no more than a loop of about thirty instructions
//! without a library or an interpreter: so it runs in a view that shows no other file, and makes no call of its own but
//! `read`, `write` and `exit_group`, whose records would stand beside those that are looked for.
//!
//! Whoever drives it writes a [`Frame`] to its standard input and reads one of the same length from its standard output.
//! Frames are shorter than `PIPE_BUF` (pipe(7)), so each is written and read whole.

use std::io;

/// How long every frame is, in bytes, both ways.
pub const FRAME_BYTES: usize = 1024;

/// How much of a frame is the caller's: what the calls' pointers point to.
pub const DATA_BYTES: usize = FRAME_BYTES - DATA_AT;

/// Where the frame lies in the probe's memory.
const FRAME_ADDRESS: u64 = 0x80_0000;

/// The calls by which the probe hears and speaks, in the order in which it makes them first: `write(1, …)`, `read(0, …)`. A
/// probe that is refused one of them ends with the errno as its status.
pub const OWN_CALLS: [(&str, [u64; 6]); 2] = [
    ("write", [1, FRAME_ADDRESS, FRAME_BYTES as u64, 0, 0, 0]),
    ("read", [0, FRAME_ADDRESS, FRAME_BYTES as u64, 0, 0, 0]),
];

/// Where the data lies in the probe's memory: a call's pointer is this and an offset.
pub const DATA_ADDRESS: u64 = FRAME_ADDRESS + DATA_AT as u64;

/// The first eight bytes of what the probe says before it is told anything: its name and the version of the frame.
pub const HELLO: u64 = u64::from_le_bytes(*b"nxprobe1");

const DATA_AT: usize = 64;
const FLAGS_AT: usize = 56;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Frame<'a> {
    /// The call's number, in the table of the ABI that it is made by.
    pub number: u64,
    /// Its arguments.
    pub args: [u64; 6],
    /// Whether it is made by `int 0x80`.
    pub foreign: bool,
    /// Whether a return of 0 means that this is a child, which then ends: fork and its kin.
    pub forks: bool,
    /// What stands at [`DATA_ADDRESS`]; past [`DATA_BYTES`] it is cut.
    pub data: &'a [u8],
}

impl Frame<'_> {
    /// As the probe reads it.
    #[must_use]
    pub fn encode(&self) -> [u8; FRAME_BYTES] {
        let mut bytes = [0; FRAME_BYTES];
        let flags = u64::from(self.foreign) | u64::from(self.forks) << 1;
        let words = std::iter::once(self.number).chain(self.args).chain([flags]);
        for (to, word) in bytes.chunks_exact_mut(size_of::<u64>()).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        for (to, from) in bytes.iter_mut().skip(DATA_AT).zip(self.data) {
            *to = *from;
        }
        bytes
    }
}

/// What a call returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The raw value: −4095 to −1 is an errno.
    pub value: i64,
    /// What stands at [`DATA_ADDRESS`] now.
    pub data: Vec<u8>,
}

impl Reply {
    /// Reads what the probe says; it is whatever the confined program chose to write.
    #[must_use]
    pub fn decode(bytes: &[u8; FRAME_BYTES]) -> Self {
        let value = bytes.first_chunk().map_or(0, |word| i64::from_le_bytes(*word));
        Self {
            value,
            data: bytes.get(DATA_AT..).unwrap_or_default().to_vec(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod code {
    // Calling conventions: syscall(2), "Architecture calling conventions". r12 and r13 survive both kinds of call.
    std::arch::global_asm!(
        ".pushsection .rodata.nexus_probe, \"a\", @progbits",
        ".globl nexus_probe_start",
        ".globl nexus_probe_end",
        ".hidden nexus_probe_start",
        ".hidden nexus_probe_end",
        "nexus_probe_start:",
        "   mov r12d, {frame}",
        "   movabs rax, {hello}",
        "   mov [r12], rax",
        "   jmp 3f",
        // read(0, frame, FRAME_BYTES)
        "2: xor eax, eax",
        "   xor edi, edi",
        "   mov rsi, r12",
        "   mov edx, {length}",
        "   syscall",
        "   cmp rax, {length}",
        "   jne 5f",
        "   mov rax, [r12]",
        "   mov rdi, [r12 + 8]",
        "   mov rsi, [r12 + 16]",
        "   mov rdx, [r12 + 24]",
        "   mov r10, [r12 + 32]",
        "   mov r8, [r12 + 40]",
        "   mov r9, [r12 + 48]",
        "   mov r13, [r12 + {flags}]",
        "   test r13b, 1",
        "   jnz 6f",
        "   syscall",
        // A child of fork's ends here.
        "4: test rax, rax",
        "   jnz 7f",
        "   test r13b, 2",
        "   jnz 5f",
        "7: mov [r12], rax",
        // write(1, frame, FRAME_BYTES)
        "3: mov eax, 1",
        "   mov edi, 1",
        "   mov rsi, r12",
        "   mov edx, {length}",
        "   syscall",
        "   cmp rax, {length}",
        "   je 2b",
        // exit_group(-rax): 0 at the end of the input and in a child, an errno where a word is refused
        "5: mov edi, eax",
        "   neg edi",
        "   mov eax, 231",
        "   syscall",
        "   ud2",
        // The other ABI: ebx, ecx, edx, esi, edi, ebp.
        "6: mov rbx, rdi",
        "   mov rcx, rsi",
        "   mov rsi, r10",
        "   mov rdi, r8",
        "   mov rbp, r9",
        "   int 0x80",
        "   movsxd rax, eax",
        "   jmp 4b",
        "nexus_probe_end:",
        ".popsection",
        frame = const super::FRAME_ADDRESS,
        hello = const super::HELLO,
        length = const super::FRAME_BYTES,
        flags = const super::FLAGS_AT,
    );

    unsafe extern "C" {
        static nexus_probe_start: u8;
        static nexus_probe_end: u8;
    }

    /// The probe's instructions.
    pub(super) fn instructions() -> &'static [u8] {
        let (start, end) = (&raw const nexus_probe_start, &raw const nexus_probe_end);
        let length = end.addr().saturating_sub(start.addr());
        // SAFETY: the two symbols are the ends of one stretch of constant bytes, made by the assembly above, that lives as
        // long as the program and is never written.
        unsafe { std::slice::from_raw_parts(start, length) }
    }
}

/// The probe as a program: a static ELF file, elf(5), for the machine that this is built for.
///
/// # Errors
/// `ENOEXEC` where there is no probe for this machine.
pub fn program() -> io::Result<Vec<u8>> {
    #[cfg(target_arch = "x86_64")]
    {
        Ok(elf(code::instructions()))
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        Err(io::Error::from_raw_os_error(libc::ENOEXEC))
    }
}

/// An ELF file of two segments: the headers and the code, and a page for the frame.
#[cfg(target_arch = "x86_64")]
fn elf(code: &[u8]) -> Vec<u8> {
    const HEADER: u16 = 64;
    const SEGMENT: u16 = 56;
    const SEGMENTS: u16 = 2;
    const CODE_ADDRESS: u64 = 0x40_0000;
    const PAGE: u64 = 4096;
    let code_at = HEADER + SEGMENT * SEGMENTS;
    let length = u64::from(code_at) + code.len() as u64;
    let mut file = Vec::new();
    // ELFCLASS64, ELFDATA2LSB, EV_CURRENT, ELFOSABI_NONE
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    for half in [libc::ET_EXEC, libc::EM_X86_64] {
        file.extend(half.to_le_bytes());
    }
    file.extend(libc::EV_CURRENT.to_le_bytes());
    // entry, program headers, section headers
    for word in [CODE_ADDRESS + u64::from(code_at), u64::from(HEADER), 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    for half in [HEADER, SEGMENT, SEGMENTS, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    for (flags, address, in_file, in_memory) in [
        (libc::PF_R | libc::PF_X, CODE_ADDRESS, length, length),
        (libc::PF_R | libc::PF_W, FRAME_ADDRESS, 0, FRAME_BYTES as u64),
    ] {
        file.extend(libc::PT_LOAD.to_le_bytes());
        file.extend(flags.to_le_bytes());
        for word in [0, address, address, in_file, in_memory, PAGE] {
            file.extend(word.to_le_bytes());
        }
    }
    file.extend(code);
    file
}

#[cfg(all(test, target_arch = "x86_64"))]
#[expect(
    clippy::unwrap_used,
    reason = "helpers of tests; the lints know only functions that are tests themselves"
)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::fs::OpenOptionsExt;
    use std::process::{Child, Command, Stdio};

    /// With the directory that its program lies in.
    struct Running(
        Child,
        #[expect(dead_code, reason = "held until the probe is done")] tempfile::TempDir,
    );

    impl Running {
        fn start() -> Self {
            let holder = tempfile::tempdir().unwrap();
            let path = holder.path().join("probe");
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.create(true).write(true).mode(0o700).open(&path).unwrap();
            file.write_all(&program().unwrap()).unwrap();
            drop(file);
            // Another test's child may hold the file open for writing for a moment.
            let child = loop {
                let started = Command::new(&path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
                match started {
                    Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {}
                    other => break other.unwrap(),
                }
            };
            let mut running = Self(child, holder);
            assert_eq!(running.hear().unwrap().value.cast_unsigned(), HELLO);
            running
        }

        fn hear(&mut self) -> Option<Reply> {
            let mut bytes = [0; FRAME_BYTES];
            let out = self.0.stdout.as_mut().unwrap();
            out.read_exact(&mut bytes).ok().map(|()| Reply::decode(&bytes))
        }

        fn call(&mut self, frame: Frame<'_>) -> Reply {
            self.0.stdin.as_mut().unwrap().write_all(&frame.encode()).unwrap();
            self.hear().unwrap()
        }
    }

    fn frame(number: libc::c_long, args: &[u64]) -> Frame<'static> {
        let mut all = [0; 6];
        all.iter_mut().zip(args).for_each(|(to, from)| *to = *from);
        Frame {
            number: number.cast_unsigned(),
            args: all,
            ..Frame::default()
        }
    }

    #[test]
    fn it_makes_the_calls_that_it_is_told_to_and_ends_with_its_input() {
        let mut probe = Running::start();
        let pid = i64::from(probe.0.id());
        assert_eq!(probe.call(frame(libc::SYS_getpid, &[])).value, pid);
        let bad = probe.call(frame(libc::SYS_close, &[u64::MAX]));
        assert_eq!(bad.value, -i64::from(libc::EBADF));
        drop(probe.0.stdin.take());
        assert!(probe.hear().is_none());
        assert!(probe.0.wait().unwrap().success());
    }

    #[test]
    fn all_six_arguments_arrive_and_memory_comes_back() {
        let mut probe = Running::start();
        // pipe2 writes two numbers, and splice takes six arguments.
        let made = probe.call(frame(libc::SYS_pipe2, &[DATA_ADDRESS, 0]));
        assert_eq!(made.value, 0);
        // The lowest that are free: whoever started the tests may have left it more than three.
        let number = |at: usize| u64::from(u32::from_ne_bytes(made.data[at..at + 4].try_into().unwrap()));
        let (from, to) = (number(0), number(4));
        assert!(2 < from && from < to, "{from} {to}");
        let sent = probe.call(Frame {
            data: b"hello",
            ..frame(libc::SYS_write, &[to, DATA_ADDRESS, 5])
        });
        assert_eq!(sent.value, 5);
        let spliced = probe.call(frame(libc::SYS_splice, &[from, 0, to, 0, 2, u64::MAX]));
        assert_eq!(
            spliced.value,
            -i64::from(libc::EINVAL),
            "the sixth argument is looked at"
        );
        let spliced = probe.call(frame(libc::SYS_splice, &[from, 0, to, 0, 2, 0]));
        assert!(
            spliced.value == 2 || spliced.value == -i64::from(libc::EINVAL),
            "{}",
            spliced.value
        );
    }

    #[test]
    fn a_forked_child_of_it_ends_and_is_not_heard() {
        let mut probe = Running::start();
        let forked = probe.call(Frame {
            forks: true,
            ..frame(libc::SYS_fork, &[])
        });
        assert!(forked.value > 0);
        let waited = probe.call(frame(libc::SYS_wait4, &[u64::MAX, 0, 0, 0]));
        assert_eq!(waited.value, forked.value);
    }

    #[test]
    fn the_other_abi_is_reached_where_the_kernel_has_it() {
        let mut probe = Running::start();
        let pid = i64::from(probe.0.id());
        // getpid is 20 there (asm/unistd_32.h).
        let asked = probe.call(Frame {
            foreign: true,
            ..frame(20, &[])
        });
        assert!(
            asked.value == pid || asked.value == -i64::from(libc::ENOSYS),
            "{}",
            asked.value
        );
    }

    #[test]
    fn whatever_the_probe_writes_is_read_without_harm() {
        for fill in [0, 0x7f, 0xff] {
            let reply = Reply::decode(&[fill; FRAME_BYTES]);
            assert_eq!(reply.data.len(), DATA_BYTES);
        }
    }
}
