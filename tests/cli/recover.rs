//! `recover`: restores that can be undone, also where they were killed.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Bench, CHEAP, Run, noise, overwrite};

/// A shop: a directory, a file, a SQLite database, a dump that is loaded into "databases", which are files here, and a service, which is a
/// file that says whether it runs. `DIR` is the folder of it all.
const SHOP: &str = "
version = 1
host_id = 'box'
[repo.first]
url = 'DIR/repo'
[repo.second]
url = 'DIR/second'
[class.c]
rpo = '24h'
rto = '1h'

[[domain]]
name = 'orders'
class = 'c'
to = ['first', 'second']
[[domain.stream]]
name = 'orders.dump'
command = ['cat', 'DIR/db/shop']
restore = ['sh', '-c', 'cat > DIR/db/${target}']
[domain.stream.recover]
create = ['sh', '-c', '! [ -e DIR/db/${target} ]']
swap = ['sh', '-c', 'mv DIR/db/shop DIR/db/${old} && mv DIR/db/${target} DIR/db/shop']
undo = ['sh', '-c', 'mv DIR/db/shop DIR/db/${target} && mv DIR/db/${old} DIR/db/shop']
swapped = ['sh', '-c', 'if [ -e DIR/db/${old} ]; then echo 1; else echo 0; fi']
drop = ['rm', '-f', 'DIR/db/${target}']
[domain.facts]
version = ['cat', 'DIR/version']

[[domain]]
name = 'media'
class = 'c'
after = ['orders']
paths = ['DIR/media', 'DIR/shop.conf']
exclude = ['cache']
to = ['first', 'second']
[domain.recover]
stop = [['sh', '-c', 'echo stopped > DIR/service; EXTRA']]
start = [['sh', '-c', 'echo running > DIR/service']]
health = [['sh', '-c', 'grep -q running DIR/service && ! [ -e DIR/sick ]']]

[[domain]]
name = 'links'
after = ['media']
paths = ['DIR/links']

[[domain]]
name = 'state'
sqlite = ['DIR/state.db']
";

struct Shop {
    bench: Bench,
}

impl Shop {
    /// Backed up, and then changed.
    fn new() -> Self {
        Self::with(&[])
    }

    /// With parts of the plan replaced.
    fn with(changes: &[(&str, &str)]) -> Self {
        let bench = Bench::new();
        let mut init = bench.command();
        Run::of(init.arg("-r").arg(bench.path("second")).arg("init").args(CHEAP)).expect(0);
        let shop = Self { bench };
        shop.plan(changes);
        let write = |path: &str, content: &str| shop.bench.write(path, content);
        write("db/shop", "order 1\n");
        write("version", "15.3\n");
        write("media/a.jpg", "picture");
        write("media/sub/b.jpg", "another");
        write("media/cache/x", "x");
        write("shop.conf", "conf");
        write("links/l", "l");
        write("service", "running\n");
        shop.bench.write("media/large", noise(3, 300_000));
        sqlite(&shop.bench.path("state.db"), "create table t (n); insert into t values (1);");
        shop.bench.run(["run"]).expect(0);
        write("db/shop", "order 1\norder 2\n");
        write("media/a.jpg", "encrypted");
        write("media/new.jpg", "new");
        write("media/cache/x", "warm");
        write("shop.conf", "wrong");
        write("links/l", "changed");
        sqlite(&shop.bench.path("state.db"), "insert into t values (2);");
        shop
    }

    fn plan(&self, changes: &[(&str, &str)]) {
        let mut text = SHOP.to_owned();
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        let folder = self.bench.path("");
        let folder = folder.to_str().expect("text").trim_end_matches('/');
        self.bench.write("strongroom.toml", text.replace("EXTRA", "true").replace("DIR", folder));
    }

