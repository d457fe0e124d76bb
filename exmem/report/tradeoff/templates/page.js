"use strict";
// Filters, sorting and charts of the page. Text gets into it by textContent alone, so that no name becomes markup.
const { axes, unnamed, dashes: dashesOf, looks, points } = JSON.parse(document.getElementById("points").textContent);
const SVG = "http://www.w3.org/2000/svg";
const form = document.querySelector("#filters form");
const tip = document.getElementById("tip");
const charts = document.getElementById("charts");
const ticked = (id) => document.getElementById(id).checked;

function make(tag, attributes = {}, parent = null, text = null) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== null) node.textContent = text;
  if (parent) parent.append(node);
  return node;
}

function element(tag, parent, text = null) {
  const node = document.createElement(tag);
  if (text !== null) node.textContent = text;
  parent.append(node);
  return node;
}

// Looks

function outline(marker, x, y, r) {
  const move = (...corners) => "M" + corners.map(([dx, dy]) => `${x + dx * r},${y + dy * r}`).join("L") + "Z";
  if (marker === "square") return move([-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]);
  if (marker === "triangle") return move([0, -1.15], [1.1, 0.85], [-1.1, 0.85]);
  if (marker === "down") return move([0, 1.15], [1.1, -0.85], [-1.1, -0.85]);
  if (marker === "diamond") return move([0, -1.25], [1.25, 0], [0, 1.25], [-1.25, 0]);
  return `M${x - r},${y}a${r},${r} 0 1 0 ${2 * r},0a${r},${r} 0 1 0 ${-2 * r},0Z`;
}

for (const node of document.querySelectorAll(".swatch")) {
  const look = looks[node.dataset.look];
  const line = { x1: 1, y1: 7, x2: 39, y2: 7, stroke: look ? look.colour : "#5a6474", "stroke-width": 2 };
  make("line", { ...line, "stroke-dasharray": look ? look.dashes : dashesOf[node.dataset.level] }, node);
  if (look) make("path", { d: outline(look.marker, 20, 7, 5), fill: look.colour }, node);
}

// Filters

function chosen() {
  const sets = {};
  for (const axis of Object.keys(axes)) {
    const boxes = [...form.querySelectorAll(`input[name=${axis}]`)];
    const places = boxes.length ? boxes.filter((box) => box.checked).map((box) => +box.value) : axes[axis].keys();
    sets[axis] = new Set(places);
  }
  const measure = form.querySelector("input[name=measure]:checked");
  return { sets, measure: measure ? measure.value : "average" };
}

function holds(data, { sets, measure }) {
  const runs = data.kind !== undefined && axes.kind[data.kind] !== "probe"; // of a probe there is one measure
  if (data.measure !== undefined && runs && data.measure !== measure) return false;
  return Object.keys(axes).every((axis) => data[axis] === undefined || sets[axis].has(+data[axis]));
}

function apply() {
  const choice = chosen();
  const parts = ".group, tr[data-recipe], .gallery, .gallery [data-recipe], .group [data-budget], #best tr[data-budget]";
  for (const node of document.querySelectorAll(parts)) node.hidden = !holds(node.dataset, choice);
  const rows = [...document.querySelectorAll("#table tbody tr")];
  const shown = rows.filter((row) => !row.hidden).length;
  document.getElementById("count").textContent = `${shown} of ${rows.length} rows are shown.`;
  const ticks = [...form.querySelectorAll("input[type=checkbox]")].filter((box) => !box.checked).length;
  document.getElementById("left").textContent = ticks ? `: ${choice.sets.recipe.size} of ${axes.recipe.length} recipes` : "";
  draw(choice);
}

form.addEventListener("change", apply);
for (const id of ["bars", "front"]) document.getElementById(id).addEventListener("change", apply);
form.addEventListener("click", (event) => {
  const { all, none, front } = event.target.dataset;
  const axis = all || none || front;
  if (!axis) return;
  const choice = chosen();
  const on = (point) => point.front && ["kind", "data", "method"].every((key) => choice.sets[key].has(point[key]));
  const best = new Set(points.filter(on).map((point) => point[axis]));
  for (const box of form.querySelectorAll(`input[name=${axis}]`)) box.checked = all || (front && best.has(+box.value));
  apply();
});

// Tables

for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    header.querySelector("button").addEventListener("click", () => {
      const down = header.getAttribute("aria-sort") === "ascending";
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", down ? "descending" : "ascending");
      sort(table, column, down ? -1 : 1);
    });
  });
}

function sort(table, column, sign) {
  const key = (row) => {
    const cell = row.cells[column];
    const value = cell.dataset.value;
    if (value === undefined) return cell.textContent.trim();
    return value === "" ? NaN : +value;
  };
  const order = (a, b) => {
    if (typeof a === "string") return sign * a.localeCompare(b, undefined, { numeric: true });
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b); // what is not known comes last
    return sign * (a - b);
  };
  const body = table.tBodies[0];
  body.append(...[...body.rows].sort((a, b) => order(key(a), key(b))));
}

// Charts

const UNITS = ["B", "kB", "MB", "GB", "TB"];

