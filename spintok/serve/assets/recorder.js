"use strict";
// Runs in the audio thread: collects samples and posts them 20 ms at a time.
class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Float32Array(Math.round(sampleRate / 50));
    this.filled = 0;
  }

  process([channels]) {
    const samples = channels[0];
    if (!samples) return true;
    for (let at = 0; at < samples.length; ) {
      const count = Math.min(samples.length - at, this.block.length - this.filled);
      this.block.set(samples.subarray(at, at + count), this.filled);
      this.filled += count;
      at += count;
      if (this.filled === this.block.length) {
        this.port.postMessage(this.block.slice());
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("recorder", Recorder);
