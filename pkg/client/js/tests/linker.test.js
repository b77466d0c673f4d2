// What linker.js does frame by frame, with a scripted socket and a scripted clock.
import assert from 'node:assert/strict';
import {mock, test} from 'node:test';

import {newReference} from '../linker.js';
import {client as quiet, last, online, settled, sockets, tick, user} from './scripted.js';

/** As the other, with the messages among its events. */
function client(options) {
  const {linker, events} = quiet(options);
  listen(linker, events);
  return {linker, events};
}

function listen(linker, events) {
  linker.addEventListener('message', ({detail}) => events.push(['message', JSON.parse(JSON.stringify(detail))]));
}

test('logging in connects, sends the credentials and resolves with the reply', async () => {
  const {linker} = client();
  const login = linker.login({...user, features: ['accept', 'push']});
  assert.equal(linker.state, 'connecting');
  last().opens();
  assert.equal(linker.state, 'open');
  assert.deepEqual(last().sent, [{type: 'AUTH_CLIENT', data: {...user, features: ['accept', 'push']}}]);
  last().grants();
  assert.equal((await login).isAuthenticated, true);
  assert.equal(linker.state, 'online');
  assert.equal(linker.userId, 'ANZ-1');
});

test('features null speaks the base protocol only', () => {
  const {linker} = client();
  linker.login({...user, features: null}).catch(() => {});
  last().opens();
  assert.deepEqual(last().sent[0].data, user);
});

test('a listener of open that logs in does so once', () => {
  const {linker} = client();
  linker.addEventListener('open', () => linker.login(user).catch(() => {}));
  linker.connect().catch(() => {});
  last().opens();
  assert.equal(last().sent.length, 1);
});

test('a second login is refused while there is a user', async () => {
  const {linker} = await online();
  await assert.rejects(linker.login(user), {code: 'LOGGED_IN'});
});

test('posted messages carry what the options say and nothing else', async () => {
  const {linker} = await online();
  assert.equal(linker.post('ANZ-2', 'hello', {reference: 'r1'}), 'r1');
  linker.postGroup(['ANZ-2', 'ANZ-3'], 'all', {feature: 'FAST', reference: '', confirmationEnabled: false, id: 'i1'});
  linker.fetch(5);
  linker.closeConnection('ANZ-9');
  const {reference, ...close} = last().sent.pop();
  assert.match(reference, /^[0-9a-f]{18}$/);
  assert.deepEqual(close, {type: 'CLOSE_CONNECTION', data: {userId: 'ANZ-9'}});
  assert.deepEqual(last().sent, [
    {type: 'MESSAGE', data: {to: 'ANZ-2', content: 'hello'}, feature: 'RELIABLE', reference: 'r1'},
    {type: 'GROUP_MESSAGE', data: {to: ['ANZ-2', 'ANZ-3'], content: 'all'}, feature: 'FAST', confirmationEnabled: false, id: 'i1'},
    {type: 'FETCH_MISSING_MESSAGES_REQUEST', data: {count: 5}},
  ]);
  assert.notEqual(newReference(), newReference());
});

test('posting without an open socket throws', () => {
  const {linker} = client();
  assert.throws(() => linker.post('ANZ-2', 'hello'), {code: 'NOT_OPEN'});
});

test('every frame of the server becomes its event', async () => {
  const {linker, events} = await online();
  listen(linker, events);
  for (const frame of [
    {type: 'MESSAGE', data: {from: 'ANZ-2', content: 'x'}, reference: 'r', id: 'i', createdAt: 7, late: true},
    {type: 'MESSAGE_CONFIRMATION', data: {reference: 'r'}, id: 'i', createdAt: 7},
    {type: 'MESSAGE_ACCEPTED', data: {reference: 'r', id: 'i'}},
    {type: 'USER_CONNECTED', data: {userId: 'ANZ-3'}, id: 'i', createdAt: 7},
    {type: 'USER_DISCONNECTED', data: {userId: 'ANZ-3'}, id: 'i', createdAt: 7},
    {type: 'DELIVER_FAILED', data: {code: 'RATE_LIMITED', message: 'm', retryable: true, retryAfterMs: 9}, reference: 'r'},
    {type: 'INVALID_MESSAGE', data: {code: 'BAD_JSON', message: 'm'}},
    {type: 'AUTH_REQUIRED', data: {}},
    {type: 'FETCH_MISSING_MESSAGES_COMPLETE', data: {leftMissingCount: 3}},
    {type: 'MISSING_MESSAGES_AVAILABLE', data: {count: 3}},
  ]) last().says(frame);
  assert.deepEqual(events, [
    ['message', {from: 'ANZ-2', content: 'x', reference: 'r', id: 'i', createdAt: 7, late: true}],
    ['confirmation', {reference: 'r', id: 'i', createdAt: 7, late: false}],
    ['accepted', {reference: 'r', id: 'i'}],
    ['presence', {userId: 'ANZ-3', connected: true, id: 'i', createdAt: 7, late: false}],
    ['presence', {userId: 'ANZ-3', connected: false, id: 'i', createdAt: 7, late: false}],
    ['failed', {code: 'RATE_LIMITED', message: 'm', retryable: true, retryAfterMs: 9, reference: 'r'}],
    ['invalid', {code: 'BAD_JSON', message: 'm'}],
    ['authrequired', {}],
    ['fetched', {leftMissingCount: 3}],
    ['missing', {count: 3}],
  ]);
});

