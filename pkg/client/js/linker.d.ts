/**
 * The Linker client for browsers and for Node 22 or newer.
 *
 *     const linker = await Linker.connect({url: 'ws://127.0.0.1:8088/ws', appId: 'app-id-343', userId: 'ANZ-1'});
 *     const sent = await linker.send('ANZ-2', 'hello');
 *     for await (const message of linker.messages()) console.log(message.from, message.content);
 */

/**
 * `closed`: no socket, and none will be opened. `waiting`: no socket, the next
 * attempt is timed. `connecting`, `open`: a socket that nobody is logged in on.
 * `online`: logged in.
 */
export type State = 'closed' | 'waiting' | 'connecting' | 'open' | 'online';

/**
 * `accept`: the server says when a message is durable; `send` needs it. `ack`: a
 * message counts as received when it has been handled; `messages` needs it. `push`:
 * what was missed comes by itself after the login, in order.
 */
export type Feature = 'accept' | 'ack' | 'push';

interface Common {
  /** Come back after a lost connection; default true. */
  reconnect?: boolean;
  /** After WRONG_DOMAIN connect to the domain that the server names, at most 3 times in a row; default true. */
  follow?: boolean;
  /** Upper end of the first pause before coming back; it doubles from then on. Default 1000. */
  minPauseMs?: number;
  /** Upper end of the longest pause; default 30000. */
  maxPauseMs?: number;
  /** How long one attempt to connect may take; default 10000. */
  connectTimeoutMs?: number;
  /**
   * After so long without a word from the server it is asked for one, with the
   * feature `push`; a connection that gives none is renewed. Default 300000; 0: never.
   */
  probeAfterMs?: number;
  /** The server's frame limit: a larger message is refused here. Default 65536. */
  maxFrameBytes?: number;
  /** Keeps what was sent and is not accepted, beyond the end of the program. One user's only. */
  outbox?: Outbox | null;
  /** Default: the global one. */
  WebSocket?: typeof WebSocket;
}

/** Where to connect: one place, or several that are tried in turn. */
export type Options = Common & ({url: string; urls?: undefined} | {urls: readonly string[]; url?: undefined});

export interface Credentials {
  appId: string;
  userId: string;
  /** A function is asked before each login; while it fails, the login is tried again later. */
  token?: string | (() => string | Promise<string>);
  /** Default all three; `null` speaks the base protocol only. */
  features?: readonly Feature[] | readonly string[] | null;
}

export type ConnectOptions = Options & Credentials & {
  /** Gives the login up; without effect afterwards. */
  signal?: AbortSignal;
};

export interface SendOptions {
  /** Default: a random one. At most 64 characters; the same id sent again within 10 minutes is taken once. */
  id?: string;
  /** What the receiver and the events see; default: the id. At most 128 characters, not blank. */
  reference?: string;
  /** Default true; false: `confirmed` is rejected. */
  confirmationEnabled?: boolean;
  /** Withdraws the message. If it is under way, it may arrive all the same. */
  signal?: AbortSignal;
}

export interface PostOptions {
  /** Default RELIABLE. */
  feature?: 'RELIABLE' | 'FAST';
  /** Default: a random one; the empty string sends none. */
  reference?: string;
  /** Default true. */
  confirmationEnabled?: boolean;
  id?: string;
}

/** A message that is durable: from now on it is the server's job. */
export interface Accepted {
  /** By which the network knows the message; receivers see the same. */
  id: string;
  reference: string;
}

export interface Sent extends Accepted {
  /**
   * Fulfilled when the receiver has the message. Rejected when it will not get it,
   * or when nobody is left to hear of it: the connection was closed for good.
   */
  confirmed: Promise<void>;
}

export interface LoginReply {
  appId: string;
  userId: string;
  isAuthenticated: boolean;
  /** Why it was refused. */
  reason?: string;
  /** With WRONG_DOMAIN: the user's home. */
  domain?: string;
  /** With WRONG_DOMAIN: where that domain can be reached. */
  urls?: string[];
}

