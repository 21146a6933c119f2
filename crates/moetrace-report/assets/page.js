"use strict";
// Fills heat maps again, reads out marks, marks the section in view. Text goes in as text, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const tip = document.getElementById("tip");
const LEVELS = 33;

// Three significant digits, as text.rs has them.
function digits(v) {
  const s = Math.abs(v);
  if (!Number.isFinite(v)) return "–";
  if (s === 0) return "0";
  if (s >= 999.5) return Math.round(v).toLocaleString("en-US");
  if (s < 0.001) return v.toExponential(1);
  return v.toFixed(s >= 99.95 ? 0 : s >= 9.995 ? 1 : s >= 0.9995 ? 2 : s >= 0.09995 ? 3 : 4);
}

function words(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return Array.from({ length: bytes.length / 2 }, (_, i) => bytes[2 * i] | (bytes[2 * i + 1] << 8));
}

// The code of island.rs: 2048 steps to a doubling of 1 + n.
const decoded = (word) => Math.round(2 ** (word / 2048) - 1);

class HeatMap {
  constructor(name, map) {
    this.name = name;
    this.map = map;
    this.svg = document.getElementById(`chart-${name}`);
    this.cells = this.svg.querySelector(".cells");
    this.cursor = this.cells.querySelector(".cursor");
    this.readout = document.querySelector(`[data-readout="${name}"]`);
    this.controls = document.querySelector(`[data-controls="${name}"]`);
    this.choice = { layer: 0, measure: 0, order: 1 };
    this.at = null;
    this.unpacked = [];
    this.listen();
  }

  layer() {
    return this.unpack(this.choice.layer);
  }

  unpack(at) {
    const l = this.map.layers[at];
    this.unpacked[at] ??= { ...l, counts: words(l.counts), order: l.order ? words(l.order) : null };
    return this.unpacked[at];
  }

  // What stands at a row or column.
  index(layer, i) {
    return layer.order && this.choice.order ? layer.order[i] : i;
  }

  count(layer, r, c) {
    if (!this.map.symmetric) return decoded(layer.counts[r * this.map.columns + c]);
    if (r === c) return null;
    const [i, j] = r < c ? [r, c] : [c, r];
    return decoded(layer.counts[this.map.rows * i - (i * (i + 1)) / 2 + j - i - 1]);
  }

  value(layer, measure, r, c) {
    const n = this.count(layer, r, c);
    const [a, b] = [layer.a[r], layer.b[c]];
    if (n === null) return null;
    const [top, below] = {
      lift: [n * layer.t, a * b],
      share: [n * this.map.per, a],
      jaccard: [n, a + b - n],
    }[measure];
    // As heat.rs has it: no ratio where fewer than five are to be expected.
    if (measure === "lift" && a * b < 5 * layer.t) return null;
    return below > 0 ? top / below : null;
  }

  level(measure, v) {
    const at = measure.ramp === "d" ? (Math.log2(v) / measure.limit + 1) / 2 : v / measure.limit;
    return Math.round(Math.min(1, Math.max(0, at)) * (LEVELS - 1));
  }

  fill() {
    const [layer, measure] = [this.layer(), this.map.measures[this.choice.measure]];
    const paths = Array.from({ length: LEVELS }, () => []);
    for (let i = 0; i < this.map.rows; i++)
      for (let j = 0; j < this.map.columns; j++) {
        const v = this.value(layer, measure.measure, this.index(layer, i), this.index(layer, j));
        if (v !== null) paths[this.level(measure, v)].push(`M${j} ${i}h1v1h-1z`);
      }
    this.cells.querySelectorAll("path").forEach((path, level) => path.setAttribute("d", paths[level].join("")));
    this.svg.querySelectorAll("[data-level]").forEach((mark) =>
      mark.setAttribute("class", measure.ramp + mark.dataset.level));
    this.svg.querySelector("[data-legend]").textContent = measure.legend;
    this.keys(measure);
    this.svg.querySelectorAll("[data-row]").forEach((text) => {
      if (this.map.symmetric || layer.order) text.textContent = this.map.row_names[this.index(layer, +text.dataset.row)];
    });
    this.svg.querySelectorAll("[data-column]").forEach((text) => {
      text.textContent = this.map.column_names[this.index(layer, +text.dataset.column)];
    });
    this.steps();
  }

