//! The ledger as the file system uses it: shared by its threads, with events, and with what is about to be free.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant};

use nexus_abi::{Area, Operation, Reason, Verdict};
use nexus_quota::{Account, Amount, Budget, Decision, Ledger};
use nexus_wire::Bounded;
use nexus_wire::vfs::{AreaUsage, Budgets, Event, PolicyHex, WorkUsage};
use rustix::io::Errno;

use super::events::EventQueue;
use super::node::Node;
use super::serve::{Others, aside};

/// How long a request that does not fit waits for a close that is on its way. The kernel sends a close without waiting
/// for our answer, so a program that closed the last handle of an unlinked file and goes on at once may come first.
const CLOSING_WAIT: Duration = Duration::from_millis(50);

/// How long it waits at least: a close that was taken from the device may not have been begun. After that it waits only while
/// the threads are at what they were at, or requests have waited ever since.
const CLOSING_WAIT_MIN: Duration = Duration::from_millis(2);

/// How often that is looked at.
const CLOSING_LOOK: Duration = Duration::from_millis(1);

/// Who asked for what: what an event tells of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker<'a> {
    pub(crate) operation: Operation,
    /// The file's last known name.
    pub(crate) name: &'a [u8],
    pub(crate) pid: u32,
}

/// A file without a name or an open handle. The kernel has yet to forget it, which it does at once unless the program
/// holds it by an `O_PATH` descriptor; what it costs is given back then, or as soon as the room is needed.
#[derive(Debug)]
struct Orphan {
    area: Area,
    cost: Amount,
    node: Weak<Node>,
}

#[derive(Debug)]
struct Inner {
    ledger: Ledger,
    policy: PolicyHex,
    /// What was in the work directories when their serving began, with what others were seen to add since.
    work_start: Amount,
    /// By how much they may grow.
    work_budget: Budget,
    has_work: bool,
    /// By node id; bounded by the table of nodes.
    orphans: HashMap<u64, Orphan>,
    /// How many inodes have no name and an open handle.
    unlinked_open: u64,
    /// Counts what changes `unlinked_open`.
    turn: u64,
    /// The turn at which waiting for a close was in vain: nobody waits again before something has changed.
    in_vain: Option<u64>,
}

/// The ledger and everything that has to change together with it. The lock is never held over a call to the kernel.
#[derive(Debug)]
pub(crate) struct Books {
    inner: Mutex<Inner>,
    events: Arc<EventQueue>,
    closed: Condvar,
    /// One request at a time waits for a close; the others are answered.
    patience: Mutex<()>,
}

