/**
 * Where the domains and links of the network stand in its picture: plain geometry.
 * The same domains always stand in the same places.
 * @module layout
 */

/**
 * @typedef {{x: number, y: number}} Point
 * @typedef {Point & {width: number, height: number}} Box  x and y are its middle
 * @typedef {{width: number, height: number, cardWidth: number, rows: number, places: Map<string, Point>}} Layout
 *   rows: of users that a card has room for
 */

const MOST_ON_A_RING = 16;
const MARGIN = 16;
const HEAD = 44; // of a card: its name and how many are there
const FOOT = 8;
export const ROW = 17;

/** Apart: what lies between two cards, for a line and what is written beside it. */
const SIZES = [
  {upTo: 1, cardWidth: 260, rows: 4, apart: {x: 0, y: 0}},
  {upTo: 4, cardWidth: 200, rows: 5, apart: {x: 230, y: 90}},
  {upTo: 9, cardWidth: 180, rows: 4, apart: {x: 140, y: 70}},
  {upTo: MOST_ON_A_RING, cardWidth: 150, rows: 2, apart: {x: 110, y: 85}},
  {upTo: Infinity, cardWidth: 150, rows: 2, apart: {x: 90, y: 65}},
];

/** How high a card with so many rows is. @param {number} rows */
export function cardHeight(rows) {
  return HEAD + rows * ROW + (rows > 0 ? FOOT : 0);
}

/** @param {string[]} names  in the order in which they stand @returns {Layout} */
export function arrange(names) {
  const size = SIZES.find(({upTo}) => names.length <= upTo) ?? SIZES[0];
  // One row more is for how many are not shown.
  const cell = {x: size.cardWidth + size.apart.x, y: cardHeight(size.rows + 1) + size.apart.y};
  const points = names.length > MOST_ON_A_RING ? grid(names.length, cell) : ring(names.length, cell);
  const half = {x: size.cardWidth / 2 + MARGIN, y: cardHeight(size.rows + 1) / 2 + MARGIN};
  const left = Math.min(...points.map(({x}) => x)) - half.x;
  const top = Math.min(...points.map(({y}) => y)) - half.y;
  return {
    width: Math.max(...points.map(({x}) => x)) + half.x - left,
    height: Math.max(...points.map(({y}) => y)) + half.y - top,
    cardWidth: size.cardWidth,
    rows: size.rows,
    places: new Map(names.map((name, i) => [name, {x: points[i].x - left, y: points[i].y - top}])),
  };
}

/**
 * A circle on which neighbours are 1 apart, stretched to cells.
 * @param {number} count @param {Point} cell @returns {Point[]}
 */
function ring(count, cell) {
  if (count < 3) return Array.from({length: count}, (_, i) => ({x: i * cell.x, y: 0}));
  const radius = 0.5 / Math.sin(Math.PI / count);
  return Array.from({length: count}, (_, i) => {
    const angle = -Math.PI / 2 - Math.PI / count + 2 * Math.PI * i / count; // the first two on top
    return {x: radius * cell.x * Math.cos(angle), y: radius * cell.y * Math.sin(angle)};
  });
}

/** Rows of cells, there and back; every second one is shifted. @param {number} count @param {Point} cell @returns {Point[]} */
function grid(count, cell) {
  const columns = Math.ceil(Math.sqrt(count));
  return Array.from({length: count}, (_, i) => {
    const row = Math.floor(i / columns);
    const column = row % 2 === 0 ? i % columns : columns - 0.5 - i % columns;
    return {x: column * cell.x, y: row * cell.y};
  });
}

/**
 * The line of one direction from card to card. It keeps to its right side, so that
 * the way back has a line of its own.
 * @param {Box} from @param {Box} to @param {number} aside
 * @returns {{start: Point, end: Point, ahead: Point, right: Point}} ahead and right have the length 1
 */
export function line(from, to, aside) {
  const length = Math.hypot(to.x - from.x, to.y - from.y) || 1;
  const ahead = {x: (to.x - from.x) / length, y: (to.y - from.y) / length};
  const right = {x: -ahead.y, y: ahead.x};
  const shifted = (/** @type {Point} */ p) => ({x: p.x + right.x * aside, y: p.y + right.y * aside});
  return {
    start: border(from, shifted(from), ahead),
    end: border(to, shifted(to), {x: -ahead.x, y: -ahead.y}),
    ahead,
    right,
  };
}

/** Where a ray that begins inside of a box leaves it. @param {Box} box @param {Point} begin @param {Point} ahead */
function border(box, begin, ahead) {
  const reach = (/** @type {number} */ at, /** @type {number} */ middle, /** @type {number} */ half, /** @type {number} */ step) => {
    if (Math.abs(step) < 1e-9) return Infinity;
    return (middle + Math.sign(step) * half - at) / step;
  };
  const way = Math.max(0, Math.min(
    reach(begin.x, box.x, box.width / 2, ahead.x),
    reach(begin.y, box.y, box.height / 2, ahead.y),
  ));
  if (way === Infinity) return begin; // it goes nowhere
  return {x: begin.x + ahead.x * way, y: begin.y + ahead.y * way};
}

/** The arrow among eight that points most nearly there. @param {Point} ahead */
export function arrow(ahead) {
  const eighth = Math.round(Math.atan2(ahead.y, ahead.x) / (Math.PI / 4));
  return '→↘↓↙←↖↑↗'[(eighth + 8) % 8];
}
