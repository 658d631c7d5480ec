// Tables that sort, filter, turn pages and export: the rows of one table, or the records that it lists.

const PAGE = 25;

class Listing {
  constructor(table, article) {
    this.table = table;
    this.article = article;
    this.own = new Set(table.columns.map(({ key }) => key));
    const known = (keys) => (table.of ? keys.map((key) => column(table.of, key)).filter(Boolean) : []);
    this.columns = [...known(table.keys), ...table.columns, ...known(table.after)];
    const count = Array.isArray(table.rows) ? table.rows.length : table.rows ?? (table.columns[0]?.values.length || 0);
    this.places = Array.isArray(table.rows) ? table.rows : Array.from({ length: count }, (_, i) => i);
    this.shown = this.places.map((_, row) => row);
    this.sorted = null;
    this.page = 0;
    if (count) this.build();
  }

  value(col, row) {
    return col.values[this.own.has(col.key) ? row : this.places[row]];
  }

  build() {
    const title = this.article.querySelector("h3").textContent;
    this.body = this.article.querySelector("tbody");
    this.filter = element("input", { type: "search", placeholder: this.example(), oninput: () => this.apply() });
    this.said = element("span", { class: "count", role: "status" });
    this.before = element("button", { type: "button", onclick: () => this.turn(-1), "aria-label": `Previous page of ${title}` }, "‹");
    this.after = element("button", { type: "button", onclick: () => this.turn(1), "aria-label": `Next page of ${title}` }, "›");
    const exporting = this.table.of
      ? [element("button", { type: "button", class: "export-ids", onclick: () => this.exportIds() }, "Export ids")]
      : [];
    const tools = element(
      "div", { class: "tools" },
      this.places.length > 5 ? element("label", {}, "Filter", this.filter) : null,
      ...exporting,
      element("button", { type: "button", class: "export-csv", onclick: () => this.exportTable() }, "Export CSV"),
      this.said,
      this.places.length > PAGE ? this.before : null,
      this.places.length > PAGE ? this.after : null,
    );
    this.article.querySelector(".scroll").before(tools);
    this.article.querySelector(".more")?.remove();
    this.article.querySelectorAll("thead th").forEach((head, at) => {
      const col = this.columns[at];
      head.replaceChildren(element("button", { type: "button", onclick: () => this.sort(col, head) }, col.title));
    });
    this.draw();
  }

  // What can be typed into the filter, with a figure that this table has.
  example() {
    const col = this.columns.find(({ kind, values }) => !["id", "text"].includes(kind) && values.some((v) => v !== null));
    if (!col) return "word";
    const values = this.places.map((_, row) => this.value(col, row)).filter((v) => v !== null).sort((a, b) => a - b);
    return values.length ? `word, or ${col.title} < ${Number(values[values.length >> 1].toPrecision(2))}` : "word";
  }

  sort(col, head) {
    const numbers = !["id", "text"].includes(col.kind);
    const down = this.sorted?.col === col ? !this.sorted.down : numbers;
    this.sorted = { col, down };
    for (const each of this.article.querySelectorAll("th")) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    this.apply();
  }

  // Words are looked for in every text; `title < 0.1` (also >, <=, >=, =) compares a column, named by key or title.
  matcher(wanted) {
    const compared = wanted.match(/^(.+?)\s*(<=|>=|<|>|=)\s*([-+]?[\d.]+%?)$/);
    if (compared) {
      const name = compared[1].trim().toLowerCase();
      const col = this.columns.find(({ key, title }) => [key, title.toLowerCase()].includes(name));
      const limit = parseFloat(compared[3]) / (compared[3].endsWith("%") ? 100 : 1);
      if (col) {
        const holds = { "<": (v) => v < limit, ">": (v) => v > limit, "<=": (v) => v <= limit, ">=": (v) => v >= limit, "=": (v) => v === limit }[compared[2]];
        return (row) => { const v = this.value(col, row); return v !== null && holds(v); };
      }
    }
    const words = wanted.toLowerCase().split(/\s+/).filter(Boolean);
    const texts = this.columns.filter(({ kind }) => ["id", "text"].includes(kind));
    return (row) => {
      const all = texts.map((col) => this.value(col, row) ?? "").join("\n").toLowerCase();
      return words.every((word) => all.includes(word));
    };
  }

  apply() {
    const wanted = this.filter.value.trim();
    const every = this.places.map((_, row) => row);
    this.shown = wanted ? every.filter(this.matcher(wanted)) : every;
    if (this.sorted) {
      const { col, down } = this.sorted;
      const missing = (v) => v === null || v === undefined;
      this.shown.sort((a, b) => {
        const [x, y] = [this.value(col, a), this.value(col, b)];
        if (missing(x) || missing(y)) return missing(x) - missing(y) || a - b; // what is not known comes last
        const order = typeof x === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
        return (down ? -order : order) || a - b;
      });
    }
    this.page = 0;
    this.draw();
  }

  turn(by) {
    this.page += by;
    this.draw();
  }

  draw() {
    const first = this.page * PAGE;
    const rows = this.shown.slice(first, first + PAGE);
    this.body.replaceChildren(...rows.map((row) => element("tr", {}, ...this.columns.map((col) => this.cell(col, row)))));
    const all = this.places.length === this.shown.length ? "" : ` of ${this.places.length.toLocaleString("en")}`;
    const range = rows.length ? `${(first + 1).toLocaleString("en")}–${(first + rows.length).toLocaleString("en")} of ` : "";
    this.said.textContent = `${range}${this.shown.length.toLocaleString("en")}${all && ` (filtered${all})`}`;
    this.before.disabled = this.page === 0;
    this.after.disabled = first + PAGE >= this.shown.length;
  }

  cell(col, row) {
    const value = this.value(col, row);
    const said = text(col.kind, value);
    if (col.kind === "id") {
      return element("td", { class: "id", title: said }, element("button", { type: "button", onclick: () => open(this.table.of, this.places[row]) }, said));
    }
    if (col.kind === "bar") {
      const fill = element("div", { class: "bar-fill" });
      fill.style.width = `${Math.min(100, 100 * (value ?? 0))}%`;
      return element("td", { class: "bar" }, element("div", { class: "bar-cell" }, element("div", { class: "bar-track", "aria-hidden": "true" }, fill), said));
    }
    const said_of = ["prompt", "response"].includes(col.key);
    const attributes = { class: (said_of ? "text said" : col.kind) + (col.kind === "signed" && value < 0 ? " negative" : "") };
    if (col.kind === "text" && said.length > 16) attributes.title = said;
    return element("td", attributes, said);
  }

  exportIds() {
    const ids = column(this.table.of, "id").values;
    save(`${this.table.id}-ids.txt`, this.shown.map((row) => ids[this.places[row]] + "\n").join(""));
  }

  exportTable() {
    // a cell that a spreadsheet would take for a formula begins with a quote there
    const quoted = (cell) => `"${(typeof cell === "string" && /^[=+\-@\t\r]/.test(cell) ? "'" + cell : String(cell)).replaceAll('"', '""')}"`;
    const plain = (v) => (v === null || v === undefined ? "" : typeof v === "number" ? String(v) : quoted(v));
    const lines = [this.columns.map(({ title }) => quoted(title)), ...this.shown.map((row) => this.columns.map((col) => plain(this.value(col, row))))];
    save(`${this.table.id}.csv`, lines.map((cells) => cells.join(",") + "\n").join(""));
  }
}

function save(name, content) {
  const link = element("a", { href: URL.createObjectURL(new Blob([content], { type: "text/plain;charset=utf-8" })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
