//! The `ipc` budget of `quotas.toml`: `[domain.tools.ipc]`.

use nexus_abi::RuleRef;
use toml::de::DeTable;

use crate::effective::Limit;
use crate::fields::Reader;
use crate::json::Json;
use crate::quotas::size;
use crate::rules::{RuleKind, RuleTable};
use crate::scope::{Ruled, ScopeName};

/// What is bounded of a session's IPC. Each of these the kernel counts by itself, so each has a limit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpcLimit {
    /// Bytes of System V shared memory, all segments together. shmget(2).
    Shm,
    /// System V shared memory segments.
    Segments,
    /// Bytes in each System V message queue. msgget(2).
    Queue,
    /// System V message queues.
    Queues,
    /// System V semaphores, all sets together. semget(2).
    Semaphores,
    /// Bytes of all POSIX message queues together, as the kernel reckons them. mq_overview(7).
    Mqueue,
    /// Bytes of all memory files together. memfd_create(2).
    Memfd,
}

impl IpcLimit {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Shm,
        Self::Segments,
        Self::Queue,
        Self::Queues,
        Self::Semaphores,
        Self::Mqueue,
        Self::Memfd,
    ];

    /// The key in policy.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shm => "shm",
            Self::Segments => "segments",
            Self::Queue => "queue",
            Self::Queues => "queues",
            Self::Semaphores => "semaphores",
            Self::Mqueue => "mqueue",
            Self::Memfd => "memfd",
        }
    }

    /// The most that may be written, for what is a count: what the kernel can number (`IPCMNI` in linux/ipc_namespace.h).
    const fn count_max(self) -> Option<u64> {
        match self {
            Self::Segments | Self::Queues | Self::Semaphores => Some(32_000),
            Self::Shm | Self::Queue | Self::Mqueue | Self::Memfd => None,
        }
    }
}

/// The most bytes of one message queue: the kernel counts them as an `int`.
const QUEUE_BYTES_MAX: u64 = 1 << 30;

/// What a scope says. A subject's key replaces its domain's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Says {
    pub(crate) limits: [Option<Ruled<u64>>; IpcLimit::ALL.len()],
}

impl Says {
    fn each(&self) -> impl Iterator<Item = (IpcLimit, &Option<Ruled<u64>>)> {
        IpcLimit::ALL.into_iter().zip(&self.limits)
    }

    pub(crate) fn canonical(&self) -> Json {
        let mut out = Json::object([]);
        for (limit, ruled) in self.each() {
            if let Some(ruled) = ruled {
                out.put(limit.as_str(), Json::Number(ruled.value));
            }
        }
        out
    }
}

pub(crate) fn parse(table: &DeTable<'_>, scope: &ScopeName, rules: &mut RuleTable, reader: &mut Reader<'_>) -> Says {
    reader.known_keys(table, &IpcLimit::ALL.map(IpcLimit::as_str));
    let mut says = Says::default();
    for (limit, slot) in IpcLimit::ALL.into_iter().zip(&mut says.limits) {
        let key = limit.as_str();
        let Some((name, value)) = table.get_key_value(key) else {
            continue;
        };
        let number = match limit.count_max() {
            Some(most) => reader.integer(value, &format!("`{key}`"), 0, most),
            None => size(value, key, reader),
        };
        let Some(number) = number else { continue };
        if limit == IpcLimit::Queue && number > QUEUE_BYTES_MAX {
            reader.error_help(
                crate::diagnostic::Code::BadSize,
                value.span(),
                "a message queue of more than 1GiB is more than the kernel counts",
                "write at most \"1GiB\"",
            );
            continue;
        }
        let place = reader.place(name.span().start..value.span().end);
        let says = Json::object([("area", Json::text("ipc")), (key, Json::Number(number))]);
        let rule = rules.add(RuleKind::Quota, &scope.canonical(), &says, place.clone(), reader.report);
        *slot = Some(Ruled {
            value: number,
            rule,
            place,
        });
    }
    says
}

/// How much IPC a session of the subject may have; of what no rule speaks, nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IpcBudget {
    limits: [Option<Limit>; IpcLimit::ALL.len()],
}

impl IpcBudget {
    /// The limit and the rule that set it.
    #[must_use]
    pub fn get(&self, which: IpcLimit) -> Option<Limit> {
        let found = IpcLimit::ALL
            .into_iter()
            .zip(self.limits)
            .find(|(each, _)| *each == which);
        found.and_then(|(_, limit)| limit)
    }

    /// The limit; 0 where there is none.
    #[must_use]
    pub fn value(&self, which: IpcLimit) -> u64 {
        self.get(which).map_or(0, |limit| limit.value)
    }

    pub(crate) fn merged<'s>(
        own: Option<&'s Says>,
        domain: Option<&'s Says>,
        shift: impl Fn(RuleRef) -> RuleRef,
    ) -> Self {
        let mut out = Self::default();
        // The subject's own last, over its domain's.
        for says in [domain, own].into_iter().flatten() {
            for (slot, ruled) in out.limits.iter_mut().zip(&says.limits) {
                if let Some(ruled) = ruled {
                    *slot = Some(Limit {
                        value: ruled.value,
                        rule: shift(ruled.rule),
                    });
                }
            }
        }
        out
    }

    /// The lower of each. What a ceiling does not speak of it gives nothing of.
    pub(crate) fn narrowed(mut self, ceiling: &Self) -> Self {
        for (own, most) in self.limits.iter_mut().zip(&ceiling.limits) {
            let value = own.map_or(0, |limit| limit.value);
            if most.is_none_or(|most| most.value < value) {
                *own = *most;
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(values: [Option<u64>; 7]) -> IpcBudget {
        IpcBudget {
            limits: values.map(|value| {
                value.map(|value| Limit {
                    value,
                    rule: RuleRef(0),
                })
            }),
        }
    }

    #[test]
    fn under_a_ceiling_the_lower_counts_and_what_it_does_not_name_is_nothing() {
        let own = budget([Some(9), Some(1), None, Some(5), None, None, Some(3)]);
        let ceiling = budget([Some(4), Some(2), Some(7), None, None, Some(1), Some(3)]);
        let values = IpcLimit::ALL.map(|which| own.narrowed(&ceiling).value(which));
        assert_eq!(values, [4, 1, 0, 0, 0, 0, 3]);
    }
}
