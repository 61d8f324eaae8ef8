"""Evidence bundles: contents, signature and checks."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import struct
import subprocess
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from relay.errors import StoreError
from relay.reports.evidence import ask_evidence, bundle, check
from relay.reports.signed import ChainLink
from relay.service.businesses import change as change_business
from relay.service.businesses import set_state
from relay.service.filings import FilingWords, add_filing
from relay.store import bindings as store
from relay.store import groups, records
from relay.store.chain import Head
from relay.store.journal.rows import PUT, live_row
from relay.store.maintenance import purge_records
from relay.store.record_rows import insert
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import RELAY, UnitOfWork
from relay.store.writer import Writer
from tests.support import places
from tests.support.papers import PAPERS, apply
from tests.support.shelf import Shelf, call
from tests.support.stored import NOW_MS, A, B, X, Y, binding, live_record
from tests.support.stored import put as store_put

C, D, E = "8613700000003", "8613600000004", "8613500000005"
HOUR_MS = 3_600_000


def made(
    shelf: Shelf, writer: Writer, number: str = X, since_ms: int = NOW_MS, until_ms: int = NOW_MS + HOUR_MS
) -> bytes:
    asked = writer.run(RELAY, lambda unit: ask_evidence(unit, number, since_ms, until_ms, "case 42"))
    out = io.BytesIO()
    bundle(shelf.path, shelf.sealer, asked, out)
    return out.getvalue()


def files(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def lines(data: bytes, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in files(data)[name].splitlines()]


def packed(contents: dict[str, bytes]) -> io.BytesIO:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return out


def test_the_manifest_has_number_time_maker_and_reason(shelf: Shelf, writer: Writer) -> None:
    checked = check(io.BytesIO(made(shelf, writer)), shelf.sealer.public_key())
    assert checked.problems == []
    told = {
        name: getattr(checked.manifest, name) for name in ("number", "since", "until", "reason", "made_by", "made_at")
    }
    assert told == {
        "number": X,
        "since": "2026-01-01T00:00:00.000Z",
        "until": "2026-01-01T01:00:00.000Z",
        "reason": "case 42",
        "made_by": "relay",
        "made_at": "2026-01-01T00:00:00.000Z",
    }


@pytest.mark.parametrize("followed", [0, 2, 5])
def test_a_bundle_has_the_calls_of_the_time_with_their_links(shelf: Shelf, writer: Writer, followed: int) -> None:
    early = call(1, received_at=NOW_MS - 5_000, ended_at=NOW_MS + 1)
    shelf.add(
        call(0, received_at=NOW_MS - 9_000, ended_at=NOW_MS - 1),
        early,
        call(2, number_dialled=Y, number_shown=Y),
        call(3, number_dialled=Y, number_shown=X),
        call(4, received_at=NOW_MS + HOUR_MS, ended_at=NOW_MS + HOUR_MS),
    )
    shelf.follow(followed)
    up = live_record("up", received_at=NOW_MS + 9_000)
    insert(shelf.connection, PUT, [live_row(shelf.sealer, 1, up, b"dialogs")])
    data = made(shelf, writer)
    found = lines(data, "records.jsonl")
    assert [(one["chain_seq"], one["record"]["call_id"]) for one in found] == [(2, "c1"), (4, "c3"), (None, "up")]
    assert (found[0]["record"]["caller"], found[0]["record"]["received_at"]) == (A, "2025-12-31T23:59:55.000Z")
    hashes = dict(shelf.connection.execute("SELECT chain_seq, hex(chain_hash) FROM call_record"))
    assert [(one["follows"], one["chain_hash"]) for one in found[:2]] == [
        (hashes[seq - 1].lower(), hashes[seq].lower()) for seq in (2, 4)
    ]
    manifest = check(io.BytesIO(data)).manifest
    assert manifest is not None
    assert manifest.chain_head == ChainLink(5, hashes[5].lower())
    assert manifest.files["records.jsonl"].lines == 3


@pytest.mark.parametrize("store_kind", [places.FILE, places.SERVER], indirect=True)
def test_a_call_that_ends_while_a_bundle_is_made_is_not_taken_for_a_removed_one(
    shelf: Shelf, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head of the chain is read before its records."""
    link_before = records._link_before

    def add_and_read(*asked: Any) -> Head:
        shelf.add(call(2))
        return link_before(*asked)

    shelf.add(call(1))
    shelf.follow()
    monkeypatch.setattr(records, "_link_before", add_and_read)
    data = made(shelf, writer)
    assert check(io.BytesIO(data), shelf.sealer.public_key()).problems == []
    assert [one["record"]["call_id"] for one in lines(data, "records.jsonl")] == ["c1"]


