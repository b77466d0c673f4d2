// A socket and a clock that tests script. All clients of a test share the clock, and
// are closed when it ends.
import {afterEach, mock} from 'node:test';

import {Linker} from '../linker.js';

/** Every socket that was opened since the test began, the newest last. */
export let sockets = [];
let linkers = [];

mock.timers.enable({apis: ['setTimeout', 'Date'], now: 1_700_000_000_000});
mock.method(Math, 'random', () => 1); // the longest pause each time

afterEach(() => {
  for (const linker of linkers) linker.close();
  linkers = [];
  sockets = [];
});

class ScriptedSocket {
  constructor(url) {
    if (!/^wss?:/.test(url)) throw new SyntaxError(`bad url ${url}`);
    this.url = url;
    this.sent = [];
    this.closed = false;
    sockets.push(this);
  }

  send(text) { this.sent.push(JSON.parse(text)); }
  close() { this.closed = true; }

  /** What was sent since the last look. */
  get news() { return this.sent.splice(0); }

  opens() { this.onopen({}); }
  says(frame) { this.onmessage({data: typeof frame === 'string' ? frame : JSON.stringify(frame)}); }
  ends(code, reason = '') { this.onclose({code, reason}); }
  grants() { this.says({type: 'AUTH_CLIENT_REPLY', data: {appId: 'app', userId: 'ANZ-1', isAuthenticated: true}}); }
  refuses(data) { this.says({type: 'AUTH_CLIENT_REPLY', data: {appId: 'app', userId: 'ANZ-1', isAuthenticated: false, ...data}}); }
  accepts(reference) { this.says({type: 'MESSAGE_ACCEPTED', data: {reference, id: `id of ${reference}`}}); }
  fails(reference, data) { this.says({type: 'DELIVER_FAILED', data: {message: 'no', retryable: false, ...data}, reference}); }
  delivers(seq, id, content = id) { this.says({type: 'MESSAGE', data: {from: 'ANZ-2', content}, id, seq}); }
}

export const last = () => sockets.at(-1);
export const user = {appId: 'app', userId: 'ANZ-1', token: 'secret'};
export const tick = (ms) => mock.timers.tick(ms);
/** Lets everything run that waits for nothing but its turn. */
export const settled = () => new Promise((resolve) => setImmediate(resolve));

/** A client and the list of its events, without frames and states. */
export function client(options = {}) {
  const linker = new Linker({url: 'ws://host:8088/ws', WebSocket: ScriptedSocket, ...options});
  linkers.push(linker);
  const events = [];
  for (const type of ['open', 'login', 'confirmation', 'accepted', 'presence', 'failed', 'invalid',
    'authrequired', 'fetched', 'missing', 'goaway', 'outboxfailed', 'close']) {
    linker.addEventListener(type, (event) => events.push([type, JSON.parse(JSON.stringify(event.detail))]));
  }
  return {linker, events};
}

/** A client that is logged in, and that nothing was heard of yet. */
export async function online(options, credentials = user) {
  const {linker, events} = client(options);
  const login = linker.login(credentials);
  while (!last()) await settled();
  last().opens();
  last().grants();
  await login;
  events.length = 0;
  last().sent.length = 0;
  return {linker, events};
}

/** Loses the connection and logs in on the next one. */
export function returns(code = 1006) {
  last().ends(code);
  tick(1000);
  last().opens();
  last().grants();
}
