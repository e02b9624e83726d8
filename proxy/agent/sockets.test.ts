import { expect, test } from "vitest";
import type { ListenerPlan, SocketAddress } from "./messages.ts";
import { socketsOf } from "./sockets.ts";

const listener = (kind: "edge" | "admin", sockets: number) => ({
  plan: { kind, id: "one" } as ListenerPlan,
  handles: Array.from({ length: sockets }, () => ({ close: () => undefined })),
  opened: Promise.withResolvers<SocketAddress>(),
});

test.for([
  { sockets: 2, slots: 2, taken: [[0], [1]] },
  {
    sockets: 4,
    slots: 2,
    taken: [
      [0, 2],
      [1, 3],
    ],
  }, // Fewer workers than before: no socket is left alone.
  { sockets: 1, slots: 3, taken: [[0], [0], [0]] },
  { sockets: 2, slots: 3, taken: [[0], [1], [0]] },
])("$sockets sockets among $slots workers", ({ sockets, slots, taken }) => {
  const places = Array.from({ length: slots }, (_, slot) =>
    socketsOf(listener("edge", sockets), slot, slots),
  );
  expect(places).toEqual(taken);
});

test("pages are the first worker's", () => {
  expect([0, 1].map((slot) => socketsOf(listener("admin", 1), slot, 2))).toEqual([[0], []]);
});
