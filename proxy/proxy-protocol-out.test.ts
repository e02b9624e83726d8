import { expect, test } from "vitest";
import { proxyHeaderText } from "./proxy-protocol-out.ts";
import { parseProxyHeader } from "./proxy-protocol.ts";

test.for([
  { address: "192.0.2.1", own: "198.51.100.2", said: ["192.0.2.1", "198.51.100.2"] },
  { address: "::ffff:192.0.2.1", own: "198.51.100.2", said: ["192.0.2.1", "198.51.100.2"] },
  { address: "2001:db8::1", own: "::1", said: ["2001:db8::1", "::1"] },
  { address: "2001:DB8:0:0:1::", own: "::", said: ["2001:db8:0:0:1::", "::"] },
  { address: "fe80::1%eth0", own: "fe80::2%eth0", said: ["fe80::1", "fe80::2"] },
  { address: "::192.0.2.1", own: "1:2:3:4:5:6:7:8", said: ["::c000:201", "1:2:3:4:5:6:7:8"] },
  { address: "192.0.2.1", own: "2001:db8::1", said: undefined },
  { address: "", own: "", said: undefined },
])("$address and $own can be read again", ({ address, own, said }) => {
  const source = said && { address: said[0], port: 65_535, ownAddress: said[1], ownPort: 1 };
  for (const version of ["v1", "v2"] as const) {
    const text = proxyHeaderText(version, { address, port: 65_535, ownAddress: own, ownPort: 1 });
    expect(parseProxyHeader(Buffer.from(text, "latin1"))).toEqual({
      kind: "whole",
      size: text.length,
      source,
    });
  }
});

test("without a client nobody is named", () => {
  for (const version of ["v1", "v2"] as const) {
    const header = parseProxyHeader(Buffer.from(proxyHeaderText(version, undefined), "latin1"));
    expect(header).toMatchObject({ kind: "whole", source: undefined });
  }
});
