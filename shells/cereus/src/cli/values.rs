//! How values are written.

/// A key that is empty is most often a variable that is not set.
pub(super) fn parse_key(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("the key is empty; is its variable set?".to_owned());
    }
    Ok(text.to_owned())
}

/// As [`parse_gib`], of which there must be some.
pub(super) fn parse_some_gib(text: &str) -> Result<u64, String> {
    let bytes = parse_gib(text)?;
    if bytes == 0 {
        return Err(format!(
            "`{text}`: expected more than nothing, for instance 4 or 0.5"
        ));
    }
    Ok(bytes)
}

/// Gibibytes as whole bytes.
pub(super) fn parse_gib(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}`: expected gibibytes, for instance 4 or 0.5");
    let millionths = millionths(text).ok_or_else(wrong)?;
    let bytes = (u128::from(millionths.unsigned_abs()) << 30) / 1_000_000;
    u64::try_from(bytes).map_err(|_| wrong())
}

/// A number without a sign and with at most six decimals.
pub(super) fn millionths(text: &str) -> Option<i64> {
    const DIGITS: usize = 6;
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    if !is_number(whole) || !is_number(part) || part.len() > DIGITS {
        return None;
    }
    format!("{whole}{part:0<DIGITS$}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gibibytes_are_read_as_bytes() {
        for (text, bytes) in [("4", 4 << 30), ("0.5", 1 << 29), ("0", 0)] {
            assert_eq!(parse_gib(text), Ok(bytes));
        }
        for text in ["", "-1", "4GB", "9999999999999"] {
            assert!(parse_gib(text).is_err(), "{text}");
        }
    }
}
