"""docs/operations.md and docs/design.md: every alert has its row, and what they name is there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from cyclopts import App

from commands.__main__ import COMMANDS, _app
from config.settings import Settings, describe, load_settings
from planning.document import fill_in

ROOT = Path(__file__).parent.parent
PAGES = ("operations", "design", "monitoring", "replay", "access")
TEXTS = {name: (ROOT / f"docs/{name}.md").read_text() for name in PAGES}
ALERTS = [
    rule["alert"]
    for group in yaml.safe_load((ROOT / "monitoring/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
]
FENCE = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
PLACEHOLDER = re.compile(r"[A-Z]+|…|NAME.*")


def _code(text: str) -> Iterator[str]:
    """What stands in blocks, line by line, and in spans."""
    for block in FENCE.findall(text):
        yield from block.splitlines()
    yield from SPAN.findall(FENCE.sub("", text))


def _commands(text: str) -> Iterator[list[str]]:
    for code in _code(text):
        found = re.search(r"(?:^|\s|/)headwater (.+)$", code)
        # `kubectl … deploy/headwater-server` is none, nor is `docker … headwater`.
        if found and "kubectl" not in code:
            yield shlex.split(found[1], comments=True)


WRITTEN = [(page, words) for page in PAGES for words in _commands(TEXTS[page])]


def _options(app: App) -> set[str]:
    return {name for one in app.assemble_argument_collection() for name in one.names}


def test_commands_are_found_in_the_pages() -> None:
    assert len(WRITTEN) > 40
    assert {words[0] for _, words in WRITTEN} >= {
        "replay",
        "generations",
        "snapshot",
        "keys",
        "plan",
    }


@pytest.mark.parametrize(("page", "words"), WRITTEN, ids=lambda one: str(one))
def test_commands_and_their_options_exist(page: str, words: list[str]) -> None:
    app = _app()
    rest = [word for word in words if word != "…"]
    assert rest[0] in COMMANDS, page
    while rest and not rest[0].startswith("-") and rest[0] in list(app):
        app = app[rest.pop(0)]
    if any(not name.startswith("-") for name in app) and rest:
        assert PLACEHOLDER.fullmatch(rest[0]) or rest[0].startswith("-"), f"{page}: {words}"
    known = _options(app) | {"--help"} if app.default_command else {"--help"}
    for word in rest:
        if word.startswith("--"):
            assert word.split("=")[0] in known, f"{page}: {words}"


def test_an_option_that_is_not_there_would_be_seen() -> None:
    assert "--activate" in _options(_app()["replay"])
    assert "--hats" not in _options(_app()["replay"])


def test_every_alert_has_its_row() -> None:
    rows = re.findall(r"^\| \[(\w+)\]\(monitoring\.md#(\w+)\) \|(.*)\|$", TEXTS["operations"], re.M)
    assert sorted(name for name, _, _ in rows) == sorted(ALERTS)
    for name, anchor, told in rows:
        assert anchor == name.lower()
        assert all(cell.strip() for cell in told.split("|")), name
    # Targets of the design are told by alerts that exist; -Medium, -Slow go with the one before.
    named = set(re.findall(r"\bHeadwater[A-Z]\w+", TEXTS["design"] + TEXTS["operations"]))
    assert named <= set(ALERTS)


@pytest.mark.parametrize("page", ["operations", "design", "monitoring"])
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]*)(?:#[^)]*)?\)", TEXTS[page]):
        assert not target or (ROOT / "docs" / target).exists(), target
    for target, anchor in re.findall(r"\]\(([^)#]*)#([^)]+)\)", TEXTS[page]):
        text = (ROOT / "docs" / target).read_text() if target else TEXTS[page]
        heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        assert anchor in {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in heads}


@pytest.mark.parametrize("page", ["operations", "design"])
def test_settings_metrics_and_files_exist(page: str) -> None:
    rows = list(describe(load_settings()))
    names, variables = {row["name"] for row in rows}, {row["variable"] for row in rows}
    groups = "|".join(Settings.model_fields)
    for code in _code(TEXTS[page]):
        for name in re.findall(rf"(?<![\w/.-])(?:{groups})\.[a-z_]+\b(?!\.)", code):
            topic = name in load_settings().kafka.model_dump().values()
            assert (
                name in names or topic or name.endswith((".json", ".yml", ".yaml", ".md", ".log"))
            ), name
        for variable in re.findall(r"\bHEADWATER_\w+", code):
            assert variable in variables, variable
        if re.fullmatch(r"(deploy|tests|planning|monitoring)/[\w/.]+", code):
            assert (ROOT / code).exists(), code
    faults = (ROOT / "docs/reliability.md").read_text()
    for fault in re.findall(r"`((?:kafka|redis|data|worker)-[a-z-]+)`", TEXTS[page]):
        assert f"| `{fault}` |" in faults, fault


def test_what_kubectl_is_told_of_is_applied() -> None:
    made: dict[str, set[str]] = {}
    for path in (ROOT / "deploy/kubernetes").glob("*.yaml"):
        for document in yaml.safe_load_all(path.read_text()):
            one: dict[str, Any] = document
            made.setdefault(one["kind"], set()).add(one.get("metadata", {}).get("name", ""))
    text = TEXTS["operations"]
    deployments = set(re.findall(r"deploy/(headwater-\w+)", text))
    assert deployments == made["Deployment"]
    assert set(re.findall(r"patch hpa (\S+)", text)) <= made["HorizontalPodAutoscaler"]
    assert set(re.findall(r"kubectl -n (\S+)", text)) == made["Namespace"]


def test_the_plan_of_the_design_is_todays() -> None:
    page = TEXTS["design"]
    assert "11,574" in page
    assert fill_in(page) == page, "make docs"
