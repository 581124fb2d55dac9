"""What an export can look like: an entry of `EXPORTERS` for each trainer or viewer. SQL over pairs; writes nothing.

The pairs are lines with `prompt`, `chosen`, `rejected` (messages, flips done), `tie`, `votes`, `rating_chosen`,
`rating_rejected` and the columns of `NUMBERS`. A pair that a format cannot hold is left out with the reason that
`limits` gives; of all others the format holds prompt, chosen and rejected word for word.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field

from curate.errors import ConfigError

#: Columns beside the texts → SQL.
NUMBERS = {
    "pair_id": "pair_id",
    "row": '"row"',
    "source": "source",
    "decision": "decision",
    "flipped": "flipped",
    "weight": "weight",
    "p_flip": "p_flip",
    "target_margin": "target_margin",
    "diagnosed_p_flip": "diagnosed_p_flip",
    "score_chosen": "rating_chosen",
    "score_rejected": "rating_rejected",
    "votes_for": "len(list_filter(votes, lambda one: one.vote > 0))",
    "votes_against": "len(list_filter(votes, lambda one: one.vote < 0))",
    "votes_tied": "len(list_filter(votes, lambda one: one.vote = 0))",
}
#: The reference's log-probs and the tokens that they are of: they hold for messages under a chat template alone.
REFERENCE = ("ref_chosen_logps", "ref_rejected_logps", "prompt_tokens", "chosen_tokens", "rejected_tokens")
DIAGNOSED = ("diagnosed_p_flip",)
#: γ_i where there is one; the same for trainers that need a number of every pair.
TARGET, MARGIN = "target_margin", "margin"
RATINGS, VOTES = ("score_chosen", "score_rejected"), ("votes_for", "votes_against", "votes_tied")
#: Columns that are written where the run has them; all others always are.
OPTIONAL = frozenset({*REFERENCE, TARGET, MARGIN, *DIAGNOSED, *RATINGS, *VOTES})
#: What a decision may ask of a trainer for a pair that stays, by the column that says it.
ASKS = ("weight", "p_flip")

_MESSAGES = {side: side for side in ("prompt", "chosen", "rejected")}
_TEXTS = {side: f"{side}[1].content" for side in ("prompt", "chosen", "rejected")}
_ONE_QUESTION = {"the prompt is not one turn of the user": "NOT (len(prompt) = 1 AND prompt[1].role = 'user')"}
_ONE_ANSWER = {
    "a side is not one turn of the assistant": "NOT (len(chosen) = 1 AND len(rejected) = 1 "
    "AND chosen[1].role = 'assistant' AND rejected[1].role = 'assistant')"
}
_ROLES = "array_to_string(list_transform(prompt, lambda turn: turn.role), ' ')"
_ALTERNATING = {
    "the turns of the prompt do not alternate from user to user": f"NOT regexp_full_match({_ROLES}, "
    "'(system )?user( assistant user)*')"
}
_NO_TIE = {"a tie, and the trainer reads no soft label": "tie"}
_UNANSWERED = {"the prompt ends with a turn of the assistant": "prompt[-1].role = 'assistant'"}
_FROM = "CASE turn.role WHEN 'user' THEN 'human' WHEN 'assistant' THEN 'gpt' ELSE turn.role END"
_CONVERSATIONS = f'list_transform(prompt, lambda turn: struct_pack("from" := {_FROM}, value := turn.content))'

Files = Mapping[str, str]  # train and, where there is one, test → the file's name


@dataclass(frozen=True)
class Exporter:
    """One format.

    title: what reads it. columns: name → SQL. limits: why a pair is left out → SQL that is true then.
    use: how it is loaded, as Markdown.
    readers: trainer → which of `ASKS` it reads.
    containers: what it may be written as, the usual one first.
    companion: a file that the reader needs beside the data: its name and its text.
    document: for a JSON file that is one object: what stands before and after its list of pairs, from the run's name.
    """

    title: str
    columns: Mapping[str, str]
    use: Callable[[Files], str]
    readers: Mapping[str, Container[str]]
    limits: Mapping[str, str] = field(default_factory=dict)
    containers: tuple[str, ...] = ("parquet", "jsonl")
    companion: tuple[str, Callable[[Files], str]] | None = None
    document: Callable[[str], tuple[str, str]] | None = None

    @property
    def unfit(self) -> str:
        """SQL over `prompt`, `chosen`, `rejected` and `tie`: why the format cannot hold a pair, else null."""
        cases = " ".join(f"WHEN {test} THEN '{reason}'" for reason, test in self.limits.items())
        return f"CASE {cases} END" if cases else "NULL::VARCHAR"

    def line(self, present: Container[str]) -> dict[str, str]:
        """Name → SQL of the columns that are written. present: those of `OPTIONAL` that the run has."""
        return {name: sql for name, sql in self.columns.items() if name not in OPTIONAL or name in present}


def named(name: str) -> Exporter:
    """The format of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in EXPORTERS:
        raise ConfigError(f"--format {name}: unknown; choose one of {', '.join((*EXPORTERS, SOURCE))}")
    return EXPORTERS[name]


