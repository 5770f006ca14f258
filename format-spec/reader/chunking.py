"""Cut points and the splitting of long lists (08-chunking.md)."""

import sealing

GRAINS = {
    "page": (16 << 10, 16 << 10, 16 << 10),
    "fine": (4 << 10, 16 << 10, 64 << 10),
    "medium": (16 << 10, 64 << 10, 256 << 10),
    "coarse": (256 << 10, 1 << 20, 2 << 20),
}
RULES = {"tree": (2048, 256, 512, 2048), "chunks": (64, 256, 512, 2048)}
WEIGHT_MAX = 4 << 20


def gear(chunker_key):
    return sealing.keyed(chunker_key, b"gear", 1024)


def high_bits(count):
    return (1 << 32) - (1 << (32 - count))


def cut(data, start, table, sizes):
    """Length of the chunk of `data` that begins at `start`."""
    least, average, most = sizes
    n = len(data) - start
    if n <= least:
        return n
    center = average
    if n > most:
        n = most
    elif n < center:
        center = n
    bits = average.bit_length() - 1
    value = 0
    for first, end, mask in (
        (least, center & ~1, high_bits(bits + 2)),
        (max(least, center & ~1), n & ~1, high_bits(bits - 2)),
    ):
        for i in range(first, end):
            value = (2 * value + table[data[start + i]]) & 0xFFFFFFFF
            if not value & mask:
                return i
    return n


def cut_all(data, chunker_key, grain):
    numbers = gear(chunker_key)
    table = [int.from_bytes(numbers[4 * i : 4 * i + 4], "little") for i in range(256)]
    lengths, at = [], 0
    while at < len(data):
        lengths.append(cut(data, at, table, GRAINS[grain]))
        at += lengths[-1]
    return lengths


def pieces(items, chunker_key, rule):
    """Lengths of the pieces that items (key, weight) are split into."""
    whole, least, one_in, most = RULES[rule]
    if len(items) <= whole and sum(weight for _, weight in items) <= WEIGHT_MAX:
        return [len(items)]
    lengths, length, total = [], 0, 0
    for key, weight in items:
        length, total = length + 1, total + weight
        ends = int.from_bytes(sealing.keyed(chunker_key, b"split" + key)[:4], "little") % one_in == 0
        if length >= most or total >= WEIGHT_MAX or (length >= least and ends):
            lengths.append(length)
            length, total = 0, 0
    return lengths + ([length] if length else [])
