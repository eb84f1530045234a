"""Commands of ``python -m gossipjax``: ``new`` starts a project, ``predict`` asks formulas, ``review`` a protocol."""

import argparse
import shlex
import sys

from gossipjax._new import new
from gossipjax.predict._command import add_command as add_predict
from gossipjax.predict._command import answer as predicted
from gossipjax.review._command import add_command as add_review
from gossipjax.review._command import answer as reviewed


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m gossipjax")
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("new", help="write a folder with a protocol, an experiment, a figure and a test")
    start.add_argument("folder", help="to make, such as my_study; its name is the name of the study")
    add_predict(commands)
    add_review(commands)
    given = parser.parse_args(arguments)
    try:
        if given.command == "predict":
            print(predicted(given).summary())
            return 0
        if given.command == "review":
            return reviewed(given)
        folder = new(given.folder)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        f"{folder} holds a study that runs:\n"
        f"    cd {shlex.quote(str(folder))}\n"
        "    python experiment.py   # three seeds of each mixing strength, under a minute\n"
        "    python figure.py       # figure.png\n"
        '    python -m pytest       # pip install pytest "gossipjax[testing]"'
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
