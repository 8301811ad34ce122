"use strict";
/* One chart: uPlot with the page's colours, a legend that reads the cursor, and the arrow keys for the cursor. */
const zetaCharts = (() => {
  const HEIGHT = 190;
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const faded = (colour, part) => colour + Math.round(part * 255).toString(16).padStart(2, "0");
  const clock = (t) => new Date(t * 1000).toLocaleTimeString([], { hour12: false });

  /* series: [{label, colour, dash, width, fill, show}], fmt(value) -> text, bands: uPlot's, top: least height of y.
     said(u, s, i): what the legend says of point i of series s, where that is not its height. */
  function make(figure, name, { series, fmt, bands, top, steps, said, integers }) {
    const box = document.createElement("div");
    box.className = "plot";
    box.tabIndex = 0;
    box.setAttribute("role", "img");
    figure.append(box);
    const text = said || ((u, s, i) => fmt(u.data[s][i]));
    const size = () => ({ width: Math.max(figure.clientWidth - 26, 200), height: HEIGHT });
    const axis = { stroke: css("--soft"), grid: { stroke: css("--grid"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const u = new uPlot({
      ...size(),
      ms: 1e-3,
      tzDate: (t) => new Date(t * 1000),
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
      legend: { live: true, markers: { width: 0, fill: (self, i) => self.series[i].zetaColour } },
      scales: { x: { time: true }, y: { range: (self, low, high) => [0, Math.max(high || 0, top) * 1.08] } },
      axes: [
        { ...axis, space: 56, size: 30, values: (self, ticks, i, room, step) => ticks.map((t) => clock(t).slice(0, step % 60 ? 8 : 5)) },
        { ...axis, size: 62, space: 34, values: (self, ticks) => ticks.map((v) => (integers && v % 1 ? "" : fmt(v))) },
      ],
      series: [
        { label: "At", value: (self, t) => (t == null ? "now" : clock(t)) },
        ...series.map((each) => ({
          label: each.label,
          stroke: each.width === 0 ? "transparent" : each.colour,
          zetaColour: each.colour,
          width: each.width ?? 2,
          dash: each.dash,
          fill: each.fill ? faded(each.colour, each.fill) : undefined,
          points: { show: false },
          paths: steps ? uPlot.paths.stepped({ align: 1 }) : undefined,
          value: (self, v, s, i) => {
            const at = i ?? last(self, s);
            return at == null || self.data[s][at] == null ? "–" : text(self, s, at);
          },
        })),
      ],
      bands,
    }, [[], ...series.map(() => [])], box);

    function last(self, s) {
      const column = self.data[s];
      for (let i = column.length - 1; i >= 0; i--) if (column[i] != null) return i;
      return null;
    }
    box.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, Home: -1e9, End: 1e9 }[event.key];
      if (event.key === "Escape") { u.setCursor({ left: -10, top: -10 }); return; }
      if (!step || !u.data[0].length) return;
      event.preventDefault();
      const from = u.cursor.idx ?? u.data[0].length - 1;
      const low = u.valToIdx(u.scales.x.min), high = u.data[0].length - 1;
      const at = Math.min(Math.max(from + step, low), high);
      u.setCursor({ left: u.valToPos(u.data[0][at], "x"), top: 20 });
    });
    const watch = new ResizeObserver(() => { const to = size(); if (Math.abs(to.width - u.width) > 1) u.setSize(to); });
    watch.observe(figure);
    return {
      set(data, from, to) {
        u.batch(() => { u.setData(data, false); u.setScale("x", { min: from, max: to }); });
        const now = series.map((each, k) => {
          const at = last(u, k + 1);
          return `${each.label} ${at == null ? "unknown" : text(u, k + 1, at)}`;
        });
        box.setAttribute("aria-label", `${name}: ${now.join(", ")}`);
        box.dataset.points = data[0].length;
      },
      end() { watch.disconnect(); u.destroy(); box.remove(); },
    };
  }
  return { make, css };
})();
