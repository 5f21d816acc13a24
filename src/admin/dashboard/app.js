"use strict";
const $ = (id) => document.getElementById(id);
const KEEP = 180; // seconds of history in the charts
const OUTCOMES = ["ok", "client_error", "stale", "static", "spooled", "masked", "shed", "unavailable", "failed"];
const COLOURS = { ok: "#2f9e5f", client_error: "#7b8794", stale: "#c98a00", static: "#e0b34d", spooled: "#5b7fd6", masked: "#4fa3b8", shed: "#b667c9", unavailable: "#e0703a", failed: "#d0313a" };
const REGION_COLOURS = ["#2f78c4", "#2f9e5f", "#c98a00", "#8a5cc7", "#c4527a", "#2a9aa0", "#7a6a4f", "#5b6ee0"];
const SAYS = { serving: "● serving", tripped: "✕ tripped", trial: "◔ trial", ramping: "◑ ramping", drained: "❚❚ drained", suspect: "? suspect" };

// ---- talking to the proxy -------------------------------------------------------------------
function token() { return sessionStorage.getItem("token"); }
async function call(path, options = {}) {
  const headers = { ...(options.headers || {}) };
  if (token()) headers.authorization = "Bearer " + token();
  const response = await fetch(path, { ...options, headers, signal: AbortSignal.timeout(4000) });
  if (response.status === 401) { askToken(); throw new Error("a token is needed"); }
  if (!response.ok) {
    let why = response.status + " " + response.statusText;
    try { const p = await response.json(); why = p.detail || p.title || why; } catch { /* not a problem document */ }
    throw new Error(why);
  }
  return response;
}
function askToken() {
  if ($("login").open) return;
  $("login").showModal();
  $("login").onclose = () => { sessionStorage.setItem("token", $("token").value); $("token").value = ""; events(); };
}

// ---- small helpers --------------------------------------------------------------------------
function el(name, attributes = {}, ...children) {
  const e = document.createElement(name);
  for (const [k, v] of Object.entries(attributes)) if (k === "class") e.className = v; else if (k.startsWith("on")) e[k] = v; else e.setAttribute(k, v);
  e.append(...children);
  return e;
}
// Replaces children only when something changed, so that focus and selection stay.
function show(parent, signature, make) {
  if (parent.dataset.shown === signature) return;
  const focused = document.activeElement && parent.contains(document.activeElement) ? document.activeElement.id : null;
  parent.replaceChildren(...make());
  parent.dataset.shown = signature;
  if (focused && $(focused)) $(focused).focus();
}
const percent = (x) => (x >= 0.0995 || x === 0 ? Math.round(x * 100) : (x * 100).toFixed(1)) + " %";
const clock = (when) => { const d = new Date(when); return isNaN(d) ? String(when) : d.toLocaleTimeString([], { hourCycle: "h23" }); };
function tag(state, id) { return el("span", { class: "tag " + state, ...(id ? { id } : {}) }, SAYS[state] || state); }

