"""Whatever a user may get wrong: exit code 1, one line that says what, where and what to do; what was done is kept."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from curate import ComputeConfig, IngestConfig, Run, ScoreConfig, WeighConfig, ingest, score, weigh
from curate.schema import SCHEMA_VERSION

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "data" / "demo.jsonl"
LINES = DEMO.read_text(encoding="utf-8").splitlines(keepends=True)[:20]
PROGRESS = re.compile(r".+: \w+, since .+|--max-length \d+ is more than .+|scoring(:| \d+ pairs) .+")


def curate(*args, under=(), **environment):
    command = [*under, sys.executable, "-m", "curate", *map(str, args)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, capture_output=True, encoding="utf-8", env=environment)


def fault(*args, **options):
    """The one line that a command ends with."""
    done = curate(*args, **options)
    *progress, line = done.stderr.splitlines() or [""]
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert line.startswith("curate: "), done.stderr
    assert [said for said in progress if not PROGRESS.fullmatch(said)] == []
    return line.removeprefix("curate: ")


def contents(folder):
    """All files of a run and their bytes."""
    files = [path for path in Path(folder).rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def data(tmp_path):
    """A file of twenty pairs."""
    (tmp_path / "data.jsonl").write_text("".join(LINES), encoding="utf-8")
    return tmp_path / "data.jsonl"


@pytest.fixture
def read(tmp_path, data):
    """A run that holds these pairs."""
    ingest(IngestConfig((str(data),)), Run.create(tmp_path / "run"))
    return tmp_path / "run"


@pytest.fixture(scope="module")
def done(tmp_path_factory, tiny_policy):
    """A run with all stages done."""
    run = Run.create(tmp_path_factory.mktemp("faults") / "run")
    ingest(IngestConfig((str(DEMO),), limit=4), run)
    score(run, ScoreConfig(policy=str(tiny_policy), max_length=512, max_prompt_length=448), ComputeConfig(device="cpu"))
    weigh(run, WeighConfig())
    return run.path


@pytest.fixture(scope="module")
def unprivileged():
    """What to put before a command so that file permissions bind it, which they don't where tests run as root."""
    if os.geteuid() != 0:
        return []
    under = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    if not shutil.which("setpriv") or subprocess.run([*under, "true"], capture_output=True).returncode:
        pytest.skip("root cannot give up its right to read everything here (setpriv)")
    return under


# --- data ---


def damage_line_7(good):
    lines = good.splitlines(keepends=True)
    return b"".join([*lines[:6], lines[6][:-3] + b"\n", *lines[7:]])


def parquet(tmp_path):
    path = tmp_path / "good.parquet"
    pd.DataFrame([json.loads(line) for line in LINES]).to_parquet(path)
    good = path.read_bytes()
    path.unlink()
    return good


