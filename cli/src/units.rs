//! Sizes, durations and times as people write and read them.

use std::time::Duration;

use jiff::tz::TimeZone;
use strongroom::backup::GrainRule;
use strongroom::forget::policy::{Calendar, CivilTime, Span};
use strongroom::format::parity::Overhead;
use strongroom::format::tree::{Grain, Timestamp};
use strongroom_ops::plan::values::size_factor;
pub use strongroom_ops::words::{count, verb};

const BINARY: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

/// Reads a size in bytes: `1048576`, `10M`, `5GiB`, `20MB`. `K`, `M`, `G`, `T` and `KiB` … `TiB` are powers of
/// 1024, `KB` … `TB` powers of 1000; upper and lower case are the same.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split_number(text);
    let factor = size_factor(unit)
        .ok_or("a size is a number with an optional unit, as in 1048576, 10M, 5GiB or 20MB")?;
    let number: u64 = number.parse().map_err(|_| "a size begins with a whole number".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "the size does not fit 64 bits".into())
}

/// Reads how much parity there is to be: `3%`, `0.5%`.
pub fn parse_overhead(text: &str) -> Result<Overhead, String> {
    let wrong = || "parity is a share from 0.1% to 100%, with at most one decimal, as 3% or 0.5%".to_owned();
    let number = text.trim().strip_suffix('%').ok_or_else(wrong)?.trim_end();
    let (whole, tenth) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    if !digits(whole) || whole.len() > 3 || !digits(tenth) || tenth.len() != 1 {
        return Err(wrong());
    }
    let tenths: u32 = format!("{whole}{tenth}").parse().map_err(|_| wrong())?;
    Overhead::from_tenths(tenths).ok_or_else(wrong)
}

/// Reads a grain rule, `PATTERN=SIZE`: the size is a grain's name, or its average size.
pub fn parse_grain(text: &str) -> Result<GrainRule, String> {
    let Some((pattern, size)) = text.rsplit_once('=') else {
        return Err("a grain rule is a pattern and a size, as in '*.vmdk=16KiB'".into());
    };
    let grain = match (size.to_ascii_lowercase().as_str(), parse_size(size)) {
        ("page", _) => Grain::Page,
        ("fine", _) | (_, Ok(0x4000)) => Grain::Fine,
        ("medium", _) | (_, Ok(0x1_0000)) => Grain::Medium,
        ("coarse", _) | (_, Ok(0x10_0000)) => Grain::Coarse,
        _ => {
            return Err(format!(
                "there is no grain {size:?}: it is page (16 KiB at fixed places), fine (about 16 KiB), medium (about \
                 64 KiB) or coarse (about 1 MiB)"
            ));
        }
    };
    Ok(GrainRule { pattern: pattern.to_owned(), grain })
}

/// Reads a duration: a number of seconds, or with a unit as `90s`, `3m`, `2h`, `1d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_number(text);
    let factor = match unit {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("a duration is a number with an optional unit, as in 90s, 3m, 2h or 1d".into()),
    };
    let number: u64 = number.parse().map_err(|_| "a duration begins with a whole number".to_owned())?;
    number.checked_mul(factor).map(Duration::from_secs).ok_or_else(|| "the duration is too long".into())
}

