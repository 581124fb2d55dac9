"""The rule language: text to tree and back, types, SQL that agrees with a slow evaluator, and hostile input."""

import math
import statistics

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.columns import Columns
from curate.compiling import Compiler
from curate.errors import ConfigError
from curate.expressions import (
    COMPARISONS,
    FUNCTIONS,
    And,
    Arithmetic,
    Between,
    Call,
    Column,
    Compare,
    Has,
    In,
    Minus,
    Missing,
    Not,
    Number,
    Or,
    Text,
    Truth,
    quoted_name,
)
from curate.predicates import Action, parse, parse_action, parse_number, parse_rule

HOSTILE = [
    "'; DROP TABLE pairs; --",
    '"; DROP TABLE pairs; --',
    '" OR 1=1 --',
    "1; ATTACH '/tmp/x.db'",
    "read_text('/etc/passwd')",
    "(SELECT 1)",
    "$plan_0",
    "{0} %s $1 ?",
    "`",
    "a\x00b",
    "\\",
    "/* */",
    "pairs",
    "row FROM pairs --",
    "x\n-- y",
    "__import__('os').system('true')",
]


class Tables:
    """Stands for a `RunView`: tables of a test's own."""

    path = "/runs/x"

    def __init__(self, **tables):
        self._connection = duckdb.connect()
        for name, table in tables.items():
            self._connection.register(f"arrow_{name}", table)
            self._connection.execute(f"CREATE TABLE {name} AS FROM arrow_{name}")
        self._tables = tables
        self.manifest = {"stages": {}}

    def has(self, table):
        return table in self._tables

    def columns(self, table):
        return list(self._tables[table].column_names)

    def sql(self, query, **parameters):
        return self._connection.execute(query, parameters or None).df()


def values(view, node, kind="truth"):
    """An expression's value of every pair, in the order of rows."""
    compiler = Compiler(Columns.of(view))
    sql = getattr(compiler, kind)(node)
    source = compiler.source(view)
    query = f'SELECT {sql} AS value FROM {source} ORDER BY pairs."row"'
    return [None if pd.isna(value) else value for value in view.sql(query, **compiler.parameters)["value"]]


