//! Whether what is proven is what the subject's running sessions are held to: each keeps the policy that it began with.

use super::context::Context;
use crate::registry;
use crate::run::plain;
use serde_json::{Value, json};

/// How many sessions are named; past that they are counted.
const NAMED_MAX: usize = 16;

/// The sessions of the subject that are under another policy than the one that is proven.
#[derive(Debug, Default)]
pub(super) struct Others {
    /// Session, PolicyVersion, and where that policy came from.
    sessions: Vec<[String; 3]>,
    more: usize,
    /// What keeps it from being known.
    unknown: Option<String>,
}

impl Others {
    /// Looks at who runs, and waits for nobody.
    pub(super) fn of(context: &Context) -> Self {
        let listing = match registry::list(&context.places.runtime) {
            Ok(listing) => listing,
            Err(error) => {
                return Self {
                    unknown: Some(error.to_string()),
                    ..Self::default()
                };
            }
        };
        let of_subject = |live: &registry::Live| live.facts.subject == context.subject();
        let others = listing
            .live
            .into_iter()
            .filter(of_subject)
            .filter(|live| live.facts.policy != context.version());
        let mut sessions: Vec<_> = others
            .map(|live| [live.facts.session, live.facts.policy, live.facts.origin])
            .collect();
        let more = sessions.len().saturating_sub(NAMED_MAX);
        sessions.truncate(NAMED_MAX);
        let first = listing.troubles.first();
        let unknown = first.map(|trouble| format!("session {}: {}", trouble.session, trouble.why));
        Self {
            sessions,
            more,
            unknown,
        }
    }

    /// A line for each thing to say; none where every running session is under the policy that is proven.
    pub(super) fn lines(&self) -> Vec<String> {
        let named = self.sessions.iter().map(|[session, policy, origin]| {
            format!(
                "session {} runs under another policy, {} of {}: what is proven here is not what it is held to",
                plain(session),
                plain(policy),
                plain(origin)
            )
        });
        let more = (self.more > 0).then(|| {
            format!(
                "{} more sessions run under another policy: `nx sec ps` shows them",
                self.more
            )
        });
        let unknown = self.unknown.as_ref().map(|why| {
            format!(
                "whether every running session is under this policy is not known: {}",
                plain(why)
            )
        });
        named.chain(more).chain(unknown).collect()
    }

    /// The same for programs.
    pub(super) fn json(&self) -> Value {
        let sessions: Vec<Value> = self
            .sessions
            .iter()
            .map(|[session, policy, origin]| json!({"session": session, "policy": policy, "origin": origin}))
            .collect();
        json!({"sessions": sessions, "more": self.more, "unknown": self.unknown})
    }
}
