"""What is trained on: a file's columns, a run's diagnosis and weights, tokens, and the pairs as batches are made of."""

import json
import math
import pickle
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from curate import engines, models
from curate.config import ComputeConfig, ScoreConfig
from curate.errors import ConfigError, InputError, RunError
from curate.pairs import ingest
from curate.schema import DIAGNOSIS, WEIGHTS
from curate.store import DIAGNOSED, Run, write_table
from curate.tokens import Encoder
from curate.view import RunView
from training.config import TrainConfig
from training.data import (
    EMPTY_SIDE,
    NO_REFERENCE,
    NO_WEIGHT,
    SAME_TOKENS,
    PairColumns,
    Pairs,
    columns_of_file,
    columns_of_run,
    prepare,
)
from training.references import with_reference
from training.treatments import DROPPED_DEFECTIVE, DROPPED_FLIPPED, TIE, as_labelled

quick = settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])

BARE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"  # nothing closes an answer
VOTES = {"columns": {"prompt": "p", "response_a": "a", "response_b": "b", "label": "won"}}
WON = {"a": "left", "b": "right", "tie": "tie"}
LLAMA = {"margin": "simpo", "beta": 10.0, "gamma0": 4.0, "tau": 10.0}  # as γ-PO's weights are written down


def rows(count, **columns):
    """Pairs with short texts of their own, and columns: lists of values, of which None stands for none."""
    made = [{"prompt": f"p{at}", "chosen": f"c{at}", "rejected": f"r{at}!"} for at in range(count)]
    return [{**row, **{name: values[at] for name, values in columns.items()}} for at, row in enumerate(made)]


def write(path, pairs, metadata=None):
    """The pairs as JSON lines, Parquet or CSV, by the path's suffix; metadata: of the Parquet file's footer."""
    if path.suffix == ".parquet":
        table = pa.Table.from_pylist(pairs)
        footer = None if metadata is None else {b"curate": json.dumps(metadata).encode()}
        pq.write_table(table.replace_schema_metadata(footer), path)
    elif path.suffix == ".csv":
        pd.DataFrame(pairs).to_csv(path, index=False)
    else:
        path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    return path


@pytest.fixture
def read(tmp_path):
    """A function that reads pairs into a run."""

    def make(pairs, name="data.jsonl", metadata=None, **reading):
        path = write(tmp_path / name, pairs, metadata)
        run = Run.create(tmp_path / f"run-{len(list(tmp_path.iterdir()))}")
        ingest(TrainConfig(**reading).ingest(str(path)), run)
        return run

    return make


@pytest.fixture(scope="module")
def tokenizer(tiny_policy):
    return AutoTokenizer.from_pretrained(tiny_policy)


def encoder(tokenizer, template="chat", *, max_length=400, max_prompt_length=350):
    return Encoder(tokenizer, template, max_length=max_length, max_prompt_length=max_prompt_length)


def text(tokenizer, ids):
    return tokenizer.decode(ids, clean_up_tokenization_spaces=False)


# --- a file's columns ---


@pytest.mark.parametrize("name", ["data.jsonl", "data.parquet", "data.csv"])
def test_columns_of_a_file(read, name):
    columns = {
        "weight": [1.5, 0.0, 2],
        "p_flip": [0.25, None, 1.0],
        "target_margin": [3.0, None, 5.0],
        "ref_chosen_logps": [-1.5, None, -3e-5],
        "ref_rejected_logps": [-2.0, -4.0, -1e9],
    }
    found = columns_of_file(read(rows(3, **columns), name), TrainConfig())
    assert found.treated.weight_N.tolist() == [1.5, 0.0, 2.0]
    assert found.treated.p_flip_N.tolist() == [0.25, 0.0, 1.0]
    assert (found.treated.dropped_N.tolist(), found.treated.swap_N.any()) == (["", "", ""], False)
    np.testing.assert_equal(found.target_margin_N, [3.0, np.nan, 5.0])
    np.testing.assert_equal(found.reference_N2, [[-1.5, -2.0], [np.nan, -4.0], [-3e-5, -1e9]])
    assert found.scored_tokens_N2 is None


@pytest.mark.parametrize("nothing", [{}, {"weight": [None] * 2, "p_flip": [None] * 2, "target_margin": [None] * 2}])
def test_a_file_without_columns(read, nothing):
    found = columns_of_file(read(rows(2, **nothing)), TrainConfig())
    assert (found.treated.weight_N.tolist(), found.treated.p_flip_N.tolist()) == ([1.0, 1.0], [0.0, 0.0])
    assert (found.target_margin_N, found.reference_N2) == (None, None)


