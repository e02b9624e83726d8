import { expect, test } from "vitest";
import { parseCommand, type Caller } from "./options.ts";

const caller: Caller = { env: {}, uid: 0, cwd: "/home/ada", root: "/opt/gilliam" };

test("without flags: the shop, root's state folder, no port asked for", () => {
  expect(parseCommand(["up"], caller)).toEqual({
    kind: "up",
    options: {
      state: "/var/lib/gilliam",
      formation: "/opt/gilliam/examples/shop",
      ports: {},
      tls: undefined,
      isPublic: false,
      network: "auto",
      driver: "auto",
      dockerSocket: "/var/run/docker.sock",
    },
  });
});

test.for([
  { env: {}, uid: 1000, state: "/tmp/.local/state/gilliam" },
  { env: { HOME: "/home/ada" }, uid: 1000, state: "/home/ada/.local/state/gilliam" },
  { env: { HOME: "/home/ada", XDG_STATE_HOME: "/var/x" }, uid: 1000, state: "/var/x/gilliam" },
  { env: { GILLIAM_STATE: "mine" }, uid: 0, state: "/home/ada/mine" },
])("the state folder of $env as user $uid is $state", ({ env, uid, state }) => {
  expect(parseCommand(["down"], { ...caller, env, uid })).toEqual({
    kind: "down",
    options: { state, purge: false },
  });
});

test("every wrong flag is told at once, with exit code 2 in mind", () => {
  const attempt = () =>
    parseCommand(
      ["up", "--edge-port", "70000", "--control-port=7x", "--driver", "podman", "--network=own"],
      caller,
    );
  expect(attempt).toThrow(
    expect.objectContaining({
      code: "usage",
      problems: [
        expect.stringContaining("--edge-port"),
        expect.stringContaining("--control-port"),
        expect.stringContaining("--driver must be auto"),
        expect.stringContaining("--network"),
      ],
    }),
  );
});

test("the same port twice is refused, two free ones are not", () => {
  expect(() => parseCommand(["up", "--edge-port=9000", "--control-port=9000"], caller)).toThrow(
    expect.objectContaining({ problems: ["port 9000 is given twice, for control and edge"] }),
  );
  expect(parseCommand(["up", "--edge-port=0", "--control-port=0"], caller)).toMatchObject({
    options: { ports: { edge: 0, control: 0 } },
  });
});

test("help names every flag and is asked for in any place", () => {
  const help = parseCommand(["up", "--public", "--help"], caller);
  expect(help).toMatchObject({ kind: "help", text: expect.stringContaining("--edge-admin-port") as string });
});

test.for([
  { args: ["--edge-tls-port", "8443"], tls: { port: 8443, dir: undefined } },
  { args: ["--edge-tls-port", "0", "--tls-dir", "certs"], tls: { port: 0, dir: "/home/ada/certs" } },
])("$args asks for TLS", ({ args, tls }) => {
  expect(parseCommand(["up", ...args], caller)).toMatchObject({ options: { tls } });
});

test("what is wrong with TLS is said", () => {
  expect(() => parseCommand(["up", "--tls-dir", "certs"], caller)).toThrow(
    expect.objectContaining({ problems: ["--tls-dir needs --edge-tls-port, like 443 or 8443"] }),
  );
  expect(() => parseCommand(["up", "--edge-tls-port", "https"], caller)).toThrow(
    expect.objectContaining({
      problems: ['--edge-tls-port must be a port from 1 to 65535, or 0 for a free one; it is "https"'],
    }),
  );
});

test.for([
  { args: [], edgeWorkers: undefined },
  { args: ["--edge-workers", "auto"], edgeWorkers: "auto" },
  { args: ["--edge-workers", "4"], edgeWorkers: 4 },
])("the edge's workers: $args", ({ args, edgeWorkers }) => {
  expect(parseCommand(["up", ...args], caller)).toMatchObject({ options: { edgeWorkers } });
});

test.for(["0", "257", "many"])("--edge-workers %s is refused", (text) => {
  expect(() => parseCommand(["up", "--edge-workers", text], caller)).toThrow(
    expect.objectContaining({ problems: [`--edge-workers must be auto or 1 to 256; it is "${text}"`] }),
  );
});
