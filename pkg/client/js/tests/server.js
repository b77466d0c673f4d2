// A server for tests, over real sockets: the part of RFC 6455 that is needed, and of
// Linker what clients can tell. It keeps what was accepted, delivers it once more after
// a connection that ended without acknowledgement, and can be told to misbehave.
import {createHash} from 'node:crypto';
import {createServer} from 'node:http';

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';

/** One websocket, as the server sees it. */
class Peer {
  #socket;
  #buffer = Buffer.alloc(0);
  #server;
  userId = '';
  seq = 0;
  /** @type {{seq: number, frame: object}[]} */
  unacknowledged = [];

  constructor(socket, server) {
    this.#socket = socket;
    this.#server = server;
    socket.on('data', (bytes) => this.#read(bytes));
    socket.on('error', () => {});
    socket.on('close', () => server.left(this));
  }

  #read(bytes) {
    this.#buffer = Buffer.concat([this.#buffer, bytes]);
    for (;;) {
      const b = this.#buffer;
      if (b.length < 2) return;
      let length = b[1] & 0x7f;
      let at = 2;
      if (length === 126) {
        if (b.length < 4) return;
        length = b.readUInt16BE(2);
        at = 4;
      } else if (length === 127) {
        if (b.length < 10) return;
        length = Number(b.readBigUInt64BE(2));
        at = 10;
      }
      if (b.length < at + 4 + length) return;
      const mask = b.subarray(at, at + 4);
      const payload = Buffer.from(b.subarray(at + 4, at + 4 + length)).map((byte, i) => byte ^ mask[i % 4]);
      this.#buffer = b.subarray(at + 4 + length);
      const opcode = b[0] & 0x0f;
      if (opcode === 1) this.#server.took(this, JSON.parse(payload.toString()));
      if (opcode === 8) {
        this.#write(8, payload);
        this.#socket.end();
      }
    }
  }

  #write(opcode, payload) {
    const {length} = payload;
    const header = length < 126 ? Buffer.from([0x80 | opcode, length]) : Buffer.from([0x80 | opcode, 126, length >> 8, length & 0xff]);
    this.#socket.write(Buffer.concat([header, payload]));
  }

  says(frame) {
    this.#write(1, Buffer.from(JSON.stringify(frame)));
  }

  delivers(frame) {
    this.seq += 1;
    this.unacknowledged.push({seq: this.seq, frame});
    this.says({...frame, seq: this.seq});
  }

  closes(code) {
    this.#write(8, Buffer.from([code >> 8, code & 0xff]));
    this.#socket.end();
  }

  cuts() {
    this.#socket.resetAndDestroy();
  }
}

/** Remembers what it took by sender and id, and keeps what is not acknowledged by user. */
export class Server {
  #http = createServer();
  /** @type {Set<Peer>} */
  peers = new Set();
  /** @type {Map<string, object[]>} what waits, by user */
  #mailboxes = new Map();
  /** @type {Map<string, string>} the network's id, by sender and the client's id */
  #taken = new Map();
  logins = 0;
  /** What was taken, in order: `[from, to, content]`. */
  accepted = [];
  /** Is asked about each frame; whoever answers true has dealt with it. */
  meddle = (_peer, _frame) => false;

  async start() {
    this.#http.on('upgrade', (request, socket) => {
      const accept = createHash('sha1').update(request.headers['sec-websocket-key'] + GUID).digest('base64');
      socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
      this.peers.add(new Peer(socket, this));
    });
    await new Promise((resolve) => this.#http.listen(0, '127.0.0.1', () => resolve(undefined)));
    this.url = `ws://127.0.0.1:${this.#http.address().port}/ws`;
  }

  async stop() {
    for (const peer of this.peers) peer.cuts();
    await new Promise((resolve) => this.#http.close(resolve));
  }

  left(peer) {
    this.peers.delete(peer);
    if (peer.userId) this.#mailboxes.get(peer.userId)?.unshift(...peer.unacknowledged.map(({frame}) => frame));
  }

  took(peer, frame) {
    if (this.meddle(peer, frame)) return;
    const {type, data} = frame;
    switch (type) {
      case 'AUTH_CLIENT':
        this.logins += 1;
        peer.userId = data.userId;
        peer.says({type: 'AUTH_CLIENT_REPLY', data: {appId: data.appId, userId: data.userId, isAuthenticated: true}});
        for (const stored of this.#mailbox(data.userId).splice(0)) peer.delivers(stored);
        break;
      case 'MESSAGE': this.accept(peer, frame, [data.to]); break;
      case 'GROUP_MESSAGE': this.accept(peer, frame, data.to); break;
      case 'MESSAGE_ACK':
        peer.unacknowledged = peer.unacknowledged.filter(({seq, frame: {data: {from}, reference}}) => {
          if (seq > data.upTo) return true;
          if (from) this.deliver(from, {type: 'MESSAGE_CONFIRMATION', data: {reference}, id: `confirmation ${reference}`});
          return false;
        });
        break;
    }
  }

  /** Takes a message once, answers each time. */
  accept(peer, {data: {content}, id, reference}, receivers) {
    const key = `${peer.userId} ${id}`;
    const known = this.#taken.get(key);
    const name = known ?? `m${this.#taken.size}`;
    this.#taken.set(key, name);
    if (!known) {
      for (const to of receivers) {
        this.accepted.push([peer.userId, to, content]);
        this.deliver(to, {type: 'MESSAGE', data: {from: peer.userId, content}, reference, id: name, createdAt: 1});
      }
    }
    peer.says({type: 'MESSAGE_ACCEPTED', data: {reference, id: name}});
  }

  deliver(to, frame) {
    const peer = [...this.peers].find(({userId}) => userId === to);
    if (peer) {
      peer.delivers(frame);
    } else {
      this.#mailbox(to).push(frame);
    }
  }

  #mailbox(userId) {
    const mailbox = this.#mailboxes.get(userId) ?? [];
    this.#mailboxes.set(userId, mailbox);
    return mailbox;
  }
}