# --- the grammar ---


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("p_flip > 0.9", Compare(">", Column("p_flip"), Number(0.9))),
        ("a == 1 AND b <> 2", And((Compare("=", Column("a"), Number(1)), Compare("!=", Column("b"), Number(2))))),
        ("not a or b and c", Or((Not(Column("a")), And((Column("b"), Column("c")))))),
        ("not (a or b)", Not(Or((Column("a"), Column("b"))))),
        ('"identical" in checks', Has(Text("identical"), Column("checks"))),
        ("'empty' not in `checks`", Not(Has(Text("empty"), Column("checks")))),
        ("source in ('a', \"b\")", In(Column("source"), (Text("a"), Text("b")))),
        ("x not in (-1, 2)", Not(In(Column("x"), (Minus(Number(1)), Number(2))))),
        ("x is not null", Not(Missing(Column("x")))),
        ("x between 1 and 2 and y", And((Between(Column("x"), Number(1), Number(2)), Column("y")))),
        ("x not between -1 and 1", Not(Between(Column("x"), Minus(Number(1)), Number(1)))),
        ("`my \"odd\" ``name``` = 'it''s'", Compare("=", Column('my "odd" `name`'), Text("it's"))),
        (
            "min(a, b + 1) < 2",
            Compare("<", Call("min", (Column("a"), Arithmetic("+", Column("b"), Number(1)))), Number(2)),
        ),
        ("min < 2", Compare("<", Column("min"), Number(2))),
        ("naïve < .5e1", Compare("<", Column("naïve"), Number(5))),
    ],
)
def test_text_to_tree(text, tree):
    assert parse(text) == tree


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a - b - c", Arithmetic("-", Arithmetic("-", Column("a"), Column("b")), Column("c"))),
        ("a - (b - c)", Arithmetic("-", Column("a"), Arithmetic("-", Column("b"), Column("c")))),
        ("a + b * -c", Arithmetic("+", Column("a"), Arithmetic("*", Column("b"), Minus(Column("c"))))),
        ("--1e-07", Minus(Minus(Number(1e-7)))),
    ],
)
def test_numbers(text, tree):
    assert parse_number(text) == tree
    assert str(tree) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "column 1: expected a column, a number or a text, found the end"),
        ("a >", "column 4: expected a column, a number or a text, found the end"),
        ("a > 1 b", "column 7: 'b' cannot stand here"),
        ("a > 1 and", "column 10: expected a column, a number or a text, found the end"),
        ("a and\nb >< 2", "line 2, column 4: expected a column, a number or a text, found '<'"),
        ("'x\ny' = a and\n  é ?", "line 3, column 5: '?' means nothing here; a column of such a name stands in"),
        ("(a > 1", "column 7: expected ')', found the end"),
        ("0 < a < 1", "column 7: two comparisons in one: join them with `and`, or say `between … and …`"),
        ("a is 3", "column 6: expected 'null', found '3'"),
        ("a not 3", "column 7: expected 'in' or 'between' after 'not', found '3'"),
        ("a in (b)", "column 7: in the parentheses after 'in' stand numbers, texts, true or false"),
        ("a in 'b'", "column 6: after 'in' stands a column of texts, or values in parentheses"),
        ("a = 'b", "column 5: what starts with ' here is not closed"),
        ("`a", "column 1: what starts with ` here is not closed"),
        ("a > 1e999", "column 5: 1e999 is too large a number"),
        ("eval(a) > 1", "column 1: no function 'eval': there are abs, min"),
        ("abs(a, b) > 1", "column 1: abs takes 1, found 2"),
        ("max(a) > 1", "column 1: max takes 2 or more, found 1"),
        ("null = a", "column 1: expected a column, a number or a text, found 'null'"),
        ("a = '\ud800'", "column 6: this character is half of one"),
        ("a;", "column 2: ';' means nothing here"),
    ],
)
def test_what_is_no_predicate_is_told_with_its_place(text, message):
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "text",
    ["(" * 50_000, "not " * 20_000, "-" * 90_000 + "1", "abs(" * 20_000, "1" + "+1" * 40_000 + " > 0", "x" * 100_001],
    ids=["brackets", "not", "minus", "calls", "sum", "long"],
)
def test_what_is_too_deep_or_too_long_is_refused_at_once(text):
    with pytest.raises(ConfigError, match=r"too much within one another|more than a rule may have"):
        parse(text)


def test_a_long_list_is_not_deep():
    options = ", ".join(map(str, range(10_000)))
    assert len(parse(f"x in ({options})").options) == 10_000
    assert len(parse(" or ".join(["x = 1"] * 10_000)).operands) == 10_000


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("drop", Action("drop")),
        ("soft", Action("soft")),
        ("soft(0.5)", Action("soft", Number(0.5))),
        ("weight(1 - p_flip)", Action("weight", Arithmetic("-", Number(1), Column("p_flip")))),
    ],
)
def test_actions(text, action):
    assert parse_action(text) == action
    assert str(action) == text


@pytest.mark.parametrize(
    "text", ["", "delete", "drop(1)", "weight", "weight()", "weight(a > 1)", "soft(", "`drop`", "'drop'"]
)
def test_what_is_no_action(text):
    with pytest.raises(ConfigError, match=r"^column \d+: "):
        parse_action(text)


def test_a_rule():
    assert parse_rule('when a > 1 then drop because "too ""much"""') == (
        Compare(">", Column("a"), Number(1)),
        Action("drop"),
        'too "much"',
    )
    assert parse_rule("WHEN tie THEN soft(0.5)") == (Column("tie"), Action("soft", Number(0.5)), "")
    for text in ("a > 1 then drop", "when a > 1", "when a then drop because b", "when a then drop because 'b' c"):
        with pytest.raises(ConfigError, match=r"^column \d+: "):
            parse_rule(text)


# --- round trips and garbage ---

NAMES = st.one_of(st.sampled_from(["a", "p_flip", "and", "Null", "min", "é", "x y", '"', "`", ""]), st.text(max_size=6))
COLUMNS = NAMES.map(Column)
LITERALS = st.one_of(
    st.floats(0, allow_nan=False, allow_infinity=False).map(Number),
    st.text(max_size=6).map(Text),
    st.booleans().map(Truth),
)


