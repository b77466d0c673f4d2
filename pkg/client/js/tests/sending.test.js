// How messages are sent: until they are accepted, once each, in order.
import assert from 'node:assert/strict';
import {test} from 'node:test';

import {LinkerError} from '../linker.js';
import {client, last, online, returns, settled, sockets, tick, user} from './scripted.js';

/** The contents of what went out since the last look. */
const contents = () => last().news.filter(({type}) => /MESSAGE$/.test(type)).map(({data}) => data.content);

/** What has become of a promise by now. */
async function now(promise) {
  const waits = {};
  await settled();
  return Promise.race([promise.catch((error) => error), waits]).then((value) => (value === waits ? 'waits' : value));
}

test('send is fulfilled when the message is accepted, and confirmed when the receiver has it', async () => {
  const {linker} = await online();
  const sending = linker.send('ANZ-2', 'hello');
  const [frame] = last().news;
  assert.match(frame.id, /^[0-9a-f]{18}$/);
  assert.deepEqual(frame, {
    type: 'MESSAGE', data: {to: 'ANZ-2', content: 'hello'}, feature: 'RELIABLE', reference: frame.id, id: frame.id,
  });
  assert.equal(await now(sending), 'waits');
  assert.equal(linker.waiting, 1);
  last().accepts(frame.reference);
  const sent = await sending;
  assert.deepEqual([sent.id, sent.reference, linker.waiting], [`id of ${frame.id}`, frame.id, 0]);
  assert.equal(await now(sent.confirmed), 'waits');
  last().says({type: 'MESSAGE_CONFIRMATION', data: {reference: frame.reference}, id: 'c1', seq: 1});
  assert.equal(await sent.confirmed, undefined);
});

test('a confirmation that comes before the acceptance counts', async () => {
  const {linker} = await online();
  const sending = linker.send('ANZ-2', 'hello', {reference: 'r'});
  last().says({type: 'MESSAGE_CONFIRMATION', data: {reference: 'r'}, id: 'c1', seq: 1});
  last().accepts('r');
  await (await sending).confirmed;
});

test('to one receiver one message is under way, and the others follow in order', async () => {
  const {linker} = await online();
  const sent = ['a', 'b', 'c'].map((content) => linker.send('ANZ-2', content, {reference: content}));
  linker.send('ANZ-3', 'x', {reference: 'x'}).catch(() => {});
  assert.deepEqual(contents(), ['a', 'x']);
  last().accepts('a');
  assert.deepEqual(contents(), ['b']);
  last().accepts('b');
  last().accepts('c'); // is not under way yet: not ours to believe
  assert.deepEqual(contents(), ['c']);
  assert.equal(await now(sent[2]), 'waits');
  last().accepts('c');
  assert.deepEqual((await Promise.all(sent)).map(({id}) => id), ['id of a', 'id of b', 'id of c']);
});

test('a group occupies its members', async () => {
  const {linker} = await online();
  const group = linker.sendGroup(['ANZ-2', 'ANZ-3', 'ANZ-2'], 'all', {reference: 'g'});
  linker.send('ANZ-3', 'after', {reference: 'after'}).catch(() => {});
  linker.send('ANZ-4', 'beside', {reference: 'beside'}).catch(() => {});
  linker.sendGroup(['ANZ-4', 'ANZ-5'], 'second', {reference: 's'}).catch(() => {});
  assert.deepEqual(contents(), ['all', 'beside']);
  last().accepts('beside');
  last().accepts('g');
  assert.deepEqual(contents(), ['second', 'after']);
  assert.deepEqual(await group, {id: 'id of g', reference: 'g'});
});

test('messages with one reference are told apart', async () => {
  const {linker} = await online();
  const both = ['ANZ-2', 'ANZ-3'].map((to) => linker.send(to, `to ${to}`, {reference: 'r'}));
  assert.deepEqual(contents(), ['to ANZ-2']);
  last().accepts('r');
  assert.deepEqual(contents(), ['to ANZ-3']);
  last().says({type: 'MESSAGE_ACCEPTED', data: {reference: 'r', id: 'second'}});
  assert.deepEqual((await Promise.all(both)).map(({id}) => id), ['id of r', 'second']);
});

test('at most 64 messages are under way', async () => {
  const {linker} = await online();
  for (let i = 0; i < 100; i += 1) linker.send(`ANZ-${i}`, `${i}`, {reference: `r${i}`}).catch(() => {});
  assert.equal(contents().length, 64);
  last().accepts('r7');
  assert.deepEqual(contents(), ['64']);
});

