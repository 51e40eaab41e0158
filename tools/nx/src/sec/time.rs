//! Times as a person writes them.

use nexus_audit::UnixMillis;
use std::time::{SystemTime, UNIX_EPOCH};

const HOW: &str = "no time; say `2026-11-22`, `2026-11-22T03:00`, `2026-11-22T03:00:00+02:00`, or how long ago, as `90s`, `15m`, \
                   `2h` or `3d`";

/// A time on the command line; UTC where it names no zone, and by the clock of this machine where it says how long ago.
pub(super) fn parse(text: &str) -> Result<UnixMillis, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    parse_at(text, u64::try_from(now.as_millis()).unwrap_or(u64::MAX)).ok_or_else(|| HOW.to_owned())
}

fn parse_at(text: &str, now_ms: u64) -> Option<UnixMillis> {
    ago(text, now_ms).or_else(|| calendar(text))
}

fn ago(text: &str, now_ms: u64) -> Option<UnixMillis> {
    let unit_ms: u64 = match text.chars().next_back()? {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        _ => return None,
    };
    let count: u64 = digits(text.get(..text.len().checked_sub(1)?)?)?;
    // Before 1970 there are no records.
    Some(UnixMillis::new(now_ms.saturating_sub(count.checked_mul(unit_ms)?)))
}

fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
    text.parse().ok()
}

/// A part of RFC 3339, whose own reader takes one form alone: what is missing is filled up.
fn calendar(text: &str) -> Option<UnixMillis> {
    let (date, rest) = match text.find(['T', 't', ' ']) {
        // What begins a time of day must be one.
        Some(at) => (
            text.get(..at)?,
            text.get(at.checked_add(1)?..).filter(|rest| !rest.is_empty())?,
        ),
        None => (text, ""),
    };
    let zone_at = rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len());
    let (clock, zone) = (rest.get(..zone_at)?, rest.get(zone_at..)?);
    if !rest.is_empty() && clock.is_empty() {
        return None;
    }
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    if clock.len() < 8 && fraction != "0" || fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    digits(fraction)?;
    let clock = match clock.len() {
        0 => "00:00:00".to_owned(),
        5 => format!("{clock}:00"),
        _ => clock.to_owned(),
    };
    let utc: UnixMillis = format!("{date}T{clock}.{:0<3.3}Z", fraction).parse().ok()?;
    let offset_ms = match zone {
        "" | "Z" | "z" => return Some(utc),
        zone => {
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let (hours, minutes) = (digits(hours)?, digits(minutes)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            hours * 3_600_000 + minutes * 60_000
        }
    };
    let millis = if zone.starts_with('+') {
        utc.millis().checked_sub(offset_ms)?
    } else {
        utc.millis().checked_add(offset_ms)?
    };
    Some(UnixMillis::new(millis))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expect: &str) {
        let now = "2026-11-22T03:04:05.678Z".parse::<UnixMillis>().unwrap().millis();
        let found = parse_at(text, now).map_or_else(|| "none".to_owned(), |time| time.to_string());
        assert_eq!(found, expect, "{text}");
    }

    #[test]
    fn a_time_may_leave_out_what_follows_from_the_rest() {
        check("2026-11-22", "2026-11-22T00:00:00.000Z");
        check("2026-11-22T03:00", "2026-11-22T03:00:00.000Z");
        check("2026-11-22 03:00:07", "2026-11-22T03:00:07.000Z");
        check("2026-11-22T03:00:07.5Z", "2026-11-22T03:00:07.500Z");
        check("2026-11-22T03:00:07.123456Z", "2026-11-22T03:00:07.123Z");
        check("2026-11-22T03:00:00+02:00", "2026-11-22T01:00:00.000Z");
        check("2026-11-22T03:00-05:30", "2026-11-22T08:30:00.000Z");
    }

    #[test]
    fn how_long_ago_counts_from_now() {
        check("5s", "2026-11-22T03:04:00.678Z");
        check("4m", "2026-11-22T03:00:05.678Z");
        check("3h", "2026-11-22T00:04:05.678Z");
        check("2d", "2026-11-20T03:04:05.678Z");
        check("999999999d", "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "x",
            "5",
            "-5s",
            "s",
            "2026-13-01",
            "2026-02-30",
            "2026-11-22T",
            "2026-11-22TZ",
            "2026-11-22T25:00",
            "2026-11-22T03:00:00+2",
            "2026-11-22T03:00:00+24:00",
            "2026-11-22T03:00:00.",
            "2026-11-22T03:00.5",
            "99999999999999999999d",
            "1970-01-01T00:00:00+01:00",
        ] {
            check(text, "none");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_time_or_none(text in "\\PC{0,40}") {
            let _ = parse_at(&text, 0);
        }

        #[test]
        fn what_a_record_says_is_read_as_what_it_says(millis in 0_u64..253_402_300_799_999) {
            let time = UnixMillis::new(millis);
            prop_assert_eq!(parse_at(&time.to_string(), 0), Some(time));
        }
    }
}
