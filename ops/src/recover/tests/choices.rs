//! Which snapshot of which repository, and what stands in the way.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use strongroom::format::provenance::{Fact, Provenance};
use strongroom::testing::cannot;

use super::Outcome;
use super::world::{PLAN, World};
use crate::recover::targets::topmost;
use crate::run::facts::facts;

fn codes(world: &World) -> Vec<String> {
    let preview = world.preview(&["shop"]).expect("told").remove(0);
    preview.blockers.iter().map(|blocker| blocker.code.clone()).collect()
}

#[test]
fn the_newest_whole_snapshot_is_taken_wherever_it_is() {
    let mut world = World::new(PLAN);
    let all = world.source.snapshots.get_mut("a").expect("a repository");
    let mut older = all[0].clone();
    older.1.time.seconds -= 10 * 86_400;
    let mut partial = all[0].clone();
    partial.1.partial = true;
    partial.1.time.seconds += 100;
    let newest = all[0].clone();
    *all = vec![older.clone()];
    world.source.snapshots.insert("b".into(), vec![newest, partial]);
    let preview = world.preview(&["shop"]).expect("told").remove(0);
    assert_eq!((preview.repository.as_str(), preview.age.as_secs()), ("b", 3600));
    let mut wish = world.wish(&["shop"]);
    wish.from = Some("a".into());
    assert_eq!(world.preview_of(&wish).expect("told")[0].age.as_secs(), 10 * 86_400 + 3600);
    wish.from = None;
    wish.snapshot = "before:2d".into();
    assert_eq!(world.preview_of(&wish).expect("told")[0].repository.as_str(), "a");
    world.source.down = Some("b".into());
    let preview = world.preview(&["shop"]).expect("told").remove(0);
    assert_eq!(preview.repository.as_str(), "a");
    assert!(preview.notes[0].contains("repository b cannot be asked"), "{:?}", preview.notes);
}

#[test]
fn no_older_snapshot_passes_for_the_latest_where_a_later_one_may_be_lost() {
    let mut world = World::new(PLAN);
    let latest = world.preview(&["shop"]).expect("told").remove(0);
    world.source.forgetful = Some(latest.repository.as_str().into());
    let mut wish = world.wish(&["shop"]);
    let refusal = world.preview_of(&wish).expect_err("refused");
    assert!(refusal.code == "log-damaged" && refusal.message.contains("a commit is lost"), "{refusal:?}");
    wish.snapshot = latest.snapshot.to_string();
    assert_eq!(world.preview_of(&wish).expect("that one is meant").remove(0).snapshot, latest.snapshot);
}

#[test]
fn requests_that_cannot_be_meant_are_refused() {
    let mut world = World::new(PLAN);
    let refused = |world: &World, change: &dyn Fn(&mut super::super::Wish)| {
        let mut wish = world.wish(&["shop"]);
        change(&mut wish);
        let refusal = world.preview_of(&wish).expect_err("refused");
        (refusal.code, refusal.message)
    };
    let usage = |message: &str| ("usage".to_owned(), message.to_owned());
    assert_eq!(
        refused(&world, &|wish| wish.names = vec!["shap".into()]),
        usage("the plan has no domain \"shap\"")
    );
    assert_eq!(refused(&world, &|wish| wish.names.clear()).0, "usage");
    assert_eq!(
        refused(&world, &|wish| wish.from = Some("c".into())),
        usage("the plan has no repository \"c\"")
    );
    assert_eq!(refused(&world, &|wish| wish.snapshot = "before:x".into()).0, "usage");
    assert_eq!(refused(&world, &|wish| wish.allow_drift = vec!["no".into()]).0, "usage");
    assert_eq!(refused(&world, &|wish| wish.snapshot = "ffff".into()).0, "no-snapshot");
    world.source.snapshots.values_mut().for_each(Vec::clear);
    let (code, message) = refused(&world, &|_| {});
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("no-snapshot", "shop: there is no snapshot of shop in a; there is no snapshot of shop in b")
    );
}

