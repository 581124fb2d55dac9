"""Settings of a training: which source wins, what recipes say, and one line that names whatever is wrong."""

from dataclasses import MISSING, fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.config import ScoreConfig
from curate.errors import ConfigError
from training.config import RECIPES, TrainConfig, parse_setting, resolve_config
from training.losses import LOSSES
from training.margins import TARGETS
from training.treatments import TREATMENTS

quick = settings(deadline=None, max_examples=60)

NAMES = [field.name for field in fields(TrainConfig)]
GEMMA, QWEN = "google/gemma-2-9b-it", "Qwen/Qwen2.5-7B-Instruct"
PUBLISHED = [  # ../shared/method.md, § 2: recipe, model, β, γ0/β, τ, learning rate, pairs an update
    ("llama-3-8b-instruct", "meta-llama/Meta-Llama-3-8B-Instruct", 10.0, 0.4, 10.0, 1e-6, 128),
    ("gemma-2-9b-it", GEMMA, 10.0, 0.5, 20.0, 8e-7, 64),
    ("mistral-7b-instruct-v0.2", "mistralai/Mistral-7B-Instruct-v0.2", 2.5, 0.15, 10.0, 6e-7, 128),
    ("qwen2.5-7b-instruct", QWEN, 10.0, 0.3, 3.0, 1e-6, 128),
]


@pytest.fixture
def toml(tmp_path):
    """A function that writes a file of settings."""

    def write(text):
        (tmp_path / "settings.toml").write_text(text, encoding="utf-8")
        return tmp_path / "settings.toml"

    return write


def refused(file=None, recipe=None, **flags):
    """The one line that refuses settings."""
    with pytest.raises(ConfigError) as caught:
        resolve_config(recipe, file, flags)
    (line,) = str(caught.value).splitlines()
    return line


# --- who wins ---


def test_without_anything_it_is_the_defaults():
    assert resolve_config(None, None, {}) == TrainConfig()
    assert all(field.default is not MISSING for field in fields(TrainConfig))


def test_the_later_source_wins(toml):
    """Defaults < recipe < file < flags; a flag that was not given says nothing."""
    file = toml('tau = 7\nlearning_rate = 2e-6\nmodel = "file"\n')
    flags = {"model": "flag", "beta": None, "epochs": 2.0}
    found = resolve_config("gemma-2-9b-it", file, flags)
    assert (found.model, found.epochs, found.tau, found.learning_rate) == ("flag", 2.0, 7.0, 2e-6)
    assert (found.beta, found.gamma_beta_ratio, found.batch_size) == (10.0, 0.5, 64)  # of the recipe
    assert (found.micro_batch, found.optimizer) == (4, "adamw_torch")  # by default
    assert isinstance(found.tau, float)


def test_a_file_can_name_the_recipe_and_a_flag_another_one(toml):
    file = toml('recipe = "gemma-2-9b-it"\nseed = 7\n')
    found = resolve_config(None, file, {})
    assert (found.model, found.tau, found.seed) == (GEMMA, 20.0, 7)
    assert (other := resolve_config("qwen2.5-7b-instruct", file, {})) == resolve_config(
        "qwen2.5-7b-instruct", None, {"seed": 7}
    )
    assert (other.model, other.tau) == (QWEN, 3.0)


def test_tables_and_lists_of_a_file(toml):
    file = toml(
        'columns = {prompt = "q", response_a = "l", response_b = "r", label = "won"}\nlabel_values = {a = "x"}\n'
    )
    ingest = resolve_config(None, file, {"limit": 5}).ingest("votes.csv")
    assert (ingest.inputs, ingest.limit, ingest.label_values) == (("votes.csv",), 5, {"a": "x"})
    assert ingest.columns == {"prompt": "q", "response_a": "l", "response_b": "r", "label": "won"}


sources = st.dictionaries(st.sampled_from(["beta", "tau", "epochs", "weight_decay"]), st.integers(1, 9).map(float))


@quick
@given(defaults=sources, recipe=st.sampled_from([None, *RECIPES]), in_file=sources, flags=sources)
def test_precedence_of_any_settings(tmp_path_factory, defaults, recipe, in_file, flags):
    file = tmp_path_factory.mktemp("config") / "settings.toml"
    file.write_text("".join(f"{name} = {value}\n" for name, value in in_file.items()))
    found = resolve_config(recipe, file, flags, defaults)
    for name in NAMES:
        layers = (flags, in_file, RECIPES.get(recipe, {}), defaults)
        expected = next((layer[name] for layer in layers if name in layer), getattr(TrainConfig(), name))
        assert getattr(found, name) == expected, name


# --- recipes ---


