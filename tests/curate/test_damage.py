"""A finished run whose tables were damaged afterwards: named, and rebuilt by the same command."""

import pytest

from curate import AuditConfig, IngestConfig, RunError, RunView, ScoreConfig, audit


@pytest.mark.parametrize("table", ["weights.parquet", "scores.parquet", "refused.parquet", "pairs/00000.parquet"])
@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"PAR1 no more")])
def test_a_damaged_table_is_named_and_the_same_command_rebuilds_it(tmp_path, tiny_policy, table, damage):
    data, run = tmp_path / "pairs.jsonl", tmp_path / "run"
    data.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n' * 3, encoding="utf-8")
    config = AuditConfig(IngestConfig((str(data),)), ScoreConfig(policy=str(tiny_policy)))
    with audit(config, run) as view:
        before = view.table("weights")
    damage(run / table)
    with pytest.raises(RunError, match=f"{table}: missing or damaged"):
        RunView(run)
    with audit(config, run) as view:
        assert view.table("weights").equals(before)