test('at most 768 KiB are under way', async () => {
  const {linker} = await online();
  for (let i = 0; i < 20; i += 1) linker.send(`ANZ-${i}`, 'x'.repeat(60 * 1024), {reference: `r${i}`}).catch(() => {});
  assert.equal(contents().length, 12);
  last().accepts('r0');
  assert.equal(contents().length, 1);
});

test('what was not accepted is sent again after a reconnect, under its id and in order', async () => {
  const {linker} = await online();
  const sent = ['a', 'b', 'c'].map((content, i) => linker.send(`ANZ-${2 + i}`, content, {reference: content}));
  const first = last().news;
  last().accepts('b');
  last().ends(1006);
  const meanwhile = linker.send('ANZ-2', 'd', {reference: 'd'});
  tick(1000);
  last().opens();
  assert.deepEqual(contents(), []);
  last().grants();
  assert.deepEqual(last().news, [first[0], first[2]]);
  last().accepts('a');
  last().accepts('c');
  assert.deepEqual(contents(), ['d']);
  last().accepts('d');
  await Promise.all([...sent, meanwhile]);
  returns();
  assert.deepEqual(contents(), []);
});

for (const code of ['QUEUE_UNAVAILABLE', 'RATE_LIMITED']) {
  test(`after ${code} it waits and sends again, and nothing overtakes`, async () => {
    const {linker, events} = await online();
    const sent = linker.send('ANZ-2', 'a', {reference: 'a'});
    linker.send('ANZ-2', 'b', {reference: 'b'}).catch(() => {});
    const [first] = last().news;
    last().fails('a', {code, retryable: true, retryAfterMs: 2000});
    assert.equal(events.at(-1)[1].retryInMs, 3000); // up to half as long again
    tick(2999);
    assert.deepEqual(last().news, []);
    tick(1);
    assert.deepEqual(last().news, [first]);
    last().accepts('a');
    assert.deepEqual(contents(), ['b']);
    await sent;
  });
}

test('a pause outlasts a lost connection', async () => {
  const {linker} = await online();
  linker.send('ANZ-2', 'a', {reference: 'a'}).catch(() => {});
  last().fails('a', {code: 'RATE_LIMITED', retryable: true, retryAfterMs: 10_000});
  returns();
  assert.deepEqual(contents(), []);
  tick(14_000);
  assert.deepEqual(contents(), ['a']);
});

test('a pause ends with the connection that was closed', async () => {
  const {linker} = await online();
  linker.send('ANZ-2', 'a', {reference: 'a'}).catch(() => {});
  last().fails('a', {code: 'RATE_LIMITED', retryable: true, retryAfterMs: 1000});
  linker.close();
  linker.login(user).catch(() => {});
  last().opens();
  last().grants();
  tick(2000);
  assert.deepEqual(contents(), []);
});

test('what was under way goes out again before what has waited', async () => {
  const {linker} = await online();
  for (let i = 0; i < 100; i += 1) linker.send(`ANZ-${i}`, `${i}`, {reference: `r${i}`}).catch(() => {});
  const first = contents();
  returns();
  assert.deepEqual(contents(), first);
});

test('a refusal for good rejects, and the next message goes out', async () => {
  const {linker, events} = await online();
  const refused = linker.send('ANZ-2', 'a', {reference: 'a'});
  const mistaken = linker.send('ANZ-3', 'b', {reference: 'b'});
  linker.send('ANZ-2', 'c', {reference: 'c'}).catch(() => {});
  last().news;
  last().fails('a', {code: 'NO_ROUTE'});
  last().says({type: 'INVALID_MESSAGE', data: {code: 'INVALID_USER_ID', message: 'no'}, reference: 'b'});
  await assert.rejects(refused, (error) => error instanceof LinkerError && error.code === 'NO_ROUTE' && error.detail.message === 'no');
  await assert.rejects(mistaken, {code: 'INVALID_USER_ID'});
  assert.deepEqual(contents(), ['c']);
  assert.deepEqual(events.map(([type, {retryInMs}]) => [type, retryInMs]), [['failed', undefined], ['invalid', undefined]]);
});

