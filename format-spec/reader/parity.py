"""Parity sidecars (10 of the specification): what they say, how they are made, and what they make good."""

from functools import cache

from blake3 import blake3

import sealing
from refusal import Refused

HEAD_LEN, CHECK_LEN, KIND = 96, 8, 9
COVERED_MAX, ORIGINALS_MAX = 1 << 30, 32_768
NAME_CONTEXT = "strongroom v1 parity of a named object"
BASIS = [
    0x0001, 0xACCA, 0x3C0E, 0x163E, 0xC582, 0xED2E, 0x914C, 0x4012,
    0x6C98, 0x10D8, 0x6A72, 0xB900, 0xFDB8, 0xFB34, 0xFF38, 0x991E,
]  # fmt: skip


def name_of(key):
    return blake3(key.encode("ascii"), derive_key_context=NAME_CONTEXT).digest()


def number(data, at, size=4):
    return int.from_bytes(data[at : at + size], "little")


def shape_for(length, overhead):
    """Shard length and number of recovery shards that a writer chooses."""
    if length <= 128 << 10:
        shard = 64
        while shard * 32 < length:
            shard *= 2
    else:
        shard = -(-(-(-length // 32_768)) // 4096) * 4096
    originals = -(-length // shard)
    return shard, min(originals, max(-(-originals * overhead // 1000), -(-4096 // shard)))


def read_head(data):
    if len(data) < HEAD_LEN:
        raise Refused("header", f"{len(data)} bytes are no sidecar")
    data = data[:HEAD_LEN]
    if sealing.hash_of(data[:64]) != data[64:]:
        raise Refused("parity", "the head is damaged")
    sealing.check_magic(data)
    if data[8] != KIND or any(data[9:12]) or any(data[28:32]):
        raise Refused("header", "not a sidecar of this version")
    shard, covered, recovery = number(data, 12), number(data, 16, 8), number(data, 24)
    if not 1 <= covered <= COVERED_MAX or shard == 0 or shard % 64 or shard > -(-covered // 64) * 64:
        raise Refused("parity", "impossible lengths")
    originals = -(-covered // shard)
    if originals > ORIGINALS_MAX or not 1 <= recovery <= originals:
        raise Refused("parity", "impossible counts")
    return {"covered": covered, "shard": shard, "originals": originals, "recovery": recovery, "object": data[32:64]}


class Sidecar:
    def __init__(self, data):
        start = 0
        try:
            self.head = read_head(data)
        except Refused:
            if len(data) < HEAD_LEN:
                raise
            try:
                self.head = read_head(data[-HEAD_LEN:])
            except Refused:
                self.head = None
            if self.head is None or self.length() > len(data):
                read_head(data)
            start = len(data) - self.length()
        self.data = data[start:]

    def table_length(self):
        return CHECK_LEN * (self.head["originals"] + self.head["recovery"])

    def length(self):
        return 2 * (HEAD_LEN + self.table_length()) + self.head["recovery"] * self.head["shard"]

    def is_listed(self, place, shard):
        check = sealing.hash_of(shard)[:CHECK_LEN]
        second = HEAD_LEN + self.table_length() + self.head["recovery"] * self.head["shard"]
        places = (table + place * CHECK_LEN for table in (HEAD_LEN, second))
        return any(self.data[at : at + CHECK_LEN] == check for at in places)

    def good_recovery(self):
        """Recovery shards that are good, by number."""
        first, size, good = HEAD_LEN + self.table_length(), self.head["shard"], {}
        for j in range(self.head["recovery"]):
            shard = self.data[first + j * size : first + (j + 1) * size]
            if len(shard) == size and self.is_listed(self.head["originals"] + j, shard):
                good[j] = shard
        return good

    def good_originals(self, stored):
        size, covered, good = self.head["shard"], self.head["covered"], {}
        for i in range(self.head["originals"]):
            shard = stored[i * size : min((i + 1) * size, covered)]
            padded = shard.ljust(size, b"\0")
            if len(shard) == min(size, covered - i * size) and self.is_listed(i, padded):
                good[i] = padded
        return good


# The field


@cache
def element(n):
    found = 0
    for bit in range(16):
        if n >> bit & 1:
            found ^= BASIS[bit]
    return found


@cache
def tables():
    """Logarithms of elements, and what they are logarithms of, to the base x."""
    powers, logs, value = [], {}, 1
    for exponent in range(65_535):
        powers.append(value)
        logs[value] = exponent
        value <<= 1
        if value >> 16:
            value ^= 0x1002D
    numbers = {element(n): n for n in range(1 << 16)}
    return powers, logs, numbers


def multiply(a, b, divisor=1):
    """a · b / divisor."""
    if a == 0 or b == 0:
        return 0
    powers, logs, numbers = tables()
    exponent = logs[element(a)] + logs[element(b)] - logs[element(divisor)]
    return numbers[powers[exponent % 65_535]]


def weight(j, i, recovery):
    """What original shard i counts for in recovery shard j."""
    m = 1
    while m < recovery:
        m *= 2
    p, product = m + i, 1
    first = p - p % m
    for q in range(first, first + m):
        if q != p:
            product = multiply(product, j ^ q, p ^ q)
    return product


def symbols(shard):
    return [group[k] | group[32 + k] << 8 for group in groups(shard) for k in range(32)]


def groups(shard):
    return (shard[at : at + 64] for at in range(0, len(shard), 64))


def from_symbols(values):
    parts = []
    for at in range(0, len(values), 32):
        part = values[at : at + 32]
        parts.append(bytes(value & 255 for value in part) + bytes(value >> 8 for value in part))
    return b"".join(parts)


def add(total, factor, values):
    return [one ^ multiply(factor, other) for one, other in zip(total, values)]


def encode(data, overhead):
    """The sidecar of an object, as a writer makes it."""
    size, recovery = shape_for(len(data), overhead)
    shards = [data[at : at + size].ljust(size, b"\0") for at in range(0, len(data), size)]
    originals, made = [symbols(shard) for shard in shards], []
    for j in range(recovery):
        total = [0] * (size // 2)
        for i, values in enumerate(originals):
            total = add(total, weight(j, i, recovery), values)
        made.append(from_symbols(total))
    head = b"SROOMv1\n" + bytes([KIND, 0, 0, 0]) + size.to_bytes(4, "little") + len(data).to_bytes(8, "little")
    head += recovery.to_bytes(4, "little") + bytes(4) + sealing.hash_of(data)
    head += sealing.hash_of(head)
    table = b"".join(sealing.hash_of(shard)[:CHECK_LEN] for shard in shards + made)
    return head + table + b"".join(made) + table + head


def repair(sidecar, stored):
    """The object that the sidecar covers, from what is stored of it."""
    head, good, usable = sidecar.head, sidecar.good_originals(stored), sidecar.good_recovery()
    lost = [i for i in range(head["originals"]) if i not in good]
    if len(lost) > len(usable):
        raise Refused("parity", f"{len(lost)} shards are lost, and {len(usable)} can be made good")
    # Each recovery shard less what is known of it is a sum over the lost ones.
    rows = []
    for j in sorted(usable)[: len(lost)]:
        rest = symbols(usable[j])
        for i, shard in good.items():
            rest = add(rest, weight(j, i, head["recovery"]), symbols(shard))
        rows.append(([weight(j, i, head["recovery"]) for i in lost], rest))
    for column in range(len(lost)):
        pivot = next(at for at in range(column, len(rows)) if rows[at][0][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        factors, rest = rows[column]
        unit = multiply(1, 1, factors[column])
        rows[column] = add([0] * len(factors), unit, factors), add([0] * len(rest), unit, rest)
        for at in range(len(rows)):
            if at != column:
                factor = rows[at][0][column]
                rows[at] = add(rows[at][0], factor, rows[column][0]), add(rows[at][1], factor, rows[column][1])
    for i, (_, values) in zip(lost, rows):
        good[i] = from_symbols(values)
    whole = b"".join(good[i] for i in range(head["originals"]))[: head["covered"]]
    if sealing.hash_of(whole) != head["object"]:
        raise Refused("parity", "what the sidecar gives is not its object")
    return whole
