//! What a policy can say, in the words of its user.

use std::fmt;
use std::str::FromStr;

use crate::format::tree::Timestamp;
use crate::ids::SnapshotId;

/// Stretch of the calendar of which one snapshot is kept: the last one made in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// Each snapshot is one by itself.
    Each,
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A week, from Monday on.
    Week,
    /// A month.
    Month,
    /// A year.
    Year,
}

impl Period {
    /// What the periods are called that a rule counts.
    fn noun(self) -> &'static str {
        match self {
            Self::Each => "snapshot",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    fn adverb(self) -> &'static str {
        match self {
            Self::Each => "last",
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Week => "weekly",
            Self::Month => "monthly",
            Self::Year => "yearly",
        }
    }
}

/// How far back a rule reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// So many periods in which there are snapshots.
    Count(u64),
    /// All periods.
    Unlimited,
    /// As far as this before the group's newest snapshot: clocks of those who run `forget` play no part.
    Within(Span),
}

/// One rule: keep one snapshot of each period, as far back as it reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Of which period one is kept.
    pub period: Period,
    /// How far back.
    pub reach: Reach,
}

impl Rule {
    /// Whether the rule asks when a snapshot was made, and not only in which order.
    pub fn reads_times(&self) -> bool {
        !matches!((self.period, self.reach), (Period::Each, Reach::Count(_) | Reach::Unlimited))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.period, self.reach) {
            (period, Reach::Count(count)) => write!(f, "keep-{} {count}", period.adverb()),
            (period, Reach::Unlimited) => write!(f, "keep-{} unlimited", period.adverb()),
            (Period::Each, Reach::Within(span)) => write!(f, "keep-within {span}"),
            (period, Reach::Within(span)) => write!(f, "keep-within-{} {span}", period.adverb()),
        }
    }
}

/// A length of time on the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Years.
    pub years: u32,
    /// Months.
    pub months: u32,
    /// Days; a week is seven.
    pub days: u32,
    /// Hours.
    pub hours: u32,
}

/// Text that is no length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a length of time: write it as 2y5m7d3h, with y, m, w, d or h after each number")]
pub struct ParseSpanError(String);

impl FromStr for Span {
    type Err = ParseSpanError;

    fn from_str(text: &str) -> Result<Self, ParseSpanError> {
        let wrong = || ParseSpanError(text.chars().take(80).collect());
        let mut span = Self::default();
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let number: u32 = rest[..digits].parse().map_err(|_| wrong())?;
            let unit = rest[digits..].chars().next().ok_or_else(wrong)?;
            let (field, factor) = match unit {
                'y' => (&mut span.years, 1),
                'm' => (&mut span.months, 1),
                'w' => (&mut span.days, 7),
                'd' => (&mut span.days, 1),
                'h' => (&mut span.hours, 1),
                _ => return Err(wrong()),
            };
            let sum = number.checked_mul(factor).and_then(|number| field.checked_add(number));
            *field = sum.filter(|sum| *sum <= Self::NUMBER_MAX).ok_or_else(wrong)?;
            rest = &rest[digits + unit.len_utf8()..];
        }
        Ok(span)
    }
}

impl Span {
    /// Highest number of any unit: every calendar can go back that far, or knows that it cannot.
    const NUMBER_MAX: u32 = 1_000_000;
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(self.years, 'y'), (self.months, 'm'), (self.days, 'd'), (self.hours, 'h')];
        if units.iter().all(|(number, _)| *number == 0) {
            return f.write_str("0h");
        }
        units
            .iter()
            .filter(|(number, _)| *number > 0)
            .try_for_each(|(number, unit)| write!(f, "{number}{unit}"))
    }
}

/// A moment as a calendar shows it, as far as rules want to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CivilTime {
    /// Year.
    pub year: i32,
    /// Month, from 1.
    pub month: u8,
    /// Day of the month, from 1.
    pub day: u8,
    /// Hour, from 0.
    pub hour: u8,
    /// Year to which the week belongs, as ISO 8601 counts.
    pub week_year: i32,
    /// Week of that year, from 1.
    pub week: u8,
}

