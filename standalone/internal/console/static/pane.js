/**
 * One pane: one user, one connection.
 * @module pane
 */
import {fromTemplate} from './dom.js';
import {FrameLog} from './frames.js';
import {Linker, LinkerError, newReference} from './linker.js';
import {MessageList} from './messages.js';

/**
 * @typedef {{name: string, appId: string, masterUserId: string, authEnabled: boolean}} App
 * @typedef {{url: string, apps: App[], number: number, changed: () => void, removed: () => void}} Setting
 */

/** The choice of an app that the server did not name. */
const OTHER = '';

const CLOSE_MEANINGS = new Map(Object.entries({
  1000: 'closed',
  1001: 'going away',
  1003: 'binary frame',
  1005: 'closed',
  1006: 'connection lost',
  1007: 'not UTF-8',
  1009: 'frame too large',
  1012: 'restarting',
  4400: 'too many bad frames',
  4401: 'not logged in in time',
  4403: 'refused',
  4408: 'reading too slowly',
  4410: 'closed by the master',
  4421: 'home domain has moved',
  4429: 'sending too fast',
  4503: 'try again later',
}));

export class Pane {
  /** @type {Linker | null} present from connect to the end of it */
  #linker = null;
  #setting;
  #root;
  #frames;
  #messages;
  /** @type {any} the controls of the two forms, by name */
  #connection;
  /** @type {any} */
  #compose;
  #stateText = 'Not connected';
  #suggested = '';

  /** @param {Setting} setting */
  constructor(setting) {
    this.#setting = setting;
    this.#root = fromTemplate('pane', setting.number);
    this.#frames = new FrameLog(this.#root);
    this.#messages = new MessageList(this.#part('messages'));
    this.#connection = this.#form('connection').elements;
    this.#compose = this.#form('message').elements;
    this.#fill();
    this.#listen();
    this.#showKind();
    this.#showState();
  }

  get root() {
    return this.#root;
  }

  /** The user whose pane this is, whether logged in or not. */
  get userId() {
    return this.#connection.user.value.trim();
  }

