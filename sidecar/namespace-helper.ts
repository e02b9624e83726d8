import { UserError, messageOf } from "../base/errors.ts";
import { type RawHandle, bindTcp } from "../proxy/agent/handles.ts";

/**
 * Runs inside an instance's network namespace for a moment: binds its local ports there and hands the sockets to
 * the keeper. It never listens, so nobody is accepted before the worker is there. One run for all ports.
 */
export type HelperMessage =
  | { readonly kind: "bound"; readonly host: string; readonly port: number }
  | { readonly kind: "failed"; readonly message: string; readonly code: string }
  | { readonly kind: "done" };

function send(message: HelperMessage, handle?: RawHandle): Promise<void> {
  return new Promise((resolve, reject) => {
    process.send?.(message, handle as never, {}, (error) => {
      if (error === null) resolve();
      else reject(error);
    });
  });
}

async function bindAll(ports: readonly number[]): Promise<void> {
  for (const port of ports) {
    const { handle } = bindTcp({ host: "127.0.0.1", port });
    await send({ kind: "bound", host: "127.0.0.1", port }, handle);
    try {
      // `localhost` may resolve to ::1 first. A namespace without IPv6 has no ::1, and needs none.
      await send({ kind: "bound", host: "::1", port }, bindTcp({ host: "::1", port }).handle);
    } catch (error) {
      if (error instanceof UserError && error.code === "port_taken") throw error;
    }
  }
  await send({ kind: "done" });
}

// Loaded without a keeper (`--warm-cache`) it does nothing.
if (process.send !== undefined) start();

function start(): void {
  // Without this Node ends as soon as nothing else is to do, though the keeper has not taken the sockets yet.
  process.channel?.ref();
  bindAll(process.argv.slice(2).map(Number))
    .catch((error: unknown) => {
      const code = error instanceof UserError ? error.code : "internal";
      return send({ kind: "failed", message: messageOf(error), code });
    })
    .finally(() => process.disconnect());
}
