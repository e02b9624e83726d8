import { createHmac } from "node:crypto";
import { testFilter } from "gilliam/filter/testing";
import { SignJWT, exportJWK, generateKeyPair } from "jose";
import { expect, test } from "vitest";
import ab from "./ab.ts";
import jwt from "./jwt.ts";
import maintenance from "./maintenance.ts";
import redact from "./redact.ts";
import sign from "./sign.ts";

const request = (path = "/", headers: Record<string, string> = {}) =>
  new Request(`http://filtered.localhost${path}`, { headers });

test("jwt: a valid token passes with its subject, everything else is 401", async () => {
  const { privateKey, publicKey } = await generateKeyPair("EdDSA", { extractable: true });
  const jwks = { keys: [{ ...(await exportJWK(publicKey)), kid: "k", alg: "EdDSA" }] };
  const use = { options: { issuer: "me", audience: "shop", jwks } };
  const token = (audience: string) =>
    new SignJWT({})
      .setProtectedHeader({ alg: "EdDSA", kid: "k" })
      .setSubject("u1")
      .setIssuer("me")
      .setAudience(audience)
      .sign(privateKey);
  const bearer = async (audience: string) => ({
    authorization: `Bearer ${await token(audience)}`,
    "x-user": "root",
  });

  const passed = await testFilter(jwt, request("/account", await bearer("shop")), use);
  expect(passed.failures).toEqual([]);
  expect(passed.forwarded?.headers.get("x-user")).toBe("u1");
  expect(passed.forwarded?.headers.has("authorization")).toBe(false);
  const other = await testFilter(jwt, request("/account", await bearer("bank")), use);
  expect([other.response.status, other.forwarded]).toEqual([401, undefined]);
  const none = await testFilter(jwt, request("/account", { "x-user": "root" }), use);
  expect(none.response.headers.get("www-authenticate")).toBe('Bearer error="token_missing"');
});

test("sign: the service can compute the same signature", async () => {
  const { forwarded } = await testFilter(sign, request("/pay?x=1"), { options: { keyId: "edge", key: "k" } });
  const params = forwarded?.headers.get("signature-input")?.replace(/^edge=/, "");
  const base = `"@method": GET\n"@path": /pay\n"@query": ?x=1\n"@signature-params": ${params}`;
  const expected = createHmac("sha256", "k").update(base).digest("base64");
  expect(forwarded?.headers.get("signature")).toBe(`edge=:${expected}:`);
});

test.for([
  { asked: "b", routedTo: "web-b", told: "b" },
  { asked: "c", routedTo: undefined, told: "a" },
])("ab: x-variant $asked goes to $routedTo", async ({ asked, routedTo, told }) => {
  const use = { options: { header: "x-variant" }, clusters: ["web-b"] };
  const result = await testFilter(ab, request("/", { "x-variant": asked }), use);
  expect(result.routedTo).toBe(routedTo);
  expect(result.counts).toEqual([["variant", told]]);
  expect(result.notes).toEqual({ variant: told });
  expect(result.response.headers.get("x-variant")).toBe(told);
});

test("redact: card numbers in text are masked, pictures are left alone", async () => {
  const upstream = (type: string) => () =>
    new Response("card 4111-1111-1111-1234.", { headers: { "content-type": type } });
  const text = await testFilter(redact, request(), { upstream: upstream("text/plain") });
  expect(await text.response.text()).toBe("card •••• 1234.");
  const picture = await testFilter(redact, request(), { upstream: upstream("image/png") });
  expect(await picture.response.text()).toBe("card 4111-1111-1111-1234.");
});

test("maintenance: closed for everybody but those with the preview", async () => {
  const use = { options: { closed: true, until: "2999-01-01T00:00:00Z", preview: "s3cret" } };
  const { response, forwarded } = await testFilter(maintenance, request(), use);
  expect([response.status, forwarded]).toEqual([503, undefined]);
  expect(Number(response.headers.get("retry-after"))).toBeGreaterThan(86_400);
  const preview = await testFilter(maintenance, request("/", { "x-preview": "s3cret" }), use);
  expect(preview.response.status).toBe(200);
});
