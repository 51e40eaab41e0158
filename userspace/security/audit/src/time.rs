use core::fmt;
use core::str::FromStr;
use thiserror::Error;

/// A time of day, in milliseconds since 1970-01-01T00:00:00Z without leap seconds: for the reader of a record only,
/// never for a decision. Written as RFC 3339 with milliseconds, `2026-11-21T20:59:51.123Z`; years 1970 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(u64);

/// Not a time as [`UnixMillis`] writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a time of the form `2026-11-21T20:59:51.123Z`")]
pub struct TimeError;

const DAY_MS: u64 = 86_400_000;
/// 9999-12-31T23:59:59.999Z.
const LAST: u64 = 253_402_300_799_999;
/// Days of 400 years, after which the calendar repeats.
const ERA_DAYS: u64 = 146_097;

impl UnixMillis {
    /// A time; what lies after the year 9999 becomes its end.
    #[must_use]
    pub const fn new(millis: u64) -> Self {
        if millis > LAST { Self(LAST) } else { Self(millis) }
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0
    }
}

/// Year, month and day of a day since 1970-01-01, years starting in March inside, so that the leap day comes last.
fn date_of(day: u64) -> (u64, u64, u64) {
    // From 0000-03-01, the start of an era of 400 years.
    let day = day.wrapping_add(719_468);
    let era = day / ERA_DAYS;
    let of_era = day % ERA_DAYS;
    let leaps = of_era / 1_460;
    let year_of_era = of_era
        .wrapping_sub(leaps)
        .wrapping_add(of_era / 36_524)
        .wrapping_sub(of_era / 146_096)
        / 365;
    let before = year_of_era
        .wrapping_mul(365)
        .wrapping_add(year_of_era / 4)
        .wrapping_sub(year_of_era / 100);
    let of_year = of_era.wrapping_sub(before);
    // Five months from March have 153 days, again and again.
    let march_month = of_year.wrapping_mul(5).wrapping_add(2) / 153;
    let day = of_year
        .wrapping_sub(march_month.wrapping_mul(153).wrapping_add(2) / 5)
        .wrapping_add(1);
    let month = if march_month < 10 {
        march_month.wrapping_add(3)
    } else {
        march_month.wrapping_sub(9)
    };
    let year = era
        .wrapping_mul(400)
        .wrapping_add(year_of_era)
        .wrapping_add(u64::from(month <= 2));
    (year, month, day)
}

/// The day since 1970-01-01 of a date that [`date_of`] gives; any number for any other.
fn day_of(year: u64, month: u64, day: u64) -> u64 {
    let year = year.wrapping_sub(u64::from(month <= 2));
    let march_month = if month > 2 {
        month.wrapping_sub(3)
    } else {
        month.wrapping_add(9)
    };
    let of_year = (march_month.wrapping_mul(153).wrapping_add(2) / 5)
        .wrapping_add(day)
        .wrapping_sub(1);
    let year_of_era = year % 400;
    let of_era = year_of_era
        .wrapping_mul(365)
        .wrapping_add(year_of_era / 4)
        .wrapping_sub(year_of_era / 100)
        .wrapping_add(of_year);
    (year / 400)
        .wrapping_mul(ERA_DAYS)
        .wrapping_add(of_era)
        .wrapping_sub(719_468)
}

impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = date_of(self.0 / DAY_MS);
        let (hour, minute) = (self.0 / 3_600_000 % 24, self.0 / 60_000 % 60);
        let (second, milli) = (self.0 / 1_000 % 60, self.0 % 1_000);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z"
        )
    }
}