DAMAGES = {
    "empty": ("jsonl", lambda good: b"", r": the file is empty; it holds no row"),
    "blank": ("jsonl", lambda good: b"\n \n", r": the file is empty; it holds no row"),
    "broken JSON": (
        "jsonl",
        damage_line_7,
        r", line 7, column \d+: broken JSON \(Unterminated string .*\); mend or delete this line",
    ),
    "cut off": (
        "jsonl",
        lambda good: good[:-9],
        r", line 20, column \d+: broken JSON \(.+\); mend or delete this line",
    ),
    "no object": (
        "jsonl",
        lambda good: good + b"[1]\n",
        r", line 21: a row must be a JSON object, found list",
    ),
    "not UTF-8": (
        "jsonl",
        lambda good: good + '{"prompt": "é"}\n'.encode("latin-1"),
        r", line 21: not UTF-8; save the file as UTF-8",
    ),
    "UTF-16": ("jsonl", lambda good: good.decode().encode("utf-16"), r", line 1: not UTF-8; save the file as UTF-8"),
    "truncated gzip": (
        "jsonl.gz",
        lambda good: good[: len(good) // 2],
        r": cannot be read \(Compressed file ended .+\); is the file whole\?",
    ),
    "not gzip": (
        "jsonl.gz",
        lambda good: gzip.decompress(good),
        r": cannot be read \(Not a gzipped file .+\); is the file whole\?",
    ),
    "truncated Parquet": (
        "parquet",
        lambda good: good[:-20],
        r": cannot be read \(Parquet magic bytes not found .+\); is the file whole\?",
    ),
    "broken Parquet": (
        "parquet",
        lambda good: good[:400] + bytes(400) + good[800:],
        r": cannot be read \(.+\); is the file whole\?",
    ),
    "no Parquet": ("parquet", lambda good: b"PAR1", r": cannot be read \(.+\); is the file whole\?"),
    "ragged CSV": (
        "csv",
        lambda good: good + b"only,two\n",
        r", line 5: 2 fields where the header has 3; mend this line",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_data(tmp_path, name):
    """A run that was made from the file when it was whole stays as it was, and goes on once it is whole again."""
    suffix, harm, message = DAMAGES[name]
    file, run = tmp_path / f"data.{suffix}", tmp_path / "run"
    text = "".join(LINES).encode()
    whole = {
        "jsonl": lambda: text,
        "jsonl.gz": lambda: gzip.compress(text),
        "parquet": lambda: parquet(tmp_path),
        "csv": lambda: b"prompt,chosen,rejected\np,c,r\np,c,s\np,c,t\n",
    }[suffix]()
    file.write_bytes(whole)
    ingest(IngestConfig((str(file),)), Run.create(run))
    before = contents(run)
    file.write_bytes(harm(whole))
    assert re.fullmatch(re.escape(str(file)) + message, fault("ingest", file, "-o", run))
    assert contents(run) == before
    file.write_bytes(whole)
    assert curate("ingest", file, "-o", run).returncode == 0
    assert contents(run) == before


def test_a_missing_column(tmp_path, data):
    file = tmp_path / "short.jsonl"
    file.write_text('{"prompt": "p", "chosen": "c"}\n')
    assert fault("ingest", file, "-o", tmp_path / "run") == (
        f"{file}: no known preference format (columns: prompt, chosen); name them with "
        "--columns prompt=…,chosen=…,rejected=… (curate formats lists what is known)"
    )
    expected = f"{file}: no column 'rejected'; it has prompt, chosen"
    assert fault("ingest", file, "-o", tmp_path / "run", "--format", "trl_standard") == expected
    columns = "prompt=prompt,chosen=chosen,rejected=worse"
    assert fault("ingest", data, "-o", tmp_path / "run", "--columns", columns).startswith(f"{data}: no column 'worse'")


def test_no_row_becomes_a_pair(tmp_path):
    file = tmp_path / "numbers.jsonl"
    file.write_text('{"prompt": "p", "chosen": 1, "rejected": 2}\n' * 3)
    assert fault("ingest", file, "-o", tmp_path / "run", "--format", "trl_standard") == (
        f"{file}: read as trl_standard, none of the 3 rows became a pair, most often (3×) because "
        "chosen is a number (1), not text; choose another --format, or name the --columns"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.jsonl", "no such file or folder"),
        ("none*.jsonl", "no file matches"),
        ("hollow", "the folder holds no .parquet, .arrow, .json, .jsonl, .ndjson, .csv, .tsv file"),
        ("notes.txt", "unknown kind of file; curate reads .parquet, .arrow, .json, .jsonl, .ndjson, .csv, .tsv, "),
    ],
)
def test_nothing_to_read(tmp_path, name, message):
    (tmp_path / "hollow").mkdir()
    (tmp_path / "notes.txt").touch()
    assert fault("ingest", tmp_path / name, "-o", tmp_path / "run").startswith(f"{tmp_path / name}: {message}")


def test_a_file_given_twice(tmp_path, data):
    assert fault("ingest", data, tmp_path, "-o", tmp_path / "run") == f"{data}: given twice; name each file once"


def test_a_name_that_is_not_utf8(tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff.jsonl"
    try:
        with open(name, "w", encoding="utf-8") as stream:
            stream.writelines(LINES)
    except OSError:
        pytest.skip("this file system takes no such name")
    message = fault("ingest", os.fsdecode(name), "-o", tmp_path / "run")
    assert message == rf"{tmp_path}/\udcff.jsonl: the name is not UTF-8; rename the file"


def test_unreadable_data(tmp_path, read, data, unprivileged):
    before = contents(read)
    data.chmod(0)
    message = fault("ingest", data, "-o", read, under=unprivileged)
    assert message == f"{data}: permission denied; make the file readable"
    assert contents(read) == before


def test_an_unreadable_folder_is_not_passed_over(tmp_path, unprivileged):
    for name in ("open", "locked"):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "a.jsonl").write_text("".join(LINES))
    (tmp_path / "in" / "locked").chmod(0)
    message = fault("ingest", tmp_path / "in", "-o", tmp_path / "run", under=unprivileged)
    (tmp_path / "in" / "locked").chmod(0o700)
    assert message == f"{tmp_path}/in/locked: cannot be read (Permission denied); make the folder readable"


# --- models ---


def test_models_that_are_none(tmp_path, done):
    before = contents(done)
    (tmp_path / "hollow").mkdir()
    for policy, message in {
        tmp_path / "hollow": "the folder holds no model (no config.json)",
        tmp_path / "none": "no such folder; --policy takes a folder, a hub id or a GGUF file",
    }.items():
        assert fault("score", done, "--policy", policy).startswith(f"{policy}: {message}")
    assert contents(done) == before


def test_a_hub_id_without_a_network(done):
    before = contents(done)
    message = fault("score", done, "--policy", "nobody/nothing", HF_HUB_OFFLINE="1")
    assert message.startswith("nobody/nothing: cannot be loaded: ")
    assert "offline" in message.lower() or "disabled" in message
    assert contents(done) == before


def test_policy_and_reference_with_other_vocabularies(tmp_path, done, tiny_policy, tiny_reference):
    from transformers import AutoTokenizer

    other = shutil.copytree(tiny_reference, tmp_path / "other")
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.add_tokens(["<|more|>"])
    tokenizer.save_pretrained(other)
    before = contents(done)
    assert fault("score", done, "--policy", tiny_policy, "--reference", other) == (
        f"policy {tiny_policy} and reference {other} have different tokenizers, "
        "so their log-probs are not comparable; choose a reference with the policy's tokenizer"
    )
    assert contents(done) == before


def test_float16_on_a_cpu(done, tiny_policy):
    message = fault("score", done, "--policy", tiny_policy, "--device", "cpu", "--dtype", "float16")
    assert message == "--dtype float16 is for GPUs (on a CPU it is slower and less exact): use float32"


def test_an_audit_keeps_what_it_read_before_the_model_failed(tmp_path, data):
    run = tmp_path / "run"
    message = fault("audit", data, "-o", run, "--policy", tmp_path)
    assert message == f"{tmp_path}: the folder holds no model (no config.json)"
    assert list(Run.open(run).manifest()["stages"]) == ["ingest"]
    assert len(pd.read_parquet(run / "pairs")) == 20


# --- settings ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--beta 0", "--beta is 0.0: it must be positive"),
        ("--beta nan", "--beta is nan: it must be positive"),
        ("--tau -1", "--tau is -1.0: it must be positive"),
        ("--tau inf", "--tau is inf: it must be positive"),
        ("--gamma-beta-ratio 0", "--gamma-beta-ratio is 0.0: it must be positive"),
        ("--margin ipo", "--margin is 'ipo': choose one of auto, dpo, dpo_norm, simpo"),
        (
            "--margin dpo",
            "this margin needs a reference model: score with --reference, or use --margin simpo",
        ),
    ],
)
def test_impossible_weights(done, options, message):
    before = contents(done)
    assert fault("weigh", done, *options.split()) == message
    assert contents(done) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--beta nan", "--beta is nan: it must be positive"),
        ("--limit 0", "--limit is 0: it must be positive"),
        ("--shard-pairs 0", "--shard-pairs is 0: it must be positive"),
        ("--batch-tokens -5", "--batch-tokens is -5: it must be positive"),
        ("--dtype int8", "--dtype is 'int8': choose one of auto, float32, tf32, float16, bfloat16"),
        ("--device tpu", "--device is 'tpu': choose one of auto, cpu, cuda"),
        ("--engine spark", "--engine is 'spark': choose one of local, ray"),
        (
            "--max-length 64 --max-prompt-length 64",
            "--max-prompt-length 64 leaves no room for a completion within --max-length 64",
        ),
        ("--address here:1", "--address is a Ray cluster's: it needs --engine ray"),
        (
            "--format hh_rlhf --columns prompt=p,chosen=c,rejected=r",
            "--format and --columns are two ways to say how to read a file: give one of them",
        ),
        (
            "--label-values a=1,b=2",
            "--label-values belongs to --columns response_a=…,response_b=…,label=…",
        ),
    ],
)
def test_impossible_audits_touch_nothing(tmp_path, data, options, message):
    assert fault("audit", data, "-o", tmp_path / "run", *options.split()) == message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ("--format none", "--format none: unknown; choose one of trl_standard, "),
        ("--columns prompt=p,best=c", "--columns: unknown name 'best'; known are prompt, chosen, "),
        ("--columns prompt=p,chosen=c", "--columns: name either prompt, chosen and rejected, or "),
    ],
)
def test_impossible_readings(tmp_path, data, options, start):
    assert fault("ingest", data, "-o", tmp_path / "run", *options.split()).startswith(start)