// ---- charts ---------------------------------------------------------------------------------
const history = { t: [], rate: {}, p50: [], p99: [], share: {} };
const charts = {};
function ink() { const s = getComputedStyle(document.documentElement); return { ink: s.getPropertyValue("--soft"), line: s.getPropertyValue("--line") }; }
function chart(id, series, unit) {
  const box = $(id), { ink: stroke, line } = ink();
  const axis = { stroke, grid: { stroke: line, width: 1 }, ticks: { stroke: line } };
  const time = (v) => new Date(v * 1000).toTimeString().slice(0, 8);
  if (charts[id]) charts[id].destroy();
  charts[id] = new uPlot({ width: box.clientWidth || 300, height: 190, cursor: { drag: { x: false, y: false } }, scales: { y: { range: (_, low, high) => [0, Math.max(high || 0, unit === "%" ? 100 : 1) * (unit === "%" ? 1 : 1.1)] } },
    axes: [{ ...axis, space: 74, values: (_, all) => all.map(time) }, { ...axis, size: 56 }], series: [{ value: (_, v) => (v == null ? "" : clock(v * 1000)) }, ...series.map((s) => ({ ...s, width: 2, points: { show: false }, value: (_, v) => (v == null ? "–" : v.toFixed(v < 10 ? 1 : 0) + " " + unit) }))] },
    [[], ...series.map(() => [])], box);
  return charts[id];
}
// A region looks the same in every chart.
const places = [];
function regionLine(name) {
  if (!places.includes(name)) places.push(name);
  const i = places.indexOf(name);
  return { label: name, stroke: REGION_COLOURS[i % REGION_COLOURS.length], dash: [[], [8, 3], [3, 3], [10, 3, 2, 3]][i % 4] };
}
function drawCharts() {
  const outcomes = OUTCOMES.filter((o) => o === "ok" || o === "failed" || (history.rate[o] || []).some((v) => v > 0));
  const regions = Object.keys(history.share);
  const layout = JSON.stringify([outcomes, regions, matchMedia("(prefers-color-scheme: dark)").matches]);
  if (drawCharts.layout !== layout) {
    drawCharts.layout = layout;
    chart("c-rate", outcomes.map((o) => ({ label: o.replace("_", " "), stroke: COLOURS[o], dash: o === "failed" ? [6, 3] : undefined })), "/s");
    chart("c-time", [{ label: "median", stroke: "#2f78c4" }, { label: "99 of 100", stroke: "#c4527a", dash: [6, 3] }], "ms");
    chart("c-share", regions.map(regionLine), "%");
  }
  charts["c-rate"].setData([history.t, ...outcomes.map((o) => history.rate[o])]);
  charts["c-time"].setData([history.t, history.p50, history.p99]);
  charts["c-share"].setData([history.t, ...regions.map((r) => history.share[r])]);
  // The legend tells the newest values, unless somebody points at others.
  for (const c of [charts["c-rate"], charts["c-time"], charts["c-share"]]) if (c.cursor.left == null || c.cursor.left < 0) c.setLegend({ idx: history.t.length - 1 });
}
addEventListener("resize", () => { for (const [id, c] of Object.entries(charts)) if ($(id)) c.setSize({ width: $(id).clientWidth, height: 190 }); });
function push(list, value) { list.push(value); if (list.length > KEEP) list.shift(); }

// Writes that wait in the spool, where there is one.
function waiting(families) {
  const entries = families.get("evenkeel_spool_entries"), up = families.get("evenkeel_spool_up");
  if (!entries) return [];
  const broken = up && up[0].value === 0;
  return [["in the spool", broken ? "cannot be used" : entries[0].value + (entries[0].value === 1 ? " write" : " writes"), broken]];
}
let previous = null;
function felt(families, at) {
  const now = { at, outcomes: sumBy(families, "evenkeel_requests_total", "outcome"), times: sumBy(families, "evenkeel_request_duration_seconds_bucket", "le"), ok: {} };
  for (const s of families.get("evenkeel_attempts_total") || []) if (s.labels.result === "ok") now.ok[s.labels.region] = (now.ok[s.labels.region] || 0) + s.value;
  const before = previous;
  previous = now;
  if (!before) return;
  const secs = Math.max(0.2, (at - before.at) / 1000);
  const gained = growth(now.outcomes, before.outcomes), times = growth(now.times, before.times), ok = growth(now.ok, before.ok);
  const total = Object.values(gained).reduce((a, b) => a + b, 0), answered = Object.values(ok).reduce((a, b) => a + b, 0);
  push(history.t, Math.round(at / 1000));
  for (const o of OUTCOMES) push((history.rate[o] ||= Array(history.t.length - 1).fill(0)), (gained[o] || 0) / secs);
  const p50 = quantile(times, 0.5), p99 = quantile(times, 0.99);
  push(history.p50, p50 == null ? null : p50 * 1000);
  push(history.p99, p99 == null ? null : p99 * 1000);
  for (const r of Object.keys(now.ok)) push((history.share[r] ||= Array(history.t.length - 1).fill(null)), answered ? (100 * (ok[r] || 0)) / answered : null);
  const degraded = ["stale", "static", "spooled", "masked"].reduce((a, o) => a + (gained[o] || 0), 0), refused = (gained.shed || 0) + (gained.unavailable || 0), failed = gained.failed || 0;
  const good = total ? (total - failed - refused - degraded) / total : 1;
  const per = (n) => (n / secs).toFixed(n / secs < 10 && n > 0 ? 1 : 0) + "/s", ms = (q) => (q == null ? "–" : Math.round(q * 1000) + " ms");
  $("now").replaceChildren(...[["requests", per(total)], ["good", (100 * good).toFixed(good > 0.9995 || good === 0 ? 0 : 1) + " %", good < 0.99], ["median", ms(p50)], ["99 of 100", ms(p99)], ["degraded", per(degraded), false], ["refused", per(refused), refused > 0], ["failed", per(failed), failed > 0], ...waiting(families)]
    .map(([name, value, hurt]) => el("div", hurt ? { class: "hurt" } : {}, el("dt", {}, name), el("dd", {}, value))));
  drawCharts();
}

