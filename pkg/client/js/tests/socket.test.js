// The client over real sockets, which break.
import assert from 'node:assert/strict';
import {mkdtemp, rm, writeFile} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {after, before, test} from 'node:test';

import {Linker} from '../linker.js';
import {FileOutbox} from '../linker-node.js';
import {Server} from './server.js';

const skip = globalThis.WebSocket ? false : 'this Node has no WebSocket';

let directory;
before(async () => { directory = await mkdtemp(join(tmpdir(), 'linker-')); });
after(() => rm(directory, {recursive: true}));

/** A server that is stopped after the test, and a way to connect to it. */
async function started(t) {
  const server = new Server();
  await server.start();
  t.after(() => server.stop());
  const connect = async (userId, options = {}) => {
    const linker = await Linker.connect({url: server.url, appId: 'app', userId, minPauseMs: 20, ...options});
    t.after(() => linker.close());
    return linker;
  };
  return {server, connect};
}

/** Takes so many messages out of a loop. */
async function take(linker, count) {
  const got = [];
  if (count === 0) return got;
  for await (const {content} of linker.messages()) {
    got.push(content);
    if (got.length === count) break;
  }
  return got;
}

test('two users talk', {skip}, async (t) => {
  const {connect} = await started(t);
  const [alice, bob] = await Promise.all([connect('ANZ-1'), connect('ANZ-2')]);
  const sent = await alice.send('ANZ-2', 'hello 🌍');
  assert.deepEqual(await take(bob, 1), ['hello 🌍']);
  await sent.confirmed;
  await alice.sendGroup(['ANZ-1', 'ANZ-2'], 'to all');
  assert.deepEqual([await take(alice, 1), await take(bob, 1)], [['to all'], ['to all']]);
});

test('connections that break all the time lose nothing, double nothing, and keep the order', {skip}, async (t) => {
  const {server, connect} = await started(t);
  const count = 600;
  let seed = 7;
  const random = (below) => {
    seed = (seed * 1103515245 + 12345) % 2 ** 31;
    return Math.floor(seed / 2 ** 31 * below);
  };
  server.meddle = (peer, frame) => {
    const dice = random(100);
    if (frame.type === 'AUTH_CLIENT' || dice > 6) return false;
    if (dice === 0) {
      peer.says({type: 'DELIVER_FAILED', data: {code: 'QUEUE_UNAVAILABLE', message: '', retryable: true, retryAfterMs: 1}, reference: frame.reference});
      return frame.type !== 'MESSAGE_ACK';
    }
    if (dice > 3) { // taken, but nobody learns of it
      const says = peer.says;
      peer.says = () => {};
      server.took(peer, frame);
      peer.says = says;
    }
    peer.cuts();
    return true;
  };
  const [one, two, bob, cat] = await Promise.all(['ANZ-1', 'ANZ-2', 'ANZ-3', 'ANZ-4'].map((user) => connect(user)));
  const sending = [];
  for (let n = 0; n < count; n += 1) {
    sending.push(one.send('ANZ-3', `1 ${n}`), two.send('ANZ-3', `2 ${n}`), one.sendGroup(['ANZ-3', 'ANZ-4'], `1 group ${n}`));
  }
  const [toBob, toCat] = await Promise.all([take(bob, 3 * count), take(cat, count), ...sending]);
  const numbers = (list, prefix) => list.filter((content) => content.startsWith(prefix)).map((content) => Number(content.slice(prefix.length)));
  const all = Array.from({length: count}, (_, n) => n);
  for (const prefix of ['1 group ', '2 ']) assert.deepEqual(numbers(toBob, prefix), all);
  assert.deepEqual(toBob.filter((content) => content.startsWith('1')), all.flatMap((n) => [`1 ${n}`, `1 group ${n}`]));
  assert.deepEqual(numbers(toCat, '1 group '), all);
  assert.ok(server.logins > 20, `${server.logins} logins`);
});

test('connect goes on until the server is there, or the signal says enough', {skip}, async (t) => {
  const {server, connect} = await started(t);
  const refused = ['AUTH_UNAVAILABLE', 'AUTH_UNAVAILABLE'];
  server.meddle = (peer, {data}) => {
    const reason = refused.pop();
    if (!reason) return false;
    peer.says({type: 'AUTH_CLIENT_REPLY', data: {...data, isAuthenticated: false, reason}});
    peer.closes(4503);
    return true;
  };
  assert.equal((await connect('ANZ-1')).state, 'online');
  await server.stop();
  await assert.rejects(connect('ANZ-1', {signal: AbortSignal.timeout(50)}), {name: 'TimeoutError'});
});

test('connect gives up when it is refused', {skip}, async (t) => {
  const {server, connect} = await started(t);
  server.meddle = (peer, {data}) => {
    peer.says({type: 'AUTH_CLIENT_REPLY', data: {...data, isAuthenticated: false, reason: 'REFUSED'}});
    peer.closes(4403);
    return true;
  };
  await assert.rejects(connect('ANZ-1'), {code: 'REFUSED'});
});

test('WRONG_DOMAIN is followed to the home of the user', {skip}, async (t) => {
  const [here, there] = [await started(t), await started(t)];
  here.server.meddle = (peer, {data}) => {
    peer.says({type: 'AUTH_CLIENT_REPLY', data: {...data, isAuthenticated: false, reason: 'WRONG_DOMAIN', urls: [there.server.url]}});
    peer.closes(4403);
    return true;
  };
  const linker = await here.connect('ANZ-1');
  assert.equal(linker.url, there.server.url);
});

