// A surface in WebGL: turned with the pointer, zoomed with the wheel, its vertices pointed at and clicked on.
// A page makes objects {verts, faces, colors, dots, name} and calls `show` for each, then `start`. `tints`, if there,
// are the colours of the dots.
"use strict";
const status = document.documentElement.dataset;
status.errors = "";
addEventListener("error", (e) => { status.errors += e.message + "; "; });

function decode(text, Type) {
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return new Type(bytes.buffer);
}

function normals(verts, faces) {
  const n = new Float32Array(verts.length);
  for (let f = 0; f < faces.length; f += 3) {
    const [a, b, c] = [3 * faces[f], 3 * faces[f + 1], 3 * faces[f + 2]];
    const u = [0, 1, 2].map((i) => verts[b + i] - verts[a + i]), v = [0, 1, 2].map((i) => verts[c + i] - verts[a + i]);
    for (let i = 0; i < 3; i++) {
      const j = (i + 1) % 3, k = (i + 2) % 3, x = u[j] * v[k] - u[k] * v[j];
      n[a + i] += x; n[b + i] += x; n[c + i] += x;
    }
  }
  return n;
}

const MESH_VS = `#version 300 es
in vec3 position; in vec3 normal; in vec3 color; uniform mat3 turn; uniform vec2 scale;
out vec3 n; out vec3 c;
void main() { vec3 p = turn * position; n = turn * normal; c = color;
  gl_Position = vec4(p.xy * scale, -0.2 * p.z, 1.0); }`;
const MESH_FS = `#version 300 es
precision highp float; in vec3 n; in vec3 c; out vec4 pixel;
void main() {
  vec3 m = normalize(n) * (gl_FrontFacing ? 1.0 : -1.0);
  vec3 key = normalize(vec3(-0.45, 0.75, 0.6)), fill = normalize(vec3(0.85, 0.15, 0.45));
  float light = 0.36 * (0.75 + 0.25 * m.y) + 0.7 * max(0.0, (dot(m, key) + 0.25) / 1.25)
    + 0.22 * max(0.0, (dot(m, fill) + 0.25) / 1.25);
  float gloss = 0.1 * pow(max(0.0, dot(m, normalize(key + vec3(0.0, 0.0, 1.0)))), 40.0);
  pixel = vec4(pow(pow(c, vec3(2.2)) * light + gloss, vec3(1.0 / 2.2)), 1.0);
}`;
const DOT_VS = `#version 300 es
in vec3 position; uniform mat3 turn; uniform vec2 scale; uniform float size;
void main() { vec3 p = turn * position;
  gl_Position = vec4(p.xy * scale, -0.2 * (p.z + 0.035), 1.0); gl_PointSize = size; }`;
const DOT_FS = `#version 300 es
precision highp float; uniform vec3 tint; out vec4 pixel;
void main() { float r = length(gl_PointCoord - 0.5); if (r > 0.5) discard;
  pixel = vec4(r > 0.36 ? vec3(1.0) : tint, 1.0); }`;