def test_a_bundle_has_the_industrial_id(shelf: Shelf, writer: Writer) -> None:
    writer.run(RELAY, lambda unit: store.insert(unit, binding(industrial_id="88.101.1/7")))
    shelf.add(call(1, industrial_id="88.101.1/7"))
    data = made(shelf, writer)
    assert lines(data, "records.jsonl")[0]["record"]["industrial_id"] == "88.101.1/7"
    assert lines(data, "bindings.jsonl")[0]["binding"]["industrial_id"] == "88.101.1/7"


def test_the_first_record_behind_a_purge_follows_the_checkpoint(shelf: Shelf, writer: Writer) -> None:
    shelf.add(call(1), call(2), call(3))
    shelf.follow()
    writer.run(RELAY, lambda unit: purge_records(unit, NOW_MS + 2_000, 100))
    (seq, hash_) = shelf.connection.execute("SELECT seq, hex(hash) FROM checkpoint").fetchone()
    data = made(shelf, writer)
    assert lines(data, "records.jsonl")[0]["follows"] == hash_.lower()
    manifest = check(io.BytesIO(data)).manifest
    assert manifest is not None
    assert manifest.chain_purged_to == ChainLink(seq, hash_.lower())


@pytest.mark.parametrize(
    "deed",
    [
        "UPDATE call_record SET chain_hash = zeroblob(33) WHERE chain_seq = 2",
        "UPDATE call_record SET chain_hash = zeroblob(33) WHERE chain_seq = 1",
        "UPDATE call_record SET ended_at = ended_at + 1 WHERE chain_seq = 2",
        "DELETE FROM call_record WHERE chain_seq = 1",
        "DELETE FROM chain_head",
    ],
)
def test_a_broken_chain_gives_no_evidence(shelf: Shelf, writer: Writer, deed: str) -> None:
    shelf.add(call(1, number_dialled=Y, number_shown=Y), call(2))
    shelf.follow()
    shelf.connection.execute(deed)
    with pytest.raises(StoreError):
        made(shelf, writer)


def test_a_bundle_has_the_bindings_in_force_and_their_former_states(shelf: Shelf, writer: Writer) -> None:
    since, until = NOW_MS + 1_000, NOW_MS + 2_000
    now = binding("b1", created_at=NOW_MS - 9_000)
    others = (
        binding("over", created_at=NOW_MS - 9_000, ended_at=since),
        binding("expired", created_at=NOW_MS - 9_000, expires_at=since),
        binding("later", created_at=until),
        binding("ending", created_at=NOW_MS - 9_000, ended_at=since + 1),
        binding("elsewhere", x=Y),
    )

    def write(unit: UnitOfWork) -> None:
        for one in (now, *others):
            store.insert(unit, one)
        changed = now._replace(b=C, version=2, changed_at=unit.now_ms, changed_by="cli:test")
        store.keep_past(unit, now, changed)
        store.update(unit, changed)

    writer.run(RELAY, write)
    found = {one["binding"]["binding_id"]: one for one in lines(made(shelf, writer, X, since, until), "bindings.jsonl")}
    assert sorted(found) == ["b1", "ending"]
    assert (found["b1"]["binding"]["b"], found["b1"]["binding"]["changed_at"]) == (C, "2026-01-01T00:00:00.000Z")
    assert [(one["b"], one["version"]) for one in found["b1"]["before_each_change"]] == [(B, 1)]
    assert found["ending"]["before_each_change"] == []
    party = lines(made(shelf, writer, B, since, until), "bindings.jsonl")  # no longer a party of b1
    assert [one["binding"]["binding_id"] for one in party] == ["elsewhere", "ending"]


