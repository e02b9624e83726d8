import { expect, test } from "vitest";
import { type ContainerFacts, containerOptions, hostsFileText } from "./container-options.ts";

const facts: ContainerFacts = {
  owner: "gld123456",
  instanceId: "shop-web-r1-aaaaa",
  part: "app",
  image: "gilliam-image:abc",
  uid: 204_100,
  command: ["/bin/sh", "-c", "node server.js"],
  folder: "/app",
  environment: { PORT: "8080" },
  resources: { cpu: 0.5, memoryBytes: 268_435_456 },
  networkContainer: "gld123456-net-shop-web-r1-aaaaa",
  hostsFile: "/state/hosts",
  resolverFile: "/state/resolv.conf",
  volumeFolder: undefined,
  imageUser: "",
  needs: {},
  imageHealthCheck: false,
  terminal: false,
  stdin: false,
};

test("without a word in the manifest, everything is denied", () => {
  const { User, HostConfig, Healthcheck } = containerOptions(facts);
  expect(User).toBe("204100:204100");
  expect(Healthcheck).toEqual({ Test: ["NONE"] });
  expect(HostConfig).toMatchObject({
    Privileged: false,
    ReadonlyRootfs: true,
    CapDrop: ["ALL"],
    CapAdd: [],
    SecurityOpt: ["no-new-privileges"], // And the engine's default seccomp profile, which is only ever switched off by name.
    NetworkMode: "container:gld123456-net-shop-web-r1-aaaaa",
    Binds: ["/state/hosts:/etc/hosts:ro", "/state/resolv.conf:/etc/resolv.conf:ro"],
    PidsLimit: 4096,
    NanoCpus: 500_000_000,
    Memory: 268_435_456,
    MemorySwap: 268_435_456,
    RestartPolicy: { Name: "no" },
  });
  expect(HostConfig).not.toHaveProperty("Devices");
});

test.for([
  { imageUser: "redis", user: "redis" },
  { imageUser: "1001:0", user: "1001:0" },
  { imageUser: "root", user: "204100:204100" },
  { imageUser: "0:0", user: "204100:204100" },
])("an image that wants to be $imageUser runs as $user", ({ imageUser, user }) => {
  expect(containerOptions({ ...facts, imageUser }).User).toBe(user);
});

test("a volume belongs to its own user, whatever the image says", () => {
  const options = containerOptions({ ...facts, imageUser: "redis", volumeFolder: "/state/volumes/db" });
  expect(options.User).toBe("204100:204100");
  expect(options.HostConfig?.Binds).toContain("/state/volumes/db:/volume:rw");
});

test("each loosening is one key", () => {
  const needs = {
    user: "image",
    writableRoot: true,
    newPrivileges: true,
    capabilities: ["NET_BIND_SERVICE"],
    mounts: ["/srv/data:/data:ro"],
    scratch: ["/var/cache/nginx"],
  } as const;
  const { User, HostConfig } = containerOptions({
    ...facts,
    imageUser: "root",
    needs: {
      ...needs,
      capabilities: [...needs.capabilities],
      mounts: [...needs.mounts],
      scratch: [...needs.scratch],
    },
  });
  expect(User).toBe("root");
  expect(HostConfig).toMatchObject({
    ReadonlyRootfs: false,
    SecurityOpt: [],
    CapDrop: ["ALL"],
    CapAdd: ["NET_BIND_SERVICE"],
  });
  expect(HostConfig?.Binds).toContain("/srv/data:/data:ro");
  expect(Object.keys(HostConfig?.Tmpfs as object)).toContain("/var/cache/nginx");
});

test("what the image starts by itself is left to it", () => {
  const options = containerOptions({ ...facts, command: undefined, folder: undefined });
  expect(options).not.toHaveProperty("Entrypoint");
  expect(options).not.toHaveProperty("Cmd");
  expect(options).not.toHaveProperty("WorkingDir");
});

test("declared dependencies are names of the instance's own localhost", () => {
  expect(hostsFileText(["api", "ledger.bank"])).toBe(
    "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.0.1 api\n127.0.0.1 ledger.bank\n",
  );
});
