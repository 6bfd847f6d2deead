// The shift explorer of the front page. It reads SHIFT (written by scripts/make_front_page.py), holds the shipped
// agents' own actors and reward decoders, and acts them out here: every rollout is computed when it is asked for.
(() => {
  "use strict";
  const D = SHIFT, box = document.querySelector(".shift-explorer");
  if (!box) return;

  // -- numbers ------------------------------------------------------------------------------------------------
  const bytes = Uint8Array.from(atob(D.halves), c => c.charCodeAt(0));
  const halves = Float32Array.from(new Uint16Array(bytes.buffer), h => {
    const sign = h >> 15 ? -1 : 1, exponent = (h >> 10) & 31, fraction = h & 1023;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * fraction / 1024);
  });
  const Z = D.centre.length;

  // A ReLU network: rows of weights and the biases of each layer follow one another.
  function network(at, input, sizes) {
    let x = input;
    for (let l = 1; l < sizes.length; l++) {
      const [n, m] = [sizes[l - 1], sizes[l]], y = new Float32Array(m), bias = at + n * m;
      for (let j = 0; j < m; j++) {
        let sum = halves[bias + j];
        for (let i = 0; i < n; i++) sum += halves[at + j * n + i] * x[i];
        y[j] = l < sizes.length - 1 ? Math.max(sum, 0) : sum;
      }
      at = bias + m;
      x = y;
    }
    return x;
  }

  // The mean action, 20 steps of 0.1 m; what the task pays for it, and what the decoder of this z pays.
  function rollout(agent, z, goal) {
    const path = [[0, 0]];
    let paid = 0, decoded = 0;
    for (let t = 0; t < D.horizon; t++) {
      const s = path[t];
      const a = network(agent.actor, [...s, ...z], D.actor_sizes).slice(0, 2).map(Math.tanh);
      decoded += network(agent.decoder, [...s, ...a, ...z], D.decoder_sizes)[0];
      path.push([s[0] + D.step * a[0], s[1] + D.step * a[1]]);
      paid -= Math.hypot(path[t + 1][0] - goal[0], path[t + 1][1] - goal[1]);
    }
    return {path, paid, decoded};
  }

  const project = z => D.directions.map(d => d.reduce((sum, v, i) => sum + v * (z[i] - D.centre[i]), 0));
  const z_at = p => D.centre.map((c, i) => c + p[0] * D.directions[0][i] + p[1] * D.directions[1][i]);

  // The outline of one standard deviation of a diagonal Gaussian, seen in the plane.
  function ellipse(mean, std) {
    const [[a, b], [, c]] = [0, 1].map(i => [0, 1].map(j =>
      std.reduce((sum, s, k) => sum + s * s * D.directions[i][k] * D.directions[j][k], 0)));
    const l = Math.sqrt(a), m = b / l, n = Math.sqrt(Math.max(c - m * m, 0)), [x, y] = project(mean);
    return Array.from({length: 33}, (_, k) => {
      const [p, q] = [Math.cos(k * Math.PI / 16), Math.sin(k * Math.PI / 16)];
      return [x + l * p, y + m * p + n * q];
    });
  }

  // Posterior of a task given context of which a share is self-collected: mean and standard deviation.
  function posterior(agent, share, task) {
    const at = agent.posteriors + (share * D.tasks.length + task) * 2 * Z;
    return [halves.slice(at, at + Z), halves.slice(at + Z, at + 2 * Z)];
  }

  // -- what is chosen -----------------------------------------------------------------------------------------
  const last = D.shares.length - 1;
  const state = {arm: 0, iteration: 0, share: last, task: D.first_task, point: D.first_point.slice(), show: "task"};
  const agent = () => D.agents[D.arms[state.arm].agents[state.iteration]];

  // -- pictures -----------------------------------------------------------------------------------------------
  const SIDE = 320, LEFT = 44, BOTTOM = 36, TOP = 6, WIDE = SIDE - LEFT - 8, HIGH = SIDE - BOTTOM - TOP;
  const minus = text => String(text).replace("-", "\u2212");
  const digits = v => minus(v.toFixed(1));

  // An empty panel with axes; `at` turns numbers into places, and back.
  function panel(name, x, y, xlabel, ylabel, ticks) {
    const svg = box.querySelector(`.${name} svg`), [x0, x1] = x, [y0, y1] = y;
    const at = p => [LEFT + (p[0] - x0) / (x1 - x0) * WIDE, TOP + (y1 - p[1]) / (y1 - y0) * HIGH];
    const back = q => [x0 + (q[0] - LEFT) / WIDE * (x1 - x0), y1 - (q[1] - TOP) / HIGH * (y1 - y0)];
    const marks = ticks.map(([axis, v]) => axis === "x"
      ? `<path class="grid" d="M${at([v, 0])[0]} ${TOP}V${TOP + HIGH}"/>` +
        `<text x="${at([v, 0])[0]}" y="${SIDE - 22}" text-anchor="middle">${minus(v)}</text>`
      : `<path class="grid" d="M${LEFT} ${at([0, v])[1]}H${LEFT + WIDE}"/>` +
        `<text x="${LEFT - 5}" y="${at([0, v])[1] + 4}" text-anchor="end">${minus(v)}</text>`);
    svg.innerHTML = marks.join("") +
      `<text x="${LEFT + WIDE / 2}" y="${SIDE - 6}" text-anchor="middle">${xlabel}</text>` +
      `<text transform="translate(11 ${TOP + HIGH / 2}) rotate(-90)" text-anchor="middle">${ylabel}</text>` +
      `<svg x="${LEFT}" y="${TOP}" width="${WIDE}" height="${HIGH}" viewBox="${LEFT} ${TOP} ${WIDE} ${HIGH}">` +
      `<g></g></svg><rect class="edge" x="${LEFT}" y="${TOP}" width="${WIDE}" height="${HIGH}"/>`;
    return {svg, at, back, ink: svg.querySelector("g")};
  }
  const line = (of, points, look) =>
    `<path d="M${points.map(p => of.at(p).map(v => v.toFixed(1)).join(" ")).join("L")}" ${look}/>`;
  const dot = (of, p, r, look) => {
    const [x, y] = of.at(p);
    return `<circle cx="${x.toFixed(1)}" cy="${y.toFixed(1)}" r="${r}" ${look}/>`;
  };
  const both = (from, to, by) => Array.from({length: Math.floor((to - from) / by + 1e-9) + 1}, (_, i) => from + i * by);
  const [low, high] = [D.low, D.high];
  const share_of = i => `${Math.round(100 * D.spread[i])} % of variance`;
  const plane = panel("latent", [low[0], high[0]], [low[1], high[1]], `axis 1 of z (${share_of(0)})`,
    `axis 2 (${share_of(1)})`, [0, 1].flatMap(i => both(Math.ceil(low[i] / 4) * 4, high[i], 4).map(v => ["xy"[i], v])));
  const ground = panel("robot", [-1.7, 1.7], [-1.2, 2.2], "x (m)", "y (m)",
    [...both(-1, 1, 1).map(v => ["x", v]), ...both(-1, 2, 1).map(v => ["y", v])]);
  const every = D.arms.flatMap(arm => [...arm.offline, ...arm.online]);
  const curves = panel("gets", [-0.8, D.iterations.at(-1) + 0.8], [Math.min(...every) - 0.6, Math.max(...every) + 0.6],
    "iteration of the self-supervised phase", "mean return",
    [...D.iterations.filter(i => i !== 2).map(v => ["x", v]), ...both(-20, 0, 2).filter(v =>
      v > Math.min(...every) - 0.6 && v < Math.max(...every) + 0.6).map(v => ["y", v])]);
  plane.svg.classList.add("touched");

  function draw_plane() {
    const own = agent(), marks = [];
    state.marks = [];
    D.tasks.forEach((_, task) => {
      const colour = D.colours[task], [mean, std] = posterior(own, 0, task);
      const [mixed, wide] = posterior(own, state.share, task), [p, q] = [project(mean), project(mixed)];
      marks.push(line(plane, ellipse(mean, std), `fill="${colour}" fill-opacity=".18" stroke="${colour}"`));
      marks.push(line(plane, ellipse(mixed, wide), `fill="none" stroke="${colour}" stroke-dasharray="2 3"`));
      marks.push(line(plane, [p, q], `stroke="${D.grey}" stroke-opacity=".7"`));
      state.marks.push([p, task], [q, task]);
    });
    D.tasks.forEach((_, task) => {
      const [[p], [q]] = [state.marks[2 * task], state.marks[2 * task + 1]];
      marks.push(dot(plane, p, 4, `fill="${D.colours[task]}"`));
      marks.push(dot(plane, q, 5, `fill="none" stroke="${D.colours[task]}" stroke-width="2"`));
      if (task === state.task) {
        marks.push(dot(plane, p, 10, `fill="none" stroke="${D.offline}" stroke-width="2"`));
        marks.push(dot(plane, q, 11, `fill="none" stroke="${D.self_collected}" stroke-width="2"`));
      }
    });
    if (state.show === "point") {
      const [x, y] = plane.at(state.point);
      marks.push(`<path d="M${x - 8} ${y}H${x + 8}M${x} ${y - 8}V${y + 8}" stroke="${D.chosen}" stroke-width="3"/>`);
    }
    plane.ink.innerHTML = marks.join("");
  }

  function draw_ground() {
    const goal = D.tasks[state.task], given = state.show === "task"
      ? [["offline context", D.offline, posterior(agent(), 0, state.task)[0]],
         [state.share === last ? "self-collected context" : `${100 * D.shares[state.share]} % self-collected`,
          D.self_collected, posterior(agent(), state.share, state.task)[0]]]
      : [["the chosen point", D.chosen, z_at(state.point)]];
    const marks = D.tasks.map((g, task) => dot(ground, g, 3, `fill="${D.colours[task]}"`));
    const [x, y] = ground.at(goal);
    marks.push(`<path d="M${x - 6} ${y - 6}l12 12m0 -12l-12 12" stroke="currentColor" stroke-width="3"/>`);
    const rows = given.map(([name, colour, z]) => {
      const {path, paid, decoded} = rollout(agent(), z, goal);
      marks.push(line(ground, path, `class="path" fill="none" stroke="${colour}" stroke-width="2.5"`));
      path.forEach(p => marks.push(dot(ground, p, 2, `fill="${colour}"`)));
      return `<tr><th scope="row"><i style="background:${colour}"></i>${name}</th>` +
        `<td>${digits(paid)}</td><td>${digits(decoded)}</td></tr>`;
    });
    ground.ink.innerHTML = marks.join("");
    box.querySelector("tbody").innerHTML = rows.join("");
  }

  function draw_curves() {
    const arm = D.arms[state.arm], now = D.iterations[state.iteration];
    curves.ink.innerHTML = [[arm.offline, D.offline], [arm.online, D.self_collected]].map(([values, colour]) =>
      line(curves, values.map((v, i) => [D.iterations[i], v]), `fill="none" stroke="${colour}" stroke-width="2"`) +
      values.map((v, i) => dot(curves, [D.iterations[i], v], 2.5, `fill="${colour}"`)).join("") +
      dot(curves, [now, values[state.iteration]], 7, `fill="none" stroke="${colour}" stroke-width="3"`)).join("");
  }

  function say() {
    const arm = D.arms[state.arm], i = state.iteration, [off, on] = [arm.offline[i], arm.online[i]];
    const when = i ? `After ${D.iterations[i]} iterations of the self-supervised phase (${arm.label})`
      : "After the offline phase, before the self-supervised one";
    box.querySelector("[role=status]").textContent = `${when}: mean return over ${D.tasks.length} training tasks ` +
      `${digits(off)} given offline context, ${digits(on)} given self-collected context.`;
  }

  // -- by hand ------------------------------------------------------------------------------------------------
  const inputs = Object.fromEntries([...box.querySelectorAll("[name]")].map(input => [input.name, input]));
  const shown = {
    iteration: () => D.iterations[state.iteration],
    share: () => `${100 * D.shares[state.share]} %`,
    task: () => D.names[state.task],
    z1: () => digits(state.point[0]),
    z2: () => digits(state.point[1]),
  };
  function update(changes) {
    const before = performance.now();
    Object.assign(state, changes);
    for (const [name, input] of Object.entries(inputs)) {
      input.value = name[0] === "z" ? state.point[name[1] - 1] : state[name];
      if (!shown[name]) continue;
      input.setAttribute("aria-valuetext", shown[name]());
      input.nextElementSibling.textContent = shown[name]();
    }
    draw_plane();
    draw_ground();
    draw_curves();
    say();
    box.dataset.step = (performance.now() - before).toFixed(1); // ms
  }
  D.arms.forEach((arm, i) => inputs.arm.add(new Option(arm.label, i)));
  for (const [name, most] of [["iteration", D.iterations.length - 1], ["share", last], ["task", D.tasks.length - 1]])
    inputs[name].max = most;
  ["z1", "z2"].forEach((name, i) => Object.assign(inputs[name], {min: low[i], max: high[i], step: (high[i] - low[i]) / 40}));
  for (const [name, input] of Object.entries(inputs)) input.addEventListener("input", () => {
    const value = Number(input.value);
    if (name[0] !== "z") return update({[name]: value, ...(name === "task" ? {show: "task"} : {})});
    const point = state.point.slice();
    point[name[1] - 1] = value;
    update({point, show: "point"});
  });

  // A press on a task's mark selects the task, one elsewhere chooses that z; so does dragging with the button down.
  function choose(event, marks) {
    const frame = plane.svg.getBoundingClientRect(), scale = SIDE / frame.width;
    const q = [(event.clientX - frame.left) * scale, (event.clientY - frame.top) * scale];
    const far = ([p]) => Math.hypot(plane.at(p)[0] - q[0], plane.at(p)[1] - q[1]);
    const near = marks.reduce((a, b) => far(b) < far(a) ? b : a, marks[0]);
    if (near && far(near) < 7) return update({task: near[1], show: "task"});
    update({point: plane.back(q).map((v, i) => Math.min(Math.max(v, low[i]), high[i])), show: "point"});
  }
  plane.svg.addEventListener("click", event => choose(event, state.marks));
  plane.svg.addEventListener("pointermove", event => {
    if (event.buttons && event.pointerType === "mouse") choose(event, []);
  });

  update({});
  box.dataset.ready = performance.now().toFixed(0); // ms since the page was asked for
})();