#[test]
fn facts_that_are_not_as_they_were_have_to_be_allowed_by_name() {
    let plan = format!(
        "{PLAN}[domain.facts]\nversion = ['print', '15.3']\nrevision = ['fail']\nnew = ['print', 'x']\n"
    );
    let mut world = World::new(&plan);
    let facts = [("version", "15.3"), ("revision", "abc"), ("gone", "g")];
    let facts = facts.map(|(name, value)| Fact { name: name.into(), value: value.into() }).to_vec();
    for (_, snapshot) in world.source.snapshots.values_mut().flatten() {
        snapshot.provenance.as_mut().expect("of a plan").facts.clone_from(&facts);
    }
    assert_eq!(codes(&world), ["drift"], "a fact that cannot be found out is not known to be the same");
    let refused = world.recover(&["shop"]).expect_err("refused");
    assert_eq!(refused.code, "drift");
    assert!(refused.hint.is_some_and(|hint| hint.contains("--allow-drift revision")));
    let mut wish = world.wish(&["shop"]);
    wish.allow_drift = vec!["version".into()];
    assert_eq!(world.preview_of(&wish).expect("told")[0].blockers.len(), 1, "another one");
    wish.allow_drift = vec!["revision".into()];
    let preview = world.preview_of(&wish).expect("told");
    assert_eq!(preview[0].blockers, []);
    assert_eq!(world.recoverer().recover("2", &preview).expect("begun")[0].outcome, Outcome::Recovered);
}

/// Of migrations, the newest stand last.
#[test]
fn the_end_of_a_long_fact_has_not_to_change_either() {
    let known = |length: usize, last: &str| {
        let plan = format!("{PLAN}[domain.facts]\nmigrations = ['print', '{}{last}']\n", "m".repeat(length));
        let world = World::new(&plan);
        let value = facts(&world.plan.domains[0], &[], &*world.recoverer().processes).remove(0).1;
        (world, value)
    };
    let drift = |length: usize, then: &str| {
        let (mut world, _) = known(length, "b");
        let value = known(length, then).1.expect("found out");
        assert!(value.len() <= Provenance::FACT_LEN_MAX, "{}", value.len());
        for (_, snapshot) in world.source.snapshots.values_mut().flatten() {
            let facts = vec![Fact { name: "migrations".into(), value: value.clone() }];
            snapshot.provenance.as_mut().expect("of a plan").facts = facts;
        }
        codes(&world)
    };
    for length in [4095, 4096, 10_000] {
        assert_eq!((drift(length, "b"), drift(length, "a")), (vec![], vec!["drift".into()]), "{length}");
    }
    // What is not kept cannot be compared.
    let error = known(64 << 10, "").1.expect_err("too long");
    assert!(error.starts_with("it has 65536 bytes or more"), "{error}");
}

#[test]
fn space_is_summed_up_by_file_system_before_anything_is_written() {
    let mut world = World::new(PLAN);
    let preview = world.preview(&["shop"]).expect("told").remove(0);
    let needed: u64 = preview.space.iter().map(|space| space.needed).sum();
    assert!(needed > 30 && preview.blockers.is_empty(), "{preview:?}");
    world.disk.free = needed - 1;
    if preview.space.len() == 1 {
        assert_eq!(codes(&world), ["no-space"]);
    }
    world.disk.free = 3;
    let before = world.tree();
    assert_eq!(world.recover(&["shop"]).expect_err("refused").code, "no-space");
    assert_eq!(world.tree(), before);
}

#[test]
fn a_mounted_directory_is_taken_apart_and_one_with_a_mount_in_it_is_refused() {
    let mut world = World::new("[[domain]]\nname = 'shop'\npaths = ['DIR/data/dir']\nexclude = ['cache']\n");
    world.write("data/dir/lost+found/x", "of the file system");
    world.write("data/dir/later", "not in the snapshot");
    let before = world.tree();
    world.disk.mounts = vec![world.path("data/dir").canonicalize().expect("there")];
    let record = world.recover(&["shop"]).expect("begun").remove(0);
    assert_eq!(record.outcome, Outcome::Recovered, "{record:?}");
    let after = world.tree();
    assert_eq!(after["data/dir/a"].1, "restored a");
    assert_eq!(after["data/dir/sub/own.tmp"].1, "restored own");
    for stays in ["data/dir/cache/c", "data/dir/lost+found/x"] {
        assert_eq!(after.get(stays), before.get(stays), "{stays}");
    }
    assert!(!after.contains_key("data/dir/later"), "{after:?}");
    world.recoverer().rollback(&[]).expect("undone");
    assert_eq!(world.tree(), before);
    world.recoverer().commit(&[]).expect("removed");
    world.write("data/dir/sub/x", "x");
    world.disk.mounts = vec![world.path("data/dir/sub").canonicalize().expect("there")];
    assert_eq!(codes(&world), ["not-swappable"]);
    assert_eq!(world.recover(&["shop"]).expect_err("refused").code, "not-swappable");
}

