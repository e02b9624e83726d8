import { expect, test } from "vitest";
import { HttpsRedirect } from "./redirect.ts";

test.for([
  { authority: "shop.test", target: "/a?b=c", port: 443, location: "location: https://shop.test/a?b=c\r\n" },
  { authority: "Shop.Test:80", target: "/", port: 8443, location: "location: https://shop.test:8443/\r\n" },
  { authority: "other.test", target: "/", port: 443, location: undefined }, // There is no certificate for it.
  { authority: "shop.test", target: "*", port: 443, location: undefined },
])("$authority$target goes to $location", ({ authority, target, port, location }) => {
  const redirect = new HttpsRedirect((host) => host === "shop.test", port);
  expect(redirect.locationOf(authority, target)).toBe(location);
});
