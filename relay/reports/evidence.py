"""Evidence for one number and time: a signed ZIP that can be checked without relay700.

    asked = writer.run(actor, lambda unit: ask_evidence(unit, number, since_ms, until_ms, reason))
    bundle(path, sealer, asked, out)

It holds the records of calls in that time, each with its verified link in the chain, and the bindings in force, with
their state before each change and the members of their groups. Real numbers are in clear. `manifest.json` lists each
file with its SHA-256; `manifest.sig` is its Ed25519 signature. `README.txt` says how to check the bundle with the
public key, which must come from elsewhere.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import msgspec
from msgspec import Struct

from relay.errors import StoreError
from relay.model.binding import Binding
from relay.model.call import CallRecord
from relay.privacy.records import Value
from relay.reports.disclosure import DisclosureRequest, ask, record_form, with_moments
from relay.reports.signed import (
    LONGEST,
    MANIFEST,
    PUBLIC_KEY,
    SIGNATURE,
    SIGNED,
    ChainLink,
    File,
    encode_pem,
    faults_of_signature,
    link_to,
)
from relay.service.fields import format_moment
from relay.store.audit import read_checkpoint
from relay.store.bindings import bindings_of, history
from relay.store.businesses import Qualification, qualification_at
from relay.store.chain import RECORDS, Head, read_head
from relay.store.connection import Connection, Place, one_moment
from relay.store.database import reading
from relay.store.filings import Documents, FilingRow, filing_at
from relay.store.groups import members_between
from relay.store.ledger_check import ledger_faults
from relay.store.record_rows import StoredRecord
from relay.store.records import LONGEST_CALL_MS, RecordFilter, ended_between, live_calls
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import UnitOfWork

README = "README.txt"
# Limits for an untrusted bundle. Records and bindings deflate to a tenth, rarely to a fiftieth; zeroes to a thousandth.
MOST_FILES = 16
MOST_BYTES = 1 << 32  # of all files, unpacked
MOST_RATIO = 100  # unpacked bytes per byte of the bundle, beyond FREE_BYTES
FREE_BYTES = 16 << 20
_PART = 1 << 16
_LONGEST_READ = 1 << 17  # bytes: of a part of a file, and of the directory, which has at most 2,849 entries then
# Besides what it documents, zipfile raises OSError for a place before the file, and NotImplementedError for a later
# version or a patch; msgspec raises RecursionError for deeply nested JSON.
_UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, OSError, NotImplementedError),
    *(msgspec.MsgspecError, RecursionError),
)
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1
_GOES_BY = (
    *("business", "business_change", "binding", "binding_change", "past_party"),
    *("party_group", "group_member", "past_member", "recording", "checkpoint", "filing", "filing_change"),
)
_README = f"""How to check that this bundle was not changed. With OpenSSL 3 and the files of this archive:

    openssl pkeyutl -verify -pubin -inkey {PUBLIC_KEY} -rawin -in {MANIFEST} -sigfile {SIGNATURE}
    sha256sum *.jsonl {README}      and compare with {MANIFEST}

{PUBLIC_KEY} must be the key that the platform's operator gave you out of band: compare the two.
`relay700 evidence check FILE` does all of this where the operator's key file is.

records.jsonl   the calls, one JSON object per line. chain_seq and chain_hash are the record's place in the chain of all
                records, follows is the hash of its predecessor. A live call has no place yet. Both hashes are keyed:
                they were checked before this was signed, and `relay700 verify` checks them again. business_user is
                the business user as it was at the time of the call, filings are the numbers of the call that it had
                filed by then, with their holders. sha256 is the hash of the record itself and needs no key. For each
                line of records.jsonl this prints its place, and True:

