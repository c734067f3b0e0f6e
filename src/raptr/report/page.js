"use strict";
(() => {
  const page = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const charts = [...document.querySelectorAll(".chart")];
  const views = new Map();
  const hidden = new Set();
  const shown = () => page.methods.filter((_, index) => !hidden.has(index));
  const refuse = () => Promise.reject(new Error("the report loads nothing"));

  async function draw(chart) {
    const axis = document.querySelector("input[name=axis]:checked")?.value;
    const spec = page.charts[chart.dataset.chart.replace("*", axis)];
    const turn = (chart.turn = (chart.turn ?? 0) + 1);
    const embedded = await vegaEmbed(chart, spec, {
      mode: "vega-lite",
      actions: false,
      renderer: chart.dataset.chart.startsWith("path") ? "canvas" : "svg",
      ast: true,
      config: dark.matches ? page.dark : page.light,
      tooltip: { theme: dark.matches ? "dark" : "light" },
      loader: { load: refuse, sanitize: refuse, http: refuse, file: refuse },
    });
    if (turn !== chart.turn) return;
    views.get(chart)?.finalize();
    views.set(chart, embedded);
    select(embedded.view);
  }

  function select(view) {
    if (hidden.size && "shown" in view.getState().signals) view.signal("shown", shown()).runAsync();
  }

  function toggle(index) {
    if (!hidden.delete(index)) hidden.add(index);
    for (const part of document.querySelectorAll(`[data-method="${index}"]`)) {
      if (part.matches("button")) part.setAttribute("aria-pressed", String(!hidden.has(index)));
      else part.hidden = hidden.has(index);
    }
    for (const { view } of views.values())
      if ("shown" in view.getState().signals) view.signal("shown", shown()).runAsync();
    dispatchEvent(new Event("resize"));
  }

  function sort(header) {
    const column = [...header.parentNode.children].indexOf(header);
    const rising = header.getAttribute("aria-sort") !== "ascending";
    const body = header.closest("table").tBodies[0];
    const value = (row) => parseFloat(row.children[column].dataset.value);
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y);
      return rising ? x - y : y - x;
    };
    for (const other of header.parentNode.children) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", rising ? "ascending" : "descending");
    body.append(...[...body.rows].sort(compare));
  }

  const redraw = (some) => Promise.all(some.map(draw));
  for (const chip of document.querySelectorAll(".chip"))
    chip.addEventListener("click", () => toggle(Number(chip.dataset.method)));
  for (const button of document.querySelectorAll("th button"))
    button.addEventListener("click", () => sort(button.parentNode));
  for (const input of document.querySelectorAll("input[name=axis]"))
    input.addEventListener("change", () => redraw(charts.filter((chart) => chart.dataset.chart.includes("*"))));
  dark.addEventListener("change", () => redraw(charts));
  redraw(charts).then(() => document.documentElement.setAttribute("data-drawn", "yes"));
})();
