// Talks to echo.mjs through the edge, and says `ok NAME` for each that went as it should.
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { WebSocket } from "ws";

const [base, deflate] = process.argv.slice(2);
const options = {
  rejectUnauthorized: false,
  perMessageDeflate: deflate === "deflate",
  maxPayload: 64 << 20,
  headers: { host: "shop.test" },
};
const within = (promise, what) =>
  Promise.race([
    promise,
    new Promise((_, reject) => setTimeout(() => reject(new Error(`no ${what}`)), 30000)),
  ]);
async function open(path) {
  const socket = new WebSocket(base + path, options);
  await within(once(socket, "open"), "open socket");
  return socket;
}
async function answer(socket, message) {
  socket.send(message);
  const [data] = await within(once(socket, "message"), "answer");
  return data;
}
function same(a, b) {
  const hash = (bytes) => createHash("sha256").update(bytes).digest("hex");
  if (hash(a) !== hash(b)) throw new Error(`${a.length} and ${b.length} octets differ`);
}

const checks = {
  async messages() {
    const socket = await open("/");
    if (deflate === "deflate" && !socket.extensions.includes("permessage-deflate")) {
      throw new Error(`extensions: ${socket.extensions}`);
    }
    same(await answer(socket, "hello"), Buffer.from("hello"));
    for (const size of [0, 1, 125, 126, 65535, 65536, 1 << 20, 16 << 20]) {
      const message = randomBytes(size);
      same(await answer(socket, message), message);
    }
    const text = "ü".repeat(1 << 20);
    same(await answer(socket, text), Buffer.from(text));
    socket.terminate();
  },
  async pings() {
    const socket = await open("/");
    socket.ping("are you there");
    const [pong] = await within(once(socket, "pong"), "pong");
    same(pong, Buffer.from("are you there"));
    socket.terminate();
  },
  async silence() {
    const socket = await open("/later");
    same(await answer(socket, "4000"), Buffer.from("4000"));
    socket.terminate();
  },
  async closes() {
    for (const code of [1000, 1001, 1008, 1011, 3000, 4999]) {
      const socket = await open(`/close/${code}`);
      const [got, reason] = await within(once(socket, "close"), "close");
      if (got !== code || reason.toString() !== "as asked") throw new Error(`${got} for ${code}`);
      const other = await open("/");
      other.close(code, "bye");
      const [echoed, bye] = await within(once(other, "close"), "close");
      if (echoed !== code || bye.toString() !== "bye") throw new Error(`${echoed} for ${code}`);
    }
  },
  async many() {
    const sockets = await Promise.all(Array.from({ length: 30 }, () => open("/")));
    const answers = sockets.map((socket, nth) => answer(socket, `socket ${nth}`));
    (await Promise.all(answers)).forEach((data, nth) => same(data, Buffer.from(`socket ${nth}`)));
    for (const socket of sockets) socket.terminate();
  },
};
for (const [name, check] of Object.entries(checks)) {
  await check();
  console.log("ok", name);
}
process.exit(0);