# --- how each is loaded --------------------------------------------------------------------------


def _loaded_by_datasets(files: Files) -> str:
    kind = "parquet" if files["train"].endswith(".parquet") else "json"
    return f"```python\nload_dataset({kind!r}, data_files={dict(files)!r})\n```"


def _use_trl(files: Files) -> str:
    return (
        f"`curate train {files['train']} -o out` honours every column, `training.trl.GammaDPOTrainer` all but "
        "`p_flip`. TRL's own `DPOTrainer` reads the texts; for its `precompute_ref_log_probs=True` remove `ref_*`, "
        "which it computes itself:\n\n"
        f"{_loaded_by_datasets(files)}"
    )


def _use_llamafactory(files: Files) -> str:
    judged = ", `eval_dataset: curate_test`" if "test" in files else ""
    sets = f"`dataset: curate_train`{judged}, `stage: dpo`"
    return f"`dataset_info.json` describes it: `dataset_dir` is this folder, {sets}."


def _dataset_info(files: Files) -> str:
    tags = {"role_tag": "from", "content_tag": "value"}
    tags |= {"user_tag": "human", "assistant_tag": "gpt", "system_tag": "system"}
    columns = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"}
    described = {"formatting": "sharegpt", "ranking": True, "columns": columns, "tags": tags}
    found = {f"curate_{split}": {"file_name": file, **described} for split, file in files.items()}
    return json.dumps(found, indent=2) + "\n"


def _use_axolotl(files: Files) -> str:
    kind = "parquet" if files["train"].endswith(".parquet") else "json"
    lines = ["rl: dpo"]
    for name, split in (("datasets", "train"), ("test_datasets", "test")):
        if split in files:
            lines += [f"{name}:", f"  - path: {files[split]}", f"    ds_type: {kind}", "    split: train"]
            lines += ["    type: chat_template.default", "    field_messages: messages", "    field_chosen: chosen"]
            lines += ["    field_rejected: rejected"]
    return "```yaml\n" + "\n".join(lines) + "\n```"


def _use_openrlhf(files: Files) -> str:
    judged = f" --eval_dataset {files['test']}" if "test" in files else ""
    return (
        f"`--dataset {files['train']}{judged} --prompt_key prompt --chosen_key chosen --rejected_key rejected "
        "--apply_chat_template`. Its reward trainer takes `margin` (γ_i, in the unit of this run's margins) off the "
        "difference of the rewards. A pair without a γ_i of its own has γ0 there."
    )


def _use_ms_swift(files: Files) -> str:
    judged = f" --val_dataset {files['test']}" if "test" in files else ""
    command = f"swift rlhf --rlhf_type dpo --dataset {files['train']}{judged}"
    return f"`{command}`. Its reward trainer takes `margin`: γ_i, or γ0."


def _use_llm_comparator(files: Files) -> str:
    return (
        "Open it at https://pair-code.github.io/llm-comparator/. Side A is chosen, side B is rejected. The score is "
        "1.5, and 0 for a tie. Soft labels and weights are custom fields, annotators' votes the individual ratings."
    )


# --- LLM Comparator ------------------------------------------------------------------------------

