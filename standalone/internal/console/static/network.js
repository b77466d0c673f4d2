/**
 * The network as a picture and as text: domains with their users, links with their
 * state and traffic. It asks the console for it every second while it is seen.
 * @module network
 */
import {element, setText} from './dom.js';
import * as facts from './facts.js';
import {ROW, arrange, arrow, cardHeight, line} from './layout.js';

/**
 * @typedef {import('./facts.js').Picture} Picture
 * @typedef {import('./facts.js').Place} Place
 * @typedef {import('./facts.js').Link} Link
 * @typedef {import('./layout.js').Box} Box
 * @typedef {import('./layout.js').Point} Point
 */

const SVG = 'http://www.w3.org/2000/svg';
const EVERY = 1000; // ms from one answer to the next question
const PATIENCE = 10_000; // ms for an answer
const ASIDE = 4; // of the line of one direction from the middle
const MOST_ROWS = 400; // of the tables and of the problems
const CHARACTER = 7.4; // wide at most, in the picture's text

const order = new Intl.Collator('en', {numeric: true});

export class NetworkView {
  #root;
  #changed;
  #picture;
  /** @type {Map<string, Card>} */
  #cards = new Map();
  /** @type {Map<string, Line>} */
  #lines = new Map();
  #links = shape('g', 'links');
  #labels = shape('g', 'labels');
  #domains = shape('g', 'domains');
  #names = '';
  /** @type {import('./layout.js').Layout} */
  #layout = arrange([]);

