"""A repository directory: opening it, reading its log from the beginning, finding blobs (03, 05, 07)."""

import os
import pathlib

import objects
import records
import sealing
from refusal import Refused

OBJECT_LEN_MAX = 72 << 20
HEX = set("0123456789abcdef")


def is_id(name):
    return len(name) == 64 and set(name) <= HEX


class Repository:
    def __init__(self, path, password, report):
        """Opens the repository at `path`; `report` is called with what is worth knowing and no reason to stop."""
        self.path, self.report = pathlib.Path(path), report
        self.config_bytes = self.read("config", 64 << 10)
        self.config = objects.read_config(self.config_bytes)
        keyslot, slot = self.unlock(password)
        if "root" not in slot:
            raise Refused("append-only", f"keyslot {keyslot.hex()} is append-only: it opens no contents")
        self.keys = sealing.Keys(slot["root"], self.config["repository"])
        self.log = Log(self)
        if keyslot not in self.log.keyslots:
            report(f"keyslot {keyslot.hex()} opens, but the log does not know it or has removed it")

    def read(self, name, limit):
        """A whole object of at most `limit` bytes."""
        path = self.path / name
        try:
            with open(path, "rb") as file:
                data = file.read() if os.fstat(file.fileno()).st_size <= limit else None
        except FileNotFoundError:
            raise Refused("missing", f"{path}: no such object") from None
        if data is None:
            raise Refused("length", f"{path} is longer than the {limit} bytes such an object can have")
        return data

    def names(self, folder):
        path = self.path / folder
        return sorted(os.listdir(path)) if path.is_dir() else []

    def unlock(self, password):
        reasons = []
        for name in self.names("keys"):
            try:
                data = self.read(f"keys/{name}", 1024)
                if not is_id(name) or sealing.hash_of(data).hex() != name:
                    raise Refused("header", "its name is not the hash of its bytes")
                return bytes.fromhex(name), objects.open_keyslot(data, self.config["repository"], password)
            except Refused as refused:
                reasons.append(f"keys/{name}: {refused}")
        raise Refused("wrong-password", "no keyslot opens: " + ("; ".join(reasons) or "there is none"))

    def snapshot(self, wanted):
        """Id and record of the snapshot that `wanted` (an id prefix or "latest") means."""
        snapshots = self.log.snapshots
        if wanted == "latest":
            # Of several that one commit has added, that with the latest time. Repaired and copied ones stand elsewhere: this takes no account of that.
            last = max((added for added, *_ in snapshots.values()), default=0)
            of_last = [id for id in snapshots if snapshots[id][0] == last]
            found = sorted(of_last, key=lambda id: records.read_snapshot(snapshots[id][1])["time"])[-1:]
        else:
            found = [id for id in snapshots if id.hex().startswith(wanted)]
        if len(found) != 1:
            raise Refused("snapshot", f"{wanted!r} matches {len(found)} of {len(snapshots)} snapshots")
        data = snapshots[found[0]][1]
        if self.keys.blob_id(2, data) != found[0]:
            raise Refused("blob-id", f"the record of snapshot {found[0].hex()} is not the blob of that id")
        return found[0], records.read_snapshot(data)


