//! What was told to whom and when, so that nobody is told the same again and again.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::plan::types::Event;
use crate::run::state::{State, write_whole};

const FILE: &str = "notified.json";
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
/// How long anything is remembered.
const KEPT: u64 = 90 * DAY;

/// What is remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// What fails, and since when.
    #[serde(default)]
    failing: BTreeMap<String, Timestamp>,
    /// What does not fail and lacks something, and since when.
    #[serde(default)]
    lacking: BTreeMap<String, Timestamp>,
    /// What was one of these, and since when it is well again, as long as somebody has to be told.
    #[serde(default)]
    recovered: BTreeMap<String, Timestamp>,
    /// When somebody was last told of something.
    #[serde(default)]
    told: BTreeMap<String, Timestamp>,
}

impl Memory {
    /// What the state folder has. What cannot be read is forgotten: somebody is told once more.
    pub fn load(state: &State) -> Self {
        fs::read(state.path(FILE))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    /// Changes what the state folder has, as it is by then: whoever was told something slowly has old memories.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn change(state: &State, now: Timestamp, change: impl FnOnce(&mut Self)) -> io::Result<()> {
        let _alone = state.alone()?;
        let mut memory = Self::load(state);
        change(&mut memory);
        memory.save(state, now)
    }

    fn save(&mut self, state: &State, now: Timestamp) -> io::Result<()> {
        self.told.retain(|_, time| secs_since(*time, now) < KEPT);
        self.recovered.retain(|_, time| secs_since(*time, now) < KEPT);
        write_whole(&state.path(FILE), &serde_json::to_vec(self)?)
    }

    /// What fails.
    pub fn failing(&self) -> impl Iterator<Item = &str> {
        self.failing.keys().map(String::as_str)
    }

    /// What lacks something.
    pub fn lacking(&self) -> impl Iterator<Item = &str> {
        self.lacking.keys().map(String::as_str)
    }

    /// Takes note that something fails.
    pub fn fails(&mut self, subject: &str, now: Timestamp) {
        self.failing.entry(subject.to_owned()).or_insert(now);
        self.lacking.remove(subject);
        self.recovered.remove(subject);
    }

    /// Takes note that something lacks something.
    pub fn lacks(&mut self, subject: &str, now: Timestamp) {
        self.lacking.entry(subject.to_owned()).or_insert(now);
        self.failing.remove(subject);
        self.recovered.remove(subject);
    }

    /// Takes note that something is well.
    pub fn is_well(&mut self, subject: &str, now: Timestamp) {
        let (failed, lacked) = (self.failing.remove(subject), self.lacking.remove(subject));
        if failed.or(lacked).is_some() {
            self.recovered.insert(subject.to_owned(), now);
        }
    }

    /// What is well again, and somebody may not have been told yet.
    pub fn recovered(&self) -> Vec<String> {
        self.recovered.keys().cloned().collect()
    }

    /// Forgets what is well again as far as all of these have been told.
    pub fn settle(&mut self, channels: &[String], now: Timestamp) {
        let before = self.clone();
        self.recovered
            .retain(|subject, _| channels.iter().any(|channel| before.has_to_hear(channel, subject, now)));
    }

    /// Whether the last that a channel has heard of something is not that it is well again.
    fn has_to_hear(&self, channel: &str, subject: &str, now: Timestamp) -> bool {
        let told = |event| self.told.get(&key(channel, event, subject));
        // A time to come is a wrong clock's.
        let Some(last) = told(Event::Recovered).filter(|last| **last <= now) else { return true };
        match told(Event::Failure).max(told(Event::Partial)) {
            Some(bad) => bad > last,
            None => self.recovered.get(subject).is_some_and(|since| since > last),
        }
    }

    /// Whether somebody is to be told of something now.
    pub fn is_news(&self, channel: &str, event: Event, subject: &str, now: Timestamp) -> bool {
        if event == Event::Recovered && !self.has_to_hear(channel, subject, now) {
            return false;
        }
        let Some(last) = self.told.get(&key(channel, event, subject)) else { return true };
        let is_new = |open: &BTreeMap<_, _>| open.get(subject).is_some_and(|since| since > last);
        let has_heard = |event| self.told.contains_key(&key(channel, event, subject));
        let pause = match event {
            Event::Start | Event::Success | Event::Drill | Event::Recovery => 0,
            // What fails and recovers all the time is told once an hour.
            Event::Failure if is_new(&self.failing) => HOUR,
            Event::Partial if is_new(&self.lacking) => HOUR,
            // As often as it was told of.
            Event::Recovered if has_heard(Event::Failure) || has_heard(Event::Partial) => 0,
            Event::Recovered => HOUR,
            Event::Failure | Event::Partial | Event::Rpo => DAY,
            Event::ExceptionExpiring => 7 * DAY,
        };
        // A time to come is a wrong clock's.
        *last > now || secs_since(*last, now) >= pause
    }

