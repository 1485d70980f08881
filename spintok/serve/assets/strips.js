// The last seconds of sound as three strips: waveform, spectrogram and tokens, with the newest at the right.
// screen.js comes before: colour, ramp and fitted.

const SECONDS = 10;
const ROWS = 96;
const TOP = 8000;

// Power spectrum of a windowed block of 2^n samples, by the iterative radix-2 FFT.
function spectrum(block) {
  const size = block.length;
  const real = new Float64Array(size);
  const imaginary = new Float64Array(size);
  const bits = Math.log2(size);
  for (let i = 0; i < size; i++) {
    let reversed = 0;
    for (let bit = 0; bit < bits; bit++) reversed |= ((i >> bit) & 1) << (bits - 1 - bit);
    real[reversed] = block[i] * (0.5 - 0.5 * Math.cos((2 * Math.PI * i) / size));
  }
  for (let half = 1; half < size; half *= 2)
    for (let k = 0; k < half; k++) {
      const cosine = Math.cos((Math.PI * k) / half);
      const sine = -Math.sin((Math.PI * k) / half);
      for (let i = k; i < size; i += 2 * half) {
        const j = i + half;
        const re = real[j] * cosine - imaginary[j] * sine;
        const im = real[j] * sine + imaginary[j] * cosine;
        real[j] = real[i] - re;
        imaginary[j] = imaginary[i] - im;
        real[i] += re;
        imaginary[i] += im;
      }
    }
  return Float64Array.from({ length: size / 2 }, (_, i) => real[i] ** 2 + imaginary[i] ** 2);
}

export class Strips {
  constructor(waveform, spectrogram, lane) {
    this.canvases = { waveform, spectrogram, lane };
    this.image = new OffscreenCanvas(SECONDS * 100, ROWS);
    this.start(16000);
    addEventListener("resize", () => this.paint());
  }

  start(sampleRate) {
    this.sampleRate = sampleRate;
    this.samples = new Float32Array(SECONDS * sampleRate);
    this.total = 0;
    this.columns = 0;
    this.codes = [];
    this.turns = [];
    this.size = 2 ** Math.round(Math.log2(sampleRate / 31));
    this.recolour();
  }

  recolour() {
    this.colours = Object.fromEntries(["--wash", "--accent", "--code-ink"].map((name) => [name, colour(name)]));
    this.dark = colour("--code-ink") === "rgb(255, 255, 255)";
    this.ramp = ramp("--sound");
    this.image.getContext("2d").clearRect(0, 0, this.image.width, ROWS);
    // The columns on screen are computed anew in the new colours.
    this.columns = Math.max(0, Math.ceil((this.total - this.samples.length) / this.sampleRate * 100));
    this.analyse();
    this.paint();
  }

  add(samples) {
    for (const value of samples) this.samples[this.total++ % this.samples.length] = value;
    this.analyse();
    this.paint();
  }

  tokens(start, codes, frameRate) {
    this.frameRate = frameRate;
    codes.forEach((code, i) => this.codes.push([start + i, code]));
    this.codes.splice(0, Math.max(0, this.codes.length - SECONDS * frameRate));
    this.paint();
  }

  turn(open, seconds) {
    if (open) this.turns.push([seconds, Infinity]);
    else if (this.turns.length) this.turns.at(-1)[1] = seconds;
    if (this.turns.length > 50) this.turns.shift();
    this.paint();
  }

  // New columns of the spectrogram, 100 a second.
  analyse() {
    const context = this.image.getContext("2d");
    const hop = this.sampleRate / 100;
    const block = new Float32Array(this.size);
    while (this.columns * hop + this.size <= this.total) {
      const begin = Math.round(this.columns * hop);
      for (let i = 0; i < this.size; i++) block[i] = this.samples[(begin + i) % this.samples.length];
      const power = spectrum(block);
      const pixels = context.createImageData(1, ROWS);
      for (let row = 0; row < ROWS; row++) {
        const bin = Math.min(power.length - 1, Math.round((((ROWS - row - 0.5) / ROWS) * TOP * this.size) / this.sampleRate));
        const decibels = 10 * Math.log10(power[bin] / this.size + 1e-10);
        const [r, g, b] = this.ramp[Math.max(0, Math.min(255, Math.round((decibels + 60) * 4)))];
        pixels.data.set([r, g, b, 255], 4 * row);
      }
      context.putImageData(pixels, this.columns % this.image.width, 0);
      this.columns += 1;
    }
  }

  paint() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.paintWaveform();
      this.paintSpectrogram();
      this.paintLane();
    });
  }

  // The context of a canvas in CSS pixels, and the time at its left edge.
  opened(canvas) {
    const { width, height } = canvas.getBoundingClientRect();
    const context = fitted(canvas, width, height);
    return { context, width, height, left: Math.max(0, this.total / this.sampleRate - SECONDS) };
  }

  paintWaveform() {
    const { context, width, height, left } = this.opened(this.canvases.waveform);
    context.fillStyle = this.colours["--wash"];
    for (const [begin, end] of this.turns) {
      const [a, b] = [begin, Math.min(end, this.total / this.sampleRate)].map((s) => ((s - left) / SECONDS) * width);
      if (b > 0) context.fillRect(Math.max(a, 0), 0, b - Math.max(a, 0), height);
    }
    context.fillStyle = this.colours["--accent"];
    const step = this.samples.length / width;
    for (let x = 0; x < width; x++) {
      const begin = Math.round(left * this.sampleRate + x * step);
      const end = Math.min(this.total, Math.round(left * this.sampleRate + (x + 1) * step));
      let [low, high] = [0, 0];
      for (let i = begin; i < end; i += 4) {
        const value = this.samples[i % this.samples.length];
        if (value < low) low = value;
        if (value > high) high = value;
      }
      const half = height / 2;
      context.fillRect(x, half - high * half, 1, Math.max(1, (high - low) * half));
    }
  }

  paintSpectrogram() {
    const { context, width, height, left } = this.opened(this.canvases.spectrogram);
    const first = Math.floor(left * 100);
    for (let column = first; column < this.columns; ) {
      // As far as the ring goes before it wraps.
      const at = column % this.image.width;
      const count = Math.min(this.columns - column, this.image.width - at);
      const x = ((column / 100 - left) / SECONDS) * width;
      context.drawImage(this.image, at, 0, count, ROWS, x, 0, (count / 100 / SECONDS) * width, height);
      column += count;
    }
  }

  paintLane() {
    const { context, width, height, left } = this.opened(this.canvases.lane);
    const wide = width / SECONDS / (this.frameRate ?? 50);
    context.font = "11px ui-monospace, Menlo, Consolas, monospace";
    context.textAlign = "center";
    context.textBaseline = "middle";
    for (let i = 0; i < this.codes.length; ) {
      const [frame, code] = this.codes[i];
      let count = 1;
      while (i + count < this.codes.length && this.codes[i + count][1] === code) count += 1;
      const x = ((frame / this.frameRate - left) / SECONDS) * width;
      context.fillStyle = `oklch(${this.dark ? 0.42 : 0.86} 0.09 ${(code * 137.508) % 360})`;
      context.fillRect(x, 0, Math.max(count * wide - 0.5, 0.5), height);
      if (count * wide > 7 * String(code).length + 2) {
        context.fillStyle = this.colours["--code-ink"];
        context.fillText(String(code), x + (count * wide) / 2, height / 2);
      }
      i += count;
    }
  }
}
