/**
 * The Linker client: one module without dependencies, for browsers and for
 * Node 22 or newer. It opens the websocket, logs in, turns frames into events
 * and comes back by itself when the connection is lost.
 *
 *     import {Linker} from './linker.js';
 *
 *     const linker = new Linker({url: 'ws://127.0.0.1:8088/ws'});
 *     linker.addEventListener('message', (event) => console.log(event.detail.from, event.detail.content));
 *     await linker.login({appId: 'app-id-343', userId: 'ANZ-1', token: 'token-12345'});
 *     linker.send('ANZ-2', 'hello');
 *
 * Every event is a CustomEvent; what it says is in its `detail`:
 *
 * | event          | detail |
 * |----------------|--------|
 * | `state`        | {@link State}: every change of `linker.state` |
 * | `open`         | `{url}`: the socket is open, nobody is logged in yet |
 * | `login`        | {@link LoginReply}, granted or refused |
 * | `message`      | {@link Message} |
 * | `confirmation` | `{reference, id, createdAt, late}`: the receiver has the message |
 * | `accepted`     | `{reference?, id}`: the message is durable (feature `accept`) |
 * | `presence`     | `{userId, connected, id, createdAt, late}`, for the master user |
 * | `failed`       | {@link Failure}: DELIVER_FAILED |
 * | `invalid`      | {@link Failure}: INVALID_MESSAGE |
 * | `authrequired` | `{}`: something was sent before the login |
 * | `fetched`      | `{leftMissingCount}`: a fetch is complete |
 * | `missing`      | `{count}`: so many messages are stored |
 * | `goaway`       | `{reason, reconnectInMs}`: the server is about to close the socket |
 * | `frame`        | {@link FrameRecord}: every frame, both ways, before its own event |
 * | `close`        | {@link CloseRecord}: the socket is gone, or could not be opened |
 *
 * What arrives is data written by other people: show it as text, never as HTML.
 *
 * @module linker
 */

/**
 * `closed`: no socket, and none will be opened. `waiting`: no socket, the next
 * attempt is timed. `connecting`, `open`: a socket that nobody is logged in on.
 * `online`: logged in.
 * @typedef {'closed' | 'waiting' | 'connecting' | 'open' | 'online'} State
 *
 * @typedef {object} Options
 * @property {string} url  such as `ws://127.0.0.1:8088/ws`
 * @property {boolean} [reconnect]  come back after a lost connection; default true
 * @property {boolean} [follow]  after WRONG_DOMAIN connect to the domain that the server names; default false
 * @property {number} [minPauseMs]  upper end of the first pause before coming back; it doubles from then on; default 1000
 * @property {number} [maxPauseMs]  upper end of the longest pause; default 30000
 * @property {number} [connectTimeoutMs]  how long one attempt to connect may take; default 10000
 * @property {typeof WebSocket} [WebSocket]  default: the global one
 *
 * @typedef {object} Credentials
 * @property {string} appId
 * @property {string} userId
 * @property {string} [token]
 * @property {string[] | null} [features]  `accept`, `ack`, `push`; default `['accept']`; `null` speaks the base protocol only
 *
 * @typedef {object} SendOptions
 * @property {'RELIABLE' | 'FAST'} [feature]  default RELIABLE
 * @property {string} [reference]  default: a random one; the empty string sends none
 * @property {boolean} [confirmationEnabled]  default true
 * @property {string} [id]  at most 64 characters; the same id sent again within 10 minutes is taken once
 *
 * @typedef {object} LoginReply
 * @property {string} appId
 * @property {string} userId
 * @property {boolean} isAuthenticated
 * @property {string} [reason]  why it was refused
 * @property {string} [domain]  with WRONG_DOMAIN: the user's home
 * @property {string[]} [urls]  with WRONG_DOMAIN: where that domain can be reached
 *
 * @typedef {object} Message
 * @property {string} from
 * @property {string} content
 * @property {string} [reference]
 * @property {string} [id]  every copy of a message has the same
 * @property {number} [createdAt]  milliseconds since 1970
 * @property {boolean} late  newer messages of the same sender may have come before it
 *
 * @typedef {object} Failure
 * @property {string} code
 * @property {string} message
 * @property {string} [reference]
 * @property {boolean} [retryable]
 * @property {number} [retryAfterMs]
 *
 * @typedef {object} FrameRecord
 * @property {'in' | 'out'} direction
 * @property {number} time  milliseconds since 1970
 * @property {string} text  the frame as it travels, but for the token of a login, which is masked
 * @property {any} [frame]  the same, parsed; absent when it is not JSON
 *
 * @typedef {object} CloseRecord
 * @property {number} code  1000 after `close()`; 1006 when the connection was lost without a word
 * @property {string} reason
 * @property {number | null} retryInMs  when the next attempt follows; null: there is none
 */