export interface Message {
  from: string;
  content: string;
  reference?: string;
  /** Every copy of a message has the same. */
  id?: string;
  /** Milliseconds since 1970. */
  createdAt?: number;
  /** Newer messages of the same sender may have come before it. */
  late: boolean;
}

export interface Confirmation {
  reference: string;
  id?: string;
  createdAt?: number;
  late: boolean;
}

export interface Presence {
  userId: string;
  connected: boolean;
  id?: string;
  createdAt?: number;
  late: boolean;
}

export interface Failure {
  code: string;
  message: string;
  reference?: string;
  retryable?: boolean;
  retryAfterMs?: number;
  /** When it will be sent again by itself. Absent: it will not. */
  retryInMs?: number;
}

export interface FrameRecord {
  direction: 'in' | 'out';
  /** Milliseconds since 1970. */
  time: number;
  /** The frame as it travels, but for the token of a login, which is masked. */
  text: string;
  /** The same, parsed; absent when it is not JSON. */
  frame?: unknown;
}

export interface CloseRecord {
  /** 1000 after `close()`; 1006 when the connection was lost without a word. */
  code: number;
  reason: string;
  /** When the next attempt follows; null: there is none. */
  retryInMs: number | null;
}

/** What a CustomEvent of each type carries in its `detail`. */
export interface LinkerEventMap {
  /** Every change of `linker.state`. */
  state: State;
  /** The socket is open, nobody is logged in yet. */
  open: {url: string};
  /** Granted or refused. */
  login: LoginReply;
  /** Acknowledged when the listeners have returned, unless a `messages` loop has it as well. */
  message: Message;
  /** The receiver has the message. */
  confirmation: Confirmation;
  /** The message is durable. */
  accepted: {reference?: string; id: string};
  /** For the master user. */
  presence: Presence;
  /** DELIVER_FAILED. */
  failed: Failure;
  /** INVALID_MESSAGE. */
  invalid: Failure;
  /** Something was sent before the login. */
  authrequired: Record<string, never>;
  /** A fetch is complete. */
  fetched: {leftMissingCount: number};
  /** So many messages are stored. */
  missing: {count: number};
  /** The server is about to close the socket. */
  goaway: {reason: string; reconnectInMs: number};
  /** An accepted message could not be taken out of the outbox: it will be sent again by the next login. */
  outboxfailed: {id: string; error: unknown};
  /** Every frame, both ways, before its own event. */
  frame: FrameRecord;
  /** The socket is gone, or could not be opened. */
  close: CloseRecord;
}

/** A message as an outbox keeps it. */
export interface OutboxMessage {
  id: string;
  type: 'MESSAGE' | 'GROUP_MESSAGE';
  from: string;
  to: string | string[];
  content: string;
  reference: string;
  confirmationEnabled: boolean;
}

/** Keeps what one user has sent and what is not accepted yet. */
export interface Outbox {
  /** What is in it, in the order of the calls of `put`. */
  load(): OutboxMessage[] | Promise<OutboxMessage[]>;
  /** Returns, or fulfils its promise, when the message is durable; it is not sent before. */
  put(message: OutboxMessage): void | Promise<void>;
  /** The message is accepted, refused or withdrawn. */
  remove(id: string): void | Promise<void>;
}

/**
 * What all promises of this module are rejected with; when a signal has aborted, it
 * is the signal's reason instead.
 *
 * `code` is one of the server's (a reason of AUTH_CLIENT_REPLY, a code of DELIVER_FAILED
 * or INVALID_MESSAGE) or of these: `NOT_OPEN`, `NOT_LOGGED_IN`, `LOGGED_IN`, `CANNOT_OPEN`,
 * `CLOSED`, `NEEDS_FEATURE`, `INVALID_FIELD`, `TOO_LARGE`, `QUEUE_FULL`, `OUTBOX_FAILED`,
 * `NOT_ASKED_FOR` and `NOT_AWAITED` (of `confirmed`).
 */
