"""What the ranking and its learning promise, the slow and obvious way: dicts, loops and `math`.

A `World` is what is known of a shop, by names. From it alone come

    told_of      the rule's score of every candidate, part by part, widened where the rule widens
    chosen_of    the best candidates by it
    features_of, session_features_of    what the learned ranking looks at, by name
    Network      the model from plain nested lists: z, softmax chances, loss
    Adam         one number after the other

Of the project, these use only settings, the table of centres and scales, and `tests/oracle.py`.
`Ids` and `asked_of` are the way to the code under test: they give names small ints and hashes, and
answer what `Ranker.ask` wants to know.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np

from config.settings import RankSettings
from processors.repeats import CELLS, prior_of
from serving.candidates import F32, Judged, Lists, Neighbours, Popularity, Worth, session_items
from serving.features import CANDIDATE_FEATURES, SESSION_FEATURES
from serving.model import HIDDEN, Model
from serving.rank import Asked, Batch, Knowledge, Ranker
from serving.rank import Told as Answer
from streams.columns import F64, I64
from tests import oracle

__all__ = [
    "Adam",
    "Ids",
    "Network",
    "Told",
    "World",
    "asked_of",
    "cell_number",
    "chosen_of",
    "features_of",
    "random_parameters",
    "random_session",
    "random_world",
    "session_features_of",
    "told_of",
]

CANDIDATES = 100
BEHIND = 1e-6
FLOOR = 0.3
_BITS = 6


@dataclass(frozen=True)
class World:
    """What is known of a shop."""

    rules: RankSettings
    items: list[str]
    forward: dict[str, dict[str, float]]
    """Item → neighbour → count of coming after the item."""
    backward: dict[str, dict[str, float]]
    """Item → the same neighbours → count of coming before it."""
    sessions_with: dict[str, int]
    recent: dict[str, float]
    sessions: int
    prior: dict[tuple[int, int, int], float]
    """Repeat prior by cell: distance, times (at most 3), ⌈log2 length⌉ (at most 5)."""

    def worth(self, item: str, neighbour: str) -> float:
        """w(item, neighbour)."""
        return self.forward[item][neighbour] + self.rules.backward * self.backward[item][neighbour]

    def strength(self, item: str, neighbour: str) -> float:
        """w^q, 0 where the neighbour is none."""
        if neighbour not in self.forward.get(item, {}):
            return 0.0
        return float(self.worth(item, neighbour) ** self.rules.count_power)

    def idf(self, item: str) -> float:
        """1 + ln(sessions / sessions with the item), 0 where it is in none yet."""
        known = self.sessions_with.get(item, 0)
        return 1 + math.log(max(self.sessions, known) / known) if known else 0.0


@dataclass
class Told:
    """All candidates after a session, and the parts of their scores."""

    own: list[tuple[str, int, int]]
    """(item, steps from the end counted from 1, times seen), latest first."""
    length: int
    votes: dict[str, dict[str, float]]
    """Candidate → session item → what its vote adds; the two-step ones scaled as scores are."""
    prior: dict[str, float]
    """Of the session's own items."""
    two_steps: dict[str, float] | None = None
    """Candidate → its share of the two-step votes; None where nobody looked."""
    indirect: set[str] = field(default_factory=set)
    doubtful: bool = False
    """Whether it hangs on a tie through whom to look further."""

    def score(self, candidate: str) -> float:
        """The whole rule."""
        return sum(self.votes[candidate].values()) + self.prior.get(candidate, 0.0)


