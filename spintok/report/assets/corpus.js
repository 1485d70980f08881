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

const hear = data.hear && (() => {
  const audio = byId("hear-audio");
  const input = byId("hear-code");
  let places = [];
  let queue = [];
  let end = 0;

  const next = () => {
    for (const mark of document.querySelectorAll("#hear-places .playing")) mark.classList.remove("playing");
    if (!queue.length) return audio.pause();
    const index = queue.shift();
    const alone = byId("hear-alone").checked;
    const place = places[index];
    end = alone ? place.end : place.to;
    audio.currentTime = alone ? place.start : place.from;
    byId("hear-places").children[index].querySelector("button").classList.add("playing");
    audio.play();
  };
  const follow = () => {
    if (audio.paused) return;
    if (audio.currentTime >= end) next();
    requestAnimationFrame(follow);
  };
  audio.addEventListener("play", follow);
  audio.addEventListener("ended", next);

  const play = (indices) => {
    queue = indices;
    next();
  };
  const choose = (code) => {
    audio.pause();
    queue = [];
    input.value = code;
    const found = data.hear.codes[code];
    places = found ? found.places : [];
    byId("hear-all").disabled = !found;
    const phone = data.hear.phones[code];
    byId("hear-about").textContent = found
      ? `Code ${code}: ${data.hear.counts[code].toLocaleString("en")} tokens${phone ? `, mostly ${phone}` : ""}.`
      : `Code ${code} has no audio here: it does not occur, or is too rare.`;
    if (found) audio.src = found.sound;
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
  return { choose };
})();
theme.show();
