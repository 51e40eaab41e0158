//! What policy says and this version cannot make true: then nothing starts. Nothing is ever silently weaker.

use super::failure::Failure;
use nexus_abi::{Area, Effect, RuleRef, syscall};
use nexus_abi_policy::Condition;
use nexus_policy::{Policy, SubjectPolicy, WorkMode};

/// Refuses a subject some rule of which nobody would enforce, naming the rule.
pub(crate) fn check(rules: &SubjectPolicy, policy: &Policy) -> Result<(), Failure> {
    let at = |rule: RuleRef| {
        policy
            .rule(rule)
            .map_or_else(String::new, |info| format!(" ({} at {})", info.id, info.at))
    };
    conditions(rules, at)
}

/// A condition on what the registers don't tell needs somebody who finds it out: the destination is known for the calls that
/// take one, and growth is judged by the file server when it happens. What it does not serve nobody judges; and nobody can
/// say before a call what a deny rule would have to know.
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
                    Condition::Budget(Area::Work) if rules.work == WorkMode::Unmetered => {
                        return Err(Failure::unsupported(
                            format!(
                                "a syscall rule{} asks for the budget of `work`, which is not counted: sandbox.toml says `work = \"unmetered\"`",
                                at(rule.rule)
                            ),
                            "write `work = \"metered\"` and give it a budget in quotas.toml, or leave the condition out",
                        ));
                    }
                    Condition::Budget(_) if rule.effect == Effect::Allow => continue,
                    Condition::Budget(area) => {
                        return Err(Failure::unsupported(
                            format!(
                                "a syscall rule{} denies `{name}` where it fits what is left of `{area}`, which nobody knows before it is done",
                                at(rule.rule)
                            ),
                            "what does not fit is denied without any rule; to say so here, give an allow rule the condition",
                        ));
                    }
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
        said_of(&[(file, more)])
    }

    fn said_of(more: &[(&str, &str)]) -> Option<String> {
        let shipped = MemoryTree::shipped();
        let files = shipped.files().map(|(name, content)| {
            let mut content = content.to_vec();
            for (_, more) in more.iter().filter(|(file, _)| *file == name) {
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

    fn asks(effect: &str, area: &str) -> String {
        format!(
            "\n[[subject.demo.rule]]\nsyscall = \"write\"\neffect = \"{effect}\"\nwhen = [{{ budget = \"{area}\" }}]\n"
        )
    }

    #[test]
    fn an_allow_rule_may_ask_for_any_budget_that_is_counted() {
        for area in ["tmp", "state", "work"] {
            assert_eq!(said("abi.toml", &asks("allow", area)), None, "{area}");
        }
    }

    #[test]
    fn a_rule_cannot_ask_for_the_budget_of_a_work_directory_that_is_not_counted() {
        let unmetered = "\n[subject.demo]\nwork = \"unmetered\"\n";
        let message = said_of(&[("sandbox.toml", unmetered), ("abi.toml", &asks("allow", "work"))]).unwrap();
        assert!(
            message.contains("abi.toml:") && message.contains("not counted"),
            "{message}"
        );
        // The nearest that can be enforced.
        let others = said_of(&[("sandbox.toml", unmetered), ("abi.toml", &asks("allow", "state"))]);
        assert_eq!(others, None);
    }

    #[test]
    fn a_deny_rule_cannot_ask_whether_a_write_fits() {
        let message = said("abi.toml", &asks("deny", "tmp")).unwrap();
        assert!(
            message.contains("denies `write` where it fits what is left of `tmp`"),
            "{message}"
        );
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
