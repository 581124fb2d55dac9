"""The commands that decide what becomes of pairs: a skin over plans, previews and decisions."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curate.console import print_json, print_text
from curate.errors import ConfigError
from curate.progress import printable

if TYPE_CHECKING:
    from curate.decisions import Decisions
    from curate.entries import Entry
    from curate.plans import Plan
    from curate.preview import Preview
    from curate.view import RunView

LAST = "last"
_COMMAND_LINE = "command line"
_PLAN, _PAIR, _LOG = "By a plan", "One pair", "What was decided"

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="A parameter of a ready-made plan, as name=value; may be repeated.", rich_help_panel=_PLAN
    ),
]


def decide(
    run: RunPath,
    plan: Annotated[
        str | None, typer.Option(help="A ready-made plan's name, or a TOML file.", rich_help_panel=_PLAN)
    ] = None,
    settings: Settings = None,
    rules: Annotated[
        list[str] | None,
        typer.Option(
            "--rule",
            help="A rule, as 'when … then … because \"…\"', before those of the plan; may be repeated.",
            rich_help_panel=_PLAN,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would come of it.", rich_help_panel=_PLAN)
    ] = False,
    spare_reviewed: Annotated[
        bool, typer.Option("--spare-reviewed", help="Leave out pairs decided one by one.", rich_help_panel=_PLAN)
    ] = False,
    pair: Annotated[str | None, typer.Option(help="A pair's id, or its beginning.", rich_help_panel=_PAIR)] = None,
    action: Annotated[
        str | None,
        typer.Option(help="keep, drop, flip, review, soft(0.7) or weight(0.5).", rich_help_panel=_PAIR),
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why, in words.", rich_help_panel=_PAIR)] = None,
    undo: Annotated[
        str | None, typer.Option(help="Take back an entry, by its id, or the last one: last.", rich_help_panel=_LOG)
    ] = None,
    history: Annotated[
        bool, typer.Option("--history", help="List all entries, or with --pair those about it.", rich_help_panel=_LOG)
    ] = False,
    source: Annotated[
        Path | None, typer.Option("--from", help="Take over the decisions of another run.", rich_help_panel=_LOG)
    ] = None,
    as_json: Json = False,
) -> None:
    """Decide what becomes of pairs, preview it, take it back. Without options: what stands, and what comes of it.

    The latest decision about a pair counts. Nothing but the log of decisions is written.
    """
    planned = plan is not None or bool(rules)
    _check_one({"--plan or --rule": planned, "--undo": undo, "--from": source, "--pair or --history": pair or history})
    _check_belongs("--plan or --rule", planned, {"--dry-run": dry_run, "--spare-reviewed": spare_reviewed})
    _check_belongs("--plan", plan is not None, {"--set": settings})
    _check_belongs("--pair", pair is not None, {"--action": action, "--reason": reason})
    if pair is not None and history == (action is not None):
        raise ConfigError(f"--pair {pair}: give --action, to decide about it, or --history, to see what was decided")
    from curate.decisions import Decisions
    from curate.view import RunView

    with RunView(run) as view:
        decisions = Decisions(view)
        if planned:
            resolved, origin = _resolve(view, plan, settings or [], rules or [])
            if dry_run:
                _preview(view, resolved, decisions, spare_reviewed=spare_reviewed, as_json=as_json)
            else:
                _apply(decisions, resolved, origin, run, spare_reviewed=spare_reviewed, as_json=as_json)
        elif pair is not None and action is not None:
            _decide_pair(decisions, view.pair(pair)["pair_id"], action, reason or "", run, as_json=as_json)
        elif undo is not None:
            _undo(decisions, undo, run, as_json=as_json)
        elif source is not None:
            _take_over(decisions, source, as_json=as_json)
        elif history:
            _history(decisions, None if pair is None else view.pair(pair)["pair_id"], as_json=as_json)
        else:
            _standing(view, decisions, as_json=as_json)


def plans(
    run: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="A run's folder: what it allows.")] = None,
    name: Annotated[str | None, typer.Argument(help="A plan to print as a TOML file.")] = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """List the ready-made plans and which of them a run allows, or print one as a file to review and change."""
    _check_belongs("a plan's name", name is not None, {"--set": settings})
    from curate.ready_made import READY_MADE
    from curate.view import RunView

    if run is None:
        _print_plans([_described(key) for key in READY_MADE], as_json=as_json)
        return
    with RunView(run) as view:
        if name is None:
            _print_plans([{**_described(key), "lacks": _lacks(view, key)} for key in READY_MADE], as_json=as_json)
            return
        text = _ready_made(view, name, settings or []).toml()
    if as_json:
        print_json({"name": name, "toml": text})
    else:
        typer.echo(printable(text, keep="\n"), nl=False)


# --- options -------------------------------------------------------------------------------------


def _check_one(ways: Mapping[str, object]) -> None:
    given = [names for names, value in ways.items() if value]
    if len(given) > 1:
        raise ConfigError(f"{given[0]} and {given[1]} are two things to do: give one of them")


def _check_belongs(to: str, given: bool, options: Mapping[str, object]) -> None:
    for name, value in options.items():
        if value and not given:
            raise ConfigError(f"{name} goes with {to}, which is missing")


def _resolve(view: RunView, name: str | None, settings: list[str], rules: list[str]) -> tuple[Plan, str]:
    """The plan that the options name, and what it comes from."""
    from curate.plans import Plan, Rule, located, read_plan
    from curate.ready_made import READY_MADE

    parsed = []
    for number, text in enumerate(rules, 1):
        with located(f"{_COMMAND_LINE}, rule {number}"):
            parsed.append(Rule.parse(text))
    if name is None:
        return Plan(_COMMAND_LINE, tuple(parsed)), _COMMAND_LINE
    if name in READY_MADE:
        plan = _ready_made(view, name, settings)
    elif settings:
        raise ConfigError(f"--set {settings[0]}: only ready-made plans have parameters; change {name} itself")
    elif not Path(name).is_file():
        raise ConfigError(
            f"--plan {name}: there is no such file, and no ready-made plan of this name; see curate plans"
        )
    else:
        plan = read_plan(name)
    if not parsed:
        return plan, name
    return replace(plan, name=f"{_COMMAND_LINE} and {plan.name}", rules=(*parsed, *plan.rules)), name


def _ready_made(view: RunView, name: str, settings: list[str]) -> Plan:
    from curate.columns import Columns
    from curate.ready_made import ready_made

    parameters = {}
    for text in settings:
        key, sign, value = text.partition("=")
        if not (sign and key.strip() and value.strip()):
            raise ConfigError(f"--set {text}: write it as name=value")
        parameters[key.strip()] = value.strip()
    return ready_made(name, Columns.of(view).known, **parameters)


# --- what the commands do ------------------------------------------------------------------------


def _preview(view: RunView, plan: Plan, decisions: Decisions, *, spare_reviewed: bool, as_json: bool) -> None:
    from curate.preview import preview

    found = preview(view, plan, decisions, spare_reviewed=spare_reviewed)
    _print_preview(found, f"Preview of {plan.name} on {view.path}", as_json=as_json)
    if not as_json:
        _say("Nothing was written: the same command without --dry-run decides")


def _apply(decisions: Decisions, plan: Plan, origin: str, run: Path, *, spare_reviewed: bool, as_json: bool) -> None:
    known = len(decisions.log.entries())
    entry = decisions.apply(plan, origin=origin, spare_reviewed=spare_reviewed)
    said, new = entry.said, decisions.log.place(entry) >= known
    if as_json:
        print_json({"entry": entry.id, "new": new, "plan": plan.name, **{it: said[it] for it in _TOLD}})
        return
    if not new:
        _say(f"nothing changes: entry {entry.id[:8]} of {entry.at} decides just this already")
        return
    _say(f"{plan.name}, pairs decided about: {said['pairs']:,}")
    for action, pairs in said["actions"].items():
        typer.echo(f"  {action:8} {pairs:,}")
    _say(f"noted as entry {entry.id[:8]}; curate decide {_quoted(run)} --undo {entry.id[:8]} takes it back")
    _say(f"Next: curate export {_quoted(run)} -o DIR")


def _decide_pair(decisions: Decisions, pair_id: str, action: str, reason: str, run: Path, *, as_json: bool) -> None:
    from curate.entries import PairDecision
    from curate.expressions import Number
    from curate.plans import located
    from curate.predicates import parse_action

    with located("--action"):
        parsed = parse_action(action)
        if parsed.value is not None and not isinstance(parsed.value, Number):
            raise ConfigError(f"{action}: of one pair, write the number itself, as in soft(0.7)")
        value = None if parsed.value is None else parsed.value.value
        decision = PairDecision(pair_id, parsed.name, value, reason, _COMMAND_LINE)
    (entry,) = decisions.decide([decision])
    if as_json:
        print_json(_record(decisions, entry))
    else:
        _say(f"{pair_id[:8]}: {action}; curate decide {_quoted(run)} --undo {entry.id[:8]} takes it back")


def _undo(decisions: Decisions, which: str, run: Path, *, as_json: bool) -> None:
    log = decisions.log
    if which == LAST:
        standing = [entry for entry in log.entries() if entry.kind != "undo" and log.stands(entry)]
        if not standing:
            raise ConfigError(f"--undo {LAST}: no decision stands in {log.path}")
        which = standing[-1].id
    target = log.find(which)
    known = len(log.entries())
    undo = decisions.undo(target.id)
    new = log.place(undo) >= known
    if as_json:
        print_json({**_record(decisions, undo), "new": new})
    elif new:
        _say(f"entry {target.id[:8]} is taken back: {_what(target)}")
        _say(f"curate decide {_quoted(run)} --undo {undo.id[:8]} restores it")
    else:
        _say(f"nothing changes: entry {undo.id[:8]} of {undo.at} has taken {target.id[:8]} back already")


def _take_over(decisions: Decisions, source: Path, *, as_json: bool) -> None:
    from curate.decision_log import DecisionLog
    from curate.store import Run

    new, again = decisions.take_over(DecisionLog(Run.open(source)))
    kept = 0 if again is None else again.said["pairs"]
    if as_json:
        print_json({"new": len(new), "later": kept, "gone": _gone(decisions)})
        return
    _say(f"entries taken over from {source}: {len(new):,}")
    if again is not None:
        _say(f"{kept:,} pairs were decided here later and keep that; undo entry {again.id[:8]} for what was taken over")
    _say_gone(decisions)


def _history(decisions: Decisions, pair_id: str | None, *, as_json: bool) -> None:
    from curate.view import plain_records

    if pair_id is not None:
        found = plain_records(decisions.history(pair_id))
    else:
        found = [_record(decisions, entry) for entry in decisions.log.entries()]
    if as_json:
        print_json(found)
        return
    for line in found:
        stands = " " if line["stands"] else "✗"
        what = line["what"] if pair_id is None else _decided(line)
        _say(f"{stands} {line['entry'][:8]}  {line['decided_at'][:19]}  {line['who']:12} {what}")
    if not found:
        _say("nothing was ever decided")


def _standing(view: RunView, decisions: Decisions, *, as_json: bool) -> None:
    """What stands, and what does not apply to the run as it is now."""
    from curate.plans import Plan
    from curate.preview import preview

    found = preview(view, Plan(""), decisions)
    if as_json:
        _print_preview(found, "", as_json=True, gone=_gone(decisions), turned=_turned(view))
        return
    _print_preview(found, f"Decisions of {view.path}", as_json=False)
    _say_gone(decisions)
    if turned := _turned(view):
        _say(f"{turned:,} decisions rest on a margin that has changed its sign since")
    if decisions.is_empty():
        _say(f"Next: curate plans {_quoted(view.path)} lists ready-made plans;")
        _say(f"      curate decide {_quoted(view.path)} --plan conservative --dry-run shows what one would do")
    else:
        _say(f"Next: curate export {_quoted(view.path)} -o DIR")


# --- in words and as plain values ----------------------------------------------------------------

_TOLD = ("origin", "pairs", "actions")


def _say(line: str) -> None:
    typer.echo(printable(line))


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _print_preview(found: Preview, title: str, *, as_json: bool, **more: Any) -> None:
    from curate.preview_text import preview_records, render_preview

    if as_json:
        print_json({**preview_records(found), **more})
    else:
        print_text(render_preview(found, title))


def _described(name: str) -> dict[str, Any]:
    from curate.ready_made import READY_MADE

    plan = READY_MADE[name]
    return {"name": name, "about": plan.about, "parameters": plan.parameters, "published": plan.published}


def _lacks(view: RunView, name: str) -> str | None:
    """Why a ready-made plan does not fit a run as its parameters are by default; None where it does."""
    from curate.applying import check_plan

    try:
        check_plan(view, _ready_made(view, name, []))
    except ConfigError as error:
        return str(error)
    return None


def _print_plans(found: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    for plan in found:
        _say(f"{plan['name']:22} {plan['about']}")
        if plan["parameters"]:
            values = " ".join(f"--set {key}={value}" for key, value in plan["parameters"].items())
            _say(f"{'':22} {values}")
        if plan.get("lacks"):
            _say(f"{'':22} not for this run: {plan['lacks']}")


def _record(decisions: Decisions, entry: Entry) -> dict[str, Any]:
    head = {"entry": entry.id, "decided_at": entry.at, "who": entry.who, "kind": entry.kind}
    return {**head, "stands": decisions.log.stands(entry), "what": _what(entry), **entry.said}


def _what(entry: Entry) -> str:
    """An entry's decision in words."""
    said = entry.said
    if entry.kind == "undo":
        return f"takes back {said['of'][:8]}"
    if entry.kind == "pair":
        return f"pair {said['pair_id'][:8]}: {_decided(said)}"
    actions = ", ".join(f"{action} {pairs:,}" for action, pairs in said["actions"].items())
    return f"{said['origin']}: {said['pairs']:,} pairs ({actions})"


def _decided(said: Mapping[str, Any]) -> str:
    value = "" if said["value"] is None else f"({said['value']:g})"
    reason = f": {said['reason']}" if said["reason"] else ""
    return f"{said['action']}{value}{reason}"


def _gone(decisions: Decisions) -> list[dict[str, Any]]:
    from curate.view import plain_records

    return plain_records(decisions.gone())


def _say_gone(decisions: Decisions) -> None:
    for entry in _gone(decisions):
        _say(f"entry {entry['entry'][:8]}: {entry['gone']:,} of its {entry['pairs']:,} pairs are not in this run")


def _turned(view: RunView) -> int:
    """Decisions that rest on a margin which has changed its sign since."""
    if not view.has("weights"):
        return 0
    query = "FROM decisions JOIN weights USING (row) WHERE sign(decisions.margin) <> sign(weights.margin)"
    return int(view.sql(f"SELECT count(*) AS turned {query}")["turned"][0])
