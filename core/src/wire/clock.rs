//! Wall-clock text: RFC 3339 in UTC. Core reads no clock; the seconds come from the caller.
//!
//! By hand, where shells use jiff: a calendar library is large beside two functions, and takes more
//! than RFC 3339 allows (a space for the `T`, a zone's name), which would have to be refused by hand.

const SECONDS_PER_DAY: u64 = 86_400;

/// `2026-07-01T00:00:00Z` for whole seconds since 1970. Beyond the year 9999 the last second of it.
#[must_use]
pub fn utc_text(unix_s: u64) -> String {
    /// 9999-12-31T23:59:59Z.
    const LAST: u64 = 253_402_300_799;
    let unix_s = unix_s.min(LAST);
    let (year, month, day) = civil(unix_s / SECONDS_PER_DAY);
    let second = unix_s % SECONDS_PER_DAY;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a day counted from 1970-01-01 (the days-from-civil arithmetic, in
/// 400-year eras that begin in March).
const fn civil(day: u64) -> (u64, u64, u64) {
    let shifted = day + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (year_of_era + era * 400 + (month <= 2) as u64, month, day)
}

/// Whether `text` is an RFC 3339 time: whole or fractional seconds, `Z` or an offset.
#[must_use]
pub fn is_rfc3339(text: &str) -> bool {
    let bytes = text.as_bytes();
    let Some((head, tail)) = bytes.split_at_checked(19) else {
        return false;
    };
    let shape_holds = head.iter().enumerate().all(|(ix, byte)| match ix {
        4 | 7 => *byte == b'-',
        10 => matches!(byte, b'T' | b't'),
        13 | 16 => *byte == b':',
        _ => byte.is_ascii_digit(),
    });
    if !shape_holds {
        return false;
    }
    let two = |ix: usize| u32::from(head[ix] - b'0') * 10 + u32::from(head[ix + 1] - b'0');
    let (year, month, day) = (two(0) * 100 + two(2), two(5), two(8));
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + u32::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => 0,
    };
    let is_date = (1..=days).contains(&day);
    is_date && two(11) < 24 && two(14) < 60 && two(17) < 60 && is_zone(after_fraction(tail))
}

fn after_fraction(tail: &[u8]) -> &[u8] {
    let Some((b'.', digits)) = tail.split_first() else {
        return tail;
    };
    let count = digits
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    if count == 0 { &[] } else { &digits[count..] }
}

fn is_zone(zone: &[u8]) -> bool {
    match zone {
        b"Z" | b"z" => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => {
            let digits = [h1, h2, m1, m2];
            digits.iter().all(|byte| byte.is_ascii_digit())
                && (*h1, *h2) <= (b'2', b'3')
                && *m1 <= b'5'
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_have_known_texts() {
        let table = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_782_864_000, "2026-07-01T00:00:00Z"),
            (4_102_444_799, "2099-12-31T23:59:59Z"),
            (u64::MAX, "9999-12-31T23:59:59Z"),
        ];
        for (unix_s, text) in table {
            assert_eq!(utc_text(unix_s), text);
            assert!(is_rfc3339(text), "{text}");
        }
    }

    #[test]
    fn only_real_times_are_times() {
        for good in ["2026-02-28T23:59:59.123Z", "2024-02-29T00:00:00+05:30"] {
            assert!(is_rfc3339(good), "{good}");
        }
        for bad in [
            "",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00.Z",
            "2026-01-01 00:00:00Z",
            "2026-01-01T00:00:00+24:00",
            "2026-01-01T00:00:00Zx",
            "2026-01-0\u{e9}T00:00:00Z",
        ] {
            assert!(!is_rfc3339(bad), "{bad}");
        }
    }
}