    fn run(&self, words: &str) -> Run {
        self.bench.run(["recover"].into_iter().chain(words.split_whitespace()))
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.bench.path(path)).unwrap_or_else(|error| format!("({})", error.kind()))
    }

    /// What there is now.
    fn now(&self) -> [String; 7] {
        ["db/shop", "media/a.jpg", "media/new.jpg", "media/cache/x", "shop.conf", "links/l", "service"]
            .map(|path| self.text(path))
    }

    /// Whether a recovery has begun and not ended, as its journal says.
    fn is_unfinished(&self) -> bool {
        let plans = fs::read_dir(self.bench.path("state/plans")).expect("listed");
        let journals = plans.flat_map(|plan| {
            let folder = plan.expect("an entry").path();
            ["orders.recover", "media.recover"].map(|file| folder.join(file))
        });
        let mut steps = journals.filter_map(|journal| {
            let journal: Value = serde_json::from_slice(&fs::read(journal).ok()?).expect("whole");
            Some(journal["step"].as_str().expect("a step").to_owned())
        });
        steps.any(|step| !matches!(step.as_str(), "done" | "undone" | "removing"))
    }

    fn beside(&self) -> Vec<PathBuf> {
        let entries =
            fs::read_dir(self.bench.path("")).expect("listed").map(|entry| entry.expect("an entry").path());
        entries.filter(|path| path.display().to_string().contains(".strongroom-recover-")).collect()
    }
}

/// Does something with a SQLite database, as an application would.
fn sqlite(path: &Path, script: &str) {
    let python =
        "import sqlite3, sys\ndb = sqlite3.connect(sys.argv[1])\ndb.executescript(sys.argv[2])\ndb.commit()";
    let mut command = std::process::Command::new("python3");
    Run::of(command.args(["-c", python]).arg(path).arg(script)).expect(0);
}

fn rows(path: &Path) -> String {
    let python = "import sqlite3, sys\nprint(sqlite3.connect(sys.argv[1]).execute('select count(*) from t').fetchone()[0])";
    let mut command = std::process::Command::new("python3");
    Run::of(command.args(["-c", python]).arg(path)).expect(0).stdout.trim().to_owned()
}

const OLD: [&str; 7] = ["order 1\norder 2\n", "encrypted", "new", "warm", "wrong", "changed", "running\n"];
const RESTORED: [&str; 7] = ["order 1\n", "picture", "(entity not found)", "warm", "conf", "l", "running\n"];

fn of<'l>(lines: &'l [Value], domain: &str) -> &'l Value {
    lines.iter().find(|line| line["domain"] == domain).unwrap_or_else(|| panic!("no {domain} in {lines:#?}"))
}

#[test]
fn the_plan_tells_what_would_be_done_and_changes_nothing() {
    let shop = Shop::new();
    let said = shop.run("media orders --plan").expect(0).stdout;
    for part in [
        "1. orders",
        "  from       first (",
        "(RPO 24h)",
        "  takes      unknown: neither a drill nor a recovery has measured it; RTO 1h",
        "  loads      orders.dump (8 B) as strongroom_",
        ", then swapped; what is in use becomes strongroom_",
        "  fact       version: \"15.3\", as it was",
        "2. media",
        "  replaces   ",
        "/media: 3 files, ",
        "/shop.conf: 1 file, 4 B",
        "  excluded   1 entry that no snapshot has: moved into what is restored",
        "  space      ",
    ] {
        assert!(said.contains(part), "{part:?} is not in\n{said}");
    }
    assert_eq!(shop.now(), OLD);
    assert_eq!(shop.beside(), [] as [PathBuf; 0]);
    let run = shop.run("media orders state --plan --json").expect(0);
    let lines = run.lines();
    let media = of(&lines, "media");
    assert_eq!(
        (&media["type"], &media["measured"], &media["rpo"]),
        (&"recovery-plan".into(), &Value::Null, &86_400.into())
    );
    assert_eq!(media["targets"][0]["action"], "replace", "{media}");
    assert_eq!(
        media["space"][0]["needed"].as_u64() > Some(300_000),
        media["space"][0]["free"].as_u64() > Some(0)
    );
    assert_eq!(of(&lines, "orders")["streams"][0]["command"][0], "sh");
    assert_eq!(run.last("summary")["blockers"], 0);
    let notes = of(&lines, "state")["notes"].to_string();
    assert!(notes.contains("nothing says how to stop what uses the data"), "{notes}");
}

