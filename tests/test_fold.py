"""The vectorised folds against the oracle, on random logs and however these are cut into batches.

Every log is drawn from one integer seed, which a failing example names: `random_log(Random(seed),
…)` gives the same log again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.settings import Settings, load_settings
from processors import repeats
from processors.fold import FoldRules, fold_batch, item_deltas, total_deltas
from processors.late import place_one_by_one
from processors.popularity import WINDOWS, buckets_of, count_trend
from processors.session import SessionTable, empty_table, place_in_order, select_users
from streams.columns import I64, U64, Bool, hash_id
from tests.oracle import (
    BASE,
    Click,
    Forget,
    Oracle,
    cell_of,
    clicks_of,
    columns_of,
    random_log,
    tombstones_of,
    with_tombstones,
)
from tests.ranking_oracle import cell_number

MINUTE = 60_000
COLUMNS = ("time", "item", "event", "tag", "kind")
seeds = st.integers(0, 2**32)


def make_settings(history: int = 50, **fold: float) -> Settings:
    return load_settings(store={"history": history}, fold=fold)


class Folds:
    """What the code under test makes of a log, batch after batch, in plain dicts."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.rules = FoldRules(settings)
        self.histories: dict[int, list[tuple[int, ...]]] = defaultdict(list)
        self.parts: dict[tuple[str, int, int], list[tuple[float, float, int]]] = defaultdict(list)
        self.sessions_with: Counter[int] = Counter()
        self.events_of: Counter[int] = Counter()
        self.recents: dict[int, list[tuple[float, int]]] = defaultdict(list)
        self.trend: dict[tuple[int, int], float] = defaultdict(float)
        self.totals = [0, 0, 0]
        self.cells = np.zeros((2, repeats.CELLS), np.int64)

    def table(self, users: U64) -> SessionTable:
        """The histories of users, rising."""
        mine = [self.histories[user] for user in users.tolist()]
        columns = list(zip(*(row for rows in mine for row in rows), strict=True)) or [()] * 5
        types = (np.int64, np.uint64, np.uint64, np.uint32, np.uint8)
        named: dict[str, Any] = {
            name: np.array(column, kind)
            for name, column, kind in zip(COLUMNS, columns, types, strict=True)
        }
        start = np.cumsum([0] + [len(rows) for rows in mine]).astype(np.int64)
        return SessionTable(user=users, start=start, **named)

    def learn(self, batch: Sequence[Click | Forget]) -> None:
        """Fold one batch."""
        events, tombstones = columns_of(clicks_of(batch), self.settings), tombstones_of(batch)
        users = np.unique(np.concatenate([events.user, tombstones.user]))
        folded = fold_batch(self.table(users), events, self.rules, tombstones)
        assert folded.events is events
        for user, rows in rows_of(folded.sessions).items():
            self.histories[user] = rows
        everything = np.ones(len(events), np.bool_)
        self.take(item_deltas(folded, self.rules, lambda _, o: np.ones(len(o), np.bool_)))
        totals = total_deltas(folded, everything)
        self.totals[0] += totals.sessions
        self.totals[1] += totals.events
        self.totals[2] = max(self.totals[2], totals.latest)
        self.cells += np.stack([totals.opportunities, totals.hits])

    def take(self, deltas: Any) -> None:
        """Add what is for the items' shards."""
        for kind, more in (("viewed", deltas.increments), ("bought", deltas.bought)):
            columns = (more.source, more.neighbour, more.forward, more.backward, more.time)
            for source, neighbour, *counts in zip(*(a.tolist() for a in columns), strict=True):
                self.parts[kind, source, neighbour].append(tuple(counts))
        columns = (deltas.item, deltas.sessions, deltas.events, deltas.recent, deltas.recent_at)
        for item, sessions, events, recent, at in zip(*(a.tolist() for a in columns), strict=True):
            self.sessions_with[item] += sessions
            self.events_of[item] += events
            self.recents[item].append((recent, at))
        rows = deltas.trend
        trend = (rows.bucket, rows.item, rows.weight)
        for bucket, item, weight in zip(*(a.tolist() for a in trend), strict=True):
            self.trend[bucket, item] += weight

    def counts(self, at: float) -> dict[tuple[str, int, int, str], float]:
        """Decayed to a time in seconds; by list, hashes and direction."""
        rate = self.rules.rate
        return {
            (*pair, direction): sum(part[place] * np.exp(-rate * (at - part[2])) for part in parts)
            for pair, parts in self.parts.items()
            for place, direction in enumerate(("forward", "backward"))
        }

    def recent(self, at: float) -> dict[int, float]:
        """Recent events of items, decayed to a time in seconds."""
        rate = 20 * self.rules.rate
        return {
            item: sum(count * np.exp(-rate * (at - time)) for count, time in parts)
            for item, parts in self.recents.items()
        }


