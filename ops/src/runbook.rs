//! The runbook: what to do on the worst day, in Markdown, for somebody who has never seen the plan.
//!
//! It holds where secrets are, never secrets themselves.

use std::fmt::Write as _;
use std::path::Path;

use crate::drill::steps::READY;
use crate::drill::{Phase, history};
use crate::order::{Cycle, order};
use crate::plan::Plan;
use crate::plan::types::{Domain, Ready, Recover, Repo, Stream};
use crate::plan::values::{Argv, Lapse, Name, quoted};
use crate::recover::preview::Measurements;
use crate::recover::record;

/// Writes the runbook.
///
/// # Errors
/// [`Cycle`] where domains wait for each other.
pub fn runbook(plan: &Plan, host: &str, written: &str, measured: &Measurements<'_>) -> Result<String, Cycle> {
    let mut text = String::new();
    let ordered: Vec<_> = order(&plan.domains)?.into_iter().map(|position| &plan.domains[position]).collect();
    let _ = write!(
        text,
        "# Recovery of {host}\n\nWritten by `strongroom runbook` on {written} from {}. Print it, or keep it where it can be read when \
         {host} cannot.\n\n",
        plan.sources[0].path.display()
    );
    places(&mut text, plan);
    overview(&mut text, plan, &ordered);
    first_steps(&mut text, plan);
    for (number, domain) in ordered.iter().enumerate() {
        of_domain(&mut text, plan, number + 1, domain);
        text.push_str(&duration(plan, domain, measured));
    }
    text.push_str("## When all of it is back\n\n");
    questions(&mut text, plan);
    text.push_str(LAST_STEPS);
    Ok(text)
}

fn first_steps(text: &mut String, plan: &Plan) {
    text.push_str(
        "\
## First of all

1. Stop what writes to the damaged data, and change nothing in the repositories.
2. On a new host: install `strongroom`, make a repository reachable, bring its password (see above), and put the plan back where it was. One of the
   repositories is enough:

   ```text
",
    );
    for (name, repo) in &plan.repos {
        let _ = writeln!(
            text,
            "   # from {name}\n   strongroom{} config recover --output recovered-plan",
            options(repo)
        );
    }
    let main = &plan.sources[0].path;
    let mut folder = main.parent().unwrap_or(Path::new("/"));
    while !plan.sources.iter().all(|source| source.path.starts_with(folder)) {
        folder = folder.parent().unwrap_or(Path::new("/"));
    }
    let folder = quoted(&folder.display().to_string());
    let _ = write!(
        text,
        "   mkdir -p {folder} && cp -r recovered-plan/. {folder}\n   ```\n\n\
         3. Say once in each shell which plan is meant:\n\n   ```text\n   export STRONGROOM_CONFIG={}\n   ```\n\n",
        quoted(&main.display().to_string())
    );
    text.push_str(NEXT_STEPS);
}

const NEXT_STEPS: &str = "\
4. See what there is: `strongroom status` names the newest snapshot of each domain. Take an earlier one from `strongroom -r REPOSITORY snapshots` if the newest
   has the damage in it already.
5. Recover the domains in the order below. `--plan` says what would be done and changes nothing. What is there before is kept:
   `strongroom recover --rollback` puts it back, `strongroom recover --commit` removes it when all is well. A recovery that was killed goes on with
   `strongroom recover --resume`. `--from NAME` takes another repository than the first one that can be used.
6. Where `recover` cannot be used, the data is restored beside its place by hand, with the commands that follow it.

";

fn places(text: &mut String, plan: &Plan) {
    text.push_str(
        "## Where the copies are\n\n| Repository | Place | Site | Password | Copies of the password |\n|---|---|---|---|---|\n",
    );
    for (name, repo) in &plan.repos {
        let site = repo.site.as_deref().unwrap_or("-");
        let copies = repo.key_copies.as_deref().unwrap_or("**not said**");
        let _ = writeln!(
            text,
            "| {name} | `{}` | {} | {} | {} |",
            cell(&repo.url),
            cell(site),
            cell(&password(repo)),
            cell(copies)
        );
    }
    text.push_str(
        "\nWithout the password nobody can read a repository, and there is no way around it. Where this host is lost, so is what it has of it: \
         take a copy.\n\n",
    );
}