def test_one_side_of_the_reference_is_refused(read):
    with pytest.raises(InputError, match=r"data\.jsonl: the other column is there, but no ref_rejected_logps"):
        columns_of_file(read(rows(1, ref_chosen_logps=[-1.0])), TrainConfig())


@quick
@given(st.lists(st.tuples(st.floats(0, 1e6), st.none() | st.floats(0, 1)), min_size=1, max_size=5))
def test_any_numbers_come_back(tmp_path_factory, found):
    weights, p_flips = zip(*found, strict=True)
    folder = tmp_path_factory.mktemp("numbers")
    path = write(folder / "data.jsonl", rows(len(found), weight=weights, p_flip=p_flips))
    ingest(TrainConfig().ingest(str(path)), run := Run.create(folder / "run"))
    columns = columns_of_file(run, TrainConfig())
    assert columns.treated.weight_N.tolist() == list(weights)
    assert columns.treated.p_flip_N.tolist() == [p_flip or 0.0 for p_flip in p_flips]


WEIGHT, SHARE, NUMBER = "it must be a finite number, 0 or more", "it must be 0 to 1", "it must be a number"


@pytest.mark.parametrize("name", ["data.jsonl", "data.parquet"])
@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("weight", -0.5, f"weight is -0.5: {WEIGHT}"),
        ("weight", math.nan, f"weight is NaN: {WEIGHT}"),
        ("weight", math.inf, f"weight is Infinity: {WEIGHT}"),
        ("weight", None, f"weight is missing: {WEIGHT}"),
        ("p_flip", 1.5, f"p_flip is 1.5: {SHARE}"),
        ("p_flip", -0.1, f"p_flip is -0.1: {SHARE}"),
    ],
)
def test_a_number_that_is_none_names_file_and_line(read, name, column, value, message):
    run = read(rows(4, **{column: [0.5, 0.5, value, value]}), name)
    with pytest.raises(InputError) as caught:
        columns_of_file(run, TrainConfig())
    file = run.require("ingest")["inputs"][0]["path"]
    assert str(caught.value) == f"{file}, line 3: {message}"


@pytest.mark.parametrize(
    ("column", "value", "shown"),
    [
        ("weight", "high", "high"),
        ("p_flip", True, "true"),
        ("target_margin", [1.0], "[1.0]"),
        ("ref_chosen_logps", {"a": 1}, '{"a":1}'),
        ("ref_rejected_logps", "-1,5", "-1,5"),
    ],
)
def test_what_is_no_number_names_file_and_line(read, column, value, shown):
    run = read(rows(3, **{column: [0.5, value, value]}))
    with pytest.raises(InputError) as caught:
        columns_of_file(run, TrainConfig())
    file = run.require("ingest")["inputs"][0]["path"]
    assert str(caught.value).replace(" ", "") == f"{file},line2:{column}is{shown!r}:{NUMBER}".replace(" ", "")


def test_numbers_as_text_are_numbers(read):
    """CSV knows nothing else, and an empty field is none."""
    run = read(rows(2, weight=[" 1.5", "2e0"], p_flip=["", "0.5"]), "data.csv")
    found = columns_of_file(run, TrainConfig())
    assert (found.treated.weight_N.tolist(), found.treated.p_flip_N.tolist()) == ([1.5, 2.0], [0.0, 0.5])


def test_nan_is_none_where_a_pair_may_have_none(read):
    columns = {"p_flip": [math.nan, 0.5], "target_margin": [math.nan, 4.0], "ref_chosen_logps": [-1.0, math.nan]}
    run = read(rows(2, **columns, ref_rejected_logps=[-2.0, -2.0]), "data.parquet")
    found = columns_of_file(run, TrainConfig())
    assert found.treated.p_flip_N.tolist() == [0.0, 0.5]
    np.testing.assert_equal(found.target_margin_N, [np.nan, 4.0])
    np.testing.assert_equal(found.reference_N2, [[-1.0, -2.0], [np.nan, -2.0]])


def test_a_tie_needs_no_weight(read):
    pairs = [{"p": "p", "a": "x", "b": "y", "won": won, "weight": w} for won, w in (("left", 2), ("tie", None))]
    found = columns_of_file(read(pairs, **VOTES, label_values=WON), TrainConfig())
    assert found.treated.weight_N.tolist() == [2.0, 0.0]


def test_refused_rows_do_not_shift_the_columns(read):
    pairs = rows(4, weight=[1, 2, 3, 4])
    pairs[1]["chosen"] = 5
    assert columns_of_file(read(pairs, format="trl_standard"), TrainConfig()).treated.weight_N.tolist() == [1, 3, 4]