_COMPARED = {
    "input_text": _TEXTS["prompt"],
    "tags": "[source]",
    "output_text_a": _TEXTS["chosen"],
    "output_text_b": _TEXTS["rejected"],
    "score": "CASE WHEN tie THEN 0.0 ELSE 1.5 END",
    "individual_rater_scores": "list_transform(coalesce(votes, []), lambda one: "
    "struct_pack(is_flipped := false, score := 1.5 * one.vote, rationale := one.annotator))",
    "custom_fields": "struct_pack(pair_id := pair_id, source := source, decision := decision, "
    "weight := weight, p_flip := p_flip)",
}
_FIELD_TYPES = {
    "pair_id": "string",
    "source": "category",
    "decision": "category",
    "weight": "number",
    "p_flip": "number",
}


def _comparison(run: str) -> tuple[str, str]:
    fields = [{"name": name, "type": kind} for name, kind in _FIELD_TYPES.items()]
    head = {"metadata": {"source_path": run, "custom_fields_schema": fields}}
    models = [{"name": "chosen"}, {"name": "rejected"}]
    return json.dumps({**head, "models": models}, ensure_ascii=False)[:-1] + ', "examples": [\n', "\n]}\n"


_TRL_READERS = {
    "curate train": ASKS,
    "training.trl.GammaDPOTrainer": ("weight",),
    "TRL's own DPOTrainer": (),
}

SOURCE = "source"  # the source's own schema, see `curate.own_schema`

EXPORTERS: dict[str, Exporter] = {
    "trl": Exporter(
        "TRL, conversational; curate train",
        {**_MESSAGES, "tie": "tie", **NUMBERS, **dict(zip(REFERENCE, REFERENCE, strict=True))},
        _use_trl,
        _TRL_READERS,
    ),
    "trl-standard": Exporter(
        "TRL, standard: three texts; curate train",
        {**_TEXTS, "tie": "tie", **NUMBERS},
        _use_trl,
        _TRL_READERS,
        limits=_ONE_QUESTION | _ONE_ANSWER,
    ),
    "llamafactory": Exporter(
        "LLaMA-Factory, sharegpt ranking",
        {
            "conversations": _CONVERSATIONS,
            **{side: f"struct_pack(\"from\" := 'gpt', value := {_TEXTS[side]})" for side in ("chosen", "rejected")},
            **NUMBERS,
        },
        _use_llamafactory,
        {"LLaMA-Factory": ()},
        limits=_NO_TIE | _ONE_ANSWER | _ALTERNATING,
        containers=("jsonl", "parquet"),
        companion=("dataset_info.json", _dataset_info),
    ),
    "axolotl": Exporter(
        "Axolotl, chat_template.default",
        {"messages": "prompt", "chosen": "chosen[1]", "rejected": "rejected[1]", **NUMBERS},
        _use_axolotl,
        {"Axolotl": ()},
        limits=_NO_TIE | _ONE_ANSWER | _UNANSWERED,
        containers=("jsonl", "parquet"),
    ),
    "openrlhf": Exporter(
        "OpenRLHF, with a chat template",
        {**_MESSAGES, "margin": "margin", **NUMBERS},
        _use_openrlhf,
        {"OpenRLHF": ()},
        limits=_NO_TIE,
        containers=("jsonl", "parquet"),
    ),
    "ms-swift": Exporter(
        "ms-swift",
        {
            "messages": "list_concat(prompt, chosen)",
            "rejected_response": _TEXTS["rejected"],
            "margin": "margin",
            **NUMBERS,
        },
        _use_ms_swift,
        {"ms-swift": ()},
        limits=_NO_TIE
        | _ONE_ANSWER
        | {
            "the prompt does not end with a turn of the user, after which ms-swift puts the rejected side": (
                "prompt[-1].role <> 'user'"
            ),
            "both sides are the same, which ms-swift refuses": "chosen = rejected",
        },
        containers=("jsonl",),
    ),
    "llm-comparator": Exporter(
        "LLM Comparator, to look at",
        _COMPARED,
        _use_llm_comparator,
        {},
        limits=_ONE_QUESTION | _ONE_ANSWER,
        containers=("json",),
        document=_comparison,
    ),
}
