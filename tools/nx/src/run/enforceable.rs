//! What policy says and this version cannot make true: then nothing starts. Nothing is ever silently weaker.

use super::failure::Failure;
use nexus_abi::{RuleRef, syscall};
use nexus_abi_policy::Condition;
use nexus_policy::{Policy, SubjectPolicy};

/// Refuses a subject some rule of which nobody would enforce, naming the rule.
pub(crate) fn check(rules: &SubjectPolicy, policy: &Policy) -> Result<(), Failure> {
    let at = |rule: RuleRef| {
        policy
            .rule(rule)
            .map_or_else(String::new, |info| format!(" ({} at {})", info.id, info.at))
    };
    conditions(rules, at)
}

/// A condition that only the supervisor can judge needs somebody there who finds the fact out: the destination is known
/// for the calls that take one, what a call makes grow for none yet.
fn conditions(rules: &SubjectPolicy, at: impl Fn(RuleRef) -> String) -> Result<(), Failure> {
    let addressed = ["connect", "bind", "sendto", "sendmsg", "sendmmsg"].map(syscall::number);
    for profile in rules.profiles() {
        for rule in &profile.rules {
            for condition in &rule.conditions {
                let name = syscall::name(rule.number).unwrap_or("?");
                let what = match condition {
                    Condition::Arg { .. } => continue,
                    Condition::Egress if addressed.contains(&Some(rule.number)) => continue,
                    Condition::Egress => format!("where `{name}` sends to"),
                    Condition::Budget(area) => format!("how much `{name}` makes `{area}` grow"),
                };
                return Err(Failure::unsupported(
                    format!(
                        "a syscall rule{} asks {what}, which this version does not find out",
                        at(rule.rule)
                    ),
                    "leave the condition out: the egress rules and the budget hold without it",
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nexus_policy::MemoryTree;

    /// What is said of subject `demo` of the shipped tree with this text more in one of its files.
    fn said(file: &str, more: &str) -> Option<String> {
        let shipped = MemoryTree::shipped();
        let files = shipped.files().map(|(name, content)| {
            let mut content = content.to_vec();
            if name == file {
                content.extend(more.bytes());
            }
            (name.to_owned(), content)
        });
        let policy = Policy::load(&MemoryTree::new(files)).unwrap();
        let rules = policy.subject("demo").unwrap();
        check(&rules, &policy).err().map(|failure| failure.message)
    }

    #[test]
    fn the_shipped_tree_can_be_enforced() {
        assert_eq!(said("abi.toml", ""), None);
    }

    #[test]
    fn a_condition_on_a_destination_can_be_enforced_where_there_is_one() {
        let rule = |name: &str| {
            format!("\n[[subject.demo.rule]]\nsyscall = \"{name}\"\neffect = \"deny\"\nwhen = [{{ egress = true }}]\n")
        };
        for name in ["connect", "bind", "sendto", "sendmsg", "sendmmsg"] {
            assert_eq!(said("abi.toml", &rule(name)), None, "{name}");
        }
    }

    #[test]
    fn a_condition_on_a_budget_cannot_be_enforced() {
        let rule = "\n[[subject.demo.rule]]\nsyscall = \"write\"\neffect = \"deny\"\nwhen = [{ budget = \"tmp\" }]\n";
        let message = said("abi.toml", rule).unwrap();
        assert!(message.contains("how much `write` makes `tmp` grow"), "{message}");
    }

    #[test]
    fn rules_for_addresses_names_and_ports_over_both_protocols_can_be_enforced() {
        for rule in [
            "203.0.113.7:443",
            "udp 203.0.113.7:53",
            "git.example.org:443",
            "udp *.example.org:53",
        ] {
            let text = format!("\n[domain.tools]\nallow = [\"{rule}\"]\nbind = [\"udp 5353\"]\n");
            assert_eq!(said("egress.toml", &text), None, "{rule}");
        }
    }
}
