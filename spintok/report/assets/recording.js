// One recording over time. Only the part in view is drawn, so the cost does not depend on the length.

// The recording and what the tokens say; one of them is heard, and all have one clock.
const players = [...document.querySelectorAll("audio")].map((sound) => ({
  sound,
  button: sound.dataset.speaks === undefined ? byId("play") : document.querySelector(`[data-speak="${sound.dataset.speaks}"]`),
}));
for (const player of players) player.label = player.button.textContent;
let audio = byId("audio");
const scroller = byId("timeline");
const seconds = data.seconds;
const pairs = new Int8Array(bytes(data.outline.pairs).buffer);
const levels = bytes(data.mel.levels);
const MOST_ROWS = 2000;
// Pixels a second at first: a frame of 20 ms is wide enough for its number, written upwards.
const FIRST_ZOOM = 480;
const colours = {};
let spectrogram = null;
let zoom = 0; // pixels a second
let until = null; // where playing a token stops
let chosen = null; // { lane, index }

const lanes = data.lanes.map((source, number) => {
  const items = [];
  if (source.units) {
    let frame = 0;
    source.units.forEach((code, i) => {
      const end = frame + source.durations[i];
      items.push({ code, text: String(code), start: frame / source.frameRate, end: end / source.frameRate, frames: end - frame });
      frame = end;
    });
  } else {
    source.labels.forEach((label, i) => items.push({ text: label, start: source.times[i][0], end: source.times[i][1] }));
  }
  const canvas = document.querySelector(`[data-lane="${number}"]`);
  canvas.setAttribute("aria-valuemax", Math.max(items.length, 1));
  const text = document.querySelector(`[data-text="${number}"]`);
  const row = document.querySelector(`[data-row="${number}"]`);
  return { name: source.name, coded: Boolean(source.units), items, canvas, text, row };
});
const inView = () => lanes.filter((lane) => !lane.row.hidden);

const width = () => scroller.clientWidth;
const from = () => scroller.scrollLeft / zoom;
const visible = () => width() / zoom;
const clamp = (value, low, high) => Math.max(low, Math.min(value, high));
const shown = (time) => time.toFixed(time < 100 ? 3 : 2);

