import { assert, constantFrom, property, string } from "fast-check";
import { expect, test } from "vitest";
import { atOnce } from "../../base/slices.ts";
import { FeedMessage } from "../../model/mesh.ts";
import { feedMessageSteps } from "./feed-message.ts";

const read = (line: string) => atOnce(feedMessageSteps(line));
const cluster = (index: number, host = "127.0.0.1") => ({
  name: `s${index}.load`,
  protocol: "http",
  endpoints: [{ id: `s${index}-0`, host, port: 8000, release: 1 }],
});
const plain = (count: number, host?: string) => ({
  clusters: Array.from({ length: count }, (_, index) => cluster(index, host)),
  edges: [],
  routes: Array.from({ length: count }, (_, index) => ({
    id: `r${index}`,
    host: `h${index}.test`,
    cluster: `s${index}.load`,
  })),
});
const config = (count: number, host?: string) => ({
  kind: "config",
  config: { epoch: 7, ...plain(count, host) },
});
const removed = { clusters: ["gone.load"], edges: [], routes: ["r9"] };
const delta = (count: number) => ({
  kind: "delta",
  delta: { epoch: 8, base: 7, set: plain(count), remove: removed },
});

test.for([config(0), config(3), config(500), delta(2), delta(500), { kind: "alive" }])(
  "a message is what its schema makes of it, long or short (%#)",
  (message) => {
    expect(read(JSON.stringify(message))).toEqual(FeedMessage.parse(message));
  },
);

test("a long line is read in many steps", () => {
  const steps = feedMessageSteps(JSON.stringify(config(500)));
  let count = 0;
  while (steps.next().done !== true) count += 1;
  expect(count).toBeGreaterThan(1000);
});

const CHARACTERS = ["[", "]", "{", "}", '"', ",", ":", "\\", " ", "é", "€", "\n"];

test("text in strings is not taken for brackets", () => {
  assert(
    property(string({ minLength: 1, unit: constantFrom(...CHARACTERS) }), (host) => {
      const message = config(400, host);
      expect(read(JSON.stringify(message))).toEqual(FeedMessage.parse(message));
    }),
    { numRuns: 30 },
  );
});

const long = JSON.stringify(config(500));
test.for([
  ["cut short", long.slice(0, -3), "not JSON"],
  ["an item cut out of it", long.replace('{"name":"s3.load"', '"name":"s3.load"'), "not JSON"],
  ["two commas", long.replace("}]},{", "}]},,{"), "not JSON"],
  ["something between two items", long.replace("}]},{", "}]},1,{"), "does not understand"],
  ["a number that is none", long.replace('"port":8000', '"port":80000'), "does not understand"],
  ["a key that nobody knows", long.replace('"release":1', '"release":1,"color":2'), "does not understand"],
  ["a list that nobody knows", long.replace('"edges":[]', '"edges":[],"rows":[{}]'), "does not understand"],
  ["text behind it", `${long}{}`, "not JSON"],
  ["another bracket at its end", `${long}]`, "not JSON"],
])("a long line with %s is refused", ([, line, reason]) => {
  expect(() => read(line!)).toThrow(reason);
});

test("a list that is there twice is what JSON.parse makes of it", () => {
  const twice = long.replace('"edges":[]', '"clusters":[{"name":"a.b","protocol":"http","endpoints":[]}]');
  expect(() => read(twice)).toThrow("does not understand");
});
