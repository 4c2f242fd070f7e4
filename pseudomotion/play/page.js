"use strict";
const $ = (id) => document.getElementById(id);
const SELECTS = ["transform", "resampling", "padding", "mix", "objects", "show"];
const PICTURES = { image: "file", partner: "partner-file" };
const NUMBERS = ["frames", "size", "seed", "id"];
const visitor = crypto.getRandomValues(new Uint32Array(4)).join("-");
let controls, state, running = false, waiting = false;

async function post(path, body, headers = {}) {
  const answer = await fetch(path, { method: "POST", body, headers: { "X-Pmg": "1", ...headers } });
  if (answer.ok) return answer;
  throw new Error((await answer.json()).error);
}

function complain(text) {
  $("message").textContent = text;
  $("message").hidden = !text;
}

async function refresh() {
  history.replaceState(null, "", "#" + encodeURIComponent(JSON.stringify(state)));
  if (running) { waiting = true; return; }
  running = true;
  $("busy").className = "";
  try {
    do {
      waiting = false;
      const shown = await (await post("/clip", JSON.stringify({ visitor, state }))).json();
      $("clip").src = shown.clip;
      $("code").textContent = shown.code;
      $("plan").textContent = shown.plan;
      complain("");
    } while (waiting);
  } catch (error) {
    complain(error instanceof TypeError ? "pmg-play has ended; start it again" : error.message);
  }
  running = false;
  $("busy").className = "done";
  if (waiting) refresh();
}

function choices(select, names) {
  select.replaceChildren(...names.map((name) => new Option(name.replaceAll("_", " "), name)));
}

function number(value) {
  return String(Number(value.toPrecision(4)));
}

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function rangeRows(range, values, prefix) {
  const sliders = [0, 1].map((end) => {
    const id = `${prefix}${range.name}-${end ? "high" : "low"}`;
    const slider = element("input", { id, type: "range", min: range.low, max: range.high });
    slider.step = range.whole ? 1 : (range.high - range.low) / 200;
    slider.setAttribute("list", `${id}-default`);
    slider.setAttribute("aria-describedby", `${prefix}${range.name}-about`);
    return slider;
  });
  const outputs = [element("output"), element("output")];
  const pair = () => values[range.name] ?? range.default;
  const mark = () => [0, 1].forEach((end) => {
    sliders[end].value = pair()[end];
    outputs[end].textContent = number(pair()[end]);
    outputs[end].className = pair()[end] === range.default[end] ? "default" : "";
    outputs[end].title = `default: ${number(range.default[end])}`;
  });
  sliders.forEach((slider, end) => slider.addEventListener("input", () => {
    const changed = [...pair()];
    changed[end] = Number(slider.value);
    changed[1 - end] = end ? Math.min(changed[0], changed[1]) : Math.max(changed[0], changed[1]);
    values[range.name] = changed;
    mark();
    refresh();
  }));
  mark();
  const rows = sliders.map((slider, end) => element("div", { className: "row range" },
    element("label", { htmlFor: slider.id, textContent: end ? "most" : "least", title: `${range.name}, ${end ? "most" : "least"}` }),
    slider, outputs[end], element("datalist", { id: `${slider.id}-default` }, new Option("", range.default[end]))));
  const about = element("p", { className: "about", id: `${prefix}${range.name}-about` },
    element("strong", { textContent: range.name.replaceAll("_", " ") }), `: ${range.about}`);
  return element("div", { role: "group" }, about, ...rows);
}

function drawRanges() {
  const { about, ranges } = controls.transforms[state.transform];
  $("about").textContent = about;
  $("ranges").replaceChildren(...ranges.map((range) => rangeRows(range, state.ranges, "")));
  $("object-ranges").replaceChildren(...controls.objects[state.objects].map((range) => rangeRows(range, state.object_ranges, "object-")));
}

function offer(select, value, text) {
  if (![...$(select).options].some((option) => option.value === value)) $(select).add(new Option(text, value));
}

