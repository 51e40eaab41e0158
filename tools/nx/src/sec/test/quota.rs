//! `nx sec test quota`: an area that stops at its budget's last byte and last inode.
//!
//! The area is one of the proof's own with the subject's budget, empty but for the home that every session finds in
//! `state`. A length is charged whether or not there is data below it, so files without data fill a budget of any size.

use super::claim::{Claim, Finding, Refusal, Seen, Wants, errno_text};
use super::context::{Context, Rule};
use super::live::{BATCH_MAX, Live, Lost};
use nexus_abi::{Area, Errno, Operation, Reason, Verdict, syscall};
use nexus_policy::AreaBudget;
use nexus_quota::BLOCK_BYTES;
use nexus_sys::probe::{DATA_ADDRESS, Frame, Reply};

/// How long one file is made at most: what every usual file system of a host can hold.
const FILE_BYTES_MAX: u64 = 1 << 40;

/// How many files a budget may need; a larger one is left out, and said so.
const FILES_MAX: u64 = 64;

/// How many inodes a proof makes, which takes some seconds; a larger budget of inodes is left out, and said so.
pub(super) const INODES_MAX: u64 = 1 << 16;

// linux/fcntl.h, linux/stat.h, linux/fs.h
const AT_FDCWD: u64 = (-100_i64).cast_unsigned();
const O_CREAT_EXCL_RDWR: u64 = 0o302;
const FILE_0600: u64 = 0o100_600;
const SEEK_END: u64 = 2;

/// What is in an area before the probe makes anything.
const fn inodes_at_start(area: Area) -> u64 {
    match area {
        // The program's home.
        Area::State => 1,
        _ => 0,
    }
}

/// The calls that a proof of a quota needs, with arguments of the kind that it makes.
const NEEDED: [(&str, [u64; 6]); 4] = [
    ("openat", [AT_FDCWD, DATA_ADDRESS, O_CREAT_EXCL_RDWR, 0o600, 0, 0]),
    ("ftruncate", [3, 1, 0, 0, 0, 0]),
    ("pwrite64", [3, DATA_ADDRESS, 1, 1, 0, 0]),
    ("mknodat", [AT_FDCWD, DATA_ADDRESS, FILE_0600, 0, 0, 0]),
];

/// Why a quota cannot be looked at: policy lets the subject write nothing in the first place.
pub(super) fn obstacle(context: &Context) -> Option<String> {
    NEEDED.iter().find_map(|(name, args)| {
        let number = syscall::number(name)?;
        match context.judge_call(number, *args) {
            Verdict::Allow { .. } => None,
            Verdict::Deny { reason, .. } => Some(format!("the probe may not call `{name}`: {reason}")),
        }
    })
}

struct Proof<'a> {
    context: &'a Context,
    live: &'a mut Live,
    area: Area,
    budget: AreaBudget,
    /// The descriptors of the files that hold the bytes.
    files: Vec<u64>,
    inodes: u64,
    claims: Vec<(Claim, Seen)>,
}

/// Fills an area of the session, edge by edge.
pub(super) fn attempt(
    context: &Context,
    live: &mut Live,
    area: Area,
    left_out: &mut Vec<String>,
) -> Result<Vec<(Claim, Seen)>, Box<Finding>> {
    let Some(budget) = context.session.rules.budgets.get(area).copied() else {
        return Err(Box::new(Finding::skipped(
            "quota",
            area.to_string(),
            "there is no such area".to_owned(),
        )));
    };
    let mut proof = Proof {
        context,
        live,
        area,
        budget,
        files: Vec::new(),
        inodes: inodes_at_start(area),
        claims: Vec::new(),
    };
    let hard = budget.budget.hard_bytes;
    if budget.budget.hard_inodes <= proof.inodes {
        proof.inode_too_many();
        left_out.push(format!("{area}: no file can be made, so no byte can be written"));
        return Ok(proof.claims);
    }
    if hard.div_ceil(FILE_BYTES_MAX) > FILES_MAX.min(budget.budget.hard_inodes.saturating_sub(proof.inodes)) {
        left_out.push(format!("{area}: {hard} bytes are more than a proof's files hold"));
    } else {
        proof.bytes().map_err(|lost| failed(area, &lost))?;
    }
    let inodes = budget.budget.hard_inodes;
    if inodes > INODES_MAX {
        left_out.push(format!(
            "{area}: {inodes} inodes are more than a proof makes ({INODES_MAX})"
        ));
    } else {
        proof.all_inodes().map_err(|lost| failed(area, &lost))?;
    }
    Ok(proof.claims)
}

