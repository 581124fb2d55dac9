"""The page Weights: the exact optimum at any setting, from a histogram of the margins."""

import pytest

import curate
from curate.gamma import gamma_weights


@pytest.fixture
def margins(demo_run):
    with curate.RunView(demo_run) as view:
        weights = view.table("weights").dropna()
    return weights["margin"].to_numpy(), weights["weight"].to_numpy()


def effective(weight_N):
    return weight_N.sum() ** 2 / (weight_N**2).sum()


def test_the_runs_weights(demo_run, open_page, on_screen, count, margins):
    shown = on_screen(open_page(demo_run, "weights"))
    assert float(shown["Effective pairs"][0]) == pytest.approx(effective(margins[1]), abs=0.06)
    for name in ("Labelled pairs", "Weight below 1"):
        value, where = shown[name]
        assert count(demo_run, where) == int(value)
    assert int(shown["Weight below 1"][0]) == (margins[1] < 1).sum()


def test_two_settings_side_by_side(demo_run, open_page, margins):
    page = open_page(demo_run, "weights", b="true", b_beta="2.5", b_ratio="0.15", b_tau="1")
    beta = 10.0  # of the run
    exact = gamma_weights(margins[0] * 2.5 / beta, gamma0=0.15 * 2.5, tau=1.0).weight
    table = page.dataframe[0].value
    assert list(table["name"]) == ["A", "B"]
    assert float(table["effective"][0]) == pytest.approx(effective(margins[1]), abs=0.06)
    assert float(table["effective"][1]) == pytest.approx(effective(exact), abs=0.06)
    assert float(table["most"][1]) == pytest.approx(exact.max(), abs=2e-3)


def test_another_setting_comes_with_its_command(demo_run, open_page):
    page = open_page(demo_run, "weights")
    assert not page.code
    page.number_input(key="a_tau").set_value(3.0).run()
    assert page.code[0].value == f"curate weigh {demo_run} --beta 10 --gamma-beta-ratio 0.4 --tau 3"
