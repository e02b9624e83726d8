import type { RawHandle } from "./handles.ts";
import type { ListenerPlan, SocketAddress } from "./messages.ts";

export interface OpenListener {
  readonly plan: ListenerPlan;
  /** Sockets that share its port; most have one. */
  readonly handles: readonly RawHandle[];
  /** Settles when a worker listens or says why it cannot. */
  readonly opened: PromiseWithResolvers<SocketAddress>;
}

/**
 * Which sockets of a listener the worker in place `slot` of `slots` accepts on; pure. Each socket has exactly one worker,
 * where there are enough of them; a socket that is alone is listened on by all. Pages and the local-ports API are the
 * first one's: whoever asks there speaks with one worker, which asks the others.
 */
export function socketsOf({ plan, handles }: OpenListener, slot: number, slots: number): number[] {
  if (plan.kind === "admin" || plan.kind === "api") return slot === 0 ? [0] : [];
  const own = handles.map((_, socket) => socket).filter((socket) => socket % slots === slot);
  return own.length > 0 ? own : [slot % handles.length];
}
