"""An enormous log file gives the same records and rows piece by piece as whole, and the same errors."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from datetime import datetime
from io import BytesIO
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kyra_etl.cloudtrail import stream
from kyra_etl.cloudtrail.decode import Source, decode_files, decode_large
from kyra_etl.cloudtrail.framing import frame, inflate
from kyra_etl.errors import DecodeError

NOW = datetime(2026, 3, 10)
SOURCE = Source("acme", "k", "b")


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "BLOCK", 300)
        patch.setattr(stream, "_SLICE", 64)
        patch.setattr(stream, "_LONGEST", 20_000)
        yield


def piecewise(data: bytes, most: int = 10**9) -> list[bytes] | None:
    try:
        return [record for some in stream.records(stream.blocks(BytesIO(data), most)) for record in some]
    except stream.NotStreamable:
        return None


# Strings that look like the end of a record, and lists of objects that look like records.
SNARES = st.one_of(
    st.sampled_from(['},{"eventVersion":"1.11"', '"}]}', "\\", '\\"},{', "]}", "é\u2028", ""]),
    st.lists(st.fixed_dictionaries({"eventVersion": st.just("1.11"), "n": st.integers()}), max_size=4),
    st.lists(st.lists(st.dictionaries(st.text(max_size=2), st.none(), max_size=2), max_size=3), max_size=3),
    st.none(),
    st.integers(),
)
RECORDS = st.lists(
    st.builds(
        lambda snares, first: {first: "1.11", **{f"f{n}": snare for n, snare in enumerate(snares)}},
        st.lists(SNARES, max_size=6),
        st.sampled_from(["eventVersion", "eventVersion", "eventVersion", "other"]),
    ),
    max_size=40,
)


@settings(max_examples=150)
@given(RECORDS, st.sampled_from([None, 1]), st.booleans(), st.booleans())
def test_a_document_in_pieces_holds_the_records_of_the_whole(
    records: list[dict[str, Any]], indent: int | None, packed: bool, ascii_only: bool
) -> None:
    document = json.dumps({"Records": records}, indent=indent, ensure_ascii=ascii_only).encode()
    data = gzip.compress(document, mtime=0) if packed else document

    found = piecewise(data)

    assert found == frame(document) or (not records and found is None)


@settings(max_examples=100)
@given(RECORDS.filter(bool), st.integers(0, 4_000), st.sampled_from([b"", *map(bytes, zip(b'}],"{\\\xff'))]))
def test_a_damaged_document_is_never_taken_for_a_whole_one(
    records: list[dict[str, Any]], at: int, damage: bytes
) -> None:
    document = json.dumps({"Records": records}).encode()
    at %= len(document)
    damaged = document[:at] + damage + document[at + 1 :]

    found = None
    try:
        found = piecewise(damaged)
    except DecodeError as problem:
        with pytest.raises(DecodeError, match=str(problem)[:20]):
            frame(damaged)

    assert found is None or found == frame(damaged)


@pytest.mark.parametrize(
    "document",
    [
        '{"Records": [{"a": 1}], "more": 1}',
        '{"Records": [{"a": 1}], "Records": [{"b": 1}]}',
        '{"Records": [{"a": 1}]}{"Records": [{"b": 1}]}',
        '{"more": 1, "Records": [{"a": 1}]}',
        '{"Records": []}',
        '{"Records": [{"a": 1},]}',
        '[{"eventVersion": "1.11"}]',
        '{"eventVersion": "1.11"}\n{"eventVersion": "1.11"}',
        "",
    ],
)
def test_what_is_not_quite_the_envelope_is_read_whole(document: str) -> None:
    assert piecewise(document.encode()) is None


def test_a_notice_says_that_it_is_one() -> None:
    notice = json.dumps({"Records": [{"s3": {"object": {"key": "k" * 400}}}] * 3}).encode()

    with pytest.raises(DecodeError, match="notice"):
        piecewise(notice)


DOCUMENT = json.dumps({"Records": [{"eventVersion": "1.11", "n": n} for n in range(500)]}).encode()
PACKED = gzip.compress(DOCUMENT, mtime=0)


@pytest.mark.parametrize(
    "data",
    [
        PACKED[:-9],
        PACKED[: len(PACKED) // 2],
        PACKED[:40] + b"\0\0\0\0" + PACKED[44:],
        PACKED + b"junk",
        gzip.compress(DOCUMENT[:900], mtime=0) + PACKED[:7],
    ],
    ids=["no trailer", "half", "damaged", "followed by junk", "cut second member"],
)
def test_a_damaged_gzip_stream_ends_as_it_does_whole(data: bytes) -> None:
    with pytest.raises(DecodeError) as whole:
        inflate(data, 10**9)
    with pytest.raises(DecodeError) as pieces:
        for _ in stream.blocks(BytesIO(data), 10**9):
            pass

    assert pieces.value.reason == whole.value.reason == "corrupt_gzip"


@pytest.mark.parametrize("cut", [1, 900, len(DOCUMENT) - 1])
def test_every_member_of_a_gzip_file_is_read(cut: int) -> None:
    data = gzip.compress(DOCUMENT[:cut], mtime=0) + gzip.compress(DOCUMENT[cut:], mtime=0) + b"\0" * 70

    assert b"".join(stream.blocks(BytesIO(data), 10**9)) == DOCUMENT


def test_a_gzip_bomb_meets_the_ceiling() -> None:
    bomb = gzip.compress(b" " * 10**7, mtime=0)

    with pytest.raises(DecodeError, match="unpacks to more"):
        for _ in stream.blocks(BytesIO(bomb), 10**5):
            pass


def test_the_rows_are_those_of_the_whole_and_so_is_what_was_set_aside() -> None:
    records: list[Any] = [
        {"eventVersion": "1.11", "eventID": str(n), "eventTime": f"2026-03-04T05:06:{n % 60:02}Z", "unknown": n}
        for n in range(3_000)
    ]
    records[7]["eventTime"] = "yesterday"
    records[2_900] = 5
    data = gzip.compress(json.dumps({"Records": records}).encode(), mtime=0)

    whole = decode_files([(3, data, SOURCE)], now=NOW, max_bytes=10**9)
    pieces = list(decode_large(3, BytesIO(data), SOURCE, now=NOW, max_bytes=10**9))

    assert len(pieces) > 10
    assert pieces[-1].files == whole.files
    assert [malformed.position for malformed in whole.files[0].malformed] == [7, 2_900]
    assert pa.concat_tables(piece.events for piece in pieces).equals(whole.events)
