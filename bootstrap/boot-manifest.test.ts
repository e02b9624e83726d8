import { expect, test } from "vitest";
import { BootManifest } from "../model/boot.ts";
import { bootManifest } from "./boot-manifest.ts";

const facts = {
  state: "/var/lib/gilliam",
  hostId: "one",
  ports: { edge: 8080, control: 7000, executor: 7010, sidecar: 7020, edgeAdmin: 7030 },
  isPublic: false,
  platform: "0123456789abcdef",
};

test("control, sidecar and edge, and only the sidecar may enter namespaces", () => {
  const { instances } = BootManifest.parse(bootManifest(facts));
  expect(instances.map(({ instanceId, privileges }) => [instanceId, privileges])).toEqual([
    ["gilliam-control-1", "none"],
    ["gilliam-sidecar-1", "sidecar"],
    ["gilliam-edge-1", "none"],
  ]);
});

test("the edge listens on this machine only, unless it is public", () => {
  const listens = (isPublic: boolean) =>
    bootManifest({ ...facts, isPublic }).instances.at(-1)?.spec.environment["GILLIAM_EDGE_LISTEN"];
  expect([listens(false), listens(true)]).toEqual(["127.0.0.1:8080", "0.0.0.0:8080"]);
});

test("with TLS the edge listens on one port more, and finds its certificates", () => {
  const tls = { port: 8443, dir: "/etc/gilliam/tls", isSelfSigned: false };
  const { instances } = bootManifest({ ...facts, tls });
  expect(instances.at(-1)?.spec.environment).toMatchObject({
    GILLIAM_EDGE_TLS_LISTEN: "127.0.0.1:8443",
    GILLIAM_EDGE_TLS_DIR: "/etc/gilliam/tls",
  });
});
