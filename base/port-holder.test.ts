import { createServer, type AddressInfo } from "node:net";
import { expect, test } from "vitest";
import { portHolder } from "./port-holder.ts";

test.runIf(process.platform === "linux")(
  "who holds a port is named, and nobody once it is free",
  async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    expect(portHolder(port)).toContain(`(process ${process.pid})`);
    await new Promise((resolve) => server.close(resolve));
    expect(portHolder(port)).toBeUndefined();
  },
);
