//! Everything that judges and writes down, put together as a session does it, with a clock that stands still.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use nexus_abi::{Area, Errno, Operation, Protocol, Reason, RuleRef, Verdict};
use nexus_abi_policy::{Call, Destination, Fact, Facts, Growth, Guard, Request};
use nexus_audit::{Admission, Counter, Counters, Judgement, RateLimit, RateLimiter, Record, UnixMillis};
use nexus_net_egress::HostAddresses;
use nexus_policy::{EgressGate, MemoryTree, Policy, SubjectPolicy};
use nexus_quota::{Amount, Decision, Ledger, charged_bytes};

/// What the sink holds; the oldest gives way.
pub(crate) const SINK_RECORDS_MAX: usize = 64;

/// One record a second after the first two.
pub(crate) const RATE: RateLimit = RateLimit {
    burst: 2,
    interval_ns: 1_000_000_000,
};

/// Rules of a subject whose write and connect are judged by what they would use and reach, on top of the shipped tree.
const TIGHT: &[(&str, &str)] = &[
    (
        "nexus.policy.toml",
        "\n[subject.tight]\n\n[subject.other]\ndomain = \"tools\"\n",
    ),
    (
        "quotas.toml",
        "\n[subject.tight.state]\nhard = \"16KiB\"\ninodes = 8\n\n[subject.other.tmp]\nhard = \"8KiB\"\nsoft = \"4KiB\"\ninodes = 2\n",
    ),
    (
        "egress.toml",
        "\n[subject.tight]\nallow = [\"203.0.113.0/24:443,8000-8100\", \"[2001:db8::]/32:443\"]\ndeny = [\"203.0.113.9:443\"]\n",
    ),
    (
        "abi.toml",
        "\n[subject.tight]\nallow = [\"close\"]\n\
         [[subject.tight.rule]]\nsyscall = [\"write\", \"pwrite64\"]\neffect = \"allow\"\nwhen = [{ budget = \"state\" }]\n\
         [[subject.tight.rule]]\nsyscall = [\"connect\", \"bind\"]\neffect = \"allow\"\nwhen = [{ egress = true }]\n",
    ),
];

/// The shipped policy, with two subjects more.
pub(crate) fn policy() -> Policy {
    let shipped = MemoryTree::shipped();
    let files = shipped.files().map(|(path, content)| {
        let more = TIGHT
            .iter()
            .find(|(file, _)| *file == path)
            .map_or("", |(_, more)| *more);
        (path.to_owned(), [content, more.as_bytes()].concat())
    });
    match Policy::load(&MemoryTree::new(files.collect::<Vec<_>>())) {
        Ok(policy) => policy,
        Err(errors) => panic!("{errors}"),
    }
}

/// A subject with its ledger, its rules and its records.
pub(crate) struct Desk {
    pub(crate) subject: Arc<str>,
    pub(crate) policy: Policy,
    pub(crate) ledger: Ledger,
    pub(crate) counters: Counters,
    pub(crate) now_ns: u64,
    rules: SubjectPolicy,
    guard: Guard,
    gate: EgressGate,
    limiter: RateLimiter,
    sink: VecDeque<Record>,
}

impl Desk {
    pub(crate) fn new(subject: &str) -> Self {
        let policy = policy();
        let rules = policy.subject(subject).unwrap();
        let ledger = Area::ALL.iter().fold(Ledger::default(), |ledger, area| {
            let budget = rules.budgets.get(*area).unwrap().budget;
            ledger.with(*area, budget, Amount::ZERO)
        });
        Self {
            subject: subject.into(),
            guard: Guard::new(&rules.profiles()).unwrap(),
            gate: rules.egress_gate().unwrap(),
            ledger,
            policy,
            rules,
            counters: Counters::new(),
            now_ns: 0,
            limiter: RateLimiter::new(RATE),
            sink: VecDeque::new(),
        }
    }

    /// What was recorded, oldest first.
    pub(crate) fn records(&self) -> Vec<&Record> {
        self.sink.iter().collect()
    }

    pub(crate) fn last(&self) -> &Record {
        self.sink.back().expect("something was recorded")
    }

    pub(crate) fn count(&self, counter: Counter) -> u64 {
        self.counters.get(&self.subject, counter)
    }

    pub(crate) fn used(&self, area: Area) -> Amount {
        self.ledger.account(area).used()
    }

    /// Makes an empty file, as the file server does.
    pub(crate) fn create(&mut self, area: Area) -> Result<(), Errno> {
        let decision = self.ledger.charge(area, Amount::INODE);
        self.settle(area, Operation::Create, decision, format!("{area} file"))
    }

