// Points of images on a surface, by hand: a click on the image and one on the surface, or a landmark's name.
// Stands on surface_view.js and image_view.js. What is saved is what geoframe.data.read_points reads.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const surface = {
  verts: decode(data.surface.verts, Float32Array), faces: decode(data.surface.faces, Uint32Array),
  colors: decode(data.surface.colors, Uint8Array), dots: [], name: data.surface.name,
};
const names = Object.keys(data.landmarks), element = (id) => document.getElementById(id);
const points = data.images.map((d) => d.points);  // of each image rows [x, y, vertex or name]
const history = [];  // what undo goes back to: [image, rows before]
let current = 0, pixel = null, vertex = -1;  // the halves of a point that is not complete yet
function tintOf(i) {  // as different as can be from point to point
  const hue = (i * 222.5 + 350) % 360 / 60, wave = (k) => Math.min(1, Math.max(0, Math.abs((hue + k) % 6 - 3) - 1));
  return [0, 4, 2].map((k) => 0.07 + 0.71 * wave(k));
}
const colorOf = (i) => `rgb(${tintOf(i).map((x) => Math.round(255 * x)).join(" ")})`;
const vertexOf = (answer) => typeof answer === "string" ? data.landmarks[answer] : answer;

function entries() {  // images without points are left out
  return data.images.flatMap((d, i) => points[i].length
    ? [{ image: d.name, surface: surface.name, points: points[i] }] : []);
}
function saved() { return `[\n${entries().map((e) => JSON.stringify(e)).join(",\n")}\n]\n`; }
function change(rows) {
  history.push([current, points[current]]);
  points[current] = rows;
  try { localStorage.setItem(data.key, saved()); } catch (e) { /* a browser that keeps nothing */ }
}
function add(answer) {
  const tenth = pixel.map((x) => Math.round(10 * x) / 10);
  change([...points[current], [...tenth, answer]]);
  pixel = null; vertex = -1; element("name").value = "";
}
function complete() {  // a name that is chosen waits for the image, a vertex for the image, a pixel for either
  const name = element("name").value;
  if (pixel && name) add(name); else if (pixel && vertex >= 0) add(vertex);
  update();
}
function undo() {
  if (pixel || vertex >= 0) { pixel = null; vertex = -1; } else if (history.length) {
    const [i, rows] = history.pop();
    points[i] = rows;
    go(i);
  }
  update();
}
const view = { width: 1, height: 1, source: element("s1") };
function go(i) {
  current = Math.max(0, Math.min(data.images.length - 1, i));
  const d = data.images[current];
  pixel = null; vertex = -1;
  view.source = element("s" + (current + 1));
  view.width = d.width; view.height = d.height;
  if (view.canvas) fitImage(view);
  update();
}
function take(text) {  // points saved before; of images that this page does not have nothing is taken
  const found = JSON.parse(text), listed = Array.isArray(found) ? found : found.images || [found];
  for (const e of listed) {
    const i = data.images.findIndex((d) => d.name === e.image);
    const good = (e.points || []).filter((r) => vertexOf(r[2]) >= 0 && 3 * vertexOf(r[2]) < surface.verts.length);
    if (i >= 0) points[i] = good;
  }
  history.length = 0;
}
function update() {
  const rows = points[current];
  view.marks = rows.map((r, i) => ({ at: [r[0], r[1]], color: colorOf(i), label: String(r[2]) }));
  if (pixel) view.marks.push({ at: pixel, color: "#111", hollow: true });
  surface.dots = rows.map((r) => vertexOf(r[2]));
  surface.tints = rows.map((_, i) => tintOf(i));
  surface.marked = vertex;
  element("which").textContent = `${data.images[current].name}: image ${current + 1} of ${data.images.length}, `
    + `${rows.length} points; ${entries().reduce((n, e) => n + e.points.length, 0)} in all`;
  element("hover").textContent = pixel ? "now click on the same place of the surface, or choose its landmark"
    : vertex >= 0 || element("name").value ? "now click on the same place of the image" : "";
  element("rows").replaceChildren(...rows.map((r, i) => {
    const line = document.createElement("tr"), out = document.createElement("button");
    out.textContent = "remove";
    out.onclick = () => { change(rows.filter((_, j) => j !== i)); update(); };
    for (const text of [r[2], r[0], r[1]]) line.insertCell().textContent = text;
    line.cells[0].style.color = colorOf(i);
    line.insertCell().append(out);
    return line;
  }));
  redraw(); redrawImages();
}

showImage(view, element("i1"), { pointed: () => {}, clicked: (p) => { pixel = p; complete(); } });
data.images.slice(1).forEach((_, i) => element("s" + (i + 2)).addEventListener("load", redrawImages));
show(surface, element("c1"), {
  pointed: (v) => { surface.marked = v >= 0 ? v : vertex; redraw(); },
  clicked: (v) => { vertex = v; element("name").value = ""; complete(); },
});
element("name").append(...["", ...names].map((n) => new Option(n || "a landmark\u2026", n)));
element("name").onchange = () => { if (element("name").value) vertex = -1; complete(); };
element("undo").onclick = undo;
element("before").onclick = () => go(current - 1);
element("after").onclick = () => go(current + 1);
element("save").onclick = () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([saved()], { type: "application/json" }));
  link.download = data.file;
  link.click();
};
element("load").onchange = async (e) => {
  if (e.target.files.length) { take(await e.target.files[0].text()); update(); }
};
addEventListener("keydown", (e) => {
  if (e.key === "z" && (e.ctrlKey || e.metaKey)) undo();
  if (e.key === "Escape") { pixel = null; vertex = -1; element("name").value = ""; update(); }
});
try { const kept = localStorage.getItem(data.key); if (kept) take(kept); } catch (e) { /* nothing kept */ }
start();
go(0);
