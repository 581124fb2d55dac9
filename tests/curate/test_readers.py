"""Containers: every kind of file, plain and compressed, gives the same rows, lines and texts, or a one-line error."""

import base64
import bz2
import csv
import datetime
import decimal
import gzip
import hashlib
import io
import json
import lzma
import os

import fsspec
import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import example, given, settings

from curate import readers
from curate.errors import InputError
from curate.finding import find_files
from curate.readers import container_of, read_rows


def zst(data):
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


PACKERS = {"": bytes, ".gz": gzip.compress, ".zst": zst, ".xz": lzma.compress, ".bz2": bz2.compress}
COMPRESSED = [suffix for suffix in PACKERS if suffix]
ROWS = [
    {"prompt": "a", "chosen": "b"},
    {"prompt": 'é 😀 "q"\n2', "chosen": "\u2028 \u202eRTL"},
    {"prompt": "", "chosen": "x,\ty"},
]
JSON_LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def separated(delimiter, rows=ROWS):
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter)
    writer.writerows([list(rows[0]), *(row.values() for row in rows)])
    return stream.getvalue().encode()


def parquet(rows=ROWS, **options):
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), stream, **options)
    return stream.getvalue()


# name → (suffix, bytes, the lines of the three rows)
CONTAINERS = {
    "jsonl": (".jsonl", JSON_LINES.encode(), [1, 2, 3]),
    "ndjson": (".ndjson", JSON_LINES.encode(), [1, 2, 3]),
    "jsonl with blank lines": (".jsonl", ("\n" + JSON_LINES.replace("\n", "\n  \n")).encode(), [2, 4, 6]),
    "jsonl of CRLF": (".jsonl", JSON_LINES.replace("\n", "\r\n").encode(), [1, 2, 3]),
    "jsonl without last newline": (".jsonl", JSON_LINES.rstrip().encode(), [1, 2, 3]),
    "upper case": (".JSONL", JSON_LINES.encode(), [1, 2, 3]),
    "array on one line": (".json", json.dumps(ROWS).encode(), [1, 1, 1]),
    "array, an element a line": (".json", ("[" + ",\n".join(map(json.dumps, ROWS)) + "]\n").encode(), [1, 2, 3]),
    "array, pretty": (".json", ("\n" + json.dumps(ROWS, indent=2, ensure_ascii=False)).encode(), [3, 7, 11]),
    "json that is JSON Lines": (".json", JSON_LINES.encode(), [1, 2, 3]),
    "csv": (".csv", separated(","), [2, 3, 5]),
    "tsv": (".tsv", separated("\t"), [2, 3, 5]),
    "parquet": (".parquet", parquet(), [1, 2, 3]),
}