test('what fails after it was accepted is not confirmed', async () => {
  const {linker} = await online();
  const sending = linker.send('ANZ-2', 'a', {reference: 'a'});
  last().accepts('a');
  const {confirmed} = await sending;
  last().fails('a', {code: 'MAILBOX_FULL'});
  await assert.rejects(confirmed, {code: 'MAILBOX_FULL'});
});

test('who wants no confirmation gets none', async () => {
  const {linker} = await online();
  const sending = linker.send('ANZ-2', 'a', {reference: 'a', confirmationEnabled: false});
  assert.equal(last().sent[0].confirmationEnabled, false);
  last().accepts('a');
  await assert.rejects((await sending).confirmed, {code: 'NOT_ASKED_FOR'});
});

test('a signal withdraws what waits', async () => {
  const {linker} = await online();
  linker.send('ANZ-2', 'a', {reference: 'a'}).catch(() => {});
  const stop = new AbortController();
  const withdrawn = linker.send('ANZ-2', 'b', {reference: 'b', signal: stop.signal});
  linker.send('ANZ-2', 'c', {reference: 'c'}).catch(() => {});
  stop.abort(new Error('enough'));
  await assert.rejects(withdrawn, /enough/);
  last().news;
  last().accepts('a');
  assert.deepEqual(contents(), ['c']);
  await assert.rejects(linker.send('ANZ-2', 'd', {signal: stop.signal}), /enough/);
});

test('what is withdrawn under way is not overtaken, and not sent again', async () => {
  const {linker} = await online();
  const stop = new AbortController();
  const withdrawn = linker.send('ANZ-2', 'a', {reference: 'a', signal: stop.signal});
  linker.send('ANZ-2', 'b', {reference: 'b'}).catch(() => {});
  assert.deepEqual(contents(), ['a']);
  stop.abort();
  await assert.rejects(withdrawn, {name: 'AbortError'});
  assert.deepEqual(contents(), []);
  returns();
  assert.deepEqual(contents(), ['b']);
});

test('what is withdrawn and then accepted makes room', async () => {
  const {linker} = await online();
  const stop = new AbortController();
  const withdrawn = linker.send('ANZ-2', 'a', {reference: 'a', signal: stop.signal});
  linker.send('ANZ-2', 'b', {reference: 'b'}).catch(() => {});
  stop.abort();
  await assert.rejects(withdrawn, {name: 'AbortError'});
  last().news;
  last().accepts('a');
  assert.deepEqual(contents(), ['b']);
});

test('close rejects what waits, and its confirmations', async () => {
  const {linker} = await online();
  const accepted = linker.send('ANZ-2', 'a', {reference: 'a'});
  last().accepts('a');
  const {confirmed} = await accepted;
  const under = linker.send('ANZ-2', 'b');
  const waits = linker.send('ANZ-2', 'c');
  linker.close();
  for (const promise of [confirmed, under, waits]) await assert.rejects(promise, {code: 'CLOSED'});
  await assert.rejects(linker.send('ANZ-2', 'd'), {code: 'NOT_LOGGED_IN'});
});

test('what the server could not take is refused here, by name', async () => {
  const {linker} = await online();
  linker.send('ANZ-2', 'a', {id: 'taken'}).catch(() => {});
  last().news;
  for (const [args, code, names] of [
    [[5, 'x'], 'INVALID_FIELD', /^to: 5, expected/],
    [['', 'x'], 'INVALID_FIELD', /^to: "", expected/],
    [['ANZ-2', 5], 'INVALID_FIELD', /^content: "number", expected/],
    [['ANZ-2', '\ud800'], 'INVALID_FIELD', /^content/],
    [['ANZ-2', 'x', {id: ''}], 'INVALID_FIELD', /^id: ""/],
    [['ANZ-2', 'x', {id: 'y'.repeat(65)}], 'INVALID_FIELD', /^id: /],
    [['ANZ-2', 'x', {id: 'taken'}], 'INVALID_FIELD', /^id: "taken"/],
    [['ANZ-2', 'x', {reference: ' '}], 'INVALID_FIELD', /^reference: " "/],
    [['ANZ-2', 'x', {reference: 'a\0'}], 'INVALID_FIELD', /^reference: /],
    [['ANZ-2', 'x'.repeat(64 * 1024)], 'TOO_LARGE', /65536/],
  ]) {
    await assert.rejects(linker.send(...args), (error) => error.code === code && names.test(error.message), `${args}`);
  }
  await assert.rejects(linker.sendGroup([], 'x'), {code: 'INVALID_FIELD'});
  await assert.rejects(linker.sendGroup('ANZ-2', 'x'), {code: 'INVALID_FIELD'});
  assert.deepEqual(last().news, []);
});

