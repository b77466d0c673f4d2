// How messages are received: each once, in order, acknowledged when it was handled.
import assert from 'node:assert/strict';
import {test} from 'node:test';

import {client, last, online, returns, settled, tick, user} from './scripted.js';

/** The numbers that were acknowledged since the last look. */
const acks = async () => await settled() ?? last().news.filter(({type}) => type === 'MESSAGE_ACK').map(({data}) => data.upTo);

/** The next message of a loop. */
const next = async (loop) => (await loop.next()).value?.content;

test('a loop gets each message once and in order, and acknowledges it with the next step', async () => {
  const {linker} = await online();
  const loop = linker.messages();
  last().delivers(1, 'a');
  last().delivers(2, 'b');
  last().delivers(3, 'a'); // once more
  last().delivers(4, 'c');
  assert.equal(await next(loop), 'a');
  assert.deepEqual(await acks(), []);
  assert.equal(await next(loop), 'b');
  assert.deepEqual(await acks(), [1]);
  assert.equal(await next(loop), 'c');
  loop.next();
  tick(50);
  assert.deepEqual(await acks(), [4]);
});

test('what comes before anybody asks is held', async () => {
  const {linker} = await online();
  last().delivers(1, 'a');
  last().delivers(2, 'b');
  tick(1000);
  assert.deepEqual(await acks(), []);
  const got = [];
  for await (const {content} of linker.messages()) {
    got.push(content);
    if (content === 'b') break;
  }
  assert.deepEqual(got, ['a', 'b']);
  tick(50);
  assert.deepEqual(await acks(), [1, 2]);
});

test('what comes before anybody listens is held', async () => {
  const {linker} = await online();
  last().delivers(1, 'a');
  const got = [];
  linker.addEventListener('message', ({detail}) => got.push(detail.content));
  last().delivers(2, 'b');
  await settled();
  assert.deepEqual(got, ['a', 'b']);
  assert.deepEqual(await acks(), [2]);
});

test('a listener that listens once gets one message', async () => {
  const {linker} = await online();
  const got = [];
  linker.addEventListener('message', ({detail}) => got.push(detail.content), {once: true});
  last().delivers(1, 'a');
  last().delivers(2, 'b');
  tick(50);
  assert.deepEqual([got, await acks()], [['a'], [1]]);
  const listener = ({detail}) => got.push(detail.content);
  const stop = new AbortController();
  linker.addEventListener('message', listener, {signal: stop.signal});
  await settled();
  stop.abort();
  last().delivers(3, 'c');
  linker.addEventListener('message', listener);
  linker.removeEventListener('message', listener);
  await settled();
  tick(50);
  assert.deepEqual([got, await acks()], [['a', 'b'], [2]]);
});

test('a loop and a listener both get everything, and the loop decides', async () => {
  const {linker} = await online();
  const got = [];
  const loop = linker.messages();
  linker.addEventListener('message', ({detail}) => got.push(detail.content));
  last().delivers(1, 'a');
  last().delivers(2, 'b');
  tick(50);
  assert.deepEqual([got, await acks()], [['a', 'b'], []]);
  assert.equal(await next(loop), 'a');
  await loop.return(); // b was heard by the listener
  tick(50);
  assert.deepEqual(await acks(), [1, 2].slice(-1));
  last().delivers(3, 'c');
  tick(50);
  assert.deepEqual([got, await acks()], [['a', 'b', 'c'], [3]]);
});

test('what is left when a loop ends is for the next one', async () => {
  const {linker} = await online();
  last().delivers(1, 'a');
  last().delivers(2, 'b');
  for await (const {content} of linker.messages()) {
    assert.equal(content, 'a');
    break;
  }
  for await (const {content} of linker.messages()) {
    assert.equal(content, 'b');
    break;
  }
  tick(50);
  assert.deepEqual(await acks(), [2]);
});

test('several loops share the messages', async () => {
  const {linker} = await online();
  const loops = [linker.messages(), linker.messages()];
  const asked = loops.map(next);
  last().delivers(1, 'a');
  last().delivers(2, 'b');
  assert.deepEqual(await Promise.all(asked), ['a', 'b']);
  loops[1].next();
  tick(50);
  assert.deepEqual(await acks(), []); // the first is still at work on a
  loops[0].next();
  tick(50);
  assert.deepEqual(await acks(), [2]);
});

test('presence and confirmations are acknowledged as well', async () => {
  await online();
  last().says({type: 'USER_CONNECTED', data: {userId: 'ANZ-3'}, id: 'p', seq: 1});
  assert.deepEqual(await acks(), [1]);
  last().says({type: 'MESSAGE_CONFIRMATION', data: {reference: 'r'}, id: 'c', seq: 2});
  tick(50);
  assert.deepEqual(await acks(), [2]);
});

test('many acknowledgements are one', async () => {
  const {linker} = await online();
  linker.addEventListener('message', () => {});
  for (let seq = 1; seq <= 200; seq += 1) last().delivers(seq, `${seq}`);
  assert.deepEqual(await acks(), [200]);
  for (let seq = 201; seq <= 300; seq += 1) {
    last().delivers(seq, `${seq}`);
    await settled();
  }
  assert.deepEqual(await acks(), [264]);
  tick(50);
  assert.deepEqual(await acks(), [300]);
});

test('what comes again over a new connection is known, and acknowledged there', async () => {
  const {linker} = await online();
  const got = [];
  linker.addEventListener('message', ({detail}) => got.push(detail.content));
  last().delivers(1, 'a');
  last().delivers(2, 'b');
  returns();
  last().news;
  last().delivers(1, 'b');
  last().delivers(2, 'c');
  tick(50);
  assert.deepEqual([got, await acks()], [['a', 'b', 'c'], [2]]);
});

