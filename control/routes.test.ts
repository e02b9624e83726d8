import { expect, test } from "vitest";
import { formation, instance, release, world } from "../test/fixtures/world.ts";
import { buildMesh } from "./mesh.ts";
import { publicRoutes, routeViews } from "./routes.ts";

const PUBLIC = { edge: [{ host: "shop.localhost", path: "/" }] };
const DESIRE = { release: 1 };

test("the first by address has a contested host and path, and the other is told", () => {
  const state = world({
    formations: [formation({ web: DESIRE }), formation({ app: DESIRE }, { name: "art", state: "down" })],
    releases: [release(1, { web: PUBLIC }), release(1, { app: PUBLIC }, { formation: "art" })],
  });
  const { routes, conflicts } = publicRoutes(state);
  expect(routes).toEqual([{ id: "shop.localhost/", host: "shop.localhost", path: "/", cluster: "app.art" }]);
  expect(conflicts).toEqual([
    "web.shop asks for shop.localhost/, which app.art has: change `edge:` of one of them",
  ]);
});

test.for([
  { canary: undefined, releases: [1, 1, 1], shares: [[1, 100]] },
  {
    canary: undefined,
    releases: [1, 1, 2],
    shares: [
      [1, 67],
      [2, 33],
    ],
  },
  {
    canary: 10,
    releases: [1, 2],
    shares: [
      [1, 90],
      [2, 10],
    ],
  },
  {
    canary: 10,
    releases: [1],
    shares: [
      [1, 100],
      [2, 0],
    ],
  }, // No instance: its share is the others'.
  { canary: undefined, releases: [], shares: [] },
])(
  "shares add up to a hundred: canary $canary with instances of $releases",
  ({ canary, releases, shares }) => {
    const desire = canary === undefined ? DESIRE : { ...DESIRE, canary: { release: 2, weight: canary } };
    const state = world({
      formations: [formation({ web: desire })],
      releases: [1, 2].map((number) => release(number, { web: PUBLIC })),
      instances: releases.map((number, index) => instance(`w${index}`, { phase: "ready", release: number })),
    });
    const [view] = routeViews(buildMesh(state));
    expect(view?.split.map(({ release, weight }) => [release, weight])).toEqual(shares);
  },
);
