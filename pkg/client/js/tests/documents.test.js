// The examples of the documents run.
import assert from 'node:assert/strict';
import {mkdtemp, readFile, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {mock, test} from 'node:test';

import {Linker} from '../linker.js';
import {Server} from './server.js';

const skip = globalThis.WebSocket ? false : 'this Node has no WebSocket';
const modules = {'@linkerhq/linker': 'linker.js', '@linkerhq/linker/node': 'linker-node.js', '@linkerhq/linker/browser': 'linker-browser.js'};

for (const [path, count] of [['../README.md', 1], ['../linker.js', 1], ['../../../../docs/client-js.md', 3]]) {
  const source = await readFile(new URL(path, import.meta.url), 'utf8').catch((error) => {
    if (path.includes('docs')) return null; // an unpacked package has no documents beside it
    throw error;
  });
  if (source === null) continue;
  const examples = path.endsWith('.md')
    ? [...source.matchAll(/^```js\n([^]*?)^```/gm)].map(([, code]) => code)
    : [[.../^\/\*\*\n([^]*?)\*\//.exec(source)[1].matchAll(/^ \* {5}(.*)$/gm)].map(([, line]) => line).join('\n')];

  test(`${path} has ${count} examples`, () => assert.equal(examples.length, count));

  for (const [index, example] of examples.entries()) {
    test(`example ${index + 1} of ${path}`, {skip}, async (t) => {
      const directory = await mkdtemp(join(tmpdir(), 'linker-'));
      t.after(() => rm(directory, {recursive: true}));
      const server = new Server();
      await server.start();
      t.after(() => server.stop());
      const printed = mock.method(console, 'log', () => {});
      t.after(() => printed.mock.restore());

      const other = await Linker.connect({url: server.url, appId: 'app', userId: 'ANZ-2', features: ['accept']});
      t.after(() => other.close());
      other.addEventListener('message', ({detail}) => other.send(detail.from, 'bye').catch(() => {}));
      const code = example
        .replace(/from '([^']+)'/g, (_, name) => `from '${new URL(`../${modules[name]}`, import.meta.url)}'`)
        .replaceAll('ws://127.0.0.1:8088/ws', server.url)
        .replaceAll("'ANZ-1.outbox'", JSON.stringify(join(directory, 'outbox')))
        .replace(/^for await .*\S;$/m, ''); // one without an end
      await import(`data:text/javascript,${encodeURIComponent(code)}`);
      assert.ok(server.logins > 1);
      assert.ok(server.accepted.length > 0 || /FAST/.test(code), 'nothing was sent');
      if (/for await/.test(code)) assert.deepEqual(printed.mock.calls.map((call) => call.arguments).filter(([from]) => from === 'ANZ-2'), [['ANZ-2', 'bye']]);
      for (const peer of server.peers) if (peer.userId !== 'ANZ-2') peer.closes(4410); // if the example does not close
    });
  }
}
