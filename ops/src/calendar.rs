//! Schedules as systemd writes calendar events: `Mon..Fri *-*-* 02:15:00`.
//!
//! What is read here means the same to systemd; what this does not know (`~`, time zones, fractions of seconds) is refused.

use std::fmt;
use std::str::FromStr;

use jiff::Zoned;
use jiff::civil::{Date, DateTime, Time};
use serde::{Deserialize, Serialize};

/// A calendar event, which comes again and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Schedule {
    text: String,
    /// From Monday on.
    weekdays: [bool; 7],
    years: Field,
    months: Field,
    days: Field,
    hours: Field,
    minutes: Field,
    seconds: Field,
}

/// Days that are looked through for the next event: some 55 years, in which every day of a month has been every weekday.
const DAYS_MAX: u32 = 20_000;

/// Numbers that match; of an empty list all do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Field(Vec<Range>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: i16,
    last: i16,
    step: i16,
}

impl Field {
    fn one(number: i16) -> Self {
        Self(vec![Range { first: number, last: number, step: 1 }])
    }

    fn matches(&self, number: i16) -> bool {
        let within = |range: &Range| {
            (range.first..=range.last).contains(&number) && (number - range.first) % range.step == 0
        };
        self.0.is_empty() || self.0.iter().any(within)
    }

    /// Reads `*`, `5`, `1,3`, `1..5`, `0/15`, `8..18/2`.
    fn parse(text: &str, (min, max): (i16, i16), what: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::default());
        }
        let number = |text: &str| -> Result<i16, String> {
            let digits = !text.is_empty() && text.len() <= 4 && text.chars().all(|c| c.is_ascii_digit());
            let number =
                digits.then(|| text.parse().ok()).flatten().filter(|number| (min..=max).contains(number));
            number.ok_or_else(|| format!("{what} is {min} to {max}, not {text:?}"))
        };
        let ranges = text.split(',').map(|part| {
            let (range, step) = match part.split_once('/') {
                Some((range, step)) => (range, Some(step)),
                None => (part, None),
            };
            let (first, last) = match (range.split_once(".."), range) {
                (Some((first, last)), _) => (number(first)?, number(last)?),
                (None, "*") => {
                    return Err(match step {
                        Some(step) => format!("{what} is written as {min}/{step}, not as {part:?}"),
                        None => format!("{what} of which all match is `*` alone, not {text:?}"),
                    });
                }
                (None, one) => (number(one)?, if step.is_some() { max } else { number(one)? }),
            };
            let is_open = step.is_some() && !range.contains("..");
            let step: i16 = match step {
                None => 1,
                Some(step) => {
                    step.parse().ok().filter(|step| (1..=max.max(1)).contains(step)).ok_or_else(|| {
                        format!("the step behind / is a number from 1 to {max}, not {step:?}")
                    })?
                }
            };
            if is_open && first + step > max {
                return Err(format!("the step of {part:?} leads beyond {max}, and {what} is {min} to {max}"));
            }
            match first <= last {
                true => Ok(Range { first, last, step }),
                false => Err(format!("the range {range:?} of {what} runs backwards")),
            }
        });
        ranges.collect::<Result<_, _>>().map(Self)
    }

    /// As cron writes it.
    fn cron(&self, (min, max): (i16, i16)) -> String {
        let one = |range: &Range| match (range.first, range.last, range.step) {
            (first, last, 1) if first == last => first.to_string(),
            (first, last, step) if first == min && last == max => format!("*/{step}"),
            (first, last, 1) => format!("{first}-{last}"),
            (first, last, step) => format!("{first}-{last}/{step}"),
        };
        match self.0.is_empty() {
            true => "*".into(),
            false => self.0.iter().map(one).collect::<Vec<_>>().join(","),
        }
    }
}

const HOUR: (i16, i16) = (0, 23);
const SIXTIETH: (i16, i16) = (0, 59);
const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const WEEKDAYS_LONG: [&str; 7] =
    ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

