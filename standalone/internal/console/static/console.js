/**
 * The console: the network as a picture, and as many panes as one likes, each with a
 * user of its own.
 * @module console
 */
import {element} from './dom.js';
import {NetworkView} from './network.js';
import {Pane} from './pane.js';

/** @typedef {{name: string, url?: string, port?: number}} Domain */

const DEFAULT_PORT = 8088;

/** @type {Set<Pane>} */
const panes = new Set();
let opened = 0;

const network = document.getElementById('network');
if (network) new NetworkView(network, offerServers).follow();
let {domains, apps} = await loadConfig();
listServers();
addPane();
addPane();
document.getElementById('add-pane')?.addEventListener('click', () => addPane().focus());

/** Other domains are there than before. */
async function offerServers() {
  const response = await fetch('/config.json').catch(() => null);
  if (!response?.ok) return; // what is offered stays as it is
  ({domains, apps} = await response.json());
  listServers();
}

function listServers() {
  fillList('known-servers', domains.map((domain) => [serverURL(domain), domain.name]));
}

/** @returns {Promise<{domains: Domain[], apps: import('./pane.js').App[]}>} */
async function loadConfig() {
  try {
    const response = await fetch('/config.json');
    if (!response.ok) throw new Error(`status ${response.status}`);
    return await response.json();
  } catch (error) {
    warn(`The list of domains and apps could not be loaded (${error instanceof Error ? error.message : error}); fill in the fields yourself.`);
    return {domains: [{name: 'default', port: DEFAULT_PORT}], apps: []};
  }
}

function addPane() {
  opened += 1;
  const pane = new Pane({
    url: serverURL(domains[0]),
    apps,
    number: opened,
    changed: introduce,
    removed: () => { panes.delete(pane); introduce(); },
  });
  panes.add(pane);
  document.getElementById('panes')?.append(pane.root);
  introduce();
  return pane;
}

/** Offers every pane the users of the others, and one of them to write to. */
function introduce() {
  const everybody = Array.from(panes);
  fillList('known-users', everybody.map(({userId}) => [userId, '']));
  for (const pane of everybody) {
    const other = everybody.find((candidate) => candidate !== pane);
    if (other) pane.suggest(other.userId);
  }
}

/** @param {string} id @param {string[][]} entries  values with their labels */
function fillList(id, entries) {
  const options = entries.filter(([value]) => value).map(([value, label]) => new Option(label, value));
  document.getElementById(id)?.replaceChildren(...options);
}

/** @param {Domain} domain */
function serverURL({url, port}) {
  if (url) return url;
  const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
  return `${scheme}://${location.hostname || '127.0.0.1'}:${port}/ws`;
}

/** @param {string} text */
function warn(text) {
  const notice = document.getElementById('notice');
  notice?.append(element('span', '', text));
  if (notice) notice.hidden = false;
}