python3 -c 'import hashlib, json
for line in open("records.jsonl", encoding="utf-8"):
    told = json.loads(line)
    text = json.dumps(told["record"], ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    print(told["chain_seq"], hashlib.sha256(text.encode()).hexdigest() == told["sha256"])'

bindings.jsonl  the bindings of the number to parties, as they are now and before each change.
Times are UTC. Numbers are in E.164 without "+"; 700 numbers have their 15 digits.
"""


class EvidenceManifest(Struct, frozen=True, kw_only=True):
    """Manifest of a bundle. Times are RFC 3339 in UTC, the public key is hexadecimal."""

    format: Literal["relay700-evidence/1"] = "relay700-evidence/1"
    number: str
    since: str
    until: str
    reason: str
    made_by: str
    made_at: str
    chain_purged_to: ChainLink | None
    chain_head: ChainLink | None
    public_key: str
    files: dict[str, File]


class EvidenceCheck(NamedTuple):
    """The manifest of a bundle, None if it cannot be read, and all faults: none if the bundle is good."""

    manifest: EvidenceManifest | None
    problems: list[str]


def ask_evidence(unit: UnitOfWork, number: str, since_ms: int, until_ms: int, reason: str) -> DisclosureRequest:
    """Request evidence. `number`: a 700 number or a party, normalised; `until_ms` is not included. Raises Refused."""
    return ask(unit, "evidence", number, since_ms, until_ms, reason)


def bundle(path: Place, sealer: Sealer, asked: DisclosureRequest, out: IO[bytes]) -> EvidenceManifest:
    """Write the bundle and return its manifest. Opens its own connection, so that it can run in a thread.

    It reads the chain of records and no index. Raises StoreError if anything it relies on does not verify.
    """
    with reading(path) as connection, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        require_whole(connection, sealer)
        contents: dict[str, Iterable[str]] = {
            "records.jsonl": _record_lines(connection, sealer, asked),
            "bindings.jsonl": _binding_lines(connection, sealer, asked),
            README: _README.splitlines(keepends=True),
        }
        files = {name: _write(archive, name, lines) for name, lines in contents.items()}
        manifest = _manifest(connection, sealer, asked, files)
        text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
        archive.writestr(MANIFEST, text)
        archive.writestr(SIGNATURE, sealer.sign(text))
        archive.writestr(PUBLIC_KEY, encode_pem(sealer.public_key()))
    return manifest


def check(file: Path | IO[bytes], *public_keys: bytes) -> EvidenceCheck:
    """Check a bundle against its signature, and with `public_keys` (32 bytes each) also its signer.

    Without a key from elsewhere only accidents show: a forger can sign a changed bundle anew. Reading stops at the
    limits of a bundle's size.
    """
    try:
        with file.open("rb") if isinstance(file, Path) else nullcontext(file) as source:
            size = source.seek(0, io.SEEK_END)
            with zipfile.ZipFile(_ShortReads(source)) as archive:
                return _check(_BundleReader(archive, size), public_keys)
    except _UNREADABLE as error:
        return EvidenceCheck(None, [f"not an evidence bundle, or damaged: {error}"])


class _ShortReads:
    """A bundle's file. Raises ValueError for a long read: zipfile reads a directory, and makes its entries, at once."""

    def __init__(self, file: IO[bytes]) -> None:
        self._read = file.read
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        if size > _LONGEST_READ:
            raise ValueError(f"its directory is longer than {_LONGEST_READ} bytes")
        return self._read(size)


class _BundleReader:
    """Reader of an untrusted bundle, within the limits of a bundle's size. Raises ValueError beyond them."""

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        """`size`: of the bundle, in bytes."""
        members = archive.infolist()
        if len(members) > MOST_FILES:
            raise ValueError(f"it has {len(members)} files, and a bundle has at most {MOST_FILES}")
        if any(member.compress_type not in _PACKED or member.flag_bits & _ENCRYPTED for member in members):
            raise ValueError("its compression or encryption is not that of a bundle")
        self._archive = archive
        self._left = min(MOST_BYTES, MOST_RATIO * size + FREE_BYTES)
        self._take(0, sum(member.file_size for member in members))  # the sizes it claims; then those it has
        self.names = archive.namelist()

    def parts(self, name: str) -> Iterator[bytes]:
        with self._archive.open(name) as member:
            while part := member.read(_PART):
                self._take(len(part))
                yield part

    def read(self, name: str) -> bytes:
        """Return a small file as a whole."""
        data = b""
        for part in self.parts(name):
            data += part
            if len(data) > LONGEST[name]:
                raise ValueError(f"{name} is longer than {LONGEST[name]} bytes")
        return data

    def _take(self, size: int, said: int = 0) -> None:
        self._left -= size
        if self._left < said:
            raise ValueError("it unpacks to more than a bundle may hold")


def _check(archive: _BundleReader, public_keys: Sequence[bytes]) -> EvidenceCheck:
    text = archive.read(MANIFEST)
    manifest = msgspec.json.decode(text, type=EvidenceManifest)
    key = bytes.fromhex(manifest.public_key)
    problems = list(faults_of_signature(key, text, archive.read(SIGNATURE), archive.read(PUBLIC_KEY), public_keys))
    return EvidenceCheck(manifest, problems + list(_faults_of_files(archive, manifest.files)))


def _faults_of_files(archive: _BundleReader, files: dict[str, File]) -> Iterator[str]:
    names = archive.names
    for name in sorted(set(names) - {*files, *SIGNED}):
        yield f"{name} was added"
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{name} is there twice"
    for name, told in files.items():
        if name not in names:
            yield f"{name} is missing"
        else:
            digest = hashlib.sha256()
            for part in archive.parts(name):
                digest.update(part)
            if digest.hexdigest() != told.sha256:
                yield f"{name} was changed"


def require_whole(connection: Connection, sealer: Sealer, tables: Iterable[str] = _GOES_BY) -> None:
    """Raises StoreError if a row of these tables was changed, added, removed or put back outside relay700."""
    with one_moment(connection):
        faults = [str(fault) for fault in itertools.islice(ledger_faults(connection, sealer, tables), 3)]
    if faults:
        raise StoreError(f"not signed, since the store does not verify: {'; '.join(faults)}")


def _manifest(
    connection: Connection, sealer: Sealer, asked: DisclosureRequest, files: dict[str, File]
) -> EvidenceManifest:
    return EvidenceManifest(
        number=asked.number,
        since=format_moment(asked.since_ms),
        until=format_moment(asked.until_ms),
        reason=asked.reason,
        made_by=asked.by,
        made_at=format_moment(asked.at_ms),
        chain_purged_to=link_to(read_checkpoint(connection, sealer, RECORDS)),
        chain_head=link_to(read_head(connection, sealer, RECORDS)),
        public_key=sealer.public_key().hex(),
        files=files,
    )


def _write(archive: zipfile.ZipFile, name: str, lines: Iterable[str]) -> File:
    digest = hashlib.sha256()
    count = 0
    with archive.open(name, "w", force_zip64=True) as member:
        for line in lines:
            data = line.encode()
            digest.update(data)
            member.write(data)
            count += 1
    return File(digest.hexdigest(), count)


def _record_lines(connection: Connection, sealer: Sealer, asked: DisclosureRequest) -> Iterator[str]:
    wanted = RecordFilter(number=asked.number, since_ms=asked.since_ms - LONGEST_CALL_MS, until_ms=asked.until_ms)
    # Live calls first: a call that ends meanwhile is then found twice rather than never.
    up = [record for record in live_calls(connection, sealer) if wanted.fits(record)]
    read = ended_between(connection, sealer, asked.since_ms, asked.until_ms + LONGEST_CALL_MS)
    ended = [(before, stored) for before, stored in read if wanted.fits(stored.record)]
    for before, stored in sorted(ended, key=lambda pair: (pair[1].record.received_at, pair[1].chain_seq)):
        standing = _standing(connection, sealer, stored.record)
        yield record_line(stored.record, link_form(before, stored) | standing)
    over = {stored.record.call_id for _, stored in ended}
    for record in sorted(up, key=lambda record: record.received_at):
        if record.call_id not in over:
            link = dict.fromkeys(("chain_seq", "chain_hash", "follows"))
            yield record_line(record, link | _standing(connection, sealer, record))


def _standing(connection: Connection, sealer: Sealer, record: CallRecord) -> dict[str, Any]:
    """The business user at the time of a call, with its licence, and the numbers of the call that it had filed."""
    if record.business is None:
        return {"business_user": None, "filings": []}
    at_ms = record.received_at
    found = qualification_at(connection, sealer, record.business, at_ms)
    filings = [
        filing_at(connection, sealer, record.business, number, at_ms)
        for number in (record.caller, record.callee)
        if number
    ]
    return {
        "business_user": None if found is None else _business_form(found),
        "filings": [_filing_form(filing) for filing in filings if filing is not None and filing.was_in_force(at_ms)],
    }


def _business_form(found: Qualification) -> dict[str, Any]:
    """The qualification without the contact, which is a person and a phone."""
    terms, approval = found.terms._asdict(), found.approval
    del terms["contact"]
    values: dict[str, Value] = {"id": found.business, "state": found.state, "qualification": found.version, **terms}
    values |= {"approved_at": approval and approval.at, "approved_by": approval and approval.by}
    return with_moments(values, ("approved_at",)) | {"papers": list(approval.papers) if approval else []}


def _filing_form(filing: FilingRow) -> dict[str, Any]:
    values: dict[str, Value] = {"number": filing.number, "reference": filing.reference, "filed_at": filing.filed_at}
    values |= {"approved_at": filing.answered_at, "expires_at": filing.expires_at}
    values |= dict.fromkeys(Documents._fields) if filing.documents is None else filing.documents._asdict()
    return with_moments(values, ("filed_at", "approved_at", "expires_at"))


def link_form(before: Head, stored: StoredRecord) -> dict[str, Any]:
    """The place of a record in the chain, as JSON fields."""
    return {"chain_seq": stored.chain_seq, "chain_hash": stored.chain_hash.hex(), "follows": before.hash.hex()}


def record_line(record: CallRecord, link: dict[str, Any]) -> str:
    """A record in clear, with its place in the chain, as a line of JSON."""
    form = with_moments(record_form(record, reveal=True))
    return _line(link | {"sha256": hash_of_form(form), "record": form})


def hash_of_form(form: dict[str, Any]) -> str:
    """SHA-256 of a record, as described in the README."""
    plain = json.dumps(form, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(plain.encode()).hexdigest()


def _binding_lines(connection: Connection, sealer: Sealer, asked: DisclosureRequest) -> Iterator[str]:
    for binding in bindings_of(connection, sealer, asked.number):
        before = history(connection, sealer, binding.binding_id)
        then = _forms_then(before, binding, asked)
        groups = sorted({form.group_id for form in then if form.group_id is not None})
        members = {group: _members(connection, sealer, group, asked) for group in groups}
        if _concerns(asked.number, then, members):
            forms = {"binding": _binding_form(binding), "before_each_change": [_binding_form(form) for form in before]}
            yield _line(forms | {"groups": members})


def _forms_then(before: list[Binding], now: Binding, asked: DisclosureRequest) -> list[Binding]:
    """The states of a binding in that time, in order of its changes; none where it was not in force."""
    ends = [moment for moment in (now.ended_at, now.expires_at) if moment is not None]
    until_ms = min(ends, default=asked.until_ms)
    forms = [*before, now]
    starts = [form.created_at if form.changed_at is None else form.changed_at for form in forms]
    return [
        form
        for form, start, end in zip(forms, starts, [*starts[1:], until_ms], strict=True)
        if start < asked.until_ms and min(end, until_ms) > asked.since_ms
    ]


def _concerns(number: str, forms: list[Binding], members: dict[str, list[dict[str, Any]]]) -> bool:
    parts = {part for form in forms for part in (form.x, form.y, form.a, form.b)}
    return number in parts | {member["number"] for group in members.values() for member in group}


def _members(connection: Connection, sealer: Sealer, group: str, asked: DisclosureRequest) -> list[dict[str, Any]]:
    members = members_between(connection, sealer, group, asked.since_ms, asked.until_ms)
    return [with_moments(member._asdict(), ("added_at", "removed_at")) for member in members]


def _binding_form(binding: Binding) -> dict[str, Any]:
    values = binding._asdict()
    return with_moments(values, [name for name in values if name.endswith("_at")])


def _line(values: dict[str, Any]) -> str:
    return f"{json.dumps(values, ensure_ascii=False)}\n"
