//! What a proof knows beforehand: the policy, loaded here and not taken from the session that is looked at.

use super::deny;
use crate::run::{Exit, Failure, Places, Session, check_trusted, no_subject, policy_failure};
use nexus_abi::{Reason, RuleRef, Verdict};
use nexus_abi_policy::{Call, Fact, Guard, NoFacts, Request};
use nexus_net_egress::HostAddresses;
use nexus_policy::EgressGate;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What policy says of a subject here, and what is asked of it.
pub(super) struct Context {
    pub(super) policy_directory: Option<PathBuf>,
    pub(super) session: Session,
    pub(super) guard: Guard,
    pub(super) gate: EgressGate,
    /// The host's own addresses, as they are and as they are judged.
    pub(super) own: Vec<IpAddr>,
    pub(super) host: HostAddresses,
    pub(super) places: Places,
}

/// A rule as records have it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Rule {
    pub(super) id: Option<Arc<str>>,
    pub(super) at: Option<Arc<str>>,
}

impl Context {
    pub(super) fn load(policy: Option<&Path>, subject: &str) -> Result<Self, Failure> {
        // The session is started in another directory.
        let policy_directory = policy.map(std::path::absolute).transpose().map_err(|error| {
            Failure::new(
                Exit::Missing,
                format!("the policy's directory cannot be named: {error}"),
            )
        })?;
        let loaded = policyd::load(&policyd::Places::of_process(policy_directory.clone()))
            .map_err(|error| policy_failure(&error))?;
        let rules = loaded
            .policy
            .subject(subject)
            .map_err(|error| no_subject(&error, &loaded.policy))?;
        let places = Places::of_caller(|name| std::env::var(name).ok()).map_err(|why| {
            Failure::new(Exit::Missing, format!("there is no place for a proof: {why}"))
                .with_help("set `HOME` or `XDG_STATE_HOME`")
        })?;
        // Before anything is made there, and above all before what a killed proof left is removed.
        check_trusted(&places)?;
        let invalid = |error: &dyn std::fmt::Display| Failure::rejected(error.to_string(), "see `nx policy validate`");
        let gate = rules.egress_gate().map_err(|error| invalid(&error))?;
        let profiles = rules.profiles_in_force();
        let profiles: Vec<_> = profiles.iter().map(AsRef::as_ref).collect();
        let guard = Guard::new(&profiles).map_err(|error| invalid(&error))?;
        let unknown = |error: &dyn std::fmt::Display| {
            Failure::new(Exit::Missing, format!("the host's addresses cannot be listed: {error}"))
        };
        let own = nexus_sys::interface::addresses().map_err(|error| unknown(&error))?;
        let host = HostAddresses::new(own.iter().copied()).map_err(|error| unknown(&error))?;
        let session = Session::new(loaded.policy, rules, &loaded.origin.to_string())
            .map_err(|error| Failure::internal(format!("the kernel gives no random bytes: {error}")))?;
        Ok(Self {
            policy_directory,
            session,
            guard,
            gate,
            own,
            host,
            places,
        })
    }

    pub(super) fn subject(&self) -> &str {
        &self.session.subject
    }

    pub(super) fn version(&self) -> &str {
        &self.session.version
    }

    /// What the rules say of a call by its registers; of one that is judged by where it leads, where it leads nowhere.
    pub(super) fn judge_call(&self, number: u32, args: [u64; 6]) -> Verdict {
        let mut request = Request::scalar(Call::native(number, args));
        if deny::is_addressed(number) {
            request.destination = Fact::Nothing;
            request.growth = Fact::Nothing;
        }
        self.guard.judge(&request, &NoFacts)
    }

    /// A rule as a record of this reason names it: the one that decided, else the place where one would be written.
    pub(super) fn rule(&self, rule: Option<RuleRef>, reason: Option<Reason>) -> Rule {
        let rules = &self.session.rules;
        let missing = || match reason? {
            Reason::AbiNoRule | Reason::AbiUnknown => rules.syscalls.iter().next_back().map(|layer| layer.no_rule),
            Reason::EgressNoRule => rules.egress.iter().next_back().map(|layer| layer.no_rule),
            _ => None,
        };
        let Some(rule) = rule.or_else(missing) else {
            return Rule::default();
        };
        if let Some(name) = nexus_abi_policy::floor_rule_name(rule) {
            return Rule::built_in(name);
        }
        let info = self.session.rule(Some(rule));
        Rule {
            id: info.as_ref().map(|info| info.id.to_string().into()),
            at: info.map(|info| info.at.into()),
        }
    }
}

impl Rule {
    /// What holds whatever policy says.
    pub(super) fn built_in(name: &str) -> Self {
        Self {
            id: Some(name.into()),
            at: Some("built-in".into()),
        }
    }

    /// `ID at FILE:LINE`
    pub(super) fn text(&self) -> String {
        match (&self.id, &self.at) {
            (Some(id), Some(at)) => format!("{id} at {at}"),
            (Some(id), None) => id.to_string(),
            (None, _) => "none".to_owned(),
        }
    }
}
