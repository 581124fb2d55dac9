"""Rows that give several pairs, and rows that are joined: every row is in a pair or refused, by a stated policy."""

import json
from itertools import combinations

import hypothesis.strategies as st
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from curate import reading as reading_module
from curate.canon import Answer, Message, Ranking, Refused
from curate.config import PAIRINGS, IngestConfig
from curate.errors import ConfigError
from curate.formats import FORMATS
from curate.pairs import ingest
from curate.rankings import LINKS, pairs_of
from curate.readers import Row
from curate.reading import readings
from curate.store import Run


def ranking(*scores, ties=True):
    """Answers named by their place, with these scores."""
    answers = tuple(Answer((Message("assistant", str(at)),), score) for at, score in enumerate(scores))
    return Ranking((Message("user", "q"),), answers, ties=ties)


def named(pairs):
    return [(pair.chosen[0].content, pair.rejected[0].content, pair.tie) for _, pair in pairs]


def rows(*given):
    return [Row(values, line, json.dumps(values)) for line, values in enumerate(given, start=1)]


def read(name, *given, pairing="best-worst"):
    """What came of some rows: the lines with the sides' texts, or with the reason."""
    return [
        (
            [row.line for row in found.rows],
            found.reason or [(pair.chosen[-1].content, pair.rejected[-1].content) for pair in found.pairs],
        )
        for found in readings(FORMATS[name], pairing, rows(*given))
    ]


# --- policies ---


def test_the_policies_are_those_of_the_settings():
    assert tuple(LINKS) == PAIRINGS


@pytest.mark.parametrize(
    ("pairing", "expected"),
    [
        ("best-worst", ["31"]),
        ("best-rest", ["30", "32", "31"]),
        ("adjacent", ["30", "02", "21"]),
        ("all", ["30", "32", "31", "02", "01", "21"]),
    ],
)
def test_a_ranking_by_each_policy(pairing, expected):
    assert ["".join(sides[:2]) for sides in named(pairs_of(ranking(3, 1, 2, 4), pairing))] == expected


def test_equal_scores_are_a_tie_in_the_order_of_the_data():
    assert named(pairs_of(ranking(1, 2, 2), "all")) == [("1", "2", True), ("1", "0", False), ("2", "0", False)]
    assert named(pairs_of(ranking(1, 1), "best-worst")) == [("0", "1", True)]


def test_where_ties_are_no_pairs_only_differences_count():
    assert named(pairs_of(ranking(1, 0, 1, 0, ties=False), "all")) == [
        ("0", "1", False),
        ("0", "3", False),
        ("2", "1", False),
        ("2", "3", False),
    ]
    with pytest.raises(Refused, match="all answers to this prompt have the same label"):
        pairs_of(ranking(1, 1, ties=False), "all")


@pytest.mark.parametrize(
    ("scores", "reason"), [((), "there are no answers"), ((1,), "1 answer to this prompt: a pair needs two")]
)
@pytest.mark.parametrize("pairing", PAIRINGS)
def test_fewer_than_two_answers_are_refused(scores, reason, pairing):
    with pytest.raises(Refused, match=reason):
        pairs_of(ranking(*scores), pairing)


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=7), st.sampled_from(PAIRINGS))
def test_no_policy_contradicts_the_scores(scores, pairing):
    found = pairs_of(ranking(*scores), pairing)
    number = {"best-worst": 1, "all": len(list(combinations(scores, 2)))}.get(pairing, len(scores) - 1)
    assert len(found) == number
    for (better, worse), pair in found:
        assert (pair.chosen[0].content, pair.rejected[0].content) == (str(better), str(worse))
        assert scores[better] >= scores[worse]
        assert pair.tie == (scores[better] == scores[worse])
    assert scores[found[0][0][0]] == max(scores)
    assert {frozenset(link) for link, _ in found} <= set(map(frozenset, combinations(range(len(scores)), 2)))


# --- rankings in a row ---