@pytest.mark.parametrize(("recipe", "model", "beta", "ratio", "tau", "rate", "batch"), PUBLISHED, ids=lambda it: it)
def test_recipes_are_the_published_settings(recipe, model, beta, ratio, tau, rate, batch):
    found = resolve_config(recipe, None, {})
    loss = found.loss_settings
    assert (loss.margin, loss.beta, loss.gamma_beta_ratio) == ("simpo", beta, ratio)
    assert loss.gamma0 == pytest.approx(beta * ratio)
    assert (found.model, found.loss, found.targets, found.tau) == (model, "gamma_simpo", "online", tau)
    assert (found.rate, found.batch_size, found.epochs, found.lora) == (rate, batch, 1.0, False)
    assert (found.schedule, found.warmup, found.dtype, found.seed) == ("cosine", 0.1, "bfloat16", 42)
    assert (found.score.max_length, found.score.max_prompt_length) == (2048, 1800)
    assert found.batch_size % found.micro_batch == 0


def test_there_is_a_recipe_of_each_publication():
    assert list(RECIPES) == [recipe for recipe, *_ in PUBLISHED]


# --- what is refused ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"los": "dpo"}, "no setting 'los': there are model, reference, lora, "),
        ({"loss": "dpoo"}, f"loss 'dpoo' is unknown: choose one of {', '.join(LOSSES)}"),
        ({"targets": "file"}, f"targets is 'file': choose one of auto, {', '.join(TARGETS)}"),
        ({"treat": "keep"}, f"treat is 'keep': choose one of auto, decisions, {', '.join(TREATMENTS)}"),
        ({"margin": "dpo_sum"}, "margin 'dpo_sum' is unknown: choose one of dpo, dpo_norm, simpo"),
        ({"batching": "padded"}, "batching is 'padded': choose one of packed, length_grouped"),
        ({"schedule": "step"}, "schedule is 'step': choose one of cosine, linear, constant"),
        ({"device": "tpu"}, "device is 'tpu': choose one of auto, cpu, cuda"),
        ({"dtype": "float16"}, "dtype is 'float16': choose one of auto, float32, bfloat16"),
        ({"optimizer": "adamw"}, "optimizer is 'adamw': choose one of adamw_torch, "),
        ({"report_to": "paper"}, "report_to is 'paper': choose one of none, all"),
        ({"loss": 1}, "loss is 1: it must be text"),
        ({"model": True}, "model is True: it must be text"),
        ({"lora": 1}, "lora is 1: it must be true or false"),
        ({"lora": "True"}, "lora is 'True': it must be true or false"),
        ({"epochs": "2"}, "epochs is '2': it must be a number"),
        ({"tau": True}, "tau is True: it must be a number"),
        ({"batch_size": 8.0}, "batch_size is 8.0: it must be a whole number"),
        ({"seed": False}, "seed is False: it must be a whole number"),
        ({"columns": "prompt=q"}, "columns is 'prompt=q': it must be a table of text"),
        ({"columns": {"prompt": 1}}, "columns is {'prompt': 1}: it must be a table of text"),
        ({"epochs": 0}, "epochs is 0.0: it must be positive"),
        ({"epochs": float("inf")}, "epochs is inf: it must be positive"),
        ({"batch_size": -4}, "batch_size is -4: it must be positive"),
        ({"max_steps": 0}, "max_steps is 0: it must be positive"),
        ({"lora_layers": 0}, "lora_layers is 0: it must be positive"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0: it must be positive"),
        ({"early_stop": 0}, "early_stop is 0: it must be positive"),
        ({"max_length": 0}, "max_length is 0: it must be positive"),
        ({"max_prompt_length": 0}, "max_prompt_length is 0: it must be positive"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1: it must be 0 or more"),
        ({"max_grad_norm": float("nan")}, "max_grad_norm is nan: it must be 0 or more"),
        ({"warmup": 1.0}, "warmup is 1.0: it must be at least 0 and below 1"),
        ({"eval_share": float("nan")}, "eval_share is nan: it must be at least 0 and below 1"),
        ({"lora_dropout": -0.5}, "lora_dropout is -0.5: it must be at least 0 and below 1"),
        ({"seed": -1}, "seed is -1: it must be at least 0 and below 2^32"),
        ({"early_stop": 1, "eval_share": 0}, "early_stop needs held-out pairs: see eval_share"),
        ({"beta": 0.0}, "beta is 0.0: it must be positive and finite"),
        ({"gamma_beta_ratio": -1}, "gamma_beta_ratio is -1.0: it must be finite, 0 or more"),
        ({"gamma_beta_ratio": 0}, "gamma_beta_ratio is 0: online γ-PO needs it positive"),
        ({"loss": "dpo", "targets": "online"}, "gamma_beta_ratio is 0: online γ-PO needs it positive"),
        ({"label_smoothing": 0.5}, "label_smoothing is 0.5: it must be at least 0 and below 1/2"),
        ({"length_weight": float("nan")}, "length_weight is nan: it must be finite"),
        ({"max_length": 100, "max_prompt_length": 100}, "--max-prompt-length 100 leaves no room for a completion"),
        ({"format": "trl_standard", "columns": {"prompt": "q"}}, "--format and --columns are two ways"),
        ({"label_values": {"a": "x"}}, "--label-values belongs to --columns"),
    ],
    ids=str,
)
def test_one_line_names_the_setting_at_fault(settings, message):
    assert refused(**settings).startswith(message)


