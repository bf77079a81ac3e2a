// The live page: one snapshot every two seconds. Whatever comes from outside is put into text nodes, never into markup.
import { bars, compact, lines, spark } from "/charts.js";

const by = (id) => document.getElementById(id);
const whole = (value) => new Intl.NumberFormat("en").format(value);
const STALE_MS = 8000;
let frozen = false, heard = 0;

function tag(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made) made[key] = value; else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function time(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 950) return `${Math.round(ms)} ms`;
  if (ms < 90_000) return `${(ms / 1000).toFixed(ms < 9500 ? 1 : 0)} s`;
  if (ms < 5_400_000) return `${Math.round(ms / 60_000)} min`;
  return ms < 172_800_000 ? `${(ms / 3_600_000).toFixed(1)} h` : `${Math.round(ms / 86_400_000)} d`;
}

function verdict({ ok, text, command }) {
  by("verdict").dataset.ok = String(ok);
  if (by("verdict-text").textContent !== text) by("verdict-text").textContent = text;
  by("verdict-next").hidden = !command;
  by("verdict-command").textContent = command;
}

function tiles(now, budget) {
  const limit = budget.limit ? `of ${whole(budget.limit)}` : "limit unknown";
  const shown = [
    ["answers a second", now.per_second.toFixed(1), ""],
    ["usable a minute", budget.rate ? whole(Math.round(budget.rate)) : "–", limit],
    ["calls in flight", whole(now.in_flight), budget.in_flight_limit ? `of ${whole(budget.in_flight_limit)}` : ""],
    ["waiting", compact(now.ready), now.parked ? `+ ${compact(now.parked)} scheduled` : ""],
    ["oldest request", time(now.oldest_ms), ""],
    ["429s, last minute", whole(now.throttled), ""],
    ["failed, last minute", whole(now.failed), `of ${whole(now.answers)}`],
    ["latency p50, p95", time(now.p50_ms), time(now.p95_ms)],
    ["workers", whole(now.workers), budget.state === "open" ? "" : budget.state],
  ];
  by("tiles").replaceChildren(...shown.map(([name, value, more]) =>
    tag("div", {}, tag("dt", {}, name), tag("dd", {}, value, more ? tag("small", {}, ` ${more}`) : null))));
}

function charts(minutes) {
  const last = (field) => minutes.at(-1)?.[field];
  by("chart-answers").replaceChildren(bars(minutes, [["completed", "good"], ["failed", "bad"]],
    (sums) => `Answers a minute over the last hour: at most ${Math.max(...sums, 0)}, now ${sums.at(-1) ?? 0}`));
  by("chart-latency").replaceChildren(lines(minutes, [["p50_ms", "mid"], ["p95_ms", "warm"]],
    () => `Time to the answer over the last hour: now p50 ${time(last("p50_ms"))}, p95 ${time(last("p95_ms"))}`, time));
  by("chart-throttled").replaceChildren(bars(minutes, [["throttled", "warm"]],
    (sums) => `429s a minute over the last hour: ${sums.reduce((sum, one) => sum + one, 0)} in all`));
}

/** A table of rows that are lists of cells: a text, a node, or [text, class]. */
function table(id, heads, rows, nothing) {
  const head = tag("thead", {}, tag("tr", {}, ...heads.map(([name, kind]) => tag("th", { scope: "col", className: kind ?? "" }, name))));
  const body = tag("tbody", {}, ...rows.map((cells) => tag("tr", {}, ...cells.map((cell, at) => {
    const kind = heads[at][1] ?? "";
    return tag("td", { className: kind }, cell);
  }))));
  by(id).replaceChildren(...(rows.length ? [head, body] : [tag("caption", {}, nothing)]));
}

const state = (word) => tag("span", { className: "state", "data-state": word }, word);