// ---- how it stands, in one line --------------------------------------------------------------
function stand(status) {
  const out = status.regions.filter((r) => r.state === "tripped"), back = status.regions.filter((r) => r.state === "trial" || r.state === "ramping"), drained = status.regions.filter((r) => r.drained);
  // A region says how many of its pools are out; why is said by its pool.
  const why = (r) => { const p = status.pools.find((p) => p.region === r.name && p.state === "tripped" && p.cause); return p ? p.cause : r.cause || ""; };
  const parts = [...out.map((r) => `✕ ${r.name} is out since ${clock(r.since)}: ${why(r)}`), ...back.map((r) => `◑ ${r.name} is coming back (${r.state} since ${clock(r.since)})`), ...drained.map((r) => `❚❚ ${r.name} is drained by ${r.drained.by}: ${r.drained.reason}`)];
  $("stand").className = out.length ? "tripped" : parts.length ? "ramping" : "serving";
  $("stand").hidden = false;
  const text = parts.length ? parts : ["● All regions are serving"];
  show($("stand"), JSON.stringify(text), () => text.map((t) => el("span", {}, t)));
}

// ---- regions, flows, pools ------------------------------------------------------------------
function regions(status) {
  show($("region-cards"), JSON.stringify(status.regions), () => status.regions.map((r) => {
    const card = el("article", { class: "region", "data-region": r.name }, el("h3", {}, el("span", {}, r.name, " ", el("small", {}, r.jurisdiction || "")), tag(r.drained ? "drained" : r.state)));
    if (r.drained) card.append(el("p", {}, `Drained by ${r.drained.by}: ${r.drained.reason}${r.drained.until ? ", until " + clock(r.drained.until) : ""}. Its health: ${r.state}.`));
    card.append(el("p", {}, `${r.state} since ${clock(r.since)}${r.cause ? ": " + r.cause : ""}`));
    const verb = r.drained ? "undrain" : "drain";
    const row = el("div", { class: "row" }, el("button", { id: `${verb}-${r.name}`, onclick: () => ask(verb, r.name) }, (r.drained ? "Undrain " : "Drain ") + r.name));
    if (!r.drained) row.append(el("button", { id: `drill-${r.name}`, onclick: () => askDrill(r.name) }, "Drill " + r.name));
    card.append(row);
    return card;
  }));
}
function pools(status) {
  show($("pools"), JSON.stringify(status.pools), () => status.pools.map((p) => {
    const up = p.endpoints.filter((e) => e.up).length, out = p.endpoints.filter((e) => !e.up).map((e) => `${e.address}: ${e.cause || "out"}`).join("; ");
    const state = el("td", {}, tag(p.state));
    if (p.suspect && p.state === "serving") state.append(" ", tag("suspect"));
    return el("tr", {}, el("th", { scope: "row" }, `${p.service}/${p.region}`), state, el("td", { class: "n" }, percent(p.share)), el("td", { class: "n" }, `${p.rate.toFixed(p.rate < 10 ? 1 : 0)}/s`),
      el("td", { class: "n" }, `${p.inflight} of ${p.limit}`), el("td", {}, `${up} of ${p.endpoints.length} up`, out ? el("div", {}, out) : ""), el("td", {}, p.cause || ""));
  }));
}
function svg(name, attributes, ...children) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  e.append(...children);
  return e;
}
function flow(status) {
  const names = [...new Set(status.pools.map((p) => p.service))];
  show($("service"), names.join("\n"), () => names.map((n) => el("option", {}, n)));
  const mine = status.pools.filter((p) => p.service === ($("service").value || names[0]));
  show($("flow"), JSON.stringify([$("flow").clientWidth < 560, ...mine.map((p) => [p.region, p.state, p.suspect, p.share.toFixed(3), p.rate.toFixed(0)])]), () => {
    const narrow = $("flow").clientWidth < 560, all = narrow ? 380 : 760, from = narrow ? 92 : 130, to = narrow ? 174 : 450;
    const row = 62, height = Math.max(1, mine.length) * row, middle = height / 2;
    const words = mine.map((p) => `${p.region} ${percent(p.share)}, ${p.state}`).join("; ");
    const picture = svg("svg", { viewBox: `0 0 ${all} ${height}`, role: "img", "aria-label": `Shares: ${words}` });
    let start = middle - 17;
    // What carries nothing is drawn below what does.
    const layers = [[], [], []];
    mine.forEach((p, i) => {
      const y = i * row + row / 2, width = p.share > 0 ? Math.max(2, p.share * 34) : 2, out = p.share > 0 ? start + width / 2 : middle, bend = (from + to) / 2;
      if (p.share > 0) start += p.share * 34;
      layers[p.share > 0 ? 1 : 0].push(svg("path", { class: p.share > 0 ? "pipe" : "pipe dry", d: `M${from} ${out} C ${bend} ${out}, ${bend} ${y}, ${to} ${y}`, "stroke-width": width }));
      layers[2].push(svg("rect", { x: to, y: y - 24, width: all - to - 10, height: 48, rx: 8, class: p.state === "tripped" ? "bad" : p.state !== "serving" || p.suspect ? "warn" : "" }));
      const says = SAYS[p.state === "serving" && p.suspect ? "suspect" : p.state] || p.state;
      layers[2].push(svg("text", { x: to + 14, y: y - 4 }, p.region), svg("text", { x: to + 14, y: y + 15, class: "soft" }, `${says} · ${percent(p.share)} · ${p.rate.toFixed(0)}/s`));
    });
    picture.append(...layers.flat());
    picture.append(svg("rect", { x: 10, y: middle - 22, width: from - 10, height: 44, rx: 8 }), svg("text", { x: 22, y: middle + 5 }, status.edge.slice(0, narrow ? 8 : 13)));
    return [picture];
  });
}