#[test]
fn what_appears_in_a_mounted_directory_meanwhile_stays_with_what_it_was_made_beside() {
    let mut world = World::new("[[domain]]\nname = 'shop'\npaths = ['DIR/data/dir']\nexclude = ['cache']\n");
    world.disk.mounts = vec![world.path("data/dir").canonicalize().expect("there")];
    let previews = world.preview(&["shop"]).expect("looked at");
    world.write("data/dir/late/x", "made after the preview");
    let before = world.tree();
    let record = world.recoverer().recover("1", &previews).expect("begun").remove(0);
    assert_eq!(record.outcome, Outcome::Recovered, "{record:?}");
    assert!(record.warnings.iter().any(|warning| warning.contains("dir/late has appeared")), "{record:?}");
    assert!(!world.tree().contains_key("data/dir/late"), "it is of another state");
    world.write("data/dir/new", "made after the recovery");
    world.write("data/dir/cache/new", "left out");
    world.recoverer().rollback(&[]).expect("undone");
    let mut after = world.tree();
    assert!(after.remove("data/dir/cache/new").is_some());
    assert_eq!(after, before);
    assert!(world.has_beside("made after the recovery"));
    world.recoverer().commit(&[]).expect("removed");
    world.assert_nothing_beside();
}

#[test]
fn a_link_to_a_directory_stands_for_it_and_stays() {
    let world =
        World::new("[[domain]]\nname = 'shop'\npaths = ['DIR/data/dir']\nsqlite = ['DIR/data/base.db']\n");
    for (name, moved) in [("dir", "real"), ("base.db", "real.db"), ("base.db-wal", "real.db-wal")] {
        fs::rename(world.path(&format!("data/{name}")), world.path(&format!("elsewhere-{moved}")))
            .expect("moved");
    }
    for (name, moved) in [("dir", "real"), ("base.db", "real.db")] {
        let target = world.path(&format!("elsewhere-{moved}"));
        std::os::unix::fs::symlink(target, world.path(&format!("data/{name}"))).expect("a link");
    }
    let before = world.tree();
    let record = world.recover(&["shop"]).expect("begun").remove(0);
    assert_eq!(record.outcome, Outcome::Recovered, "{record:?}");
    let after = world.tree();
    assert_eq!(after["elsewhere-real/a"].1, "restored a");
    assert_eq!(after["elsewhere-real.db"].1, "restored base");
    assert!(
        !after.contains_key("elsewhere-real.db-wal"),
        "it would be taken for changes to the restored one"
    );
    assert_eq!((&after["data/dir"], &after["data/base.db"]), (&before["data/dir"], &before["data/base.db"]));
    world.recoverer().rollback(&[]).expect("undone");
    assert_eq!(world.tree(), before);
    world.recoverer().commit(&[]).expect("removed");
    fs::remove_dir_all(world.path("elsewhere-real")).expect("removed");
    let refused = world.recover(&["shop"]).expect_err("it leads nowhere");
    assert!(refused.message.contains("is a link to something that is not there"), "{refused:?}");
}