test('without the feature accept nothing can be sent for good', async () => {
  const {linker} = await online({}, {...user, features: ['push']});
  await assert.rejects(linker.send('ANZ-2', 'x'), {code: 'NEEDS_FEATURE'});
});

test('more messages than can be kept are refused', async () => {
  const {linker} = await online();
  for (let i = 0; i < 16_384; i += 1) linker.send('ANZ-2', 'x').catch(() => {});
  await assert.rejects(linker.send('ANZ-2', 'x'), {code: 'QUEUE_FULL'});
});

test('a connection that gives no answer is renewed', async () => {
  const {linker} = await online();
  linker.send('ANZ-2', 'a', {reference: 'a'}).catch(() => {});
  last().news;
  tick(25_000);
  last().says({type: 'MISSING_MESSAGES_AVAILABLE', data: {count: 1}}); // a sign of life
  tick(29_000);
  assert.equal(linker.state, 'online');
  tick(6000);
  assert.equal(linker.state, 'waiting');
  assert.equal(last().closed, true);
  tick(1000);
  last().opens();
  last().grants();
  assert.deepEqual(contents(), ['a']);
});

test('a connection without a word is asked for one', async () => {
  const {linker, events} = await online();
  tick(305_000);
  assert.deepEqual(last().news, [{type: 'FETCH_MISSING_MESSAGES_REQUEST', data: {count: 1}}]);
  last().says({type: 'FETCH_MISSING_MESSAGES_COMPLETE', data: {leftMissingCount: 0}});
  assert.deepEqual(events, []);
  tick(290_000);
  assert.deepEqual(last().news, []);
  tick(15_000);
  assert.equal(last().news.length, 1);
  tick(35_000);
  assert.equal(linker.state, 'waiting');
});

test('a token is asked for before each login, and again when it cannot be had', async () => {
  let asked = 0;
  const {linker} = client();
  const login = linker.login({...user, token: async () => {
    asked += 1;
    if (asked === 1) throw new Error('the issuer is away');
    return `token ${asked}`;
  }});
  last().opens();
  await settled();
  assert.deepEqual([linker.state, sockets.length], ['waiting', 1]);
  tick(1000);
  last().opens();
  await settled();
  assert.equal(last().news[0].data.token, 'token 2');
  last().grants();
  await login;
  last().ends(1006);
  tick(1000);
  last().opens();
  await settled();
  assert.equal(last().news[0].data.token, 'token 3');
});

test('several urls are tried in turn', async () => {
  const {linker} = client({url: undefined, urls: ['ws://a/ws', 'ws://b/ws']});
  linker.login(user).catch(() => {});
  for (const url of ['ws://a/ws', 'ws://b/ws', 'ws://a/ws']) {
    assert.equal(last().url, url);
    last().ends(1006);
    tick(30_000);
  }
});

test('a home that cannot be reached is asked for anew', async () => {
  const {linker} = client();
  linker.login(user).catch(() => {});
  last().opens();
  last().refuses({reason: 'WRONG_DOMAIN', urls: ['ws://other:8088', 'wss://other']});
  last().ends(4403);
  tick(0);
  for (const url of ['wss://other/ws', 'ws://other:8088/ws', 'ws://host:8088/ws']) {
    assert.equal(last().url, url);
    last().ends(1006);
    tick(30_000);
  }
});

test('domains that do not agree any more are asked again later', async () => {
  const {linker} = await online();
  last().ends(4421);
  tick(1000);
  for (let i = 0; i < 4; i += 1) {
    last().opens();
    last().refuses({reason: 'WRONG_DOMAIN', urls: ['ws://other:8088']});
    last().ends(4403);
    tick(0);
  }
  assert.equal(linker.state, 'waiting');
  tick(2000);
  assert.equal(linker.state, 'connecting');
});

test('a signal gives a login up', async () => {
  const {linker} = client();
  const stop = new AbortController();
  const login = linker.login(user, {signal: stop.signal});
  last().ends(1006);
  stop.abort();
  await assert.rejects(login, {name: 'AbortError'});
  assert.deepEqual([linker.state, linker.userId], ['closed', null]);
  await assert.rejects(linker.login(user, {signal: stop.signal}), {name: 'AbortError'});
});