// ---- the fleet ------------------------------------------------------------------------------
function fleet(status) {
  const f = status.fleet;
  $("fleet-box").hidden = !f;
  if (!f) return;
  $("fleet-line").textContent = (f.connected ? `${f.live} of ${f.edges.length} edges heard` + (f.quorum ? "" : ", too few to speak of a majority") : `NATS is away: ${f.link}`) + ` · verdicts ${f.verdicts}`
    + f.notes.map((n) => " · " + n).join("");
  const pools = status.pools.map((p) => `${p.service}/${p.region}`);
  const look = { well: "serving", suspect: "suspect", down: "tripped", unknown: "" };
  show($("fleet"), JSON.stringify([pools, f.edges.map((e) => [e.name, e.live, pools.map((p) => (e.pools[p] || {}).opinion)])]), () => [
    el("tr", {}, el("th", {}, "edge"), ...pools.map((p) => el("th", {}, p))),
    ...f.edges.map((e) => el("tr", {}, el("td", {}, e.name + (e.live ? "" : " (silent)")), ...pools.map((p) => { const o = (e.pools[p] || {}).opinion || "unknown"; return el("td", {}, el("span", { class: "tag " + look[o] }, o)); }))),
  ]);
}

// ---- orders ---------------------------------------------------------------------------------
function ask(verb, region) {
  $("ask-title").textContent = `${verb === "drain" ? "Drain" : "Undrain"} ${region}?`;
  $("ask-text").textContent = verb === "drain" ? `${region} gets no new requests until it is undrained. Its health goes on being measured.` : `${region} gets its share again, at once if it is healthy.`;
  $("ask-reason").required = verb === "drain";
  $("ask-reason").hidden = $("ask-reason-label").hidden = verb !== "drain";
  $("ask-go").textContent = `${verb === "drain" ? "Drain" : "Undrain"} ${region}`;
  $("ask-error").textContent = "";
  $("ask-reason").value = "";
  $("ask-force").checked = false;
  $("ask-force-label").hidden = true;
  $("ask").showModal();
  $("ask").querySelector("form").onsubmit = async (e) => {
    if (e.submitter && e.submitter.value === "no") return;
    e.preventDefault();
    try {
      await call(`v1/regions/${encodeURIComponent(region)}/${verb}`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(verb === "drain" ? { reason: $("ask-reason").value, force: $("ask-force").checked } : {}) });
      $("ask").close();
      poll();
    } catch (error) {
      $("ask-error").textContent = error.message;
      $("ask-force-label").hidden = !error.message.includes("force");
    }
  };
}

