"use strict";
// What operators do beside looking: plan and reload, drills, incidents, objectives. Uses the helpers of app.js.

const json = async (path, options) => (await call(path, options)).json();
const send = (method, path, body) => json(path, { method, headers: { "content-type": "application/json" }, body: JSON.stringify(body || {}) });
const span = (ms) => ms == null ? "–" : ms < 10000 ? Math.round(ms) + " ms" : ms < 120000 ? (ms / 1000).toFixed(1) + " s" : ms < 7200000 ? Math.floor(ms / 60000) + " min" : (ms / 3600000).toFixed(1) + " h";
const per = (n) => (n == null ? "–" : n.toFixed(n >= 10 || n === Math.round(n) ? 0 : 1) + "/s");
function table(label, heads, rows, numbers = 1) {
  return el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": label }, el("table", {},
    el("thead", {}, el("tr", {}, ...heads.map((h, i) => el("th", { scope: "col", class: i >= numbers ? "n" : "" }, h)))),
    el("tbody", {}, ...rows.map((r) => el("tr", {}, ...r.map((c, i) => i === 0 ? el("th", { scope: "row" }, c) : el("td", { class: i >= numbers ? "n" : "" }, c ?? "")))))));
}

// ---- plan and reload ------------------------------------------------------------------------
function planned(plan) {
  const parts = [el("p", { class: "verdict " + (plan.safe ? "serving" : "tripped") }, plan.safe ? "✓ Safe: nothing stands against it" : `✕ Unsafe: ${plan.reasons.length} ${plan.reasons.length === 1 ? "reason" : "reasons"}`)];
  if (!plan.safe) parts.push(el("ul", {}, ...plan.reasons.map((r) => el("li", {}, r))));
  parts.push(el("h3", {}, "Changes"), plan.changes.length ? el("ul", {}, ...plan.changes.map((c) => el("li", {}, c))) : el("p", {}, "None: the file says what is in force already."));
  const pools = plan.services.flatMap((s) => s.pools);
  const room = (p) => p.headroom == null ? "–" : p.headroom < 0 ? Math.round(-p.headroom * 100) + " % over" : Math.round(p.headroom * 100) + " %";
  parts.push(el("h3", {}, "Traffic" + (plan.load ? ` (load: ${plan.load})` : "")), table("Traffic by pool", ["Pool", "Now", "Then", "Load", "Capacity", "Headroom"],
    pools.map((p) => [p.pool, p.now == null ? "new" : percent(p.now), p.then == null ? "removed" : percent(p.then), per(p.load), per(p.capacity), room(p)])));
  parts.push(el("h3", {}, "If it is lost"), el("ul", { class: "losses" }, ...plan.losses.map((l) => {
    const name = l.lost[0] + (l.lost.length > 1 ? ` (or ${l.lost.slice(1).join(", ")})` : "");
    const goes = l.pools.filter((p) => !p.why && p.then > p.now).map((p) => `${p.pool} ${percent(p.now)} → ${percent(p.then)}`).join(", ");
    const line = el("li", {}, tag(l.dangers.length ? "tripped" : "serving"), " ", el("strong", {}, name), goes ? ": " + goes : "");
    const unsure = !l.dangers.length && l.pools.some((p) => !p.why && p.then > p.now && p.capacity == null);
    line.firstChild.textContent = l.dangers.length ? "✕ not borne" : unsure ? "? no capacity declared" : "✓ borne";
    if (unsure) line.firstChild.className = "tag trial";
    if (l.dangers.length) line.append(el("ul", {}, ...l.dangers.map((d) => el("li", {}, d.what + (d.already ? " (so already)" : "")))));
    return line;
  })));
  const notes = plan.notes.filter((n) => !n.startsWith("so already"));
  if (notes.length) parts.push(el("h3", {}, "Notes"), el("ul", {}, ...notes.map((n) => el("li", {}, n))));
  return parts;
}
async function planReload() {
  const dialog = $("plan"), body = $("plan-body"), go = $("plan-go");
  body.replaceChildren(el("p", {}, "Planning …"));
  $("plan-error").textContent = "";
  go.disabled = true;
  dialog.showModal();
  try {
    const plan = await send("POST", "v1/plan");
    body.replaceChildren(...planned(plan));
    go.disabled = false;
    go.textContent = plan.safe ? "Reload" : "Reload all the same";
  } catch (error) { body.replaceChildren(el("p", {}, "The file on disk cannot be applied:"), el("pre", {}, error.message)); }
  dialog.querySelector("form").onsubmit = async (e) => {
    if (e.submitter && e.submitter.value === "no") return;
    e.preventDefault();
    try { await send("POST", "v1/reload"); dialog.close(); poll(); } catch (error) { $("plan-error").textContent = error.message; }
  };
}