def test_a_pair_id_must_be_that_of_the_texts(read):
    pairs = rows(3)
    ids = read(pairs).read_pairs(0, 3, ["pair_id"])["pair_id"].to_pylist()
    named = [{"pair_id": name, **pair} for name, pair in zip(ids, pairs, strict=True)]
    assert columns_of_file(read(named), TrainConfig()).treated.weight_N.tolist() == [1, 1, 1]
    run = read([named[0], {**named[1], "chosen": "edited"}, named[2]])
    with pytest.raises(InputError, match=rf"data\.jsonl, line 2: pair_id '{ids[1]}' is not that of its texts, .*again"):
        columns_of_file(run, TrainConfig())


# --- target margins of a file ---

SIMPO = {"loss": "gamma_simpo", "beta": 10.0, "gamma_beta_ratio": 0.4}


@pytest.mark.parametrize(
    ("made", "settings", "message"),
    [
        (LLAMA, SIMPO, None),
        (LLAMA | {"tau": 3.0}, SIMPO, None),
        (None, SIMPO, None),
        (LLAMA, {"loss": "simpo", "beta": 10.0, "gamma_beta_ratio": 0.4, "targets": "column"}, None),
        (LLAMA | {"margin": "dpo_norm"}, SIMPO, r"\(margin dpo_norm instead of simpo\)"),
        (LLAMA | {"beta": 2.5}, SIMPO, r"\(beta 2\.5 instead of 10\)"),
        (
            LLAMA,
            SIMPO | {"gamma_beta_ratio": 0.5},
            r"\(gamma0 4\.0 instead of 5\): weigh with .* --gamma-beta-ratio 0\.5",
        ),
        ({"margin": "simpo"}, SIMPO, r"\(beta None instead of 10, gamma0 None instead of 4\)"),
        (LLAMA, {"loss": "gamma_dpo"}, "margin simpo instead of dpo_norm.*: weigh with --margin dpo_norm --beta 10 "),
    ],
)
def test_target_margins_say_for_which_loss_they_are(read, capsys, made, settings, message):
    """Those of another loss are refused where they are asked for; else γ is computed online, and that is said."""
    footer = None if made is None else {"target_margin": made}
    run = read(rows(3, target_margin=[3.5, 4.0, None]), "data.parquet", footer)
    if message is None:
        np.testing.assert_equal(columns_of_file(run, TrainConfig(**settings)).target_margin_N, [3.5, 4.0, np.nan])
    else:
        with pytest.raises(ConfigError, match=rf"target_margin was made for another loss .*{message}"):
            columns_of_file(run, TrainConfig(**settings, targets="column"))
        assert columns_of_file(run, TrainConfig(**settings)).target_margin_N is None
        assert re.search(
            rf"online; those of the pairs suit another loss .*{message.split(':')[0]}", capsys.readouterr().err
        )


def test_an_export_in_the_sources_own_schema_brings_its_weights_and_soft_labels(read):
    """What is usual is not written beside a pair."""
    pairs = [
        {**row, **more} for row, more in zip(rows(3), ({}, {"curate_weight": 0.5}, {"curate_p_flip": 0.2}), strict=True)
    ]
    treated = columns_of_file(read(pairs), TrainConfig()).treated
    assert (treated.weight_N.tolist(), treated.p_flip_N.tolist()) == ([1, 0.5, 1], [0, 0, 0.2])


@pytest.mark.parametrize(("mean", "fits"), [(2.01, True), (7.99, True), (1.99, False), (8.01, False), (-4, False)])
def test_target_margins_of_another_run_are_known_by_their_mean(read, mean, fits):
    run = read(rows(3, target_margin=[mean - 0.5, mean + 0.5, None]))
    if fits:
        assert np.nanmean(columns_of_file(run, TrainConfig()).target_margin_N) == pytest.approx(mean)
    else:
        message = rf"target_margin has mean {mean:.3g}, but this loss's γ0 is 4, so it is of another run or loss: weigh"
        with pytest.raises(ConfigError, match=message):
            columns_of_file(run, TrainConfig())


@pytest.mark.parametrize("settings", [{"loss": "dpo"}, {"targets": "online"}, {"loss": "simpo"}], ids=str)
def test_target_margins_that_are_not_used_are_not_checked(read, settings):
    run = read(rows(1, target_margin=[99.0]), "data.parquet", {"target_margin": LLAMA})
    assert columns_of_file(run, TrainConfig(**settings)).target_margin_N is None