# --- runs ---


@pytest.mark.parametrize("command", ["ingest", "score", "weigh", "show"])
def test_a_run_of_another_schema_version(read, data, command):
    manifest = json.loads((read / "manifest.json").read_text())
    assert manifest["schema_version"] == SCHEMA_VERSION
    (read / "manifest.json").write_text(json.dumps({**manifest, "schema_version": SCHEMA_VERSION + 1}))
    before = contents(read)
    args = [data, "-o", read] if command == "ingest" else [read]
    assert fault(command, *args) == (
        f"{read}: made by schema version {SCHEMA_VERSION + 1}, this is version {SCHEMA_VERSION}; "
        "use the curate that made it, or start a new run with -o"
    )
    assert contents(read) == before


def test_a_damaged_manifest(read, data):
    (read / "manifest.json").write_text('{"schema_version": 1,\n"sta')
    for args in (["show", read], ["ingest", data, "-o", read]):
        message = fault(*args)
        assert message.startswith(f"{read}/manifest.json: damaged (")
        assert message.endswith("); start a new run with -o")


def test_stages_out_of_order(tmp_path, read):
    assert fault("weigh", read) == f"{read}: the stage score is not done; run curate score {read}"
    (tmp_path / "none").mkdir()
    for command in ("weigh", "show"):
        assert fault(command, tmp_path / "none").startswith(f"{tmp_path}/none: not a run (no manifest.json); make one")


