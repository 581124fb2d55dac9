"""Reading streams: a file five times as long takes no more memory."""

import json
import os
import subprocess
import sys

import pytest

#: Runs the command line and prints the most memory that this process ever held.
SCRIPT = """
import re, sys
from pathlib import Path
from curate.cli import app
app(sys.argv[1:], standalone_mode=False)
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""
GROWTH_MIB = 100


def generate(path, pairs):
    """Pairs of about 900 characters, every twentieth of which will be refused."""
    filler = {name: " ".join(f"{name} {number}" for number in range(25)) for name in ("ask", "good", "bad")}
    with path.open("w", encoding="utf-8") as stream:
        for number in range(pairs):
            row = {"prompt": f"{number} {filler['ask']}", "chosen": filler["good"], "rejected": filler["bad"]}
            if number % 20 == 19:
                row["rejected"] = number
            stream.write(json.dumps(row) + "\n")
    return path


def read(path, run):
    """The run's report, and the peak of resident memory in MiB."""
    command = [sys.executable, "-c", SCRIPT, "ingest", str(path), "-o", str(run), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    report, _, peak = done.stdout.rstrip().rpartition("\n")
    return json.loads(report)["data"], int(peak) / 1024


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the peak of memory is read from /proc")
def test_memory_does_not_grow_with_the_data(tmp_path):
    peaks = {}
    for pairs in (30_000, 150_000):
        path = generate(tmp_path / f"{pairs}.jsonl", pairs)
        data, peaks[pairs] = read(path, tmp_path / f"run-{pairs}")
        assert (data["rows"], data["refused"]) == (pairs, pairs // 20)
        path.unlink()
    assert peaks[150_000] - peaks[30_000] < GROWTH_MIB, peaks
