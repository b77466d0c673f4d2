// What the .d.ts files and the documentation say is what the modules have.
import assert from 'node:assert/strict';
import {readFile} from 'node:fs/promises';
import {test} from 'node:test';

const text = (path) => readFile(new URL(path, import.meta.url), 'utf8');
const manifest = JSON.parse(await text('../package.json'));

/** The classes and functions that a declaration file exports, with the members of each class. */
function declared(source) {
  const plain = source.replace(/\/\*\*[^]*?\*\//g, '');
  const names = new Map();
  for (const [, name] of plain.matchAll(/^export (?:declare )?(?:function|const) (\w+)/gm)) names.set(name, []);
  for (const [, name, body] of plain.matchAll(/^export (?:declare )?class (\w+)[^{]*\{\n([^]*?)^\}/gm)) {
    const members = [...body.matchAll(/^  (?:static |get |set |readonly )*(\w+)[(<:]/gm)].map(([, member]) => member);
    names.set(name, [...new Set(members)].filter((member) => member !== 'constructor').sort());
  }
  return names;
}

/** The same of a module. Instances have members as well: those of an example of each class. */
function exported(module, example) {
  return new Map(Object.entries(module).map(([name, value]) => {
    if (!value.prototype) return [name, []];
    const own = [Object.getOwnPropertyNames(value), Object.getOwnPropertyNames(value.prototype), Object.keys(example(value))].flat();
    return [name, [...new Set(own)].filter((member) => !['length', 'name', 'prototype', 'constructor'].includes(member)).sort()];
  }));
}

for (const {types, default: path} of Object.values(manifest.exports)) {
  test(`${types} names what ${path} exports, and nothing else`, async () => {
    const module = await import(new URL(`../${path}`, import.meta.url));
    const example = (value) => (value.prototype instanceof Error ? new value('code', 'message') : {});
    const want = exported(module, example);
    const got = declared(await text(`../${types}`));
    got.get('LinkerError')?.splice(0, Infinity, ...got.get('LinkerError').filter((name) => name !== 'name'));
    want.get('LinkerError')?.splice(0, Infinity, ...want.get('LinkerError').filter((name) => name !== 'name'));
    assert.deepEqual([...got].sort(), [...want].sort());
    for (const [name, members] of got) if (/^[A-Z]/.test(name)) assert.ok(members.length > 1, `${name} has ${members}`);
  });
}

test('the events that are declared are those that are sent', async () => {
  const [, map] = /export interface LinkerEventMap \{\n([^]*?)^\}/m.exec((await text('../linker.d.ts')).replace(/\/\*\*.*?\*\//gs, ''));
  const names = [...map.matchAll(/^  (\w+):/gm)].map(([, name]) => name);
  const sent = [...(await text('../linker.js')).matchAll(/#emit\('(\w+)'/g)].map(([, name]) => name);
  assert.deepEqual([...new Set(names)].sort(), [...new Set(sent)].sort());
});

test('the codes that are declared are those that are used', async () => {
  const source = await text('../linker.js');
  const used = [...source.matchAll(/new LinkerError\(\s*'([A-Z_]+)'/g)].map(([, code]) => code);
  const [, list] = /or of these: ([^]*?)\*\//.exec(await text('../linker.d.ts'));
  assert.deepEqual([...new Set(used)].sort(), [...list.matchAll(/`([A-Z_]+)`/g)].map(([, code]) => code).sort());
});

test('the package has what it names', async () => {
  assert.deepEqual([manifest.name, manifest.type, manifest.license, manifest.dependencies], ['@linkerhq/linker', 'module', 'Apache-2.0', undefined]);
  for (const file of manifest.files) assert.ok((await text(`../${file}`)).length > 0, file);
  const named = Object.values(manifest.exports).flatMap(Object.values).map((path) => path.slice(2));
  assert.deepEqual(named.filter((file) => !manifest.files.includes(file)), []);
});
