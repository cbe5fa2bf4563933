//! Sizes as people write and read them: powers of 1024.

/// The letters behind a number, each 1024 times the one before.
const UNITS: &str = "KMGTPE";

/// Reads `4096`, `4K`, `1M`, `1G`, `1GiB`.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let fault = || format!("'{text}' is not a size; write bytes, or a number with K, M, G or T, like 1G");
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| fault())?;
    let unit = unit.strip_suffix("iB").unwrap_or(unit);
    let mut letters = unit.chars();
    let power = match (letters.next(), letters.next()) {
        // "512iB" is nothing that anybody writes.
        (None, _) if unit.len() == text.len() - digits => 0,
        (Some(letter), None) => {
            UNITS.find(letter.to_ascii_uppercase()).map(|index| index as u32 + 1).ok_or_else(fault)?
        }
        _ => return Err(fault()),
    };
    number.checked_mul(1 << (10 * power)).ok_or_else(|| format!("'{text}' is more than any volume can have"))
}

/// Writes a size with at most one decimal: `1.5 GiB`.
pub(crate) fn format_size(bytes: u64) -> String {
    let (mut unit, mut tenths) = ("bytes".to_owned(), u128::from(bytes) * 10);
    for letter in UNITS.chars() {
        if tenths < 10 * 1024 {
            break;
        }
        unit = format!("{letter}iB");
        tenths = (tenths + 512) / 1024;
    }
    match tenths % 10 {
        0 => format!("{} {unit}", tenths / 10),
        tenth => format!("{}.{tenth} {unit}", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("4K", 4096),
            ("4k", 4096),
            ("1M", 1 << 20),
            ("1G", 1 << 30),
            ("3GiB", 3 << 30),
            ("1T", 1 << 40),
            ("15E", 15 << 60),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in
            ["", "G", "1.5G", "-1", "+1", "1GB", "1KK", "1 G", "1iB", "1X", "16E", "99999999999999999999"]
        {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_written_with_a_unit() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (1 << 30, "1 GiB"),
            ((1 << 30) + (1 << 28), "1.3 GiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(format_size(bytes), text);
        }
    }
}
