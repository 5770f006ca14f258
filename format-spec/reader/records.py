"""The record types of the specification: shapes, defaults, and the rules that trees and tables obey."""

import mpack
from refusal import Refused

REQUIRED = object()
BLOB_LEN_MAX = 16 << 20
DEPTH_MAX = 8
SPLIT_DEPTH_MAX = 8
HOLES_MAX = 65_536
XATTRS_WEIGHT_MAX = 8 << 20


def fail(message):
    raise Refused("record", message)


class Unsigned:
    def __init__(self, bits):
        self.limit = 1 << bits

    def read(self, value, where):
        if type(value) is not int or not 0 <= value < self.limit:
            fail(f"{where}: not an unsigned number below {self.limit}")
        return value


class Signed64:
    def read(self, value, where):
        if type(value) is not int or not -(1 << 63) <= value < 1 << 63:
            fail(f"{where}: not a 64-bit number")
        return value


class Bytes:
    def __init__(self, length=None):
        self.length = length

    def read(self, value, where):
        if type(value) is not bytes or self.length not in (None, len(value)):
            fail(f"{where}: not {self.length or ''} bytes")
        return value


class Plain:
    def __init__(self, kind):
        self.kind = kind

    def read(self, value, where):
        if type(value) is not self.kind:
            fail(f"{where}: not a {self.kind.__name__}")
        return value


class Array:
    def __init__(self, item):
        self.item = item

    def read(self, value, where):
        if type(value) is not list:
            fail(f"{where}: not an array")
        return [self.item.read(item, f"{where}[{i}]") for i, item in enumerate(value)]


class Choice:
    def __init__(self, *names):
        self.names = names

    def read(self, value, where):
        if value not in self.names:
            fail(f"{where}: {value!r} is none of {self.names}")
        return value


class Record:
    """A map with these fields in this order: (name, type) or (name, type, default)."""

    def __init__(self, *fields):
        self.fields = [field if len(field) == 3 else (*field, REQUIRED) for field in fields]

    def read(self, value, where):
        if type(value) is not mpack.Map:
            fail(f"{where}: not a map")
        names, record, at = [name for name, _, _ in self.fields], {}, -1
        for key, item in value:
            if key not in names:
                fail(f"{where}: unknown field {key!r}")
            if names.index(key) <= at:
                fail(f"{where}: field {key!r} twice or out of order")
            at = names.index(key)
            _, kind, default = self.fields[at]
            record[key] = kind.read(item, f"{where}.{key}")
            if default is not REQUIRED and record[key] == default:
                fail(f"{where}.{key}: has its default value and is not left out")
        for name, _, default in self.fields:
            if name not in record:
                if default is REQUIRED:
                    fail(f"{where}: no field {name!r}")
                record[name] = default
        return record


class Variant:
    """One of several named contents; None for those without. Read as (name, content)."""

    def __init__(self, **variants):
        self.variants = variants

    def read(self, value, where):
        if type(value) is str and value in self.variants and self.variants[value] is None:
            return value, None
        if type(value) is not mpack.Map or len(value) != 1:
            fail(f"{where}: not one variant")
        name, content = value[0]
        if self.variants.get(name) is None:
            fail(f"{where}: unknown variant {name!r}")
        return name, self.variants[name].read(content, f"{where}.{name}")


U8, U32, U64, ID = Unsigned(8), Unsigned(32), Unsigned(64), Bytes(32)
BIN, STR, BOOL = Bytes(), Plain(str), Plain(bool)
TIME = Record(("seconds", Signed64()), ("nanos", U32))

CONFIG = Record(("repository", Bytes(16)), ("must_understand", U64), ("created_by", STR))
KEYSLOT = Record(("root", ID), ("writer", ID), ("label", STR))
APPEND_KEYS = "data_id tree_id snapshot_id chunker index log data_recipient metadata_recipient".split()
APPEND_KEYSLOT = Record(*((name, ID) for name in APPEND_KEYS), ("writer", ID), ("label", STR))

DEVICE = Record(("major", U32), ("minor", U32))
FILE = Record(
    ("size", U64),
    ("grain", Choice("page", "fine", "medium", "coarse"), None),
    ("depth", U8, 0),
    ("chunks", BIN, b""),
    ("holes", Array(Record(("offset", U64), ("length", U64))), []),
    ("unstable", BOOL, False),
)
METADATA = Record(
    ("mode", U32),
    ("uid", U32),
    ("gid", U32),
    ("user", STR, ""),
    ("group", STR, ""),
    ("mtime", TIME),
    ("ctime", TIME),
    ("btime", TIME, None),
    ("inode", U64),
    ("links", U64, None),
    ("device", U64, None),
    ("flags", U32, 0),
    ("xattrs", Array(Record(("name", BIN), ("value", BIN))), []),
)
NODE_KIND = Variant(
    file=FILE,
    dir=Record(("tree", ID)),
    link=Record(("target", BIN)),
    char=DEVICE,
    block=DEVICE,
    fifo=None,
    socket=None,
)
NODE = Record(("name", BIN), ("is", NODE_KIND), ("meta", METADATA))
PART = Record(("first", BIN), ("entries", U64), ("tree", ID))
TREE = Variant(nodes=Array(NODE), parts=Array(PART))
CHUNK_LIST = Record(("depth", U8), ("chunks", BIN))