def told_of(world: World, session: Sequence[str], worth: Mapping[str, float] | None = None) -> Told:
    """Every candidate after the session. `worth` is what scores are multiplied by, 1 where it says
    nothing; of those worth nothing, none is shown.
    """
    worth = worth or {}
    rules = world.rules
    own = oracle.latest_distinct(session, rules.session_items)
    votes: dict[str, dict[str, float]] = {item: {} for item, _, _ in own}
    for a, distance, _ in own:
        idf = world.idf(a)
        weight = rules.distance_decay ** (distance - 1) * idf**rules.idf_power if idf else 0.0
        for c in world.forward.get(a, {}):
            votes.setdefault(c, {})[a] = weight * world.strength(a, c)
    total = sum(part for parts in votes.values() for part in parts.values())
    if total:
        votes = {c: {a: v / total for a, v in parts.items()} for c, parts in votes.items()}
    prior = {
        item: world.prior[oracle.cell_of(distance, times, len(session))]
        for item, distance, times in own
    }
    told = Told(own, len(session), votes, prior)
    shown = [c for c in votes if worth.get(c, 1.0) > 0]
    if total and len(shown) < rules.widen_below:
        _widen(world, told)
    return told


def _widen(world: World, told: Told) -> None:
    """Look at the lists of the best voted candidates that are not in the session."""
    mine = {item for item, _, _ in told.own}
    voted = {c: sum(parts.values()) for c, parts in told.votes.items() if c not in mine}
    best = sorted((c for c in voted if voted[c] > 0), key=lambda c: -voted[c])
    through, others = best[: world.rules.widen_by], best[world.rules.widen_by :]
    if not through:
        return
    told.doubtful = bool(others) and voted[others[0]] > voted[through[-1]] * (1 - 1e-9)
    further: dict[str, dict[str, float]] = {}
    for n in through:
        near = world.forward.get(n, {})
        all_of_it = sum(world.worth(n, c) for c in near) + FLOOR
        for c in near:
            parts = further.setdefault(c, {})
            for a, vote in told.votes[n].items():
                parts[a] = parts.get(a, 0.0) + vote * world.worth(n, c) / all_of_it
    total = sum(part for parts in further.values() for part in parts.values())
    shares = {c: sum(parts.values()) / total if total else 0.0 for c, parts in further.items()}
    told.two_steps = {c: shares.get(c, 0.0) for c in [*told.votes, *further]}
    for c, parts in further.items():
        if c not in told.votes:
            told.indirect.add(c)
            told.votes[c] = {
                a: BEHIND * part / total if total else 0.0 for a, part in parts.items()
            }


def chosen_of(
    told: Told,
    excluded: Sequence[str],
    place: Mapping[str, int],
    worth: Mapping[str, float] | None = None,
) -> list[str]:
    """The best candidates by what their scores are worth, in falling order of the scores; of those
    that score the same, the smaller `place` goes first.
    """
    worth = worth or {}
    left = [c for c in told.votes if c not in excluded and worth.get(c, 1.0) > 0]
    best = sorted(left, key=lambda c: (-told.score(c) * worth.get(c, 1.0), place[c]))[:CANDIDATES]
    return sorted(best, key=lambda c: (-told.score(c), place[c]))


def _log_shares(values: dict[str, float]) -> dict[str, float]:
    total = sum(values.values())
    return {c: math.log((v / total if total else 0.0) + 1e-4) for c, v in values.items()}