// The last item that starts at or before a time; -1 before the first.
function before(items, time) {
  let [low, high] = [0, items.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (items[middle].start <= time + 1e-9) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

function at(items, time) {
  const index = before(items, time);
  return index >= 0 && time < items[index].end ? index : -1;
}

function describe(lane, index) {
  const item = lane.items[index];
  const frames = item.frames ? ` (${item.frames} frame${item.frames === 1 ? "" : "s"})` : "";
  return {
    name: lane.coded ? `code ${item.code}` : item.text,
    time: `${shown(item.start)} to ${shown(item.end)} s`,
    long: `${Math.round((item.end - item.start) * 1000)} ms${frames}`,
  };
}

// Colours are computed once per theme.
function palette() {
  for (const name of ["ground", "panel", "ink", "soft", "rule", "accent", "wash", "mark", "code-ink"]) {
    colours[name] = colour(`--${name}`);
  }
  colours.codes = new Map();
  // Red, green, blue and opacity of a pixel in one number, lowest byte first.
  const pixels = Uint32Array.from(ramp("--sound"), ([r, g, b]) => (255 << 24) | (b << 16) | (g << 8) | r);
  const columns = levels.length / data.mel.bands;
  // Tiles of at most 4,096 columns.
  spectrogram = [];
  for (let first = 0; first < columns; first += 4096) {
    const wide = Math.min(4096, columns - first);
    const tile = document.createElement("canvas");
    tile.width = wide;
    tile.height = data.mel.bands;
    const context = tile.getContext("2d");
    const image = context.createImageData(wide, data.mel.bands);
    const target = new Uint32Array(image.data.buffer);
    for (let x = 0; x < wide; x++) {
      for (let band = 0; band < data.mel.bands; band++) {
        target[(data.mel.bands - 1 - band) * wide + x] = pixels[levels[(first + x) * data.mel.bands + band]];
      }
    }
    context.putImageData(image, 0, 0);
    spectrogram.push({ tile, start: first / data.mel.rate, seconds: wide / data.mel.rate });
  }
}

const chip = document.createElement("span");
chip.className = "chip";
function codeColour(code) {
  if (!colours.codes.has(code)) {
    chip.style.setProperty("--hue", ((code * 137.508) % 360).toFixed(1));
    document.body.append(chip);
    colours.codes.set(code, getComputedStyle(chip).backgroundColor);
    chip.remove();
  }
  return colours.codes.get(code);
}

function paintWave(context, left, right, wide, high, ink) {
  context.fillStyle = ink;
  const scale = high / 2 / 127;
  for (let x = 0; x < wide; x++) {
    const time = left + ((right - left) * x) / wide;
    const first = Math.floor(time * data.outline.rate);
    const last = Math.max(first + 1, Math.ceil((time + (right - left) / wide) * data.outline.rate));
    let [low, top] = [127, -127];
    for (let i = Math.max(0, first); i < Math.min(last, pairs.length / 2); i++) {
      low = Math.min(low, pairs[2 * i]);
      top = Math.max(top, pairs[2 * i + 1]);
    }
    if (low <= top) context.fillRect(x, high / 2 - top * scale, 1, Math.max(1, (top - low) * scale));
  }
}

function paintAxis() {
  const context = fitted(byId("axis"), width(), 20);
  const step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120].find((s) => s * zoom >= 64) ?? 300;
  context.font = `11px ${getComputedStyle(document.body).fontFamily}`;
  context.textBaseline = "top";
  for (let i = Math.floor(from() / step); i * step <= Math.min(from() + visible(), seconds); i++) {
    const x = (i * step - from()) * zoom;
    context.fillStyle = colours.rule;
    context.fillRect(x, 0, 1, 20);
    context.fillStyle = colours.soft;
    context.fillText(`${(i * step).toFixed(step < 0.1 ? 2 : step < 1 ? 1 : 0)} s`, x + 4, 4);
  }
}

function paintLane(lane, number) {
  if (lane.row.hidden) return;
  const high = 38;
  const context = fitted(lane.canvas, width(), high);
  const code = chosen && lanes[chosen.lane].coded && chosen.lane === number ? lane.items[chosen.index].code : null;
  context.font = `600 11px ${getComputedStyle(document.body).fontFamily}`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  let drawn = -1;
  for (let i = Math.max(0, before(lane.items, from())); i < lane.items.length; i++) {
    const item = lane.items[i];
    const x = (item.start - from()) * zoom;
    const end = (item.end - from()) * zoom;
    if (x > width()) break;
    // Only one of the runs that share a pixel is drawn.
    if (end - drawn < 1) continue;
    drawn = end;
    const wide = Math.max(end - x - (end - x > 4 ? 1 : 0), 1);
    context.fillStyle = lane.coded ? codeColour(item.code) : colours.panel;
    context.fillRect(x, 3, wide, high - 10);
    if (!lane.coded) {
      context.fillStyle = colours.soft;
      context.fillRect(x, 3, 1, high - 10);
    }
    context.fillStyle = lane.coded ? colours["code-ink"] : colours.ink;
    if (context.measureText(item.text).width + 3 <= wide) {
      context.fillText(item.text, clamp((Math.max(x, 0) + Math.min(x + wide, width())) / 2, x + 8, x + wide - 8), high / 2 - 1.5);
    } else if (lane.coded && wide >= 8) {
      // Too narrow for the number: write it upwards, so that even a token of one frame can be read.
      context.save();
      context.translate(x + wide / 2, high / 2 - 1.5);
      context.rotate(-Math.PI / 2);
      context.font = `600 ${clamp(wide, 8, 11)}px ${getComputedStyle(document.body).fontFamily}`;
      context.fillText(item.text, 0, 0.5);
      context.restore();
    }
    if (item.code === code && code !== null) {
      context.fillStyle = colours.ink;
      context.fillRect(x, high - 6, wide, 3);
    }
    if (chosen && chosen.lane === number && chosen.index === i) {
      context.strokeStyle = colours.ink;
      context.lineWidth = 2;
      context.strokeRect(x + 1, 4, Math.max(wide - 2, 1), high - 12);
    }
  }
}

function paint() {
  if (width() === 0) return;
  byId("stage").style.width = `${width()}px`;
  byId("extent").style.width = `${Math.max(seconds * zoom, width())}px`;
  paintAxis();
  const wave = fitted(byId("waveform"), width(), 72);
  paintWave(wave, from(), from() + visible(), width(), 72, colours.accent);
  const mel = fitted(byId("mel"), width(), 144);
  for (const part of spectrogram) {
    const x = (part.start - from()) * zoom;
    if (x > width() || x + part.seconds * zoom < 0) continue;
    mel.drawImage(part.tile, x, 0, part.seconds * zoom, 144);
  }
  lanes.forEach(paintLane);
  paintOverview();
  paintPlayhead();
}

function paintOverview() {
  const canvas = byId("overview");
  const [wide, high] = [canvas.clientWidth, canvas.clientHeight];
  const context = fitted(canvas, wide, high);
  const scale = wide / seconds;
  if (visible() < seconds) {
    context.fillStyle = colours.wash;
    context.fillRect(from() * scale, 0, visible() * scale, high);
  }
  paintWave(context, 0, seconds, wide, high, colours.soft);
  context.fillStyle = colours.mark;
  context.fillRect(clamp(audio.currentTime * scale - 1, 0, wide - 2), 0, 2, high);
}

function paintPlayhead() {
  const x = (audio.currentTime - from()) * zoom;
  const head = byId("playhead");
  head.hidden = x < -1 || x > width();
  head.style.left = `${x}px`;
  byId("clock").textContent = audio.currentTime.toFixed(2);
  byId("overview").setAttribute("aria-valuenow", audio.currentTime.toFixed(2));
  byId("overview").setAttribute("aria-valuetext", `${audio.currentTime.toFixed(2)} seconds`);
}

function zoomTo(next, anchor) {
  const time = anchor ?? clamp(audio.currentTime, from(), from() + visible());
  const place = (time - from()) * zoom;
  zoom = clamp(next, width() / seconds, Math.max(1200, width() / seconds));
  byId("extent").style.width = `${Math.max(seconds * zoom, width())}px`;
  scroller.scrollLeft = time * zoom - place;
  paint();
}

function seek(time) {
  until = null;
  audio.currentTime = clamp(time, 0, seconds);
  reveal(time, time);
  paintOverview();
  paintPlayhead();
}

function reveal(start, end) {
  if (start < from() || end > from() + visible()) {
    scroller.scrollLeft = (start - visible() * 0.2) * zoom;
    paint();
  }
}

function select(number, index, move = true) {
  const lane = lanes[number];
  if (!lane.items.length) return;
  chosen = { lane: number, index: clamp(index, 0, lane.items.length - 1) };
  const item = lane.items[chosen.index];
  const { name, time, long } = describe(lane, chosen.index);
  lane.canvas.setAttribute("aria-valuenow", chosen.index + 1);
  lane.canvas.setAttribute("aria-valuetext", `${name}, ${time}, ${long}`);
  const box = byId("selected");
  box.replaceChildren();
  const head = document.createElement(lane.coded ? "span" : "b");
  head.textContent = item.text;
  if (lane.coded) {
    head.className = "chip";
    head.style.setProperty("--hue", ((item.code * 137.508) % 360).toFixed(1));
  }
  const middle = (item.start + item.end) / 2;
  const others = inView().filter((other) => other !== lane && at(other.items, middle) >= 0)
    .map((other) => `${other.name} ${other.items[at(other.items, middle)].text}`);
  if (lane.coded) {
    const same = lane.items.filter((one) => one.code === item.code);
    others.unshift(`${same.indexOf(item) + 1} of ${same.length} with this code`);
  }
  const more = document.createElement("span");
  more.className = "small";
  more.textContent = others.join(" · ");
  box.append(`${lane.name} `, head, ` ${time} · ${long} `, document.createElement("br"), more);
  byId("play-selected").disabled = false;
  if (move && audio.paused) audio.currentTime = Math.min(item.start, seconds);
  markText();
  reveal(item.start, item.end);
  paint();
}

// The tokens of a row as text; long recordings have too many to show all.
function writeTokens(lane, number) {
  const box = lane.text?.querySelector(".tokens");
  if (!box || box.childElementCount) return;
  lane.items.slice(0, MOST_ROWS).forEach((item, index) => {
    const token = document.createElement("span");
    token.className = "chip";
    token.style.setProperty("--hue", ((item.code * 137.508) % 360).toFixed(1));
    token.textContent = item.text;
    token.addEventListener("click", () => select(number, index));
    box.append(token, " ");
  });
  if (lane.items.length > MOST_ROWS) box.append(`… the first ${MOST_ROWS} of ${lane.items.length}`);
}

function markText() {
  for (const mark of document.querySelectorAll(".tokens .chosen")) mark.classList.remove("chosen");
  const box = chosen && lanes[chosen.lane].text?.querySelector(".tokens");
  const token = box?.children[chosen.index];
  if (!token) return;
  token.classList.add("chosen");
  if (token.offsetTop < box.scrollTop || token.offsetTop + token.offsetHeight > box.scrollTop + box.clientHeight) {
    box.scrollTop = token.offsetTop - box.clientHeight / 2;
  }
}

function show(number, shown) {
  const lane = lanes[number];
  lane.row.hidden = !shown;
  if (lane.text) lane.text.hidden = !shown;
  if (shown) writeTokens(lane, number);
  if (!shown && chosen?.lane === number) {
    chosen = null;
    byId("play-selected").disabled = true;
    byId("selected").textContent = "Nothing is selected.";
  }
  if (zoom > 0) paint();
}

function playChosen() {
  if (!chosen) return;
  const item = lanes[chosen.lane].items[chosen.index];
  audio.currentTime = item.start;
  until = item.end;
  audio.play();
}

// Hear another player, from where this one is; it plays on if this one plays.
function hear(sound) {
  if (sound === audio) return;
  const [last, playing] = [audio, !audio.paused];
  audio = sound;
  audio.currentTime = last.currentTime;
  if (playing) {
    last.pause();
    audio.play();
  }
}

function toggle() {
  until = null;
  if (audio.paused) audio.play();
  else audio.pause();
}

function follow() {
  if (until !== null && audio.currentTime >= until) {
    audio.pause();
    until = null;
  }
  if (audio.currentTime > from() + visible() || audio.currentTime < from()) {
    scroller.scrollLeft = audio.currentTime * zoom - width() * 0.05;
    paint();
  }
  paintOverview();
  paintPlayhead();
  if (!audio.paused) requestAnimationFrame(follow);
}

for (const { sound, button, label } of players) {
  for (const [type, playing] of [["play", true], ["pause", false], ["ended", false]]) {
    sound.addEventListener(type, () => {
      button.textContent = playing ? "Pause" : label;
      button.setAttribute("aria-pressed", String(playing));
      if (sound === audio) follow();
    });
  }
  sound.addEventListener("seeked", paintPlayhead);
  button.addEventListener("click", () => {
    const plays = sound === audio && !audio.paused;
    until = null;
    hear(sound);
    if (plays) audio.pause();
    else audio.play();
  });
}
byId("play-selected").addEventListener("click", playChosen);
byId("zoom-in").addEventListener("click", () => zoomTo(zoom * 1.6));
byId("zoom-out").addEventListener("click", () => zoomTo(zoom / 1.6));
byId("zoom-fit").addEventListener("click", () => zoomTo(0));
scroller.addEventListener("scroll", () => requestAnimationFrame(paint));

const timeOf = (canvas, event) => from() + (event.clientX - canvas.getBoundingClientRect().left) / zoom;

for (const id of ["waveform", "mel"]) byId(id).addEventListener("click", (event) => seek(timeOf(byId(id), event)));

lanes.forEach((lane, number) => {
  lane.canvas.addEventListener("click", (event) => {
    const time = timeOf(lane.canvas, event);
    const index = at(lane.items, time);
    if (index >= 0) select(number, index);
    else seek(time);
  });
  lane.canvas.addEventListener("focus", () => {
    if (lane.canvas.matches(":focus-visible") && chosen?.lane !== number) {
      select(number, Math.max(0, before(lane.items, audio.currentTime)), false);
    }
  });
  lane.canvas.addEventListener("keydown", (event) => {
    const index = chosen?.lane === number ? chosen.index : before(lane.items, audio.currentTime);
    const to = { ArrowRight: index + 1, ArrowLeft: index - 1, PageDown: index + 10, PageUp: index - 10,
      Home: 0, End: lane.items.length - 1 }[event.key];
    if (to !== undefined) select(number, to);
    else if (event.key === "Enter") playChosen();
    else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      const rows = inView();
      const next = rows[rows.indexOf(lane) + (event.key === "ArrowUp" ? -1 : 1)];
      if (next) {
        const item = lane.items[index];
        select(lanes.indexOf(next), before(next.items, item ? (item.start + item.end) / 2 : 0));
        next.canvas.focus();
      }
    } else return;
    event.preventDefault();
  });
  lane.canvas.setAttribute("aria-valuenow", "1");
  lane.canvas.setAttribute("aria-valuetext", lane.items.length ? Object.values(describe(lane, 0)).join(", ") : "empty");
});