/// Where the password is.
fn password(repo: &Repo) -> String {
    match (&repo.password_command, &repo.password_file) {
        (Some(argv), _) => format!("printed by `{}`", argv.quoted()),
        (None, Some(file)) => format!("in the file `{file}`"),
        (None, None) => "in the environment of whoever runs the plan".into(),
    }
}

fn overview(text: &mut String, plan: &Plan, ordered: &[&Domain]) {
    text.push_str("## What there is, in the order of recovery\n\n");
    text.push_str("| | Domain | Owner | Call | Data may be lost of | Back within | After |\n|---|---|---|---|---|---|---|\n");
    for (number, domain) in ordered.iter().enumerate() {
        let objectives = plan.objectives(domain);
        let or_none = |lapse: Option<Lapse>| lapse.map_or("-".into(), |lapse| lapse.to_string());
        let after: Vec<_> = domain.after.iter().map(Name::as_str).collect();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} |",
            number + 1,
            domain.name,
            cell(domain.owner.as_deref().unwrap_or("-")),
            cell(&domain.contacts.join(", ")),
            or_none(objectives.rpo),
            or_none(objectives.rto),
            after.join(", ")
        );
    }
    text.push('\n');
}

fn of_domain(text: &mut String, plan: &Plan, number: usize, domain: &Domain) {
    let _ = writeln!(text, "## {number}. {}\n", domain.name);
    if domain.owner.is_some() || !domain.contacts.is_empty() {
        let owner = domain.owner.as_deref().unwrap_or("nobody");
        let call = if domain.contacts.is_empty() { "nobody".into() } else { domain.contacts.join(", ") };
        let _ = writeln!(text, "Owner: {}. Call: {}.\n", cell(owner), cell(&call));
    }
    if !domain.after.is_empty() {
        let after: Vec<_> = domain.after.iter().map(Name::as_str).collect();
        let _ = writeln!(text, "Only when these are back: {}.\n", after.join(", "));
    }
    let config = quoted(&plan.sources[0].path.display().to_string());
    let _ = writeln!(
        text,
        "```text\nstrongroom recover {0} --config {config} --plan\nstrongroom recover {0} --config {config}\n```\n",
        domain.name
    );
    let repos = plan.repositories(domain);
    let names: Vec<_> = repos.iter().map(|name| name.as_str()).collect();
    let _ = writeln!(
        text,
        "By hand: it is in {}. In place of SNAPSHOT take the id that `strongroom status` shows for {} and the repository.\n",
        names.join(", "),
        domain.name
    );
    if repos.len() > 1 {
        text.push_str(OTHER_IDS);
    }
    let place = format!("/var/tmp/recovery/{}", domain.name);
    text.push_str("**1. Restore it** beside its place, and load what is to be loaded:\n\n```text\n");
    for (number, (name, repo)) in
        repos.iter().filter_map(|name| Some((name, plan.repos.get(*name)?))).enumerate()
    {
        let (or, instead) = if number > 0 { ("or ", "# ") } else { ("", "") };
        let _ = writeln!(
            text,
            "# {or}from {name}\n{instead}strongroom{} restore SNAPSHOT --target {place} --verify",
            options(repo)
        );
    }
    for path in domain.paths.iter().chain(&domain.sqlite) {
        let _ = writeln!(text, "# {} is then in {}", path, quoted(&format!("{place}{path}")));
    }
    for stream in &domain.stream {
        of_stream(text, stream, &format!("{place}/{}", stream.name));
    }
    text.push_str("```\n\n");
    let loads = domain.stream.iter().filter_map(|stream| stream.restore.as_ref());
    if loads.flat_map(Argv::words).any(|word| word.contains("${target}")) {
        text.push_str(BESIDE);
    }
    put_in_place(text, domain);
    if let Some(hooks) = &domain.hooks {
        for argv in &hooks.before {
            let _ = writeln!(text, "Its backup begins with `{}`.\n", argv.quoted());
        }
    }
    let facts: Vec<_> = domain.facts.keys().map(Name::as_str).collect();
    if !facts.is_empty() {
        let _ = writeln!(
            text,
            "The snapshot says under which circumstances it was made ({}): `strongroom -r REPOSITORY snapshots --json`, under \
             `provenance.facts`. Bring back the same versions.\n",
            facts.join(", ")
        );
    }
}

