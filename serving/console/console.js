// The console: live numbers from /console/stream, and a session or a user to try recommendations.
// Nothing here writes markup: all text goes through textContent.

const SHOWN = 12;
const CHIPS = 10;
const REASONS = 5;
const CHANGE_DEADLINE_MS = 5000;
const ASK_AGAIN_MS = 15;
const TRENDING_MS = 5000;
const SVG = { width: 120, height: 40 };

const at = (id) => document.getElementById(id);
const state = { user: "", session: [], shown: [], recommendation: "", turn: 0 };

class Problem extends Error {}

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Problem("The server cannot be reached.");
  }
  const value = await answer.json();
  if (!answer.ok) throw new Problem(value.detail ?? `The server answered ${answer.status}.`);
  return value;
}

// ---- live numbers

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

function figure(element, value, unit = "") {
  element.replaceChildren(value);
  if (unit) {
    const small = document.createElement("small");
    small.textContent = unit;
    element.append(small);
  }
}

function duration(element, milliseconds) {
  if (milliseconds === null) figure(element, "–");
  else if (milliseconds < 1000) figure(element, whole.format(milliseconds), "ms");
  else figure(element, (milliseconds / 1000).toFixed(1), "s");
}

function spark(history) {
  const [area, line] = at("spark").children;
  if (history.length < 2) return;
  const top = Math.max(1, ...history);
  const step = SVG.width / (history.length - 1);
  const points = history.map((value, index) => {
    const y = SVG.height - 2 - (value / top) * (SVG.height - 6);
    return `${(index * step).toFixed(1)} ${y.toFixed(1)}`;
  });
  line.setAttribute("d", `M${points.join("L")}`);
  area.setAttribute("d", `M0 ${SVG.height}L${points.join("L")}L${SVG.width} ${SVG.height}Z`);
}

function showNumbers(now) {
  const rate = now.events_per_second;
  figure(at("rate"), rate >= 100_000 ? short.format(rate) : whole.format(rate));
  at("events").textContent = whole.format(now.events);
  duration(at("p50"), now.visible_p50_ms);
  const p99 = now.visible_p99_ms;
  at("p99").textContent = p99 === null ? "–" : p99 < 1000 ? `${whole.format(p99)} ms` : `${(p99 / 1000).toFixed(1)} s`;
  if (now.lag_records === null) {
    figure(at("lag"), "–");
    at("lag-note").textContent = "no worker reports";
  } else {
    figure(at("lag"), now.lag_records >= 100_000 ? short.format(now.lag_records) : whole.format(now.lag_records));
    at("lag-note").textContent = "records not yet counted";
  }
  if (now.hit_rate === null) figure(at("hits"), "–");
  else figure(at("hits"), (100 * now.hit_rate).toFixed(1), "%");
  spark(now.history);
  showEvaluation(now);
}

function showEvaluation(now) {
  for (const cell of at("evaluation").querySelectorAll("td")) {
    const found = now.evaluation[cell.dataset.window];
    if (cell.dataset.share) {
      const share = found[cell.parentElement.dataset.ranking][cell.dataset.share];
      cell.textContent = share === null ? "–" : (100 * share).toFixed(1);
    } else {
      cell.textContent = found.predictions >= 100_000 ? short.format(found.predictions) : whole.format(found.predictions);
    }
  }
  for (const row of at("evaluation").tBodies[0].rows) {
    row.querySelector(".served").hidden = row.dataset.ranking !== now.served;
  }
}

function connection(state, text) {
  at("connection").dataset.state = state;
  at("connection").textContent = text;
}

function watch() {
  const source = new EventSource("/console/stream");
  source.onmessage = (message) => {
    connection("live", "live");
    showNumbers(JSON.parse(message.data));
  };
  source.onerror = () => {
    connection("lost", "reconnecting");
    if (source.readyState === EventSource.CLOSED) setTimeout(watch, 2000);
  };
}

// ---- lists of items

