import type { FastifyInstance } from "fastify";
import { Readable } from "node:stream";
import { UserError } from "../../base/errors.ts";
import { Digest } from "../../model/names.ts";
import type { ApiParts } from "./parts.ts";
import { route } from "./route.ts";

/** Source archives by their content. */
export function blobRoutes(app: FastifyInstance, { blobs }: ApiParts): void {
  const path = "/v1/blobs/{digest}";
  route(
    app,
    {
      method: "PUT",
      path,
      summary: "Store an archive; its content must have this digest.",
      access: "admin",
      raw: true,
    },
    async ({ params, body, request, reply }) => {
      const digest = digestOf(params);
      const content: unknown = body;
      if (!(content instanceof Readable)) {
        throw new UserError("The archive must be sent as application/octet-stream", {
          code: "bad_media_type",
          status: 415,
          next: "Send content-type: application/octet-stream.",
        });
      }
      if (blobs.has(digest)) {
        request.raw.resume(); // Known already: the client need not hear of it half-way.
        return reply.code(200).send({ digest, created: false });
      }
      await blobs.put(digest, content);
      return reply.code(201).send({ digest, created: true });
    },
  );
  route(
    app,
    { method: "HEAD", path, summary: "Whether an archive is there.", access: "host" },
    ({ params, reply }) => {
      const size = blobs.size(digestOf(params));
      if (size === undefined) return reply.code(404).send();
      return reply.code(200).header("content-length", size).send();
    },
  );
  route(app, { method: "GET", path, summary: "An archive.", access: "host" }, ({ params, reply }) => {
    const digest = digestOf(params);
    const size = blobs.size(digest);
    if (size === undefined) {
      throw new UserError(`There is no archive ${digest}`, {
        code: "no_such_blob",
        status: 404,
        next: "Deploy again: the CLI sends what is missing.",
      });
    }
    return reply.type("application/octet-stream").header("content-length", size).send(blobs.read(digest));
  });
}

function digestOf(params: Readonly<Record<string, string>>): string {
  const digest = Digest.safeParse(params["digest"]);
  if (digest.success) return digest.data;
  throw new UserError(`"${params["digest"] ?? ""}" is not a digest`, {
    code: "bad_request",
    next: "A digest is sha256: and 64 hexadecimal digits.",
  });
}
