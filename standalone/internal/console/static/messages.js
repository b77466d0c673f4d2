/**
 * The list of messages of one pane, as a person reads them: what came, what
 * was sent and how far it got.
 * @module messages
 */
import {appendRows, clock, element, keepEnd} from './dom.js';

const MOST_ROWS = 300;

/** A message only moves forwards through these. */
const RANKS = {sent: 0, accepted: 1, confirmed: 2, failed: 3};

/** @typedef {keyof typeof RANKS} Status */
/** @typedef {{status: Status, chip: HTMLElement}} Sent */

export class MessageList {
  /** @type {Map<string, Sent>} by reference, of the rows that are shown */
  #sent = new Map();
  #list;

  /** @param {HTMLElement} list */
  constructor(list) {
    this.#list = list;
  }

  /** @param {import('./linker.js').Message} message */
  received({from, content, reference, createdAt, late}) {
    const meta = element('div', 'meta', element('span', 'who', String(from)));
    if (createdAt) meta.append(element('time', '', clock(createdAt)));
    if (reference) meta.append(element('span', '', reference));
    if (late) meta.append(element('span', 'status late', 'late'));
    this.#add(element('li', 'in', meta, element('div', 'content', String(content))));
  }

  /**
   * @param {{to: string, content: string, feature: string, reference: string}} message
   */
  sent({to, content, feature, reference}) {
    const chip = element('span', 'status sent', 'sent');
    const who = element('span', 'who', `to ${to}`);
    const meta = element('div', 'meta', who, element('time', '', clock(Date.now())), element('span', '', feature), element('span', '', reference), chip);
    const row = element('li', 'out', meta, element('div', 'content', content));
    row.dataset.reference = reference;
    this.#sent.set(reference, {status: 'sent', chip});
    this.#add(row);
  }

  /**
   * @param {string | undefined} reference
   * @param {Status} status
   * @param {string} [why]
   * @returns {boolean} false when no such message is shown
   */
  moved(reference, status, why = '') {
    const sent = this.#sent.get(reference ?? '');
    if (!sent) return false;
    if (RANKS[status] > RANKS[sent.status]) {
      sent.status = status;
      keepEnd(this.#list, () => {
        sent.chip.className = `status ${status}`;
        sent.chip.textContent = why ? `${status}: ${why}` : status;
      });
    }
    return true;
  }

  /** @param {string} text @param {boolean} [bad] */
  note(text, bad = false) {
    this.#add(element('li', bad ? 'note bad' : 'note', text));
  }

  clear() {
    this.#sent.clear();
    this.#list.replaceChildren();
  }

  /** @param {Node} row */
  #add(row) {
    for (const dropped of appendRows(this.#list, [row], MOST_ROWS)) {
      this.#sent.delete(/** @type {HTMLElement} */ (dropped).dataset.reference ?? '');
    }
  }
}