    /// Writes past the end of a file of `len` bytes, as the file server does: the growth is charged whole, or nothing is
    /// written.
    pub(crate) fn append(&mut self, area: Area, len: &mut u64, bytes: u64) -> Result<(), Errno> {
        let growth = growth_bytes(*len, bytes);
        let decision = self.ledger.charge(area, Amount::of_bytes(growth));
        self.settle(area, Operation::Write, decision, format!("{area} file {bytes} bytes"))?;
        *len += bytes;
        Ok(())
    }

    fn settle(&mut self, area: Area, op: Operation, decision: Decision, object: String) -> Result<(), Errno> {
        let budget = *self.rules.budgets.get(area).unwrap();
        if let Some(reason) = decision.warning {
            self.record(op, object.clone(), Judgement::Warn, reason, budget.soft_rule);
        }
        let verdict = match decision.verdict {
            Verdict::Deny { reason, errno, .. } => {
                let rule = match reason {
                    Reason::QuotaHardInodes => budget.inodes_rule,
                    _ => budget.hard_rule,
                };
                Verdict::Deny { reason, errno, rule }
            }
            allow @ Verdict::Allow { .. } => allow,
        };
        self.tell(op, object, verdict)
    }

    /// Connects, as the network service does.
    pub(crate) fn connect(&mut self, protocol: Protocol, to: &str) -> Result<(), Errno> {
        let address: SocketAddr = to.parse().unwrap();
        let route = self
            .gate
            .judge(protocol, address.ip(), address.port(), &HostAddresses::none());
        self.tell(Operation::Connect, format!("{protocol} {address}"), route.verdict)
    }

    /// Asks the guard about a call, as the supervisor does before anyone acts.
    pub(crate) fn guard(
        &mut self,
        op: Operation,
        number: u32,
        destination: Option<&str>,
        growth: Option<Growth>,
    ) -> Result<(), Errno> {
        let destination = destination.map_or(Fact::Nothing, |to| {
            Fact::Is(Destination {
                protocol: Protocol::Tcp,
                address: to.parse().unwrap(),
            })
        });
        let request = Request {
            call: Call::native(number, [3, 0, 0, 0, 0, 0]),
            destination,
            growth: growth.map_or(Fact::Nothing, Fact::Is),
        };
        let verdict = self.guard.judge(
            &request,
            &Judges {
                gate: &self.gate,
                ledger: &self.ledger,
            },
        );
        self.tell(op, nexus_abi::syscall::name(number).unwrap().to_owned(), verdict)
    }

    fn tell(&mut self, op: Operation, object: String, verdict: Verdict) -> Result<(), Errno> {
        match verdict {
            Verdict::Allow { .. } => {
                if let Some(counter) = Counter::of_allow(op) {
                    self.counters.add(&self.subject, counter, 1).unwrap();
                }
                Ok(())
            }
            Verdict::Deny { reason, errno, rule } => {
                self.record(op, object, Judgement::Deny(errno), reason, rule);
                Err(errno)
            }
        }
    }

    fn record(&mut self, op: Operation, object: String, verdict: Judgement, reason: Reason, rule: Option<RuleRef>) {
        if let Some(counter) = Counter::of_record(verdict, reason) {
            self.counters.add(&self.subject, counter, 1).unwrap();
        }
        let Admission::Admit { suppressed_before } = self.limiter.admit(&self.subject, reason, self.now_ns) else {
            return;
        };
        let info = rule.and_then(|rule| self.policy.rule(rule));
        while self.sink.len() >= SINK_RECORDS_MAX {
            self.sink.pop_front();
        }
        self.sink.push_back(Record {
            mono_ns: self.now_ns,
            time: UnixMillis::new(0),
            subject: Arc::clone(&self.subject),
            session: "0123456789ab".into(),
            op,
            object: object.into(),
            verdict,
            reason,
            rule: info.as_ref().map(|info| info.id.to_string().into()),
            at: info.map(|info| info.at.into()),
            policy: self.policy.version().to_string().into(),
            suppressed: suppressed_before,
        });
    }
}

/// By how much a write of `bytes` at the end makes a file of `len` bytes cost more.
pub(crate) fn growth_bytes(len: u64, bytes: u64) -> u64 {
    charged_bytes(len + bytes).unwrap() - charged_bytes(len).unwrap()
}

struct Judges<'d> {
    gate: &'d EgressGate,
    ledger: &'d Ledger,
}

impl Facts for Judges<'_> {
    fn egress(&self, to: &Destination) -> Verdict {
        let host = HostAddresses::none();
        self.gate
            .judge(to.protocol, to.address.ip(), to.address.port(), &host)
            .verdict
    }

    fn budget(&self, growth: &Growth) -> Verdict {
        let amount = Amount {
            bytes: growth.bytes,
            inodes: growth.inodes,
            links: 0,
        };
        self.ledger.would_fit(growth.area, amount)
    }
}
