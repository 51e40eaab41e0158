//! One condition on one argument, in instructions.

use alloc::vec::Vec;

use nexus_abi::syscall::Width;

use crate::profile::ArgTest;
use crate::program::{Assembler, JMP_JEQ_K, JMP_JGE_K, JMP_JGT_K, JMP_JSET_K, Label, Word, high, low};

/// Goes to `yes` where the test of an argument holds, to `no` otherwise.
pub(super) fn test(program: &mut Assembler, index: u8, width: Width, test: &ArgTest, yes: Label, no: Label) -> Label {
    match width {
        Width::W16 | Width::W32 => narrow(program, index, width, test, yes, no),
        Width::W64 => wide(program, index, test, yes, no),
    }
}

fn narrow(program: &mut Assembler, index: u8, width: Width, test: &ArgTest, mut yes: Label, mut no: Label) -> Label {
    match test {
        ArgTest::Equal(value) => {
            let then = program.branch(JMP_JEQ_K, low(*value), yes, no);
            program.load_narrow(index, width, then)
        }
        ArgTest::Masked { mask, value } => {
            let compare = program.branch(JMP_JEQ_K, low(*value), yes, no);
            // The mask has no bit outside the width, so it also does the width's cutting.
            let masked = program.and(low(*mask), compare);
            program.load(Word::low(index), masked)
        }
        ArgTest::Range { first, last } => {
            let below_last = program.branch(JMP_JGT_K, low(*last), no, yes);
            let then = program.branch(JMP_JGE_K, low(*first), below_last, no);
            program.load_narrow(index, width, then)
        }
        ArgTest::OneOf(values) => {
            let values: Vec<u32> = values.iter().map(|value| low(*value)).collect();
            let then = search(program, &values, &mut yes, &mut no);
            program.load_narrow(index, width, then)
        }
        ArgTest::AnyBit(mask) => {
            let then = program.branch(JMP_JSET_K, low(*mask), yes, no);
            program.load(Word::low(index), then)
        }
    }
}

fn wide(program: &mut Assembler, index: u8, test: &ArgTest, yes: Label, no: Label) -> Label {
    match test {
        ArgTest::Equal(value) => masked(program, index, u64::MAX, *value, yes, no),
        ArgTest::Masked { mask, value } => masked(program, index, *mask, *value, yes, no),
        ArgTest::Range { first, last } => {
            let below_last = at_most(program, index, *last, yes, no);
            at_least(program, index, *first, below_last, no)
        }
        ArgTest::OneOf(values) => one_of(program, index, values, yes, no),
        ArgTest::AnyBit(mask) => {
            let lower = match low(*mask) {
                0 => no,
                mask => {
                    let then = program.branch(JMP_JSET_K, mask, yes, no);
                    program.load(Word::low(index), then)
                }
            };
            match high(*mask) {
                0 => lower,
                mask => {
                    let then = program.branch(JMP_JSET_K, mask, yes, lower);
                    program.load(Word::high(index), then)
                }
            }
        }
    }
}

/// `argument & mask == value`, each half only where the mask looks at it.
fn masked(program: &mut Assembler, index: u8, mask: u64, value: u64, yes: Label, no: Label) -> Label {
    let half = |program: &mut Assembler, word, mask: u32, value: u32, yes| {
        if mask == 0 {
            return yes;
        }
        let compare = program.branch(JMP_JEQ_K, value, yes, no);
        let cut = program.and(mask, compare);
        program.load(word, cut)
    };
    let lower = half(program, Word::low(index), low(mask), low(value), yes);
    half(program, Word::high(index), high(mask), high(value), lower)
}

/// `argument >= first`.
fn at_least(program: &mut Assembler, index: u8, first: u64, yes: Label, no: Label) -> Label {
    if first == 0 {
        return yes;
    }
    let compare = program.branch(JMP_JGE_K, low(first), yes, no);
    let lower = program.load(Word::low(index), compare);
    let same = program.branch(JMP_JEQ_K, high(first), lower, no);
    let above = program.branch(JMP_JGT_K, high(first), yes, same);
    program.load(Word::high(index), above)
}

/// `argument <= last`.
fn at_most(program: &mut Assembler, index: u8, last: u64, yes: Label, no: Label) -> Label {
    if last == u64::MAX {
        return yes;
    }
    let compare = program.branch(JMP_JGT_K, low(last), no, yes);
    let lower = program.load(Word::low(index), compare);
    let same = program.branch(JMP_JEQ_K, high(last), lower, yes);
    let above = program.branch(JMP_JGT_K, high(last), no, same);
    program.load(Word::high(index), above)
}

/// The upper half picks a group of values, the lower half is searched in it.
fn one_of(program: &mut Assembler, index: u8, values: &[u64], mut yes: Label, mut no: Label) -> Label {
    let mut groups: Vec<(u32, Label)> = Vec::new();
    let mut rest = values;
    while let Some(first) = rest.first() {
        let upper = high(*first);
        let (group, others) = rest.split_at(rest.partition_point(|value| high(*value) <= upper));
        let lower: Vec<u32> = group.iter().map(|value| low(*value)).collect();
        let then = search(program, &lower, &mut yes, &mut no);
        groups.push((upper, program.load(Word::low(index), then)));
        rest = others;
    }
    let then = pick(program, &groups, no);
    program.load(Word::high(index), then)
}

/// Goes to `yes` where the loaded word is one of the sorted values: a balanced tree. The labels move along, so that a
/// large set needs one stepping stone every some hundred instructions and not two for each value.
fn search(program: &mut Assembler, values: &[u32], yes: &mut Label, no: &mut Label) -> Label {
    match values {
        [] => *no,
        [value] => {
            *yes = program.near(*yes);
            *no = program.near(*no);
            program.branch(JMP_JEQ_K, *value, *yes, *no)
        }
        _ => {
            let (lower, upper) = values.split_at(values.len() / 2);
            let right = search(program, upper, yes, no);
            let left = search(program, lower, yes, no);
            let first = upper.first().copied().unwrap_or(u32::MAX);
            program.branch(JMP_JGE_K, first, right, left)
        }
    }
}

/// The same for the sorted keys of groups.
fn pick(program: &mut Assembler, groups: &[(u32, Label)], no: Label) -> Label {
    match groups {
        [] => no,
        [(key, label)] => program.branch(JMP_JEQ_K, *key, *label, no),
        _ => {
            let (lower, upper) = groups.split_at(groups.len() / 2);
            let right = pick(program, upper, no);
            let left = pick(program, lower, no);
            let first = upper.first().map_or(u32::MAX, |(key, _)| *key);
            program.branch(JMP_JGE_K, first, right, left)
        }
    }
}