  /** @param {string} userId  offered as the one to write to, unless a person chose somebody */
  suggest(userId) {
    const {to} = this.#compose;
    if (to.value === '' || to.value === this.#suggested) to.value = userId;
    this.#suggested = userId;
  }

  focus() {
    this.#connection.user.focus();
  }

  #fill() {
    const {url, apps} = this.#setting;
    this.#connection.url.value = url;
    this.#connection.app.append(
      ...apps.map(({name}) => new Option(name, name)),
      new Option('other…', OTHER),
    );
    this.#compose.raw.value = JSON.stringify({type: 'MESSAGE', data: {to: 'ANZ-1', content: 'hello'}}, null, 1);
    this.#showApp();
  }

  #listen() {
    this.#form('connection').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#login();
    });
    this.#form('message').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#send();
    });
    /** @type {[string, () => void][]} */
    const actions = [
      ['connect', () => this.#connect()],
      ['logout', () => this.#logout()],
      ['remove', () => this.#remove()],
      ['random', () => this.#offerUser()],
      ['master', () => { this.#connection.user.value = this.#app()?.masterUserId ?? ''; this.#renamed(); }],
      ['clear-messages', () => this.#messages.clear()],
      ['clear-frames', () => this.#frames.clear()],
    ];
    for (const [name, action] of actions) this.#action(name).addEventListener('click', action);
    this.#connection.app.addEventListener('change', () => this.#showApp());
    this.#connection.user.addEventListener('input', () => this.#renamed());
    for (const radio of this.#compose.kind) radio.addEventListener('change', () => this.#showKind());
    this.#compose.content.addEventListener('keydown', (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#form('message').requestSubmit();
    });
  }

  /** A client for what the form says, listened to. */
  #open() {
    this.#linker?.close();
    const linker = new Linker({url: this.#connection.url.value.trim(), follow: this.#connection.follow.checked});
    this.#linker = linker;
    /** @type {Record<string, (detail: any) => void>} */
    const handlers = {
      frame: (record) => this.#frames.add(record),
      state: () => this.#showState(),
      open: ({url}) => {
        this.#happened(`connected to ${url}`);
        this.#connection.url.value = url; // another one when it was sent to the home domain
      },
      login: (reply) => this.#replied(reply),
      message: (message) => this.#messages.received(message),
      accepted: ({reference}) => this.#messages.moved(reference, 'accepted'),
      confirmation: ({reference}) => {
        if (!this.#messages.moved(reference, 'confirmed')) this.#messages.note(`${reference} is confirmed`);
      },
      failed: ({code, message, reference}) => {
        const known = this.#messages.moved(reference, 'failed', code);
        this.#messages.note(known ? message : `${code}: ${message}`, true);
      },
      invalid: ({code, message, reference}) => {
        this.#messages.moved(reference, 'failed', code);
        this.#messages.note(`${code}: ${message}`, true);
      },
      presence: ({userId, connected}) => this.#messages.note(`${userId} ${connected ? 'is here' : 'has gone'}`),
      authrequired: () => this.#messages.note('log in first: nothing was sent', true),
      fetched: ({leftMissingCount}) => this.#messages.note(`fetch complete, ${leftMissingCount} left`),
      missing: ({count}) => this.#messages.note(`${count} stored: use Fetch`),
      goaway: ({reason, reconnectInMs}) => this.#messages.note(`told to go away (${reason}), back in ${seconds(reconnectInMs)}`),
      close: (record) => this.#closed(record),
    };
    for (const [type, handle] of Object.entries(handlers)) {
      linker.addEventListener(type, (event) => {
        if (this.#linker === linker) handle(/** @type {CustomEvent} */ (event).detail);
      });
    }
    return linker;
  }

  #connect() {
    if (!this.#form('connection').reportValidity()) return;
    this.#open().connect().catch(() => {}); // the close event tells
  }

  #login() {
    const {appId, user, token, feature, base} = this.#connection;
    const chosen = Array.from(feature).filter((box) => box.checked).map((box) => box.value);
    // An open socket is used as it is; one that has or had a user is not.
    const linker = this.#linker?.state === 'open' && !this.#linker.userId ? this.#linker : this.#open();
    linker.login({
      appId: appId.value.trim(),
      userId: user.value.trim(),
      token: token.value,
      features: base.checked ? null : chosen,
    }).catch(() => {}); // the login and close events tell
    this.#showState();
  }

  #logout() {
    this.#linker?.close();
  }

  /** @param {import('./linker.js').LoginReply} reply */
  #replied({userId, isAuthenticated, reason, domain}) {
    if (isAuthenticated) {
      this.#messages.note(`logged in as ${userId}`);
      this.#unfold(false);
    } else {
      this.#messages.note(`login refused: ${reason ?? 'no reason given'}${domain ? `, home is ${domain}` : ''}`, true);
    }
  }

  /** @param {import('./linker.js').CloseRecord} record */
  #closed({code, reason, retryInMs}) {
    const meaning = CLOSE_MEANINGS.get(String(code)) ?? 'closed';
    const what = `closed: ${code} ${meaning}${reason ? ` (${reason})` : ''}`;
    const next = retryInMs === null ? '' : `, trying again in ${seconds(retryInMs)}`;
    this.#happened(what + next);
    this.#stateText = retryInMs === null ? `Not connected (${code} ${meaning})` : `Lost (${code} ${meaning}), again in ${seconds(retryInMs)}`;
    if (retryInMs === null) {
      this.#linker = null;
      this.#unfold(true);
    }
    this.#showState();
  }

  #send() {
    const {kind, to, members, content, feature, reference, id, confirmation, count, target, raw} = this.#compose;
    const problem = this.#part('problem');
    problem.hidden = true;
    try {
      if (!this.#linker) throw new LinkerError('NOT_OPEN', 'the connection is not open');
      const options = {
        feature: feature.value,
        reference: reference.value.trim() || newReference(),
        confirmationEnabled: confirmation.checked,
        ...(id.value.trim() && {id: id.value.trim()}),
      };
      switch (kind.value) {
        case 'message':
          this.#linker.post(to.value.trim(), content.value, options);
          this.#messages.sent({to: to.value.trim(), content: content.value, ...options});
          break;
        case 'group': {
          const everybody = members.value.split(/[\s,;]+/).filter(Boolean);
          this.#linker.postGroup(everybody, content.value, {...options, confirmationEnabled: true});
          this.#messages.sent({to: everybody.join(', '), content: content.value, ...options});
          break;
        }
        case 'fetch': this.#linker.fetch(Number(count.value)); return;
        case 'close': this.#linker.closeConnection(target.value.trim()); return;
        case 'raw': this.#linker.sendFrame(raw.value); return;
      }
      content.value = '';
      reference.value = '';
      id.value = '';
      content.focus();
    } catch (error) {
      problem.textContent = error instanceof Error ? error.message : String(error);
      problem.hidden = false;
    }
  }

  #remove() {
    this.#linker?.close();
    this.#root.remove();
    this.#setting.removed();
  }

  /** @param {string} note */
  #happened(note) {
    this.#frames.add({time: Date.now(), note});
  }

  /** @param {boolean} open  whether the fields of the connection are shown */
  #unfold(open) {
    /** @type {HTMLDetailsElement} */ (this.#part('connection')).open = open;
  }

  #showState() {
    const state = this.#linker?.state ?? 'closed';
    const texts = {closed: this.#stateText, waiting: this.#stateText, connecting: 'Connecting…', open: 'Connected, not logged in', online: 'Logged in'};
    this.#root.dataset.state = state;
    this.#part('state').textContent = texts[state];
    const taken = Boolean(this.#linker?.userId);
    const logout = this.#action('logout');
    logout.textContent = taken ? 'Log out' : 'Disconnect';
    logout.disabled = state === 'closed';
    this.#action('connect').disabled = state !== 'closed';
    for (const name of ['login', 'random', 'master']) this.#action(name).disabled = taken;
    for (const name of ['url', 'app', 'appId', 'user', 'token']) this.#connection[name].disabled = taken;
    const submit = /** @type {HTMLButtonElement} */ (this.#form('message').querySelector('[type="submit"]'));
    submit.disabled = state !== 'open' && state !== 'online';
    this.#renamed();
  }

  #showApp() {
    const app = this.#app();
    this.#part('app-id').hidden = app !== undefined;
    this.#connection.appId.value = app?.appId ?? '';
    const hint = this.#part('auth-hint');
    hint.hidden = app === undefined || app.authEnabled;
    hint.textContent = `${app?.name} checks no tokens: whoever reaches the server can log in as anybody.`;
    this.#offerUser();
  }

  #offerUser() {
    const name = this.#app()?.name ?? 'APP';
    this.#connection.user.value = `${name}-${100_000 + Math.floor(Math.random() * 900_000)}`;
    this.#renamed();
  }

  #renamed() {
    this.#root.setAttribute('aria-label', this.userId);
    this.#part('title').textContent = this.userId || `Pane ${this.#setting.number}`;
    this.#setting.changed();
  }

  #showKind() {
    const kind = this.#compose.kind.value;
    for (const node of this.#root.querySelectorAll('[data-kinds]')) {
      const field = /** @type {HTMLElement} */ (node);
      field.hidden = !field.dataset.kinds?.split(' ').includes(kind);
      for (const control of field.querySelectorAll('input, select, textarea')) {
        /** @type {HTMLInputElement} */ (control).disabled = field.hidden; // else a hidden required field stops the form
      }
    }
    const labels = {message: 'Send', group: 'Send to all', fetch: 'Fetch', close: 'Close connections', raw: 'Send frame'};
    const submit = this.#form('message').querySelector('[type="submit"]');
    if (submit) submit.textContent = labels[/** @type {keyof typeof labels} */ (kind)];
  }

  /** The app that is chosen; undefined for another than the server named. */
  #app() {
    return this.#setting.apps.find(({name}) => name === this.#connection.app.value);
  }

  /** @param {string} name @returns {HTMLElement} */
  #part(name) {
    return /** @type {HTMLElement} */ (this.#root.querySelector(`[data-part="${name}"]`));
  }

  /** @param {string} name @returns {HTMLFormElement} */
  #form(name) {
    return /** @type {HTMLFormElement} */ (this.#root.querySelector(`[data-form="${name}"]`));
  }

  /** @param {string} name @returns {HTMLButtonElement} */
  #action(name) {
    return /** @type {HTMLButtonElement} */ (this.#root.querySelector(`[data-action="${name}"]`));
  }
}

/** @param {number} ms */
function seconds(ms) {
  return `${(ms / 1000).toFixed(1)} s`;
}
