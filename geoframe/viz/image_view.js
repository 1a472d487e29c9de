// An image on a canvas: zoomed with the wheel, moved with the pointer, its places pointed at and clicked on.
// Stands on surface_view.js. A page makes objects {width, height, source, over} in pixels of the image, where
// `source` is an <img> of any size, and calls `showImage` for each.
"use strict";
const images = [];
function unitOf(v) {  // pixels of the screen a pixel of the image
  return v.zoom * Math.min(v.canvas.clientWidth / v.width, v.canvas.clientHeight / v.height);
}
function toImage(v, x, y) {
  const u = unitOf(v);
  return [v.at[0] + (x - v.canvas.clientWidth / 2) / u, v.at[1] + (y - v.canvas.clientHeight / 2) / u];
}
function toScreen(v, x, y) {
  const u = unitOf(v);
  return [v.canvas.clientWidth / 2 + u * (x - v.at[0]), v.canvas.clientHeight / 2 + u * (y - v.at[1])];
}
function inside(v, [x, y]) { return x >= 0 && y >= 0 && x <= v.width && y <= v.height; }
function fitImage(v) { v.zoom = 1; v.at = [v.width / 2, v.height / 2]; }
function drawImageView(v) {
  const { canvas } = v, ratio = devicePixelRatio, u = unitOf(v), g = canvas.getContext("2d");
  const [w, h] = [canvas.clientWidth, canvas.clientHeight].map((x) => Math.max(1, Math.round(x * ratio)));
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  const [left, top] = toScreen(v, 0, 0);
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.clearRect(0, 0, w, h);
  g.imageSmoothingEnabled = u < 3;
  if (v.source.complete) g.drawImage(v.source, left, top, u * v.width, u * v.height);
  if (v.over) {
    g.globalAlpha = v.opacity;
    g.drawImage(v.over, left, top, u * v.width, u * v.height);
    g.globalAlpha = 1;
  }
  for (const m of v.marks) {  // {at: [x, y], color, label, hollow}
    const [x, y] = toScreen(v, ...m.at);
    g.beginPath(); g.arc(x, y, 5.5, 0, 7); g.lineWidth = 2; g.strokeStyle = m.hollow ? m.color : "#fff";
    g.fillStyle = m.color;
    if (!m.hollow) g.fill();
    g.stroke();
    if (m.label) {
      g.font = "13px system-ui"; g.textBaseline = "middle"; g.lineWidth = 3; g.strokeStyle = "#fff";
      g.strokeText(m.label, x + 10, y); g.fillText(m.label, x + 10, y);
    }
  }
}
let imagesWaiting = false;
function redrawImages() {
  if (imagesWaiting) return;
  imagesWaiting = true;
  requestAnimationFrame(() => { imagesWaiting = false; images.forEach(drawImageView); });
}
function showImage(v, canvas, on) {  // on.pointed([x, y] or null), on.clicked([x, y])
  Object.assign(v, { canvas, marks: v.marks || [], opacity: 0.6 });
  fitImage(v);
  images.push(v);
  const place = (x, y) => { const p = toImage(v, x, y); return inside(v, p) ? p : null; };
  listen(canvas, {
    pointed: (x, y) => on.pointed(place(x, y)), left: () => on.pointed(null),
    clicked: (x, y) => { const p = place(x, y); if (p && on.clicked) on.clicked(p); },
    moved: (dx, dy) => { const u = unitOf(v); v.at = [v.at[0] - dx / u, v.at[1] - dy / u]; redrawImages(); },
    turned: (factor, e) => {  // what is under the pointer stays there
      const before = toImage(v, e.offsetX, e.offsetY);
      v.zoom = Math.min(40, Math.max(0.5, v.zoom * factor));
      const after = toImage(v, e.offsetX, e.offsetY);
      v.at = [v.at[0] + before[0] - after[0], v.at[1] + before[1] - after[1]];
      redrawImages();
    },
  });
  v.source.addEventListener("load", redrawImages);
  redrawImages();
}
addEventListener("resize", redrawImages);
