//! Conditions of syscall rules in words.

use nexus_abi::syscall;
use nexus_abi_policy::{ArgTest, Condition};
use nexus_policy::constants;

/// Which names an argument's values go by: the call, the argument, and what the names begin with.
const NAMED: [(&str, u8, &[&str]); 13] = [
    ("clone", 0, &["CLONE_"]),
    ("fcntl", 1, &["F_"]),
    ("ioctl", 1, &["FIO", "TC", "TIOC"]),
    ("memfd_create", 1, &["MFD_"]),
    ("mmap", 2, &["PROT_"]),
    ("mprotect", 2, &["PROT_"]),
    ("prctl", 0, &["PR_"]),
    ("sendmsg", 2, &["MSG_"]),
    ("sendto", 3, &["MSG_"]),
    ("setsockopt", 1, &["SOL_"]),
    ("socket", 0, &["AF_"]),
    ("socket", 2, &["IPPROTO_"]),
    ("unshare", 0, &["CLONE_"]),
];

/// The conditions of a rule for one call, all of which must hold.
pub(super) fn conditions(call: u32, conditions: &[Condition]) -> String {
    let words: Vec<String> = conditions.iter().map(|one| condition(call, one)).collect();
    words.join(" and ")
}

fn condition(call: u32, condition: &Condition) -> String {
    let (index, test) = match condition {
        Condition::Egress => return "egress allows the destination".to_owned(),
        Condition::Budget(area) => return format!("it fits what is left of {area}, as the file server finds"),
        Condition::Arg { index, test, .. } => (*index, test),
    };
    let name = |value: &u64| named(call, index, *value).map_or_else(|| number(*value), str::to_owned);
    match test {
        ArgTest::Equal(value) => format!("argument {index} is {}", name(value)),
        ArgTest::OneOf(values) => {
            let names: Vec<String> = values.iter().map(name).collect();
            match names.split_last() {
                Some((last, [])) => format!("argument {index} is {last}"),
                Some((last, rest)) => format!("argument {index} is {} or {last}", rest.join(", ")),
                None => format!("argument {index} is nothing at all"),
            }
        }
        ArgTest::Range { first, last } => format!("argument {index} is from {} to {}", number(*first), number(*last)),
        ArgTest::AnyBit(bits) => format!("argument {index} has a bit of {}", flags(call, index, *bits)),
        ArgTest::Masked { mask, value: 0 } => format!("argument {index} has no bit of {}", flags(call, index, *mask)),
        ArgTest::Masked { mask, value } => {
            format!("argument {index} has {} of the bits {}", number(*value), number(*mask))
        }
    }
}

/// Small numbers as people write them, others by their bits.
fn number(value: u64) -> String {
    if value < 10 {
        value.to_string()
    } else {
        format!("{value:#x}")
    }
}

fn names(call: u32, index: u8) -> impl Iterator<Item = (&'static str, u64)> {
    let call = syscall::name(call).unwrap_or_default();
    let starts: &[&str] = NAMED
        .iter()
        .find(|(known, at, _)| *known == call && *at == index)
        .map_or(&[], |(_, _, starts)| starts);
    constants().filter(move |(name, _)| starts.iter().any(|start| name.starts_with(start)))
}

fn named(call: u32, index: u8, value: u64) -> Option<&'static str> {
    names(call, index)
        .find(|(_, known)| *known == value)
        .map(|(name, _)| name)
}

/// The names of all bits, or the number where some have none.
fn flags(call: u32, index: u8, bits: u64) -> String {
    let found: Vec<(&str, u64)> = names(call, index)
        .filter(|(_, bit)| bit.is_power_of_two() && bits & bit != 0)
        .collect();
    let covered = found.iter().fold(0, |all, (_, bit)| all | bit);
    if covered == bits {
        let names: Vec<&str> = found.iter().map(|(name, _)| *name).collect();
        names.join("|")
    } else {
        number(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nexus_abi::syscall::Width;

    fn words(name: &str, index: u8, test: ArgTest) -> String {
        let width = Width::W32;
        conditions(syscall::number(name).unwrap(), &[Condition::Arg { index, width, test }])
    }

    #[test]
    fn values_have_their_names_where_they_mean_them_and_numbers_elsewhere() {
        assert_eq!(
            words("ioctl", 1, ArgTest::OneOf([0x5412, 0x541c].into())),
            "argument 1 is TIOCSTI or TIOCLINUX"
        );
        assert_eq!(words("socket", 0, ArgTest::Equal(2)), "argument 0 is AF_INET");
        assert_eq!(words("socket", 1, ArgTest::Equal(2)), "argument 1 is 2");
        assert_eq!(
            words("clone", 0, ArgTest::AnyBit(0x1002_0000)),
            "argument 0 has a bit of CLONE_NEWNS|CLONE_NEWUSER"
        );
        assert_eq!(
            words("clone", 0, ArgTest::AnyBit(0x1002_0001)),
            "argument 0 has a bit of 0x10020001"
        );
        assert_eq!(
            words(
                "mknod",
                1,
                ArgTest::Masked {
                    mask: 0xf000,
                    value: 0x2000
                }
            ),
            "argument 1 has 0x2000 of the bits 0xf000"
        );
        assert_eq!(
            words("unshare", 0, ArgTest::Masked { mask: 0x80, value: 0 }),
            "argument 0 has no bit of CLONE_NEWTIME"
        );
    }
}