#[test]
fn domains_are_recovered_rolled_back_recovered_again_and_kept() {
    let shop = Shop::new();
    let all = "orders media links state";
    let run = shop.run(&format!("{all} --json")).expect(0);
    assert_eq!(run.last("summary")["domains_recovered"], 4);
    assert_eq!(shop.now(), RESTORED);
    assert_eq!(rows(&shop.bench.path("state.db")), "1");
    let steps: Vec<_> = of(&run.lines(), "media")["steps"]
        .as_array()
        .expect("steps")
        .iter()
        .map(|one| one["step"].clone())
        .collect();
    assert_eq!(steps, ["stage", "verify", "load", "stop", "swap", "start", "health"]);
    let refused = shop.run("media").expect(1);
    assert!(refused.message().contains("recover --commit media` removes it"), "{refused:?}");
    let status = shop.bench.run(["status"]).expect(0).stdout;
    assert!(status.contains("media: what was there before the recovery of media on "), "{status}");
    shop.bench.write("media/later.jpg", "made meanwhile");

    let back = shop.run("--rollback").expect(0).stdout;
    assert!(back.contains("media: what was there before is in its place again"), "{back}");
    assert_eq!(shop.now(), OLD);
    assert_eq!(rows(&shop.bench.path("state.db")), "2");
    assert!(!shop.bench.path("media/later.jpg").exists());
    let nothing = shop.run("--rollback").expect(1);
    assert!(nothing.message().contains("there is nothing to roll back"), "{nothing:?}");

    let planned = shop.run("media --plan").expect(0).stdout;
    assert!(planned.contains(" s in the recovery of "), "{planned}");
    shop.run(all).expect(0);
    assert_eq!(shop.now(), RESTORED);
    shop.run("--commit").expect(0);
    assert_eq!(shop.now(), RESTORED);
    assert_eq!(shop.beside(), [] as [PathBuf; 0]);
    assert_eq!(fs::read_dir(shop.bench.path("db")).expect("listed").count(), 1);
    let log = shop.bench.run(["log"]).expect(0).stdout;
    for said in [": recovered", ": rolled-back", ": committed"] {
        assert!(log.contains("recovery of media from ") && log.contains(said), "{said}: {log}");
    }
    shop.bench.run(["run"]).expect(0);
}

#[test]
fn a_failure_at_step_three_of_four_leaves_the_earlier_targets_and_stops_what_comes_after() {
    let shop = Shop::new();
    // Orders, media, links: the third is not well.
    shop.plan(&[("after = ['media']", "after = ['media']\nrecover = { health = [['false']] }")]);
    let run = shop.run("orders media links state --json").expect(1);
    let lines = run.lines();
    let outcomes: Vec<_> =
        ["orders", "media", "links", "state"].map(|name| of(&lines, name)["outcome"].clone()).to_vec();
    assert_eq!(outcomes, ["recovered", "recovered", "failed", "recovered"]);
    assert_eq!(shop.text("links/l"), "changed");
    // The whole as it was, the earlier ones in reverse order.
    shop.run("--rollback").expect(0);
    assert_eq!(shop.now(), OLD);

    // The health check after everything of a domain was swapped.
    shop.bench.write("sick", "");
    let run = shop.run("orders media links --json").expect(1);
    let lines = run.lines();
    let outcomes: Vec<_> =
        ["orders", "media", "links"].map(|name| of(&lines, name)["outcome"].clone()).to_vec();
    assert_eq!(outcomes, ["recovered", "failed", "skipped"]);
    let message = of(&lines, "media")["message"].to_string();
    assert!(message.contains("health: the health check: sh failed"), "{message}");
    let now = shop.now();
    assert_eq!((&now[0][..], &now[1..]), (RESTORED[0], &OLD.map(str::to_owned)[1..]));
    assert_eq!(run.lines().last().expect("a line")["code"], "recover");
}

