/**
 * The Linker client: one module without dependencies, for browsers and for
 * Node 22 or newer.
 *
 *     import {Linker} from '@linkerhq/linker';
 *
 *     const linker = await Linker.connect({url: 'ws://127.0.0.1:8088/ws', appId: 'app-id-343', userId: 'ANZ-1'});
 *     const sent = await linker.send('ANZ-2', 'hello');
 *     for await (const message of linker.messages()) console.log(message.from, message.content);
 *
 * What it promises, and every name and type of it, is said in `linker.d.ts`. In
 * short: it comes back by itself when a connection is lost, sends again what was
 * not accepted, gives each message out once and in order, and acknowledges a
 * message when it has been handled. What arrives is data written by other people:
 * show it as text, never as HTML.
 *
 * @module linker
 */

/**
 * @typedef {import('./linker.d.ts').CloseRecord} CloseRecord
 * @typedef {import('./linker.d.ts').Credentials} Credentials
 * @typedef {import('./linker.d.ts').Failure} Failure
 * @typedef {import('./linker.d.ts').LoginReply} LoginReply
 * @typedef {import('./linker.d.ts').Message} Message
 * @typedef {import('./linker.d.ts').Options} Options
 * @typedef {import('./linker.d.ts').Outbox} Outbox
 * @typedef {import('./linker.d.ts').OutboxMessage} OutboxMessage
 * @typedef {import('./linker.d.ts').PostOptions} PostOptions
 * @typedef {import('./linker.d.ts').SendOptions} SendOptions
 * @typedef {import('./linker.d.ts').State} State
 */

/** Close codes after which a client stays away. It comes back after every other end. */
const STAY_AWAY = new Set([1003, 1007, 1009, 4400, 4403, 4410]);
const LONGEST_GO_AWAY_MS = 10 * 60 * 1000;
const MOST_REDIRECTS = 3; // in a row
const MASK = '***';
const FEATURES = ['accept', 'ack', 'push'];

const MOST_UNDER_WAY = 64; // messages that are sent and not accepted; others wait their turn
const MOST_BYTES_UNDER_WAY = 768 * 1024;
const MOST_WAITING = 16_384; // messages that are not accepted, under way or not; more are refused
const MOST_BYTES_WAITING = 64 * 1024 * 1024;
const MOST_CONFIRMATIONS = 65_536; // that are awaited; the oldest is given up
const SHORTEST_RETRY_MS = 100;
const DEFAULT_RETRY_MS = 1000;

const MOST_IDS = 131_072; // of messages that were received; the oldest is forgotten
const MOST_HELD = 8192; // messages that nobody has taken; beyond, the connection is renewed
const ACK_EVERY_MS = 50;
const ACK_EVERY_FRAMES = 64;

const ANSWER_WITHIN_MS = 30_000; // else the connection is taken for dead
const LOOK_EVERY_MS = 5000; // whether it is

const encoder = new TextEncoder();

/** What all promises of this module are rejected with, but for reasons of signals. */
export class LinkerError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {object} [detail]  the reply, the failure or the close record that caused it
   * @param {unknown} [cause]
   */
  constructor(code, message, detail, cause) {
    super(message, cause === undefined ? undefined : {cause});
    this.name = 'LinkerError';
    this.code = code;
    this.detail = detail;
  }
}

/** One user's connection to a domain. It holds at most one socket at a time. */
export class Linker extends EventTarget {
  #options;
  /** @type {string[]} where the user may be at home, in the order in which they are tried */
  #urls;
  #at = 0; // the place in #urls
  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {State} */
  #state = 'closed';
  /** @type {Required<Credentials> | null} remembered from login to close, for coming back */
  #credentials = null;
  /** @type {LoginReply | null} of the present socket */
  #reply = null;
  /** @type {{reconnectAt: number} | null} of the present socket */
  #goAway = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} until the next attempt */
  #retry;
  /** @type {ReturnType<typeof setTimeout> | undefined} until an attempt is given up */
  #limit;
  /** @type {Deferred | null} */
  #opening = null;
  /** @type {Deferred | null} */
  #loggingIn = null;
  #attempts = 0; // since the last login
  #redirects = 0; // in a row
  #known = false; // the user was logged in since `login` was called

  #inbox = new Inbox();
  #listeners = new MessageListeners();
  #lastUser = ''; // whose messages the inbox remembers
  #ackedAt = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #ackTimer;
  #acking = false; // it is about to be done

  #queue = new SendQueue();
  #confirmations = new Confirmations();
  /** @type {Letter[] | null} sent while the outbox is being read: they come after what is in it */
  #early = null;

  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #lookTimer;
  #heardAt = 0; // when the last frame came
  #askedAt = 0; // since when an answer is due; 0: none is
  #probing = false;

  /** @param {Options} options */
  constructor(options) {
    super();
    this.#options = {
      reconnect: true,
      follow: true,
      minPauseMs: 1000,
      maxPauseMs: 30_000,
      connectTimeoutMs: 10_000,
      probeAfterMs: 300_000,
      maxFrameBytes: 64 * 1024,
      outbox: null,
      WebSocket: globalThis.WebSocket,
      ...options,
    };
    if (!this.#options.WebSocket) {
      throw new LinkerError('CANNOT_OPEN', 'this platform has no WebSocket: pass a class as options.WebSocket');
    }
    this.#urls = this.#options.urls ? this.#options.urls.map(String) : [String(this.#options.url)];
    if (this.#urls.length === 0) throw new LinkerError('CANNOT_OPEN', 'urls: [], expected at least one');
  }

  /**
   * @param {import('./linker.d.ts').ConnectOptions} options
   * @returns {Promise<Linker>}
   */
  static async connect({appId, userId, token, features, signal, ...options}) {
    const linker = new Linker(options);
    await linker.login({appId, userId, token, features}, {signal});
    return linker;
  }

  /** @returns {State} */
  get state() {
    return this.#state;
  }

  get url() {
    return this.#urls[this.#at];
  }

