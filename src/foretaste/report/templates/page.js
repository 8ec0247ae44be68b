"use strict";
// The episode viewer. Text of models and environments enters the page through textContent only.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const [low, high] = data.range;
  const get = (id) => document.getElementById(id);
  const WHEN = { after: "After training", before: "Before training", during: "During training" };
  const WHICH = {
    all: ["All", () => true],
    success: ["Successes", (e) => e.outcome === "success"],
    failure: ["Failures", (e) => e.outcome === "failure"],
    error: ["Errors", (e) => e.outcome === "error"],
    best: ["Best first", () => true, (a, b) => b.reward - a.reward],
    worst: ["Worst first", () => true, (a, b) => a.reward - b.reward],
    mistaken: ["Most mistaken value first", (e) => e.mistake !== null, (a, b) => b.mistake - a.mistake],
  };
  let shown = [], tokens = [], here = -1, shade = "v";

  const make = (tag, name, text) => {
    const node = document.createElement(tag);
    if (name) node.className = name;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const draw = (tag, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  };
  const short = (x) => {
    if (x === null || x === undefined) return "not measured";
    const text = x.toFixed(2);
    return Number(text) === 0 ? ".00" : text.replace(/^(-?)0\./, "$1.");
  };
  const option = (value, text) => { const node = make("option", "", text); node.value = value; return node; };
  // V by the run's range; a log-probability from -4 nats (surprising) to 0 (certain).
  const part = (x) => Math.min(1, Math.max(0, shade === "v" ? (x - low) / (high - low || 1) : 1 + x / 4));

  function title(e) {
    const turns = e.turns.length + e.left_out;
    const when = e.moment === "during" && e.step !== null ? `step ${e.step}` : WHEN[e.moment].toLowerCase();
    return `${e.outcome}, reward ${short(e.reward)}, ${turns} turn${turns === 1 ? "" : "s"}, ${when}, seed …${e.seed.slice(-6)}`;
  }

  function filter() {
    const [, keep, order] = WHICH[get("which").value];
    const when = get("when").value;
    shown = data.episodes.filter((e) => (when === "any" || e.moment === when) && keep(e));
    if (order) shown.sort(order);
    get("episode").replaceChildren(...shown.map((e, i) => option(i, `${i + 1}. ${title(e)}`)));
    if (!shown.length) get("episode").append(option(-1, "none of this kind"));
    show(0);
  }

  function show(index) {
    const e = shown[index];
    get("previous").disabled = !e || index === 0;
    get("next").disabled = !e || index === shown.length - 1;
    get("chat").replaceChildren();
    get("facts").replaceChildren();
    get("tip").hidden = true;
    tokens = []; here = -1;
    if (!e) { spark(); get("reading").textContent = "No recorded episode is of this kind."; return; }
    get("episode").value = index;
    facts(e);
    e.turns.forEach((turn, t) => {
      if (turn.o) {
        const block = bubble("Environment", "turn");
        block.text.textContent = turn.o;
        if (turn.more) block.text.append(make("span", "nl", ` … ${turn.more} more characters`));
      }
      const block = bubble(`Model, turn ${t + 1}${after(turn)}`, "turn act");
      turn.k.forEach((piece, i) => {
        const node = make("span", "token");
        const lines = piece.split("\n");
        lines.forEach((line, n) => {
          if (n) node.append(make("span", "nl", "↵"), "\n");
          node.append(line);
        });
        node.dataset.i = tokens.length;
        tokens.push({ node, t, v: turn.v[i] ?? null, p: turn.p[i] ?? null, piece });
        block.text.append(node);
      });
    });
    if (e.left_out) get("chat").append(make("p", "who", `${e.left_out} further turns are not on this page; the ledger holds them.`));
    if (e.error) { const block = bubble("Error", "turn"); block.text.textContent = e.error; }
    get("chat").scrollTop = 0;
    paint(); spark();
    get("reading").textContent = "Point at a token, or focus the conversation and use the arrow keys.";
  }

  function facts(e) {
    const line = get("facts");
    line.append(make("span", e.outcome, e.outcome === "unknown" ? "outcome unknown" : e.outcome));
    const told = [e.env, e.level === null ? "" : `level ${e.level}`, e.register, e.split && `${e.split} item`,
      `seed ${e.seed}`, e.label && `recorded as ${e.label}${e.step === null ? "" : ` at step ${e.step}`}`,
      `ended: ${e.end}`, `reward ${short(e.reward)}`];
    line.append(", " + told.filter(Boolean).join(", "));
  }

  function after(turn) {
    const told = [];
    if (turn.r) told.push(`reward ${short(turn.r)}`);
    if (turn.checks) told.push(`${turn.checks.filter(Boolean).length} of ${turn.checks.length} checks pass`);
    if (turn.harm) told.push(`harm ${short(turn.harm)}`);
    if (turn.gate) told.push(`could be given up with probability ${short(turn.gate)}`);
    if (turn.cut) told.push("cut at the token limit");
    return told.length ? `: ${told.join(", ")}` : "";
  }

  function bubble(who, name) {
    const block = make("div", name), text = make("p", "text");
    block.append(make("p", "who", who), text);
    get("chat").append(block);
    return { text };
  }

  function paint() {
    for (const token of tokens) {
      const x = token[shade];
      if (x === null) token.node.style.background = "none"; else { token.node.style.background = ""; token.node.style.setProperty("--v", part(x).toFixed(3)); }
    }
    get("scale-low").textContent = shade === "v" ? `V ${short(low)}` : "−4 or less";
    get("scale-high").textContent = shade === "v" ? short(high) : "0 (certain)";
  }

  const across = (i) => (tokens.length > 1 ? (i / (tokens.length - 1)) * 800 : 400);
  function spark() {
    const svg = get("spark");
    svg.replaceChildren();
    const known = tokens.map((token, i) => [i, token.v]).filter(([, v]) => v !== null);
    const up = (v) => 84 - Math.min(1, Math.max(0, (v - low) / (high - low || 1))) * 78;
    svg.append(draw("line", { class: "half", x1: 0, x2: 800, y1: 45, y2: 45 }));
    tokens.forEach((token, i) => {
      if (i && token.t !== tokens[i - 1].t) svg.append(draw("line", { x1: across(i - .5), x2: across(i - .5), y1: 0, y2: 90 }));
    });
    if (known.length) {
      const path = known.map(([i, v], n) => `${n ? "L" : "M"}${across(i).toFixed(1)} ${up(v).toFixed(1)}`).join("");
      svg.append(draw("path", { class: "area", d: `${path}L${across(known.at(-1)[0])} 90L${across(known[0][0])} 90Z` }), draw("path", { d: path }));
      const [first, last] = [known[0][1], known.at(-1)[1]];
      svg.setAttribute("aria-label", `V along the episode: from ${short(first)} at the first token to ${short(last)} at the last`);
      get("spark-note").textContent = `V along the episode (${short(low)} to ${short(high)}); lines part the turns`;
    } else {
      svg.setAttribute("aria-label", "V was not measured in this episode");
      get("spark-note").textContent = "V was not measured";
    }
    svg.append(draw("line", { class: "here", x1: -9, x2: -9, y1: 0, y2: 90 }));
  }

  function read(token) {
    const told = [`V ${short(token.v)}`];
    told.push(token.p === null ? "log-probability not measured" : `log-probability ${token.p.toFixed(2)} (p ${short(Math.exp(token.p))})`);
    return told.join(", ");
  }

  function go(i, { scroll = false, tip = true } = {}) {
    if (!tokens.length) return;
    if (tokens[here]) tokens[here].node.classList.remove("here");
    here = Math.min(tokens.length - 1, Math.max(0, i));
    const token = tokens[here], marker = get("spark").querySelector(".here");
    token.node.classList.add("here");
    marker.setAttribute("x1", across(here)); marker.setAttribute("x2", across(here));
    get("reading").textContent = `Token ${here + 1} of ${tokens.length}, ${JSON.stringify(token.piece)}: ${read(token)}`;
    const chat = get("chat");
    if (scroll) {
      const box = chat.getBoundingClientRect(), place = token.node.getBoundingClientRect();
      if (place.top < box.top || place.bottom > box.bottom) chat.scrollTop += place.top - box.top - box.height / 3;
    }
    if (tip) {
      get("tip").textContent = read(token);
      get("tip").hidden = false;
      place();
    }
  }

  // Keep the tip beside its token while anything scrolls; hide it when the token is out of sight.
  function place() {
    const bubble = get("tip");
    if (bubble.hidden || !tokens[here]) return;
    const spot = tokens[here].node.getBoundingClientRect(), box = get("chat").getBoundingClientRect();
    if (spot.bottom < box.top || spot.top > box.bottom) { bubble.hidden = true; return; }
    const above = spot.top - bubble.offsetHeight - 6;
    bubble.style.left = `${Math.max(4, Math.min(document.documentElement.clientWidth - bubble.offsetWidth - 4, spot.left))}px`;
    bubble.style.top = `${above > 0 ? above : spot.bottom + 6}px`;
  }

  const at = (event) => {
    const box = get("spark").getBoundingClientRect();
    return Math.round(((event.clientX - box.left) / box.width) * (tokens.length - 1));
  };
  const token = (event) => event.target.closest?.(".token");
  get("chat").addEventListener("pointerover", (event) => { const node = token(event); if (node) go(Number(node.dataset.i)); });
  get("chat").addEventListener("pointerleave", () => { get("tip").hidden = true; });
  get("chat").addEventListener("scroll", place, { passive: true });
  addEventListener("scroll", place, { passive: true });
  get("chat").addEventListener("blur", () => { get("tip").hidden = true; });
  get("chat").addEventListener("keydown", (event) => {
    const to = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: tokens.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    go(to, { scroll: true });
  });
  get("spark").addEventListener("pointermove", (event) => go(at(event), { scroll: true, tip: false }));
  get("spark").addEventListener("pointerdown", (event) => go(at(event), { scroll: true, tip: false }));
  get("episode").addEventListener("change", () => show(Number(get("episode").value)));
  get("previous").addEventListener("click", () => show(Number(get("episode").value) - 1));
  get("next").addEventListener("click", () => show(Number(get("episode").value) + 1));
  get("when").addEventListener("change", filter);
  get("which").addEventListener("change", filter);
  for (const radio of document.querySelectorAll("input[name=shade]")) radio.addEventListener("change", () => { shade = radio.value; paint(); });

  get("when").append(option("any", "Any time"));
  for (const [value, text] of Object.entries(WHEN)) if (data.episodes.some((e) => e.moment === value)) get("when").append(option(value, text));
  for (const [value, [text]] of Object.entries(WHICH)) get("which").append(option(value, text));
  get("viewer").hidden = false;
  if (data.episodes.some((e) => e.moment === "after")) get("when").value = "after";
  filter();
  // Begin with the episode whose value moved most: it shows best where the model began to know.
  const moved = shown.map((e) => { const v = e.turns.flatMap((turn) => turn.v).filter((x) => x !== null); return v.length ? Math.max(...v) - Math.min(...v) : 0; });
  if (moved.length) show(moved.indexOf(Math.max(...moved)));
})();