byId("stage").addEventListener("pointermove", (event) => {
  const line = byId("hairline");
  const time = timeOf(byId("stage"), event);
  line.hidden = event.pointerType === "touch" || time > seconds;
  line.style.left = `${(time - from()) * zoom}px`;
  const lane = lanes.find((one) => one.canvas === event.target);
  const index = lane ? at(lane.items, time) : -1;
  if (index >= 0) {
    const { name, time: when, long } = describe(lane, index);
    tip.show(`${lane.name}: ${name}\n${when}\n${long}`, event.clientX, event.clientY);
  } else if (event.target.id === "waveform" || event.target.id === "mel") tip.show(`${shown(time)} s`, event.clientX, event.clientY);
  else tip.hide();
});
byId("stage").addEventListener("pointerleave", () => {
  byId("hairline").hidden = true;
  tip.hide();
});
scroller.addEventListener("wheel", (event) => {
  if (!event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  zoomTo(zoom * Math.exp(-event.deltaY / 200), timeOf(byId("stage"), event));
}, { passive: false });

const overview = byId("overview");
const drag = (event) => {
  if (event.type === "pointermove" && !event.buttons) return;
  const box = overview.getBoundingClientRect();
  seek(((event.clientX - box.left) / box.width) * seconds);
};
overview.addEventListener("pointerdown", drag);
overview.addEventListener("pointermove", drag);
overview.addEventListener("keydown", (event) => {
  const now = audio.currentTime;
  const to = { ArrowRight: now + 1, ArrowUp: now + 1, ArrowLeft: now - 1, ArrowDown: now - 1, PageUp: now + 10,
    PageDown: now - 10, Home: 0, End: seconds }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  seek(to);
});

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  // On a button the space bar presses it.
  if (event.key === " " && event.target.closest("button, summary")) return;
  if (event.key === " ") toggle();
  else if (event.key.toLowerCase() === "s" && players.length > 1) {
    const place = players.findIndex(({ sound }) => sound === audio);
    hear(players[(place + 1) % players.length].sound);
  }
  else if (event.key === "+" || event.key === "=") zoomTo(zoom * 1.6);
  else if (event.key === "-") zoomTo(zoom / 1.6);
  else if (event.key === "0") zoomTo(0);
  else return;
  event.preventDefault();
});

