const CLOSE = 16;  // pixels from the first corner within which a click closes the polygon
const MOST = 50;
const overlay = $("overlay");
const zoneButtons = [...document.querySelectorAll("[data-zone]")];
let draft = null;  // corners so far while a zone is drawn, in shares of the picture
let cursor = [0.5, 0.5];  // place of the next corner
let zone = null;
let several = false;
let size = [1, 1];

const places = (points) => points.map(([x, y]) => `${x * size[0]},${y * size[1]}`).join(" ");
const post = (body) => ({ method: "POST", body: JSON.stringify(body) });

function showOverlay(pictureSize, controls) {
  size = pictureSize;
  several = controls.sources > 1;
  zone = several ? null : controls.zone;
  if (zone === null) draft = null;
  drawOverlay();
}

function drawOverlay() {
  const drawing = draft !== null;
  overlay.setAttribute("viewBox", `0 0 ${size[0]} ${size[1]}`);
  overlay.setAttribute("class", drawing ? "drawing" : several ? "several" : "");
  overlay.setAttribute("tabindex", drawing ? 0 : -1);
  overlay.setAttribute("aria-hidden", !drawing);
  $("zone").setAttribute("points", places(drawing ? [] : zone ?? []));
  $("draft").setAttribute("points", places(drawing ? [...draft, cursor] : []));
  $("corners").replaceChildren(...(draft ?? []).map((corner) => dot(corner, 6 * scale())));
  const [x, y] = [cursor[0] * size[0], cursor[1] * size[1]], arm = 12 * scale();
  $("cursor").setAttribute("d", drawing ? `M${x - arm},${y}h${2 * arm}M${x},${y - arm}v${2 * arm}` : "");
  $("zones").hidden = zone === null;
  const shown = drawing ? ["finish", "undo", "cancel"] : zone?.length ? ["draw", "remove"] : ["draw"];
  for (const button of zoneButtons) button.hidden = !shown.includes(button.dataset.zone);
  zoneButton("finish").disabled = !drawing || draft.length < 3;
  zoneButton("undo").disabled = !draft?.length;
  $("hint").hidden = !drawing;
  $("option").hidden = !zone?.length;
  setText($("option"), zone?.length ? "--zone " + zone.flat().map((share) => +share.toFixed(3)).join(",") : "");
}

// Units of the picture per pixel of the screen.
const scale = () => 1 / (overlay.getScreenCTM()?.a || 1);

function zoneButton(name) {
  return zoneButtons.find((button) => button.dataset.zone === name);
}

function dot([x, y], radius) {
  const circle = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  circle.setAttribute("cx", x * size[0]);
  circle.setAttribute("cy", y * size[1]);
  circle.setAttribute("r", radius);
  return circle;
}

function placeOf(event) {
  const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(overlay.getScreenCTM().inverse());
  return [x / size[0], y / size[1]];
}

const limited = (point) => point.map((share) => Math.min(Math.max(share, 0), 1));

function closes([x, y]) {
  if (draft.length < 3) return false;
  const away = Math.hypot((x - draft[0][0]) * size[0], (y - draft[0][1]) * size[1]);
  return away <= CLOSE * scale();
}

function addCorner(point) {
  cursor = limited(point);
  if (closes(cursor)) return finishZone();
  if (draft.length < MOST) draft.push(cursor);
  drawOverlay();
}

function finishZone() {
  zone = draft;
  fetch("zone", post(draft)).catch(() => setState("gone"));
  endDrawing();
}

function endDrawing() {
  draft = null;
  drawOverlay();
  zoneButton("draw").focus();
}

const ZONE_BUTTONS = {
  draw: () => {
    draft = [];
    cursor = [0.5, 0.5];
    drawOverlay();
    overlay.focus();
  },
  remove: () => {
    zone = [];
    fetch("zone", post([])).catch(() => setState("gone"));
    endDrawing();
  },
  finish: finishZone,
  undo: () => {
    draft.pop();
    drawOverlay();
    overlay.focus();
  },
  cancel: endDrawing,
};

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

overlay.addEventListener("keydown", (event) => {
  if (draft === null || event.ctrlKey || event.metaKey || event.altKey) return;
  const step = STEPS[event.key], share = event.shiftKey ? 0.1 : 0.01;
  if (step) {
    cursor = limited([cursor[0] + share * step[0], cursor[1] + share * step[1]]);
    drawOverlay();
  } else if (event.key === "Enter" || event.key === " ") addCorner(cursor);
  else if (event.key === "Backspace" && draft.length) ZONE_BUTTONS.undo();
  else return;
  event.preventDefault();
  event.stopPropagation();
});
document.addEventListener("keydown", (event) => {
  if (draft !== null && event.key === "Escape") {
    event.stopImmediatePropagation();
    endDrawing();
  }
});
overlay.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  const point = placeOf(event);
  if (draft !== null) addCorner(point);
  else if (several && point.every((share) => 0 <= share && share <= 1)) {
    fetch("click", post([point])).catch(() => setState("gone"));
  }
});
overlay.addEventListener("pointermove", (event) => {
  if (draft === null) return;
  cursor = limited(placeOf(event));
  drawOverlay();
});
for (const button of zoneButtons) {
  button.addEventListener("click", () => ZONE_BUTTONS[button.dataset.zone]());
}
new ResizeObserver(drawOverlay).observe(overlay);
