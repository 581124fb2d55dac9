"""The command `curate`, also `python -m curate`. Stops by Ctrl-C are heeded before anything heavy is imported."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command line. A stop exits with 128 + the signal's number, whatever its way through the libraries."""
    stopped: list[int] = []

    def stop(number: int, _: object) -> None:
        if not stopped:
            print("\ninterrupted; run the same command again: what is done already is kept", file=sys.stderr)
        stopped.append(number)
        raise SystemExit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        from curate import cli

        cli.main()
    except BaseException:
        if stopped:  # a library may have made another exception of it
            sys.exit(128 + stopped[0])
        raise


if __name__ == "__main__":
    main()
