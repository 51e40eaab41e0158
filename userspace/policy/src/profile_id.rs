use std::fmt;

use nexus_abi::{Effect, syscall};
use nexus_abi_policy::{Condition, Profile};
use sha2::{Digest as _, Sha256};

use crate::conditions::Written;
use crate::effective::SyscallLayer;
use crate::egress::effect_word;
use crate::json::Json;
use crate::layers::Layers;

/// Which syscalls a subject may make, as a number: the start of the SHA-256 over its rules, ceilings included, groups spread
/// out to calls. Two subjects with the same id may make the same calls; one whose rules come from other files, scopes or
/// groups keeps its id. It differs between architectures where the groups do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProfileId(u64);

impl ProfileId {
    pub(crate) fn of(layers: &Layers<SyscallLayer>) -> Self {
        let says = Json::Array(layers.iter().map(|layer| canonical(&layer.profile)).collect());
        let digest = Sha256::digest(says.render().as_bytes());
        Self(digest.iter().take(8).fold(0, |id, byte| (id << 8) | u64::from(*byte)))
    }
}

impl fmt::Display for ProfileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

fn call(number: u32) -> Json {
    match syscall::name(number) {
        Some(name) => Json::text(name),
        None => Json::Number(u64::from(number)),
    }
}

fn canonical(profile: &Profile) -> Json {
    let rule = |rule: &nexus_abi_policy::SyscallRule| {
        let mut when: Vec<Json> = rule.conditions.iter().map(condition).collect();
        when.sort();
        let mut out = Json::object([
            ("call", call(rule.number)),
            ("effect", Json::text(effect_word(rule.effect))),
        ]);
        out.put("when", Json::Array(when));
        if rule.effect == Effect::Deny {
            out.put("errno", Json::Number(u64::from(rule.errno.raw())));
        }
        out
    };
    let mut rules: Vec<Json> = profile.rules.iter().map(rule).collect();
    rules.sort();
    rules.dedup();
    let mut probe: Vec<Json> = profile.probed.iter().copied().map(call).collect();
    probe.sort();
    Json::object([("rules", Json::Array(rules)), ("probe", Json::Array(probe))])
}

fn condition(condition: &Condition) -> Json {
    match condition {
        // The width is each call's own, so the call says it.
        Condition::Arg { index, test, .. } => Written::Arg {
            index: *index,
            test: test.clone(),
        },
        Condition::Egress => Written::Egress,
        Condition::Budget(area) => Written::Budget(*area),
    }
    .canonical()
}