  get userId() {
    return this.#credentials?.userId ?? null;
  }

  /** How many messages are not accepted yet, under way or waiting. */
  get waiting() {
    return this.#queue.size + (this.#early?.length ?? 0);
  }

  /**
   * Opens the socket. While it waits between two attempts, it tries at once.
   * @returns {Promise<void>}
   */
  connect() {
    if (this.#state === 'open' || this.#state === 'online') return Promise.resolve();
    this.#opening ??= deferred();
    const {promise} = this.#opening;
    if (this.#state !== 'connecting') this.#open();
    return promise;
  }

  /**
   * @param {Credentials} credentials
   * @param {{signal?: AbortSignal}} [options]
   * @returns {Promise<LoginReply>}
   */
  login({appId, userId, token = '', features = FEATURES}, {signal} = {}) {
    if (this.#credentials || this.#state === 'online') {
      return Promise.reject(new LinkerError('LOGGED_IN', 'the connection has a user already: close it first'));
    }
    if (this.#inbox.loops > 0 && !features?.includes('ack')) return Promise.reject(needs('ack', 'messages'));
    if (signal?.aborted) {
      this.close();
      return Promise.reject(signal.reason);
    }
    if (userId !== this.#lastUser) this.#inbox.forget();
    this.#lastUser = userId;
    this.#credentials = {appId, userId, token, features};
    const loggingIn = deferred();
    this.#loggingIn = loggingIn;
    const stop = () => {
      if (this.#loggingIn === loggingIn) this.#end(signal?.reason);
    };
    signal?.addEventListener('abort', stop, {once: true});
    const over = () => signal?.removeEventListener('abort', stop);
    loggingIn.promise.then(over, over);
    if (this.#options.outbox) {
      this.#load(this.#options.outbox, loggingIn);
    } else {
      this.#enter();
    }
    return loggingIn.promise;
  }

  /** The way of a login whose outbox has been read. */
  #enter() {
    if (this.#state === 'open') {
      this.#authenticate();
    } else {
      this.connect().catch(() => {}); // the login's own promise tells
    }
  }

  /** @param {Outbox} outbox @param {Deferred} loggingIn */
  async #load(outbox, loggingIn) {
    this.#early = [];
    const user = this.userId;
    try {
      const left = await outbox.load();
      if (this.#loggingIn !== loggingIn) return;
      for (const message of left) {
        if (message.from === user) continue;
        throw new Error(`message ${message.id} is of ${message.from}, expected ${user}: each user has an outbox of its own`);
      }
      for (const message of left) {
        if (!this.#queue.has(message.id)) this.#queue.add(new Letter(message), false);
      }
    } catch (cause) {
      if (this.#loggingIn !== loggingIn) return;
      this.#end(new LinkerError('OUTBOX_FAILED', `read the outbox: ${textOf(cause)}`, undefined, cause));
      return;
    }
    const early = this.#early ?? [];
    this.#early = null;
    for (const letter of early) this.#admit(letter);
    this.#enter();
  }

  /**
   * @param {string} to
   * @param {string} content
   * @param {SendOptions} [options]
   * @returns {Promise<import('./linker.d.ts').Sent>}
   */
  async send(to, content, options = {}) {
    if (typeof to !== 'string' || to === '') throw invalid('to', to, 'a user id');
    const {reference, accepted, confirmed} = this.#submit('MESSAGE', to, content, options);
    return {id: await accepted, reference, confirmed};
  }

  /**
   * @param {string[]} to
   * @param {string} content
   * @param {SendOptions} [options]
   * @returns {Promise<import('./linker.d.ts').Accepted>}
   */
  async sendGroup(to, content, options = {}) {
    if (!Array.isArray(to) || to.length === 0 || to.some((user) => typeof user !== 'string')) throw invalid('to', to, 'user ids');
    const {reference, accepted} = this.#submit('GROUP_MESSAGE', [...to], content, options);
    return {id: await accepted, reference};
  }

  /**
   * @param {'MESSAGE' | 'GROUP_MESSAGE'} type
   * @param {string | string[]} to
   * @param {string} content
   * @param {SendOptions} options
   */
  #submit(type, to, content, {id = newReference(), reference = id, confirmationEnabled = true, signal}) {
    signal?.throwIfAborted();
    if (!this.#credentials) throw new LinkerError('NOT_LOGGED_IN', 'nobody is logged in, or will be');
    if (!this.#credentials.features?.includes('accept')) throw needs('accept', 'send');
    if (typeof content !== 'string' || !content.isWellFormed()) throw invalid('content', typeof content, 'well-formed text');
    if (!isName(id, 64)) throw invalid('id', id, 'text of 1 to 64 characters');
    if (!isName(reference, 128)) throw invalid('reference', reference, 'text of 1 to 128 characters');
    const letter = new Letter({id, type, from: this.#credentials.userId, to, content, reference, confirmationEnabled});
    const {maxFrameBytes} = this.#options;
    if (letter.bytes > maxFrameBytes) {
      throw new LinkerError('TOO_LARGE', `the frame has ${letter.bytes} bytes, expected at most ${maxFrameBytes}`);
    }
    if (this.#queue.has(id) || this.#early?.some((other) => other.message.id === id)) {
      throw invalid('id', id, 'another one than that of a message that waits');
    }
    if (this.waiting >= MOST_WAITING || this.#queue.bytes + letter.bytes > MOST_BYTES_WAITING) {
      throw new LinkerError('QUEUE_FULL', `${this.waiting} messages with ${this.#queue.bytes} bytes are not accepted yet`);
    }
    const confirmed = type === 'MESSAGE' ? this.#confirmations.expect(reference, confirmationEnabled) : null;
    const withdraw = () => this.#withdraw(letter, signal?.reason);
    signal?.addEventListener('abort', withdraw, {once: true});
    const over = () => signal?.removeEventListener('abort', withdraw);
    const accepted = letter.accepted.promise;
    accepted.then(over, (error) => {
      over();
      if (confirmed) this.#confirmations.giveUp(reference, confirmed, error);
    });
    if (this.#early) {
      this.#early.push(letter);
    } else {
      this.#admit(letter);
    }
    return {reference, accepted, confirmed: /** @type {Promise<void>} */ (confirmed)};
  }

  /** @param {Letter} letter that is new */
  #admit(letter) {
    const {outbox} = this.#options;
    if (!outbox) {
      this.#queue.add(letter, false);
      this.#pump();
      return;
    }
    this.#queue.add(letter, true);
    attempt(() => outbox.put(letter.message)).then(
      () => {
        letter.stored = true;
        if (!letter.over) {
          this.#queue.advance(letter);
          this.#pump();
        } else if (!letter.kept) { // withdrawn meanwhile
          this.#unstore(letter);
        }
      },
      (cause) => {
        if (!letter.over) this.#fail(letter, new LinkerError('OUTBOX_FAILED', `write to the outbox: ${textOf(cause)}`, undefined, cause));
      },
    );
  }

  /** Sends what may be sent now. */
  #pump() {
    while (this.#state === 'online') {
      const letter = this.#queue.next();
      if (!letter) return;
      this.#askedAt ||= Date.now();
      this.sendFrame(letter.text);
    }
  }

  /** @param {string | undefined} reference @param {string} id that the network knows it by */
  #accepted(reference, id) {
    const letter = this.#queue.underWay(reference);
    if (!letter) return;
    letter.over = true;
    letter.accepted.resolve(id);
    this.#leave(letter);
    this.#pump();
  }

  /**
   * A message cannot be sent, or not now.
   * @param {string | undefined} reference
   * @param {Failure} failure
   * @returns {number | undefined} when it will be sent again, in milliseconds
   */
  #refused(reference, failure) {
    const letter = this.#queue.underWay(reference);
    const {code, message, retryable, retryAfterMs} = failure;
    if (!letter) {
      if (!retryable) this.#confirmations.fail(reference, new LinkerError(code, message, failure));
      return undefined;
    }
    if (!retryable || letter.over) {
      this.#fail(letter, new LinkerError(code, message, failure));
      return undefined;
    }
    const longest = Math.max(Number(retryAfterMs) || DEFAULT_RETRY_MS, SHORTEST_RETRY_MS);
    const pause = Math.round(longest * (1 + Math.random() / 2));
    this.#queue.pause(letter, setTimeout(() => {
      this.#queue.resume(letter);
      this.#pump();
    }, pause));
    this.#pump();
    return pause;
  }

  /**
   * A message will not be sent, or not once more.
   * @param {Letter} letter @param {unknown} error
   */
  #fail(letter, error) {
    letter.end(error);
    this.#leave(letter);
    this.#pump();
  }

  /**
   * Nobody wants the message to be sent any more. It may be accepted all the same
   * if it is under way; until that is known, nothing may overtake it.
   * @param {Letter} letter @param {unknown} reason
   */
  #withdraw(letter, reason) {
    if (letter.over) return;
    if (this.#queue.underWay(letter.message.reference) === letter) {
      letter.end(reason);
      this.#unstore(letter);
    } else {
      this.#early = this.#early?.filter((other) => other !== letter) ?? null;
      this.#fail(letter, reason);
    }
  }

