"use strict";
// All that comes from a model or a text is put in as text, never as markup.
const at = (id) => document.getElementById(id);
const make = (tag, text, kind) => {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (kind) node.className = kind;
  return node;
};
let models = [];

async function call(path, body) {
  const headers = { "content-type": "application/json" };
  if (at("key").value) headers.authorization = `Bearer ${at("key").value}`;
  const reply = await fetch(path, body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers });
  if (reply.status === 401) at("keyed").hidden = false;
  const found = await reply.json();
  if (!reply.ok) throw new Error(found.error.message);
  return found;
}

async function list() {
  const chosen = at("model").value;
  models = (await call("v1/models")).data;
  at("model").replaceChildren(...models.map((m) => Object.assign(make("option", m.id), { value: m.id })));
  if (models.some((m) => m.id === chosen)) at("model").value = chosen;
  await tell();
}

async function tell() {
  if (!at("model").value) return;
  const m = await call(`v1/models/${encodeURIComponent(at("model").value)}`);
  at("about").textContent = `${m.task} · version ${m.version}${m.live ? ", live" : ""} · ${m.method} over ${m.base} · ${m.sha256.slice(0, 12)}…`;
}

function bars(scores) {
  const sorted = Object.entries(scores).sort((a, b) => b[1] - a[1]).slice(0, 10);
  return sorted.map(([name, share]) => {
    const row = make("div", undefined, "row"), bar = make("div", undefined, "bar"), fill = make("i");
    fill.style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
    bar.append(fill);
    row.append(make("span", name), bar, make("span", share.toFixed(3), "num"));
    return row;
  });
}

function marked(text, entities) {
  const line = make("p");
  const points = [...text]; // places count characters, not UTF-16 units
  let from = 0;
  for (const e of [...entities].sort((a, b) => a.start - b.start)) {
    if (e.start < from) continue;
    const own = make("mark", points.slice(e.start, e.end).join(""));
    own.append(make("small", e.label));
    line.append(points.slice(from, e.start).join(""), own);
    from = e.end;
  }
  line.append(points.slice(from).join(""));
  return line;
}

function weighed(text, words) {
  const line = make("p");
  const points = [...text];
  const most = Math.max(1e-6, ...words.map((w) => Math.abs(w.effect)));
  let from = 0;
  for (const w of words) {
    const own = make("mark", points.slice(w.start, w.end).join(""));
    const side = w.effect < 0 ? "#c0392b" : "var(--leaf)";
    own.style.background = `color-mix(in srgb, ${side} ${Math.round((60 * Math.abs(w.effect)) / most)}%, transparent)`;
    own.title = `${w.effect < 0 ? "against" : "for"}: ${Math.abs(w.effect).toFixed(3)}`;
    line.append(points.slice(from, w.start).join(""), own);
    from = w.end;
  }
  line.append(points.slice(from).join(""));
  return line;
}

function shown(answer, input) {
  if (answer.scores && typeof answer.scores === "object" && !Array.isArray(answer.scores)) {
    const name = answer.label ?? (answer.labels || []).join(", ");
    const why = answer.words ? [weighed(input, answer.words)] : [];
    return [make("p", `${name || "(none)"} · confidence ${Number(answer.confidence).toFixed(3)}`), ...why, ...bars(answer.scores)];
  }
  if (Array.isArray(answer.entities) && typeof input === "string") return [marked(input, answer.entities)];
  const said = answer.reply ?? answer.text ?? answer.answer;
  if (typeof said === "string") return [make("pre", said)];
  return [make("pre", JSON.stringify(answer, null, 1))];
}

function asJson(text) {
  if (!/^\s*[[{]/.test(text)) return text;
  try {
    return JSON.parse(text);
  } catch {
    return text; // a text that only begins so
  }
}

async function ask() {
  at("ask").disabled = true;
  try {
    const input = asJson(at("text").value);
    const began = performance.now();
    const found = await call("v1/predict", { model: at("model").value, inputs: [input], scores: true, explain: at("explain").checked });
    const about = `${found.bundle.name}@${found.bundle.version} · ${found.tokens} tokens · ${(performance.now() - began).toFixed(0)} ms`;
    at("found").replaceChildren(...shown(found.answers[0], input), make("p", about, "dim"));
  } catch (error) {
    at("found").replaceChildren(make("p", error.message, "bad"));
  } finally {
    at("ask").disabled = false;
  }
}

at("ask").addEventListener("click", ask);
at("model").addEventListener("change", () => tell().catch((e) => (at("about").textContent = e.message)));
at("key").addEventListener("change", () => list().catch((e) => (at("about").textContent = e.message)));
list().catch((e) => (at("about").textContent = e.message));
