"use strict";
(function () {
  const root = document.documentElement;
  const problems = document.getElementById("problems");
  function report(text) {
    problems.hidden = false;
    problems.textContent = (problems.textContent ? problems.textContent + " " : "A chart could not be drawn: ") + text;
  }
  window.addEventListener("error", (event) => report(event.message || "script error"));
  window.addEventListener("unhandledrejection", (event) => report(String(event.reason)));
  document.addEventListener("securitypolicyviolation", (event) => report("blocked " + event.violatedDirective));

  const media = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : media.matches);

  // Figures name their colours by CSS properties; put in what these stand for in the theme of the moment.
  function coloured(value, style) {
    if (typeof value === "string") {
      return value.startsWith("var(--") ? style.getPropertyValue(value.slice(4, -1)).trim() : value;
    }
    if (Array.isArray(value)) return value.map((part) => coloured(part, style));
    if (value && typeof value === "object" && !ArrayBuffer.isView(value)) {
      const copy = {};
      for (const key of Object.keys(value)) copy[key] = key === "bdata" ? value[key] : coloured(value[key], style);
      return copy;
    }
    return value;
  }

  const charts = Array.from(document.querySelectorAll(".chart"));
  const sources = new Map();
  const config = {
    responsive: true,
    displaylogo: false,
    // Named one by one: plotly's own choice holds a button that sends the chart to a server.
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
    showSendToCloud: false,
  };
  function draw(chart, paper) {
    if (chart.closest("[hidden]")) return Promise.resolve();
    if (!sources.has(chart)) {
      sources.set(chart, JSON.parse(document.getElementById(chart.dataset.figure).textContent));
    }
    const figure = coloured(sources.get(chart), getComputedStyle(root));
    figure.layout.uirevision = "kept";
    figure.layout.autosize = !paper;
    if (paper) Object.assign(figure.layout, { width: 680, height: Math.min(chart.clientHeight, 620) });
    const narrow = chart.clientWidth < 480;
    if (narrow) {
      figure.layout.dragmode = false;
      // The legend takes more lines there.
      if (figure.layout.legend.yref === "container") figure.layout.margin.t = 68;
    }
    return Plotly.react(chart, figure.data, figure.layout, { ...config, displayModeBar: narrow ? false : "hover" });
  }
  const drawAll = (paper) => Promise.all(charts.map((chart) => draw(chart, paper)));

  function setTheme(dark) {
    root.dataset.theme = dark ? "dark" : "light";
    return drawAll(false);
  }
  document.getElementById("theme").addEventListener("click", () => setTheme(!isDark()));
  media.addEventListener("change", () => { if (!root.dataset.theme) drawAll(false); });

  const timelines = Array.from(document.querySelectorAll(".timeline"));
  const select = document.getElementById("entity");
  function choose(index) {
    timelines.forEach((line, k) => { line.hidden = k !== index; });
    if (select) select.selectedIndex = index;
    const chart = timelines[index].querySelector(".chart");
    return draw(chart, false).then(() => chart);
  }
  if (select) select.addEventListener("change", () => choose(select.selectedIndex));
  document.querySelectorAll(".show").forEach((button) => button.addEventListener("click", () => {
    const index = timelines.findIndex((line) => line.dataset.label === button.dataset.entity);
    choose(index).then((chart) => {
      const range = JSON.parse(button.dataset.range);
      const change = {};
      for (const key of Object.keys(chart.layout)) if (/^xaxis/.test(key)) change[key + ".range"] = range;
      chart.scrollIntoView({ block: "start", behavior: "smooth" });
      return Plotly.relayout(chart, change);
    });
  }));

  // Paper is white: print in the light theme and at the width of the page.
  let before = null;
  window.addEventListener("beforeprint", () => {
    before = root.dataset.theme || "";
    root.dataset.theme = "light";
    charts.forEach((chart) => { chart.style.maxHeight = "620px"; });
    drawAll(true);
  });
  window.addEventListener("afterprint", () => {
    if (before) root.dataset.theme = before; else delete root.dataset.theme;
    charts.forEach((chart) => { chart.style.maxHeight = ""; });
    drawAll(false);
  });

  drawAll(false).then(() => { root.dataset.drawn = "yes"; }, (error) => report(String(error)));
})();