class Log:
    """The fold of all commits, and a line about each entry."""

    def __init__(self, repository):
        self.repository = repository
        self.keyslots, self.snapshots, self.segments, self.condemned = {}, {}, {}, {}
        self.appended, self.ledger = {}, None
        self.lines, self.void = [], []
        self.previous = sealing.hash_of(repository.config_bytes)
        for seq in range(1, self.last() + 1):
            self.entry(seq)
        if not self.lines:
            raise Refused("log", "the log has no entries: the repository was not set up to the end")

    def last(self):
        names = self.repository.names("log")
        for name in names:
            if len(name) != 20 or not set(name) <= HEX - set("abcdef"):
                self.repository.report(f"log/{name}: not the name of a commit")
        return max((int(n) for n in names if len(n) == 20 and set(n) <= set("0123456789")), default=0)

    def damage(self, seq, why):
        raise Refused("log", f"the log is damaged at number {seq}: {why}")

    def entry(self, seq):
        try:
            data = self.repository.read(f"log/{seq:020}", OBJECT_LEN_MAX)
        except Refused as refused:
            self.damage(seq, refused)
        before, self.previous = self.previous, sealing.hash_of(data)
        commit = signed = None
        self.stop_if_not_understood(seq, data)
        try:
            signed = objects.open_signed(self.repository.keys, data)
        except Refused as refused:
            return self.pass_over(seq, refused)
        writers = [writer for writer, _, _ in self.keyslots.values()]
        full = [writer for writer, _, append_only in self.keyslots.values() if not append_only]
        try:
            commit = objects.read_commit(signed, seq)
        except Refused as refused:
            if refused.failure == "sequence" or (seq > 1 and signed["writer"] not in full):
                return self.pass_over(seq, refused)
            raise Refused("not-understood", f"commit {seq} is signed, but not understood: {refused}") from None
        if commit["previous"] != before:
            self.damage(seq, f"it names {commit['previous'].hex()} before it, but that is {before.hex()}")
        added = [content["writer"] for name, content in commit["changes"] if name == "keyslot_added"]
        if signed["writer"] not in (added if seq == 1 else writers):
            return self.pass_over(seq, f"writer {signed['writer'].hex()} may not write")
        before = [dict(fold) for fold in self.folds()], self.ledger
        appender = signed["writer"] if seq > 1 and signed["writer"] not in full else None
        try:
            for name, content in commit["changes"]:
                if appender is not None:
                    self.check_addition(name, content)
                self.apply(seq, name, content, appender)
        except Refused as refused:
            (self.keyslots, self.snapshots, self.segments, self.condemned, self.appended), self.ledger = before
            return self.pass_over(seq, refused)
        self.lines.append((seq, signed["writer"], commit))

    def folds(self):
        return self.keyslots, self.snapshots, self.segments, self.condemned, self.appended

    def stop_if_not_understood(self, seq, data):
        if len(data) < sealing.HEADER_LEN:
            return
        ours = data[:6] == sealing.MAGIC[:6] and data[7:8] == sealing.MAGIC[7:]
        later = ours and data[6:7] != sealing.MAGIC[6:7]
        other = data[:8] == sealing.MAGIC and data[8:9] == bytes([sealing.COMMIT]) and any(data[9:16])
        if later or other:
            raise Refused("not-understood", f"commit {seq} is of a later version: a newer program is needed")

    def pass_over(self, seq, why):
        if seq == 1:
            self.damage(seq, why)
        self.void.append(seq)
        self.repository.report(f"log entry {seq} is void: {why}")

    def check_addition(self, name, change):
        """Whether an appender may make this change (11-append-only.md)."""
        if name == "snapshot_added":
            record = records.read_snapshot(change["record"])
            if record["origin"] is not None:
                raise Refused("log", "an appender adds a copy of another repository's snapshot")
            if record["repaired"] is not None or self.repository.keys.blob_id(2, change["record"]) != change["snapshot"]:
                raise Refused("log", "an appender adds a repaired snapshot, or one with the record of another")
        elif name != "segments_replaced" or change["removed"]:
            raise Refused("log", f"{name} is more than an appender may do")

    def apply(self, seq, name, change, appender):
        def take_away(fold, id):
            if id not in fold:
                raise Refused("log", f"{name} of {id.hex()}, which is not there")
            del fold[id]

        if name in ("keyslot_added", "appender_added"):
            append_only = name == "appender_added"
            if change["keyslot"] in self.keyslots:
                raise Refused("log", f"{name} of {change['keyslot'].hex()}, which is there")
            if any(slot[0] == change["writer"] and slot[2] != append_only for slot in self.keyslots.values()):
                raise Refused("log", f"{name} of a writer in another capacity than it has")
            self.keyslots[change["keyslot"]] = (change["writer"], change["label"], append_only)
        elif name == "keyslot_removed":
            take_away(self.keyslots, change["keyslot"])
            if all(append_only for _, _, append_only in self.keyslots.values()):
                raise Refused("log", "the last keyslot that is not append-only is removed")
        elif name == "snapshot_added":
            self.snapshots.setdefault(change["snapshot"], (seq, change["record"], None))
        elif name == "snapshot_held":
            if change["snapshot"] not in self.snapshots:
                raise Refused("log", f"{name} of {change['snapshot'].hex()}, which is not there")
            self.snapshots[change["snapshot"]] = (*self.snapshots[change["snapshot"]][:2], change["reason"])
        elif name == "snapshot_released":
            if self.snapshots.get(change["snapshot"], (None,) * 3)[2] is None:
                raise Refused("log", f"{name} of {change['snapshot'].hex()}, which is not held")
            self.snapshots[change["snapshot"]] = (*self.snapshots[change["snapshot"]][:2], None)
        elif name == "segments_dropped":
            if any(segment in self.segments for segment in change["segments"]):
                raise Refused("log", f"{name} of a segment that is part of the index")
        elif name == "snapshot_forgotten":
            if self.snapshots.get(change["snapshot"], (None,) * 3)[2] is not None:
                raise Refused("log", f"{name} of {change['snapshot'].hex()}, which is held")
            take_away(self.snapshots, change["snapshot"])
        elif name == "segments_replaced":
            for segment in change["removed"]:
                take_away(self.segments, segment)
                self.appended.pop(segment, None)
            for segment in change["added"]:
                id = segment["segment"]
                if appender is None:
                    if self.appended.pop(id, None) is not None:
                        self.segments[id] = segment
                elif id not in self.segments:
                    self.appended[id] = appender
                self.segments.setdefault(id, segment)
        elif name == "ledger_replaced":
            if change["previous"] != self.ledger:
                raise Refused("log", f"{name} of another ledger than there is")
            self.ledger = change["ledger"]
        elif name == "parity_set":
            if change["overhead"] > 1000:
                raise Refused("log", f"{name} to more than 1000")
        elif name == "reserve_set":
            if change["bytes"] > 1 << 40:
                raise Refused("log", f"{name} to more than 2^40")
        elif name == "packs_condemned":
            for pack in change["packs"]:
                self.condemned.setdefault(pack, seq)
        elif name == "packs_rescued":
            for pack in change["packs"]:
                self.condemned.pop(pack, None)
        elif name == "packs_removed":
            for pack in change["packs"]:
                take_away(self.condemned, pack)