def rows_of(table: SessionTable) -> dict[int, list[tuple[int, ...]]]:
    """A table as lists of (time, item, event, tag, kind) by user."""
    rows = list(zip(*(getattr(table, name).tolist() for name in COLUMNS), strict=True))
    start = table.start.tolist()
    return {user: rows[start[i] : start[i + 1]] for i, user in enumerate(table.user.tolist())}


def cut(log: Sequence[Any], random: Random) -> list[Sequence[Any]]:
    """The log in consecutive batches of random sizes."""
    ends = sorted(random.sample(range(1, len(log)), min(len(log) - 1, random.randrange(1, 9))))
    return [log[a:b] for a, b in pairwise([0, *ends, len(log)])]


def assert_same(folds: Folds, oracle: Oracle) -> None:
    kinds = list(oracle.settings.events.weights)
    users = {hash_id(user): user for user in oracle.histories}
    assert {u for u, rows in folds.histories.items() if rows} == set(users)
    for user, name in users.items():
        told = [(t, i, e, g, kinds[k]) for t, i, e, g, k in folds.histories[user]]
        assert told == oracle.rows(name), name
    at = oracle.latest + 5.0
    assert folds.counts(at) == pytest.approx(oracle.all_counts(at), rel=1e-5)
    assert folds.recent(at) == pytest.approx(
        {hash_id(i): oracle.recent(i, at) for i in oracle.events_of}, rel=1e-5
    )
    assert +folds.sessions_with == {hash_id(i): n for i, n in oracle.sessions_with.items()}
    assert +folds.events_of == {hash_id(i): n for i, n in oracle.events_of.items()}
    trend = {(b, hash_id(i)): w for (g, b, i), w in oracle.trend.items() if g == 0}
    assert folds.trend == pytest.approx(trend)
    assert folds.totals == [oracle.sessions, oracle.events, oracle.latest]
    for counted, cells in zip(folds.cells, (oracle.opportunities, oracle.hits), strict=True):
        assert {n: c for n, c in enumerate(counted.tolist()) if c} == {
            number(cell): count for cell, count in cells.items() if count
        }


def number(cell: tuple[int, int, int]) -> int:
    """The code's number of a cell of the oracle."""
    distance, times, bits = cell
    return cell_number(distance, times, 2**bits)


@settings(max_examples=150, deadline=None, print_blob=True)
@given(seed=seeds, size=st.integers(1, 120), history=st.sampled_from([30, 31, 50]))
def test_random_logs_in_any_batches_fold_as_the_oracle_says(
    seed: int, size: int, history: int
) -> None:
    random = Random(seed)
    chosen = make_settings(history)
    log = random_log(random, chosen, size)
    oracle = Oracle(chosen).learn(log)
    whole, pieces, single = Folds(chosen), Folds(chosen), Folds(chosen)
    whole.learn(log)
    for batch in cut(log, random):
        pieces.learn(batch)
    for click in log:
        single.learn([click])
    for folds in (whole, pieces, single):
        assert_same(folds, oracle)


@settings(max_examples=150, deadline=None, print_blob=True)
@given(seed=seeds, size=st.integers(0, 120))
def test_users_are_forgotten_where_the_log_says_so(seed: int, size: int) -> None:
    random = Random(seed)
    chosen = make_settings(random.choice([30, 50]))
    log = with_tombstones(random, random_log(random, chosen, size))
    oracle = Oracle(chosen).learn(log)
    whole, pieces, single = Folds(chosen), Folds(chosen), Folds(chosen)
    whole.learn(log)
    for batch in cut(log, random) if len(log) > 1 else [log]:
        pieces.learn(batch)
    for one in log:
        single.learn([one])
    for folds in (whole, pieces, single):
        assert_same(folds, oracle)


@settings(max_examples=15, deadline=None, print_blob=True)
@given(seed=seeds)
def test_settings_of_the_fold_reach_the_counts(seed: int) -> None:
    random = Random(seed)
    chosen = load_settings(
        fold={
            "gap_slope": random.choice([0, 0.8, 3]),
            "length_exponent": random.choice([0, 0.3, 2]),
            "half_life_days": random.choice([0.01, 1, 30]),
        },
        rank={"session_items": random.choice([1, 4, 30])},
        events={"session_pause_minutes": 0.5, "weights": {"skip": 0, "buy": 3.5}},
    )
    log = random_log(random, chosen, 80)
    folds = Folds(chosen)
    for batch in cut(log, random):
        folds.learn(batch)
    assert_same(folds, Oracle(chosen).learn(log))