function program(gl, vs, fs) {
  const p = gl.createProgram();
  [[gl.VERTEX_SHADER, vs], [gl.FRAGMENT_SHADER, fs]].forEach(([kind, text]) => {
    const s = gl.createShader(kind); gl.shaderSource(s, text); gl.compileShader(s);
    if (!gl.getShaderParameter(s, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(s));
    gl.attachShader(p, s);
  });
  gl.bindAttribLocation(p, 0, "position"); gl.linkProgram(p);
  if (!gl.getProgramParameter(p, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(p));
  return p;
}
function attribute(gl, p, name, array, kind, normalised) {
  const at = gl.getAttribLocation(p, name);
  gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer()); gl.bufferData(gl.ARRAY_BUFFER, array, gl.STATIC_DRAW);
  gl.enableVertexAttribArray(at); gl.vertexAttribPointer(at, 3, kind, normalised, 0, 0);
}
function setUp(s, canvas) {
  const gl = canvas.getContext("webgl2", { antialias: true, alpha: true });
  if (!gl) { canvas.replaceWith("This browser has no WebGL 2, so the surface cannot be shown in 3D."); return; }
  Object.assign(s, { canvas, gl, mesh: program(gl, MESH_VS, MESH_FS), dot: program(gl, DOT_VS, DOT_FS) });
  s.meshVao = gl.createVertexArray(); gl.bindVertexArray(s.meshVao);
  attribute(gl, s.mesh, "position", s.verts, gl.FLOAT, false);
  attribute(gl, s.mesh, "normal", normals(s.verts, s.faces), gl.FLOAT, false);
  attribute(gl, s.mesh, "color", s.colors, gl.UNSIGNED_BYTE, true);
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, s.faces, gl.STATIC_DRAW);
  s.dotVao = gl.createVertexArray(); gl.bindVertexArray(s.dotVao);
  s.dotBuffer = gl.createBuffer(); gl.bindBuffer(gl.ARRAY_BUFFER, s.dotBuffer);
  gl.enableVertexAttribArray(0); gl.vertexAttribPointer(0, 3, gl.FLOAT, false, 0, 0);
}

