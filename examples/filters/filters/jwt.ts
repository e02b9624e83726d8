import { defineFilter } from "gilliam/filter";
import { createLocalJWKSet, createRemoteJWKSet, type JSONWebKeySet, jwtVerify } from "jose";

interface Options {
  issuer: string;
  audience: string;
  /** The keys, or where they are; fetched ones are kept and looked up again when a key is unknown. */
  jwks: JSONWebKeySet | string;
}

const sets = new Map<string, ReturnType<typeof createLocalJWKSet>>();
function keysOf(jwks: Options["jwks"]): ReturnType<typeof createLocalJWKSet> {
  const id = JSON.stringify(jwks);
  let set = sets.get(id);
  if (set === undefined) {
    set = typeof jwks === "string" ? createRemoteJWKSet(new URL(jwks)) : createLocalJWKSet(jwks);
    sets.set(id, set);
  }
  return set;
}

/** A valid bearer token or 401. The service gets the token's subject as `x-user`, whatever the client sent. */
export default defineFilter<Options>({
  name: "jwt",
  async onRequest(request, { options }) {
    request.headers.delete("x-user");
    const token = /^Bearer (\S+)$/i.exec(request.headers.get("authorization") ?? "")?.[1];
    const refused = (error: string) => ({
      status: 401,
      headers: { "www-authenticate": `Bearer error="${error}"` },
      body: `${error}\n`,
    });
    if (token === undefined) return refused("token_missing");
    try {
      const { payload } = await jwtVerify(token, keysOf(options.jwks), {
        issuer: options.issuer,
        audience: options.audience,
      });
      request.headers.set("x-user", payload.sub ?? "");
    } catch {
      return refused("invalid_token");
    }
    request.headers.delete("authorization");
  },
});
