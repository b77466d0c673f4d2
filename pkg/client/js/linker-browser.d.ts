import type {Outbox, OutboxMessage} from './linker.d.ts';

/** Keeps messages in an IndexedDB database of its own. It belongs to one page at a time. */
export class IndexedDBOutbox implements Outbox {
  /** Opens nothing yet. `name` is that of the database, such as `linker-ANZ-1`. */
  constructor(name: string);
  load(): Promise<OutboxMessage[]>;
  put(message: OutboxMessage): Promise<void>;
  remove(id: string): Promise<void>;
  /** What is under way is still finished. */
  close(): void;
}
