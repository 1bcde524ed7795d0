"use strict";
// Draws the charts of the page from the data in it. Colors come from the style sheet, so they follow its theme.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const LABELS = { running: "running", throttled: "throttled", held: "held", out: "exited", stopped: "stopped" };
  const FONT = getComputedStyle(document.body).fontFamily; // the charts measure their labels with it
  const DASHES = ["solid", "dashed", "dotted"];
  const escape = (text) => echarts.format.encodeHTML(String(text));
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const number = (value) => (value == null ? "unknown" : Number(value.toPrecision(4)).toLocaleString("en-US"));
  const utc = (ms) => new Date(ms).toISOString().slice(0, 16).replace("T", " ");
  const palette = () => ["running", "other", "held", "stopped", "throttled", "faint"].map(color);

  function common() {
    const ink = color("ink"), line = color("line"), panel = color("panel");
    const axis = {
      axisLine: { lineStyle: { color: line } }, axisTick: { show: false }, axisLabel: { color: ink, hideOverlap: true, fontFamily: FONT, fontSize: 12 },
      splitLine: { lineStyle: { color: line, opacity: 0.6 } }, nameTextStyle: { color: ink },
    };
    return {
      axis,
      base: {
        useUTC: true, animation: false, color: palette(), textStyle: { color: ink, fontFamily: FONT, fontSize: 12 },
        grid: { left: 8, right: 18, top: 40, bottom: 30, containLabel: true },
        legend: { top: 4, left: 0, type: "scroll", textStyle: { color: ink, fontFamily: FONT }, inactiveColor: color("faint"), pageTextStyle: { color: ink }, itemWidth: 16, itemHeight: 10 },
        tooltip: { trigger: "axis", confine: true, backgroundColor: panel, borderColor: line, textStyle: { color: ink, fontWeight: "normal" }, extraCssText: "max-width:22rem;white-space:normal" },
      },
    };
  }

  const DATES = { year: "{yyyy}", month: "{MMM}", day: "{d} {MMM}", hour: "{HH}:{mm}", minute: "{HH}:{mm}", second: "{HH}:{mm}:{ss}" };
  const timeAxis = (axis, run) => ({ ...axis, axisLabel: { ...axis.axisLabel, formatter: DATES }, type: "time", min: run.start, max: Math.max(run.end, run.deadline || 0) });
  const stateAt = (run, ms) => (run.spans.find(([start, end]) => start <= ms && ms <= end) || [])[2];

  function timeline(run) {
    const { axis, base } = common();
    const forecasts = run.forecasts.map((points, index) => ({
      name: "forecast", type: "line", step: "end", symbol: "none", silent: true, z: 1, data: points, color: color("other"),
      lineStyle: { width: 1, type: "dashed", opacity: run.forecasts.length > 8 ? 0.45 : 0.8 }, tooltip: { show: false }, id: `forecast${index}`,
    }));
    const states = [...new Set(run.spans.map((span) => span[2]))];
    const areas = states.map((state) => ({
      name: LABELS[state] || state, type: "line", data: [], color: color(state), symbol: "roundRect", legendSymbol: "roundRect", silent: true,
      markArea: { silent: true, itemStyle: { color: color(state), opacity: 0.3 }, data: run.spans.filter((span) => span[2] === state).map(([start, end]) => [{ xAxis: start }, { xAxis: end }]) },
    }));
    return {
      ...base,
      legend: { ...base.legend, data: [...areas.map((area) => ({ name: area.name, icon: "roundRect" })), "intensity", ...(forecasts.length ? ["forecast"] : []), "decision"] },
      tooltip: {
        ...base.tooltip,
        formatter: (shown) => {
          const items = [].concat(shown); // one item of a decision, or one of each curve
          const at = items[0].axisValue ?? items[0].value[0], state = stateAt(run, at);
          const lines = [`<b>${utc(at)} UTC</b>${state ? `, ${escape(LABELS[state] || state)}` : ""}`];
          for (const item of items) {
            if (item.seriesName === "intensity") lines.push(`${number(item.value[1])} gCO₂e/kWh`);
            if (item.seriesName === "decision") lines.push(`<b>${escape(item.value[2])}</b>: ${escape(item.value[3])}`);
          }
          return [...new Set(lines)].join("<br>");
        },
      },
      dataZoom: [{ type: "inside", zoomOnMouseWheel: "ctrl", moveOnMouseWheel: false, filterMode: "none" }, { type: "slider", height: 14, bottom: 4, showDetail: false, filterMode: "none", borderColor: color("line") }],
      grid: { ...base.grid, bottom: 46, top: 48 },
      xAxis: timeAxis(axis, run),
      yAxis: { ...axis, type: "value", min: 0 },
      series: [
        ...areas,
        ...forecasts,
        {
          name: "intensity", type: "line", symbol: "none", data: run.intensity, color: color("ink"), lineStyle: { width: 2 }, z: 3, sampling: "lttb",
          markLine: run.deadline ? { silent: true, symbol: "none", label: { formatter: "deadline", color: color("stopped"), position: "insideEndTop" }, lineStyle: { color: color("stopped"), type: "dashed" }, data: [{ xAxis: run.deadline }] } : undefined,
        },
        { name: "decision", type: "scatter", symbolSize: 9, z: 4, color: color("accent"), data: run.decisions.map(([at, what, text, value]) => [at, value ?? 0, what, text]), tooltip: { trigger: "item" } },
      ],
    };
  }

  function emitted(run) {
    const { axis, base } = common();
    return {
      ...base, color: [color("running"), color("faint")],
      tooltip: { ...base.tooltip, valueFormatter: (value) => `${number(value)} gCO₂e` },
      xAxis: { ...timeAxis(axis, run), max: run.end }, yAxis: { ...axis, type: "value", min: 0 },
      series: [
        { name: "this run", type: "line", symbol: "none", data: run.emitted, lineStyle: { width: 2.5 } },
        { name: "without waiting", type: "line", symbol: "none", data: [...run.runNow, ...run.runNow.slice(-1).map(([, grams]) => [Math.max(run.end, run.runNow.at(-1)[0]), grams])], lineStyle: { width: 2, type: "dashed" } },
      ],
    };
  }

  function power(run) {
    const { axis, base } = common();
    return {
      ...base, tooltip: { ...base.tooltip, valueFormatter: (value) => `${number(value)} W` },
      xAxis: { ...timeAxis(axis, run), max: run.end }, yAxis: { ...axis, type: "value", min: 0 },
      series: Object.entries(run.power).map(([name, values]) => ({
        name, type: "line", stack: "power", symbol: "none", areaStyle: { opacity: 0.5 }, lineStyle: { width: 1 },
        data: values.map((value, index) => [run.powerTimes[index], value]),
      })),
    };
  }

  function energy(run) {
    const { axis, base } = common();
    const rows = [...Object.entries(run.components).map(([name, kwh]) => [name, kwh, "component"]), ...Object.entries(run.phases).map(([name, kwh]) => [name.replaceAll("_", " "), kwh, "phase"])].reverse();
    const series = (kind, fill) => ({ name: `by ${kind}`, type: "bar", stack: "one", color: fill, data: rows.map((row) => (row[2] === kind ? row[1] : null)) });
    return {
      ...base, tooltip: { ...base.tooltip, axisPointer: { type: "shadow" }, valueFormatter: (value) => (value == null ? "" : `${number(value)} kWh`), formatter: (items) => items.filter((item) => item.value != null).map((item) => `${escape(item.name)} (${escape(item.seriesName)}): ${number(item.value)} kWh`).join("<br>") },
      xAxis: { ...axis, type: "value" }, yAxis: { ...axis, type: "category", data: rows.map((row) => row[0]) },
      series: [series("component", color("running")), series("phase", color("other"))],
    };
  }

  function metricSeries(run, name, index, label) {
    return { name: label, type: "line", symbolSize: 5, showSymbol: (run.metrics[name] || []).length < 60, data: run.metrics[name] || [], lineStyle: { type: DASHES[index % 3] } };
  }

  function metric(run, element) {
    const { axis, base } = common();
    const select = document.querySelector(`[data-metric="${element.dataset.run}"]`), name = select.value;
    return {
      ...base, legend: { show: false }, grid: { ...base.grid, top: 14 },
      tooltip: { ...base.tooltip, formatter: ([item]) => `${escape(name)} ${number(item.value[1])}<br>at ${number(item.value[0])} kWh, step ${escape(item.value[3])}<br>${utc(item.value[2])} UTC` },
      xAxis: { ...axis, type: "value", name: "kWh", nameLocation: "middle", nameGap: 26, min: 0 }, yAxis: { ...axis, type: "value", scale: true },
      series: [metricSeries(run, name, 0, name)],
    };
  }

  function compareEmitted() {
    const { axis, base } = common();
    const hours = (run, points) => points.map(([at, grams]) => [(at - run.start) / 3.6e6, grams]);
    return {
      ...base, tooltip: { ...base.tooltip, trigger: "item", formatter: (item) => `${escape(item.seriesName)}: ${number(item.value[1])} gCO₂e after ${number(item.value[0])} h` },
      xAxis: { ...axis, type: "value", name: "hours", nameLocation: "middle", nameGap: 26, min: 0 }, yAxis: { ...axis, type: "value", min: 0 },
      series: data.runs.map((run, index) => ({ name: run.name, type: "line", symbolSize: 4, showSymbol: false, data: hours(run, run.emitted), lineStyle: { width: 2.5, type: DASHES[index % 3] }, triggerLineEvent: true })),
    };
  }

  function compareMetric(_, element) {
    const { axis, base } = common();
    const names = data.runs.flatMap((run) => Object.keys(run.metrics));
    const name = names.find((one) => data.runs.filter((run) => run.metrics[one]).length > 1) || names[0];
    if (!name) { element.closest("figure").remove(); return null; }
    element.closest("figure").querySelector("span").textContent = name;
    return {
      ...base, tooltip: { ...base.tooltip, trigger: "item", formatter: (item) => `${escape(item.seriesName)}: ${escape(name)} ${number(item.value[1])} at ${number(item.value[0])} kWh` },
      xAxis: { ...axis, type: "value", name: "kWh", nameLocation: "middle", nameGap: 26, min: 0 }, yAxis: { ...axis, type: "value", scale: true },
      series: data.runs.map((run, index) => metricSeries(run, name, index, run.name)),
    };
  }

  const drawings = { timeline, emitted, power, energy, metric, "compare-emitted": compareEmitted, "compare-metric": compareMetric };
  const charts = new Map();

  function draw(element) {
    const option = drawings[element.dataset.chart](data.runs[Number(element.dataset.run)], element);
    if (option === null) return;
    if (!charts.has(element)) charts.set(element, echarts.init(element, null, { renderer: "svg" }));
    charts.get(element).setOption(option, true);
  }

  const drawAll = () => document.querySelectorAll("[data-chart]").forEach(draw);
  drawAll();
  document.querySelectorAll("[data-metric]").forEach((select) => select.addEventListener("change", () => {
    draw(document.querySelector(`[data-chart="metric"][data-run="${select.dataset.metric}"]`));
  }));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  addEventListener("resize", () => charts.forEach((chart) => chart.resize()));
  // On paper a chart is as wide as its column: the style sheet scales the picture, for which it needs a view box.
  addEventListener("beforeprint", () => document.querySelectorAll(".chart svg").forEach((svg) => {
    svg.setAttribute("viewBox", `0 0 ${svg.getAttribute("width")} ${svg.getAttribute("height")}`);
  }));
})();