function itemRow(item) {
  const row = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "item";
  for (const part of ["place", "name", "weight"]) {
    const span = document.createElement("span");
    span.className = part;
    button.append(span);
  }
  row.dataset.item = item.item_id;
  const why = document.createElement("button");
  why.type = "button";
  why.className = "why";
  why.textContent = "why";
  why.onclick = () => openReasons(row, row.lastChild.hidden);
  const reasons = document.createElement("dl");
  reasons.className = "reasons";
  row.append(button, why, reasons);
  openReasons(row, false);
  return row;
}

function openReasons(row, open) {
  row.children[1].setAttribute("aria-expanded", String(open));
  row.lastChild.hidden = !open;
}

function fillRow(row, item, place, share) {
  const [number, name, weight] = row.firstChild.children;
  number.textContent = String(place);
  name.textContent = item.title ?? item.item_id;
  row.firstChild.title = item.title ? `${item.title} (${item.item_id})` : item.item_id;
  if (item.title) {
    const id = document.createElement("span");
    id.className = "id";
    id.textContent = item.item_id;
    name.append(id);
  }
  weight.style.setProperty("--share", share.toFixed(3));
  row.firstChild.onclick = () => choose(item, place);
  fillReasons(row, item);
}

// What each item of the session, and what everybody likes, adds to the score.
function fillReasons(row, item) {
  const [, why, reasons] = row.children;
  const { contributions, trending, factor } = item.explanation ?? { contributions: [], trending: 0, factor: 0 };
  why.hidden = contributions.length === 0 && trending === 0;
  if (why.hidden) {
    openReasons(row, false);
    return;
  }
  why.setAttribute("aria-label", `why ${item.title ?? item.item_id}`);
  const parts = contributions
    .map((one) => ({ name: one.title ?? one.item_id, together: factor * one.co_occurrence, again: factor * one.repeat }))
    .sort((a, b) => b.together + b.again - a.together - a.again);
  const rest = parts.splice(REASONS);
  if (rest.length > 0) {
    const sum = (kind) => rest.reduce((before, one) => before + one[kind], 0);
    parts.push({ name: `${rest.length} more`, together: sum("together"), again: sum("again") });
  }
  const lines = parts.map((one) => [one.name, one.together + one.again, kinds(one)]);
  if (trending !== 0) lines.push(["Everybody", trending, "trending now"]);
  reasons.replaceChildren(...lines.map(([name, value, kind]) => reason(name, item.score === 0 ? 0 : value / item.score, kind)));
}

function kinds({ together, again }) {
  if (again === 0) return "seen together";
  if (together === 0) return "seen again";
  const share = Math.round((100 * again) / (together + again));
  return `together ${100 - share} %, again ${share} %`;
}

