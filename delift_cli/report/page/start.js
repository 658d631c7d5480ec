// Puts the page together, and draws again when its width or its colours change.

function drawAll() {
  for (const plot of report.plots) {
    const figure = document.getElementById(`plot-${plot.id}`);
    const caption = figure.querySelector("figcaption");
    const chosen = figure.querySelector("select")?.value ?? plot.colours?.[0];
    let drawn;
    if (plot.of) {
      const choose = element(
        "select", { onchange: drawAll },
        ...plot.colours.map((key) => element("option", { value: key, selected: key === chosen }, key === "rank" ? "selection" : column(plot.of, key).title)),
      );
      drawn = [element("div", { class: "tools" }, element("label", {}, "Colour by ", choose)), ...drawCloud(plot, figure, chosen)];
    } else drawn = drawCurve(plot, figure);
    figure.replaceChildren(caption, ...drawn);
  }
}

async function start() {
  report = await unpack("data");
  for (const found of Object.values(report.sets)) found.byKey = new Map(found.columns.map((each) => [each.key, each]));
  for (const table of report.tables) new Listing(table, document.getElementById(`table-${table.id}`));
  drawAll();
  let width = innerWidth, waiting = 0;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(drawAll, 150);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  const dialog = document.getElementById("record");
  dialog.addEventListener("close", () => { opened.length = 0; });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  document.documentElement.dataset.ready = "yes";
}

start().catch((error) => {
  const trouble = document.getElementById("trouble");
  trouble.textContent = `This page could not be put together: ${error.message}. The first rows of each table are below.`;
  trouble.hidden = false;
  throw error;
});