fn failed(area: Area, what: &str) -> Box<Finding> {
    Box::new(Finding::failed("quota", area.to_string(), what.to_owned()))
}

impl Proof<'_> {
    fn call(&mut self, name: &str, args: [u64; 6], data: &[u8]) -> Result<Reply, Lost> {
        let number = syscall::number(name).unwrap_or(u32::MAX);
        self.live.call(&Frame {
            number: number.into(),
            args,
            data,
            ..Frame::default()
        })
    }

    fn value(&mut self, name: &str, args: [u64; 6], data: &[u8]) -> Result<i64, Lost> {
        self.call(name, args, data).map(|reply| reply.value)
    }

    fn path(&self, name: &str) -> Vec<u8> {
        format!("/{}/{name}\0", self.area).into_bytes()
    }

    /// Every edge of the bytes: soft, one more; hard − 4096, hard − 1, hard, one more, and one more by write.
    fn bytes(&mut self) -> Result<(), String> {
        let hard = self.budget.budget.hard_bytes;
        let mut at = 0;
        self.file().map_err(|why| format!("no file can be made: {why}"))?;
        if let Some(soft) = self.budget.budget.soft_bytes.filter(|soft| *soft < hard) {
            self.passes(at, soft, "soft bytes");
            let seen = self.grow(soft, soft.saturating_add(1));
            self.claim(
                format!("{} soft bytes + 1", self.area),
                Wants::Warning(self.refusal(Operation::Write, Reason::QuotaSoftBytes, soft)),
                self.budget.soft_rule,
                seen,
            );
            at = soft.saturating_add(1);
        }
        for (edge, name) in [
            (hard.saturating_sub(BLOCK_BYTES), "hard bytes - 4096"),
            (hard.saturating_sub(1), "hard bytes - 1"),
            (hard, "hard bytes"),
        ] {
            if edge > at {
                self.passes(at, edge, name);
                at = edge;
            }
        }
        let last = hard.saturating_sub(FILE_BYTES_MAX.saturating_mul(self.last_file()));
        let fd = self.files.last().copied().unwrap_or(u64::MAX);
        for (name, call, args) in [
            ("hard bytes + 1", "ftruncate", [fd, last.saturating_add(1), 0, 0, 0, 0]),
            ("hard bytes + 1 written", "pwrite64", [fd, DATA_ADDRESS, 1, last, 0, 0]),
        ] {
            let value = self.value(call, args, b"x");
            let length = self.value("lseek", [fd, 0, SEEK_END, 0, 0, 0], &[]);
            let check = match length {
                // A subject that may not seek cannot say.
                Ok(length) if length < 0 => None,
                Ok(length) if length.unsigned_abs() == last => {
                    Some(Ok(format!("the file is {hard} bytes long as before")))
                }
                Ok(length) => Some(Err(format!("the file is {length} bytes long, not {last}"))),
                Err(lost) => Some(Err(lost.to_string())),
            };
            let seen = Seen {
                value,
                checks: check.into_iter().collect(),
            };
            let wants = Wants::Refusal(self.refusal(Operation::Write, Reason::QuotaHardBytes, hard));
            self.claim(format!("{} {name}", self.area), wants, self.budget.hard_rule, seen);
        }
        Ok(())
    }

    /// Which file holds the last byte of the budget.
    fn last_file(&self) -> u64 {
        (self.files.len() as u64).saturating_sub(1)
    }

    /// What is told of the byte after `total`: the file that it would stand in, and the block that it would take.
    fn refusal(&self, op: Operation, reason: Reason, total: u64) -> Refusal {
        let file = (total / FILE_BYTES_MAX).min(self.last_file());
        Refusal {
            op,
            object: format!("{} {} {BLOCK_BYTES} bytes", self.area, name(file)),
            reason,
            errno: Errno::EDQUOT,
        }
    }

    fn passes(&mut self, from: u64, to: u64, name: &str) {
        let seen = self.grow(from, to);
        let name = format!("{} {name}", self.area);
        self.claim(name, Wants::Passage(None), self.budget.hard_rule, seen);
    }

    /// Makes the files hold `to` bytes in all; the last call's value is what became of it.
    fn grow(&mut self, from: u64, to: u64) -> Seen {
        let (first, last) = (from / FILE_BYTES_MAX, to.saturating_sub(1) / FILE_BYTES_MAX);
        let mut value = Ok(0);
        for file in first..=last {
            let index = usize::try_from(file).unwrap_or(usize::MAX);
            while self.files.len() <= index {
                if let Err(why) = self.file() {
                    return Seen {
                        value: Ok(0),
                        checks: vec![Err(format!("no file can be made: {why}"))],
                    };
                }
            }
            let fd = self.files.get(index).copied().unwrap_or(u64::MAX);
            let length = to
                .saturating_sub(FILE_BYTES_MAX.saturating_mul(file))
                .min(FILE_BYTES_MAX);
            value = self.value("ftruncate", [fd, length, 0, 0, 0, 0], &[]);
            if value != Ok(0) {
                break;
            }
        }
        Seen::value(value)
    }

    /// One file more.
    fn file(&mut self) -> Result<(), String> {
        let path = self.path(&name(self.files.len() as u64));
        let args = [AT_FDCWD, DATA_ADDRESS, O_CREAT_EXCL_RDWR, 0o600, 0, 0];
        match self.value("openat", args, &path) {
            Ok(fd) if fd >= 0 => {
                self.files.push(fd.unsigned_abs());
                self.inodes = self.inodes.saturating_add(1);
                Ok(())
            }
            Ok(errno) => Err(errno_text(errno)),
            Err(lost) => Err(lost.to_string()),
        }
    }

    /// Every edge of the inodes: hard − 1, hard, one more.
    fn all_inodes(&mut self) -> Result<(), String> {
        let hard = self.budget.budget.hard_inodes;
        // All but two, so that both sides of the edge are seen one by one.
        let mut left = hard.saturating_sub(self.inodes).saturating_sub(2);
        while left > 0 {
            let some = left.min(BATCH_MAX as u64);
            for reply in self.inodes(some).map_err(|lost| lost.to_string())? {
                if reply.value != 0 {
                    let got = errno_text(reply.value);
                    return Err(format!("one of the {hard} inodes could not be made: {got}"));
                }
            }
            left = left.saturating_sub(some);
        }
        while self.inodes < hard {
            let edge = hard.saturating_sub(self.inodes).saturating_sub(1);
            let name = if edge == 0 {
                "hard inodes".to_owned()
            } else {
                format!("hard inodes - {edge}")
            };
            let seen = Seen::value(self.inode());
            self.claim(
                format!("{} {name}", self.area),
                Wants::Passage(None),
                self.budget.inodes_rule,
                seen,
            );
        }
        self.inode_too_many();
        Ok(())
    }

    fn inode_too_many(&mut self) {
        let object = format!("{} {}", self.area, inode_name(self.inodes));
        let seen = Seen::value(self.inode());
        let refusal = Refusal {
            op: Operation::Create,
            object,
            reason: Reason::QuotaHardInodes,
            errno: Errno::EDQUOT,
        };
        let name = format!("{} hard inodes + 1", self.area);
        self.claim(name, Wants::Refusal(refusal), self.budget.inodes_rule, seen);
    }

    /// Several inodes more.
    fn inodes(&mut self, count: u64) -> Result<Vec<Reply>, Lost> {
        let number = syscall::number("mknodat").unwrap_or(u32::MAX);
        let first = self.inodes;
        self.inodes = first.saturating_add(count);
        let paths: Vec<_> = (first..self.inodes)
            .map(|inode| self.path(&inode_name(inode)))
            .collect();
        let frame = |path| Frame {
            number: number.into(),
            args: [AT_FDCWD, DATA_ADDRESS, FILE_0600, 0, 0, 0],
            data: path,
            ..Frame::default()
        };
        let frames: Vec<_> = paths.iter().map(|path| frame(path.as_slice())).collect();
        self.live.calls(&frames)
    }

    /// One inode more, without a byte.
    fn inode(&mut self) -> Result<i64, Lost> {
        let path = self.path(&inode_name(self.inodes));
        self.inodes = self.inodes.saturating_add(1);
        self.value("mknodat", [AT_FDCWD, DATA_ADDRESS, FILE_0600, 0, 0, 0], &path)
    }

    fn claim(&mut self, name: String, wants: Wants, rule: Option<nexus_abi::RuleRef>, seen: Seen) {
        let rule = rule.map_or_else(Rule::default, |rule| self.context.rule(Some(rule), None));
        let claim = Claim {
            part: "quota",
            name,
            wants,
            rule,
        };
        self.claims.push((claim, seen));
    }
}

fn name(file: u64) -> String {
    format!("nx-proof-{file}")
}

fn inode_name(number: u64) -> String {
    format!("nx-inode-{number}")
}