/** Close codes after which a client stays away. It comes back after every other end. */
const STAY_AWAY = new Set([1003, 1007, 1009, 4400, 4403, 4410]);
const LONGEST_GO_AWAY_MS = 10 * 60 * 1000;
const MOST_REDIRECTS = 3;
const MASK = '***';

/** What the promises of `connect` and `login` are rejected with. */
export class LinkerError extends Error {
  /**
   * @param {string} code  `NOT_OPEN`, `CANNOT_OPEN`, `CLOSED`, `LOGGED_IN`, or the reason of a refused login
   * @param {string} message
   * @param {object} [detail]  the reply or the close record that caused it
   */
  constructor(code, message, detail) {
    super(message);
    this.name = 'LinkerError';
    this.code = code;
    this.detail = detail;
  }
}

/** One user's connection to a domain. It holds at most one socket at a time. */
export class Linker extends EventTarget {
  #options;
  #url;
  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {State} */
  #state = 'closed';
  /** @type {Credentials | null} remembered from login to close, for coming back */
  #credentials = null;
  /** @type {LoginReply | null} of the present socket */
  #reply = null;
  /** @type {{reconnectAt: number} | null} of the present socket */
  #goAway = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #retry;
  /** @type {Deferred | null} */
  #opening = null;
  /** @type {Deferred | null} */
  #loggingIn = null;
  #attempts = 0; // since the last login
  #redirects = 0; // since the last login