@pytest.mark.parametrize(
    "columns", [{}, {"target_margin": [None, None]}, {"target_margin": [math.nan, math.nan]}], ids=str
)
def test_the_column_that_was_asked_for_is_missing(read, columns):
    run = read(rows(2, **columns))
    assert columns_of_file(run, TrainConfig()).target_margin_N is None
    with pytest.raises(ConfigError, match=r"targets is 'column', but the pairs have no target_margin: weigh with"):
        columns_of_file(run, TrainConfig(targets="column"))


# --- a run's columns ---

KINDS = ["clean", "flipped", "defective", "flipped", "ambiguous", "unresolved"]
P_FLIP = [0.1, 0.9, 0.95, 0.6, 0.5, None]


@pytest.fixture(scope="module")
def diagnosed(tmp_path_factory):
    """A run of six pairs whose weights and diagnosis were written by hand. Not to be changed."""
    folder = tmp_path_factory.mktemp("diagnosed")
    run = Run.create(folder / "run")
    ingest(TrainConfig().ingest(str(write(folder / "data.jsonl", rows(6)))), run)
    keys = run.read_pairs(0, 6, ["pair_id", "row"])
    columns = {"pair_id": keys["pair_id"], "row": keys["row"]}
    gammas = {"margin": pa.array(GAMMA), "target_margin": pa.array(GAMMA), "weight": pa.array(GAMMA)}
    write_table(run.weights_path, pa.table(columns | gammas, schema=WEIGHTS))
    run.record("weigh", "by hand", LLAMA)
    nothing = {name: pa.nulls(6, DIAGNOSIS.field(name).type) for name in DIAGNOSIS.names}
    found = nothing | columns | {"kind": pa.array(KINDS), "p_flip": pa.array(P_FLIP)}
    for name in DIAGNOSED:
        write_table(run.table_path(name), pa.table(found, schema=DIAGNOSIS))
    run.record("diagnose", "by hand", {})
    return run


GAMMA = [4.5, 3.0, None, 4.0, 5.0, 3.5]
FLIPPED, DEFECTIVE = DROPPED_FLIPPED, DROPPED_DEFECTIVE
ONES, NONE = [1.0] * 6, [0.0] * 6


@pytest.mark.parametrize(
    ("treat", "dropped", "swap", "weight", "p_flip"),
    [
        ("auto", ["", FLIPPED, DEFECTIVE, FLIPPED, "", ""], NONE, ONES, NONE),
        ("drop", ["", FLIPPED, DEFECTIVE, FLIPPED, "", ""], NONE, ONES, NONE),
        ("flip", ["", "", DEFECTIVE, "", "", ""], [0, 1, 0, 1, 0, 0], ONES, NONE),
        ("soft", ["", "", DEFECTIVE, "", "", ""], NONE, ONES, [0.1, 0.9, 0.95, 0.6, 0.5, 0.0]),
        ("weights", ["", "", DEFECTIVE, "", "", ""], NONE, [0.8, 0, 0, 0, 0, 1], NONE),
        ("gamma", ["", "", DEFECTIVE, "", "", ""], NONE, ONES, NONE),
        ("raw", [""] * 6, NONE, ONES, NONE),
    ],
)
def test_a_run_under_every_treatment(diagnosed, treat, dropped, swap, weight, p_flip):
    found = columns_of_run(diagnosed, TrainConfig(treat=treat)).treated
    assert found.dropped_N.tolist() == dropped
    assert found.swap_N.tolist() == [bool(it) for it in swap]
    np.testing.assert_allclose(found.weight_N, weight, atol=1e-12)
    assert found.p_flip_N.tolist() == p_flip


def test_a_run_that_is_not_diagnosed(read):
    run = read(rows(2))
    with pytest.raises(RunError, match=rf"{run.path}: not diagnosed yet: run curate diagnose .* or .*--treat raw"):
        columns_of_run(run, TrainConfig())
    assert columns_of_run(run, TrainConfig(treat="raw")).treated.weight_N.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("settings", "used"),
    [
        ({"loss": "gamma_simpo"}, True),
        ({"loss": "gamma_simpo", "tau": 3.0}, True),
        ({"loss": "gamma_simpo", "targets": "online"}, False),
        ({"loss": "gamma_simpo", "beta": 5.0}, False),
        ({"loss": "gamma_dpo"}, False),  # of another margin
        ({"loss": "simpo"}, False),
        ({"loss": "simpo", "beta": 10.0, "gamma_beta_ratio": 0.4, "targets": "column"}, True),
    ],
    ids=str,
)
def test_target_margins_of_a_run(diagnosed, settings, used):
    """Where they are for another loss, γ is computed online."""
    found = columns_of_run(diagnosed, TrainConfig(**settings)).target_margin_N
    raw = columns_of_run(diagnosed, TrainConfig(treat="raw", **settings)).target_margin_N
    np.testing.assert_equal(raw, found)
    if used:
        np.testing.assert_equal(found, [4.5, 3.0, np.nan, 4.0, 5.0, 3.5])
    else:
        assert found is None


