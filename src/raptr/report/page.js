"use strict";
(() => {
  const page = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const charts = [...document.querySelectorAll(".chart")];
  const views = new Map();
  const hidden = new Set();
  const refuse = () => Promise.reject(new Error("the report loads nothing"));

  // "3/loss-*" is a chart of section 3; the star is what its switches say.
  const sectionOf = (chart) => parseInt(chart.dataset.chart, 10);
  const chosen = (switch_, section) => document.querySelector(`input[name=${switch_}-${section}]:checked`)?.value;
  // The only method of a section stays: there is no button for it there.
  const off = (methods, key) => methods.length > 1 && hidden.has(key);
  const shown = (section) =>
    page.sections[section].filter(([key], _, all) => !off(all, key)).map(([, name]) => name);

  async function draw(chart) {
    const section = sectionOf(chart);
    const star = `${chosen("axis", section)}-${chosen("source", section) ?? 0}`;
    const spec = page.charts[chart.dataset.chart.replace("*", star)];
    const datasets = Object.fromEntries(spec.datasets.map((name) => [name, structuredClone(page.data[name])]));
    const turn = (chart.turn = (chart.turn ?? 0) + 1);
    const embedded = await vegaEmbed(chart, { ...spec, datasets }, {
      mode: "vega-lite",
      actions: false,
      renderer: chart.dataset.chart.includes("/path") ? "canvas" : "svg",
      ast: true,
      config: dark.matches ? page.dark : page.light,
      tooltip: { theme: dark.matches ? "dark" : "light" },
      loader: { load: refuse, sanitize: refuse, http: refuse, file: refuse },
    });
    if (turn !== chart.turn) return;
    views.get(chart)?.finalize();
    views.set(chart, embedded);
    if (hidden.size) select(chart, embedded.view);
  }

  function select(chart, view) {
    // Only errors from here on: a layer whose methods are all switched off has no extent, and that is no problem.
    if ("shown" in view.getState().signals) view.logLevel(1).signal("shown", shown(sectionOf(chart))).runAsync();
  }

  function apply() {
    for (const part of document.querySelectorAll("[data-method]")) {
      const off = hidden.has(part.dataset.method);
      if (part.matches("button")) part.setAttribute("aria-pressed", String(!off));
      else part.hidden = off;
    }
    for (const [chart, { view }] of views) select(chart, view);
    dispatchEvent(new Event("resize"));
  }

  function toggle(method) {
    if (!hidden.delete(method)) hidden.add(method);
    apply();
  }

  function every(on) {
    hidden.clear();
    if (!on) for (const [key] of page.sections.flat()) hidden.add(key);
    apply();
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

  // What is folded away has no width: it is drawn when it is opened.
  const redraw = (some) => Promise.all(some.filter((chart) => !chart.closest("details:not([open])")).map(draw));
  for (const folded of document.querySelectorAll("details:has(.chart)"))
    folded.addEventListener("toggle", () => folded.open && redraw([...folded.querySelectorAll(".chart")]));
  for (const button of document.querySelectorAll(".every"))
    button.addEventListener("click", () => every(button.dataset.every === "on"));
  for (const chip of document.querySelectorAll(".chip"))
    chip.addEventListener("click", () => toggle(chip.dataset.method));
  for (const button of document.querySelectorAll("th button"))
    button.addEventListener("click", () => sort(button.parentNode));
  for (const input of document.querySelectorAll(".switch input"))
    input.addEventListener("change", () => {
      const section = parseInt(input.name.split("-").pop(), 10);
      redraw(charts.filter((chart) => chart.dataset.chart.includes("*") && sectionOf(chart) === section));
    });
  dark.addEventListener("change", () => redraw(charts));
  redraw(charts).then(() => document.documentElement.setAttribute("data-drawn", "yes"));
})();
