"use strict";
// Colours of the style sheet, and canvases in the resolution of the screen: for reports and the live page.

// A colour of the style sheet in the current theme.
function colour(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

function numbers(text) {
  return text.match(/[\d.]+/g).slice(0, 3).map(Number);
}

// 256 colours between four stops, as bytes.
function ramp(name) {
  const stops = [0, 1, 2, 3].map((i) => numbers(colour(`${name}-${i}`)));
  return Array.from({ length: 256 }, (_, level) => {
    const at = Math.min((level / 255) * 3, 2.9999);
    const [a, b] = [stops[Math.floor(at)], stops[Math.floor(at) + 1]];
    return a.map((value, i) => Math.round(value + (b[i] - value) * (at - Math.floor(at))));
  });
}

// Resize a canvas to the resolution of the screen and return its context, scaled to CSS pixels.
function fitted(canvas, width, height) {
  const scale = Math.max(1, devicePixelRatio || 1);
  const [w, h] = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}
