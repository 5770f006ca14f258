"""What the campaigns share: the program on one repository, and trees that change. Standard library only."""
import hashlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import tempfile

CHEAP = ("--kdf-memory", "19MiB", "--kdf-passes", "2")
PASSWORD = "campaign"
# Exit code of whatever is given a password that opens nothing.
WRONG_PASSWORD = 12


class Failed(Exception):
    """A command did what it must not do."""


class Tool:
    """Runs commands on a repository. With `state`, as a machine that remembers what it has seen."""

    def __init__(self, binary, repository, state=None, patience=600, password=PASSWORD):
        self.binary, self.repository, self.patience = str(binary), pathlib.Path(repository), patience
        remembered = {"STRONGROOM_STATE_DIR": str(state)} if state else {"STRONGROOM_NO_STATE": "1"}
        self.environment = {
            **os.environ, "STRONGROOM_REPOSITORY": str(repository), "STRONGROOM_PASSWORD": password, **remembered,
        }

    def start(self, *words, wrapper=(), stdin=None):
        """Begins a command, with its output thrown away. `stdin` is a file."""
        with open(stdin or os.devnull, "rb") as given:
            return subprocess.Popen(
                [*map(str, wrapper), self.binary, *map(str, words)], env=self.environment, stdin=given,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )

    def run(self, *words, codes=(0,), wrapper=(), stdin=None):
        """Runs a command; anything but one of these exit codes is a failure. `stdin` is a file."""
        options = {"env": self.environment, "capture_output": True, "text": True}
        try:
            with open(stdin or os.devnull, "rb") as given:
                command = [*map(str, wrapper), self.binary, *map(str, words)]
                done = subprocess.run(command, timeout=self.patience, stdin=given, **options)
        except subprocess.TimeoutExpired:
            raise Failed(f"{words} is blocked: it takes longer than {self.patience} s") from None
        if codes and done.returncode not in codes:
            raise Failed(f"{words} ends with {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
        return done

    def again(self, *words, codes=(0,), already=None, stdin=None):
        """Runs a command once more that was cut short or failed: it comes to its end, or ends with the code of an error that says that there is
        nothing left to do."""
        done = self.run(*words, "--json", codes=(), stdin=stdin)
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        is_already = already and lines and json.loads(lines[-1]).get("code") == already
        if done.returncode not in codes and not is_already:
            raise Failed(f"again, {words} ends with {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")

    def with_password(self, password):
        """The same repository for one who has another password, on a machine that remembers nothing."""
        return Tool(self.binary, self.repository, patience=self.patience, password=password)

    def opens(self, password):
        """Whether a password opens the repository."""
        return self.with_password(password).run("snapshots", "-q", codes=(0, WRONG_PASSWORD)).returncode == 0

    def init(self):
        self.repository.parent.mkdir(parents=True, exist_ok=True)
        self.run("init", "-q", *CHEAP)

    def summary(self, *words):
        return json.loads(self.run(*words, "--json").stdout.splitlines()[-1])

    def snapshots(self):
        """Ids of all snapshots."""
        return [snapshot["id"] for snapshot in json.loads(self.run("snapshots", "--json").stdout)]

    def restored(self, snapshot, tree):
        """What a snapshot gives back of a tree, as a manifest."""
        with workplace() as target:
            self.run("restore", f"{snapshot}:{tree}", "--target", target / "tree", "-q")
            return manifest(target / "tree")


class workplace:  # pylint: disable=invalid-name
    """A temporary directory; not in memory, where a disk is meant."""

    def __enter__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="strongroom-", dir=os.environ.get("TMPDIR", "/var/tmp")))
        return self.path

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)


def manifest(tree):
    """Every file below a directory, with the hash of its bytes."""
    files = (path for path in sorted(tree.rglob("*")) if path.is_file())
    return {str(path.relative_to(tree)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class Tree:
    """A directory with files that change, all from one seed."""

    def __init__(self, path, seed, files=40, largest=200_000):
        self.path, self.random, self.largest = path, random.Random(seed), largest
        for number in range(files):
            self.write(f"d{number % 5}/f{number}")

    def write(self, name):
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        length = self.random.randrange(1, self.largest)
        noise = self.random.randbytes(length) if self.random.random() < 0.6 else b"%d " % self.random.randrange(1000) * (length // 4)
        path.write_bytes(noise)

    def change(self):
        """Changes, removes and adds some files."""
        files = [path for path in sorted(self.path.rglob("*")) if path.is_file()]
        for path in self.random.sample(files, k=max(1, len(files) // 5)):
            if self.random.random() < 0.3:
                path.unlink()
            else:
                self.write(path.relative_to(self.path))
        for _ in range(self.random.randrange(1, 6)):
            self.write(f"d{self.random.randrange(5)}/n{self.random.randrange(1 << 30)}")
