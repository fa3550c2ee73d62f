use proptest::prelude::*;

use super::*;

fn window(text: &str) -> Window {
    text.parse().expect(text)
}

/// `tue 05:59`, and seconds if they matter.
fn at(text: &str) -> LocalTime {
    let (day, clock) = text.split_once(' ').expect("a day and a time");
    let starts_with = |known: &Weekday| known.name().starts_with(day);
    let day = Weekday::ALL.into_iter().find(starts_with);
    let parts: Vec<u32> = clock.split(':').map(|part| part.parse().unwrap()).collect();
    let second = parts.get(2).copied().unwrap_or(0);
    let second = parts[0] * 3_600 + parts[1] * 60 + second;
    LocalTime::new(day.expect("a day"), second)
}

/// ENG-22.
#[test]
fn a_window_that_passes_midnight_belongs_to_the_day_on_which_it_began() {
    let schedule = Schedule::new([window("mon 22:00-06:00")]);
    for (time, is_active) in [
        ("tue 05:59", true),
        ("tue 06:00", false),
        ("mon 05:00", false),
        ("mon 21:59", false),
        ("mon 22:00", true),
        ("tue 00:00", true),
        ("tue 22:00", false),
    ] {
        assert_eq!(schedule.is_active_at(at(time)), is_active, "{time}");
    }
}

#[test]
fn sunday_night_ends_on_monday_morning() {
    let schedule = Schedule::new([window("sun 22:00-06:00")]);
    assert!(schedule.is_active_at(at("mon 05:59")));
    assert!(!schedule.is_active_at(at("sat 23:00")));
}

#[test]
fn equal_times_are_a_whole_day() {
    let schedule = Schedule::new([window("mon 08:00-08:00")]);
    assert!(schedule.is_active_at(at("mon 08:00")) && schedule.is_active_at(at("tue 07:59")));
    assert!(!schedule.is_active_at(at("mon 07:59")) && !schedule.is_active_at(at("tue 08:00")));
}

#[test]
fn without_windows_a_machine_always_serves() {
    let always = Schedule::default();
    assert!(always.is_always() && always.is_active_at(at("mon 05:00")));
    assert_eq!(always.until_change(at("mon 05:00")), None);
    let all = Schedule::new([window("mon-sun 00:00-00:00")]);
    assert_eq!(all.until_change(at("mon 05:00")), None);
}

#[test]
fn the_next_change_is_told_to_the_second() {
    let schedule = Schedule::new([window("mon 22:00-00:00"), window("tue 00:00-06:00")]);
    for (time, seconds) in [
        ("mon 21:59:59", 1),
        ("mon 22:00:00", 8 * 3_600),
        ("tue 05:59:30", 30),
        ("tue 06:00:00", (6 * 24 + 16) * 3_600),
    ] {
        let expected = Some(Span::secs(seconds));
        assert_eq!(schedule.until_change(at(time)), expected, "{time}");
    }
}

#[test]
fn days_are_names_lists_and_ranges() {
    for (text, canonical) in [
        ("Monday 22:00-06:00", "mon 22:00-06:00"),
        ("WED,mon 00:00-23:59", "mon,wed 00:00-23:59"),
        (
            "  mon-wed,sun   08:00-09:00 ",
            "mon,tue,wed,sun 08:00-09:00",
        ),
        ("sat-mon 08:00-09:00", "mon,sat,sun 08:00-09:00"),
    ] {
        assert_eq!(window(text).to_string(), canonical);
    }
}

#[test]
fn what_is_no_window_is_refused_with_an_example() {
    for (text, error) in [
        ("", WindowError::Shape),
        ("mon", WindowError::Shape),
        ("mon 22:00", WindowError::Shape),
        ("mon 22:00 - 06:00", WindowError::Shape),
        ("22:00-06:00 mon tue", WindowError::Shape),
        ("moon 22:00-06:00", WindowError::Day),
        ("mon- 22:00-06:00", WindowError::Day),
        ("mon, 22:00-06:00", WindowError::Day),
        ("mon 24:00-06:00", WindowError::Time),
        ("mon 22:60-06:00", WindowError::Time),
        ("mon 2:00-06:00", WindowError::Time),
        ("mon 22.00-06:00", WindowError::Time),
        ("mon +2:00-06:00", WindowError::Time),
    ] {
        assert_eq!(text.parse::<Window>(), Err(error), "`{text}`");
        assert!(error.to_string().contains('`'));
    }
}

prop_compose! {
    fn windows()(days in 1..128_u8, start in 0..DAY_MINUTES, end in 0..DAY_MINUTES) -> Window {
        Window { days, start, end }
    }
}

prop_compose! {
    fn moments()(day in 0..7_usize, second in 0..DAY_SECONDS) -> LocalTime {
        LocalTime::new(Weekday::after_monday(day), second)
    }
}

/// So many seconds later on the same wall.
fn later(local: LocalTime, seconds: u32) -> LocalTime {
    let second = local.second + seconds;
    let days = (second / DAY_SECONDS) as usize;
    let weekday = Weekday::after_monday(local.weekday as usize + days);
    LocalTime::new(weekday, second % DAY_SECONDS)
}

proptest! {
    #[test]
    fn what_is_printed_is_parsed(window in windows()) {
        prop_assert_eq!(window.to_string().parse(), Ok(window));
    }

    /// The slow model lays each window out on the minutes of a week that has no end.
    #[test]
    fn a_window_lasts_from_its_start_for_as_long_as_it_is(
        window in windows(), local in moments(),
    ) {
        let length = match (window.end + DAY_MINUTES - window.start) % DAY_MINUTES {
            0 => DAY_MINUTES,
            length => length,
        };
        let now = local.weekday as u16 * DAY_MINUTES + local.minute();
        let is_in = |day: u16| {
            let start = day * DAY_MINUTES + window.start;
            (now + WEEK_MINUTES - start) % WEEK_MINUTES < length
        };
        let expected = (0..7).any(|day| window.days >> day & 1 == 1 && is_in(day));
        prop_assert_eq!(Schedule::new([window]).is_active_at(local), expected);
    }

    #[test]
    fn nothing_changes_before_the_change_and_something_does_at_it(
        windows in prop::collection::vec(windows(), 0..4), local in moments(), part in 0..1_000_u32,
    ) {
        let schedule = Schedule::new(windows);
        let is_active = schedule.is_active_at(local);
        let lasts = schedule.until_change(local).map(|span| (span.0 / 1_000_000) as u32);
        let whole = u64::from(lasts.unwrap_or(7 * DAY_SECONDS));
        let unchanged = later(local, (whole * u64::from(part) / 1_000) as u32);
        prop_assert_eq!(schedule.is_active_at(unchanged), is_active);
        if let Some(lasts) = lasts {
            prop_assert_ne!(schedule.is_active_at(later(local, lasts)), is_active);
            prop_assert_eq!(schedule.is_active_at(later(local, lasts - 1)), is_active);
        }
    }

    #[test]
    fn no_text_is_more_than_refused(text in "[a-z0-9:, -]{0,24}|\\PC{0,16}") {
        if let Ok(window) = text.parse::<Window>() {
            prop_assert_eq!(window.to_string().parse(), Ok(window));
        }
    }
}
