//! A filter as a person reads it.

use core::fmt;

use crate::program::{
    ALU_AND_K, JMP_JA, JMP_JEQ_K, JMP_JGE_K, JMP_JGT_K, JMP_JSET_K, LD_W_ABS, OFFSET_ARCH, OFFSET_ARGS, OFFSET_NUMBER,
    Program, RET_K, SECCOMP_RET_ALLOW, SECCOMP_RET_USER_NOTIF, SockFilter,
};

impl fmt::Display for Program {
    /// One line an instruction: its place, what it does, and where it goes on.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, instruction) in self.instructions.iter().enumerate() {
            write!(f, "{place:4}  ")?;
            line(f, place, instruction)?;
            f.write_str("\n")?;
        }
        Ok(())
    }
}

fn line(f: &mut fmt::Formatter<'_>, place: usize, instruction: &SockFilter) -> fmt::Result {
    let SockFilter { code, jt, jf, k } = *instruction;
    let goes_to = |skip: usize| place.saturating_add(1).saturating_add(skip);
    let comparison = match code {
        LD_W_ABS => return load(f, k),
        ALU_AND_K => return write!(f, "and {k:#x}"),
        JMP_JA => return write!(f, "goto {}", goes_to(usize::try_from(k).unwrap_or(usize::MAX))),
        RET_K if k == SECCOMP_RET_ALLOW => return f.write_str("allow"),
        RET_K if k == SECCOMP_RET_USER_NOTIF => return f.write_str("ask"),
        RET_K => return write!(f, "return {k:#x}"),
        JMP_JEQ_K => "==",
        JMP_JGT_K => ">",
        JMP_JGE_K => ">=",
        JMP_JSET_K => "&",
        _ => return write!(f, "unknown {code:#x} {jt} {jf} {k:#x}"),
    };
    write!(
        f,
        "if {comparison} {k:#x} goto {} else {}",
        goes_to(usize::from(jt)),
        goes_to(usize::from(jf))
    )
}

fn load(f: &mut fmt::Formatter<'_>, offset: u32) -> fmt::Result {
    match offset {
        OFFSET_NUMBER => f.write_str("load number"),
        OFFSET_ARCH => f.write_str("load arch"),
        _ => {
            let word = offset.saturating_sub(OFFSET_ARGS) / 4;
            write!(
                f,
                "load argument {} {} half",
                word / 2,
                if word.is_multiple_of(2) { "lower" } else { "upper" }
            )
        }
    }
}
