//! What a session is called and judged by.

use nexus_abi::RuleRef;
use nexus_policy::{Policy, RuleInfo, SubjectPolicy};
use std::sync::Arc;

/// One running program under a subject.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// The subject's name.
    pub(crate) subject: Arc<str>,
    /// The session's own name: 12 hexadecimal digits, unlike any other on this machine for all practical purposes.
    pub(crate) id: Arc<str>,
    /// Where the policy came from.
    pub(crate) origin: Arc<str>,
    /// The PolicyVersion.
    pub(crate) version: Arc<str>,
    /// The policy, to look rules up.
    pub(crate) policy: Policy,
    /// The subject's own.
    pub(crate) rules: Arc<SubjectPolicy>,
}

impl Session {
    pub(crate) fn new(policy: Policy, rules: SubjectPolicy, origin: &str) -> std::io::Result<Self> {
        let mut random = [0_u8; 6];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self {
            subject: rules.name.as_str().into(),
            id: id.into(),
            origin: origin.into(),
            version: policy.version().to_string().into(),
            policy,
            rules: Arc::new(rules),
        })
    }

    /// The rule that decided, where it stands.
    pub(crate) fn rule(&self, rule: Option<RuleRef>) -> Option<RuleInfo> {
        rule.and_then(|rule| self.policy.rule(rule))
    }
}
