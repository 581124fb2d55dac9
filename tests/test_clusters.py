"""Groups of similar texts: what is alike comes together, is named by its words, and lies together on the map."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from threadpoolctl import threadpool_info, threadpool_limits

from curate import clusters
from curate.clusters import find_clusters, name_groups

TOPICS = {
    "poem": ["Write a poem that rhymes, number {}", "Compose a rhyme for my poem {}", "A poem with rhymes about {}"],
    "python": ["Fix the bug in my Python function {}", "Which Python function sorts {}?", "A bug: function {} fails"],
    "recipe": [
        "A recipe for vegan soup {}",
        "How long to cook the soup of recipe {}?",
        "Vegan recipe {}: what to cook",
    ],
    "travel": ["Plan a trip to Rome with hotel {}", "Which hotel for the trip {}?", "A cheap hotel in Rome for {}"],
    "algebra": ["Solve the equation x + {} = 3", "Which root has the equation {}?", "Find the root of equation {}"],
}


def blobs(sizes, width=60, spread=0.5, seed=0):
    """Topic vectors around a few centres, their prompts, and which centre each belongs to; shuffled."""
    rng = np.random.default_rng(seed)
    centre_CD = rng.normal(size=(len(sizes), width))
    label_N = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    topic_ND = 5 + centre_CD[label_N] + spread * rng.normal(size=(len(label_N), width))
    templates = list(TOPICS.values())
    prompts = [templates[label][i % 3].format(i) for i, label in enumerate(label_N)]
    return topic_ND.astype(np.float32), prompts, label_N


def reading(prompts):
    return lambda rows: [prompts[row] for row in rows]


def same_partition(one_N, other_N):
    """Whether two numberings group alike."""
    pairs = set(zip(one_N.tolist(), other_N.tolist(), strict=True))
    return len(pairs) == len(set(one_N.tolist())) == len(set(other_N.tolist()))


@pytest.mark.parametrize("sizes", [(90, 60), (50, 70, 90), (110, 90, 80, 70, 60)])
@pytest.mark.parametrize("seed", range(3))
def test_blobs_are_found_named_and_numbered_by_size(sizes, seed):
    topic_ND, prompts, label_N = blobs(sizes, seed=seed)
    found = find_clusters(topic_ND, reading(prompts), seed=seed)
    assert same_partition(found.cluster_N, label_N)
    assert np.bincount(found.cluster_N).tolist() == sorted(sizes, reverse=True)
    for cluster, name in enumerate(found.names):
        (label,) = set(label_N[found.cluster_N == cluster])
        texts = " ".join(list(TOPICS.values())[label]).lower()
        assert list(TOPICS)[label] in name or len(set(name.split(" · ")) & set(texts.split())) >= 2
        assert all(word in texts for word in name.split(" · "))


def test_blobs_lie_apart_on_the_map():
    topic_ND, prompts, label_N = blobs((60, 60, 60))
    map_N2 = find_clusters(topic_ND, reading(prompts)).map_N2
    distance_NN = np.linalg.norm(map_N2[:, None] - map_N2[None], axis=2)
    np.fill_diagonal(distance_NN, np.inf)
    assert (label_N[distance_NN.argmin(axis=1)] == label_N).all()
    assert np.abs(map_N2).max() == 1


def test_huge_dimensions_do_not_hide_the_others():
    """A few dimensions of a hidden state are a hundred times as large as the rest, in every text."""
    topic_ND, prompts, label_N = blobs((60, 60, 60))
    loud_N3 = 1000 + 300 * np.random.default_rng(1).normal(size=(180, 3)).astype(np.float32)
    found = find_clusters(np.hstack([topic_ND, loud_N3]), reading(prompts))
    assert same_partition(found.cluster_N, label_N)


def test_pairs_of_one_prompt_share_cluster_and_place():
    rng = np.random.default_rng(0)
    prompt_N = rng.integers(-20, 20, size=400) * 7
    topic_ND = rng.normal(size=(400, 16)).astype(np.float32)  # nothing else holds them together
    found = find_clusters(topic_ND, lambda rows: ["a prompt"] * len(rows), prompt_N=prompt_N)
    assert found.cluster_N.max() > 0
    for prompt in set(prompt_N):
        assert len(set(found.cluster_N[prompt_N == prompt])) == 1
        assert len(np.unique(found.map_N2[prompt_N == prompt], axis=0)) == 1


def test_a_prompt_is_the_mean_of_its_pairs():
    topic_ND, prompts, _ = blobs((60, 60, 60))
    offset_ND = 3 * np.random.default_rng(1).normal(size=topic_ND.shape)
    twice_ND = np.concatenate([topic_ND + offset_ND, topic_ND - offset_ND]).astype(np.float32)
    prompt_N = np.tile(np.arange(180), 2)
    once = find_clusters(topic_ND, reading(prompts))
    twice = find_clusters(twice_ND, reading(prompts * 2), prompt_N=prompt_N)
    assert same_partition(once.cluster_N, twice.cluster_N[:180])


def test_only_one_text_of_a_prompt_is_read_and_no_more_than_needed(monkeypatch):
    monkeypatch.setattr(clusters, "_NAME_PROMPTS", 10)
    topic_ND, prompts, _ = blobs((60, 60, 60))
    asked = []

    def prompts_of(rows):
        asked.append(rows)
        return [prompts[row // 2] for row in rows]

    find_clusters(np.repeat(topic_ND, 2, axis=0), prompts_of, prompt_N=np.repeat(np.arange(180), 2))
    (rows,) = asked
    assert len(rows) == len(set(rows // 2)) == 30


def test_every_cluster_is_large_enough_for_a_rate():
    sizes = (250, 200, 12, 7)
    topic_ND, prompts, _ = blobs(sizes, spread=0.2)
    found = find_clusters(topic_ND, reading(prompts))
    assert np.bincount(found.cluster_N).min() >= 30
    assert len(found.names) == found.cluster_N.max() + 1


def test_number_of_clusters_follows_the_number_of_pairs():
    rng = np.random.default_rng(0)
    counts = []
    for pairs in (39, 100, 300, 700):
        topic_ND = rng.normal(size=(pairs, 30)).astype(np.float32)
        counts.append(len(find_clusters(topic_ND, lambda rows: [""] * len(rows)).names))
    assert counts[0] == 1
    assert counts == sorted(counts)
    assert 4 <= counts[2] <= 8 <= counts[3] <= 11


def test_a_prompt_of_most_pairs_leaves_the_rest_its_clusters():
    topic_ND, prompts, label_N = blobs((60, 60, 60))
    heavy_ND = np.concatenate([topic_ND, np.repeat(topic_ND[:1], 3000, axis=0)])
    prompt_N = np.concatenate([np.arange(180), np.zeros(3000, dtype=np.int64)])
    found = find_clusters(heavy_ND, lambda rows: [prompts[row] for row in rows], prompt_N=prompt_N)
    for label in range(3):
        assert len(set(found.cluster_N[:180][label_N == label]) - set(found.cluster_N[180:])) <= 1


@pytest.mark.parametrize("nothing", [0.0, np.nan, np.inf])
def test_pairs_without_features_are_left_out(nothing):
    topic_ND, prompts, label_N = blobs((60, 60, 60))
    without = np.arange(180) % 9 == 4
    full = find_clusters(topic_ND[~without], reading([prompts[row] for row in np.flatnonzero(~without)]))
    topic_ND[without] = nothing
    found = find_clusters(topic_ND, reading(prompts))
    assert (found.cluster_N[without] == -1).all()
    assert np.isnan(found.map_N2[without]).all()
    np.testing.assert_array_equal(found.cluster_N[~without], full.cluster_N)
    np.testing.assert_array_equal(found.map_N2[~without], full.map_N2)
    assert found.names == full.names
    assert same_partition(found.cluster_N[~without], label_N[~without])


def test_nothing_at_all():
    for topic_ND in (np.zeros((0, 5)), np.zeros((4, 5)), np.zeros((3, 0))):
        found = find_clusters(topic_ND.astype(np.float32), reading([]))
        assert found.names == ()
        assert found.cluster_N.tolist() == [-1] * len(topic_ND)
        assert found.map_N2.shape == (len(topic_ND), 2)


@pytest.mark.parametrize("pairs", [1, 2, 3, 7, 8, 10, 39])
def test_few_pairs_are_one_cluster(pairs):
    topic_ND, prompts, _ = blobs((20, 19))
    found = find_clusters(topic_ND[:pairs], reading(prompts))
    assert found.cluster_N.tolist() == [0] * pairs
    assert len(found.names) == 1
    assert np.isfinite(found.map_N2).all()
    assert len(np.unique(found.map_N2, axis=0)) == pairs


@pytest.mark.parametrize("value", [0.1, -3e4, 1e30, 1e-30])
def test_constant_features_say_nothing(value):
    found = find_clusters(np.full((200, 7), value, dtype=np.float32), lambda rows: ["the same"] * len(rows))
    assert found.cluster_N.tolist() == [0] * 200
    assert not found.map_N2.any()


def test_duplicates_stay_together():
    topic_ND, prompts, label_N = blobs((3, 3, 3))
    found = find_clusters(np.tile(topic_ND, (30, 1)), reading(prompts * 30))
    assert same_partition(found.cluster_N, np.tile(label_N, 30))
    np.testing.assert_array_equal(found.map_N2, np.tile(found.map_N2[:9], (30, 1)))


def test_the_same_input_gives_the_same_bits():
    topic_ND, prompts, _ = blobs((60, 50, 40, 40), spread=2)
    one, other = (find_clusters(topic_ND, reading(prompts), seed=3) for _ in range(2))
    assert one.cluster_N.tobytes() == other.cluster_N.tobytes()
    assert one.map_N2.tobytes() == other.map_N2.tobytes()
    assert one.names == other.names


def test_one_thread_adds_up(monkeypatch):
    """Several add up in any order, and wait for each other for longer than it takes one."""
    threads = set()
    partition = clusters._partition

    def watched(*arguments):
        threads.update(library["num_threads"] for library in threadpool_info())
        return partition(*arguments)

    monkeypatch.setattr(clusters, "_partition", watched)
    topic_ND, prompts, _ = blobs((30, 30))
    with threadpool_limits(2):
        find_clusters(topic_ND, reading(prompts))
    assert threads == {1}


@pytest.mark.parametrize("spread", [0.5, 2.0])
def test_the_order_of_the_pairs_changes_nothing(spread):
    topic_ND, prompts, _ = blobs((90, 80, 70, 60, 50), spread=spread)
    prompt_N = np.arange(350) // 2 * 2
    order = np.random.default_rng(1).permutation(350)
    one = find_clusters(topic_ND, reading([prompts[row] for row in prompt_N]), prompt_N=prompt_N)
    shuffled = [prompts[row] for row in prompt_N[order]]
    other = find_clusters(topic_ND[order], reading(shuffled), prompt_N=-prompt_N[order])
    assert same_partition(one.cluster_N[order], other.cluster_N)
    assert sorted(one.names) == sorted(other.names)


def test_places_between_landmarks(monkeypatch):
    monkeypatch.setattr(clusters, "_LANDMARKS", 60)
    topic_ND, prompts, label_N = blobs((60, 60, 60))
    map_N2 = find_clusters(topic_ND, reading(prompts)).map_N2
    centre_C2 = np.array([map_N2[label_N == label].mean(axis=0) for label in range(3)])
    assert (np.linalg.norm(map_N2[:, None] - centre_C2, axis=2).argmin(axis=1) == label_N).all()


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"shape \(N, D\), found \(3,\)"):
        find_clusters(np.ones(3, dtype=np.float32), reading([]))
    with pytest.raises(ValueError, match=r"shape \(3,\), found \(2,\)"):
        find_clusters(np.ones((3, 2), dtype=np.float32), reading([]), prompt_N=np.arange(2))
    with pytest.raises(ValueError, match="zip"):
        find_clusters(np.ones((3, 2), dtype=np.float32), lambda rows: [])


def test_a_name_by_hand():
    poems = ["Write a poem about rain", "A poem, please: rain at sea", "Poems of the sea", "The rain poem of 2024"]
    code = ["Write code that sorts", "Sort this code in 2024", "My code won't sort", "Write code"]
    assert name_groups([poems, code]) == ("poem · rain · sea", "code · sort · write")


def test_names_have_no_numbers_stop_words_or_variants_of_a_word():
    prompts = ["The 2024 writing of writers: WRITE 3.14 don't it's ١٢٣ ๑๒๓ １２ x"] * 4
    assert name_groups([prompts, ["music"] * 4]) == ("write", "music")


def test_names_in_other_scripts():
    names = name_groups(
        [
            ["写一首关于春天的诗歌", "请写诗歌：春天", "春天诗歌"],
            ["日本の料理を教えて", "料理のレシピ", "レシピと料理"],
            ["स्वास्थ्य के लिए योग", "योग और स्वास्थ्य", "योग स्वास्थ्य"],
            ["Поэма о море", "поэма: море", "МОРЕ, поэма"],
            ["สวัสดี", "สวัสดีครับ", "สวัสดี"],
        ]
    )
    assert names[0] == "春天 · 诗歌"
    assert set(names[1].split(" · ")) >= {"料理"}
    assert names[2] == "योग · स्वास्थ्य"
    assert names[3] == "море · поэма"
    assert names[4]
    assert len(set(names)) == 5


def test_names_where_there_is_little_to_say():
    assert name_groups([[""], ["12 34"], ["the and of"], ["\ud800\u0000 😀"]]) == tuple(
        f"cluster {group}" for group in range(4)
    )
    assert name_groups([["one unicorn"]]) == ("unicorn",)


def test_names_differ_where_the_words_are_the_same():
    same = ["poem rhyme verse stanza sonnet"] * 3
    names = name_groups([same, same, same, ["code"] * 3])
    assert len(set(names)) == 4
    assert all(names)


def test_a_name_needs_more_than_one_prompt_where_there_are_more():
    prompts = ["music theory", "music lesson", "music concert", "music unicorn"]
    assert name_groups([prompts, ["sport"] * 4])[0] == "music"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.text(max_size=30), min_size=1, max_size=4), min_size=1, max_size=5))
def test_names_of_any_text_differ_and_are_not_empty(prompts_C):
    names = name_groups(prompts_C)
    assert len(set(names)) == len(prompts_C)
    assert all(name.strip() and len(name) < 200 for name in names)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_shapes_and_ranges_of_any_input(data):
    pairs, width = data.draw(st.integers(0, 150)), data.draw(st.integers(1, 4))
    values = st.sampled_from([0.0, 1.0, 1.0 + 2**-20, -1.0, 3.0, 1e-30, 1e30, 3e38, np.nan])
    topic_ND = data.draw(arrays(np.float32, (pairs, width), elements=values.map(np.float32)))
    prompt_N = data.draw(arrays(np.int64, pairs, elements=st.integers(-60, 60)))
    found = find_clusters(topic_ND, lambda rows: ["word"] * len(rows), prompt_N=prompt_N)
    known_N = topic_ND.any(axis=1) & np.isfinite(topic_ND).all(axis=1)
    assert found.cluster_N.shape == (pairs,)
    assert found.map_N2.shape == (pairs, 2)
    assert ((found.cluster_N == -1) == ~known_N).all()
    assert (np.isfinite(found.map_N2).all(axis=1) == known_N).all()
    assert (np.abs(found.map_N2[known_N]) <= 1).all()
    size_C = np.bincount(found.cluster_N[known_N])
    assert len(found.names) == len(set(found.names)) == len(size_C)
    assert (np.diff(size_C) <= 0).all()