test('frames that make no sense are only recorded', async () => {
  const {linker, events} = await online();
  const frames = [];
  linker.addEventListener('frame', ({detail}) => frames.push(detail.text));
  const hostile = ['{', 'null', '[]', '7', '{"type":7}', '{"type":"__proto__"}'];
  for (const text of hostile) last().says(text);
  assert.deepEqual(frames, hostile);
  assert.deepEqual(events, []);
});

test('no frame of a server makes it throw', async () => {
  const {linker} = await online();
  linker.send('ANZ-2', 'x', {reference: 'r'}).catch(() => {});
  const types = ['MESSAGE', 'MESSAGE_CONFIRMATION', 'MESSAGE_ACCEPTED', 'USER_CONNECTED', 'DELIVER_FAILED', 'INVALID_MESSAGE',
    'FETCH_MISSING_MESSAGES_COMPLETE', 'MISSING_MESSAGES_AVAILABLE', 'GO_AWAY', 'AUTH_REQUIRED', 'AUTH_CLIENT_REPLY'];
  const values = [null, 5, -1, 1e300, '', 'r', true, [], ['ws://a'], [null, 7, {}], {}, {reference: 'r', retryable: true, retryAfterMs: 'soon'},
    {isAuthenticated: true}, {isAuthenticated: false, reason: 'WRONG_DOMAIN', urls: [null, 7, 'x', 'ws://a']}, {reconnectInMs: 'never'}];
  for (const type of types) {
    for (const data of values) {
      for (const other of values) last().says({type, data, reference: other, id: other, seq: other, createdAt: other, late: other});
    }
  }
  await settled();
  last().ends(4403);
  linker.close();
});

test('frames are recorded both ways with their time, and tokens are masked', () => {
  const {linker} = client();
  const records = [];
  linker.addEventListener('frame', ({detail}) => records.push(detail));
  linker.login(user).catch(() => {});
  last().opens();
  last().grants();
  assert.equal(last().sent[0].data.token, 'secret');
  assert.deepEqual(records.map(({direction, time}) => [direction, time]), [['out', Date.now()], ['in', Date.now()]]);
  assert.equal(records[0].frame.data.token, '***');
  assert.doesNotMatch(JSON.stringify(records), /secret/);
});

test('delivered frames with a seq are acknowledged after the listeners ran', async () => {
  const {linker} = await online();
  linker.addEventListener('message', () => assert.equal(last().sent.length, 0));
  last().says({type: 'MESSAGE', data: {from: 'ANZ-2', content: 'x'}, seq: 4});
  await settled();
  assert.deepEqual(last().sent, [{type: 'MESSAGE_ACK', data: {upTo: 4}}]);
});

for (const code of [1003, 1007, 1009, 4400, 4403, 4410]) {
  test(`it stays away after ${code}`, async () => {
    const {linker, events} = await online();
    last().ends(code);
    tick(3_600_000);
    assert.equal(sockets.length, 1);
    assert.equal(linker.state, 'closed');
    assert.deepEqual(events, [['close', {code, reason: '', retryInMs: null}]]);
  });
}

for (const code of [1000, 1001, 1005, 1006, 1011, 1012, 4401, 4408, 4421, 4429, 4503]) {
  test(`it comes back and logs in again after ${code}`, async () => {
    const {linker} = await online();
    last().ends(code);
    assert.equal(linker.state, 'waiting');
    tick(1000);
    assert.equal(sockets.length, 2);
    last().opens();
    assert.equal(last().sent[0].type, 'AUTH_CLIENT');
    last().grants();
    assert.equal(linker.state, 'online');
  });
}