@pytest.fixture
def put(tmp_path):
    """Write bytes or text under a name and return the path as text."""

    def put(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return put


def refused(path, *parts):
    """Reading fails with one line that opens with the path and names each part."""
    with pytest.raises(InputError) as caught:
        list(read_rows(path))
    message = str(caught.value)
    assert message.startswith(path)
    assert message.isprintable()
    for part in parts:
        assert part in message
    return message


# --- containers ---


@pytest.mark.parametrize("packing", PACKERS)
@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_gives_the_same_rows(put, container, packing):
    suffix, data, lines = CONTAINERS[container]
    rows = list(read_rows(put(f"a.b{suffix}{packing}", PACKERS[packing](data))))
    assert [row.values for row in rows] == ROWS
    assert [row.line for row in rows] == lines
    assert [json.loads(row.text) for row in rows] == ROWS


@pytest.mark.parametrize("packing", COMPRESSED)
def test_a_file_of_several_compressed_members_is_read_to_its_end(put, packing):
    pack = PACKERS[packing]
    path = put(f"a.csv{packing}", pack(separated(",")) + pack(b"p,c\r\n") + pack(b"q,d\r\n"))
    assert [row.values["prompt"] for row in read_rows(path)] == ["a", ROWS[1]["prompt"], "", "p", "q"]


@pytest.mark.parametrize("container", [name for name, (suffix, _, _) in CONTAINERS.items() if suffix != ".parquet"])
def test_a_byte_order_mark_is_not_part_of_the_data(put, container):
    suffix, data, lines = CONTAINERS[container]
    rows = list(read_rows(put(f"a{suffix}", b"\xef\xbb\xbf" + data)))
    assert [row.values for row in rows] == ROWS
    assert [row.line for row in rows] == lines
    assert not rows[0].text.startswith("\ufeff")


def test_text_is_the_source_text_of_a_line(put):
    lines = ['{"a" :  1.50, "b":"\\u00e9\\/", "a": 2e0}', '{"c":\t[1 , {}]}']
    rows = list(read_rows(put("a.jsonl", "  " + lines[0] + " \r\n" + lines[1])))
    assert [row.text for row in rows] == lines
    assert rows[0].values == {"a": 2.0, "b": "é/"}


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_text_is_the_source_text_of_an_element(put, newline):
    elements = [newline.join(['{"a" :  1.50,', '  "b":"\\u00e9\\/" ', "}"]), '{"c":\t[1 , {}]}']
    rows = list(read_rows(put("a.json", f"[ {elements[0]} ,{newline}{elements[1]}{newline}]{newline}")))
    assert [row.text for row in rows] == elements
    assert [row.line for row in rows] == [1, 4]


def test_numbers_of_csv_stay_text(put):
    (row,) = read_rows(put("a.csv", "a,b\n1,true\n"))
    assert row.values == {"a": "1", "b": "true"}


def test_csv_lines_count_blank_lines_and_quoted_newlines(put):
    path = put("a.csv", 'a,"b\nc"\n1,2\n\n\n3,"4\n\n5"\n6,7\n')
    assert [(row.values["a"], row.line) for row in read_rows(path)] == [("1", 3), ("3", 6), ("6", 9)]


def test_csv_fields_may_be_large(put):
    (row,) = read_rows(put("a.csv", f'a,b\n1,"{"x" * 200_000}"\n'))
    assert len(row.values["b"]) == 200_000


def test_parquet_lines_run_on_over_batches_and_row_groups(put):
    rows = list(read_rows(put("a.parquet", parquet([{"n": i} for i in range(2500)], row_group_size=1100))))
    assert [row.line for row in rows] == list(range(1, 2501))
    assert [row.values["n"] for row in rows] == list(range(2500))


def test_parquet_values_that_json_lacks_become_text(put):
    values = {
        "bytes": b"\x00\xff",
        "day": datetime.date(2024, 2, 29),
        "price": decimal.Decimal("1.10"),
        "turns": [{"role": "user", "content": "hi"}],
        "none": None,
    }
    (row,) = read_rows(put("a.parquet", parquet([values])))
    assert row.values == values
    text = {"bytes": base64.b64encode(b"\x00\xff").decode(), "day": "2024-02-29", "price": "1.10", "none": None}
    assert json.loads(row.text) == {**text, "turns": values["turns"]}


def test_rows_are_streamed(put):
    rows = read_rows(put("a.jsonl", JSON_LINES + "broken\n"))
    assert [next(rows).values for _ in ROWS] == ROWS
    with pytest.raises(InputError, match="line 4"):
        next(rows)


@pytest.mark.parametrize("delimiter", [",", "\t"])
@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=5))
@example([("\r", "\n"), ("\r\n", '"'), ("\x00", "\ufeff"), ("\u2028\x85", "")])
def test_any_text_survives_csv(delimiter, cells):
    rows = [{"a": a, "b": b} for a, b in cells]
    url = f"memory://any{'.csv' if delimiter == ',' else '.tsv'}"
    fsspec.filesystem("memory").pipe(url, separated(delimiter, rows))
    assert [row.values for row in read_rows(url)] == rows


# --- JSON arrays in chunks ---

_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_objects = st.dictionaries(st.text(), _values, max_size=4)
_gaps = st.sampled_from(["", " ", "\n", "\r\n", "\t \n\n", " " * 9])


@st.composite
def _arrays(draw):
    """The text of a JSON array, and its elements' texts and lines."""
    elements = draw(st.lists(_objects, min_size=1, max_size=6))
    ascii_only, indent = draw(st.booleans()), draw(st.sampled_from([None, 1]))
    texts, lines, whole = [], [], draw(_gaps) + "["
    for number, element in enumerate(elements):
        whole += (draw(_gaps) + "," if number else "") + draw(_gaps)
        lines.append(1 + whole.count("\n"))
        texts.append(json.dumps(element, ensure_ascii=ascii_only, indent=indent))
        whole += texts[-1]
    return whole + draw(_gaps) + "]" + draw(_gaps), texts, lines