  // Labels below the colours: as many as the measure has.
  keys(measure) {
    const old = [...this.svg.querySelectorAll("[data-key]")];
    const box = this.svg.querySelector(".legend [data-level]");
    const [left, width] = [+box.getAttribute("x"), +box.getAttribute("width") * LEVELS];
    measure.keys.forEach(([at, label], i) => {
      const text = old[i] || old[0].parentNode.appendChild(old[0].cloneNode());
      text.textContent = label;
      text.setAttribute("x", left + width * at);
    });
    old.slice(measure.keys.length).forEach((text) => text.remove());
  }

  steps() {
    if (!this.controls) return;
    this.controls.querySelectorAll("[data-step]").forEach((button) => {
      button.disabled = !this.map.layers[this.choice.layer + Number(button.dataset.step)];
    });
  }

  listen() {
    if (this.controls) {
      this.controls.querySelectorAll("select").forEach((select) => {
        select.value = String(this.choice[select.dataset.choice]);
        select.addEventListener("change", () => this.choose(select.dataset.choice, Number(select.value)));
      });
      this.controls.querySelectorAll("[data-step]").forEach((button) =>
        button.addEventListener("click", () => {
          const to = this.choice.layer + Number(button.dataset.step);
          this.controls.querySelector('[data-choice="layer"]').value = String(to);
          this.choose("layer", to);
        }));
      this.steps();
    }
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.leave());
    this.svg.addEventListener("keydown", (event) => this.key(event));
    this.svg.addEventListener("blur", () => this.leave());
  }

  choose(what, value) {
    this.choice[what] = value;
    this.fill();
    if (this.at) this.read(...this.at);
  }

  point(event) {
    if (rests(event)) return;
    const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(this.cells.getScreenCTM().inverse());
    const [r, c] = [Math.floor(place.y), Math.floor(place.x)];
    if (r < 0 || c < 0 || r >= this.map.rows || c >= this.map.columns) return this.leave();
    this.read(r, c);
    show(this.text(r, c), event.clientX, event.clientY);
  }

  key(event) {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    const [r, c] = this.at || [0, 0];
    let to = null;
    if (step) to = this.at ? [r + step[0], c + step[1]] : [0, 0];
    if (event.key === "Home") to = [r, 0];
    if (event.key === "End") to = [r, this.map.columns - 1];
    if (event.key === "Escape") return this.leave();
    if (!to) return;
    event.preventDefault();
    const within = (v, most) => Math.min(most - 1, Math.max(0, v));
    this.read(within(to[0], this.map.rows), within(to[1], this.map.columns));
    const box = this.cursor.getBoundingClientRect();
    show(this.text(...this.at), box.right, box.bottom);
  }

  text(i, j) {
    const layer = this.layer();
    const [r, c] = [this.index(layer, i), this.index(layer, j)];
    const where = this.map.layers.length > 1 ? `layer ${layer.name}, ` : "";
    const lines = [`${where}${this.map.row} ${this.map.row_names[r]}, ${this.map.column} ${this.map.column_names[c]}`];
    const n = this.count(layer, r, c);
    if (n === null) return `${lines[0]}\nthe same`;
    for (const m of this.map.measures) {
      const v = this.value(layer, m.measure, r, c);
      lines.push(`${m.title}: ${v === null ? "too few to tell" : digits(v)}`);
    }
    lines.push(`${this.map.counted}: ${n.toLocaleString("en-US")}`);
    return lines.join("\n");
  }

  read(r, c) {
    this.at = [r, c];
    this.cursor.setAttribute("x", c);
    this.cursor.setAttribute("y", r);
    this.cursor.setAttribute("visibility", "visible");
    this.readout.textContent = this.text(r, c).replaceAll("\n", " · ");
  }

  leave() {
    tip.hidden = true;
    this.cursor.setAttribute("visibility", "hidden");
    this.readout.textContent = "";
    this.at = null;
  }
}

