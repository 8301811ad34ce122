"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const PERIOD_MS = 1000, KEEP_S = 600, HORIZON_S = 60;
  const SERIES = ["share", "need", "waiting_by_class", "running", "replicas", "arrivals_rps", "work", "forecast_p50",
    "forecast_p90", "forecast_p99", "ttft_p50_ms", "ttft_p90_ms", "ttft_p99_ms", "tpot_p50_ms", "tpot_p90_ms",
    "tpot_p99_ms", "attainment"];
  const REASONS = {
    earliest_deadline: "it had to start soonest of those that could still be on time",
    promise: "it had waited past its hard promise",
    late: "it was late, and none that could be on time wanted the place",
    lower_band: "its class had its guaranteed part to come",
    arrival_order: "it had come first",
    passed_ahead: "it fitted where the one before it did not",
  };
  const store = { t: [], models: {} };
  let now = null, chosen = null, split = "model", isPaused = false, failures = 0, charts = {}, shape = "";
  let showsAll = false, seenUptime = 0, timer = null, key = sessionStorage.getItem("zeta-key") || "";

  /* --- words and numbers ------------------------------------------------------------------------------------------ */
  const isNumber = (v) => typeof v === "number" && Number.isFinite(v);
  const plain = (v) => (!isNumber(v) ? "–" : v >= 1e6 ? (v / 1e6).toFixed(1) + "M" : v >= 1e4 ? (v / 1e3).toFixed(1) + "k"
    : v >= 100 || Number.isInteger(v) ? v.toFixed(0) : v >= 10 ? v.toFixed(1) : v.toFixed(2));
  const percent = (v) => (!isNumber(v) ? "–" : (v * 100).toFixed(v > 0.99 && v < 1 ? 1 : 0) + " %");
  const ms = (v) => (!isNumber(v) ? "–" : v >= 1e4 ? (v / 1e3).toFixed(0) + " s" : v >= 1e3 ? (v / 1e3).toFixed(1) + " s"
    : v >= 10 || v === 0 ? v.toFixed(0) + " ms" : v.toFixed(1) + " ms");
  const seconds = (s) => (!isNumber(s) ? "–" : s < 10 ? s.toFixed(1) + " s" : s < 120 ? s.toFixed(0) + " s"
    : s < 7200 ? (s / 60).toFixed(0) + " min" : s < 172800 ? (s / 3600).toFixed(1) + " h" : (s / 86400).toFixed(1) + " d");
  const rate = (v) => (isNumber(v) ? plain(v) + "/s" : "–");
  function reading({ value, unit }) {
    if (!isNumber(value)) return "unknown";
    if (unit === "1") return percent(value);
    if (unit === "bytes") return value >= 2 ** 30 ? (value / 2 ** 30).toFixed(1) + " GiB" : (value / 2 ** 20).toFixed(0) + " MiB";
    return plain(value) + (unit === "count" || unit === "bits" ? "" : " " + unit);
  }

  /* --- elements; texts are always text, never markup --------------------------------------------------------------- */
  function make(tag, given = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(given)) {
      if (name === "label") element.dataset.label = value;
      else if (name in element && name !== "list") element[name] = value;
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }
  const cell = (label, ...children) => make("td", { label }, ...children);
  const paint = (name) => { const mark = make("span", { className: "key" }); mark.style.background = zetaCharts.css(name); return mark; };
  const slot = (i) => `--s${i % 8}`;
  const CLASS_SLOTS = ["--s5", "--s0", "--s2", "--s7", "--s3", "--s4", "--s6", "--s1"];
  function rows(id, made, empty, width) {
    const body = $(id).tBodies[0];
    body.replaceChildren(...(made.length ? made : [make("tr", {}, make("td", { className: "empty wrap", colSpan: width, textContent: empty }))]));
  }

  /* --- data --------------------------------------------------------------------------------------------------------- */
  async function fetchState() {
    const since = store.t.length ? store.t[store.t.length - 1] : 0;
    const response = await fetch(`v1/zeta/state?since=${since}`, {
      headers: key ? { Authorization: `Bearer ${key}` } : {}, cache: "no-store", credentials: "omit",
      signal: AbortSignal.timeout(8000),
    });
    if (response.status === 401 || response.status === 403) {
      const said = await response.json().catch(() => null);
      throw Object.assign(new Error(said?.error?.message || "not let in"), { isKey: response.status === 401 });
    }
    if (!response.ok) throw new Error(`it answered ${response.status}`);
    return response.json();
  }

  function keep(document_) {
    const history = document_.history;
    if (document_.uptime_s < seenUptime - 1) { store.t = []; store.models = {}; seenUptime = document_.uptime_s; return false; }
    seenUptime = document_.uptime_s;
    const before = store.t.length;
    store.t.push(...history.time_s);
    for (const [name, columns] of Object.entries(history.models)) {
      const mine = (store.models[name] ??= Object.fromEntries(SERIES.map((s) => [s, new Array(before).fill(null)])));
      for (const s of SERIES) mine[s].push(...columns[s]);
    }
    const extra = store.t.findIndex((t) => t > store.t[store.t.length - 1] - KEEP_S - HORIZON_S);
    if (extra > 0) {
      store.t.splice(0, extra);
      for (const columns of Object.values(store.models)) for (const s of SERIES) columns[s].splice(0, extra);
    }
    now = document_;
    return true;
  }

  async function look() {
    clearTimeout(timer);
    if (isPaused || document.hidden) return;
    try {
      const found = await fetchState();
      failures = 0;
      $("key-form").hidden = true;
      if (!keep(found)) { timer = setTimeout(look, 0); return; }
      draw();
    } catch (error) {
      failures += 1;
      if (error.isKey) { askForKey(); return; }
      say("lost", `No answer: ${error.message || error}. Trying again`);
    }
    timer = setTimeout(look, failures ? Math.min(PERIOD_MS * 2 ** failures, 10000) : PERIOD_MS);
  }

  function askForKey() {
    say("lost", "A key is needed");
    $("key-error").textContent = key ? "That key is not let in." : "";
    $("key-form").hidden = false;
    $("key").focus();
  }
  const say = (state, text) => { $("dot").className = `dot ${state}`; if ($("status-text").textContent !== text) $("status-text").textContent = text; };

  /* --- drawing ------------------------------------------------------------------------------------------------------ */
  function draw() {
    say(now.is_draining ? "" : "live", now.is_draining ? "Draining: no new requests are taken" : isPaused ? "Paused" : "Live");
    const names = now.models.map((model) => model.name);
    if (!names.includes(chosen)) chosen = names[0] ?? null;
    const wanted = JSON.stringify([names, now.classes]);
    if (wanted !== shape) { shape = wanted; pick(names); build(); }
    tiles();
    models();
    plots();
    replicas();
    readings();
    decisions();
    $("about").textContent = `zeta ${now.version}, up for ${seconds(now.uptime_s)}. Allocation loop: ${now.loop.ticks} rounds, `
      + `99 % begin within ${isNumber(now.loop.late_us_p99) ? ms(now.loop.late_us_p99 / 1e3) : "–"} of their time.`;
  }

  function tiles() {
    const total = (f) => now.models.reduce((sum, model) => sum + (f(model) ?? 0), 0);
    const of = now.outcomes;
    const refused = of.rejected_capacity + of.rejected_infeasible + of.rejected_no_replica;
    const failed = of.failed_replica + of.failed_timeout + of.expired_in_queue;
    const ready = now.replicas.filter((r) => r.is_healthy && !r.is_ejected && !r.is_draining).length;
    const wait = now.models.reduce((most, model) => Math.max(most, model.backlog_s ?? 0), 0);
    const all = [
      ["waiting", "Waiting", plain(now.waiting), `${seconds(wait)} of work at most`],
      ["running", "Running", plain(now.running), `on ${ready} of ${now.replicas.length} replicas`],
      ["arrivals", "Arrivals", now.models.some((m) => isNumber(m.arrivals_rps)) ? rate(total((m) => m.arrivals_rps)) : "–", `${plain(now.submitted)} so far`],
      ["attainment", "Attainment", percent(now.attainment), "of the last minute"],
      ["completed", "Completed", plain(of.completed), `${plain(of.cancelled + of.cancelled_running)} cancelled`],
      ["refused", "Refused or failed", plain(refused + failed), `${plain(refused)} refused, ${plain(failed)} failed`],
    ];
    const box = $("tiles");
    if (!box.children.length) {
      box.append(...all.map(([id, title]) => make("div", {}, make("dt", { textContent: title }), make("dd", { id: `tile-${id}` }))));
    }
    for (const [id, , value, more] of all) $(`tile-${id}`).replaceChildren(value, " ", make("small", { textContent: more }));
  }

  function models() {
    rows("models", now.models.map((model, i) => {
      const pair = (of) => (of ? `${ms(of.p50)} / ${ms(of.p99)}` : "–");
      const gauge = make("meter", { min: 0, max: 1, value: model.share ?? 0, ariaLabel: `share of ${model.name}` });
      const classes = model.waiting_by_class.map((count, c) => (count ? `${count} ${now.classes[c]}` : "")).filter(Boolean).join(", ");
      return make("tr", {},
        make("th", { scope: "row" }, paint(slot(i)), model.name),
        cell("Share", gauge, percent(model.share)),
        cell("Need", percent(model.need)),
        cell("Waiting", plain(model.waiting), " ", make("span", { className: "sub", textContent: classes })),
        cell("Running", plain(model.running)),
        cell("Replicas", make("span", { className: model.replicas ? "" : "bad", textContent: plain(model.replicas) })),
        cell("Arrivals", rate(model.arrivals_rps)),
        cell("TTFT p50 / p99", pair(model.ttft_ms)),
        cell("TPOT p50 / p99", pair(model.tpot_ms)),
        cell("Attainment", percent(model.attainment)));
    }), "No models.", 10);
  }

  function replicas() {
    rows("replicas", now.replicas.map((each) => {
      const [word, kind] = each.is_draining ? ["draining", "warn"] : each.is_ejected ? ["left out for its failures", "bad"]
        : each.is_healthy ? ["ready", "good"] : ["down", "bad"];
      const state = cell("State", make("span", { className: kind, textContent: word }));
      if (each.last_error && word !== "ready") state.append(make("div", { className: "sub", textContent: each.last_error }));
      return make("tr", {},
        make("th", { scope: "row" }, each.name, ...(each.url ? [make("div", { className: "sub", textContent: each.url })] : [])),
        cell("Model", each.model), state, cell("In flight", plain(each.in_flight)), cell("Failures", plain(each.failures)),
        cell("Since", seconds(each.since_s)));
    }), "No replicas. Add one to the configuration, or by POST v1/zeta/replicas.", 6);
  }

  function readings() {
    const groups = new Map();
    for (const each of now.readings) {
      const id = `${each.kind} ${each.source}`;
      if (!groups.has(id)) groups.set(id, { ...each, rows: [] });
      groups.get(id).rows.push(each);
    }
    const box = $("readings");
    if (!groups.size) { box.replaceChildren(make("p", { className: "note", textContent: "No probe reads anything here." })); return; }
    const order = { device: 0, host: 1 };
    const sorted = [...groups.values()].filter((each) => each.kind !== "replica").sort((a, b) => order[a.kind] - order[b.kind]);
    engines([...groups.values()].filter((each) => each.kind === "replica"));
    const open = new Set([...box.querySelectorAll("details[open]")].map((each) => each.dataset.id));
    const focused = document.activeElement?.closest?.("details")?.dataset.id;
    box.replaceChildren(...sorted.map((group) => {
      const title = { device: "GPU", host: "Host" }[group.kind];
      const name = group.kind === "host" ? "" : group.label;
      const line = (each) => make("tr", {},
        make("th", { scope: "row", textContent: each.name.replaceAll("_", " ").replace(/ (bytes|w|c|mhz|j|s)$/, "") }),
        make("td", { className: isNumber(each.value) ? "" : "unknown", textContent: reading(each) }),
        make("td", { className: "age", textContent: `${seconds(each.age_s)} ago` }));
      const table = (some) => make("table", {}, make("tbody", {}, ...some.map(line)));
      const card = make("div", { className: "panel" }, make("h3", {}, title, " ", make("span", { textContent: name })), table(group.rows.slice(0, 6)));
      if (group.rows.length > 6) {
        const id = `${group.kind} ${group.source}`;
        card.append(make("details", { open: open.has(id), "data-id": id }, make("summary", { textContent: `${group.rows.length - 6} more` }), table(group.rows.slice(6))));
      }
      return card;
    }));
    if (focused) [...box.querySelectorAll("details")].find((each) => each.dataset.id === focused)?.querySelector("summary").focus();
  }

  /* Engines are many and alike: a row for each. */
  const ENGINE = [["Running", "running"], ["Waiting", "waiting"], ["KV memory in use", "kv_used"], ["Put out for memory", "preemptions_total"], ["Awake", "is_awake"]];
  function engines(groups) {
    $("engines-panel").hidden = !groups.length;
    rows("engines", groups.map((group) => {
      const of = Object.fromEntries(group.rows.map((each) => [each.name, each]));
      const age = Math.min(...group.rows.map((each) => each.age_s));
      const text = (name) => (!of[name] ? "–" : name === "is_awake" && isNumber(of[name].value) ? (of[name].value ? "yes" : "no") : reading(of[name]));
      return make("tr", {}, make("th", { scope: "row", textContent: group.source }),
        ...ENGINE.map(([label, name]) => cell(label, make("span", { className: of[name] && isNumber(of[name].value) ? "" : "unknown", textContent: text(name) }))),
        make("td", { label: "Read", className: "sub", textContent: `${seconds(age)} ago` }));
    }), "", 7);
  }

  function decisions() {
    const most = showsAll ? 50 : 8;
    $("more").hidden = now.decisions.length <= 8;
    $("more").textContent = showsAll ? "Show fewer" : `Show all ${now.decisions.length}`;
    rows("decisions", now.decisions.slice(0, most).map((each) => {
      const scores = Object.entries(each.scores || {}).sort((a, b) => b[1] - a[1]).map(([name, v]) => `${name} ${isNumber(v) ? v.toFixed(2) : v}`).join(", ");
      const because = (REASONS[each.reason] || each.reason || "–") + (each.waited_for?.length > 1 ? `; it was open to ${each.waited_for.join(", ")}` : "")
        + (each.had_affinity ? "; the replica holds its prefix" : "");
      return make("tr", {},
        cell("When", isNumber(each.time_s) ? new Date(each.time_s * 1000).toLocaleTimeString([], { hour12: false }) : "–"),
        cell("Request", make("code", { textContent: each.request_id ?? "–" })),
        cell("Class", now.classes[each.priority] ?? "–"),
        cell("Went to", each.replica ?? each.model ?? "–"),
        cell("Waited", ms(each.queued_ms)),
        make("td", { className: "wrap", label: "Because", textContent: because }),
        make("td", { className: "wrap sub", label: "Scores", textContent: scores || "–" }));
    }), "Nothing has been placed yet.", 7);
  }

  /* --- charts ------------------------------------------------------------------------------------------------------- */
  function pick(names) {
    const box = $("picker");
    for (const label of box.querySelectorAll("label")) label.remove();
    box.append(...names.map((name, i) => make("label", {},
      make("input", { type: "radio", name: "model", value: name, checked: name === chosen, onchange: () => { chosen = name; plots(); } }),
      make("span", {}, paint(slot(i)), name))));
  }

  function build() {
    for (const chart of Object.values(charts)) chart.end();
    const { css, make: chart } = zetaCharts;
    const names = now.models.map((model) => model.name);
    const each = names.map((name, i) => ({ label: name, colour: css(slot(i)), dash: i >= 8 ? [6, 3] : undefined }));
    const stack = split === "model" ? each : now.classes.map((label, c) => ({ label, colour: css(CLASS_SLOTS[c % 8]) }));
    const three = ["p50", "p90", "p99"].map((label, i) => ({ label, colour: css(["--s2", "--s0", "--s5"][i]) }));
    charts = {
      queue: chart($("chart-queue"), "Waiting requests", {
        series: stack.map((s) => ({ ...s, fill: 0.35, width: 1.5 })), fmt: plain, top: 4, integers: true,
        bands: stack.slice(1).map((_, i) => ({ series: [i + 1, i + 2] })),
        said: (u, s, i) => plain((u.data[s][i] ?? 0) - (s < stack.length ? u.data[s + 1][i] ?? 0 : 0)),
      }),
      share: chart($("chart-share"), "Share of the device", { series: each, fmt: percent, top: 0.5, steps: true }),
      forecast: chart($("chart-forecast"), "Work expected and work that came", {
        series: [
          { label: "p99", colour: css("--s4"), width: 0 }, { label: "p90", colour: css("--s4"), width: 1 },
          { label: "p50", colour: css("--s4"), width: 2, dash: [5, 4] }, { label: "came", colour: css("--s1"), width: 2.5 },
        ],
        bands: [{ series: [1, 2], fill: css("--s4") + "33" }, { series: [2, 3], fill: css("--s4") + "59" }],
        fmt: plain, top: 0.1,
      }),
      ttft: chart($("chart-ttft"), "Time to first token", { series: three, fmt: ms, top: 50 }),
      tpot: chart($("chart-tpot"), "Time per output token", { series: three, fmt: ms, top: 20 }),
      attainment: chart($("chart-attainment"), "Attainment", { series: each, fmt: percent, top: 0.94 }),
      arrivals: chart($("chart-arrivals"), "Arrivals", { series: each, fmt: rate, top: 1 }),
      replicas: chart($("chart-replicas"), "Replicas ready", { series: each, fmt: plain, top: 1, steps: true, integers: true }),
    };
  }

  function plots() {
    const t = store.t, names = now.models.map((model) => model.name);
    if (!t.length) return;
    const to = t[t.length - 1], from = to - Number($("range").value);
    const first = Math.max(t.findIndex((x) => x >= from) - 1, 0);
    const x = t.slice(first);
    const column = (name, series) => store.models[name][series].slice(first);
    const all = (series) => [x, ...names.map((name) => column(name, series))];
    const sum = (a) => (a ? a.reduce((total, v) => total + v, 0) : 0);
    const depth = split === "model"
      ? names.map((name) => column(name, "waiting_by_class").map(sum))
      : now.classes.map((_, c) => x.map((_, i) => names.reduce((total, name) => total + (store.models[name].waiting_by_class[first + i]?.[c] ?? 0), 0)));
    for (let k = depth.length - 2; k >= 0; k--) depth[k] = depth[k].map((v, i) => v + depth[k + 1][i]);
    charts.queue.set([x, ...depth], from, to);
    for (const series of ["share", "replicas", "attainment"]) charts[series].set(all(series), from, to);
    charts.arrivals.set(all("arrivals_rps"), from, to);
    for (const series of ["ttft", "tpot"]) charts[series].set([x, ...["p50", "p90", "p99"].map((p) => column(chosen, `${series}_${p}_ms`))], from, to);
    charts.forecast.set(forecast(first, to), from, to + HORIZON_S);
    for (const label of document.querySelectorAll(".of")) label.textContent = chosen;
  }

  /* A forecast made at s is of the mean over (s, s + 60]: it stands at s + 60, beside what came in that minute. */
  function forecast(first, to) {
    const t = store.t, of = store.models[chosen];
    const x = t.slice(first), at = [];
    let j = 0;
    for (const time of x) {
      while (j + 1 < t.length && t[j + 1] + HORIZON_S <= time + 0.5) j += 1;
      at.push(Math.abs(t[j] + HORIZON_S - time) < 1.5 ? j : null);
    }
    const came = of.work.slice(first);
    for (let s = 0; s < t.length; s++) if (t[s] + HORIZON_S > to + 0.5) { x.push(t[s] + HORIZON_S); at.push(s); came.push(null); }
    const series = (p) => at.map((s) => (s === null ? null : of[`forecast_${p}`][s]));
    return [x, series("p99"), series("p90"), series("p50"), came];
  }

  /* --- what people press -------------------------------------------------------------------------------------------- */
  const THEMES = ["auto", "light", "dark"];
  const isDark = matchMedia("(prefers-color-scheme: dark)");
  let theme = THEMES.includes(localStorage.getItem("zeta-theme")) ? localStorage.getItem("zeta-theme") : "auto";
  function dress() {
    document.documentElement.dataset.theme = theme === "auto" ? (isDark.matches ? "dark" : "light") : theme;
    $("theme").textContent = `Theme: ${theme}`;
    if (now) { pick(now.models.map((model) => model.name)); build(); draw(); }
  }
  $("theme").onclick = () => { theme = THEMES[(THEMES.indexOf(theme) + 1) % 3]; localStorage.setItem("zeta-theme", theme); dress(); };
  isDark.onchange = dress;
  $("range").onchange = () => now && plots();
  $("pause").onclick = () => {
    isPaused = !isPaused;
    $("pause").setAttribute("aria-pressed", isPaused);
    $("pause").textContent = isPaused ? "Go on" : "Pause";
    if (isPaused) say("", "Paused"); else look();
  };
  $("more").onclick = () => { showsAll = !showsAll; $("more").setAttribute("aria-expanded", showsAll); if (now) decisions(); };
  for (const by of ["model", "class"]) {
    $(`by-${by}`).onclick = () => {
      split = by;
      for (const other of ["model", "class"]) $(`by-${other}`).setAttribute("aria-pressed", other === by);
      if (now) { build(); plots(); }
    };
  }
  $("key-form").onsubmit = (event) => {
    event.preventDefault();
    key = $("key").value.trim();
    $("key").value = "";
    sessionStorage.setItem("zeta-key", key);
    look();
  };
  document.onvisibilitychange = () => { if (!document.hidden) look(); };
  dress();
  look();
})();