/// What is done by hand with what was restored; `recover` does the same.
fn put_in_place(text: &mut String, domain: &Domain) {
    let none = Recover::default();
    let recover = domain.recover.as_ref().unwrap_or(&none);
    step(text, "**2. Stop** what uses it", &lines(&recover.stop));
    if !domain.sqlite.is_empty() {
        text.push_str(SQLITE);
    }
    let swaps = domain.stream.iter().filter_map(|stream| stream.recover.as_ref()?.swap.as_ref());
    let swaps: Vec<_> = swaps.map(|argv| by_hand(argv).quoted()).collect();
    match (domain.paths.is_empty() && domain.sqlite.is_empty(), swaps.is_empty()) {
        (true, _) => step(text, "**3. Put it in its place**, and keep what was there", &swaps),
        (false, true) => text.push_str(MOVE),
        (false, false) => {
            text.push_str(MOVE);
            step(text, "Then what was loaded takes the place of what is in use", &swaps);
        }
    }
    step(text, "**4. Start** it again", &lines(&recover.start));
    let asked: Vec<_> = recover.ready.iter().flat_map(ready).chain(lines(&recover.health)).collect();
    step(text, "**5. Ask it** how it is: each command has to end with exit code 0", &asked);
}

/// A step with its commands.
fn step(text: &mut String, what: &str, commands: &[String]) {
    let _ = match commands {
        [] => write!(text, "{what}. The plan does not say how.\n\n"),
        commands => write!(text, "{what}:\n\n```text\n{}\n```\n\n", commands.join("\n")),
    };
}

fn lines(commands: &[Argv]) -> Vec<String> {
    commands.iter().map(Argv::quoted).collect()
}

/// How it is known to be ready.
fn ready(ready: &Ready) -> Vec<String> {
    let http = ready.http.iter().map(|url| format!("curl -fsS {}", quoted(url)));
    let command = ready.command.iter().map(Argv::quoted);
    let limit = ready.timeout.unwrap_or(Lapse::seconds(READY.as_secs()));
    http.chain(command).chain([format!("# that may take {limit}")]).collect()
}

/// A command of a stream with words in the place of names that `recover` makes up.
fn by_hand(argv: &Argv) -> Argv {
    argv.with("target", "TARGET").with("old", "TARGET_old").with("id", "ID")
}

/// How long it takes, as it was measured.
fn duration(plan: &Plan, domain: &Domain, measured: &Measurements<'_>) -> String {
    let recovery = record::measured(measured.recoveries, &domain.name).map(|recovery| {
        let steps =
            recovery.steps.iter().map(|timed| format!("{} {:.1} s", timed.step.name(), timed.seconds));
        format!(
            "A recovery on {} took {:.1} s ({}).\n\n",
            recovery.began.strftime("%Y-%m-%d"),
            recovery.seconds(),
            steps.collect::<Vec<_>>().join(", ")
        )
    });
    let drill = of_drill(plan, domain, measured);
    match (recovery, drill) {
        (None, None) => {
            "How long it takes was not measured: no drill has restored it in whole, and it was never recovered.\n\n".into()
        }
        (recovery, drill) => recovery.into_iter().chain(drill).collect(),
    }
}

/// The time that a drill took.
fn of_drill(plan: &Plan, domain: &Domain, measured: &Measurements<'_>) -> Option<String> {
    let drill = history::measured(plan, &domain.name, measured.drills)?;
    let phases: Vec<_> = drill
        .phases
        .iter()
        .filter(|timed| timed.phase != Phase::Cleanup)
        .map(|timed| format!("{} {:.1} s", timed.phase.name(), timed.seconds))
        .collect();
    let others: Vec<_> = drill.restored.iter().map(|one| one.domain.as_str()).collect();
    Some(format!(
        "A drill on {} took {:.1} s for {} ({}).\n\n",
        drill.began.strftime("%Y-%m-%d"),
        drill.seconds(),
        others.join(", "),
        phases.join(", ")
    ))
}

const OTHER_IDS: &str = "\
The same snapshot has another id in each repository. `strongroom -r REPOSITORY snapshots` shows it at the same time, and with `--json`, under `origin`,
of which one it is a copy.

";

const LAST_STEPS: &str = "\
Let the applications in, one after the other in the same order, and back everything up again: `strongroom run`, then `strongroom status`. Tell all who
were told that it is over, and write down what was lost, how long it took, and what was not in here.
";

