import { expect, test } from "vitest";
import { RunSpec } from "../model/run-spec.ts";
import { instanceEnvironment } from "./environment.ts";

const prepared = {
  address: { host: "10.64.0.2", port: 8080 },
  bindHost: "0.0.0.0",
  namespace: "/run/netns/x",
  home: "/state/home",
  temporary: "/state/tmp",
  volume: "/state/volumes/shop-db",
  spools: { stdout: "", stderr: "" },
};
const spec = RunSpec.parse({
  formation: "shop",
  service: "web",
  release: 3,
  image: { kind: "platform" },
  port: 8080,
  protocol: "http",
  health: { kind: "tcp" },
  resources: {},
  environment: { LOG_LEVEL: "info", HOME: "/elsewhere", PORT: "1" },
  secrets: { KEY: "s3cret" },
  dependencies: [
    {
      name: "db",
      port: 5432,
      protocol: "tcp",
      optional: false,
      url: "postgres://u@{host}:{port}/db?at={host}",
    },
    { name: "ledger.bank", port: 7002, protocol: "http", optional: false, url: "http://{host}:{port}" },
  ],
  stop: { signal: "SIGTERM", graceMs: 0 },
});
const facts = {
  instanceId: "shop-web-r3-aaaaa",
  spec,
  prepared,
  localPorts: [],
  folder: "/image",
  nodeFolder: "/node",
  platformFolder: "/platform",
};

test("an instance gets its own environment, whole, and cannot be told to be elsewhere", () => {
  expect(instanceEnvironment(facts)).toEqual({
    LANG: "C.UTF-8",
    PATH: "/node:/image/.venv/bin:/image/node_modules/.bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    LOG_LEVEL: "info",
    KEY: "s3cret",
    DB_URL: "postgres://u@127.0.0.1:5432/db?at=127.0.0.1",
    DB_HOST: "127.0.0.1",
    DB_PORT: "5432",
    LEDGER_BANK_URL: "http://127.0.0.1:7002",
    LEDGER_BANK_HOST: "127.0.0.1",
    LEDGER_BANK_PORT: "7002",
    HOME: "/state/home",
    TMPDIR: "/state/tmp",
    HOST: "0.0.0.0",
    PORT: "8080",
    VOLUME: "/state/volumes/shop-db",
    GILLIAM_FORMATION: "shop",
    GILLIAM_SERVICE: "web",
    GILLIAM_INSTANCE: "shop-web-r3-aaaaa",
    GILLIAM_RELEASE: "3",
  });
});

test("on a shared loopback the ports are those the sidecar gave", () => {
  const localPorts = [{ dependency: "db", host: "127.0.0.1", port: 40_001 }];
  expect(instanceEnvironment({ ...facts, localPorts })).toMatchObject({
    DB_URL: "postgres://u@127.0.0.1:40001/db?at=127.0.0.1",
    DB_PORT: "40001",
  });
});