def test_target_margins_of_a_run_that_are_asked_for_must_fit(diagnosed, read):
    with pytest.raises(ConfigError, match=r"made for another loss \(margin simpo instead of dpo_norm\)"):
        columns_of_run(diagnosed, TrainConfig(targets="column"))
    with pytest.raises(ConfigError, match="targets is 'column', but the pairs have no target_margin"):
        columns_of_run(read(rows(1)), TrainConfig(treat="raw", targets="column"))


# --- the reference ---


@pytest.fixture(scope="module")
def scored(tmp_path_factory, tiny_policy, tiny_reference):
    """A run that a policy and a reference scored. Not to be changed."""
    folder = tmp_path_factory.mktemp("scored")
    run = Run.create(folder / "run")
    ingest(TrainConfig().ingest(str(write(folder / "data.jsonl", rows(5)))), run)
    lengths = {"max_length": 400, "max_prompt_length": 350}
    wanted = ScoreConfig(policy=str(tiny_policy), reference=str(tiny_reference), features=False, **lengths)
    engines.score(run, wanted, ComputeConfig(device="cpu"))
    return run


def lengths(**changes):
    return {"max_length": 400, "max_prompt_length": 350, "device": "cpu", **changes}


def stored(run, name):
    with RunView(run.path) as view:
        frame = view.table(
            "scores", [f"{name}_chosen_logp", f"{name}_rejected_logp", "chosen_tokens", "rejected_tokens"]
        )
    return frame.to_numpy(dtype=np.float64)


@pytest.mark.parametrize("name", ["policy", "reference"])
def test_reference_log_probs_of_a_runs_scores(scored, tmp_path, tiny_policy, tiny_reference, monkeypatch, name):
    monkeypatch.setattr(models, "load_model", None)
    model = {"policy": tiny_policy, "reference": tiny_reference}[name]
    for named in ({"model": str(model)}, {"model": str(tiny_policy), "reference": str(model)}):
        config = TrainConfig(**lengths(**named))
        found = with_reference(PairColumns(as_labelled(5)), scored, config, tmp_path / "data")
        np.testing.assert_array_equal(np.hstack([found.reference_N2, found.scored_tokens_N2]), stored(scored, name))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("other", [{"template": "raw"}, {"max_length": 390}, {"max_prompt_length": 340}], ids=str)
def test_scores_on_other_tokens_are_made_anew_elsewhere(scored, tmp_path, tiny_reference, other, monkeypatch):
    before = scored.manifest()
    config = TrainConfig(**lengths(model=str(tiny_reference), **other))
    found = with_reference(PairColumns(as_labelled(5)), scored, config, tmp_path / "data")
    forked = Run.open(tmp_path / "data")
    np.testing.assert_array_equal(found.reference_N2, stored(forked, "policy")[:, :2])
    if "template" not in other:  # nothing is cut either way
        np.testing.assert_allclose(found.reference_N2, stored(scored, "reference")[:, :2], rtol=1e-6)
    assert scored.manifest() == before
    monkeypatch.setattr(models, "load_model", None)
    again = with_reference(PairColumns(as_labelled(5)), scored, config, tmp_path / "data")
    np.testing.assert_array_equal(again.reference_N2, found.reference_N2)


def test_who_wins_where_the_file_has_log_probs_too(scored, tmp_path, tiny_policy, capsys):
    columns = PairColumns(as_labelled(5), reference_N2=np.full((5, 2), -1.0))
    of_file = with_reference(columns, scored, TrainConfig(**lengths(model=str(tiny_policy))), tmp_path / "data")
    assert (of_file.reference_N2.tolist(), of_file.scored_tokens_N2) == ([[-1.0, -1.0]] * 5, None)
    assert capsys.readouterr().err == "reference: log-probs of the file\n"
    named = TrainConfig(**lengths(model=str(tiny_policy), reference=str(tiny_policy)))
    found = with_reference(columns, scored, named, tmp_path / "data")
    np.testing.assert_array_equal(found.reference_N2, stored(scored, "policy")[:, :2])
    without = with_reference(columns, scored, TrainConfig(loss="simpo"), tmp_path / "data")
    assert without.reference_N2 is None


# --- tokens ---


def prepared(run, columns, tokenizer, path, template="chat", share=0.0, seed=42, **cut):
    made = prepare(run, columns, encoder(tokenizer, template, **cut), path, held_out_share=share, seed=seed)
    assert sum(made.counts.values()) == run.count_pairs()
    with pa.ipc.open_file(path) as file:
        table = file.read_all()
    assert len(table) == made.counts.get("trained", 0) + made.counts.get("held_out", 0)
    return made, table.to_pandas()


