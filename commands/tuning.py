"""The search behind `headwater tune`: what it asks, how it answers, and where it goes.

Questions are prefixes of held out sessions; `Measure` answers them by the rule alone, without what
was learned. `Search` goes along one constant at a time, from the defaults on: up its ladder of
values for as long as the target, HR@20 + MRR@20 in percent, rises, else down; and again over all
constants until none moves.

All settings answer the same questions, so what a step gains is the mean of paired differences. It
is taken only if it is at least 0.05 and 2.33 of its standard errors, as one in a hundred steps that
change nothing would be by chance: a search tries dozens. The default stays where nothing is that
clear.

Counts depend on the constants of `fold` alone and are made again only when these change; a list is
cut to its best neighbours by the default value of `rank.backward` or the one that is tried then.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.progress import Progress

from commands.protocol import Question, Split, hashed
from config.errors import BadInput
from config.settings import Settings
from processors.fold import FoldRules, fold_batch, item_deltas, total_deltas
from processors.memory import MemoryCounts
from processors.session import empty_table
from processors.standing import SHOWN, rank_of
from serving.candidates import Neighbours, Popularity, SessionItems, session_items
from serving.rank import Knowledge, Ranker, walk
from streams.columns import F64, I64, hash_id

__all__ = ["LADDERS", "Measure", "Search", "Trial", "held_out"]

_HELD_OUT = 0.07
_QUESTIONS = 3000
_EVENTS = 1_000_000
_SEED = 20
_LEAST_GAIN, _ERRORS = 0.05, 2.33

LADDERS: dict[str, tuple[float, ...]] = {
    "rank.backward": (0, 0.1, 0.2, 0.35, 0.5, 0.7, 1),
    "rank.distance_decay": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1),
    "rank.count_power": (0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9, 1),
    "rank.idf_power": (0, 0.5, 1, 2, 3, 4, 5, 6),
    "fold.gap_slope": (0, 0.1, 0.2, 0.4, 0.8, 1.5, 3, 6, 10),
    "fold.length_exponent": (0, 0.15, 0.3, 0.5, 0.75, 1, 1.5, 2),
}
"""Values to choose from. Those of `fold`, which cost a new count, come last."""

Constants = Mapping[str, float]


def held_out(split: Split) -> list[Question]:
    """Take the newest sessions out of a split, and draw questions from them.

    Raises BadInput where they give none, or where nothing older is left.
    """
    cut = min(math.floor(len(split.sessions) * (1 - _HELD_OUT)), len(split.sessions) - 1)
    older, newest = split.sessions[:cut], split.sessions[cut:]
    every = [(session, place) for session in newest for place in range(1, len(session))]
    if not every or not any(older):
        raise BadInput(
            f"the newest {_HELD_OUT:.0%} of the {len(split.sessions)} training sessions give no "
            "question, or nothing older is left: tuning takes more sessions of two items or more"
        )
    drawn = np.random.default_rng(_SEED).permutation(len(every))[:_QUESTIONS]
    sizes = np.cumsum([len(session) for session in reversed(older)])
    split.sessions = older[-max(1, int(np.searchsorted(sizes, _EVENTS, "right"))) :]
    return [
        Question(session[:place], session[place])
        for session, place in (every[at] for at in np.sort(drawn).tolist())
    ]


@dataclass(frozen=True, slots=True)
class Trial:
    """How some constants answer the questions."""

    constants: dict[str, float]
    rank: I64
    """(q,) of each answer, from 1; 0 where it is not shown."""

    @property
    def value(self) -> F64:
        """(q,) what each answer is worth, in percent: 100 · (hit + 1/rank)."""
        shown = (self.rank > 0) & (self.rank <= SHOWN)
        return 100 * np.where(shown, 1 + 1 / np.maximum(self.rank, 1), 0.0)

    def beats(self, other: Trial) -> bool:
        """Whether it gains more than noise on the same questions."""
        gain = self.value - other.value
        error = float(gain.std()) / len(gain) ** 0.5
        return bool(gain.mean() >= max(_LEAST_GAIN, _ERRORS * error))

    def as_json(self) -> dict[str, float]:
        """Both measures in percent."""
        shown = self.rank[(self.rank > 0) & (self.rank <= SHOWN)]
        return {
            "hr_at_20": round(100 * len(shown) / len(self.rank), 2),
            "mrr_at_20": round(100 * float((1 / shown).sum()) / len(self.rank), 2),
        }


@dataclass(frozen=True, slots=True)
class _Counted:
    """What was counted with some constants of `fold`; small ints are those of `counts`."""

    lists: list[Neighbours]
    sessions: F64
    knowledge: Knowledge
    asked: list[tuple[SessionItems, I64, int]]
    """Of each question: the session, its small ints, and that of the answer."""


class Measure:
    """Answers the questions with whatever constants."""

    def __init__(self, split: Split, questions: Sequence[Question], settings: Settings) -> None:
        self._split = split
        self._questions = questions
        self._settings = settings
        self._counted: dict[tuple[float, float], _Counted] = {}

    async def trial(self, constants: Constants, keep: Constants) -> Trial:
        """Answer with these constants. Of the counts, those for `keep` are kept besides."""
        settings = _settings_with(self._settings, constants)
        wanted = {_of_fold(constants), _of_fold(keep)}
        self._counted = {of: one for of, one in self._counted.items() if of in wanted}
        counted = self._counted.get(_of_fold(constants))
        if counted is None:
            counted = self._counted[_of_fold(constants)] = await self._count(settings)
        ranker, power = Ranker(settings.rank), settings.rank.count_power
        strengths: dict[int, Neighbours] = {}

        def neighbours_of(item: int) -> Neighbours:
            known = strengths.get(item)
            if known is None:
                one = counted.lists[item]
                count = one.forward + settings.rank.backward * one.backward.astype(np.float64)
                known = Neighbours.of(one.index, one.forward, one.backward, count**power)
                strengths[item] = known
            return known

        def neighbours(index: I64) -> list[Neighbours]:
            return [neighbours_of(item) for item in index.tolist()]

        def popularity(index: I64) -> Popularity:
            return Popularity(counted.sessions[index], np.zeros(len(index)))

        ranks: list[int] = []
        for items, own, answer in counted.asked:
            if len(ranks) % 64 == 0:
                await asyncio.sleep(0)  # lets a signal through
            steps = ranker.ask([items], own, counted.knowledge, [None], weighed=False)
            query = walk(steps, neighbours, popularity).of(0).query
            ranks.append(rank_of(query.index == answer, query.rule))
        return Trial(dict(constants), np.array(ranks))

    async def _count(self, settings: Settings) -> _Counted:
        rules, counts = FoldRules(settings), MemoryCounts(settings)
        events = self._split.events(settings.fold.half_life_days).columns
        for batch in self._split.batches(events, settings.worker.max_poll_records):
            folded = fold_batch(empty_table(np.unique(batch.user)), batch, rules)
            counts.apply(
                item_deltas(folded, rules, lambda items, _: np.ones(len(items), np.bool_)),
                total_deltas(folded, np.ones(len(batch), np.bool_)),
            )
            await asyncio.sleep(0)
        asked = []
        for question in self._questions:
            items = hashed(question.session)
            session = session_items(items, len(items), settings.rank.session_items)
            answer = np.array([hash_id(question.answer)], np.uint64)
            own = counts.interner.index(session.item)
            asked.append((session, own, int(counts.interner.index(answer)[0])))
        known = np.unique(np.concatenate([events.item, *(s.item for s, _, _ in asked)]))
        index = np.arange(int(counts.interner.index(known).max()) + 1)
        lists = counts.neighbours(index.tolist())
        return _Counted(lists, counts.popularity(index).sessions, counts.knowledge(), asked)


class Search:
    """Goes along one constant after the other; `best` and `default` are there after `run`."""

    best: Trial
    default: Trial

    def __init__(self, measure: Measure, trials: int, bar: Progress) -> None:
        self._measure = measure
        self._most = trials
        self._bar = bar
        self._task = bar.add_task("searching", total=trials, note="")
        self._known: dict[tuple[float, ...], Trial] = {}

    @property
    def trials(self) -> int:
        """Settings measured so far."""
        return len(self._known)

    def changed(self) -> dict[str, float]:
        """The best constants where they differ from the defaults."""
        defaults = self.default.constants
        return {n: value for n, value in self.best.constants.items() if value != defaults[n]}

    async def run(self) -> None:
        """Search until no constant moves, or the trials are used up."""
        start = {name: _default_of(name) for name in LADDERS}
        self.best = self.default = await self._try(start)
        moved = True
        while moved and self.trials < self._most:
            moved = False
            for name in LADDERS:
                moved = await self._go_along(name, 1) or await self._go_along(name, -1) or moved
        self._bar.update(self._task, total=self.trials)

    async def _go_along(self, name: str, step: int) -> bool:
        """Walk for as long as the target rises; true if the best is then better than noise."""
        ladder = LADDERS[name]
        at = ladder.index(self.best.constants[name]) + step
        top = self.best
        while 0 <= at < len(ladder) and self.trials < self._most:
            one = await self._try({**self.best.constants, name: ladder[at]})
            if one.value.mean() <= top.value.mean():
                break
            top = one
            at += step
        if not top.beats(self.best):
            return False
        self.best = top
        return True

    async def _try(self, constants: dict[str, float]) -> Trial:
        key = tuple(constants.values())
        if key not in self._known:
            keep = self.best.constants if self._known else constants
            self._known[key] = await self._measure.trial(constants, keep)
            told = (self.best if len(self._known) > 1 else self._known[key]).as_json()
            note = f"HR@20 {told['hr_at_20']} %, MRR@20 {told['mrr_at_20']} %"
            self._bar.update(self._task, completed=self.trials, note=note)
        return self._known[key]


def _of_fold(constants: Constants) -> tuple[float, float]:
    return constants["fold.gap_slope"], constants["fold.length_exponent"]


def _default_of(name: str) -> float:
    group, _, field = name.partition(".")
    return float(getattr(getattr(Settings.model_construct(), group), field))


def _settings_with(settings: Settings, constants: Constants) -> Settings:
    update = {}
    for group in ("fold", "rank"):
        mine = {n.split(".")[1]: v for n, v in constants.items() if n.startswith(f"{group}.")}
        update[group] = getattr(settings, group).model_copy(update=mine)
    return settings.model_copy(update=update)
