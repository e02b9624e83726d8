import { expect, test } from "vitest";
import { formation, instance, release, world } from "../test/fixtures/world.ts";
import { buildOrders, keepImages } from "./builds.ts";

const image = (letter: string, build?: string) => ({
  kind: "source" as const,
  image: `image-${letter}`,
  source: `source-${letter}`,
  ...(build === undefined ? {} : { build }),
});
const STATE = world({
  formations: [formation({ web: { release: 2, canary: { release: 3, weight: 10 } }, api: { release: 2 } })],
  releases: [
    release(1, { web: { spec: { image: image("a") } } }),
    release(2, { web: { spec: { image: image("b", "make") } }, api: { spec: { image: image("x") } } }),
    release(3, { web: { spec: { image: image("c") } } }),
  ],
  instances: [
    instance("w1", { spec: { image: image("a") } }),
    instance("w2", { want: "drain", spec: { image: image("z") } }),
    instance("b1", { boot: true, hostId: "c", spec: { image: { kind: "platform" } } }),
  ],
});

test("a host builds what its instances need and what its services are about to need", () => {
  expect(buildOrders(STATE, "a")).toEqual([
    { image: "image-a", source: "source-a" },
    { image: "image-b", source: "source-b", build: "make" },
    { image: "image-c", source: "source-c" },
  ]);
  expect(buildOrders(STATE, "b")).toEqual([]);
});

test("a host keeps what some release or one of its instances can still need", () => {
  expect(keepImages(STATE, "a").toSorted()).toEqual(["image-a", "image-b", "image-c", "image-x", "image-z"]);
  expect(keepImages(STATE, "b")).not.toContain("image-z");
});