function lanes(found) {
  table("t-lanes", [["lane", "name"], ["state"], ["last hour"], ["answers/s", "n"], ["waiting", "n"], ["in flight", "n"],
    ["scheduled", "n"], ["oldest", "n"], ["workers", "n"]], found.map((lane) => [
    lane.name,
    tag("span", {}, state(lane.state), lane.why ? tag("span", { className: "why" }, lane.why) : null),
    spark(lane.answers), lane.per_second.toFixed(1), whole(lane.ready), whole(lane.in_flight), whole(lane.parked),
    time(lane.oldest_ms), lane.elsewhere ? "another fleet" : whole(lane.workers)]), "No lane exists yet.");
}

function routes(found) {
  table("t-routes", [["route", "name"], ["calls", "n"], ["ok", "n"], ["429s", "n"], ["p50", "n"], ["p95", "n"]],
    found.map((route) => [route.name, whole(route.calls), `${((100 * route.ok) / Math.max(route.calls, 1)).toFixed(1)} %`,
      whole(route.limited), time(route.p50_ms), time(route.p95_ms)]), "No calls in the last hour.");
}

function workers(found) {
  table("t-workers", [["host", "name"], ["state"], ["lanes"], ["answers/s", "n"], ["calling", "n"], ["held", "n"], ["places", "n"],
    ["up", "n"], ["last word", "n"], ["version"]], found.map((worker) => [
    `${worker.host}:${worker.pid}`, state(worker.state), worker.lanes.join(", "), worker.per_second.toFixed(1),
    whole(worker.calling), whole(worker.held), whole(worker.concurrency), time(worker.up_s * 1000),
    `${time(worker.silent_ms)} ago`, worker.version]), "No worker is registered.");
}

function ranked(id, found, nothing) {
  const most = Math.max(...found.map((one) => one.count), 1);
  by(id).replaceChildren(...(found.length ? found.map((one) => tag("div", {},
    tag("span", { title: one.name }, one.name), tag("b", {}, whole(one.count)),
    tag("meter", { min: 0, max: most, value: one.count, "aria-label": `${one.name}: ${one.count}` })))
    : [tag("p", { className: "none" }, nothing)]));
}

function troubles(found) {
  by("troubles").classList.toggle("quiet", found.length === 0);
  by("trouble-list").replaceChildren(...found.map((one) => tag("li", {}, `${one.text}. `, tag("code", {}, one.command))));
}

function letters({ count, letters }, now) {
  by("h-dead").textContent = count > letters.length ? `Dead letters: the newest ${letters.length} of ${whole(count)}` : `Dead letters: ${count}`;
  const focused = document.activeElement?.dataset?.letter;
  table("t-dead", [["request", "name"], ["tenant"], ["lane"], ["reason"], ["bytes", "n"], ["died", "n"], [""]], letters.map((letter) => [
    letter.request_id || letter.id, letter.tenant, letter.lane, letter.reason, whole(letter.size), `${time(now - letter.died_at_ms)} ago`,
    tag("button", { type: "button", "data-letter": letter.id, "aria-label": `Put ${letter.request_id || letter.id} back on its lane`,
      onclick: () => ask(letter) }, "Redrive")]), "None.");
  if (focused) [...document.querySelectorAll("[data-letter]")].find((one) => one.dataset.letter === focused)?.focus();
}

function failed({ count, groups }) {
  by("h-failed").textContent = `Failed requests that can run anew: ${whole(count)}`;
  const focused = document.activeElement?.dataset?.failed;
  table("t-failed", [["error code", "name"], ["lane"], ["requests", "n"], [""]], groups.map((group) => [
    group.code, group.lane, whole(group.count),
    tag("button", { type: "button", "data-failed": `${group.lane} ${group.code}`, "aria-label": `Run ${group.code} of lane ${group.lane} anew`,
      onclick: () => askForFailed(group) }, "Redrive")]), "None.");
  if (focused) [...document.querySelectorAll("[data-failed]")].find((one) => one.dataset.failed === focused)?.focus();
}