// Browsers repeat the last move when something scrolls under a pointer at rest; that is nobody pointing.
const last = {};
function rests(event) {
  const same = event.clientX === last.x && event.clientY === last.y;
  [last.x, last.y] = [event.clientX, event.clientY];
  return same;
}

// The tip beside a place, kept in the window.
function show(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - box.width - 8))}px`;
  tip.style.top = `${y + 16 + box.height > innerHeight ? y - box.height - 10 : y + 16}px`;
}

// Charts of lines and bars: a band for each point, with its words.
function bands(svg) {
  const all = [...svg.querySelectorAll(".hit")];
  const readout = document.querySelector(`[data-readout="${svg.dataset.chart}"]`);
  let now = -1;
  const to = (i, x, y) => {
    all[now]?.classList.remove("now");
    now = i;
    if (i < 0) {
      tip.hidden = true;
      readout.textContent = "";
      return;
    }
    all[i].classList.add("now");
    const box = all[i].getBoundingClientRect();
    readout.textContent = all[i].dataset.t.replaceAll("\n", " · ");
    show(all[i].dataset.t, x ?? box.right, y ?? box.top + 40);
  };
  svg.addEventListener("pointermove", (event) => {
    if (!rests(event)) to(all.indexOf(event.target), event.clientX, event.clientY);
  });
  svg.addEventListener("pointerleave", () => to(-1));
  svg.addEventListener("blur", () => to(-1));
  svg.addEventListener("keydown", (event) => {
    const last = all.length - 1;
    const next = { ArrowRight: Math.min(last, now + 1), ArrowLeft: Math.max(0, now - 1), Home: 0, End: last, Escape: -1 };
    if (!(event.key in next)) return;
    event.preventDefault();
    to(next[event.key]);
  });
}

const maps = Object.entries(data.maps).map(([name, map]) => new HeatMap(name, map));
document.querySelectorAll(".figure").forEach((svg) => {
  if (!(svg.dataset.chart in data.maps)) bands(svg);
});

const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.hash.slice(1), a]));
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries)
    if (entry.isIntersecting) {
      links.forEach((a) => a.removeAttribute("aria-current"));
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
}, { rootMargin: "0px 0px -70% 0px" });
document.querySelectorAll("section").forEach((section) => seen.observe(section));

// An element with text in it, and others.
function make(tag, text, ...inside) {
  const element = document.createElement(tag);
  if (text !== null) element.textContent = text;
  element.append(...inside);
  return element;
}

// One expert's card at a time.
class Cards {
  constructor(cards) {
    this.cards = cards;
    this.choice = { layer: 0, expert: 0 };
    this.most = { layer: cards.layers.length, expert: cards.experts };
    document.querySelectorAll("select[data-card]").forEach((select) => {
      select.value = "0";
      select.addEventListener("change", () => this.choose(select.dataset.card, Number(select.value)));
    });
    document.querySelectorAll("button[data-card]").forEach((button) =>
      button.addEventListener("click", () =>
        this.choose(button.dataset.card, this.choice[button.dataset.card] + Number(button.dataset.step))));
    this.show();
  }

  choose(what, value) {
    this.choice[what] = Math.min(this.most[what] - 1, Math.max(0, value));
    document.querySelector(`select[data-card="${what}"]`).value = String(this.choice[what]);
    this.show();
  }

  show() {
    const { layer, expert } = this.choice;
    const card = this.cards.cards[layer][expert];
    const parts = [make("h3", `Layer ${this.cards.layers[layer]}, expert ${expert}`)];
    parts.push(...this.load(layer, expert));
    if (card && card.tokens.length) parts.push(make("h4", "Tokens"), this.tokens(card.tokens));
    if (card && card.contexts.length) parts.push(make("h4", "Contexts"), ...card.contexts.map((c) => this.context(c)));
    if (!card || !(card.tokens.length || card.contexts.length)) parts.push(make("p", "No token was recorded for it."));
    document.getElementById("card").replaceChildren(...parts);
  }

  // Load and data sets, from the heat maps' counts.
  load(layer, expert) {
    const number = String(this.cards.layers[layer]);
    const load = maps.find((m) => m.name === "load");
    const row = load.map.row_names.indexOf(number);
    const of = (map, l, measure, r, c) => map.value(l, measure, r, c);
    const n = load.count(load.layer(), row, expert);
    const share = of(load, load.layer(), "lift", row, expert);
    const parts = [make("p", `${n.toLocaleString("en-US")} tokens, ${share === null ? "–" : digits(share)} times an even share`)];
    const sets = maps.find((m) => m.name === "datasets");
    const at = sets ? sets.map.layers.findIndex((l) => l.name === number) : -1;
    if (at < 0) return parts;
    const of_layer = sets.unpack(at);
    const list = make("ul", null);
    list.className = "sets";
    sets.map.row_names.forEach((name, r) => {
      const [lift, part] = ["lift", "share"].map((m) => of(sets, of_layer, m, r, expert));
      const said = lift === null ? "too few to tell" : `${digits(lift)} times all data sets`;
      list.append(make("li", `${name}: ${digits(100 * (part ?? 0))} % of its tokens, ${said}`));
    });
    return [...parts, make("h4", "Data sets"), list];
  }

  tokens(tokens) {
    const list = make("ul", null);
    list.className = "words";
    // A token that begins a word begins with a space, which alone could not be seen.
    const shown = (token) => this.cards.strings[token].replace(/^ +| +$/g, (spaces) => "␣".repeat(spaces.length));
    tokens.forEach(([token, statistic]) =>
      list.append(make("li", null, make("code", shown(token)), ` ${digits(statistic)}`)));
    return list;
  }

  context([dataset, sample, position, at, weight, tokens]) {
    const line = make("p", null);
    line.className = "context";
    const strings = tokens.map((token) => this.cards.strings[token]);
    for (let i = 0, end; i < strings.length; i = end) {
      const character = joined(strings, i);
      end = i + (character ? character.tokens : 1);
      line.append(make(at >= i && at < end ? "mark" : "span", character ? character.text : strings[i]));
    }
    const weighs = weight === null ? "" : `, weight ${weight}`;
    line.append(make("small", `${this.cards.datasets[dataset]}, text ${sample}, position ${position}${weighs}`));
    return line;
  }
}

// The text of tokens that are parts of characters, [E5] [AE B6], if together they are whole ones.
function joined(strings, from) {
  const bytes = [];
  const decoder = new TextDecoder("utf-8", { fatal: true });
  for (let i = from; i < strings.length && /^\[[0-9A-F]{2}( [0-9A-F]{2})*\]$/.test(strings[i]); i++) {
    bytes.push(...strings[i].slice(1, -1).split(" ").map((digits) => parseInt(digits, 16)));
    if (bytes[0] < 0x80) return null;
    try {
      return { text: decoder.decode(Uint8Array.from(bytes)), tokens: i + 1 - from };
    } catch {
      // Not whole yet.
    }
  }
  return null;
}

if (data.cards) {
  const cards = new Cards(data.cards);
  const load = maps.find((m) => m.name === "load");
  load.svg.addEventListener("click", () => {
    if (!load.at) return;
    cards.choose("layer", data.cards.layers.indexOf(Number(load.map.row_names[load.at[0]])));
    cards.choose("expert", load.at[1]);
    document.getElementById("experts").scrollIntoView();
  });
}