def test_pairs_as_tokens(read, tokenizer, tmp_path):
    run = read(rows(3, weight=[1, 2, 3], p_flip=[0, 0.5, 1], target_margin=[4.5, None, 3.5]))
    made, table = prepared(run, columns_of_file(run, TrainConfig()), tokenizer, tmp_path / "pairs.arrow")
    assert (made.counts, made.truncated, made.swapped) == ({"trained": 3}, 0, 0)
    assert [text(tokenizer, ids) for ids in table["prompt"]] == [
        f"<|user|>p{at}<|end|><|assistant|>" for at in range(3)
    ]
    assert [text(tokenizer, ids) for ids in table["chosen"]] == [f"c{at}<|end|>" for at in range(3)]
    assert [text(tokenizer, ids) for ids in table["rejected"]] == [f"r{at}!<|end|>" for at in range(3)]
    assert table["pair_id"].tolist() == run.read_pairs(0, 3, ["pair_id"])["pair_id"].to_pylist()
    assert (table["row"].tolist(), table["weight"].tolist(), table["p_flip"].tolist()) == (
        [0, 1, 2],
        [1, 2, 3],
        [0, 0.5, 1],
    )
    np.testing.assert_equal(table["target_margin"].to_numpy(), [4.5, np.nan, 3.5])
    assert table["reference_chosen"].isna().all()


def test_why_pairs_are_dropped(read, tokenizer, tmp_path):
    """Each for one reason, the first that holds."""
    pairs = [{"p": f"p{at}", "a": f"a{at}", "b": f"b{at}", "won": "left"} for at in range(8)]
    pairs[0] |= {"won": "tie", "b": "a0"}
    pairs[1] |= {"b": ""}
    pairs[2] |= {"b": "a2"}
    treated = as_labelled(8)
    treated.dropped_N[[1, 2, 3, 4]] = DEFECTIVE
    treated.weight_N[[4, 5]] = 0.0
    reference_N2 = np.full((8, 2), -1.0)
    reference_N2[3, 1] = np.nan
    run = read(pairs, **VOTES, label_values=WON)
    columns = PairColumns(treated, reference_N2=reference_N2)
    made, table = prepared(run, columns, tokenizer, tmp_path / "pairs.arrow", str(bare(tmp_path)))
    reasons = (TIE, EMPTY_SIDE, SAME_TOKENS, NO_REFERENCE, DEFECTIVE, NO_WEIGHT)
    assert made.counts == {**dict.fromkeys(reasons, 1), "trained": 2}
    assert table["row"].tolist() == [6, 7]


def bare(folder):
    (folder / "bare.jinja").write_text(BARE)
    return folder / "bare.jinja"


def test_what_the_template_refuses_is_dropped_with_its_words(read, tokenizer, tmp_path):
    (tmp_path / "strict.jinja").write_text(
        "{% if 'p1' in messages[0].content %}{{ raise_exception('no\np1') }}{% endif %}" + BARE
    )
    run = read(rows(2))
    made, _ = prepared(run, PairColumns(as_labelled(2)), tokenizer, tmp_path / "a", str(tmp_path / "strict.jinja"))
    assert made.counts == {"trained": 1, "the chat template refuses it: no p1": 1}


def test_sides_that_are_cut_to_the_same_tokens(read, tokenizer, tmp_path):
    same = "x" * 30
    pairs = [
        {"prompt": "p", "chosen": f"{same}a", "rejected": f"{same}b"},
        {"prompt": "p", "chosen": f"a{same}", "rejected": f"b{same}"},
        {"prompt": "p" * 50, "chosen": "a", "rejected": "b"},
    ]
    columns = PairColumns(as_labelled(3))
    made, table = prepared(read(pairs), columns, tokenizer, tmp_path / "a", max_length=30, max_prompt_length=20)
    assert (made.counts, made.truncated) == ({SAME_TOKENS: 1, "trained": 2}, 2)
    assert [text(tokenizer, ids) for ids in table["chosen"]] == ["a" + "x" * 25, "a<|end|>"]
    assert text(tokenizer, table["prompt"][1]) == "p" * 18 + "<|end|><|assistant|>"


def test_scores_on_other_tokens_are_refused(read, tokenizer, tmp_path):
    run = read(rows(2))
    columns = PairColumns(as_labelled(2), reference_N2=np.zeros((2, 2)), scored_tokens_N2=np.array([[3.0, 4], [3, 5]]))
    name = run.read_pairs(1, 2, ["pair_id"])["pair_id"][0]
    with pytest.raises(RunError, match=rf"pair {name}: scored on \[3\. 5\.\] tokens, trained on \(3, 4\); score again"):
        prepared(run, columns, tokenizer, tmp_path / "pairs.arrow")
    assert not (tmp_path / "pairs.arrow").exists()


