import { createProxyServer } from "httpxy";
import { agent, createServer, nextTarget, port } from "./common.mjs";

const proxy = createProxyServer({ agent, xfwd: true });
createServer((request, response) => {
  proxy.web(request, response, { target: nextTarget() }).catch(() => response.destroy());
})
  .on("upgrade", (request, socket, head) => {
    proxy.ws(request, socket, { target: nextTarget(), agent: undefined }, head).catch(() => socket.destroy());
  })
  .listen(port, "127.0.0.1");
