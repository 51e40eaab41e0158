//! Rules, and what can be said of a call by its registers alone.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use nexus_abi::syscall::{self, Arch, Width, X32_BIT};
use nexus_abi::{Area, Effect, Errno, Reason, RuleRef, Verdict};

use crate::limits::ARGUMENTS;

/// What one argument must be. The argument is first cut to the condition's width; all comparisons are unsigned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ArgTest {
    /// Exactly this.
    Equal(u64),
    /// `argument & mask == value`.
    Masked {
        /// The bits looked at.
        mask: u64,
        /// What they must be.
        value: u64,
    },
    /// From `first` to `last`, both included, unsigned.
    Range {
        /// The lowest.
        first: u64,
        /// The highest.
        last: u64,
    },
    /// One of these; sorted, no duplicates, not empty.
    OneOf(Vec<u64>),
    /// `argument & mask != 0`: at least one of these bits is set.
    AnyBit(u64),
}

impl ArgTest {
    /// Whether a value that was cut to the width passes.
    #[must_use]
    pub fn holds(&self, value: u64) -> bool {
        match self {
            Self::Equal(expected) => value == *expected,
            Self::Masked { mask, value: expected } => value & mask == *expected,
            Self::Range { first, last } => (*first..=*last).contains(&value),
            Self::OneOf(values) => values.binary_search(&value).is_ok(),
            Self::AnyBit(mask) => value & mask != 0,
        }
    }
}

/// One condition of a rule; all of a rule's conditions must hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    /// A test of a scalar argument, judged in the kernel.
    Arg {
        /// Which argument, 0 to 5.
        index: u8,
        /// How much of it counts.
        width: Width,
        /// What it must be.
        test: ArgTest,
    },
    /// The destination address of the call is one that the subject's egress rules allow. Judged by the supervisor.
    Egress,
    /// The call's growth fits what is left of this area's budget. Judged by whoever knows the growth; in front of a ledger that
    /// judges all growth itself, by that ledger alone ([`Profile::in_front_of_the_ledger`]).
    Budget(Area),
}

impl Condition {
    /// Whether the registers alone say that this holds; `None` where they can't.
    pub(crate) fn scalar(&self, args: &[u64; ARGUMENTS]) -> Option<bool> {
        match self {
            Self::Arg { index, width, test } => {
                // An index past the last argument never gets past `Profile::check`; were it to, nothing is known of it.
                let value = args.get(usize::from(*index))?;
                Some(test.holds(value & width.mask()))
            }
            Self::Egress | Self::Budget(_) => None,
        }
    }
}

/// One rule of a profile.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SyscallRule {
    /// The syscall's number in the native table.
    pub number: u32,
    /// Whether the rule opens or closes.
    pub effect: Effect,
    /// What a deny rule answers; ignored for allow rules.
    pub errno: Errno,
    /// All of these must hold; empty: always.
    pub conditions: Vec<Condition>,
    /// The rule's place in the policy's table.
    pub rule: RuleRef,
}

impl SyscallRule {
    /// Whether the registers alone say that all conditions hold: `Some(false)` when one fails, `None` when what is left
    /// needs the supervisor.
    fn scalar(&self, args: &[u64; ARGUMENTS]) -> Option<bool> {
        let mut all = Some(true);
        for condition in &self.conditions {
            match condition.scalar(args) {
                Some(true) => {}
                Some(false) => return Some(false),
                None => all = None,
            }
        }
        all
    }
}

/// A system call as seccomp reports it (`struct seccomp_data`, seccomp(2)), without the instruction pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// The number, in the table of the call's own ABI.
    pub number: u32,
    /// The ABI, one of `AUDIT_ARCH_*`.
    pub arch: u32,
    /// The argument registers, whole.
    pub args: [u64; ARGUMENTS],
}

impl Call {
    /// A call of the native ABI.
    #[must_use]
    pub const fn native(number: u32, args: [u64; ARGUMENTS]) -> Self {
        Self {
            number,
            arch: Arch::NATIVE.audit(),
            args,
        }
    }

    /// Whether the call came through an ABI other than the native one: `int 0x80`, or x32, which reports the native
    /// architecture and sets a bit in the number.
    #[must_use]
    pub const fn is_foreign(&self) -> bool {
        let x32 =
            matches!(Arch::NATIVE, Arch::X86_64) && self.number >= X32_BIT && self.number < X32_BIT.saturating_mul(2);
        self.arch != Arch::NATIVE.audit() || x32
    }
}

/// What the registers alone say of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScalarVerdict {
    /// The verdict, whatever the supervisor knows besides.
    Known(Verdict),
    /// It depends on the destination or on a budget.
    Asks,
}

