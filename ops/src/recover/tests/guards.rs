//! What would be lost if it were moved or removed with a target.

use std::cell::Cell;
use std::fs;
use std::path::Path;

use super::Outcome;
use super::world::{PLAN, World};
use crate::plan::values::Name;
use crate::recover::Step;
use crate::recover::preview::Refusal;

fn blockers(world: &World, domain: &str) -> Vec<Refusal> {
    world.preview(&[domain]).expect("told").remove(0).blockers
}

fn messages(world: &World, domain: &str) -> String {
    let all = blockers(world, domain);
    all.iter().map(|blocker| format!("{}: {}\n", blocker.code, blocker.message)).collect()
}

#[test]
fn a_repository_in_a_target_is_moved_along_or_nothing_is_begun() {
    for (exclude, excluded, said) in [
        ("'cache'", "carry", Some("no snapshot has it")),
        ("'cache', 'repo'", "leave", Some("excluded = \"leave\" would put it aside")),
        ("'cache', 'sub'", "carry", Some("the snapshot has something else for its place")),
        ("'cache', 'repo'", "carry", None),
    ] {
        let at = if exclude.contains("sub") { "sub" } else { "repo" };
        let world = World::new(&format!(
            "[repo.inside]\nurl = 'DIR/data/link/{at}'\n[[domain]]\nname = 'shop'\npaths = ['DIR/data/dir']\n\
             exclude = [{exclude}]\nrecover = {{ excluded = '{excluded}' }}\n"
        ));
        std::os::unix::fs::symlink(world.path("data/dir"), world.path("data/link")).expect("a link");
        world.write(&format!("data/dir/{at}/config"), "all that was ever backed up");
        let before = world.tree();
        match said {
            Some(said) => {
                let found = messages(&world, "shop");
                assert!(
                    found.contains("not-swappable") && found.contains("the repository inside ("),
                    "{found}"
                );
                assert!(found.contains(said), "{said} is not in {found}");
                assert_eq!(world.recover(&["shop"]).expect_err("refused").code, "not-swappable");
                assert_eq!(world.tree(), before);
            }
            None => {
                assert_eq!(world.recover(&["shop"]).expect("begun")[0].outcome, Outcome::Recovered);
                world.recoverer().commit(&[]).expect("removed");
                let after = world.tree();
                assert_eq!(after["data/dir/a"].1, "restored a");
                assert_eq!(after["data/dir/repo/config"], before["data/dir/repo/config"]);
            }
        }
    }
}

#[test]
fn what_puts_things_back_after_a_kill_cannot_lie_in_a_target() {
    let world = World::new("[[domain]]\nname = 'shop'\npaths = ['DIR']\nexclude = ['state']\n");
    let found = messages(&world, "shop");
    assert!(found.contains("not-swappable: shop: the state directory "), "{found}");
    let text = PLAN.replace("recover = { stop", "recover = { scratch = 'DIR/data/dir/new', stop");
    let found = messages(&World::new(&text), "shop");
    assert!(found.contains("not-swappable: shop: `scratch` is "), "{found}");
}

#[test]
fn what_is_mounted_meanwhile_is_neither_moved_nor_removed() {
    let mut world = World::new("[[domain]]\nname = 'shop'\npaths = ['DIR/data/dir']\n");
    let at = |path: std::path::PathBuf| path.canonicalize().expect("there");
    let previews = world.preview(&["shop"]).expect("told");
    world.disk.mounts = vec![at(world.path("data/dir/cache"))];
    let before = world.tree();
    let record = world.recoverer().recover("1", &previews).expect("begun").remove(0);
    assert_eq!(record.outcome, Outcome::Failed, "{record:?}");
    assert!(record.reason.expect("a reason").contains("swap: a file system is mounted at "));
    assert_eq!(world.tree(), before);
    world.assert_nothing_beside();

    // What was started after it mounts something.
    world.disk.mounts.clear();
    assert_eq!(world.recover(&["shop"]).expect("begun")[0].outcome, Outcome::Recovered);
    world.write("data/dir/media/film", "of another file system");
    world.disk.mounts = vec![at(world.path("data/dir/media"))];
    let recovered = world.tree();
    let record = world.recoverer().rollback(&[]).expect("begun").remove(0);
    assert_eq!(record.outcome, Outcome::Unfinished, "{record:?}");
    assert!(record.reason.expect("a reason").contains("unmount it, and try again"));
    assert_eq!(world.tree(), recovered);
    world.disk.mounts.clear();
    assert_eq!(world.recoverer().resume(&[]).expect("begun")[0].outcome, Outcome::RolledBack);
    assert_eq!(world.tree(), before);

    // Mounted in what is kept.
    let kept = world.state().recoveries(&world.plan).expect("readable")[0].targets[0].staged.join("media");
    world.disk.mounts = vec![at(kept.clone())];
    let record = world.recoverer().commit(&[]).expect("begun").remove(0);
    assert_eq!(record.outcome, Outcome::Failed, "{record:?}");
    assert!(kept.join("film").exists());
    assert_eq!(world.recover(&["shop"]).expect_err("nor by the next").code, "io");
    assert!(kept.join("film").exists());
    world.disk.mounts.clear();
    world.recoverer().commit(&[]).expect("removed");
    world.assert_nothing_beside();
}

