//! Targets about restores: that one was rehearsed, and how long it takes.

use super::{Finding, Judge, Standing};
use crate::drill::{DrillRecord, history};
use crate::plan::types::Control;
use crate::recover::preview::Measurements;
use crate::status::rough;

impl Judge<'_, '_, '_> {
    /// The newest measurement decides, of whatever kind.
    pub(super) fn rto(&self) -> Option<Finding> {
        let rto = self.objectives.rto?;
        let measured = Measurements { drills: self.evidence.drills, recoveries: self.evidence.recoveries };
        let (standing, found) = match measured.newest(self.plan, &self.domain.name) {
            None => (Standing::Unknown, format!("never measured{}", self.unasked())),
            Some(measured) => {
                let is_met = measured.seconds <= rto.as_secs() as f64;
                let by = measured.drill.map_or("a recovery".to_owned(), |drill| format!("the drill {drill}"));
                let ago = rough(self.age(measured.began));
                let found = format!("{:.1} s in {by}, {ago} ago", measured.seconds);
                (if is_met { Standing::Met } else { Standing::Violated }, found)
            }
        };
        Some(self.finding(Control::Rto, standing, format!("back within {rto}"), found))
    }

    /// Repositories of the domain whose logs may say more.
    fn unasked(&self) -> String {
        let all = self.evidence.unasked.iter();
        let own = all.filter(|repo| self.copies.iter().any(|(copy, _)| copy == repo));
        own.map(|repo| format!("; {repo} cannot be asked")).collect()
    }

    /// One that failed counts also where nobody says how often there is to be one. One that was only late is excused with the time.
    pub(super) fn drill(&self) -> Option<Finding> {
        let (name, drills) = (&self.domain.name, self.evidence.drills);
        let every = self.objectives.drill_every;
        let failed = history::failed(self.plan, name, drills);
        if !failed.is_empty() {
            let wanted = every.map_or("that it passes".to_owned(), |every| format!("every {every}"));
            let told = |drill: &&DrillRecord| {
                format!("{} failed {} ago", drill.told(), rough(self.age(drill.began)))
            };
            let found = failed.iter().map(told).collect::<Vec<_>>().join(", ");
            let finding = self.finding(Control::Drill, Standing::Violated, wanted, found);
            let today = self.evidence.now.date();
            let excuses = failed.iter().map(|drill| history::excuse(self.plan, name, drill, today));
            return Some(match excuses.collect::<Option<Vec<_>>>() {
                Some(excuses) => {
                    let exception = excuses.first().map(|exception| exception.id.clone());
                    Finding { standing: Standing::Excused, exception, ..finding }
                }
                None => finding,
            });
        }
        let (every, passed) = (every?, history::passed(self.plan, name, drills));
        let (is_met, found) = match passed.map(|drill| self.age(drill.began)) {
            None => (false, "never".to_owned()),
            Some(age) => (age <= every, format!("{} ago", rough(age))),
        };
        let unasked = self.unasked();
        let (standing, found) = match (is_met, unasked.is_empty()) {
            (true, _) => (Standing::Met, found),
            (false, true) => (Standing::Violated, found),
            // There may have been a later one.
            (false, false) => (Standing::Unknown, format!("{found}{unasked}")),
        };
        Some(self.finding(Control::Drill, standing, format!("every {every}"), found))
    }
}