test('pauses grow up to their limit, and start anew after a login', async () => {
  const {linker, events} = await online();
  const pauses = () => events.filter(([type]) => type === 'close').map(([, detail]) => detail.retryInMs);
  for (let i = 0; i < 7; i++) {
    last().ends(1006);
    tick(30_000);
  }
  assert.deepEqual(pauses(), [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
  last().opens();
  last().grants();
  last().ends(1006);
  assert.equal(pauses().at(-1), 1000);
  linker.close();
});

test('pauses are jittered', async () => {
  const {linker, events} = await online();
  const random = mock.method(Math, 'random', () => 0);
  last().ends(1006);
  assert.equal(events.at(-1)[1].retryInMs, 0);
  random.mock.restore();
  linker.close();
});

test('GO_AWAY says when to come back', async () => {
  const {linker, events} = await online();
  last().says({type: 'GO_AWAY', data: {reason: 'restarting', reconnectInMs: 5000}});
  tick(2000);
  last().ends(1012);
  assert.equal(events.at(-1)[1].retryInMs, 3000);
  tick(2999);
  assert.equal(sockets.length, 1);
  tick(1);
  assert.equal(sockets.length, 2);
  linker.close();
});

test('connect tries at once while it waits', async () => {
  const {linker} = await online();
  last().ends(1006);
  linker.connect().catch(() => {});
  assert.equal(sockets.length, 2);
  tick(60_000);
  assert.equal(sockets.length, 2);
  linker.close();
});

test('an attempt that takes too long is given up', () => {
  const {linker} = client();
  linker.connect().catch(() => {});
  tick(10_000);
  assert.equal(last().closed, true);
  last().ends(1006);
  assert.equal(linker.state, 'waiting');
  linker.close();
});

test('a refused login rejects with its reason and forgets the credentials', async () => {
  const {linker} = client();
  const login = linker.login(user);
  last().opens();
  last().refuses({reason: 'REFUSED'});
  last().ends(4403);
  await assert.rejects(login, {code: 'REFUSED'});
  assert.equal(linker.userId, null);
  assert.equal(linker.state, 'closed');
});

test('AUTH_UNAVAILABLE is tried again until it succeeds', async () => {
  const {linker} = client();
  const login = linker.login(user);
  last().opens();
  last().refuses({reason: 'AUTH_UNAVAILABLE'});
  last().ends(4503);
  tick(1000);
  last().opens();
  last().grants();
  assert.equal((await login).isAuthenticated, true);
  linker.close();
});

const elsewhere = {reason: 'WRONG_DOMAIN', domain: 'domain-02', urls: ['tcp://other:9089', 'ws://other:8088']};

test('WRONG_DOMAIN is followed', async () => {
  const {linker} = client();
  const login = linker.login(user);
  last().opens();
  last().refuses(elsewhere);
  last().ends(4403);
  tick(0);
  assert.equal(last().url, 'ws://other:8088/ws');
  last().opens();
  last().grants();
  await login;
  assert.equal(linker.url, 'ws://other:8088/ws');
});

test('WRONG_DOMAIN ends the login if it is not to be followed', async () => {
  const {linker} = client({follow: false});
  const login = linker.login(user);
  last().opens();
  last().refuses(elsewhere);
  last().ends(4403);
  await assert.rejects(login, (error) => error.code === 'WRONG_DOMAIN' && error.detail.domain === 'domain-02');
});

test('domains that send to each other are given up', async () => {
  const {linker} = client();
  const login = linker.login(user);
  for (let i = 0; i < 4; i++) {
    last().opens();
    last().refuses(elsewhere);
    last().ends(4403);
    tick(0);
  }
  await assert.rejects(login, {code: 'WRONG_DOMAIN'});
  assert.equal(sockets.length, 4);
});

test('an encrypted connection is not left for an open one', async () => {
  const {linker} = client({url: 'wss://host/ws'});
  const login = linker.login(user);
  last().opens();
  last().refuses(elsewhere);
  last().ends(4403);
  await assert.rejects(login, {code: 'WRONG_DOMAIN'});
});

test('close ends it at once, also while it waits', async () => {
  const {linker, events} = await online();
  last().ends(1006);
  linker.close();
  tick(3_600_000);
  assert.equal(sockets.length, 1);
  assert.deepEqual(events.at(-1), ['close', {code: 1000, reason: '', retryInMs: null}]);
});

test('close rejects what is still awaited', async () => {
  const {linker} = client();
  const login = linker.login(user);
  linker.close();
  await assert.rejects(login, {code: 'CLOSED'});
});

test('nothing of an old socket is heard after a new one was opened', async () => {
  const {linker, events} = await online();
  const old = last();
  linker.close();
  linker.connect().catch(() => {});
  events.length = 0;
  old.says({type: 'MESSAGE', data: {from: 'ANZ-2', content: 'x'}});
  old.ends(1006);
  assert.deepEqual(events, []);
  assert.equal(linker.state, 'connecting');
  linker.close();
});

test('a url that is none is refused without trying again', async () => {
  const {linker} = client({url: 'nonsense'});
  await assert.rejects(linker.connect(), {code: 'CANNOT_OPEN'});
  assert.equal(linker.state, 'closed');
});