#[test]
fn a_recovery_that_was_killed_goes_on_or_back() {
    // A step's command kills the recovery, once: when it stops the service, swaps a database, starts the service.
    let kill = "[ -e DIR/killed ] || { touch DIR/killed; kill -9 $PPID; sleep 5; }";
    let moments = [
        ("media", "EXTRA", kill.to_owned()),
        ("media", "echo running > DIR/service", format!("{kill}; echo running > DIR/service")),
        ("orders", "mv DIR/db/${target} DIR/db/shop'", format!("mv DIR/db/${{target}} DIR/db/shop; {kill}'")),
        ("orders", "cat > DIR/db/${target}", format!("cat > DIR/db/${{target}}; {kill}")),
    ];
    for (domain, from, to) in &moments {
        let changes = [(*from, to.as_str())];
        for way in ["--resume", "--rollback"] {
            let shop = Shop::with(&changes);
            let mut child = shop.bench.command();
            let child =
                child.args(["recover", "orders", "media"]).stdout(Stdio::null()).stderr(Stdio::null());
            assert_eq!(child.status().expect("started").signal(), Some(9), "{domain} {changes:?}");
            let refused = shop.run(domain).expect(1);
            assert!(refused.message().contains("is unfinished (step "), "{refused:?}");
            assert!(refused.message().contains("`strongroom recover --resume` goes on"), "{refused:?}");
            let status = shop.bench.run(["status"]).expect(4).stdout;
            assert!(status.contains(&format!("the recovery of {domain} that was begun ")), "{status}");
            let run = shop.bench.run(["run", domain]).expect(1);
            assert!(run.stderr.contains("is unfinished"), "{run:?}");
            shop.run("--commit").expect(1);
            shop.run(way).expect(0);
            let (now, commits) = (shop.now(), way == "--resume");
            let expected = if commits { RESTORED } else { OLD };
            assert_eq!(now[..5], expected.map(str::to_owned)[..5], "{domain} {way} {changes:?}");
            assert_eq!(now[6], "running\n");
            let nothing = shop.run(way).expect(1);
            assert!(nothing.stderr.contains("there is nothing to "), "{nothing:?}");
            if commits {
                shop.run("--commit").expect(0);
            } else {
                shop.bench.run(["run", domain]).expect(0);
                shop.bench.run(["status"]).expect(0);
            }
        }
    }
}

/// As on a new host: it is begun with what `config recover` wrote, and the plan is put where it belongs then.
#[test]
fn a_recovery_that_was_begun_with_a_copy_of_the_plan_holds_up_the_plan() {
    let kill = "[ -e DIR/killed ] || { touch DIR/killed; kill -9 $PPID; sleep 5; }";
    let shop = Shop::with(&[("EXTRA", kill)]);
    let bench = &shop.bench;
    let text = fs::read_to_string(bench.path("strongroom.toml")).expect("text");
    let copy = bench.write("recovered-plan/strongroom.toml", text);
    let mut child = bench.command();
    let child = child.args(["recover", "orders", "media", "--config"]).arg(&copy);
    let child = child.stdout(Stdio::null()).stderr(Stdio::null());
    assert_eq!(child.status().expect("started").signal(), Some(9));
    let with = format!("each with --config {}: it was begun with that", copy.display());
    assert!(bench.run(["run", "media"]).expect(1).stderr.contains(&with));
    assert!(bench.run(["status"]).expect(4).stdout.contains(&with));
    assert!(shop.run("media").expect(1).message().contains(&with));
    assert!(shop.run("--rollback").expect(1).stderr.contains(&with));
    // The same file by other paths is the same plan.
    symlink(&copy, bench.path("link.toml")).expect("a link");
    for path in ["recovered-plan/../recovered-plan/strongroom.toml", "link.toml"] {
        let status = bench.run(["status", "--config", path]).expect(4).stdout;
        assert!(status.contains("is unfinished") && !status.contains("each with"), "{status}");
    }
    bench.run(["recover", "--rollback", "--config", "link.toml"]).expect(0);
    assert_eq!(shop.now()[..5], OLD.map(str::to_owned)[..5]);
    bench.run(["run", "media"]).expect(0);
}

/// At moments that nobody has chosen: whatever there is then, it is old or new, and goes back.
#[test]
fn a_kill_at_any_time_leaves_what_was_there_or_what_was_restored() {
    let shop = Shop::new();
    let mut met = 0;
    for number in 0..10_u64 {
        let mut child = shop.bench.command();
        let child = child.args(["recover", "orders", "media"]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = child.spawn().expect("started");
        // One half at any time at all, which may be before it begins or after it has ended, the other in the midst of it.
        if number % 2 == 0 {
            std::thread::sleep(Duration::from_millis(60 + number * 37 % 200));
        } else {
            while !shop.is_unfinished() && child.try_wait().expect("a child").is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(number));
        }
        child.kill().and_then(|()| child.wait()).expect("ended");
        met += usize::from(shop.is_unfinished());
        let now = shop.now();
        for (at, found) in now.iter().enumerate().take(6).skip(1) {
            let is_either = found == OLD[at] || found == RESTORED[at];
            // For a moment not there, where names cannot be exchanged.
            assert!(is_either || found == RESTORED[2], "{number}: {found} of {now:?}");
        }
        let back = shop.run("--rollback");
        assert!(
            back.code == 0 || back.stderr.contains("there is nothing to roll back"),
            "{number}: {back:?}"
        );
        assert_eq!(shop.now(), OLD, "{number}");
    }
    assert!(met > 0, "no kill met a recovery that was at work");
    shop.run("orders media").expect(0);
    assert_eq!(shop.now()[..5], RESTORED[..5]);
}