def test_a_bundle_has_the_members_of_groups_in_that_time(shelf: Shelf, writer: Writer) -> None:
    def write(unit: UnitOfWork) -> None:
        early, late = unit._replace(now_ms=NOW_MS - 9_000), unit._replace(now_ms=NOW_MS + 9_000)
        groups.insert_group(unit, groups.Group("g1", "default", "depot", 0, 1, NOW_MS - 9_000))
        gone, left, _ = groups.put_members(early, "g1", [C, D, A])
        groups.take_members(unit._replace(now_ms=NOW_MS - 1), "g1", [gone])
        groups.take_members(unit._replace(now_ms=NOW_MS + 1), "g1", [left])
        groups.put_members(late, "g1", [E])
        store.insert(unit, binding("b1", mode="GXB", a=None, group_id="g1", created_at=NOW_MS - 9_000))

    writer.run(RELAY, write)
    for party, bindings in {A: 1, D: 1, C: 0, E: 0}.items():
        assert len(lines(made(shelf, writer, party, NOW_MS, NOW_MS + 5_000), "bindings.jsonl")) == bindings
    (found,) = lines(made(shelf, writer, X, NOW_MS, NOW_MS + 5_000), "bindings.jsonl")
    members = {one["number"]: one["removed_at"] for one in found["groups"]["g1"]}
    assert members == {A: None, D: "2026-01-01T00:00:00.001Z"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("records.jsonl", "records.jsonl was changed"),
        ("bindings.jsonl", "bindings.jsonl was changed"),
        ("README.txt", "README.txt was changed"),
        ("manifest.json", "manifest.json was changed"),
        ("manifest.sig", "manifest.json was changed"),
        ("public_key.pem", "public_key.pem is not the key"),
    ],
)
def test_a_changed_file_is_reported(shelf: Shelf, writer: Writer, name: str, said: str) -> None:
    contents = files(made(shelf, writer))
    contents[name] = bytes(64) if name == "manifest.sig" else contents[name] + b"\n"
    (problem,) = check(packed(contents), shelf.sealer.public_key()).problems
    assert problem.startswith(said)


def test_added_and_removed_files_are_reported(shelf: Shelf, writer: Writer) -> None:
    contents = files(made(shelf, writer))
    assert check(packed(contents | {"more.jsonl": b""})).problems == ["more.jsonl was added"]
    del contents["records.jsonl"]
    assert check(packed(contents)).problems == ["records.jsonl is missing"]
    del contents["manifest.sig"]
    assert "damaged" in check(packed(contents)).problems[0]


def test_a_bundle_signed_with_another_key_is_reported(shelf: Shelf, writer: Writer) -> None:
    contents = files(made(shelf, writer))
    forger = Sealer(b"f" * 32)
    manifest = json.loads(contents["manifest.json"]) | {"reason": "forged", "public_key": forger.public_key().hex()}
    text = json.dumps(manifest).encode()
    forged = contents | {"manifest.json": text, "manifest.sig": forger.sign(text)}
    with zipfile.ZipFile(io.BytesIO(made(shelf, writer))) as archive:
        assert "public_key.pem" in archive.namelist()
    assert check(packed(forged), shelf.sealer.public_key()).problems == [
        "it was signed with another key",
        "public_key.pem is not the key that manifest.json names",
    ]


@pytest.mark.parametrize("data", [b"", b"PK", b"no archive", bytes(500)])
def test_a_file_that_is_not_a_bundle_is_reported(data: bytes) -> None:
    assert "not an evidence bundle" in check(io.BytesIO(data)).problems[0]


def test_a_bundle_that_unpacks_to_too_much_is_not_read(shelf: Shelf, writer: Writer) -> None:
    """2.9 MB could unpack to 5.7 GB."""
    contents = files(made(shelf, writer))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (contents | {"records.jsonl": bytes(40 << 20)}).items():
            archive.writestr(name, data)
    assert out.tell() < 100_000
    assert "it unpacks to more than a bundle may hold" in check(out).problems[0]
    said = out.getvalue().replace((40 << 20).to_bytes(4, "little"), (1 << 20).to_bytes(4, "little"))
    assert check(io.BytesIO(said)).problems != []  # also if it claims to be smaller


