// Live numbers from /console/stream: server-sent events, one a second.

import { at, count, make, whole } from "./page.js";

const SVG = { width: 120, height: 40 };
const AGAIN_MS = 2000;

// In words, where a cause's name says too little.
const CAUSES = {
  store_unreachable: "Redis unreachable",
  store_timeout: "Redis too slow",
  store_error: "Redis failing",
  store_empty: "Redis empty",
  late: "server too slow",
};

function figure(element, value, unit = "") {
  element.replaceChildren(value);
  if (unit) element.append(make("small", { text: unit }));
}

const parts = (milliseconds) =>
  milliseconds === null ? ["–"]
  : milliseconds < 10 ? [milliseconds.toFixed(1), "ms"]
  : milliseconds < 1000 ? [whole.format(milliseconds), "ms"]
  : [(milliseconds / 1000).toFixed(1), "s"];

const duration = (id, milliseconds) => figure(at(id), ...parts(milliseconds));

const words = (id, milliseconds) => {
  at(id).textContent = parts(milliseconds).join(" ");
};

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

// The greatest first, as `name 12, other 3`.
function listed(counts, names = {}) {
  return Object.entries(counts)
    .sort(([, a], [, b]) => b - a)
    .map(([name, value]) => `${names[name] ?? name.replaceAll("_", " ")} ${count(value)}`)
    .join(", ");
}

const total = (counts) => Object.values(counts).reduce((sum, value) => sum + value, 0);

function showServed(now) {
  duration("answer-p50", now.answer_p50_ms);
  words("answer-p99", now.answer_p99_ms);
  at("answers").textContent = count(now.answers_per_second);
  const troubles = { ...now.degraded };
  if (now.failed > 0) troubles.failed = now.failed;
  if (now.shed > 0) troubles["refused, too many"] = now.shed;
  figure(at("degraded"), count(total(now.degraded)));
  at("degraded").parentElement.dataset.bad = String(total(troubles) > 0);
  at("degraded-why").textContent = listed(troubles, CAUSES) || "without the store, 5 min";
  figure(at("dead"), count(total(now.rejected)));
  at("dead-why").textContent = listed(now.rejected) || "everything could be counted";
}

function showNumbers(now) {
  figure(at("rate"), count(now.events_per_second));
  at("events").textContent = whole.format(now.events);
  duration("p50", now.visible_p50_ms);
  words("p99", now.visible_p99_ms);
  figure(at("lag"), now.lag_records === null ? "–" : count(now.lag_records));
  at("lag-note").textContent = now.lag_records === null ? "no worker reports" : "records not yet counted";
  if (now.hit_rate === null) figure(at("hits"), "–");
  else figure(at("hits"), (100 * now.hit_rate).toFixed(1), "%");
  spark(now.history);
  showServed(now);
  showEvaluation(now);
}

function showEvaluation(now) {
  for (const cell of at("evaluation").querySelectorAll("td")) {
    const found = now.evaluation[cell.dataset.window];
    if (cell.dataset.share) {
      const share = found[cell.parentElement.dataset.ranking][cell.dataset.share];
      cell.textContent = share === null ? "–" : (100 * share).toFixed(1);
    } else {
      cell.textContent = count(found.predictions);
    }
  }
  for (const row of at("evaluation").tBodies[0].rows) {
    row.querySelector(".served").hidden = row.dataset.ranking !== now.served;
  }
}

function connection(state, text) {
  if (at("connection").dataset.state === state) return; // or it would be read aloud each second
  at("connection").dataset.state = state;
  at("connection").textContent = text;
}

// `back` is called when the server is there again after it was not.
export function watch(back) {
  const source = new EventSource("/console/stream");
  source.onmessage = (message) => {
    const lost = at("connection").dataset.state === "lost";
    connection("live", "live");
    showNumbers(JSON.parse(message.data));
    if (lost) back();
  };
  source.onerror = () => {
    connection("lost", "reconnecting");
    // After a refused connection the browser tries again by itself, after an error answer it does not.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => watch(back), AGAIN_MS);
  };
}
