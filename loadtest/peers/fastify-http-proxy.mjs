import httpProxy from "@fastify/http-proxy";
import fastify from "fastify";
import { nextTarget, port, tls } from "./common.mjs";

const app = fastify(tls === undefined ? {} : { https: tls });
// Bodies are passed on, not parsed.
app.removeAllContentTypeParsers();
app.addContentTypeParser("*", (_request, body, done) => done(null, body));
await app.register(httpProxy, {
  upstream: "",
  undici: { connections: 256, pipelining: 1, keepAliveTimeout: 60_000 },
  replyOptions: { getUpstream: nextTarget },
});
await app.listen({ port, host: "127.0.0.1" });