@settings(max_examples=6, deadline=None, print_blob=True)
@given(seed=seeds, size=st.integers(150, 400))
def test_long_sessions_stay_within_the_history(seed: int, size: int) -> None:
    random = Random(seed)
    chosen = make_settings()
    log, time = [], BASE
    for offset in range(size):
        time += random.choice([0, 1000, 5000]) if random.random() < 0.98 else -3000
        session = random.choice(["", "", "", "one", "two"]) if seed % 2 else ""
        log.append(Click(offset, "u", f"i{random.randrange(70)}", "view", time, session_id=session))
    oracle = Oracle(chosen).learn(log)
    folds = Folds(chosen)
    for batch in cut(log, random):
        folds.learn(batch)
    assert_same(folds, oracle)
    assert len(oracle.rows("u")) == 50


@settings(max_examples=60, deadline=None, print_blob=True)
@given(seed=seeds, size=st.integers(1, 150))
def test_both_ways_of_placing_agree_on_events_in_order(seed: int, size: int) -> None:
    random = Random(seed)
    chosen = make_settings(30)
    latest: dict[str, int] = {}
    log = []
    for click in random_log(random, chosen, size):
        time = max(click.time, latest.get(click.user, 0))
        latest[click.user] = time
        log.append(
            Click(click.offset, click.user, click.item, click.kind, time, "", click.session_id)
        )
    rules = FoldRules(chosen).sessions
    half = size // 2
    folds = Folds(chosen)
    if half:
        folds.learn(log[:half])
    events = columns_of(log[half:], chosen)
    before = folds.table(np.unique(events.user))
    table, prefixes, pairs, hard = place_in_order(before, events, rules)
    placed = place_one_by_one(before, events, rules)
    assert not hard.any()
    assert placed.duplicates == placed.joined == []
    assert rows_of(table) == rows_of(placed.table)

    def told(prefixes: Any) -> dict[int, tuple[list[int], int]]:
        return {
            row: ([i for i in items if i], length)
            for row, items, length in zip(
                prefixes.row.tolist(),
                prefixes.items.tolist(),
                prefixes.length.tolist(),
                strict=True,
            )
        }

    assert told(prefixes) == told(placed.prefixes)
    assert pair_rows(pairs) == pair_rows(placed.pairs)


def pair_rows(pairs: Any) -> list[tuple[int, ...]]:
    names = ("row", "gap", "first", "second", "position", "time", "first_kind", "second_kind")
    return sorted(zip(*(getattr(pairs, name).tolist() for name in names), strict=True))


@settings(max_examples=60, deadline=None, print_blob=True)
@given(seed=seeds, size=st.integers(2, 80))
def test_what_shards_lack_and_what_they_contain_make_the_whole(seed: int, size: int) -> None:
    random = Random(seed)
    chosen = make_settings()
    log = random_log(random, chosen, size)
    rules = FoldRules(chosen)
    events = columns_of(log, chosen)
    folded = fold_batch(empty_table(np.unique(events.user)), events, rules)
    marks = np.array([random.randrange(-1, size) for _ in range(3)])

    def newer(items: U64, rows: I64) -> Bool:
        return events.offset[rows] > marks[(items % np.uint64(3)).astype(np.int64)]

    whole, parts = Folds(chosen), Folds(chosen)
    whole.take(item_deltas(folded, rules, lambda _, o: np.ones(len(o), np.bool_)))
    parts.take(item_deltas(folded, rules, newer))
    parts.take(item_deltas(folded, rules, lambda i, r: ~newer(i, r)))
    at = BASE / 1000
    assert parts.counts(at) == pytest.approx(whole.counts(at), rel=1e-5)
    assert parts.recent(at) == pytest.approx(whole.recent(at), rel=1e-5)
    assert +parts.sessions_with == +whole.sessions_with
    assert +parts.events_of == +whole.events_of
    assert parts.trend == pytest.approx(whole.trend)

    lacks = events.offset > marks[0]
    all_of_it, some, rest = (
        total_deltas(folded, mask) for mask in (np.ones(size, np.bool_), lacks, ~lacks)
    )
    assert some.sessions + rest.sessions == all_of_it.sessions
    assert some.events + rest.events == all_of_it.events
    assert max(some.latest, rest.latest) == all_of_it.latest
    assert (some.opportunities + rest.opportunities == all_of_it.opportunities).all()
    assert (some.hits + rest.hits == all_of_it.hits).all()