impl Books {
    pub(crate) fn new(ledger: Ledger, policy: PolicyHex, events: Arc<EventQueue>) -> Self {
        let orphans = HashMap::new();
        let inner = Inner {
            work_budget: ledger.account(Area::Work).budget(),
            work_start: Amount::ZERO,
            has_work: false,
            ledger,
            policy,
            orphans,
            unlinked_open: 0,
            turn: 0,
            in_vain: None,
        };
        Self {
            inner: Mutex::new(inner),
            events,
            closed: Condvar::new(),
            patience: Mutex::new(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Charges `amount` whole or says `EDQUOT`, telling of the denial or of a crossing of soft.
    ///
    /// `INVARIANT(paid-for)`: every caller charges before it lets a length grow.
    pub(crate) fn charge(&self, area: Area, amount: Amount, asker: Asker<'_>) -> Result<(), Errno> {
        let mut inner = self.lock();
        let mut decision = inner.ledger.charge(area, amount);
        if !decision.verdict.is_allow() {
            inner = self.reclaim(inner, area);
            decision = inner.ledger.charge(area, amount);
        }
        if !decision.verdict.is_allow() && inner.unlinked_open > 0 {
            (inner, decision) = self.charge_after_closes(inner, area, amount, decision);
        }
        let policy = inner.policy.clone();
        drop(inner);
        let tell = |reason: Reason| {
            let inodes = reason == Reason::QuotaHardInodes;
            self.events.push(Event {
                area,
                operation: asker.operation,
                reason,
                name: Bounded::cut(asker.name),
                asked: if inodes {
                    amount.inodes.max(amount.links)
                } else {
                    amount.bytes
                },
                pid: asker.pid,
                policy,
            });
        };
        match decision.verdict {
            Verdict::Allow { .. } => {
                if let Some(warning) = decision.warning {
                    tell(warning);
                }
                Ok(())
            }
            Verdict::Deny { reason, errno, .. } => {
                tell(reason);
                Err(Errno::from_raw_os_error(i32::from(errno.raw())))
            }
        }
    }

    /// Tells of a denial that the ledger has no part in.
    pub(crate) fn refused(&self, area: Area, operation: Operation, reason: Reason, name: &[u8], pid: u32) {
        let policy = self.lock().policy.clone();
        self.events.push(Event {
            area,
            operation,
            reason,
            name: Bounded::cut(name),
            asked: 1,
            pid,
            policy,
        });
    }

    /// Gives back what nobody can reach any more: room for something that does not fit otherwise.
    fn reclaim<'a>(&'a self, inner: MutexGuard<'a, Inner>, area: Area) -> MutexGuard<'a, Inner> {
        let orphans = inner.orphans_of(area);
        if orphans.is_empty() {
            return inner;
        }
        drop(inner);
        let emptied: Vec<_> = orphans
            .into_iter()
            .filter(|(_, node)| node.empty())
            .map(|(id, _)| id)
            .collect();
        let mut inner = self.lock();
        for id in emptied {
            inner.bury(id);
        }
        inner
    }

    /// Charges again each time that an unlinked file is closed, for a moment.
    fn charge_after_closes<'a>(
        &'a self,
        mut inner: MutexGuard<'a, Inner>,
        area: Area,
        amount: Amount,
        mut decision: Decision,
    ) -> (MutexGuard<'a, Inner>, Decision) {
        let _patience = match self.patience.try_lock() {
            Ok(patience) => patience,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            Err(TryLockError::WouldBlock) => return (inner, decision),
        };
        // The close that is waited for has to be read by somebody.
        aside();
        let mut others = Others::now();
        let begin = Instant::now();
        while !decision.verdict.is_allow() && inner.unlinked_open > 0 && inner.in_vain != Some(inner.turn) {
            let turn = inner.turn;
            let waited = self
                .closed
                .wait_timeout_while(inner, CLOSING_LOOK, |inner| inner.turn == turn);
            inner = waited.map_or_else(|error| error.into_inner().0, |(inner, _)| inner);
            if inner.turn == turn {
                drop(inner);
                let spent = begin.elapsed();
                let in_vain = spent >= CLOSING_WAIT
                    || (spent >= CLOSING_WAIT_MIN && others.as_mut().is_none_or(Others::are_done));
                inner = self.lock();
                if inner.turn == turn {
                    if in_vain {
                        inner.in_vain = Some(turn);
                        break;
                    }
                    continue;
                }
            }
            inner = self.reclaim(inner, area);
            decision = inner.ledger.charge(area, amount);
            if begin.elapsed() >= CLOSING_WAIT {
                // However many close what they opened, none of it is what is waited for.
                break;
            }
        }
        (inner, decision)
    }

    /// An inode without a name has its first open handle, or one with an open handle lost its name.
    pub(crate) fn unlinked_open(&self) {
        let mut inner = self.lock();
        inner.unlinked_open = inner.unlinked_open.saturating_add(1);
        inner.turn = inner.turn.saturating_add(1);
    }

    /// An inode without a name lost its last open handle.
    pub(crate) fn unlinked_closed(&self) {
        let mut inner = self.lock();
        inner.unlinked_open = inner.unlinked_open.saturating_sub(1);
        inner.turn = inner.turn.saturating_add(1);
        drop(inner);
        self.closed.notify_all();
    }

    /// Gives `amount` back.
    pub(crate) fn release(&self, area: Area, amount: Amount) {
        // Releasing more than was charged means that somebody changed the files beside us. The account stops at zero;
        // the next start measures anew.
        let _ = self.lock().ledger.release(area, amount);
    }

    /// `node` lost its last name and has no open handle; it costs `cost`.
    pub(crate) fn orphaned(&self, node: &Arc<Node>, cost: Amount) {
        let orphan = Orphan {
            area: node.zone.area(),
            cost,
            node: Arc::downgrade(node),
        };
        self.lock().orphans.insert(node.id, orphan);
    }

    /// Empties and gives back one orphan; `false` for what is none, or is being used.
    ///
    /// For who needs the descriptor that it holds. Called with any locks but these books' held.
    pub(crate) fn let_go(&self, node: &Node) -> bool {
        let is_orphan = self.lock().orphans.contains_key(&node.id);
        let gone = is_orphan && node.empty();
        if gone {
            self.buried(node.id);
        }
        gone
    }

    /// The orphan was opened again, or grows: it is charged like any other file from now on.
    pub(crate) fn adopted(&self, id: u64) {
        self.lock().orphans.remove(&id);
    }

    /// The orphan is gone.
    pub(crate) fn buried(&self, id: u64) {
        self.lock().bury(id);
    }

    /// Puts other budgets in force.
    pub(crate) fn set_budgets(&self, budgets: Budgets, policy: PolicyHex) {
        let mut inner = self.lock();
        inner.policy = policy;
        inner.work_budget = budgets.work;
        let work = inner.work_limits();
        for (area, budget) in [
            (Area::Tmp, budgets.tmp),
            (Area::State, budgets.state),
            (Area::Work, work),
        ] {
            if let Some(reason) = inner.ledger.set_budget(area, budget) {
                let policy = inner.policy.clone();
                let name = Bounded::cut(b"");
                self.events.push(Event {
                    area,
                    operation: Operation::Write,
                    reason,
                    name,
                    asked: 0,
                    pid: 0,
                    policy,
                });
            }
        }
    }

    /// A work directory that costs `start` is served from now on.
    pub(crate) fn begin_work(&self, start: Amount) -> Result<(), Errno> {
        let mut inner = self.lock();
        let used = inner.ledger.account(Area::Work).used();
        let used = used.checked_add(start).ok_or(Errno::OVERFLOW)?;
        inner.work_start = inner.work_start.checked_add(start).ok_or(Errno::OVERFLOW)?;
        inner.has_work = true;
        inner.reopen(Area::Work, used);
        Ok(())
    }

    /// Others changed a file that cost `was` so that it costs `is`: that is booked and not judged. In a work directory it
    /// is nobody's growth.
    pub(crate) fn booked(&self, area: Area, was: Amount, is: Amount) {
        let mut inner = self.lock();
        let moved = |amount: Amount| amount.saturating_sub(was).checked_add(is).unwrap_or(amount);
        let used = moved(inner.ledger.account(area).used());
        if area == Area::Work {
            // What others take away of what the program made gives it no room, and counts for it no less.
            inner.work_start = moved(inner.work_start);
        }
        inner.reopen(area, used);
    }

    /// What is used of the work directories, where there is one.
    pub(crate) fn work_usage(&self) -> Option<WorkUsage> {
        let inner = self.lock();
        let account = inner.ledger.account(Area::Work);
        let used = account.used().saturating_sub(inner.reclaimable(Area::Work));
        inner.has_work.then_some(WorkUsage {
            used_bytes: used.bytes,
            used_inodes: used.inodes,
            start_bytes: inner.work_start.bytes,
            start_inodes: inner.work_start.inodes,
            budget: inner.work_budget,
        })
    }

    /// What is used, without what nobody can reach any more, and the limits.
    pub(crate) fn usage(&self, area: Area) -> AreaUsage {
        let inner = self.lock();
        let account = inner.ledger.account(area);
        let used = account.used().saturating_sub(inner.reclaimable(area));
        AreaUsage {
            used_bytes: used.bytes,
            used_inodes: used.inodes,
            budget: account.budget(),
        }
    }

    /// What can still be charged, and the limits.
    pub(crate) fn free(&self, area: Area) -> (Amount, Budget) {
        let inner = self.lock();
        let account = inner.ledger.account(area);
        let used = account.used().saturating_sub(inner.reclaimable(area));
        (Account::new(account.budget(), used).free(), account.budget())
    }
}

impl Inner {
    /// The limits of everything in the work directories: what was there, and the growth that policy allows.
    fn work_limits(&self) -> Budget {
        let start = self.work_start;
        Budget {
            soft_bytes: self.work_budget.soft_bytes.map(|soft| soft.saturating_add(start.bytes)),
            hard_bytes: self.work_budget.hard_bytes.saturating_add(start.bytes),
            hard_inodes: self.work_budget.hard_inodes.saturating_add(start.inodes),
        }
    }

    /// Opens the account of `area` anew with `used`, which is no crossing of anything.
    fn reopen(&mut self, area: Area, used: Amount) {
        let budget = match area {
            Area::Work => self.work_limits(),
            _ => self.ledger.account(area).budget(),
        };
        self.ledger = self.ledger.with(area, budget, used);
    }

    fn reclaimable(&self, area: Area) -> Amount {
        self.orphans
            .values()
            .filter(|orphan| orphan.area == area)
            .fold(Amount::ZERO, |sum, orphan| sum.checked_add(orphan.cost).unwrap_or(sum))
    }

    /// The orphans of `area` that are still there.
    fn orphans_of(&self, area: Area) -> Vec<(u64, Arc<Node>)> {
        self.orphans
            .iter()
            .filter(|(_, orphan)| orphan.area == area)
            .filter_map(|(id, orphan)| orphan.node.upgrade().map(|node| (*id, node)))
            .collect()
    }

    /// Gives back what an orphan costs, once: whoever finds it in the map.
    fn bury(&mut self, id: u64) {
        if let Some(orphan) = self.orphans.remove(&id) {
            let _ = self.ledger.release(orphan.area, orphan.cost);
        }
    }
}
