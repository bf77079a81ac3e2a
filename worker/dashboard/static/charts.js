// Charts as SVG, drawn from numbers alone. Every text goes into a text node.
const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 400, HEIGHT = 120, LEFT = 34, BOTTOM = 16, TOP = 6;

function element(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** The next number of the form 1, 2 or 5 times a power of ten. */
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 5, 10].map((step) => step * power).find((top) => top >= value);
}

function frame(label, top, show, minutes) {
  const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label });
  for (const share of [0, 0.5, 1]) {
    const y = HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP);
    svg.append(element("line", { class: "grid", x1: LEFT, x2: WIDTH, y1: y, y2: y }));
    svg.append(element("text", { x: LEFT - 5, y: y + 3, "text-anchor": "end" }, show(share * top)));
  }
  for (const at of [0, Math.floor(minutes.length / 2), minutes.length - 1]) {
    if (!minutes[at]) continue;
    const clock = new Date(minutes[at].at_ms).toISOString().slice(11, 16);
    const anchor = at === 0 ? "start" : at === minutes.length - 1 ? "end" : "middle";
    svg.append(element("text", { x: place(at, minutes.length), y: HEIGHT - 3, "text-anchor": anchor }, clock));
  }
  return svg;
}

const place = (at, count) => LEFT + ((at + 0.5) / count) * (WIDTH - LEFT);
const scale = (value, top) => (value / top) * (HEIGHT - BOTTOM - TOP);

/** Stacked bars, one a minute; `parts` are [field, class] from the bottom up. */
export function bars(minutes, parts, label) {
  const sums = minutes.map((minute) => parts.reduce((sum, [field]) => sum + minute[field], 0));
  const top = ceiling(Math.max(...sums, 1));
  const svg = frame(label(sums), top, (value) => compact(value), minutes);
  const width = Math.max(1, (WIDTH - LEFT) / minutes.length - 1.5);
  minutes.forEach((minute, at) => {
    let floor = HEIGHT - BOTTOM;
    for (const [field, kind] of parts) {
      const height = scale(minute[field], top);
      if (height > 0) {
        floor -= height;
        svg.append(element("rect", { class: kind, x: place(at, minutes.length) - width / 2, y: floor, width, height }));
      }
    }
  });
  return svg;
}

/** Lines over the minutes that have a value. */
export function lines(minutes, parts, label, show) {
  const values = minutes.flatMap((minute) => parts.map(([field]) => minute[field] ?? 0));
  const top = ceiling(Math.max(...values, 1));
  const svg = frame(label(), top, show, minutes);
  for (const [field, kind] of parts) {
    let path = "", open = false;
    minutes.forEach((minute, at) => {
      if (minute[field] === null) { open = false; return; }
      path += `${open ? "L" : "M"}${place(at, minutes.length).toFixed(1)} ${(HEIGHT - BOTTOM - scale(minute[field], top)).toFixed(1)}`;
      if (!open) path += "h0.01";
      open = true;
    });
    if (path) svg.append(element("path", { class: kind, d: path, "stroke-linecap": "round" }));
  }
  return svg;
}

/** An hour of one lane in a table's cell. */
export function spark(values) {
  const top = Math.max(...values, 1);
  const svg = element("svg", { viewBox: "0 0 110 20", "aria-hidden": "true", preserveAspectRatio: "none" });
  values.forEach((value, at) => {
    const height = (value / top) * 18;
    if (height) svg.append(element("rect", { class: "mid", x: (at / values.length) * 110, y: 19 - height, width: 1.4, height }));
  });
  return svg;
}

export function compact(value) {
  return new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 }).format(value);
}