def _nodes(below):
    several = st.lists(below, min_size=2, max_size=3).map(tuple)
    options = st.lists(LITERALS, min_size=1, max_size=3).map(tuple)
    call = st.sampled_from(sorted(FUNCTIONS)).flatmap(
        lambda name: st.tuples(*[below] * len(FUNCTIONS[name].takes)).map(lambda given: Call(name, given))
    )
    return st.one_of(
        below.map(Not),
        below.map(Minus),
        below.map(Missing),
        several.map(And),
        several.map(Or),
        st.builds(Compare, st.sampled_from(COMPARISONS), below, below),
        st.builds(Arithmetic, st.sampled_from("+-*/"), below, below),
        st.builds(Between, below, below, below),
        st.builds(In, below, options),
        st.builds(Has, below, COLUMNS),
        call,
    )


TREES = st.recursive(st.one_of(COLUMNS, LITERALS), _nodes, max_leaves=12)


@given(TREES)
def test_a_trees_text_is_read_back(tree):
    assert parse(str(tree)) == tree
    assert str(parse(str(tree))) == str(tree)


SIGNS = [*"()<>=!+-*/,.`'\" \n\t;$\\"]
WORDS_AND_SO_ON = ["and", "or", "not", "in", "is", "null", "between", "true", "min", "a", "1", "1e", "é", "²"]
PIECES = st.lists(st.sampled_from([*SIGNS, *WORDS_AND_SO_ON]), max_size=30)


@given(st.one_of(st.text(), PIECES.map(" ".join), PIECES.map("".join)))
def test_garbage_gives_a_tree_or_a_config_error(text):
    refused = []
    for read in (parse, parse_number, parse_action, parse_rule):
        try:
            read(text)
        except ConfigError as error:
            refused.append(str(error))
    assert not any("\n" in message for message in refused)


# --- types and columns ---

PAIRS = pa.table(
    {
        "pair_id": ["a", "b", "c"],
        "row": [0, 1, 2],
        "tie": [False, None, True],
        "source": ["web", None, "it's"],
        "prompt": [[{"role": "user", "content": "one"}, {"role": "user", "content": "two"}], [], None],
        "votes": [[{"annotator": "x", "vote": 1}, {"annotator": "y", "vote": -1}], [], None],
    }
)
SIGNALS = pa.table(
    {
        "pair_id": ["a", "b", "c"],
        "row": [0, 1, 2],
        **{name: pa.array([1.0, None, -2.0]) for name in ("judge", 'a "b" `c`', "select", "naïve 猫", "x; --")},
        "not_finite": [math.nan, math.inf, 1.0],
        "checks": [["x"], None, []],
        "blob": pa.array([b"x", b"y", None]),
    }
)


@pytest.fixture(scope="module")
def view():
    return Tables(pairs=PAIRS, signals=SIGNALS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("judge", "column 1: judge is a number, where yes or no is needed"),
        ("tie and judge", "column 9: judge is a number, where yes or no is needed"),
        ("judge > 'x'", 'column 9: "x" is a text, where a number is needed'),
        ("source = 1", "column 10: 1 is a number, where a text is needed"),
        ("source < 'x'", "column 1: source is a text, where a number is needed"),
        ("tie\n  or judge in ('x')", 'line 2, column 16: "x" is a text, where a number is needed'),
        ("'x' in source", "column 8: source is a text, where a list of texts is needed"),
        ("1 in checks", "column 1: 1 is a number, where a text is needed"),
        ("checks = checks", "column 1: checks is a list of texts: ask whether a text is in it"),
        ("abs(source) > 1", "column 5: source is a text, where a number is needed"),
        ("(judge + tie) > 1", "column 10: tie is yes or no, where a number is needed"),
        ("share_below(share_below(judge)) < 1", "column 13: share_below cannot stand within share_below"),
        ("quantile(judge, 2) < 1", "column 17: 2 is no share: quantile takes a number from 0 to 1"),
        ("quantile(judge, judge) < 1", "column 17: judge is no share"),
        ("judgge < 1", "column 1: no column 'judgge': did you mean judge?"),
        ("Judge < 1", "column 1: no column 'Judge': did you mean judge?"),
        ("`naive 猫` < 1", "column 1: no column 'naive 猫': did you mean `naïve 猫`?"),
        ("xyzxyz < 1", "column 1: no column 'xyzxyz': there are `a \"b\" ``c```, annotators, checks, chosen, judge"),
        ("1 < p_flip", "column 5: no column 'p_flip'; run curate diagnose /runs/x first"),
        ("margin < 1", "column 1: no column 'margin'; run curate weigh /runs/x first"),
        ("ifd < 1", "column 1: no column 'ifd': it needs scores with --unconditional"),
        ("votes is null", "column 1: no column 'votes': did you mean"),
        ("blob is null", "column 1: no column 'blob': there are"),
    ],
)
def test_errors_name_the_column_and_the_place(view, text, message):
    with pytest.raises(ConfigError) as caught:
        values(view, parse(text))
    assert str(caught.value).startswith(message)


