// Curves and the map, drawn with uPlot; tables beside them say the same in words.

const HEIGHT = { curve: 320, cloud: 520 };
const NEAR = 14; // pixels within which a point is pointed at
const CATEGORIES = 8;

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function axes(names) {
  const line = { stroke: colour("soft"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line"), width: 1 } };
  return names.map((label, at) => ({ ...line, label, labelSize: 22, size: at ? 58 : 36, font: "12px system-ui", labelFont: "12px system-ui" }));
}

function size(figure, height) {
  const width = Math.max(260, Math.floor(figure.getBoundingClientRect().width));
  return { width, height: Math.min(height, Math.max(240, Math.floor(width * 0.85))) };
}

function legend(entries) {
  return element(
    "ul", { class: "legend" },
    ...entries.map(([name, shade]) => {
      const swatch = element("span", { class: "swatch", "aria-hidden": "true" });
      swatch.style.background = shade;
      return element("li", {}, swatch, name);
    }),
  );
}

function drawCurve(plot, figure) {
  const shades = plot.lines.map((_, at) => colour(at === plot.lines.length - 1 && at ? "cat-8" : `cat-${at % CATEGORIES}`));
  const holder = element("div", { class: "canvas", role: "img", "aria-label": `Curves of ${plot.axes[1]} against ${plot.axes[0]}; the table below has the figures.` });
  const made = new uPlot(
    {
      ...size(figure, HEIGHT.curve),
      scales: { x: { time: false }, y: { range: (u, low, high) => [Math.min(0, low), high * 1.05 || 1] } },
      axes: axes(plot.axes),
      legend: { show: false },
      cursor: { points: { size: 7 } },
      series: [{}, ...plot.lines.map(({ name }, at) => ({ label: name, stroke: shades[at], width: 2, spanGaps: true, points: { show: false }, dash: at === plot.lines.length - 1 && at ? [6, 5] : undefined }))],
      hooks: { draw: [(u) => marks(u, plot, shades)], setCursor: [(u) => pointCurve(u, plot)] },
    },
    uPlot.join(plot.lines.map(({ x, y }) => [x, y])),
    holder,
  );
  made.over.addEventListener("mouseleave", hideTip);
  return [holder, legend(plot.lines.map(({ name }, at) => [name, shades[at]]))];
}

function marks(u, plot, shades) {
  plot.lines.forEach(({ marks: found }, at) => {
    for (const [x, y, word] of found) {
      const [left, top] = [u.valToPos(x, "x", true), u.valToPos(y, "y", true)];
      u.ctx.fillStyle = shades[at];
      u.ctx.beginPath();
      u.ctx.arc(left, top, 5 * devicePixelRatio, 0, 2 * Math.PI);
      u.ctx.fill();
      u.ctx.fillStyle = colour("ink");
      u.ctx.font = `${12 * devicePixelRatio}px system-ui`;
      u.ctx.textAlign = "center";
      u.ctx.fillText(word, left, top - 10 * devicePixelRatio);
    }
  });
}

function pointCurve(u, plot) {
  const { idx, left, top } = u.cursor;
  if (idx === null || idx === undefined || left < 0) return hideTip();
  const at = u.data[0][idx];
  const lines = plot.lines
    .map(({ name }, n) => [name, u.data[n + 1][idx]])
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([name, value]) => element("div", {}, `${name}: ${short(value)}`));
  const box = u.over.getBoundingClientRect();
  tip(box.left + left, box.top + top, element("strong", {}, `${at.toLocaleString("en")} records`), ...lines);
}

// What colours the map: groups, or five classes of a figure; null where a record has none.
function classes(plot, key) {
  const col = column(plot.of, key);
  const values = plot.places.map((place) => col.values[place]);
  if (key.startsWith("rank") || key.startsWith("place")) {
    return { of: values.map((v) => (v === null ? 1 : 0)), names: ["selected", "left out"], shades: [colour("cat-1"), colour("cat-8")] };
  }
  if (col.kind === "text") {
    const sizes = new Map();
    for (const value of col.values) sizes.set(value, (sizes.get(value) || 0) + 1);
    const first = [...sizes].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).map(([name]) => name);
    const named = first.length > CATEGORIES ? first.slice(0, CATEGORIES) : first;
    const names = first.length > CATEGORIES ? [...named, `${first.length - CATEGORIES} others`] : named;
    return { of: values.map((v) => (named.includes(v) ? named.indexOf(v) : CATEGORIES)), names, shades: names.map((_, at) => colour(`cat-${at}`)) };
  }
  const known = values.filter((v) => v !== null).sort((a, b) => a - b);
  const edges = [0.2, 0.4, 0.6, 0.8].map((share) => known[Math.floor(share * (known.length - 1))]);
  const names = [...new Set(edges)].map((edge, at, all) => (at ? `${short(all[at - 1])} to ${short(edge)}` : `up to ${short(edge)}`));
  const distinct = [...new Set(edges)];
  names.push(`above ${short(distinct[distinct.length - 1] ?? 0)}`, "not known");
  const shades = names.map((_, at) => colour(at === names.length - 1 ? "line" : `${["mean", "change"].includes(key) ? "div" : "seq"}-${at + 5 - names.length + 1}`));
  return { of: values.map((v) => (v === null ? names.length - 1 : distinct.filter((edge) => v > edge).length)), names, shades };
}

