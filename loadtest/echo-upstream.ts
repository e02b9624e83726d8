import { createHash } from "node:crypto";
import net from "node:net";

/** node echo-upstream.ts PORT…: accepts every upgrade to WebSocket (RFC 6455 4.2.2) and sends all bytes back. */
const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

function serve(socket: net.Socket): void {
  let head = "";
  let upgraded = false;
  socket.setNoDelay(true);
  socket.on("error", () => {});
  socket.on("data", (bytes: Buffer) => {
    if (upgraded) return void socket.write(bytes);
    head += bytes.toString("latin1");
    if (!head.includes("\r\n\r\n")) return;
    const key = /^sec-websocket-key: *(\S+)/im.exec(head)?.[1] ?? "";
    const accept = createHash("sha1")
      .update(key + GUID)
      .digest("base64");
    upgraded = true;
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
    );
  });
}

for (const port of process.argv.slice(2)) net.createServer(serve).listen(Number(port), "127.0.0.1", 4096);
