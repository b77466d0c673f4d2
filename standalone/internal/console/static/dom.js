/**
 * How this page makes elements and changes them: text is always taken as text.
 * @module dom
 */

/**
 * @param {string} tag
 * @param {string} [className]
 * @param {...(Node | string)} children
 */
export function element(tag, className = '', ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

/** Sets a text that is not so already. @param {Node} node @param {string} text */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * A copy of a template whose ids are its own.
 * @param {string} id
 * @param {number} number  of the copy
 * @returns {HTMLElement}
 */
export function fromTemplate(id, number) {
  const template = /** @type {HTMLTemplateElement} */ (document.getElementById(id));
  const copy = /** @type {HTMLElement} */ (document.importNode(template.content, true).firstElementChild);
  for (const node of copy.querySelectorAll('[id]')) node.id += `-${number}`;
  for (const label of copy.querySelectorAll('label')) {
    if (label.htmlFor) label.htmlFor += `-${number}`;
  }
  return copy;
}

/**
 * Changes a scrolling list, and stays at its end if it was there.
 * @param {HTMLElement} list
 * @param {() => void} change
 */
export function keepEnd(list, change) {
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 30;
  change();
  if (atEnd) list.scrollTop = list.scrollHeight;
}

/**
 * Adds to a scrolling list and drops its oldest rows.
 * @param {HTMLElement} list
 * @param {Node[]} rows
 * @param {number} limit
 * @returns {Element[]} the rows that were dropped
 */
export function appendRows(list, rows, limit) {
  /** @type {Element[]} */
  const dropped = [];
  keepEnd(list, () => {
    list.append(...rows);
    while (list.childElementCount > limit) {
      const first = /** @type {Element} */ (list.firstElementChild);
      dropped.push(first);
      first.remove();
    }
  });
  return dropped;
}

/** @param {number} time  milliseconds since 1970 */
export function clock(time) {
  const date = new Date(time);
  const two = (/** @type {number} */ n) => String(n).padStart(2, '0');
  const ms = String(date.getMilliseconds()).padStart(3, '0');
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${ms}`;
}
