// The live page: sound from the microphone or a file goes to the server, tokens come back and are drawn as they arrive.

import { Strips } from "./strips.js";

const byId = (id) => document.getElementById(id);
const settings = JSON.parse(document.body.dataset.settings);
const strips = new Strips(byId("waveform"), byId("spectrogram"), byId("lane"));

let session = null;

// --- The theme ---------------------------------------------------------------------------------------------------

const wish = matchMedia("(prefers-color-scheme: dark)");
const dark = () => (document.documentElement.dataset.theme ?? (wish.matches ? "dark" : "light")) === "dark";

function showTheme() {
  byId("theme").setAttribute("aria-pressed", String(dark()));
  strips.recolour();
}

byId("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = dark() ? "light" : "dark";
  showTheme();
});
wish.addEventListener("change", showTheme);

// --- What the page says ------------------------------------------------------------------------------------------

function say(text, error = false) {
  const status = byId("status");
  status.textContent = text;
  status.classList.toggle("error", error);
}

function median(values, share = 0.5) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}

// --- A session ---------------------------------------------------------------------------------------------------

class Session {
  constructor(sampleRate, label) {
    this.sampleRate = sampleRate;
    this.sent = 0;
    this.units = 0;
    this.last = null;
    this.waits = [];
    this.times = [];
    this.turns = 0;
    this.stops = [];
    this.ready = new Promise((resolve, reject) => ([this.resolve, this.reject] = [resolve, reject]));
    this.ready.catch(() => {});
    strips.start(sampleRate);
    byId("units").textContent = "";
    byId("rate").textContent = `${sampleRate / 1000} kHz`;
    byId("count").textContent = "0";
    byId("microphone").disabled = byId("file").disabled = true;
    byId("stop").disabled = false;
    say(label);

    const address = new URL("stream", location.href);
    address.protocol = address.protocol.replace("http", "ws");
    address.hash = "";
    this.socket = new WebSocket(address);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () =>
      this.socket.send(JSON.stringify({ type: "start", sample_rate: sampleRate, format: "s16le",
        turns: settings.turns, voice: byId("voice")?.value || null }));
    this.socket.onmessage = (event) => this.receive(event.data);
    this.socket.onclose = (event) => this.closed(event);
  }

  // Samples in -1 ... 1, sent as 16-bit PCM.
  send(samples) {
    if (this.ending || this.socket.readyState !== WebSocket.OPEN) return;
    const pcm = new DataView(new ArrayBuffer(2 * samples.length));
    samples.forEach((value, i) => pcm.setInt16(2 * i, Math.max(-32768, Math.min(32767, Math.round(32768 * value))), true));
    this.socket.send(pcm.buffer);
    this.sent += samples.length;
    this.times.push([this.sent / this.sampleRate, performance.now()]);
    strips.add(samples);
    byId("heard").textContent = `${(this.sent / this.sampleRate).toFixed(1)} s`;
  }

