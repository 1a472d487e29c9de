// Clouds with their keypoints on 2D canvases, all turned together.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const floats = s => new Float32Array(Uint8Array.from(atob(s), c => c.charCodeAt(0)).buffer);
let turn = 0.6, down = 0.35;
const grid = document.getElementById("grid");
const views = data.clouds.map(c => {
  const figure = document.createElement("figure"), canvas = document.createElement("canvas");
  const caption = document.createElement("figcaption");
  caption.textContent = c.name; figure.append(canvas, caption); grid.append(figure);
  return { canvas, p: floats(c.p), k: floats(c.k) };
});
function project(a, size) {
  const out = [], ct = Math.cos(turn), st = Math.sin(turn), cd = Math.cos(down), sd = Math.sin(down);
  for (let i = 0; i < a.length; i += 3) {
    const near = ct * a[i] - st * a[i + 1], right = st * a[i] + ct * a[i + 1], up = a[i + 2];
    const high = cd * up - sd * near, s = 0.46 * size;
    out.push([size / 2 + s * right, size / 2 - s * high, cd * near + sd * up, i / 3]);
  }
  return out.sort((x, y) => x[2] - y[2]);
}
function draw() {
  for (const v of views) {
    const size = v.canvas.clientWidth * devicePixelRatio;
    v.canvas.width = v.canvas.height = size;
    const g = v.canvas.getContext("2d");
    for (const [x, y, z] of project(v.p, size)) {
      const t = Math.round(130 + 95 * Math.min(1, Math.max(0, (1 - z) / 2)));
      g.fillStyle = `rgb(${t - 12},${t - 5},${t + 5})`;
      g.beginPath(); g.arc(x, y, size * 0.006, 0, 7); g.fill();
    }
    g.textAlign = "center"; g.textBaseline = "middle"; g.font = `${size * 0.034}px system-ui`;
    for (const [x, y, z, i] of project(v.k, size)) {
      g.fillStyle = data.colors[i]; g.strokeStyle = "#333"; g.lineWidth = size * 0.004;
      g.beginPath(); g.arc(x, y, size * (0.025 + 0.005 * z), 0, 7); g.fill(); g.stroke();
      g.fillStyle = data.inks[i]; g.fillText(i, x, y);
    }
  }
}
let at = null;
addEventListener("pointerdown", e => { if (e.target.tagName === "CANVAS") at = [e.clientX, e.clientY]; });
addEventListener("pointerup", () => { at = null; });
addEventListener("pointermove", e => {
  if (!at) return;
  turn += (e.clientX - at[0]) * -0.01;
  down = Math.max(-1.5, Math.min(1.5, down + (e.clientY - at[1]) * 0.01));
  at = [e.clientX, e.clientY];
  requestAnimationFrame(draw);
});
addEventListener("resize", draw);
draw();
