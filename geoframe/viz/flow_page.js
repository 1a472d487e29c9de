const data = JSON.parse(document.getElementById("data").textContent);
const box = document.getElementById("slider"), over = document.getElementById("over");
const line = document.getElementById("bar-line"), where = document.getElementById("where");
const hover = document.getElementById("hover");

function place() {
  const share = where.value / 10;
  over.style.clipPath = `inset(0 0 0 ${share}%)`;
  line.style.left = `${share}%`;
}

function at(event) {
  const frame = box.getBoundingClientRect();
  return [(event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height];
}

box.addEventListener("pointermove", (event) => {
  const [x, y] = at(event);
  const row = data.u[Math.min(data.u.length - 1, Math.floor((y * data.size[1]) / data.step))];
  if (!row) return;
  const i = Math.min(data.u.length - 1, Math.floor((y * data.size[1]) / data.step));
  const j = Math.min(row.length - 1, Math.floor((x * data.size[0]) / data.step));
  const px = x * data.size[0], py = y * data.size[1];
  const u = data.u[i][j], v = data.v[i][j];
  hover.textContent = u === null ? `where (${px.toFixed(0)}, ${py.toFixed(0)}) goes is not known`
    : `(${px.toFixed(0)}, ${py.toFixed(0)}) goes to (${(px + u).toFixed(1)}, ${(py + v).toFixed(1)}),`
    + ` a move of (${u}, ${v}) pixels`;
  if (event.buttons) { where.value = 1000 * x; place(); }
});
box.addEventListener("pointerdown", (event) => { where.value = 1000 * at(event)[0]; place(); event.preventDefault(); });
where.addEventListener("input", place);
document.getElementById("raw").addEventListener("change", (event) => {
  over.src = event.target.checked ? data.raw : data.warped;
});
place();
