// Reconstructed meshes in the colours of their images, each beside its image. Stands on surface_view.js.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
data.surfaces.forEach((d, i) => show({
  verts: decode(d.verts, Float32Array), faces: decode(d.faces, Uint32Array), colors: decode(d.colors, Uint8Array),
  dots: [], name: d.name,
}, document.getElementById("c" + (i + 1)), { pointed: () => {} }));
start();