const message = (id, content = '') => ({id, type: 'MESSAGE', from: 'ANZ-1', to: 'ANZ-2', content, reference: id, confirmationEnabled: true});

/** A program that puts messages into an outbox, tells when each is durable, and waits to be killed. */
const putter = `
  import {FileOutbox} from ${JSON.stringify(new URL('../linker-node.js', import.meta.url).href)};
  const outbox = new FileOutbox(process.argv[1]);
  await outbox.load();
  for (let n = 0; ; n += 1) {
    const id = String(n);
    await outbox.put({id, type: 'MESSAGE', from: 'ANZ-1', to: 'ANZ-2', content: id, reference: id, confirmationEnabled: true});
    process.stdout.write(id + '\\n');
  }`;

test('an outbox in a file has what was put and not removed, in order', async () => {
  const path = join(directory, 'outbox');
  let outbox = new FileOutbox(path);
  assert.deepEqual(await outbox.load(), []);
  await Promise.all(['a', 'b', 'c'].map((id) => outbox.put(message(id, 'x\ny'))));
  await outbox.remove('b');
  await outbox.remove('unknown');
  await outbox.close();
  await assert.rejects(outbox.put(message('d')), /not open/);
  outbox = new FileOutbox(path);
  assert.deepEqual(await outbox.load(), [message('a', 'x\ny'), message('c', 'x\ny')]);
  await outbox.close();
});

test('a line that was not finished does not count, another that is none is named', async () => {
  const path = join(directory, 'torn');
  const whole = `${JSON.stringify({put: message('a')})}\n`;
  await writeFile(path, `${whole}{"put":{"id":"b`);
  const outbox = new FileOutbox(path);
  assert.deepEqual(await outbox.load(), [message('a')]);
  await outbox.put(message('c'));
  await outbox.close();
  assert.deepEqual(await outbox.load(), [message('a'), message('c')]);
  await outbox.close();
  await writeFile(path, `${whole}nonsense\n`);
  await assert.rejects(outbox.load(), /torn, line 2: nonsense/);
});

test('an outbox in a file does not grow without end', async () => {
  const path = join(directory, 'long');
  const outbox = new FileOutbox(path);
  await outbox.load();
  await outbox.put(message('first'));
  const {stat} = await import('node:fs/promises');
  for (let n = 0; n < 200; n += 1) {
    await outbox.put(message(`${n}`, 'x'.repeat(50_000)));
    if (n > 0) await outbox.remove(`${n - 1}`);
  }
  assert.ok((await stat(path)).size < 2_000_000);
  await outbox.close();
  assert.deepEqual((await outbox.load()).map(({id}) => id), ['first', '199']);
  await outbox.close();
});

test('what was durable in an outbox is there after a kill', async () => {
  const {spawn} = await import('node:child_process');
  const {once} = await import('node:events');
  const path = join(directory, 'killed');
  const child = spawn(process.execPath, ['--input-type=module', '--eval', putter, path], {stdio: ['ignore', 'pipe', 'inherit']});
  let told = '';
  for await (const chunk of child.stdout) {
    told += chunk;
    if (told.length > 200) break;
  }
  child.kill('SIGKILL');
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  const durable = told.split('\n').slice(0, -1);
  const outbox = new FileOutbox(path);
  const ids = (await outbox.load()).map(({id}) => id);
  await outbox.close();
  assert.deepEqual(ids.slice(0, durable.length), durable);
  assert.deepEqual(ids, ids.map((_, n) => String(n)));
});

test('what was sent and not accepted goes out after the next login, before what is new', {skip}, async (t) => {
  const {server, connect} = await started(t);
  const path = join(directory, 'sent');
  server.meddle = (_, frame) => frame.type === 'MESSAGE' && frame.data.content !== 'accepted';
  const outbox = new FileOutbox(path);
  const first = await connect('ANZ-1', {outbox});
  await first.send('ANZ-2', 'accepted');
  const lost = ['a', 'b', 'c'].map((content) => first.send('ANZ-2', content));
  await assert.rejects(first.send('ANZ-2', 'd', {signal: AbortSignal.timeout(20)}), {name: 'TimeoutError'});
  first.close();
  for (const sending of lost) await assert.rejects(sending, {code: 'CLOSED'});
  await outbox.close();

  server.meddle = () => false;
  server.accepted = [];
  const again = new Linker({url: server.url, outbox: new FileOutbox(path)});
  t.after(() => again.close());
  const login = again.login({appId: 'app', userId: 'ANZ-1'});
  await Promise.all([again.send('ANZ-2', 'e'), login]);
  assert.deepEqual(server.accepted.map(([, , content]) => content), ['a', 'b', 'c', 'e']);
  assert.equal(again.waiting, 0);
  again.close();
  await assert.rejects(connect('ANZ-2', {outbox: {load: () => [message('a')], put() {}, remove() {}}}), {code: 'OUTBOX_FAILED'});
});

test('a message that the outbox does not take is not sent', {skip}, async (t) => {
  const {server, connect} = await started(t);
  const outbox = {load: () => [], put({content}) { if (content === 'a') throw new Error('disk full'); }, remove() { throw new Error('read only'); }};
  const linker = await connect('ANZ-1', {outbox});
  const failures = [];
  linker.addEventListener('outboxfailed', ({detail}) => failures.push(detail.error.message));
  const refused = linker.send('ANZ-2', 'a');
  const taken = linker.send('ANZ-2', 'b');
  await assert.rejects(refused, (error) => error.code === 'OUTBOX_FAILED' && error.cause.message === 'disk full');
  await taken;
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual([server.accepted.length, failures], [1, ['read only']]);
});