impl FromStr for UnixMillis {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        let bytes: &[u8; 24] = text.as_bytes().try_into().map_err(|_| TimeError)?;
        let [
            y0,
            y1,
            y2,
            y3,
            b'-',
            m0,
            m1,
            b'-',
            d0,
            d1,
            b'T',
            h0,
            h1,
            b':',
            n0,
            n1,
            b':',
            s0,
            s1,
            b'.',
            f0,
            f1,
            f2,
            b'Z',
        ] = *bytes
        else {
            return Err(TimeError);
        };
        let number = |digits: &[u8]| {
            digits.iter().try_fold(0_u64, |sum, digit| match digit {
                b'0'..=b'9' => Ok(sum.wrapping_mul(10).wrapping_add(u64::from(digit.wrapping_sub(b'0')))),
                _ => Err(TimeError),
            })
        };
        let (year, month, day) = (number(&[y0, y1, y2, y3])?, number(&[m0, m1])?, number(&[d0, d1])?);
        let (hour, minute, second) = (number(&[h0, h1])?, number(&[n0, n1])?, number(&[s0, s1])?);
        let millis = day_of(year, month, day)
            .wrapping_mul(DAY_MS)
            .wrapping_add(hour.wrapping_mul(3_600_000))
            .wrapping_add(minute.wrapping_mul(60_000))
            .wrapping_add(second.wrapping_mul(1_000))
            .wrapping_add(number(&[f0, f1, f2])?);
        let time = Self::new(millis);
        // A thirtieth of February, a 25th hour, a year before 1970: none of them is written back as it was read.
        if millis <= LAST && Written::of(time).is(text) {
            Ok(time)
        } else {
            Err(TimeError)
        }
    }
}

/// A time's 24 bytes, without an allocation.
struct Written {
    bytes: [u8; 24],
    used: usize,
}

impl Written {
    fn of(time: UnixMillis) -> Self {
        let mut written = Self {
            bytes: [0; 24],
            used: 0,
        };
        // Fails only past 24 bytes, and then nothing compares equal.
        if fmt::write(&mut written, format_args!("{time}")).is_err() {
            written.used = 0;
        }
        written
    }

    fn is(&self, text: &str) -> bool {
        self.bytes.get(..self.used) == Some(text.as_bytes())
    }
}

impl fmt::Write for Written {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.used.checked_add(text.len()).ok_or(fmt::Error)?;
        self.bytes
            .get_mut(self.used..end)
            .ok_or(fmt::Error)?
            .copy_from_slice(text.as_bytes());
        self.used = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;

    #[test]
    fn known_times_are_written_as_known() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_709_164_800_000, "2024-02-29T00:00:00.000Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (LAST, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(UnixMillis::new(millis).to_string(), text);
            assert_eq!(text.parse(), Ok(UnixMillis::new(millis)));
        }
        assert_eq!(UnixMillis::new(u64::MAX).millis(), LAST);
    }

    #[test]
    fn each_day_of_8000_years_follows_the_one_before() {
        let mut expected = (1970, 1, 1);
        for day in 0..LAST / DAY_MS + 1 {
            assert_eq!(date_of(day), expected);
            assert_eq!(day_of(expected.0, expected.1, expected.2), day);
            let (year, month, of_month) = expected;
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let last = match month {
                2 => 28 + u64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            expected = match (month, of_month) {
                (12, 31) => (year + 1, 1, 1),
                (_, end) if end == last => (year, month + 1, 1),
                _ => (year, month, of_month + 1),
            };
        }
    }

    #[test]
    fn times_that_do_not_exist_are_refused() {
        for text in [
            "",
            "2023-02-29T00:00:00.000Z",
            "2024-02-30T00:00:00.000Z",
            "2024-00-10T00:00:00.000Z",
            "2024-13-10T00:00:00.000Z",
            "2024-01-00T00:00:00.000Z",
            "2024-01-01T24:00:00.000Z",
            "2024-01-01T00:60:00.000Z",
            "2024-01-01T00:00:60.000Z",
            "1969-12-31T23:59:59.999Z",
            "0000-01-01T00:00:00.000Z",
            "2024-01-01 00:00:00.000Z",
            "2024-01-01T00:00:00.000z",
            "+024-01-01T00:00:00.000Z",
        ] {
            assert_eq!(text.parse::<UnixMillis>(), Err(TimeError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in 0..=LAST) {
            let time = UnixMillis::new(millis);
            prop_assert_eq!(time.to_string().parse(), Ok(time));
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,30}", digits in "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}.[0-9]{3}Z") {
            let _ = text.parse::<UnixMillis>();
            if let Ok(time) = digits.parse::<UnixMillis>() {
                prop_assert_eq!(time.to_string(), digits);
            }
        }
    }
}