async function askForFailed({ lane, code }) {
  const wanted = JSON.stringify({ lane, code }), found = await post("/failed/count", wanted);
  if (found.error) { by("acted").textContent = found.error; return; }
  const tokens = found.tokens ? ` About ${whole(found.tokens)} tokens` : "", cost = found.cost_usd ? `, $${found.cost_usd.toFixed(2)}` : "";
  confirmed(`Run ${whole(found.found)} requests of lane ${lane} anew that failed with ${code}? They go behind everything that waits, and are called and paid for again.${tokens}${cost}${tokens ? "." : ""}`,
    async () => {
      const done = await post("/failed/redrive", wanted);
      by("acted").textContent = done.error ?? `${whole(done.redriven)} redriven, ${whole(done.left_alone)} answered or enqueued again meanwhile`;
    });
}

function ask(letter) {
  confirmed(`Put ${letter.request_id || letter.id} back on lane ${letter.lane}? It goes behind everything that waits, and is called and paid for again.`,
    async () => {
      const done = await post("/dead/replay", letter.id);
      by("acted").textContent = done.error ?? `${letter.id}: ${done.outcome.toLowerCase().replace("_", " ")}`;
    });
}

function confirmed(text, act) {
  by("confirm-text").textContent = text;
  by("confirm").returnValue = "no";
  by("confirm").onclose = () => { if (by("confirm").returnValue === "yes") act(); };
  by("confirm").showModal();
}

async function post(path, body) {
  return (await fetch(path, { method: "POST", body, credentials: "same-origin" })).json();
}

function show(view) {
  heard = Date.now();
  if (view.error) { live("lost", view.error); return; }
  live("live", "live");
  if (frozen) return;
  by("fleet").textContent = view.fleet === "default" ? "" : view.fleet;
  document.title = `${view.verdict.ok ? "" : "! "}${view.verdict.text.slice(0, 60)} · responses-worker`;
  verdict(view.verdict);
  tiles(view.now, view.budget);
  charts(view.minutes);
  troubles(view.troubles);
  lanes(view.lanes);
  ranked("b-failures", view.failures, "No failures.");
  ranked("b-tenants", view.tenants, "No answers.");
  routes(view.routes);
  workers(view.workers);
  failed(view.failed);
  letters(view.dead, view.at_ms);
  document.body.dataset.shown = view.at_ms;
}

function live(word, text) {
  by("live").dataset.state = word;
  if (by("live").textContent !== text) by("live").textContent = text;
}

function freeze() {
  frozen = !frozen;
  by("freeze").setAttribute("aria-pressed", String(frozen));
  by("freeze").textContent = frozen ? "Frozen" : "Freeze";
}

function theme() {
  const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = root.dataset.theme ?? (dark ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
}

const SECTIONS = ["verdict", "lanes", "b-failures", "t-routes", "t-workers", "t-failed", "t-dead"];

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || by("confirm").open) return;
  if (event.key === "f") freeze();
  if (event.key === "t") theme();
  const section = by(SECTIONS[Number(event.key) - 1] ?? "")?.closest("section");
  if (section) { section.tabIndex = -1; section.focus(); section.scrollIntoView({ block: "start" }); }
});
by("freeze").addEventListener("click", freeze);
by("theme").addEventListener("click", theme);
by("copy").addEventListener("click", () => navigator.clipboard?.writeText(by("verdict-command").textContent));

const source = new EventSource("/events");
source.onmessage = (event) => show(JSON.parse(event.data));
source.onerror = async () => {
  live("lost", "connection lost; trying again");
  if (source.readyState === EventSource.CLOSED && (await fetch("/view")).status === 401) location.reload();
};
setInterval(() => { if (heard && Date.now() - heard > STALE_MS) live("lost", `no news for ${time(Date.now() - heard)}`); }, 1000);
