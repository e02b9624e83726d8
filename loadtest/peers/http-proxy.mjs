import http from "node:http";
import httpProxy from "http-proxy";
import { agent, nextTarget, port } from "./common.mjs";

const proxy = httpProxy.createProxyServer({ agent, xfwd: true });
proxy.on("error", (_error, _request, response) => response.destroy());
http
  .createServer((request, response) => proxy.web(request, response, { target: nextTarget() }))
  .listen(port, "127.0.0.1");
