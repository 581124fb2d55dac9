"""A run → what its HTML report says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import pandas as pd

from curate.detect import EXPLANATIONS, FUSED, GROUPED
from curate.html import ReportContent
from curate.noise import AgreementCurve
from curate.selftest import PROMISED_RATE
from curate.store import version_of
from curate.verdict import MEANINGS, NAMES, Summary, judge_run
from curate.view import RunView


def fill_page(view: RunView) -> ReportContent:
    """Read what the page shows.

    Raises:
        RunError: the run is not diagnosed.
    """
    verdict, diagnosed = judge_run(view), view.stage("diagnose")
    tested = view.table("selftest") if view.has("selftest") else pd.DataFrame()
    clusters = diagnosed["clusters"]
    return ReportContent(
        title=_title(view),
        facts=_facts(view),
        verdict=_verdict(verdict),
        kinds=verdict["kinds"],
        meanings=MEANINGS,
        selftest_sentence=_promise(verdict["selftest"]),
        curve=None if diagnosed["curve"] is None else _curve(diagnosed["curve"]),
        diagnosis=view.table("diagnosis", ["pair_id", "kind", "p_flip", "evidence", "cluster", "x", "y"]),
        slices=view.table("slices"),
        selftest=tested,
        signal_names=NAMES,
        checks=pd.DataFrame(verdict["checks"]),
        suspects=[_with_texts(view, suspect) for suspect in verdict["suspects"]],
        cluster_names=dict(enumerate(clusters or ())),
        method=_method(view, diagnosed),
        absent=_absent(diagnosed),
    )


def _title(view: RunView) -> str:
    return ", ".join(PurePath(entry["path"]).name for entry in view.stage("ingest")["inputs"])


def _facts(view: RunView) -> list[tuple[str, str]]:
    ingested, scored, diagnosed = (view.stage(name) for name in ("ingest", "score", "diagnose"))
    return [
        *(("input", f"{entry['path']} ({entry['format']})") for entry in ingested["inputs"]),
        ("pairs", f"{ingested['pairs']:,}; {ingested['ties']:,} ties; {ingested['refused']:,} rows refused"),
        *((name.replace("_", " "), one["spec"]) for name, one in scored["passes"].items()),
        ("diagnosed", diagnosed["finished"][:16].replace("T", " ") + " UTC"),
        ("curate", version_of("gamma-curate")),
    ]


def _verdict(verdict: Summary) -> dict[str, Any]:
    if verdict["noise"] is None or not verdict["noise"]["can_tell"]:
        return {"can_tell": False, "sentence": verdict["sentence"]}
    return {**verdict["noise"], "sentence": f"Length explains {verdict['length_share']:.0%} of the evidence."}


def _promise(tested: Summary | None) -> str:
    if tested is None:
        return "There is no self-test yet, so nobody knows how good the evidence is."
    sentence = tested["sentence"]
    if sentence is None:
        return f"The self-test promises nothing: it planted other rates than {PROMISED_RATE:.0%}."
    return f"{sentence[0].upper()}{sentence[1:]}."


def _curve(stored: Mapping[str, list[float]]) -> AgreementCurve:
    return AgreementCurve(**{name: np.asarray(values) for name, values in stored.items()})


def _with_texts(view: RunView, suspect: Summary) -> dict[str, Any]:
    texts = view.sql("SELECT prompt, chosen, rejected FROM pairs WHERE row = $row", row=suspect["row"]).iloc[0]
    return {**suspect, **{str(name): list(turns) for name, turns in texts.items()}}


def _method(view: RunView, diagnosed: Mapping[str, Any]) -> list[tuple[str, str]]:
    config, noise, weighed = diagnosed["config"], diagnosed["noise"], view.stage("weigh")
    lapse = "not fitted: too few labelled pairs"
    if noise is not None:
        lapse = f"lapse-rate model on {noise['pairs']:,} out-of-fold margins, slope {noise['slope']:.3g}"
    return [
        ("evidence", f"{FUSED}: {EXPLANATIONS[FUSED]}"),
        ("folds", f"{config['folds']}, {GROUPED} by prompt, repeated {config['repeats']} times"),
        ("calibration", lapse),
        ("flipped", f"p_flip of {config['p_flip']:g} and more"),
        (
            "ambiguous",
            f"P(chosen is better) within 0.5 ± {config['near_tie']:g}, ties, divided annotators, equal ratings",
        ),
        ("signals", ", ".join(diagnosed["signals"])),
        ("margin", f"{weighed['margin']}, β = {weighed['beta']:g}, γ0 = {weighed['gamma0']:g}, τ = {weighed['tau']:g}"),
    ]


def _absent(diagnosed: Mapping[str, Any]) -> dict[str, str]:
    absent = {"selftest": "There is no self-test yet: curate selftest RUN makes one."}
    if diagnosed["noise"] is None:
        absent["curve"] = absent["evidence"] = f"{diagnosed['learners']:,} labelled pairs are too few to learn from."
    if diagnosed["clusters"] is None:
        absent["map"] = "The run was scored without hidden states, so there is no map of similar texts."
    return absent