for (const details of document.querySelectorAll("[data-table]")) {
  // A table is filled when it is first opened, because a long recording has tens of thousands of rows.
  details.addEventListener("toggle", () => {
    if (!details.open || details.querySelector("table")) return;
    const lane = lanes[details.dataset.table];
    const table = document.createElement("table");
    const head = table.createTHead().insertRow();
    for (const name of [lane.coded ? "code" : "label", "start, s", "end, s", "duration"]) {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = name;
      head.append(cell);
    }
    const body = table.createTBody();
    lane.items.slice(0, MOST_ROWS).forEach((item, index) => {
      const line = body.insertRow();
      for (const text of [item.text, shown(item.start), shown(item.end), describe(lane, index).long]) {
        line.insertCell().textContent = text;
      }
    });
    const box = document.createElement("div");
    box.className = "scroll";
    box.tabIndex = 0;
    box.append(table);
    details.append(box);
    if (lane.items.length > MOST_ROWS) {
      const rest = document.createElement("p");
      rest.className = "small";
      rest.textContent = `The first ${MOST_ROWS} of ${lane.items.length}; spintok encode writes all.`;
      details.append(rest);
    }
  });
}

for (const button of document.querySelectorAll("[data-show]")) {
  button.addEventListener("click", () => {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(shown));
    show(Number(button.dataset.show), shown);
  });
}
lanes.forEach((lane, number) => !lane.row.hidden && writeTokens(lane, number));

repaints.push(() => {
  palette();
  if (zoom > 0) paint();
});
new ResizeObserver(() => zoomTo(zoom || FIRST_ZOOM)).observe(scroller);
theme.show();