def test_a_bundle_of_too_many_files_or_unknown_packing_is_not_read(shelf: Shelf, writer: Writer) -> None:
    contents = files(made(shelf, writer))
    many = contents | {f"more{n}": b"" for n in range(11)}
    assert "it has 17 files, and a bundle has at most 16" in check(packed(many)).problems[0]
    long = contents | {"manifest.sig": bytes(65)}
    assert "manifest.sig is longer than 64 bytes" in check(packed(long)).problems[0]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("manifest.json", contents["manifest.json"])
    assert "its compression or encryption is not that of a bundle" in check(out).problems[0]


@pytest.mark.parametrize("manifest", [b"", b"[]", b"{}", b'"x"', b'{"format": "relay700-evidence/1"}'])
def test_a_malformed_manifest_is_reported(shelf: Shelf, writer: Writer, manifest: bytes) -> None:
    contents = files(made(shelf, writer)) | {"manifest.json": manifest}
    assert check(packed(contents)).problems != []


def shifted(data: bytes, by: int) -> bytes:
    """The archive with the end record of a directory that begins elsewhere."""
    place = data.rindex(b"PK\5\6") + 16
    (offset,) = struct.unpack_from("<I", data, place)
    return data[:place] + struct.pack("<I", offset + by) + data[place + 4 :]


def test_a_deeply_nested_manifest_is_reported() -> None:
    manifest = b'{"x":' + b"[" * 100_000
    assert "not an evidence bundle" in check(packed({"manifest.json": manifest})).problems[0]


@pytest.mark.parametrize("by", [1, 1 << 30, -1])
def test_a_shifted_directory_is_reported(shelf: Shelf, writer: Writer, tmp_path: Path, by: int) -> None:
    file = tmp_path / "evidence.zip"
    file.write_bytes(shifted(made(shelf, writer), by))
    assert "not an evidence bundle" in check(file).problems[0]


@pytest.mark.parametrize(("place", "value"), [(6, 99), (8, 0x20)], ids=["of a later version", "patched"])
def test_an_entry_that_zipfile_cannot_read_is_reported(place: int, value: int) -> None:
    data = packed({"manifest.json": b""}).getbuffer()
    data[bytes(data).rindex(b"PK\1\2") + place] = value  # APPNOTE 4.3.12
    assert "not an evidence bundle" in check(io.BytesIO(data)).problems[0]


