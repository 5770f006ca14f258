//! Timers for the plan: units for systemd, lines for cron. They are printed; nothing here installs them.

use std::path::Path;

use crate::calendar::Schedule;
use crate::plan::Plan;
use crate::plan::values::quoted;
use crate::verify::demands;

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
pub fn systemd(plan: &Plan, program: &Path) -> Vec<Unit> {
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
        systemd_command(plan, program, "run")
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
    let mut units = vec![
        Unit { name: "strongroom-run.service", text: service },
        Unit { name: "strongroom-run.timer", text: timer },
    ];
    if !demands(plan).is_empty() {
        units.extend(systemd_verify(plan, program));
    }
    units
}

/// A service that verifies what is due, and a timer for it.
fn systemd_verify(plan: &Plan, program: &Path) -> [Unit; 2] {
    let service = format!(
        "[Unit]\n\
         Description=Strongroom: verify what is due\n\
         Documentation=man:strongroom-verify(1)\n\
         Wants=network-online.target\n\
         After=network-online.target\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         ExecStart={}\n\
         Nice=15\n\
         IOSchedulingClass=idle\n",
        systemd_command(plan, program, "verify")
    );
    let timer = "[Unit]\n\
         Description=Strongroom: when repositories may be due to be verified\n\
         \n\
         [Timer]\n\
         OnCalendar=daily\n\
         RandomizedDelaySec=4h\n\
         Persistent=true\n\
         \n\
         [Install]\n\
         WantedBy=timers.target\n";
    [
        Unit { name: "strongroom-verify.service", text: service },
        Unit { name: "strongroom-verify.timer", text: timer.into() },
    ]
}

fn systemd_command(plan: &Plan, program: &Path, what: &str) -> String {
    let command = [program, Path::new(what), Path::new("--due"), Path::new("--config"), config(plan)];
    let command: Vec<_> = command.iter().map(|word| systemd_word(&word.to_string_lossy())).collect();
    command.join(" ")
}

/// Lines of a crontab. What cron cannot say is looked at every five minutes: whether it is due, the repositories tell.
pub fn cron(plan: &Plan, program: &Path) -> String {
    let command = |what: &str| {
        let options = [Path::new(what), Path::new("--due"), Path::new("--quiet"), Path::new("--config")];
        let words = [&[program][..], &options, &[config(plan)]].concat();
        let words: Vec<_> = words.iter().map(|word| quoted(&word.to_string_lossy())).collect();
        // A percent sign ends a line of cron's.
        words.join(" ").replace('%', "\\%")
    };
    let mut text =
        String::from("# Strongroom: back up what is due. One run at a time; what failed is due again.\n");
    for schedule in schedules(plan) {
        let times = schedule.cron().unwrap_or_else(|| "*/5 * * * *".into());
        text.push_str(&format!("# {schedule}\n{times} {}\n", command("run")));
    }
    if !demands(plan).is_empty() {
        text.push_str(&format!("# verification\n30 4 * * * {}\n", command("verify")));
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
        let units = systemd(&plan(DOMAINS), Path::new("/opt/my tools/100%/strongroom"));
        let [service, timer] = &units[..] else { panic!("two units: {units:?}") };
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

    #[test]
    fn what_has_to_be_verified_has_a_timer() {
        let demanding =
            plan(&format!("[class.c]\nverify = {{ every = '7d', read = '5%' }}\n{DOMAINS}class = 'c'\n"));
        let units = systemd(&demanding, Path::new("/usr/bin/strongroom"));
        let names: Vec<_> = units.iter().map(|unit| unit.name).collect();
        assert_eq!(names[2..], ["strongroom-verify.service", "strongroom-verify.timer"]);
        assert!(units[2].text.contains("ExecStart=/usr/bin/strongroom verify --due --config p.toml\n"));
        let text = cron(&demanding, Path::new("/usr/bin/strongroom"));
        assert!(
            text.ends_with("30 4 * * * /usr/bin/strongroom verify --due --quiet --config p.toml\n"),
            "{text}"
        );
    }
}
