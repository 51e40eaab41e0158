//! The words of `nx sec audit`.

use crate::sec::time;
use logd::{Anchor, Filter};
use nexus_abi::Reason;
use nexus_audit::{Mac, UnixMillis};
use std::path::Path;
use std::sync::Arc;

/// `nx sec audit`.
#[derive(Debug, clap::Args)]
pub(crate) struct AuditArgs {
    /// Only records of this subject
    #[arg(long, value_name = "SUBJECT")]
    pub(super) subject: Option<String>,
    /// Only records of this session
    #[arg(long, value_name = "SESSION")]
    pub(super) session: Option<String>,
    /// Only records for this reason, such as `egress.no_rule`, or for all of an area's, such as `egress`
    #[arg(long, value_name = "REASON", value_parser = Reasons::parse)]
    pub(super) reason: Option<Reasons>,
    /// Not before this time: `2026-11-22`, `2026-11-22T03:00`, `2026-11-22T03:00:00.5+02:00`, all UTC where they do not say,
    /// or how long ago: `90s`, `15m`, `2h`, `3d`
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub(super) since: Option<UnixMillis>,
    /// Not after this time
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub(super) until: Option<UnixMillis>,
    /// Only records from number A to number B, both included; either may be left out
    #[arg(long, value_name = "A..B", value_parser = SeqRange::parse)]
    pub(super) seq: Option<SeqRange>,
    /// Go on with what is written from now on, over rotations, until Ctrl-C or until nobody reads any more
    ///
    /// Begins with the last ten records that match, or with the first where `--since` or `--seq` says from where.
    #[arg(long, short, conflicts_with = "until")]
    pub(super) follow: bool,
    /// Check the chain from the oldest record that is kept, and name the first record that does not hold
    ///
    /// Ends with 0 if it holds, with 3 if it does not.
    #[arg(long, conflicts_with_all = ["follow", "subject", "session", "reason", "since", "until", "seq"])]
    pub(super) verify: bool,
    /// An end of the journal that was noted before, out of its user's reach: what `--verify` printed as `anchor`, or the file
    /// that holds it
    #[arg(long, value_name = "SEQ:CHAIN|FILE", requires = "verify", value_parser = parse_anchor)]
    pub(super) anchor: Option<Anchor>,
    /// Say it in JSON: each record as it stands in the journal, one a line
    #[arg(long)]
    pub(super) json: bool,
}

impl AuditArgs {
    /// What the journal itself can choose by.
    pub(super) fn filter(&self) -> Filter {
        let range = self.seq.unwrap_or_default();
        Filter {
            subject: self.subject.as_deref().map(Arc::from),
            session: self.session.as_deref().map(Arc::from),
            reason: match self.reason {
                Some(Reasons::One(reason)) => Some(reason),
                _ => None,
            },
            since: self.since,
            until: self.until,
            first_seq: range.first,
            last_seq: range.last,
        }
    }

    /// Whether records are asked for, by number, that come before this one.
    pub(super) fn asks_before(&self, seq: u64) -> bool {
        self.seq
            .is_some_and(|range| range.first.is_some_and(|first| first < seq))
    }

    pub(super) fn wants(&self, reason: Reason) -> bool {
        self.reason.as_ref().is_none_or(|reasons| reasons.has(reason))
    }
}

/// A reason, or all of an area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reasons {
    One(Reason),
    /// What stands before the point.
    Area(String),
}

impl Reasons {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(reason) = Reason::from_text(text) {
            return Ok(Self::One(reason));
        }
        let area = Self::Area(text.to_owned());
        if Reason::ALL.iter().any(|reason| area.has(*reason)) {
            return Ok(area);
        }
        let known: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        Err(format!("no such reason; there are {}", known.join(", ")))
    }

    fn has(&self, reason: Reason) -> bool {
        match self {
            Self::One(one) => *one == reason,
            Self::Area(area) => reason.as_str().split('.').next() == Some(area),
        }
    }
}

