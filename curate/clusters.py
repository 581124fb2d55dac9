"""Groups of similar texts, named by their telling words, and a map of them: pooled hidden states → clusters.

A prompt's vector is the mean over its pairs, so that pairs of one prompt share cluster and place. The vectors are
standardised, reduced by PCA, tempered (each direction divided by the fourth root of its variance, so that length and
style, the widest ones, don't drown the topics) and put on the unit sphere; there k-means groups them, and t-SNE lays
them out.

Chosen by looking at three data sets: the middle layer follows the task (on LLMBar's templates, 12 clusters have a
normalised mutual information of 0.65; with the last layer 0.52), whitening in full loses it (0.3 instead of 0.6 on the
demo's sources), and 24 directions do as well as 48. Words of the prompts beside the hidden states gain a little more
(0.05 to 0.1), but every prompt would have to be read for that.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
PromptsOf = Callable[[Indices], Sequence[str]]

_DIRECTIONS = 24
_DECIMALS = 4  # of a place on the unit sphere: what rounds to the same is the same
_CHUNK = 4_096  # prompts
_FEWEST_PAIRS = 30  # in a cluster: fewer say nothing about a rate of noise
_FEWEST_SHARE = 0.08  # of all pairs, where this is less
_PAIRS_A_CLUSTER = 40  # on average, at least
_MOST_CLUSTERS = 24
_CANDIDATES = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 21, 24)
_STARTED_PLACES = 200_000  # k-means starts anew until it has started from so many: fewer starts, less stable clusters
_SILHOUETTE_SAMPLE = 1_500
_SILHOUETTE_SLACK = 0.02  # more clusters are welcome at this price
_LANDMARKS = 2_000
_NEIGHBOURS = 3  # landmarks that place a prompt on the map
_FEWEST_FOR_TSNE = 8
_NAME_PROMPTS = 500  # read for a cluster's name
_NAME_CHARACTERS = 2_000  # of a prompt
_NAME_WORDS = 4

#: Pieces of contractions, and words of every instruction, on top of scikit-learn's list.
_MORE_STOP_WORDS = """
    ll re ve don doesn didn isn aren wasn weren won wouldn couldn shouldn hasn haven hadn ain im ive dont
    does did doing just like make makes making want wants need needs use used using given following based
    user human assistant ok please let way ways