export class LinkerError extends Error {
  constructor(code: string, message: string, detail?: object, cause?: unknown);
  name: string;
  code: string;
  /** The reply, the failure or the close record that caused it. */
  detail: object | undefined;
}

type Listener<T> = ((event: CustomEvent<T>) => void) | {handleEvent(event: CustomEvent<T>): void};

/** One user's connection to a domain. It holds at most one socket at a time. */
export class Linker extends EventTarget {
  /** Opens nothing yet. */
  constructor(options: Options);

  /** Connects and logs in, however often that has to be tried. Rejected when the login is refused for good. */
  static connect(options: ConnectOptions): Promise<Linker>;

  get state(): State;
  /** Where it connects to; another one than at first when a WRONG_DOMAIN was followed. */
  get url(): string;
  /** The user who is logged in, or is to be; null when there is none. */
  get userId(): string | null;
  /** How many messages are not accepted yet, under way or waiting. */
  get waiting(): number;

  /**
   * Opens the socket. While it waits between two attempts, it tries at once.
   * Rejected when it will not be opened any more.
   */
  connect(): Promise<void>;

  /**
   * Logs in, and connects first if need be. The credentials are kept until `close()`
   * or a refusal, and used again whenever the connection had to be renewed. A signal
   * gives the login up; it is without effect afterwards.
   */
  login(credentials: Credentials, options?: {signal?: AbortSignal}): Promise<LoginReply>;

  /**
   * Sends a message to one user. Fulfilled when it is accepted, that is durable;
   * until then it is sent again on every new connection, and whenever the server asks
   * for that. Messages to one user leave in the order of these calls.
   *
   * Rejected when the message is refused, and with `CLOSED` when the connection is
   * closed for good before it was accepted: if there is an outbox, it may still be
   * in there, and goes out after the next login.
   */
  send(to: string, content: string, options?: SendOptions): Promise<Sent>;

  /** The same to several users. There is no confirmation for groups. */
  sendGroup(to: readonly string[], content: string, options?: SendOptions): Promise<Accepted>;

  /**
   * What comes for this user, each message once and in order. A message counts as
   * handled, and is acknowledged, when the loop asks for the next one or is left.
   * Until then the server keeps it. Several loops share the messages.
   *
   * The loop ends when `close()` is called; it throws when the connection has ended for
   * good by itself, and the reason of the signal when that is aborted.
   */
  messages(options?: {signal?: AbortSignal}): AsyncIterableIterator<Message>;

  /**
   * Sends one MESSAGE frame now, and never again. The way for FAST messages. Throws when
   * the socket is not open. Returns its reference, which the events about it carry.
   */
  post(to: string, content: string, options?: PostOptions): string;

  /** The same to several users. */
  postGroup(to: readonly string[], content: string, options?: PostOptions): string;

  /** Asks for what was missed, at most 2000; it comes as ordinary events, then `fetched`. Not needed with `push`. */
  fetch(count?: number): void;

  /**
   * Closes all sockets of a user. Only the master user of the app may. Returns the
   * reference under which a refusal is reported.
   */
  closeConnection(userId: string): string;

  /** Sends a frame as it is: an object as JSON, a string unchanged. */
  sendFrame(frame: object | string): void;

  /** Acknowledges what was handled, ends the connection, forgets the credentials and does not come back. */
  close(): void;

  addEventListener<K extends keyof LinkerEventMap>(
    type: K, listener: Listener<LinkerEventMap[K]> | null, options?: boolean | AddEventListenerOptions): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions): void;

  removeEventListener<K extends keyof LinkerEventMap>(
    type: K, listener: Listener<LinkerEventMap[K]> | null, options?: boolean | EventListenerOptions): void;
  removeEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | EventListenerOptions): void;
}

/** A random name, unique enough to tell one's own messages apart. */
export function newReference(): string;
