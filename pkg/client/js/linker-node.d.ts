import type {Outbox, OutboxMessage} from './linker.d.ts';

/**
 * Keeps messages in one file: a line for each that is put, and one for each that is
 * removed. It belongs to one program at a time.
 */
export class FileOutbox implements Outbox {
  /** Opens nothing yet; the file is made if there is none. */
  constructor(path: string);
  load(): Promise<OutboxMessage[]>;
  put(message: OutboxMessage): Promise<void>;
  remove(id: string): Promise<void>;
  /** Waits until all is written, and closes the file. */
  close(): Promise<void>;
}