test('what is being handled while the connection is lost is given once, and acknowledged on the next', async () => {
  const {linker} = await online();
  const loop = linker.messages();
  last().delivers(1, 'a');
  last().delivers(2, 'b');
  assert.equal(await next(loop), 'a');
  returns();
  last().news;
  last().delivers(1, 'a');
  last().delivers(2, 'b');
  last().delivers(3, 'c');
  tick(50);
  assert.deepEqual(await acks(), []);
  assert.equal(await next(loop), 'b');
  assert.deepEqual(await acks(), [1]);
  assert.equal(await next(loop), 'c');
  loop.next();
  tick(50);
  assert.deepEqual(await acks(), [3]);
});

test('ids are remembered for 131,072 messages', async () => {
  const {linker} = await online();
  let count = 0;
  linker.addEventListener('message', () => { count += 1; });
  for (let seq = 1; seq <= 131_073; seq += 1) last().delivers(seq, `${seq}`);
  last().delivers(131_074, '2');
  assert.equal(count, 131_073);
  last().delivers(131_075, '1');
  assert.equal(count, 131_074);
});

test('another user may get a message with the same id', async () => {
  const {linker} = await online();
  let count = 0;
  linker.addEventListener('message', () => { count += 1; });
  last().delivers(1, 'of a group');
  linker.close();
  linker.login(user).catch(() => {});
  last().opens();
  last().grants();
  last().delivers(1, 'of a group');
  assert.equal(count, 1);
  linker.close();
  linker.login({...user, userId: 'ANZ-2'}).catch(() => {});
  last().opens();
  last().grants();
  last().delivers(1, 'of a group');
  assert.equal(count, 2);
});

test('what a new connection counts has nothing to do with what the old one counted', async () => {
  const {linker} = await online();
  const loop = linker.messages();
  last().delivers(7, 'a');
  assert.equal(await next(loop), 'a');
  returns();
  last().news;
  loop.next();
  tick(50);
  assert.deepEqual(await acks(), []);
  last().delivers(1, 'a'); // once more
  assert.deepEqual(await acks(), [1]);
});

test('a loop that is left by an error acknowledges later than the program would end', async () => {
  const {linker} = await online();
  last().delivers(1, 'a');
  await assert.rejects(async () => {
    for await (const _ of linker.messages()) throw new Error('disk full');
  }, /disk full/);
  assert.deepEqual(await acks(), []);
  tick(50);
  assert.deepEqual(await acks(), [1]);
});

test('close acknowledges what was handled, and ends loops', async () => {
  const {linker} = await online();
  const loop = linker.messages();
  last().delivers(1, 'a');
  last().delivers(2, 'b');
  await next(loop);
  await next(loop);
  last().delivers(3, 'c');
  const socket = last();
  loop.return();
  const other = linker.messages();
  assert.equal(await next(other), 'c');
  other.return();
  const third = linker.messages();
  const asked = third.next();
  linker.close();
  assert.deepEqual(socket.news.map(({data}) => data.upTo), [1, 3]);
  assert.deepEqual(await asked, {done: true, value: undefined});
  assert.deepEqual(await third.next(), {done: true, value: undefined});
});

test('a loop throws when the connection has ended for good', async () => {
  const {linker} = await online();
  const loop = linker.messages();
  const asked = loop.next();
  const busy = linker.messages();
  last().ends(4410);
  await assert.rejects(asked, (error) => error.code === 'CLOSED' && error.detail.code === 4410);
  await assert.rejects(busy.next(), {code: 'CLOSED'});
  assert.deepEqual(await loop.next(), {done: true, value: undefined});
});

test('a signal ends a loop', async () => {
  const {linker} = await online();
  const stop = new AbortController();
  const loop = linker.messages({signal: stop.signal});
  const asked = loop.next();
  stop.abort();
  await assert.rejects(asked, {name: 'AbortError'});
  await assert.rejects(linker.messages({signal: stop.signal}).next(), {name: 'AbortError'});
  last().delivers(1, 'a');
  assert.equal(await next(linker.messages()), 'a');
});

test('a loop may begin before the login', async () => {
  const {linker} = client();
  const asked = next(linker.messages());
  await assert.rejects(linker.login({...user, features: ['accept']}), {code: 'NEEDS_FEATURE'});
  linker.login(user).catch(() => {});
  last().opens();
  last().grants();
  last().delivers(1, 'a');
  assert.equal(await asked, 'a');
});

test('without the feature ack there are no loops, and nothing is held', async () => {
  const {linker} = await online({}, {...user, features: ['accept']});
  assert.throws(() => linker.messages(), {code: 'NEEDS_FEATURE'});
  last().delivers(undefined, 'a');
  const got = [];
  linker.addEventListener('message', ({detail}) => got.push(detail.content));
  last().delivers(undefined, 'b');
  await settled();
  assert.deepEqual([got, await acks()], [['b'], []]);
});

test('a connection that brings more than can be held is renewed, and all of it comes again', async () => {
  const {linker} = await online();
  for (let seq = 1; seq <= 8193; seq += 1) last().delivers(seq, `${seq}`);
  assert.equal(linker.state, 'waiting');
  tick(1000);
  last().opens();
  last().grants();
  last().delivers(1, '1');
  last().delivers(2, 'new');
  assert.equal(linker.state, 'online');
  assert.equal(await next(linker.messages()), '1');
});
