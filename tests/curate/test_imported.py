"""Signals from files: what joins with what, what words mean, and one clear line where a file is at fault."""

import json

import numpy as np
import pandas as pd
import pytest

from curate.detect import RESERVED
from curate.errors import InputError
from curate.imported import import_signals
from curate.view import RunView

PAIRS = 12


@pytest.fixture(scope="module")
def run(make_world, write_scored, tmp_path_factory):
    """Twelve pairs whose rows also have a number, a text of digits and odd names; one row is refused, one a copy."""
    world = make_world(PAIRS, per_prompt=1)
    for at, row in enumerate(world.rows):
        row |= {"number": 7 * at, "digits": f"{at:04d}", 'wei"rd \\name': f"w{at}", "same": "s", "half": at // 2}
    world.rows[3] = dict(world.rows[3], prompt=None)
    world.rows[11] = dict(world.rows[10], id="copy", number=77, digits="0011")
    return write_scored(tmp_path_factory.mktemp("imported"), world, features=False)


@pytest.fixture(scope="module")
def pairs(run):
    with RunView(run.path) as view:
        return view.table("pairs")


def read(run, *files, reserved=()):
    with RunView(run.path) as view:
        return import_signals(view, [str(file) for file in files], reserved)


def write(path, frame):
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in frame.to_dict("records")))
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".CSV", ".tsv", ".jsonl"])
@pytest.mark.parametrize("key", ["pair_id", "row", "id", "number", "digits"])
def test_numbers_are_joined_whatever_the_order(run, pairs, tmp_path, suffix, key):
    keys = pairs[key] if key in pairs else pairs["original"].map(lambda text: json.loads(text)[key])
    frame = pd.DataFrame({key: keys, "judge": np.linspace(-1, 1, len(pairs))}).drop_duplicates(key)
    file = write(tmp_path / f"signals{suffix}", frame.sample(frac=1, random_state=0))
    expected = frame.set_index(key)["judge"].reindex(keys).to_numpy()
    np.testing.assert_allclose(read(run, file)["judge"], expected, rtol=1e-12)
    assert pairs["row"].tolist() == [0, 1, 2, *range(4, 12)]


def test_copies_of_a_pair_share_what_is_said_of_it(run, pairs, tmp_path):
    (tmp_path / "a.csv").write_text(f"pair_id,judge\n{pairs['pair_id'].iloc[-1]},-3\n")
    assert read(run, tmp_path / "a.csv")["judge"][-2:].tolist() == [-3, -3]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_verdicts_and_gaps(run, tmp_path, suffix):
    said = ["chosen", " Rejected", "TIE", None, "rejected"]
    frame = pd.DataFrame({"row": [0, 1, 2, 4, 5], "judge": said, "score": [1.5, -2, np.nan, np.inf, 1e-300]})
    frame["mixed"] = ["1", "chosen", "-2.5", "", "tie"]
    found = read(run, write(tmp_path / f"a{suffix}", frame.astype({"score": float})))
    rest = [np.nan] * 6
    np.testing.assert_equal(found["judge"], [1, -1, 0, np.nan, -1, *rest])
    np.testing.assert_equal(found["score"], [1.5, -2, np.nan, np.nan, 1e-300, *rest])
    np.testing.assert_equal(found["mixed"], [1, 1, -2.5, np.nan, 0, *rest])


def test_several_files_and_columns_and_unknown_ids(run, tmp_path):
    (tmp_path / "a.csv").write_text("id,one,two\nn00000,1,2\nnobody,3,4\n")
    (tmp_path / "b.csv").write_text('row,"three, or more"\n1,5\n')
    found = read(run, tmp_path / "a.csv", tmp_path / "b.csv")
    assert {name: np.nansum(values) for name, values in found.items()} == {"one": 1, "two": 2, "three, or more": 5}
    assert all(np.isfinite(values).sum() == 1 for values in found.values())


def test_the_other_ids_of_ours_are_no_signals(run, pairs, tmp_path):
    write(tmp_path / "a.csv", pairs[["row", "pair_id"]].drop_duplicates("pair_id").assign(judge=1))
    assert list(read(run, tmp_path / "a.csv")) == ["judge"]


def test_an_id_column_names_no_pair_twice(run, tmp_path):
    """`half` is in the data too, but two rows of the file share it."""
    (tmp_path / "a.csv").write_text("half,id\n1,n00000\n1,n00001\n")
    found = read(run, tmp_path / "a.csv")
    assert found["half"][:3].tolist() == [1, 1, pytest.approx(np.nan, nan_ok=True)]


def test_no_files_no_signals(run):
    assert read(run) == {}


@pytest.mark.parametrize("name", ["a[1].csv", "a*.csv", "ü 猫's.csv"])
def test_odd_file_names(run, tmp_path, name):
    (tmp_path / "a1.csv").write_text("id,other\nn00000,1\n")
    (tmp_path / name).write_text("id,judge\nn00000,1\n")
    assert list(read(run, tmp_path / name)) == ["judge"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "id,judge\n", "signals come from .parquet, .csv, .tsv, .jsonl files"),
        ("a.csv", None, "no such file"),
        ("a.csv", "", "has no column pair_id or row, and none that the data's rows have too"),
        ("a.csv", "who,judge\nn00000,1\n", "has no column pair_id or row, and none that the data's rows have too"),
        ("a.csv", "id\nn00000\n", "has no column besides id, so no signal"),
        ("a.csv", "row,pair_id\n0,x\n", "has no column besides pair_id, so no signal"),
        ("a.csv", "id,judge\n", "no id in it is one of the run's pairs"),
        ("a.csv", "id,judge\nx,1\ny,2\n", "no id in it is one of the run's pairs"),
        ("a.csv", "id,judge\nn00000,1\nn00000,2\n", "id 'n00000' stands there twice"),
        ("a.csv", "row,judge\n1,1\n1,1\n", "row '1' stands there twice"),
        ("a.csv", "id,judge\nn00000,maybe\n", "judge has 'maybe', neither a number nor a verdict"),
        ("a.jsonl", '{"id": "n00000", "judge": true}\n', "judge has 'true', neither a number nor a verdict"),
        ("a.jsonl", '{"id": "n00000", "judge": [1, 2]}\n', "neither a number nor a verdict"),
        ("a.csv", "id,margin\nn00000,1\n", "the run has a column 'margin' already: rename it"),
        ("a.csv", "id,Margin\nn00000,1\n", "the run has a column 'Margin' already: rename it"),
        ("a.csv", "id,p_flip\nn00000,1\n", "the run has a column 'p_flip' already: rename it"),
        ("a.csv", "id,fused\nn00000,1\n", "the run has a column 'fused' already: rename it"),
        ("a.parquet", "garbage", "cannot be read"),
        ("a.jsonl", "{garbage", "cannot be read"),
        ("a.jsonl", "[1, 2]\n", "none that the data's rows have too"),
        ("a.csv", "\x00\x01\x02,\x03", ""),
        ("a.csv", '"a""b",judge\n1,2\n', "none that the data's rows have too"),
    ],
)
def test_a_file_at_fault_is_named_in_one_line(run, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as caught:
        read(run, tmp_path / name, reserved=RESERVED)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_name_of_two_files(run, tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text("id,judge\nn00000,1\n")
    with pytest.raises(InputError, match=r"b\.csv: the run has a column 'judge' already: rename it"):
        read(run, tmp_path / "a.csv", tmp_path / "b.csv")