def nectar(**ranks):
    answers = [{"answer": name, "model": "m", "rank": rank} for name, rank in ranks.items()]
    return {"prompt": "\n\nHuman: q\n\nAssistant: ", "answers": answers, "source": ["s"]}


def test_the_first_rank_of_nectar_is_the_best():
    assert read("nectar", nectar(a=3.0, b=1.0, c=2.0), pairing="best-rest") == [([1], [("b", "c"), ("b", "a")])]


def test_the_lowest_rank_of_nemo_is_the_best():
    def completion(text, rank):
        return {"rank": rank, "completion": [{"role": "assistant", "content": text}], "reward": -rank}

    row = {**FORMATS["nemo_rl"].example, "completions": [completion("a", 1), completion("b", 0), completion("c", 2)]}
    assert read("nemo_rl", row) == [([1], [("b", "c")])]
    ((found,),) = [item.pairs for item in readings(FORMATS["nemo_rl"], "best-worst", rows(row))]
    assert (found.rating_chosen, found.rating_rejected) == (0.0, -2.0)


def test_the_two_scores_of_ultrafeedback_rank_differently():
    form = FORMATS["ultrafeedback"]
    completions = [
        {"response": "a", "fine-grained_score": 4.0, "overall_score": 1.0},
        {"response": "b", "fine-grained_score": 2.0, "overall_score": "10"},
    ]
    row = rows({**form.example, "completions": completions})
    best = {
        label: next(iter(readings(form.by_label(label), "best-worst", row))).pairs[0].chosen[0].content
        for label in form.labels
    }
    assert best == {"fine-grained": "a", "overall": "b"}


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("\n\nHuman: q\n\nAssistant: ", [("user", "q")]),
        (
            "\n\nHuman: q \n\nAssistant: a\n\nHuman: q2 \n\nAssistant: ",
            [("user", "q"), ("assistant", "a"), ("user", "q2")],
        ),
        ("Human: q\n\nAssistant:", [("user", "q")]),
        ("just a question", [("user", "just a question")]),
    ],
)
def test_prompts_of_nectar_are_dialogues(prompt, expected):
    found = FORMATS["nectar"].rank({**nectar(a=1, b=2), "prompt": prompt})
    assert [(turn.role, turn.content) for turn in found.prompt] == expected


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({**nectar(), "answers": [{"answer": "a", "rank": None}]}, "rank is None: expected a number"),
        ({**nectar(), "answers": [{"answer": True, "rank": 1}]}, "answer is a boolean (true), not text"),
        ({**nectar(), "answers": ["a"]}, "answers is list, not a list of objects"),
        (nectar(), "there are no answers"),
        (nectar(a=1), "1 answer to this prompt: a pair needs two"),
    ],
)
def test_rankings_that_are_refused(row, reason):
    assert read("nectar", row, nectar(a=1, b=2)) == [([1], reason), ([2], [("a", "b")])]


# --- joined rows ---


def rated(prompt, response, helpfulness):
    return {"prompt": prompt, "response": response, "helpfulness": helpfulness}


def test_neighbours_of_the_same_prompt_are_joined():
    given = [rated("p", "a", 1), rated("p", "b", 3), rated("q", "c", 2), rated("r", "d", 0), rated("r", "e", 0)]
    assert read("helpsteer2", *given) == [
        ([1, 2], [("b", "a")]),
        ([3], "1 answer to this prompt: a pair needs two"),
        ([4, 5], [("d", "e")]),
    ]
    assert [pair.tie for item in readings(FORMATS["helpsteer2"], "all", rows(*given)) for pair in item.pairs] == [
        False,
        True,
    ]


def test_only_neighbours_are_joined():
    given = [rated("p", "a", 1), rated("q", "b", 3), rated("p", "c", 2)]
    assert [reason for _, reason in read("helpsteer2", *given)] == ["1 answer to this prompt: a pair needs two"] * 3


def test_a_row_that_cannot_be_read_does_not_part_its_neighbours():
    given = [rated("p", "a", 1), rated("p", True, 2), rated("p", "c", None), rated("p", "d", 4)]
    assert read("helpsteer2", *given) == [
        ([2], "response is a boolean (true), not text"),
        ([3], "helpfulness is None: expected a number"),
        ([1, 4], [("d", "a")]),
    ]


