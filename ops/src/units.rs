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

/// Where services look for variables, if it is there: addresses of those who are told are in such.
pub const ENVIRONMENT: &str = "/etc/strongroom/environment";

/// All schedules of the plan's domains, each once.
pub fn schedules(plan: &Plan) -> Vec<&Schedule> {
    once(plan.domains.iter().filter_map(|domain| domain.schedule.as_ref()))
}

/// All schedules of the plan's drills, each once.
pub fn drill_schedules(plan: &Plan) -> Vec<&Schedule> {
    once(plan.drills.iter().filter_map(|drill| drill.schedule.as_ref()))
}

fn once<'p>(schedules: impl Iterator<Item = &'p Schedule>) -> Vec<&'p Schedule> {
    let mut found: Vec<&Schedule> = schedules.collect();
    found.sort_by_key(|schedule| schedule.to_string());
    found.dedup();
    found
}

/// A service that does what is due of a kind, and a timer for it.
struct Job {
    verb: &'static str,
    names: [&'static str; 2],
    /// What it does.
    what: &'static str,
    /// When the timer calls it.
    when: &'static str,
    /// Lines of the service.
    service: &'static str,
    /// Lines of the timer.
    timer: String,
}

impl Job {
    fn units(self, call: &Call<'_>) -> [Unit; 2] {
        let Self { verb, names, what, when, service, timer } = self;
        let service = format!(
            "[Unit]\n\
             Description=Strongroom: {what}\n\
             Documentation=man:strongroom-{verb}(1)\n\
             Wants=network-online.target\n\
             After=network-online.target\n\
             \n\
             [Service]\n\
             Type=oneshot\n\
             EnvironmentFile=-{ENVIRONMENT}\n\
             ExecStart={}\n\
             {service}",
            call.systemd(verb)
        );
        let timer = format!(
            "[Unit]\n\
             Description=Strongroom: {when}\n\
             \n\
             [Timer]\n\
             {timer}\
             \n\
             [Install]\n\
             WantedBy=timers.target\n"
        );
        let [of_service, of_timer] = names;
        [Unit { name: of_service, text: service }, Unit { name: of_timer, text: timer }]
    }
}

/// What timers call.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// This program.
    pub program: &'a Path,
    /// Where it remembers what it has done, if not in the usual place: a timer with another memory knows nothing of this one.
    pub state_dir: Option<&'a Path>,
}

