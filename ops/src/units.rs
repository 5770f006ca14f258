//! Timers for the plan: units for systemd, lines for cron. They are printed; nothing here installs them.

use std::path::Path;

use crate::calendar::Schedule;
use crate::plan::Plan;
use crate::plan::values::quoted;

/// A file of systemd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub text: String,
}

/// All schedules of the plan's domains, each once.
pub fn schedules(plan: &Plan) -> Vec<&Schedule> {
    let mut found: Vec<&Schedule> =
        plan.domains.iter().filter_map(|domain| domain.schedule.as_ref()).collect();
    found.sort_by_key(|schedule| schedule.to_string());
    found.dedup();
    found
}

/// A service that runs what is due, and a timer for it. One process runs all domains, so that they keep their order.
pub fn systemd(plan: &Plan, program: &Path) -> [Unit; 2] {
    let config = config(plan);
    let command = [program, Path::new("run"), Path::new("--due"), Path::new("--config"), config];
    let command: Vec<_> = command.iter().map(|word| systemd_word(&word.to_string_lossy())).collect();
    let service = format!(
        "[Unit]\n\
         Description=Strongroom: back up what is due\n\
         Documentation=man:strongroom-run(1)\n\
         Wants=network-online.target\n\
         After=network-online.target\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         ExecStart={}\n\
         Nice=10\n\
         # Commands get time to end, and hooks at the end are run.\n\
         KillMode=mixed\n\
         TimeoutStopSec=15min\n",
        command.join(" ")
    );
    let events: String = schedules(plan).iter().map(|schedule| format!("OnCalendar={schedule}\n")).collect();
    let timer = format!(
        "[Unit]\n\
         Description=Strongroom: when something may be due\n\
         \n\
         [Timer]\n\
         {events}\
         # What failed is due again.\n\
         OnUnitInactiveSec=1h\n\
         # What was missed while the host was off is made up for.\n\
         Persistent=true\n\
         AccuracySec=1min\n\
         \n\
         [Install]\n\
         WantedBy=timers.target\n"
    );
    [
        Unit { name: "strongroom-run.service", text: service },
        Unit { name: "strongroom-run.timer", text: timer },
    ]
}

/// Lines of a crontab. What cron cannot say is looked at every five minutes: whether it is due, the repositories tell.
pub fn cron(plan: &Plan, program: &Path) -> String {
    let words = [
        program,
        Path::new("run"),
        Path::new("--due"),
        Path::new("--quiet"),
        Path::new("--config"),
        config(plan),
    ];
    let words: Vec<_> = words.iter().map(|word| quoted(&word.to_string_lossy())).collect();
    // A percent sign ends a line of cron's.
    let command = words.join(" ").replace('%', "\\%");
    let mut text =
        String::from("# Strongroom: back up what is due. One run at a time; what failed is due again.\n");
    for schedule in schedules(plan) {
        let times = schedule.cron().unwrap_or_else(|| "*/5 * * * *".into());
        text.push_str(&format!("# {schedule}\n{times} {command}\n"));
    }
    text
}

fn config(plan: &Plan) -> &Path {
    &plan.sources[0].path
}

/// A word of a command line as systemd reads it.
fn systemd_word(word: &str) -> String {
    let escaped = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    match escaped.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '\\' | ';')) {
        true => format!("\"{escaped}\""),
        false => escaped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::load::tests_support::plan;

    const DOMAINS: &str = "[[domain]]\nname = 'x'\npaths = ['/x']\nschedule = 'Mon..Fri 02:15'\n[[domain]]\nname = 'y'\n\
                           paths = ['/y']\nschedule = 'Mon..Fri 02:15'\n[[domain]]\nname = 'z'\npaths = ['/z']\n\
                           schedule = 'Mon *-*-1..7 04:00'\n[[domain]]\nname = 'event'\npaths = ['/e']\n";

    #[test]
    fn each_schedule_is_there_once() {
        let [service, timer] = systemd(&plan(DOMAINS), Path::new("/opt/my tools/100%/strongroom"));
        let start = "ExecStart=\"/opt/my tools/100%%/strongroom\" run --due --config p.toml\n";
        assert!(service.text.contains(start), "{}", service.text);
        assert_eq!(timer.text.matches("OnCalendar=").count(), 2);
        assert!(timer.text.contains("OnCalendar=Mon..Fri 02:15\n"), "{}", timer.text);
    }

    #[test]
    fn cron_looks_often_where_it_cannot_say_when() {
        let text = cron(&plan(DOMAINS), Path::new("/opt/my tools/strongroom"));
        let command = "'/opt/my tools/strongroom' run --due --quiet --config p.toml";
        let expected = format!(
            "# Mon *-*-1..7 04:00\n*/5 * * * * {command}\n# Mon..Fri 02:15\n15 2 * * 1,2,3,4,5 {command}\n"
        );
        assert!(text.ends_with(&expected), "{text}");
    }
}