def test_of_a_long_directory_no_entry_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes ten times its bytes in memory, whatever number the end record claims."""
    out = packed({f"more{n}": b"" for n in range(3_000)})
    entries = 0

    class Counted(zipfile.ZipInfo):
        def __init__(self, *arguments: Any) -> None:
            nonlocal entries
            entries += 1
            super().__init__(*arguments)

    monkeypatch.setattr(zipfile, "ZipInfo", Counted)
    assert "not an evidence bundle" in check(out).problems[0]
    assert entries == 0


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_a_bundle_is_checked_without_relay700(shelf: Shelf, writer: Writer, tmp_path: Path) -> None:
    """With the commands of its README."""
    shelf.add(call(1))
    contents = files(made(shelf, writer))
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    (command,) = (line for line in contents["README.txt"].decode().splitlines() if "openssl" in line)
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "manifest.json").write_bytes(contents["manifest.json"] + b" ")
    assert subprocess.run(command.split(), cwd=tmp_path, check=False, capture_output=True).returncode == 1
    told = json.loads(contents["manifest.json"])["files"]
    assert told["records.jsonl"]["sha256"] == hashlib.sha256(contents["records.jsonl"]).hexdigest()


def test_a_bundle_is_written_to_a_pipe(shelf: Shelf, writer: Writer) -> None:
    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.data += data
            return len(data)

    shelf.add(call(1))
    asked = writer.run(RELAY, lambda unit: ask_evidence(unit, X, NOW_MS, NOW_MS + HOUR_MS, "case 42"))
    pipe = Pipe()
    bundle(shelf.path, shelf.sealer, asked, pipe)  # type: ignore[arg-type]
    assert check(io.BytesIO(bytes(pipe.data)), shelf.sealer.public_key()).problems == []


# -- an attacker with the database, without the key


def filled(shelf: Shelf) -> None:
    """Six indexed calls of one binding."""
    store_put(shelf.path, shelf.sealer, binding("b1"))
    shelf.add(*(call(n) for n in range(1, 7)))
    shelf.follow()


def test_an_emptied_index_hides_no_call(shelf: Shelf, writer: Writer) -> None:
    filled(shelf)
    shelf.connection.execute("DELETE FROM record_index")
    shelf.connection.execute("UPDATE cursor SET at = 6")
    assert len(lines(made(shelf, writer), "records.jsonl")) == 6


@pytest.mark.parametrize(
    "deed",
    [
        "UPDATE call_record SET received_at = received_at + 90000000, ended_at = ended_at + 90000000",
        "UPDATE call_record SET number_dialled = '700100000019999', number_shown = NULL",
        "DELETE FROM binding",
        "DELETE FROM binding; DELETE FROM ledger WHERE table_name = 'binding'; DELETE FROM ledger_touch",
        "UPDATE binding SET a_hash = b_hash",
        "DELETE FROM binding_change; UPDATE binding SET created_at = 0",
        "UPDATE business SET licence = 'another'",
    ],
)
def test_a_store_that_does_not_verify_is_not_signed(shelf: Shelf, writer: Writer, deed: str) -> None:
    filled(shelf)
    made(shelf, writer)
    shelf.connection.execute("PRAGMA foreign_keys = OFF")
    shelf.connection.executescript(deed)
    with pytest.raises(StoreError):
        made(shelf, writer)


def test_the_readme_checks_each_record_without_a_key(shelf: Shelf, writer: Writer, tmp_path: Path) -> None:
    filled(shelf)
    data = made(shelf, writer)
    for name, content in files(data).items():
        (tmp_path / name).write_bytes(content)
    readme = (tmp_path / "README.txt").read_text()
    formula = readme[readme.index("python3 -c '") : readme.index("\n\nbindings.jsonl")]

    def said() -> list[str]:
        done = subprocess.run(["sh", "-c", formula], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert said() == [word for seq in range(1, 7) for word in (str(seq), "True")]
    records = (tmp_path / "records.jsonl").read_text()
    (tmp_path / "records.jsonl").write_text(records.replace('"call_id": "c3"', '"call_id": "c9"'))
    assert said()[4:6] == ["3", "False"]


def test_each_call_has_the_business_user_and_filings_of_its_time(shelf: Shelf, writer: Writer) -> None:
    """Regardless of later changes."""
    store_put(shelf.path, shelf.sealer, binding("b1"))

    def make(unit: UnitOfWork) -> None:
        apply(unit, "Acme", "acme", **PAPERS)
        set_state(unit, "acme", "approve", "papers seen")
        add_filing(unit, "acme", FilingWords(A, "carrier 17", "张三", document="11010519491231002X", photo="oss://1"))

    with closing(Writer(shelf.path, shelf.sealer, clock_ms=lambda: NOW_MS)) as early:
        early.run(RELAY, make)
    shelf.add(call(1, business="acme"), call(2))
    with closing(Writer(shelf.path, shelf.sealer, clock_ms=lambda: NOW_MS + HOUR_MS)) as late:
        late.run(RELAY, lambda unit: change_business(unit, "acme", reason="a new licence", licence="L-2"))
        late.run(
            RELAY,
            lambda unit: add_filing(
                unit, "acme", FilingWords(A, "carrier 18", "李四", document="AB1", document_type="passport")
            ),
        )
    first, second = lines(made(shelf, writer), "records.jsonl")
    told = first["business_user"]
    assert (told["name"], told["licence"], told["state"]) == ("Acme", PAPERS["licence"], "approved")
    assert told["approved_at"] == "2026-01-01T00:00:00.000Z"
    assert "contact" not in told
    (filing,) = first["filings"]
    assert (filing["number"], filing["reference"], filing["approved_at"]) == (
        A,
        "carrier 17",
        "2026-01-01T00:00:00.000Z",
    )
    assert (filing["holder"], filing["document"], filing["photo"]) == ("张三", "11010519491231002X", "oss://1")
    assert second["filings"] == []
