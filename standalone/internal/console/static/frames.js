/**
 * The log of frames of one pane: every frame both ways with its time, and what
 * happened to the socket in between.
 * @module frames
 */
import {appendRows, clock, element} from './dom.js';

const MOST_ROWS = 500;
const LONGEST_LINE = 300; // characters of a folded frame; unfolded it is whole

/** @typedef {import('./linker.js').FrameRecord} FrameRecord */
/** @typedef {{time: number, note: string}} Note */

export class FrameLog {
  /** @type {(FrameRecord | Note)[]} the newest MOST_ROWS, oldest first */
  #records = [];
  /** @type {(FrameRecord | Note)[]} of these the ones that are not shown yet; at most MOST_ROWS, the oldest go */
  #fresh = [];
  #total = 0;
  #timed = false;
  #list;
  #count;
  #filter;
  #direction;

  /** @param {HTMLElement} pane */
  constructor(pane) {
    const part = (/** @type {string} */ name) => /** @type {any} */ (pane.querySelector(`[data-part="${name}"]`));
    this.#list = /** @type {HTMLElement} */ (part('frames'));
    this.#count = /** @type {HTMLElement} */ (part('frame-count'));
    this.#filter = /** @type {HTMLInputElement} */ (part('filter'));
    this.#direction = /** @type {HTMLSelectElement} */ (part('direction'));
    this.#filter.addEventListener('input', () => this.#redraw());
    this.#direction.addEventListener('change', () => this.#redraw());
  }

  /** @param {FrameRecord | Note} record */
  add(record) {
    this.#total += 1;
    for (const queue of [this.#records, this.#fresh]) {
      queue.push(record);
      if (queue.length > MOST_ROWS) queue.shift();
    }
    if (this.#timed) return;
    this.#timed = true;
    requestAnimationFrame(() => this.#draw()); // one drawing for all that comes meanwhile
  }

  clear() {
    this.#records = [];
    this.#total = 0;
    this.#redraw();
  }

  #redraw() {
    this.#list.replaceChildren();
    this.#fresh = [...this.#records];
    this.#draw();
  }

  #draw() {
    this.#timed = false;
    const rows = this.#fresh.filter((record) => this.#wanted(record)).map(row);
    this.#fresh = [];
    appendRows(this.#list, rows, MOST_ROWS);
    const shown = this.#list.childElementCount;
    this.#count.textContent = this.#total === 0 ? '' : `${shown} of ${this.#total} shown, the newest ${MOST_ROWS} are kept`;
  }

  /** @param {FrameRecord | Note} record */
  #wanted(record) {
    const direction = this.#direction.value;
    if (direction && (!('direction' in record) || record.direction !== direction)) return false;
    const text = 'note' in record ? record.note : record.text;
    return text.toLowerCase().includes(this.#filter.value.trim().toLowerCase());
  }
}

/** @param {FrameRecord | Note} record */
function row(record) {
  const time = element('time', '', clock(record.time));
  if ('note' in record) return element('li', 'event', time, ` ${record.note}`);

  const {direction, text, frame} = record;
  const type = typeof frame?.type === 'string' ? frame.type : '';
  const wrong = type === '' || type === 'INVALID_MESSAGE' || type === 'DELIVER_FAILED' || frame.data?.isAuthenticated === false;
  const arrow = element('span', 'arrow', direction === 'in' ? '↓' : '↑');
  arrow.title = direction === 'in' ? 'received' : 'sent';
  arrow.setAttribute('role', 'img');
  arrow.setAttribute('aria-label', arrow.title);
  const line = element('span', 'line', element('span', 'type', type || 'not JSON'), ' ', element('span', 'rest', folded(frame, text)));
  const details = /** @type {HTMLDetailsElement} */ (element('details', '', element('summary', '', time, arrow, line)));
  details.addEventListener('toggle', () => {
    const pretty = frame === undefined ? text : JSON.stringify(frame, null, 2);
    if (details.open && !details.querySelector('pre')) details.append(element('pre', '', pretty));
  });
  return element('li', wrong ? `${direction} wrong` : direction, details);
}

/** What stands in the line beside the type. @param {any} frame @param {string} text */
function folded(frame, text) {
  const {type: _, ...rest} = typeof frame?.type === 'string' ? frame : {};
  const line = typeof frame?.type === 'string' ? JSON.stringify(rest) : text;
  return line.length > LONGEST_LINE ? `${line.slice(0, LONGEST_LINE)}…` : line;
}