def test_rows_that_a_policy_leaves_out_say_so():
    given = [rated("p", name, score) for name, score in zip("abcd", (2, 4, 1, 3), strict=True)]
    left_out = "not in a pair: --pairing best-worst leaves out some of the 4 answers to this prompt"
    assert read("helpsteer2", *given) == [([2, 3], [("b", "c")]), ([1], left_out), ([4], left_out)]
    assert read("helpsteer2", *given, pairing="adjacent") == [([1, 2, 3, 4], [("b", "d"), ("d", "a"), ("a", "c")])]


def judged(prompt, completion, label):
    return {"prompt": prompt, "completion": completion, "label": label}


def test_unpaired_answers_need_both_labels():
    given = [judged("p", "a", False), judged("p", "b", True), judged("q", "c", True), judged("q", "d", "True")]
    same = "all answers to this prompt have the same label: none is better than another"
    assert read("kto", *given) == [([1, 2], [("b", "a")]), ([3], same), ([4], same)]


@pytest.mark.parametrize(("better", "worse"), [(1, 0), (1.0, 0.0), ("1", "0"), ("TRUE", "false")])
def test_labels_of_unpaired_answers_may_be_numbers(better, worse):
    assert read("kto", judged("p", "a", worse), judged("p", "b", better)) == [([1, 2], [("b", "a")])]


@pytest.mark.parametrize("label", [None, 2, 0.5, "yes", "", [True]])
def test_other_labels_of_unpaired_answers_are_refused(label):
    assert read("kto", judged("p", "a", label)) == [([1], f"label is {label!r}: expected true or false, or 1 or 0")]


def test_long_runs_of_one_prompt_are_joined_in_parts(monkeypatch):
    monkeypatch.setattr(reading_module, "GROUP_ROWS", 2)
    given = [rated("p", str(number), number) for number in range(5)]
    assert read("helpsteer2", *given) == [
        ([1, 2], [("1", "0")]),
        ([3, 4], [("3", "2")]),
        ([5], "1 answer to this prompt: a pair needs two"),
    ]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("pq"), st.sampled_from([True, False, "x"]), st.text(max_size=2)), max_size=12),
    st.sampled_from(PAIRINGS),
)
def test_every_row_stands_in_exactly_one_reading(given, pairing):
    taken = rows(*(judged(prompt, completion, label) for prompt, label, completion in given))
    found = list(readings(FORMATS["kto"], pairing, taken))
    assert sorted(row.line for item in found for row in item.rows) == [row.line for row in taken]
    for item in found:
        assert bool(item.pairs) != bool(item.reason)
        assert item.pairs or len(item.rows) == 1
        prompts = {row.values["prompt"] for row in item.rows} | {pair.prompt[0].content for pair in item.pairs}
        assert len(prompts) == 1


# --- in a run ---


def write(path, given):
    path.write_text("".join(json.dumps(row) + "\n" for row in given), encoding="utf-8")
    return path


def take(tmp_path, path, **settings_):
    run = Run.create(tmp_path / "run")
    record = ingest(IngestConfig((str(path),), **settings_), run)
    return record, run.read_pairs(0, run.count_pairs()).to_pylist(), pq.read_table(run.refused_path).to_pylist()


def test_rows_records_and_lines_of_a_ranking(tmp_path):
    path = write(tmp_path / "a.jsonl", [nectar(a=1, b=2, c=3), nectar(), nectar(d=2, e=1)])
    record, pairs, refused = take(tmp_path, path, pairing="all")
    assert [record[name] for name in ("rows", "pairs", "refused")] == [3, 4, 1]
    assert [(pair["row"], pair["line"]) for pair in pairs] == [(0, 1), (1, 1), (2, 1), (4, 3)]
    assert [(row["row"], row["line"]) for row in refused] == [(3, 2)]
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [pair["original"] for pair in pairs] == [lines[pair["line"] - 1] for pair in pairs]
    assert record["config"]["pairing"] == "all"
    assert {pair["source"] for pair in pairs} == {"s"}


