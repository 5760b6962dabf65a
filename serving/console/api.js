// Asks the server, with the API key where it wants one. The key stays in this tab alone
// (sessionStorage) and goes to nobody else: the page talks to its own server.

import { at } from "./page.js";

const KEPT = "headwater-key";

// What went wrong, in words for who looks.
export class Problem extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

let proved = false;

export async function ask(path, body = undefined, method = body === undefined ? "GET" : "POST") {
  const headers = {};
  const key = sessionStorage.getItem(KEPT);
  if (key) headers.Authorization = `Bearer ${key}`;
  const options = { method, headers };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Problem("The server cannot be reached.");
  }
  // Whoever was overtaken by another key meanwhile says nothing about that one.
  if (key === sessionStorage.getItem(KEPT)) judge(answer.status, key);
  const value = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Problem(value.detail ?? `The server answered ${answer.status}.`, answer.status);
  return value;
}

function judge(status, key) {
  if (status === 401) {
    proved = false;
    if (key) sessionStorage.removeItem(KEPT);
    wantKey(key ? "That key is not known here." : "This server asks for an API key.");
  } else if (status === 403) {
    wantKey("");
  } else if (key && !proved) {
    proved = true;
    at("key").hidden = false;
    at("key-form").hidden = true;
    at("key-forget").hidden = false;
    at("key-said").textContent = "An API key is sent with every request.";
  }
}

function wantKey(said) {
  at("key").hidden = false;
  at("key-form").hidden = false;
  at("key-forget").hidden = sessionStorage.getItem(KEPT) === null;
  if (said) at("key-said").textContent = said;
}

// `again` is called whenever there is another key, or none any more.
export function askForKey(again) {
  at("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const key = at("key-text").value.trim();
    if (!key) return;
    if (!/^[!-~]+$/.test(key)) { // nothing else can stand in a header
      wantKey("A key has no spaces and no accents.");
      return;
    }
    at("key-text").value = "";
    sessionStorage.setItem(KEPT, key);
    proved = false;
    again();
  });
  at("key-forget").addEventListener("click", () => {
    sessionStorage.removeItem(KEPT);
    proved = false;
    wantKey("Forgotten.");
    at("key-text").focus();
    again();
  });
}