def test_other_data(tmp_path, read, data):
    other = tmp_path / "other.jsonl"
    other.write_text(LINES[3])
    before = contents(read)
    message = fault("ingest", other, "-o", read)
    assert message == f"{read}: this run holds {data}; choose another folder with -o, or say --replace"
    assert contents(read) == before


# --- where to write ---


@pytest.mark.parametrize(
    ("below", "hint"),
    [
        ("", "a file of this name is in the way: choose another folder"),
        ("/run", "a part of this path is a file, not a folder: choose another folder"),
    ],
)
def test_a_file_where_the_run_should_be(tmp_path, data, below, hint):
    (tmp_path / "file").write_text("mine")
    place = f"{tmp_path}/file{below}"
    message = fault("ingest", data, "-o", place)
    assert message == f"{place}: {hint}, then run the same command again; what is done is kept"
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_of_something_else(tmp_path, data):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "pairs").mkdir()
    (tmp_path / "thesis" / "pairs" / "mine.tex").write_text("mine")
    message = fault("ingest", data, "-o", tmp_path / "thesis")
    assert message == f"{tmp_path}/thesis: the folder is not empty and not a run; choose another with -o"
    assert contents(tmp_path / "thesis") == {"pairs/mine.tex": b"mine"}


def test_a_folder_that_may_not_be_written_to(tmp_path, read, data, unprivileged):
    hint = "permission denied: choose a folder that you may write to, then run the same command again"
    before = contents(read)
    (tmp_path / "shelf").mkdir()
    for folder in (read, tmp_path / "shelf"):
        folder.chmod(0o500)
    anew = fault("ingest", data, "-o", tmp_path / "shelf" / "run", under=unprivileged)
    again = fault("ingest", data, "-o", read, "--limit", 3, under=unprivileged)
    for folder in (read, tmp_path / "shelf"):
        folder.chmod(0o700)
    assert anew == f"{tmp_path}/shelf/run: {hint}; what is done is kept"
    assert again == f"{read}/pairs: {hint}; what is done is kept"
    assert contents(read) == before


# --- a full disk ---


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here (it takes root and the right to mount)")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk, but):
    """Leave so many bytes free."""
    (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - but))


def test_a_full_disk(tmp_path, small_disk, data, tiny_policy):
    """Reading stops without a trace; scoring keeps its finished shards; both go on when there is room again."""
    run, filler = small_disk / "run", small_disk / "filler"
    hint = "the disk is full: free some space, then run the same command again; what is done is kept"
    command = ["audit", data, "-o", run, "--policy", tiny_policy, "--shard-pairs", 2, "--no-features"]

    fill(small_disk, but=16 << 10)
    assert re.fullmatch(rf"{run}/\S+: {hint}", fault("ingest", data, "-o", run))
    assert Run.open(run).manifest()["stages"] == {}
    assert set(contents(run)) == {"manifest.json"}

    filler.unlink()
    ingest(IngestConfig((str(data),)), Run.create(run))
    fill(small_disk, but=24 << 10)
    assert re.fullmatch(rf"{run}/scores/\S+: {hint}", fault(*command))
    assert list(Run.open(run).manifest()["stages"]) == ["ingest"]
    kept = contents(run)
    shards = sorted(name for name in kept if name.startswith("scores/"))
    assert [Path(name).name for name in shards] == [f"{number:05d}.parquet" for number in range(len(shards))]
    assert 0 < len(shards) < 10

    filler.unlink()
    done = curate(*command)
    assert done.returncode == 0, done.stderr
    after = contents(run)
    assert {name: after[name] for name in shards} == {name: kept[name] for name in shards}
    assert pd.read_parquet(run / "weights.parquet")["weight"].notna().all()

    undisturbed = Run.create(tmp_path / "undisturbed")
    ingest(IngestConfig((str(data),)), undisturbed)
    settings = ScoreConfig(policy=str(tiny_policy), shard_pairs=2, features=False)
    score(undisturbed, settings, ComputeConfig(device="cpu"))
    pd.testing.assert_frame_equal(
        pd.read_parquet(run / "scores.parquet"), pd.read_parquet(undisturbed.scores_path), rtol=1e-9
    )