  /** @param {Letter} letter */
  #leave(letter) {
    this.#queue.remove(letter);
    this.#unstore(letter);
  }

  /** @param {Letter} letter */
  #unstore(letter) {
    const {outbox} = this.#options;
    if (!outbox || !letter.stored) return;
    letter.stored = false;
    const {id} = letter.message;
    attempt(() => outbox.remove(id)).catch((error) => this.#emit('outboxfailed', {id, error}));
  }

  /**
   * @param {{signal?: AbortSignal}} [options]
   * @returns {AsyncIterableIterator<Message>}
   */
  messages({signal} = {}) {
    if (this.#credentials && !this.#credentials.features?.includes('ack')) throw needs('ack', 'messages');
    const loop = this.#inbox.loop({
      handled: () => this.#acknowledge(),
      left: () => {
        // If it was left by an error that ends the program, this comes too late, as it should.
        this.#acknowledgeIn(ACK_EVERY_MS);
        if (this.#inbox.loops === 0) this.#distribute();
      },
    });
    if (signal?.aborted) loop.end(signal.reason);
    signal?.addEventListener('abort', () => loop.end(signal.reason), {once: true, signal: loop.over});
    return loop;
  }

  /**
   * Sends a MESSAGE now, once, whatever comes of it.
   * @param {string} to
   * @param {string} content
   * @param {PostOptions} [options]
   * @returns {string} its reference, which the events about it carry
   */
  post(to, content, options = {}) {
    return this.#post('MESSAGE', {to, content}, options);
  }

  /**
   * Sends a GROUP_MESSAGE now, once, whatever comes of it.
   * @param {string[]} to
   * @param {string} content
   * @param {PostOptions} [options]
   * @returns {string} its reference
   */
  postGroup(to, content, options = {}) {
    return this.#post('GROUP_MESSAGE', {to, content}, options);
  }

  /** @param {string} type @param {object} data @param {PostOptions} options */
  #post(type, data, {feature = 'RELIABLE', reference = newReference(), confirmationEnabled = true, id}) {
    /** @type {Record<string, unknown>} */
    const frame = {type, data, feature};
    if (reference !== '') frame.reference = reference;
    if (!confirmationEnabled) frame.confirmationEnabled = false;
    if (id !== undefined) frame.id = id;
    this.sendFrame(frame);
    return reference;
  }

  /** @param {number} [count] */
  fetch(count = 100) {
    this.sendFrame({type: 'FETCH_MISSING_MESSAGES_REQUEST', data: {count}});
  }

  /**
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

  /** Acknowledges what was handled, ends the connection, forgets the credentials and does not come back. */
  close() {
    this.#end(null);
  }

  /** @param {unknown} error that promises are rejected with; null: what is usual, and loops just end */
  #end(error) {
    if (this.#state === 'closed' && !this.#credentials) return;
    this.#sendAck();
    const socket = this.#socket;
    const record = {code: 1000, reason: '', retryInMs: null};
    this.#finish(record, error ?? new LinkerError('CLOSED', 'closed', record), error === null);
    socket?.close(1000);
  }

  /**
   * @param {string} type
   * @param {EventListenerOrEventListenerObject | null} listener
   * @param {boolean | AddEventListenerOptions} [options]
   */
  addEventListener(type, listener, options) {
    super.addEventListener(type, listener, options);
    if (type !== 'message' || !listener) return;
    this.#listeners.add(listener, typeof options === 'object' ? options : {});
    if (this.#inbox.held > 0) queueMicrotask(() => this.#distribute());
  }

  /**
   * @param {string} type
   * @param {EventListenerOrEventListenerObject | null} listener
   * @param {boolean | EventListenerOptions} [options]
   */
  removeEventListener(type, listener, options) {
    super.removeEventListener(type, listener, options);
    if (type === 'message' && listener) this.#listeners.remove(listener);
  }

  #open() {
    clearTimeout(this.#retry);
    /** @type {WebSocket} */
    let socket;
    try {
      socket = new this.#options.WebSocket(this.url);
    } catch (cause) {
      const message = textOf(cause);
      this.#finish({code: 1006, reason: message, retryInMs: null}, new LinkerError('CANNOT_OPEN', message, undefined, cause));
      return;
    }
    this.#socket = socket;
    this.#reply = null;
    this.#goAway = null;
    this.#inbox.begin();
    this.#setState('connecting');
    this.#limit = setTimeout(() => this.#drop(socket, 'it did not open in time'), this.#options.connectTimeoutMs);
    socket.onopen = () => {
      if (socket === this.#socket) this.#opened();
    };
    socket.onmessage = (event) => {
      if (socket === this.#socket) this.#receive(event.data);
    };
    socket.onclose = (event) => {
      if (socket === this.#socket) this.#closed(event);
    };
    socket.onerror = () => {}; // a close event follows
  }

  /**
   * Takes a socket for lost. A dead one may never say that it has ended.
   * @param {WebSocket} socket @param {string} reason
   */
  #drop(socket, reason) {
    if (socket !== this.#socket) return;
    this.#closed({code: 1006, reason});
    socket.close();
  }

  #opened() {
    clearTimeout(this.#limit);
    // A listener that logs in now does so by itself, and so does a login whose outbox is still being read.
    const known = this.#credentials !== null && this.#early === null;
    this.#opening?.resolve(undefined);
    this.#opening = null;
    this.#setState('open');
    this.#emit('open', {url: this.url});
    if (known && this.#state === 'open') this.#authenticate();
  }

  #authenticate() {
    const {token} = /** @type {Required<Credentials>} */ (this.#credentials);
    const socket = /** @type {WebSocket} */ (this.#socket);
    if (typeof token === 'string') {
      this.#present(token);
      return;
    }
    attempt(token).then(
      (text) => {
        if (socket === this.#socket && this.#state === 'open') this.#present(text);
      },
      (cause) => this.#drop(socket, `no token: ${textOf(cause)}`),
    );
  }

  /** @param {string} token */
  #present(token) {
    const {appId, userId, features} = /** @type {Required<Credentials>} */ (this.#credentials);
    const data = {appId, userId, token};
    this.sendFrame({type: 'AUTH_CLIENT', data: features === null ? data : {...data, features}});
  }

  /** @param {unknown} text */
  #receive(text) {
    this.#heardAt = Date.now();
    this.#askedAt &&= this.#heardAt;
    const frame = this.#record('in', typeof text === 'string' ? text : '');
    if (typeof frame?.type !== 'string') return;
    const {type, reference, id, createdAt, seq} = frame;
    const data = frame.data ?? {};
    const late = frame.late === true;
    switch (type) {
      case 'AUTH_CLIENT_REPLY': this.#replied(data); break;
      case 'MESSAGE': {
        const message = {from: data.from, content: data.content, reference, id, createdAt, late};
        this.#take(frame, () => this.#deliver(message));
        break;
      }
      case 'MESSAGE_CONFIRMATION':
        this.#take(frame, () => {
          this.#confirmations.confirm(data.reference);
          this.#emit('confirmation', {reference: data.reference, id, createdAt, late});
        });
        break;
      case 'USER_CONNECTED':
      case 'USER_DISCONNECTED':
        this.#take(frame, () => this.#emit('presence', {userId: data.userId, connected: type === 'USER_CONNECTED', id, createdAt, late}));
        break;
      case 'MESSAGE_ACCEPTED':
        this.#emit('accepted', {reference: data.reference, id: data.id});
        this.#accepted(data.reference, data.id);
        break;
      case 'DELIVER_FAILED': {
        if (this.#probing && reference === undefined) {
          this.#probing = false;
          break;
        }
        const retryInMs = this.#refused(reference, data);
        this.#emit('failed', {...data, reference, ...(retryInMs !== undefined && {retryInMs})});
        break;
      }
      case 'INVALID_MESSAGE':
        this.#refused(reference, {...data, retryable: false});
        this.#emit('invalid', {...data, reference});
        break;
      case 'AUTH_REQUIRED': this.#emit('authrequired', {}); break;
      case 'FETCH_MISSING_MESSAGES_COMPLETE':
        if (this.#probing) {
          this.#probing = false;
          break;
        }
        this.#emit('fetched', {leftMissingCount: data.leftMissingCount});
        break;
      case 'MISSING_MESSAGES_AVAILABLE': this.#emit('missing', {count: data.count}); break;
      case 'GO_AWAY': this.#sentAway(data); break;
    }
    if (this.#queue.underWays === 0) this.#askedAt = 0;
    if (Number.isSafeInteger(seq)) this.#acknowledge();
  }

  /**
   * Takes what came from a message, once.
   * @param {{type: string, id?: string, seq?: number}} frame
   * @param {() => Message | void} use
   */
  #take({type, id, seq}, use) {
    const {item, fresh} = this.#inbox.take(typeof id === 'string' ? `${type} ${id}` : '', seq);
    if (!fresh) return;
    const message = use();
    if (message) {
      this.#inbox.hold(item, message);
      this.#distribute();
    } else {
      this.#inbox.finish(item);
    }
  }

  /** @param {Message} message @returns {Message | void} if it is to be held until somebody has handled it */
  #deliver(message) {
    if (this.#credentials?.features?.includes('ack')) return message;
    this.#listeners.hear(() => this.#emit('message', message)); // nothing limits what would have to be held
    return undefined;
  }

  /** Gives what is held to whoever is there. */
  #distribute() {
    const round = this.#inbox.round;
    while (this.#listeners.count > 0 && round === this.#inbox.round) {
      const item = this.#inbox.unheard();
      if (!item) break;
      this.#listeners.hear(() => this.#emit('message', item.message));
    }
    if (round !== this.#inbox.round) return; // closed by a listener
    if (this.#inbox.loops > 0) {
      this.#inbox.serve();
    } else if (this.#inbox.finishHeard() > 0) {
      this.#acknowledge();
    }
    if (this.#inbox.held > MOST_HELD && this.#socket) { // RELIABLE ones come again
      this.#inbox.letGo();
      this.#drop(this.#socket, `more than ${MOST_HELD} messages wait for somebody who takes them`);
    }
  }

  /**
   * Has the server told what is handled, now and then. Never at once: a listener that
   * has thrown may be about to end the program, and then nothing was handled.
   */
  #acknowledge() {
    const {due} = this.#inbox;
    if (due === 0) return;
    const wait = ACK_EVERY_MS - (Date.now() - this.#ackedAt);
    if (due < ACK_EVERY_FRAMES && wait > 0 && wait <= ACK_EVERY_MS) {
      this.#acknowledgeIn(wait);
    } else if (!this.#acking) {
      this.#acking = true;
      queueMicrotask(() => {
        this.#acking = false;
        this.#sendAck();
      });
    }
  }

  /** @param {number} ms */
  #acknowledgeIn(ms) {
    this.#ackTimer ??= setTimeout(() => this.#sendAck(), ms);
  }

  #sendAck() {
    clearTimeout(this.#ackTimer);
    this.#ackTimer = undefined;
    if (this.#state !== 'online' || !this.#credentials?.features?.includes('ack') || this.#inbox.due === 0) return;
    this.#ackedAt = Date.now();
    this.sendFrame({type: 'MESSAGE_ACK', data: {upTo: this.#inbox.acknowledge()}});
  }

  /** @param {LoginReply} reply */
  #replied(reply) {
    this.#reply = reply;
    if (reply.isAuthenticated) {
      this.#attempts = 0;
      this.#redirects = 0;
      this.#known = true;
      this.#setState('online');
      this.#loggingIn?.resolve(reply);
      this.#loggingIn = null;
      this.#look();
    }
    this.#emit('login', reply);
    this.#pump();
  }

  /** Looks now and then whether the connection is alive: a dead one does not always say so. */
  #look() {
    clearTimeout(this.#lookTimer);
    this.#lookTimer = setTimeout(() => {
      const now = Date.now();
      const {probeAfterMs} = this.#options;
      if (this.#state !== 'online' || !this.#socket) return;
      if (this.#askedAt > 0 && now - this.#askedAt >= ANSWER_WITHIN_MS) {
        this.#drop(this.#socket, `nothing came for ${ANSWER_WITHIN_MS / 1000} s`);
        return;
      }
      const pushed = this.#credentials?.features?.includes('push'); // then a fetch brings nothing but its answer
      if (this.#askedAt === 0 && !this.#probing && pushed && probeAfterMs > 0 && now - this.#heardAt >= probeAfterMs) {
        this.fetch(1);
        this.#probing = true;
        this.#askedAt = now;
      }
      this.#look();
    }, LOOK_EVERY_MS);
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
    this.#lost();
    if (refused && reply.reason === 'WRONG_DOMAIN' && this.#options.follow) {
      if (this.#redirected(reply.urls)) {
        this.#comeBack({code, reason, retryInMs: 0});
        return;
      }
      if (this.#known && this.#options.reconnect) { // domains that do not agree yet where a user is at home
        this.#comeBackLater({code, reason});
        return;
      }
    }
    if (refused) {
      const why = reply.reason ?? 'REFUSED';
      this.#finish({code, reason, retryInMs: null}, new LinkerError(why, `login refused: ${why}`, reply));
    } else if (STAY_AWAY.has(code) || !this.#options.reconnect) {
      const record = {code, reason, retryInMs: null};
      this.#finish(record, new LinkerError('CLOSED', `connection closed with code ${code}`, record));
    } else {
      this.#comeBackLater({code, reason});
    }
  }

  /** @param {{code: number, reason: string}} end */
  #comeBackLater(end) {
    const retryInMs = this.#pause();
    this.#at = (this.#at + 1) % this.#urls.length;
    this.#comeBack({...end, retryInMs});
  }

  /** What ends with a socket. */
  #lost() {
    this.#socket = null;
    this.#probing = false;
    this.#askedAt = 0;
    clearTimeout(this.#limit);
    clearTimeout(this.#lookTimer);
    clearTimeout(this.#ackTimer);
    this.#ackTimer = undefined;
    this.#queue.lost();
  }

  /** @param {{code: number, reason: string, retryInMs: number}} record */
  #comeBack(record) {
    this.#retry = setTimeout(() => this.#open(), record.retryInMs);
    this.#setState('waiting');
    this.#emit('close', record);
  }

  /**
   * The end of everything until the next connect or login.
   * @param {CloseRecord} record @param {unknown} error @param {boolean} [wanted]
   */
  #finish(record, error, wanted = false) {
    clearTimeout(this.#retry);
    this.#lost();
    const waiting = [this.#opening, this.#loggingIn, ...this.#queue.clear(), ...(this.#early ?? []).map((letter) => letter.keep())];
    this.#credentials = null;
    this.#opening = null;
    this.#loggingIn = null;
    this.#early = null;
    this.#attempts = 0;
    this.#redirects = 0;
    this.#known = false;
    this.#inbox.end(wanted ? null : error);
    this.#confirmations.clear(error);
    this.#setState('closed');
    this.#emit('close', record);
    for (const promise of waiting) promise?.reject(error);
  }

  /** How long to stay away: what the server asked for, else growing and drawn at random. */
  #pause() {
    this.#redirects = 0;
    if (this.#goAway) return Math.max(this.#goAway.reconnectAt - Date.now(), 0);
    const {minPauseMs, maxPauseMs} = this.#options;
    const longest = Math.min(minPauseMs * 2 ** Math.min(this.#attempts, 30), maxPauseMs);
    this.#attempts += 1;
    return Math.round(longest * Math.random());
  }

  /**
   * Takes the urls of the user's home domain, and the first ones after them. The
   * token is never taken from an encrypted connection to an open one.
   * @param {string[] | undefined} urls
   */
  #redirected(urls) {
    if (this.#redirects >= MOST_REDIRECTS || !Array.isArray(urls)) return false;
    const secure = new URL(this.url).protocol === 'wss:';
    const homes = urls.map(socketURL).filter((url) => url !== null && (!secure || url.protocol === 'wss:')).map(String);
    if (homes.length === 0) return false;
    homes.sort((a, b) => Number(b.startsWith('wss:')) - Number(a.startsWith('wss:')));
    const {url, urls: first} = this.#options;
    const others = (first ?? [url]).map(String).filter((other) => !secure || other.startsWith('wss:'));
    this.#redirects += 1;
    this.#urls = [...new Set([...homes, ...others])];
    this.#at = 0;
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

  /** @param {string} type @param {unknown} detail */
  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, {detail}));
  }
}

/** A random name, unique enough to tell one's own messages apart. */
export function newReference() {
  const bytes = crypto.getRandomValues(new Uint8Array(9)); // randomUUID wants https, this does not
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** One message until it is accepted. */
class Letter {
  /** @param {OutboxMessage} message */
  constructor(message) {
    const {type, to, content, reference, id, confirmationEnabled} = message;
    this.message = message;
    this.text = JSON.stringify({
      type, data: {to, content}, feature: 'RELIABLE', reference, id, ...(!confirmationEnabled && {confirmationEnabled}),
    });
    this.bytes = encoder.encode(this.text).length;
    /** Where it queues: nothing overtakes it there. Its reference is what its answer is known by. */
    this.places = new Set([...(Array.isArray(to) ? to : [to]), `reference ${reference}`]);
    this.accepted = deferred();
    this.accepted.promise.catch(() => {}); // of what came from an outbox, only events tell
    this.order = 0;
    this.ahead = 0; // how many things it waits for
    this.over = false; // its promise is settled
    this.kept = false; // it stays in the outbox although it is over
    this.stored = false; // it is in the outbox
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.pause = undefined;
  }

  /** @param {unknown} error */
  end(error) {
    if (this.over) return;
    this.over = true;
    this.accepted.reject(error);
  }

  /** Leaves it to a later connection, if there is an outbox. */
  keep() {
    this.over = true;
    this.kept = true;
    clearTimeout(this.pause);
    return this.accepted;
  }
}

/**
 * The messages that are not accepted. To each receiver one is under way at most, so
 * that none overtakes another when the first is refused for now; a group has all of its members.
 */
class SendQueue {
  /** @type {Map<string, Letter>} by id */
  #letters = new Map();
  /** @type {Map<string, Letter[]>} by place, in order; the first may be under way */
  #lines = new Map();
  /** @type {Letter[]} that wait for nothing but room */
  #ready = [];
  /** @type {Map<string, Letter>} by reference */
  #underWay = new Map();
  #bytesUnderWay = 0;
  #order = 0;
  bytes = 0;

  get size() {
    return this.#letters.size;
  }

  get underWays() {
    return this.#underWay.size;
  }

  /** @param {string} id */
  has(id) {
    return this.#letters.has(id);
  }

  /** @param {string | undefined} reference */
  underWay(reference) {
    return this.#underWay.get(reference ?? '');
  }

  /** @param {Letter} letter @param {boolean} waits  for a call of advance */
  add(letter, waits) {
    letter.order = this.#order++;
    letter.stored = !waits;
    letter.ahead = 1;
    this.#letters.set(letter.message.id, letter);
    this.bytes += letter.bytes;
    for (const place of letter.places) {
      const line = this.#lines.get(place) ?? [];
      if (line.push(letter) > 1) letter.ahead += 1;
      this.#lines.set(place, line);
    }
    if (!waits) this.advance(letter);
  }

  /** Something that the letter waited for is over. @param {Letter} letter */
  advance(letter) {
    letter.ahead -= 1;
    if (letter.ahead === 0) this.#ready.push(letter);
  }

  /** @returns {Letter | undefined} the next one, which is under way from now on */
  next() {
    const letter = this.#ready[0];
    const count = this.#underWay.size;
    if (!letter || count >= MOST_UNDER_WAY || (count > 0 && this.#bytesUnderWay + letter.bytes > MOST_BYTES_UNDER_WAY)) return undefined;
    this.#ready.shift();
    this.#underWay.set(letter.message.reference, letter);
    this.#bytesUnderWay += letter.bytes;
    return letter;
  }

  /** @param {Letter} letter @returns {boolean} whether it was under way */
  #land(letter) {
    if (this.underWay(letter.message.reference) !== letter) return false;
    this.#underWay.delete(letter.message.reference);
    this.#bytesUnderWay -= letter.bytes;
    return true;
  }

  /** @param {Letter} letter @param {ReturnType<typeof setTimeout>} timer that resumes it */
  pause(letter, timer) {
    this.#land(letter);
    letter.pause = timer;
  }

  /** @param {Letter} letter */
  resume(letter) {
    letter.pause = undefined;
    this.#ready.push(letter);
  }

  /** @param {Letter} letter */
  remove(letter) {
    if (!this.#letters.delete(letter.message.id)) return;
    if (!this.#land(letter)) this.#ready = this.#ready.filter((other) => other !== letter);
    clearTimeout(letter.pause);
    this.bytes -= letter.bytes;
    for (const place of letter.places) {
      const line = /** @type {Letter[]} */ (this.#lines.get(place));
      const at = line.indexOf(letter);
      line.splice(at, 1);
      if (line.length === 0) {
        this.#lines.delete(place);
      } else if (at === 0) {
        this.advance(line[0]);
      }
    }
  }

  /** What was under way on a connection that is lost goes out again on the next one, first. */
  lost() {
    const again = [...this.#underWay.values()];
    this.#underWay.clear();
    this.#bytesUnderWay = 0;
    for (const letter of again) {
      if (letter.over) {
        this.remove(letter);
      } else {
        this.#ready.push(letter);
      }
    }
    this.#ready.sort((a, b) => a.order - b.order);
  }

  /** @returns {Deferred[]} of everything that was in it */
  clear() {
    const waiting = [...this.#letters.values()].map((letter) => letter.keep());
    this.#letters.clear();
    this.#lines.clear();
    this.#underWay.clear();
    this.#ready = [];
    this.bytes = 0;
    this.#bytesUnderWay = 0;
    return waiting;
  }
}

/** The confirmations that are awaited, by reference. */
class Confirmations {
  /** @type {Map<string, Deferred[]>} the oldest first */
  #awaited = new Map();
  #count = 0;

  /** @param {string} reference @param {boolean} enabled @returns {Promise<void>} */
  expect(reference, enabled) {
    const confirmed = deferred();
    confirmed.promise.catch(() => {}); // not everybody wants to know
    if (!enabled) {
      confirmed.reject(new LinkerError('NOT_ASKED_FOR', 'the message was sent without confirmationEnabled'));
      return confirmed.promise;
    }
    if (this.#count >= MOST_CONFIRMATIONS) {
      const [oldest] = this.#awaited.keys();
      this.#take(oldest)?.reject(new LinkerError('NOT_AWAITED', `more than ${MOST_CONFIRMATIONS} confirmations are awaited`));
    }
    this.#awaited.set(reference, [...(this.#awaited.get(reference) ?? []), confirmed]);
    this.#count += 1;
    return confirmed.promise;
  }

  /** @param {string | undefined} reference @returns {Deferred | undefined} */
  #take(reference = '') {
    const list = this.#awaited.get(reference);
    const first = list?.shift();
    if (first) this.#count -= 1;
    if (list?.length === 0) this.#awaited.delete(reference);
    return first;
  }

  /** @param {string | undefined} reference */
  confirm(reference) {
    this.#take(reference)?.resolve(undefined);
  }

  /** @param {string | undefined} reference @param {unknown} error */
  fail(reference, error) {
    this.#take(reference)?.reject(error);
  }

  /** @param {string} reference @param {Promise<void>} promise @param {unknown} error */
  giveUp(reference, promise, error) {
    const list = this.#awaited.get(reference) ?? [];
    const at = list.findIndex((other) => other.promise === promise);
    if (at < 0) return;
    const [given] = list.splice(at, 1);
    this.#count -= 1;
    if (list.length === 0) this.#awaited.delete(reference);
    given.reject(error);
  }

  /** @param {unknown} error */
  clear(error) {
    const all = [...this.#awaited.values()].flat();
    this.#awaited.clear();
    this.#count = 0;
    for (const one of all) one.reject(error);
  }
}

/**
 * What was received: which ids are known, which messages nobody has taken, and how
 * far all is handled, which is what the server is told.
 */
class Inbox {
  /** @type {Set<string>} the oldest first */
  #known = new Set();
  /** @type {Map<string, Item>} by key: those that are not handled, of this or of an earlier socket */
  #unhandled = new Map();
  /** @type {Item[]} in order */
  #held = [];
  #heard = 0; // so many of #held, from the first, were given to listeners
  /** @type {{seq: number, item: Item}[]} of the present socket, not acknowledged */
  #arrivals = [];
  #due = 0; // so many of #arrivals, from the first, are known to be handled
  /** @type {Set<Loop>} */
  #loops = new Set();
  /** Another one after each end. */
  round = 0;

  get loops() {
    return this.#loops.size;
  }

  get held() {
    return this.#held.length;
  }

  /** A new socket: what it brings is counted anew. */
  begin() {
    this.#arrivals = [];
    this.#due = 0;
  }

  /** Another user: groups have one id for all of their members. */
  forget() {
    this.#known.clear();
  }

  /**
   * @param {string} key  empty: it has no id
   * @param {number | undefined} seq
   * @returns {{item: Item, fresh: boolean}}
   */
  take(key, seq) {
    let item = this.#unhandled.get(key);
    const fresh = item === undefined && !this.#known.has(key);
    item ??= {key, done: !fresh, message: null};
    if (Number.isSafeInteger(seq)) this.#arrivals.push({seq: Number(seq), item});
    if (fresh && key !== '') {
      this.#unhandled.set(key, item);
      this.#known.add(key);
      if (this.#known.size > MOST_IDS) {
        const [oldest] = this.#known;
        this.#known.delete(oldest);
      }
    }
    return {item, fresh};
  }

  /** @param {Item} item @param {Message} message */
  hold(item, message) {
    item.message = message;
    this.#held.push(item);
  }

  /** @param {Item} item */
  finish(item) {
    item.done = true;
    this.#unhandled.delete(item.key);
  }

  /** @returns {Item | undefined} the next that no listener has heard; it counts as heard from now on */
  unheard() {
    return this.#heard < this.#held.length ? this.#held[this.#heard++] : undefined;
  }

  /** @returns {number} how many were heard and are handled now */
  finishHeard() {
    const heard = this.#held.splice(0, this.#heard);
    this.#heard = 0;
    for (const item of heard) this.finish(item);
    return heard.length;
  }

  /** Gives what is held to the loops that wait. */
  serve() {
    for (const loop of this.#loops) {
      while (this.#held.length > 0 && loop.waits) {
        this.#heard = Math.max(this.#heard - 1, 0);
        loop.give(/** @type {Item} */ (this.#held.shift()));
      }
    }
  }

  /** Forgets what nobody has taken, as if it had never come. */
  letGo() {
    for (const {key} of this.#held) {
      this.#known.delete(key);
      this.#unhandled.delete(key);
    }
    this.#held = [];
    this.#heard = 0;
  }

  /** How many frames can be acknowledged. */
  get due() {
    while (this.#arrivals[this.#due]?.item.done) this.#due += 1;
    return this.#due;
  }

  /** @returns {number} up to where everything is handled */
  acknowledge() {
    const handled = this.#arrivals.splice(0, this.due);
    this.#due = 0;
    return handled.at(-1)?.seq ?? 0;
  }

  /** @param {{handled: () => void, left: () => void}} tell  when messages were handled, and when the loop is over */
  loop({handled, left}) {
    const loop = new Loop({
      ask: () => this.serve(),
      finish: (items) => {
        for (const item of items) this.finish(item);
      },
      handled,
      leave: () => {
        this.#loops.delete(loop);
        left();
      },
    });
    this.#loops.add(loop);
    return loop;
  }

  /** @param {unknown} error  null: loops just end */
  end(error) {
    this.round += 1;
    this.begin();
    this.letGo();
    // What a loop still works on was not acknowledged: it may come again, and is known.
    for (const loop of [...this.#loops]) loop.end(error);
    this.#unhandled.clear();
  }
}

/** One `for await` over the messages. @implements {AsyncIterableIterator<Message>} */
class Loop {
  #inbox;
  /** @type {Item[]} given out and not handled */
  #given = [];
  /** @type {Deferred[]} */
  #asked = [];
  #over = new AbortController();
  /** @type {{error: unknown} | null} */
  #failure = null;

  /** @param {{ask: () => void, finish: (items: Item[]) => void, handled: () => void, leave: () => void}} inbox */
  constructor(inbox) {
    this.#inbox = inbox;
  }

  /** Aborted when the loop is over. */
  get over() {
    return this.#over.signal;
  }

  get waits() {
    return this.#asked.length > 0;
  }

  /** @returns {Promise<IteratorResult<Message, undefined>>} */
  next() {
    if (this.#finish()) this.#inbox.handled();
    if (this.over.aborted) {
      const failure = this.#failure;
      this.#failure = null;
      return failure ? Promise.reject(failure.error) : Promise.resolve({done: true, value: undefined});
    }
    const asked = deferred();
    this.#asked.push(asked);
    this.#inbox.ask();
    return asked.promise;
  }

  /** @returns {Promise<IteratorResult<Message, undefined>>} */
  return() {
    this.#finish();
    this.end(null);
    return Promise.resolve({done: true, value: undefined});
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  /** @returns {boolean} whether there was something to finish */
  #finish() {
    const items = this.#given;
    this.#given = [];
    this.#inbox.finish(items);
    return items.length > 0;
  }

  /** @param {Item} item */
  give(item) {
    this.#given.push(item);
    this.#asked.shift()?.resolve({done: false, value: item.message});
  }

  /** @param {unknown} error  null: no error */
  end(error) {
    if (this.over.aborted) return;
    const asked = this.#asked;
    this.#asked = [];
    this.#over.abort();
    this.#inbox.leave();
    const [first] = asked;
    if (error !== null && !first) this.#failure = {error};
    for (const one of asked) {
      if (error !== null && one === first) one.reject(error);
      else one.resolve({done: true, value: undefined});
    }
  }
}

/** Who listens to messages: without anybody they are held. */
class MessageListeners {
  /** @type {Map<EventListenerOrEventListenerObject, boolean>} whether it listens once */
  #all = new Map();

  get count() {
    return this.#all.size;
  }

  /** @param {EventListenerOrEventListenerObject} listener @param {AddEventListenerOptions} options */
  add(listener, {once = false, signal}) {
    if (signal?.aborted || this.#all.has(listener)) return;
    this.#all.set(listener, once);
    signal?.addEventListener('abort', () => this.#all.delete(listener), {once: true});
  }

  /** @param {EventListenerOrEventListenerObject} listener */
  remove(listener) {
    this.#all.delete(listener);
  }

  /** @param {() => void} emit */
  hear(emit) {
    const leaving = [...this.#all].filter(([, once]) => once);
    emit();
    for (const [listener] of leaving) this.#all.delete(listener);
  }
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

/** @param {unknown} text @param {number} most */
function isName(text, most) {
  return typeof text === 'string' && text.trim() !== '' && text.isWellFormed() && !text.includes('\0') && [...text].length <= most;
}

/** @param {string} field @param {unknown} value @param {string} expected */
function invalid(field, value, expected) {
  return new LinkerError('INVALID_FIELD', `${field}: ${String(JSON.stringify(value)).slice(0, 100)}, expected ${expected}`);
}

/** @param {string} feature @param {string} what */
function needs(feature, what) {
  return new LinkerError('NEEDS_FEATURE', `${what} needs the feature ${feature} of the login`);
}

/** @param {unknown} cause */
function textOf(cause) {
  return cause instanceof Error ? cause.message : String(cause);
}

/** What throws at once is a rejection as well. @template T @param {() => T | Promise<T>} call @returns {Promise<T>} */
function attempt(call) {
  return new Promise((resolve) => resolve(call()));
}

/** @typedef {{key: string, done: boolean, message: Message | null}} Item */
/** @typedef {{promise: Promise<any>, resolve: (value: any) => void, reject: (error: unknown) => void}} Deferred */

/** @returns {Deferred} */
function deferred() {
  /** @type {any} */
  const result = {};
  result.promise = new Promise((resolve, reject) => Object.assign(result, {resolve, reject}));
  return result;
}