@pytest.mark.parametrize("name", NAMES)
def test_a_value_of_no_type_is_refused_for_every_setting(name):
    assert refused(**{name: [None]}).startswith(f"{name} is [None]: it must be ")


@pytest.mark.parametrize("recipe", ["gamma", "", 3, ["gemma-2-9b-it"]], ids=str)
def test_an_unknown_recipe(toml, recipe):
    line = f"recipe {recipe!r} is unknown: choose one of {', '.join(RECIPES)}"
    assert refused(toml(f"recipe = {str(recipe) if isinstance(recipe, int) else repr(recipe)}")) == line
    if isinstance(recipe, str):
        assert refused(recipe=recipe) == line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read as TOML ("),
        (b"beta = ", "cannot be read as TOML (Invalid value"),
        (b"tau = 1\ntau = 2\n", "cannot be read as TOML (Cannot overwrite a value"),
        (b"model = '\xff'\n", "cannot be read as TOML ("),
    ],
)
def test_a_file_that_is_no_toml_is_named(tmp_path, content, message):
    file = tmp_path / "settings.toml"
    if content is not None:
        file.write_bytes(content)
    assert refused(file).startswith(f"{file}: {message}")
    assert refused(tmp_path).startswith(f"{tmp_path}: cannot be read as TOML (")


def test_a_file_with_a_section(toml):
    assert refused(toml("[loss]\nbeta = 1.0\n")) == "loss is {'beta': 1.0}: it must be text"


# --- one setting as text ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lora_rank=8", ("lora_rank", 8)),
        ("optimizer = sgd", ("optimizer", "sgd")),
        ("optimizer='sgd'", ("optimizer", "sgd")),
        ("lora=false", ("lora", False)),
        ("tau=1e1", ("tau", 10.0)),
        ("model=/models/a=b", ("model", "/models/a=b")),
        ("columns={prompt = 'q'}", ("columns", {"prompt": "q"})),
        ("template=[", ("template", "[")),
    ],
)
def test_a_setting_is_written_as_in_toml(text, expected):
    name, value = parse_setting(text)
    assert (name, value, type(value)) == (*expected, type(expected[1]))


@pytest.mark.parametrize("text", ["lora", "=8", "lora=", "", " = "])
def test_a_setting_needs_a_name_and_a_value(text):
    with pytest.raises(ConfigError, match=f"--set {text}: write it as name=value"):
        parse_setting(text)


@quick
@given(st.integers() | st.floats(allow_nan=False) | st.booleans() | st.text("abcxyz/.-_", min_size=1))
def test_any_plain_value_comes_back(value):
    text = str(value).lower() if isinstance(value, bool) else str(value)
    name, found = parse_setting(f"name={text}")
    assert (name, str(found).lower()) == ("name", str(value).lower())


# --- what follows from them ---


def test_the_loss_brings_its_settings_and_those_given_replace_them():
    assert TrainConfig(loss="simpo").loss_settings == LOSSES["simpo"].defaults
    found = TrainConfig(loss="robust_dpo", margin="simpo", beta=2.0, gamma_beta_ratio=0.5).loss_settings
    assert (found.margin, found.beta, found.gamma0, found.label_smoothing) == ("simpo", 2.0, 1.0, 0.1)
    assert not found.needs_reference
    assert TrainConfig(loss="cdpo", label_smoothing=0.0).loss_settings.label_smoothing == 0.0
    assert TrainConfig(loss="length_dpo", length_weight=0.0).loss_settings.length_weight == 0.0


@pytest.mark.parametrize("loss", LOSSES)
def test_which_losses_have_targets_of_their_own(loss):
    assert TrainConfig(loss=loss).is_gamma_po == (LOSSES[loss].targets == "online")


def test_learning_rates():
    assert [TrainConfig(lora=lora).rate for lora in (True, False)] == [1e-4, 1e-6]
    assert TrainConfig(lora=False, learning_rate=0.5).rate == 0.5


def test_what_is_held_out():
    assert TrainConfig().has_held_out
    assert not TrainConfig(eval_share=0.0).has_held_out
    assert TrainConfig(eval_share=0.0, eval_data="held.jsonl").has_held_out


def test_the_reference_scores_the_tokens_that_are_trained_on():
    default = ScoreConfig(features=False)
    assert TrainConfig().score == default
    found = TrainConfig(model="a", reference="b", template="raw", max_length=512, trust_remote_code=True).score
    assert (found.policy, found.template, found.trust_remote_code) == ("b", "raw", True)
    assert (found.max_length, found.max_prompt_length) == (512, 450)  # 512·1800/2048
    assert TrainConfig(model="a").score.policy == "a"
    assert TrainConfig(max_prompt_length=7).score.max_prompt_length == 7
