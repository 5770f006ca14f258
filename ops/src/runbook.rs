//! The runbook: what to do on the worst day, in Markdown, for somebody who has never seen the plan.
//!
//! It holds where secrets are, never secrets themselves.

use std::fmt::Write as _;
use std::path::Path;

use crate::drill::{DrillRecord, Phase, history};
use crate::order::{Cycle, order};
use crate::plan::Plan;
use crate::plan::types::{Domain, Repo, Stream};
use crate::plan::values::{Argv, Name, quoted};

/// Writes the runbook.
///
/// # Errors
/// [`Cycle`] where domains wait for each other.
pub fn runbook(plan: &Plan, host: &str, written: &str, drills: &[DrillRecord]) -> Result<String, Cycle> {
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
        text.push_str(&duration(plan, domain, drills));
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
        let or_none =
            |lapse: Option<crate::plan::values::Lapse>| lapse.map_or("-".into(), |lapse| lapse.to_string());
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
    let stopped = domain.recover.iter().flat_map(|recover| &recover.stop);
    for argv in stopped {
        let _ = writeln!(text, "It is stopped meanwhile with `{}`.\n", argv.quoted());
    }
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
    text.push_str("```text\n");
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
    if !domain.sqlite.is_empty() {
        text.push_str(SQLITE);
    }
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

/// How long it takes, as drills have measured.
fn duration(plan: &Plan, domain: &Domain, drills: &[DrillRecord]) -> String {
    let Some(drill) = history::measured(plan, &domain.name, drills) else {
        return "How long it takes was not measured: no drill has restored it in whole.\n\n".into();
    };
    let phases: Vec<_> = drill
        .phases
        .iter()
        .filter(|timed| timed.phase != Phase::Cleanup)
        .map(|timed| format!("{} {:.1} s", timed.phase.name(), timed.seconds))
        .collect();
    let others: Vec<_> = drill.restored.iter().map(|one| one.domain.as_str()).collect();
    format!(
        "A drill on {} took {:.1} s for {} ({}).\n\n",
        drill.began.strftime("%Y-%m-%d"),
        drill.seconds(),
        others.join(", "),
        phases.join(", ")
    )
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
    let _ = match &stream.restore {
        Some(argv) => writeln!(text, "{} < {}", argv.with("target", "TARGET").quoted(), quoted(file)),
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
    use super::*;
    use crate::plan::{SystemFiles, load};

    #[test]
    fn the_runbook_of_the_example_has_every_step_in_its_order() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/example-plan/strongroom.toml");
        let plan = load(&path, &SystemFiles).expect("a plan");
        let text = runbook(&plan, "shop-prod-1", "2026-11-28", &[]).expect("no cycle");
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
            "# from local\nstrongroom -r /srv/backup/shop --password-command 'systemd-creds cat backup-key' restore SNAPSHOT --target /var/tmp/recovery/orders-db --verify",
            "# or from offsite\n# strongroom -r ",
            "pg_restore --exit-on-error -d 'service=shop dbname=TARGET' < /var/tmp/recovery/orders-db/shop.dump",
            "## 2. media",
            "Only when these are back: orders-db.",
            "strongroom recover media --config ",
            "restore SNAPSHOT --target /var/tmp/recovery/media --verify",
            "# /srv/shop/media is then in /var/tmp/recovery/media/srv/shop/media",
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
    }

    #[test]
    fn names_cannot_break_the_tables() {
        assert_eq!(cell("a|b\nc"), "a\\|b c");
    }
}