def test_swapped_pairs_swap_all_that_belongs_to_a_side(read, tokenizer, tmp_path):
    treated = as_labelled(2)
    treated.swap_N[1] = True
    columns = PairColumns(treated, np.array([4.0, 5.0]), np.array([[-1.0, -2], [-3, -4]]), np.array([[3.0, 4], [3, 4]]))
    run = read(rows(2))
    made, table = prepared(run, columns, tokenizer, tmp_path / "pairs.arrow")
    assert (made.swapped, table["swapped"].tolist()) == (1, [False, True])
    assert [text(tokenizer, ids) for ids in table["chosen"]] == ["c0<|end|>", "r1!<|end|>"]
    assert [text(tokenizer, ids) for ids in table["rejected"]] == ["r0!<|end|>", "c1<|end|>"]
    assert (table["reference_chosen"].tolist(), table["reference_rejected"].tolist()) == ([-1, -4], [-2, -3])
    assert table["target_margin"].fillna(-1).tolist() == [4, -1]  # solved for the other way round, it says nothing
    held, table = prepared(run, columns, tokenizer, tmp_path / "held.arrow", share=1.0)
    assert (held.counts, held.swapped, table["reference_chosen"].tolist()) == ({"held_out": 2}, 0, [-1, -3])


def test_held_out_pairs_are_judged_as_they_are_labelled(read, tokenizer, tmp_path):
    """Whatever the diagnosis says of them."""
    treated = as_labelled(4)
    treated.dropped_N[0], treated.swap_N[1], treated.weight_N[2], treated.p_flip_N[3] = FLIPPED, True, 0.0, 0.9
    made, table = prepared(read(rows(4)), PairColumns(treated), tokenizer, tmp_path / "pairs.arrow", share=1.0)
    assert made.counts == {"held_out": 4}
    assert table["held_out"].all()
    assert (table["weight"].tolist(), table["p_flip"].tolist()) == ([1.0] * 4, [0.0] * 4)
    assert [text(tokenizer, ids) for ids in table["chosen"]] == [f"c{at}<|end|>" for at in range(4)]


def held_out(run, tokenizer, path, **choice):
    _, table = prepared(run, PairColumns(as_labelled(run.count_pairs())), tokenizer, path, **choice)
    return dict(zip(table["pair_id"], table["held_out"], strict=True))


def test_whole_prompts_are_held_out_by_their_text_alone(read, tokenizer, tmp_path):
    pairs = [{"prompt": f"p{at // 3}", "chosen": f"c{at}", "rejected": "r"} for at in range(600)]
    run, some = read(pairs), read([*pairs[::-2], {"prompt": "new", "chosen": "a", "rejected": "b"}], "other.jsonl")
    found = held_out(run, tokenizer, tmp_path / "a.arrow", share=0.3)
    by_prompt = np.array(list(found.values())).reshape(-1, 3)
    assert (by_prompt.all(axis=1) == by_prompt.any(axis=1)).all()
    assert by_prompt.mean() == pytest.approx(0.3, abs=0.1)  # 3 standard deviations of 200 prompts
    assert held_out(run, tokenizer, tmp_path / "b.arrow", share=0.3) == found
    others = held_out(some, tokenizer, tmp_path / "c.arrow", share=0.3)
    assert len(others.keys() & found.keys()) == 300
    assert {name: found[name] for name in others.keys() & found} == {
        name: others[name] for name in found.keys() & others
    }
    more = held_out(run, tokenizer, tmp_path / "d.arrow", share=0.5)
    assert all(more[name] for name, held in found.items() if held)  # a larger share holds out more, not others
    another = held_out(run, tokenizer, tmp_path / "e.arrow", share=0.3, seed=7)
    assert another != found
    assert not any(held_out(run, tokenizer, tmp_path / "f.arrow", share=0.0).values())