#[test]
fn a_directory_that_is_left_out_now_and_was_not_then_becomes_one_with_that_of_the_snapshot() {
    let plan = "[[domain]]\nname = 'shop'\npaths = ['DIR/data/dir']\nexclude = ['sub']\n";
    for is_mounted in [false, true] {
        let mut world = World::new(plan);
        world.write("data/dir/sub/secret", "nowhere else");
        world.write("data/dir/sub/deep/key", "nor this");
        if is_mounted {
            world.disk.mounts = vec![world.path("data/dir").canonicalize().expect("there")];
        }
        let before = world.tree();
        for ends in ["rollback", "commit"] {
            let record = world.recover(&["shop"]).expect("begun").remove(0);
            assert_eq!((record.outcome, &record.left[..]), (Outcome::Recovered, &[][..]), "{record:?}");
            let after = world.tree();
            for kept in ["data/dir/sub/secret", "data/dir/sub/deep/key"] {
                assert_eq!(after.get(kept), before.get(kept), "{kept} {is_mounted}");
            }
            assert_eq!(after["data/dir/sub/own.tmp"].1, "restored own");
            if ends == "rollback" {
                world.recoverer().rollback(&[]).expect("undone");
                assert_eq!(world.tree(), before);
            } else {
                world.recoverer().commit(&[]).expect("removed");
                assert_eq!(world.tree(), after);
            }
        }
    }
}

#[test]
fn the_plan_in_a_directory_that_is_left_out_is_no_reason_to_complain() {
    for is_plan in [true, false] {
        let mut world =
            World::new("[[domain]]\nname = 'shop'\npaths = ['DIR/data/dir']\nexclude = ['sub']\n");
        world.write("data/dir/sub/own.tmp", "the plan of today");
        world.write("data/dir/sub/secret", "nowhere else");
        if is_plan {
            world.plan.sources[0].path = world.path("data/dir/sub/own.tmp");
        }
        let record = world.recover(&["shop"]).expect("begun").remove(0);
        assert_eq!(record.outcome, if is_plan { Outcome::Recovered } else { Outcome::Partial }, "{record:?}");
        assert_eq!(record.left.len(), usize::from(!is_plan), "{record:?}");
        world.recoverer().commit(&[]).expect("removed");
        assert_eq!(world.tree()["data/dir/sub/secret"].1, "nowhere else");
    }
}

#[test]
fn what_one_recovery_keeps_is_not_put_aside_with_another() {
    let world = World::new(
        "[[domain]]\nname = 'inner'\npaths = ['DIR/data/dir']\n\
         [[domain]]\nname = 'outer'\npaths = ['DIR/data']\nrecover = { excluded = 'leave' }\n",
    );
    let before = world.tree();
    assert_eq!(world.recover(&["inner"]).expect("begun")[0].outcome, Outcome::Recovered);
    let found = messages(&world, "outer");
    assert!(
        found.contains("nested: outer: at ") && found.contains("`strongroom recover --commit inner`"),
        "{found}"
    );
    let recovered = world.tree();
    assert_eq!(world.recover(&["outer"]).expect_err("refused").code, "nested");
    assert_eq!(world.tree(), recovered);
    world.recoverer().rollback(&[]).expect("undone");
    assert_eq!(world.tree(), before);

    // Both at once: what the inner one keeps goes along.
    let records = world.recover(&["inner", "outer"]).expect("begun");
    assert!(records.iter().all(|record| record.outcome == Outcome::Recovered), "{records:?}");
    let refused = world.recoverer().rollback(&["inner".into()]).expect_err("outer is later");
    assert_eq!(refused.code, "nested");
    assert!(!refused.hint.expect("a hint").contains("--commit"), "it would take what inner keeps");
    let refused = world.recoverer().commit(&["outer".into()]).expect_err("inner is in it");
    assert!(refused.code == "nested" && refused.message.contains("before inner"), "{refused:?}");
    world.recoverer().rollback(&["outer".into()]).expect("undone");
    world.recoverer().rollback(&["inner".into()]).expect("undone");
    assert_eq!(world.tree(), before);
    world.recover(&["inner", "outer"]).expect("begun");
    world.recoverer().commit(&[]).expect("removed");
    world.assert_nothing_beside();
}