  /** @param {Options} options */
  constructor(options) {
    super();
    this.#options = {
      reconnect: true,
      follow: false,
      minPauseMs: 1000,
      maxPauseMs: 30_000,
      connectTimeoutMs: 10_000,
      WebSocket: globalThis.WebSocket,
      ...options,
    };
    if (!this.#options.WebSocket) {
      throw new LinkerError('CANNOT_OPEN', 'this platform has no WebSocket: pass a class as options.WebSocket');
    }
    this.#url = String(options.url);
  }

  /** @returns {State} */
  get state() {
    return this.#state;
  }

  /** Where it connects to; another one than at first when a WRONG_DOMAIN was followed. */
  get url() {
    return this.#url;
  }

  /** The user who is logged in, or is to be; null when there is none. */
  get userId() {
    return this.#credentials?.userId ?? null;
  }

  /**
   * Opens the socket. While it waits between two attempts, it tries at once.
   * @returns {Promise<void>} fulfilled when the socket is open; rejected when it will not be opened any more
   */
  connect() {
    if (this.#state === 'open' || this.#state === 'online') return Promise.resolve();
    this.#opening ??= deferred();
    const {promise} = this.#opening;
    if (this.#state !== 'connecting') this.#open();
    return promise;
  }

  /**
   * Logs in, and connects first if need be. The credentials are kept until
   * `close()` or a refusal, and used again whenever the connection had to be renewed.
   * @param {Credentials} credentials
   * @returns {Promise<LoginReply>} rejected when the login is refused for good
   */
  login(credentials) {
    if (this.#credentials || this.#state === 'online') {
      return Promise.reject(new LinkerError('LOGGED_IN', 'the connection has a user already: close it first'));
    }
    this.#credentials = {token: '', features: ['accept'], ...credentials};
    this.#loggingIn = deferred();
    const {promise} = this.#loggingIn;
    if (this.#state === 'open') {
      this.#authenticate();
    } else {
      this.connect().catch(() => {}); // the login's own promise tells
    }
    return promise;
  }

  /**
   * Sends a message to one user.
   * @param {string} to
   * @param {string} content
   * @param {SendOptions} [options]
   * @returns {string} its reference, which the events about it carry
   */
  send(to, content, options = {}) {
    return this.#submit('MESSAGE', {to, content}, options);
  }

  /**
   * Sends a message to several users. There is no confirmation for groups.
   * @param {string[]} to
   * @param {string} content
   * @param {SendOptions} [options]
   * @returns {string} its reference
   */
  group(to, content, options = {}) {
    return this.#submit('GROUP_MESSAGE', {to, content}, options);
  }

  /**
   * Asks for what was missed; it comes as ordinary events, then `fetched`.
   * @param {number} [count]  at most 2000
   */
  fetch(count = 100) {
    this.sendFrame({type: 'FETCH_MISSING_MESSAGES_REQUEST', data: {count}});
  }

  /**
   * Closes all sockets of a user. Only the master user of the app may.
   * @param {string} userId
   * @returns {string} the reference under which a refusal is reported
   */
  closeConnection(userId) {
    const reference = newReference();
    this.sendFrame({type: 'CLOSE_CONNECTION', data: {userId}, reference});
    return reference;
  }

  /**
   * Sends a frame as it is: an object as JSON, a string unchanged.
   * @param {object | string} frame
   */
  sendFrame(frame) {
    if (!this.#socket || (this.#state !== 'open' && this.#state !== 'online')) {
      throw new LinkerError('NOT_OPEN', 'the connection is not open');
    }
    const text = typeof frame === 'string' ? frame : JSON.stringify(frame);
    this.#socket.send(text);
    this.#record('out', text);
  }

  /** Ends the connection, forgets the credentials and does not come back. */
  close() {
    const socket = this.#socket;
    if (this.#state === 'closed') return;
    socket?.close(1000);
    this.#finish({code: 1000, reason: '', retryInMs: null}, new LinkerError('CLOSED', 'closed'));
  }

  /** @param {string} type @param {object} data @param {SendOptions} options */
  #submit(type, data, {feature = 'RELIABLE', reference = newReference(), confirmationEnabled = true, id}) {
    /** @type {Record<string, any>} */
    const frame = {type, data, feature};
    if (reference !== '') frame.reference = reference;
    if (!confirmationEnabled) frame.confirmationEnabled = false;
    if (id !== undefined) frame.id = id;
    this.sendFrame(frame);
    return reference;
  }

  #open() {
    clearTimeout(this.#retry);
    /** @type {WebSocket} */
    let socket;
    try {
      socket = new this.#options.WebSocket(this.#url);
    } catch (cause) {
      const message = cause instanceof Error ? cause.message : String(cause);
      this.#finish({code: 1006, reason: message, retryInMs: null}, new LinkerError('CANNOT_OPEN', message));
      return;
    }
    this.#socket = socket;
    this.#reply = null;
    this.#goAway = null;
    this.#setState('connecting');
    const limit = setTimeout(() => socket.close(), this.#options.connectTimeoutMs);
    socket.onopen = () => {
      clearTimeout(limit);
      if (socket === this.#socket) this.#opened();
    };
    socket.onmessage = (event) => {
      if (socket === this.#socket) this.#receive(event.data);
    };
    socket.onclose = (event) => {
      clearTimeout(limit);
      if (socket === this.#socket) this.#closed(event);
    };
    socket.onerror = () => {}; // a close event follows
  }

  #opened() {
    const known = this.#credentials !== null; // a listener that logs in now does so by itself
    this.#opening?.resolve(undefined);
    this.#opening = null;
    this.#setState('open');
    this.#emit('open', {url: this.#url});
    if (known && this.#state === 'open') this.#authenticate();
  }

  #authenticate() {
    const {appId, userId, token, features} = /** @type {Credentials} */ (this.#credentials);
    const data = {appId, userId, token};
    this.sendFrame({type: 'AUTH_CLIENT', data: features === null ? data : {...data, features}});
  }

  /** @param {any} text */
  #receive(text) {
    const frame = this.#record('in', typeof text === 'string' ? text : '');
    if (typeof frame?.type !== 'string') return;
    const {type, reference, id, createdAt, seq} = frame;
    const data = frame.data ?? {};
    const late = frame.late === true;
    switch (type) {
      case 'AUTH_CLIENT_REPLY': this.#replied(data); break;
      case 'MESSAGE': this.#emit('message', {from: data.from, content: data.content, reference, id, createdAt, late}); break;
      case 'MESSAGE_CONFIRMATION': this.#emit('confirmation', {reference: data.reference, id, createdAt, late}); break;
      case 'MESSAGE_ACCEPTED': this.#emit('accepted', {reference: data.reference, id: data.id}); break;
      case 'USER_CONNECTED': this.#emit('presence', {userId: data.userId, connected: true, id, createdAt, late}); break;
      case 'USER_DISCONNECTED': this.#emit('presence', {userId: data.userId, connected: false, id, createdAt, late}); break;
      case 'DELIVER_FAILED': this.#emit('failed', {...data, reference}); break;
      case 'INVALID_MESSAGE': this.#emit('invalid', {...data, reference}); break;
      case 'AUTH_REQUIRED': this.#emit('authrequired', {}); break;
      case 'FETCH_MISSING_MESSAGES_COMPLETE': this.#emit('fetched', {leftMissingCount: data.leftMissingCount}); break;
      case 'MISSING_MESSAGES_AVAILABLE': this.#emit('missing', {count: data.count}); break;
      case 'GO_AWAY': this.#sentAway(data); break;
    }
    // Only sockets with the feature `ack` are given a seq: the listeners have seen the frame now.
    if (Number.isSafeInteger(seq) && this.#state === 'online') this.sendFrame({type: 'MESSAGE_ACK', data: {upTo: seq}});
  }

  /** @param {LoginReply} reply */
  #replied(reply) {
    this.#reply = reply;
    if (reply.isAuthenticated) {
      this.#attempts = 0;
      this.#redirects = 0;
      this.#setState('online');
      this.#loggingIn?.resolve(reply);
      this.#loggingIn = null;
    }
    this.#emit('login', reply);
  }

  /** @param {{reason: string, reconnectInMs: number}} data */
  #sentAway(data) {
    const pause = Math.min(Math.max(Number(data.reconnectInMs) || 0, 0), LONGEST_GO_AWAY_MS);
    this.#goAway = {reconnectAt: Date.now() + pause};
    this.#emit('goaway', data);
  }

  /** @param {{code: number, reason: string}} event */
  #closed({code, reason}) {
    const reply = this.#reply;
    const refused = reply !== null && !reply.isAuthenticated && reply.reason !== 'AUTH_UNAVAILABLE';
    if (refused && reply.reason === 'WRONG_DOMAIN' && this.#redirected(reply.urls)) {
      this.#socket = null;
      this.#comeBack({code, reason, retryInMs: 0});
    } else if (refused) {
      const why = reply.reason ?? 'REFUSED';
      this.#finish({code, reason, retryInMs: null}, new LinkerError(why, `login refused: ${why}`, reply));
    } else if (STAY_AWAY.has(code) || !this.#options.reconnect) {
      const record = {code, reason, retryInMs: null};
      this.#finish(record, new LinkerError('CLOSED', `connection closed with code ${code}`, record));
    } else {
      this.#socket = null;
      this.#comeBack({code, reason, retryInMs: this.#pause()});
    }
  }

  /** @param {{code: number, reason: string, retryInMs: number}} record */
  #comeBack(record) {
    this.#retry = setTimeout(() => this.#open(), record.retryInMs);
    this.#setState('waiting');
    this.#emit('close', record);
  }

  /**
   * The end of everything until the next connect or login.
   * @param {CloseRecord} record @param {LinkerError} error
   */
  #finish(record, error) {
    clearTimeout(this.#retry);
    const waiting = [this.#opening, this.#loggingIn];
    this.#socket = null;
    this.#credentials = null;
    this.#opening = null;
    this.#loggingIn = null;
    this.#attempts = 0;
    this.#redirects = 0;
    this.#setState('closed');
    this.#emit('close', record);
    for (const promise of waiting) promise?.reject(error);
  }

  /** How long to stay away: what the server asked for, else growing and jittered. */
  #pause() {
    if (this.#goAway) return Math.max(this.#goAway.reconnectAt - Date.now(), 0);
    const {minPauseMs, maxPauseMs} = this.#options;
    const longest = Math.min(minPauseMs * 2 ** Math.min(this.#attempts, 30), maxPauseMs);
    this.#attempts += 1;
    return Math.round(longest * (0.5 + Math.random() / 2));
  }

  /**
   * Takes the url of the user's home domain, if that is wanted. The token is
   * never taken from an encrypted connection to an open one.
   * @param {string[] | undefined} urls
   */
  #redirected(urls) {
    if (!this.#options.follow || this.#redirects >= MOST_REDIRECTS || !Array.isArray(urls)) return false;
    const secure = new URL(this.#url).protocol === 'wss:';
    const candidates = urls.map(socketURL).filter((url) => url !== null && (!secure || url.protocol === 'wss:'));
    const target = candidates.find((url) => url?.protocol === 'wss:') ?? candidates[0];
    if (!target) return false;
    this.#redirects += 1;
    this.#url = target.href;
    return true;
  }

  /** @param {'in' | 'out'} direction @param {string} text */
  #record(direction, text) {
    let frame = parse(text);
    if (direction === 'out' && frame?.type === 'AUTH_CLIENT' && frame.data?.token) {
      frame = {...frame, data: {...frame.data, token: MASK}};
      text = JSON.stringify(frame);
    }
    this.#emit('frame', {direction, time: Date.now(), text, frame});
    return frame;
  }

  /** @param {State} state */
  #setState(state) {
    if (this.#state === state) return;
    this.#state = state;
    this.#emit('state', state);
  }

  /** @param {string} type @param {any} detail */
  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, {detail}));
  }
}

/** A random reference, unique enough to tell one's own messages apart. */
export function newReference() {
  const bytes = crypto.getRandomValues(new Uint8Array(9)); // randomUUID wants https, this does not
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/**
 * The websocket url of a domain, whose description may leave the path out;
 * null for what is none.
 * @param {string} text
 */
function socketURL(text) {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url?.protocol !== 'ws:' && url?.protocol !== 'wss:') return null;
  if (url.pathname === '/') url.pathname = '/ws';
  return url;
}

/** @param {string} text @returns {any} undefined when it is not JSON */
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** @typedef {{promise: Promise<any>, resolve: (value: any) => void, reject: (error: Error) => void}} Deferred */

/** @returns {Deferred} */
function deferred() {
  /** @type {any} */
  const result = {};
  result.promise = new Promise((resolve, reject) => Object.assign(result, {resolve, reject}));
  return result;
}
