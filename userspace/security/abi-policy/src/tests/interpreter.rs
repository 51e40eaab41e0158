//! Classic BPF as the kernel defines it for seccomp, written down without a look at the compiler: numbers, not its
//! constants.

use std::vec::Vec;

use crate::{Call, Program, SockFilter};

/// What the kernel would read: `struct seccomp_data`, little-endian.
fn data(call: &Call) -> Vec<u8> {
    let mut data = Vec::new();
    data.extend(call.number.to_le_bytes());
    data.extend(call.arch.to_le_bytes());
    data.extend(0xdead_beef_dead_beef_u64.to_le_bytes());
    for arg in call.args {
        data.extend(arg.to_le_bytes());
    }
    assert_eq!(data.len(), 64);
    data
}

/// What the filter returns, and how many instructions that took.
pub(super) fn run(program: &Program, call: &Call) -> (u32, usize) {
    let data = data(call);
    let instructions = program.instructions();
    let (mut a, mut pc, mut steps) = (0_u32, 0_usize, 0_usize);
    loop {
        let SockFilter { code, jt, jf, k } = instructions[pc];
        steps += 1;
        assert!(steps <= instructions.len(), "jumps only go forward");
        pc += 1;
        let jump = |holds: bool| usize::from(if holds { jt } else { jf });
        match code {
            0x20 => {
                let at = k as usize;
                assert_eq!(at % 4, 0);
                a = u32::from_le_bytes(data[at..at + 4].try_into().unwrap());
            }
            0x54 => a &= k,
            0x05 => pc += k as usize,
            0x15 => pc += jump(a == k),
            0x25 => pc += jump(a > k),
            0x35 => pc += jump(a >= k),
            0x45 => pc += jump(a & k != 0),
            0x06 => return (k, steps),
            _ => panic!("the kernel knows no {code:#x}"),
        }
    }
}

/// `bpf_check_classic` and `seccomp_check_filter`: whether the kernel would take the program.
pub(super) fn kernel_takes(program: &Program) -> bool {
    let instructions = program.instructions();
    let length = instructions.len();
    let last_returns = instructions.last().is_some_and(|last| last.code == 0x06);
    (1..=4096).contains(&length)
        && last_returns
        && instructions.iter().enumerate().all(|(pc, instruction)| {
            let SockFilter { code, jt, jf, k } = *instruction;
            match code {
                0x20 => k % 4 == 0 && k < 64,
                0x05 => pc + 1 + (k as usize) < length,
                0x15 | 0x25 | 0x35 | 0x45 => pc + 1 + usize::from(jt) < length && pc + 1 + usize::from(jf) < length,
                0x54 | 0x06 => true,
                _ => false,
            }
        })
}

/// `seccomp_is_const_allow`: whether the kernel marks the number as always allowed when the filter is set.
pub(super) fn is_const_allow(program: &Program, number: u32, arch: u32) -> bool {
    let (mut a, mut pc) = (0_u32, 0_usize);
    while let Some(SockFilter { code, jt, jf, k }) = program.instructions().get(pc).copied() {
        pc += 1;
        let jump = |holds: bool| usize::from(if holds { jt } else { jf });
        match (code, k) {
            (0x20, 0) => a = number,
            (0x20, 4) => a = arch,
            (0x54, _) => a &= k,
            (0x05, _) => pc += k as usize,
            (0x15, _) => pc += jump(a == k),
            (0x25, _) => pc += jump(a > k),
            (0x35, _) => pc += jump(a >= k),
            (0x45, _) => pc += jump(a & k != 0),
            (0x06, _) => return k == 0x7fff_0000,
            _ => return false,
        }
    }
    false
}
