// Says who it is and what it was sent, so that one sees what the filters did.
import { createServer } from "node:http";

createServer((request, response) => {
  if (request.url === "/healthz") return response.end("ok");
  const { "x-user": user, signature } = request.headers;
  response.setHeader("content-type", "application/json");
  response.end(
    JSON.stringify({
      variant: process.env.VARIANT,
      path: request.url,
      user,
      signed: signature !== undefined,
      card: "4111 1111 1111 1111",
    }),
  );
}).listen(process.env.PORT ?? 8080);