#[test]
fn a_stream_that_would_be_loaded_in_place_is_refused_and_one_that_nobody_swaps_is_left_to_do() {
    let stream = |restore: &str| {
        World::new(&format!(
            "[[domain]]\nname = 'shop'\nstream = [{{ name = 'dump', command = ['true'], {restore} }}]\n"
        ))
    };
    assert_eq!(codes(&stream("restore = ['load', 'live']")), ["not-undoable"]);
    let taken = stream(
        "restore = ['load', '${target}'], recover = { target = 'mine', drop = ['drop', '${target}'] }",
    );
    assert_eq!(codes(&taken), ["plan"], "it may be somebody else's");
    let over = stream("restore = ['load', 'live'], recover = { target = 'a_${id}' }");
    assert_eq!(codes(&over), ["plan"]);
    let unready =
        World::new("[[domain]]\nname = 'shop'\npaths = ['DIR/data/dir']\nrecover = { ready = {} }\n");
    assert_eq!(codes(&unready), ["plan"]);
    assert_eq!(unready.recover(&["shop"]).expect_err("nothing is begun").code, "plan");
    for (restore, said) in [
        ("restore = ['load', '${target}']", "the stream dump is restored under the name strongroom_1_1_1"),
        ("restore = ['load', '${target}'], recover = { target = 'shop_${id}' }", "under the name shop_1"),
        ("min_bytes = '1'", "nothing says how the stream dump is loaded"),
    ] {
        let world = stream(restore);
        let record = world.recover(&["shop"]).expect("begun").remove(0);
        assert_eq!(record.outcome, Outcome::Partial, "{record:?}");
        assert!(record.left[0].contains(said), "{record:?}");
        assert_eq!(world.databases()["live"], "in use");
    }
}

/// A database that takes a night to load is one on the worst day, too.
#[test]
fn a_load_is_ended_by_its_time_only_where_the_plan_says_so() {
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    let short = PLAN.replace("recover = { stop", "recover = { timeout = '1m', stop");
    for (plan, least, most) in [
        (short.clone(), hours(10 * 366 * 24), Duration::MAX),
        (
            short.replace("recover = { create", "restore_timeout = '36h'\nrecover = { create"),
            hours(36),
            hours(36),
        ),
    ] {
        let world = World::new(&plan);
        let record = world.recover(&["shop"]).expect("begun").remove(0);
        assert_eq!(record.outcome, Outcome::Recovered, "{record:?}");
        let limits = world.limits();
        assert!(matches!(limits[..], [limit] if (least..=most).contains(&limit)), "{limits:?}");
    }
}

#[test]
fn paths_below_others_are_not_swapped_twice() {
    let paths = ["/a/b", "/a", "/c", "/ab", "/c"].map(str::to_owned);
    let found: Vec<_> = topmost(&paths).iter().map(|path| path.display().to_string()).collect();
    assert_eq!(found, ["/a", "/c", "/ab"]);
}

#[test]
fn what_has_the_name_of_a_restored_stream_already_is_left_alone() {
    let world = World::new(&PLAN.replace("recover = { create", "recover = { target = 'mine', create"));
    world.load("mine", "somebody else's");
    let (before, databases) = (world.tree(), world.databases());
    let record = world.recover(&["shop"]).expect("begun").remove(0);
    assert_eq!(record.outcome, Outcome::Failed, "{record:?}");
    assert_eq!((world.tree(), world.databases()), (before, databases));
}

#[test]
fn a_fixed_name_under_which_nothing_was_made_is_never_dropped() {
    let mut world = World::new(&PLAN.replace("recover = { create", "recover = { target = 'mine', create"));
    let previews = world.preview(&["shop"]).expect("told");
    // The plan was changed after it was looked at.
    world.plan.domains[0].stream[0].recover.as_mut().expect("said").create = None;
    world.load("mine", "somebody else's");
    world.fail(Some("load"));
    let record = world.recoverer().recover("1", &previews).expect("begun").remove(0);
    assert_eq!(record.outcome, Outcome::Failed, "{record:?}");
    assert_eq!(world.databases()["mine"], "somebody else's");
}

#[test]
fn names_that_are_no_text_are_swapped_at_the_top_of_a_mount() {
    let mut world = World::new("[[domain]]\nname = 'shop'\npaths = ['DIR/data/dir']\n");
    let odd = world.path("data/dir").join(OsStr::from_bytes(b"odd\xff"));
    if let Err(error) = fs::write(&odd, "old odd") {
        return cannot("make a file with a name that is no text", &error);
    }
    world.disk.mounts = vec![world.path("data/dir").canonicalize().expect("there")];
    let record = world.recover(&["shop"]).expect("begun").remove(0);
    assert_eq!(record.outcome, Outcome::Recovered, "{record:?}");
    assert!(!odd.exists());
    let undone = world.recoverer().rollback(&[]).expect("undone").remove(0);
    assert_eq!(undone.outcome, Outcome::RolledBack, "{undone:?}");
    assert_eq!(fs::read_to_string(&odd).expect("there"), "old odd");
}
