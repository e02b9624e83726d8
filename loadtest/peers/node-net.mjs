import net from "node:net";
import { pipeline } from "node:stream";
import { port, ports } from "./common.mjs";

/** TCP passed through with node:net: what is written by hand without a library. */
let turn = 0;
net
  .createServer({ noDelay: true, allowHalfOpen: true }, (client) => {
    turn = (turn + 1) % ports.length;
    const upstream = net.connect({
      port: ports[turn],
      host: "127.0.0.1",
      noDelay: true,
      allowHalfOpen: true,
    });
    pipeline(client, upstream, client, () => {
      client.destroy();
      upstream.destroy();
    });
  })
  .listen(port, "127.0.0.1", 4096);