function reason(name, share, kind) {
  const line = document.createElement("div");
  const term = document.createElement("dt");
  term.textContent = name;
  const value = document.createElement("dd");
  value.textContent = `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
  value.style.setProperty("--share", Math.min(1, Math.max(0, share)).toFixed(3));
  const note = document.createElement("dd");
  note.className = "kind";
  note.textContent = kind;
  line.append(term, note, value);
  return line;
}

// Rows are kept by item, so that focus and scroll survive an update.
function showItems(list, items) {
  const focused = document.activeElement;
  const known = new Map([...list.children].map((row) => [row.dataset.item, row]));
  const top = Math.max(...items.map((item) => item.score), Number.MIN_VALUE);
  const rows = items.map((item, index) => {
    const row = known.get(item.item_id) ?? itemRow(item);
    row.classList.toggle("new", known.size > 0 && !known.has(item.item_id));
    fillRow(row, item, index + 1, item.score / top);
    return row;
  });
  list.replaceChildren(...rows);
  if (list.contains(focused)) focused.focus({ preventScroll: true });
  at(`${list.id}-empty`).hidden = items.length > 0;
}

function showSession() {
  const chips = state.session.slice(-CHIPS).map((item) => {
    const chip = document.createElement("li");
    chip.textContent = item.title ?? item.item_id;
    chip.title = item.item_id;
    return chip;
  });
  if (state.session.length > CHIPS) {
    const earlier = document.createElement("li");
    earlier.className = "earlier";
    earlier.textContent = `${state.session.length - CHIPS} before`;
    chips.unshift(earlier);
  }
  at("session").replaceChildren(...chips);
  at("session-empty").hidden = chips.length > 0;
  at("session-empty").textContent = state.user
    ? "Nothing is known of this user yet."
    : "Empty: recommendations are what everybody likes now.";
  at("session-title").textContent = state.user ? `Session of ${state.user}` : "Your session";
  at("clear").hidden = state.user !== "" || chips.length === 0;
  at("nobody").hidden = state.user === "";
}

function showAnswer(answer) {
  state.recommendation = answer.recommendation_id;
  state.shown = answer.items.map((item) => item.item_id);
  showItems(at("recommended"), answer.items);
  if (answer.degraded) complain("The store does not answer: this is what was trending before.");
}

function complain(text) {
  at("problem").textContent = text;
  at("problem").hidden = text === "";
}

function timing(milliseconds, what) {
  const strong = document.createElement("strong");
  strong.textContent = `${whole.format(milliseconds)} ms`;
  at("timing").replaceChildren(strong, ` ${what}`);
}

// ---- asking

// Runs one action; what an overtaken one still brings is dropped.
async function turn(action) {
  const mine = ++state.turn;
  const current = () => mine === state.turn;
  complain("");
  try {
    await action(current);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (current()) complain(error.message);
  }
}

function recommend() {
  const session = state.session.map((item) => item.item_id);
  return state.user
    ? ask(`/v1/recommendations/${encodeURIComponent(state.user)}?n=${SHOWN}&explain=true`)
    : ask("/v1/recommendations", { session, n: SHOWN, explain: true });
}

async function refresh(current) {
  const start = performance.now();
  const answer = await recommend();
  if (!current()) return;
  showAnswer(answer);
  timing(performance.now() - start, "to answer");
}

async function readUser(current) {
  const known = await ask(`/v1/users/${encodeURIComponent(state.user)}`);
  if (!current()) return;
  state.session = known.session;
  showSession();
}

async function send(item, place, current) {
  const before = state.shown.join("\n");
  const start = performance.now();
  const event = {
    user_id: state.user,
    item_id: item.item_id,
    type: "click",
    timestamp: Date.now(),
    event_id: `${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}`,
  };
  if (state.shown[place - 1] === item.item_id) {
    event.recommendation_id = state.recommendation;
    event.position = place;
  }
  await ask("/v1/events", event);
  while (current()) {
    const answer = await recommend();
    if (!current()) return;
    const passed = performance.now() - start;
    if (answer.items.map((one) => one.item_id).join("\n") !== before) {
      showAnswer(answer);
      timing(passed, "click to new answer");
      break;
    }
    if (passed > CHANGE_DEADLINE_MS) {
      at("timing").textContent = "counted, but the list stayed the same";
      break;
    }
    await new Promise((resolve) => setTimeout(resolve, ASK_AGAIN_MS));
  }
  await readUser(current);
}

function choose(item, place) {
  return turn(async (current) => {
    if (state.user) {
      await send(item, place, current);
    } else {
      state.session = [...state.session, item].slice(-100);
      showSession();
      await refresh(current);
    }
  });
}

function become(user) {
  state.user = user;
  state.session = [];
  at("user").value = user;
  at("timing").textContent = "";
  showSession();
  return turn(async (current) => {
    if (user) await readUser(current);
    if (current()) await refresh(current);
  });
}

async function showTrending() {
  const chosen = document.querySelector("input[name=window]:checked").value;
  try {
    const answer = await ask(`/v1/trending?n=${SHOWN}&window=${chosen}`);
    if (document.querySelector("input[name=window]:checked").value === chosen) {
      showItems(at("trending"), answer.items);
    }
  } catch (error) {
    if (!(error instanceof Problem)) throw error; // the line above the list says what is wrong
  }
}

at("who").addEventListener("submit", (event) => {
  event.preventDefault();
  become(at("user").value.trim());
});
at("nobody").addEventListener("click", () => become(""));
at("clear").addEventListener("click", () => become(""));
for (const input of document.querySelectorAll("input[name=window]")) {
  input.addEventListener("change", showTrending);
}
watch();
showSession();
showTrending();
setInterval(showTrending, TRENDING_MS);
turn(refresh);