# Two ways to find a blob. Each yields (kind, pack id, header, place) for every copy it knows.


class ByPacks:
    """Reads the directory of every pack."""

    def __init__(self, repository):
        self.copies = {}
        for folder in repository.names("packs"):
            for name in repository.names(f"packs/{folder}"):
                try:
                    self.add(repository, folder, name)
                except Refused as refused:
                    repository.report(f"packs/{folder}/{name}: {refused}")

    def add(self, repository, folder, name):
        data = repository.read(f"packs/{folder}/{name}", objects.PACK_LEN_MAX)
        if not is_id(name) or name[:2] != folder or sealing.hash_of(data).hex() != name:
            raise Refused("blob-id", "its name is not the hash of its bytes")
        kind = data[8] if len(data) > 8 and data[8] in (5, 6) else sealing.DATA_PACK
        _, blobs = objects.open_pack(repository.keys, data, kind)
        for blob in blobs:
            copy = (blob["kind"], bytes.fromhex(name), data[: sealing.HEADER_LEN], blob)
            self.copies.setdefault(blob["id"], []).append(copy)

    def find(self, blob_id):
        return self.copies.get(blob_id, [])


class BySegments:
    """Searches the live segments."""

    def __init__(self, repository):
        self.repository, self.segments, self.appended = repository, [], []
        for id, info in repository.log.segments.items():
            if id not in repository.log.appended:
                self.segments.append(self.open(id, info))
                continue
            try:
                self.appended.append(self.open(id, info))
            except Refused as refused:
                repository.report(f"an appender's segment is not used: {refused}")

    def open(self, id, info):
        data = self.repository.read(f"index/{id.hex()}", 1 << 40)
        if sealing.hash_of(data) != id or len(data) != info["bytes"]:
            raise Refused("segment", f"index/{id.hex()} is not what its name or the log says")
        segment = objects.Segment(self.repository.keys, data)
        if segment.count != info["blobs"] or segment.pack_count != info["packs"]:
            raise Refused("segment", f"index/{id.hex()} has other counts than the log says")
        return segment

    def find(self, blob_id):
        found = [place for segment in self.segments for place in self.places(segment, blob_id)]
        if found:
            return found
        for segment in self.appended:
            try:
                found += self.places(segment, blob_id)
            except Refused as refused:
                self.repository.report(f"an appender's segment was passed over: {refused}")
        return found

    def places(self, segment, blob_id):
        packs = [(segment.pack(entry["pack"]), entry) for entry in segment.find(blob_id)]
        return [(None, pack["id"], pack["header"], entry) for pack, entry in packs]


class Blobs:
    """Blobs by id, each verified."""

    def __init__(self, repository, index):
        self.repository, self.index = repository, index
        self.last = (None, None)

    def get(self, kind, id, length=None):
        """The blob of this kind and id."""
        reasons = []
        for found_kind, pack, header, place in self.index.find(id):
            if found_kind not in (None, kind) or header[8] != (sealing.METADATA_PACK if kind else sealing.DATA_PACK):
                continue
            try:
                raw = self.block(pack, header, place)
                blob = raw[place["offset"] : place["offset"] + place["length"]]
                if self.repository.keys.blob_id(kind, blob) != id:
                    raise Refused("blob-id", "it reads as another blob")
            except Refused as refused:
                reasons.append(f"in pack {pack.hex()}: {refused}")
                continue
            if length not in (None, len(blob)):
                raise Refused("table", f"blob {id.hex()} has {len(blob)} bytes, expected {length}")
            for reason in reasons:
                self.repository.report(f"blob {id.hex()} {reason}; another copy was used")
            return blob
        raise Refused("missing", f"blob {id.hex()} is not there" + "".join(f"; {reason}" for reason in reasons))

    def block(self, pack, header, place):
        key = (pack, place["position"])
        if self.last[0] != key:
            name = pack.hex()
            path = self.repository.path / "packs" / name[:2] / name
            try:
                with open(path, "rb") as file:
                    file.seek(place["position"])
                    sealed = file.read(place["sealed_length"])
            except FileNotFoundError:
                raise Refused("missing", "the pack is not there") from None
            cipher = self.repository.keys.open_header(header, header[8])
            self.last = (key, objects.open_block(cipher, place, sealed))
        return self.last[1]