def told(some: Iterable[Click | Forget]) -> Folds:
    """Fold, and hold against the oracle too."""
    log = list(some)
    chosen = make_settings()
    folds = Folds(chosen)
    folds.learn(log)
    assert_same(folds, Oracle(chosen).learn(log))
    return folds


def view(offset: int, item: str, minutes: float, **more: str) -> Click:
    return Click(offset, "u", item, more.pop("kind", "view"), BASE + int(minutes * MINUTE), **more)


def test_two_events_by_hand() -> None:
    folds = told([view(0, "a", 0), view(1, "b", 1, kind="purchase")])
    h = 2**-0.3
    at = (BASE + MINUTE) / 1000
    a, b = hash_id("a"), hash_id("b")
    assert folds.counts(at) == pytest.approx(
        {
            ("viewed", a, b, "forward"): 3 * h,
            ("viewed", a, b, "backward"): 0,
            ("viewed", b, a, "forward"): 0,
            ("viewed", b, a, "backward"): h,
        }
    )
    assert folds.recent(at) == pytest.approx({a: 2 ** (-20 / 43_200), b: 1})
    assert folds.totals == [1, 2, int(at)]
    assert folds.cells.sum(axis=1).tolist() == [1, 0]


def test_purchases_are_counted_as_bought_together_too() -> None:
    log = [view(0, "a", 0, kind="purchase"), view(1, "b", 1), view(2, "c", 2, kind="purchase")]
    folds = told(log)
    a, b, c = (hash_id(i) for i in "abc")
    assert {pair for pair in folds.parts if pair[0] == "bought"} == {
        ("bought", a, c),
        ("bought", c, a),
    }
    assert ("viewed", a, b) in folds.parts


def test_after_a_tombstone_all_is_new() -> None:
    # Late by its time, but after the tombstone in the log: new. Its event_id counts again, too.
    before = [view(0, "a", 1, event_id="e"), view(1, "b", 2)]
    folds = told([*before, Forget(2, "u"), view(3, "c", 0, event_id="e")])
    a, b, c = (hash_id(i) for i in "abc")
    assert {pair[1:] for pair in folds.parts} == {(a, b), (b, a)}
    assert [row[1] for row in folds.histories[hash_id("u")]] == [c]
    assert folds.totals[:2] == [2, 3]


def test_a_tombstone_at_either_end_several_and_of_nobody() -> None:
    u = hash_id("u")
    assert told([Forget(0, "u"), view(1, "a", 0)]).totals[:2] == [1, 1]
    assert told([view(0, "a", 0), Forget(1, "u")]).histories[u] == []
    assert told([Forget(0, "u")]).histories == {u: []}
    gone = [Forget(1, "u"), Forget(2, "x"), Forget(3, "u")]
    folds = told([view(0, "a", 0), *gone, view(4, "b", 1)])
    assert [row[1] for row in folds.histories[u]] == [hash_id("b")]
    others = [Click(n, f"u{n % 3}", f"i{n}", "view", BASE + n) for n in range(9)]
    folds = told([*others, Forget(9, "u1")])
    assert sorted(len(rows) for rows in folds.histories.values()) == [0, 3, 3]


def test_a_batch_of_nothing() -> None:
    folds = told([])
    assert folds.totals == [0, 0, 0]
    assert not folds.parts


def test_a_single_event() -> None:
    folds = told([view(0, "a", 0)])
    assert folds.totals[:2] == [1, 1]
    assert not folds.parts
    assert dict(folds.sessions_with) == {hash_id("a"): 1}


def test_a_batch_of_duplicates_alone_changes_nothing() -> None:
    chosen = make_settings()
    folds = Folds(chosen)
    log = [view(n, f"i{n}", n, event_id=f"e{n}") for n in range(4)]
    folds.learn(log)
    before = rows_of(folds.table(np.array([hash_id("u")], np.uint64)))
    parts, totals, cells = dict(folds.parts), list(folds.totals), folds.cells.copy()
    again = [Click(9 + n, "u", "other", "cart", c.time + 7, c.event_id) for n, c in enumerate(log)]
    folds.learn(again)
    assert rows_of(folds.table(np.array([hash_id("u")], np.uint64))) == before
    assert folds.parts == parts
    assert folds.totals == totals
    assert (folds.cells == cells).all()
    assert_same(folds, Oracle(chosen).learn([*log, *again]))


