// What the page offers to the test that drives it.
import {IndexedDBOutbox} from '/linker-browser.js';
import {Linker} from '/linker.js';
import {run} from '/scenario.js';

window.accepted = 0;
window.received = null;
window.problem = '';

window.start = (scenario) => {
  run({
    ...scenario, Linker,
    outboxOf: (user) => new IndexedDBOutbox(user),
    told: (accepted) => { window.accepted = accepted; },
  }).then((received) => { window.received = received; }, (error) => { window.problem = String(error); });
};

/** Waits until so many messages are written down. */
async function holds(count) {
  for (;;) {
    const outbox = new IndexedDBOutbox('written down');
    const left = await outbox.load();
    outbox.close();
    if (left.length === count) return left.map(({content}) => content);
    await new Promise((resolve) => { setTimeout(resolve, 20); });
  }
}

/** Sends to oneself through an outbox, and does not wait for anything but that it is written down. */
window.writeDown = async ({url, appId, user, contents}) => {
  const outbox = new IndexedDBOutbox('written down');
  const linker = new Linker({url, outbox, minPauseMs: 50});
  linker.login({appId, userId: user}).catch(() => {});
  for (const content of contents) linker.send(user, content).catch(() => {});
  return holds(contents.length);
};

/** Takes what one has sent to oneself before the page was loaded anew. */
window.takeUp = async ({url, appId, user, count}) => {
  const outbox = new IndexedDBOutbox('written down');
  const linker = await Linker.connect({url, appId, userId: user, outbox, minPauseMs: 50});
  const got = [];
  for await (const {content} of linker.messages()) {
    got.push(content);
    if (got.length === count) break;
  }
  await holds(0);
  linker.close();
  return got;
};