@quick
@given(
    st.lists(st.sampled_from(["fine", "tie", "same", "no reference", DEFECTIVE, "0"]), min_size=1, max_size=6),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_every_pair_is_counted_once(tmp_path_factory, tokenizer, fates, share):
    folder = tmp_path_factory.mktemp("counts")
    made = [{"p": f"p{at}", "a": f"a{at}", "b": f"b{at}", "won": "left"} for at in range(len(fates))]
    treated, reference_N2 = as_labelled(len(fates)), np.zeros((len(fates), 2))
    for at, fate in enumerate(fates):
        made[at] |= {"tie": {"won": "tie"}, "same": {"b": f"a{at}"}}.get(fate, {})
        reference_N2[at, 0] = np.nan if fate == "no reference" else -1.0
        treated.dropped_N[at] = DEFECTIVE if fate == DEFECTIVE else ""
        treated.weight_N[at] = fate != "0"
    config = TrainConfig(**VOTES, label_values=WON).ingest(str(write(folder / "votes.jsonl", made)))
    ingest(config, run := Run.create(folder / "run"))
    columns = PairColumns(treated, reference_N2=reference_N2)
    found, table = prepared(run, columns, tokenizer, folder / "pairs.arrow", share=share)
    names = {"tie": TIE, "same": SAME_TOKENS, "no reference": NO_REFERENCE}
    assert {name: found.counts.get(names[name], 0) for name in names} == {name: fates.count(name) for name in names}
    assert found.counts.get("held_out", 0) == table["held_out"].sum()
    most = len(fates) - sum(map(fates.count, names))  # held-out pairs are kept whatever is said of them
    assert fates.count("fine") <= len(table) <= most
    assert len(table) == {0.0: fates.count("fine"), 1.0: most}.get(share, len(table))


# --- reading ---


@pytest.fixture
def some(read, tokenizer, tmp_path):
    """The prepared file of ten pairs with weights 0.5, 1, …, 5, of which some are held out; and its table."""
    run = read(rows(10, weight=[(at + 1) / 2 for at in range(10)], p_flip=[at / 10 for at in range(10)]))
    columns = columns_of_file(run, TrainConfig())
    made, table = prepared(run, columns, tokenizer, tmp_path / "pairs.arrow", share=0.3)
    assert 0 < made.counts["held_out"] < 10
    return made.path, table


@pytest.mark.parametrize("held", [True, False])
def test_reading_pairs(some, held):
    path, table = some
    pairs, expected = Pairs(path, held_out=held), table[table["held_out"] == held]
    assert len(pairs) == len(expected)
    assert pairs.at.tolist() == expected.index.tolist()
    for position, (index, row) in enumerate(expected.iterrows()):
        pair = pairs[position]
        assert (pair.index, pair.is_padding) == (index, False)
        for side in ("prompt", "chosen", "rejected"):
            assert list(getattr(pair, side)) == list(row[side])
        assert (pair.weight, pair.p_flip) == (pytest.approx(row["weight"] / expected["weight"].mean()), row["p_flip"])
        assert np.isnan([pair.target_margin, pair.reference_chosen, pair.reference_rejected]).all()
    sizes = expected[["prompt", "chosen", "rejected"]].map(len).sum(axis=1)
    assert pairs.lengths().tolist() == sizes.tolist()
    assert pairs.columns("row", "weight").to_pylist() == expected[["row", "weight"]].to_dict("records")
    assert [pair.index for batch in pairs.batches(3) for pair in batch] == pairs.at.tolist()
    assert {len(batch) for batch in list(pairs.batches(2))[:-1]} <= {2}


def test_weights_have_mean_one_and_padding_has_none(some):
    pairs = Pairs(some[0], held_out=False)
    assert np.mean([pairs[at].weight for at in range(len(pairs))]) == pytest.approx(1.0)
    padding = pairs[len(pairs)]
    assert (padding.is_padding, padding.weight, padding.index) == (True, 0.0, pairs.at[0])
    assert padding.chosen == pairs[0].chosen


def test_some_of_the_pairs_keep_their_weights(some):
    pairs = Pairs(some[0], held_out=False)
    part = pairs.take(np.array([3, 0]))
    assert [part[at] for at in range(len(part))] == [pairs[3], pairs[0]]
    assert part.lengths().tolist() == pairs.lengths()[[3, 0]].tolist()
    assert [part.take(np.array([1]))[0], len(pairs)] == [pairs[0], len(pairs.at)]


def test_pairs_travel_to_other_processes(some):
    pairs = Pairs(some[0], held_out=False)
    sent = pickle.dumps(pairs)
    assert len(sent) < 2000  # not the table
    assert [*map(pickle.loads(sent).__getitem__, range(len(pairs)))] == [pairs[at] for at in range(len(pairs))]


def test_no_pair_at_all(some, read, tokenizer, tmp_path):
    run = read(rows(1))
    prepared(run, PairColumns(as_labelled(1)), tokenizer, tmp_path / "one.arrow")
    none = Pairs(tmp_path / "one.arrow", held_out=True)
    assert (len(none), none.mean_weight, none.lengths().tolist(), list(none.batches(2))) == (0, 1.0, [], [])
