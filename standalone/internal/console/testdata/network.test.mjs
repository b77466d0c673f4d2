// Tests of the geometry of the picture of the network and of what is said about it.
// Run by TestTheModulesKeepTheirPromises, or by hand: node --test testdata/
import assert from 'node:assert/strict';
import {test} from 'node:test';

import * as facts from '../static/facts.js';
import {arrange, arrow, cardHeight, line} from '../static/layout.js';

const named = (count) => Array.from({length: count}, (_, i) => `domain-${i + 1}`);

test('cards never lie upon each other, and all lie in the picture', () => {
  for (let count = 1; count <= 70; count += 1) {
    const {places, width, height, cardWidth, rows} = arrange(named(count));
    const high = cardHeight(rows + 1);
    const all = [...places.values()];
    assert.equal(all.length, count);
    all.forEach((a, i) => {
      assert.ok(a.x - cardWidth / 2 >= 0 && a.x + cardWidth / 2 <= width && a.y - high / 2 >= 0 && a.y + high / 2 <= height, `${count}: ${i} is outside`);
      for (const b of all.slice(i + 1)) {
        assert.ok(Math.abs(a.x - b.x) > cardWidth || Math.abs(a.y - b.y) > high, `${count}: ${i} lies upon another`);
      }
    });
  }
});

test('the same domains stand in the same places', () => {
  assert.deepEqual(arrange(named(7)), arrange(named(7)));
  assert.deepEqual([...arrange([]).places], []);
});

test('a line goes from border to border, each direction on its right side', () => {
  const a = {x: 100, y: 100, width: 100, height: 40};
  const b = {x: 400, y: 100, width: 100, height: 40};
  const there = line(a, b, 4);
  assert.deepEqual([there.start, there.end], [{x: 150, y: 104}, {x: 350, y: 104}]);
  const back = line(b, a, 4);
  assert.deepEqual([back.start, back.end], [{x: 350, y: 96}, {x: 150, y: 96}]);
  const below = line(a, {...b, x: 100, y: 300}, 0);
  assert.deepEqual([below.start, below.end], [{x: 100, y: 120}, {x: 100, y: 280}]);
  for (const number of Object.values(line(a, a, 4)).flatMap((point) => [point.x, point.y])) assert.ok(Number.isFinite(number));
});

test('arrows point where the line goes', () => {
  const around = Array.from({length: 8}, (_, i) => arrow({x: Math.cos(i * Math.PI / 4), y: Math.sin(i * Math.PI / 4)}));
  assert.equal(around.join(''), '→↘↓↙←↖↑↗');
});

const way = (from, to, more = {}) => ({from, to, state: 'up', connections: 1, unacknowledged: 0, ...more});
const picture = {
  domains: [
    {name: 'a', total: 3, users: [{userId: 'ANZ-1', connectors: ['c1', 'c2']}]},
    {name: 'b', total: null, users: [], problem: 'it is away'},
  ],
  links: [{n1: 'a', n2: 'b', cost: 2, state: 'oneWay', ways: [
    way('a', 'b', {recordsPerSecond: 12.34, fastPerSecond: 1, bytesPerSecond: 20_500, rttMs: 0.42, since: 'nonsense', proof: 'key', unacknowledged: 7}),
    way('b', 'a', {state: 'down', problem: 'refused'}),
  ]}],
};

test('everything is said in one line, and what is wrong in one line each', () => {
  assert.equal(facts.summary(picture), '2 domains, 3 users, 1 link, 1 one way only');
  assert.deepEqual(facts.problems(picture), ['b: it is away', 'b → a is down: refused']);
  assert.equal(facts.summary({domains: [{name: 'a', total: 0, users: []}], links: []}), '1 domain, 0 users');
  assert.equal(facts.summary({domains: [picture.domains[1]], links: []}), '1 domain, users unknown');
});

test('the tables say what the picture says', () => {
  const [link] = picture.links;
  assert.deepEqual(picture.domains.map(facts.placeRow), [
    ['a', '3', 'ANZ-1 (c1, c2), and 2 more', '–'],
    ['b', 'unknown', '–', 'it is away'],
  ]);
  assert.deepEqual(link.ways.map((w) => facts.wayRow(w, link)), [
    ['a', 'b', 'up', '2', '12', '1', '21 k', '7', '0.4 ms', '1', 'key', '–', '–'],
    ['b', 'a', 'down', '2', '–', '–', '–', '–', '–', '–', '–', '–', 'refused'],
  ]);
  for (const w of link.ways) assert.equal(facts.wayRow(w, link).length, facts.WAY_COLUMNS.length);
  assert.deepEqual(link.ways.map(facts.traffic), ['13/s', 'down']);
  assert.equal(facts.aboutWay(link.ways[1], link), 'b → a\nstate: down\ncost: 2\nremark: refused');
  assert.equal(facts.traffic(way('a', 'b')), 'up');
  assert.equal(facts.traffic(way('a', 'b', {state: 'unknown'})), '?');
});

test('a card shows some users and counts the others', () => {
  const users = ['1', '2', '3'].map((n) => ({userId: `ANZ-${n}`, connectors: []}));
  assert.deepEqual(facts.shown({users, total: 3}, 3), {names: ['ANZ-1', 'ANZ-2', 'ANZ-3'], more: ''});
  assert.deepEqual(facts.shown({users, total: 12_345}, 2), {names: ['ANZ-1', 'ANZ-2'], more: '+ 12 k more'});
  assert.deepEqual(facts.shown({users: [], total: null}, 2), {names: [], more: ''});
});

test('numbers and names are kept short', () => {
  assert.deepEqual([0, 0.04, 0.44, 9.94, 9.96, 1234, 9994, 9996, 123_456, 2_500_000].map(facts.figure),
    ['0', '0', '0.4', '9.9', '10', '1234', '9994', '10 k', '123 k', '2.5 M']);
  assert.equal(facts.short('domain-01', 9), 'domain-01');
  assert.equal(facts.short('ANZ-123456789', 9), 'ANZ-…6789');
});
