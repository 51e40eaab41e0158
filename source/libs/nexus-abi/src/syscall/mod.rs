//! The syscalls of Linux up to 6.18 on 64-bit machines: numbers, names, arguments and named groups.
//!
//! Numbers are those of the architecture that this crate is built for, unless an [`Arch`] is given.

mod groups;
mod table;

pub use groups::Group;
pub use table::nr;

use groups::GROUPS;
use table::TABLE;

/// One past the highest number that the table looks at. Linux 6.18 ends at 469 and numbers grow by a few a year; a test
/// fails when a row reaches the limit.
pub const NUMBERS_MAX: u32 = 512;

/// What [`nr`] holds for a call that this architecture lacks. No kernel numbers a call so.
pub const ABSENT: u32 = u32::MAX;

/// The bit that marks a call of the x32 ABI (asm/unistd.h). Such a call reports the native architecture to seccomp.
pub const X32_BIT: u32 = 0x4000_0000;

/// A 64-bit architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Arch {
    /// x86-64.
    X86_64,
    /// 64-bit ARM, little-endian.
    Aarch64,
    /// 64-bit RISC-V.
    Riscv64,
}

impl Arch {
    /// The architecture that this crate is built for.
    #[cfg(target_arch = "x86_64")]
    pub const NATIVE: Self = Self::X86_64;
    /// The architecture that this crate is built for.
    #[cfg(target_arch = "aarch64")]
    pub const NATIVE: Self = Self::Aarch64;
    /// The architecture that this crate is built for.
    #[cfg(target_arch = "riscv64")]
    pub const NATIVE: Self = Self::Riscv64;

    /// The value of `seccomp_data.arch` (`AUDIT_ARCH_*`, linux/audit.h) of a native call.
    #[must_use]
    pub const fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::Aarch64 => 0xc000_00b7,
            Self::Riscv64 => 0xc000_00f3,
        }
    }
}

/// How much of an argument's register a call reads. The kernel drops the rest, and so must whoever judges: a comparison
/// of all 64 bits of `ioctl`'s request is how a caller gets around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Width {
    /// The lower 16 bits: file modes.
    W16,
    /// The lower 32 bits.
    W32,
    /// All 64 bits.
    W64,
}

impl Width {
    /// The bits that count.
    #[must_use]
    pub const fn mask(self) -> u64 {
        match self {
            Self::W16 => 0xffff,
            Self::W32 => 0xffff_ffff,
            Self::W64 => u64::MAX,
        }
    }

    /// How many bits count: 16, 32 or 64.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::W16 => 16,
            Self::W32 => 32,
            Self::W64 => 64,
        }
    }

    /// The width of this many bits, `None` if there is none such.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        match bits {
            16 => Some(Self::W16),
            32 => Some(Self::W32),
            64 => Some(Self::W64),
            _ => None,
        }
    }
}

/// What an argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A number that the register itself carries, of this width.
    Scalar(Width),
    /// The address of memory that the caller can change: nothing can be judged by it.
    Pointer,
}

impl Kind {
    /// How much of the register the kernel reads.
    #[must_use]
    pub const fn width(self) -> Width {
        match self {
            Self::Scalar(width) => width,
            Self::Pointer => Width::W64,
        }
    }

    const fn of_letter(letter: u8) -> Option<Self> {
        match letter {
            b'i' => Some(Self::Scalar(Width::W32)),
            b'l' => Some(Self::Scalar(Width::W64)),
            b'm' => Some(Self::Scalar(Width::W16)),
            b'p' => Some(Self::Pointer),
            _ => None,
        }
    }
}

/// One call of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syscall {
    name: &'static str,
    x86_64: u16,
    aarch64: u16,
    riscv64: u16,
    signature: &'static str,
}

impl Syscall {
    /// The name, as its manual page has it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The number on an architecture, `None` where it lacks the call.
    #[must_use]
    pub const fn number_on(&self, arch: Arch) -> Option<u32> {
        let number = match arch {
            Arch::X86_64 => self.x86_64,
            Arch::Aarch64 => self.aarch64,
            Arch::Riscv64 => self.riscv64,
        };
        // `u32::from` is not const.
        if number == u16::MAX { None } else { Some(number as u32) }
    }

    /// The number on this architecture, `None` where it lacks the call.
    #[must_use]
    pub const fn number(&self) -> Option<u32> {
        self.number_on(Arch::NATIVE)
    }

    /// How many arguments the kernel reads, 0 to 6.
    #[must_use]
    pub const fn arguments(&self) -> usize {
        self.signature.len()
    }

    /// What an argument is, counted from 0; `None` past the last.
    #[must_use]
    pub fn argument(&self, index: usize) -> Option<Kind> {
        self.signature.as_bytes().get(index).copied().and_then(Kind::of_letter)
    }
}

const fn native_number(x86_64: u16, aarch64: u16, riscv64: u16) -> u32 {
    match (Syscall {
        name: "",
        x86_64,
        aarch64,
        riscv64,
        signature: "",
    })
    .number()
    {
        Some(number) => number,
        None => ABSENT,
    }
}

/// For each number of this architecture, the row that has it, or `u16::MAX`.
static ROW_OF_NUMBER: [u16; NUMBERS_MAX as usize] = {
    let mut rows = [u16::MAX; NUMBERS_MAX as usize];
    let mut free: &mut [u16] = &mut rows;
    let mut number: u32 = 0;
    while let [slot, rest @ ..] = free {
        *slot = row_of_number(number);
        free = rest;
        number = number.saturating_add(1);
    }
    rows
};

const fn row_of_number(number: u32) -> u16 {
    let mut rows: &[Syscall] = TABLE;
    let mut at: u16 = 0;
    while let [row, rest @ ..] = rows {
        if let Some(own) = row.number()
            && own == number
        {
            return at;
        }
        rows = rest;
        at = at.saturating_add(1);
    }
    u16::MAX
}

/// Every call of the table, sorted by name, also those that this architecture lacks.
pub fn all() -> impl Iterator<Item = &'static Syscall> {
    TABLE.iter()
}

/// The call of a number on this architecture.
#[must_use]
pub fn by_number(number: u32) -> Option<&'static Syscall> {
    let row = *ROW_OF_NUMBER.get(usize::try_from(number).ok()?)?;
    TABLE.get(usize::from(row))
}

/// The call of a name, also one that this architecture lacks.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Syscall> {
    let at = TABLE.binary_search_by(|row| row.name.cmp(name)).ok()?;
    TABLE.get(at)
}

/// The number of a name on this architecture.
#[must_use]
pub fn number(name: &str) -> Option<u32> {
    by_name(name)?.number()
}

/// The name of a number on this architecture.
#[must_use]
pub fn name(number: u32) -> Option<&'static str> {
    by_number(number).map(Syscall::name)
}

/// The numbers of a group (`@file-system`) on this architecture, nested groups included: sorted, no duplicates.
#[must_use]
pub fn group(name: &str) -> Option<&'static [u32]> {
    GROUPS
        .iter()
        .find(|group| group.name == name)
        .map(|group| group.numbers)
}

/// Every group, sorted by name.
pub fn groups() -> impl Iterator<Item = &'static Group> {
    GROUPS.iter()
}

#[cfg(test)]
mod tests;