@settings(max_examples=150, deadline=None)
@given(_arrays(), st.sampled_from([1, 2, 7, 64, 1 << 20]))
@example(('[{"a":"\\ud83d\\ude00\\\\"},{"b":-1.5e-7},{"c":[true,false,null,-Infinity,{}]}]', None, [1, 1, 1]), 1)
@example(('[{"a":"\\ud83d\\ude00"}, {"\\ud83d":"\\ude00"}]', None, [1, 1]), 7)
def test_chunk_borders_change_nothing(array, chunk):
    whole, texts, lines = array
    fsspec.filesystem("memory").pipe("memory://chunks.json", whole.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "_CHUNK", chunk)
        rows = list(read_rows("memory://chunks.json"))
    expected = json.loads(whole)
    assert [repr(row.values) for row in rows] == [repr(values) for values in expected]
    assert [json.loads(row.text) for row in rows] == expected
    assert [row.line for row in rows] == lines
    assert texts is None or [row.text for row in rows] == texts


def test_an_array_larger_than_a_chunk(put):
    elements = [{"n": n, "text": "é😀\\"[n % 3] * size} for n, size in enumerate([10, 700_000, 3, 1 << 20, 5, 400_000])]
    whole = json.dumps(elements, indent=1, ensure_ascii=False)
    rows = list(read_rows(put("a.json", whole)))
    assert [row.values for row in rows] == elements
    assert [row.line for row in rows] == [2, 6, 10, 14, 18, 22]
    assert all(row.text in whole for row in rows)


# --- what is wrong with a file ---


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".jsonl", b""),
        (".jsonl", b" \n\n"),
        (".json", b""),
        (".json", b"\n [ ] \n"),
        (".csv", b""),
        (".csv", b"prompt,chosen,rejected\n"),
        (".tsv", b"prompt\tchosen\n"),
        (".parquet", b""),
    ],
)
def test_an_empty_file(put, suffix, content, packing):
    message = refused(put(f"a{suffix}{packing}", PACKERS[packing](content)))
    assert "empty" in message or suffix == ".parquet"


def test_a_parquet_file_without_rows(put):
    stream = io.BytesIO()
    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), stream)
    refused(put("a.parquet", stream.getvalue()), "empty")


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".jsonl.gz", ".jsonl.zst"])
def test_broken_json_in_line_7(put, suffix):
    lines = ['{"a": 1}'] * 9
    lines[6] = '{"a": 1,, "b": 2}'
    data = PACKERS[suffix[6:]]("\n".join(lines).encode())
    refused(put(f"a{suffix}", data), ", line 7, column 9: broken JSON", "mend or delete this line")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("[1, 2]", "found list"),
        ('"text"', "found str"),
        ("null", "found NoneType"),
        ('{"a": 1} {"a": 2}', "broken JSON"),
        ('{"a": "cut o', "broken JSON"),
        ('{"a": ' + "1" * 5000 + "}", "digits"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", ""),
    ],
    ids=["list", "text", "null", "two objects", "cut", "huge number", "nested too deep"],
)
def test_a_line_that_is_no_row(put, line, found):
    refused(put("a.jsonl", f'{{"a": 1}}\n{line}\n{{"a": 3}}\n'), ", line 2", found)


@pytest.mark.parametrize(
    ("line", "array"),
    [
        (3, '[\n {"a": 1},\n {"a": }\n]'),
        (4, '[\n {"a": 1},\n {\n  "a": tru\n }\n]'),
        (3, '[\n {"a": 1},\n {"a": "tab\there"}\n]'),
        (1, '[{"a": 1}, {"a": "\\x"}]'),
        (3, '[\n {"a": 1},\n nonsense\n]'),
    ],
    ids=["no value", "bad word", "control character", "bad escape", "nonsense"],
)
@pytest.mark.parametrize("chunk", [5, 1 << 20])
def test_a_broken_element_of_an_array(put, monkeypatch, line, array, chunk):
    monkeypatch.setattr(readers, "_CHUNK", chunk)
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads(array)
    assert caught.value.lineno == line
    refused(put("a.json", array), f", line {line}, column {caught.value.colno}: broken JSON", "mend")


