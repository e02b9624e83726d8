import net from "node:net";

/**
 * node idle-clients.ts PORT CONNECTIONS: opens them, sends one request on each, and prints how many were answered.
 * A line on standard input: prints how many are still open. Ends with its standard input.
 */
const [port, connections] = process.argv.slice(2).map(Number) as [number, number];
const REQUEST = `GET / HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nUser-Agent: idle\r\n\r\n`;
const AT_ONCE = 100;

let held = 0;

/** Resolves when the first answer is there, or the connection is gone. */
function open(): Promise<void> {
  return new Promise((resolve) => {
    const socket = net.connect({ port, host: "127.0.0.1" });
    let answered = false;
    socket.on("connect", () => socket.write(REQUEST));
    socket.on("data", () => {
      if (!answered) held += 1;
      answered = true;
      resolve();
    });
    socket.on("error", () => {});
    socket.on("close", () => {
      if (answered) held -= 1;
      resolve();
    });
  });
}

for (let opened = 0; opened < connections; opened += AT_ONCE) {
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, connections - opened) }, open));
}
process.stdout.write(`${held}\n`);
process.stdin.on("data", () => process.stdout.write(`${held}\n`));
process.stdin.on("end", () => process.exit(0));