def features_of(world: World, told: Told, chosen: Sequence[str]) -> list[dict[str, float]]:
    """The features of each chosen candidate, centred and scaled."""
    own = [item for item, _, _ in told.own]
    steps = {item: distance - 1 for item, distance, _ in told.own}
    forward, backward = world.forward, world.backward

    def summed(by: Callable[[str, str], float]) -> dict[str, float]:
        return _log_shares({c: sum(by(a, c) for a in own) for c in chosen})

    def share(counts: dict[str, dict[str, float]], a: str, c: str) -> float:
        mine = counts.get(a, {})
        return mine.get(c, 0.0) / (sum(mine.values()) + FLOOR)

    decay, power = world.rules.distance_decay, world.rules.idf_power

    def by_rule(a: str, c: str) -> float:
        idf = world.idf(a)
        return decay ** steps[a] * idf**power * world.strength(a, c) if idf else 0.0

    columns = {
        "votes_fast": summed(
            lambda a, c: 0.4 ** steps[a] * world.idf(a) ** 3 * world.strength(a, c)
        ),
        "votes_rule": summed(by_rule),
        "votes_slow": summed(
            lambda a, c: 0.8 ** steps[a] * world.idf(a) ** 3 * world.strength(a, c)
        ),
        "votes_flat": summed(lambda a, c: world.idf(a) * world.strength(a, c)),
        "follows": summed(lambda a, c: 0.6 ** steps[a] * share(forward, a, c)),
        "precedes": summed(lambda a, c: 0.6 ** steps[a] * share(backward, a, c)),
    }
    best = told.score(chosen[0])
    found = []
    for rank, c in enumerate(chosen, 1):
        voters = sum(world.strength(a, c) > 0 for a in own)
        sessions, recent = world.sessions_with.get(c, 0), world.recent.get(c, 0.0)
        last_two: list[float] = []
        for back in range(2):
            for counts in (forward, backward):
                near = share(counts, own[back], c) if back < len(own) else 0.0
                last_two.append(math.log(near + 1e-3))
        raw = {
            **{name: column[c] for name, column in columns.items()},
            "after_last": last_two[0],
            "before_last": last_two[1],
            "after_second": last_two[2],
            "before_second": last_two[3],
            "count_after": math.log(1 + forward.get(own[0], {}).get(c, 0.0)),
            "count_before": math.log(1 + backward.get(own[0], {}).get(c, 0.0)),
            "voters": math.log(1 + voters),
            "popular": math.log((sessions + 1) / (world.sessions + 1)),
            "recent": math.log(recent + 0.1),
            "trend": math.log((recent + 0.1) / (0.2 * sessions + 0.5)),
            "two_steps": CANDIDATE_FEATURES["two_steps"].centre
            if told.two_steps is None
            else math.log(told.two_steps[c] + 1e-4),
            "rule": math.log(told.score(c) + 1e-5),
            "rank": math.log(rank),
            "relative": told.score(c) / best if best else 0.0,
            "known_by": voters / len(own),
            "own": float(c in own),
            "last": float(c == own[0]),
            "prior": math.log(told.prior[c] + 1e-3) if c in own else 0.0,
            "indirect": float(c in told.indirect),
        }
        found.append(
            {name: (raw[name] - one.centre) / one.scale for name, one in CANDIDATE_FEATURES.items()}
        )
    return found


def session_features_of(world: World, told: Told, chosen: Sequence[str]) -> dict[str, float]:
    """The features that all chosen candidates share, centred and scaled."""
    last = told.own[0][0]
    near = world.forward.get(last, {})
    outflow = sum(near.values())
    raw = {
        "one": float(told.length == 1),
        "two": float(told.length == 2),
        "few": float(told.length in (3, 4)),
        "length": math.log(told.length),
        "repeats": sum(told.prior.values()),
        "best": told.score(chosen[0]),
        "support": math.log(1 + world.sessions_with.get(last, 0)),
        "outflow": math.log(1 + outflow),
        "peak": max(near.get(c, 0.0) for c in chosen) / (outflow + FLOOR),
        "distinct": len(told.own) / min(told.length, oracle.WINDOW),
        "widened": float(told.two_steps is not None),
    }
    return {name: (raw[name] - one.centre) / one.scale for name, one in SESSION_FEATURES.items()}


