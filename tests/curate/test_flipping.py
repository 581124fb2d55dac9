"""Flips in a format's own columns: a flipped row is read as the swapped pair, and nothing else of it changes."""

import copy
from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from curate.flipping import FLIPS, Flip, mapped_flip
from curate.formats import FORMATS, mapped

FLIPPED = [name for name, flip in FLIPS.items() if isinstance(flip, Flip)]
RATINGS = [("score_chosen", "score_rejected"), ("chosen-rating", "rejected-rating")]


def flipped(values, flip):
    """A row, flipped."""
    moves = flip.moved(values)
    new = {name: values[moves.get(name, name)] for name in values}
    return new | {name: relabel(values[name]) for name, relabel in flip.labels.items()}


def test_every_format_has_a_flip_or_says_why_not():
    assert {name.partition(":")[0] for name in FLIPS} == FORMATS.keys() | {"dataset_info"}
    assert all(isinstance(flip, Flip) or len(flip) > 20 for flip in FLIPS.values())


@pytest.mark.parametrize("name", FLIPPED)
@pytest.mark.parametrize("ratings", [None, *RATINGS])
def test_reading_a_flipped_row_gives_the_swapped_pair(name, ratings):
    kind, _, label = name.partition(":")
    form = FORMATS[kind].by_label(label) if label else FORMATS[kind]
    values = copy.deepcopy(dict(form.example))
    if ratings is not None:
        values |= dict(zip(ratings, (4.0, 2.5), strict=True))
    pair = form.read(values)
    assert pair != pair.swap()
    found = form.read(flipped(values, FLIPS[name]))
    assert replace(found, votes=()) == replace(pair.swap(), votes=())
    assert found.votes in (pair.swap().votes, pair.votes)  # a lone annotator is taken to be for the label
    assert flipped(flipped(values, FLIPS[name]), FLIPS[name]) == values


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["trl_standard", "argilla_responses", "orca_dpo", "llamafactory_alpaca"]), texts, texts, st.data()
)
def test_texts_of_any_kind_are_flipped(name, one, other, data):
    values = dict(FORMATS[name].example)
    first, second = (
        column for column in values if column in ("chosen", "chosen_response", "rejected", "rejected_response")
    )
    values |= {first: one, second: other, "note": data.draw(texts)}
    pair = FORMATS[name].read(values)
    after = flipped(values, FLIPS[name])
    assert FORMATS[name].read(after) == pair.swap()
    assert after["note"] == values["note"]


def test_only_columns_in_twos_change_places():
    moved = Flip().moved(
        ["chosen", "rejected", "chosen-model", "rejected-model", "chosen_by", "messages", "chosen_rejected"]
    )
    assert moved == {
        "chosen": "rejected",
        "rejected": "chosen",
        "chosen-model": "rejected-model",
        "rejected-model": "chosen-model",
    }


@pytest.mark.parametrize(("label", "other"), [(1, 2), (2, 1), (1.0, 2.0), ("2", "1"), ("1.0", "2")])
def test_labels_keep_their_type(label, other):
    found = FLIPS["llmbar"].labels["label"](label)
    assert (found, type(found)) == (other, type(other))


def test_pandalms_votes_are_not_rewritten():
    assert "three annotators" in FLIPS["pandalm"]


# --- explicit mappings ---

DIRECT = {"prompt": "q", "chosen": "good", "rejected": "bad", "rating_chosen": "g", "rating_rejected": "b"}
COMPARED = {
    "prompt": "q",
    "response_a": "chosen",
    "response_b": "rejected",
    "label": "won",
    "rating_chosen": "ra",
    "rating_rejected": "rb",
}


def test_a_direct_mapping_moves_its_columns():
    values = {"q": "?", "good": "a", "bad": "b", "g": 3, "b": 1}
    form = mapped(DIRECT)
    assert form.read(flipped(values, mapped_flip(DIRECT, None))) == form.read(values).swap()


@pytest.mark.parametrize(
    ("labels", "label", "other"),
    [
        (None, "a", "b"),
        (None, "B", "a"),
        ({"a": "1", "b": "2", "tie": "0"}, 1, 2),
        ({"a": "1", "b": "2"}, 2.0, 1),
        ({"a": "true", "b": "false"}, True, False),
        ({"a": "left", "b": "right"}, "right", "left"),
        ({"a": "1", "b": "none"}, 1, "none"),
    ],
)
def test_a_label_gets_its_other_value_and_the_responses_stay(labels, label, other):
    values = {"q": "?", "chosen": "one", "rejected": "two", "ra": 5, "rb": 2, "won": label}
    form, flip = mapped(COMPARED, labels), mapped_flip(COMPARED, labels)
    after = flipped(values, flip)
    assert after == values | {"won": other}
    assert form.read(after) == form.read(values).swap()


def test_a_lone_annotator_is_taken_to_agree_with_the_label_of_a_flipped_row():
    values = dict(FORMATS["trl_standard"].example) | {"annotator": "ann"}
    pair = FORMATS["trl_standard"].read(values)
    assert FORMATS["trl_standard"].read(flipped(values, Flip())) == replace(pair.swap(), votes=pair.votes)
