import type { FastifyInstance } from "fastify";
import type { NumberedEvent } from "../events.ts";
import type { ApiParts } from "./parts.ts";
import { peopleRoute } from "./route.ts";

const HEARTBEAT_MS = 10_000;

/** Server-sent events: what happens, resumable with `last-event-id`. */
export function eventRoutes(app: FastifyInstance, { events, streams, clock }: ApiParts): void {
  peopleRoute(
    app,
    "events",
    "What happens, as server-sent events; `last-event-id` resumes, `last-event-id: 0` tells all that is kept.",
    ({ request, reply }) => {
      const header = request.headers["last-event-id"];
      const from = typeof header === "string" && /^\d{1,15}$/.test(header) ? Number(header) : undefined;
      const stream = streams.open(reply, "text/event-stream; charset=utf-8");
      stream.write("retry: 2000\n\n");
      const send = (event: NumberedEvent) => void stream.write(eventText(event));
      if (from !== undefined) for (const event of events.after(from)) send(event);
      const listening = events.listen(send);
      const heartbeat = clock.every(HEARTBEAT_MS, () => void stream.write(": alive\n\n"));
      stream.signal.addEventListener(
        "abort",
        () => {
          listening[Symbol.dispose]();
          heartbeat[Symbol.dispose]();
        },
        { once: true },
      );
    },
  );
}

/** JSON holds no line break, so the data is one line. */
export function eventText({ id, event }: NumberedEvent): string {
  return `id: ${id}\nevent: ${event.kind}\ndata: ${JSON.stringify(event)}\n\n`;
}