fn weekdays(text: &str) -> Result<[bool; 7], String> {
    let day = |name: &str| {
        let name = name.to_ascii_lowercase();
        let found =
            WEEKDAYS.iter().zip(WEEKDAYS_LONG).position(|(short, long)| name == *short || name == long);
        found.ok_or_else(|| {
            format!("{name:?} is no day of the week: they are Mon, Tue, Wed, Thu, Fri, Sat and Sun")
        })
    };
    let mut days = [false; 7];
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once("..").unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        if first > last {
            return Err(format!("the range {part:?} of days runs backwards"));
        }
        days[first..=last].fill(true);
    }
    Ok(days)
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |reason: String| format!("{text:?} is no schedule: {reason}");
        let long = match text.trim().to_ascii_lowercase().as_str() {
            "minutely" => "*-*-* *:*:00",
            "hourly" => "*-*-* *:00:00",
            "daily" => "*-*-* 00:00:00",
            "weekly" => "Mon *-*-* 00:00:00",
            "monthly" => "*-*-01 00:00:00",
            "quarterly" => "*-01,04,07,10-01 00:00:00",
            "semiannually" => "*-01,07-01 00:00:00",
            "yearly" | "annually" => "*-01-01 00:00:00",
            _ => text,
        };
        Self::parse(long.trim())
            .map(|schedule| Self { text: text.trim().to_owned(), ..schedule })
            .map_err(wrong)
    }
}

impl Schedule {
    fn parse(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace().peekable();
        let is_weekday = |word: &&str| word.starts_with(|c: char| c.is_ascii_alphabetic());
        let days = words.next_if(is_weekday).map(weekdays).transpose()?;
        let date = words.next_if(|word| word.contains('-'));
        let time = words.next_if(|word| word.contains(':'));
        if let Some(word) = words.next() {
            return Err(format!("{word:?} is neither a day of the week nor a date nor a time"));
        }
        if days.is_none() && date.is_none() && time.is_none() {
            return Err("write it as `daily`, `Mon..Fri 02:15` or `*-*-01 04:00`".into());
        }
        let date: Vec<_> = date.unwrap_or("*-*-*").split('-').collect();
        let (year, month, day) = match date[..] {
            [month, day] => ("*", month, day),
            [year, month, day] => (year, month, day),
            _ => return Err("a date is written as YEAR-MONTH-DAY".into()),
        };
        let time: Vec<_> = time.unwrap_or("00:00:00").split(':').collect();
        let (hour, minute, second) = match time[..] {
            [hour, minute] => (hour, minute, "00"),
            [hour, minute, second] => (hour, minute, second),
            _ => return Err("a time is written as HOUR:MINUTE or HOUR:MINUTE:SECOND".into()),
        };
        let schedule = Self {
            text: text.to_owned(),
            weekdays: days.unwrap_or([true; 7]),
            years: Field::parse(year, (1970, 2199), "a year")?,
            months: Field::parse(month, (1, 12), "a month")?,
            days: Field::parse(day, (1, 31), "a day")?,
            hours: Field::parse(hour, HOUR, "an hour")?,
            minutes: Field::parse(minute, SIXTIETH, "a minute")?,
            seconds: Field::parse(second, SIXTIETH, "a second")?,
        };
        // February 30 never comes; a year that has passed never comes again, but it did come.
        let first = Date::constant(1970, 1, 1).at(0, 0, 0, 0);
        match schedule.next_civil(first, DAYS_MAX * 5) {
            Some(_) => Ok(schedule),
            None => Err("there is no such day".into()),
        }
    }

    fn has_day(&self, date: Date) -> bool {
        let weekday = usize::try_from(date.weekday().to_monday_zero_offset()).unwrap_or(0);
        self.weekdays[weekday]
            && self.years.matches(date.year())
            && self.months.matches(i16::from(date.month()))
            && self.days.matches(i16::from(date.day()))
    }