COUNTS = (
    "files directories bytes files_new files_changed files_unmodified bytes_added bytes_stored unstable errors duration_ns"
)
CONSISTENCIES = ("fuzzy", "crash", "application")
PROVENANCE = Record(
    ("domain", STR),
    ("consistency", STR),
    ("plan", ID),
    ("plan_files", Array(BIN)),
    ("facts", Array(Record(("name", STR), ("value", STR))), []),
)
SNAPSHOT = Record(
    ("time", TIME),
    ("hostname", STR),
    ("username", STR),
    ("paths", Array(BIN)),
    ("tree", ID),
    ("tags", Array(STR), []),
    ("parent", ID, None),
    ("partial", BOOL, False),
    ("repaired", Record(("original", ID), ("added", U64), ("lost", U64)), None),
    ("origin", Record(("repository", Bytes(16)), ("snapshot", ID), ("added", U64), ("appender", ID, None)), None),
    ("provenance", PROVENANCE, None),
    ("excludes", Array(STR), []),
    ("program", STR),
    ("summary", Record(*((name, U64) for name in COUNTS.split()))),
)

SEGMENT = Record(("segment", ID), ("blobs", U64), ("packs", U32), ("bytes", U64))
PACKS = Record(("packs", Array(ID)))
CHANGE = Variant(
    keyslot_added=Record(("keyslot", ID), ("writer", ID), ("label", STR)),
    appender_added=Record(("keyslot", ID), ("writer", ID), ("label", STR)),
    keyslot_removed=Record(("keyslot", ID), ("writer", ID)),
    snapshot_added=Record(("snapshot", ID), ("record", BIN)),
    snapshot_forgotten=Record(("snapshot", ID), ("reason", STR)),
    snapshot_held=Record(("snapshot", ID), ("reason", STR)),
    snapshot_released=Record(("snapshot", ID), ("reason", STR)),
    segments_replaced=Record(("added", Array(SEGMENT), []), ("removed", Array(ID), [])),
    segments_dropped=Record(("segments", Array(ID))),
    packs_condemned=PACKS,
    packs_rescued=PACKS,
    packs_removed=PACKS,
    ledger_replaced=Record(("ledger", ID), ("previous", ID, None)),
    parity_set=Record(("overhead", U32)),
    reserve_set=Record(("bytes", U64)),
    note=Record(("kind", STR), ("record", BIN)),
)
COMMIT = Record(
    ("seq", U64),
    ("previous", ID),
    ("time", TIME),
    ("host", STR),
    ("user", STR),
    ("program", STR),
    ("changes", Array(CHANGE)),
)
SIGNED_COMMIT = Record(("body", BIN), ("writer", ID), ("signature", BIN))
STATE = Record(
    ("seq", U64),
    ("head", ID),
    ("config", ID),
    (
        "keyslots",
        Array(Record(("keyslot", ID), ("writer", ID), ("label", STR), ("added", U64), ("append_only", BOOL, False))),
    ),
    (
        "snapshots",
        Array(Record(("snapshot", ID), ("added", U64), ("record", BIN), ("hold", STR, None), ("appender", ID, None))),
    ),
    ("segments", Array(SEGMENT)),
    ("appended", Array(Record(("segment", ID), ("writer", ID))), []),
    ("condemned", Array(Record(("pack", ID), ("condemned", U64)))),
    ("ledger", ID, None),
    ("parity", U32, None),
    ("reserve", U64, None),
    ("lost", Array(Record(("seq", U64), ("hash", ID))), []),
)
VERIFIED = Record(("time", TIME), ("method", STR), ("intact", BOOL), ("packs", BIN))
LEDGER = Record(("verified", Array(VERIFIED)))
METHODS = ("listed", "hashed", "read")


def read_ledger(data):
    """What a ledger says, as (pack, method, time, intact), ascending by pack and method."""
    entries, last = [], None
    for group in read(LEDGER, data, "ledger")["verified"]:
        if group["method"] not in METHODS:
            fail(f"no such method: {group['method']!r}")
        method, time = METHODS.index(group["method"]), (group["time"]["seconds"], group["time"]["nanos"])
        if last is not None and (time, method, group["intact"]) <= last:
            fail("the groups are not in order")
        last = (time, method, group["intact"])
        packs = [group["packs"][at : at + 32] for at in range(0, len(group["packs"]), 32)]
        if not packs or len(packs[-1]) != 32 or any(a >= b for a, b in zip(packs, packs[1:])):
            fail("a group's packs are not ids in order")
        entries += [(pack, method, group["time"], group["intact"]) for pack in packs]
    entries.sort(key=lambda entry: entry[:2])
    if any(a[:2] == b[:2] for a, b in zip(entries, entries[1:])):
        fail("two verifications of a pack by the same method")
    return [(pack, METHODS[method], time, intact) for pack, method, time, intact in entries]


