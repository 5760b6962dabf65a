"""`headwater serve`: the HTTP server, in one process or several on one port."""

from __future__ import annotations

from commands.process import Count, configure_logging, run_until_signalled
from config.settings import load_settings
from serving.processes import run_child, run_parent, serve_here

__all__ = ["serve"]


def serve(*, processes: Count = None) -> int:
    """Answer HTTP requests until a signal; then finish what is under way.

    Parameters
    ----------
    processes
        Server processes that share the port, 1 to 64; http.processes by default.
    """
    settings = load_settings()
    count = processes or settings.http.processes
    if count == 1:
        run_until_signalled(lambda: serve_here(settings))
    else:
        run_until_signalled(lambda: run_parent(settings, count))
    return 0


def _child() -> None:
    settings = load_settings()
    configure_logging(settings.log)
    run_until_signalled(lambda: run_child(settings))


if __name__ == "__main__":  # one of several, started by its parent
    _child()
