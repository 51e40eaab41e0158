use crate::limits::SIZE_BYTES_MAX;

const UNITS: [(&str, u64); 5] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Reads a size such as `64MiB`: a whole number and a unit.
///
/// # Errors
/// What would be right, in words.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).unwrap_or((text, ""));
    let right = "write a whole number and a unit, B, KiB, MiB, GiB or TiB, such as \"64MiB\"";
    if number.is_empty() {
        return Err(right.into());
    }
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(match unit {
            "" => format!("{right}; a number alone does not say bytes of what"),
            "K" | "KB" | "kB" | "k" | "kib" | "Kib" => {
                "KiB is 1024 bytes, and the only kilo that is known: write KiB".into()
            }
            "M" | "MB" | "mb" | "m" | "mib" => "MiB is 1024 KiB, and the only mega that is known: write MiB".into(),
            "G" | "GB" | "gb" | "g" | "gib" => "GiB is 1024 MiB, and the only giga that is known: write GiB".into(),
            _ => right.into(),
        });
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(*factor))
        .filter(|bytes| *bytes <= SIZE_BYTES_MAX)
        .ok_or_else(|| format!("the largest size is {SIZE_BYTES_MAX}B"))
}

/// A size in the largest unit that leaves a whole number.
#[must_use]
pub fn render_size(bytes: u64) -> String {
    let fit = UNITS
        .iter()
        .rev()
        .find(|(_, factor)| bytes.checked_rem(*factor) == Some(0));
    match fit {
        Some((unit, factor)) if bytes > 0 => format!("{}{unit}", bytes.checked_div(*factor).unwrap_or(bytes)),
        _ => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_are_powers_of_1024() {
        assert_eq!(parse_size("64MiB"), Ok(64 << 20));
        assert_eq!(parse_size("4096 B"), Ok(4096));
        assert_eq!(parse_size("0B"), Ok(0));
        assert!(parse_size("64MB").is_err_and(|help| help.contains("MiB")));
        assert!(parse_size("64").is_err());
        assert!(parse_size("").is_err());
        assert!(parse_size("-1MiB").is_err());
        assert!(parse_size("6 4MiB").is_err());
    }

    #[test]
    fn the_largest_size_is_read_and_one_more_is_not() {
        assert_eq!(parse_size("9223372036854775807B"), Ok(i64::MAX as u64));
        assert!(parse_size("9223372036854775808B").is_err());
        assert!(parse_size("8388608TiB").is_err());
        assert!(parse_size("99999999999999999999B").is_err());
    }

    proptest! {
        #[test]
        fn what_is_rendered_reads_back(bytes in 0..=SIZE_BYTES_MAX) {
            prop_assert_eq!(parse_size(&render_size(bytes)), Ok(bytes));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            let _ = parse_size(&text);
        }
    }
}
