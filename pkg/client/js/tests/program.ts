// A program in TypeScript, which is only compiled: every name of the package as users write it.
import {Linker, LinkerError, newReference} from '@linkerhq/linker';
import type {Accepted, ConnectOptions, Message, Outbox, OutboxMessage, Sent, State} from '@linkerhq/linker';
import {IndexedDBOutbox} from '@linkerhq/linker/browser';
import {FileOutbox} from '@linkerhq/linker/node';

class Memory implements Outbox {
  #all = new Map<string, OutboxMessage>();
  load() { return [...this.#all.values()]; }
  put(message: OutboxMessage) { this.#all.set(message.id, message); }
  remove(id: string) { this.#all.delete(id); }
}

const outboxes: Outbox[] = [new Memory(), new IndexedDBOutbox('linker-ANZ-1'), new FileOutbox('/tmp/ANZ-1')];
const options: ConnectOptions = {
  urls: ['ws://127.0.0.1:8088/ws'], appId: 'app-id-343', userId: 'ANZ-1', token: async () => 'token',
  features: ['accept'], outbox: outboxes[0], signal: AbortSignal.timeout(1000),
};
// @ts-expect-error: there is one way to say where
const both: ConnectOptions = {...options, url: 'ws://127.0.0.1:8088/ws'};
// @ts-expect-error: somewhere it must be
const nowhere = new Linker({});

export async function program(): Promise<void> {
  const linker = await Linker.connect(options);
  const state: State = linker.state;
  linker.addEventListener('presence', ({detail}) => console.log(detail.userId, detail.connected, state));
  linker.addEventListener('close', {handleEvent: ({detail}) => console.log(detail.retryInMs?.toFixed())});
  // @ts-expect-error: a message has no such field
  linker.addEventListener('message', ({detail}) => console.log(detail.to));
  const sent: Sent = await linker.send('ANZ-2', 'hello', {reference: newReference(), signal: options.signal});
  await sent.confirmed;
  const accepted: Accepted = await linker.sendGroup(['ANZ-2'] as const, 'hello');
  // @ts-expect-error: groups are not confirmed
  await accepted.confirmed;
  // @ts-expect-error: only frames that are posted can be FAST
  await linker.send('ANZ-2', 'hello', {feature: 'FAST'});
  linker.post('ANZ-2', 'hello', {feature: 'FAST'});
  try {
    for await (const message of linker.messages({signal: options.signal})) print(message);
  } catch (error) {
    if (error instanceof LinkerError) console.log(error.code, error.detail);
  }
  linker.close();
  console.log(both, nowhere);
}

function print({from, content, createdAt}: Message): void {
  console.log(from, content, new Date(createdAt ?? 0));
}
