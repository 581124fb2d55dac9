"""A finished run whose tables were damaged afterwards: named, and rebuilt by the same command."""

import duckdb
import pytest

from curate import AuditConfig, IngestConfig, Run, RunError, RunView, ScoreConfig, audit, ingest


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


def test_damage_inside_a_table_is_named(tmp_path):
    data, run = tmp_path / "pairs.jsonl", tmp_path / "run"
    data.write_text("".join(f'{{"prompt": "a{i}", "chosen": "b{i}", "rejected": "c"}}\n' for i in range(300)))
    config = IngestConfig((str(data),))
    ingest(config, Run.create(run))
    table = run / "pairs" / "00000.parquet"
    content = bytearray(table.read_bytes())
    content[4:2000] = bytes(1996)
    table.write_bytes(content)
    with RunView(run) as view, pytest.raises(RunError, match=r"a table is damaged .* run curate audit again"):
        view.table("pairs")
    with pytest.raises(RunError, match=r"pairs/00000.parquet: damaged; delete it"):
        Run.open(run).read_pairs(0, 300)
    table.unlink()
    ingest(config, Run.open(run))
    with RunView(run) as view:
        assert len(view.table("pairs")) == 300
        with pytest.raises(duckdb.ParserException):
            view.sql("SELEC nothing")
