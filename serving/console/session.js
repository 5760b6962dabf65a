// A session to try recommendations with: an anonymous one that is put together here, or a user's,
// in which what is chosen is sent as a click.

import { ask, Problem } from "./api.js";
import { nameOf, showItems } from "./items.js";
import { at, make, whole } from "./page.js";

const SHOWN = 12;
const CHIPS = 10;
const MOST = 100;
const CHANGE_DEADLINE_MS = 5000;
const ASK_AGAIN_MS = 15;

const state = { user: "", session: [], shown: [], recommendation: "", turn: 0 };
const actions = { choose, near: () => {} };

function removable(item, place) {
  const removed = make("button", { type: "button", "aria-label": `remove ${nameOf(item)}` });
  removed.addEventListener("click", () => {
    state.session = state.session.filter((_, index) => index !== place);
    showSession();
    // The focus goes to what took its place.
    const left = [...at("session").querySelectorAll("button")];
    (left[Math.min(place, left.length - 1)] ?? at("for")).focus();
    refresh();
  });
  return removed;
}

function showSession() {
  const first = Math.max(0, state.session.length - CHIPS);
  const chips = state.session.slice(first).map((item, index) => {
    const chip = make("li", { title: item.item_id }, make("span", { text: nameOf(item) }));
    if (!state.user) chip.append(removable(item, first + index));
    return chip;
  });
  if (first > 0) chips.unshift(make("li", { text: `${first} before`, className: "earlier" }));
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
  showItems(at("recommended"), answer.items, actions);
  if (answer.degraded) complain("The store does not answer: this is what was trending before.");
}

function complain(text) {
  at("problem").textContent = text;
  at("problem").hidden = text === "";
}

function timing(milliseconds, what) {
  at("timing").replaceChildren(make("strong", { text: `${whole.format(milliseconds)} ms` }), ` ${what}`);
}

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

async function answer(current) {
  const start = performance.now();
  const found = await recommend();
  if (!current()) return;
  showAnswer(found);
  timing(performance.now() - start, "to answer");
}

export const refresh = () => turn(answer);

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
    const found = await recommend();
    if (!current()) return;
    const passed = performance.now() - start;
    if (found.items.map((one) => one.item_id).join("\n") !== before) {
      showAnswer(found);
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

export function choose(item, place) {
  return turn(async (current) => {
    if (state.user) {
      await send(item, place, current);
    } else {
      state.session = [...state.session, item].slice(-MOST);
      showSession();
      await answer(current);
    }
  });
}

export function become(user) {
  state.user = user;
  state.session = [];
  at("user").value = user;
  at("timing").textContent = "";
  showSession();
  return turn(async (current) => {
    if (user) await readUser(current);
    if (current()) await answer(current);
  });
}

export function startSession(near) {
  actions.near = near;
  at("who").addEventListener("submit", (event) => {
    event.preventDefault();
    become(at("user").value.trim());
  });
  at("nobody").addEventListener("click", () => become(""));
  at("clear").addEventListener("click", () => become(""));
  showSession();
}