DIAGNOSED = Tables(
    pairs=pa.table({"pair_id": ["a", "b"], "row": [0, 1], "source": ["web", "fliped"]}),
    diagnosis=pa.table(
        {"pair_id": ["a", "b"], "row": [0, 1], "kind": ["clean", "flipped"], "checks": [["empty", "tie"], []]}
    ),
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('kind = "fliped"', 'column 8: "fliped" is never in kind: did you mean flipped?'),
        ('"fliped" != kind', 'column 1: "fliped" is never in kind: did you mean flipped?'),
        ('kind in ("clean", "x")', 'column 19: "x" is never in kind: there are clean, flipped, ambiguous, defective'),
        ('not "emtpy" in checks', 'column 5: "emtpy" is never in checks: did you mean empty?'),
        ('"duplicat" in checks', 'column 1: "duplicat" is never in checks: did you mean duplicate or near_duplicate?'),
    ],
)
def test_a_text_that_a_column_never_holds_is_refused(text, message):
    with pytest.raises(ConfigError) as caught:
        values(DIAGNOSED, parse(text))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "text", ['kind = "flipped"', 'kind != "clean"', 'not "empty" in checks', 'source = "fliped"', "source = kind"]
)
def test_texts_that_a_column_can_hold_are_compared(text):
    assert values(DIAGNOSED, parse(text)) == [False, text != "source = kind"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tie", [False, None, True]),
        ("not tie", [True, None, False]),
        ("tie = true", [False, None, True]),
        ("tie or true", [True, True, True]),
        ("tie and false", [False, False, False]),
        ("judge > 0", [True, None, False]),
        ("judge is null or judge < 0", [False, True, True]),
        ("judge in (1, 2)", [True, None, False]),
        ("judge between -2 and 0", [False, None, True]),
        ("source in ('web', 'x')", [True, None, False]),
        ("source = 'it''s'", [False, None, True]),
        ("source != 'web'", [False, None, True]),
        ("'x' in checks", [True, None, False]),
        ("count(checks) = 0", [False, None, True]),
        ("judge / 0 > 0", [None, None, None]),
        ("judge / 0 is null", [True, True, True]),
        ("1 / (judge - 1) is not null", [False, False, True]),
        ("exp(1000 * judge) > 1", [None, None, False]),
        ("log(judge) = 0", [True, None, None]),
        ("sqrt(judge) = 1", [True, None, None]),
        ("1e308 * 10 * judge > 1", [None, None, None]),
        ("not_finite is null", [True, True, False]),
        ("min(judge, 0) = 0", [True, None, False]),
        ("max(judge, 0, -1) = 1", [True, None, False]),
        ("share_below(judge) = 0.75", [True, None, False]),
        ("share_below(judge) = 0.25", [False, None, True]),
        ("judge >= quantile(judge, 0.5)", [True, None, False]),
        ("judge < quantile(judge / 0, 0.5)", [None, None, None]),
        ("prompt = 'one\ntwo'", [True, False, None]),
        ("contains(prompt, 'TWO')", [False, False, None]),
        ("starts_with(lower(source), 'w') and length(source) = 3", [True, None, False]),
        ("votes_for = 1 and votes_against = 1 and votes_tied = 0", [True, False, None]),
        ("turns = 2", [True, False, None]),
        ("'x' in annotators", [True, False, None]),
        ('`a "b" ``c``` + `select` + `naïve 猫` + `x; --` = 4', [True, None, False]),
        ("row >= 1 and pair_id != 'b'", [False, False, True]),
    ],
)
def test_values(view, text, expected):
    assert values(view, parse(text)) == expected


