// The heat map of phones and codes, and the audio of codes.

if (data.heat) {
  const { phones, codes, frames } = data.heat;
  const share = bytes(data.heat.share);
  const canvas = byId("heat-canvas");
  const row = 13;
  const at = { code: 0, phone: 0, shown: false };
  let column = 8;

  const paint = () => {
    column = Math.max(3, Math.min(24, byId("heat-scroll").clientWidth / codes.length));
    const width = Math.round(column * codes.length);
    const height = row * phones.length;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    const colours = ramp("--heat").map((c) => `rgb(${c})`);
    const context = fitted(canvas, width, height);
    context.fillStyle = colours[0];
    context.fillRect(0, 0, width, height);
    for (let p = 0; p < phones.length; p++) {
      for (let c = 0; c < codes.length; c++) {
        const level = share[p * codes.length + c];
        if (!level) continue;
        const left = Math.round(c * column);
        context.fillStyle = colours[level];
        context.fillRect(left, p * row, Math.round((c + 1) * column) - left, row);
      }
    }
    if (at.shown) {
      context.strokeStyle = colour("--mark");
      context.lineWidth = 2;
      context.strokeRect(at.code * column, at.phone * row + 1, Math.max(column, 4), row - 2);
    }
    const scale = byId("heat-scale").getContext("2d");
    colours.forEach((value, i) => {
      scale.fillStyle = value;
      scale.fillRect(i, 0, 1, 1);
    });
  };

  const words = () => {
    const level = share[at.phone * codes.length + at.code] / 255;
    return `code ${codes[at.code]} · ${phones[at.phone]} ${(100 * level).toFixed(level && level < 0.1 ? 1 : 0)} % · `
      + `${frames[at.code].toLocaleString("en")} frames`;
  };
  const show = (code, phone) => {
    at.code = Math.max(0, Math.min(code, codes.length - 1));
    at.phone = Math.max(0, Math.min(phone, phones.length - 1));
    at.shown = true;
    byId("heat-cell").textContent = words();
    paint();
  };
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    show(Math.floor((event.clientX - box.left) / column), Math.floor((event.clientY - box.top) / row));
    tip.show(words().replaceAll(" · ", "\n"), event.clientX, event.clientY);
  });
  canvas.addEventListener("pointerleave", tip.hide);
  canvas.addEventListener("click", () => data.hear && hear.choose(codes[at.code]));
  canvas.addEventListener("focus", () => canvas.matches(":focus-visible") && show(at.code, at.phone));
  canvas.addEventListener("keydown", (event) => {
    const [dx, dy] = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1],
      Home: [-codes.length, 0], End: [codes.length, 0] }[event.key] ?? [0, 0];
    if (!dx && !dy) return;
    event.preventDefault();
    show(at.code + dx, at.phone + dy);
    const scroll = byId("heat-scroll");
    const left = at.code * column;
    if (left < scroll.scrollLeft || left + column > scroll.scrollLeft + scroll.clientWidth) {
      scroll.scrollLeft = left - scroll.clientWidth / 2;
    }
  });
  new ResizeObserver(paint).observe(byId("heat-scroll"));
  repaints.push(paint);
}

// Clips are decoded and played by Web Audio: an audio element cannot seek within so short an Ogg file.
const hear = data.hear && (() => {
  const input = byId("hear-code");
  let context = null;
  let source = null; // what is playing
  let places = [];
  let sound = null; // a promise of the decoded audio of the code
  let run = 0; // counts starts, so that a later one ends an earlier one

  const mark = (index) => {
    [...byId("hear-places").querySelectorAll("button")].forEach((button, i) => button.classList.toggle("playing", i === index));
  };
  const stop = () => {
    run += 1;
    source?.stop();
    source = null;
    mark(-1);
  };
  const playOne = (buffer, place) => new Promise((resolve) => {
    const [from, to] = byId("hear-alone").checked ? [place.start, place.end] : [place.from, place.to];
    source = context.createBufferSource();
    source.buffer = buffer;
    source.connect(context.destination);
    source.onended = resolve;
    source.start(0, from, to - from);
  });
  const play = async (indices) => {
    stop();
    const mine = run;
    context ??= new AudioContext();
    await context.resume();
    const { sound: uri } = data.hear.codes[input.value];
    sound ??= context.decodeAudioData(bytes(uri.slice(uri.indexOf(",") + 1)).buffer);
    const buffer = await sound;
    for (const index of indices) {
      if (run !== mine) return;
      mark(index);
      await playOne(buffer, places[index]);
    }
    if (run === mine) stop();
  };
  const choose = (code) => {
    stop();
    input.value = code;
    sound = null;
    const found = data.hear.codes[code];
    places = found ? found.places : [];
    byId("hear-all").disabled = !found;
    const phone = data.hear.phones[code];
    byId("hear-about").textContent = found
      ? `Code ${code}: ${data.hear.counts[code].toLocaleString("en")} tokens${phone ? `, mostly ${phone}` : ""}.`
      : `Code ${code} has no audio here: it does not occur, or is too rare.`;
    byId("hear-places").replaceChildren(...places.map((place, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "quiet";
      button.textContent = `${place.key} at ${place.time.toFixed(2)} s`;
      if (place.speaker) button.title = `Speaker ${place.speaker}`;
      button.addEventListener("click", () => play([index]));
      const row = document.createElement("li");
      row.append(button);
      return row;
    }));
  };
  input.addEventListener("input", () => input.checkValidity() && input.value !== "" && choose(Number(input.value)));
  byId("hear-all").addEventListener("click", () => play(places.map((_, index) => index)));
  choose(Number(input.value));
  return { choose, playing: () => source !== null, decoded: () => sound };
})();
theme.show();
