/**
 * What only browsers can do for a Linker client: an outbox in IndexedDB. In
 * localStorage it would block the page at each message, end at 5 MB, and be out of
 * reach of workers.
 * @module linker-browser
 */

/** @typedef {import('./linker.d.ts').OutboxMessage} OutboxMessage */

const STORE = 'messages';

/** Keeps messages in a database of its own. It belongs to one page at a time. */
export class IndexedDBOutbox {
  #name;
  /** @type {IDBDatabase | null} open from `load` to `close` */
  #database = null;

  /** @param {string} name  of the database, such as `linker-ANZ-1` */
  constructor(name) {
    this.#name = name;
  }

  /** @returns {Promise<OutboxMessage[]>} */
  async load() {
    this.close();
    const opening = indexedDB.open(this.#name, 1);
    opening.onupgradeneeded = () => {
      opening.result.createObjectStore(STORE, {autoIncrement: true}).createIndex('id', 'id', {unique: true});
    };
    const database = await answer(opening);
    database.onversionchange = () => this.close(); // somebody deletes it
    this.#database = database;
    return answer(this.#begin('readonly').objectStore(STORE).getAll()); // in the order of their keys
  }

  /** @param {OutboxMessage} message */
  async put(message) {
    const transaction = this.#begin('readwrite');
    transaction.objectStore(STORE).add(message);
    await end(transaction);
  }

  /** @param {string} id */
  async remove(id) {
    const transaction = this.#begin('readwrite');
    const store = transaction.objectStore(STORE);
    const found = store.index('id').getKey(id);
    found.onsuccess = () => {
      if (found.result !== undefined) store.delete(found.result);
    };
    await end(transaction);
  }

  close() {
    this.#database?.close(); // what is under way is still finished
    this.#database = null;
  }

  /** @param {IDBTransactionMode} mode */
  #begin(mode) {
    if (!this.#database) throw new Error(`${this.#name}: not open`);
    return this.#database.transaction(STORE, mode, {durability: 'strict'});
  }
}

/** @template T @param {IDBRequest<T>} request @returns {Promise<T>} */
function answer(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** @param {IDBTransaction} transaction @returns {Promise<void>} */
function end(transaction) {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error);
  });
}
