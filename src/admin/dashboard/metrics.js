"use strict";
// Reads the Prometheus text format, and turns two readings a second apart into what users felt in between.

function readMetrics(text) {
  const families = new Map();
  for (const line of text.split("\n")) {
    if (!line || line[0] === "#") continue;
    const m = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/.exec(line);
    if (!m) continue;
    const labels = {};
    for (const l of (m[2] || "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[l[1]] = l[2].replace(/\\(.)/g, (_, c) => (c === "n" ? "\n" : c));
    if (!families.has(m[1])) families.set(m[1], []);
    families.get(m[1]).push({ labels, value: Number(m[3]) });
  }
  return families;
}

// Sums of a family by one label.
function sumBy(families, name, label) {
  const out = {};
  for (const s of families.get(name) || []) out[s.labels[label]] = (out[s.labels[label]] || 0) + s.value;
  return out;
}

// What each key grew by; a counter that fell was reset.
function growth(now, before) {
  const out = {};
  for (const k of Object.keys(now)) out[k] = Math.max(0, now[k] - (before[k] || 0));
  return out;
}

// A quantile of what a cumulative histogram gained, in seconds; null when it gained nothing.
function quantile(gained, q) {
  const bounds = Object.keys(gained).map((k) => [k === "+Inf" ? Infinity : Number(k), gained[k]]).sort((a, b) => a[0] - b[0]);
  const total = bounds.length ? bounds[bounds.length - 1][1] : 0;
  if (!total) return null;
  let low = 0, seen = 0;
  for (const [bound, count] of bounds) {
    if (count >= q * total) {
      if (bound === Infinity) return low;
      return low + (bound - low) * (count > seen ? (q * total - seen) / (count - seen) : 1);
    }
    low = bound; seen = count;
  }
  return low;
}