/// The syscall rules of a subject, in policy order.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Profile {
    /// The rules.
    pub rules: Vec<SyscallRule>,
    /// Numbers that libraries probe and fall back from: denied with `ENOSYS`, reason `abi.unknown`. Sorted. A probed
    /// number beats its allow rules; a deny rule that matches beats both.
    pub probed: Vec<u32>,
}

impl Profile {
    /// The profile as it is judged in front of a ledger that every growth has to pass, at the moment when it happens: what an
    /// allow rule asks of a budget is left to that ledger.
    ///
    /// The two together allow exactly what the ledger and a profile that knows the growth allow together: where only the budget
    /// refuses, the call runs, and the ledger refuses it with its own reason and errno, once. A budget condition of a *deny*
    /// rule cannot be left out so, and stays: it would turn "denied where it fits" into "denied always".
    #[must_use]
    pub fn in_front_of_the_ledger(&self) -> Cow<'_, Self> {
        let left = |rule: &SyscallRule, condition: &Condition| {
            rule.effect == Effect::Allow && matches!(condition, Condition::Budget(_))
        };
        let mut leaves = self
            .rules
            .iter()
            .flat_map(|rule| rule.conditions.iter().map(move |one| left(rule, one)));
        if !leaves.any(|left| left) {
            return Cow::Borrowed(self);
        }
        let rules = self.rules.iter().map(|rule| SyscallRule {
            conditions: rule.conditions.iter().filter(|one| !left(rule, one)).cloned().collect(),
            ..rule.clone()
        });
        Cow::Owned(Self {
            rules: rules.collect(),
            probed: self.probed.clone(),
        })
    }

    /// Judges a call by its registers alone, as the kernel's filter does.
    ///
    /// `Known(Allow)` is exactly what the filter of this profile lets through without asking; which of several allow
    /// rules is named is then the first that needs no more than the registers.
    #[must_use]
    pub fn judge_scalar(&self, call: &Call) -> ScalarVerdict {
        if call.is_foreign() {
            return ScalarVerdict::Known(Verdict::Deny {
                reason: Reason::AbiForeign,
                errno: Errno::ENOSYS,
                rule: None,
            });
        }
        let of_number = || self.rules.iter().filter(|rule| rule.number == call.number);
        let mut may_deny = false;
        for rule in of_number().filter(|rule| rule.effect == Effect::Deny) {
            match rule.scalar(&call.args) {
                Some(true) if may_deny => return ScalarVerdict::Asks,
                Some(true) => return ScalarVerdict::Known(denied_by(rule)),
                Some(false) => {}
                None => may_deny = true,
            }
        }
        let probed = self.probed.binary_search(&call.number).is_ok();
        let mut may_allow = false;
        let mut allowed_by = None;
        for rule in of_number().filter(|rule| rule.effect == Effect::Allow && !probed) {
            match rule.scalar(&call.args) {
                Some(true) => {
                    allowed_by = Some(rule.rule);
                    break;
                }
                Some(false) => {}
                None => may_allow = true,
            }
        }
        if may_deny || (may_allow && allowed_by.is_none()) {
            return ScalarVerdict::Asks;
        }
        let first_allow = of_number()
            .find(|rule| rule.effect == Effect::Allow)
            .map(|rule| rule.rule);
        ScalarVerdict::Known(match allowed_by {
            Some(rule) => Verdict::Allow { rule: Some(rule) },
            None => lack_of_rule(call.number, probed, first_allow),
        })
    }
}

/// The verdict of a deny rule that matched.
pub(crate) fn denied_by(rule: &SyscallRule) -> Verdict {
    Verdict::Deny {
        reason: Reason::AbiDenyRule,
        errno: rule.errno,
        rule: Some(rule.rule),
    }
}

/// The verdict where no rule matched; `first_allow` is the first allow rule of this number.
pub(crate) fn lack_of_rule(number: u32, probed: bool, first_allow: Option<RuleRef>) -> Verdict {
    let (reason, errno, rule) = match first_allow {
        _ if probed => (Reason::AbiUnknown, Errno::ENOSYS, None),
        Some(rule) if number == syscall::nr::socket || number == syscall::nr::socketpair => {
            (Reason::EgressFamily, Errno::EPERM, Some(rule))
        }
        Some(rule) => (Reason::AbiArgMismatch, Errno::EPERM, Some(rule)),
        None if syscall::by_number(number).is_none() => (Reason::AbiUnknown, Errno::ENOSYS, None),
        None => (Reason::AbiNoRule, Errno::EPERM, None),
    };
    Verdict::Deny { reason, errno, rule }
}
