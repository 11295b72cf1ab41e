// Draws the curves of the page from its JSON; nothing is fetched. SVG is built as text, which HTML parses in place.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const hidden = new Set();
let axis = data.axis;

const W = 420, H = 240, LEFT = 50, RIGHT = 20, TOP = 8, BOTTOM = 34;

function escaped(text) {
  return String(text).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);
}

function readable(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6) return +(value / 1e6).toPrecision(3) + "M";
  if (size >= 1e4) return +(value / 1e3).toPrecision(3) + "k";
  if (size < 1e-3) return value.toExponential(1);
  return String(+value.toPrecision(3));
}

// Round numbers between low and high, about `count` of them.
function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= 0.8 * rough);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high + step * 1e-9; i++) found.push(i * step);
  return found;
}

function logTicks(low, high) {
  const found = [];
  const from = Math.floor(low), to = Math.ceil(high);
  const marks = to - from <= 2 ? [1, 2, 5] : [1];
  const every = Math.max(1, Math.ceil((to - from) / 5));
  for (let p = from; p <= to; p += every)
    for (const m of marks) {
      const t = p + Math.log10(m);
      if (t >= low && t <= high) found.push(t);
    }
  return found;
}

// The points of one line on the current axis: [x, mean, standard deviation].
function points(line) {
  const x = data.groups[line.group].x[axis];
  if (!x) return [];
  return line.mean.flatMap((y, i) => (y === null ? [] : [[x[i], y, line.spread[i] || 0]]));
}

function scales(chart, lines) {
  const all = lines.flatMap((line) => line.points);
  const xHigh = Math.max(...all.map((p) => p[0]), 1e-9);
  const log = chart.log && all.every((p) => p[1] > 0);
  const shape = (y) => (log ? Math.log10(Math.max(y, 1e-30)) : y);
  const heights = [...all.map((p) => p[1]), ...chart.guides].map(shape);
  let low = Math.min(...heights), high = Math.max(...heights);
  const pad = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  low -= pad;
  high += pad;
  return {
    log, low, high, xHigh,
    x: (v) => LEFT + (v / xHigh) * (W - LEFT - RIGHT),
    y: (v) => TOP + ((high - shape(v)) / (high - low)) * (H - TOP - BOTTOM),
    yShaped: (v) => TOP + ((high - v) / (high - low)) * (H - TOP - BOTTOM),
  };
}

function frame(scale) {
  const yTicks = scale.log ? logTicks(scale.low, scale.high) : ticks(scale.low, scale.high, 5);
  const rows = yTicks.map((t) => {
    const y = scale.yShaped(t).toFixed(1);
    const label = readable(scale.log ? 10 ** t : +t.toPrecision(12));
    return `<line class="grid" x1="${LEFT}" x2="${W - RIGHT}" y1="${y}" y2="${y}"/>` +
      `<text x="${LEFT - 6}" y="${y}" dy="4" text-anchor="end">${label}</text>`;
  });
  const columns = ticks(0, scale.xHigh, 4).map((t) =>
    `<text x="${scale.x(t).toFixed(1)}" y="${H - BOTTOM + 15}" text-anchor="middle">${readable(t)}</text>`);
  const title = escaped(data.axes[axis]);
  return rows.join("") + columns.join("") +
    `<text x="${(LEFT + W - RIGHT) / 2}" y="${H - 3}" text-anchor="middle">${title}</text>`;
}

function path(pairs) {
  return pairs.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
}

function drawn(line, scale) {
  const group = data.groups[line.group];
  const colour = `var(--g${group.colour})`;
  const up = line.points.map(([x, y, s]) => [scale.x(x), scale.y(y + s)]);
  const down = line.points.map(([x, y, s]) => [scale.x(x), scale.y(y - s)]).reverse();
  const middle = line.points.map(([x, y]) => [scale.x(x), scale.y(y)]);
  const marks = line.points.length < 20
    ? middle.map(([x, y]) => `<circle cx="${x.toFixed(1)}" cy="${y.toFixed(1)}" r="3" fill="${colour}"/>`).join("")
    : "";
  return `<path class="band" fill="${colour}" d="${path(up.concat(down))}Z"/>` +
    `<path class="curve" stroke="${colour}" stroke-dasharray="${group.dash}" d="${path(middle)}"/>` + marks;
}

