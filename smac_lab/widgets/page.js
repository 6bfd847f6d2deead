// An explorer's page: controls choose one of the states that were computed beforehand, and plotly draws it.
(() => {
  "use strict";
  const page = JSON.parse(document.getElementById("data").textContent), started = performance.now();
  const box = document.querySelector(".figure"), form = document.querySelector("form");

  // -- values ---------------------------------------------------------------------------------------------------
  const bytes = Uint8Array.from(atob(page.numbers), c => c.charCodeAt(0));
  const numbers = new Uint16Array(bytes.buffer), NAN = 65535;
  const read = [];
  function value(i) {
    return read[i] ??= decode(page.pool[i]);
  }
  function decode(entry) {
    if (!("at" in entry)) return entry.is;
    const scale = (entry.high - entry.low) / (NAN - 1);
    const all = Array.from(numbers.subarray(entry.at, entry.at + entry.n), v => v === NAN ? null : entry.low + scale * v);
    if (!entry.columns) return all;
    return Array.from({ length: all.length / entry.columns }, (_, r) => all.slice(r * entry.columns, (r + 1) * entry.columns));
  }

  // -- what is chosen ---------------------------------------------------------------------------------------------
  const state = Object.fromEntries(page.inputs.map(input => [input.name, input.start]));
  const fields = {};
  for (const input of page.inputs) {
    const label = document.createElement("label"), field = document.createElement(input.slider ? "input" : "select");
    label.append(input.label, field);
    field.name = input.name;
    if (input.slider) {
      Object.assign(field, { type: "range", min: 0, max: input.values.length - 1, step: 1 });
      label.append(document.createElement("output"));
    } else {
      input.texts.forEach((text, i) => field.add(new Option(text, i)));
    }
    field.addEventListener("input", () => choose({ ...input.sets, [input.name]: Number(field.value) }));
    form.append(label);
    fields[input.name] = field;
  }

  function choose(changes) {
    Object.assign(state, changes);
    let at = 0;
    for (const input of page.inputs) {
      at = at * input.values.length + state[input.name];
      const field = fields[input.name], text = input.texts[state[input.name]];
      field.value = state[input.name];
      if (input.slider) {
        field.setAttribute("aria-valuetext", text);
        field.nextElementSibling.textContent = text;
      }
    }
    document.querySelector(".says").textContent = value(page.rows[at][0]);
    wanted = page.rows[at];
    return drawing ??= draw();
  }

  // Draws the state that was chosen last; plotly must not start before its last drawing has ended.
  let wanted, drawing;
  async function draw() {
    try {
      while (wanted) {
        const [, ...row] = wanted, before = performance.now();
        const data = page.figure.data.map(trace => ({ ...trace }));
        page.columns.forEach(([trace, property], i) => { data[trace][property] = value(row[i]); });
        wanted = undefined;
        await Plotly.react(box, data, layout(), { responsive: true, displaylogo: false });
        box.dataset.step = (performance.now() - before).toFixed(1);  // ms
      }
    } finally {
      drawing = undefined;
    }
  }

  // -- narrow windows: panels below each other --------------------------------------------------------------------
  const NARROW = 700;
  function layout() {
    const wide = page.figure.layout, one = { ...structuredClone(wide), autosize: true };
    if (window.innerWidth >= NARROW) return one;
    const panels = Object.keys(wide).filter(key => /^xaxis\d*$/.test(key));
    const rows = new Set(panels.map(key => wide[axis(key, wide)].domain[0])).size;
    const { t, b } = wide.margin, inside = wide.height - t - b, gap = 100;
    const high = (inside - (rows - 1) * gap) / rows, all = panels.length * high + (panels.length - 1) * gap;
    panels.forEach((key, i) => {
      const top = 1 - i * (high + gap) / all, title = one.annotations?.[i];
      one[key].domain = [0, 1];
      one[axis(key, wide)].domain = [Math.max(top - high / all, 0), top];
      if (title) Object.assign(title, { x: 0.5, y: top });
    });
    const named = page.figure.data.filter(trace => trace.name && trace.showlegend !== false).length;
    const bar = one.coloraxis?.colorbar;  // below the panels
    one.margin = { ...wide.margin, l: 58, r: 15, t: 45 + 22 * named, b: bar ? b + 75 : b };
    one.height = all + one.margin.b + one.margin.t;
    if (bar) {
      Object.assign(bar, { orientation: "h", yref: "container", y: 0, yanchor: "bottom", len: 1 });
      bar.title.side = "top";
    }
    return one;
  }
  function axis(key, wide) {
    const anchor = wide[key].anchor ?? key.replace("axis", "").replace("x", "y");
    return anchor.replace("y", "yaxis");
  }

  // -- clicks in the figure ---------------------------------------------------------------------------------------
  function clicked({ points: [point] }) {
    const names = page.clicks[point.curveNumber], changes = {};
    names?.forEach((name, i) => {
      if (!name) return;  // the plane of a run in which z moves along one axis only
      const { values, sets } = page.inputs.find(input => input.name === name);
      const far = values.map(v => Math.abs(v - (i ? point.y : point.x)));
      const at = names.length === 1 ? values.indexOf(point.pointNumber) : far.indexOf(Math.min(...far));
      if (at >= 0) Object.assign(changes, sets, { [name]: at });
    });
    if (Object.keys(changes).length) choose(changes);
  }

  choose({}).then(() => {
    box.on("plotly_click", clicked);
    let narrow = window.innerWidth < NARROW;
    window.addEventListener("resize", () => {
      if (narrow !== (narrow = window.innerWidth < NARROW)) choose({});
    });
    box.dataset.ready = (performance.now() - started).toFixed(0);
  });
})();