#[test]
fn a_way_back_that_cannot_be_noted_is_not_begun_and_nothing_is_left_half_way() {
    for is_half_back in [false, true] {
        let world = World::new(PLAN);
        let (state, away) = (world.path("state"), world.path("state-away"));
        let previews = world.preview(&["shop"]).expect("told");
        let (is_cancelled, moved) =
            (Cell::new(false), |from: &Path, to: &Path| fs::rename(from, to).expect("moved"));
        let tell = |_: &Name, step: Step| {
            if step == Step::Health {
                moved(&state, &away);
                is_cancelled.set(true);
            }
        };
        let is_cancelled = || is_cancelled.get();
        let mut recoverer = world.recoverer();
        (recoverer.tell, recoverer.is_cancelled) = (&tell, &is_cancelled);
        let record = recoverer.recover("1", &previews).expect("begun").remove(0);
        assert_eq!(record.outcome, Outcome::Unfinished, "{record:?}");
        assert!(record.reason.expect("a reason").contains("nothing was put back"));
        moved(&away, &state);
        world.assert_restored();
        if is_half_back {
            // As an attempt would leave it that notes nothing.
            let journal = world.state().recoveries(&world.plan).expect("readable").remove(0);
            let target = journal.targets.iter().find(|target| target.is_directory).expect("a directory");
            moved(&target.place, &target.staged);
            moved(&target.aside, &target.place);
            let load = &journal.loads[0];
            world.undo(&load.target, &load.old);
        }
        assert_eq!(world.recoverer().resume(&[]).expect("begun")[0].outcome, Outcome::Recovered);
        assert_eq!(world.databases()["live"], "restored dump");
        assert_eq!(world.tree()["data/dir/a"].1, "restored a");
        world.recoverer().rollback(&[]).expect("undone");
        assert_eq!((world.tree()["data/dir/a"].1.as_str(), &*world.databases()["live"]), ("old a", "in use"));
    }
}

#[test]
fn targets_that_lead_into_each_other_are_refused() {
    let plan = "[[domain]]\nname = 'shop'\npaths = ['DIR/data/dir', 'DIR/data/far/absent']\n";
    for (link, to) in
        [("data/far/absent", "data/dir"), ("data/far/absent", "data/dir/cache"), ("data/far", "data/dir")]
    {
        let world = World::new(plan);
        let link = world.path(link);
        fs::create_dir_all(link.parent().expect("a folder")).expect("made");
        std::os::unix::fs::symlink(world.path(to), link).expect("a link");
        let before = world.tree();
        let found = messages(&world, "shop");
        assert!(found.contains("lead to one place, or one of them into the other"), "{to}: {found}");
        assert_eq!(world.recover(&["shop"]).expect_err("refused").code, "not-swappable");
        assert_eq!(world.tree(), before);
    }
}

#[test]
fn what_cannot_be_put_back_does_not_hold_up_the_rest() {
    let world = World::new("[[domain]]\nname = 'shop'\npaths = ['DIR/data/dir', 'DIR/data/single']\n");
    let before = world.tree();
    world.recover(&["shop"]).expect("begun");
    let journal = world.state().recoveries(&world.plan).expect("readable").remove(0);
    let (aside, away) = (&journal.targets[1].aside, world.path("away"));
    fs::rename(aside, &away).expect("moved");
    let record = world.recoverer().rollback(&[]).expect("begun").remove(0);
    assert_eq!(record.outcome, Outcome::Unfinished, "{record:?}");
    assert_eq!(world.tree()["data/dir/a"].1, "old a");
    assert_eq!(world.tree()["data/single"].1, "restored single");
    fs::rename(&away, aside).expect("moved");
    assert_eq!(world.recoverer().resume(&[]).expect("begun")[0].outcome, Outcome::RolledBack);
    assert_eq!(world.tree(), before);
}
