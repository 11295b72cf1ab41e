// Lists the tasks of the page's JSON and draws their grids when they come into view; nothing is fetched.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const home = document.getElementById("tasks"), count = document.getElementById("count");
const order = document.getElementById("order"), find = document.getElementById("find");
const marks = document.getElementById("marks");

const BADGES = { solved: "good", unsolved: "bad" };  // classes of the common look
const DEMO_PX = 84, QUERY_PX = 148, LARGEST_CELL_PX = 20;

function element(tag, className, ...children) {
  const found = document.createElement(tag);
  if (className) found.className = className;
  found.append(...children);
  return found;
}

// ── Grids ──
// A canvas has its size from the start, so that the page does not move; its pixels exist only while it is near the view.
function grid(text, pixels, answer) {
  const rows = text.split("/");
  const cell = Math.max(2, Math.min(LARGEST_CELL_PX, Math.floor(pixels / Math.max(rows.length, rows[0].length))));
  const canvas = element("canvas");
  canvas.width = canvas.height = 0;
  canvas.style.width = `${rows[0].length * cell + 1}px`;
  canvas.style.height = `${rows.length * cell + 1}px`;
  canvas.role = "img";
  canvas.ariaLabel = `grid of ${rows.length} by ${rows[0].length}`;
  canvas.draw = () => paint(canvas, rows, cell, marks.checked && answer ? answer.split("/") : null);
  return canvas;
}

function paint(canvas, rows, cell, answer) {
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.round((rows[0].length * cell + 1) * scale);
  canvas.height = Math.round((rows.length * cell + 1) * scale);
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  context.fillStyle = "#555555";
  context.fillRect(0, 0, canvas.width, canvas.height);
  const gap = cell > 3 ? 1 : 0;
  const comparable = answer && answer.length === rows.length && answer[0].length === rows[0].length;
  rows.forEach((row, i) => [...row].forEach((colour, j) => {
    context.fillStyle = data.palette[colour];
    context.fillRect(j * cell + 1, i * cell + 1, cell - gap, cell - gap);
    if (comparable && answer[i][j] !== colour) mark(context, (j + 0.5) * cell + 0.5, (i + 0.5) * cell + 0.5, cell);
  }));
}

// A white dot with a dark rim shows on every colour.
function mark(context, x, y, cell) {
  context.beginPath();
  context.arc(x, y, Math.max(1, cell * 0.2), 0, 2 * Math.PI);
  context.fillStyle = "#ffffff";
  context.fill();
  context.lineWidth = Math.max(0.75, cell * 0.08);
  context.strokeStyle = "#111111";
  context.stroke();
}

// ── Tasks ──
// A title and two lines under it, so that the grids of a row stand level.
function figure(title, lines, content) {
  const caption = element("figcaption", "", title);
  for (const line of [...lines, "\u00a0", "\u00a0"].slice(0, 2)) caption.append(element("br"), line);
  return element("figure", "", caption, content);
}

function attempt(query, number) {
  const found = query.attempts[number];
  const title = element("b", "", `Attempt ${number + 1}`);
  if (!found) {
    const why = query.candidates ? "no other grid was predicted" : "no complete grid was predicted";
    return figure(title, [], element("div", "none", why));
  }
  if (query.answer !== undefined) {
    const right = found.grid === query.answer;
    title.append(element("span", right ? "right" : "wrong", right ? " ✓" : " ✕"));
  }
  const lines = [`${found.votes} of ${query.predictions} votes`, `confidence ${(100 * found.confidence).toFixed(1)}%`];
  return figure(title, lines, grid(found.grid, QUERY_PX, query.answer));
}

function answered(query) {
  const place = query.rank ? [`rank ${query.rank} of`, `${query.candidates} predicted grids`] : ["never predicted"];
  const found = figure(element("b", "", "Answer"), query.predictions ? place : [], grid(query.answer, QUERY_PX));
  found.classList.add("answer");
  return found;
}

function queryRow(query, index, all) {
  const title = element("b", "", all.length > 1 ? `Query ${index + 1}` : "Query");
  const parts = [figure(title, [], grid(query.input, QUERY_PX))];
  if (query.predictions) parts.push(attempt(query, 0), ...(query.candidates ? [attempt(query, 1)] : []));
  if (query.answer !== undefined) parts.push(answered(query));
  return element("div", "row", ...parts);
}

function demonstration([input, output]) {
  return element("div", "pair", grid(input, DEMO_PX), element("span", "arrow", "→"), grid(output, DEMO_PX));
}

function card(task) {
  const link = element("a", "", task.id);
  link.href = `#${encodeURIComponent(task.id)}`;
  const found = element("article", "task card",
    element("h2", "", link, element("span", `badge ${BADGES[task.status] || ""}`, task.label)),
    element("div", "body", element("div", "demos", ...task.demos.map(demonstration), element("span", "shown", task.shown)),
      element("div", "queries", ...task.queries.map(queryRow))));
  found.id = task.id;
  return found;
}

// ── Drawing what is near the view ──
const near = new IntersectionObserver((changes) => {
  for (const { target, isIntersecting } of changes) {
    target.near = isIntersecting;
    for (const canvas of target.querySelectorAll("canvas")) {
      if (isIntersecting) canvas.draw();
      else canvas.width = canvas.height = 0;
    }
  }
}, { rootMargin: "600px" });

// ── Filter and order ──
function strength(task, field) {
  const best = task.queries.map((query) => {
    const first = query.attempts[0];
    return !first ? -1 : field === "votes" ? first.votes / query.predictions : first.confidence;
  });
  return best.reduce((a, b) => a + b, 0) / best.length;
}

function arrange() {
  const by = order.value;
  const sorted = by === "outcome" ? data.tasks : [...data.tasks].sort((a, b) =>
    by === "id" ? a.id.localeCompare(b.id) : strength(b, by) - strength(a, by));
  home.append(...sorted.map((task) => task.card));
}

function filter() {
  const status = document.querySelector("input[name=status]:checked").value;
  const wanted = find.value.trim().toLowerCase();
  let shown = 0;
  for (const task of data.tasks) {
    const visible = (status === "all" || task.status === status) && task.id.toLowerCase().includes(wanted);
    task.card.hidden = !visible;
    shown += visible;
  }
  count.textContent = `${shown} of ${data.tasks.length} tasks`;
}

for (const task of data.tasks) {
  task.card = card(task);
  near.observe(task.card);
}
document.getElementById("filters").addEventListener("change", filter);
find.addEventListener("input", filter);
order.addEventListener("change", arrange);
marks.addEventListener("change", () => {
  for (const task of data.tasks)
    if (task.card.near) task.card.querySelectorAll("canvas").forEach((canvas) => canvas.draw());
});
arrange();
filter();
if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