@pytest.mark.parametrize(
    ("element", "found"),
    [
        ("2", "found int"),
        ("[2]", "found list"),
        ('{"a": ' + "1" * 5000 + "}", "digits"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", ""),
    ],
    ids=["number", "list", "huge number", "nested too deep"],
)
def test_an_element_that_is_no_row(put, element, found):
    refused(put("a.json", f'[\n {{"a": 1}},\n {element}\n]'), ", line 3", found)


@pytest.mark.parametrize("array", ['[{"a": 1}\n {"a": 2}]', '[{"a": 1},\n , {"a": 2}]', '[\n,{"a": 1}]'])
def test_commas_stand_between_elements(put, array):
    refused(put("a.json", array), ", line 2", "broken JSON")


@pytest.mark.parametrize("array", ['[{"a": 1},\n{"a": 2}\n', '[{"a": 1},\n{"a": 2},\n', '[{"a": 1},\n\n{"a": 2, "b'])
def test_an_array_that_is_cut_off(put, array):
    refused(put("a.json", array), ", line 3", "broken JSON")


@pytest.mark.parametrize(("tail", "line"), [("x", 2), ('\n[{"a": 2}]', 3), ("]", 2)])
def test_text_after_the_array(put, tail, line):
    refused(put("a.json", '[{"a": 1}\n]' + tail), f", line {line}", "after the closing ]")


@pytest.mark.parametrize("head", ["", "\n", "\ufeff"])
def test_one_json_object_is_not_a_list_of_rows(put, head):
    refused(put("a.json", head + json.dumps({"a": [1], "b": 2}, indent=2)), "one JSON object, not a list of rows")


@pytest.mark.parametrize("content", [b"prompt,chosen\n", b"\xff\xfe[\x00", b"PAR1"])
def test_a_json_file_that_is_not_json(put, content):
    refused(put("a.json", content), "not JSON")


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".jsonl", b'{"a": "b"}\n\n{"a": "\xe9"}\n'),
        (".json", b'{"a": "b"}\n\n{"a": "\xe9"}\n'),
        (".json", b'[{"a": "b"},\n\n{"a": "\xe9"}]'),
        (".csv", b"a,b\n1,2\n3,\xe9\n"),
        (".tsv", b"a\tb\n1\t2\n3\t\xe9\n"),
    ],
    ids=["jsonl", "json lines", "json array", "csv", "tsv"],
)
def test_a_file_that_is_not_utf8(put, suffix, content):
    refused(put(f"a{suffix}", content), ", line 3", "not UTF-8", "save the file as UTF-8")


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize("fields", [["1"], ["1", "2", "3"]])
def test_a_csv_row_with_other_fields_than_the_header(put, suffix, fields):
    delimiter = {".csv": ",", ".tsv": "\t"}[suffix]
    lines = [["a", "b"], ["1", '"2\n3"'], fields]
    content = "".join(delimiter.join(line) + "\n" for line in lines)
    refused(put(f"a{suffix}", content), f", line 4: {len(fields)} fields where the header has 2", "mend this line")


@pytest.mark.parametrize("content", ['a,b\n1,2\n3,"4\n', 'a,b\n1,2\n3,"4"5\n'])
def test_broken_quotes_in_csv(put, content):
    refused(put("a.csv", content), ", line 3: broken CSV", "mend this line")


def test_a_missing_file(put, tmp_path):
    path = str(tmp_path / "none.jsonl")
    refused(path, "no such file")
    for read in (lambda: find_files((path,)), lambda: readers.sha256(path)):
        with pytest.raises(InputError, match=r"none\.jsonl: no such file"):
            read()