@dataclass
class Network:
    """z(c) = ln(rule(c) + 10⁻⁵) + linear · x(c) + output · max(0, Wᵀ x(c) + Vᵀ q + bias)."""

    w: list[list[float]]
    """[feature][unit]."""
    v: list[list[float]]
    bias: list[float]
    output: list[float]
    linear: list[float]

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Network:
        """The members in the order in which `Model` names them."""
        left = list(numbers)

        def take(n: int) -> list[float]:
            taken, left[:n] = left[:n], []
            return taken

        w = [take(HIDDEN) for _ in CANDIDATE_FEATURES]
        v = [take(HIDDEN) for _ in SESSION_FEATURES]
        found = cls(w, v, take(HIDDEN), take(HIDDEN), take(len(CANDIDATE_FEATURES)))
        assert not left
        return found

    def inner(self, x: Sequence[float], q: Sequence[float]) -> list[float]:
        """What goes into the hidden units for one candidate."""
        return [
            sum(x[f] * self.w[f][unit] for f in range(len(x)))
            + sum(q[f] * self.v[f][unit] for f in range(len(q)))
            + self.bias[unit]
            for unit in range(HIDDEN)
        ]

    def z(self, rule: float, x: Sequence[float], q: Sequence[float]) -> float:
        """Of one candidate."""
        hidden = [max(0.0, one) for one in self.inner(x, q)]
        return (
            math.log(rule + 1e-5)
            + sum(a * b for a, b in zip(self.linear, x, strict=True))
            + sum(a * b for a, b in zip(self.output, hidden, strict=True))
        )

    def chances(
        self, rule: Sequence[float], x: Sequence[Sequence[float]], q: Sequence[float]
    ) -> list[float]:
        """Softmax of z over the candidates, whose features are the rows of `x`."""
        z = [self.z(score, one, q) for score, one in zip(rule, x, strict=True)]
        parts = [math.exp(one - max(z)) for one in z]
        return [part / sum(parts) for part in parts]

    def loss(
        self, rule: Sequence[float], x: Sequence[Sequence[float]], q: Sequence[float], true: int
    ) -> float:
        """Cross-entropy of the true next item."""
        return -math.log(self.chances(rule, x, q)[true])


@dataclass
class Adam:
    """One number and its running means; steps as `processors/learning.py` says."""

    value: float
    first: float = 0.0
    second: float = 0.0
    steps: int = 0

    def step(self, gradient: float) -> None:
        """Move against the gradient."""
        self.steps += 1
        k = self.steps
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient**2
        rate = max(0.0004, 0.004 * min(1, k / 50) / math.sqrt(1 + k / 800))
        first, second = self.first / (1 - 0.9**k), self.second / (1 - 0.999**k)
        self.value -= rate * first / (math.sqrt(second) + 1e-7)


def _count(random: Random, ties: bool) -> float:
    """As float32 holds it, so that the code is given what the oracle has."""
    value = random.choice([0.25, 1.0, 4.0]) if ties else 10 ** random.uniform(-2, 1.5)
    return float(np.float32(value))