def test_tables_that_are_not_in_order_are_joined_by_row():
    moved = Tables(pairs=PAIRS, signals=SIGNALS.take([2, 0, 1]))
    assert values(moved, parse("judge > 0 and share_below(judge) > 0.5")) == [True, None, False]
    backwards = Tables(pairs=PAIRS.take([2, 1, 0]), signals=SIGNALS.take([2, 1, 0]))
    assert values(backwards, parse("judge > 0 and share_below(judge) > 0.5")) == [True, None, False]
    partly = Tables(pairs=PAIRS, signals=SIGNALS.take([2]))
    assert values(partly, parse("judge < 0")) == [None, None, True]


# --- against a slow evaluator ---

NUMBERS = ["n", "m"]
WORDS = ["", "a", "b", "A", "ab", "it's"]
NUMBER = st.sampled_from([None, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, math.nan, math.inf, 1e300])
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            **dict.fromkeys(NUMBERS, NUMBER),
            "whole": st.sampled_from([None, -3, 0, 7]),
            "flag": st.sampled_from([None, True, False]),
            "word": st.sampled_from([None, *WORDS]),
            "words": st.one_of(st.none(), st.lists(st.sampled_from([None, *WORDS]), max_size=3)),
        }
    ),
    min_size=1,
    max_size=6,
)
TYPES = {
    **dict.fromkeys(NUMBERS, pa.float64()),
    "whole": pa.int32(),
    "flag": pa.bool_(),
    "word": pa.string(),
    "words": pa.list_(pa.string()),
}

number_columns = st.sampled_from([*NUMBERS, "whole"]).map(Column)
number_literals = st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0, 1e300]).map(Number)
texts = st.one_of(st.just(Column("word")), st.sampled_from(WORDS).map(Text))
flat_numbers = st.recursive(
    st.one_of(number_columns, number_literals),
    lambda below: st.one_of(
        below.map(Minus),
        st.builds(Arithmetic, st.sampled_from("+-*/"), below, below),
        st.builds(Call, st.sampled_from(["min", "max"]), st.lists(below, min_size=2, max_size=3).map(tuple)),
        st.builds(Call, st.sampled_from(["abs", "exp", "log", "sqrt"]), st.tuples(below)),
        st.builds(Call, st.just("length"), st.tuples(texts)),
        st.just(Call("count", (Column("words"),))),
    ),
    max_leaves=5,
)
shares = st.sampled_from([0.0, 0.5, 1.0]).map(Number)
numbers = st.one_of(
    flat_numbers,
    flat_numbers.map(lambda number: Call("share_below", (number,))),
    st.builds(lambda one, other: Arithmetic("+", Call("share_below", (one,)), other), number_columns, flat_numbers),
    st.builds(lambda one, share: Call("quantile", (one, share)), number_columns, shares),
)
truths = st.recursive(
    st.one_of(
        st.just(Column("flag")),
        st.booleans().map(Truth),
        st.builds(Compare, st.sampled_from(COMPARISONS), numbers, numbers),
        st.builds(Compare, st.sampled_from(["=", "!="]), texts, texts),
        st.builds(Between, numbers, numbers, numbers),
        st.builds(In, numbers, st.lists(number_literals, min_size=1, max_size=3).map(tuple)),
        st.builds(In, texts, st.lists(st.sampled_from(WORDS).map(Text), min_size=1, max_size=3).map(tuple)),
        st.builds(Has, texts, st.just(Column("words"))),
        st.one_of(numbers, texts, st.just(Column("words"))).map(Missing),
        st.builds(Call, st.sampled_from(["contains", "starts_with"]), st.tuples(texts, texts)),
    ),
    lambda below: st.one_of(
        below.map(Not),
        below.map(Missing),
        st.lists(below, min_size=2, max_size=3).map(tuple).map(And),
        st.lists(below, min_size=2, max_size=3).map(tuple).map(Or),
        st.builds(Compare, st.sampled_from(["=", "!="]), below, below),
    ),
    max_leaves=6,
)


