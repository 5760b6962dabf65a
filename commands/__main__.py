"""`headwater COMMAND`, also `python -m commands COMMAND`: finds the command and sets exit codes.

0 done, or ended by a signal; 2 a bad argument or setting; 1 anything else that went wrong on
purpose; each with one line on stderr. Commands are imported when they are called.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, UnknownCommandError

from commands.process import configure_logging
from config.errors import HeadwaterError, SettingsError
from config.settings import load_settings

__all__ = ["main", "run"]

COMMANDS = {
    "up": ("commands.up:up", "Start Kafka, Redis, topics, workers and server here."),
    "demo": ("commands.demo:demo", "The same, with a stream of real clicks."),
    "worker": ("commands.worker:worker", "One worker: folds events into Redis."),
    "serve": ("commands.serve:serve", "The HTTP server."),
    "feed": ("commands.feed:feed", "Send a CSV of events to Kafka."),
    "items": ("commands.import_items:items", "Send a catalogue, CSV or JSON lines, to Kafka."),
    "evaluate": ("commands.evaluate:evaluate", "Measure how good the answers are."),
    "tune": ("commands.tune:tune", "Find the constants of ranking, on training data."),
    "replay": ("commands.replay:replay", "Build a new generation from the log, and switch to it."),
    "generations": ("commands.generations:generations", "List, compare, switch and drop them."),
    "snapshot": ("commands.snapshot:snapshot", "A generation in a file, and back."),
    "experiments": (
        "commands.experiments:experiments",
        "Variants of the answers, and what they lead to.",
    ),
    "tenants": ("commands.tenants:tenants", "Several shops here: list and drop them."),
    "keys": ("commands.keys:keys", "API keys: make, list and revoke them."),
    "bench": ("commands.bench:bench", "Measure how fast it is."),
    "plan": ("commands.plan:plan", "How many machines so many users take."),
    "inspect": ("commands.inspect:inspect", "What the store knows of a user or an item."),
    "settings": ("commands.settings_cmd:settings", "Every setting, its value and meaning."),
}


def _app() -> App:
    app = App(
        name="headwater",
        help="A streaming recommender: clicks in through Kafka, fresh answers out of Redis.",
        version_flags=[],
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
    )
    for name, (target, meaning) in COMMANDS.items():
        app.command(target, name=name, help=meaning)
    return app


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    try:
        configure_logging(load_settings().log)
        code = _app()(arguments)
    except UnknownCommandError as error:
        name = (error.unused_tokens or ["?"])[0]
        known = COMMANDS if error.app is None else [n for n in error.app if n[0] != "-"]
        command = " ".join([*(error.command_chain or ()), name])
        return _fail(2, f"no command {command!r}: there are {', '.join(known)}")
    except (SettingsError, CycloptsError) as error:
        return _fail(2, str(error))
    except HeadwaterError as error:
        return _fail(1, str(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code if isinstance(code, int) else 0


def main() -> None:
    """Entry point of the `headwater` script."""
    sys.exit(run(sys.argv[1:]))


def _fail(code: int, message: str) -> int:
    first, *rest = message.strip().splitlines() or [""]
    print(f"headwater: {first}", *rest, sep="\n", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