const BESIDE: &str = "\
In place of TARGET take the name of something new and empty, as a database beside the damaged one. Look at it there; then it takes the other's place.

";

const MOVE: &str = "\
**3. Put it in its place**: move what is there to another name, and what was restored to where it was. Remove nothing before all is well.

";

const SQLITE: &str = "\
Before an SQLite database is put in its place, stop what uses it, and remove `NAME-wal`, `NAME-shm` and `NAME-journal` beside the old one: SQLite would take
them for changes to the restored database, and mix both without a word.

";

/// What drills ask of restored data.
fn questions(text: &mut String, plan: &Plan) {
    for drill in &plan.drills {
        let asked: Vec<_> =
            drill.step.iter().filter_map(|step| Some((step.run.as_ref()?, step.expect.as_ref()?))).collect();
        if asked.is_empty() {
            continue;
        }
        let domains: Vec<_> = drill.domains.iter().map(Name::as_str).collect();
        let _ = writeln!(
            text,
            "What the drill {} asks of {}. In a drill the data is in `${{scratch}}/DOMAIN`, and the application listens on \
             `${{port}}`: take what is so here.\n\n```text",
            drill.name,
            domains.join(", ")
        );
        for (name, value) in &drill.env {
            let _ = writeln!(text, "# in a drill: {name}={}", quoted(value));
        }
        for (argv, expect) in asked {
            let _ = writeln!(text, "{}\n# has to print {expect}", argv.quoted());
        }
        text.push_str("```\n\n");
    }
}

fn of_stream(text: &mut String, stream: &Stream, file: &str) {
    let create = stream.recover.as_ref().and_then(|recover| recover.create.as_ref());
    if let Some(argv) = create.filter(|_| stream.restore.is_some()) {
        let _ = writeln!(text, "{}", by_hand(argv).quoted());
    }
    let _ = match &stream.restore {
        Some(argv) => writeln!(text, "{} < {}", by_hand(argv).quoted(), quoted(file)),
        None => writeln!(text, "# {file} is what this command wrote: {}", stream.command.quoted()),
    };
}

/// How to reach a repository.
fn options(repo: &Repo) -> String {
    let place = format!(" -r {}", quoted(&repo.url));
    match (&repo.password_command, &repo.password_file) {
        (Some(argv), _) => format!("{place} --password-command {}", quoted(&argv.quoted())),
        (None, Some(file)) => format!("{place} --password-file {}", quoted(file)),
        (None, None) => place,
    }
}