def slowly(node, row, rows):
    """What a node is for a row: the language's meaning, written down once more."""

    def of(part):
        return slowly(part, row, rows)

    match node:
        case Column(name):
            value = row[name]
            return None if isinstance(value, float) and not math.isfinite(value) else value
        case Number(value) | Text(value) | Truth(value):
            return value
        case Missing(item):
            return of(item) is None
        case Not(operand):
            return None if (value := of(operand)) is None else not value
        case And(operands):
            found = [of(part) for part in operands]
            return False if False in found else None if None in found else True
        case Or(operands):
            found = [of(part) for part in operands]
            return True if True in found else None if None in found else False
        case Between(item, low, high):
            return of(And((Compare(">=", item, low), Compare("<=", item, high))))
        case In(item, options):
            return None if (value := of(item)) is None else value in [of(option) for option in options]
        case Call("share_below" | "quantile" as name, (number, *more)):
            known = [value for other in rows if (value := slowly(number, other, rows)) is not None]
            if name == "quantile":
                return quantile(known, of(more[0])) if known else None
            if (value := of(number)) is None:
                return None
            return (sum(other < value for other in known) + sum(other <= value for other in known)) / 2 / len(known)
    operands = [of(part) for part in operands_of(node)]
    return None if None in operands else applied(node, operands)


def operands_of(node):
    match node:
        case Call(_, arguments):
            return arguments
        case Minus(operand):
            return (operand,)
        case Has(item, column):
            return (item, column)
    return (node.left, node.right)


def applied(node, operands):
    """A function or an operator of values that are all known."""
    one, other = operands[0], operands[-1]
    match node:
        case Minus():
            return -one
        case Has():
            return one in other
        case Compare("=" | "!=" as operator):
            return (one == other) is (operator == "=")
        case Compare(operator):
            return {"<": one < other, "<=": one <= other, ">": one > other, ">=": one >= other}[operator]
        case Arithmetic("/"):
            return None if other == 0 else finite(one / other)
        case Arithmetic(operator):
            return finite({"+": one + other, "-": one - other, "*": one * other}[operator])
        case Call("log"):
            return math.log(one) if one > 0 else None
        case Call("sqrt"):
            return math.sqrt(one) if one >= 0 else None
        case Call("exp"):
            return math.exp(one) if one < 709 else None
        case Call("contains"):
            return other in one
        case Call("starts_with"):
            return one.startswith(other)
        case Call("length" | "count"):
            return len(one)
    return {"abs": abs, "min": min, "max": max}[node.function](*operands)


def finite(value):
    return value if math.isfinite(value) else None


def quantile(known, share):
    return {0.0: min, 0.5: statistics.median, 1.0: max}[share](known)


def view_of(rows):
    columns = {name: pa.array([row[name] for row in rows], kind) for name, kind in TYPES.items()}
    keys = {"pair_id": [str(at) for at in range(len(rows))], "row": range(len(rows))}
    return Tables(pairs=pa.table(keys), signals=pa.table({**keys, **columns}))


@settings(max_examples=150, deadline=None)
@given(ROWS, truths)
def test_predicates_mean_what_the_slow_evaluator_says(rows, predicate):
    assert values(view_of(rows), predicate) == [slowly(predicate, row, rows) for row in rows]


@settings(max_examples=100, deadline=None)
@given(ROWS, numbers)
def test_numbers_are_what_the_slow_evaluator_says(rows, number):
    found = values(view_of(rows), number, "number")
    for value, row in zip(found, rows, strict=True):
        expected = slowly(number, row, rows)
        assert value is expected is None or value == pytest.approx(expected, rel=1e-12)


# --- hostile names and texts ---


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_an_error_or_a_value(view, text):
    before = view.sql("SELECT * FROM pairs").to_json(), view.sql("SHOW TABLES").to_json()
    for predicate in (text, f"source = {text}", f"judge > {text}", f"{text} is null"):
        with pytest.raises(ConfigError):
            values(view, parse(predicate))
    with pytest.raises(ConfigError, match="no column"):
        values(view, Missing(Column(text)))
    assert values(view, Compare("=", Column("source"), Text(text))) == [False, None, False]
    assert values(view, Call("contains", (Text(text), Text(text)))) == [True] * 3
    assert (view.sql("SELECT * FROM pairs").to_json(), view.sql("SHOW TABLES").to_json()) == before


@pytest.mark.parametrize("name", [name for name in HOSTILE if "\x00" not in name])
def test_a_column_of_a_hostile_name_is_a_column(name):
    signals = pa.table({"pair_id": ["a"], "row": [0], name: [2.0]})
    view = Tables(pairs=signals.select(["pair_id", "row"]), signals=signals)
    assert values(view, parse(f"{quoted_name(name)} = 2")) == [True]
    assert values(view, parse(f"share_below({quoted_name(name)}) = 0.5")) == [True]
