//! What policy says and this version cannot make true: then nothing starts. Nothing is ever silently weaker.

use super::failure::Failure;
use nexus_abi::{Effect, Protocol, RuleRef, syscall};
use nexus_abi_policy::Condition;
use nexus_policy::{EgressGate, Policy, SubjectPolicy};

/// Refuses a subject some rule of which nobody would enforce, naming the rule.
pub(crate) fn check(rules: &SubjectPolicy, egress: &EgressGate, policy: &Policy) -> Result<(), Failure> {
    let at = |rule: RuleRef| {
        policy
            .rule(rule)
            .map_or_else(String::new, |info| format!(" ({} at {})", info.id, info.at))
    };
    if let Some(name) = rules.needs_names() {
        return Err(Failure::unsupported(
            format!(
                "the egress rule for `{}`{} names a host, which this version cannot enforce",
                name.pattern,
                at(name.rule)
            ),
            "write the addresses instead",
        ));
    }
    if egress.opens(Protocol::Udp) {
        let rule = rules
            .egress
            .iter()
            .flat_map(|layer| &layer.rules)
            .find(|rule| rule.protocol == Protocol::Udp && rule.effect == Effect::Allow);
        return Err(Failure::unsupported(
            format!(
                "an egress rule{} allows udp, which this version cannot enforce",
                rule.map_or_else(String::new, |rule| at(rule.rule))
            ),
            "leave it out, or use tcp",
        ));
    }
    conditions(rules, at)
}

/// A condition that only the supervisor can judge needs somebody there who finds the fact out: the destination is known
/// for connect(2), what a call makes grow for none yet.
fn conditions(rules: &SubjectPolicy, at: impl Fn(RuleRef) -> String) -> Result<(), Failure> {
    let connect = syscall::number("connect");
    for profile in rules.profiles() {
        for rule in &profile.rules {
            for condition in &rule.conditions {
                let name = syscall::name(rule.number).unwrap_or("?");
                let what = match condition {
                    Condition::Arg { .. } => continue,
                    Condition::Egress if Some(rule.number) == connect => continue,
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
        let egress = rules.egress_gate().unwrap();
        check(&rules, &egress, &policy).err().map(|failure| failure.message)
    }

    #[test]
    fn the_shipped_tree_can_be_enforced() {
        assert_eq!(said("abi.toml", ""), None);
    }

    #[test]
    fn a_condition_on_the_destination_of_connect_can_be_enforced_and_of_sendto_cannot() {
        let rule = |name: &str| {
            format!("\n[[subject.demo.rule]]\nsyscall = \"{name}\"\neffect = \"deny\"\nwhen = [{{ egress = true }}]\n")
        };
        assert_eq!(said("abi.toml", &rule("connect")), None);
        let message = said("abi.toml", &rule("sendto")).unwrap();
        assert!(
            message.contains("where `sendto` sends to") && message.contains("abi.toml:"),
            "{message}"
        );
    }

    #[test]
    fn a_condition_on_a_budget_cannot_be_enforced() {
        let rule = "\n[[subject.demo.rule]]\nsyscall = \"write\"\neffect = \"deny\"\nwhen = [{ budget = \"tmp\" }]\n";
        let message = said("abi.toml", rule).unwrap();
        assert!(message.contains("how much `write` makes `tmp` grow"), "{message}");
    }

    #[test]
    fn a_rule_for_udp_or_for_a_name_cannot_be_enforced() {
        let domain = |rule: &str| format!("\n[domain.tools]\nallow = [\"{rule}\"]\n");
        assert_eq!(said("egress.toml", &domain("203.0.113.7:443")), None);
        let udp = said("egress.toml", &domain("udp 203.0.113.7:53")).unwrap();
        assert!(udp.contains("allows udp"), "{udp}");
        let name = said("egress.toml", &domain("git.example.org:443")).unwrap();
        assert!(name.contains("git.example.org"), "{name}");
    }
}