"""
_STOP_WORDS = ENGLISH_STOP_WORDS | set(_MORE_STOP_WORDS.split())
_WITHOUT_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
)  # Thai, Lao, Burmese, Khmer, Japanese, Chinese
_GRAMMAR = re.compile("[\u3040-\u309f]")  # hiragana: endings and particles
_LONGEST_WORD = 24


@dataclass(frozen=True)
class Clusters:
    """Groups of similar prompts; C of them, the one with most pairs first.

    cluster_N: each pair's group, 0 to C − 1; −1 for a pair without features.
    names: C different names made of telling words, such as "poem · rhyme · verses".
    map_N2: each pair's place on the map, within [−1, 1]; NaN without features. Near means similar, far means little.
    """

    cluster_N: NDArray[np.int32]
    names: tuple[str, ...]
    map_N2: NDArray[np.float32]


def find_clusters(
    topic_ND: NDArray[np.float32], prompts_of: PromptsOf, *, prompt_N: Indices | None = None, seed: int = 0
) -> Clusters:
    """Group pairs by the topic of their prompts, name the groups and lay them out on a map.

    The same input gives the same result to the bit, in the same environment. Another order of the pairs gives the
    same partition but for rounding: k-means and t-SNE start from places rounded to 1e-4, and a coordinate on the edge
    of that may go either way. Another seed gives other clusters wherever the texts have no clear groups of their own.

    Args:
        topic_ND: mean of the chosen's and the rejected's pooled hidden state (the middle layer's follow topics best),
            shape (N, D). A row that is zero or not finite stands for a pair without features.
        prompts_of: gives the prompts' texts of these pairs (indices into N); called once, for at most 500 prompts a
            cluster.
        prompt_N: which prompt each pair has, as any integer code; without it each pair has its own.
        seed: of k-means, t-SNE and what is sampled for them.

    Raises:
        ValueError: topic_ND isn't two-dimensional, prompt_N isn't of shape (N,), or prompts_of gives another number
            of texts than it was asked for.
    """
    if topic_ND.ndim != 2:
        raise ValueError(f"topic vectors must have shape (N, D), found {topic_ND.shape}")
    pairs = len(topic_ND)
    prompt_N = np.arange(pairs) if prompt_N is None else np.asarray(prompt_N)
    if prompt_N.shape != (pairs,):
        raise ValueError(f"prompt codes must have shape ({pairs},), found {prompt_N.shape}")
    cluster_N = np.full(pairs, -1, dtype=np.int32)
    map_N2 = np.full((pairs, 2), np.nan, dtype=np.float32)
    (known_M,) = np.nonzero(topic_ND.any(axis=1) & np.isfinite(topic_ND).all(axis=1))
    if not len(known_M):
        return Clusters(cluster_N, (), map_N2)

    _, first_P, prompt_M = np.unique(prompt_N[known_M], return_index=True, return_inverse=True)
    with threadpool_limits(limits=1):  # several add up in any order, and wait for each other
        place_PD = _places(topic_ND, known_M, prompt_M)
        # From here on prompts of the same place, U of them, are one: k-means and t-SNE want distinct points.
        place_UD, place_P = np.unique(place_PD, axis=0, return_inverse=True)
        pairs_U = np.bincount(place_P[prompt_M], minlength=len(place_UD))
        cluster_U = _partition(place_UD, pairs_U, seed)
        map_U2 = _map(place_UD, seed)
    cluster_N[known_M] = cluster_U[place_P][prompt_M]
    map_N2[known_M] = map_U2[place_P][prompt_M]
    return Clusters(cluster_N, _names(cluster_U[place_P], place_P, known_M[first_P], prompts_of), map_N2)


def _places(topic_ND: NDArray[np.float32], known_M: Indices, prompt_M: Indices) -> Floats:
    """Each prompt's place on the unit sphere, at most 24 coordinates; zeros where all prompts are alike."""
    order_M = known_M[np.argsort(prompt_M, kind="stable")]
    start_P = np.concatenate([[0], np.cumsum(np.bincount(prompt_M))])

    def vectors() -> Iterator[Floats]:
        for begin in range(0, len(start_P) - 1, _CHUNK):
            edges = start_P[begin : begin + _CHUNK + 1]
            block = topic_ND[order_M[edges[0] : edges[-1]]].astype(np.float64)
            yield np.add.reduceat(block, edges[:-1] - edges[0], axis=0) / np.diff(edges)[:, None]

    prompts, width = len(start_P) - 1, topic_ND.shape[1]
    mean_D, moment_DD = np.zeros(width), np.zeros((width, width))
    for vector_BD in vectors():
        mean_D += vector_BD.sum(axis=0) / prompts
        moment_DD += vector_BD.T @ vector_BD / prompts
    basis_DK = _basis(moment_DD - np.outer(mean_D, mean_D), np.abs(mean_D))
    place_PK = np.concatenate([(vector_BD - mean_D) @ basis_DK for vector_BD in vectors()])
    length_P1 = np.linalg.norm(place_PK, axis=1, keepdims=True)
    place_PK /= np.maximum(length_P1, max(1e-6 * length_P1.max(), 1e-300))
    return np.round(place_PK, _DECIMALS) + 0.0  # no −0


def _basis(covariance_DD: Floats, size_D: Floats) -> Floats:
    """Standardise, project on the widest directions and temper them, in one matrix (D, K); K ≥ 2, some may be 0."""
    scale_D = np.sqrt(np.diag(covariance_DD).clip(0))
    inverse_D = np.divide(1, scale_D, out=np.zeros_like(scale_D), where=scale_D > 1e-6 * size_D)
    variance_D, axis_DD = np.linalg.eigh(covariance_DD * np.outer(inverse_D, inverse_D))
    wide_K = np.flatnonzero(variance_D > max(1e-6 * variance_D[-1], 1e-9))[::-1][:_DIRECTIONS]
    axis_DK = axis_DD[:, wide_K]
    axis_DK = axis_DK * np.sign(axis_DK[np.abs(axis_DK).argmax(axis=0), np.arange(len(wide_K))])
    basis_DK = inverse_D[:, None] * axis_DK / variance_D[wide_K] ** 0.25
    return np.pad(basis_DK, ((0, 0), (0, max(0, 2 - len(wide_K)))))


def _partition(place_UD: Floats, pairs_U: Indices, seed: int) -> NDArray[np.int32]:
    """Group the places; the group of most pairs is 0."""
    count = _how_many(place_UD, pairs_U, seed)
    if count == 1:
        return np.zeros(len(place_UD), dtype=np.int32)
    starts = int(np.clip(_STARTED_PLACES // len(place_UD), 4, 60))
    fitted = KMeans(count, n_init=starts, random_state=seed).fit(place_UD, sample_weight=pairs_U)
    fewest = min(_FEWEST_PAIRS, _FEWEST_SHARE * pairs_U.sum())
    while (pairs_C := np.bincount(fitted.labels_, weights=pairs_U)).min() < fewest:
        centre_CD = np.delete(fitted.cluster_centers_, pairs_C.argmin(), axis=0)
        fitted = KMeans(len(centre_CD), init=centre_CD, n_init=1).fit(place_UD, sample_weight=pairs_U)
    rank_C = np.empty(len(pairs_C), dtype=np.int32)
    rank_C[np.argsort(-pairs_C, kind="stable")] = np.arange(len(pairs_C))
    cluster_U: NDArray[np.int32] = rank_C[fitted.labels_]
    return cluster_U


def _how_many(place_UD: Floats, pairs_U: Indices, seed: int) -> int:
    """The most clusters whose silhouette is nearly the best, within what the number of pairs allows."""
    pairs = int(pairs_U.sum())
    most = min(_MOST_CLUSTERS, pairs // _PAIRS_A_CLUSTER, round(1.2 * pairs ** (1 / 3)), len(place_UD) // 3)
    sample = _sample(len(place_UD), _SILHOUETTE_SAMPLE, seed)
    place_SD, pairs_S = place_UD[sample], pairs_U[sample]
    counts = [count for count in _CANDIDATES if count <= most]
    if not counts:
        return 1
    quality = np.array([_quality(place_SD, pairs_S, count, seed) for count in counts])
    return counts[int(np.flatnonzero(quality >= quality.max() - _SILHOUETTE_SLACK)[-1])]


def _quality(place_SD: Floats, pairs_S: Indices, count: int, seed: int) -> float:
    label_S = KMeans(count, n_init=2, random_state=seed).fit(place_SD, sample_weight=pairs_S).labels_
    return float(silhouette_score(place_SD, label_S))


def _sample(size: int, most: int, seed: int) -> Indices:
    """At most so many of 0 … size − 1, in order."""
    if size <= most:
        return np.arange(size)
    return np.sort(np.random.default_rng(seed).choice(size, most, replace=False))


def _map(place_UD: Floats, seed: int) -> Floats:
    """t-SNE of landmarks; the other places go between the landmarks nearest to them."""
    if len(place_UD) < _FEWEST_FOR_TSNE:
        return _fit_square(place_UD[:, :2])
    landmark_L = _sample(len(place_UD), _LANDMARKS, seed)
    place_LD = place_UD[landmark_L]
    tsne = TSNE(perplexity=min(30.0, (len(landmark_L) - 1) / 3), init="pca", random_state=seed)
    map_L2 = _fit_square(tsne.fit_transform(place_LD.astype(np.float32)))
    if len(landmark_L) == len(place_UD):
        return map_L2
    near = NearestNeighbors(n_neighbors=_NEIGHBOURS, algorithm="brute").fit(place_LD)
    distance_UK, landmark_UK = near.kneighbors(place_UD)
    weight_UK = 1 / np.maximum(distance_UK, 1e-6) ** 2
    map_U2: Floats = (weight_UK[:, :, None] * map_L2[landmark_UK]).sum(axis=1) / weight_UK.sum(axis=1, keepdims=True)
    return map_U2


def _fit_square(map_L2: NDArray[np.floating]) -> Floats:
    """Move and scale into [−1, 1], keeping the proportions."""
    low_2, high_2 = map_L2.min(axis=0).astype(np.float64), map_L2.max(axis=0).astype(np.float64)
    half = float((high_2 - low_2).max()) / 2
    fitted: Floats = (map_L2 - (low_2 + high_2) / 2) / (half or 1.0)
    return fitted.clip(-1, 1)


def _names(cluster_P: NDArray[np.int32], place_P: Indices, pair_P: Indices, prompts_of: PromptsOf) -> tuple[str, ...]:
    """Read some prompts of each cluster, evenly spread over it, and name the clusters by their words."""
    read: list[Indices] = []
    for cluster in range(int(cluster_P.max()) + 1):
        (member,) = np.nonzero(cluster_P == cluster)
        member = member[np.argsort(place_P[member], kind="stable")]
        read.append(member[np.linspace(0, len(member) - 1, min(len(member), _NAME_PROMPTS)).astype(np.int64)])
    read_R = np.concatenate(read)
    prompts_C: list[list[str]] = [[] for _ in read]
    for cluster, text in zip(cluster_P[read_R], prompts_of(pair_P[read_R]), strict=True):
        prompts_C[cluster].append(text)
    return name_groups(prompts_C)


def name_groups(prompts_C: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """A name for each group of prompts, made of the words that set it apart from the others; the names differ."""
    words_C = [[_words(text) for text in prompts] for prompts in prompts_C]
    vocabulary = frozenset[str]().union(*(words for group in words_C for words in group))
    counts_C = [Counter(key for words in group for key in _singular(words, vocabulary)) for group in words_C]
    everywhere = sum(counts_C, Counter[str]())
    total = sum(map(len, prompts_C))
    names: list[str] = []
    for group, (prompts, counts) in enumerate(zip(prompts_C, counts_C, strict=True)):
        telling = _telling(counts, len(prompts), everywhere, total)
        lengths = range(min(_NAME_WORDS, len(telling)), len(telling) + 1)
        candidates = (" · ".join(telling[:length]) for length in lengths)
        names.append(next((name for name in candidates if name and name not in names), f"cluster {group}"))
    return tuple(names)


def _singular(words: frozenset[str], vocabulary: frozenset[str]) -> set[str]:
    """Poem instead of poems, if poem occurs."""
    return {word[:-1] if len(word) > 4 and word[-1] == "s" and word[:-1] in vocabulary else word for word in words}


def _telling(counts: Counter[str], prompts: int, everywhere: Counter[str], total: int) -> list[str]:
    """Words that set a group apart, the most telling first, none a variant of one before it."""
    score = {
        word: _log_odds(count, prompts, everywhere[word] - count, total - prompts) for word, count in counts.items()
    }
    ranked = sorted((word for word in score if score[word] > 0), key=lambda word: (-score[word], word))
    telling: list[str] = []
    for fewest, wanted in ((max(3, prompts // 25), _NAME_WORDS - 1), (2, _NAME_WORDS - 1), (1, 1)):
        if len(telling) >= wanted:
            continue
        for word in ranked:
            if counts[word] >= fewest and not any(_alike(word, other) for other in telling):
                telling.append(word)
            if len(telling) == _NAME_WORDS + 2:  # the last two make it unique
                break
    return telling


def _log_odds(here: int, prompts: int, elsewhere: int, others: int) -> float:
    """How many standard errors the log-odds of a prompt's having the word are above those elsewhere."""
    if not others:
        return float(here)
    gain = np.log((here + 0.5) / (prompts - here + 0.5)) - np.log((elsewhere + 0.5) / (others - elsewhere + 0.5))
    return float(gain / np.sqrt(1 / (here + 0.5) + 1 / (elsewhere + 0.5)))


class _Letters(dict[int, str]):
    """For `str.translate`: letters, their marks and digits stay, all else becomes a space."""

    def __missing__(self, code: int) -> str:
        letter = chr(code)
        self[code] = letter if unicodedata.category(letter)[0] in "LMN" else " "
        return self[code]


_LETTERS = _Letters()


def _words(text: str) -> frozenset[str]:
    """The words of a prompt, in lower case; pairs of neighbouring letters where words aren't set apart."""
    plain = unicodedata.normalize("NFKC", text[:_NAME_CHARACTERS]).lower().translate(_LETTERS)
    words = {word for word in _WITHOUT_SPACES.sub(" ", plain).split() if _is_word(word)}
    for run in _WITHOUT_SPACES.findall(plain):
        words |= {pair for pair in map("".join, pairwise(run)) if not _GRAMMAR.search(pair) and not pair.isdecimal()}
    return frozenset(words)


def _is_word(word: str) -> bool:
    return 1 < len(word) <= _LONGEST_WORD and word[0].isalpha() and word not in _STOP_WORDS


def _alike(word: str, other: str) -> bool:
    """Whether one is a variant of the other: poem and poems, write and writing, or letter pairs that overlap."""
    if _WITHOUT_SPACES.match(word) and _WITHOUT_SPACES.match(other):
        return bool(set(word) & set(other))
    stem = max(3, min(5, min(len(word), len(other)) - 1))
    return word[:stem] == other[:stem]