/// Sequence numbers, both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SeqRange {
    first: Option<u64>,
    last: Option<u64>,
}

impl SeqRange {
    fn parse(text: &str) -> Result<Self, String> {
        let number = |text: &str| match text {
            "" => Ok(None),
            digits => digits
                .parse::<u64>()
                .map(Some)
                .map_err(|_| format!("`{digits}` is no record's number")),
        };
        let range = match text.split_once("..") {
            Some((first, last)) => Self {
                first: number(first)?,
                last: number(last)?,
            },
            None => {
                let one = number(text)?;
                Self { first: one, last: one }
            }
        };
        match range {
            Self {
                first: None,
                last: None,
            } => Err("names no record; say `7`, `7..`, `..9` or `7..9`".to_owned()),
            Self {
                first: Some(first),
                last: Some(last),
            } if first > last => Err(format!("`{first}` comes after `{last}`")),
            range => Ok(range),
        }
    }

    /// Whether it says where to begin.
    pub(super) const fn begins(&self) -> bool {
        self.first.is_some()
    }
}

/// The longest file that is an anchor: a number and a chain value, with room for blanks.
const ANCHOR_BYTES_MAX: u64 = 256;

fn parse_anchor(text: &str) -> Result<Anchor, String> {
    if let Some(anchor) = anchor_of(text) {
        return Ok(anchor);
    }
    let path = Path::new(text);
    let read = || {
        use std::io::Read;
        // NONBLOCK: a fifo that nobody writes must not hold us up.
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
        let file = std::fs::File::from(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?);
        let mut content = String::new();
        file.take(ANCHOR_BYTES_MAX).read_to_string(&mut content)?;
        std::io::Result::Ok(content)
    };
    let wrong = "is no anchor: it is a record's number, a colon and that record's chain value of 64 digits, or a file that holds \
                 that";
    match read() {
        Ok(content) => anchor_of(content.trim()).ok_or_else(|| format!("what stands in it {wrong}")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(format!("it {wrong}")),
        Err(error) => Err(format!("it cannot be read: {error}")),
    }
}

fn anchor_of(text: &str) -> Option<Anchor> {
    let (seq, mac) = text.split_once(':')?;
    Some(Anchor {
        seq: seq.parse().ok()?,
        mac: Mac::from_hex(mac)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_both_its_ends_and_nothing_is_none() {
        let range = |first, last| Ok(SeqRange { first, last });
        assert_eq!(SeqRange::parse("7"), range(Some(7), Some(7)));
        assert_eq!(SeqRange::parse("7.."), range(Some(7), None));
        assert_eq!(SeqRange::parse("..9"), range(None, Some(9)));
        assert_eq!(SeqRange::parse("7..9"), range(Some(7), Some(9)));
        for wrong in ["", "..", "9..7", "a", "7..b", "-1", "1...2"] {
            assert!(SeqRange::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_reason_is_one_or_an_area_and_not_a_beginning() {
        assert_eq!(Reasons::parse("egress.no_rule"), Ok(Reasons::One(Reason::EgressNoRule)));
        let area = Reasons::parse("egress").unwrap();
        assert!(area.has(Reason::EgressNoRule) && !area.has(Reason::AbiNoRule));
        assert!(Reasons::parse("egr").unwrap_err().contains("egress.no_rule"));
        assert!(Reasons::parse("").is_err());
    }

    #[test]
    fn an_anchor_is_read_from_the_line_and_from_a_file() {
        let text = format!("7:{}", "ab".repeat(32));
        assert_eq!(parse_anchor(&text).unwrap().seq, 7);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("{text}\n")).unwrap();
        assert_eq!(parse_anchor(file.path().to_str().unwrap()).unwrap().seq, 7);
        std::fs::write(file.path(), "hello").unwrap();
        assert!(parse_anchor(file.path().to_str().unwrap()).is_err());
        assert!(parse_anchor("/nowhere/at/all").unwrap_err().contains("no anchor"));
        assert!(parse_anchor("7:ab").is_err());
    }
}
