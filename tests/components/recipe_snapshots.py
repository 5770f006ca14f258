#!/usr/bin/env python3
"""docs/recipes/snapshots.md: files on btrfs that change all the time, backed up out of snapshots; a run that is killed."""
import os
import shutil
import signal
import subprocess

from common import Load, Skip, blocks, case, check, equal, main, need, within

RECIPE = "snapshots"


def mount(machine):
    """A btrfs of its own at /srv/shop."""
    if os.getuid() != 0:
        raise Skip("only root can mount a file system")
    need("mkfs.btrfs", "btrfs", "jq", path=machine.env["PATH"])
    image, at = machine.path("/var/btrfs.img"), machine.path("/srv/shop")
    with open(image, "wb") as file:
        file.truncate(256 << 20)
    at.mkdir()
    machine.ask("mkfs.btrfs", "-q", image)
    done = subprocess.run(["mount", "-o", "loop", image, at], capture_output=True, text=True)
    if done.returncode != 0:
        raise Skip(f"btrfs cannot be mounted here: {done.stderr.strip()}")
    machine.mounts.append(at)
    return at


def test(machine):
    shop = mount(machine)
    get_back = blocks(f"recipes/{RECIPE}.md", "sh")
    script = next(block for block in get_back if block.startswith("#!"))
    machine.write("usr/lib/strongroom/snap-btrfs", script, 0o755)
    ledger = shop / "ledger"
    ledger.mkdir()
    for number in range(30):
        (ledger / f"page-{number}").write_bytes(os.urandom(1 << 20))
    for name in ["first", "second"]:
        (ledger / name).touch()
    machine.plan(RECIPE)

    first, second = (open(ledger / name, "ab", buffering=0) for name in ["first", "second"])

    def write(number):
        # An entry is in the second book only when it is in the first for good.
        for book in [first, second]:
            book.write(f"{number:015}\n".encode())
            os.fsync(book.fileno())

    def books(folder):
        return [(folder / name).read_text().splitlines() for name in ["first", "second"]]

    load = Load(machine, write, pause=0.001)
    # Under load they may be one entry apart, which is no moment of rest for a comparison.
    loose = lambda text: text.replace("cmp ${scratch}", "true || cmp ${scratch}")
    machine.domains(RECIPE, loose)
    for _ in range(3):
        before = load.count
        machine.strongroom("run").says("ledger: ok")
        snapshot = machine.snapshots("ledger")[-1]
        equal(snapshot["provenance"]["consistency"], "crash", "consistency")
        target = machine.path("/var/tmp/restored")
        machine.strongroom("restore", f"{snapshot['id']}:{ledger}", "--target", target)
        one, other = books(target)
        check(other == one[: len(other)] and 0 <= len(one) - len(other) <= 1, f"{len(one)} and {len(other)} entries")
        check(before <= len(one) < load.count, f"{before} <= {len(one)} < {load.count}")
        shutil.rmtree(target)
    check(not (shop / ".strongroom-snapshot").exists(), "a snapshot is left")
    case("files that change all the time are of one moment, under their own paths")

    # Killed while the snapshot is there.
    hold = '"sh", "-c", "/usr/lib/strongroom/snap-btrfs begin /srv/shop; touch /srv/held; sleep 600"'
    machine.domains(RECIPE, lambda text: text.replace('"/usr/lib/strongroom/snap-btrfs", "begin", "/srv/shop"', hold))
    run = subprocess.Popen([machine.binary, "run"], env=machine.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    within(30, "the snapshot is made", machine.path("/srv/held").exists)
    run.send_signal(signal.SIGKILL)
    run.wait()
    check((shop / ".strongroom-snapshot").exists(), "there is nothing to sweep")
    machine.domains(RECIPE)
    kept = machine.ids("ledger")
    machine.strongroom("run").says("ledger: ok")
    check(not (shop / ".strongroom-snapshot").exists(), "a snapshot is left")
    check(machine.ids("ledger")[-1] not in kept, "there is no new snapshot")
    case("what a killed run left is swept by the next one")

    kept = machine.ids("ledger")
    machine.domains(RECIPE, lambda text: text.replace('"/usr/lib/strongroom/snap-btrfs", "begin"', '"false"'))
    machine.strongroom("run", code=1).says("there is no file system snapshot: false failed")
    equal(machine.ids("ledger"), kept, "snapshots")
    case("without a snapshot of the file system there is none of the data")

    load.end()
    machine.domains(RECIPE)
    machine.strongroom("run").says("ledger: ok")
    for repository in ["local", "offsite"]:
        record = machine.drill("ledger")
        equal((record["outcome"], record["repository"]), ("pass", repository), "the drill")
    lost = {path.name: path.read_bytes() for path in ledger.iterdir()}
    for path in ledger.iterdir():
        path.unlink()
    (ledger / "ransom-note").write_text("pay\n")
    machine.script(next(block for block in get_back if block.startswith("id=")))
    equal({path.name: path.read_bytes() for path in ledger.iterdir()} == lost, True, "the files")
    equal([path.name for path in shop.joinpath("ledger-damaged").iterdir()], ["ransom-note"], "what was there before")
    case("rehearsed from each repository, destroyed and got back")


main(test)