def random_world(random: Random, items: int, *, ties: bool = False, **rules: float) -> World:
    """A shop. Without `ties`, no two scores are the same, so all choices are certain."""
    names = [f"i{n}" for n in range(items)]
    forward: dict[str, dict[str, float]] = {}
    backward: dict[str, dict[str, float]] = {}
    for item in names:
        if random.random() < 0.15:
            continue
        near = random.sample(names, random.randint(0, items // random.choice([1, 2, 8])))
        forward[item], backward[item] = {}, {}
        for one in near:
            which = random.randrange(3)  # one way, the other way, or both
            forward[item][one] = _count(random, ties) if which != 1 else 0.0
            backward[item][one] = _count(random, ties) if which != 0 else 0.0
    return World(
        RankSettings.model_validate(rules),
        names,
        forward,
        backward,
        {item: random.randint(1, 60) for item in names if random.random() < 0.85},
        {item: random.uniform(0, 20) for item in names if random.random() < 0.7},
        random.choice([0, 40, 1000]),
        {
            (d, t, b): random.random() ** random.choice([1, 4])
            for d in range(1, oracle.WINDOW + 1)
            for t in range(1, 4)
            for b in range(_BITS)
        },
    )


def random_session(random: Random, world: World) -> list[str]:
    """Items in time order."""
    some = random.sample(world.items, min(len(world.items), random.choice([1, 4, 20, 40])))
    return [random.choice(some) for _ in range(random.choice([1, 2, 3, 4, 5, 12, 30, 31, 45]))]


def random_parameters(random: Random, numbers: int, size: float = 0.3) -> F32:
    """(numbers,) of a model."""
    return np.array([random.gauss(0, size) for _ in range(numbers)], np.float32)


class Ids:
    """Small ints and hashes for names, drawn anew for each seed."""

    def __init__(self, random: Random, names: Sequence[str]) -> None:
        self.index = dict(zip(names, random.sample(range(3000), len(names)), strict=True))
        self.name = {index: name for name, index in self.index.items()}
        hashes = random.sample(range(1, 2**62), len(names))
        self.hash = dict(zip(names, hashes, strict=True))
        self.of_hash = {value: name for name, value in self.hash.items()}
        self._random = random
        self._shuffled = True

    def keep_order(self) -> None:
        """Lists come in the same order from now on."""
        self._shuffled = False

    def ints(self, names: Sequence[str]) -> I64:
        """(n,)."""
        return np.array([self.index[name] for name in names], np.int64)

    def names(self, index: I64) -> list[str]:
        """The way back."""
        return [self.name[one] for one in index.tolist()]

    def neighbours(self, world: World, item: str) -> Neighbours:
        """The item's list, in any order."""
        near = list(world.forward.get(item, {}))
        if self._shuffled:
            self._random.shuffle(near)
        return Neighbours.of(
            self.ints(near),
            np.array([world.forward[item][one] for one in near], np.float32),
            np.array([world.backward[item][one] for one in near], np.float32),
            np.array([world.strength(item, one) for one in near], np.float64),
        )


def asked_of(
    ranker: Ranker,
    world: World,
    ids: Ids,
    session: Sequence[str],
    excluded: Sequence[str] | None = None,
    *,
    weighed: bool = True,
    model: Model | None = None,
    worth: Mapping[str, float] | None = None,
) -> Asked:
    """One session by itself."""
    worths = None if worth is None else [worth]
    return batch_of(
        ranker, world, ids, [session], [excluded], weighed=weighed, model=model, worths=worths
    ).of(0)


def cell_number(distance: int, times: int, length: int) -> int:
    """The code's number of a cell of the repeat prior: where each says its number, it is said."""
    numbers = np.arange(CELLS, dtype=np.float64)
    one = np.array([distance]), np.array([times])
    return int(prior_of(numbers, *one, np.array([0, 1]), np.array([length]))[0])


def batch_of(
    ranker: Ranker,
    world: World,
    ids: Ids,
    sessions: Sequence[Sequence[str]],
    excluded: Sequence[Sequence[str] | None],
    *,
    weighed: bool = True,
    model: Model | None = None,
    worths: Sequence[Mapping[str, float]] | None = None,
) -> Batch:
    """Walk the steps of `Ranker.ask`, and answer each from the world. `worths`, one for each
    session, say what scores are multiplied by.
    """
    prior: F64 = np.zeros(CELLS)
    for (distance, times, bits), chance in world.prior.items():
        prior[cell_number(distance, times, 2**bits)] = chance
    items = [
        session_items(
            np.array([ids.hash[item] for item in session], np.uint64),
            len(session),
            world.rules.session_items,
        )
        for session in sessions
    ]
    steps = ranker.ask(
        items,
        ids.ints([ids.of_hash[one] for some in items for one in some.item.tolist()]),
        Knowledge(world.sessions, 0, prior, model),
        [None if some is None else ids.ints(some) for some in excluded],
        weighed=weighed,
        judged=worths is not None,
    )

    def popularity(index: I64) -> Popularity:
        names = ids.names(index)
        return Popularity(
            np.array([world.sessions_with.get(name, 0) for name in names], np.float64),
            np.array([world.recent.get(name, 0.0) for name in names], np.float64),
        )

    def judged(wanted: Judged) -> Worth:
        weight = [
            (worths or [])[slot].get(name, 1.0)
            for slot in range(len(sessions))
            for name in ids.names(wanted.index[wanted.start[slot] : wanted.start[slot + 1]])
        ]
        return Worth(np.array(weight, np.float64))

    answer: Answer | None = None
    try:
        while True:
            wanted = next(steps) if answer is None else steps.send(answer)
            if isinstance(wanted, Judged):
                answer = judged(wanted)
            elif isinstance(wanted, Lists):
                answer = [ids.neighbours(world, name) for name in ids.names(wanted.index)]
            else:
                answer = popularity(wanted.index)
    except StopIteration as done:
        batch: Batch = done.value
        return batch
