// Two surfaces with one camera; pointing at a vertex shows its partner. Stands on surface_view.js.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const surfaces = data.surfaces.map((s) => ({
  verts: decode(s.verts, Float32Array), faces: decode(s.faces, Uint32Array), partner: decode(s.partner, Uint32Array),
  dots: s.landmarks, name: s.name,
}));
// colours belong to surface 1; surface 2 pulls them back: colors2 = colors1[p2p_21]
surfaces[0].colors = decode(data.colors, Uint8Array);
surfaces[1].colors = new Uint8Array(3 * surfaces[1].partner.length);
surfaces[1].partner.forEach((p, i) => {
  for (let c = 0; c < 3; c++) surfaces[1].colors[3 * i + c] = surfaces[0].colors[3 * p + c];
});

function hover(which, v) {
  const s = surfaces[which], other = surfaces[1 - which], text = document.getElementById("hover");
  s.marked = v;
  other.marked = v < 0 ? -1 : s.partner[v];
  text.textContent = v < 0 ? "" : `${s.name} vertex ${v} \u2192 ${other.name} vertex ${s.partner[v]}`;
  redraw();
}
surfaces.forEach((s, which) => show(s, document.getElementById("c" + (which + 1)), { pointed: (v) => hover(which, v) }));
start();