function draw(figure, chart, index) {
  const lines = chart.lines.filter((line) => !hidden.has(line.group))
    .map((line) => ({ group: line.group, points: points(line) }));
  const absent = lines.filter((line) => !line.points.length).map((line) => data.groups[line.group].label);
  const shown = lines.filter((line) => line.points.length);
  const note = absent.length ? `<p class="absent">Not on this axis: ${escaped(absent.join(", "))}</p>` : "";
  const caption = `<figcaption>${escaped(chart.title)}<code>${escaped(chart.tag)}</code></figcaption>`;
  if (!shown.length) {
    figure.innerHTML = caption + note;
    figure.onpointermove = figure.onpointerleave = null;
    return;
  }
  const scale = scales(chart, shown);
  const guides = chart.guides.map((g) => {
    const y = scale.y(g).toFixed(1);
    return `<line class="guide" x1="${LEFT}" x2="${W - RIGHT}" y1="${y}" y2="${y}"/>`;
  });
  figure.innerHTML = `${caption}<svg viewBox="0 0 ${W} ${H}" role="img" aria-label="${escaped(chart.title)}">` +
    `<clipPath id="clip${index}"><rect x="${LEFT}" y="${TOP}" width="${W - LEFT - RIGHT + 4}" height="${H - TOP - BOTTOM}"/></clipPath>` +
    frame(scale) + guides.join("") +
    `<g clip-path="url(#clip${index})">${shown.map((line) => drawn(line, scale)).join("")}</g>` +
    `<line class="cross" y1="${TOP}" y2="${H - BOTTOM}" visibility="hidden"/></svg>${note}`;
  point(figure, shown, scale);
}

// A cross-hair and the values under it.
function point(figure, shown, scale) {
  const svg = figure.querySelector("svg"), cross = figure.querySelector(".cross");
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  figure.append(tip);
  figure.onpointermove = (event) => {
    const box = svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * W;
    if (at < LEFT || at > W - RIGHT) return figure.onpointerleave();
    const x = ((at - LEFT) / (W - LEFT - RIGHT)) * scale.xHigh;
    cross.setAttribute("x1", at);
    cross.setAttribute("x2", at);
    cross.setAttribute("visibility", "visible");
    const rows = shown.map((line) => {
      const last = line.points[line.points.length - 1];
      const near = line.points.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a));
      const text = x > last[0] * 1.01 ? "ended" : readable(near[1]) + (near[2] ? ` ± ${readable(near[2])}` : "");
      return `<div>${swatch(line.group)}${escaped(data.groups[line.group].label)} <b>${text}</b></div>`;
    });
    tip.innerHTML = `<div>${readable(x)} ${escaped(data.axes[axis])}</div>${rows.join("")}`;
    tip.hidden = false;
    tip.style.left = at > W / 2 ? "auto" : `${(at / W) * 100 + 4}%`;
    tip.style.right = at > W / 2 ? `${100 - (at / W) * 100 + 4}%` : "auto";
  };
  figure.onpointerleave = () => {
    tip.hidden = true;
    cross.setAttribute("visibility", "hidden");
  };
}

function swatch(group) {
  const { colour, dash } = data.groups[group];
  return `<span class="swatch"><svg viewBox="0 0 26 8"><path d="M0 4H26" stroke="var(--g${colour})" stroke-width="3" ` +
    `stroke-dasharray="${dash}"/></svg></span>`;
}

const figures = [];
function redraw() {
  figures.forEach(([figure, chart], index) => draw(figure, chart, index));
}

for (const topic of [...new Set(data.charts.map((chart) => chart.topic))]) {
  const home = document.getElementById("charts");
  home.insertAdjacentHTML("beforeend", `<h3>${escaped(topic)}</h3><div class="topic-charts"></div>`);
  for (const chart of data.charts.filter((c) => c.topic === topic)) {
    const figure = document.createElement("figure");
    home.lastElementChild.append(figure);
    figures.push([figure, chart]);
  }
}
for (const [key, title] of Object.entries(data.axes)) {
  document.getElementById("axes").insertAdjacentHTML("beforeend",
    `<span><input type="radio" name="axis" id="axis-${key}" value="${key}" ${key === axis ? "checked" : ""}>` +
    `<label for="axis-${key}">${escaped(title)}</label></span>`);
}
document.getElementById("axes").addEventListener("change", (event) => {
  axis = event.target.value;
  redraw();
});
data.groups.forEach((group, index) => {
  const button = document.createElement("button");
  button.className = "toggle";
  button.type = "button";
  button.setAttribute("aria-pressed", "true");
  button.innerHTML = swatch(index) + escaped(group.label);
  button.addEventListener("click", () => {
    const show = hidden.delete(index);
    if (!show) hidden.add(index);
    button.setAttribute("aria-pressed", String(show));
    redraw();
  });
  document.getElementById("toggles").append(button);
});
document.querySelectorAll("[data-group]").forEach((place) => place.insertAdjacentHTML("afterbegin", swatch(+place.dataset.group)));
redraw();