#[test]
fn facts_that_have_changed_refuse_it_unless_they_are_allowed() {
    let shop = Shop::new();
    shop.bench.write("version", "17.1\n");
    let refused = shop.run("orders media").expect(4);
    assert!(
        refused
            .message()
            .contains("the fact version was \"15.3\" when the snapshot was made, and is \"17.1\" now"),
        "{refused:?}"
    );
    assert!(refused.stderr.contains("--allow-drift version"), "{refused:?}");
    let planned = shop.run("orders media --plan").expect(4);
    assert!(planned.stdout.contains("  fact       version: then \"15.3\", now \"17.1\""), "{planned:?}");
    assert_eq!(shop.now(), OLD);
    fs::remove_file(shop.bench.path("version")).expect("removed");
    let unknown = shop.run("orders").expect(4);
    assert!(unknown.message().contains("cannot be found out now"), "{unknown:?}");
    let allowed = shop.run("orders --allow-drift version").expect(0);
    assert!(allowed.stderr.contains("that was allowed"), "{allowed:?}");
    assert_eq!(shop.now()[0], RESTORED[0]);
}

#[test]
fn what_cannot_be_meant_or_done_is_refused_before_anything_is_changed() {
    let shop = Shop::new();
    for (words, code, said) in [
        ("", 2, "no domain was named"),
        ("medio", 2, "the plan has no domain \"medio\""),
        ("media --from third", 2, "the plan has no repository \"third\""),
        ("media --snapshot before:soon", 2, "\"soon\" is no length of time"),
        ("media orders --snapshot ab", 2, "--snapshot ab is of one domain, and 2 are named"),
        ("orders --allow-drift revision", 2, "the domains named have no such fact"),
        ("media --snapshot ffffffffffff", 1, "there is no snapshot ffffffffffff in first"),
        ("media --snapshot before:7d", 1, "there is no snapshot of media from before 7d ago in first"),
        ("--resume", 1, "there is nothing to resume"),
        ("--commit media", 1, "of media there is nothing to commit"),
        ("--rollback medio", 2, "the plan has no domain \"medio\""),
    ] {
        let run = shop.run(words).expect(code);
        assert!(run.message().contains(said), "{words}: {run:?}");
        assert!(run.stderr.contains("hint: "), "{words}: {run:?}");
        let json = shop.run(&format!("{words} --json")).expect(code).last("error");
        assert_eq!(json["exit_code"], code, "{words}");
    }
    for words in ["media --plan --commit", "media --resume --from first", "--rollback --snapshot latest"] {
        shop.run(words).expect(2);
    }
    let orders = shop.bench.run(["status", "--json"]).expect(0).lines();
    let id = of(&orders, "orders")["repositories"][0]["snapshot_id"].as_str().expect("an id").to_owned();
    let other = shop.run(&format!("media --snapshot {id}")).expect(1);
    assert!(other.message().contains("is of the domain orders"), "{other:?}");
    assert_eq!(shop.now(), OLD);

    // One repository that is lost is no reason to give up; all of them are.
    fs::rename(shop.bench.path("repo"), shop.bench.path("away")).expect("moved");
    let second = shop.run("links --plan").expect(0);
    assert!(
        second.stdout.contains("from       second (")
            && second.stdout.contains("the repository first cannot be asked"),
        "{second:?}"
    );
    let lost = shop.run("media --from first").expect(10);
    assert!(lost.message().contains("there is no repository at "), "{lost:?}");
}

