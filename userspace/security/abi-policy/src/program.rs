//! A filter, and the assembler that lays it out.

use alloc::vec::Vec;

use nexus_abi::syscall::Width;

use crate::limits::PROGRAM_MAX;

/// Lets the call through (linux/seccomp.h).
pub const SECCOMP_RET_ALLOW: u32 = 0x7fff_0000;
/// Asks the supervisor, who records and answers (linux/seccomp.h).
pub const SECCOMP_RET_USER_NOTIF: u32 = 0x7fc0_0000;

// linux/bpf_common.h, linux/filter.h.
pub(crate) const LD_W_ABS: u16 = 0x20;
pub(crate) const ALU_AND_K: u16 = 0x54;
pub(crate) const JMP_JA: u16 = 0x05;
pub(crate) const JMP_JEQ_K: u16 = 0x15;
pub(crate) const JMP_JGT_K: u16 = 0x25;
pub(crate) const JMP_JGE_K: u16 = 0x35;
pub(crate) const JMP_JSET_K: u16 = 0x45;
pub(crate) const RET_K: u16 = 0x06;

/// Offset of `nr` in `struct seccomp_data`.
pub(crate) const OFFSET_NUMBER: u32 = 0;
/// Offset of `arch` in `struct seccomp_data`.
pub(crate) const OFFSET_ARCH: u32 = 4;
/// Offset of `args` in `struct seccomp_data`.
pub(crate) const OFFSET_ARGS: u32 = 16;

/// One instruction of a filter; the layout is the kernel's `struct sock_filter` (linux/filter.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct SockFilter {
    /// What to do.
    pub code: u16,
    /// How many instructions to skip when the test holds.
    pub jt: u8,
    /// How many instructions to skip when it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// A filter for `SECCOMP_SET_MODE_FILTER`, at most [`PROGRAM_MAX`] instructions long. Its [`Display`](core::fmt::Display)
/// is a listing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Program {
    pub(crate) instructions: Vec<SockFilter>,
}

impl Program {
    /// The instructions, first to last.
    #[must_use]
    pub fn instructions(&self) -> &[SockFilter] {
        &self.instructions
    }
}

/// One 32-bit half of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word(u32);

impl Word {
    /// The lower half of an argument, 0 to 5.
    pub(crate) fn low(index: u8) -> Self {
        Self(OFFSET_ARGS.saturating_add(u32::from(index).saturating_mul(8)))
    }

    /// The upper half. All architectures of the table are little-endian.
    pub(crate) fn high(index: u8) -> Self {
        Self(
            OFFSET_ARGS
                .saturating_add(u32::from(index).saturating_mul(8))
                .saturating_add(4),
        )
    }
}

/// A place to jump to: how many instructions lie from it to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label(usize);

/// Lays a program out from its end to its beginning: the jumps of classic BPF only go forward, so every target is known
/// when its jump is written, and one that is too far away gets a stepping stone next to the jump.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    reversed: Vec<SockFilter>,
}

/// How many instructions a conditional jump can skip.
const REACH: usize = u8::MAX as usize;

impl Assembler {
    /// Whether the program is past what the kernel takes. It stops growing a little after that.
    pub(crate) fn is_full(&self) -> bool {
        self.reversed.len() > PROGRAM_MAX
    }

    /// How many instructions there are.
    pub(crate) fn len(&self) -> usize {
        self.reversed.len()
    }

    pub(crate) fn finish(mut self) -> Program {
        self.reversed.reverse();
        Program {
            instructions: self.reversed,
        }
    }

    fn put(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        let label = Label(self.reversed.len());
        // One past the limit is enough to know, and keeps a hostile policy from growing the program further.
        if !self.is_full() {
            self.reversed.push(SockFilter { code, jt, jf, k });
        }
        label
    }

    pub(crate) fn ret(&mut self, value: u32) -> Label {
        self.put(RET_K, 0, 0, value)
    }

    /// How many instructions an instruction written now would have to skip to get there.
    fn distance(&self, to: Label) -> usize {
        self.reversed.len().saturating_sub(to.0).saturating_sub(1)
    }

    /// Goes on at `to`: nothing where that is the next instruction anyway.
    pub(crate) fn goto(&mut self, to: Label) -> Label {
        match u32::try_from(self.distance(to)) {
            Ok(0) | Err(_) => to,
            Ok(skip) => self.put(JMP_JA, 0, 0, skip),
        }
    }

    pub(crate) fn branch(&mut self, code: u16, k: u32, mut yes: Label, mut no: Label) -> Label {
        if yes == no {
            return self.goto(yes);
        }
        loop {
            match (u8::try_from(self.distance(yes)), u8::try_from(self.distance(no))) {
                (Ok(jt), Ok(jf)) => return self.put(code, jt, jf, k),
                _ if self.is_full() => return yes,
                (Err(_), _) => yes = self.stepping_stone(yes),
                (_, Err(_)) => no = self.stepping_stone(no),
            }
        }
    }

    fn stepping_stone(&mut self, to: Label) -> Label {
        let skip = u32::try_from(self.distance(to)).unwrap_or(u32::MAX);
        self.put(JMP_JA, 0, 0, skip)
    }

    /// A place that a conditional jump written now reaches, and that goes on at `to`.
    pub(crate) fn near(&mut self, to: Label) -> Label {
        if self.reaches(to) { to } else { self.stepping_stone(to) }
    }

    /// Whether a conditional jump written now reaches there, with room for a few instructions in between.
    pub(crate) fn reaches(&self, to: Label) -> bool {
        self.distance(to) < REACH.saturating_sub(8)
    }

    /// Loads a word, then goes on at `then`, which must be the next instruction or is jumped to.
    pub(crate) fn load(&mut self, word: Word, then: Label) -> Label {
        self.goto(then);
        self.put(LD_W_ABS, 0, 0, word.0)
    }

    pub(crate) fn load_at(&mut self, offset: u32, then: Label) -> Label {
        self.load(Word(offset), then)
    }

    /// Cuts the loaded word with a mask, unless that changes nothing.
    pub(crate) fn and(&mut self, mask: u32, then: Label) -> Label {
        if mask == u32::MAX {
            return then;
        }
        self.goto(then);
        self.put(ALU_AND_K, 0, 0, mask)
    }

    /// Loads the part of an argument's lower half that a width of at most 32 bits keeps.
    pub(crate) fn load_narrow(&mut self, index: u8, width: Width, then: Label) -> Label {
        let cut = self.and(low(width.mask()), then);
        self.load(Word::low(index), cut)
    }
}

/// The lower half.
pub(crate) fn low(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap_or(u32::MAX)
}

/// The upper half.
pub(crate) fn high(value: u64) -> u32 {
    u32::try_from(value >> 32).unwrap_or(u32::MAX)
}