// ---- events ---------------------------------------------------------------------------------
const KINDS = ["started", "stopping", "pool", "region", "suspect", "endpoint", "drain", "freeze", "edge_suspect", "config_applied", "config_rejected", "drill", "fleet", "uplink"];
function describe(e) {
  const why = e.cause ? (typeof e.cause === "string" ? e.cause : e.cause.text || e.cause.cause) : "";
  const tail = e.why || (why ? ": " + String(why).replaceAll("_", " ") : "");
  switch (e.kind) {
    case "pool": if (e.from === e.to && e.cause && e.cause.percent) return `${e.service}/${e.region}: ramp at ${e.cause.percent} % of its share`;
      return `${e.service}/${e.region}: ${e.from} → ${e.to}${tail}`;
    case "region": return `region ${e.region}: ${e.from} → ${e.to}${tail}`;
    case "suspect": return `${e.service}/${e.region} is ${e.on ? "suspect" : "no longer suspect"}${tail}`;
    case "endpoint": return `${e.endpoint} of ${e.service}/${e.region} is ${e.up ? "back" : "out"}${tail}`;
    case "drain": return `region ${e.region} ${e.on ? "drained" : "undrained"}: ${e.reason}`;
    case "freeze": return e.on ? "states are frozen" : "states are no longer frozen";
    case "edge_suspect": return (e.on ? "edge suspect" : "no longer edge suspect") + tail;
    case "config_applied": return `config ${e.generation} applied: ${(e.changes || []).join("; ") || "no changes"}`;
    case "config_rejected": return `config refused: ${(e.problems || []).join("; ")}`;
    case "fleet": return e.connected ? `the fleet is heard again: ${e.what}` : `NATS is away: ${e.what}`;
    case "uplink": return e.on ? `this edge alone sees ${(e.regions || []).join(", ")} down: its own uplink is suspect` : "this edge's uplink is no longer suspect";
    case "drill": return `drill of ${e.region} ${e.stage}: ${e.what}`;
    default: return e.kind;
  }
}
let stream = null;
async function events() {
  if (stream) stream.abort();
  const mine = (stream = new AbortController());
  try { // not EventSource, which cannot send a token
    const response = await fetch("v1/events", { headers: token() ? { authorization: "Bearer " + token() } : {}, signal: mine.signal });
    if (!response.ok) throw new Error(String(response.status));
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = ""; ;) {
      const { value, done } = await reader.read();
      if (done) break;
      text += value;
      for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
        const data = text.slice(0, end).split("\n").filter((l) => l.startsWith("data:")).map((l) => l.slice(5)).join("\n");
        if (data) heard(JSON.parse(data));
      }
    }
  } catch { /* tried again below */ }
  if (!mine.signal.aborted) setTimeout(events, 2000);
}
function heard(e) {
  if (e.kind === "counts") return;
  $("no-events").hidden = true;
  $("events").prepend(el("li", {}, el("time", {}, clock(e.time || e.wall || Date.now())), describe(e)));
  while ($("events").childElementCount > 200) $("events").lastElementChild.remove();
  if (KINDS.includes(e.kind)) poll();
}

// ---- the beat -------------------------------------------------------------------------------
let polling = false;
async function poll() {
  if (polling) return;
  polling = true;
  try {
    const status = await (await call("v1/status")).json();
    document.title = (status.regions.some((r) => r.state === "tripped") ? "✕ " : "") + "Evenkeel " + status.edge;
    $("edge").textContent = status.edge;
    $("facts").textContent = `mode ${status.mode} · config ${status.generation}` + (status.config.last_error ? " · the last reload was refused: " + status.config.last_error : "");
    const alone = (status.fleet && status.fleet.alone) || [];
    $("alarm").hidden = !status.edge_suspect && !alone.length;
    $("alarm").textContent = status.edge_suspect ? "Edge suspect: unrelated regions went bad together, or this process was stalled. States are held as they are."
      : `This edge alone sees ${alone.join(", ")} down: its own uplink is suspect.`;
    fleet(status);
    status.regions.forEach((r) => regionLine(r.name));
    stand(status); regions(status); pools(status); flow(status);
    $("link").textContent = ""; $("link").className = "";
  } catch (error) {
    $("link").textContent = "no answer from the proxy: " + error.message; $("link").className = "lost";
  } finally { polling = false; }
}
async function measure() {
  try { felt(readMetrics(await (await call("metrics")).text()), Date.now()); } catch { /* poll() says so */ }
}
$("service").onchange = poll;
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCharts);
poll(); measure(); events();
setInterval(poll, 700);
setInterval(measure, 1000);