function drawCloud(plot, figure, key) {
  const { of, names, shades } = classes(plot, key);
  const members = names.map((_, at) => of.flatMap((own, i) => (own === at ? [i] : [])));
  const used = names.map((_, at) => at).filter((at) => members[at].length);
  const drawn = [...used].sort((a, b) => members[b].length - members[a].length); // the rare on top
  const holder = element("div", {
    class: "canvas", tabindex: "0", role: "application",
    "aria-label": "Map of the records. Arrow keys go to the next record in that direction, Enter opens it. The table of all records has the same figures.",
  });
  const here = element("div", { class: "here", hidden: true });
  const facet = [{ scale: "x", auto: true }, { scale: "y", auto: true }];
  const wide = (u, low, high) => [low - 0.04 * (high - low || 1), high + 0.04 * (high - low || 1)];
  const u = new uPlot(
    {
      ...size(figure, HEIGHT.cloud),
      mode: 2,
      scales: { x: { time: false, range: wide }, y: { range: wide } },
      axes: axes(plot.axes),
      legend: { show: false },
      cursor: { drag: { x: true, y: true, uni: 20 }, points: { show: false }, dataIdx: () => null },
      hooks: { drawAxes: [(u) => plot.equal && equalLine(u)] },
      series: [{}, ...drawn.map((at) => ({ facets: facet, stroke: shades[at], fill: shades[at], paths: dots }))],
    },
    [null, ...drawn.map((at) => [members[at].map((i) => plot.x[i]), members[at].map((i) => plot.y[i])])],
    holder,
  );
  u.over.append(here);
  let current = -1;
  const point = (i) => {
    current = i;
    here.hidden = i < 0;
    if (i < 0) return hideTip();
    const [left, top] = [u.valToPos(plot.x[i], "x"), u.valToPos(plot.y[i], "y")];
    here.style.left = `${left}px`;
    here.style.top = `${top}px`;
    const box = u.over.getBoundingClientRect();
    const place = plot.places[i];
    const col = column(plot.of, key);
    tip(
      box.left + left, box.top + top,
      element("strong", {}, text("id", column(plot.of, "id").values[place])),
      element("div", {}, column(plot.of, "prompt").values[place]),
      element("div", {}, `→ ${column(plot.of, "response").values[place]}`),
      element("div", { class: "count" }, `${col.title}: ${text(col.kind, col.values[place]) || "–"}`),
    );
  };
  const near = (event) => {
    const box = u.over.getBoundingClientRect();
    return nearest(u, plot, event.clientX - box.left, event.clientY - box.top, NEAR);
  };
  let pressed = [0, 0];
  u.over.addEventListener("mousemove", (event) => point(near(event)));
  u.over.addEventListener("mouseleave", () => point(-1));
  u.over.addEventListener("mousedown", (event) => { pressed = [event.clientX, event.clientY]; });
  u.over.addEventListener("click", (event) => {
    const still = Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) < 4; // not the end of a drag
    const i = near(event);
    if (still && i >= 0) open(plot.of, plot.places[i]);
  });
  holder.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === "Enter" && current >= 0) open(plot.of, plot.places[current]);
    else if (event.key === "Escape") point(-1);
    else if (way) point(current < 0 ? nearest(u, plot, u.over.clientWidth / 2, u.over.clientHeight / 2, Infinity) : towards(u, plot, current, way));
    else return;
    event.preventDefault();
  });
  holder.addEventListener("blur", () => point(-1));
  return [holder, legend(used.map((at) => [`${names[at]} (${members[at].length.toLocaleString("en")})`, shades[at]]))];
}