function markShares() {
  $("crop").nextElementSibling.textContent = state.crop[0] === 1 ? "whole" : number(state.crop[0]);
  $("exposure").nextElementSibling.textContent = state.exposure === 0 ? "none" : number(state.exposure);
}

function show() {
  for (const name in PICTURES) {
    offer(name, state[name], "your picture");
    $(name).value = state[name];
  }
  for (const name of [...SELECTS, ...NUMBERS]) $(name).value = state[name];
  $("eight").checked = state.eight;
  $("crop").value = state.crop[0];
  $("exposure").value = state.exposure;
  markShares();
  drawRanges();
}

async function upload(file, use) {
  if (!file) return;
  try {
    const kept = await (await post("/upload", file, { "X-Name": JSON.stringify(file.name).replace(/[\u0080-\uffff]/g, "_") })).json();
    for (const name in PICTURES) offer(name, kept.image, kept.name);
    state[use] = kept.image;
    show();
    refresh();
  } catch (error) {
    complain(error instanceof TypeError ? "the file could not be sent; it may be too large" : error.message);
  }
}

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  const before = button.dataset.label ??= button.textContent;
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = before; }, 1200);
}

async function download(kind) {
  try {
    const file = await (await post(`/download.${kind}`, JSON.stringify({ visitor, state }))).blob();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(file);
    link.download = `${state.transform}-${state.id}.${kind}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  } catch (error) {
    complain(error.message);
  }
}

function listen() {
  for (const name of [...SELECTS, ...Object.keys(PICTURES)]) $(name).addEventListener("change", () => {
    state[name] = $(name).value;
    if (name === "transform") state.ranges = {};
    if (name === "objects") state.object_ranges = {};
    if (name === "transform" || name === "objects") drawRanges();
    refresh();
  });
  for (const name of NUMBERS) $(name).addEventListener("change", () => {
    state[name] = Math.round(Number($(name).value));
    refresh();
  });
  for (const name of ["crop", "exposure"]) $(name).addEventListener("input", () => {
    const value = Number($(name).value);
    state[name] = name === "crop" ? [value, 1] : value;
    markShares();
    refresh();
  });
  $("eight").addEventListener("change", () => { state.eight = $("eight").checked; refresh(); });
  $("another").addEventListener("click", () => { state.id += state.eight ? 8 : 1; $("id").value = state.id; refresh(); });
  $("reset").addEventListener("click", () => { state.ranges = {}; state.object_ranges = {}; drawRanges(); refresh(); });
  $("copy").addEventListener("click", () => copy($("copy"), $("code").textContent));
  $("link").addEventListener("click", () => copy($("link"), location.href));
  for (const [name, input] of Object.entries(PICTURES)) $(input).addEventListener("change", () => upload($(input).files[0], name));
  for (const button of document.querySelectorAll("[data-download]")) button.addEventListener("click", () => download(button.dataset.download));
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over"); });
  addEventListener("dragleave", () => document.body.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("over");
    upload(event.dataTransfer.files[0], event.target.closest?.("#second") ? "partner" : "image");
  });
}

async function begin() {
  controls = await (await fetch("/controls")).json();
  const defaults = () => ({ ...structuredClone(controls.defaults), image: controls.start });
  state = defaults();
  try {
    if (location.hash.length > 1) Object.assign(state, JSON.parse(decodeURIComponent(location.hash.slice(1))));
    if (!(state.transform in controls.transforms && state.objects in controls.objects)) throw new Error();
  } catch {
    state = defaults();
    complain("the link could not be read; these are the defaults");
  }
  choices($("image"), controls.images);
  choices($("partner"), controls.partners);
  choices($("transform"), Object.keys(controls.transforms));
  choices($("objects"), Object.keys(controls.objects));
  for (const name of ["resampling", "padding", "mix", "show"]) choices($(name), controls[name]);
  for (const name of ["frames", "size"]) [$(name).min, $(name).max] = controls[name];
  show();
  listen();
  refresh();
}

begin();
