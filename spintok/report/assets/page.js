// Shared by all pages: the theme, the tooltip, and charts that the pointer and the arrow keys read out.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const repaints = [];

const theme = (() => {
  const button = byId("theme");
  const wish = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (document.documentElement.dataset.theme ?? (wish.matches ? "dark" : "light")) === "dark";
  const show = () => {
    button.setAttribute("aria-pressed", String(dark()));
    repaints.forEach((paint) => paint());
  };
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    show();
  });
  wish.addEventListener("change", show);
  addEventListener("beforeprint", () => repaints.forEach((paint) => paint()));
  addEventListener("afterprint", () => repaints.forEach((paint) => paint()));
  return { show };
})();

function bytes(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

const tip = (() => {
  const box = byId("tip");
  return {
    show(text, x, y) {
      box.textContent = text;
      box.hidden = false;
      const { width, height } = box.getBoundingClientRect();
      box.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - width - 4))}px`;
      box.style.top = `${y - height - 12 < 4 ? y + 18 : y - height - 12}px`;
    },
    hide() {
      box.hidden = true;
    },
  };
})();
addEventListener("keydown", (event) => event.key === "Escape" && tip.hide());

for (const plot of document.querySelectorAll("[data-chart]")) {
  const points = data.charts[plot.dataset.chart];
  const cursor = plot.querySelector(".cursor");
  let at = 0;
  const show = (index) => {
    if (!points.length) return;
    at = Math.max(0, Math.min(index, points.length - 1));
    const [x, y, text] = points[at];
    cursor.style.left = `${100 * x}%`;
    cursor.style.bottom = `${100 * y}%`;
    cursor.hidden = false;
    plot.setAttribute("aria-valuenow", at + 1);
    plot.setAttribute("aria-valuetext", text);
    const box = plot.getBoundingClientRect();
    tip.show(text, box.left + x * box.width, box.bottom - y * box.height);
  };
  const leave = () => {
    cursor.hidden = true;
    tip.hide();
  };
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width;
    let best = 0;
    points.forEach((point, i) => (best = Math.abs(point[0] - x) < Math.abs(points[best][0] - x) ? i : best));
    show(best);
  });
  plot.addEventListener("pointerleave", leave);
  plot.addEventListener("focus", () => plot.matches(":focus-visible") && show(at));
  plot.addEventListener("blur", leave);
  plot.addEventListener("keydown", (event) => {
    const page = Math.ceil(points.length / 10);
    const to = { ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at - 1, ArrowDown: at - 1,
      PageUp: at + page, PageDown: at - page, Home: 0, End: points.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    show(to);
  });
}
