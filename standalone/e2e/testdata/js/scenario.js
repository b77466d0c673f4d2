// Users who talk while the system is killed under them: for Node and for browsers.

/** Gives up after so long, below what the test waits for. */
const PATIENCE_MS = 240_000;

/**
 * Each sender sends to each receiver count numbers, and count more to all of them as
 * groups, as fast as it can.
 * @param {{Linker: any, url: string, appId: string, senders: string[], receivers: string[], count: number,
 *   outboxOf: (user: string) => any, told: (accepted: number) => void}} scenario
 * @returns {Promise<Record<string, Record<string, string[]>>>} what came, by receiver and sender, in order
 */
export async function run({Linker, url, appId, senders, receivers, count, outboxOf, told}) {
  const signal = AbortSignal.timeout(PATIENCE_MS);
  const connect = (userId, outbox) => Linker.connect({url, appId, userId, outbox, minPauseMs: 50, maxPauseMs: 500, signal});
  const [from, to] = await Promise.all([
    Promise.all(senders.map((user) => connect(user, outboxOf(user)))),
    Promise.all(receivers.map((user) => connect(user))),
  ]);
  let accepted = 0;
  const sending = from.map(async (linker) => {
    const all = [];
    for (let n = 0; n < count; n += 1) {
      for (const user of receivers) all.push(linker.send(user, `${n}`, {signal}));
      all.push(linker.sendGroup(receivers, `group ${n}`, {signal}));
    }
    await Promise.all(all.map((sent) => sent.then(() => told(accepted += 1))));
    // What would come twice comes before these.
    await Promise.all(receivers.map((user) => linker.send(user, 'end', {signal})));
  });
  const receiving = to.map(async (linker) => {
    const got = Object.fromEntries(senders.map((user) => [user, []]));
    let ends = 0;
    for await (const {from: sender, content} of linker.messages({signal})) {
      got[sender].push(content);
      if (content === 'end' && (ends += 1) === senders.length) break;
    }
    return got;
  });
  const [, ...received] = await Promise.all([Promise.all(sending), ...receiving]);
  for (const linker of [...from, ...to]) linker.close();
  return Object.fromEntries(receivers.map((user, i) => [user, received[i]]));
}