// ---- drills ---------------------------------------------------------------------------------
function askDrill(region) {
  $("drill-title").textContent = `Drill: take ${region} out and watch?`;
  $("drill-error").textContent = "";
  $("drill").showModal();
  $("drill").querySelector("form").onsubmit = async (e) => {
    if (e.submitter && e.submitter.value === "no") return;
    e.preventDefault();
    const value = (id) => $(id).value.trim();
    try {
      await send("POST", "v1/drills", { region, over: value("drill-over"), hold: value("drill-hold"), abort_if: value("drill-guards").split(/[,\s]+/).filter(Boolean), reason: value("drill-reason") });
      $("drill").close();
      drills(); poll();
    } catch (error) { $("drill-error").textContent = error.message; }
  };
}
async function drills() {
  let all;
  try { all = await json("v1/drills"); } catch { return; }
  const now = all.find((d) => d.stage === "draining" || d.stage === "holding");
  $("drilling").hidden = !now;
  if (!now) return show($("drilling"), "", () => []);
  const worst = [...now.routes].sort((a, b) => a.success - b.success)[0];
  show($("drilling"), JSON.stringify([now.id, now.stage, now.remaining_s, worst]), () => [
    el("span", {}, `Drill of ${now.region}: ${now.stage}, ${Math.round(now.remaining_s)} s to go, by ${now.by}.` + (worst ? ` Worst route ${worst.route}: ${(worst.success * 100).toFixed(2)} % good${worst.p99_ms == null ? "" : `, p99 ${Math.round(worst.p99_ms)} ms`}.` : "")),
    el("button", { id: "drill-stop", onclick: async () => { try { await send("DELETE", "v1/drills/" + encodeURIComponent(now.id)); } catch { /* over already */ } drills(); poll(); } }, `Stop and put ${now.region} back`)]);
}

// ---- incidents ------------------------------------------------------------------------------
let opened = null;
async function incidents() {
  let all;
  try { all = await json("v1/incidents?limit=20"); } catch { return; }
  $("no-incidents").hidden = all.length > 0;
  const gist = all.map((i) => [i.id, i.restored, i.timeline.length, i.series.length]);
  show($("incidents"), JSON.stringify([gist, opened]), () => all.map((i) => {
    const where = i.regions.join(", ") || "every region", over = i.restored != null;
    const head = el("summary", { id: "incident-" + i.id }, el("time", {}, new Date(i.onset).toLocaleString([], { hourCycle: "h23" })), " ", el("strong", {}, where), " ", tag(over ? "serving" : "tripped"), " ", i.cause.replaceAll("_", " "), ", ", over ? `over after ${span(i.restore_ms)}` : "goes on");
    head.querySelector(".tag").textContent = over ? "✓ over" : "✕ now";
    const box = el("details", { class: "incident", ...(opened === i.id ? { open: "" } : {}) }, head);
    box.ontoggle = () => { opened = box.open ? i.id : opened === i.id ? null : opened; if (box.open && !box.dataset.full) { box.dataset.full = "1"; unfold(box, i); } };
    return box;
  }));
}
function unfold(box, i) {
  const facts = [["seen after", span(i.detect_ms)], ["traffic moved after", span(i.shift_ms)], ["all well after", span(i.restore_ms)]];
  const sum = (f) => i.routes.reduce((a, r) => a + f(r), 0);
  facts.push(["failed or refused", sum((r) => (r.failed || 0) + (r.shed || 0) + (r.unavailable || 0))], ["degraded", sum((r) => (r.stale || 0) + (r.static || 0) + (r.spooled || 0))], ["tried again", sum((r) => (r.retried || 0) + (r.hedged || 0))]);
  box.append(el("dl", { class: "facts" }, ...facts.map(([n, v]) => el("div", {}, el("dt", {}, n), el("dd", {}, String(v))))), el("p", {}, i.cause_text));
  if (i.series.length > 1) {
    const pictures = el("div", { class: "charts" }), names = Object.keys(i.series[0].regions);
    const figure = (caption, id) => { const f = el("figure", {}, el("figcaption", {}, caption), el("div", { id })); pictures.append(f); };
    figure("Requests per second: failed or refused, and degraded", `i-hurt-${i.id}`);
    figure("Answered by region, per second", `i-by-${i.id}`);
    box.append(pictures);
    const t = i.series.map((p) => new Date(p.at).getTime() / 1000), rate = (f) => i.series.map((p) => f(p) / Math.max(0.1, p.seconds));
    chart(`i-hurt-${i.id}`, [{ label: "failed or refused", stroke: COLOURS.failed }, { label: "degraded", stroke: COLOURS.stale, dash: [6, 3] }], "/s").setData([t, rate((p) => p.hurt), rate((p) => p.degraded)]);
    chart(`i-by-${i.id}`, names.map(regionLine), "/s").setData([t, ...names.map((r) => rate((p) => p.regions[r] || 0))]);
  }
  const kinds = ["ok", "client_error", "failed", "unavailable", "shed", "stale", "static", "spooled", "retried", "hedged", "in_doubt"].filter((k) => i.routes.some((r) => r[k]));
  if (i.routes.length) box.append(table("Requests by route", ["Route", ...kinds.map((k) => k.replaceAll("_", " "))], i.routes.map((r) => [r.route, ...kinds.map((k) => String(r[k] || 0))])));
  box.append(el("h3", {}, "Timeline"), el("ol", { class: "timeline", tabindex: "0", "aria-label": "Timeline of the incident" }, ...i.timeline.slice(0, 60).map((l) => el("li", {}, el("time", {}, new Date(l.at).toISOString().slice(11, 23)), l.what, l.by === "evenkeel" ? "" : ` (${l.by})`))));
  if (i.timeline.length > 60) box.append(el("p", {}, `${i.timeline.length - 60} more lines: evenkeel incidents ${i.id}`));
  if (i.questions.length) box.append(el("h3", {}, "Open questions"), el("ul", {}, ...i.questions.map((q) => el("li", {}, q))));
  const copied = el("span", { role: "status" });
  box.append(el("div", { class: "row" }, el("button", { onclick: async () => {
    try { await navigator.clipboard.writeText(await (await call(`v1/incidents/${i.id}?format=markdown`)).text()); copied.textContent = "copied"; } catch { copied.textContent = `not allowed here: evenkeel incidents ${i.id} --format markdown`; }
  } }, "Copy as Markdown"), copied));
}