def test_an_event_id_counts_again_once_it_left_the_history() -> None:
    log = [view(n, "a", n / 10, event_id=f"e{n % 51}") for n in range(60)]
    assert told(log).totals[1] == 60
    log = [view(n, "a", n / 10, event_id=f"e{n % 50}") for n in range(60)]
    assert told(log).totals[1] == 50


def test_the_same_event_id_of_two_users_is_two_events() -> None:
    folds = told(Click(n, f"u{n}", "a", "view", BASE, "e") for n in range(2))
    assert folds.totals[:2] == [2, 2]


def test_a_pause_ends_a_session_and_an_id_does_not() -> None:
    assert told([view(0, "a", 0), view(1, "b", 29.99)]).totals[0] == 1
    assert told([view(0, "a", 0), view(1, "b", 30)]).totals[0] == 2
    assert told([view(0, "a", 0, session_id="s"), view(1, "b", 300, session_id="s")]).totals[0] == 1
    assert told([view(0, "a", 0, session_id="s"), view(1, "b", 1, session_id="t")]).totals[0] == 2


def test_a_late_event_joins_on_both_sides_and_predicts_nothing() -> None:
    folds = told([view(0, "a", 0), view(1, "c", 2), view(2, "b", 1)])
    a, b, c = (hash_id(i) for i in "abc")
    pairs = {pair[1:] for pair in folds.parts}
    assert {(a, b), (b, a), (b, c), (c, b)} <= pairs
    assert folds.cells[0].sum() == 1
    assert folds.totals[0] == 1
    folds = told([view(0, "b", 20), view(1, "a", 0)])
    assert folds.totals[0] == 1
    assert [row[1] for row in folds.histories[hash_id("u")]] == [a, b]


def test_a_weightless_event_adds_no_pair_but_is_known() -> None:
    folds = told([view(0, "a", 0, kind="dislike"), view(1, "b", 1), view(2, "a", 2)])
    a, b = hash_id("a"), hash_id("b")
    assert set(folds.parts) == {("viewed", b, a), ("viewed", a, b)}
    # The first event of "a" weighed nothing, so its session is counted with the second.
    assert dict(folds.sessions_with) == {a: 1, b: 1}
    assert folds.events_of[a] == 2


def test_weights_of_pairs_far_apart_in_time_stay_finite() -> None:
    folds = told(
        [
            Click(0, "u", "a", "view", 0, session_id="s"),
            Click(1, "u", "b", "view", 1, session_id="s"),
            Click(2, "u", "a", "view", BASE, session_id="s"),
            Click(3, "u", "b", "view", BASE + 1, session_id="s"),
        ]
    )
    assert np.isfinite(list(folds.counts(BASE / 1000).values())).all()


def test_users_are_selected_by_rows_and_by_mask() -> None:
    folds = Folds(make_settings())
    folds.learn([Click(n, f"u{n % 4}", f"i{n}", "view", BASE + n) for n in range(11)])
    table = folds.table(np.array(sorted(folds.histories), np.uint64))
    whole = rows_of(table)
    mask = np.array([True, False, False, True])
    for chosen in (mask, np.flatnonzero(mask)):
        some = select_users(table, chosen)
        assert rows_of(some) == {u: whole[u] for u in table.user[mask].tolist()}
    assert rows_of(select_users(table, ~mask | True)) == whole
    assert rows_of(select_users(table, mask & False)) == {}


def test_every_cell_of_the_repeat_prior_has_its_own_number() -> None:
    cells = [(d, t, b) for d in range(1, 31) for t in range(1, 4) for b in range(6)]
    assert sorted(number(cell) for cell in cells) == list(range(repeats.CELLS))
    for length in range(1, 70):
        for times in range(1, 6):
            assert cell_number(2, times, length) == number(cell_of(2, times, length))


def test_windows_end_with_the_bucket_of_the_latest_event() -> None:
    assert buckets_of("1h", 3_599) == range(0, 12)
    assert buckets_of("1h", 3_600) == range(1, 13)
    assert buckets_of("7d", 86_400 * 10) == range(4, 11)
    rows = count_trend(
        np.array([20, 21], np.uint64),
        np.array([0, 0, 1, 0]),
        np.array([0, 299_999, 299_999, 300_000]),
        np.array([1.0, 2.0, 0.0, 4.0]),
    )
    found = list(zip(rows.bucket.tolist(), rows.weight.tolist(), strict=True))
    assert sorted(found) == [(0, 3.0), (1, 4.0)]
    assert set(rows.item.tolist()) == {20}
    assert set(WINDOWS) == {"1h", "24h", "7d"}
