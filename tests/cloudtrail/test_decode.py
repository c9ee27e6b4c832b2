"""Decoding keeps every record, and every digit of it."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import pickle
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kyra_etl.cloudtrail.decode import DecodedFile, Malformed, Source, decode, decode_files
from kyra_etl.cloudtrail.records import rebuild
from kyra_etl.errors import DecodeError
from tests.cloudtrail.truth import exact, expected, lines

NOW = datetime(2026, 3, 10, 12)
SOURCE = Source("acme", "AWSLogs/k.json.gz", "b1", datetime(2026, 3, 4, 5, 10), "111122223333", "999988887777")
EVENT: dict[str, Any] = {
    "eventVersion": "1.11",
    "userIdentity": {"type": "IAMUser", "arn": "arn:aws:iam::111122223333:user/ana", "accessKeyId": "AKIAEXAMPLE"},
    "eventTime": "2026-03-04T05:06:07Z",
    "eventSource": "iam.amazonaws.com",
    "eventName": "CreateUser",
    "awsRegion": "us-east-1",
    "sourceIPAddress": "198.51.100.7",
    "requestParameters": {"userName": "bo"},
    "responseElements": None,
    "readOnly": False,
    "eventID": "e-1",
    "recipientAccountId": "111122223333",
}


@dataclass
class Read:
    """A decoded file and its rows."""

    file: DecodedFile
    events: pa.Table

    @property
    def records(self) -> int:
        return self.file.records

    @property
    def malformed(self) -> tuple[Malformed, ...]:
        return self.file.malformed


def read(document: bytes | str, source: Source = SOURCE, max_bytes: int = 1 << 24) -> Read:
    data = document.encode() if isinstance(document, str) else document
    return Read(*decode(data, source, now=NOW, max_bytes=max_bytes))


def envelope(*records: Any) -> str:
    return json.dumps({"Records": list(records)})


def one(**fields: Any) -> dict[str, Any]:
    return dict(read(envelope(EVENT | fields)).events.to_pylist()[0])


@pytest.mark.parametrize(
    "document",
    [
        envelope(EVENT),
        json.dumps([EVENT]),
        json.dumps(EVENT),
        json.dumps(EVENT) + "\n",
        json.dumps(EVENT, indent=2),
        "\ufeff" + envelope(EVENT),
        json.dumps({"Events": [{"EventId": "e-1", "ReadOnly": "false", "CloudTrailEvent": json.dumps(EVENT)}]}),
        json.dumps({"version": "0", "detail-type": "AWS API Call via CloudTrail", "detail": EVENT}),
        json.dumps({"EventId": "e-1", "CloudTrailEvent": json.dumps(EVENT)}),
    ],
    ids=["envelope", "array", "object", "line", "pretty", "bom", "lookup-answer", "eventbridge", "lookup-item"],
)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_every_shape_of_document_gives_the_same_event(document: str, packed: bool) -> None:
    decoded = read(gzip.compress(document.encode()) if packed else document)

    assert decoded.records == 1
    assert exact(rebuild(decoded.events.to_pylist()[0])) == expected(json.dumps(EVENT))


@pytest.mark.parametrize("between", ["\n", "\n\n", "", " "])
def test_objects_one_after_another_are_all_read(between: str) -> None:
    second = EVENT | {"eventID": "e-2"}

    decoded = read(json.dumps(EVENT) + between + json.dumps(second))

    assert decoded.events["event_id"].to_pylist() == ["e-1", "e-2"]


def test_every_member_of_a_gzip_is_read() -> None:
    halves = (
        gzip.compress(json.dumps(EVENT).encode() + b"\n"),
        gzip.compress(json.dumps(EVENT | {"eventID": "2"}).encode()),
    )

    assert read(b"".join(halves)).events["event_id"].to_pylist() == ["e-1", "2"]


def test_the_hash_is_of_the_uncompressed_bytes() -> None:
    document = envelope(EVENT).encode()

    decoded = read(gzip.compress(document))

    assert decoded.file.sha256 == hashlib.sha256(document).hexdigest()
    assert decoded.file.uncompressed == len(document)


def test_an_empty_list_of_records_is_a_log_file_without_events() -> None:
    assert read('{"Records": []}').records == 0


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"hello, this is text\nand more", "not_json"),
        ("{}".encode("utf-16"), "not_utf8"),
        (b"{}", "no_records"),
        (b'{"Records": null}', "no_records"),
        (b'{"Records": {"a": 1}}', "no_records"),
        (b'{"Records": 3}', "no_records"),
        (b'[{"name": "package"}]', "not_cloudtrail"),
        (b'{"name": "package"}', "not_cloudtrail"),
        (b"[]", "no_records"),
        (b'{"digestStartTime": "x", "digestS3Object": "y", "logFiles": []}', "digest"),
        (b'{"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": {}}]}', "notification"),
        (b'{"Records": [{"eventName": "Create', "not_json"),
        (gzip.compress(b'{"Records": []}', mtime=0)[:-9], "corrupt_gzip"),
        (gzip.compress(b"x" * 3000, mtime=0)[:20], "corrupt_gzip"),
        (b"\x1f\x8b not gzip at all, but it starts so", "corrupt_gzip"),
        (gzip.compress(b'{"Records": []}', mtime=0) + b"tail", "corrupt_gzip"),
        (b"[" * 100_000, "not_json"),
        (rb'{"Records": [{"eventTime": "2026-03-04T05:06:07Z", "eventName": "\ud800"}]}', "not_json"),
    ],
)
def test_what_is_no_log_file_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as refused:
        read(data)

    assert refused.value.reason == reason
    assert refused.value.remedy


def test_a_gzip_bomb_meets_the_ceiling() -> None:
    bomb = gzip.compress(b" " * 5_000_000 + envelope(EVENT).encode())

    with pytest.raises(DecodeError) as refused:
        read(bomb, max_bytes=1_000_000)

    assert refused.value.reason == "too_large"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({**EVENT, "eventTime": None}, "no eventTime"),
        ({name: value for name, value in EVENT.items() if name != "eventTime"}, "no eventTime"),
        ({**EVENT, "eventTime": "yesterday"}, "no valid eventTime"),
        ({**EVENT, "eventTime": 1700000000}, "no valid eventTime"),
        ({**EVENT, "eventTime": "1989-12-31T23:59:59Z"}, "out of bounds"),
        ({**EVENT, "eventTime": "2026-03-12T12:00:01Z"}, "out of bounds"),
        ({**EVENT, "eventTime": "2026-02-30T00:00:00Z"}, "no valid eventTime"),
        ("text", "not a JSON object"),
        (None, "not a JSON object"),
        ([EVENT], "not a JSON object"),
        (17, "not a JSON object"),
    ],
)
def test_a_malformed_record_is_kept_byte_for_byte_and_the_others_load(record: Any, reason: str) -> None:
    text = json.dumps(record, separators=(" ,", ":  "))
    good = json.dumps(EVENT)

    decoded = read(f'{{"Records": [{good}, {text}, {good}]}}')

    assert decoded.records == 3
    assert decoded.events.num_rows == 2
    (malformed,) = decoded.malformed
    assert (malformed.position, malformed.record) == (1, text.encode())
    assert reason in malformed.reason


def test_a_line_that_is_no_json_is_malformed_and_the_others_load() -> None:
    decoded = read(json.dumps(EVENT) + "\n{broken\n" + json.dumps(EVENT | {"eventID": "e-2"}) + '\n{"eventTime": 1}')

    assert decoded.records == 4
    assert decoded.events.num_rows == 2
    assert [(record.position, record.record) for record in decoded.malformed] == [
        (1, b"{broken"),
        (3, b'{"eventTime": 1}'),
    ]


def test_bytes_that_are_no_utf8_make_one_record_malformed_not_the_file() -> None:
    broken = json.dumps(EVENT).encode().replace(b'"bo"', b'"b\xff"')

    decoded = read(b'{"Records": [' + json.dumps(EVENT).encode() + b"," + broken + b"]}")

    assert decoded.events.num_rows == 1
    assert [record.record for record in decoded.malformed] == [broken]


@pytest.mark.parametrize(
    "fields",
    [
        {"readOnly": "true"},
        {"readOnly": 1},
        {"managementEvent": {"odd": []}},
        {"eventName": 17},
        {"eventName": ["a"]},
        {"recipientAccountId": 111122223333},
        {"errorCode": ""},
        {"errorCode": None},
        {"requestParameters": "text"},
        {"requestParameters": [1.0, 1, 12345678901234567890123, -0.0, 1e5]},
        {"userIdentity": "HIDDEN_DUE_TO_SECURITY_REASONS"},
        {"userIdentity": None},
        {"resources": {"ARN": "x"}},
        {"addendum": {"reason": "DELIVERY_DELAY"}, "eventContext": {}, "brandNewField": [None, 1.50]},
        {"eventTime": "2026-03-04T05:06:07.123Z"},
        {"eventTime": "2026-03-04T05:06:07+01:00"},
        {"eventTime": "2026-03-04 05:06:07"},
        {"eventTime": "2026-03-04T05:06:07.123Z", "insightDetails": {"eventTime": "z"}},
        {"eventTime": "2026-03-04T05:06:07+02:00", "eventContext": {"eventTime": 1}, "new": {"eventTime": None}},
        {"eventID": ""},
        {"eventID": None},
        {"eventID": "sha256:abc"},
        {"userAgent": "snow ☃ \u0000 \ud83d\ude00 \u2028"},
        {"": "a field without a name", 'qu"ote': "\\"},
    ],
    ids=str,
)
def test_odd_fields_come_back_as_they_were(fields: dict[str, Any]) -> None:
    text = json.dumps(EVENT | fields)

    assert exact(rebuild(one(**fields))) == expected(text)


@pytest.mark.parametrize("odd", [r'"Create\ud800User"', "NaN", '"tab\there"', "[1,}"])
def test_a_record_that_is_not_quite_json_does_not_take_its_neighbours_along(odd: str) -> None:
    good, text = json.dumps(EVENT), json.dumps(EVENT).replace('"CreateUser"', odd)

    decoded = read(f'{{"Records": [{good}, {text}, {good}]}}') if odd != "[1,}" else read(f"{good}\n{text}\n{good}")

    assert decoded.events.num_rows == 2
    assert [(record.position, record.record.decode()) for record in decoded.malformed] == [(1, text)]


@pytest.mark.parametrize("shape", ["envelope", "array", "object", "lines", "lookup"])
def test_a_record_nested_however_deeply_does_not_take_its_neighbours_along(shape: str) -> None:
    good = json.dumps(EVENT)
    loaded = set()
    for levels in (800, *range(870, 1000), 20_000):
        part = '{"a":' * levels + "1" + "}" * levels
        deep = good.replace('{"userName": "bo"}', part)
        document = {
            "envelope": f'{{"Records": [{good}, {deep}, {good}]}}',
            "array": f"[{good}, {deep}, {good}]",
            "object": f'{{"more": [{deep}], "Records": [{good}, {deep}, {good}]}}',
            "lines": f"{good}\n{deep}\n{good}",
            "lookup": json.dumps({"Events": [{"CloudTrailEvent": one} for one in (good, deep, good)]}),
        }[shape]

        decoded = read(document)

        assert decoded.records == 3
        loaded.add(decoded.events.num_rows)
        if decoded.malformed:
            (malformed,) = decoded.malformed
            assert (malformed.position, malformed.record.decode(), malformed.reason) == (1, deep, "nested too deeply")
        else:
            assert decoded.events["request_parameters"].to_pylist()[1] == part
    assert loaded == {2, 3}


def test_free_form_parts_are_the_bytes_delivered() -> None:
    part = '{ "b":1.0,\t"a" : 12345678901234567890 , "n":null}'
    text = json.dumps(EVENT).replace('{"userName": "bo"}', part)

    row = read(f'{{"Records": [{text}]}}').events.to_pylist()[0]

    assert row["request_parameters"] == part
    assert row["response_elements"] == "null"
    assert row["additional_event_data"] is None


def test_a_record_without_an_id_gets_one_that_spacing_and_order_do_not_change() -> None:
    bare = {name: value for name, value in EVENT.items() if name != "eventID"}
    turned = dict(reversed(bare.items()))

    first = read(json.dumps([bare])).events.to_pylist()[0]
    second = read(json.dumps([turned], indent=3)).events.to_pylist()[0]

    assert first["event_id"] == second["event_id"]
    assert first["event_id"].startswith("sha256:")
    assert "eventID" not in json.loads(rebuild(first))


def test_a_time_in_another_zone_is_stored_as_utc() -> None:
    row = one(eventTime="2026-03-04T00:30:00+01:00")

    assert row["event_time"] == datetime(2026, 3, 3, 23, 30)
    assert str(row["date"]) == "2026-03-03"


@pytest.mark.parametrize(
    ("recipient", "caller", "source", "account"),
    [
        ("012345678901", "222222222222", SOURCE, "012345678901"),
        (None, "222222222222", SOURCE, "111122223333"),
        ("../../etc", "222222222222", SOURCE, "111122223333"),
        (None, "222222222222", Source("acme", "k", "b"), "222222222222"),
        (None, None, Source("acme", "k", "b", integration_account="999988887777"), "999988887777"),
        ("１２３４５６７８９０１２", None, Source("acme", "k", "b"), "000000000000"),
    ],
)
def test_the_account_is_the_recipient_then_the_key_then_the_caller(
    recipient: str | None, caller: str | None, source: Source, account: str
) -> None:
    record = EVENT | {"recipientAccountId": recipient, "userIdentity": {"type": "IAMUser", "accountId": caller}}

    assert read(envelope(record), source).events["account"].to_pylist() == [account]


def test_files_decoded_together_are_as_decoded_alone() -> None:
    documents = [envelope(EVENT, EVENT | {"eventID": str(n)}).encode() for n in range(5)]
    documents[2] = b"no log file"
    sources = [Source("acme", f"k{n}", "b1", datetime(2026, 3, 4, n)) for n in range(5)]
    numbered = [(10 + n, document, source) for n, (document, source) in enumerate(zip(documents, sources, strict=True))]

    together = decode_files(numbered, now=NOW, max_bytes=1 << 20)

    assert [file.number for file in together.files] == [10, 11, 12, 13, 14]
    assert [file.events for file in together.files] == [2, 2, 0, 2, 2]
    assert isinstance(together.files[2].problem, DecodeError)
    alone = [read(documents[n], sources[n]).events for n in (0, 1, 3, 4)]
    assert together.events.select(alone[0].column_names).equals(pa.concat_tables(alone))
    assert together.events["_file"].to_pylist() == [10, 10, 11, 11, 13, 13, 14, 14]


def test_a_refusal_survives_the_way_from_another_process() -> None:
    refused = pickle.loads(pickle.dumps(DecodeError("not_json", "The file is not JSON.", "Mend it.")))

    assert (str(refused), refused.reason, refused.permanent) == ("The file is not JSON. Mend it.", "not_json", True)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    ["eventName", "eventID", "readOnly", "userIdentity", "requestParameters", "resources", "errorCode", "extra", "new"]
)


@given(st.lists(st.dictionaries(FIELDS, JSON, max_size=5), max_size=6))
def test_whatever_the_fields_hold_nothing_is_lost(changes: list[dict[str, Any]]) -> None:
    texts = [json.dumps(EVENT | change) for change in changes]

    decoded = read('{"Records": [' + ",".join(texts) + "]}")

    malformed = {record.position: record.record.decode() for record in decoded.malformed}
    rows = iter(decoded.events.to_pylist())
    assert decoded.records == len(texts) == decoded.events.num_rows + len(malformed)
    for position, text in enumerate(texts):
        if position in malformed:
            assert malformed[position] == text
        else:
            assert exact(rebuild(next(rows))) == expected(text)


@given(st.binary(max_size=300))
def test_any_bytes_are_decoded_or_refused_and_never_crash(data: bytes) -> None:
    for document in (data, gzip.compress(data), b'{"Records": [' + data + b"]}"):
        with contextlib.suppress(DecodeError):
            assert read(document).records >= 0


def test_public_records_come_back_key_by_key(shared_data: Path) -> None:
    sources = sorted((shared_data / "records").glob("*.ndjson.gz"))
    assert sources
    for path in sources:
        delivered = lines(path)
        decoded = Read(*decode(path.read_bytes(), SOURCE, now=datetime(2026, 12, 1), max_bytes=1 << 30))
        malformed = {record.position: record.record for record in decoded.malformed}
        rows = iter(decoded.events.to_pylist())
        assert decoded.records == len(delivered), path.name
        for position, line in enumerate(delivered):
            if position in malformed:
                assert malformed[position] == line
            else:
                assert exact(rebuild(next(rows))) == expected(line), (path.name, position)


@pytest.mark.parametrize("field", ["eventID", "eventTime", "userAgent", "readOnly", "userIdentity", "newField", "\xff"])
def test_text_that_is_not_utf8_sets_its_record_aside_and_no_other(field: str) -> None:
    good = b'{"eventID": "a", "eventTime": "2026-01-01T00:00:00Z"}'
    bad = b'{"eventTime": "2026-01-01T00:00:00Z", "%s": "\xff"}' % field.encode("latin-1")

    decoded = read(b'{"Records": [' + good + b", " + bad + b"]}")

    assert (decoded.records, decoded.events.num_rows) == (2, 1)
    assert [record.record for record in decoded.malformed] == [bad]


def test_a_name_beside_the_records_that_is_not_utf8_costs_no_record() -> None:
    good = b'{"eventID": "a", "eventTime": "2026-01-01T00:00:00Z"}'

    assert read(b'{"\xff": 1, "Records": [' + good + b"]}").events.num_rows == 1


@pytest.mark.parametrize("opening", [b'{"Records": [\n', b'{\n"Records": [\n'])
def test_an_envelope_over_many_lines_that_is_cut_off_is_refused_whole(opening: bytes) -> None:
    """Each of its lines could pass for a record; those that are lost would never be missed."""
    record = b'{"eventID": "a", "eventTime": "2026-01-01T00:00:00Z"}'

    with pytest.raises(DecodeError) as refused:
        read(opening + record + b"\n,\n" + record + b"\n")
    assert refused.value.reason == "not_json"


def test_a_line_an_envelope_is_read_line_by_line() -> None:
    line = b'{"Records": [{"eventID": "a", "eventTime": "2026-01-01T00:00:00Z"}]}'

    decoded = read(line + b"\n" + line + b"\n" + line[:-5])

    assert (decoded.events.num_rows, len(decoded.malformed)) == (2, 1)


@given(st.data())
def test_a_record_with_damaged_bytes_never_crashes_and_never_vanishes(data: st.DataObject) -> None:
    good = b'{"eventID":"a","eventTime":"2026-01-01T00:00:00Z"}'
    record = bytearray(
        b'{"eventID":"b","eventTime":"2026-01-01T00:00:00Z","userIdentity":{"type":"Root","arn":"x"},"readOnly":true,'
        b'"sourceIPAddress":"198.51.100.7","requestParameters":{"a":[1,null]},"userAgent":"aws-cli","other":{"b":1.0}}'
    )
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(record) - 1))
        record[at] = data.draw(st.sampled_from(b'\xff\x00\xc3\x80"\\xu{}[],:0eEt'))
    with contextlib.suppress(DecodeError):
        decoded = read(b'{"Records":[' + good + b"," + bytes(record) + b"]}")
        assert decoded.records == decoded.events.num_rows + len(decoded.malformed) >= 1
