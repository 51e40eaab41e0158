//! Syscall rules: the filter that is made of them answers as the guard does.

use nexus_abi::{Effect, Errno, RuleRef, Verdict};
use nexus_abi_policy::{
    ArgTest, Call, CompileError, Condition, Guard, NoFacts, Profile, Program, Request, SECCOMP_RET_ALLOW,
    SECCOMP_RET_USER_NOTIF, SyscallRule, Width, compile, floor,
};

/// Reads numbers off an input; zeros past its end.
struct Numbers<'d>(&'d [u8]);

impl Numbers<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((byte, rest)) => {
                self.0 = rest;
                *byte
            }
            None => 0,
        }
    }

    fn wide(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// A value that rules and calls meet at: small, at an edge, or any.
    fn value(&mut self) -> u64 {
        let byte = self.byte();
        match byte {
            0..=127 => u64::from(byte % 8),
            128..=191 => 1_u64
                .checked_shl(u32::from(byte) - 128)
                .unwrap_or(0)
                .wrapping_sub(u64::from(byte & 1)),
            _ => self.wide(),
        }
    }

    fn number(&mut self) -> u32 {
        u32::from(self.byte()) + 256 * u32::from(self.byte() & 1)
    }

    fn width(&mut self) -> Width {
        [Width::W16, Width::W32, Width::W64][usize::from(self.byte() % 3)]
    }

    fn test(&mut self) -> ArgTest {
        match self.byte() % 5 {
            0 => ArgTest::Equal(self.value()),
            1 => ArgTest::Masked {
                mask: self.value(),
                value: self.value(),
            },
            2 => ArgTest::Range {
                first: self.value(),
                last: self.value(),
            },
            3 => {
                let count = self.byte();
                let mut values: Vec<u64> = (0..count).map(|_| self.value()).collect();
                // Mostly as a policy has them, sometimes not.
                if count % 8 != 7 {
                    values.sort_unstable();
                    values.dedup();
                }
                ArgTest::OneOf(values)
            }
            _ => ArgTest::AnyBit(self.value()),
        }
    }

    fn condition(&mut self) -> Condition {
        match self.byte() {
            0..=15 => Condition::Egress,
            16..=31 => Condition::Budget(nexus_abi::Area::Tmp),
            index => Condition::Arg {
                index: index % 7,
                width: self.width(),
                test: self.test(),
            },
        }
    }

    fn profile(&mut self) -> Profile {
        let rules = (0..self.byte() % 16).map(|at| SyscallRule {
            number: self.number(),
            effect: if self.byte().is_multiple_of(3) {
                Effect::Deny
            } else {
                Effect::Allow
            },
            errno: Errno::EACCES,
            conditions: (0..self.byte() % 4).map(|_| self.condition()).collect(),
            rule: RuleRef(u32::from(at)),
        });
        let rules = rules.collect();
        let mut probed: Vec<u32> = (0..self.byte() % 3).map(|_| self.number()).collect();
        probed.sort_unstable();
        probed.dedup();
        Profile { rules, probed }
    }
}

/// Profiles out of an input, and calls to them: guard and filter take the same ones, the kernel would take the filter, and
/// it lets through only what the guard allows.
pub fn filter(data: &[u8]) -> bool {
    let mut numbers = Numbers(data);
    let (own, below) = (numbers.profile(), floor());
    let with_floor = numbers.byte().is_multiple_of(2);
    let profiles: Vec<&Profile> = if with_floor { vec![&own, &below] } else { vec![&own] };
    let program = match (Guard::new(&profiles), compile(&profiles, &[])) {
        (Ok(guard), Ok(program)) => {
            check(&program);
            (guard, program)
        }
        (Ok(_), Err(CompileError::TooLong)) => return false,
        (Err(one), Err(other)) if one == other => return false,
        (guard, program) => panic!("{:?} and {:?}", guard.map(|_| ()), program.map(|_| ())),
    };
    let (guard, program) = program;
    let numbers_spoken_of: Vec<u32> = own.rules.iter().map(|rule| rule.number).collect();
    for at in 0..32 {
        let number = numbers_spoken_of.get(at).copied().unwrap_or_else(|| numbers.number());
        let mut call = Call::native(number, std::array::from_fn(|_| numbers.value()));
        if numbers.byte() == 255 {
            call.arch = 0x4000_0003;
        }
        let action = run(&program, &call);
        let verdict = guard.judge(&Request::scalar(call), &NoFacts);
        match action {
            SECCOMP_RET_ALLOW => assert!(verdict.is_allow(), "{call:x?} {verdict:?}\n{program}"),
            SECCOMP_RET_USER_NOTIF => {}
            other => panic!("{other:#x}"),
        }
        // The guard knows no destination and no budget here: what it allows all the same, the filter lets through.
        if let Verdict::Allow { .. } = verdict
            && !own
                .rules
                .iter()
                .any(|rule| rule.number == call.number && rule.conditions.iter().any(asks))
        {
            assert_eq!(action, SECCOMP_RET_ALLOW, "{call:x?}\n{program}");
        }
        if with_floor && action == SECCOMP_RET_ALLOW {
            assert_eq!(
                run(&compile(&[&below], &[]).expect("the floor makes a filter"), &call),
                SECCOMP_RET_ALLOW
            );
        }
    }
    true
}

fn asks(condition: &Condition) -> bool {
    matches!(condition, Condition::Egress | Condition::Budget(_))
}

/// `bpf_check_classic` and `seccomp_check_filter` (net/core/filter.c, kernel/seccomp.c), as far as a filter goes here.
fn check(program: &Program) {
    let instructions = program.instructions();
    let length = instructions.len();
    assert!((1..=4096).contains(&length));
    for (place, one) in instructions.iter().enumerate() {
        let reaches = |skip: usize| assert!(place + 1 + skip < length, "{place} jumps out");
        match one.code {
            0x20 => assert!(one.k.is_multiple_of(4) && one.k < 64),
            0x54 | 0x06 => {}
            0x05 => reaches(usize::try_from(one.k).expect("a jump")),
            0x15 | 0x25 | 0x35 | 0x45 => [one.jt, one.jf].iter().for_each(|skip| reaches(usize::from(*skip))),
            code => panic!("the kernel knows no {code:#x}"),
        }
    }
    assert_eq!(instructions[length - 1].code, 0x06);
}

fn run(program: &Program, call: &Call) -> u32 {
    let mut data = Vec::with_capacity(64);
    data.extend(call.number.to_le_bytes());
    data.extend(call.arch.to_le_bytes());
    data.extend([0xee; 8]);
    data.extend(call.args.iter().flat_map(|arg| arg.to_le_bytes()));
    let (mut value, mut place) = (0_u32, 0_usize);
    loop {
        let one = program.instructions()[place];
        place += 1;
        let skip = |holds: bool| usize::from(if holds { one.jt } else { one.jf });
        match one.code {
            0x20 => {
                let at = usize::try_from(one.k).expect("an offset");
                value = u32::from_le_bytes(data[at..at + 4].try_into().expect("four bytes"));
            }
            0x54 => value &= one.k,
            0x05 => place += usize::try_from(one.k).expect("a jump"),
            0x15 => place += skip(value == one.k),
            0x25 => place += skip(value > one.k),
            0x35 => place += skip(value >= one.k),
            0x45 => place += skip(value & one.k != 0),
            _ => return one.k,
        }
    }
}
