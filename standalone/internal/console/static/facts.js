/**
 * What there is to say about the network, in words.
 * @module facts
 */

/**
 * @typedef {{userId: string, connectors: string[]}} User
 * @typedef {{name: string, problem?: string, total: number | null, users: User[]}} Place
 * @typedef {'up' | 'down' | 'oneWay' | 'unknown'} LinkState
 * @typedef {{from: string, to: string, state: LinkState, problem?: string, since?: string, proof?: string,
 *   connections: number, unacknowledged: number, rttMs?: number,
 *   recordsPerSecond?: number, fastPerSecond?: number, bytesPerSecond?: number}} Way
 * @typedef {{n1: string, n2: string, cost?: number, state: LinkState, ways: [Way, Way]}} Link
 * @typedef {{domains: Place[], links: Link[]}} Picture
 */

/** What is not known. */
const NOTHING = '–';

/** @type {Record<LinkState, string>} */
const STATES = {up: 'up', down: 'down', oneWay: 'one way only', unknown: 'unknown'};

/** One line for everything. @param {Picture} picture */
export function summary({domains, links}) {
  const known = domains.filter(({total}) => total !== null);
  const users = known.reduce((sum, {total}) => sum + (total ?? 0), 0);
  const parts = [count(domains.length, 'domain'), known.length < domains.length && known.length === 0 ? 'users unknown' : count(users, 'user')];
  if (links.length > 0) {
    const of = (/** @type {LinkState} */ state) => links.filter((link) => link.state === state).length;
    const wrong = /** @type {LinkState[]} */ (['down', 'oneWay', 'unknown']).filter((state) => of(state) > 0);
    parts.push(count(links.length, 'link'), ...wrong.map((state) => `${of(state)} ${STATES[state]}`));
    if (wrong.length === 0) parts.push('all up');
  }
  return parts.join(', ');
}

/** What is not as it should be, a line for each. @param {Picture} picture */
export function problems({domains, links}) {
  const lines = domains.filter(({problem}) => problem).map(({name, problem}) => `${name}: ${problem}`);
  for (const link of links) {
    for (const {from, to, state, problem} of link.ways) {
      if (state === 'up' && problem) lines.push(`${from} → ${to}: ${problem}`);
      if (state !== 'up') lines.push(`${from} → ${to} is ${STATES[state]}${problem ? `: ${problem}` : ''}`);
    }
  }
  return lines;
}

/** How many are there. @param {Place} place */
export function crowd({total}) {
  return total === null ? 'users unknown' : total === 0 ? 'nobody here' : count(total, 'user');
}

/** A card's rows: users, and how many more there are. @param {Place} place @param {number} rows  for users */
export function shown({users, total}, rows) {
  const names = users.slice(0, rows).map(({userId}) => userId);
  const more = (total ?? 0) - names.length;
  return {names, more: more > 0 ? `+ ${figure(more)} more` : ''};
}

/** What stands beside a line. @param {Way} way */
export function traffic({state, recordsPerSecond, fastPerSecond}) {
  if (state === 'unknown') return '?';
  if (state !== 'up' || recordsPerSecond === undefined) return STATES[state];
  return `${figure(recordsPerSecond + (fastPerSecond ?? 0))}/s`;
}

/** @param {Place} place */
export function aboutPlace(place) {
  const lines = [`${place.name}: ${crowd(place)}`];
  if (place.problem) lines.push(place.problem);
  for (const {userId, connectors} of place.users) lines.push(`${userId} (${connectors.join(', ')})`);
  const more = (place.total ?? 0) - place.users.length;
  if (more > 0) lines.push(`and ${more} more`);
  return lines.join('\n');
}

/** @param {Link} link */
export function aboutLink({n1, n2, state, cost}) {
  return `${n1} – ${n2}: ${STATES[state]}, cost ${cost || 'unknown'}`;
}

/** @param {Way} way @param {Link} link */
export function aboutWay(way, link) {
  const [from, to, ...rest] = wayRow(way, link);
  return [`${from} → ${to}`, ...rest.map((text, i) => `${WAY_COLUMNS[i + 2].toLowerCase()}: ${text}`).filter((_, i) => rest[i] !== NOTHING)].join('\n');
}

export const PLACE_COLUMNS = ['Domain', 'Users', 'Who', 'Remark'];

/** A row of the table of domains. @param {Place} place */
export function placeRow(place) {
  const names = place.users.map(({userId, connectors}) => `${userId} (${connectors.join(', ')})`);
  const more = (place.total ?? 0) - place.users.length;
  if (more > 0) names.push(`and ${more} more`);
  return [place.name, place.total === null ? 'unknown' : String(place.total), names.join(', ') || NOTHING, place.problem || NOTHING];
}

export const WAY_COLUMNS = ['From', 'To', 'State', 'Cost', 'Records/s', 'Fast/s', 'Bytes/s', 'Unacknowledged', 'Round trip', 'Connections', 'Proof', 'Since', 'Remark'];

/** A row of the table of links: one direction. @param {Way} way @param {Link} link */
export function wayRow(way, link) {
  const rate = (/** @type {number | undefined} */ n) => n === undefined ? NOTHING : figure(n);
  const told = way.recordsPerSecond !== undefined || way.since !== undefined; // by a processor where it begins
  return [
    way.from, way.to, STATES[way.state], link.cost ? String(link.cost) : NOTHING,
    rate(way.recordsPerSecond), rate(way.fastPerSecond), rate(way.bytesPerSecond),
    told ? String(way.unacknowledged) : NOTHING,
    way.rttMs === undefined ? NOTHING : `${figure(way.rttMs)} ms`,
    told ? String(way.connections) : NOTHING,
    way.proof || NOTHING, moment(way.since), way.problem || NOTHING,
  ];
}

/** @param {string | undefined} text  RFC 3339 */
function moment(text) {
  const date = new Date(text ?? NaN);
  return Number.isNaN(date.getTime()) ? NOTHING : date.toLocaleString();
}

/** A number with two or three digits that count. @param {number} n */
export function figure(n) {
  if (n >= 999_500) return `${figure(n / 1e6)} M`;
  if (n >= 9_995) return `${figure(n / 1e3)} k`;
  return n < 9.95 ? String(Math.round(n * 10) / 10) : String(Math.round(n));
}

/** Cut in its middle, since names differ at both ends. @param {string} text @param {number} most */
export function short(text, most) {
  if (text.length <= most) return text;
  const head = Math.ceil((most - 1) / 2);
  return `${text.slice(0, head)}…${text.slice(text.length - (most - 1 - head))}`;
}

/** @param {number} n @param {string} what */
function count(n, what) {
  return `${n} ${what}${n === 1 ? '' : 's'}`;
}