// Where both axes have the same value.
function equalLine(u) {
  const [low, high] = [Math.max(u.scales.x.min, u.scales.y.min), Math.min(u.scales.x.max, u.scales.y.max)];
  if (!(low < high)) return;
  const { ctx } = u;
  ctx.save();
  ctx.strokeStyle = colour("soft");
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([6 * devicePixelRatio, 5 * devicePixelRatio]);
  ctx.beginPath();
  ctx.moveTo(u.valToPos(low, "x", true), u.valToPos(low, "y", true));
  ctx.lineTo(u.valToPos(high, "x", true), u.valToPos(high, "y", true));
  ctx.stroke();
  ctx.restore();
}

function dots(u, number) {
  const [xs, ys] = u.data[number];
  const radius = (xs.length > 1500 ? 2.4 : 3.6) * devicePixelRatio;
  const { ctx, bbox } = u;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.fillStyle = u.series[number].fill();
  ctx.globalAlpha = 0.85;
  ctx.beginPath();
  for (let i = 0; i < xs.length; i++) {
    const [left, top] = [u.valToPos(xs[i], "x", true), u.valToPos(ys[i], "y", true)];
    ctx.moveTo(left + radius, top);
    ctx.arc(left, top, radius, 0, 2 * Math.PI);
  }
  ctx.fill();
  ctx.restore();
  return null;
}

function nearest(u, plot, left, top, within) {
  let best = -1, least = within;
  for (let i = 0; i < plot.places.length; i++) {
    const distance = Math.hypot(u.valToPos(plot.x[i], "x") - left, u.valToPos(plot.y[i], "y") - top);
    if (distance < least) [best, least] = [i, distance];
  }
  return best;
}

// The nearest point that lies more in this direction than beside it; the same one where there is none.
function towards(u, plot, from, [right, down]) {
  const at = (i) => [u.valToPos(plot.x[i], "x"), u.valToPos(plot.y[i], "y")];
  const [left, top] = at(from);
  let best = from, least = Infinity;
  for (let i = 0; i < plot.places.length; i++) {
    const [x, y] = at(i);
    const [along, beside] = [(x - left) * right + (y - top) * down, Math.abs((x - left) * down) + Math.abs((y - top) * right)];
    const distance = Math.hypot(along, beside);
    if (i !== from && along > 0 && along >= beside && distance < least) [best, least] = [i, distance];
  }
  return best;
}

function tip(left, top, ...content) {
  const box = document.getElementById("tip");
  box.replaceChildren(...content);
  box.style.left = box.style.top = "0"; // so that its size is its own, wherever it stood before
  box.hidden = false;
  const { width, height } = box.getBoundingClientRect();
  const below = top + height + 18 <= innerHeight;
  box.style.left = `${scrollX + Math.max(4, Math.min(left + 14, document.documentElement.clientWidth - width - 4))}px`;
  box.style.top = `${scrollY + (below ? top + 14 : Math.max(4, top - height - 12))}px`;
}

function hideTip() {
  document.getElementById("tip").hidden = true;
}