impl Call<'_> {
    fn words<'w>(&'w self, what: &'w str, more: Option<&'w str>) -> Vec<&'w Path> {
        let mut words = vec![self.program, Path::new(what), Path::new("--due")];
        words.extend(more.map(Path::new));
        words.extend([Path::new("--config"), &self.plan.sources[0].path]);
        words.extend(self.state_dir.into_iter().flat_map(|state_dir| [Path::new("--state-dir"), state_dir]));
        words
    }

    fn systemd(&self, what: &str) -> String {
        let words = self.words(what, None);
        words.iter().map(|word| systemd_word(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
    }

    fn cron(&self, what: &str) -> String {
        let words = self.words(what, Some("--quiet"));
        let words: Vec<_> = words.iter().map(|word| quoted(&word.to_string_lossy())).collect();
        // A percent sign ends a line of cron's.
        words.join(" ").replace('%', "\\%")
    }
}

/// Services and timers for what the plan has: one process runs all domains, so that they keep their order, and one all drills.
pub fn systemd(call: &Call<'_>) -> Vec<Unit> {
    const PATIENT: &str = "Nice=10\n\
         # Commands get time to end, and what has to be done at the end is done.\n\
         KillMode=mixed\n\
         TimeoutStopSec=15min\n";
    let plan = call.plan;
    let events = |schedules: &[&Schedule]| -> String {
        schedules.iter().map(|schedule| format!("OnCalendar={schedule}\n")).collect()
    };
    let (domains, drills) = (schedules(plan), drill_schedules(plan));
    let run = Job {
        verb: "run",
        names: ["strongroom-run.service", "strongroom-run.timer"],
        what: "back up what is due",
        when: "when something may be due",
        service: PATIENT,
        timer: format!(
            "{}\
             # What failed is due again.\n\
             OnUnitInactiveSec=1h\n\
             # What was missed while the host was off is made up for.\n\
             Persistent=true\n\
             AccuracySec=1min\n",
            events(&domains)
        ),
    };
    let verify = Job {
        verb: "verify",
        names: ["strongroom-verify.service", "strongroom-verify.timer"],
        what: "verify what is due",
        when: "when repositories may be due to be verified",
        service: "Nice=15\nIOSchedulingClass=idle\n",
        timer: "OnCalendar=daily\nRandomizedDelaySec=4h\nPersistent=true\n".into(),
    };
    let drill = Job {
        verb: "drill",
        names: ["strongroom-drill.service", "strongroom-drill.timer"],
        what: "rehearse restores that are due",
        when: "when a rehearsed restore may be due",
        service: PATIENT,
        timer: format!(
            "{}\
             # What could not be verified is due again.\n\
             OnUnitInactiveSec=1h\n\
             Persistent=true\n\
             AccuracySec=1min\n",
            events(&drills)
        ),
    };
    let jobs = [(run, !domains.is_empty()), (verify, !demands(plan).is_empty()), (drill, !drills.is_empty())];
    let wanted = jobs.into_iter().filter(|(_, is_wanted)| *is_wanted);
    wanted.flat_map(|(job, _)| job.units(call)).collect()
}

/// Lines of a crontab. What cron cannot say is looked at every five minutes: whether it is due, the repositories tell.
pub fn cron(call: &Call<'_>) -> String {
    let plan = call.plan;
    let mut text =
        String::from("# Strongroom: back up what is due. One run at a time; what failed is due again.\n");
    for variable in plan.addresses() {
        text.push_str(&format!("# Set it here: {variable}=ADDRESS\n"));
    }
    text.push_str(&lines(&schedules(plan), "", "what failed is due again", "*/5 * * * *", &call.cron("run")));
    if !demands(plan).is_empty() {
        text.push_str(&format!("# verification\n30 4 * * * {}\n", call.cron("verify")));
    }
    let again = "what could not be verified is due again";
    text.push_str(&lines(&drill_schedules(plan), "drills, ", again, "0 * * * *", &call.cron("drill")));
    text
}

/// Lines that call a command at all schedules, and every hour for what has to be done `again`. Where cron cannot say when, it is called
/// so `often` that this is not needed.
fn lines(schedules: &[&Schedule], what: &str, again: &str, often: &str, command: &str) -> String {
    let times: Vec<_> = schedules.iter().map(|schedule| schedule.cron()).collect();
    let is_often = times.is_empty() || times.iter().any(Option::is_none);
    let hourly = (!is_often).then(|| format!("# {what}{again}\n17 * * * * {command}\n"));
    let scheduled = schedules.iter().zip(times).map(|(schedule, times)| {
        let times = times.unwrap_or_else(|| often.to_owned());
        format!("# {what}{schedule}\n{times} {command}\n")
    });
    scheduled.chain(hourly).collect()
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

    fn call<'a>(plan: &'a Plan, program: &'a str) -> Call<'a> {
        Call { plan, program: Path::new(program), state_dir: None }
    }

    #[test]
    fn a_timer_remembers_where_whoever_made_it_does() {
        let plan = plan(DOMAINS);
        let state_dir = Some(Path::new("/var/lib/my state"));
        let call = Call { state_dir, ..call(&plan, "/usr/bin/strongroom") };
        let start =
            "ExecStart=/usr/bin/strongroom run --due --config p.toml --state-dir \"/var/lib/my state\"\n";
        assert!(systemd(&call)[0].text.contains(start), "{:?}", systemd(&call)[0]);
        let line = "/usr/bin/strongroom run --due --quiet --config p.toml --state-dir '/var/lib/my state'\n";
        assert!(cron(&call).ends_with(line), "{}", cron(&call));
    }

    #[test]
    fn each_schedule_is_there_once() {
        let units = systemd(&call(&plan(DOMAINS), "/opt/my tools/100%/strongroom"));
        let [service, timer] = &units[..] else { panic!("two units: {units:?}") };
        let start = "ExecStart=\"/opt/my tools/100%%/strongroom\" run --due --config p.toml\n";
        assert!(service.text.contains(start), "{}", service.text);
        assert!(
            service.text.contains("\nEnvironmentFile=-/etc/strongroom/environment\n"),
            "{}",
            service.text
        );
        assert_eq!(timer.text.matches("OnCalendar=").count(), 2);
        assert!(timer.text.contains("OnCalendar=Mon..Fri 02:15\n"), "{}", timer.text);
    }

    #[test]
    fn cron_is_told_which_addresses_it_lacks() {
        let notify = "[[notify]]\non = ['failure']\nwebhook_env = 'HOOK'\n";
        let text = cron(&call(&plan(&format!("{DOMAINS}{notify}")), "/usr/bin/strongroom"));
        assert!(text.contains("\n# Set it here: HOOK=ADDRESS\n"), "{text}");
    }

    #[test]
    fn cron_looks_often_where_it_cannot_say_when() {
        let text = cron(&call(&plan(DOMAINS), "/opt/my tools/strongroom"));
        let command = "'/opt/my tools/strongroom' run --due --quiet --config p.toml";
        let expected = format!(
            "# Mon *-*-1..7 04:00\n*/5 * * * * {command}\n# Mon..Fri 02:15\n15 2 * * 1,2,3,4,5 {command}\n"
        );
        assert!(text.ends_with(&expected), "{text}");
    }

    #[test]
    fn cron_tries_again_what_failed() {
        let daily = "[[domain]]\nname = 'x'\npaths = ['/x']\nschedule = 'daily'\n";
        let drill = "[[drill]]\nname = 'd'\ndomains = ['x']\ntier = 'full'\nschedule = 'Sun 04:00'\n";
        let text = cron(&call(&plan(&format!("{daily}{drill}")), "/s"));
        let (run, drill) = ("/s run --due --quiet --config p.toml", "/s drill --due --quiet --config p.toml");
        let expected = format!(
            "# daily\n0 0 * * * {run}\n# what failed is due again\n17 * * * * {run}\n# drills, Sun 04:00\n0 4 * * 0 {drill}\n\
             # drills, what could not be verified is due again\n17 * * * * {drill}\n"
        );
        assert!(text.ends_with(&expected), "{text}");
    }

    #[test]
    fn drills_have_a_timer_of_their_own() {
        let drill = |name: &str, schedule: &str| {
            format!("[[drill]]\nname = '{name}'\ndomains = ['x']\ntier = 'full'\nschedule = '{schedule}'\n")
        };
        let drills = drill("d", "Sun 04:00") + &drill("e", "Sun 04:00") + &drill("f", "Mon *-*-1..7 05:00");
        let domain = "[[domain]]\nname = 'x'\npaths = ['/x']\n";
        let rehearsed = plan(&format!("{domain}{drills}"));
        let units = systemd(&call(&rehearsed, "/usr/bin/strongroom"));
        let [service, timer] = &units[..] else { panic!("two units: {units:?}") };
        assert_eq!((service.name, timer.name), ("strongroom-drill.service", "strongroom-drill.timer"));
        assert!(service.text.contains("ExecStart=/usr/bin/strongroom drill --due --config p.toml\n"));
        assert_eq!(timer.text.matches("OnCalendar=").count(), 2);
        assert!(timer.text.contains("\nOnUnitInactiveSec=1h\n"), "{}", timer.text);
        let text = cron(&call(&rehearsed, "/usr/bin/strongroom"));
        let command = "/usr/bin/strongroom drill --due --quiet --config p.toml";
        let expected = format!(
            "# drills, Mon *-*-1..7 05:00\n0 * * * * {command}\n# drills, Sun 04:00\n0 4 * * 0 {command}\n"
        );
        assert!(text.ends_with(&expected), "{text}");
    }

    #[test]
    fn what_has_to_be_verified_has_a_timer() {
        let demanding =
            plan(&format!("[class.c]\nverify = {{ every = '7d', read = '5%' }}\n{DOMAINS}class = 'c'\n"));
        let units = systemd(&call(&demanding, "/usr/bin/strongroom"));
        let names: Vec<_> = units.iter().map(|unit| unit.name).collect();
        assert_eq!(names[2..], ["strongroom-verify.service", "strongroom-verify.timer"]);
        assert!(units[2].text.contains("ExecStart=/usr/bin/strongroom verify --due --config p.toml\n"));
        let text = cron(&call(&demanding, "/usr/bin/strongroom"));
        assert!(
            text.ends_with("30 4 * * * /usr/bin/strongroom verify --due --quiet --config p.toml\n"),
            "{text}"
        );
    }
}
