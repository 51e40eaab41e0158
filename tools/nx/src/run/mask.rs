//! What syscall rules come to, in numbers, and the name of the filter that is made of them.

use crate::registry::Mask;
use nexus_abi::{Effect, syscall};
use nexus_abi_policy::Profile;
use nexus_sys::seccomp::Instruction;

/// BLAKE3 over the instructions as the kernel takes them: the same for the same filter on every machine.
pub(crate) fn filter_hash(filter: &[Instruction]) -> String {
    let mut hasher = blake3::Hasher::new();
    for one in filter {
        hasher.update(&one.code.to_le_bytes());
        hasher.update(&[one.jump_true, one.jump_false]);
        hasher.update(&one.k.to_le_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Allowed, whatever its arguments.
    Allowed,
    /// Decided by its arguments, or by where it leads.
    Conditional,
    /// Denied.
    Denied,
}

/// What becomes of every call.
pub(crate) struct Classes(Vec<Class>);

impl Classes {
    /// The known calls of a class, by number.
    pub(crate) fn numbers(&self, class: Class) -> impl Iterator<Item = u32> {
        (0..syscall::NUMBERS_MAX)
            .zip(&self.0)
            .filter(move |(number, of)| **of == class && syscall::name(*number).is_some())
            .map(|(number, _)| number)
    }

    /// How many of the known calls are of each class.
    pub(crate) fn counts(&self) -> Mask {
        let count = |class| u32::try_from(self.numbers(class).count()).unwrap_or(u32::MAX);
        Mask {
            allowed: count(Class::Allowed),
            conditional: count(Class::Conditional),
            denied: count(Class::Denied),
        }
    }
}

/// What a profile says of a call.
#[derive(Clone, Copy, Default)]
struct Says {
    allows: bool,
    allows_some: bool,
    denies: bool,
    denies_some: bool,
}

/// What becomes of every call, under all of these profiles at once. In one pass over the rules: a session does it at its
/// start. A call that has a rule with conditions counts as decided by them, also where they hold for everything.
pub(crate) fn mask(profiles: &[&Profile]) -> Classes {
    let numbers = usize::try_from(syscall::NUMBERS_MAX).unwrap_or(0);
    let mut whole = vec![Class::Allowed; numbers];
    for profile in profiles {
        let mut says = vec![Says::default(); numbers];
        for rule in &profile.rules {
            let Some(said) = usize::try_from(rule.number).ok().and_then(|at| says.get_mut(at)) else {
                continue;
            };
            match (rule.effect, rule.conditions.is_empty()) {
                (Effect::Allow, true) => said.allows = true,
                (Effect::Allow, false) => said.allows_some = true,
                (Effect::Deny, true) => said.denies = true,
                (Effect::Deny, false) => said.denies_some = true,
            }
        }
        for number in &profile.probed {
            if let Some(said) = usize::try_from(*number).ok().and_then(|at| says.get_mut(at)) {
                said.denies = true;
            }
        }
        for (whole, said) in whole.iter_mut().zip(says) {
            let here = if said.denies || !(said.allows || said.allows_some) {
                Class::Denied
            } else if said.allows && !said.denies_some {
                Class::Allowed
            } else {
                Class::Conditional
            };
            *whole = (*whole).max(here);
        }
    }
    Classes(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nexus_abi_policy::{Answers, CallAlgebra};
    use nexus_policy::{MemoryTree, Policy};

    #[test]
    fn what_the_rules_say_at_a_glance_is_what_their_exact_sets_say() {
        let policy = Policy::load(&MemoryTree::shipped()).unwrap();
        let rules = policy.subject("demo").unwrap();
        let profiles = rules.profiles();
        let classes = mask(&profiles);
        let mut algebra = CallAlgebra::new();
        for class in [Class::Allowed, Class::Conditional, Class::Denied] {
            for number in classes.numbers(class) {
                let Answers { allowed, .. } = algebra.answers(&profiles, number).unwrap();
                let exact = if allowed.is_all() {
                    Class::Allowed
                } else if allowed.is_empty() {
                    Class::Denied
                } else {
                    Class::Conditional
                };
                assert_eq!(class, exact, "{:?}", syscall::name(number));
            }
        }
    }

    #[test]
    fn another_filter_has_another_name_and_the_same_the_same() {
        let one = Instruction {
            code: 6,
            jump_true: 0,
            jump_false: 0,
            k: 0x7fff_0000,
        };
        let other = Instruction { k: 0x7fff_0001, ..one };
        assert_eq!(filter_hash(&[one]), filter_hash(&[one]));
        assert_ne!(filter_hash(&[one]), filter_hash(&[other]));
        assert_ne!(filter_hash(&[one]), filter_hash(&[one, one]));
    }
}