def test_an_unreadable_file(put):
    path = put("a.jsonl", JSON_LINES)
    os.chmod(path, 0)
    if os.access(path, os.R_OK):
        pytest.skip("root reads everything")
    refused(path, "permission denied", "make the file readable")


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
@pytest.mark.parametrize("packing", COMPRESSED)
def test_a_truncated_compressed_file(put, suffix, packing):
    rows = [{"n": str(n), "text": hashlib.sha256(bytes([n % 256])).hexdigest()} for n in range(2000)]
    data = {
        ".jsonl": "\n".join(map(json.dumps, rows)).encode(),
        ".json": json.dumps(rows).encode(),
        ".csv": separated(",", rows),
        ".parquet": parquet(rows),
    }[suffix]
    packed = PACKERS[packing](data)
    refused(put(f"a{suffix}{packing}", packed[:-20]))
    refused(put(f"b{suffix}{packing}", packed[: len(packed) // 2]))


@pytest.mark.parametrize("container", ["jsonl", "csv"])
def test_truncation_at_a_row_border_is_seen(put, container):
    """The rows before the cut are whole, so only the compressed stream itself can tell that some are missing."""
    suffix, data, _ = CONTAINERS[container]
    packer = zstandard.ZstdCompressor().compressobj()
    whole_rows = packer.compress(data) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    refused(put(f"a{suffix}.zst", whole_rows), "cannot be read")


@pytest.mark.parametrize("place", [0.0, 0.5])
@pytest.mark.parametrize("packing", COMPRESSED)
def test_a_damaged_compressed_file(put, packing, place):
    text = "\n".join(json.dumps({"text": hashlib.sha256(bytes([n % 256, n // 256])).hexdigest()}) for n in range(3000))
    packed = bytearray(PACKERS[packing](text.encode()))
    start = 10 + int(place * len(packed))  # past the magic numbers; in gzip the first block's type
    packed[start : start + 40] = b"\xff" * 40
    refused(put(f"a.jsonl{packing}", bytes(packed)))


@pytest.mark.parametrize("packing", COMPRESSED)
def test_a_file_that_is_not_compressed_as_its_name_says(put, packing):
    refused(put(f"a.jsonl{packing}", JSON_LINES), "cannot be read")


@pytest.mark.parametrize("packing", ["", ".gz"])
@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[9:], lambda data: b"PAR1 no PAR1"])
def test_a_damaged_parquet_file(put, damage, packing):
    refused(put(f"a.parquet{packing}", PACKERS[packing](damage(parquet()))), "cannot be read")


@pytest.mark.parametrize("name", ["a.txt", "a.json.zip", "jsonl", "a.gz", ".jsonl", "a.jsonl.bak"])
def test_an_unknown_suffix(put, name):
    path = put(name, JSON_LINES)
    refused(path, "unknown kind of file", ".parquet", ".jsonl", ".csv", "also as .gz, .zst, .xz or .bz2")
    with pytest.raises(InputError, match="unknown kind of file"):
        container_of(path)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "a.csv",
            b"prompt;chosen;rejected\na, b;c;d\n",
            "line 1: ';' separates the columns, not ','; save it with ','",
        ),
        ("a.csv", b"prompt\tchosen\n", "'\\t' separates the columns, not ','"),
        ("a.tsv", b"prompt,chosen\na,b\n", "',' separates the columns, not '\\t'"),
    ],
)
def test_another_sign_between_the_columns(put, name, data, message):
    refused(put(name, data), message)


# --- finding files ---


@pytest.fixture
def folder(put, tmp_path, monkeypatch):
    """A folder with four data files among other things; it is also the working directory's `data`."""
    for name in ("b.jsonl", "a.csv.gz", "deep/er/c.PARQUET", "deep/train.json"):
        put(f"data/{name}", "")
    for name in (
        "README.md",
        "LICENSE",
        ".d.jsonl",
        "_e.jsonl",
        "_f/g.jsonl",
        ".cache/h.jsonl",
        "deep/.i.json",
        "x.gz",
    ):
        put(f"data/{name}", "")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def inside(folder, files):
    return [os.path.relpath(file, folder) for file in files]


@pytest.mark.parametrize("tail", ["", "/"])
def test_a_folder_stands_for_its_data_files(folder, tail):
    expected = ["a.csv.gz", "b.jsonl", "deep/er/c.PARQUET", "deep/train.json"]
    assert inside(folder, find_files((f"{folder}{tail}",))) == expected
    assert inside(folder, find_files((f"data{tail}",))) == expected


def test_a_folder_below_a_hidden_folder_is_read(folder, put):
    assert inside(folder, find_files((str(folder / ".cache"),))) == [".cache/h.jsonl"]
    assert inside(folder, find_files((str(folder / "_f"),))) == ["_f/g.jsonl"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("data/*.jsonl", ["_e.jsonl", "b.jsonl"]),
        ("data/[ab].*", ["a.csv.gz", "b.jsonl"]),
        ("data/deep/**/*.PARQUET", ["deep/er/c.PARQUET"]),
        ("data/?.jsonl", ["b.jsonl"]),
    ],
)
def test_a_glob(folder, pattern, expected):
    found = inside(folder, find_files((pattern,)))
    assert [name for name in found if not name.startswith(".")] == expected


def test_the_order_of_inputs_is_kept(folder):
    inputs = ("data/deep", "data/b.jsonl", "data/a.csv.gz")
    expected = ["deep/er/c.PARQUET", "deep/train.json", "b.jsonl", "a.csv.gz"]
    assert inside(folder, find_files(inputs)) == expected


def test_a_name_with_glob_letters_is_a_name(put):
    path = put("odd [1]*?.jsonl", JSON_LINES)
    assert find_files((path,)) == [path]
    assert [row.values for row in read_rows(path)] == ROWS


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("data/*.arrow", "no file matches"),
        ("data/none", "no such file or folder"),
        ("data/bare", r"the folder holds no \.parquet"),
    ],
)
def test_an_input_that_matches_nothing(folder, entry, reason):
    (folder / "bare").mkdir()
    (folder / "bare" / "README.md").touch()
    with pytest.raises(InputError, match=f"^{entry.replace('*', '.')}: {reason}"):
        find_files(("data/b.jsonl", entry))


@pytest.mark.parametrize(
    "inputs",
    [
        ("data/b.jsonl", "data/b.jsonl"),
        ("{data}", "{data}/b.jsonl"),
        ("{data}/*.jsonl", "{data}"),
        ("data", "data/b.jsonl"),
        ("data/b.jsonl", "./data/../data/b.jsonl"),
        ("data/b.jsonl", "{data}/b.jsonl"),
        ("data/b.jsonl", "file://{data}/b.jsonl"),
    ],
)
def test_a_file_given_twice(folder, inputs):
    with pytest.raises(InputError, match=r"b\.jsonl: given twice"):
        find_files(tuple(entry.format(data=folder) for entry in inputs))


def test_urls_of_other_file_systems(request):
    memory = fsspec.filesystem("memory")
    request.addfinalizer(lambda: memory.rm("/urls", recursive=True))
    memory.pipe({"/urls/a.jsonl.gz": gzip.compress(JSON_LINES.encode()), "/urls/README.md": b"no"})
    for entry in ("memory://urls", "memory://urls/*.gz", "memory://urls/a.jsonl.gz"):
        (path,) = find_files((entry,))
        assert path.startswith("memory://")
        assert [row.values for row in read_rows(path)] == ROWS


@pytest.mark.parametrize("packing", ["", ".gz"])
def test_sha256_is_of_the_bytes_on_disk(put, packing):
    data = PACKERS[packing](JSON_LINES.encode())
    assert readers.sha256(put(f"a.jsonl{packing}", data)) == hashlib.sha256(data).hexdigest()


def test_a_folders_runs_are_passed_over_and_other_manifests_are_not(tmp_path):
    for name in ("a.jsonl", "run/pairs.jsonl", "other/b.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"a": 1}\n', encoding="utf-8")
    (tmp_path / "run" / "manifest.json").write_text('{"schema_version": 1, "stages": {}}', encoding="utf-8")
    (tmp_path / "other" / "manifest.json").write_text('[{"b": 2}]', encoding="utf-8")
    found = [name.removeprefix(f"{tmp_path}/") for name in find_files((str(tmp_path),))]
    assert found == ["a.jsonl", "other/b.jsonl", "other/manifest.json"]


def test_json_lines_in_a_json_file_may_have_a_very_long_first_line(tmp_path):
    file = tmp_path / "long.json"
    file.write_text(json.dumps({"prompt": "," * 70_000}) + '\n{"prompt": "b"}\n', encoding="utf-8")
    assert [len(row.values["prompt"]) for row in read_rows(str(file))] == [70_000, 1]
