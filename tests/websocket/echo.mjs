// An echo server; messages up to 64 MiB, compressed where the client wants that. `/later` answers
// after as many milliseconds as the message says, `/close/CODE` closes with that code.
import { WebSocketServer } from "ws";

const [host, port] = process.argv[2].split(":");
const server = new WebSocketServer({
  host,
  port: Number(port),
  maxPayload: 64 << 20,
  perMessageDeflate: true,
});
server.on("connection", (socket, request) => {
  socket.on("error", () => {});
  const close = /^\/close\/(\d+)$/.exec(request.url);
  if (close) socket.close(Number(close[1]), "as asked");
  socket.on("message", (data, isBinary) => {
    if (request.url === "/later") {
      setTimeout(() => socket.send(data), Number(data.toString()));
    } else {
      socket.send(data, { binary: isBinary });
    }
  });
});
