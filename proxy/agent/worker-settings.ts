import type { Http2Limits } from "../http2/limits.ts";
import type { EngineLimits } from "../limits.ts";
import type { AccessLogPolicy } from "./access-log.ts";

/** What the keeper hands its worker over IPC: settings already parsed, and what only the keeper may read. */
export interface WorkerSettings {
  readonly kind: "edge" | "sidecar";
  readonly proxyId: string;
  readonly hostId: string;
  readonly controlUrl: string;
  readonly hostToken: string;
  /** The saved epoch. */
  readonly epochFile: string;
  readonly metricsUrl: string;
  readonly logLevel: string;
  readonly accessLog: AccessLogPolicy & { readonly path: string | undefined };
  readonly feedLineBytesMax: number;
  readonly feedSilentMs: number;
  readonly reportEveryMs: number;
  /** Absent: the defaults. */
  readonly http2Limits?: Http2Limits;
  readonly limits?: EngineLimits;
  /** Absent: no TLS. */
  readonly tls?: TlsWorkerSettings;
  /** Absent: connections begin without a PROXY header. */
  readonly proxyProtocolFrom?: readonly string[];
}

/** What the edge's worker must know to terminate TLS. */
export interface TlsWorkerSettings {
  /** Of the certificates. */
  readonly dir: string;
  readonly defaultCertificate: string;
  readonly unknownName: "default" | "refuse";
  readonly versionMin: "TLSv1.2" | "TLSv1.3";
  readonly sessionMs: number;
  readonly pollMs: number;
  readonly expiryWarningMs: number;
  readonly hsts: string;
  /** Where clients without TLS are sent; undefined: they are served. */
  readonly redirectPort?: number | undefined;
}
