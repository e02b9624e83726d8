import { createHmac } from "node:crypto";
import { defineFilter } from "gilliam/filter";

interface Options {
  keyId: string;
  key: string;
}

/** Signs method, path and query with HMAC-SHA256, as RFC 9421 (HTTP Message Signatures) writes it. */
export default defineFilter<Options>({
  name: "sign",
  onRequest(request, context) {
    const { keyId, key } = context.options;
    const cut = request.target.indexOf("?");
    const query = cut < 0 ? "?" : request.target.slice(cut);
    const created = Math.floor(context.now() / 1000);
    const params = `("@method" "@path" "@query");created=${created};keyid="${keyId}";alg="hmac-sha256"`;
    const base = `"@method": ${request.method}\n"@path": ${request.path}\n"@query": ${query}\n"@signature-params": ${params}`;
    const signature = createHmac("sha256", key).update(base).digest("base64");
    request.headers.set("signature-input", `edge=${params}`);
    request.headers.set("signature", `edge=:${signature}:`);
  },
});