  end() {
    if (this.ending) return;
    this.ending = true;
    this.stops.splice(0).forEach((stop) => stop());
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ type: "end" }));
    else this.socket.close();
  }

  receive(message) {
    if (typeof message !== "string") {
      this.play(message);
      return;
    }
    const answer = JSON.parse(message);
    if (answer.type === "ready") this.resolve(answer);
    else if (answer.type === "tokens") this.tokens(answer);
    else if (answer.type === "speech_start" || answer.type === "speech_end") this.turn(answer);
    else if (answer.type === "end") this.finished = true;
    else if (answer.type === "error") this.reason = answer.reason;
  }

  tokens({ start, codes, units, durations, continues }) {
    strips.tokens(start, codes, settings.frameRate);
    const fresh = continues ? units.slice(1) : units;
    this.units += fresh.length;
    const text = byId("units");
    const atEnd = text.scrollTop + text.clientHeight >= text.scrollHeight - 4;
    text.append(fresh.map((unit) => `${unit} `).join(""));
    // A long session keeps what fits some screens; the server holds nothing back.
    while (text.childNodes.length > 400) text.firstChild.remove();
    if (atEnd) text.scrollTop = text.scrollHeight;

    // From the moment that the last frame's sound had been sent to the arrival of its token.
    const end = (start + codes.length) / settings.frameRate;
    while (this.times.length > 1 && this.times[0][0] < end) this.times.shift();
    if (this.times.length && !this.ending) {
      this.waits.push(performance.now() - this.times[0][1]);
      if (this.waits.length > 100) this.waits.shift();
      byId("wait").textContent = `${Math.round(median(this.waits))} ms`;
      byId("slow").textContent = `${Math.round(median(this.waits, 0.95))} ms`;
    }
    byId("count").textContent = String(this.units);
    byId("per-second").textContent = durations.length ? (this.units / Math.max(end, 0.02)).toFixed(1) : "–";
  }

  turn({ type, seconds }) {
    const open = type === "speech_start";
    if (open) this.turns += 1;
    if (byId("turn")) {
      byId("turn").textContent = open ? "open" : "closed";
      byId("turns").textContent = String(this.turns);
    }
    strips.turn(open, seconds);
  }

  // What the tokens say: 16-bit samples, one piece after the other.
  play(content) {
    this.player ??= new AudioContext({ sampleRate: settings.sampleRate });
    const pcm = new DataView(content);
    const buffer = this.player.createBuffer(1, content.byteLength / 2, settings.sampleRate);
    const samples = buffer.getChannelData(0);
    for (let i = 0; i < samples.length; i++) samples[i] = pcm.getInt16(2 * i, true) / 32768;
    const source = this.player.createBufferSource();
    source.buffer = buffer;
    source.connect(this.player.destination);
    this.playAt = Math.max(this.playAt ?? 0, this.player.currentTime + 0.05);
    source.start(this.playAt);
    this.playAt += buffer.duration;
  }

  closed(event) {
    this.stops.splice(0).forEach((stop) => stop());
    this.reject(new Error("closed"));
    if (session === this) session = null;
    byId("microphone").disabled = byId("file").disabled = false;
    byId("stop").disabled = true;
    if (this.finished) say(`${this.units} units of ${(this.sent / this.sampleRate).toFixed(1)} s.`);
    else say(this.reason ?? (event.reason || "The server closed the connection."), true);
  }
}

// --- Sound -------------------------------------------------------------------------------------------------------

async function microphone() {
  if (session) return;
  byId("microphone").disabled = byId("file").disabled = true;
  try {
    const media = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
    });
    const context = new AudioContext();
    await context.audioWorklet.addModule("recorder.js");
    session = new Session(context.sampleRate, "Listening.");
    const current = session;
    current.stops.push(() => media.getTracks().forEach((track) => track.stop()), () => context.close());
    await current.ready;
    const recorder = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
    recorder.port.onmessage = ({ data }) => current.send(data);
    context.createMediaStreamSource(media).connect(recorder);
    await context.resume();
  } catch (error) {
    failed(error, "The microphone cannot be used");
  }
}

async function file(chosen) {
  if (session || !chosen) return;
  byId("microphone").disabled = byId("file").disabled = true;
  try {
    // An offline context decodes without an output device.
    const decoder = new OfflineAudioContext(1, 1, settings.sampleRate);
    const audio = await decoder.decodeAudioData(await chosen.arrayBuffer());
    const samples = new Float32Array(audio.length);
    for (let channel = 0; channel < audio.numberOfChannels; channel++)
      audio.getChannelData(channel).forEach((value, i) => (samples[i] += value / audio.numberOfChannels));
    session = new Session(audio.sampleRate, `Playing ${chosen.name}.`);
    const current = session;
    await current.ready;
    // As fast as it would be heard, so that what is seen is what a microphone would give.
    const begin = performance.now();
    const step = audio.sampleRate / 25;
    let at = 0;
    const timer = setInterval(() => {
      const due = Math.min(samples.length, ((performance.now() - begin) / 1000) * audio.sampleRate);
      while (at < due && !current.ending) {
        current.send(samples.subarray(at, Math.min(at + step, samples.length)));
        at += step;
      }
      if (at >= samples.length) current.end();
    }, 40);
    current.stops.push(() => clearInterval(timer));
  } catch (error) {
    failed(error, `${chosen.name} cannot be read as audio`);
  }
}

function failed(error, what) {
  // A session that was refused has said why.
  if (error.message === "closed") return;
  session?.end();
  byId("microphone").disabled = byId("file").disabled = false;
  say(`${what}: ${error.message}`, true);
}

byId("microphone").addEventListener("click", microphone);
byId("file").addEventListener("change", (event) => {
  file(event.target.files[0]);
  event.target.value = "";
});
byId("stop").addEventListener("click", () => session?.end());
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("button, input, label")) return;
  const key = event.key.toLowerCase();
  if (key === "m") microphone();
  else if (key === "f") byId("file").click();
  else if (key === " " && session) {
    event.preventDefault();
    session.end();
  } else if (key === "d") byId("theme").click();
});
showTheme();
