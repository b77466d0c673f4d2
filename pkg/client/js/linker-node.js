/**
 * What only Node can do for a Linker client: an outbox in a file.
 * @module linker-node
 */
import {constants} from 'node:fs';
import {open, rename} from 'node:fs/promises';
import {dirname} from 'node:path';

/** @typedef {import('./linker.d.ts').OutboxMessage} OutboxMessage */
/** @typedef {import('node:fs/promises').FileHandle} FileHandle */

const {O_APPEND, O_CREAT, O_RDWR, O_TRUNC} = constants;

/** So many bytes of lines that mean nothing any more are borne, and as many as mean something. */
const MOST_WASTE = 1024 * 1024;

/**
 * Keeps messages in one file: a line for each that is put, and one for each that is
 * removed. It belongs to one program at a time.
 */
export class FileOutbox {
  #path;
  /** @type {FileHandle | null} open from `load` to `close` */
  #file = null;
  /** @type {Map<string, string>} the line of each message that is in it, by id, in order */
  #lines = new Map();
  #used = 0; // bytes of #lines
  #size = 0; // bytes of the file
  /** @type {string[]} the lines of #batch */
  #pending = [];
  /** @type {Promise<void> | null} of what gathers while something else is being written */
  #batch = null;
  /** @type {Promise<void>} of everything so far; it never fails */
  #last = Promise.resolve();

  /** @param {string} path */
  constructor(path) {
    this.#path = path;
  }

  /** @returns {Promise<OutboxMessage[]>} */
  async load() {
    await this.close();
    const file = await open(this.#path, O_RDWR | O_CREAT | O_APPEND, 0o600);
    try {
      const content = await file.readFile();
      // What comes after the last whole line was being written when the program ended: nobody was told that it is durable.
      const size = content.lastIndexOf('\n') + 1;
      const messages = this.#parse(content.toString('utf8', 0, size));
      await file.truncate(size);
      await file.datasync();
      await syncDirectory(this.#path);
      this.#size = size;
      this.#file = file;
      return messages;
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** @param {string} text */
  #parse(text) {
    /** @type {Map<string, OutboxMessage>} */
    const messages = new Map();
    this.#lines.clear();
    this.#used = 0;
    for (const [index, line] of text.split('\n').slice(0, -1).entries()) {
      const {put, remove} = entryOf(line);
      if (put) {
        messages.set(put.id, put);
        this.#keep(put.id, `${line}\n`);
      } else if (remove !== undefined) {
        messages.delete(remove);
        this.#forget(remove);
      } else {
        throw new Error(`${this.#path}, line ${index + 1}: ${line.slice(0, 20)}…, expected {"put":…} or {"remove":…}`);
      }
    }
    return [...messages.values()];
  }

  /** @param {OutboxMessage} message */
  async put(message) {
    const line = `${JSON.stringify({put: message})}\n`;
    this.#keep(message.id, line);
    try {
      await this.#write(line);
    } catch (error) {
      this.#forget(message.id);
      throw error;
    }
  }

  /** @param {string} id */
  async remove(id) {
    if (this.#forget(id)) await this.#write(`${JSON.stringify({remove: id})}\n`);
  }

  /** Waits until all is written, and closes the file. */
  async close() {
    await this.#last;
    const file = this.#file;
    this.#file = null;
    await file?.close();
  }

  /** @param {string} id @param {string} line */
  #keep(id, line) {
    this.#forget(id);
    this.#lines.set(id, line);
    this.#used += Buffer.byteLength(line);
  }

  /** @param {string} id @returns {boolean} whether it was there */
  #forget(id) {
    this.#used -= Buffer.byteLength(this.#lines.get(id) ?? '');
    return this.#lines.delete(id);
  }

  /**
   * Adds to what is written next, with one sync for all of it.
   * @param {string} line @returns {Promise<void>}
   */
  #write(line) {
    this.#pending.push(line);
    if (!this.#batch) {
      this.#batch = this.#last.then(() => {
        const text = this.#pending.join('');
        this.#pending = [];
        this.#batch = null;
        return this.#append(Buffer.from(text));
      });
      this.#last = this.#batch.catch(() => {}); // whoever has written is told
    }
    return this.#batch;
  }

  /** @param {Buffer} bytes */
  async #append(bytes) {
    const file = this.#file;
    if (!file) throw new Error(`${this.#path}: not open`);
    try {
      await file.appendFile(bytes);
      await file.datasync();
    } catch (error) {
      await file.truncate(this.#size).catch(() => {}); // half a line would spoil the next one
      throw error;
    }
    this.#size += bytes.length;
    if (this.#size > MOST_WASTE + 2 * this.#used) await this.#rewrite(file).catch(() => {}); // next time, then
  }

  /**
   * Leaves out what means nothing any more. What is about to be appended is in
   * #lines already: twice in the file, it counts once.
   * @param {FileHandle} old
   */
  async #rewrite(old) {
    const path = `${this.#path}.new`;
    const text = Buffer.from([...this.#lines.values()].join(''));
    const file = await open(path, O_RDWR | O_CREAT | O_TRUNC | O_APPEND, 0o600);
    try {
      await file.appendFile(text);
      await file.datasync();
      await rename(path, this.#path);
    } catch (error) {
      await file.close();
      throw error;
    }
    this.#file = file;
    this.#size = text.length;
    await old.close();
    await syncDirectory(this.#path);
  }
}

/** @param {string} line @returns {{put?: OutboxMessage, remove?: string}} */
function entryOf(line) {
  try {
    const {put, remove} = JSON.parse(line) ?? {};
    if (typeof put?.id === 'string') return {put};
    if (typeof remove === 'string') return {remove};
  } catch {
    // not JSON
  }
  return {};
}

/** @param {string} path  of a file whose name must be durable */
async function syncDirectory(path) {
  if (process.platform === 'win32') return; // directories cannot be opened there
  const directory = await open(dirname(path), 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