    /// Takes note that somebody was told.
    pub fn was_told(&mut self, channel: &str, event: Event, subject: &str, now: Timestamp) {
        self.told.insert(key(channel, event, subject), now);
    }
}

fn key(channel: &str, event: Event, subject: &str) -> String {
    format!("{channel} {} {subject}", event.name())
}

fn secs_since(time: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(now.duration_since(time).as_secs()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_764_000_000 + hours * 3600).expect("a time")
    }

    #[test]
    fn the_last_word_is_that_it_is_well_again() {
        let minute = |minutes: i64| Timestamp::from_second(1_764_000_000 + minutes * 60).expect("a time");
        let channels = ["w".to_owned(), "only".to_owned()];
        let mut memory = Memory::default();
        let news =
            |memory: &Memory, channel: &str, event, at| memory.is_news(channel, event, "x", minute(at));
        memory.fails("x", minute(0));
        memory.was_told("w", Event::Failure, "x", minute(0));
        memory.is_well("x", minute(10));
        memory.is_well("x", minute(11));
        // Nobody could be told: it is news until somebody is.
        memory.settle(&channels, minute(11));
        assert_eq!(memory.recovered(), ["x"]);
        for channel in ["w", "only"] {
            assert!(news(&memory, channel, Event::Recovered, 90), "{channel}");
            memory.was_told(channel, Event::Recovered, "x", minute(90));
            assert!(!news(&memory, channel, Event::Recovered, 400), "{channel}");
        }
        memory.settle(&channels, minute(90));
        assert_eq!(memory.recovered(), [] as [&str; 0]);
        // Told of again as a failure, it is told at once that it is over; who hears of that alone hears it once an hour.
        memory.fails("x", minute(100));
        assert!(news(&memory, "w", Event::Failure, 100));
        memory.was_told("w", Event::Failure, "x", minute(100));
        memory.is_well("x", minute(101));
        assert!(news(&memory, "w", Event::Recovered, 101) && !news(&memory, "only", Event::Recovered, 101));
        memory.was_told("w", Event::Recovered, "x", minute(101));
        memory.settle(&channels, minute(101));
        assert!(news(&memory, "only", Event::Recovered, 151), "it was kept for later");
        // What nobody was told of needs no end.
        memory.fails("x", minute(110));
        assert!(!news(&memory, "w", Event::Failure, 110));
        memory.is_well("x", minute(120));
        assert!(!news(&memory, "w", Event::Recovered, 500));
    }

    #[test]
    fn the_same_is_not_told_again_and_again() {
        let mut memory = Memory::default();
        let news = |memory: &Memory, event, hours| memory.is_news("w", event, "x", at(hours));
        memory.fails("x", at(0));
        assert!(news(&memory, Event::Failure, 0));
        memory.was_told("w", Event::Failure, "x", at(0));
        memory.fails("x", at(1));
        assert!(!news(&memory, Event::Failure, 1) && !news(&memory, Event::Failure, 23));
        assert!(
            memory.is_news("other", Event::Failure, "x", at(1))
                && memory.is_news("w", Event::Failure, "y", at(1))
        );
        assert!(news(&memory, Event::Failure, 24), "once a day, as long as it fails");
        memory.is_well("x", at(1));
        memory.fails("x", at(2));
        assert!(news(&memory, Event::Failure, 2), "it has failed anew");
        memory.was_told("w", Event::Success, "x", at(2));
        assert!(news(&memory, Event::Success, 2));
        memory.was_told("w", Event::Rpo, "x", at(50));
        assert!(news(&memory, Event::Rpo, 3), "a clock that ran ahead silences nobody");

        let folder = tempfile::tempdir().expect("a folder");
        let state = State::new(folder.path()).expect("made");
        assert_eq!(Memory::load(&state), Memory::default());
        memory.save(&state, at(3)).expect("written");
        assert_eq!(Memory::load(&state), memory);
        fs::write(folder.path().join(FILE), "{").expect("written");
        assert_eq!(Memory::load(&state), Memory::default());
    }
}