  /**
   * @param {HTMLElement} root
   * @param {() => void} changed  called when other domains are there than before
   */
  constructor(root, changed) {
    this.#root = /** @type {HTMLDetailsElement} */ (root);
    this.#changed = changed;
    this.#picture = /** @type {SVGSVGElement} */ (/** @type {unknown} */ (this.#part('picture')));
    this.#picture.append(this.#links, this.#labels, this.#domains);
    heads(this.#part('places'), facts.PLACE_COLUMNS);
    heads(this.#part('ways'), facts.WAY_COLUMNS);
  }

  /** Follows the network as long as the page is there. */
  async follow() {
    for (;;) {
      await this.#seen();
      await this.#look();
      await new Promise((resolve) => { setTimeout(resolve, EVERY); });
    }
  }

  /** Waits until a person can see the picture. */
  async #seen() {
    while (document.hidden || !this.#root.open) {
      await new Promise((resolve) => {
        document.addEventListener('visibilitychange', resolve, {once: true});
        this.#root.addEventListener('toggle', resolve, {once: true});
      });
    }
  }

  async #look() {
    try {
      const response = await fetch('/api/network', {signal: AbortSignal.timeout(PATIENCE)});
      if (!response.ok) throw new Error(`status ${response.status}`);
      this.show(await response.json());
    } catch (error) {
      this.#root.dataset.state = 'stale';
      setText(this.#part('summary'), `what you see is old, the console does not answer (${error instanceof Error ? error.message : error})`);
    }
  }

  /** @param {Picture} picture */
  show(picture) {
    picture.domains.sort((a, b) => order.compare(a.name, b.name));
    this.#root.dataset.state = 'fresh';
    setText(this.#part('summary'), facts.summary(picture));
    this.#draw(picture);
    fillList(this.#part('problems'), facts.problems(picture));
    fillTable(this.#part('places'), picture.domains.map(facts.placeRow));
    fillTable(this.#part('ways'), picture.links.flatMap((link) => link.ways.map((way) => facts.wayRow(way, link))));
    this.#part('ways').hidden = picture.links.length === 0;
  }

  /** @param {Picture} picture */
  #draw(picture) {
    const names = JSON.stringify(picture.domains.map(({name}) => name));
    if (names !== this.#names) {
      const first = this.#names === '';
      this.#names = names;
      this.#arrange(picture.domains.map(({name}) => name));
      if (!first) this.#changed();
    }
    keep(this.#cards, picture.domains.map(({name}) => name), () => new Card(this.#domains));
    for (const place of picture.domains) {
      this.#cards.get(place.name)?.show(place, this.#layout);
    }
    const key = (/** @type {Link} */ {n1, n2}) => JSON.stringify([n1, n2]);
    const links = picture.links.filter(({n1, n2}) => this.#cards.has(n1) && this.#cards.has(n2));
    keep(this.#lines, links.map(key), () => new Line(this.#links, this.#labels));
    for (const link of links) {
      const from = /** @type {Card} */ (this.#cards.get(link.n1));
      const to = /** @type {Card} */ (this.#cards.get(link.n2));
      this.#lines.get(key(link))?.show(link, from.box, to.box, besides(this.#layout, link) ? 0.5 : 0.38);
    }
  }

  /** @param {string[]} names */
  #arrange(names) {
    this.#layout = arrange(names);
    const {width, height} = this.#layout;
    if (names.length === 0) return;
    set(this.#picture, {viewBox: `0 0 ${round(width)} ${round(height)}`});
    this.#picture.style.maxWidth = `${Math.round(width * 1.15)}px`;
    this.#picture.style.minWidth = `${Math.round(Math.min(width, Math.max(width * 0.62, 520)))}px`;
  }

  /** @param {string} name @returns {HTMLElement} */
  #part(name) {
    return /** @type {HTMLElement} */ (this.#root.querySelector(`[data-part="${name}"]`));
  }
}

/** A domain in the picture. */
class Card {
  /** @type {Box} */
  box = {x: 0, y: 0, width: 0, height: 0};
  #root = shape('g', 'domain');
  #title = shape('title');
  #frame = shape('rect', 'frame');
  #name = shape('text', 'name');
  #crowd = shape('text', 'crowd');
  #users = shape('g', 'users');

  /** @param {SVGElement} parent */
  constructor(parent) {
    set(this.#frame, {rx: 8});
    this.#root.append(this.#title, this.#frame, this.#name, this.#crowd, this.#users);
    parent.append(this.#root);
  }

  remove() {
    this.#root.remove();
  }

  /** @param {Place} place @param {import('./layout.js').Layout} layout */
  show(place, {places, cardWidth: width, rows}) {
    const {names, more} = facts.shown(place, rows);
    const lines = more ? [...names, more] : names;
    const {x, y} = places.get(place.name) ?? {x: 0, y: 0};
    const height = cardHeight(lines.length);
    this.box = {x, y, width, height};
    const left = round(x - width / 2) + 12;
    const top = round(y - height / 2);
    const fits = Math.floor((width - 24) / CHARACTER);
    set(this.#frame, {x: round(x - width / 2), y: top, width, height: round(height)});
    set(this.#name, {x: left, y: top + 20});
    set(this.#crowd, {x: left, y: top + 37});
    setText(this.#title, facts.aboutPlace(place));
    setText(this.#name, facts.short(place.name, fits - 2)); // it is bold
    setText(this.#crowd, place.problem && place.total === null ? 'state unknown' : facts.crowd(place));
    set(this.#root, {'data-state': place.problem ? 'unknown' : 'known'});
    children(this.#users, lines.length, () => shape('text'));
    lines.forEach((text, i) => {
      const row = /** @type {SVGElement} */ (this.#users.children[i]);
      set(row, {x: left, y: round(top + 37 + (i + 1) * ROW + 2), class: i < names.length ? 'user' : 'more'});
      setText(row, facts.short(text, fits));
    });
  }
}

/** A link in the picture: a line with an arrow for each direction, the cost between them. */
class Line {
  #label = shape('g', 'link');
  #title = shape('title');
  #ways;
  #plate = shape('rect', 'plate');
  #cost = shape('text', 'cost');

  /** @param {SVGElement} lines @param {SVGElement} labels  above all lines */
  constructor(lines, labels) {
    this.#ways = [new WayLine(lines, labels), new WayLine(lines, labels)];
    this.#label.append(this.#title, this.#plate, this.#cost);
    set(this.#plate, {rx: 9, height: 18});
    labels.append(this.#label);
  }

  remove() {
    for (const way of this.#ways) way.remove();
    this.#label.remove();
  }

  /** @param {Link} link @param {Box} a @param {Box} b @param {number} part  of the way from a to b, where the words stand */
  show(link, a, b, part) {
    const {start, end} = line(a, b, 0);
    const middle = {x: start.x + (end.x - start.x) * part, y: start.y + (end.y - start.y) * part};
    const text = link.cost ? `cost ${link.cost}` : 'cost ?';
    const width = text.length * CHARACTER + 10;
    set(this.#label, {'data-state': link.state});
    set(this.#plate, {x: round(middle.x - width / 2), y: round(middle.y - 9), width: round(width)});
    set(this.#cost, {x: round(middle.x), y: round(middle.y + 4)});
    setText(this.#cost, text);
    setText(this.#title, facts.aboutLink(link));
    const [there, back] = link.ways;
    this.#ways[0].show(there, link, line(a, b, ASIDE), middle, width / 2);
    this.#ways[1].show(back, link, line(b, a, ASIDE), middle, width / 2);
  }
}

/** One direction of a link. */
class WayLine {
  #line = shape('g', 'way');
  #label = shape('g', 'way');
  #titles = [shape('title'), shape('title')];
  #path = shape('path', 'line');
  #head = shape('path', 'head');
  #text = shape('text', 'traffic');

  /** @param {SVGElement} lines @param {SVGElement} labels */
  constructor(lines, labels) {
    this.#line.append(this.#titles[0], this.#path, this.#head);
    this.#label.append(this.#titles[1], this.#text);
    lines.append(this.#line);
    labels.append(this.#label);
  }

  remove() {
    this.#line.remove();
    this.#label.remove();
  }

  /**
   * @param {import('./facts.js').Way} way @param {Link} link
   * @param {ReturnType<typeof line>} at @param {Point} middle @param {number} clear  of the cost, half of it
   */
  show(way, link, {start, end, ahead, right}, middle, clear) {
    const back = {x: end.x - ahead.x * 10, y: end.y - ahead.y * 10};
    const wing = {x: right.x * 5, y: right.y * 5};
    for (const part of [this.#line, this.#label]) set(part, {'data-state': way.state});
    set(this.#path, {d: `M${point(start)}L${point(back)}`});
    set(this.#head, {d: `M${point(end)}L${point({x: back.x + wing.x, y: back.y + wing.y})}L${point(back)}Z`});
    const away = Math.abs(right.x) * (clear + 6) + Math.abs(right.y) * 20;
    const anchor = right.x > 0.4 ? 'start' : right.x < -0.4 ? 'end' : 'middle';
    set(this.#text, {x: round(middle.x + right.x * away), y: round(middle.y + right.y * away + 4), 'text-anchor': anchor});
    setText(this.#text, `${arrow(ahead)} ${facts.traffic(way)}`);
    for (const title of this.#titles) setText(title, facts.aboutWay(way, link));
  }
}

/**
 * Whether two domains stand next to each other. Lines between others cross, mostly in
 * their middle, where their words would lie upon each other.
 * @param {import('./layout.js').Layout} layout @param {Link} link
 */
function besides({places}, {n1, n2}) {
  const names = [...places.keys()];
  const apart = Math.abs(names.indexOf(n1) - names.indexOf(n2));
  return apart === 1 || apart === names.length - 1;
}

/** @param {string} tag @param {string} [className] @returns {SVGElement} */
function shape(tag, className = '') {
  const node = /** @type {SVGElement} */ (document.createElementNS(SVG, tag));
  if (className) node.setAttribute('class', className);
  return node;
}

/** Sets what is not so already: what a person has selected or points at stays. @param {Element} node @param {Record<string, string | number>} attributes */
function set(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (node.getAttribute(name) !== String(value)) node.setAttribute(name, String(value));
  }
}

/**
 * Makes a map have exactly these keys.
 * @template {{remove: () => void}} T
 * @param {Map<string, T>} map @param {string[]} keys @param {() => T} make
 */
function keep(map, keys, make) {
  const wanted = new Set(keys);
  for (const [key, value] of map) {
    if (wanted.has(key)) continue;
    value.remove();
    map.delete(key);
  }
  for (const key of wanted) {
    if (!map.has(key)) map.set(key, make());
  }
}

/** Makes a node have so many children. @param {Element} node @param {number} count @param {() => Element} make */
function children(node, count, make) {
  while (node.childElementCount > count) node.lastElementChild?.remove();
  while (node.childElementCount < count) node.append(make());
}

/** @param {HTMLElement} table @param {string[]} columns */
function heads(table, columns) {
  const cells = columns.map((text) => {
    const cell = element('th', '', text);
    cell.setAttribute('scope', 'col');
    return cell;
  });
  table.querySelector('thead tr')?.replaceChildren(...cells);
}

/** @param {HTMLElement} table @param {string[][]} rows  all that exceed MOST_ROWS are left out */
function fillTable(table, rows) {
  const body = /** @type {HTMLElement} */ (table.querySelector('tbody'));
  const shown = rows.slice(0, MOST_ROWS);
  children(body, shown.length, () => element('tr'));
  shown.forEach((texts, i) => {
    children(body.children[i], texts.length, () => element('td'));
    texts.forEach((text, j) => { setText(body.children[i].children[j], text); });
  });
}

/** @param {HTMLElement} list @param {string[]} lines */
function fillList(list, lines) {
  const shown = lines.slice(0, MOST_ROWS);
  children(list, shown.length, () => element('li'));
  shown.forEach((text, i) => { setText(list.children[i], text); });
  list.hidden = shown.length === 0;
}

/** @param {Point} p */
function point({x, y}) {
  return `${round(x)} ${round(y)}`;
}

/** @param {number} n */
function round(n) {
  return Math.round(n * 10) / 10;
}