def test_a_joined_pair_has_the_first_rows_place(tmp_path):
    path = write(tmp_path / "a.jsonl", [rated("q", "x", 1), rated("p", "a", 1), rated("p", "b", 3)])
    record, (pair,), (refused,) = take(tmp_path, path)
    assert [record[name] for name in ("rows", "pairs", "refused")] == [3, 1, 1]
    assert (pair["row"], pair["line"], json.loads(pair["original"])) == (1, 2, rated("p", "a", 1))
    assert (refused["row"], refused["line"]) == (0, 1)
    assert (pair["rating_chosen"], pair["rating_rejected"]) == (3.0, 1.0)


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
def test_a_limit_may_cut_a_ranking(tmp_path, limit):
    path = write(tmp_path / "a.jsonl", [nectar(a=1, b=2, c=3), nectar(d=2, e=1)])
    record, pairs, _ = take(tmp_path, path, pairing="all", limit=limit)
    assert (record["pairs"], len(pairs), record["refused"]) == (limit, limit, 0)
    assert record["rows"] == (1 if limit < 4 else 2)


def test_the_policy_and_the_label_are_part_of_what_was_read(tmp_path):
    path, run = write(tmp_path / "a.jsonl", [nectar(a=1, b=2, c=3)]), Run.create(tmp_path / "run")
    counts = [ingest(IngestConfig((str(path),), pairing=pairing), run)["pairs"] for pairing in PAIRINGS]
    assert counts == [1, 2, 2, 3]
    (tmp_path / "pku.jsonl").write_text(
        json.dumps({**FORMATS["pku_saferlhf"].example, "safer_response_id": 0}), encoding="utf-8"
    )
    chosen = []
    for label in ("better", "safer"):
        ingest(IngestConfig((str(tmp_path / "pku.jsonl"),), label=label), run, replace_data=True)
        chosen.append(run.read_pairs(0, 1)["chosen"].to_pylist()[0][0]["content"])
    assert chosen == ["It is blue.", "It is green."]


def test_progress_names_the_policy(tmp_path):
    class Heard:
        lines: tuple[str, ...] = ()

        def say(self, line):
            self.lines += (line,)

        def advance(self, pairs):
            pass

    heard = Heard()
    ingest(IngestConfig((str(write(tmp_path / "a.jsonl", [nectar(a=1, b=2)])),)), Run.create(tmp_path / "run"), heard)
    assert heard.lines[0].endswith("; ranked answers become pairs by --pairing best-worst")


@pytest.mark.parametrize(
    ("settings_", "reason"),
    [
        ({"pairing": "all"}, "--pairing all: each row of trl_standard is one pair; leave --pairing out"),
        ({"label": "safer"}, "--label safer: the rows of trl_standard have one label; leave --label out"),
    ],
)
def test_settings_that_say_nothing_of_the_data_are_refused(tmp_path, settings_, reason):
    path = write(tmp_path / "a.jsonl", [FORMATS["trl_standard"].example])
    with pytest.raises(ConfigError, match=reason):
        take(tmp_path, path, **settings_)


def test_settings_need_say_something_of_one_file_only(tmp_path):
    ranked = write(tmp_path / "a.jsonl", [nectar(a=1, b=2, c=3)])
    plain = write(tmp_path / "b.jsonl", [FORMATS["trl_standard"].example])
    two = write(tmp_path / "c.jsonl", [FORMATS["pku_saferlhf"].example])
    config = IngestConfig((str(ranked), str(plain), str(two)), pairing="all", label="safer")
    record = ingest(config, Run.create(tmp_path / "run"))
    assert [file["pairs"] for file in record["inputs"]] == [3, 1, 1]


def test_an_unknown_policy():
    with pytest.raises(ConfigError, match="--pairing is 'best': choose one of best-worst, best-rest, adjacent, all"):
        IngestConfig(("a.jsonl",), pairing="best")