// ---- objectives -----------------------------------------------------------------------------
async function objectives() {
  let slo;
  try { slo = await json("v1/slo"); } catch { return; }
  const goals = slo.routes.flatMap((r) => [["success", r.success], ["latency", r.latency]].filter(([, k]) => k).map(([what, k]) => ({ r, what, k })));
  const part = (x) => (100 * x).toFixed(3) + " %";
  const gist = JSON.stringify([goals.map(({ r, k }) => [r.route, part(k.is), k.budget.toFixed(2), k.burn["1h"].toFixed(1)]), slo.regions.map((p) => [p.name, p.out, p.partly, p.slow]), slo.fates.length]);
  show($("slo"), gist, () => {
    const out = [];
    if (goals.length) out.push(table("Objectives", ["Objective", "Kept", "Promised", "Is", "Budget left", "Burn 5 min", "1 h", "6 h"], goals.map(({ r, what, k }) => [
      r.route + ": " + what + (what === "latency" ? ` within ${Math.round(r.latency_ms)} ms` : ""), tag(k.budget < 0 ? "tripped" : k.burn["1h"] > 1 ? "trial" : "serving"), part(k.goal), part(k.is), Math.round(k.budget * 100) + " %", k.burn["5m"].toFixed(1), k.burn["1h"].toFixed(1), k.burn["6h"].toFixed(1)]), 2));
    else out.push(el("p", {}, "No route has an objective: slo: {success: 99.9%, latency: 300ms at 99%} gives it one."));
    const places = [...slo.regions.map((p) => ["region", p]), ...slo.fates.map((p) => ["fate", p])];
    const s = (x) => (x ? (x < 120 ? Math.round(x) + " s" : span(x * 1000)) : "–");
    out.push(table("Regions and fates", ["Place", "Available", "Out", "Partly out", "Slow", "Drained", "Watched"], places.map(([kind, p]) => [`${p.name} (${kind})`, part(p.available), s(p.out), s(p.partly), s(p.slow), s(p.drained), s(p.watched)])));
    for (const t of out) for (const [k, word] of [["tripped", "✕ missed"], ["trial", "! burns"], ["serving", "✓ kept"]]) t.querySelectorAll(".tag." + k).forEach((e) => (e.textContent = word));
    return out;
  });
}

$("reload").onclick = planReload;
drills(); incidents(); objectives();
setInterval(drills, 1000);
setInterval(incidents, 5000);
setInterval(objectives, 5000);