// one camera for all surfaces of a page: a rotation (columns of a 3x3 matrix) and a zoom
const identity = [1, 0, 0, 0, 1, 0, 0, 0, 1], shown = [];
let turn = identity.slice(), zoom = 1;
function fit() {  // the first view, as large as all canvases allow
  turn = identity.slice(); zoom = 1;
  zoom = Math.min(...shown.map((s) => {
    const scale = scaleOf(s.canvas), far = s.verts.reduce((m, v, i) => Math.max(m, Math.abs(v) * (scale[i % 3] || 0)), 0);
    return 0.94 / (far || 1);
  }));
}
function rotate(dx, dy) {
  const [cx, sx, cy, sy] = [Math.cos(dx), Math.sin(dx), Math.cos(dy), Math.sin(dy)];
  const r = [cx, sx * sy, -sx * cy, 0, cy, sy, sx, -cx * sy, cx * cy];
  turn = turn.map((_, k) => [0, 1, 2].reduce((t, i) => t + r[3 * i + (k % 3)] * turn[k - (k % 3) + i], 0));
}
function scaleOf(canvas) {
  const ratio = canvas.clientWidth / canvas.clientHeight, s = 0.95 * zoom;
  return ratio > 1 ? [s / ratio, s] : [s, s * ratio];
}
function drawDots(s, vertices, size, tint) {
  const { gl } = s, points = new Float32Array(vertices.flatMap((v) => [...s.verts.subarray(3 * v, 3 * v + 3)]));
  gl.useProgram(s.dot); gl.bindVertexArray(s.dotVao); gl.bindBuffer(gl.ARRAY_BUFFER, s.dotBuffer);
  gl.bufferData(gl.ARRAY_BUFFER, points, gl.DYNAMIC_DRAW);
  gl.uniformMatrix3fv(gl.getUniformLocation(s.dot, "turn"), false, turn);
  gl.uniform2fv(gl.getUniformLocation(s.dot, "scale"), scaleOf(s.canvas));
  gl.uniform1f(gl.getUniformLocation(s.dot, "size"), size * devicePixelRatio);
  gl.uniform3fv(gl.getUniformLocation(s.dot, "tint"), tint);
  gl.drawArrays(gl.POINTS, 0, vertices.length);
}
function draw(s) {
  const { gl, canvas } = s;
  const [w, h] = [canvas.clientWidth, canvas.clientHeight].map((x) => Math.max(1, Math.round(x * devicePixelRatio)));
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  gl.viewport(0, 0, w, h); gl.enable(gl.DEPTH_TEST);
  gl.clearColor(0, 0, 0, 0); gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
  gl.useProgram(s.mesh); gl.bindVertexArray(s.meshVao);
  gl.uniformMatrix3fv(gl.getUniformLocation(s.mesh, "turn"), false, turn);
  gl.uniform2fv(gl.getUniformLocation(s.mesh, "scale"), scaleOf(canvas));
  gl.drawElements(gl.TRIANGLES, s.faces.length, gl.UNSIGNED_INT, 0);
  if (s.tints) s.dots.forEach((v, i) => drawDots(s, [v], 13, s.tints[i]));
  else drawDots(s, s.dots, 11, [0.88, 0.12, 0.3]);
  if (s.marked >= 0) drawDots(s, [s.marked], 15, [0.1, 0.1, 0.1]);  // what is pointed at, here or elsewhere
}
let waiting = false;
function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; shown.forEach(draw); });
}
function pick(s, x, y) {  // the foremost vertex within a few pixels of the pointer
  const scale = scaleOf(s.canvas), [w, h] = [s.canvas.clientWidth, s.canvas.clientHeight];
  for (const reach of [6, 14]) {
    let best = -1, front = -Infinity;
    for (let i = 0; i < s.verts.length; i += 3) {
      const [a, b, c] = [s.verts[i], s.verts[i + 1], s.verts[i + 2]];
      const px = (turn[0] * a + turn[3] * b + turn[6] * c) * scale[0], py = (turn[1] * a + turn[4] * b + turn[7] * c) * scale[1];
      if (Math.hypot((px + 1) / 2 * w - x, (1 - py) / 2 * h - y) > reach) continue;
      const z = turn[2] * a + turn[5] * b + turn[8] * c;
      if (z > front) { front = z; best = i / 3; }
    }
    if (best >= 0) return best;
  }
  return -1;
}
// a drag moves, a click does not: `pointed(x, y)` without buttons, `moved(dx, dy)`, `clicked(x, y)`, `left()`
function listen(canvas, on) {
  let way = 0;
  canvas.addEventListener("pointerdown", (e) => { way = 0; if (e.isTrusted) canvas.setPointerCapture(e.pointerId); });
  canvas.addEventListener("pointermove", (e) => {
    if (!e.buttons) return on.pointed(e.offsetX, e.offsetY);
    way += Math.hypot(e.movementX, e.movementY);
    if (way > 3) on.moved(e.movementX, e.movementY);
  });
  canvas.addEventListener("pointerup", (e) => { if (way <= 3 && on.clicked) on.clicked(e.offsetX, e.offsetY); });
  canvas.addEventListener("pointerleave", () => on.left());
  canvas.addEventListener("wheel", (e) => { e.preventDefault(); on.turned(Math.exp(-e.deltaY / 600), e); }, { passive: false });
}
function show(s, canvas, on) {  // on.pointed(vertex or -1), on.clicked(vertex)
  s.marked = -1;
  setUp(s, canvas);
  if (!s.gl) return;
  shown.push(s);
  listen(canvas, {
    pointed: (x, y) => on.pointed(pick(s, x, y)), left: () => on.pointed(-1),
    moved: (dx, dy) => { rotate(dx / 130, dy / 130); redraw(); },
    clicked: (x, y) => { const v = pick(s, x, y); if (v >= 0 && on.clicked) on.clicked(v); },
    turned: (factor) => { zoom = Math.min(20, Math.max(0.3, zoom * factor)); redraw(); },
  });
}
function start() {
  document.getElementById("reset").onclick = () => { fit(); redraw(); };
  document.getElementById("back").onclick = () => { rotate(Math.PI, 0); redraw(); };
  addEventListener("resize", redraw);
  fit();
  // the share of each canvas that the first drawing covers: how a test sees that something is there
  shown.forEach((s) => {
    const small = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    small.canvas.width = small.canvas.height = 100;
    draw(s);
    small.drawImage(s.canvas, 0, 0, 100, 100);
    const pixels = small.getImageData(0, 0, 100, 100).data;
    status["drawn" + s.canvas.id.slice(1)] = String(pixels.filter((x, i) => i % 4 === 3 && x > 127).length / 10000);
  });
}