function size(bytes, exact = true) {
  const power = Math.min(4, Math.max(0, Math.floor(Math.log10(bytes * 1.0005) / 3)));
  const number = (bytes / 1000 ** power).toPrecision(3);
  return `${exact && power ? number : +number} ${UNITS[power]}`; // on an axis without zeros at the end
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;

function xTicks(low, high) {
  const steps = high / low < 4 ? [1, 1.5, 2, 3, 4, 5, 6, 8] : high / low < 300 ? [1, 2, 5] : [1];
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
    for (const step of steps) ticks.push(step * 10 ** power);
  return ticks.filter((tick) => tick >= low && tick <= high);
}

function yTicks(low, high) {
  const step = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2].find((one) => (high - low) / one <= 7) || 0.25;
  const ticks = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + 1e-9; at++) ticks.push(at * step);
  return ticks;
}

function draw(choice) {
  hide();
  charts.replaceChildren();
  const groups = new Map();
  for (const point of points) {
    if (!holds(point, choice)) continue;
    const key = [point.kind, point.data, point.method].join();
    groups.set(key, [...(groups.get(key) || []), point]);
  }
  if (!groups.size) element("p", charts, "Nothing is chosen: tick a recipe, a budget and the rest at the left.").className = "note";
  const drawn = [...groups.values()].map((group) => [element("figure", charts), group]);
  for (const [figure, group] of drawn) chart(figure, group); // all are there before one is measured
}

function chart(figure, group) {
  const [one] = group;
  const names = [axes.data[one.data], axes.kind[one.kind], axes.method[one.method]];
  const title = names.filter((name, at) => at < 2 || name !== unnamed).join(", ");
  element("figcaption", figure, title);
  const width = Math.max(300, figure.clientWidth);
  const height = Math.round(Math.min(460, Math.max(290, width * 0.62)));
  const box = { left: 44, right: width - 12, top: 12, bottom: height - 42 };
  const view = { viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "group" };
  const svg = make("svg", { ...view, "aria-label": `${title}: accuracy over bytes; arrow keys go from mark to mark` }, figure);
  const bars = ticked("bars");
  const sizes = group.map((point) => point.bytes);
  const pad = Math.max(...sizes) / Math.min(...sizes) < 1.5 ? 2 : 1.15;
  const [first, last] = [Math.min(...sizes) / pad, Math.max(...sizes) * pad];
  const lows = group.map((point) => (bars && point.low !== null ? point.low : point.accuracy));
  const highs = group.map((point) => (bars && point.high !== null ? point.high : point.accuracy));
  const room = Math.max(0.01, 0.025 - (Math.max(...highs) - Math.min(...lows)) / 2);
  const [low, high] = [Math.max(0, Math.min(...lows) - room), Math.min(1, Math.max(...highs) + room)];
  const x = (bytes) => box.left + (Math.log(bytes / first) / Math.log(last / first)) * (box.right - box.left);
  const y = (share) => box.bottom - ((share - low) / (high - low || 1)) * (box.bottom - box.top);
  grid(svg, box, { first, last, low, high, x, y });
  if (ticked("front")) front(svg, group, x, y);
  const series = new Map();
  const curves = [...new Set(group.map((point) => point.recipe))].sort((a, b) => a - b);
  for (const recipe of curves) {
    const own = group.filter((point) => point.recipe === recipe);
    const { colour, marker, dashes } = looks[recipe];
    const node = make("g", { class: "series" }, svg);
    const path = own.map((point) => `${x(point.bytes)},${y(point.accuracy)}`).join(" ");
    make("polyline", { points: path, fill: "none", stroke: colour, "stroke-width": 1.6, "stroke-dasharray": dashes }, node);
    for (const point of own) {
      const [px, py] = [x(point.bytes), y(point.accuracy)];
      if (bars && point.low !== null)
        make("line", { x1: px, x2: px, y1: y(Math.max(low, point.low)), y2: y(Math.min(high, point.high)), stroke: colour, "stroke-width": 1.6, opacity: 0.4 }, node);
      make("path", { d: outline(marker, px, py, 4), fill: colour, class: "mark" }, node);
      if (point.front && ticked("front"))
        make("circle", { cx: px, cy: py, r: 7.5, fill: "none", stroke: "#1c2330", "stroke-width": 1.3, class: "ring" }, node);
    }
    series.set(recipe, node);
  }
  listen(svg, group, series, x, y, width);
}

function grid(svg, box, { first, last, low, high, x, y }) {
  let edge = -Infinity;
  for (const tick of xTicks(first, last)) {
    make("line", { x1: x(tick), x2: x(tick), y1: box.top, y2: box.bottom, stroke: "#e6eaef" }, svg);
    if (x(tick) - edge < 52 || x(tick) > box.right - 8) continue;
    make("text", { x: x(tick), y: box.bottom + 17, "text-anchor": "middle" }, svg, size(tick, false));
    edge = x(tick);
  }
  for (const tick of yTicks(low, high)) {
    make("line", { x1: box.left, x2: box.right, y1: y(tick), y2: y(tick), stroke: "#e6eaef" }, svg);
    make("text", { x: box.left - 7, y: y(tick) + 4, "text-anchor": "end" }, svg, `${+(100 * tick).toFixed(1)} %`);
  }
  make("path", { d: `M${box.left},${box.top}V${box.bottom}H${box.right}`, fill: "none", stroke: "#8b95a5" }, svg);
  make("text", { x: (box.left + box.right) / 2, y: box.bottom + 36, "text-anchor": "middle" }, svg, "bytes on the disk");
}