/// Text in a table: it can end neither the cell nor the line.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use strongroom::format::note::{DrillPhase, RecoveryNote};
    use strongroom::format::tree::Timestamp;

    use super::*;
    use crate::drill::{DrillOutcome, DrillRecord, Restoration, Timed};
    use crate::plan::load::tests_support::plan;
    use crate::plan::types::Tier;
    use crate::plan::{SystemFiles, load};
    use crate::recover::RecoveryRecord;
    use crate::testing::{id, name, now};

    #[test]
    fn the_runbook_of_the_example_has_every_step_in_its_order() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/example-plan/strongroom.toml");
        let plan = load(&path, &SystemFiles).expect("a plan");
        let none = Measurements { drills: &[], recoveries: &[] };
        let text = runbook(&plan, "shop-prod-1", "2026-11-28", &none).expect("no cycle");
        let mut at = 0;
        for part in [
            "# Recovery of shop-prod-1",
            "| local | `/srv/backup/shop` | dc1 | printed by `systemd-creds cat backup-key` | sealed, in the safe of the office |",
            "| 1 | orders-db | data-team | role: database on call | 24h | 45m |  |",
            "## First of all",
            "   # from offsite\n   strongroom -r /mnt/offsite/shop ",
            " config recover --output recovered-plan\n   mkdir -p ",
            "   export STRONGROOM_CONFIG=",
            "## 1. orders-db",
            "strongroom recover orders-db --config ",
            "The same snapshot has another id in each repository.",
            "**1. Restore it** beside its place",
            "# from local\nstrongroom -r /srv/backup/shop --password-command 'systemd-creds cat backup-key' restore SNAPSHOT --target /var/tmp/recovery/orders-db --verify",
            "# or from offsite\n# strongroom -r ",
            "createdb --maintenance-db service=shop TARGET\n\
             pg_restore --exit-on-error -d 'service=shop dbname=TARGET' < /var/tmp/recovery/orders-db/shop.dump",
            "**2. Stop** what uses it:\n\n```text\nsystemctl stop shop\n```",
            "**3. Put it in its place**, and keep what was there:\n\n```text\npsql ",
            "'alter database shop rename to TARGET_old' -c 'alter database TARGET rename to shop'\n```",
            "**4. Start** it again:\n\n```text\nsystemctl start shop\n```",
            "**5. Ask it** how it is: each command has to end with exit code 0:\n\n```text\n\
             curl -fsS http://127.0.0.1:8000/healthz\n# that may take 1m\n```",
            "How long it takes was not measured",
            "## 2. media",
            "Only when these are back: orders-db.",
            "strongroom recover media --config ",
            "restore SNAPSHOT --target /var/tmp/recovery/media --verify",
            "# /srv/shop/media is then in /var/tmp/recovery/media/srv/shop/media",
            "**2. Stop** what uses it. The plan does not say how.",
            "**3. Put it in its place**: move what is there to another name",
            "## 3. state",
            "# /var/lib/shop/sessions.db is then in /var/tmp/recovery/state/var/lib/shop/sessions.db",
            "# /var/tmp/recovery/state/redis.rdb is what this command wrote: redis-cli --rdb -",
            "remove `NAME-wal`",
            "## When all of it is back",
            "What the drill shop-full asks of orders-db, media.",
            "# in a drill: PGSERVICE=drill",
            "from orders'\n# has to print < 93600",
            "`strongroom run`, then `strongroom status`",
        ] {
            let found =
                text[at..].find(part).unwrap_or_else(|| panic!("{part:?} is not behind {at} in\n{text}"));
            at += found;
        }
        assert!(text.contains("In place of TARGET take"));
        assert_eq!(text.matches("```").count() % 2, 0);
        assert!(!text.contains("${target}") && !text.contains("${old}"), "{text}");
    }

    #[test]
    fn it_tells_how_long_drills_and_recoveries_took() {
        let plan = plan(
            "[[domain]]\nname = 'x'\npaths = ['/x']\nrecover = { health = [['ask', 'it']] }\n\
             [[drill]]\nname = 'd'\ndomains = ['x']\ntier = 'full'\n",
        );
        let drill = DrillRecord {
            drill: name("d"),
            tier: Tier::Full,
            repository: None,
            began: now().timestamp(),
            outcome: DrillOutcome::Pass,
            reason: None,
            self_test: false,
            restored: vec![Restoration { domain: name("x"), snapshot: id(1), files: 1, bytes: 1 }],
            phases: vec![Timed { phase: Phase::Fetch, seconds: 1.5 }],
            rto: None,
        };
        let note = RecoveryNote {
            recovery: "1".into(),
            domain: "x".into(),
            outcome: "recovered".into(),
            reason: String::new(),
            began: Timestamp { seconds: 0, nanos: 0 },
            snapshot: id(1),
            phases: vec![DrillPhase { phase: "swap".into(), duration_ns: 2_500_000_000 }],
        };
        let recovery = RecoveryRecord::of_note(&note, &name("a"), 1, 1).expect("understood");
        let written = |drills: &[DrillRecord], recoveries: &[RecoveryRecord]| {
            runbook(&plan, "box", "2026-11-28", &Measurements { drills, recoveries }).expect("no cycle")
        };
        let (of_recovery, of_drill) = (
            "A recovery on 1970-01-01 took 2.5 s (swap 2.5 s).\n",
            "A drill on 2026-11-28 took 1.5 s for x (fetch 1.5 s).\n",
        );
        let both = written(std::slice::from_ref(&drill), std::slice::from_ref(&recovery));
        assert!(
            both.contains(of_recovery) && both.contains(of_drill) && !both.contains("was not measured"),
            "{both}"
        );
        assert!(both.contains("exit code 0:\n\n```text\nask it\n```\n"), "{both}");
        let text = written(&[], &[recovery]);
        assert!(text.contains(of_recovery) && !text.contains("A drill on"), "{text}");
        assert!(written(&[], &[]).contains("was not measured"));
    }

    #[test]
    fn names_cannot_break_the_tables() {
        assert_eq!(cell("a|b\nc"), "a\\|b c");
    }
}
