"use strict";
// Draws a series when it comes near the screen, and lists its values when they are asked for.
(async () => {
  // As plotted.py has them: a column of the drawing for each of its 304 pixels.
  const WIDTH = 320, HEIGHT = 84, TOP = 14, BOTTOM = 72, LEFT = 8, RIGHT = 312;
  // Of the axis, as a share of the level: scatter of less than this should not look like much.
  const LEAST_REACH = { exact: 0.001, noisy: 0.05 };
  const MANY = 100; // dots, from which on they are drawn smaller

  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).json();
  }

  // ---- how values are written, as amounts.py writes them

  const minus = (text) => text.replace("-", "\u2212");
  const superscript = (digit) => (digit === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]);

  function digits(value, exact) {
    const most = exact ? 10 : 4, size = Math.abs(value);
    const whole = Number.isInteger(value) && size < 1e15;
    if (!whole && (size < 1e-4 || size >= Math.max(1e7, 10 ** most))) {
      const [number, exponent] = value.toExponential(most - 1).split("e");
      const power = `10${[...String(Number(exponent))].map(superscript).join("")}`;
      const mantissa = minus(String(Number(number)));
      return /^\D?1$/.test(mantissa) ? mantissa.replace("1", power) : `${mantissa} × ${power}`;
    }
    const exponent = value ? Number(value.toExponential(16).split("e")[1]) : 0;
    const decimals = Math.min(20, Math.max(0, most - 1 - exponent));
    return minus(value.toLocaleString("en-US", { maximumFractionDigits: decimals }));
  }

  function amount(value, series) {
    const { exact, unit } = series;
    if (unit !== "s" && unit !== "seconds") return digits(value, exact);
    for (const [below, times, written] of [[1e-6, 1e9, "ns"], [1e-3, 1e6, "µs"], [1, 1e3, "ms"]]) {
      if (value && Math.abs(value) < below) return `${digits(value * times, exact)} ${written}`;
    }
    return `${digits(value, exact)} s`;
  }

  // ---- drawing

  const places = (distances) => {
    let at = 0;
    return distances.map((distance) => (at += Math.abs(distance)));
  };

  function shape(name, attributes, text = "") {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.textContent = text;
    return element;
  }

  function axes(series) {
    const low = Math.min(...series.value), high = Math.max(...series.value);
    const least = LEAST_REACH[series.exact ? "exact" : "noisy"];
    const reach = least * Math.max(Math.abs(low), Math.abs(high));
    const flat = high - low < reach || high === low;
    const bottom = flat ? (high + low) / 2 - (reach || 1) / 2 : low;
    const top = flat ? (high + low) / 2 + (reach || 1) / 2 : high;
    const apart = (RIGHT - LEFT) / Math.max(series.commits - 1, 1);
    return {
      low, high,
      x: (at) => (series.commits > 1 ? LEFT + apart * at : WIDTH / 2),
      y: (value) => {
        const share = (Math.min(Math.max(value, bottom), top) - bottom) / (top - bottom);
        return BOTTOM - (BOTTOM - TOP) * share;
      },
    };
  }

  function paths(series, at, { x, y }) {
    const point = (i) => `${x(at[i]).toFixed(1)} ${y(series.value[i]).toFixed(1)}`;
    const line = at.map((_, i) => `${i && series.at[i] > 0 ? "L" : "M"}${point(i)}`);
    const whiskers = at.map((place, i) => (series.low?.[i] == null ? "" :
      `M${x(place).toFixed(1)} ${y(series.low[i]).toFixed(1)}V${y(series.high[i]).toFixed(1)}`));
    const starts = [at[0], ...series.steps.map((step) => step[0])];
    const levels = starts.map((start, i) => {
      if (!series.steps.length) return "";
      const level = i ? series.steps[i - 1][2] : series.steps[0][1];
      const last = at.findLast((place) => place < (starts[i + 1] ?? Infinity));
      return `M${x(start).toFixed(1)} ${y(level).toFixed(1)}H${x(last).toFixed(1)}`;
    });
    const failed = places(series.failed).map((place) =>
      `M${(x(place) - 2).toFixed(1)} ${BOTTOM}l4 4m0 -4l-4 4`);
    return {
      mark: series.steps.map((step) => `M${x(step[0] - 0.5).toFixed(1)} 10V76`).join(""),
      whiskers: whiskers.join(""),
      line: line.join(""),
      dots: at.map((_, i) => `M${point(i)}h0`).join(""),
      failed: failed.join(""),
      levels: levels.join(""),
    };
  }

  function draw(figure) {
    if (figure.dataset.drawn) return;
    figure.dataset.drawn = "yes";
    const series = data.series[figure.id], at = places(series.at), scale = axes(series);
    const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true" });
    if (at.length > MANY) svg.setAttribute("class", "many");
    for (const [name, path] of Object.entries(paths(series, at, scale))) {
      if (path) svg.append(shape("path", { class: name, d: path }));
    }
    const { low, high } = scale;
    const spread = low === high ? amount(low, series) : `${amount(low, series)} to ${amount(high, series)}`;
    const [first, last] = settingOf(figure).ends;
    const pointed = shape("circle", { class: "pointed", r: 3, visibility: "hidden" });
    const told = shape("text", { x: WIDTH, y: 9, "text-anchor": "end" });
    svg.append(shape("text", { x: 0, y: 9 }, spread), pointed, told,
      shape("text", { x: WIDTH, y: 83, "text-anchor": "end" }, `${first} … ${last}`));
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const wanted = ((event.clientX - box.left) / box.width) * WIDTH;
      const apart = at.map((place) => Math.abs(scale.x(place) - wanted));
      const i = apart.indexOf(Math.min(...apart));
      pointed.setAttribute("cx", scale.x(at[i]));
      pointed.setAttribute("cy", scale.y(series.value[i]));
      pointed.setAttribute("visibility", "visible");
      told.textContent = `${amount(series.value[i], series)} at ${hash(figure, at[i])}`;
    });
    svg.addEventListener("pointerleave", () => {
      pointed.setAttribute("visibility", "hidden");
      told.textContent = "";
    });
    figure.querySelector(".chart").append(svg);
  }

  // ---- tables

  const settingOf = (element) => data.settings[element.closest("section").id];
  const hash = (figure, at) => commitAt.get(settingOf(figure).first + at)?.[1] ?? "";

  function table(titles, rows) {
    const made = document.createElement("table");
    const head = made.createTHead().insertRow();
    for (const title of titles) {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = title;
      head.append(cell);
    }
    const body = made.createTBody();
    for (const [first, ...others] of rows) {
      const row = body.insertRow(), cell = document.createElement("th");
      cell.scope = "row";
      cell.textContent = first;
      row.append(cell);
      for (const text of others) {
        const bdi = document.createElement("bdi");
        bdi.textContent = text;
        row.insertCell().append(bdi);
      }
    }
    return made;
  }

  function listValues(figure) {
    const series = data.series[figure.id], at = places(series.at);
    const changes = new Map(series.steps.map((step) => [step[0], step[3]]));
    const rows = at.map((place, i) => {
      const interval = series.low?.[i] == null ? "" :
        `${amount(series.low[i], series)} – ${amount(series.high[i], series)}`;
      return [place, amount(series.value[i], series), interval, changes.get(place) ?? ""];
    });
    for (const state of ["failed", "skipped"]) {
      rows.push(...places(series[state]).map((place) => [place, state, "", ""]));
    }
    rows.sort((one, other) => other[0] - one[0]);
    const shown = rows.map(([place, value, interval, change]) => [
      hash(figure, place), value, ...(series.low ? [interval] : []), change]);
    return table(["commit", "value", ...(series.low ? ["99 % within its run"] : []), "step"], shown);
  }

  // Newest first; a row tells how many commits without a result lie between.
  function listCommits(details) {
    const rows = [];
    let newer = null;
    for (const [index, measured] of settingOf(details).commits.toReversed()) {
      const [place, name, date, subject] = data.commits[index];
      if (newer !== null && newer - place > 1) rows.push(["…", "", `${newer - place - 1} not measured`]);
      rows.push([name, date, measured ? subject : `${subject} (no value)`]);
      newer = place;
    }
    return table(["commit", "date", "message"], rows);
  }

  function fill(details) {
    const place = details.querySelector("[data-list]");
    if (!details.open || place.childElementCount) return;
    const figure = details.closest("figure");
    place.append(figure ? listValues(figure) : listCommits(details));
  }

  // ---- what the page does

  let data;
  try {
    data = await unpack(document.getElementById("data").textContent);
  } catch (error) {
    document.getElementById("unread").hidden = false;
    console.error("the page's data", error);
    return;
  }
  const commitAt = new Map(data.commits.map((commit) => [commit[0], commit]));
  const figures = [...document.querySelectorAll("figure[data-name]")];
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      near.unobserve(entry.target);
      draw(entry.target);
    }
  }, { rootMargin: "600px" });
  figures.forEach((figure) => near.observe(figure));
  for (const details of document.querySelectorAll("details:has([data-list])")) {
    details.hidden = false;
    details.addEventListener("toggle", () => fill(details));
  }
  addEventListener("beforeprint", () => figures.forEach(draw));

  const form = document.querySelector(".finder"), output = form.querySelector("output");
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    const words = form.elements.wanted.value.toLowerCase().split(/\s+/);
    for (const figure of figures) {
      figure.hidden = !words.every((word) => figure.dataset.name.includes(word));
    }
    for (const part of document.querySelectorAll(".kind, .file")) {
      part.hidden = !part.querySelector("figure:not([hidden])");
    }
    const shown = figures.filter((figure) => !figure.hidden).length;
    output.textContent = `${shown} of ${figures.length} series`;
  });
  document.documentElement.dataset.charts = "live";
})();