    /// Times of a day that it has, in order or from the end.
    fn times(&self, backwards: bool) -> impl Iterator<Item = Time> + '_ {
        let list = move |field: &Field, (min, max): (i16, i16)| -> Vec<i8> {
            let all = (min..=max)
                .filter(|number| field.matches(*number))
                .filter_map(|number| i8::try_from(number).ok());
            let mut all: Vec<i8> = all.collect();
            if backwards {
                all.reverse();
            }
            all
        };
        let (hours, minutes, seconds) =
            (list(&self.hours, HOUR), list(&self.minutes, SIXTIETH), list(&self.seconds, SIXTIETH));
        hours.into_iter().flat_map(move |hour| {
            let seconds = seconds.clone();
            minutes.clone().into_iter().flat_map(move |minute| {
                seconds.clone().into_iter().filter_map(move |second| Time::new(hour, minute, second, 0).ok())
            })
        })
    }

    /// The first event after a time of a clock on the wall.
    fn next_civil(&self, after: DateTime, days_max: u32) -> Option<DateTime> {
        let mut date = after.date();
        for _ in 0..days_max {
            if self.has_day(date) {
                let found = self.times(false).map(|time| date.to_datetime(time)).find(|time| *time > after);
                if found.is_some() {
                    return found;
                }
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    /// The last event at or before a time of a clock on the wall.
    fn last_civil(&self, until: DateTime) -> Option<DateTime> {
        let mut date = until.date();
        for _ in 0..DAYS_MAX {
            if self.has_day(date) {
                let found = self.times(true).map(|time| date.to_datetime(time)).find(|time| *time <= until);
                if found.is_some() {
                    return found;
                }
            }
            date = date.yesterday().ok()?;
        }
        None
    }

    /// The first event after `time`, in its time zone.
    pub fn next_after(&self, time: &Zoned) -> Option<Zoned> {
        let mut civil = time.datetime();
        loop {
            civil = self.next_civil(civil, DAYS_MAX)?;
            let zoned = civil.to_zoned(time.time_zone().clone()).ok()?;
            // Where clocks are set back, the hour that comes twice counts once.
            if zoned > *time {
                return Some(zoned);
            }
        }
    }

    /// The last event at or before `time`, in its time zone.
    pub fn last_before(&self, time: &Zoned) -> Option<Zoned> {
        let mut civil = time.datetime();
        loop {
            civil = self.last_civil(civil)?;
            let zoned = civil.to_zoned(time.time_zone().clone()).ok()?;
            // An event in an hour that clocks leave out comes after it.
            if zoned <= *time {
                return Some(zoned);
            }
            civil = civil.checked_sub(jiff::Span::new().seconds(1)).ok()?;
        }
    }

    /// The longest time between two events of the next decades, in seconds; none where it comes once at most. Clocks that are set
    /// back make it an hour longer, which is not counted.
    pub fn longest_gap(&self) -> Option<u64> {
        let secs = |time: Time| {
            i64::from(time.hour()) * 3600 + i64::from(time.minute()) * 60 + i64::from(time.second())
        };
        // Each day that has events has the same ones.
        let times: Vec<_> = self.times(false).map(secs).collect();
        let (first, last) = (*times.first()?, *times.last()?);
        let mut longest = times.windows(2).map(|pair| pair[1] - pair[0]).max();
        let (mut date, mut since) = (Date::constant(2024, 1, 1), None);
        for number in 0..i64::from(DAYS_MAX) {
            if self.has_day(date) {
                let night = since.map(|before| (number - before) * 86_400 + first - last);
                longest = longest.max(night);
                since = Some(number);
            }
            let Ok(next) = date.tomorrow() else { break };
            date = next;
        }
        since.and(longest).and_then(|gap| u64::try_from(gap).ok())
    }

    /// The same as cron writes it, if cron can: it knows no seconds and no years, and takes days of the week and of the month
    /// for alternatives.
    pub fn cron(&self) -> Option<String> {
        let any_weekday = self.weekdays == [true; 7];
        if self.seconds != Field::one(0)
            || !self.years.0.is_empty()
            || !(any_weekday || self.days.0.is_empty())
        {
            return None;
        }
        let weekdays = match any_weekday {
            true => "*".into(),
            false => {
                let days = (1..=7).filter(|day| self.weekdays[day - 1]).map(|day| (day % 7).to_string());
                days.collect::<Vec<_>>().join(",")
            }
        };
        let (minutes, hours) = (self.minutes.cron(SIXTIETH), self.hours.cron(HOUR));
        let (days, months) = (self.days.cron((1, 31)), self.months.cron((1, 12)));
        Some(format!("{minutes} {hours} {days} {months} {weekdays}"))
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(text: &str) -> Schedule {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    fn zoned(text: &str) -> Zoned {
        text.parse().expect("a time")
    }

    #[test]
    fn the_last_and_the_next_event_are_found() {
        let now = zoned("2026-11-28T12:00:00[Europe/Berlin]"); // a Saturday
        for (text, last, next) in [
            ("*-*-* 02:15", "2026-11-28T02:15:00", "2026-11-29T02:15:00"),
            ("Sun 04:00", "2026-11-22T04:00:00", "2026-11-29T04:00:00"),
            ("Mon..Fri 23:30:10", "2026-11-27T23:30:10", "2026-11-30T23:30:10"),
            ("hourly", "2026-11-28T12:00:00", "2026-11-28T13:00:00"),
            ("*:7/20", "2026-11-28T11:47:00", "2026-11-28T12:07:00"),
            ("monthly", "2026-11-01T00:00:00", "2026-12-01T00:00:00"),
            ("*-02-29 00:00", "2024-02-29T00:00:00", "2028-02-29T00:00:00"),
            ("Mon,Wed *-*-1..7 8..18/5:00", "2026-11-04T18:00:00", "2026-12-02T08:00:00"),
        ] {
            let schedule = schedule(text);
            assert_eq!(schedule.last_before(&now).expect("one").datetime().to_string(), last, "{text}");
            assert_eq!(schedule.next_after(&now).expect("one").datetime().to_string(), next, "{text}");
        }
        assert!(schedule("2020-01-01 00:00").next_after(&now).is_none());
    }

    /// The units have schedules as they stand in the plan.
    #[test]
    fn every_form_means_the_same_to_systemd() {
        let now = zoned("2026-11-28T12:00:00[UTC]");
        for text in [
            "minutely",
            "hourly",
            "daily",
            "weekly",
            "monthly",
            "quarterly",
            "semiannually",
            "yearly",
            "annually",
            "*-*-* 02:15",
            "02:15",
            "2:5",
            "02:15:30",
            "*-*-* *:*",
            "*:0/15",
            "*:7/20",
            "*:*:0/20",
            "0/2:00",
            "8..18/5:00",
            "9,17:30",
            "Sun 04:00",
            "Mon..Fri 23:30:10",
            "monday,Thu 06:00",
            "Sat..Sun",
            "Mon,Wed..Fri *-*-* 01:00",
            "Fri *-*-13",
            "Mon *-*-1..7 05:00",
            "*-*-01 04:00",
            "02-29",
            "*-02-29 00:00",
            "*-01,07-15",
            "*-1..6-1/10",
            "2027-*-* 12:00",
            "2027..2029-03-01",
            "2028/4-02-29",
        ] {
            let analyze = std::process::Command::new("systemd-analyze")
                .args(["calendar", "--base-time=2026-11-28 12:00:00 UTC", "--iterations=4", text])
                .env("TZ", "UTC")
                .env("LC_ALL", "C")
                .output();
            let output = match analyze {
                Ok(output) => output,
                Err(error) => return strongroom::testing::cannot("run systemd-analyze", &error),
            };
            assert!(output.status.success(), "{text}: {output:?}");
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let events = said.lines().filter_map(|line| {
                let (label, time) = line.split_once(": ")?;
                let label = label.trim();
                let is_event = label == "Next elapse" || label.starts_with("Iter");
                let (_, time) = time.split_once(' ')?;
                is_event.then(|| time.trim_end_matches(" UTC").replace(' ', "T"))
            });
            let events: Vec<_> = events.collect();
            let ours = std::iter::successors(schedule(text).next_after(&now), |time| {
                schedule(text).next_after(time)
            });
            let ours: Vec<_> = ours.take(4).map(|time| time.datetime().to_string()).collect();
            assert_eq!(ours, events, "{text}: {said}");
            assert!(!ours.is_empty(), "{text}: {said}");
        }
    }

    #[test]
    fn hours_that_clocks_leave_out_or_repeat_have_one_event() {
        let nightly = schedule("02:30");
        let spring = zoned("2026-03-29T01:59:00[Europe/Berlin]");
        assert_eq!(
            nightly.next_after(&spring).expect("one").to_string(),
            "2026-03-29T03:30:00+02:00[Europe/Berlin]"
        );
        let before = zoned("2026-03-29T03:10:00[Europe/Berlin]");
        assert_eq!(nightly.last_before(&before).expect("one").date().day(), 28);
        let autumn = zoned("2026-10-25T02:30:00+02:00[Europe/Berlin]");
        assert_eq!(nightly.next_after(&autumn).expect("one").date().day(), 26);
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "write it as"),
            ("noon", "no day of the week"),
            ("25:00", "an hour is 0 to 23"),
            ("*-13-01", "a month is 1 to 12"),
            ("*-02-30", "no such day"),
            ("5..1:00", "runs backwards"),
            ("*:0/0", "step"),
            ("daily 5", "no day of the week"),
            ("02:15 UTC", "neither"),
            ("Fri..Mon", "runs backwards"),
            ("1-2-3-4", "YEAR-MONTH-DAY"),
            ("*:*/15", "a minute is written as 0/15, not as \"*/15\""),
            ("*-*/2-1", "a month is written as 1/2"),
            ("*,5:00", "an hour of which all match is `*` alone"),
            ("*-*-1/31", "leads beyond 31"),
            ("*:59/1", "leads beyond 59"),
            ("2200-01-01", "a year is 1970 to 2199"),
        ] {
            let error = text.parse::<Schedule>().expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn gaps_are_the_longest_there_are() {
        let hours = |text: &str| schedule(text).longest_gap().map(|seconds| seconds / 3600);
        assert_eq!(hours("daily"), Some(24));
        assert_eq!(hours("Mon..Fri 02:00"), Some(72));
        assert_eq!(hours("*-*-* 00,18:00"), Some(18));
        assert_eq!(hours("monthly"), Some(31 * 24));
        assert_eq!(hours("2025-01-01 00:00"), None);
        assert_eq!(hours("2020-*-* *:00"), None, "it comes no more");
        assert_eq!(hours("2025-01-01 00,06:00"), Some(6));
        // Also where there are many events between two of them.
        assert_eq!(hours("Mon..Fri *:*"), Some(48));
        assert_eq!(hours("*-01..06-* *:0/15"), Some(184 * 24));
        assert_eq!(hours("*:*:*"), Some(0));
        assert_eq!(hours("*-02-29 00:00"), Some((4 * 365 + 1) * 24));
    }

    #[test]
    fn cron_gets_what_it_can_say() {
        let cron = |text: &str| schedule(text).cron();
        assert_eq!(cron("*-*-* 02:15").as_deref(), Some("15 2 * * *"));
        assert_eq!(cron("Mon..Fri *:0/15").as_deref(), Some("*/15 * * * 1,2,3,4,5"));
        assert_eq!(cron("Sun 04:00").as_deref(), Some("0 4 * * 0"));
        assert_eq!(cron("quarterly").as_deref(), Some("0 0 1 1,4,7,10 *"));
        assert_eq!(cron("Mon *-*-1..7 00:00"), None);
        assert_eq!(cron("02:15:30"), None);
    }
}
