// Images and the surface they show, linked by the pointer. Stands on surface_view.js and image_view.js.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const surface = {
  verts: decode(data.surface.verts, Float32Array), faces: decode(data.surface.faces, Uint32Array),
  colors: decode(data.surface.colors, Uint8Array), dots: data.surface.landmarks, name: data.surface.name,
};
const said = document.getElementById("hover");
const views = data.images.map((d, i) => {
  const v = {
    width: d.width, height: d.height, source: document.getElementById("s" + (i + 1)), name: d.name,
    vertex: decode(d.vertex, Int32Array), sure: decode(d.confidence, Uint8Array), rows: d.rows, columns: d.columns,
  };
  v.pixels = [...v.vertex.keys()].filter((p) => v.vertex[p] >= 0);
  const over = document.createElement("canvas").getContext("2d");
  over.canvas.width = v.columns; over.canvas.height = v.rows;
  const picture = over.createImageData(v.columns, v.rows);
  for (const p of v.pixels) {
    const c = 3 * v.vertex[p];
    picture.data.set([surface.colors[c], surface.colors[c + 1], surface.colors[c + 2], 70 + v.sure[p] * 185 / 255], 4 * p);
  }
  over.putImageData(picture, 0, 0);
  v.over = over.canvas;
  return v;
});

function placeOf(v, p) {  // the middle of a pixel of the map, in the image
  return [(p % v.columns + 0.5) * v.width / v.columns, (Math.floor(p / v.columns) + 0.5) * v.height / v.rows];
}
function seen(v, vertex) {  // the pixel that shows the place nearest to a vertex, or -1 where none is near
  const at = surface.verts.subarray(3 * vertex, 3 * vertex + 3);
  let best = -1, least = data.near ** 2;
  for (const p of v.pixels) {
    const w = 3 * v.vertex[p], x = surface.verts[w] - at[0], y = surface.verts[w + 1] - at[1], z = surface.verts[w + 2] - at[2];
    const far = x * x + y * y + z * z;
    if (far < least) { least = far; best = p; }
  }
  return best;
}
function mark(vertex, from, at) {  // everywhere the same place of the surface; `from` is the image pointed at
  surface.marked = vertex;
  let where = 0;
  for (const v of views) {
    const p = v === from || vertex < 0 ? -1 : seen(v, vertex);
    where += p >= 0;
    v.marks = v === from && at ? [{ at, color: "#111" }] : p < 0 ? [] : [{ at: placeOf(v, p), color: "#111" }];
  }
  redraw(); redrawImages();
  return where;
}
views.forEach((v, i) => showImage(v, document.getElementById("i" + (i + 1)), {
  pointed: (at) => {
    const p = at && Math.min(v.rows - 1, Math.floor(at[1] / v.height * v.rows)) * v.columns
      + Math.min(v.columns - 1, Math.floor(at[0] / v.width * v.columns));
    const vertex = at ? v.vertex[p] : -1;
    mark(vertex, v, vertex < 0 ? null : at);
    said.textContent = vertex < 0 ? "" : `${v.name} pixel (${at.map((x) => x.toFixed(1)).join(", ")}) \u2192 `
      + `${surface.name} vertex ${vertex}, confidence ${(v.sure[p] / 255).toFixed(2)}`;
  },
}));
show(surface, document.getElementById("c1"), {
  pointed: (vertex) => {
    const n = mark(vertex, null, null);
    said.textContent = vertex < 0 ? "" : `${surface.name} vertex ${vertex}, seen in ${n} of ${views.length} images`;
  },
});
document.getElementById("opacity").oninput = (e) => {
  views.forEach((v) => { v.opacity = Number(e.target.value); }); redrawImages();
};
start();