fn split_number(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// Reads a time: RFC 3339, or local as `2026-03-31 02:30:00` or `2026-03-31`.
pub fn parse_time(text: &str) -> Result<Timestamp, String> {
    let zoned = text.parse::<jiff::Timestamp>();
    let time = zoned.or_else(|_| {
        let local: jiff::civil::DateTime = text.parse()?;
        TimeZone::system().to_timestamp(local)
    });
    time.map(from_jiff).map_err(|_| {
        "a time is written as 2026-03-31T02:30:00Z, or in local time as 2026-03-31 02:30:00 or 2026-03-31"
            .into()
    })
}

/// The present.
pub fn now() -> Timestamp {
    from_jiff(jiff::Timestamp::now())
}

fn from_jiff(time: jiff::Timestamp) -> Timestamp {
    let nanos = time.as_nanosecond();
    // Both fit: jiff's times span some 20,000 years.
    let seconds = i64::try_from(nanos.div_euclid(1_000_000_000)).unwrap_or(i64::MAX);
    let nanos = u32::try_from(nanos.rem_euclid(1_000_000_000)).unwrap_or(0);
    Timestamp { seconds, nanos }
}

fn to_jiff(time: Timestamp) -> Option<jiff::Timestamp> {
    let nanos = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
    jiff::Timestamp::from_nanosecond(nanos).ok()
}

/// RFC 3339 in UTC with nine decimals; a time beyond the year 9999 as `@seconds`.
pub fn rfc3339(time: Timestamp) -> String {
    to_jiff(time).map_or_else(|| format!("@{}", time.seconds), |time| format!("{time:.9}"))
}

/// Local time to the second, for people.
pub fn local_time(time: Timestamp) -> String {
    let local = to_jiff(time).map(|time| time.to_zoned(TimeZone::system()));
    local.map_or_else(|| format!("@{}", time.seconds), |time| time.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// The calendar of a time zone.
#[derive(Debug)]
pub struct LocalCalendar(TimeZone);

impl LocalCalendar {
    /// That of this system.
    pub fn system() -> Self {
        Self(TimeZone::system())
    }

    fn zoned(&self, time: Timestamp) -> jiff::Zoned {
        // Beyond the calendar's ends all times are one: such a time is refused or at an end anyway.
        let end = if time.seconds < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        to_jiff(time).unwrap_or(end).to_zoned(self.0.clone())
    }
}

impl Calendar for LocalCalendar {
    fn civil(&self, time: Timestamp) -> CivilTime {
        let date = self.zoned(time);
        let week = date.date().iso_week_date();
        let small = |number: i8| u8::try_from(number).unwrap_or(0);
        CivilTime {
            year: i32::from(date.year()),
            month: small(date.month()),
            day: small(date.day()),
            hour: small(date.hour()),
            week_year: i32::from(week.year()),
            week: small(week.week()),
        }
    }

    fn before(&self, time: Timestamp, span: &Span) -> Timestamp {
        let length = jiff::Span::new()
            .try_years(span.years)
            .and_then(|length| length.try_months(span.months))
            .and_then(|length| length.try_days(span.days))
            .and_then(|length| length.try_hours(span.hours));
        let before = length.and_then(|length| self.zoned(time).checked_sub(length));
        before.map_or(Timestamp { seconds: i64::MIN, nanos: 0 }, |before| from_jiff(before.timestamp()))
    }
}

/// A size with a binary unit and three significant digits or more.
pub fn size(bytes: u64) -> String {
    let mut unit = 0;
    let mut value = bytes as f64;
    while value >= 1024.0 && unit + 1 < BINARY.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.2} {}", BINARY[unit]) }
}

/// `0:05`, `12:34`, `1:02:03`.
pub fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overheads() {
        let tenths = |text: &str| parse_overhead(text).map(Overhead::tenths);
        assert_eq!(["3%", "0.5%", "0.1%", "100%", "12.5 %"].map(tenths), [30, 5, 1, 1000, 125].map(Ok));
        for bad in
            ["", "3", "%", "0%", "0.0%", "100.1%", "101%", "3.25%", "-3%", "3.%", ".5%", "+3%", "9999999999%"]
        {
            assert!(parse_overhead(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        let good = [
            ("0", 0),
            ("1048576", 1 << 20),
            ("10M", 10 << 20),
            ("10m", 10 << 20),
            ("5GiB", 5 << 30),
            ("5 GiB", 5 << 30),
            ("20MB", 20_000_000),
            ("1t", 1 << 40),
            ("7b", 7),
        ];
        for (text, expected) in good {
            assert_eq!(parse_size(text), Ok(expected), "{text}");
        }
        for bad in ["", "M", "-1", "1.5G", "1X", "16777216T", "99999999999999999999"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.50 KiB");
        assert_eq!(size(u64::MAX), "16777216.00 TiB");
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("3m"), Ok(Duration::from_secs(180)));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7200)));
        for bad in ["", "m", "1w", "-3s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert_eq!(clock(Duration::from_secs(3723)), "1:02:03");
        assert_eq!(clock(Duration::from_secs(5)), "0:05");
    }

    #[test]
    fn the_calendar_counts_days_of_its_zone() {
        let zone = LocalCalendar(TimeZone::get("Europe/Berlin").expect("a well known zone"));
        let time = |text: &str| parse_time(text).expect("RFC 3339");
        let civil = zone.civil(time("2026-12-31T23:30:00Z"));
        let expected = CivilTime { year: 2027, month: 1, day: 1, hour: 0, week_year: 2026, week: 53 };
        assert_eq!(civil, expected);
        let span = |text: &str| text.parse::<Span>().expect("a span");
        // Summer time begins in between: a day back is the same hour, a month back the last day there is.
        assert_eq!(zone.before(time("2026-03-29T12:00:00Z"), &span("1d")), time("2026-03-28T13:00:00Z"));
        assert_eq!(zone.before(time("2026-03-31T12:00:00Z"), &span("1m")), time("2026-02-28T13:00:00Z"));
        let forever = zone.before(time("2026-03-31T12:00:00Z"), &span("1000000y"));
        assert!(forever < time("0001-01-01T00:00:00Z"));
        zone.civil(Timestamp { seconds: i64::MIN, nanos: 0 });
        zone.civil(Timestamp { seconds: i64::MAX, nanos: 999_999_999 });
    }

    #[test]
    fn times() {
        let time = parse_time("1969-12-31T23:59:59.25Z").expect("RFC 3339");
        assert_eq!(time, Timestamp { seconds: -1, nanos: 250_000_000 });
        assert_eq!(rfc3339(time), "1969-12-31T23:59:59.250000000Z");
        assert_eq!(rfc3339(Timestamp { seconds: i64::MAX, nanos: 0 }), "@9223372036854775807");
        assert!(parse_time("2026-03-31").is_ok() && parse_time("2026-03-31 02:30:00").is_ok());
        assert!(parse_time("yesterday").is_err());
    }
}