#[test]
fn a_domain_that_another_run_has_is_refused() {
    let shop = Shop::with(&[(
        "command = ['cat', 'DIR/db/shop']",
        "command = ['sh', '-c', 'if [ -e DIR/slow ]; then touch DIR/begun; sleep 60; fi; cat DIR/db/shop']",
    )]);
    shop.bench.write("slow", "");
    let mut child = shop.bench.command();
    let mut child =
        child.args(["run", "orders"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
    let began = std::time::Instant::now();
    while !shop.bench.path("begun").exists() {
        assert!(began.elapsed().as_secs() < 60, "it does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    let busy = shop.run("orders media").expect(1);
    assert!(busy.message().contains("a run or recovery of the domain orders is at work"), "{busy:?}");
    assert_eq!(shop.now(), OLD);
    child.kill().and_then(|()| child.wait()).expect("ended");
    fs::remove_file(shop.bench.path("slow")).expect("removed");
    shop.run("orders media").expect(0);
}

#[test]
fn damage_of_the_backup_ends_with_its_code_and_leaves_everything() {
    let shop = Shop::new();
    let packs = shop.bench.objects("packs");
    let largest =
        packs.into_iter().max_by_key(|path| fs::metadata(path).expect("a pack").len()).expect("a pack");
    let mut bytes = fs::read(&largest).expect("a pack");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    overwrite(&largest, &bytes);
    let failed = shop.run("media --from first").expect(4);
    assert!(failed.stderr.contains("media: FAILED: stage: "), "{failed:?}");
    assert_eq!(shop.now(), OLD);
    assert_eq!(shop.beside(), [] as [PathBuf; 0]);
    shop.run("media --from second").expect(0);
    assert_eq!(shop.now()[1], RESTORED[1]);
}

#[test]
fn links_missing_targets_and_streams_that_nobody_swaps_are_told() {
    let shop = Shop::with(&[
        ("swap = ['sh', '-c', 'mv DIR/db/shop DIR/db/${old} && mv DIR/db/${target} DIR/db/shop']", ""),
        ("undo = ['sh', '-c', 'mv DIR/db/shop DIR/db/${target} && mv DIR/db/${old} DIR/db/shop']", ""),
        (
            "swapped = ['sh', '-c', 'if [ -e DIR/db/${old} ]; then echo 1; else echo 0; fi']",
            "target = 'shop_${id}'",
        ),
    ]);
    let run = shop.run("orders --json").expect(3);
    let orders = of(&run.lines(), "orders").clone();
    assert_eq!(orders["outcome"], "partial");
    let left = orders["left"][0].as_str().expect("text");
    let name =
        left.split_whitespace().find(|word| word.starts_with("shop_")).expect("a name").trim_end_matches(';');
    assert_eq!(shop.text(&format!("db/{name}")), RESTORED[0]);
    assert_eq!(shop.now()[0], OLD[0]);

    // On a new disk, behind a link.
    fs::remove_dir_all(shop.bench.path("media")).expect("removed");
    fs::create_dir(shop.bench.path("disk")).expect("made");
    symlink(shop.bench.path("disk"), shop.bench.path("media")).expect("a link");
    fs::remove_file(shop.bench.path("shop.conf")).expect("removed");
    let planned = shop.run("media --plan").expect(0).stdout;
    assert!(planned.contains("makes      ") && planned.contains("/disk ("), "{planned}");
    shop.run("media").expect(0);
    assert!(shop.bench.path("media").is_symlink());
    assert_eq!((shop.text("disk/a.jpg"), shop.text("shop.conf")), ("picture".into(), "conf".into()));
    shop.run("--rollback media").expect(0);
    assert_eq!(
        (shop.text("disk/a.jpg"), shop.text("shop.conf")),
        (RESTORED[2].to_owned(), RESTORED[2].to_owned())
    );
}

#[test]
fn a_rollback_after_which_nothing_starts_does_not_end_well_and_status_tells_of_it() {
    let shop =
        Shop::with(&[("echo running > DIR/service", "! [ -e DIR/stuck ] && echo running > DIR/service")]);
    shop.run("media").expect(0);
    shop.bench.write("stuck", "");
    let back = shop.run("--rollback").expect(3);
    assert!(
        back.stderr.contains("left to do: media: ") && back.stderr.contains("`start` failed"),
        "{back:?}"
    );
    assert_eq!(shop.now()[..6], OLD[..6]);
    assert_eq!(shop.text("service"), "stopped\n");
    let status = shop.bench.run(["status"]);
    assert!(status.stdout.contains("media") && status.stdout.contains("`start` failed"), "{status:?}");
    fs::remove_file(shop.bench.path("stuck")).expect("removed");
    shop.run("media").expect(0);
    assert_eq!(shop.now()[1], RESTORED[1]);
}