def read(kind, data, what):
    """The record of type `kind` that fills `data`."""
    return kind.read(mpack.decode(data), what)


def to_json(value):
    """A decoded MessagePack value as the vectors show it: bytes as hex."""
    if isinstance(value, mpack.Map):
        return {key: to_json(item) for key, item in value}
    if isinstance(value, list):
        return [to_json(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value


# Trees


def read_tree(data):
    """A tree whose rules hold: ("nodes", nodes) or ("parts", parts)."""
    variant, items = read(TREE, data, "tree")
    names = [item["name" if variant == "nodes" else "first"] for item in items]
    for name in names:
        check_name(name)
    if any(a >= b for a, b in zip(names, names[1:])):
        fail("tree: names do not ascend")
    if variant == "parts":
        if not items or any(part["entries"] == 0 for part in items):
            fail("tree: no parts, or a part without entries")
    else:
        for node in items:
            check_node(node)
    return variant, items


def check_name(name):
    if not 1 <= len(name) <= 255 or b"/" in name or b"\0" in name or name in (b".", b".."):
        fail(f"tree: {name!r} is not a name")


def check_node(node):
    meta, (kind, content) = node["meta"], node["is"]
    for field in ("mtime", "ctime", "btime"):
        if meta[field] is not None:
            check_time(meta[field])
    if meta["mode"] > 0o7777:
        fail("node: impossible mode")
    if meta["device"] is not None and meta["links"] is None:
        fail("node: a device number without links")
    names = [xattr["name"] for xattr in meta["xattrs"]]
    if any(not name or b"\0" in name for name in names) or any(a >= b for a, b in zip(names, names[1:])):
        fail("node: attribute names")
    if sum(32 + len(xattr["name"]) + len(xattr["value"]) for xattr in meta["xattrs"]) > XATTRS_WEIGHT_MAX:
        fail("node: too many or too long attributes")
    if kind == "link" and (not content["target"] or b"\0" in content["target"]):
        fail("node: link target")
    if kind == "file":
        check_file(content)


def check_time(time):
    if time["nanos"] >= 1_000_000_000:
        fail("a second has fewer nanoseconds")


def check_file(content):
    if len(content["holes"]) > HOLES_MAX:
        fail("file: too many holes")
    end = None
    for hole in content["holes"]:
        if hole["length"] == 0 or (end is not None and hole["offset"] <= end):
            fail("file: holes are empty, touch or descend")
        end = hole["offset"] + hole["length"]
        if end > content["size"]:
            fail("file: a hole leaves the file")
    entries = read_table(content["depth"], content["chunks"])
    if sum(n for _, n in entries) + sum(hole["length"] for hole in content["holes"]) != content["size"]:
        fail("file: chunks and holes do not make up its size")
    if content["depth"] == 0:
        ranges = data_ranges(content)
        for _, length in entries:
            take(ranges, length)


def data_ranges(content):
    """What lies around the holes, as a list of [begin, end], first range last."""
    ranges, at = [], 0
    for hole in [*content["holes"], {"offset": content["size"], "length": 0}]:
        if at < hole["offset"]:
            ranges.append([at, hole["offset"]])
        at = hole["offset"] + hole["length"]
    return ranges[::-1]


def take(ranges, length):
    """Offset of the next chunk, which has to lie in one range."""
    start, end = ranges[-1] if ranges else (0, 0)
    if start + length > end:
        fail(f"file: the chunk at {start} crosses a hole or the end")
    ranges[-1][0] += length
    if start + length == end:
        ranges.pop()
    return start


def read_table(depth, table):
    """Entries (id, bytes) of a chunk table."""
    width = 36 if depth == 0 else 40
    if depth > DEPTH_MAX:
        raise Refused("table", f"a chunk table of depth {depth}")
    if len(table) % width:
        raise Refused("table", f"a chunk table of {len(table)} bytes")
    entries = []
    for at in range(0, len(table), width):
        length = int.from_bytes(table[at + 32 : at + width], "little")
        if length == 0 or (depth == 0 and length > BLOB_LEN_MAX):
            raise Refused("table", f"a chunk table entry of {length} bytes")
        entries.append((table[at : at + 32], length))
    return entries


def read_snapshot(data):
    record = read(SNAPSHOT, data, "snapshot")
    check_time(record["time"])
    provenance = record["provenance"]
    if provenance is not None and provenance["consistency"] not in CONSISTENCIES:
        fail(f"no such consistency: {provenance['consistency']!r}")
    return record
