"use strict";
const $ = (id) => document.getElementById(id);
const SELECTS = ["transform", "resampling", "padding", "mix", "objects", "show"];
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

function drawRanges() {
  const rows = controls.transforms[state.transform].flatMap((range) => [0, 1].map((end) => {
    const row = document.createElement("div"), label = document.createElement("label");
    const slider = document.createElement("input"), output = document.createElement("output");
    row.className = "row";
    slider.id = label.htmlFor = `${range.name}-${end ? "high" : "low"}`;
    label.textContent = `${range.name.replaceAll("_", " ")}, ${end ? "most" : "least"}`;
    Object.assign(slider, { type: "range", min: range.low, max: range.high, step: (range.high - range.low) / 200 });
    const value = () => (state.ranges[range.name] ?? range.default)[end];
    const mark = () => {
      output.textContent = number(value());
      output.className = value() === range.default[end] ? "default" : "";
      output.title = `default: ${number(range.default[end])}`;
    };
    slider.value = value();
    slider.addEventListener("input", () => {
      const pair = [...(state.ranges[range.name] ?? range.default)];
      pair[end] = Number(slider.value);
      pair[1 - end] = end ? Math.min(pair[0], pair[1]) : Math.max(pair[0], pair[1]);
      state.ranges[range.name] = pair;
      const other = $(`${range.name}-${end ? "low" : "high"}`);
      other.value = pair[1 - end];
      other.dispatchEvent(new Event("mark"));
      mark();
      refresh();
    });
    slider.addEventListener("mark", mark);
    mark();
    row.append(label, slider, output);
    return row;
  }));
  $("ranges").replaceChildren(...rows);
}

function show() {
  if (![...$("image").options].some((option) => option.value === state.image)) $("image").add(new Option("your picture", state.image));
  $("image").value = state.image;
  for (const name of [...SELECTS, ...NUMBERS]) $(name).value = state[name];
  $("eight").checked = state.eight;
  $("crop").value = state.crop[0];
  $("crop").nextElementSibling.textContent = state.crop[0] === 1 ? "whole" : number(state.crop[0]);
  drawRanges();
}

async function upload(file) {
  if (!file) return;
  try {
    const kept = await (await post("/upload", file, { "X-Name": JSON.stringify(file.name).replace(/[\u0080-\uffff]/g, "_") })).json();
    $("image").add(new Option(kept.name, kept.image));
    state.image = kept.image;
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
  for (const name of [...SELECTS, "image"]) $(name).addEventListener("change", () => {
    state[name] = $(name).value;
    if (name === "transform") { state.ranges = {}; drawRanges(); }
    refresh();
  });
  for (const name of NUMBERS) $(name).addEventListener("change", () => {
    state[name] = Math.round(Number($(name).value));
    refresh();
  });
  $("crop").addEventListener("input", () => {
    state.crop = [Number($("crop").value), 1];
    $("crop").nextElementSibling.textContent = state.crop[0] === 1 ? "whole" : number(state.crop[0]);
    refresh();
  });
  $("eight").addEventListener("change", () => { state.eight = $("eight").checked; refresh(); });
  $("another").addEventListener("click", () => { state.id += state.eight ? 8 : 1; $("id").value = state.id; refresh(); });
  $("reset").addEventListener("click", () => { state.ranges = {}; drawRanges(); refresh(); });
  $("copy").addEventListener("click", () => copy($("copy"), $("code").textContent));
  $("link").addEventListener("click", () => copy($("link"), location.href));
  $("file").addEventListener("change", () => upload($("file").files[0]));
  for (const button of document.querySelectorAll("[data-download]")) button.addEventListener("click", () => download(button.dataset.download));
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over"); });
  addEventListener("dragleave", () => document.body.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("over");
    upload(event.dataTransfer.files[0]);
  });
}

async function begin() {
  controls = await (await fetch("/controls")).json();
  state = { ...controls.defaults, ranges: {}, image: controls.start };
  try {
    if (location.hash.length > 1) Object.assign(state, JSON.parse(decodeURIComponent(location.hash.slice(1))));
    if (!(state.transform in controls.transforms)) throw new Error();
  } catch {
    state = { ...controls.defaults, ranges: {}, image: controls.start };
    complain("the link could not be read; these are the defaults");
  }
  choices($("image"), controls.images);
  choices($("transform"), Object.keys(controls.transforms));
  for (const name of SELECTS.slice(1)) choices($(name), controls[name]);
  for (const name of ["frames", "size"]) [$(name).min, $(name).max] = controls[name];
  show();
  listen();
  refresh();
}

begin();
