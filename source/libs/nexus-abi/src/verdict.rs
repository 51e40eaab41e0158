use crate::{Errno, Reason};

/// A rule of the loaded policy, by its place in the policy's rule table.
///
/// The table gives the rule's stable id and its file and line; a number keeps verdicts `Copy` and free of strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleRef(pub u32);

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// Lets it through.
    Allow,
    /// Refuses it. Deny beats allow.
    Deny,
}

/// A transport protocol that egress rules speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP, and MPTCP, which is judged as TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The name in policy, records and output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl core::fmt::Display for Protocol {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The judgement of one request. A denial is a value, not an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The request goes through, by this rule where one was needed.
    Allow {
        /// The deciding rule; `None` where no rule is needed, as for a subject's own loopback.
        rule: Option<RuleRef>,
    },
    /// The request is refused.
    Deny {
        /// Why.
        reason: Reason,
        /// What the program is told.
        errno: Errno,
        /// The deciding rule; `None` where the lack of one decided.
        rule: Option<RuleRef>,
    },
}

impl Verdict {
    /// Whether the request goes through.
    #[must_use]
    pub const fn is_allow(self) -> bool {
        matches!(self, Self::Allow { .. })
    }

    /// The deciding rule, if one decided.
    #[must_use]
    pub const fn rule(self) -> Option<RuleRef> {
        match self {
            Self::Allow { rule } | Self::Deny { rule, .. } => rule,
        }
    }
}