impl CivilTime {
    /// Two moments of one period have equal keys.
    pub(super) fn key(&self, period: Period) -> (i32, u8, u8, u8) {
        match period {
            // Each snapshot stands by itself: nobody asks.
            Period::Each | Period::Hour => (self.year, self.month, self.day, self.hour),
            Period::Day => (self.year, self.month, self.day, 0),
            Period::Week => (self.week_year, self.week, 0, 0),
            Period::Month => (self.year, self.month, 0, 0),
            Period::Year => (self.year, 0, 0, 0),
        }
    }
}

/// Where days and hours begin: the caller's time zone.
pub trait Calendar {
    /// A moment on this calendar.
    fn civil(&self, time: Timestamp) -> CivilTime;

    /// The moment that lies `span` before `time`; the earliest one there is if the calendar does not reach so far.
    fn before(&self, time: Timestamp, span: &Span) -> Timestamp;
}

/// Which snapshots a policy keeps. What no rule keeps goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// Rules; a snapshot stays if any keeps it.
    pub rules: Vec<Rule>,
    /// Snapshots with all tags of any of these lists stay.
    pub tags: Vec<Vec<String>>,
    /// These stay.
    pub ids: Vec<SnapshotId>,
    /// These stay, too: a rehearsed restore has shown that they are of use.
    pub drilled: Vec<SnapshotId>,
}

impl Policy {
    /// Whether it keeps nothing at all: nobody can mean that.
    pub fn is_empty(&self) -> bool {
        let keeps = |rule: &Rule| rule.reach != Reach::Count(0);
        !self.rules.iter().any(keeps)
            && self.tags.is_empty()
            && self.ids.is_empty()
            && self.drilled.is_empty()
    }

    /// Whether any rule asks when snapshots were made.
    pub fn reads_times(&self) -> bool {
        self.rules.iter().any(Rule::reads_times)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = self.rules.iter().map(Rule::to_string);
        let tags = self.tags.iter().map(|tags| format!("keep-tag {}", tags.join(",")));
        let ids = self.ids.iter().map(|id| format!("keep-id {}", id.short()));
        let drilled = self.drilled.iter().map(|id| format!("keep-drilled {}", id.short()));
        let all: Vec<_> = rules.chain(tags).chain(ids).chain(drilled).collect();
        f.write_str(&all.join(", "))
    }
}

/// What makes snapshots rows of one series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupBy {
    /// The host.
    pub host: bool,
    /// The set of paths.
    pub paths: bool,
    /// The set of tags.
    pub tags: bool,
}

impl Default for GroupBy {
    fn default() -> Self {
        Self { host: true, paths: true, tags: false }
    }
}

impl fmt::Display for GroupBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [(self.host, "host"), (self.paths, "paths"), (self.tags, "tags")];
        let names: Vec<_> = names.iter().filter(|(is_set, _)| *is_set).map(|(_, name)| *name).collect();
        f.write_str(if names.is_empty() { "nothing" } else { "" })?;
        f.write_str(&names.join(","))
    }
}

/// Why a snapshot stays or goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// A rule keeps it.
    Rule {
        /// The rule.
        rule: Rule,
        /// As which of the rule's periods, the newest being 1.
        nth: u64,
    },
    /// It has these tags.
    Tagged(Vec<String>),
    /// It was named to be kept.
    KeptById,
    /// It is the last one that a drill restored.
    Drilled,
    /// It is held.
    Held(String),
    /// It is partial, and the next backup goes on from it.
    Unfinished,
    /// The rules go by times, and those of its group cannot be trusted.
    TimesNotTrusted,
    /// It is not among those that were named.
    NotNamed,
    /// It was named to be forgotten.
    Named,
    /// It is partial, and a later one is complete.
    Superseded,
    /// No rule keeps it.
    NoRule,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule { rule, nth } => write!(f, "{rule} ({} {nth})", rule.period.noun()),
            Self::Tagged(tags) => write!(f, "keep-tag {}", tags.join(",")),
            Self::KeptById => f.write_str("keep-id"),
            Self::Drilled => f.write_str("keep-drilled: the last one that a drill restored"),
            Self::Held(reason) => write!(f, "held: {reason}"),
            Self::Unfinished => f.write_str("partial, and the next backup goes on from it"),
            Self::TimesNotTrusted => f.write_str("the times of its group cannot be trusted"),
            Self::NotNamed => f.write_str("not named"),
            Self::Named => f.write_str("named"),
            Self::Superseded => f.write_str("partial, and a later complete snapshot took its place"),
            Self::NoRule => f.write_str("no rule keeps it"),
        }
    }
}