function front(svg, group, x, y) {
  const on = group.filter((point) => point.front).sort((a, b) => a.bytes - b.bytes);
  const path = on.map((point) => `${x(point.bytes)},${y(point.accuracy)}`).join(" ");
  const line = { "stroke-width": 9, "stroke-linecap": "round", "stroke-linejoin": "round" };
  make("polyline", { points: path, fill: "none", stroke: "#1c2330", opacity: 0.1, class: "front", ...line }, svg);
}

// Marks: by pointer, by touch, and by the arrow keys

let hide = () => {};

function listen(svg, group, series, x, y, width) {
  let current = null;
  const scale = () => svg.getBoundingClientRect().width / width;
  const show = (point) => {
    current = point;
    for (const [recipe, node] of series) node.classList.toggle("dimmed", recipe !== point.recipe);
    tell(point, svg, x(point.bytes) * scale(), y(point.accuracy) * scale());
  };
  const leave = () => {
    for (const node of series.values()) node.classList.remove("dimmed");
    tip.hidden = true;
  };
  const near = (event) => {
    const box = svg.getBoundingClientRect();
    const [px, py] = [(event.clientX - box.left) / scale(), (event.clientY - box.top) / scale()];
    const far = (point) => Math.hypot(x(point.bytes) - px, y(point.accuracy) - py);
    const best = group.reduce((a, b) => (far(b) < far(a) ? b : a));
    if (far(best) < 28) { hide(); hide = leave; show(best); } else leave();
  };
  svg.addEventListener("point", ({ detail: recipe }) => {
    for (const [other, node] of series) node.classList.toggle("dimmed", series.has(recipe) && other !== recipe);
  });
  svg.addEventListener("pointermove", near);
  svg.addEventListener("pointerdown", near);
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("blur", leave);
  svg.addEventListener("focus", () => { if (svg.matches(":focus-visible")) { hide(); hide = leave; show(current || group[0]); } });
  svg.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return leave();
    const next = step(group, current || group[0], event.key);
    if (!next) return;
    event.preventDefault();
    hide = leave;
    show(next);
  });
}

function step(group, from, key) {
  const along = group.filter((point) => point.recipe === from.recipe);
  const at = along.indexOf(from);
  if (key === "ArrowRight") return along[Math.min(at + 1, along.length - 1)];
  if (key === "ArrowLeft") return along[Math.max(at - 1, 0)];
  if (key !== "ArrowUp" && key !== "ArrowDown") return null;
  const column = group.filter((point) => point.budget === from.budget).sort((a, b) => a.accuracy - b.accuracy);
  return column[column.indexOf(from) + (key === "ArrowUp" ? 1 : -1)] || from;
}

function tell(point, svg, px, py) {
  const lines = [
    `${percent(point.accuracy)}${point.low === null ? "" : ` [${(100 * point.low).toFixed(1)}, ${(100 * point.high).toFixed(1)}]`}`,
    `${size(point.bytes)} on the disk of ${axes.budget[point.budget]}`,
    `${point.n} ${point.n === 1 ? "seed: no interval" : "seeds"}${point.front ? "; on the Pareto front" : ""}`,
  ];
  tip.replaceChildren();
  element("b", tip, axes.recipe[point.recipe]);
  for (const line of lines) element("div", tip, line);
  document.getElementById("spoken").textContent = [axes.recipe[point.recipe], ...lines].join(", ");
  tip.hidden = false;
  const box = svg.getBoundingClientRect();
  const left = box.left + window.scrollX + px;
  const room = document.documentElement.clientWidth + window.scrollX;
  const flipped = left + 14 + tip.offsetWidth > room - 4;
  tip.style.left = `${Math.max(4, flipped ? left - 14 - tip.offsetWidth : left + 14)}px`;
  tip.style.top = `${box.top + window.scrollY + py - tip.offsetHeight - 10}px`;
}

// A recipe that is pointed at in the list stands out in every chart.
form.addEventListener("pointerover", (event) => {
  const label = event.target.closest("label[data-recipe]");
  emphasise(label ? +label.dataset.recipe : null);
});
form.addEventListener("pointerleave", () => emphasise(null));

function emphasise(recipe) {
  for (const svg of charts.querySelectorAll("svg")) svg.dispatchEvent(new CustomEvent("point", { detail: recipe }));
}

let known = 0;
new ResizeObserver(() => {
  if (Math.abs(charts.clientWidth - known) < 2) return;
  known = charts.clientWidth;
  apply();
}).observe(charts);
if (window.matchMedia("(max-width: 900px)").matches) document.getElementById("filters").open = false;
