// One record: what it says, its figures, whom it helps and who helps it.

const opened = [];

async function open(set, place, back = false) {
  const dialog = document.getElementById("record");
  if (!back) opened.push([set, place]);
  const { turns, ends } = await detail(set, place);
  const found = report.sets[set];
  const id = text("id", column(set, "id").values[place]);
  const figures = found.columns
    .filter(({ key, values }) => !["id", "prompt", "response"].includes(key) && values[place] !== null);
  dialog.replaceChildren(
    element(
      "div", { class: "top" },
      element("h2", { id: "record-title", tabindex: "-1" }, id),
      element(
        "div", { class: "tools" },
        element("button", { type: "button", disabled: opened.length < 2, onclick: goBack }, "Back"),
        element("button", { type: "button", onclick: () => dialog.close() }, "Close"),
      ),
    ),
    ...turns.map(([role, said], at) =>
      element("div", { class: at === turns.length - 1 ? "turn last" : "turn" }, element("b", {}, role), element("pre", {}, said))),
    element("h3", {}, "Figures"),
    element(
      "dl", { class: "figures" },
      ...figures.map(({ title, kind, values, about }) =>
        element("div", { title: about || null, class: kind === "text" ? "wide" : "" }, element("dt", {}, title), element("dd", {}, text(kind, values[place])))),
    ),
    ...ends.map(({ other, utility }, at) => pairs(found.ends[at], other, utility)),
  );
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  document.getElementById("record-title").focus();
}

function pairs({ title, with: set }, other, utility) {
  const lines = other
    .map((place, at) => [place, utility[at]])
    .filter(([place]) => place >= 0)
    .map(([place, value]) =>
      element(
        "li", {},
        element("button", { type: "button", onclick: () => open(set, place) }, text("id", column(set, "id").values[place])),
        ` ${text("signed", value)} `,
        element("span", { class: "count" }, column(set, "prompt").values[place]),
      ));
  return element("div", {}, element("h3", {}, title[0].toUpperCase() + title.slice(1)), lines.length ? element("ol", {}, ...lines) : element("p", {}, "nothing measured"));
}

function goBack() {
  opened.pop();
  const [set, place] = opened[opened.length - 1];
  open(set, place, true);
}
